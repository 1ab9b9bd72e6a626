//! The documents, compared with the tree and with a run: files and code that they name exist, and a run goes as they show it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fixture::{Server, content, line};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The texts between backquotes.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_path(span: &str) -> bool {
    let folders = ["src/", "tests/", "examples/", "docs/", "benches/", ".ci/"];
    folders.iter().any(|folder| span.starts_with(folder)) && !span.contains(' ')
}

/// The name in a code span: `Connection::advance`, `VISIT_BYTES`, `Budget`. `None`: it is not a name of the code.
fn item(span: &str) -> Option<&str> {
    let is_name = |text: &str| text.chars().all(|next| next.is_ascii_alphanumeric() || next == '_');
    let last = span.rsplit("::").next()?;
    let is_item = last.starts_with(char::is_uppercase) || last.contains('_') || span.contains("::");
    (is_item && span.split("::").all(is_name)).then_some(last)
}

/// The text of a file, or of all source files below a folder.
pub fn read_all(path: &Path) -> String {
    if !path.is_dir() {
        return fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"));
    files.map(|path| read_all(&path)).collect()
}

/// Checks that the names of the code in `text` occur in the files that it names.
pub fn assert_items_are_in_the_files(text: &str) {
    let code: String = code_spans(text).filter(|span| is_path(span)).map(|path| read_all(&root().join(path))).collect();
    for item in code_spans(text).filter_map(item) {
        let is_word =
            |at: usize| !code[at + item.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_');
        let is_there = code.match_indices(item).any(|(at, _)| is_word(at));
        assert!(is_there, "{item} is in none of the files that are named here: {text}");
    }
}

/// Every document of the project.
fn documents() -> impl Iterator<Item = PathBuf> {
    let in_folder = |folder: &str| fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let folders = ["", "docs", "examples"].into_iter().flat_map(in_folder);
    folders.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
}

#[test]
fn the_files_that_documents_name_exist() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let links = links.filter(|link| !link.is_empty() && !link.contains("://"));
        let linked = links.map(|link| document.parent().unwrap().join(link));
        let named = code_spans(&text).filter(|span| is_path(span)).map(|path| root().join(path));
        missing.extend(linked.chain(named).filter(|path| !path.exists()).map(|path| (document.clone(), path)));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_code_that_contributing_names_exists() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let (_, paths) = text.split_once("## Where do I add").expect("the section is there");
    let (paths, _) = paths.split_once("\n## ").expect("another section follows");
    paths.split("\n\n").for_each(assert_items_are_in_the_files);
}

/// The server sends the reply that the README shows.
#[test]
fn the_server_sends_the_receipt_of_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, shown) =
        readme.split_once("    $ (echo crash.log; cat crash.log) | nc -N 127.0.0.1 9000\n").expect("it is typed");
    let shown = shown.lines().next().unwrap().trim();
    let server = Server::start(&[]);
    assert_eq!(line(server.tcp(), "crash.log", &content(70_000, 1)).unwrap().trim_end(), shown);
}

/// The server prints its addresses as `docs/operations.md` shows them.
#[test]
fn the_lines_on_standard_output_are_as_the_documents_show_them() {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let server = Server::start(&[]);
    let port = server.tcp().port().to_string();
    for shown in ["tcp 127.0.0.1:9000", "udp 127.0.0.1:9000"] {
        assert!(text.contains(&format!("`{shown}`")), "{shown}");
        let (protocol, address) = shown.split_once(' ').unwrap();
        let printed = if protocol == "tcp" { server.tcp() } else { server.udp() };
        assert_eq!(printed.to_string(), address.replace("9000", &port));
    }
}

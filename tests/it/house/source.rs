//! Reads Rust source well enough to tell which file uses something that another file defines.
//!
//! A lexer, `use` trees and re-exports; no more of the language than this project writes. Code under `#[cfg(test)]` is not
//! part of what is read. This module finds uses; it does not know which are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A token of the source, and its line.
#[derive(Debug)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// One name that a `use` brings into a module.
#[derive(Debug)]
struct Import {
    path: Vec<String>,
    name: String,
    is_public: bool,
}

/// One source file.
#[derive(Debug)]
pub struct File {
    pub text: String,
    /// The code outside tests.
    pub tokens: Vec<Token>,
    module: Vec<String>,
    imports: Vec<Import>,
    /// Paths that are written out in the code.
    paths: Vec<Vec<String>>,
    /// Words of the code outside `use` that are not part of a path or a method call.
    words: BTreeSet<String>,
}

impl File {
    fn parse(path: &str, text: String) -> Self {
        let tokens = without_tests(lex(&text));
        let mut file = Self {
            module: module_of(path),
            imports: Vec::new(),
            paths: Vec::new(),
            words: BTreeSet::new(),
            text,
            tokens: Vec::new(),
        };
        let mut at = 0;
        while at < tokens.len() {
            at = file.take(&tokens, at);
        }
        file.tokens = tokens;
        file
    }

    /// Reads the item at `at`, and returns where the next one begins.
    fn take(&mut self, tokens: &[Token], at: usize) -> usize {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let before = if at == 0 { "" } else { text(at - 1) };
        if text(at) == "use" && matches!(before, "" | ";" | "{" | "}" | "]" | ")" | "pub") {
            let is_public = matches!(before, ")" | "pub");
            let end = at + tokens[at..].iter().position(|token| token.text == ";").expect("a use ends");
            self.take_use(&tokens[at + 1..end], &[], is_public);
            return end + 1;
        }
        if text(at) == "pub" && text(at + 1) == "(" {
            return at + tokens[at..].iter().position(|token| token.text == ")").expect("a visibility ends") + 1;
        }
        if !is_word(text(at)) || matches!(before, "::" | ".") {
            return at + 1;
        }
        let mut path = vec![text(at).to_owned()];
        let mut next = at + 1;
        while text(next) == "::" && is_word(text(next + 1)) {
            path.push(text(next + 1).to_owned());
            next += 2;
        }
        self.words.insert(path[0].clone());
        self.paths.push(path);
        next
    }

    fn take_use(&mut self, tree: &[Token], prefix: &[String], is_public: bool) {
        for branch in split_at_commas(tree) {
            let words = |tokens: &[Token]| -> Vec<String> {
                tokens.iter().filter(|token| token.text != "::").map(|token| token.text.clone()).collect()
            };
            if let Some(open) = branch.iter().position(|token| token.text == "{") {
                let prefix = [prefix, &words(&branch[..open])].concat();
                self.take_use(&branch[open + 1..branch.len() - 1], &prefix, is_public);
                continue;
            }
            let mut path = [prefix, &words(branch)].concat();
            let mut name = path.last().expect("a branch is not empty").clone();
            if path.len() > 2 && path[path.len() - 2] == "as" {
                path.truncate(path.len() - 2);
            }
            // `use a::{self}` brings in `a`.
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
                name = if name == "self" { path[path.len() - 1].clone() } else { name };
            }
            self.imports.push(Import { path, name, is_public });
        }
    }

    /// The number of lines from `fn` to the closing brace, of every function, with its name and line.
    pub fn functions(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        let tokens = &self.tokens;
        let starts = (0..tokens.len()).filter(|&at| tokens[at].text == "fn" && is_word(&tokens[at + 1].text));
        starts.filter_map(|start| {
            let mut nesting = 0;
            let body = start
                + tokens[start..].iter().position(|token| match token.text.as_str() {
                    "(" | "[" => {
                        nesting += 1;
                        false
                    }
                    ")" | "]" => {
                        nesting -= 1;
                        false
                    }
                    sign => nesting == 0 && (sign == "{" || sign == ";"),
                })?;
            if tokens[body].text == ";" {
                return None;
            }
            let end = closing(tokens, body);
            Some((&*tokens[start + 1].text, tokens[start].line, tokens[end].line - tokens[start].line + 1))
        })
    }

    /// The paths that are imported or written out.
    pub fn paths(&self) -> impl Iterator<Item = &[String]> {
        self.imports.iter().map(|import| &import.path[..]).chain(self.paths.iter().map(|path| &path[..]))
    }
}

/// All source files, by path.
pub struct Tree {
    pub files: BTreeMap<String, File>,
    modules: BTreeMap<Vec<String>, String>,
}

impl Tree {
    /// Reads `src` of the project, without files that are nothing but tests.
    pub fn read(root: &Path) -> Self {
        let mut found = Vec::new();
        let mut folders = vec![root.join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder can be read") {
                let path = entry.expect("a folder can be read").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                    let name = path
                        .strip_prefix(root)
                        .expect("the file is inside the project")
                        .to_str()
                        .expect("names are UTF-8");
                    found.push((name.to_owned(), fs::read_to_string(&path).expect("a file can be read")));
                }
            }
        }
        Self::new(found)
    }

    fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let parse = |(path, text): (String, String)| (path.clone(), File::parse(&path, text));
        let files: BTreeMap<_, _> = files.into_iter().map(parse).collect();
        let is_module = |path: &&String| *path != "src/main.rs";
        let modules = files.keys().filter(is_module).map(|path| (module_of(path), path.clone())).collect();
        Self { files, modules }
    }

    /// The files that define something that `path` uses.
    pub fn used_by(&self, path: &str) -> BTreeSet<&str> {
        let file = &self.files[path];
        // A re-export is a use only where the name is also used in the file itself.
        let is_use = |import: &&Import| !import.is_public || file.words.contains(&import.name);
        let imported = file.imports.iter().filter(is_use).map(|import| &import.path);
        let written = file.paths.iter().filter(|path| path.len() > 1);
        let mut used: BTreeSet<_> =
            imported.chain(written).filter_map(|used| self.defining_file(&file.module, used)).collect();
        used.remove(path);
        used
    }

    /// The file to which `path`, as written in the module `from`, leads. `None`: it is outside the project.
    fn defining_file(&self, from: &[String], path: &[String]) -> Option<&str> {
        let (mut module, rest) = match path[0].as_str() {
            "crate" | "intake" => (Vec::new(), &path[1..]),
            "self" => (from.to_vec(), &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                (from[..from.len().checked_sub(ups)?].to_vec(), &path[ups..])
            }
            _ if self.in_scope(from, &path[0]) => (from.to_vec(), path),
            _ => return None,
        };
        for (at, segment) in rest.iter().enumerate() {
            let child = [&module[..], std::slice::from_ref(segment)].concat();
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            if let Some(import) = self.import(&module, segment) {
                return self.defining_file(&module, &[&import.path[..], &rest[at + 1..]].concat());
            }
            break;
        }
        self.modules.get(&module).map(String::as_str)
    }

    fn in_scope(&self, module: &[String], name: &str) -> bool {
        let child = [module, &[name.to_owned()]].concat();
        self.modules.contains_key(&child) || self.import(module, name).is_some()
    }

    fn import(&self, module: &[String], name: &str) -> Option<&Import> {
        let file = &self.files[self.modules.get(module)?];
        // `use x::x` would lead back to itself.
        file.imports.iter().find(|import| import.name == name && import.path[0] != name)
    }

    /// The groups of files that all use one another, directly or through others.
    pub fn circles(&self) -> BTreeSet<Vec<&str>> {
        let uses: Uses = self.files.keys().map(|path| (path.as_str(), self.used_by(path))).collect();
        let reach: Uses = uses.keys().map(|path| (*path, reached_from(path, &uses))).collect();
        let circle_of = |path: &str| -> Vec<&str> {
            reach[path].iter().copied().filter(|other| reach[other].contains(path)).collect()
        };
        uses.keys().map(|path| circle_of(path)).filter(|circle| circle.len() > 1).collect()
    }
}

type Uses<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn reached_from<'a>(path: &'a str, uses: &Uses<'a>) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![path]);
    while let Some(path) = open.pop() {
        open.extend(uses[path].iter().filter(|used| reached.insert(**used)));
    }
    reached
}

fn split_at_commas(tree: &[Token]) -> Vec<&[Token]> {
    let (mut branches, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, token) in tree.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 0 => {
                branches.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[start..]);
    branches.retain(|branch| !branch.is_empty());
    branches
}

/// `src/net/mod.rs` and `src/net.rs` are both the module `net`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")).expect("a source file");
    path.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).map(str::to_owned).collect()
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The index of the brace that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    let is_end = |token: &Token| {
        depth += i32::from(token.text == "{") - i32::from(token.text == "}");
        depth == 0
    };
    open + tokens[open..].iter().position(is_end).expect("braces are closed")
}

fn without_tests(mut tokens: Vec<Token>) -> Vec<Token> {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    while let Some(start) =
        tokens.windows(CFG_TEST.len()).position(|window| window.iter().map(|token| &token.text).eq(CFG_TEST))
    {
        let is_end = |token: &Token| matches!(token.text.as_str(), "{" | ";");
        let mut end = start + tokens[start..].iter().position(is_end).expect("an item ends");
        if tokens[end].text == "{" {
            end = closing(&tokens, end);
        }
        tokens.drain(start..=end);
    }
    tokens
}

/// The tokens of `text`, without comments, and with an empty string for every literal.
fn lex(text: &str) -> Vec<Token> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest, first);
        let (token, tail) = rest.split_at(length);
        let is_comment = token.starts_with("//") || token.starts_with("/*");
        if !first.is_whitespace() && !is_comment {
            let is_literal = token.len() > 1 && (token.ends_with(['"', '#']) || token.ends_with('\''));
            tokens.push(Token { text: if is_literal { String::new() } else { token.to_owned() }, line });
        }
        line += token.matches('\n').count();
        rest = tail;
    }
    tokens
}

fn token_length(rest: &str, first: char) -> usize {
    let word = |from: usize| {
        from + rest[from..].find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len() - from)
    };
    let raw = rest.trim_start_matches(['b', 'r']).trim_start_matches('#');
    let prefix = rest.len() - raw.len();
    match first {
        _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
        _ if rest.starts_with("/*") => rest.find("*/").expect("a comment ends") + 2,
        _ if rest.starts_with("::") => 2,
        'b' | 'r' if raw.starts_with('"') && rest[..prefix].contains('r') => {
            let end = format!("\"{}", "#".repeat(rest[..prefix].matches('#').count()));
            prefix + 1 + raw[1..].find(&end).expect("a raw string ends") + end.len()
        }
        'b' if rest[1..].starts_with('"') => 1 + quoted(&rest[1..], '"'),
        'b' if rest[1..].starts_with('\'') => 1 + quoted(&rest[1..], '\''),
        '"' => quoted(rest, '"'),
        '\'' if is_char(rest) => quoted(rest, '\''),
        '\'' => word(1),
        _ if first.is_alphanumeric() || first == '_' => word(0),
        _ => first.len_utf8(),
    }
}

/// A character and not a lifetime.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, next)| {
        let is_end = *next == quote && !escaped;
        escaped = *next == '\\' && !escaped;
        is_end
    });
    end.expect("a literal ends").0 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree::new(files.iter().map(|(path, text)| (format!("src/{path}"), (*text).to_owned())))
    }

    fn used(files: &[(&str, &str)]) -> Vec<String> {
        let tree = tree(files);
        let first = format!("src/{}", files[0].0);
        tree.used_by(&first).into_iter().map(|path| path["src/".len()..].to_owned()).collect()
    }

    #[test]
    fn a_use_leads_to_the_file_that_defines_the_name() {
        let wanted = [("a.rs", "use crate::b::B;"), ("b.rs", "pub struct B;")];
        assert_eq!(used(&wanted), ["b.rs"]);
        let nested = [("a.rs", "use crate::{b::{self as e, B}, c::C as D};"), ("b.rs", ""), ("c.rs", "")];
        assert_eq!(used(&nested), ["b.rs", "c.rs"]);
        assert_eq!(used(&[("a/x.rs", "use super::super::b::B;"), ("a/mod.rs", ""), ("b.rs", "")]), ["b.rs"]);
        assert_eq!(used(&[("a/x.rs", "use super::Y;"), ("a.rs", "struct Y;"), ("b.rs", "")]), ["a.rs"]);
        assert!(used(&[("a.rs", "use std::net::b;\nuse mio::net;"), ("net.rs", ""), ("b.rs", "")]).is_empty());
    }

    #[test]
    fn a_re_export_is_followed_to_the_definition() {
        let face = "mod x;\nmod y;\npub use x::X;\npub use y::Y;";
        assert_eq!(used(&[("b/y.rs", "use super::X;"), ("b/mod.rs", face), ("b/x.rs", "")]), ["b/x.rs"]);
        assert_eq!(
            used(&[("a.rs", "use crate::b::{X, Y};"), ("b.rs", face), ("b/x.rs", ""), ("b/y.rs", "")]),
            ["b/x.rs", "b/y.rs"]
        );
        // A re-export alone is no use.
        assert!(used(&[("b.rs", face), ("b/x.rs", ""), ("b/y.rs", "")]).is_empty());
        assert_eq!(used(&[("b.rs", &format!("{face} fn f(x: X) {{}}")), ("b/x.rs", ""), ("b/y.rs", "")]), ["b/x.rs"]);
    }

    #[test]
    fn a_path_in_the_code_counts_as_well() {
        assert_eq!(used(&[("a.rs", "fn f() { crate::b::g() }"), ("b.rs", "")]), ["b.rs"]);
        assert_eq!(used(&[("a.rs", "mod x;\nfn f() { x::g::<T>(x) }"), ("a/x.rs", "")]), ["a/x.rs"]);
        let by_module = [("a.rs", "use crate::b;\nfn f() { b::C }"), ("b.rs", "pub use c::C;"), ("b/c.rs", "")];
        assert_eq!(used(&by_module), ["b.rs", "b/c.rs"]);
        assert!(used(&[("a.rs", "pub(in crate::b) fn f(g: &dyn std::fmt::b) {}"), ("b.rs", "")]).is_empty());
    }

    #[test]
    fn comments_literals_and_tests_do_not_count() {
        let text = "/* crate::b::B */ //! crate::b\nconst A: &[&str] = &[\"crate::b::B\", r#\"\"crate::b::B\"#];\n\
            fn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' || c == b'\\\\' as char }\n\
            #[cfg(test)] use crate::b::B;\n#[cfg(test)]\n#[allow(x)]\nmod tests { use crate::b::B; }";
        assert!(used(&[("a.rs", text), ("b.rs", "")]).is_empty());
        assert_eq!(used(&[("a.rs", &format!("{text} use crate::b::B;")), ("b.rs", "")]), ["b.rs"]);
    }

    #[test]
    fn circles_are_found_whatever_their_length() {
        let files =
            [("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::C;"), ("c.rs", ""), ("d.rs", "use crate::a::A;")];
        assert!(tree(&files).circles().is_empty());
        let closed = [files[0], files[1], ("c.rs", "use crate::a::A;"), files[3]];
        assert_eq!(tree(&closed).circles(), BTreeSet::from([vec!["src/a.rs", "src/b.rs", "src/c.rs"]]));
    }

    #[test]
    fn functions_are_measured_from_their_name_to_their_brace() {
        let text = "trait T { fn none(&self, x: [u8; 4]); }\nfn one() -> [u8; 2] { [0; 2] }\nfn three(\n) {\n}";
        let file = File::parse("src/a.rs", text.to_owned());
        assert_eq!(file.functions().collect::<Vec<_>>(), [("one", 2, 1), ("three", 3, 3)]);
    }
}

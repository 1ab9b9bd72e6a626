//! The rules of the source tree, kept by a test: what may import what, what the ground floor must not name, how long a
//! function may be, and that every limit gives its reason. CONTRIBUTING.md explains them.

mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{File, Tree};

/// Each room of `src`, and its floor. Imports go down: a room may use those of lower floors, and none beside it.
const ROOMS: &[(&str, u8)] = &[
    ("proto", 0),
    ("reactor", 0),
    ("units", 0),
    ("access", 1),
    ("net", 1),
    ("store", 1),
    ("sandbox", 1),
    ("server", 2),
    ("client", 2),
    ("load", 2),
    ("consume", 2),
    ("cli", 3),
    ("main", 4),
];

/// Names that the ground floor must not use: sockets, files, threads and clocks.
const OUTSIDE_WORLD: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "mio",
    "rustix",
    "socket2",
    "nix",
];

const FUNCTION_MAX_LINES: usize = 60;

/// Files that use one another in a circle. Each is a debt: this list gets shorter, never longer.
const KNOWN_CIRCLES: &[&[&str]] = &[];

fn tree() -> Tree {
    Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")))
}

fn room_of(path: &str) -> &str {
    let path = path.strip_prefix("src/").expect("a source file");
    path.split_once('/').map_or(path.trim_end_matches(".rs"), |(room, _)| room)
}

fn floor_of(path: &str) -> u8 {
    let room = room_of(path);
    ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("{path} is in a room without a floor")).1
}

#[test]
fn imports_go_down() {
    let tree = tree();
    let mut faults = Vec::new();
    for path in tree.files.keys().filter(|path| *path != "src/lib.rs") {
        for used in tree.used_by(path) {
            if room_of(path) != room_of(used) && floor_of(used) >= floor_of(path) {
                faults.push(format!("{path} (floor {}) uses {used} (floor {})", floor_of(path), floor_of(used)));
            }
        }
    }
    assert!(faults.is_empty(), "imports must go to a lower floor:\n{}", faults.join("\n"));
}

#[test]
fn the_ground_floor_sees_no_socket_file_thread_or_clock() {
    let tree = tree();
    let on_the_ground = tree.files.iter().filter(|(path, _)| *path != "src/lib.rs" && floor_of(path) == 0);
    let named: Vec<_> =
        on_the_ground.flat_map(|(path, file)| outside_world(file).map(move |name| format!("{path}: {name}"))).collect();
    assert!(named.is_empty(), "proto and reactor must work without these:\n{}", named.join("\n"));
}

fn outside_world(file: &File) -> impl Iterator<Item = String> {
    let begins_with = |path: &String, start: &str| path == start || path.starts_with(&format!("{start}::"));
    let is_outside = move |path: &String| OUTSIDE_WORLD.iter().any(|start| begins_with(path, start));
    file.paths().map(|path| path.join("::")).filter(is_outside)
}

#[test]
fn no_files_use_one_another_in_a_circle() {
    let tree = tree();
    let found = tree.circles();
    let known: BTreeSet<_> = KNOWN_CIRCLES.iter().map(|circle| circle.to_vec()).collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "these files use one another; move what they share to a file below them: {new:#?}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "this circle is gone: take it out of KNOWN_CIRCLES in tests/it/house.rs: {gone:#?}");
}

#[test]
fn functions_fit_on_a_screen() {
    let tree = tree();
    let mut long = Vec::new();
    for (path, file) in &tree.files {
        for (name, line, length) in file.functions().filter(|(.., length)| *length > FUNCTION_MAX_LINES) {
            long.push(format!("{path}:{line}: {name} has {length} lines"));
        }
    }
    assert!(long.is_empty(), "at most {FUNCTION_MAX_LINES} lines a function:\n{}", long.join("\n"));
}

/// Only a limit with a reason can be changed with confidence.
#[test]
fn every_limit_says_why() {
    const ROOMS: [&str; 4] = ["proto", "net", "store", "server"];
    let tree = tree();
    let files = tree.files.iter().filter(|(path, _)| ROOMS.contains(&room_of(path)));
    let silent: Vec<_> = files
        .flat_map(|(path, file)| undocumented_limits(file).map(move |(name, line)| format!("{path}:{line}: {name}")))
        .collect();
    assert!(
        silent.is_empty(),
        "a constant needs a `///` that says why it is as large as it is:\n{}",
        silent.join("\n")
    );
}

/// Constants that are numbers or times, without a doc comment.
fn undocumented_limits(file: &File) -> impl Iterator<Item = (&str, usize)> {
    let lines: Vec<_> = file.text.lines().map(str::trim_start).collect();
    file.tokens.windows(5).filter_map(move |window| {
        let [before, keyword, name, colon, kind] = window else { unreachable!("windows of five") };
        let is_number = kind.text == "Duration" || kind.text.starts_with(['u', 'i', 'f']) && kind.text.len() <= 5;
        let is_parameter = matches!(before.text.as_str(), "<" | ",");
        if keyword.text != "const" || colon.text != ":" || is_parameter || !is_number {
            return None;
        }
        let above = lines[..keyword.line - 1].iter().rev().find(|line| !line.starts_with("#["));
        let has_reason = above.is_some_and(|line| line.starts_with("///"));
        (!has_reason).then_some((name.text.as_str(), name.line))
    })
}

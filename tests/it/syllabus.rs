//! The syllabus of the examples, compared with the tree: it covers every example, and the code that it names exists.

use std::collections::BTreeSet;
use std::fs;

use crate::documents::{assert_items_are_in_the_files, root};

#[test]
fn every_example_has_its_section() {
    let syllabus = fs::read_to_string(root().join("examples/README.md")).unwrap();
    let sections: BTreeSet<_> =
        syllabus.lines().filter_map(|line| Some(line.strip_prefix("### `")?.strip_suffix('`')?.to_owned())).collect();
    let entries = fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let examples: BTreeSet<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(sections, examples);
    for example in &examples {
        assert!(syllabus.contains(&format!("[{example}](#{example})")), "{example} is missing in the table");
    }
}

#[test]
fn the_code_that_it_names_exists() {
    let syllabus = fs::read_to_string(root().join("examples/README.md")).unwrap();
    for section in syllabus.split("\n### ").skip(1) {
        let Some((_, in_the_server)) = section.split_once("*In the server:*") else {
            panic!("a section does not say what the server does with it: {section}")
        };
        let in_the_server = in_the_server.split("\n## ").next().unwrap();
        assert_items_are_in_the_files(in_the_server);
    }
}

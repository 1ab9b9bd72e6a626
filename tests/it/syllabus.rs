//! The syllabus of the examples, held against the tree: it names every example, and what it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backquotes.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

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
fn the_files_and_functions_of_the_server_that_it_names_are_there() {
    let syllabus = fs::read_to_string(root().join("examples/README.md")).unwrap();
    for section in syllabus.split("\n### ").skip(1) {
        let Some((_, in_the_server)) = section.split_once("*In the server:*") else {
            panic!("what the server does with it is not told: {section}")
        };
        let paths = code_spans(in_the_server).filter(|span| span.starts_with("src/") && span.ends_with(".rs"));
        let code: String = paths
            .map(|path| fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")))
            .collect();
        for (_, item) in code_spans(in_the_server).filter_map(|span| span.rsplit_once("::")) {
            let is_there = [format!("fn {item}("), format!("    {item} {{")].iter().any(|spelt| code.contains(spelt));
            assert!(is_there, "{item} is in none of the files that are named: {in_the_server}");
        }
    }
}

//! The inputs that the fuzz targets kept, as tests: each reaches code that no other of them reaches, or has broken
//! something once.

use std::fs;
use std::path::Path;

use crate::properties::Target;

#[test]
fn every_cut_of_every_kept_input_means_the_same() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in Target::ALL {
        let inputs = fs::read_dir(corpus.join(name)).expect("each target has a corpus");
        let mut files: Vec<_> = inputs.map(|entry| entry.expect("the corpus can be read").path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{name}: {} inputs", files.len());
        for file in files {
            println!("{}", file.display());
            target.check_every_cut(&fs::read(&file).expect("an input can be read"));
        }
    }
}

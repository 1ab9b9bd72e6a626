//! Compares the receiver's directory with the expected files, every byte of each.
//!
//! Knows the expectation for each file, but not the reason.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::ending::Expected;
use crate::load::plan::Workload;

/// The size of the pieces that are compared, in bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// A receiver that stores nothing for this long counts as done.
const QUIET: Duration = Duration::from_millis(300);
/// The longest wait for a receiver to be done.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(5);
/// How many findings are listed. Further ones are only counted.
pub const FINDINGS_NAMED: usize = 20;

/// The findings of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Files that were found once and whole, byte for byte.
    pub verified: u64,
    /// Bytes that were compared.
    pub compared_bytes: u64,
    /// Files that are missing although they must exist.
    pub lost: u64,
    /// Copies of files that were found whole more than once.
    pub duplicated: u64,
    /// Files whose bytes differ from those that were sent.
    pub damaged: u64,
    /// Files of uploads that were reset or refused.
    pub unexpected: u64,
    /// Missing files whose outcome is unknown.
    pub open: u64,
    /// Names that are not of this workload.
    pub foreign: u64,
    /// The first findings in words, each with its name.
    pub findings: Vec<String>,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.damaged + self.unexpected == 0
    }

    fn note(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_NAMED {
            self.findings.push(finding);
        }
    }
}

/// Compares `directory` with the files of `workload`. `expected` is indexed by their numbers.
///
/// # Errors
/// The error of reading the directory. A file that cannot be read counts as damaged.
pub fn verify(workload: &Workload, expected: &[Expected], directory: &Path) -> io::Result<Verification> {
    let mut verifier = Verifier { workload, found: Verification::default(), buffers: Buffers::default() };
    let mut stored = verifier.list(directory)?;
    let mut first = 0;
    while first < expected.len() as u64 {
        let named = |number: u64| workload.file(number).named;
        let end =
            (first + 1..expected.len() as u64).find(|next| named(*next) != first).unwrap_or(expected.len() as u64);
        let candidates = (first..end).map(|number| (number, expected[number as usize])).collect();
        verifier.check_name(candidates, stored.remove(&first).unwrap_or_default());
        first = end;
    }
    stored.into_values().flatten().for_each(|path| verifier.unexpected(&path, "no such file was sent"));
    Ok(verifier.found)
}

/// Waits until `directory` has not changed for a while: a receiver may store an upload some time after its client has
/// closed.
///
/// # Errors
/// The error of reading the directory.
pub fn await_quiet(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + QUIET_WAIT_MAX;
    let mut seen = usize::MAX;
    while Instant::now() < deadline {
        let now = fs::read_dir(directory)?.count();
        if now == seen {
            break;
        }
        seen = now;
        thread::sleep(QUIET);
    }
    Ok(())
}

struct Verifier<'a> {
    workload: &'a Workload,
    found: Verification,
    buffers: Buffers,
}

struct Buffers {
    found: Vec<u8>,
    expected: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { found: vec![0; BUFFER_BYTES], expected: vec![0; BUFFER_BYTES] }
    }
}

/// A file that may be stored under a name.
struct Candidate {
    number: u64,
    expected: Expected,
    /// How often the file was found whole.
    seen: u64,
}

impl Verifier<'_> {
    /// The paths for each file number, in order.
    fn list(&mut self, directory: &Path) -> io::Result<HashMap<u64, Vec<PathBuf>>> {
        let mut stored: HashMap<u64, Vec<PathBuf>> = HashMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| self.workload.number_in(name)) {
                Some(number) => stored.entry(number).or_default().push(entry.path()),
                // The receiver's own files.
                None if name.as_encoded_bytes().starts_with(b".") => {}
                None => self.found.foreign += 1,
            }
        }
        stored.values_mut().for_each(|paths| paths.sort());
        Ok(stored)
    }

    /// Matches each stored file with the candidate that has its content, then judges the rest of both.
    fn check_name(&mut self, candidates: Vec<(u64, Expected)>, paths: Vec<PathBuf>) {
        let mut candidates: Vec<Candidate> =
            candidates.into_iter().map(|(number, expected)| Candidate { number, expected, seen: 0 }).collect();
        let strays: Vec<PathBuf> = paths.into_iter().filter(|path| !self.is_one_of(path, &mut candidates)).collect();
        let mut strays = strays.into_iter();
        for candidate in &candidates {
            self.judge(candidate, &mut strays);
        }
        for path in strays {
            self.damaged(&path, "holds nothing that was sent under this name");
        }
    }

    /// Candidates without a match come first, because two empty files are equal but count as two.
    fn is_one_of(&mut self, path: &Path, candidates: &mut [Candidate]) -> bool {
        candidates.sort_by_key(|candidate| (candidate.seen, candidate.number));
        let whole = candidates.iter_mut().find(|candidate| self.difference(path, candidate.number).is_none());
        whole.map(|candidate| candidate.seen += 1).is_some()
    }

    fn judge(&mut self, candidate: &Candidate, strays: &mut impl Iterator<Item = PathBuf>) {
        let name = self.workload.name(self.workload.file(candidate.number).named);
        if candidate.seen > 1 {
            self.found.duplicated += candidate.seen - 1;
            self.found.note(format!("{name}: file {} was found {} times", candidate.number, candidate.seen));
        }
        match (candidate.expected, candidate.seen) {
            (Expected::Absent, 0) => {
                strays.next().inspect(|path| self.unexpected(path, "its upload failed or was reset"));
            }
            (Expected::Absent, _) => self.unexpected(Path::new(name.as_str()), "its upload failed or was reset"),
            (_, 1..) => self.found.verified += 1,
            (expected, 0) => match strays.next() {
                Some(path) => self.tell_damage(&path, candidate.number),
                None if expected == Expected::Present => {
                    self.found.lost += 1;
                    self.found.note(format!("{name}: lost (file {})", candidate.number));
                }
                None => self.found.open += 1,
            },
        }
    }

    fn tell_damage(&mut self, path: &Path, number: u64) {
        let difference = self.difference(path, number).unwrap_or_default();
        self.damaged(path, &difference);
    }

    fn damaged(&mut self, path: &Path, words: &str) {
        self.found.damaged += 1;
        self.found.note(format!("{}: damaged: {words}", base_name(path)));
    }

    fn unexpected(&mut self, path: &Path, words: &str) {
        self.found.unexpected += 1;
        self.found.note(format!("{}: is stored, and must not be: {words}", base_name(path)));
    }

    /// The difference between the file at `path` and the bytes sent of file `number`, in words.
    fn difference(&mut self, path: &Path, number: u64) -> Option<String> {
        let file = self.workload.file(number);
        let compared = self.compare(path, number, file.conduct.share_sent(file.size));
        compared.unwrap_or_else(|error| Some(format!("it cannot be read: {error}")))
    }

    fn compare(&mut self, path: &Path, number: u64, size: u64) -> io::Result<Option<String>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let content = self.workload.pattern(number);
        let mut offset = 0;
        while offset < size {
            let read = match file.read(&mut self.buffers.found)? {
                0 => break,
                read => read.min((size - offset) as usize),
            };
            let found = &self.buffers.found[..read];
            self.found.compared_bytes += read as u64;
            if let Some(place) = content.first_difference(offset, found, &mut self.buffers.expected) {
                return Ok(Some(format!("byte {} of {size} is not the one that was sent", offset + place as u64)));
            }
            offset += read as u64;
        }
        Ok((length != size).then(|| format!("{length} bytes long, and {size} were sent")))
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::load::plan::{Conduct, Mix, Sizes};

    const SIZE: u64 = 300_000;

    /// A directory with the first three files of a workload in which every file has the one conduct.
    fn stored(conduct: Conduct) -> (Workload, TempDir) {
        let mix = Mix::new(vec![(conduct, 1.0)]).unwrap();
        let workload = Workload { seed: 9, sizes: Sizes::Range(SIZE, SIZE), mix };
        let directory = tempfile::tempdir().unwrap();
        for number in 0..3 {
            let file = workload.file(number);
            let mut content = vec![0; file.conduct.share_sent(SIZE) as usize];
            workload.pattern(number).fill(0, &mut content);
            fs::write(path_of(&workload, &directory, number), content).unwrap();
        }
        (workload, directory)
    }

    fn path_of(workload: &Workload, directory: &TempDir, number: u64) -> PathBuf {
        let base = directory.path().join(workload.name(workload.file(number).named));
        match number - workload.file(number).named {
            0 => base,
            copy => PathBuf::from(format!("{}.{copy}", base.display())),
        }
    }

    fn counts(found: &Verification) -> [u64; 6] {
        [found.verified, found.lost, found.duplicated, found.damaged, found.unexpected, found.open]
    }

    #[test]
    fn a_whole_directory_is_clean() {
        for conduct in [Conduct::Honest, Conduct::Abort, Conduct::DupName] {
            let (workload, directory) = stored(conduct);
            let found = verify(&workload, &[Expected::Present; 3], directory.path()).unwrap();
            assert_eq!((counts(&found), found.is_clean()), ([3, 0, 0, 0, 0, 0], true), "{conduct:?} {found:?}");
        }
    }

    #[test]
    fn a_flipped_byte_a_missing_file_and_a_doubled_one_are_found_and_named() {
        let (workload, directory) = stored(Conduct::Honest);
        let path = |number| path_of(&workload, &directory, number);
        let mut content = fs::read(path(0)).unwrap();
        content[270_000] ^= 1;
        fs::write(path(0), content).unwrap();
        fs::remove_file(path(1)).unwrap();
        fs::copy(path(2), format!("{}.1", path(2).display())).unwrap();
        let found = verify(&workload, &[Expected::Present; 3], directory.path()).unwrap();
        assert_eq!(counts(&found), [1, 1, 1, 1, 0, 0]);
        let findings = found.findings.join("\n");
        for words in
            ["00000000: damaged: byte 270000 of 300000", "00000001: lost", "00000002: file 2 was found 2 times"]
        {
            assert!(findings.contains(words), "{findings}");
        }
    }

    #[test]
    fn one_byte_more_or_less_is_damage() {
        for length in [SIZE - 1, SIZE + 1] {
            let (workload, directory) = stored(Conduct::Honest);
            File::options().write(true).open(path_of(&workload, &directory, 1)).unwrap().set_len(length).unwrap();
            let found = verify(&workload, &[Expected::Present; 3], directory.path()).unwrap();
            assert_eq!(counts(&found), [2, 0, 0, 1, 0, 0], "{length}");
        }
    }

    #[test]
    fn no_part_of_a_reset_upload_may_be_stored() {
        let (workload, directory) = stored(Conduct::Reset);
        File::options().write(true).open(path_of(&workload, &directory, 1)).unwrap().set_len(5).unwrap();
        let found = verify(&workload, &[Expected::Absent; 3], directory.path()).unwrap();
        assert_eq!(counts(&found), [0, 0, 0, 0, 3, 0]);
    }

    #[test]
    fn a_file_without_an_outcome_may_be_missing_but_not_incomplete() {
        let (workload, directory) = stored(Conduct::Honest);
        fs::remove_file(path_of(&workload, &directory, 0)).unwrap();
        File::options().write(true).open(path_of(&workload, &directory, 1)).unwrap().set_len(5).unwrap();
        let found = verify(&workload, &[Expected::Either; 3], directory.path()).unwrap();
        assert_eq!(counts(&found), [1, 0, 0, 1, 0, 1]);
    }

    #[test]
    fn files_beyond_the_last_are_unexpected_and_those_of_others_are_only_counted() {
        let (workload, directory) = stored(Conduct::Honest);
        fs::write(directory.path().join("another's"), b"").unwrap();
        fs::create_dir(directory.path().join(".intake")).unwrap();
        let found = verify(&workload, &[Expected::Present; 2], directory.path()).unwrap();
        assert_eq!((counts(&found), found.foreign), ([2, 0, 0, 0, 1, 0], 1));
    }

    #[test]
    fn a_swapped_pair_is_damage_to_both() {
        let (workload, directory) = stored(Conduct::Honest);
        let path = |number| path_of(&workload, &directory, number);
        let aside = directory.path().join("aside");
        fs::rename(path(0), &aside).unwrap();
        fs::rename(path(1), path(0)).unwrap();
        fs::rename(&aside, path(1)).unwrap();
        let found = verify(&workload, &[Expected::Present; 3], directory.path()).unwrap();
        assert_eq!(counts(&found), [1, 0, 0, 2, 0, 0]);
    }
}

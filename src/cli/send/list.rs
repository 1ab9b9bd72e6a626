//! Reads the lists of paths for `--files-from`, and explains paths that cannot be used.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The path that stands for standard input.
pub const STDIN: &str = "-";
/// The byte order mark, which some editors write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a list; `-` is standard input.
///
/// # Errors
/// If it cannot be read, or is UTF-16.
pub fn read(list: &Path) -> io::Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    if list == Path::new(STDIN) {
        io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        bytes = fs::read(list)?;
    }
    if is_utf16(&bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is UTF-16; paths are bytes: save it as UTF-8"));
    }
    Ok(paths_in(&bytes))
}

/// No path contains a NUL, so if there is one, NUL ends each path.
fn paths_in(bytes: &[u8]) -> Vec<PathBuf> {
    let end = if bytes.contains(&0) { 0 } else { b'\n' };
    let paths = bytes.split(|byte| *byte == end).filter(|path| !path.is_empty());
    paths.map(|path| OsString::from_vec(path.to_owned()).into()).collect()
}

fn is_utf16(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")) && bytes.contains(&0)
}

/// If `path` cannot be used: a possible error in the list.
pub fn advice(path: &Path) -> &'static str {
    let bytes = path.as_os_str().as_bytes();
    if bytes.ends_with(b"\r") {
        "; a carriage return ends the path: does the list have Windows line ends? `tr -d '\\r'` removes them"
    } else if bytes.starts_with(BYTE_ORDER_MARK) {
        "; the list begins with a byte order mark: save it as UTF-8 without one"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_an_end_for_each_path() {
        let paths = |bytes: &[u8]| paths_in(bytes).into_iter().map(|path| path.into_os_string()).collect::<Vec<_>>();
        assert_eq!(paths(b"a b\nc\n\nd"), ["a b", "c", "d"]);
        assert_eq!(paths(b"a\nb\0c\0"), ["a\nb", "c"]);
        assert!(paths(b"").is_empty());
    }

    #[test]
    fn additions_of_editors_to_a_list_are_named() {
        assert!(advice(Path::new("a.txt\r")).contains("tr -d"));
        assert!(advice(Path::new("\u{feff}a.txt")).contains("byte order mark"));
        assert_eq!(advice(Path::new("a.txt")), "");
        assert!(is_utf16(b"\xff\xfea\0\n\0") && !is_utf16(b"a\0b\0"));
    }
}

//! The two files of a pair. Each is written under a temporary name, synced, and renamed when it is whole, so half a key is
//! never left, not even after a power cut.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

/// A certificate and its key, in PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

const CERTIFICATE: &str = "intake.crt";
const KEY: &str = "intake.key";
/// Everybody may read the certificate.
const CERTIFICATE_MODE: u32 = 0o644;
/// Nobody but the owner may read the key.
const KEY_MODE: u32 = 0o600;

/// Writes the pair into `directory`, and returns the paths of the certificate and the key. Unless `force` is set, an earlier
/// pair stays as it is, and that is an error.
///
/// # Errors
/// A message.
pub fn write(directory: &Path, pair: &Pair, force: bool) -> Result<(PathBuf, PathBuf), String> {
    let directory = directory.strip_prefix(".").unwrap_or(directory);
    let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
    let taken = [&certificate, &key].into_iter().find(|path| !force && fs::symlink_metadata(path).is_ok());
    if let Some(path) = taken {
        return Err(format!(
            "{path:?} is there already: choose another directory by --out, or replace it with --force"
        ));
    }
    let new_key = Part::write(&key, KEY_MODE, &pair.key)?;
    let new_certificate = Part::write(&certificate, CERTIFICATE_MODE, &pair.certificate)?;
    new_key.publish(force)?;
    if let Err(words) = new_certificate.publish(force) {
        if !force {
            // It was published just now; without its certificate it is of no use.
            let _ = fs::remove_file(&key);
        }
        return Err(words);
    }
    let parent = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| fault(parent, &error))?;
    Ok((certificate, key))
}

fn fault(path: &Path, error: &io::Error) -> String {
    format!("cannot write {path:?}: {error}")
}

/// A file that is whole, and does not have its final name yet. Dropping it removes it.
struct Part {
    temporary: PathBuf,
    path: PathBuf,
}

impl Part {
    fn write(path: &Path, mode: u32, content: &str) -> Result<Self, String> {
        let mut temporary = OsString::from(path);
        temporary.push(format!(".{}.part", process::id()));
        let part = Self { temporary: temporary.into(), path: path.to_owned() };
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part.temporary);
        let written = opened.and_then(|mut file| file.write_all(content.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| fault(path, &error))?;
        Ok(part)
    }

    /// Gives the file its final name. A link fails if the name is taken meanwhile, a rename replaces.
    fn publish(&self, force: bool) -> Result<(), String> {
        let published = match force {
            true => fs::rename(&self.temporary, &self.path),
            false => fs::hard_link(&self.temporary, &self.path),
        };
        published.map_err(|error| fault(&self.path, &error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is gone if it was renamed.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pair(text: &str) -> Pair {
        Pair { certificate: format!("certificate {text}"), key: format!("key {text}") }
    }

    #[test]
    fn an_earlier_pair_is_replaced_only_by_force() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = write(directory.path(), &pair("1"), false).unwrap();
        assert!(write(directory.path(), &pair("2"), false).unwrap_err().contains("--force"));
        assert_eq!(fs::read_to_string(&key).unwrap(), "key 1");
        write(directory.path(), &pair("3"), true).unwrap();
        let read = [&certificate, &key].map(|path| fs::read_to_string(path).unwrap());
        assert_eq!(read, ["certificate 3", "key 3"]);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_key_without_its_certificate_is_not_left() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(CERTIFICATE)).unwrap();
        // A rename cannot replace a directory.
        assert!(write(directory.path(), &pair("1"), true).is_err());
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{names:?}");
        assert!(write(directory.path(), &pair("2"), false).is_err());
    }
}

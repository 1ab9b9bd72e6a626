//! The list of stored files for `sha256sum -c` in the server's directory: a digest and a stored name for each.
//!
//! It is written beside its final path, and renamed at the end of the run. So a run that is interrupted, or that stores
//! nothing, leaves the list of an earlier run as it was.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use intake::client::send::Sent;
use intake::proto::{Algorithm, Answered, Digest, Receipt, Stored};

/// A list that is being written.
pub struct Manifest {
    file: File,
    /// The temporary path, and the final path. `None`: the final path is not a regular file, and is written in place.
    names: Option<(PathBuf, PathBuf)>,
    /// The number of files that it lists.
    listed: usize,
}

impl Manifest {
    /// The digest algorithm of the list.
    pub const ALGORITHM: Algorithm = Algorithm::Sha256;

    /// Begins an empty list for `path`, or if that is a symbolic link, for the file that it leads to.
    ///
    /// # Errors
    /// A message.
    pub fn create(path: &Path) -> Result<Self, String> {
        Self::open(path).map_err(|error| format!("the manifest {path:?} cannot be written: {error}"))
    }

    fn open(path: &Path) -> io::Result<Self> {
        let old = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if old.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if old.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(path)?;
            return Ok(Self { file, names: None, listed: 0 });
        }
        let path = if old.is_some() { path.canonicalize()? } else { path.to_owned() };
        let mut part = OsString::from(&path);
        part.push(format!(".{}.part", process::id()));
        let file = File::create_new(&part)?;
        if let Some(old) = old {
            file.set_permissions(old.permissions())?;
        }
        Ok(Self { file, names: Some((part.into(), path)), listed: 0 })
    }

    /// Lists a file.
    ///
    /// # Errors
    /// The error of write(2).
    pub fn add(&mut self, sent: &Sent) -> io::Result<()> {
        let (digest, name) = match &sent.stored {
            Stored::Receipt(Receipt { digest: Some(digest), stored_name, .. }) => (digest, stored_name.as_str()),
            // Without a receipt, this side's digest is the expected one.
            Stored::Answered(Answered { digest: Some(digest), name, .. }) => (digest, name.as_str()),
            _ => return Ok(()),
        };
        self.file.write_all(line(digest, name).as_bytes())?;
        self.listed += 1;
        Ok(())
    }

    /// Renames the list to its final path, unless it is empty or `is_broken`. Returns whether it did.
    ///
    /// # Errors
    /// The error of the system. The old list is then unchanged.
    pub fn finish(self, is_broken: bool) -> io::Result<bool> {
        let Some((part, path)) = self.names else { return Ok(true) };
        let published = match self.listed > 0 && !is_broken {
            true => self.file.sync_data().and_then(|()| fs::rename(&part, path)).map(|()| true),
            false => Ok(false),
        };
        if !matches!(published, Ok(true)) {
            // If that fails, the temporary file stays; its name tells what it is.
            let _ = fs::remove_file(&part);
        }
        published
    }
}

/// A line in the format of coreutils: a leading backslash means that the name contains escapes.
fn line(digest: &Digest, name: &str) -> String {
    let escaped = name.replace('\\', r"\\").replace('\r', r"\r");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{}  {escaped}\n", digest.to_hex())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;

    fn sent(name: &str) -> Sent {
        let receipt = Receipt { size: 5, digest: Some(Digest::Crc32c(1)), stored_name: name.into() };
        Sent { size: 5, elapsed: Duration::ZERO, stored: Stored::Receipt(receipt) }
    }

    #[test]
    fn names_are_escaped_as_coreutils_does() {
        let digest = Digest::Crc32c(1);
        assert_eq!(line(&digest, "a b"), "00000001  a b\n");
        assert_eq!(line(&digest, r"a\b"), "\\00000001  a\\\\b\n");
    }

    #[test]
    fn the_old_list_stays_until_the_new_one_is_whole_and_lists_something() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("list"), directory.path().join("link"));
        fs::write(&path, "yesterday").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        symlink("list", &link).unwrap();
        let read = || fs::read_to_string(&path).unwrap();
        assert!(!Manifest::create(&link).unwrap().finish(false).unwrap());
        for is_broken in [true, false] {
            let mut manifest = Manifest::create(&link).unwrap();
            manifest.add(&sent("a")).unwrap();
            assert_eq!(read(), "yesterday");
            assert_eq!(manifest.finish(is_broken).unwrap(), !is_broken);
        }
        assert_eq!(read(), "00000001  a\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_device_is_written_in_place_and_a_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Manifest::create(directory.path()).is_err());
        let mut full = Manifest::create(Path::new("/dev/full")).unwrap();
        assert!(full.add(&sent("a")).is_err());
    }
}

//! What is sent: a file, or a stream whose end nobody knows before.
//!
//! Knows files only, not what is done with their bytes.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::system::uname;

use crate::proto::{Algorithm, Digest, Hasher, ResumeId};

/// What is read at a time: large enough that system calls cost nothing beside the copying.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Where content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A regular file.
    File(PathBuf),
    /// Standard input, whatever it is.
    Stdin,
}

/// Content that is open for reading.
#[derive(Debug)]
pub enum Content {
    /// A regular file. It ends where it ended when it was opened; what is added later is left out.
    File {
        /// Open for reading.
        file: File,
        /// In bytes.
        size: u64,
    },
    /// What can be read once only.
    Stream {
        /// Open for reading.
        file: File,
        /// What was read last.
        chunk: Vec<u8>,
    },
}

/// Why content cannot be read.
#[derive(Debug)]
pub enum SourceError {
    /// It is a directory.
    Directory,
    /// It is a FIFO, a device or a socket.
    NotRegular,
    /// It is missing, may not be read, or reading fails.
    Io(io::Error),
    /// It has become shorter.
    Shrunk {
        /// In bytes, when it was opened.
        size: u64,
        /// In bytes, as far as it could be read.
        read: u64,
    },
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// [`SourceError`], before a byte is read.
    pub fn open(&self) -> Result<Content, SourceError> {
        match self {
            Self::File(path) => open_regular(path),
            Self::Stdin => {
                let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
                Ok(Content::Stream { file, chunk: Vec::new() })
            }
        }
    }
}

impl Source {
    /// The same in every run for the same file as it is now, and another for any other: made of the machine, the path, the
    /// size, and the time of the last change.
    pub(super) fn resume_id(&self, content: &Content) -> io::Result<Option<ResumeId>> {
        let (Self::File(path), Content::File { file, size }) = (self, content) else { return Ok(None) };
        let metadata = file.metadata()?;
        let changed = format!("{size} {} {}", metadata.mtime(), metadata.mtime_nsec());
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for part in [uname().nodename().to_bytes(), path.canonicalize()?.as_os_str().as_bytes(), changed.as_bytes()] {
            hasher.update(part);
            hasher.update(b"\0");
        }
        Ok(ResumeId::parse(&hasher.finish().to_hex()))
    }
}

fn open_regular(path: &Path) -> Result<Content, SourceError> {
    // Looked at before it is opened: opening a FIFO waits for somebody to write to it.
    let file_type = fs::metadata(path)?.file_type();
    if file_type.is_dir() {
        return Err(SourceError::Directory);
    }
    if !file_type.is_file() {
        return Err(SourceError::NotRegular);
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok(Content::File { file, size })
}

impl Content {
    /// In bytes, where that is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } => Some(*size),
            Self::Stream { .. } => None,
        }
    }

    /// Reads from the start of `range`, at least a byte, into `buffer`.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(super) fn read(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let wanted = buffer.len().min(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        match self {
            Self::File { file, size } => match retry(|| file.read_at(&mut buffer[..wanted], range.start))? {
                0 => Err(SourceError::Shrunk { size: *size, read: range.start }),
                length => Ok(length),
            },
            Self::Stream { chunk, .. } => {
                let rest = &chunk[chunk.len() - (range.end - range.start) as usize..];
                buffer[..wanted].copy_from_slice(&rest[..wanted]);
                Ok(wanted)
            }
        }
    }

    /// Reads more of a stream, which may wait; returns how much came, in bytes. 0 is its end.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(super) fn supply(&mut self) -> Result<u64, SourceError> {
        let Self::Stream { file, chunk } = self else { unreachable!("the size of a file is known") };
        chunk.resize(CHUNK_BYTES, 0);
        let length = retry(|| file.read(chunk))?;
        chunk.truncate(length);
        Ok(length as u64)
    }

    /// What to poll for more of a stream.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::File { file, .. } | Self::Stream { file, .. } => file.as_fd(),
        }
    }

    /// The digest of a whole file; a stream has none before its end.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(super) fn digest(&self, algorithm: Algorithm) -> Result<Option<Digest>, SourceError> {
        let Some(size) = self.size() else { return Ok(None) };
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut position = 0;
        while position < size {
            let length = self.read(position..size, &mut buffer)?;
            hasher.update(&buffer[..length]);
            position += length as u64;
        }
        Ok(Some(hasher.finish()))
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("is a directory; send its files one by one"),
            Self::NotRegular => f.write_str("is not a regular file; pipe its content into `send - --name NAME`"),
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Shrunk { size, read } => {
                write!(f, "has shrunk while it was sent, from {size} bytes to {read}; it is not stored")
            }
        }
    }
}

impl std::error::Error for SourceError {}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_told_before_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(Source::File(fifo).open(), Err(SourceError::NotRegular)));
        assert!(matches!(Source::File(directory.path().into()).open(), Err(SourceError::Directory)));
        assert!(matches!(Source::File(directory.path().join("missing")).open(), Err(SourceError::Io(_))));
    }

    #[test]
    fn a_file_is_what_it_was_when_it_was_opened_or_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"hello").unwrap();
        let content = Source::File(path.clone()).open().unwrap();
        let digest = content.digest(Algorithm::Crc32c).unwrap();
        fs::write(&path, b"hello and more").unwrap();
        let mut buffer = [0; 100];
        assert_eq!(
            (content.size(), content.read(1..5, &mut buffer).unwrap(), &buffer[..4]),
            (Some(5), 4, &b"ello"[..])
        );
        assert_eq!(content.digest(Algorithm::Crc32c).unwrap(), digest);
        fs::write(&path, b"hell").unwrap();
        assert!(matches!(content.read(4..5, &mut buffer), Err(SourceError::Shrunk { size: 5, read: 4 })));
        assert!(content.digest(Algorithm::Crc32c).is_err());
    }

    #[test]
    fn a_file_keeps_its_id_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("file"), directory.path().join("other"));
        let id = |path: &Path| {
            let source = Source::File(path.into());
            source.resume_id(&source.open().unwrap()).unwrap().unwrap()
        };
        fs::write(&path, b"hello").unwrap();
        fs::write(&other, b"hello").unwrap();
        let first = id(&path);
        assert_eq!(id(&directory.path().join("./file")), first);
        assert_ne!(id(&other), first);
        File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(id(&path), first);
        assert_eq!(Source::Stdin.resume_id(&Source::Stdin.open().unwrap()).unwrap(), None);
    }

    #[test]
    fn a_stream_comes_in_chunks() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut content = Content::Stream { file: File::from(std::os::fd::OwnedFd::from(reader)), chunk: Vec::new() };
        io::Write::write_all(&mut writer, b"hello").unwrap();
        drop(writer);
        let mut buffer = [0; 3];
        assert_eq!(content.supply().unwrap(), 5);
        assert_eq!((content.read(10..15, &mut buffer).unwrap(), &buffer), (3, b"hel"));
        assert_eq!((content.read(13..15, &mut buffer).unwrap(), &buffer[..2]), (2, &b"lo"[..]));
        assert_eq!((content.supply().unwrap(), content.size()), (0, None));
    }
}

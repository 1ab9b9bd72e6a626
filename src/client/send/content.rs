//! The content of an upload: a file of a known size, or a stream that is read until it ends.
//!
//! A file whose size is 0 need not be empty: files in `/proc`, and in some file systems in user space, report 0 and have
//! content. So such a file is read once, and if it has content, it is sent as a stream.
//!
//! Knows files only, not how their bytes are used.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};
use rustix::system::uname;

use crate::proto::{Algorithm, Digest, Hasher, ResumeId};

/// How much is read at a time, in bytes: enough that system calls cost next to nothing beside the copying.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Where content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A regular file.
    File(PathBuf),
    /// Standard input, of whatever kind it is.
    Stdin,
}

/// Content that is open for reading.
#[derive(Debug)]
pub enum Content {
    /// A regular file, up to its size when it was opened. Bytes that are appended later are left out.
    File {
        /// Open for reading.
        file: File,
        /// The size in bytes.
        size: u64,
    },
    /// Content of unknown size, which is read from its start to its end.
    Stream {
        /// Open for reading.
        file: File,
        /// The bytes that were read last.
        chunk: Vec<u8>,
        /// `chunk` was read when the file was opened, and is not supplied yet.
        is_preloaded: bool,
        /// It can be opened again, and read from its start.
        is_repeatable: bool,
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
    /// It is standard input, which was closed when the program was started.
    Closed,
    /// It has less content than its reported size, which has not changed: a file of `/sys`, for instance.
    Short {
        /// The reported size in bytes.
        size: u64,
        /// How much could be read, in bytes.
        read: u64,
    },
    /// It has become shorter.
    Shrunk {
        /// The size in bytes when it was opened.
        size: u64,
        /// How much could be read, in bytes.
        read: u64,
    },
}

impl Source {
    /// Opens the source.
    ///
    /// # Errors
    /// [`SourceError`], before a byte is read.
    pub fn open(&self) -> Result<Content, SourceError> {
        match self {
            Self::File(path) => open_regular(path),
            Self::Stdin => {
                let file = open_stdin()?;
                Ok(Content::Stream { file, chunk: Vec::new(), is_preloaded: false, is_repeatable: false })
            }
        }
    }

    /// Opens the source without reading, because some content can be read only once. Returns the size in bytes if it is
    /// known.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn check(&self) -> Result<Option<u64>, SourceError> {
        match self {
            Self::File(path) => Ok(Some(open_sized(path)?.1).filter(|size| *size > 0)),
            Self::Stdin => open_stdin().map(|_| None),
        }
    }

    /// The metadata of the source.
    ///
    /// # Errors
    /// The error of stat(2).
    pub fn metadata(&self) -> io::Result<fs::Metadata> {
        match self {
            Self::File(path) => fs::metadata(path),
            Self::Stdin => File::from(io::stdin().as_fd().try_clone_to_owned()?).metadata(),
        }
    }

    /// Identifies the present state of the file across runs, by the host's name, the path, the size, and the time of the last
    /// change. A stream has no id.
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
    let (mut file, size) = open_sized(path)?;
    if size > 0 {
        return Ok(Content::File { file, size });
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    let length = retry(|| file.read(&mut chunk))?;
    chunk.truncate(length);
    if chunk.is_empty() {
        return Ok(Content::File { file, size });
    }
    // A file that cannot seek returns each byte once, such as the trace_pipe of the kernel.
    let is_repeatable = file.stream_position().is_ok();
    Ok(Content::Stream { file, chunk, is_preloaded: true, is_repeatable })
}

/// Opens a regular file. The size is the reported one.
fn open_sized(path: &Path) -> Result<(File, u64), SourceError> {
    // Check the type first, because opening a FIFO waits for a writer.
    let file_type = fs::metadata(path)?.file_type();
    if file_type.is_dir() {
        return Err(SourceError::Directory);
    }
    if !file_type.is_file() {
        return Err(SourceError::NotRegular);
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Standard input, unless it was closed. The standard library then opens /dev/null in its place, for reading and writing. A
/// shell that redirects from /dev/null opens it for reading only, and means an empty file.
///
/// # Errors
/// [`SourceError`].
fn open_stdin() -> Result<File, SourceError> {
    let stdin = io::stdin();
    let stat = fstat(&stdin).map_err(io::Error::from)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    let mode = fcntl_getfl(&stdin).map_err(io::Error::from)? & OFlags::ACCMODE;
    if is_null && mode == OFlags::RDWR {
        return Err(SourceError::Closed);
    }
    Ok(File::from(stdin.as_fd().try_clone_to_owned()?))
}

impl Content {
    /// The size in bytes, if it is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } => Some(*size),
            Self::Stream { .. } => None,
        }
    }

    /// Reads from the start of `range` into `buffer`, at least one byte.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(super) fn read(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let wanted = buffer.len().min(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        match self {
            Self::File { file, size } => match retry(|| file.read_at(&mut buffer[..wanted], range.start))? {
                0 => Err(ended_early(file, *size, range.start)),
                length => Ok(length),
            },
            Self::Stream { chunk, .. } => {
                let rest = &chunk[chunk.len() - (range.end - range.start) as usize..];
                buffer[..wanted].copy_from_slice(&rest[..wanted]);
                Ok(wanted)
            }
        }
    }

    /// Reads more of a stream, and waits if necessary. Returns how much it read, in bytes; 0 at the end.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(super) fn supply(&mut self) -> Result<u64, SourceError> {
        let Self::Stream { file, chunk, is_preloaded, .. } = self else { unreachable!("the size of a file is known") };
        if std::mem::take(is_preloaded) {
            return Ok(chunk.len() as u64);
        }
        chunk.resize(CHUNK_BYTES, 0);
        let length = retry(|| file.read(chunk))?;
        chunk.truncate(length);
        Ok(length as u64)
    }

    /// Whether the stream has more without a read of its descriptor.
    pub(super) fn is_preloaded(&self) -> bool {
        matches!(self, Self::Stream { is_preloaded: true, .. })
    }

    /// Whether it can be opened again, and read from its start.
    pub(super) fn is_repeatable(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Stream { is_repeatable: true, .. })
    }

    /// The descriptor to poll for more of a stream.
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

fn ended_early(file: &File, size: u64, read: u64) -> SourceError {
    match file.metadata() {
        Ok(metadata) if metadata.len() >= size => SourceError::Short { size, read },
        _ => SourceError::Shrunk { size, read },
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
            Self::Closed => f.write_str("is closed; pipe the content in, or send an empty file from `< /dev/null`"),
            Self::Short { size, read } => write!(
                f,
                "has {read} bytes, and its size says {size}, as in /sys; it is not stored. Pipe its content into \
                 `send - --name NAME`"
            ),
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
    fn a_file_that_is_not_regular_is_refused_before_it_is_opened() {
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
    fn a_file_of_reported_size_0_is_read_to_check_that_it_is_empty() {
        let cpus = Source::File("/proc/cpuinfo".into());
        assert_eq!(fs::metadata("/proc/cpuinfo").unwrap().len(), 0);
        assert_eq!(cpus.check().unwrap(), None);
        let mut content = cpus.open().unwrap();
        assert_eq!((content.size(), content.is_repeatable()), (None, true));
        let mut read = Vec::new();
        while let length @ 1.. = content.supply().unwrap() {
            let start = read.len() as u64;
            read.resize(read.len() + length as usize, 0);
            assert_eq!(content.read(start..start + length, &mut read[start as usize..]).unwrap() as u64, length);
        }
        assert!(!read.is_empty());
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Source::File(empty.path().into()).open().unwrap().size(), Some(0));
    }

    #[test]
    fn a_file_shorter_than_its_reported_size_is_distinguished_from_one_that_shrinks() {
        // Every file of sysfs reports the size of a page.
        let path = "/sys/kernel/profiling";
        let path = if Path::new(path).exists() { path } else { "/sys/kernel/fscaps" };
        let content = Source::File(path.into()).open().unwrap();
        let error = content.digest(Algorithm::Crc32c).unwrap_err();
        assert!(matches!(error, SourceError::Short { size: 4096, read: 1..=100 }), "{error:?}");
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
    }

    #[test]
    fn a_stream_comes_in_chunks() {
        let (reader, mut writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let mut content = Content::Stream { file, chunk: Vec::new(), is_preloaded: false, is_repeatable: false };
        io::Write::write_all(&mut writer, b"hello").unwrap();
        drop(writer);
        let mut buffer = [0; 3];
        assert_eq!(content.supply().unwrap(), 5);
        assert_eq!((content.read(10..15, &mut buffer).unwrap(), &buffer), (3, b"hel"));
        assert_eq!((content.read(13..15, &mut buffer).unwrap(), &buffer[..2]), (2, &b"lo"[..]));
        assert_eq!((content.supply().unwrap(), content.size()), (0, None));
    }
}

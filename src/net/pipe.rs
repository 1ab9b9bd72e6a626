//! A pipe between a socket and a file, so that content is copied once and not twice.
//!
//! splice(2) passes the socket's pages to the pipe, and copies them from there into the page cache. One pipe serves all
//! connections: each visit that fills it empties it again. Does not know what it carries.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, read, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// A pipe of [`Pipe::BYTES`] that never blocks.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    /// The capacity in bytes: the largest that needs no privilege (`/proc/sys/fs/pipe-max-size`, pipe(7)).
    pub const BYTES: usize = 1 << 20;

    /// An empty pipe.
    ///
    /// # Errors
    /// The error of the system: no descriptor is left, this user's pipes have reached their limit, or splice(2) is not
    /// available, as in some sandboxes.
    pub fn open() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&writer, Self::BYTES)?;
        // A splice from a pipe into itself always fails and moves nothing. How it fails shows whether the call exists.
        match splice(&reader, None, &writer, None, 1, SpliceFlags::NONBLOCK) {
            Err(Errno::INVAL) | Ok(_) => Ok(Self { reader, writer }),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Moves up to `max` bytes from `source` into the pipe.
    ///
    /// # Errors
    /// The error of splice(2).
    pub fn fill(&self, source: impl AsFd, max: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(splice(source, None, &self.writer, None, max.min(Self::BYTES), flags)?)
    }

    /// Discards the bytes in the pipe.
    pub fn discard(&self) {
        let mut buffer = [0; 16 << 10];
        while matches!(retry_on_intr(|| read(&self.reader, &mut buffer)), Ok(1..)) {}
    }

    /// The end to read from.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    fn source(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let pipe = Pipe::open().unwrap();
        let bytes: Vec<u8> = (0..3 * Pipe::BYTES).map(|i| (i / 7) as u8).collect();
        let (source, mut out) = (source(&bytes), Vec::new());
        loop {
            let count = pipe.fill(&source, usize::MAX).unwrap();
            if count == 0 {
                break;
            }
            assert!(count <= Pipe::BYTES);
            File::from(pipe.reader().try_clone_to_owned().unwrap()).take(count as u64).read_to_end(&mut out).unwrap();
        }
        assert!(out == bytes);
    }

    #[test]
    fn discarded_bytes_make_room() {
        let (pipe, source) = (Pipe::open().unwrap(), source(&[7; 2 * Pipe::BYTES]));
        while pipe.fill(&source, Pipe::BYTES).is_ok() {}
        pipe.discard();
        assert_eq!(pipe.fill(self::source(b"anew"), 100).unwrap(), 4);
    }
}

//! A pipe that content passes through on its way from a socket to a file, so that it is copied once and not twice.
//!
//! The socket's pages are handed to the pipe, and copied into the page cache from there (splice(2)). One pipe serves all
//! connections: whoever fills it empties it before anybody else has their turn. Knows nothing of what is in it.

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
    /// What it holds at most: as much as anybody may have without a privilege (`/proc/sys/fs/pipe-max-size`, pipe(7)).
    pub const BYTES: usize = 1 << 20;

    /// An empty pipe.
    ///
    /// # Errors
    /// What the system says: no descriptor is left, this user's pipes hold as much as they may already, or splice(2) is not
    /// to be had, as in some sandboxes.
    pub fn open() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&writer, Self::BYTES)?;
        // From a pipe into itself it never works, so nothing is moved, but how it fails tells whether it is there at all.
        match splice(&reader, None, &writer, None, 1, SpliceFlags::NONBLOCK) {
            Err(Errno::INVAL) | Ok(_) => Ok(Self { reader, writer }),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Moves up to `max` bytes in from `source`.
    ///
    /// # Errors
    /// What splice(2) says.
    pub fn fill(&self, source: impl AsFd, max: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(splice(source, None, &self.writer, None, max.min(Self::BYTES), flags)?)
    }

    /// Throws away what is in it.
    pub fn discard(&self) {
        let mut buffer = [0; 16 << 10];
        while matches!(retry_on_intr(|| read(&self.reader, &mut buffer)), Ok(1..)) {}
    }

    /// The end that what is in it comes out of.
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
    fn what_goes_in_comes_out() {
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
    fn what_is_thrown_away_makes_room() {
        let (pipe, source) = (Pipe::open().unwrap(), source(&[7; 2 * Pipe::BYTES]));
        while pipe.fill(&source, Pipe::BYTES).is_ok() {}
        pipe.discard();
        assert_eq!(pipe.fill(self::source(b"anew"), 100).unwrap(), 4);
    }
}

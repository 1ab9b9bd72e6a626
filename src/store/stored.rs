//! A stored file that is read without waiting for the disk.
//!
//! A regular file cannot be polled. A read that finds nothing in the page cache waits for the disk, and the whole loop with
//! it. So the kernel is asked to read ahead (posix_fadvise(2)), and a read takes only what is in the cache (`RWF_NOWAIT`,
//! preadv2(2)). If nothing is there, the read fails with `WouldBlock`, and is tried again a little later.
//!
//! Not every file system has such reads. There, and if the disk has delivered nothing for long (as when a read fails), the
//! read waits, and is short.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::proto::Name;

/// How far the kernel is asked to read ahead, in bytes.
const AHEAD_BYTES: NonZeroU64 = NonZeroU64::new(4 << 20).expect("it is not zero");
/// The longest read that waits, in bytes.
const WAITING_READ_BYTES: usize = 128 << 10;
/// The number of reads in a row that found nothing, after which the next one waits.
const EMPTY_READS_MAX: u32 = 1000;

/// A stored file, to be read from its beginning.
#[derive(Debug)]
pub struct Stored {
    file: File,
    name: Name,
    /// The position of the next read.
    at: u64,
    /// Reads in a row that found nothing.
    empty_reads: u32,
}

impl Stored {
    pub(super) fn new(file: File, name: Name) -> Self {
        Self { file, name, at: 0, empty_reads: 0 }
    }

    pub(super) fn into_parts(self) -> (File, Name) {
        (self.file, self.name)
    }

    fn read_without_waiting(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        // Only a hint: without it the next read finds nothing.
        let _ = fadvise(&self.file, self.at, Some(AHEAD_BYTES), Advice::WillNeed);
        preadv2(&self.file, &mut [IoSliceMut::new(buffer)], self.at, ReadWriteFlags::NOWAIT)
    }

    fn read_and_wait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(WAITING_READ_BYTES);
        self.file.read_at(&mut buffer[..length], self.at)
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.read_without_waiting(buffer) {
            Err(Errno::AGAIN) if self.empty_reads < EMPTY_READS_MAX => {
                self.empty_reads += 1;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.read_and_wait(buffer)?,
            result => result?,
        };
        self.empty_reads = 0;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use super::*;
    use crate::proto::NamePolicy;

    fn stored(file: File) -> Stored {
        Stored::new(file, Name::parse(b"a", NamePolicy::default()).unwrap())
    }

    #[test]
    fn all_of_a_file_is_read_whether_the_disk_has_to_be_asked_or_not() {
        let content: Vec<u8> = (0..3_000_001_u32).map(|number| number as u8).collect();
        for is_cached in [true, false] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            if !is_cached {
                file.sync_all().unwrap();
                fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            }
            let (mut stored, mut read, mut buffer) = (stored(file), Vec::new(), vec![0; 1 << 20]);
            loop {
                match stored.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => read.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(read == content, "{is_cached}");
        }
    }

    #[test]
    fn a_read_that_never_finds_anything_waits_in_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let mut stored = Stored { empty_reads: EMPTY_READS_MAX, ..stored(file) };
        let mut buffer = [0; 100];
        assert_eq!((stored.read(&mut buffer).unwrap(), stored.empty_reads, stored.at), (7, 0, 7));
    }
}

//! Blocks of the disk, before the content that fills them (fallocate(2)).
//!
//! Where they are there already the file system need not set one aside for every page that is written, and finds them in
//! one piece; and a disk that has no room for an upload of a known size says so before its first byte. Where no size was
//! told, blocks run ahead of the content, by as much as there is of it already:
//!
//! ```text
//!   written    |=============>
//!   blocks     |-------------+-------------|    what is not needed is given back at the end
//! ```
//!
//! A short file is written in one go and has none of this. Knows nothing of names, nor of what others have announced.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, fallocate, fstatfs, ftruncate};
use rustix::io::{Errno, retry_on_intr};

use super::StoreError;
use super::space::Reservation;

/// From here on, in bytes, a file is long enough for it to pay.
const ALLOCATE_MIN_BYTES: u64 = 1 << 20;
/// The furthest that blocks run ahead of content whose size nobody told, in bytes: from there on a call for each of them
/// is too seldom to be noticed.
const AHEAD_MAX_BYTES: u64 = 8 << 20;
/// tmpfs (statfs(2)): allocating there fills pages with zeros, in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Whether the file system that `directory` is on gains by it.
pub(super) fn pay(directory: impl AsFd) -> rustix::io::Result<bool> {
    // The type's width and sign differ by machine, the number does not.
    Ok(fstatfs(directory)?.f_type as u64 != TMPFS_MAGIC)
}

/// The blocks of one file.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Where those end that run ahead, in bytes of content; `u64::MAX` where none shall.
    end: u64,
}

impl Blocks {
    /// As they come with the content.
    pub(super) const AS_NEEDED: Self = Self { end: u64::MAX };

    /// Ahead of the content, as soon as there is much of it.
    pub(super) const AHEAD: Self = Self { end: 0 };

    /// All that `file` needs for `size` bytes, at once; its own size does not change. They are taken off `reservation`.
    ///
    /// # Errors
    /// Whatever the file system says, except that it knows no such thing.
    pub(super) fn of_size(file: &File, size: u64, reservation: &mut Reservation) -> Result<Self, StoreError> {
        if size >= ALLOCATE_MIN_BYTES {
            match allocate(file, 0, size) {
                Ok(()) => reservation.used(u64::MAX),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self::AS_NEEDED)
    }

    /// Sees to it that `file`, which has `size` bytes of content, has blocks for `count` more and then some. Only a hint:
    /// whether there is room the writing decides.
    pub(super) fn cover(&mut self, file: &File, size: u64, count: usize) {
        let needed = size.saturating_add(count as u64);
        if needed <= self.end || size < ALLOCATE_MIN_BYTES {
            return;
        }
        self.end = needed.saturating_add(size.min(AHEAD_MAX_BYTES));
        if allocate(file, size, self.end - size).is_err() {
            // Some of them may be there, on a disk that is nearly full.
            self.give_back(file, size);
        }
    }

    /// Gives back what `file` did not need for its `size` bytes. None run ahead any more.
    pub(super) fn give_back(&mut self, file: &File, size: u64) {
        let Self { end } = std::mem::replace(self, Self::AS_NEEDED);
        // One that others have shortened must not be made whole with zeros.
        let is_untouched = || file.metadata().is_ok_and(|meta| meta.len() == size);
        if end > size && end < u64::MAX && is_untouched() {
            // Where that fails the file takes more of the disk than it has to, and is none the worse for it.
            let _ = ftruncate(file, size);
        }
    }
}

fn allocate(file: &File, from: u64, count: u64) -> rustix::io::Result<()> {
    retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, from, count))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use super::super::space::Space;
    use super::*;
    use crate::leave_out::leave_out;

    /// A file on a file system that allocates early, where the tests have one.
    fn file() -> Option<File> {
        let file = tempfile::tempfile().unwrap();
        let allocated = allocate(&file, 0, ALLOCATE_MIN_BYTES).and_then(|()| ftruncate(&file, 0));
        if allocated.is_err() {
            leave_out(&format!("{} allocates no blocks in advance", std::env::temp_dir().display()));
        }
        allocated.ok().map(|()| file)
    }

    /// In bytes. Rounded, as a file system may need some blocks to find the others by.
    fn allocated(file: &File) -> u64 {
        const GRAIN: u64 = 64 << 10;
        file.metadata().unwrap().blocks() * 512 / GRAIN * GRAIN
    }

    fn append(file: &mut File, blocks: &mut Blocks, bytes: usize) {
        let size = file.metadata().unwrap().len();
        blocks.cover(file, size, bytes);
        file.write_all(&vec![1; bytes]).unwrap();
    }

    #[test]
    fn they_run_ahead_of_a_long_file_and_what_is_left_is_given_back() {
        const MIB: usize = 1 << 20;
        let (Some(mut file), mut blocks) = (file(), Blocks::AHEAD) else { return };
        append(&mut file, &mut blocks, MIB);
        assert_eq!(blocks.end, 0, "it may be all");
        append(&mut file, &mut blocks, MIB);
        assert_eq!((blocks.end, allocated(&file)), (3 << 20, 3 << 20), "half as much again");
        for _ in 2..20 {
            append(&mut file, &mut blocks, MIB);
            assert!(allocated(&file) <= file.metadata().unwrap().len() + AHEAD_MAX_BYTES);
        }
        append(&mut file, &mut blocks, 5);
        assert!(allocated(&file) > 21 << 20);
        let size = (20 << 20) + 5;
        assert_eq!(file.metadata().unwrap().len(), size, "they do not count as content");
        blocks.give_back(&file, size);
        assert_eq!((file.metadata().unwrap().len(), allocated(&file)), (size, 20 << 20));
    }

    #[test]
    fn a_file_system_that_knows_no_such_thing_is_asked_once() {
        // A pipe has no blocks.
        let pipe = rustix::pipe::pipe().unwrap().1.into();
        let mut blocks = Blocks::AHEAD;
        blocks.cover(&pipe, ALLOCATE_MIN_BYTES, 1);
        assert_eq!(blocks.end, Blocks::AS_NEEDED.end);
    }

    #[test]
    fn for_an_announced_size_they_are_there_at_once_and_counted_once() {
        let Some(file) = file() else { return };
        let space = Space::default();
        for (size, is_allocated) in [(1 << 19, false), (4 << 20, true)] {
            let mut reservation = space.reserve(&file, size).unwrap();
            Blocks::of_size(&file, size, &mut reservation).unwrap();
            assert_eq!((file.metadata().unwrap().len(), allocated(&file)), (0, if is_allocated { size } else { 0 }));
            assert_eq!(reservation.left(), if is_allocated { 0 } else { size });
        }
    }

    #[test]
    fn in_memory_they_do_not_pay() {
        for (base, pays) in [(PathBuf::from("/dev/shm"), false), (std::env::temp_dir(), true)] {
            let Ok(directory) = File::open(&base) else {
                leave_out(&format!("there is no {}", base.display()));
                continue;
            };
            let is_tmpfs = fstatfs(&directory).unwrap().f_type as u64 == TMPFS_MAGIC;
            assert_eq!(pay(&directory).unwrap(), pays && !is_tmpfs, "{}", base.display());
        }
    }
}

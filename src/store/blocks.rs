//! Disk blocks that are allocated before the content that fills them (fallocate(2)).
//!
//! The file system then need not allocate a block for every page that is written, and finds the blocks in one piece. A disk
//! without room for an upload of known size says so before its first byte. If the size is not known, blocks are allocated
//! ahead of the content, as many again as it has:
//!
//! ```text
//!   written    |=============>
//!   blocks     |-------------+-------------|    what is not needed is given back at the end
//! ```
//!
//! A short file gets none in advance. Knows nothing of names.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FallocateFlags, fallocate, fstatfs, ftruncate};
use rustix::io::{Errno, retry_on_intr};

use super::StoreError;
use super::space::{Reservation, Space};

/// The least size, in bytes, for which it pays.
const ALLOCATE_MIN_BYTES: u64 = 1 << 20;
/// How far blocks are allocated ahead of content of unknown size, in bytes, at most. The calls are then too rare to be
/// noticed.
const AHEAD_MAX_BYTES: u64 = 8 << 20;
/// tmpfs (statfs(2)): allocating there fills pages with zeros, in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// btrfs: it never compresses what is written to blocks that were allocated in advance.
const BTRFS_MAGIC: u64 = 0x9123_683e;

/// Whether allocating in advance pays on the file system of `directory`.
pub(super) fn pay(directory: impl AsFd) -> rustix::io::Result<bool> {
    // The width and the sign of the type differ by machine; the number does not.
    let magic = fstatfs(directory)?.f_type as u64;
    Ok(![TMPFS_MAGIC, BTRFS_MAGIC].contains(&magic))
}

/// The blocks of one file, and the space that is reserved for it.
#[derive(Debug)]
pub(super) struct Blocks {
    reservation: Reservation,
    /// Whether blocks are allocated in advance.
    allocates: bool,
    /// The end of the allocated blocks, in bytes of content. 0: none.
    allocated_to: u64,
    /// The end of the space that is reserved or allocated, in bytes of content.
    covered_to: u64,
}

impl Blocks {
    /// For content of `size` bytes, for which space is reserved. Allocates all blocks, if it allocates any. The size of
    /// `file` does not change.
    ///
    /// # Errors
    /// Any error of the file system, except that it cannot allocate in advance.
    pub(super) fn of_size(
        file: &File,
        size: u64,
        allocates: bool,
        reservation: Reservation,
    ) -> Result<Self, StoreError> {
        let mut blocks = Self { reservation, allocates, allocated_to: 0, covered_to: size };
        if allocates && size >= ALLOCATE_MIN_BYTES {
            match allocate(file, 0, size) {
                Ok(()) => {
                    blocks.reservation.used(u64::MAX);
                    blocks.allocated_to = size;
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(blocks)
    }

    /// Whether content of unknown size, of which there are `size` bytes, needs none yet.
    pub(super) fn are_needless(size: u64) -> bool {
        size <= ALLOCATE_MIN_BYTES
    }

    /// For content of unknown size.
    pub(super) fn ahead(allocates: bool, reservation: Reservation) -> Self {
        Self { reservation, allocates, allocated_to: 0, covered_to: 0 }
    }

    /// Call it before `count` bytes are appended to the `size` bytes of `file`.
    ///
    /// # Errors
    /// [`StoreError::Full`] if there is no space for them. If the file system cannot allocate in advance, that is no error:
    /// the write decides.
    pub(super) fn cover(&mut self, space: &Space, file: &File, size: u64, count: usize) -> Result<(), StoreError> {
        let count = count as u64;
        if size.saturating_add(count) <= self.covered_to {
            return Ok(());
        }
        if self.allocates && self.allocate_ahead(space, file, size, count) {
            return Ok(());
        }
        space.take(file, count)
    }

    /// Allocates further blocks ahead of the content. Returns whether that was possible: a disk that is nearly full has
    /// room for content only.
    fn allocate_ahead(&mut self, space: &Space, file: &File, size: u64, count: u64) -> bool {
        let ahead = count + size.clamp(ALLOCATE_MIN_BYTES, AHEAD_MAX_BYTES);
        if space.take(file, ahead).is_err() {
            return false;
        }
        self.allocated_to = size + ahead;
        let is_allocated = allocate(file, size, ahead).is_ok();
        if is_allocated {
            self.covered_to = self.allocated_to;
        } else {
            // Some of them may have been allocated.
            self.give_back(file, size);
        }
        is_allocated
    }

    /// `count` bytes were appended.
    pub(super) fn written(&mut self, count: usize) {
        self.reservation.used(count as u64);
    }

    /// Gives back the blocks that `file` does not need for its `size` bytes. No more are allocated in advance.
    pub(super) fn give_back(&mut self, file: &File, size: u64) {
        self.allocates = false;
        // A file that another program has shortened must not be filled up with zeros.
        let is_untouched = || file.metadata().is_ok_and(|meta| meta.len() == size);
        if std::mem::take(&mut self.allocated_to) > size && is_untouched() {
            // If that fails, the file takes more of the disk than it needs.
            let _ = ftruncate(file, size);
        }
    }
}

/// Gives back the blocks behind the content of `file`. The time of its last change stays as it is.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn give_back(file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    // A file system may need a few blocks for its own tables.
    if meta.blocks().saturating_mul(512) >= meta.len() + ALLOCATE_MIN_BYTES {
        file.set_len(meta.len())?;
        file.set_modified(meta.modified()?)?;
    }
    Ok(())
}

fn allocate(file: &File, from: u64, count: u64) -> rustix::io::Result<()> {
    retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, from, count))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;
    use crate::leave_out::leave_out;

    /// A file on a file system that allocates in advance, if the tests have one.
    fn file() -> Option<File> {
        let file = tempfile::tempfile().unwrap();
        let allocated = allocate(&file, 0, ALLOCATE_MIN_BYTES).and_then(|()| ftruncate(&file, 0));
        if allocated.is_err() {
            leave_out(&format!("{} allocates no blocks in advance", std::env::temp_dir().display()));
        }
        allocated.ok().map(|()| file)
    }

    /// In bytes. Rounded, as a file system may need some blocks for its own tables.
    fn allocated(file: &File) -> u64 {
        const GRAIN: u64 = 64 << 10;
        file.metadata().unwrap().blocks() * 512 / GRAIN * GRAIN
    }

    fn reservation(file: &File, size: Option<u64>) -> Reservation {
        Space::default().reserve(file, size).unwrap()
    }

    fn append(file: &mut File, blocks: &mut Blocks, bytes: usize) {
        let size = file.metadata().unwrap().len();
        blocks.cover(&Space::default(), file, size, bytes).unwrap();
        file.write_all(&vec![1; bytes]).unwrap();
    }

    #[test]
    fn they_run_ahead_of_a_long_file_and_what_is_left_is_given_back() {
        const MIB: usize = 1 << 20;
        let Some(mut file) = file() else { return };
        let mut blocks = Blocks::ahead(true, reservation(&file, None));
        file.write_all(&vec![1; MIB]).unwrap();
        append(&mut file, &mut blocks, MIB);
        assert_eq!((blocks.allocated_to, allocated(&file)), (3 << 20, 3 << 20), "half as much again");
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
    fn a_file_system_that_allocates_nothing_in_advance_is_asked_once() {
        // A pipe has no blocks.
        let pipe = rustix::pipe::pipe().unwrap().1.into();
        let mut blocks = Blocks::ahead(true, reservation(&pipe, None));
        blocks.cover(&Space::default(), &pipe, ALLOCATE_MIN_BYTES, 1).unwrap();
        assert!(!blocks.allocates && blocks.allocated_to == 0);
    }

    #[test]
    fn for_an_announced_size_they_are_there_at_once_and_counted_once() {
        let Some(file) = file() else { return };
        for (size, is_allocated) in [(1 << 19, false), (4 << 20, true)] {
            let blocks = Blocks::of_size(&file, size, true, reservation(&file, Some(size))).unwrap();
            assert_eq!((file.metadata().unwrap().len(), allocated(&file)), (0, if is_allocated { size } else { 0 }));
            assert_eq!(blocks.reservation.left(), if is_allocated { 0 } else { size });
        }
    }

    #[test]
    fn of_an_announced_size_that_did_not_come_they_are_given_back() {
        let Some(mut file) = file() else { return };
        let mut blocks = Blocks::of_size(&file, 4 << 20, true, reservation(&file, Some(4 << 20))).unwrap();
        append(&mut file, &mut blocks, 1 << 20);
        assert_eq!(allocated(&file), 4 << 20);
        blocks.give_back(&file, 1 << 20);
        assert_eq!((file.metadata().unwrap().len(), allocated(&file)), (1 << 20, 1 << 20));
    }

    #[test]
    fn in_memory_and_on_btrfs_they_do_not_pay() {
        for (base, pays) in [(PathBuf::from("/dev/shm"), false), (std::env::temp_dir(), true)] {
            let Ok(directory) = File::open(&base) else {
                leave_out(&format!("there is no {}", base.display()));
                continue;
            };
            let magic = fstatfs(&directory).unwrap().f_type as u64;
            assert_eq!(
                pay(&directory).unwrap(),
                pays && magic != TMPFS_MAGIC && magic != BTRFS_MAGIC,
                "{}",
                base.display()
            );
        }
    }
}

//! Blocks of the disk, before the content that fills them (fallocate(2)).
//!
//! With blocks allocated in advance the file system need not allocate one for every page that is written, and finds them in
//! one piece; and a disk that has no room for an upload of a known size says so before its first byte. Where the size is
//! not known, blocks run ahead of the content, by as much as there is of it already:
//!
//! ```text
//!   written    |=============>
//!   blocks     |-------------+-------------|    what is not needed is given back at the end
//! ```
//!
//! A short file is written in one go and has none of this. Knows nothing of names.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FallocateFlags, fallocate, fstatfs, ftruncate};
use rustix::io::{Errno, retry_on_intr};

use super::StoreError;
use super::space::{Reservation, Space};

/// From here on, in bytes, a file is long enough for it to pay.
const ALLOCATE_MIN_BYTES: u64 = 1 << 20;
/// The furthest that blocks run ahead of content of unknown size, in bytes: from there on a call for each of them is too
/// seldom to be noticed.
const AHEAD_MAX_BYTES: u64 = 8 << 20;
/// tmpfs (statfs(2)): allocating there fills pages with zeros, in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// btrfs: it never compresses what is written to blocks that were allocated in advance.
const BTRFS_MAGIC: u64 = 0x9123_683e;

/// Whether the file system that `directory` is on gains by it.
pub(super) fn pay(directory: impl AsFd) -> rustix::io::Result<bool> {
    // The type's width and sign differ by machine, the number does not.
    let magic = fstatfs(directory)?.f_type as u64;
    Ok(![TMPFS_MAGIC, BTRFS_MAGIC].contains(&magic))
}

/// The blocks of one file, and the space that is reserved for it.
#[derive(Debug)]
pub(super) struct Blocks {
    reservation: Reservation,
    /// Whether any are to be allocated in advance.
    allocates: bool,
    /// Up to here, in bytes of content, they have been. 0: nowhere.
    allocated_to: u64,
    /// Up to here space is reserved or allocated.
    covered_to: u64,
}

impl Blocks {
    /// For content of `size` bytes, for which space is reserved. If they are to be allocated, all of them are now. The size
    /// of `file` does not change.
    ///
    /// # Errors
    /// Whatever the file system says, except that it cannot do that.
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

    /// Whether content of unknown size that is `size` bytes long so far has no use for them.
    pub(super) fn are_needless(size: u64) -> bool {
        size <= ALLOCATE_MIN_BYTES
    }

    /// For content of unknown size.
    pub(super) fn ahead(allocates: bool, reservation: Reservation) -> Self {
        Self { reservation, allocates, allocated_to: 0, covered_to: 0 }
    }

    /// To be called before `count` bytes are added to the `size` bytes that `file` has.
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

    /// Lets the blocks run ahead. Returns whether that was possible: a disk that is nearly full has room for content only.
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
            // Some of them may be there.
            self.give_back(file, size);
        }
        is_allocated
    }

    /// So many bytes have been added.
    pub(super) fn written(&mut self, count: usize) {
        self.reservation.used(count as u64);
    }

    /// Gives back those that `file` does not need for its `size` bytes, and allocates none in advance any more.
    pub(super) fn give_back(&mut self, file: &File, size: u64) {
        self.allocates = false;
        // A file that others have shortened must not be made whole with zeros.
        let is_untouched = || file.metadata().is_ok_and(|meta| meta.len() == size);
        if std::mem::take(&mut self.allocated_to) > size && is_untouched() {
            // Where that fails the file takes more of the disk than it has to, and is none the worse for it.
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
    // A file system may need a few blocks to find the others by.
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

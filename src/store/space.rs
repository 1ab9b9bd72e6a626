//! Whether a file fits: into the free space, less what other uploads have announced, less what is to stay free.
//!
//! A refusal before the first byte is better than one after the last but one. So the size that an upload announces is
//! reserved until it is written, or its blocks are allocated: from then on the file system counts it. An upload that
//! announces no size takes space for each piece, and fails at the piece that does not fit.
//!
//! Asking the file system costs a system call. So each answer also covers the next pieces of all uploads together, up to
//! [`UNASKED_MAX_BYTES`]. Other programs may use the same space meanwhile, so the space that stays free may be less by as
//! much.
//!
//! On a file system that does not tell its size (ramfs, some network and FUSE file systems) nothing is refused here. The
//! write decides.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{StatVfs, fstatvfs};

use super::StoreError;

/// How much stays free by default, in bytes, at most: enough for logs, and for the administrator to work.
const MIN_FREE_MAX_BYTES: u64 = 256 << 20;
/// On a small file system, one part in this many stays free by default.
const MIN_FREE_SHARE: u64 = 20;

/// How much all uploads together may take before the file system is asked again, in bytes: a few hundred small files, so
/// that asking is not noticed.
const UNASKED_MAX_BYTES: u64 = 1 << 20;

/// The free space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The bytes that are left for processes without privileges.
    pub free_bytes: u64,
    /// The bytes that uploads leave free.
    pub min_free_bytes: u64,
}

/// The space that uploads share.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// In bytes, if it was set.
    min_free: OnceLock<u64>,
    /// Bytes that uploads have announced and that are neither written nor allocated.
    announced: Arc<AtomicU64>,
    /// Bytes that may be taken before the file system is asked again. Only the loop takes any.
    unasked: AtomicU64,
}

impl Space {
    /// Keeps `bytes` free. Only the first call counts.
    pub(super) fn keep_free(&self, bytes: u64) {
        self.min_free.get_or_init(|| bytes);
    }

    /// A reservation of nothing.
    pub(super) fn reserve_nothing(&self) -> Reservation {
        Reservation { sum: self.announced.clone(), left: 0 }
    }

    /// Reserves `size` bytes on the file system of `directory`. Without a size, only checks that there is any space.
    ///
    /// # Errors
    /// [`StoreError::Full`] with the figures, if they do not fit.
    pub(super) fn reserve(&self, directory: impl AsFd, size: Option<u64>) -> Result<Reservation, StoreError> {
        let mut reservation = self.reserve_nothing();
        if size != Some(0) {
            self.take(directory, size.unwrap_or(1))?;
        }
        reservation.left = size.unwrap_or(0);
        self.announced.fetch_add(reservation.left, Ordering::Relaxed);
        Ok(reservation)
    }

    /// Takes `bytes`, which are about to be written or allocated on the file system that `at` is on.
    ///
    /// # Errors
    /// [`StoreError::Full`] with the figures, if they do not fit.
    pub(super) fn take(&self, at: impl AsFd, bytes: u64) -> Result<(), StoreError> {
        // Nothing is taken unasked after a refusal.
        let left = match self.unasked.swap(0, Ordering::Relaxed).checked_sub(bytes) {
            Some(left) => left,
            None => self.ask(at, bytes)?.min(UNASKED_MAX_BYTES),
        };
        self.unasked.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// The free space of the file system that `at` is on, if it tells.
    ///
    /// # Errors
    /// The error of fstatvfs(3).
    pub(super) fn room(&self, at: impl AsFd) -> io::Result<Option<Room>> {
        Ok(available(&fstatvfs(at)?, self.min_free.get().copied()))
    }

    /// Asks the file system. Returns how many more bytes there are.
    fn ask(&self, at: impl AsFd, bytes: u64) -> Result<u64, StoreError> {
        let announced = self.announced.load(Ordering::Relaxed);
        let Some(Room { free_bytes, min_free_bytes }) = self.room(at)? else { return Ok(u64::MAX) };
        let free = free_bytes.saturating_sub(min_free_bytes).saturating_sub(announced);
        free.checked_sub(bytes).ok_or_else(|| {
            let words = format!(
                "it needs {bytes} bytes, and {free} are free beside {announced} for other uploads and {min_free_bytes} \
                 that stay free"
            );
            StoreError::Full(io::Error::new(io::ErrorKind::StorageFull, words))
        })
    }
}

/// What one upload has announced. A drop gives back what was not used.
#[derive(Debug)]
pub(super) struct Reservation {
    /// What all uploads have announced. Partial files end on the committer's thread, too.
    sum: Arc<AtomicU64>,
    /// This upload's part of the sum.
    left: u64,
}

impl Reservation {
    /// The bytes that the file system does not count yet.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The file system counts `bytes` of them from now on.
    pub(super) fn used(&mut self, bytes: u64) {
        let used = bytes.min(self.left);
        self.left -= used;
        self.sum.fetch_sub(used, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.used(u64::MAX);
    }
}

/// The free space of a file system. `None` if it does not tell its size.
fn available(file_system: &StatVfs, min_free: Option<u64>) -> Option<Room> {
    let in_bytes = |blocks: u64| blocks.saturating_mul(file_system.f_frsize);
    let default = (in_bytes(file_system.f_blocks) / MIN_FREE_SHARE).min(MIN_FREE_MAX_BYTES);
    let (free_bytes, min_free_bytes) = (in_bytes(file_system.f_bavail), min_free.unwrap_or(default));
    (file_system.f_blocks > 0).then_some(Room { free_bytes, min_free_bytes })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    /// The space at `path`, of which all but `bytes` is to stay free. Other programs may use the disk: a quarter of that,
    /// more or less, does not matter here.
    fn space_of(path: &Path, bytes: u64) -> (File, Space) {
        let directory = File::open(path).unwrap();
        let space = Space::default();
        let file_system = fstatvfs(&directory).unwrap();
        space.keep_free((file_system.f_bavail * file_system.f_frsize).checked_sub(bytes).unwrap());
        (directory, space)
    }

    const PIECE: u64 = 16 << 20;

    #[test]
    fn what_is_announced_is_summed_until_it_is_used_or_given_up() {
        let base = tempfile::tempdir().unwrap();
        let (directory, space) = space_of(base.path(), 8 * PIECE);
        let mut first = space.reserve(&directory, Some(6 * PIECE)).unwrap();
        let error = space.reserve(&directory, Some(6 * PIECE)).unwrap_err();
        assert!(matches!(error, StoreError::Full(_)));
        let words = error.to_string();
        assert!(words.contains(&format!("needs {} bytes", 6 * PIECE)), "{words}");
        assert!(words.contains(&format!("{} for other uploads", 6 * PIECE)), "{words}");
        first.used(PIECE);
        assert_eq!(space.announced.load(Ordering::Relaxed), 5 * PIECE);
        drop(first);
        assert_eq!(space.announced.load(Ordering::Relaxed), 0);
        space.reserve(&directory, Some(6 * PIECE)).unwrap();
    }

    #[test]
    fn a_file_of_unknown_size_needs_some_space_and_takes_none_from_others() {
        let base = tempfile::tempdir().unwrap();
        let (directory, space) = space_of(base.path(), 8 * PIECE);
        let _unsized_file = space.reserve(&directory, None).unwrap();
        let sized_file = space.reserve(&directory, Some(6 * PIECE)).unwrap();
        space.take(&directory, PIECE).unwrap();
        assert!(matches!(space.take(&directory, 3 * PIECE), Err(StoreError::Full(_))));
        drop(sized_file);
        space.take(&directory, 3 * PIECE).unwrap();
        let space = Space { min_free: u64::MAX.into(), ..Space::default() };
        assert!(space.reserve(&directory, None).is_err());
    }

    #[test]
    fn one_answer_covers_small_pieces_up_to_a_sum() {
        let base = tempfile::tempdir().unwrap();
        let (directory, space) = space_of(base.path(), 8 * PIECE);
        let take = |bytes| {
            let result = space.take(&directory, bytes);
            (result.is_ok(), space.unasked.load(Ordering::Relaxed))
        };
        assert_eq!(take(5), (true, UNASKED_MAX_BYTES));
        assert_eq!(take(UNASKED_MAX_BYTES - 5), (true, 5));
        assert_eq!(take(6), (true, UNASKED_MAX_BYTES), "it has asked again");
        assert_eq!(take(16 * PIECE), (false, 0));
        assert_eq!(take(5), (true, UNASKED_MAX_BYTES));
    }

    #[test]
    fn an_empty_file_always_fits() {
        let base = tempfile::tempdir().unwrap();
        let (directory, space) = space_of(base.path(), 0);
        let space = Space { min_free: u64::MAX.into(), ..space };
        space.reserve(&directory, Some(0)).unwrap();
        assert!(space.reserve(&directory, Some(1)).is_err());
    }

    #[test]
    fn a_twentieth_stays_free_unless_asked_otherwise_and_nothing_is_known_without_a_size() {
        let base = tempfile::tempdir().unwrap();
        let mut file_system = fstatvfs(File::open(base.path()).unwrap()).unwrap();
        (file_system.f_frsize, file_system.f_bavail) = (4096, 1000);
        for (blocks, min_free, expected) in [
            (2000, None, Some((4_096_000, 409_600))),
            (1 << 40, None, Some((4_096_000, MIN_FREE_MAX_BYTES))),
            (2000, Some(7), Some((4_096_000, 7))),
            (0, None, None),
            (0, Some(7), None),
        ] {
            file_system.f_blocks = blocks;
            let room = available(&file_system, min_free).map(|room| (room.free_bytes, room.min_free_bytes));
            assert_eq!(room, expected, "{blocks} {min_free:?}");
        }
    }
}

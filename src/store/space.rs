//! Whether a file will fit: free space, less what other uploads have announced, less what is to stay free.
//!
//! A refusal before the first byte is better than one after the last but one. So the size that an upload announces is
//! reserved until it is written, or its blocks are allocated: from then on the file system counts it. An upload that
//! announces no size reserves nothing. It asks again for each piece that it grows by, and ends where that does not fit.
//!
//! A file system that does not tell its size (ramfs, some network and FUSE file systems) refuses nothing here. There the
//! write decides.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{StatVfs, fstatvfs};

use super::StoreError;

/// The most that stays free where nothing else was asked for, in bytes: enough for logs and for a way out.
const MIN_FREE_MAX_BYTES: u64 = 256 << 20;
/// Of a small file system, one part in so many stays free.
const MIN_FREE_SHARE: u64 = 20;

/// The space that uploads share.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// In bytes, if it was set.
    min_free: OnceLock<u64>,
    announced: Arc<AtomicU64>,
}

impl Space {
    /// `bytes` are to stay free. Only the first call counts.
    pub(super) fn keep_free(&self, bytes: u64) {
        self.min_free.get_or_init(|| bytes);
    }

    /// A reservation of nothing.
    pub(super) fn reserve_nothing(&self) -> Reservation {
        Reservation { sum: self.announced.clone(), min_free: self.min_free.get().copied(), left: 0 }
    }

    /// Reserves `size` bytes on the file system of `directory`. Without a size, only checks that there is any space.
    ///
    /// # Errors
    /// [`StoreError::Full`] with the figures, where they do not fit.
    pub(super) fn reserve(&self, directory: impl AsFd, size: Option<u64>) -> Result<Reservation, StoreError> {
        let reservation = self.reserve_nothing();
        match size {
            Some(0) => Ok(reservation),
            Some(bytes) => reservation.announce(directory, bytes),
            None => reservation.check(directory, 1).map(|_| reservation),
        }
    }
}

/// What one upload has announced. Dropping it gives back what was not used.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Bytes that all uploads have announced and that are neither written nor allocated. Partial files end on the
    /// committer's thread, too.
    sum: Arc<AtomicU64>,
    min_free: Option<u64>,
    /// This upload's part of the sum.
    left: u64,
}

impl Reservation {
    /// The bytes of it that the file system does not count yet.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    fn announce(mut self, directory: impl AsFd, bytes: u64) -> Result<Self, StoreError> {
        self.check(directory, bytes)?;
        self.sum.fetch_add(bytes, Ordering::Relaxed);
        self.left = bytes;
        Ok(self)
    }

    /// Checks that there is space for `bytes` that are not announced. Returns how much there is.
    ///
    /// # Errors
    /// [`StoreError::Full`] with the figures, where there is not.
    pub(super) fn check(&self, at: impl AsFd, bytes: u64) -> Result<u64, StoreError> {
        let announced = self.sum.load(Ordering::Relaxed);
        let Some((available, min_free)) = available(&fstatvfs(at)?, self.min_free) else { return Ok(u64::MAX) };
        let free = available.saturating_sub(min_free).saturating_sub(announced);
        if bytes <= free {
            return Ok(free);
        }
        let words = format!(
            "it needs {bytes} bytes, and {free} are free beside {announced} for other uploads and {min_free} that stay free"
        );
        Err(StoreError::Full(io::Error::new(io::ErrorKind::StorageFull, words)))
    }

    /// So many bytes are counted by the file system now.
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

/// How many bytes a file system has left, and how many of them are to stay free. `None` if it does not tell its size.
fn available(file_system: &StatVfs, min_free: Option<u64>) -> Option<(u64, u64)> {
    let in_bytes = |blocks: u64| blocks.saturating_mul(file_system.f_frsize);
    let default = (in_bytes(file_system.f_blocks) / MIN_FREE_SHARE).min(MIN_FREE_MAX_BYTES);
    (file_system.f_blocks > 0).then(|| (in_bytes(file_system.f_bavail), min_free.unwrap_or(default)))
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
        let unsized_file = space.reserve(&directory, None).unwrap();
        let sized_file = space.reserve(&directory, Some(6 * PIECE)).unwrap();
        let free = unsized_file.check(&directory, PIECE).unwrap();
        assert!((PIECE..3 * PIECE).contains(&free), "{free}");
        assert!(matches!(unsized_file.check(&directory, 3 * PIECE), Err(StoreError::Full(_))));
        drop(sized_file);
        let space = Space { min_free: u64::MAX.into(), ..space };
        assert!(space.reserve(&directory, None).is_err());
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
            assert_eq!(available(&file_system, min_free), expected, "{blocks} {min_free:?}");
        }
    }
}

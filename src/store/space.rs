//! Whether a file will fit: free space, less what uploads under way have announced, less what is to stay free.
//!
//! To be refused before the first byte is better than after the last but one. What was announced counts until it is
//! written or allocated (fallocate(2)), because from then on the file system counts it itself. Uploads that announce no
//! size are not counted; a full disk ends them when it comes to that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate, fstatfs, fstatvfs};
use rustix::io::{Errno, retry_on_intr};

use super::StoreError;

/// The most that stays free where nothing else was asked for, in bytes: enough for logs and for a way out.
const MIN_FREE_MAX_BYTES: u64 = 256 << 20;
/// Of a small file system, one part in so many stays free.
const MIN_FREE_SHARE: u64 = 20;
/// From here on, in bytes, blocks are allocated before the content comes: a smaller file is written in one go.
const ALLOCATE_MIN_BYTES: u64 = 1 << 20;
/// tmpfs (statfs(2)): allocating there fills pages with zeros, in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The space that uploads share.
#[derive(Debug)]
pub(super) struct Space {
    /// In bytes.
    min_free: Option<u64>,
    /// Whether the file system gains by allocating early.
    allocates: bool,
    /// Bytes that were announced and are neither written nor allocated. Partial files end on the committer's thread, too.
    announced: Arc<AtomicU64>,
}

impl Space {
    /// Of the file system that `directory` is on.
    pub(super) fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        // The type's width and sign differ by machine, the number does not.
        let allocates = fstatfs(directory)?.f_type as u64 != TMPFS_MAGIC;
        Ok(Self { min_free: None, allocates, announced: Arc::default() })
    }

    /// So many bytes are to stay free.
    pub(super) fn keep_free(&mut self, bytes: u64) {
        self.min_free = Some(bytes);
    }

    /// Sets `bytes` aside in the books.
    ///
    /// # Errors
    /// [`StoreError::Full`] with the figures, where they do not fit.
    pub(super) fn reserve(&self, directory: impl AsFd, bytes: u64) -> Result<Reservation, StoreError> {
        if bytes == 0 {
            return Ok(Reservation { announced: self.announced.clone(), left: 0 });
        }
        let file_system = fstatvfs(directory)?;
        let in_bytes = |blocks: u64| blocks.saturating_mul(file_system.f_frsize);
        let min_free =
            self.min_free.unwrap_or((in_bytes(file_system.f_blocks) / MIN_FREE_SHARE).min(MIN_FREE_MAX_BYTES));
        let announced = self.announced.load(Ordering::Relaxed);
        let free = in_bytes(file_system.f_bavail).saturating_sub(min_free).saturating_sub(announced);
        if bytes > free {
            let words = format!(
                "it needs {bytes} bytes, and {free} are free beside {announced} for other uploads and {min_free} that \
                 stay free"
            );
            return Err(StoreError::Full(io::Error::new(io::ErrorKind::StorageFull, words)));
        }
        self.announced.fetch_add(bytes, Ordering::Relaxed);
        Ok(Reservation { announced: self.announced.clone(), left: bytes })
    }

    /// Allocates the blocks of a file of `size` bytes without changing its size, so that a disk that has no room for it says
    /// so at once.
    ///
    /// # Errors
    /// Whatever the file system says, except that it knows no such thing.
    pub(super) fn allocate(&self, file: &File, size: u64, reservation: &mut Reservation) -> Result<(), StoreError> {
        if !self.allocates || size < ALLOCATE_MIN_BYTES {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, 0, size)) {
            Ok(()) => {
                reservation.used(u64::MAX);
                Ok(())
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What one upload has announced. Dropping it gives back what was not used.
#[derive(Debug)]
pub(super) struct Reservation {
    announced: Arc<AtomicU64>,
    left: u64,
}

impl Reservation {
    /// So many bytes are counted by the file system now.
    pub(super) fn used(&mut self, bytes: u64) {
        let used = bytes.min(self.left);
        self.left -= used;
        self.announced.fetch_sub(used, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.used(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;

    /// The space at `path`, of which all but `bytes` is to stay free; the disk is shared, so 1 GiB more or less.
    fn space_of(path: &Path, bytes: u64) -> (File, Space) {
        let directory = File::open(path).unwrap();
        let mut space = Space::of(directory.as_fd()).unwrap();
        let file_system = fstatvfs(&directory).unwrap();
        space.keep_free(file_system.f_bavail * file_system.f_frsize - bytes);
        (directory, space)
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_announced_is_summed_until_it_is_used_or_given_up() {
        let base = tempfile::tempdir().unwrap();
        let (directory, space) = space_of(base.path(), 8 * GIB);
        let mut first = space.reserve(&directory, 6 * GIB).unwrap();
        let error = space.reserve(&directory, 6 * GIB).unwrap_err();
        assert!(matches!(error, StoreError::Full(_)));
        let words = error.to_string();
        assert!(words.contains(&format!("needs {} bytes", 6 * GIB)), "{words}");
        assert!(words.contains(&format!("{} for other uploads", 6 * GIB)), "{words}");
        first.used(GIB);
        assert_eq!(space.announced.load(Ordering::Relaxed), 5 * GIB);
        drop(first);
        assert_eq!(space.announced.load(Ordering::Relaxed), 0);
        space.reserve(&directory, 6 * GIB).unwrap();
    }

    #[test]
    fn an_empty_file_always_fits() {
        let base = tempfile::tempdir().unwrap();
        let (directory, mut space) = space_of(base.path(), 0);
        space.keep_free(u64::MAX);
        space.reserve(&directory, 0).unwrap();
        assert!(space.reserve(&directory, 1).is_err());
    }

    #[test]
    fn blocks_are_allocated_for_large_files_on_disk_and_counted_once() {
        for (base, size, is_allocated) in [
            (std::env::temp_dir(), 4 << 20, true),
            (std::env::temp_dir(), 1 << 19, false),
            ("/dev/shm".into(), 4 << 20, false),
        ] {
            let Ok(base) = tempfile::tempdir_in(base) else { continue };
            let (directory, space) = space_of(base.path(), GIB);
            let file = tempfile::tempfile_in(base.path()).unwrap();
            let mut reservation = space.reserve(&directory, size).unwrap();
            space.allocate(&file, size, &mut reservation).unwrap();
            let meta = file.metadata().unwrap();
            if is_allocated && meta.blocks() == 0 {
                eprintln!("left out: {} allocates nothing early", base.path().display());
                continue;
            }
            assert_eq!((meta.len(), meta.blocks() * 512), (0, if is_allocated { size } else { 0 }));
            assert_eq!(space.announced.load(Ordering::Relaxed), if is_allocated { 0 } else { size });
        }
    }
}

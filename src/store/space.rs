//! Whether a file will fit: free space, less what uploads under way have announced, less what is to stay free.
//!
//! To be refused before the first byte is better than after the last but one. What was announced counts until it is
//! written, or its blocks allocated, because from then on the file system counts it itself. Uploads that announce no
//! size are not counted; a full disk ends them when it comes to that.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::fstatvfs;

use super::StoreError;

/// The most that stays free where nothing else was asked for, in bytes: enough for logs and for a way out.
const MIN_FREE_MAX_BYTES: u64 = 256 << 20;
/// Of a small file system, one part in so many stays free.
const MIN_FREE_SHARE: u64 = 20;

/// The space that uploads share.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// In bytes.
    min_free: Option<u64>,
    /// Bytes that were announced and are neither written nor allocated. Partial files end on the committer's thread, too.
    announced: Arc<AtomicU64>,
}

impl Space {
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
            return Ok(Reservation(None));
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
        Ok(Reservation(Some(Box::new(Announced { sum: self.announced.clone(), left: bytes }))))
    }
}

/// What one upload has announced. Dropping it gives back what was not used. Boxed, as many announce nothing.
#[derive(Debug)]
pub(super) struct Reservation(Option<Box<Announced>>);

#[derive(Debug)]
struct Announced {
    /// Of all uploads.
    sum: Arc<AtomicU64>,
    left: u64,
}

impl Reservation {
    /// The bytes of it that nobody counts yet but the books.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.0.as_ref().map_or(0, |announced| announced.left)
    }

    /// So many bytes are counted by the file system now.
    pub(super) fn used(&mut self, bytes: u64) {
        if let Some(announced) = &mut self.0 {
            announced.used(bytes);
        }
    }
}

impl Announced {
    fn used(&mut self, bytes: u64) {
        let used = bytes.min(self.left);
        self.left -= used;
        self.sum.fetch_sub(used, Ordering::Relaxed);
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.used(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    /// The space at `path`, of which all but `bytes` is to stay free; the disk is shared, so 1 GiB more or less.
    fn space_of(path: &Path, bytes: u64) -> (File, Space) {
        let directory = File::open(path).unwrap();
        let mut space = Space::default();
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
}

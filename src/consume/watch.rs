//! Notices new entries of the queue at once (inotify(7)).
//!
//! A server closes the slip of an entry when consumers may take it, and a slip that is put back is moved into the queue. Only
//! hints: a look at the whole queue decides. Knows no entries.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

use crate::store::slip::number_of_slip;

/// Room for some hundred events at a time.
const BUFFER_BYTES: usize = 8 << 10;

/// A watched directory. Readable when something has happened.
pub(super) struct Watch(OwnedFd);

impl Watch {
    /// # Errors
    /// The system has no inotify, or this user has too many of them.
    pub(super) fn start(queue: &Path) -> rustix::io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let kinds = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        add_watch(&inotify, queue, kinds)?;
        Ok(Self(inotify))
    }

    /// Tells the numbers of the entries that are new since the last call. Returns whether some may be missing.
    pub(super) fn numbers(&mut self, mut tell: impl FnMut(u64)) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let (mut events, mut has_missed) = (Reader::new(&self.0, &mut buffer), false);
        // It ends with EAGAIN. Whatever else it may say, the next look at the queue makes up for it.
        while let Ok(event) = events.next() {
            has_missed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if let Some(number) = event.file_name().and_then(|name| number_of_slip(name.to_str().ok()?)) {
                tell(number);
            }
        }
        has_missed
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_slip_that_is_closed_or_moved_in_is_noticed() {
        let base = tempfile::tempdir().unwrap();
        let queue = base.path().join("queue");
        fs::create_dir(&queue).unwrap();
        let mut watch = Watch::start(&queue).unwrap();
        let mut numbers = Vec::new();
        assert!(!watch.numbers(|number| numbers.push(number)) && numbers.is_empty());
        fs::write(base.path().join("slip"), "").unwrap();
        fs::rename(base.path().join("slip"), queue.join("000000000007.json")).unwrap();
        for other in ["000000000008.json", "000000000009", "next"] {
            fs::write(queue.join(other), "").unwrap();
        }
        assert!(!watch.numbers(|number| numbers.push(number)));
        assert_eq!(numbers, [7, 8]);
    }
}

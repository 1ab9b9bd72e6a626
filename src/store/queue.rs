//! The queue of published files, for a program that comes next: `.intake/queue/`.
//!
//! An entry has two names. `NUMBER` is a hard link to the content, so what was confirmed stays there even if the stored file is
//! replaced, renamed or removed. `NUMBER.json` is its slip: what is known of the file. An entry counts while both are there.
//!
//! The numbers come from the file `next`, in which each server reserves some at a time under a lock (flock(2)). So they are
//! unique among all servers on the directory, and grow: a number that was used is not used again, whatever the clock says.
//!
//! The holder of the lock on the slip owns the entry: the server until the file has its final name, then a consumer. A lock
//! ends with its process. `queued` says how an entry is made.
//!
//! Knows neither uploads nor what becomes of the entries.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lockdir::open_directory;
use super::slip::{FAILED, QUEUE, entry_name, number_of, slip_name};
use super::{StoreError, cannot};
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fsync, mkdirat, openat, statat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

/// The file with the next number that no server has reserved.
const COUNTER: &str = "next";
/// How many numbers a server reserves at a time. A server that ends leaves the rest unused; 64 bits last.
const RESERVED: u64 = 1000;

const BUSY: StoreError =
    StoreError::Busy("the file of this upload is whole and in the queue, and a consumer is at work on it");

/// The open queue of a directory.
#[derive(Debug)]
pub(super) struct Queue {
    directory: OwnedFd,
    /// Whether an entry must survive a power cut.
    pub(super) syncs: bool,
    /// Numbers that are reserved and unused.
    numbers: Mutex<Range<u64>>,
    waiting: AtomicU64,
    failed: AtomicU64,
}

impl Queue {
    /// Opens the queue in `intake`, and makes it if it is missing.
    ///
    /// # Errors
    /// In words: it cannot be made, opened or written to.
    pub(super) fn open(intake: BorrowedFd<'_>, syncs: bool) -> io::Result<Self> {
        match mkdirat(intake, QUEUE, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(cannot("its .intake/queue", "made")(errno)),
        }
        let directory = open_directory(intake, QUEUE).map_err(cannot("its .intake/queue", "opened"))?;
        let (waiting, failed) = Default::default();
        let queue = Self { directory, syncs, numbers: Mutex::default(), waiting, failed };
        let reserved = queue.reserve().map_err(cannot("its .intake/queue", "written to"))?;
        *queue.numbers.lock().expect("its holders do not panic") = reserved;
        if syncs {
            queue.sync()?;
        }
        Ok(queue)
    }

    /// Returns when the entries would survive a power cut.
    ///
    /// # Errors
    /// They may not survive.
    pub(super) fn sync(&self) -> rustix::io::Result<()> {
        retry_on_intr(|| fsync(&self.directory))
    }

    /// Counts the entries, for [`Queue::counts`].
    ///
    /// # Errors
    /// The queue cannot be listed.
    pub(super) fn recount(&self) -> io::Result<()> {
        self.waiting.store(count(Dir::read_from(&self.directory)?)?, Ordering::Relaxed);
        let failed = match open_directory(self.directory.as_fd(), FAILED) {
            Ok(failed) => count(Dir::read_from(failed)?)?,
            Err(Errno::NOENT) => 0,
            Err(errno) => return Err(errno.into()),
        };
        self.failed.store(failed, Ordering::Relaxed);
        Ok(())
    }

    /// How many entries there were when they were counted last: those that wait, and those that have failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.waiting.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// The number of the next entry.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn next_number(&self) -> io::Result<u64> {
        let mut numbers = self.numbers.lock().expect("its holders do not panic");
        if numbers.is_empty() {
            *numbers = self.reserve()?;
        }
        Ok(numbers.next().expect("some are reserved"))
    }

    fn reserve(&self) -> io::Result<Range<u64>> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let counter = File::from(openat(&self.directory, COUNTER, flags, Mode::RUSR | Mode::WUSR)?);
        if !counter.metadata()?.is_file() {
            return Err(io::Error::other(format!("{COUNTER} is no file")));
        }
        retry_on_intr(|| flock(&counter, FlockOperation::LockExclusive))?;
        let mut text = String::new();
        (&counter).take(64).read_to_string(&mut text)?;
        let first = match text.trim().parse() {
            Ok(number) => number,
            // It is new, or a power cut has come before its first sync.
            Err(_) => self.last()?.map_or(1, |last| last + 1),
        };
        counter.write_all_at(format!("{:020}\n", first + RESERVED).as_bytes(), 0)?;
        if self.syncs {
            counter.sync_data()?;
        }
        Ok(first..first + RESERVED)
    }

    /// The highest number of an entry.
    fn last(&self) -> io::Result<Option<u64>> {
        let mut last = None;
        for entry in Dir::read_from(&self.directory)? {
            last = last.max(entry?.file_name().to_str().ok().and_then(number_of));
        }
        Ok(last)
    }

    /// Removes the entry `number`. For its owner only. The content goes first: a slip alone is the rest of an entry that is
    /// done, and anyone may remove it.
    pub(super) fn remove(&self, number: u64) -> rustix::io::Result<()> {
        remove(self.directory.as_fd(), number)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn count(entries: Dir) -> io::Result<u64> {
    let mut count = 0;
    for entry in entries {
        count += u64::from(entry?.file_name().to_str().ok().and_then(number_of).is_some());
    }
    Ok(count)
}

fn remove(queue: BorrowedFd<'_>, number: u64) -> rustix::io::Result<()> {
    for name in [entry_name(number), slip_name(number)] {
        match unlinkat(queue, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Takes the entries of `file` out of the queue beside the directory `kept`. A server that was killed in the middle of a
/// publish leaves such an entry of a kept file. The file has no receipt, and will be written to when it is resumed.
///
/// # Errors
/// [`StoreError::Busy`] if a consumer has one, and any error of the file system.
pub(super) fn withdraw(kept: BorrowedFd<'_>, file: &File) -> Result<(), StoreError> {
    let queue = match open_directory(kept, "../queue") {
        Err(Errno::NOENT) => return Ok(()),
        queue => queue?,
    };
    let meta = file.metadata()?;
    for entry in Dir::read_from(&queue)? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().ok().and_then(number_of) else { continue };
        let is_of_file = match statat(&queue, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => (stat.st_dev, stat.st_ino) == (meta.dev(), meta.ino()),
            Err(_) => false,
        };
        if is_of_file {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let slip = openat(&queue, slip_name(number), flags, Mode::empty());
            let lock = slip.map(|slip| flock(&slip, FlockOperation::NonBlockingLockExclusive).map(|()| slip));
            match lock {
                Ok(Err(Errno::WOULDBLOCK)) => return Err(BUSY),
                Ok(Err(errno)) => return Err(errno.into()),
                // Without a slip there is no entry, and no owner.
                Ok(Ok(_)) | Err(_) => remove(queue.as_fd(), number)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn open(intake: &Path) -> Queue {
        Queue::open(File::open(intake).unwrap().as_fd(), false).unwrap()
    }

    /// Also when the servers end and start again, and when one has used up what it had reserved.
    #[test]
    fn no_number_is_used_twice_and_they_grow() {
        let intake = tempfile::tempdir().unwrap();
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let (first, second) = (open(intake.path()), open(intake.path()));
            let before = used.last().copied().unwrap_or(0);
            for queue in [&first, &second] {
                for _ in 0..RESERVED + 5 {
                    let number = queue.next_number().unwrap();
                    assert!(number > before && used.insert(number), "{number}");
                }
            }
        }
        // As a power cut may leave it.
        fs::write(intake.path().join("queue/next"), "").unwrap();
        fs::write(intake.path().join("queue").join(entry_name(9_000_000)), "").unwrap();
        assert_eq!(open(intake.path()).next_number().unwrap(), 9_000_001);
    }

    #[test]
    fn a_counter_that_is_no_file_is_refused_in_words() {
        let intake = tempfile::tempdir().unwrap();
        fs::create_dir(intake.path().join("queue")).unwrap();
        fs::write(intake.path().join("outside"), "7").unwrap();
        std::os::unix::fs::symlink("../outside", intake.path().join("queue/next")).unwrap();
        let error = Queue::open(File::open(intake.path()).unwrap().as_fd(), false).unwrap_err().to_string();
        assert!(error.starts_with("its .intake/queue cannot be written to: "), "{error}");
        assert_eq!(fs::read(intake.path().join("outside")).unwrap(), b"7");
    }

    #[test]
    fn the_entries_of_a_file_are_withdrawn_unless_a_consumer_has_one() {
        let intake = tempfile::tempdir().unwrap();
        let queue = open(intake.path());
        fs::create_dir(intake.path().join("kept")).unwrap();
        let (kept, path) = (File::open(intake.path().join("kept")).unwrap(), intake.path().join("queue"));
        fs::write(intake.path().join("kept/file"), "content").unwrap();
        let file = File::open(intake.path().join("kept/file")).unwrap();
        let plant = |number: u64| {
            fs::hard_link(intake.path().join("kept/file"), path.join(entry_name(number))).unwrap();
            fs::write(path.join(slip_name(number)), "{}").unwrap();
        };
        plant(1);
        fs::write(path.join(entry_name(2)), "another").unwrap();
        let slip = File::open(path.join(slip_name(1))).unwrap();
        flock(&slip, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(withdraw(kept.as_fd(), &file), Err(StoreError::Busy(_))));
        drop(slip);
        withdraw(kept.as_fd(), &file).unwrap();
        let left = |number| (path.join(entry_name(number)).exists(), path.join(slip_name(number)).exists());
        assert_eq!((left(1), left(2)), ((false, false), (true, false)));
        drop(queue);
        fs::remove_dir_all(path).unwrap();
        withdraw(kept.as_fd(), &file).unwrap();
    }
}

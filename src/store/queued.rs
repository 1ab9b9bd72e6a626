//! One entry of the queue while its file is published.
//!
//! | step | a crash after it leaves |
//! |---|---|
//! | write: the slip is written in the lock directory, locked, and synced | a slip that the next server sweeps |
//! | place: the content and the slip get their names in the queue, which is synced | an entry of a whole file, without a receipt |
//! | the file gets its final name, and its directory is synced | an entry |
//! | release: the slip is unlocked | an entry, and the client may have its receipt |
//!
//! **A file that has its final name has its entry, or had it.** In the other order a crash could leave a stored file without an
//! entry; a client that sent it again would hear that it is stored, and nobody would ever work on it. The price: a crash may
//! leave an entry without a receipt, so work may be done twice.
//!
//! Consumers take only entries that are not locked. So they see none before its file has its name, nor one that is dropped
//! because the file is refused.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::fs::{flock, linkat, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::StoreError;
use super::handles::{Handles, Intake};
use super::queue::Queue;
use super::slip::{Slip, entry_name, slip_name};
use crate::proto::Name;

/// An entry that is being made. A drop removes what there is of it, unless it is released.
#[derive(Debug)]
pub(super) struct Queued {
    queue: Arc<Queue>,
    slip: Slip,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// There is nothing of it.
    Due,
    /// The slip of the entry with this number is in a lock directory, under another number.
    Written { number: u64, slip: File, intake: Arc<Intake>, own: u64 },
    /// It is in the queue, and locked.
    Placed { number: u64, slip: File },
    /// Consumers may take it.
    Released,
}

impl Queued {
    pub(super) fn new(queue: Arc<Queue>, slip: Slip) -> Self {
        Self { queue, slip, stage: Stage::Due }
    }

    /// Writes the slip of a file that has `size` bytes, and will probably be stored as `stored`.
    pub(super) fn write(&mut self, handles: &Handles, size: u64, stored: &Name) -> Result<(), StoreError> {
        let number = self.queue.next_number().map_err(StoreError::Queue)?;
        #[expect(clippy::disallowed_methods, reason = "people and programs compare it with other times of the day")]
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (id, stored) = (entry_name(number), stored.to_string());
        self.slip = Slip { id, stored, size, time, ..std::mem::take(&mut self.slip) };
        let text = self.slip.to_json();
        let written = handles.with_intake(|intake| {
            let own = intake.lockdir.next_file();
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
            let file = openat(&intake.lockdir, DecInt::new(own), flags, Mode::RUSR | Mode::WUSR)?;
            Ok((File::from(file), intake.clone(), own))
        });
        let (slip, intake, own) = written.map_err(queue_error)?;
        // From here on a drop removes it.
        self.stage = Stage::Written { number, slip, intake, own };
        let Stage::Written { slip, .. } = &mut self.stage else { return Ok(()) };
        flock(&*slip, FlockOperation::NonBlockingLockExclusive).map_err(|errno| StoreError::Queue(errno.into()))?;
        slip.write_all(text.as_bytes()).map_err(StoreError::Queue)
    }

    /// The slip, to be synced.
    pub(super) fn slip(&self) -> Option<&File> {
        match &self.stage {
            Stage::Written { slip, .. } | Stage::Placed { slip, .. } => Some(slip),
            Stage::Due | Stage::Released => None,
        }
    }

    /// Puts the entry into the queue. `link` gives the content this name in this directory.
    pub(super) fn place(
        &mut self,
        link: impl FnOnce(BorrowedFd<'_>, &str) -> rustix::io::Result<()>,
    ) -> Result<(), StoreError> {
        let Stage::Written { number, slip, intake, own } = std::mem::replace(&mut self.stage, Stage::Due) else {
            return Err(StoreError::Queue(io::Error::other("its slip is not written")));
        };
        let failed = |errno: Errno| StoreError::Queue(errno.into());
        if let Err(errno) = link(self.queue.as_fd(), &entry_name(number)) {
            self.stage = Stage::Written { number, slip, intake, own };
            return Err(failed(errno));
        }
        let from = intake.lockdir.as_fd();
        let moved = match renameat_with(from, DecInt::new(own), &self.queue, slip_name(number), RenameFlags::NOREPLACE)
        {
            // The file system or the kernel does not know the flag.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(from, DecInt::new(own), &self.queue, slip_name(number), AtFlags::empty())
                    .and_then(|()| unlinkat(from, DecInt::new(own), AtFlags::empty()))
            }
            result => result,
        };
        if let Err(errno) = moved {
            let _ = unlinkat(&self.queue, entry_name(number), AtFlags::empty());
            self.stage = Stage::Written { number, slip, intake, own };
            return Err(failed(errno));
        }
        self.stage = Stage::Placed { number, slip };
        Ok(())
    }

    /// The file is stored under this name: consumers may take the entry.
    pub(super) fn release(mut self, stored: &Name) {
        let Stage::Placed { slip, .. } = std::mem::replace(&mut self.stage, Stage::Released) else { return };
        if self.slip.stored != stored.as_str()
            && let Err(error) = self.correct(&slip, stored)
        {
            log::warn!("{stored:?} is stored and queued, but the queue has another name for it: {error}");
        }
        // The close alone would tell consumers of the entry before the lock is gone.
        let _ = flock(&slip, FlockOperation::Unlock);
    }

    /// Another file has taken the name that this one was to get.
    fn correct(&mut self, slip: &File, stored: &Name) -> io::Result<()> {
        let before = self.slip.to_json().len();
        self.slip.stored = stored.to_string();
        let text = self.slip.to_json();
        // Spaces at the end mean nothing to JSON, and a shorter file could be cut off at the wrong moment.
        slip.write_all_at(format!("{text:before$}").as_bytes(), 0)?;
        if self.queue.syncs { slip.sync_data() } else { Ok(()) }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let removed = match &self.stage {
            Stage::Due | Stage::Released => Ok(()),
            Stage::Written { intake, own, .. } => unlinkat(&intake.lockdir, DecInt::new(*own), AtFlags::empty()),
            Stage::Placed { number, .. } => self.queue.remove(*number),
        };
        if let Err(errno) = removed
            && errno != Errno::NOENT
        {
            log::warn!("an entry of a file that is not stored is left in the queue: {errno}");
        }
    }
}

/// What fails for the queue fails for lack of a place for it, whatever the reason.
fn queue_error(error: StoreError) -> StoreError {
    match error {
        StoreError::Full(error) | StoreError::Io(error) => StoreError::Queue(error),
        error => error,
    }
}

//! How a batch of files is made to last, in an order that no crash can hurt.
//!
//! Starts the write-back of each, syncs each, publishes each, syncs the directory once (where there may be a new name), and
//! only then reports. **Nothing has a final name before its content is synced, and no name is reported before the directory
//! is**: what a client hears of survives a power cut.
//!
//! A sync that failed is never repeated: the kernel reports an error once and then forgets which pages were lost, so a
//! second sync that succeeds proves nothing (fsync(2), "fsyncgate"). Nothing more is taken after that, with one exception:
//! a file system that has no space left, or no quota, says so of one file. That upload fails, and the others go on.
//!
//! Knows neither the thread that waits for it nor what kind of disk it is: a test hands in one whose power it can cut.

use std::io;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Claim, Partial, StoreError};
use crate::proto::Name;

/// What it takes of a disk to make files last.
pub trait Disk {
    /// An upload's file.
    type Partial: Partial;
    /// Any file that can be synced.
    type File;

    /// What an upload's content is in.
    fn file(partial: &Self::Partial) -> &Self::File;

    /// Makes the disk begin with what it does not have yet of `file`, and waits for nothing.
    fn start_write_back(&self, file: &Self::File);

    /// Returns when the content of `file` would survive a power cut.
    ///
    /// # Errors
    /// It may not: what was written since the last sync may be lost for good.
    fn sync_data(&self, file: &Self::File) -> io::Result<()>;

    /// Empties a kept file whose sync has failed: what it holds may look whole and not be on the disk.
    fn discard(&self, file: &Self::File);

    /// Returns when the final names would survive a power cut.
    ///
    /// # Errors
    /// They may not.
    fn sync_directory(&self) -> io::Result<()>;

    /// Returns when the names of what is kept to be gone on with would survive a power cut.
    ///
    /// # Errors
    /// They may not.
    fn sync_kept(&self) -> io::Result<()>;
}

/// What is to last.
pub struct Job<D: Disk> {
    /// Whose it is.
    pub claim: Claim,
    /// What is to be done with it.
    pub work: Work<D>,
    /// The name that it has or is to have.
    pub name: Name,
}

/// What there is to be done with a file.
pub enum Work<D: Disk> {
    /// An upload that is whole: it is to have its name.
    Publish(D::Partial),
    /// A file that has its name: another server, or this one just now, may not have synced it.
    Confirm(D::File),
    /// What is kept of an upload that is to go on, and what tells that it is that upload's: the client is told how much it
    /// is.
    Hold(Vec<D::File>),
}

impl<D: Disk> Work<D> {
    /// What is to be synced.
    pub(super) fn files(&self) -> &[D::File] {
        match self {
            Self::Publish(partial) => slice::from_ref(D::file(partial)),
            Self::Confirm(file) => slice::from_ref(file),
            Self::Hold(files) => files,
        }
    }
}

/// What has become of a job.
pub type Settled = (Claim, Result<Name, StoreError>);

/// The commit to one disk.
#[derive(Debug)]
pub struct Commit<D> {
    disk: D,
    has_failed: AtomicBool,
}

impl<D: Disk> Commit<D> {
    /// To a disk that has not failed yet.
    pub fn new(disk: D) -> Self {
        Self { disk, has_failed: AtomicBool::new(false) }
    }

    /// Whether a sync has ever failed.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Makes a batch last, and returns what has become of it. Waits for the disk.
    pub fn run(&self, batch: Vec<Job<D>>) -> Vec<Settled> {
        let files = batch.iter().flat_map(|job| job.work.files());
        files.for_each(|file| self.disk.start_write_back(file));
        let may_name = batch.iter().any(|job| !matches!(job.work, Work::Hold(_)));
        let settled: Vec<Settled> = batch.into_iter().map(|job| self.settle(job)).collect();
        if !may_name || settled.iter().all(|(_, result)| result.is_err()) {
            return settled;
        }
        match self.disk.sync_directory() {
            Ok(()) => settled,
            Err(error) => {
                self.fail(error);
                settled.into_iter().map(|(claim, result)| (claim, result.and(Err(StoreError::Failed)))).collect()
            }
        }
    }

    fn settle(&self, Job { claim, work, name }: Job<D>) -> Settled {
        let result = self.sync(&work).and_then(|()| match work {
            Work::Publish(partial) => partial.publish(name),
            Work::Confirm(_) => Ok(name),
            Work::Hold(_) => self.disk.sync_kept().map(|()| name).map_err(|error| self.fail(error)),
        });
        (claim, result)
    }

    fn sync(&self, work: &Work<D>) -> Result<(), StoreError> {
        if self.has_failed() {
            return Err(StoreError::Failed);
        }
        let Err(error) = work.files().iter().try_for_each(|file| self.disk.sync_data(file)) else { return Ok(()) };
        if let Work::Hold(files) = work {
            files.iter().for_each(|file| self.disk.discard(file));
        }
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match work {
            // Nothing of it is kept, so no later sync can make it look as if it were on the disk.
            Work::Publish(_) | Work::Hold(_) if is_full => Err(error.into()),
            _ => Err(self.fail(error)),
        }
    }

    fn fail(&self, error: io::Error) -> StoreError {
        self.has_failed.store(true, Ordering::Relaxed);
        log::error!("a sync failed, and what it was for may be lost: {error}; nothing more is taken until a restart");
        error.into()
    }
}

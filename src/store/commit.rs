//! How files are made to last, in an order that no crash can hurt.
//!
//! Every job is synced first, any number of them at once ([`Commit::sync`]). What is synced gets its name, a batch at a
//! time; then the directory is synced once, and only then is the batch reported ([`Commit::finish`]). **A file gets its
//! final name after its own content is synced, and a name is reported after the directory is synced**: what a client hears
//! survives a power cut.
//!
//! An error belongs to the job whose sync reports it. A sync that failed is never repeated: the kernel reports an error once
//! and then forgets which pages were lost, so a second sync that succeeds proves nothing (fsync(2), "fsyncgate"). After one,
//! nothing else gets a name. The exception is a file system without space or quota: that upload fails, and the others go on.
//!
//! Knows no thread, and not what kind of disk it is: a test passes in one whose power it can cut.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Done, Owned, Partial, Patch, Settled, StoreError, Token};
use crate::proto::Name;

/// What it takes of a disk to make files last.
pub trait Disk {
    /// An upload's file.
    type Partial: Partial;
    /// Any file that can be synced.
    type File;

    /// The file that holds an upload's content.
    fn file(partial: &Self::Partial) -> &Self::File;

    /// Returns when the content of `file` would survive a power cut.
    ///
    /// # Errors
    /// It may not survive: what was written since the last sync may be lost for good.
    fn sync_data(&self, file: &Self::File) -> io::Result<()>;

    /// Empties a kept file whose sync has failed: its content may look whole and not be on the disk.
    fn discard(&self, file: &Self::File);

    /// Writes `patch` to the record of a kept file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn write_record(&self, record: &Self::File, patch: &Patch) -> io::Result<()>;

    /// Returns when the final names would survive a power cut.
    ///
    /// # Errors
    /// They may not survive.
    fn sync_directory(&self) -> io::Result<()>;

    /// Returns when the names of kept files would survive a power cut.
    ///
    /// # Errors
    /// They may not survive.
    fn sync_kept(&self) -> io::Result<()>;
}

/// A [`super::Job`] on its way to the disk.
struct Job<D: Disk> {
    /// `None`: nobody waits for the result.
    token: Option<Token>,
    work: Work<D>,
}

/// What there is to do with a file.
pub enum Work<D: Disk> {
    /// An upload that is whole: it is to have its name.
    Publish(D::Partial),
    /// A file that has this name already. Another server, or this one just now, may not have synced it.
    Confirm(D::File, Name),
    /// What has come of an upload so far: it is to be kept, to be resumed from here.
    Hold(Hold<D::File>),
}

/// What is kept of an upload. First the content is synced, then the state of its digest is written to its record and synced:
/// a state never covers content that may be lost.
pub struct Hold<F> {
    /// The content so far.
    pub content: F,
    /// What the file is to become, and the states of its digest.
    pub record: F,
    /// The state after that content.
    pub state: Patch,
    /// The final name that the upload is to have.
    pub name: Name,
    /// Dropped after the files, as their close gives up the lock.
    pub upload: Arc<Owned>,
}

impl<D: Disk> Work<D> {
    /// The content to sync.
    fn content(&self) -> &D::File {
        match self {
            Self::Publish(partial) => D::file(partial),
            Self::Confirm(file, _) => file,
            Self::Hold(hold) => &hold.content,
        }
    }

    /// The final name that it is about.
    fn name(&self) -> &Name {
        match self {
            Self::Publish(partial) => partial.name(),
            Self::Confirm(_, name) => name,
            Self::Hold(hold) => &hold.name,
        }
    }

    /// How many files it holds open.
    pub(super) fn files(&self) -> usize {
        match self {
            Self::Publish(_) | Self::Confirm(..) => 1,
            Self::Hold(_) => 2,
        }
    }
}

/// A job and its place among those that were submitted.
pub struct Taken<D: Disk> {
    job: Job<D>,
    number: u64,
}

/// A job whose sync is back. Only [`Commit::sync`] makes one, so nothing gets a name before its sync.
pub struct Synced<D: Disk> {
    job: Job<D>,
    number: u64,
    result: Result<(), StoreError>,
}

impl<D: Disk> Synced<D> {
    /// How many files it holds open.
    pub(super) fn files(&self) -> usize {
        self.job.work.files()
    }

    /// Whether no earlier job of the same name is still syncing.
    fn is_ready(&self, syncing: &[(u64, Name)]) -> bool {
        !syncing.iter().any(|(number, name)| number < &self.number && name == self.job.work.name())
    }
}

/// A job after its last step but the sync of a directory.
struct Named {
    token: Option<Token>,
    /// How it ends, unless that sync fails.
    done: Done,
}

impl Named {
    /// Whether its name is among those of kept files.
    fn is_kept(&self) -> bool {
        matches!(self.done, Done::Held(_))
    }

    fn is_ok(&self) -> bool {
        matches!(self.done, Done::Stored(Ok(_)) | Done::Held(Ok(())))
    }
}

/// Where each job stands on its way: it waits, it is being synced, it is synced.
///
/// Syncs may come back in any order. Files of one name are named in the order in which they were submitted, as a later one
/// may replace an earlier one.
///
/// ```text
///   submit --> waiting --take--> syncing --put_back--> synced --take_ready--> finish
///                                                      (until no earlier job of the
///                                                       same name is syncing)
/// ```
pub struct Lineup<D: Disk> {
    waiting: VecDeque<Job<D>>,
    /// The number of the first that waits.
    next: u64,
    syncing: Vec<(u64, Name)>,
    synced: BTreeMap<u64, Synced<D>>,
}

impl<D: Disk> Default for Lineup<D> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), next: 0, syncing: Vec::new(), synced: BTreeMap::new() }
    }
}

impl<D: Disk> Lineup<D> {
    /// Appends a job. Its result comes back under `token`, if there is one.
    pub fn submit(&mut self, token: Option<Token>, work: Work<D>) {
        self.waiting.push_back(Job { token, work });
    }

    /// How many jobs wait or are syncing.
    pub fn unsynced(&self) -> usize {
        self.waiting.len() + self.syncing.len()
    }

    /// Whether a job is being synced.
    pub fn is_syncing(&self) -> bool {
        !self.syncing.is_empty()
    }

    /// Whether no job is anywhere on its way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.syncing.is_empty() && self.synced.is_empty()
    }

    /// The job that has waited longest. Give it to [`Commit::sync`].
    pub fn take(&mut self) -> Option<Taken<D>> {
        let job = self.waiting.pop_front()?;
        let number = self.next;
        self.next += 1;
        self.syncing.push((number, job.work.name().clone()));
        Some(Taken { job, number })
    }

    /// Takes back what [`Commit::sync`] returned.
    pub fn put_back(&mut self, synced: Synced<D>) {
        self.syncing.retain(|(number, _)| *number != synced.number);
        self.synced.insert(synced.number, synced);
    }

    /// Whether a job can be finished now.
    pub fn has_ready(&self) -> bool {
        self.synced.values().any(|synced| synced.is_ready(&self.syncing))
    }

    /// All jobs that can be finished now. Give them to [`Commit::finish`].
    pub fn take_ready(&mut self) -> Vec<Synced<D>> {
        let Self { syncing, synced, .. } = self;
        synced.extract_if(.., |_, synced| synced.is_ready(syncing)).map(|(_, synced)| synced).collect()
    }
}

/// The commit to one disk.
#[derive(Debug)]
pub struct Commit<D> {
    disk: D,
    has_failed: AtomicBool,
    is_stopped: AtomicBool,
}

impl<D: Disk> Commit<D> {
    /// Past so many names the directory is synced at once: the first of a larger batch would wait longer than the last
    /// gains.
    const BATCH_MAX: usize = 64;

    /// A commit to a disk that has not failed yet.
    pub fn new(disk: D) -> Self {
        Self { disk, has_failed: AtomicBool::new(false), is_stopped: AtomicBool::new(false) }
    }

    /// Whether a sync has ever failed.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Starts no further sync and gives no further name: nobody is left to be told.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Makes the content of a job last. Waits for the disk; any number of threads may do so at once.
    pub fn sync(&self, Taken { job, number }: Taken<D>) -> Synced<D> {
        let result = self.sync_files(&job.work);
        Synced { job, number, result }
    }

    fn sync_files(&self, work: &Work<D>) -> Result<(), StoreError> {
        self.check()?;
        let synced = self.disk.sync_data(work.content()).and_then(|()| match work {
            Work::Publish(_) | Work::Confirm(..) => Ok(()),
            Work::Hold(hold) => self.write_state(hold),
        });
        let Err(error) = synced else { return Ok(()) };
        if let Work::Hold(hold) = work {
            // The upload may still be under way, or wait to be published.
            hold.upload.lose();
            self.disk.discard(&hold.content);
            self.disk.discard(&hold.record);
        }
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match work {
            // Nothing of it is kept, so no later sync can make it look as if it were on the disk.
            Work::Publish(_) | Work::Hold(_) if is_full => Err(error.into()),
            _ => Err(self.fail(error)),
        }
    }

    fn write_state(&self, hold: &Hold<D::File>) -> io::Result<()> {
        self.disk.write_record(&hold.record, &hold.state)?;
        self.disk.sync_data(&hold.record)
    }

    /// Gives synced files their names, makes the names last, and returns what has become of each job. Waits for the disk.
    /// Only one thread at a time.
    ///
    /// `take_ready` is called until it returns none or the batch is full: the more names one sync of the directory covers,
    /// the better.
    pub fn finish(&self, mut take_ready: impl FnMut() -> Vec<Synced<D>>) -> Vec<Settled> {
        let mut named: Vec<Named> = Vec::new();
        while named.len() < Self::BATCH_MAX {
            let ready = take_ready();
            if ready.is_empty() {
                break;
            }
            named.extend(ready.into_iter().map(|synced| self.name(synced)));
        }
        let is_due = |kept: bool| named.iter().any(|named| named.is_kept() == kept && named.is_ok());
        let lasts = self.make_last(is_due(false), || self.disk.sync_directory());
        let kept_lasts = self.make_last(is_due(true), || self.disk.sync_kept());
        let settle = |Named { token, done }: Named| {
            let done = match done {
                Done::Stored(result) if !lasts => Done::Stored(result.and(Err(StoreError::Failed))),
                Done::Held(result) if !kept_lasts => Done::Held(result.and(Err(StoreError::Failed))),
                done => done,
            };
            Some(Settled { token: token?, done })
        };
        named.into_iter().filter_map(settle).collect()
    }

    fn name(&self, Synced { job: Job { token, work }, result, .. }: Synced<D>) -> Named {
        let result = result.and_then(|()| self.check());
        let done = match work {
            Work::Publish(partial) => Done::Stored(result.and_then(|()| partial.publish())),
            Work::Confirm(_, name) => Done::Stored(result.map(|()| name)),
            Work::Hold(_) => Done::Held(result),
        };
        Named { token, done }
    }

    /// Returns whether the names would survive a power cut, as far as that is due.
    fn make_last(&self, is_due: bool, sync: impl FnOnce() -> io::Result<()>) -> bool {
        !is_due || sync().map_err(|error| self.fail(error)).is_ok()
    }

    fn check(&self) -> Result<(), StoreError> {
        let is_over = self.has_failed() || self.is_stopped.load(Ordering::Relaxed);
        if is_over { Err(StoreError::Failed) } else { Ok(()) }
    }

    fn fail(&self, error: io::Error) -> StoreError {
        self.has_failed.store(true, Ordering::Relaxed);
        log::error!(
            "fsync failed: {error}. Uploads without a receipt may be lost; the server takes no more until a restart"
        );
        error.into()
    }
}

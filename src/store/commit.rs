//! The order in which files are made durable, so that no crash at any moment breaks a promise.
//!
//! Every job is synced first, any number of them at once ([`Commit::sync`]). Synced files get their names, a batch at a
//! time; then the directory is synced once, and only then is the batch reported ([`Commit::finish`]). **A file gets its
//! final name after its own content is synced, and a name is reported after the directory is synced**: what a client hears
//! survives a power cut. With a queue the entry of a file comes in between: it is durable before the final name is given.
//!
//! An error belongs to the job whose sync reports it. A failed sync is never repeated: the kernel reports an error once and
//! then forgets which pages were lost, so a second sync that succeeds proves nothing (fsync(2), "fsyncgate"). After a
//! failed sync nothing else gets a name. The exception is a file system without space or quota: that upload fails, and the
//! others continue.
//!
//! Knows no thread, and no particular disk: a test passes in one whose power it can cut.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Done, Owned, Partial, Patch, Settled, StoreError, Token};
use crate::proto::Name;

/// What a disk must be able to do to make files durable.
pub trait Disk {
    /// An upload's file.
    type Partial: Partial;
    /// Any file that can be synced.
    type File;

    /// The file that holds an upload's content.
    fn file(partial: &Self::Partial) -> &Self::File;

    /// Writes the slip of an upload that is to be queued. Nobody sees it yet.
    ///
    /// # Errors
    /// The upload cannot be queued.
    fn write_slip(&self, _: &mut Self::Partial) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns when the slip of an upload would survive a power cut, if there is one.
    ///
    /// # Errors
    /// It may not survive.
    fn sync_slip(&self, _: &Self::Partial) -> io::Result<()> {
        Ok(())
    }

    /// Puts an upload that is to be queued into the queue. Returns whether it is. Consumers see it when the upload has its
    /// final name.
    ///
    /// # Errors
    /// The upload cannot be queued.
    fn enqueue(&self, _: &mut Self::Partial) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Returns when the names in the queue would survive a power cut.
    ///
    /// # Errors
    /// They may not survive.
    fn sync_queue(&self) -> io::Result<()> {
        Ok(())
    }

    /// Starts to write the content of `file` to the disk, and does not wait.
    fn start_write_back(&self, file: &Self::File);

    /// Returns when the content of `file` would survive a power cut.
    ///
    /// # Errors
    /// The content may not survive: what was written since the last sync may be lost for good.
    fn sync_data(&self, file: &Self::File) -> io::Result<()>;

    /// Empties a kept file whose sync has failed: the cache may show content that the disk does not have.
    fn discard(&self, file: &Self::File);

    /// Writes `patch` to the record of a kept file.
    ///
    /// # Errors
    /// Any error of the file system.
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
    /// Give a whole upload its final name.
    Publish(D::Partial),
    /// Sync a file that has this name already: another server, or this one just now, may not have synced it.
    Confirm(D::File, Name),
    /// Make an upload durable up to its checkpoint, so that it can be resumed from there.
    Hold(Hold<D::File>),
}

/// What to make durable of an upload. First its content is synced, then a state is written to its record and synced: a
/// state never covers content that may be lost.
pub struct Hold<F> {
    /// The content so far.
    pub content: F,
    /// The record of the file.
    pub record: F,
    /// The state to be written.
    pub state: Patch,
    /// The final name that the upload is to have.
    pub name: Name,
    /// Dropped after the files, because their close releases the lock.
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

    /// The final name.
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

/// A job and its place in the order of submission.
pub struct Taken<D: Disk> {
    job: Job<D>,
    number: u64,
    /// The round of syncs that it belongs to.
    pub(super) round: u64,
}

impl<D: Disk> Taken<D> {
    /// How large the content is that is to be synced, as far as that is known.
    pub(super) fn bytes(&self) -> u64 {
        match &self.job.work {
            Work::Publish(partial) => partial.held(),
            Work::Confirm(..) | Work::Hold(_) => 0,
        }
    }
}

/// A job whose sync has returned. Only [`Commit::sync`] makes one, so nothing gets a name before its sync.
pub struct Synced<D: Disk> {
    job: Job<D>,
    number: u64,
    /// The round of syncs that it belonged to.
    pub(super) round: u64,
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

/// A job that only the sync of a directory is missing for.
struct Named {
    token: Option<Token>,
    /// Its result, unless that sync fails.
    done: Done,
}

impl Named {
    /// Whether its name is in the directory of kept files.
    fn is_kept(&self) -> bool {
        matches!(self.done, Done::Held(_))
    }

    fn is_ok(&self) -> bool {
        matches!(self.done, Done::Stored(Ok(_)) | Done::Held(Ok(())))
    }
}

/// Where each job stands on its way: it waits, it is being synced, it is synced.
///
/// Syncs may return in any order. Files of one name are named in the order of submission, as a later one may replace an
/// earlier one.
///
/// ```text
///   submit --> waiting --take--> syncing --put_back--> synced --take_ready--> finish
///                                                      (until no earlier job of the
///                                                       same name is syncing)
/// ```
pub struct Lineup<D: Disk> {
    waiting: VecDeque<Job<D>>,
    /// The number of the first job that waits.
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
    pub(super) fn is_syncing(&self) -> bool {
        !self.syncing.is_empty()
    }

    /// Whether there is no job.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.syncing.is_empty() && self.synced.is_empty()
    }

    /// The job that has waited longest. Give it to [`Commit::sync`].
    pub fn take(&mut self) -> Option<Taken<D>> {
        let job = self.waiting.pop_front()?;
        let number = self.next;
        self.next += 1;
        self.syncing.push((number, job.work.name().clone()));
        Some(Taken { job, number, round: 0 })
    }

    /// Takes back what [`Commit::sync`] returned.
    pub fn put_back(&mut self, synced: Synced<D>) {
        self.syncing.retain(|(number, _)| *number != synced.number);
        self.synced.insert(synced.number, synced);
    }

    /// Whether a job can be finished now.
    pub fn has_ready(&self) -> bool {
        self.ready().next().is_some()
    }

    /// The jobs that can be finished now.
    pub(super) fn ready(&self) -> impl Iterator<Item = &Synced<D>> {
        self.synced.values().filter(|synced| synced.is_ready(&self.syncing))
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
    /// The number of names after which the directory is synced at once. In a larger batch the first file would wait longer
    /// than the last one gains.
    const BATCH_MAX: usize = 64;

    /// A commit to a disk that works.
    pub fn new(disk: D) -> Self {
        Self { disk, has_failed: AtomicBool::new(false), is_stopped: AtomicBool::new(false) }
    }

    /// Whether a sync has ever failed.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Starts no further sync and gives no further name: the server ends, and nobody hears of a result.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Starts to write the content of a job to the disk, and does not wait: the sync takes less time then.
    pub fn start_write_back(&self, taken: &Taken<D>) {
        self.disk.start_write_back(taken.job.work.content());
    }

    /// Syncs the content of a job. Waits for the disk; any number of threads may call it at once.
    pub fn sync(&self, Taken { mut job, number, round }: Taken<D>) -> Synced<D> {
        let result = self.sync_files(&mut job.work);
        Synced { job, number, round, result }
    }

    fn sync_files(&self, work: &mut Work<D>) -> Result<(), StoreError> {
        self.check()?;
        if let Work::Publish(partial) = work {
            self.disk.write_slip(partial)?;
        }
        let synced = self.disk.sync_data(work.content()).and_then(|()| match work {
            Work::Publish(partial) => self.disk.sync_slip(partial),
            Work::Confirm(..) => Ok(()),
            Work::Hold(hold) => self.write_state(hold),
        });
        let Err(error) = synced else { return Ok(()) };
        if let Work::Hold(hold) = work {
            // The upload may still be in progress, or wait to be published.
            hold.upload.lose();
            self.disk.discard(&hold.content);
            self.disk.discard(&hold.record);
        }
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match work {
            // The file is discarded, so no later sync can make it look durable.
            Work::Publish(_) | Work::Hold(_) if is_full => Err(error.into()),
            _ => Err(self.fail(error)),
        }
    }

    fn write_state(&self, hold: &Hold<D::File>) -> io::Result<()> {
        self.disk.write_record(&hold.record, &hold.state)?;
        self.disk.sync_data(&hold.record)
    }

    /// Gives synced files their names, syncs the names, and returns the result of each job. Waits for the disk. Only one
    /// thread may call it at a time. A file that is to be queued gets its final name after its entry is synced.
    ///
    /// `take_ready` is called until it returns none or the batch is full: the more names one sync of the directory covers,
    /// the better.
    pub fn finish(&self, mut take_ready: impl FnMut() -> Vec<Synced<D>>) -> Vec<Settled> {
        let (mut named, mut queued) = (Vec::new(), Vec::new());
        while named.len() + queued.len() < Self::BATCH_MAX {
            let ready = take_ready();
            if ready.is_empty() {
                break;
            }
            for mut synced in ready {
                match self.enqueue(&mut synced) {
                    true => queued.push(synced),
                    false => named.push(self.name(synced)),
                }
            }
        }
        // If it fails, none of these files gets its name.
        self.make_last(!queued.is_empty(), || self.disk.sync_queue());
        named.extend(queued.into_iter().map(|synced| self.name(synced)));
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

    /// Puts a synced file into the queue, if it is to be queued. Returns whether it is.
    fn enqueue(&self, Synced { job, result, .. }: &mut Synced<D>) -> bool {
        let Work::Publish(partial) = &mut job.work else { return false };
        if result.is_err() || self.check().is_err() {
            return false;
        }
        self.disk.enqueue(partial).unwrap_or_else(|error| {
            *result = Err(error);
            false
        })
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

    /// Syncs names, if that is due. Returns whether they would survive a power cut.
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

//! The one thread that waits for the disk, so that the loop never does.
//!
//! It takes all uploads that are waiting (a batch), starts the write-back of each, syncs each, publishes each, syncs the
//! directory once, and reports. While it works the next batch gathers, so the busier the server, the fewer syncs an upload
//! costs. **Nothing is reported before the directory is synced**: what a client hears of survives a power cut.
//!
//! A sync that failed is never repeated: the kernel reports an error once and then forgets which pages were lost, so a
//! second sync that succeeds proves nothing (fsync(2), "fsyncgate"). The store takes no more after that. One that a signal
//! interrupted has not failed.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use rustix::fs::fsync;
use rustix::io::retry_on_intr;

use super::directory::Handles;
use super::partial::{PartialFile, start_write_back};
use super::{Claim, Partial, StoreError};
use crate::proto::Name;

/// What one batch takes at most: past it the last of a batch waits longer than it gains.
const BATCH_MAX: usize = 64;

type Settled = (Claim, Result<Name, StoreError>);

/// What is to last.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) claim: Claim,
    pub(super) work: Work,
    pub(super) name: Name,
}

#[derive(Debug)]
pub(super) enum Work {
    /// An upload that is whole: it is to have its name.
    Publish(PartialFile),
    /// A file that has its name: another server, or this one just now, may not have synced it.
    Confirm(File),
    /// What is kept of an upload that is to go on: the client is told how much it is.
    Hold(File),
}

impl Work {
    fn file(&self) -> &File {
        match self {
            Self::Publish(partial) => partial.file(),
            Self::Confirm(file) | Self::Hold(file) => file,
        }
    }
}

/// The loop's side of the thread.
#[derive(Debug)]
pub(super) struct Committer {
    /// Gone only while it is dropped: that ends the thread.
    jobs: Option<Sender<Job>>,
    settled: Receiver<Settled>,
    pending: usize,
    backlog_max: usize,
    has_failed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread. It calls `wake` when there is something to take from [`Committer::settled`].
    ///
    /// # Errors
    /// What the system says when it has no room for a thread.
    pub(super) fn start(
        handles: Arc<Handles>,
        backlog_max: usize,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (reports, settled) = mpsc::channel();
        let has_failed = Arc::new(AtomicBool::new(false));
        let work = Thread { handles, has_failed: has_failed.clone(), reports };
        let thread = thread::Builder::new().name("committer".into()).spawn(move || work.run(&queue, wake))?;
        Ok(Self { jobs: Some(jobs), settled, pending: 0, backlog_max, has_failed, thread: Some(thread) })
    }

    /// Lines up `job`. What becomes of it tells [`Committer::settled`].
    pub(super) fn submit(&mut self, job: Job) {
        self.pending += 1;
        let jobs = self.jobs.as_ref().expect("only a drop takes it");
        jobs.send(job).expect("the thread ends after its queue only");
    }

    /// What became of what was submitted, since the last call.
    pub(super) fn settled(&mut self) -> Vec<Settled> {
        let settled: Vec<Settled> = self.settled.try_iter().collect();
        self.pending -= settled.len();
        settled
    }

    /// Whether as much waits as may wait: each holds a descriptor.
    pub(super) fn is_congested(&self) -> bool {
        self.pending >= self.backlog_max
    }

    /// Whether a sync has ever failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; and if it did, the process would be gone.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Thread {
    handles: Arc<Handles>,
    has_failed: Arc<AtomicBool>,
    reports: Sender<Settled>,
}

impl Thread {
    fn run(&self, queue: &Receiver<Job>, wake: impl Fn()) {
        while let Ok(first) = queue.recv() {
            let batch: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).take(BATCH_MAX).collect();
            for settled in self.commit(batch) {
                // Nobody listens any more while the server goes down.
                let _ = self.reports.send(settled);
            }
            wake();
        }
    }

    fn commit(&self, batch: Vec<Job>) -> Vec<Settled> {
        batch.iter().for_each(|job| start_write_back(job.work.file()));
        let settled: Vec<Settled> = batch.into_iter().map(|job| self.settle(job)).collect();
        if settled.iter().all(|(_, result)| result.is_err()) {
            return settled;
        }
        match retry_on_intr(|| fsync(&self.handles.directory)) {
            Ok(()) => settled,
            Err(errno) => settled.into_iter().map(|(claim, _)| (claim, Err(self.fail(errno.into())))).collect(),
        }
    }

    fn settle(&self, Job { claim, work, name }: Job) -> Settled {
        let synced = if self.has_failed.load(Ordering::Relaxed) {
            Err(StoreError::Failed)
        } else {
            work.file().sync_data().map_err(|error| self.fail(error))
        };
        let result = synced.and_then(|()| match work {
            Work::Publish(partial) => partial.publish(name),
            Work::Confirm(_) => Ok(name),
            Work::Hold(_) => match retry_on_intr(|| fsync(&self.handles.kept)) {
                Ok(()) => Ok(name),
                Err(errno) => Err(self.fail(errno.into())),
            },
        });
        (claim, result)
    }

    fn fail(&self, error: io::Error) -> StoreError {
        self.has_failed.store(true, Ordering::Relaxed);
        log::error!("a sync failed, and what it was for may be lost: {error}; nothing more is taken until a restart");
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::{Directory, Store, Target};
    use super::*;
    use crate::proto::{NamePolicy, OnExists, Ticket};
    use crate::reactor::Slots;

    fn name(number: usize) -> Name {
        Name::parse(format!("f{number}").as_bytes(), NamePolicy::default()).unwrap()
    }

    /// Publishes `count` files and waits until all are settled.
    fn publish(path: &Path, count: usize) -> Vec<Settled> {
        let mut directory = Directory::open(path).unwrap();
        let (sender, woken) = mpsc::channel();
        directory.sync_before_receipts(count, move || sender.send(()).unwrap()).unwrap();
        let id = Slots::default().insert(());
        for number in 0..count {
            assert!(!directory.is_congested());
            let mut partial = directory.begin(&Target::new(&name(number), OnExists::Refuse)).unwrap();
            partial.append(format!("content {number}").as_bytes()).unwrap();
            let claim = Claim { id, ticket: Ticket(number as u64) };
            assert!(directory.publish(claim, partial, name(number)).is_none());
        }
        assert!(directory.is_congested());
        let mut settled = Vec::new();
        while settled.len() < count {
            woken.recv().unwrap();
            settled.extend(directory.settled());
        }
        assert!(!directory.is_congested());
        settled
    }

    #[test]
    fn each_is_published_whole_and_told_once() {
        let base = tempfile::tempdir().unwrap();
        let mut settled = publish(base.path(), 200);
        settled.sort_by_key(|(claim, _)| *claim);
        for (number, (claim, result)) in settled.into_iter().enumerate() {
            assert_eq!((claim.ticket, result.unwrap()), (Ticket(number as u64), name(number)));
            assert_eq!(fs::read(base.path().join(name(number))).unwrap(), format!("content {number}").as_bytes());
        }
    }

    #[test]
    fn what_cannot_be_published_is_told_and_costs_the_others_nothing() {
        let base = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(base.path()).unwrap();
        let (sender, woken) = mpsc::channel();
        directory.sync_before_receipts(8, move || sender.send(()).unwrap()).unwrap();
        let id = Slots::default().insert(());
        let partials: Vec<_> =
            (0..2).map(|n| directory.begin(&Target::new(&name(n), OnExists::Refuse)).unwrap()).collect();
        fs::write(base.path().join(name(0)), "old").unwrap();
        for (number, partial) in partials.into_iter().enumerate() {
            directory.publish(Claim { id, ticket: Ticket(number as u64) }, partial, name(number));
        }
        let mut settled = Vec::new();
        while settled.len() < 2 {
            woken.recv().unwrap();
            settled.extend(directory.settled());
        }
        settled.sort_by_key(|(claim, _)| *claim);
        assert!(matches!(settled[0].1, Err(StoreError::Taken(_))), "{:?}", settled[0]);
        assert_eq!(settled[1].1.as_ref().unwrap(), &name(1));
        assert_eq!(fs::read(base.path().join(name(0))).unwrap(), b"old");
    }
}

//! The one thread that waits for the disk, so that the loop never does.
//!
//! It takes all uploads that are waiting (a batch), makes them last ([`Commit`]), and reports. While it works the next batch
//! gathers, so the busier the server, the fewer syncs an upload costs. Knows nothing of what the batch is made of.
//!
//! ```text
//!   published                    the thread                                   told
//!
//!      A ----> batch 1   write back A
//!                        sync A, name A
//!      B --+             sync the directory  -------------------------------->  A
//!      C --+-> batch 2   write back B and C
//!                        sync B, name B, sync C, name C
//!                        sync the directory  -------------------------------->  B, C
//! ```
//!
//! A regular file is always "ready" and cannot be polled (EPERM, epoll_ctl(2)), so a sync can only be waited for by a
//! thread. It has no state of the conversation: a job goes in, a result comes out, and a `Waker` makes the poll return.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::commit::{Commit, Disk, Job, Settled};

/// What one batch takes at most: past it the last of a batch waits longer than it gains.
const BATCH_MAX: usize = 64;

/// Of one batch: how many files waited in it, and what has become of its jobs.
type Report = (usize, Vec<Settled>);

/// The loop's side of the thread.
#[derive(Debug)]
pub(super) struct Committer<D: Disk> {
    /// Gone only while it is dropped: that ends the thread.
    jobs: Option<Sender<Job<D>>>,
    reports: Receiver<Report>,
    /// Files that wait.
    pending: usize,
    backlog_max: usize,
    commit: Arc<Commit<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D> Committer<D>
where
    D: Disk<Partial: Send, File: Send> + Send + Sync + 'static,
{
    /// Starts the thread. It calls `wake` when there is something to take from [`Committer::settled`].
    ///
    /// # Errors
    /// What the system says when it has no room for a thread.
    pub(super) fn start(disk: D, backlog_max: usize, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (sender, reports) = mpsc::channel();
        let commit = Arc::new(Commit::new(disk));
        let work = commit.clone();
        let thread =
            thread::Builder::new().name("committer".into()).spawn(move || run(&work, &queue, &sender, wake))?;
        Ok(Self { jobs: Some(jobs), reports, pending: 0, backlog_max, commit, thread: Some(thread) })
    }

    /// Lines up `job`. What becomes of it tells [`Committer::settled`].
    pub(super) fn submit(&mut self, job: Job<D>) {
        self.pending += job.work.files().len();
        let jobs = self.jobs.as_ref().expect("only a drop takes it");
        jobs.send(job).expect("the thread ends after its queue only");
    }

    /// What became of what was submitted, since the last call.
    pub(super) fn settled(&mut self) -> Vec<Settled> {
        let mut all = Vec::new();
        for (files, settled) in self.reports.try_iter() {
            self.pending -= files;
            all.extend(settled);
        }
        all
    }

    /// Whether as many files wait as may wait: each holds a descriptor.
    pub(super) fn is_congested(&self) -> bool {
        self.pending >= self.backlog_max
    }

    /// Whether a sync has ever failed.
    pub(super) fn has_failed(&self) -> bool {
        self.commit.has_failed()
    }
}

impl<D: Disk> Drop for Committer<D> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; and if it did, the process would be gone.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
fn run<D: Disk>(commit: &Commit<D>, queue: &Receiver<Job<D>>, reports: &Sender<Report>, wake: impl Fn()) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Job<D>> = std::iter::once(first).chain(queue.try_iter()).take(BATCH_MAX).collect();
        let files = batch.iter().map(|job| job.work.files().len()).sum();
        // Nobody listens any more while the server goes down.
        let _ = reports.send((files, commit.run(batch)));
        wake();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::proto::{Name, NamePolicy, OnExists, Ticket};
    use crate::reactor::Slots;
    use crate::store::{Claim, Directory, Partial, Store, StoreError, Target};

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

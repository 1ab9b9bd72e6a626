//! The threads that wait for the disk, so that the loop never does.
//!
//! Several threads sync, each one job at a time: the file system merges syncs that begin at the same time into one flush of
//! the disk. So they begin in rounds ([`Rounds`]). One more thread, the committer, names the synced files of a round and
//! syncs the directory once for all of them. So the busier the server, the fewer flushes an upload costs.
//!
//! ```text
//!   the loop        the syncing threads       the committer                            the loop
//!
//!   A --+           sync A
//!   B --+-> wait -> sync B    ------------->  name A, B, C; sync the directory  ---->  A, B, C
//!   C --+           sync C
//!   D ----> wait .................................................. -> sync D  --> ...
//! ```
//!
//! A regular file is always "ready" and cannot be polled (EPERM, epoll_ctl(2)), so only a thread can wait for a sync. The
//! threads hold no state of the conversation: a job goes in, a result comes out, and a `Waker` makes the poll return. The
//! order of the steps is in [`Lineup`] and [`Commit`].

#![expect(clippy::disallowed_methods, reason = "these threads wait for the disk, and the loop hands down no time here")]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::commit::{Commit, Disk, Lineup, Synced, Taken, Work};
use super::rounds::{Begun, Rounds, Waits};
use super::{Settled, Token};

/// The most threads that sync at once, and so the largest round. On a disk whose flush takes 5 ms a round of 128 files takes
/// little longer than one of 32.
const SYNCING_MAX: usize = 128;
/// The most threads that sync at once on a fast disk, where more only get in each other's way.
const SYNCING_MAX_FAST: usize = 16;
/// A file of this size belongs to no round: its write-back takes about as long as a flush of a slow disk.
const APART_BYTES: u64 = 256 << 10;
/// How long a syncing thread waits for work before it ends. The last one stays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server that ends waits for the disk. A disk that works needs less.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// The stack of a thread, in bytes. None of them calls deeply.
const STACK_BYTES: usize = 256 << 10;

/// The results of one batch, and how many files were open for it.
type Report = (usize, Vec<Settled>);

/// The loop's side of the threads.
pub(super) struct Committer<D: Disk> {
    shared: Arc<Shared<D>>,
    reports: Receiver<Report>,
}

/// For jobs whose result nobody waits for. Uploads have one. It does not keep the state of the threads alive, as jobs hold
/// uploads.
pub(super) struct Queue<D: Disk>(Weak<Shared<D>>);

impl<D> Committer<D>
where
    D: Disk<Partial: Send, File: Send> + Send + Sync + 'static,
{
    /// Starts the committer and the first syncing thread. They call `wake` when [`Committer::settled`] has something new.
    ///
    /// # Errors
    /// What the system says if it has no room for a thread.
    pub(super) fn start(disk: D, backlog_max: usize, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (sender, reports) = mpsc::channel();
        let shared = Arc::new(Shared {
            commit: Commit::new(disk),
            state: Mutex::new(State {
                lineup: Lineup::default(),
                syncing: 0,
                threads: Vec::new(),
                rounds: Rounds::default(),
                end: End::NotYet,
            }),
            pending: AtomicUsize::new(0),
            backlog_max,
            to_sync: Condvar::new(),
            to_begin: Condvar::new(),
            to_finish: Condvar::new(),
        });
        let committer = Self { shared: shared.clone(), reports };
        let mut state = shared.state();
        let finishing = shared.clone();
        state.spawn("committer", move || finishing.finish_all(&sender, wake))?;
        shared.spawn_syncing(&mut state)?;
        drop(state);
        Ok(committer)
    }

    /// Submits a job. [`Committer::settled`] tells what becomes of it.
    pub(super) fn submit(&self, token: Token, work: Work<D>) {
        self.shared.submit(Some(token), work);
    }

    /// For jobs that nobody waits for.
    pub(super) fn queue(&self) -> Queue<D> {
        Queue(Arc::downgrade(&self.shared))
    }
}

impl<D> Queue<D>
where
    D: Disk<Partial: Send, File: Send> + Send + Sync + 'static,
{
    /// Submits a job, unless the server has ended.
    pub(super) fn submit(&self, work: Work<D>) {
        if let Some(shared) = self.0.upgrade() {
            shared.submit(None, work);
        }
    }

    /// Whether there is room for one more job.
    pub(super) fn has_room(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| !shared.is_congested())
    }
}

impl<D: Disk> Committer<D> {
    /// The results since the last call.
    pub(super) fn settled(&mut self) -> Vec<Settled> {
        let mut all = Vec::new();
        for (files, settled) in self.reports.try_iter() {
            self.shared.pending.fetch_sub(files, Ordering::Relaxed);
            all.extend(settled);
        }
        all
    }

    /// Whether as many files wait as may wait. Each takes a descriptor.
    pub(super) fn is_congested(&self) -> bool {
        self.shared.is_congested()
    }

    /// How many files wait for the disk.
    pub(super) fn pending(&self) -> usize {
        self.shared.pending.load(Ordering::Relaxed)
    }

    /// Whether no file waits.
    pub(super) fn is_idle(&self) -> bool {
        self.pending() == 0
    }

    /// Waits until no file waits, for `patience` at most. Returns whether none does.
    fn wait_until_idle(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.is_idle()
            && let Ok((files, _)) = self.reports.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.shared.pending.fetch_sub(files, Ordering::Relaxed);
        }
        self.is_idle()
    }

    /// Whether a sync has ever failed.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.commit.has_failed()
    }
}

impl<D: Disk> Drop for Committer<D> {
    /// Ends the threads. They get a moment to finish, as an upload may be resumed from what they sync. No more than a
    /// moment: a sync may hang in the kernel for minutes, and no client waits for it any more.
    fn drop(&mut self) {
        let is_idle = self.wait_until_idle(END_PATIENCE);
        let mut state = self.shared.state();
        state.end = if is_idle { End::Finished } else { End::Abandoned };
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        if is_idle {
            self.shared.wake_all();
            // None of them panics.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        } else {
            self.shared.commit.stop();
            self.shared.wake_all();
        }
    }
}

/// What the threads share.
struct Shared<D: Disk> {
    commit: Commit<D>,
    state: Mutex<State<D>>,
    /// Files that wait for the disk.
    pending: AtomicUsize,
    backlog_max: usize,
    /// A job waits, or the server ends.
    to_sync: Condvar,
    /// A round has begun, or the server ends.
    to_begin: Condvar,
    /// A sync has returned, or the server ends.
    to_finish: Condvar,
}

struct State<D: Disk> {
    lineup: Lineup<D>,
    /// Syncing threads.
    syncing: usize,
    threads: Vec<JoinHandle<()>>,
    rounds: Rounds,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    NotYet,
    /// Everything that was submitted is settled.
    Finished,
    /// Nobody waits for the rest.
    Abandoned,
}

impl<D: Disk> Shared<D> {
    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    fn is_congested(&self) -> bool {
        self.pending.load(Ordering::Relaxed) >= self.backlog_max
    }

    fn wake_all(&self) {
        self.to_sync.notify_all();
        self.to_begin.notify_all();
        self.to_finish.notify_all();
    }

    /// The committer's thread.
    fn finish_all(&self, reports: &Sender<Report>, wake: impl Fn()) {
        while let Some(waits) = self.wait_until_ready() {
            let (mut rounds, mut files, mut asked) = (Vec::new(), 0, waits.for_any);
            let settled = self.commit.finish(|| {
                let ready = self.take_ready(&rounds, &waits);
                rounds.extend(ready.iter().map(|synced| synced.round));
                files += ready.iter().map(Synced::files).sum::<usize>();
                asked = Instant::now();
                ready
            });
            let sync_time = asked.elapsed();
            // At the end of the server nobody receives it.
            let _ = reports.send((files, settled));
            wake();
            if self.state().rounds.finished(&rounds, sync_time) {
                self.to_begin.notify_all();
            }
        }
    }

    /// All jobs that can be finished now. Waits for others, as long as `waits` allows. The jobs of the rounds `named` have
    /// their names already.
    fn take_ready(&self, named: &[u64], waits: &Waits) -> Vec<Synced<D>> {
        let mut state = self.state();
        loop {
            let ready = state.lineup.ready().map(|synced| &synced.round);
            let until = if state.rounds.has_others(named.iter().chain(ready)) {
                waits.for_round
            } else if state.lineup.is_syncing() && !state.lineup.has_ready() {
                waits.for_any
            } else {
                return state.lineup.take_ready();
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.end != End::NotYet {
                return state.lineup.take_ready();
            }
            state = self.to_finish.wait_timeout(state, left).expect("no thread panics with the lock").0;
        }
    }

    /// Waits until a job can be finished. Returns how long to wait for others, or `None` at the end of the server.
    fn wait_until_ready(&self) -> Option<Waits> {
        let is_idle = |state: &mut State<D>| state.end == End::NotYet && !state.lineup.has_ready();
        let state = self.to_finish.wait_while(self.state(), is_idle).expect("no thread panics with the lock");
        (state.end == End::NotYet).then(|| state.rounds.waits(Instant::now()))
    }
}

impl<D> Shared<D>
where
    D: Disk<Partial: Send, File: Send> + Send + Sync + 'static,
{
    fn submit(self: &Arc<Self>, token: Option<Token>, work: Work<D>) {
        self.pending.fetch_add(work.files(), Ordering::Relaxed);
        let mut state = self.state();
        state.lineup.submit(token, work);
        let max = if state.rounds.is_fast() { SYNCING_MAX_FAST } else { SYNCING_MAX };
        if state.lineup.unsynced() <= state.syncing {
            self.to_sync.notify_one();
        } else if state.syncing < max
            && let Err(error) = self.spawn_syncing(&mut state)
        {
            log::debug!("{} threads sync files, and the system has no room for another: {error}", state.syncing);
        }
    }

    fn spawn_syncing(self: &Arc<Self>, state: &mut State<D>) -> io::Result<()> {
        let shared = self.clone();
        state.spawn("syncing", move || shared.sync_all())?;
        state.syncing += 1;
        Ok(())
    }

    /// A syncing thread.
    fn sync_all(&self) {
        while let Some(mut taken) = self.take() {
            taken.round = self.wait_for_round(&taken);
            let synced = self.commit.sync(taken);
            self.state().lineup.put_back(synced);
            self.to_finish.notify_one();
        }
    }

    /// Waits until the sync of a job is to begin. Returns the number of its round. Its write-back begins before: then all files
    /// of a round share one commit of the journal, and not only those whose sync begins first.
    fn wait_for_round(&self, taken: &Taken<D>) -> u64 {
        let mut state = self.state();
        let at_once =
            if taken.bytes() >= APART_BYTES { Some(state.rounds.begin_apart()) } else { state.rounds.begin_at_once() };
        if let Some(round) = at_once {
            return round;
        }
        drop(state);
        self.commit.start_write_back(taken);
        let mut state = self.state();
        let round = state.rounds.join();
        while state.end == End::NotYet {
            let now = Instant::now();
            match state.rounds.try_begin(round, SYNCING_MAX, now) {
                Begun::Now => self.to_begin.notify_all(),
                Begun::Before => break,
                Begun::At(until) => {
                    state = self.to_begin.wait_timeout(state, until - now).expect("no thread panics with the lock").0;
                }
            }
        }
        round
    }

    /// Waits for the next job. `None`: this thread is not needed any more.
    fn take(&self) -> Option<Taken<D>> {
        let mut state = self.state();
        while state.end == End::NotYet {
            if let Some(taken) = state.lineup.take() {
                return Some(taken);
            }
            let waited = self.to_sync.wait_timeout(state, IDLE_TIMEOUT).expect("no thread panics with the lock");
            state = waited.0;
            // The other threads are enough.
            if waited.1.timed_out() && state.syncing > 1 && state.lineup.unsynced() < state.syncing {
                break;
            }
        }
        state.syncing -= 1;
        None
    }
}

impl<D: Disk> State<D> {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        let builder = thread::Builder::new().name(name.into()).stack_size(STACK_BYTES);
        self.threads.push(builder.spawn(run)?);
        Ok(())
    }
}

impl<D: Disk> std::fmt::Debug for Committer<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("pending", &self.shared.pending).finish_non_exhaustive()
    }
}

impl<D: Disk> std::fmt::Debug for Queue<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::proto::{Name, NamePolicy, OnExists};
    use crate::store::{Directory, Done, Job, Partial, Store, StoreError, Target};

    fn name(number: usize) -> Name {
        Name::parse(format!("f{number}").as_bytes(), NamePolicy::default()).unwrap()
    }

    fn stored(settled: &Settled) -> Result<&Name, &StoreError> {
        match &settled.done {
            Done::Stored(result) => result.as_ref(),
            Done::Held(_) => unreachable!("nothing is held"),
        }
    }

    /// Publishes `count` files and waits until all are settled.
    fn publish(path: &Path, count: usize) -> Vec<Settled> {
        let mut directory = Directory::open(path).unwrap();
        let (sender, woken) = mpsc::channel();
        directory.sync_before_receipts(count, move || sender.send(()).unwrap()).unwrap();
        for number in 0..count {
            assert!(!directory.is_congested());
            let mut partial = directory.begin(&Target::new(&name(number), OnExists::Refuse)).unwrap();
            partial.append(format!("content {number}").as_bytes()).unwrap();
            assert!(directory.submit(Token(number as u128), Job::Publish(partial)).is_none());
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
        settled.sort_by_key(|settled| settled.token);
        for (number, settled) in settled.into_iter().enumerate() {
            assert_eq!((settled.token, stored(&settled).unwrap()), (Token(number as u128), &name(number)));
            assert_eq!(fs::read(base.path().join(name(number))).unwrap(), format!("content {number}").as_bytes());
        }
    }

    #[test]
    fn what_cannot_be_published_is_told_and_costs_the_others_nothing() {
        let base = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(base.path()).unwrap();
        let (sender, woken) = mpsc::channel();
        directory.sync_before_receipts(8, move || sender.send(()).unwrap()).unwrap();
        let partials: Vec<_> =
            (0..2).map(|n| directory.begin(&Target::new(&name(n), OnExists::Refuse)).unwrap()).collect();
        fs::write(base.path().join(name(0)), "old").unwrap();
        for (number, partial) in partials.into_iter().enumerate() {
            assert!(directory.submit(Token(number as u128), Job::Publish(partial)).is_none());
        }
        let mut settled = Vec::new();
        while settled.len() < 2 {
            woken.recv().unwrap();
            settled.extend(directory.settled());
        }
        settled.sort_by_key(|settled| settled.token);
        assert!(matches!(stored(&settled[0]), Err(StoreError::Taken(_))), "{:?}", settled[0]);
        assert_eq!(stored(&settled[1]).unwrap(), &name(1));
        assert_eq!(fs::read(base.path().join(name(0))).unwrap(), b"old");
    }
}

//! Runs a command for each published file: the consumer of the queue that a server with `--queue` fills.
//!
//! ```text
//!   the queue --claim--> a job runs --+--> success: the entry is removed
//!       ^                             +--> a signal, a timeout, 75 (EX_TEMPFAIL): again later, up to --tries
//!       +---- again later ------------+--> anything else: moved to failed/, with the reason
//! ```
//!
//! **At least once.** An entry is removed after its command has succeeded. If the consumer is killed in between, the command
//! runs again. So a command must do no harm when it runs twice for one file; the id of the entry stays the same.
//!
//! Any number of consumers share a queue: each takes the entries that nobody has locked (flock(2)). A command inherits the lock
//! with its standard input. So if the consumer is killed and the command is not, nobody else runs it meanwhile.
//!
//! New entries are noticed at once (inotify(7)). Where that does not work, as on a network file system, a look at the whole
//! queue every few seconds finds them.
//!
//! This process is not the server: it starts programs, and may wait. Knows neither connections nor how files are published.

mod entries;
mod job;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

pub use entries::retry_failed;
use entries::{Claim, Entries, Entry};
use job::{Job, Result as JobResult, spawn};
use watch::Watch;

/// How often the whole queue is looked at. A file that inotify does not report waits for this long.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The longest wait before a command is run again.
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the server.
    pub directory: PathBuf,
    /// The program and its arguments. No shell reads them.
    pub command: Vec<OsString>,
    /// How many run at once.
    pub jobs: usize,
    /// How long one may run. Then it is terminated, and tried again later.
    pub timeout: Duration,
    /// How often it is run for a file, at most.
    pub tries: u32,
    /// How long to wait before the second try. Each further wait is twice as long.
    pub backoff: Duration,
    /// End when nothing is left to do, instead of waiting for more.
    pub once: bool,
}

/// What a consumer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files whose command has succeeded.
    pub done: u64,
    /// Files that were moved to `failed`.
    pub failed: u64,
    /// Files that wait for their next try.
    pub waiting: u64,
    /// Commands that a second signal has cut short.
    pub cut_short: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, failed, waiting, cut_short } = self;
        write!(f, "{done} done, {failed} failed, {waiting} to be tried again, {cut_short} cut short")
    }
}

/// Why no further command is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    /// Running commands may finish.
    Drain,
    /// Running commands are terminated.
    Now,
}

/// Consumes until a signal ends it, or, with [`Options::once`], until nothing is left to do.
///
/// # Errors
/// In words: the directory has no queue that this user may use, the command cannot be started, or the system fails.
pub fn run(options: Options) -> io::Result<Outcome> {
    Consumer::new(options)?.run()
}

struct Consumer {
    options: Options,
    entries: Entries,
    watch: Option<Watch>,
    /// Readable when a signal has arrived: a byte for each.
    signals: UnixStream,
    /// The entries that are not claimed, and when to try.
    waiting: BTreeMap<u64, Instant>,
    /// Those that were tried before and are not due yet.
    put_off: BTreeSet<u64>,
    look_at: Instant,
    running: Vec<Job>,
    stop: Stop,
    /// Why no command can be started.
    broken: Option<io::Error>,
    outcome: Outcome,
}

impl Consumer {
    fn new(options: Options) -> io::Result<Self> {
        let entries = Entries::open(&options.directory)?;
        let (signals, to_signals) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGINT] {
            pipe::register(signal, to_signals.try_clone()?)?;
        }
        // Before the first look, so that no entry is missed in between.
        let watch = Watch::start(entries.queue_path()).inspect_err(|error| {
            log::warn!("new files are noticed every {LOOK_EVERY:?} only, as the queue cannot be watched: {error}");
        });
        Ok(Self {
            options,
            entries,
            watch: watch.ok(),
            signals,
            waiting: BTreeMap::new(),
            put_off: BTreeSet::new(),
            look_at: Instant::now(),
            running: Vec::new(),
            stop: Stop::No,
            broken: None,
            outcome: Outcome::default(),
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        loop {
            let now = Instant::now();
            self.settle(now)?;
            if self.stop == Stop::No {
                self.look(now)?;
                self.start(now);
            }
            let has_due = self.waiting.values().any(|due| *due <= now);
            let is_done = self.stop != Stop::No || (self.options.once && !has_due);
            if is_done && self.running.is_empty() {
                let waiting = self.put_off.len() as u64;
                return self.broken.map_or(Ok(Outcome { waiting, ..self.outcome }), Err);
            }
            self.wait(now)?;
        }
    }

    /// Adds what is new in the queue.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        let has_missed = self.watch.as_mut().is_some_and(|watch| {
            watch.numbers(|number| {
                self.waiting.insert(number, now);
            })
        });
        if has_missed || self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            for number in self.entries.list()? {
                self.waiting.entry(number).or_insert(now);
            }
        }
        Ok(())
    }

    /// Starts as many commands as may run, for the oldest entries that are due.
    fn start(&mut self, now: Instant) {
        let due: Vec<u64> = self.waiting.iter().filter(|(_, due)| **due <= now).map(|(number, _)| *number).collect();
        for number in due {
            if self.running.len() >= self.options.jobs || self.stop != Stop::No {
                break;
            }
            self.waiting.remove(&number);
            self.put_off.remove(&number);
            if self.running.iter().any(|job| job.number() == number) {
                continue;
            }
            match self.entries.claim(number) {
                Ok(Claim::Entry(entry)) => self.start_job(entry, now),
                Ok(Claim::Later(wait)) => self.try_later(number, now + wait.min(BACKOFF_MAX)),
                Ok(Claim::Taken) => drop(self.waiting.insert(number, now + LOOK_EVERY)),
                Ok(Claim::Gone) => {}
                Err(error) => {
                    log::warn!("entry {number} of the queue cannot be claimed: {error}");
                    self.waiting.insert(number, now + LOOK_EVERY);
                }
            }
        }
    }

    fn try_later(&mut self, number: u64, at: Instant) {
        self.put_off.insert(number);
        self.waiting.insert(number, at);
    }

    fn start_job(&mut self, entry: Entry, now: Instant) {
        let Some(slip) = entry.slip() else {
            return self.fail(&entry, "what is known of the file (its .json) is damaged", now);
        };
        let path = self.entries.path_of(&entry, slip);
        match spawn(&self.options.command, &entry, &path) {
            Ok(started) => self.running.push(Job::new(entry, started, now + self.options.timeout)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.fail(&entry, &format!("no command can be told of it: {error}"), now);
            }
            Err(error) => {
                let program = self.options.command[0].display();
                self.broken = Some(io::Error::new(error.kind(), format!("{program} cannot be started: {error}")));
                self.stop = self.stop.max(Stop::Drain);
            }
        }
    }

    /// Deals with the commands that have ended, and terminates those that run for too long.
    fn settle(&mut self, now: Instant) -> io::Result<()> {
        let mut at = 0;
        while at < self.running.len() {
            match self.running[at].advance(now)? {
                None => at += 1,
                Some(result) => {
                    let job = self.running.swap_remove(at);
                    self.end(job, &result, now)?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, job: Job, result: &JobResult, now: Instant) -> io::Result<()> {
        let took = now.duration_since(job.started_at());
        let entry = job.into_entry();
        match result {
            JobResult::Done => {
                self.entries.remove(&entry)?;
                self.outcome.done += 1;
                log::info!("{entry}: done after {took:.1?}");
            }
            // Not the fault of the file: it does not count as a try.
            JobResult::Again(why) if self.stop == Stop::Now => {
                self.outcome.cut_short += 1;
                log::warn!("{entry}: cut short by a second signal ({why}); it stays in the queue");
            }
            JobResult::Again(why) if entry.tries() + 1 >= self.options.tries => {
                self.fail(&entry, &format!("{why}, the last of {} tries", entry.tries() + 1), now);
            }
            JobResult::Again(why) => {
                let tries = entry.tries() + 1;
                let wait = backoff(self.options.backoff, tries);
                if let Err(error) = self.entries.put_off(&entry, tries, wait) {
                    log::warn!("{entry}: other consumers may try it too soon and too often: {error}");
                }
                self.try_later(entry.number(), now + wait);
                log::warn!("{entry}: {why}; again in {wait:?}, {tries} of {} tries are used", self.options.tries);
            }
            JobResult::Failed(why) => self.fail(&entry, why, now),
        }
        entry.release();
        Ok(())
    }

    fn fail(&mut self, entry: &Entry, why: &str, now: Instant) {
        match self.entries.fail(entry, why) {
            Ok(()) => {
                self.outcome.failed += 1;
                log::error!(
                    "{entry}: {why}. It is in .intake/queue/failed; 'intake consume DIR --retry-failed' puts it back"
                );
            }
            Err(error) => {
                self.try_later(entry.number(), now + BACKOFF_MAX);
                log::error!(
                    "{entry}: {why}; it stays in the queue, as it cannot be moved to .intake/queue/failed: {error}"
                );
            }
        }
    }

    /// Waits until something happens or is due.
    fn wait(&mut self, now: Instant) -> io::Result<()> {
        let has_room = self.stop == Stop::No && self.running.len() < self.options.jobs;
        let next_due = self.waiting.values().min().copied().filter(|_| has_room);
        let look_at = Some(self.look_at).filter(|_| self.stop == Stop::No);
        let deadlines = self.running.iter().map(Job::deadline).chain(next_due).chain(look_at);
        let left = deadlines.min().map(|at| at.saturating_duration_since(now));
        let timeout = left.map(|left| Timespec::try_from(left).expect("a deadline is days away at most"));
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.watch.as_ref().map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        fds.extend(self.running.iter().map(|job| PollFd::from_borrowed_fd(job.as_fd(), PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.hear_signals(now);
        Ok(())
    }

    fn hear_signals(&mut self, now: Instant) {
        let mut heard = [0; 64];
        let count = io::Read::read(&mut self.signals, &mut heard).unwrap_or(0);
        for _ in 0..count {
            self.stop = if self.stop == Stop::No { Stop::Drain } else { Stop::Now };
            if self.stop == Stop::Drain {
                log::info!(
                    "no further command is started; {} may finish, a second signal ends them",
                    self.running.len()
                );
            } else {
                self.running.iter_mut().for_each(|job| job.terminate(now));
            }
        }
    }
}

/// How long to wait after this many tries.
fn backoff(first: Duration, tries: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(tries - 1).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_as_long_as_the_one_before_up_to_a_limit() {
        let waits = [1, 2, 3, 10, 40, u32::MAX].map(|tries| backoff(Duration::from_secs(10), tries).as_secs());
        assert_eq!(waits, [10, 20, 40, 600, 600, 600]);
    }
}

//! When the syncs of jobs begin.
//!
//! A flush of the disk takes the same time for one file as for a hundred, so jobs share flushes: their syncs begin in
//! rounds. A job that comes during a round waits for its end. Then the clients of that round send their next files, so the
//! next round waits until as many jobs are here as can be expected. No job waits for long: a round may have one large file,
//! and clients may go.
//!
//! Knows no thread and no clock: the time is passed in.

use std::time::{Duration, Instant};

/// A sync of the directory that is shorter than this is not worth waiting for: while some jobs wait for the disk, the loop
/// receives the next ones. With flushes of 1 ms rounds are a sixth slower than syncs that begin at once, and with flushes of
/// 5 ms a third faster (16 clients).
const SLOW: Duration = Duration::from_millis(5);
/// How long a job waits for the end of a round: so many times as long as the last sync of the directory took. A round takes
/// two or three times as long.
const ROUND: u32 = 4;
/// The longest such wait. A disk that has stalled may work again.
const ROUND_MAX: Duration = Duration::from_millis(100);
/// How long a round waits for expected jobs: this share of the time that the last sync of the directory took.
const GATHER_SHARE: u32 = 2;
/// The longest such wait.
const GATHER_MAX: Duration = Duration::from_millis(10);

/// How long a round waits for the write-back of its last job: this share of the time that the last sync of the directory
/// took. With dioread_nolock, the default of ext4, the end of the write-back belongs to the journal's next commit if that
/// of the round has begun.
const SETTLE_SHARE: u32 = 16;
/// The longest such wait.
const SETTLE_MAX: Duration = Duration::from_millis(2);

/// How long a sync of the directory waits for any job that is syncing: this share of the time that the last one took.
const ANY_SHARE: u32 = 8;
/// The longest such wait.
const ANY_MAX: Duration = Duration::from_millis(5);

/// Decides when syncs begin.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// How many rounds have begun.
    begun: u64,
    /// Jobs of the last one that are not finished.
    current: usize,
    /// How many jobs it had.
    size: usize,
    /// Jobs that have begun and are not finished, of all rounds.
    under_way: usize,
    /// Jobs that wait for the next round.
    waiting: usize,
    /// How many jobs that round is to have.
    expected: usize,
    /// When it begins at the latest.
    until: Option<Instant>,
    /// How long the last sync of the directory took.
    sync_time: Duration,
}

/// When a sync of the directory begins at the latest.
pub(super) struct Waits {
    /// If jobs of the round are missing.
    pub(super) for_round: Instant,
    /// If any job is syncing: it may be about to end.
    pub(super) for_any: Instant,
}

/// Whether a round has begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Now. The other jobs of the round are to be told.
    Now,
    /// Before.
    Before,
    /// Not yet. It begins then at the latest.
    At(Instant),
}

impl Rounds {
    /// Begins a job at once, if no other is expected or the disk is fast. Returns the number of its round.
    pub(super) fn begin_at_once(&mut self) -> Option<u64> {
        let is_alone = self.current == 0 && self.expected <= 1;
        (self.waiting == 0 && (is_alone || self.is_fast())).then(|| {
            let round = self.join();
            self.begin();
            round
        })
    }

    /// Begins a job that belongs to no round, because its write-back takes longer than a flush. Returns what stands for the
    /// number of its round.
    pub(super) fn begin_apart(&mut self) -> u64 {
        self.under_way += 1;
        u64::MAX
    }

    /// A job waits. Returns the number of its round.
    pub(super) fn join(&mut self) -> u64 {
        self.waiting += 1;
        self.begun + 1
    }

    /// Begins round number `round`, if it is time. No more than `max` jobs can be under way or wait.
    pub(super) fn try_begin(&mut self, round: u64, max: usize, now: Instant) -> Begun {
        if self.begun >= round {
            return Begun::Before;
        }
        let is_complete = self.current == 0 && self.waiting >= self.expected || self.waiting + self.under_way >= max;
        let patience = match self.current {
            _ if is_complete => (self.sync_time / SETTLE_SHARE).min(SETTLE_MAX),
            0 => (self.sync_time / GATHER_SHARE).min(GATHER_MAX),
            _ => (self.sync_time * ROUND).min(ROUND_MAX),
        };
        let until = self.until.map_or(now + patience, |until| until.min(now + patience));
        self.until = Some(until);
        if now < until {
            return Begun::At(until);
        }
        self.begin();
        Begun::Now
    }

    fn begin(&mut self) {
        self.begun += 1;
        self.size = self.waiting;
        self.current = self.waiting;
        self.under_way += self.waiting;
        self.waiting = 0;
        self.until = None;
    }

    /// Jobs of these rounds are finished, and the sync of the directory took `sync_time`. Returns whether those that wait
    /// are to try again.
    pub(super) fn finished(&mut self, rounds: &[u64], sync_time: Duration) -> bool {
        self.sync_time = sync_time;
        self.under_way -= rounds.len();
        let was_over = self.current == 0;
        self.current -= self.count_current(rounds.iter());
        if self.current > 0 || was_over {
            return false;
        }
        self.expected = self.size + self.waiting;
        self.until = None;
        self.waiting > 0
    }

    /// Whether the last round has jobs beside those of these rounds, so that a sync of the directory should wait for them.
    pub(super) fn has_others<'a>(&self, rounds: impl Iterator<Item = &'a u64>) -> bool {
        self.count_current(rounds) < self.current && !self.is_fast()
    }

    /// Whether the disk is so fast that no job waits for a round.
    pub(super) fn is_fast(&self) -> bool {
        self.sync_time < SLOW
    }

    fn count_current<'a>(&self, rounds: impl Iterator<Item = &'a u64>) -> usize {
        rounds.filter(|round| **round == self.begun).count()
    }

    /// How long the sync of the directory should wait for more jobs. A disk syncs content about as fast as a directory.
    pub(super) fn waits(&self, now: Instant) -> Waits {
        Waits {
            for_round: now + (2 * self.sync_time).min(ROUND_MAX),
            for_any: now + (self.sync_time / ANY_SHARE).min(ANY_MAX),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an instant to count from")]
mod tests {
    use super::*;

    const MAX: usize = 100;
    const SYNC: Duration = Duration::from_millis(9);

    fn join(rounds: &mut Rounds, jobs: usize) {
        for _ in 0..jobs {
            rounds.join();
        }
    }

    /// Rounds after one of `jobs` jobs.
    fn after_a_round_of(jobs: usize, now: Instant) -> Rounds {
        let mut rounds = Rounds::default();
        join(&mut rounds, jobs);
        assert_eq!(rounds.try_begin(1, MAX, now), Begun::Now);
        assert!(!rounds.finished(&vec![1; jobs], SYNC), "none waits");
        rounds
    }

    #[test]
    fn one_client_never_waits() {
        let mut rounds = Rounds::default();
        for _ in 0..3 {
            let round = rounds.begin_at_once().unwrap();
            assert!(!rounds.finished(&[round], SYNC));
        }
    }

    #[test]
    fn on_a_fast_disk_no_job_waits() {
        let mut rounds = after_a_round_of(3, Instant::now());
        rounds.sync_time = SLOW / 2;
        let begun = [(); 3].map(|()| rounds.begin_at_once().unwrap());
        assert!(!rounds.has_others([].iter()));
        rounds.finished(&begun, SLOW / 2);
        assert_eq!(rounds.under_way, 0);
    }

    #[test]
    fn a_round_begins_soon_after_the_last_expected_job() {
        let now = Instant::now();
        let mut rounds = after_a_round_of(3, now);
        for _ in 0..2 {
            assert_eq!(rounds.begin_at_once(), None);
            assert_eq!(rounds.join(), 2);
            assert_eq!(rounds.try_begin(2, MAX, now), Begun::At(now + SYNC / 2));
        }
        rounds.join();
        assert_eq!(rounds.try_begin(2, MAX, now), Begun::At(now + SYNC / 16));
        assert_eq!(rounds.try_begin(2, MAX, now + SYNC / 16), Begun::Now);
        assert_eq!(rounds.try_begin(2, MAX, now), Begun::Before);
    }

    #[test]
    fn a_round_does_not_wait_long_for_clients_that_are_gone() {
        let now = Instant::now();
        let mut rounds = after_a_round_of(3, now);
        rounds.join();
        assert_eq!(rounds.try_begin(2, MAX, now), Begun::At(now + SYNC / 2));
        assert_eq!(rounds.try_begin(2, MAX, now + SYNC / 2), Begun::Now);
        rounds.finished(&[2], SYNC);
        assert_eq!(rounds.begin_at_once(), Some(3), "one is expected now");
    }

    #[test]
    fn who_comes_during_a_round_joins_its_jobs_in_the_next() {
        let now = Instant::now();
        let mut rounds = after_a_round_of(3, now);
        join(&mut rounds, 3);
        assert_eq!(rounds.try_begin(2, MAX, now + SYNC), Begun::At(now + SYNC + SYNC / 16));
        assert_eq!(rounds.try_begin(2, MAX, now + 2 * SYNC), Begun::Now);
        assert_eq!(rounds.join(), 3);
        assert_eq!(rounds.try_begin(3, MAX, now), Begun::At(now + SYNC * 4));
        assert!(rounds.has_others([2, 2].iter()));
        assert!(!rounds.finished(&[2, 2], SYNC), "one of the round is missing");
        assert!(rounds.finished(&[2], SYNC), "the one that waits is to look again");
        assert_eq!(rounds.try_begin(3, MAX, now), Begun::At(now + SYNC / 2), "four are expected");
        join(&mut rounds, 3);
        assert_eq!(rounds.try_begin(3, MAX, now), Begun::At(now + SYNC / 16));
    }

    #[test]
    fn one_large_file_delays_the_others_once() {
        let now = Instant::now();
        let mut rounds = after_a_round_of(1, now);
        let large = rounds.begin_at_once().unwrap();
        rounds.join();
        assert_eq!(rounds.try_begin(3, MAX, now), Begun::At(now + SYNC * 4));
        assert_eq!(rounds.try_begin(3, MAX, now + SYNC * 4), Begun::Now);
        rounds.finished(&[3], SYNC);
        for _ in 0..3 {
            let small = rounds.begin_at_once().unwrap();
            assert!(!rounds.has_others([small].iter()));
            rounds.finished(&[small], SYNC);
        }
        rounds.finished(&[large], SYNC);
        assert_eq!((rounds.under_way, rounds.current), (0, 0));
    }

    #[test]
    fn a_job_apart_neither_waits_nor_counts() {
        let now = Instant::now();
        let mut rounds = after_a_round_of(3, now);
        join(&mut rounds, 2);
        let apart = rounds.begin_apart();
        assert_eq!(rounds.try_begin(2, MAX, now), Begun::At(now + SYNC / 2));
        assert!(!rounds.finished(&[apart], SYNC));
        assert_eq!((rounds.under_way, rounds.waiting), (0, 2));
    }

    #[test]
    fn a_round_begins_when_every_thread_has_a_job() {
        let now = Instant::now();
        let mut rounds = after_a_round_of(3, now);
        rounds.join();
        assert_eq!(rounds.try_begin(2, 2, now), Begun::At(now + SYNC / 2));
        rounds.join();
        assert_eq!(rounds.try_begin(2, 2, now), Begun::At(now + SYNC / 16));
    }

    #[test]
    fn a_stalled_disk_does_not_delay_the_jobs_after_it_for_long() {
        let now = Instant::now();
        let mut rounds = after_a_round_of(2, now);
        join(&mut rounds, 2);
        assert_eq!(rounds.try_begin(2, MAX, now), Begun::At(now + SYNC / 16));
        assert_eq!(rounds.try_begin(2, MAX, now + SYNC), Begun::Now);
        rounds.finished(&[2, 2], Duration::from_secs(60));
        rounds.join();
        assert_eq!(rounds.try_begin(3, MAX, now), Begun::At(now + GATHER_MAX));
        assert_eq!(rounds.try_begin(3, MAX, now + GATHER_MAX), Begun::Now);
        rounds.join();
        assert_eq!(rounds.try_begin(4, MAX, now), Begun::At(now + ROUND_MAX));
        assert_eq!(rounds.waits(now).for_round, now + ROUND_MAX);
    }
}

//! The turn meter: how long each phase of a turn takes, and the longest turns whole.
//!
//! It runs only as far as somebody wants its figures ([`Detail`]). Otherwise it costs a turn the tests of one value, and reads no
//! clock.
//!
//! ```text
//!   begin --> lap(Poll) --> lap(Absorb) --> ... --> lap(Accept) --> end
//! ```
//!
//! A turn is as long as its work: the sleep in the poll does not count. Knows no connection: [`Visits`] says what the visits
//! of a turn were.

use std::time::Duration;

use super::histogram::Histogram;
use super::visits::{TurnVisits, Visits};
use crate::net;
use crate::reactor::Moment;

/// The bounds for [`Total::work_us`]: from a turn for one small file to one that people notice.
const WORK_BOUNDS_US: &[u64] =
    &[50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// The bounds for [`Total::events`].
const EVENT_BOUNDS: &[u64] = &[0, 1, 2, 5, 10, 25, 50, 100, 250, 1_000, 10_000];
/// For how long the worst turn is shown, at least: long enough to be in one of the frames of the slowest watcher.
const RECENT: Duration = Duration::from_secs(1);

/// A part of the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sleeps until an event.
    Poll,
    /// Notes the events.
    Absorb,
    /// Takes the results of the disk.
    Settle,
    /// Begins TLS handshakes.
    Shake,
    /// Serves ready connections.
    Serve,
    /// Acts on deadlines.
    Expire,
    /// Looks after the store's own files.
    Tend,
    /// Answers datagrams.
    Echo,
    /// Answers the operator's programs.
    Report,
    /// Accepts connections.
    Accept,
}

/// The names of the phases, in the order of [`Phase`].
pub const PHASES: [&str; 10] =
    ["poll", "absorb", "settle", "shake", "serve", "expire", "tend", "echo", "report", "accept"];

/// How closely turns are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Not at all: nobody asks.
    #[default]
    Nothing,
    /// How long each takes: one more look at the clock.
    Whole,
    /// Each phase and each visit: somebody watches.
    Phases,
}

/// One turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// When its poll returned.
    pub at: Moment,
    /// How long it worked.
    pub work: Duration,
    /// How long each phase took.
    pub phases: [Duration; PHASES.len()],
    /// The events of its poll.
    pub events: usize,
    /// The connections that were ready when it began to serve.
    pub ready: usize,
    /// The files that the disk was done with.
    pub settled: usize,
    /// What its visits were.
    pub visits: TurnVisits,
}

/// Measures turns while somebody wants that.
#[derive(Debug, Default)]
pub struct Meter {
    detail: Detail,
    lapped: Moment,
    turn: Turn,
    total: Total,
    /// The worst turn of the present second, and of the one before.
    recent: [Turn; 2],
    recent_since: Moment,
    worst: Turn,
}

/// All turns that were measured, together.
#[derive(Clone, Debug)]
pub struct Total {
    /// How long each phase took.
    pub phases: [Duration; PHASES.len()],
    /// How long turns worked, in microseconds.
    pub work_us: Histogram,
    /// The events of each turn.
    pub events: Histogram,
    /// Visits.
    pub visits: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Visits that ended because their budget was spent.
    pub yields: u64,
    /// Files that the disk was done with.
    pub settled: u64,
}

impl Default for Total {
    fn default() -> Self {
        Self {
            phases: [Duration::ZERO; PHASES.len()],
            work_us: Histogram::new(WORK_BOUNDS_US),
            events: Histogram::new(EVENT_BOUNDS),
            visits: 0,
            bytes: 0,
            yields: 0,
            settled: 0,
        }
    }
}

impl Meter {
    /// A turn begins, to be measured so closely. The worst turns are forgotten while nobody watches.
    pub fn begin(&mut self, detail: Detail) {
        if detail == Detail::Phases && self.detail != detail {
            (self.recent, self.worst) = Default::default();
        }
        self.detail = detail;
        if detail != Detail::Nothing {
            self.turn = Turn::default();
        }
        if detail == Detail::Phases {
            self.lapped = net::now();
        }
    }

    /// Whether this turn is measured at all.
    pub fn is_on(&self) -> bool {
        self.detail != Detail::Nothing
    }

    /// Whether the phases of this turn are measured.
    pub fn is_watched(&self) -> bool {
        self.detail == Detail::Phases
    }

    /// The turn as far as it is measured.
    pub fn turn_mut(&mut self) -> &mut Turn {
        &mut self.turn
    }

    /// A phase is over.
    #[inline]
    pub fn lap(&mut self, phase: Phase) {
        if self.is_watched() {
            let now = net::now();
            self.turn.phases[phase as usize] += now.since(self.lapped);
            self.lapped = now;
        }
    }

    /// The turn is over, whose poll returned at `at`.
    pub fn end(&mut self, at: Moment, visits: &mut Visits) {
        if !self.is_on() {
            return;
        }
        let after_poll = &self.turn.phases[Phase::Poll as usize + 1..];
        let work = if self.is_watched() { after_poll.iter().sum() } else { net::now().since(at) };
        (self.turn.at, self.turn.work, self.turn.visits) = (at, work, visits.end_turn());
        self.total.add(&self.turn);
        if self.is_watched() {
            self.compare(at);
        }
    }

    /// Keeps the turn if it is the worst.
    fn compare(&mut self, at: Moment) {
        if at.since(self.recent_since) >= RECENT {
            (self.recent[1], self.recent[0], self.recent_since) = (self.recent[0], Turn::default(), at);
        }
        for worst in [&mut self.recent[0], &mut self.worst] {
            if self.turn.work > worst.work {
                *worst = self.turn;
            }
        }
    }

    /// The turns that were measured, together.
    pub fn total(&self) -> &Total {
        &self.total
    }

    /// The worst turn of the last second or two, and the worst one since somebody began to watch.
    pub fn worst(&self) -> [&Turn; 2] {
        let [now, before] = &self.recent;
        [if now.work >= before.work { now } else { before }, &self.worst]
    }
}

impl Total {
    fn add(&mut self, turn: &Turn) {
        self.phases.iter_mut().zip(turn.phases).for_each(|(sum, phase)| *sum += phase);
        self.work_us.count(turn.work.as_micros() as u64);
        self.events.count(turn.events as u64);
        self.visits += turn.visits.count as u64;
        self.bytes += turn.visits.bytes as u64;
        self.yields += turn.visits.yields as u64;
        self.settled += turn.settled as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(meter: &mut Meter, at_s: u64, serve: Duration) {
        meter.begin(Detail::Phases);
        meter.turn_mut().phases[Phase::Serve as usize] = serve;
        meter.turn_mut().phases[Phase::Poll as usize] = Duration::from_secs(9);
        meter.end(Moment::after(Duration::from_secs(at_s)), &mut Visits::default());
    }

    #[test]
    fn the_worst_turn_is_kept_whole_and_a_sleep_is_no_work() {
        let (mut meter, ms) = (Meter::default(), Duration::from_millis);
        for (at_s, serve) in [(10, ms(5)), (10, ms(70)), (10, ms(6)), (11, ms(7)), (12, ms(8))] {
            turn(&mut meter, at_s, serve);
            let [recent, ever] = meter.worst();
            assert_eq!(recent.work, if at_s < 12 { ever.work } else { ms(8) });
        }
        assert_eq!(meter.worst()[1].work, ms(70));
        assert_eq!((meter.total().work_us.total(), meter.total().work_us.sum()), (5, 96_000));
    }

    #[test]
    fn a_turn_is_measured_only_while_somebody_wants_it() {
        let mut meter = Meter::default();
        meter.begin(Detail::Nothing);
        meter.lap(Phase::Serve);
        meter.end(Moment::default(), &mut Visits::default());
        assert_eq!((meter.total().work_us.total(), meter.turn.work), (0, Duration::ZERO));
        meter.begin(Detail::Phases);
        meter.lap(Phase::Poll);
        meter.lap(Phase::Serve);
        meter.end(Moment::default(), &mut Visits::default());
        assert_eq!(meter.total().work_us.total(), 1);
        meter.begin(Detail::Whole);
        meter.lap(Phase::Serve);
        meter.end(net::now(), &mut Visits::default());
        assert_eq!((meter.total().work_us.total(), meter.turn.phases), (2, Turn::default().phases));
        meter.begin(Detail::Phases);
        meter.lap(Phase::Poll);
        meter.lap(Phase::Serve);
        assert!(meter.turn.phases[Phase::Serve as usize] > Duration::ZERO);
    }
}

//! The turn meter: how long each phase of a turn takes, and the longest turns whole.
//!
//! It runs only while somebody wants its figures. Otherwise it costs a turn the tests of one `bool`, and reads no clock.
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

/// The bounds of the histogram of turns, in microseconds: from a turn that does next to nothing to one that people feel.
const BOUNDS_US: &[u64] =
    &[10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000];
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

/// One turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// When its poll returned.
    pub at: Moment,
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

impl Turn {
    /// How long it worked.
    pub fn work(&self) -> Duration {
        self.phases[Phase::Poll as usize + 1..].iter().sum()
    }
}

/// Measures turns while somebody wants that.
#[derive(Debug, Default)]
pub struct Meter {
    is_on: bool,
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
    /// Events.
    pub events: u64,
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
            work_us: Histogram::new(BOUNDS_US),
            events: 0,
            visits: 0,
            bytes: 0,
            yields: 0,
            settled: 0,
        }
    }
}

impl Meter {
    /// A turn begins, to be measured or not. The worst turns are forgotten while nobody wants them.
    pub fn begin(&mut self, is_on: bool) {
        if is_on && !self.is_on {
            (self.recent, self.worst) = Default::default();
        }
        self.is_on = is_on;
        if is_on {
            (self.turn, self.lapped) = (Turn::default(), net::now());
        }
    }

    /// Whether this turn is measured.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// The turn as far as it is measured.
    pub fn turn_mut(&mut self) -> &mut Turn {
        &mut self.turn
    }

    /// A phase is over.
    #[inline]
    pub fn lap(&mut self, phase: Phase) {
        if self.is_on {
            let now = net::now();
            self.turn.phases[phase as usize] += now.since(self.lapped);
            self.lapped = now;
        }
    }

    /// The turn is over.
    pub fn end(&mut self, at: Moment, visits: &mut Visits) {
        if !self.is_on {
            return;
        }
        (self.turn.at, self.turn.visits) = (at, visits.end_turn());
        self.total.add(&self.turn);
        if at.since(self.recent_since) >= RECENT {
            (self.recent[1], self.recent[0], self.recent_since) = (self.recent[0], Turn::default(), at);
        }
        for worst in [&mut self.recent[0], &mut self.worst] {
            if self.turn.work() > worst.work() {
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
        [if now.work() >= before.work() { now } else { before }, &self.worst]
    }
}

impl Total {
    fn add(&mut self, turn: &Turn) {
        self.phases.iter_mut().zip(turn.phases).for_each(|(sum, phase)| *sum += phase);
        self.work_us.count(turn.work().as_micros() as u64);
        self.events += turn.events as u64;
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
        meter.begin(true);
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
            assert_eq!(recent.work(), if at_s < 12 { ever.work() } else { ms(8) });
        }
        assert_eq!(meter.worst()[1].work(), ms(70));
        assert_eq!((meter.total().work_us.total(), meter.total().work_us.sum()), (5, 96_000));
    }

    #[test]
    fn a_turn_is_measured_only_while_somebody_wants_it() {
        let mut meter = Meter::default();
        meter.begin(false);
        meter.lap(Phase::Serve);
        meter.end(Moment::default(), &mut Visits::default());
        assert_eq!((meter.total().work_us.total(), meter.turn.work()), (0, Duration::ZERO));
        meter.begin(true);
        meter.lap(Phase::Poll);
        meter.lap(Phase::Serve);
        meter.end(Moment::default(), &mut Visits::default());
        assert_eq!(meter.total().work_us.total(), 1);
        assert!(meter.turn.phases[Phase::Serve as usize] > Duration::ZERO);
    }
}

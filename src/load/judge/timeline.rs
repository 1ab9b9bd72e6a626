//! A run second by second: what came out in each, and how long it took.
//!
//! Times are handed in. Knows no clock.

use std::time::Duration;

use super::latency::Latency;

/// The length of a step. A run of an hour has 3,600 of them, of some tens of bytes each.
pub const STEP: Duration = Duration::from_secs(1);

/// What a run has counted since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files that the receiver confirmed.
    pub acknowledged: u64,
    /// Uploads with a wrong ending.
    pub failed: u64,
    /// Bytes of content that the kernel took.
    pub sent_bytes: u64,
    /// Time that the tester spent outside the poll.
    pub busy: Duration,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When it ended, from the start of the run.
    pub end: Duration,
    /// How long it was. The last one of a run is shorter.
    pub length: Duration,
    /// What was counted in it.
    pub counted: Totals,
    /// The median until the confirmation, in microseconds. `None`: no honest client got one.
    pub p50_us: Option<u64>,
    /// The 99th percentile.
    pub p99_us: Option<u64>,
    /// The longest.
    pub max_us: Option<u64>,
}

/// The steps of a run.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    steps: Vec<Step>,
    began: Duration,
    before: Totals,
    stored: Latency,
}

impl Timeline {
    /// A file was confirmed after this time.
    pub fn record(&mut self, took: Duration) {
        self.stored.record(took);
    }

    /// Ends the step if it has lasted long enough. Call this often; a step may be longer if the tester was stopped.
    pub fn advance(&mut self, elapsed: Duration, totals: Totals) {
        if elapsed >= self.began + STEP {
            self.end_step(elapsed, totals);
        }
    }

    /// Ends the last step.
    pub fn finish(&mut self, elapsed: Duration, totals: Totals) {
        if elapsed > self.began {
            self.end_step(elapsed, totals);
        }
    }

    /// The steps that have ended.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn end_step(&mut self, elapsed: Duration, totals: Totals) {
        let counted = Totals {
            acknowledged: totals.acknowledged - self.before.acknowledged,
            failed: totals.failed - self.before.failed,
            sent_bytes: totals.sent_bytes - self.before.sent_bytes,
            busy: totals.busy - self.before.busy,
        };
        let stored = std::mem::take(&mut self.stored);
        self.steps.push(Step {
            end: elapsed,
            length: elapsed - self.began,
            counted,
            p50_us: stored.quantile_us(0.5),
            p99_us: stored.quantile_us(0.99),
            max_us: stored.max_us(),
        });
        (self.began, self.before) = (elapsed, totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_step_has_what_was_counted_in_it() {
        let mut line = Timeline::default();
        let totals = |acknowledged, busy| Totals { acknowledged, failed: 1, sent_bytes: 7 * acknowledged, busy };
        line.record(3 * MS);
        line.advance(999 * MS, totals(1, MS));
        assert_eq!(line.steps(), []);
        line.record(5 * MS);
        line.advance(1001 * MS, totals(2, 4 * MS));
        line.advance(1500 * MS, totals(2, 5 * MS));
        line.finish(1501 * MS, totals(3, 6 * MS));
        let [first, last] = line.steps() else { panic!("{line:?}") };
        assert_eq!((first.length, first.counted), (1001 * MS, Totals { failed: 1, ..totals(2, 4 * MS) }));
        assert_eq!(first.max_us.map(|us| us / 100), Some(50));
        assert_eq!((last.end, last.length, last.max_us), (1501 * MS, 500 * MS, None));
        assert_eq!(last.counted, Totals { acknowledged: 1, failed: 0, sent_bytes: 7, busy: 2 * MS });
    }

    #[test]
    fn a_run_without_a_moment_has_no_step() {
        let mut line = Timeline::default();
        line.finish(Duration::ZERO, Totals::default());
        assert_eq!(line.steps(), []);
    }
}

//! How long turns take, and how many events they have.

use std::time::Duration;

use super::histogram::Histogram;

/// The bounds for [`Turns::spans_us`], in microseconds: from a turn for one small file to one that people notice.
const SPAN_BOUNDS_US: &[u64] =
    &[50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// The bounds for [`Turns::events`].
const EVENT_BOUNDS: &[u64] = &[0, 1, 2, 5, 10, 25, 50, 100, 250, 1_000, 10_000];

/// The turns since the start.
#[derive(Debug)]
pub struct Turns {
    /// How long they took, without the sleep of the poll, in microseconds.
    pub spans_us: Histogram,
    /// How many events the poll reported.
    pub events: Histogram,
}

impl Default for Turns {
    fn default() -> Self {
        Self { spans_us: Histogram::new(SPAN_BOUNDS_US), events: Histogram::new(EVENT_BOUNDS) }
    }
}

impl Turns {
    /// Counts one turn.
    pub fn count(&mut self, span: Duration, events: usize) {
        self.spans_us.count(span.as_micros() as u64);
        self.events.count(events as u64);
    }
}

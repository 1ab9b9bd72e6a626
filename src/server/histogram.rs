//! How often something took how long, in a few fixed buckets.

use std::time::Duration;

/// Counts of spans, by the first bound that is no less.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// In microseconds, ascending.
    bounds_us: &'static [u64],
    /// One for each bound, and one for what is longer than all.
    counts: Box<[u64]>,
    sum_us: u64,
}

impl Histogram {
    /// An empty histogram with these bounds, in microseconds, ascending.
    pub fn new(bounds_us: &'static [u64]) -> Self {
        Self { bounds_us, counts: vec![0; bounds_us.len() + 1].into(), sum_us: 0 }
    }

    /// Counts one span.
    pub fn count(&mut self, span: Duration) {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds_us.iter().position(|bound| us <= *bound).unwrap_or(self.bounds_us.len());
        self.counts[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// For each bound, in seconds, how many spans were no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        self.bounds_us.iter().zip(&self.counts).map(move |(bound, count)| {
            sum += count;
            (*bound as f64 / 1e6, sum)
        })
    }

    /// How many spans were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All spans together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_counted_under_each_bound_that_is_no_less() {
        let mut histogram = Histogram::new(&[100, 1000]);
        for us in [0, 100, 101, 1000, 1001, 5_000_000] {
            histogram.count(Duration::from_micros(us));
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(0.0001, 2), (0.001, 4)]);
        assert_eq!((histogram.total(), histogram.sum_seconds()), (6, 5.002202));
    }
}

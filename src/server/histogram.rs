//! How often something had which size, in a few fixed buckets.

/// Counts of values, by the first bound that is no less.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// Ascending.
    bounds: &'static [u64],
    /// One for each bound, and one for what is above all.
    counts: Box<[u64]>,
    sum: u64,
}

impl Histogram {
    /// An empty histogram with these bounds, in ascending order.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0 }
    }

    /// Counts one value.
    pub fn count(&mut self, value: u64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// For each bound, how many values were no greater.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            sum += count;
            (*bound, sum)
        })
    }

    /// The bounds.
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// How many values were no greater than each bound, and greater than the one before; and how many were above all.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().copied()
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_under_each_bound_that_is_no_less() {
        let mut histogram = Histogram::new(&[100, 1000]);
        for value in [0, 100, 101, 1000, 1001, 5_000_000] {
            histogram.count(value);
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(100, 2), (1000, 4)]);
        assert_eq!((histogram.total(), histogram.sum()), (6, 5_002_202));
    }
}

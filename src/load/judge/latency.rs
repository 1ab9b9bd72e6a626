//! Latencies in fixed memory: a histogram whose figures are within a thousandth of the true values (HdrHistogram).

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The quantiles in reports, by name.
pub const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// The largest recorded latency in microseconds, an hour. No run waits that long.
const MAX_US: u64 = 3_600_000_000;
/// Significant decimal digits of each recorded value.
const DIGITS: u8 = 3;
/// The widest bar of the text histogram, in characters.
const BAR_WIDTH: u64 = 40;

/// A distribution of latencies.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_US, DIGITS).expect("the bounds are valid");
        Self { histogram }
    }
}

impl Latency {
    /// Adds one latency.
    pub fn record(&mut self, took: Duration) {
        self.histogram.saturating_record(took.as_micros().max(1).try_into().unwrap_or(u64::MAX));
    }

    /// Adds what [`Latency::buckets`] of another run has.
    pub fn add_bucket(&mut self, end_us: u64, count: u64) {
        self.histogram.saturating_record_n(end_us.max(1), count);
    }

    /// How many latencies were added.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The longest latency of this share of all, in microseconds; `None` if nothing was recorded.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        // The upper end of a bucket may lie above the largest value in it.
        self.of_some(|histogram| histogram.value_at_quantile(quantile).min(histogram.max()))
    }

    /// The longest latency in microseconds; `None` if nothing was recorded.
    pub fn max_us(&self) -> Option<u64> {
        self.of_some(Histogram::max)
    }

    /// The mean in microseconds; `None` if nothing was recorded.
    pub fn mean_us(&self) -> Option<f64> {
        self.of_some(Histogram::mean)
    }

    fn of_some<T>(&self, figure: impl Fn(&Histogram<u64>) -> T) -> Option<T> {
        (self.count() > 0).then(|| figure(&self.histogram))
    }

    /// The buckets that are not empty: the upper end in microseconds, and the count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.histogram.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_since_last_iteration()))
    }

    /// A line for each doubling of the time, with a bar for the count.
    pub fn bars(&self) -> impl fmt::Display + use<'_> {
        Bars(self)
    }
}

struct Bars<'a>(&'a Latency);

impl fmt::Display for Bars<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<(u64, u64)> = Vec::new();
        for (value, count) in self.0.buckets() {
            let end = value.next_power_of_two();
            match rows.last_mut() {
                Some((last, sum)) if *last == end => *sum += count,
                _ => rows.push((end, count)),
            }
        }
        let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
        rows.iter().try_for_each(|(end, count)| {
            let bar = "#".repeat((count * BAR_WIDTH).div_ceil(most) as usize);
            writeln!(f, "  up to {:>9}  {count:>9}  {bar}", Micros(Some(*end)).to_string())
        })
    }
}

/// Microseconds in a unit for people, or a dash.
pub struct Micros(pub Option<u64>);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(us) = self.0 else { return f.write_str("-") };
        match us {
            us @ 0..1000 => write!(f, "{us} us"),
            us @ 1000..1_000_000 => write!(f, "{:.2} ms", us as f64 / 1e3),
            us => write!(f, "{:.2} s", us as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(values: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::default();
        values.into_iter().for_each(|us| latency.record(Duration::from_micros(us)));
        latency
    }

    #[test]
    fn figures_are_within_a_thousandth() {
        let latency = latency(1..=100_000);
        for (quantile, exact) in [(0.5, 50_000_f64), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let told = latency.quantile_us(quantile).unwrap() as f64;
            assert!((told / exact - 1.0).abs() <= 0.001, "{told} for {exact}");
        }
        assert_eq!(latency.count(), 100_000);
        assert!(latency.quantile_us(1.0) <= latency.max_us());
    }

    #[test]
    fn buckets_add_up_and_include_the_extremes() {
        let latency = latency([0, 1, 5, 5, u64::MAX]);
        assert_eq!(latency.buckets().map(|(_, count)| count).sum::<u64>(), 5);
        assert_eq!(latency.buckets().next(), Some((1, 2)));
        let nothing = Latency::default();
        assert_eq!((nothing.quantile_us(0.99), nothing.max_us(), nothing.mean_us()), (None, None, None));
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        let text = latency([3, 3, 3, 3, 100, 100, 2000]).bars().to_string();
        let bars: Vec<usize> = text.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(bars, [40, 20, 10], "{text}");
        assert!(text.contains("up to    128 us          2"), "{text}");
    }

    #[test]
    fn units_are_chosen_for_people() {
        let told = [0, 999, 1000, 999_999, 1_500_000].map(|us| Micros(Some(us)).to_string());
        assert_eq!(Micros(None).to_string(), "-");
        assert_eq!(told, ["0 us", "999 us", "1.00 ms", "1000.00 ms", "1.50 s"]);
    }
}

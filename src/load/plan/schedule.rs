//! When each file starts.
//!
//! Pure: knows how many files have been started and how many clients are busy, and reads no clock.
//!
//! In a **closed loop** a client starts its next file when its last one is over, so a slow server is asked for less. In an
//! **open loop** files are due at fixed moments, whatever the server does. If a file starts late because all clients were busy,
//! its latency still counts from the moment it was due. Counting from the actual start would leave out the very wait that an
//! overload causes (Gil Tene: "coordinated omission").

use std::time::Duration;

use super::pattern::Random;

/// What triggers a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loop {
    /// The end of an earlier one.
    Closed,
    /// The clock.
    Open {
        /// Files a second, in the mean. Above 0.
        rate: f64,
        /// How the files are spread.
        arrivals: Arrivals,
    },
}

/// How the files of an open loop are spread in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// At exponentially distributed distances, as independent people come.
    #[default]
    Poisson,
}

/// How many files, or for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many files in total.
    pub files: Option<u64>,
    /// For how long files are started.
    pub duration: Option<Duration>,
}

/// Hands out the files in order, each when it is due. All times count from the start of the run.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Loop,
    extent: Extent,
    clients: usize,
    /// Over this span, the clients of a closed loop start one after the other, and the rate of an open one rises.
    ramp: Duration,
    random: Random,
    next: u64,
    /// The time from the start to the next file of an open loop, in mean distances.
    distances: f64,
}

/// Files that were due and not started are counted one by one up to this number. More would delay the end of a run.
const COUNTED_MAX: u64 = 100_000;

/// The purpose of the seed's stream; see [`Random::new`].
const ARRIVALS: u64 = 4;

impl Schedule {
    /// The schedule before the first file.
    pub fn new(pace: Loop, extent: Extent, clients: usize, ramp: Duration, seed: u64) -> Self {
        let random = Random::new(seed, ARRIVALS);
        let mut schedule = Self { pace, extent, clients, ramp, random, next: 0, distances: 0.0 };
        if let Loop::Open { arrivals: Arrivals::Poisson, .. } = pace {
            schedule.distances = schedule.distance();
        }
        schedule
    }

    /// When the next file starts, with `busy` clients at work. `None`: none may start before a client is free, or ever.
    pub fn next_start(&self, busy: usize, now: Duration) -> Option<Duration> {
        let over = self.is_exhausted() || self.extent.duration.is_some_and(|end| now >= end);
        if over || busy >= self.clients {
            return None;
        }
        Some(match self.pace {
            Loop::Closed => self.ramp.mul_f64(busy as f64 / self.clients as f64),
            Loop::Open { rate, .. } => self.due(rate),
        })
        .filter(|at| self.extent.duration.is_none_or(|end| *at < end))
    }

    /// Starts the next file. Returns its number and when it was due.
    pub fn start(&mut self, now: Duration) -> (u64, Duration) {
        let started = (self.next, self.intended(now));
        self.next += 1;
        self.distances += self.distance();
        started
    }

    /// How many files have been started.
    pub fn started(&self) -> u64 {
        self.next
    }

    /// How many files were due until `now` but not started because every client was busy. Beyond `COUNTED_MAX` the number is
    /// computed from the rate.
    pub fn overdue(&self, now: Duration) -> u64 {
        let Loop::Open { rate, .. } = self.pace else { return 0 };
        let until = self.extent.duration.map_or(now, |end| end.min(now));
        let mut ahead = self.clone();
        while !ahead.is_exhausted() && ahead.due(rate) < until {
            if ahead.next - self.next == COUNTED_MAX {
                ahead.next += (self.distances_until(until, rate) - ahead.distances).ceil() as u64;
                break;
            }
            ahead.start(now);
        }
        ahead.next.min(self.extent.files.unwrap_or(u64::MAX)) - self.next
    }

    fn is_exhausted(&self) -> bool {
        self.extent.files == Some(self.next)
    }

    fn intended(&self, now: Duration) -> Duration {
        match self.pace {
            Loop::Closed => now,
            Loop::Open { rate, .. } => self.due(rate),
        }
    }

    fn distance(&self) -> f64 {
        match self.pace {
            Loop::Open { arrivals: Arrivals::Poisson, .. } => -(1.0 - self.random.unit(self.next)).ln(),
            _ => 1.0,
        }
    }

    /// The inverse of `due`.
    fn distances_until(&self, moment: Duration, rate: f64) -> f64 {
        let (ramp, moment) = (self.ramp.as_secs_f64(), moment.as_secs_f64());
        if moment < ramp { rate * moment * moment / (2.0 * ramp) } else { rate * (moment - ramp / 2.0) }
    }

    /// While the rate climbs evenly from 0, the files due by a moment grow with its square.
    fn due(&self, rate: f64) -> Duration {
        let ramp = self.ramp.as_secs_f64();
        let in_ramp = rate * ramp / 2.0;
        Duration::from_secs_f64(if self.distances < in_ramp {
            (2.0 * ramp * self.distances / rate).sqrt()
        } else {
            ramp / 2.0 + self.distances / rate
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn closed(files: Option<u64>, duration: Option<Duration>, ramp: Duration) -> Schedule {
        Schedule::new(Loop::Closed, Extent { files, duration }, 4, ramp, 1)
    }

    fn open(arrivals: Arrivals, ramp: Duration) -> Schedule {
        let extent = Extent { files: None, duration: Some(10 * SECOND) };
        Schedule::new(Loop::Open { rate: 100.0, arrivals }, extent, usize::MAX, ramp, 1)
    }

    /// All start times with an unlimited number of clients.
    fn starts(mut schedule: Schedule) -> Vec<Duration> {
        let mut starts = Vec::new();
        while let Some(at) = schedule.next_start(0, *starts.last().unwrap_or(&Duration::ZERO)) {
            schedule.start(at);
            starts.push(at);
        }
        starts
    }

    #[test]
    fn a_closed_loop_starts_when_a_client_is_free_until_all_are_sent() {
        let mut schedule = closed(Some(2), None, Duration::ZERO);
        assert_eq!(schedule.next_start(4, SECOND), None);
        assert_eq!(schedule.next_start(3, SECOND), Some(Duration::ZERO));
        assert_eq!((schedule.start(SECOND), schedule.start(2 * SECOND)), ((0, SECOND), (1, 2 * SECOND)));
        assert_eq!(schedule.next_start(0, SECOND), None);
    }

    #[test]
    fn nothing_starts_after_the_duration() {
        let schedule = closed(None, Some(SECOND), Duration::ZERO);
        assert!(schedule.next_start(0, SECOND - Duration::from_nanos(1)).is_some());
        assert_eq!(schedule.next_start(0, SECOND), None);
    }

    #[test]
    fn clients_come_in_one_by_one() {
        let schedule = closed(None, None, 4 * SECOND);
        let moments = [0, 1, 2, 3].map(|busy| schedule.next_start(busy, Duration::ZERO));
        assert_eq!(moments, [0, 1, 2, 3].map(|seconds| Some(seconds * SECOND)));
    }

    #[test]
    fn constant_arrivals_keep_their_distance() {
        let starts = starts(open(Arrivals::Constant, Duration::ZERO));
        assert_eq!((starts.len(), starts[0], starts[150]), (1000, Duration::ZERO, 1500 * SECOND / 1000));
    }

    #[test]
    fn poisson_arrivals_keep_their_rate_and_vary_as_much_as_their_mean() {
        let starts = starts(open(Arrivals::Poisson, Duration::ZERO));
        assert!((900..1100).contains(&starts.len()), "{}", starts.len());
        let gaps: Vec<f64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.8..1.2).contains(&(variance.sqrt() / mean)), "{}", variance.sqrt() / mean);
    }

    #[test]
    fn the_rate_climbs_over_the_ramp() {
        let starts = starts(open(Arrivals::Constant, 4 * SECOND));
        let before = |second: u32| starts.iter().filter(|at| **at < second * SECOND).count();
        assert_eq!((before(2), before(4), before(10)), (50, 200, 800));
    }

    #[test]
    fn a_late_file_keeps_the_moment_it_was_due() {
        let mut schedule = open(Arrivals::Constant, Duration::ZERO);
        schedule.start(5 * SECOND);
        assert_eq!(schedule.start(5 * SECOND), (1, SECOND / 100));
    }

    #[test]
    fn files_that_were_due_and_never_started_are_counted() {
        let mut schedule = open(Arrivals::Constant, Duration::ZERO);
        schedule.start(Duration::ZERO);
        assert_eq!((schedule.overdue(SECOND), schedule.overdue(60 * SECOND)), (99, 999));
        assert_eq!(closed(Some(9), None, Duration::ZERO).overdue(SECOND), 0);
    }

    #[test]
    fn files_that_never_started_are_counted_at_any_rate() {
        let schedule = |files, ramp| {
            let extent = Extent { files, duration: None };
            Schedule::new(Loop::Open { rate: 1e9, arrivals: Arrivals::Poisson }, extent, 1, ramp, 1)
        };
        let about = |count: u64, expected: f64| (count as f64 / expected - 1.0).abs() < 0.01;
        assert!(about(schedule(None, Duration::ZERO).overdue(1000 * SECOND), 1e12));
        assert!(about(schedule(None, 2000 * SECOND).overdue(1000 * SECOND), 2.5e11));
        assert_eq!(schedule(Some(5_000_000), Duration::ZERO).overdue(1000 * SECOND), 5_000_000);
    }
}

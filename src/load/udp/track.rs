//! What became of the datagrams of one socket. Pure: times are handed in as durations since the start.
//!
//! The memory is fixed: only the last [`REMEMBERED`] datagrams are known one by one.

use std::time::Duration;

use crate::load::latency::Latency;

/// Datagrams remembered, to tell late, duplicate and reordered answers: what 60,000 datagrams a second have in flight in a
/// second.
const REMEMBERED: usize = 1 << 16;

/// Counts of what became of datagrams.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Taken by the kernel.
    pub sent: u64,
    /// Came back unchanged and in time.
    pub answered: u64,
    /// Came back unchanged, after they were given up.
    pub late: u64,
    /// Came back once more.
    pub duplicated: u64,
    /// Of the answered, those that came after a younger one.
    pub reordered: u64,
    /// What came back and was never sent like this.
    pub corrupted: u64,
    /// Errors that the system reported, such as an ICMP message that nothing listens there.
    pub errors: u64,
    /// The round trips of the answered.
    pub round_trip: Latency,
}

impl Counts {
    /// Datagrams that never came back unchanged.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered - self.late
    }
}

/// The datagrams of one socket. Their numbers count from 0.
#[derive(Debug)]
pub struct Track {
    timeout: Duration,
    /// The last ones, by number modulo the size.
    probes: Box<[Probe]>,
    next: u64,
    /// All below are answered or given up.
    oldest_open: u64,
    in_flight: u64,
    /// One more than the largest number answered.
    answered_up_to: u64,
    last_round_trip: Option<Duration>,
    /// In seconds.
    jitter: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Probe {
    sent_at: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Answered,
    InFlight,
    GivenUp,
}

impl Track {
    /// Before the first datagram. An answer after `timeout` is late.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            probes: vec![Probe::default(); REMEMBERED].into(),
            next: 0,
            oldest_open: 0,
            in_flight: 0,
            answered_up_to: 0,
            last_round_trip: None,
            jitter: 0.0,
        }
    }

    /// The number of the next datagram.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many are neither answered nor given up.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The smoothed difference between successive round trips (RFC 3550, section 6.4.1).
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter)
    }

    /// The next datagram was sent.
    pub fn sent(&mut self, now: Duration) {
        // Whatever is forgotten for its sake is not waited for any more.
        if self.next - self.oldest_open == REMEMBERED as u64 {
            self.give_up_oldest();
        }
        *self.probe(self.next) = Probe { sent_at: now, state: State::InFlight };
        self.next += 1;
        self.in_flight += 1;
    }

    /// Datagram `number`, one that was sent, has come back unchanged.
    pub fn returned(&mut self, number: u64, now: Duration, counts: &mut Counts) {
        if self.next - number > REMEMBERED as u64 {
            // Given up long ago.
            counts.late += 1;
            return;
        }
        let probe = self.probe(number);
        let round_trip = now.saturating_sub(probe.sent_at);
        match std::mem::replace(&mut probe.state, State::Answered) {
            State::Answered => counts.duplicated += 1,
            State::GivenUp => counts.late += 1,
            State::InFlight => self.answer(number, round_trip, counts),
        }
    }

    /// Gives up those whose time has passed. Returns when the next one's will have.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        while self.oldest_open < self.next {
            let Probe { sent_at, state } = *self.probe(self.oldest_open);
            let due = sent_at + self.timeout;
            if state == State::InFlight && due > now {
                return Some(due);
            }
            self.give_up_oldest();
        }
        None
    }

    fn answer(&mut self, number: u64, round_trip: Duration, counts: &mut Counts) {
        self.in_flight -= 1;
        counts.answered += 1;
        counts.reordered += u64::from(number < self.answered_up_to);
        counts.round_trip.record(round_trip);
        self.answered_up_to = self.answered_up_to.max(number + 1);
        if let Some(last) = self.last_round_trip.replace(round_trip) {
            self.jitter += (round_trip.abs_diff(last).as_secs_f64() - self.jitter) / 16.0;
        }
    }

    fn give_up_oldest(&mut self) {
        let probe = self.probe(self.oldest_open);
        if probe.state == State::InFlight {
            probe.state = State::GivenUp;
            self.in_flight -= 1;
        }
        self.oldest_open += 1;
    }

    fn probe(&mut self, number: u64) -> &mut Probe {
        &mut self.probes[number as usize % REMEMBERED]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn track(sent: u32) -> (Track, Counts) {
        let mut track = Track::new(100 * MS);
        (0..sent).for_each(|number| track.sent(number * MS));
        (track, Counts { sent: sent.into(), ..Counts::default() })
    }

    #[test]
    fn answers_are_told_from_late_duplicate_and_reordered_ones() {
        let (mut track, mut counts) = track(5);
        track.returned(1, 3 * MS, &mut counts);
        track.returned(1, 4 * MS, &mut counts);
        track.returned(0, 5 * MS, &mut counts);
        assert_eq!(track.expire(102 * MS), Some(103 * MS));
        track.returned(2, 103 * MS, &mut counts);
        track.returned(2, 104 * MS, &mut counts);
        let Counts { answered, late, duplicated, reordered, .. } = counts;
        assert_eq!((answered, late, duplicated, reordered), (2, 1, 2, 1));
        assert_eq!((counts.lost(), track.in_flight()), (2, 2));
        assert!((5000..5010).contains(&counts.round_trip.max_us()));
    }

    #[test]
    fn all_are_given_up_in_the_end() {
        let (mut track, mut counts) = track(3);
        track.returned(1, MS, &mut counts);
        assert_eq!(track.expire(99 * MS), Some(100 * MS));
        assert_eq!((track.expire(102 * MS), track.in_flight(), counts.lost()), (None, 0, 2));
    }

    #[test]
    fn what_is_forgotten_is_late_when_it_comes_after_all() {
        let (mut track, mut counts) = track(REMEMBERED as u32 + 1);
        assert_eq!(track.in_flight(), REMEMBERED as u64);
        track.returned(0, MS, &mut counts);
        track.returned(1, MS, &mut counts);
        assert_eq!((counts.late, counts.answered), (1, 1));
    }

    #[test]
    fn jitter_follows_the_difference_of_round_trips() {
        let (mut track, mut counts) = track(2);
        track.returned(0, 10 * MS, &mut counts);
        assert_eq!(track.jitter(), Duration::ZERO);
        track.returned(1, 27 * MS, &mut counts);
        assert_eq!(track.jitter(), MS);
    }
}

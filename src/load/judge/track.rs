//! What became of the datagrams of one socket. Pure: times are handed in as durations since the start.
//!
//! The memory is bounded: only the last [`REMEMBERED`] datagrams of all sockets are known one by one.

use std::collections::VecDeque;
use std::time::Duration;

use super::latency::Latency;

/// Datagrams remembered in total, to recognise late, duplicate and reordered answers: one second of a million a second.
const REMEMBERED: usize = 1 << 20;
/// The most and the least of them that one socket remembers.
const REMEMBERED_BY_ONE: (usize, usize) = (1 << 10, 1 << 16);

/// Counts of what became of datagrams.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Handed to the kernel, which took it or reported an error.
    pub tried: u64,
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
    /// Datagrams that came back and were never sent like this.
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

/// Which answer a datagram is that came back unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// The first answer, in time; its round trip.
    InTime(Duration),
    /// The first answer, after the timeout; its round trip, unless the datagram is forgotten.
    Late(Option<Duration>),
    /// A further answer.
    Again,
}

/// The datagrams of one socket. Their numbers count from 0.
#[derive(Debug)]
pub struct Track {
    timeout: Duration,
    /// The last ones, in order.
    probes: VecDeque<Probe>,
    /// How many are remembered at most.
    remembered: usize,
    next: u64,
    /// All below are answered or given up.
    oldest_open: u64,
    in_flight: u64,
    /// One more than the largest number answered.
    answered_up_to: u64,
    last_round_trip: Option<Duration>,
    /// In seconds, from the second answer on.
    jitter: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    sent_at: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Answered,
    InFlight,
    GivenUp,
}

impl Track {
    /// One of `sockets`, before the first datagram. An answer after `timeout` is late.
    pub fn new(timeout: Duration, sockets: usize) -> Self {
        let (least, most) = REMEMBERED_BY_ONE;
        Self {
            timeout,
            probes: VecDeque::new(),
            remembered: (REMEMBERED / sockets).clamp(least, most),
            next: 0,
            oldest_open: 0,
            in_flight: 0,
            answered_up_to: 0,
            last_round_trip: None,
            jitter: None,
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

    /// The smoothed difference between successive round trips (RFC 3550, section 6.4.1); `None` before the second one.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.map(Duration::from_secs_f64)
    }

    /// The next datagram was sent.
    pub fn sent(&mut self, now: Duration) {
        if self.probes.len() == self.remembered {
            // What is forgotten is not waited for any more.
            if self.oldest_open == self.first() {
                self.pass_oldest();
            }
            self.probes.pop_front();
        }
        self.probes.push_back(Probe { sent_at: now, state: State::InFlight });
        self.next += 1;
        self.in_flight += 1;
    }

    /// Datagram `number`, one that was sent, has come back unchanged.
    pub fn returned(&mut self, number: u64, now: Duration, counts: &mut Counts) -> Returned {
        let timeout = self.timeout;
        let Some(probe) = self.probe(number) else {
            // Given up long ago.
            counts.late += 1;
            return Returned::Late(None);
        };
        let round_trip = now.saturating_sub(probe.sent_at);
        let state = std::mem::replace(&mut probe.state, State::Answered);
        self.in_flight -= u64::from(state == State::InFlight);
        match state {
            State::Answered => {
                counts.duplicated += 1;
                Returned::Again
            }
            State::InFlight if round_trip <= timeout => {
                self.answer(number, round_trip, counts);
                Returned::InTime(round_trip)
            }
            State::InFlight | State::GivenUp => {
                counts.late += 1;
                Returned::Late(Some(round_trip))
            }
        }
    }

    /// Gives up the oldest datagram that has no answer.
    pub fn give_up_one(&mut self) {
        while self.oldest_open < self.next && !self.pass_oldest() {}
    }

    /// Gives up datagrams whose time is over. Returns when the next one's will be.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        let timeout = self.timeout;
        while let Some(&mut Probe { sent_at, state }) = self.probe(self.oldest_open) {
            let due = sent_at.saturating_add(timeout);
            if state == State::InFlight && due > now {
                return Some(due);
            }
            self.pass_oldest();
        }
        None
    }

    fn answer(&mut self, number: u64, round_trip: Duration, counts: &mut Counts) {
        counts.answered += 1;
        counts.reordered += u64::from(number < self.answered_up_to);
        counts.round_trip.record(round_trip);
        self.answered_up_to = self.answered_up_to.max(number + 1);
        if let Some(last) = self.last_round_trip.replace(round_trip) {
            let jitter = self.jitter.get_or_insert(0.0);
            *jitter += (round_trip.abs_diff(last).as_secs_f64() - *jitter) / 16.0;
        }
    }

    /// Goes past the oldest open datagram. Returns whether that was in flight, and is given up now.
    fn pass_oldest(&mut self) -> bool {
        let was_in_flight = self.probe(self.oldest_open).is_some_and(|probe| {
            let was_in_flight = probe.state == State::InFlight;
            if was_in_flight {
                probe.state = State::GivenUp;
            }
            was_in_flight
        });
        self.in_flight -= u64::from(was_in_flight);
        self.oldest_open += 1;
        was_in_flight
    }

    /// The number of the first one that is remembered.
    fn first(&self) -> u64 {
        self.next - self.probes.len() as u64
    }

    fn probe(&mut self, number: u64) -> Option<&mut Probe> {
        let place = number.checked_sub(self.first())?;
        self.probes.get_mut(place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn track(sent: u32) -> (Track, Counts) {
        let mut track = Track::new(100 * MS, 1);
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
        assert!(counts.round_trip.max_us().is_some_and(|us| (5000..5010).contains(&us)));
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
        let (_, most) = REMEMBERED_BY_ONE;
        let (mut track, mut counts) = track(most as u32 + 1);
        assert_eq!(track.in_flight(), most as u64);
        track.returned(0, MS, &mut counts);
        track.returned(1, MS, &mut counts);
        assert_eq!((counts.late, counts.answered), (1, 1));
    }

    #[test]
    fn an_answer_after_its_time_is_late_even_if_nobody_has_looked() {
        let (mut track, mut counts) = track(1);
        assert_eq!(track.returned(0, 101 * MS, &mut counts), Returned::Late(Some(101 * MS)));
        assert_eq!(track.returned(0, 102 * MS, &mut counts), Returned::Again);
        assert_eq!((counts.late, counts.duplicated, track.in_flight()), (1, 1, 0));
    }

    #[test]
    fn an_error_gives_up_the_oldest_that_is_open() {
        let (mut track, mut counts) = track(3);
        track.returned(0, MS, &mut counts);
        track.give_up_one();
        assert_eq!(track.in_flight(), 1);
        assert_eq!(track.returned(2, 3 * MS, &mut counts), Returned::InTime(MS));
        track.give_up_one();
        assert_eq!((track.in_flight(), counts.lost()), (0, 1));
    }

    #[test]
    fn many_sockets_remember_fewer_each() {
        assert_eq!(Track::new(MS, 15_000).remembered, 1 << 10);
    }

    #[test]
    fn jitter_follows_the_difference_of_round_trips() {
        let (mut track, mut counts) = track(2);
        track.returned(0, 10 * MS, &mut counts);
        assert_eq!(track.jitter(), None);
        track.returned(1, 27 * MS, &mut counts);
        assert_eq!(track.jitter(), Some(MS));
    }
}

//! Tracks the datagrams of one socket. Pure: times are passed in as durations since the start.
//!
//! The memory is bounded: only the last [`REMEMBERED`] datagrams of all sockets are remembered.

use std::collections::VecDeque;
use std::time::Duration;

use super::latency::Latency;

/// How many datagrams are remembered in total, to recognise late, duplicate and reordered answers: a second's worth at a
/// million a second.
const REMEMBERED: usize = 1 << 20;
/// The least and the most that one socket remembers.
const REMEMBERED_BY_ONE: (usize, usize) = (1 << 10, 1 << 16);

/// Counts of datagrams by their outcome.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Datagrams passed to the kernel, which took them or reported an error.
    pub tried: u64,
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Datagrams that came back unchanged and in time.
    pub answered: u64,
    /// Datagrams that came back unchanged, but late.
    pub late: u64,
    /// Further answers to the same datagram.
    pub duplicated: u64,
    /// Answered datagrams whose answer came after that of a younger one.
    pub reordered: u64,
    /// Answers that differ from everything sent.
    pub corrupted: u64,
    /// Errors that the system reported, such as an ICMP message that nothing listens there.
    pub errors: u64,
    /// The round trips of answered datagrams.
    pub round_trip: Latency,
}

impl Counts {
    /// Datagrams that never came back unchanged.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered - self.late
    }
}

/// The kind of an answer that came back unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// The first answer, in time, with its round trip.
    InTime(Duration),
    /// The first answer, after the timeout, with its round trip unless the datagram is forgotten.
    Late(Option<Duration>),
    /// A further answer.
    Again,
}

/// The datagrams of one socket. Their numbers count from 0.
#[derive(Debug)]
pub struct Track {
    timeout: Duration,
    /// The remembered datagrams, in order.
    probes: VecDeque<Probe>,
    /// How many datagrams are remembered at most.
    remembered: usize,
    next: u64,
    /// Every datagram below this number is answered or given up.
    oldest_open: u64,
    in_flight: u64,
    /// One more than the largest answered number.
    answered_up_to: u64,
    last_round_trip: Option<Duration>,
    /// The jitter in seconds, from the second answer on.
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
    /// The track of one of `sockets`, before its first datagram. An answer after `timeout` is late.
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

    /// How many datagrams are neither answered nor given up.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The smoothed difference between successive round trips (RFC 3550, section 6.4.1); `None` before the second one.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.map(Duration::from_secs_f64)
    }

    /// Notes that the next datagram was sent.
    pub fn sent(&mut self, now: Duration) {
        if self.probes.len() == self.remembered {
            // A forgotten datagram is given up.
            if self.oldest_open == self.first() {
                self.pass_oldest();
            }
            self.probes.pop_front();
        }
        self.probes.push_back(Probe { sent_at: now, state: State::InFlight });
        self.next += 1;
        self.in_flight += 1;
    }

    /// Notes that datagram `number` has come back unchanged. It must have been sent.
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

    /// Gives up datagrams that are late. Returns when the next one will be.
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

    /// Moves past the oldest open datagram. Returns whether it was in flight, and is now given up.
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

    /// The smallest remembered number.
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
    fn late_duplicate_and_reordered_answers_are_distinguished() {
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
    fn an_answer_to_a_forgotten_datagram_is_late() {
        let (_, most) = REMEMBERED_BY_ONE;
        let (mut track, mut counts) = track(most as u32 + 1);
        assert_eq!(track.in_flight(), most as u64);
        track.returned(0, MS, &mut counts);
        track.returned(1, MS, &mut counts);
        assert_eq!((counts.late, counts.answered), (1, 1));
    }

    #[test]
    fn an_answer_after_its_timeout_is_late_even_before_the_next_check() {
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

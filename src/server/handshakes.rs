//! TLS handshakes: how many there are at once, and who is next.
//!
//! A handshake is the dearest thing that a stranger can ask for: a signature, and tens of kilobytes until the client has
//! answered. So there are few first answers in a turn, and few handshakes under way. A client that has sent only a part of its
//! first message costs neither.
//!
//! If too many are under way, the next ones wait, and the last to come is the first to begin: where a flood has piled up, those
//! who came late have the best chance to be still there. A client that does not answer within a moment then has to make room
//! for one that waits.
//!
//! Pure: ids and moments go in.

use std::time::Duration;

use crate::reactor::{Id, Moment};

/// First answers in one turn. Each takes a few tenths of a millisecond, in which no other connection is served.
pub const ANSWERS_PER_TURN: usize = 4;
/// How long a client may take to answer while others wait: several round trips around the world.
const MOMENT_TO_ANSWER: Duration = Duration::from_secs(1);

/// The handshakes of a server.
#[derive(Debug)]
pub struct Handshakes {
    max: usize,
    /// Those that wait to begin.
    waiting: Vec<Id>,
    /// Those whose client has its answer and has not finished, by the time of that answer.
    under_way: Vec<(Id, Moment)>,
}

impl Handshakes {
    /// At most `max` at once.
    pub fn new(max: usize) -> Self {
        Self { max, waiting: Vec::new(), under_way: Vec::new() }
    }

    /// `id` waits to begin its handshake.
    pub fn wait(&mut self, id: Id) {
        self.waiting.push(id);
    }

    /// The next one that may begin.
    pub fn next(&mut self) -> Option<Id> {
        if self.is_full() { None } else { self.waiting.pop() }
    }

    /// Whether [`Handshakes::next`] has one.
    pub fn has_next(&self) -> bool {
        !self.is_full() && !self.waiting.is_empty()
    }

    /// Whether a handshake has begun or ended with this visit of `id`.
    pub fn note(&mut self, id: Id, was_under_way: bool, is_under_way: bool, now: Moment) {
        match (was_under_way, is_under_way) {
            (false, true) => self.under_way.push((id, now)),
            (true, false) => self.under_way.retain(|(other, _)| *other != id),
            _ => {}
        }
    }

    /// The one that has to make room for one that waits: its client has not answered for too long.
    pub fn slowest(&self, now: Moment) -> Option<Id> {
        let (id, since) = self.under_way.first().filter(|_| self.is_full() && !self.waiting.is_empty())?;
        (*since + MOMENT_TO_ANSWER <= now).then_some(*id)
    }

    /// When [`Handshakes::slowest`] may have one.
    pub fn deadline(&self) -> Option<Moment> {
        let (_, since) = self.under_way.first().filter(|_| self.is_full() && !self.waiting.is_empty())?;
        Some(*since + MOMENT_TO_ANSWER)
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Slots;

    #[test]
    fn the_last_to_come_begins_first_and_the_slowest_makes_room() {
        let mut slots = Slots::default();
        let [a, b, c] = [(); 3].map(|()| slots.insert(()));
        let (mut handshakes, start) = (Handshakes::new(1), Moment::default());
        let later = start + MOMENT_TO_ANSWER;
        for id in [a, b, c] {
            handshakes.wait(id);
        }
        assert_eq!((handshakes.next(), handshakes.has_next()), (Some(c), true));
        handshakes.note(c, false, true, start);
        assert_eq!((handshakes.next(), handshakes.has_next(), handshakes.slowest(start)), (None, false, None));
        assert_eq!((handshakes.deadline(), handshakes.slowest(later)), (Some(later), Some(c)));
        handshakes.note(c, true, false, later);
        assert_eq!((handshakes.next(), handshakes.next(), handshakes.next()), (Some(b), Some(a), None));
    }

    #[test]
    fn while_nobody_waits_nobody_has_to_make_room() {
        let mut slots = Slots::default();
        let (mut handshakes, start) = (Handshakes::new(1), Moment::default());
        handshakes.note(slots.insert(()), false, true, start);
        assert_eq!((handshakes.slowest(Moment::NEVER), handshakes.deadline()), (None, None));
    }
}

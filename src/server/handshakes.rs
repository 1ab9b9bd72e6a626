//! TLS handshakes: how many there are at once, and who is next.
//!
//! A handshake is the dearest thing that a stranger can ask for: a signature, and tens of kilobytes until the client has
//! answered. So there are few first answers in a turn, and few handshakes under way. A client that has sent only a part of its
//! first message costs neither.
//!
//! If too many are under way, the next ones wait. Sources take turns, and none has more than a part of those that are under
//! way, so one source cannot keep the others out. Of one source the last to come is the first to begin: where a flood has piled
//! up, those who came late have the best chance to be still there. A client that does not answer within a moment then has to
//! make room for one that waits.
//!
//! Pure: ids and moments go in.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use crate::reactor::{Id, Moment, Source};

/// First answers in one turn. Each takes a few tenths of a millisecond, in which no other connection is served.
pub const ANSWERS_PER_TURN: usize = 4;
/// How long a client may take to answer while others wait: several round trips around the world.
const MOMENT_TO_ANSWER: Duration = Duration::from_secs(1);
/// One source may have this part of those that are under way.
const SHARE: usize = 4;

/// The handshakes of a server.
#[derive(Debug)]
pub struct Handshakes {
    max: usize,
    sources: BTreeMap<Source, OfSource>,
    /// The source that had the last turn.
    last: Option<Source>,
    /// Those whose client has its answer and has not finished, by the time of that answer.
    under_way: Vec<(Id, Source, Moment)>,
}

/// The handshakes of one source.
#[derive(Debug, Default)]
struct OfSource {
    /// Those that wait to begin.
    waiting: VecDeque<Id>,
    /// How many are under way.
    under_way: usize,
}

impl Handshakes {
    /// At most `max` at once.
    pub fn new(max: usize) -> Self {
        Self { max, sources: BTreeMap::new(), last: None, under_way: Vec::new() }
    }

    /// `id` waits to begin its handshake.
    pub fn wait(&mut self, id: Id, source: Source) {
        self.sources.entry(source).or_default().waiting.push_back(id);
    }

    /// The next one that may begin.
    pub fn next(&mut self) -> Option<Id> {
        let source = self.next_source()?;
        self.last = Some(source);
        let id = self.sources.get_mut(&source)?.waiting.pop_back();
        self.tidy(source);
        id
    }

    /// Whether [`Handshakes::next`] has one.
    pub fn has_next(&self) -> bool {
        self.next_source().is_some()
    }

    fn next_source(&self) -> Option<Source> {
        if self.is_full() {
            return None;
        }
        let may_begin = |(_, of): &(&Source, &OfSource)| !of.waiting.is_empty() && of.under_way < self.share();
        let last = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.sources.range((last, Bound::Unbounded));
        behind.find(may_begin).or_else(|| self.sources.iter().find(may_begin)).map(|(source, _)| *source)
    }

    /// A handshake of `id` has begun, or ended.
    pub fn note(&mut self, id: Id, source: Source, is_under_way: bool, now: Moment) {
        if is_under_way {
            self.under_way.push((id, source, now));
            self.sources.entry(source).or_default().under_way += 1;
        } else if let Some(index) = self.under_way.iter().position(|(other, ..)| *other == id) {
            self.under_way.remove(index);
            self.sources.entry(source).or_default().under_way -= 1;
            self.tidy(source);
        }
    }

    /// The connection of `id` is closed.
    pub fn forget(&mut self, id: Id, source: Source) {
        let Some(of) = self.sources.get_mut(&source) else { return };
        // The oldest are closed first, and stand in front.
        if let Some(index) = of.waiting.iter().position(|other| *other == id) {
            of.waiting.remove(index);
        }
        self.tidy(source);
    }

    fn tidy(&mut self, source: Source) {
        if self.sources.get(&source).is_some_and(|of| of.waiting.is_empty() && of.under_way == 0) {
            self.sources.remove(&source);
        }
    }

    /// The one that has to make room for one that waits: its client has not answered for too long.
    pub fn slowest(&self, now: Moment) -> Option<Id> {
        let (id, _, since) = self.first_in_the_way()?;
        (*since + MOMENT_TO_ANSWER <= now).then_some(*id)
    }

    /// When [`Handshakes::slowest`] may have one.
    pub fn deadline(&self) -> Option<Moment> {
        self.first_in_the_way().map(|(_, _, since)| *since + MOMENT_TO_ANSWER)
    }

    /// The oldest under way that keeps another one waiting: all others if there are too many, or those of its own source.
    fn first_in_the_way(&self) -> Option<&(Id, Source, Moment)> {
        let any_waits = self.is_full() && self.sources.values().any(|of| !of.waiting.is_empty());
        let own_wait = |of: &OfSource| !of.waiting.is_empty() && of.under_way >= self.share();
        self.under_way.iter().find(|(_, source, _)| any_waits || self.sources.get(source).is_some_and(own_wait))
    }

    fn share(&self) -> usize {
        (self.max / SHARE).max(1)
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Slots;

    fn source(number: u8) -> Source {
        Source::of([192, 0, 2, number].into())
    }

    fn ids<const N: usize>() -> [Id; N] {
        let mut slots = Slots::default();
        [(); N].map(|()| slots.insert(()))
    }

    #[test]
    fn of_one_source_the_last_to_come_begins_first_and_the_slowest_makes_room() {
        let ([a, b, c], one) = (ids(), source(1));
        let (mut handshakes, start) = (Handshakes::new(1), Moment::default());
        let later = start + MOMENT_TO_ANSWER;
        for id in [a, b, c] {
            handshakes.wait(id, one);
        }
        assert_eq!((handshakes.next(), handshakes.has_next()), (Some(c), true));
        handshakes.note(c, one, true, start);
        assert_eq!((handshakes.next(), handshakes.has_next(), handshakes.slowest(start)), (None, false, None));
        assert_eq!((handshakes.deadline(), handshakes.slowest(later)), (Some(later), Some(c)));
        handshakes.note(c, one, false, later);
        assert_eq!((handshakes.next(), handshakes.next(), handshakes.next()), (Some(b), Some(a), None));
        assert!(handshakes.sources.is_empty());
    }

    #[test]
    fn while_nobody_waits_nobody_has_to_make_room() {
        let [a] = ids();
        let (mut handshakes, start) = (Handshakes::new(1), Moment::default());
        handshakes.note(a, source(1), true, start);
        assert_eq!((handshakes.slowest(Moment::NEVER), handshakes.deadline()), (None, None));
    }

    #[test]
    fn one_source_cannot_keep_the_others_out() {
        let ([a, b, c, d], one, other) = (ids(), source(1), source(2));
        let (mut handshakes, start) = (Handshakes::new(8), Moment::default());
        for id in [a, b, c] {
            handshakes.wait(id, one);
        }
        for id in [c, b] {
            assert_eq!(handshakes.next(), Some(id));
            handshakes.note(id, one, true, start);
        }
        assert_eq!(handshakes.next(), None, "a quarter of all is of this source");
        assert_eq!(handshakes.slowest(start + MOMENT_TO_ANSWER), Some(c), "which makes room for its own");
        handshakes.wait(d, other);
        assert_eq!(handshakes.next(), Some(d));
    }

    #[test]
    fn sources_take_turns() {
        let ([a, b, c, d], one, other) = (ids(), source(1), source(2));
        let mut handshakes = Handshakes::new(100);
        for (id, source) in [(a, one), (b, one), (c, one), (d, other)] {
            handshakes.wait(id, source);
        }
        assert_eq!([(); 4].map(|()| handshakes.next()), [c, d, b, a].map(Some));
    }

    #[test]
    fn who_has_gone_does_not_wait() {
        let ([a, b], one) = (ids(), source(1));
        let mut handshakes = Handshakes::new(1);
        handshakes.wait(a, one);
        handshakes.wait(b, one);
        handshakes.forget(b, one);
        assert_eq!((handshakes.next(), handshakes.next()), (Some(a), None));
    }
}

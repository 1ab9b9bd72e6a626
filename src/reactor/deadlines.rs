//! When somebody must be looked at, at the latest.
//!
//! The first deadline is the timeout of the poll: that is all there is to a timer. One entry for each [`Id`], and a
//! lazy one: moving a deadline away costs nothing, because the entry stays where it is. When it comes due its owner is
//! asked, finds that it is early, and arms it again. A busy upload so touches the tree once per timeout, not once per
//! read.

use std::collections::BTreeSet;

use super::{Id, Moment};

/// At most one pending moment for each [`Id`].
///
/// ```
/// use std::time::Duration;
/// use intake::reactor::{Deadlines, Moment, Slots};
///
/// let (mut slots, mut deadlines) = (Slots::default(), Deadlines::default());
/// let (start, second) = (Moment::default(), Duration::from_secs(1));
/// let id = slots.insert("a connection");
/// deadlines.arm(id, start + 10 * second);
/// deadlines.arm(id, start + 15 * second); // It has spoken after 5 s. Nothing moves.
/// assert_eq!(deadlines.first(), Some(start + 10 * second), "how long the poll may sleep");
///
/// assert_eq!(deadlines.pop_due(start + 10 * second), Some(id), "look at it: it is early");
/// deadlines.arm(id, start + 15 * second);
/// assert_eq!(deadlines.pop_due(start + 14 * second), None);
/// ```
#[derive(Debug, Default)]
pub struct Deadlines {
    entries: BTreeSet<(Moment, Id)>,
    /// By slot index the moment under which the entry stands; never where there is none.
    armed: Vec<Moment>,
}

impl Deadlines {
    /// Makes sure that `id` comes due at `at` or before. A later moment than the pending one leaves that in place.
    pub fn arm(&mut self, id: Id, at: Moment) {
        if self.armed.len() <= id.index() {
            self.armed.resize(id.index() + 1, Moment::NEVER);
        }
        if self.armed[id.index()] <= at {
            return;
        }
        self.disarm(id);
        self.armed[id.index()] = at;
        self.entries.insert((at, id));
    }

    /// Takes the entry of `id` away; due when `id` is given up, so that no entry outlives its owner.
    pub fn disarm(&mut self, id: Id) {
        if let Some(pending) = self.armed.get_mut(id.index()) {
            self.entries.remove(&(*pending, id));
            *pending = Moment::NEVER;
        }
    }

    /// Takes out the first entry that is due at `now` or before. Its owner arms it again as it needs.
    pub fn pop_due(&mut self, now: Moment) -> Option<Id> {
        let &(at, id) = self.entries.first().filter(|(at, _)| *at <= now)?;
        self.entries.remove(&(at, id));
        self.armed[id.index()] = Moment::NEVER;
        Some(id)
    }

    /// The first pending moment.
    pub fn first(&self) -> Option<Moment> {
        self.entries.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Slots;
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_only_when_due() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert(()), slots.insert(()));
        let start = Moment::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        deadlines.arm(a, at(5));
        deadlines.arm(b, at(3));
        assert_eq!((deadlines.first(), deadlines.pop_due(at(2))), (Some(at(3)), None));
        assert_eq!((deadlines.pop_due(at(5)), deadlines.pop_due(at(5)), deadlines.first()), (Some(b), Some(a), None));
    }

    #[test]
    fn one_entry_each_that_moves_forward_only_lazily() {
        let mut slots = Slots::default();
        let a = slots.insert(());
        let start = Moment::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        deadlines.arm(a, at(5));
        deadlines.arm(a, at(9));
        assert_eq!(deadlines.first(), Some(at(5)));
        deadlines.arm(a, at(2));
        assert_eq!((deadlines.pop_due(at(9)), deadlines.pop_due(at(9))), (Some(a), None));
    }

    #[test]
    fn nothing_outlives_a_disarm() {
        let mut slots = Slots::default();
        let a = slots.insert(());
        let now = Moment::default();
        let mut deadlines = Deadlines::default();
        deadlines.arm(a, now);
        deadlines.disarm(a);
        assert_eq!((deadlines.first(), deadlines.pop_due(now)), (None, None));
    }
}

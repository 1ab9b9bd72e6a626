//! The deadline of each connection: when it must be looked at, at the latest.
//!
//! The poll must return at the first deadline; the server arms a kernel timer for it. Each [`Id`] has one entry, and a lazy
//! one: moving a deadline away costs nothing, because the entry stays where it is. When the entry comes due, its owner
//! finds that it is early, and arms it again. So a busy upload touches the heap once per timeout, not once per read.
//!
//! A binary heap that knows the place of each entry, so that an entry can be removed from the middle. It takes 20 bytes an
//! entry, less than half of a tree.

use super::{Id, Moment};

/// At most one pending deadline for each [`Id`].
///
/// ```
/// use std::time::Duration;
/// use intake::reactor::{Deadlines, Moment, Slots};
///
/// let (mut slots, mut deadlines) = (Slots::default(), Deadlines::default());
/// let (start, second) = (Moment::default(), Duration::from_secs(1));
/// let id = slots.insert("a connection");
/// deadlines.arm(id, start + 10 * second);
/// deadlines.arm(id, start + 15 * second); // It sent something after 5 s. Nothing moves.
/// assert_eq!(deadlines.first(), Some(start + 10 * second), "how long the poll may sleep");
///
/// assert_eq!(deadlines.pop_due(start + 10 * second), Some(id), "look at it: it is early");
/// deadlines.arm(id, start + 15 * second);
/// assert_eq!(deadlines.pop_due(start + 14 * second), None);
/// ```
#[derive(Debug, Default)]
pub struct Deadlines {
    /// A binary heap: no entry is earlier than its parent, the one at `(place - 1) / 2`.
    heap: Vec<(Moment, Id)>,
    /// The place of each entry in the heap, by slot index.
    places: Vec<u32>,
}

/// Marks an [`Id`] without an entry.
const NOWHERE: u32 = u32::MAX;

impl Deadlines {
    /// Makes sure that `id` comes due at `at` or earlier. An earlier pending deadline stays as it is.
    pub fn arm(&mut self, id: Id, at: Moment) {
        if self.places.len() <= id.index() {
            self.places.resize(id.index() + 1, NOWHERE);
        }
        match self.places[id.index()] {
            NOWHERE => {
                self.heap.push((at, id));
                self.settle(self.heap.len() - 1);
            }
            place if self.heap[place as usize].0 <= at => {}
            place => {
                self.heap[place as usize].0 = at;
                self.settle(place as usize);
            }
        }
    }

    /// Removes the entry of `id`. Call it when the owner of `id` ends, so that no entry outlives it.
    pub fn disarm(&mut self, id: Id) {
        match self.places.get(id.index()) {
            None | Some(&NOWHERE) => {}
            Some(&place) => {
                self.remove(place as usize);
            }
        }
    }

    /// Removes and returns the first entry that is due at `now` or earlier. Its owner arms it again if needed.
    pub fn pop_due(&mut self, now: Moment) -> Option<Id> {
        self.first().filter(|at| *at <= now).map(|_| self.remove(0))
    }

    /// The first pending deadline.
    pub fn first(&self) -> Option<Moment> {
        self.heap.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, place: usize) -> Id {
        let (_, id) = self.heap.swap_remove(place);
        self.places[id.index()] = NOWHERE;
        if place < self.heap.len() {
            self.settle(place);
        }
        id
    }

    /// Moves the entry at `place` to where it belongs: up past later ones, or down past earlier ones.
    fn settle(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 && entry < self.heap[(place - 1) / 2] {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        let earlier_child = |heap: &[(Moment, Id)], place| {
            let children = (2 * place + 1..heap.len()).take(2);
            children.min_by_key(|child| heap[*child]).filter(|child| heap[*child] < entry)
        };
        while let Some(child) = earlier_child(&self.heap, place) {
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Moment, Id)) {
        self.heap[place] = entry;
        self.places[entry.1.index()] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

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

    proptest! {
        /// Behaves like a sorted list of the armed entries, whatever the operations.
        #[test]
        fn all_come_in_order_whatever_was_armed_and_disarmed(
            deeds in vec((0..3u8, 0..20usize, 0..50u64), 0..300)
        ) {
            let mut slots = Slots::default();
            let ids: Vec<Id> = (0..20).map(|_| slots.insert(())).collect();
            let (mut deadlines, mut armed) = (Deadlines::default(), BTreeMap::new());
            for (deed, who, millis) in deeds {
                let (id, at) = (ids[who], Moment::default() + Duration::from_millis(millis));
                match deed {
                    0 => {
                        deadlines.arm(id, at);
                        armed.entry(id).and_modify(|pending| *pending = at.min(*pending)).or_insert(at);
                    }
                    1 => {
                        deadlines.disarm(id);
                        armed.remove(&id);
                    }
                    _ => {
                        let due = armed.iter().map(|(id, at)| (*at, *id)).min().filter(|(due, _)| *due <= at);
                        let due = due.map(|(_, id)| id);
                        due.inspect(|id| assert!(armed.remove(id).is_some()));
                        prop_assert_eq!(deadlines.pop_due(at), due);
                    }
                }
                prop_assert_eq!(deadlines.first(), armed.values().min().copied());
            }
        }
    }
}

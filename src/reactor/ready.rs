//! The connections that have work to do now, in the order of their arrival.
//!
//! Edge-triggered readiness is reported once. A connection that is not drained when its budget is spent must be
//! remembered here, or it waits for an edge that never comes.

use std::collections::VecDeque;

use super::Id;

/// A queue that holds each [`Id`] at most once.
///
/// A turn serves the connections that are queued when it begins. One that is queued again during the turn comes last:
///
/// ```
/// use intake::reactor::{ReadyQueue, Slots};
///
/// let (mut slots, mut ready) = (Slots::default(), ReadyQueue::default());
/// let (flood, other) = (slots.insert("flood"), slots.insert("other"));
/// for id in [flood, other, flood] {
///     ready.push(id); // Two events for one connection take one place in the queue.
/// }
/// let mut served = Vec::new();
/// for _ in 0..ready.len() {
///     let id = ready.pop().unwrap();
///     served.push(slots.get(id).unwrap());
///     if id == flood {
///         ready.push(flood); // It has more to read, and no event will report that.
///     }
/// }
/// assert_eq!((served, ready.len()), (vec![&"flood", &"other"], 1));
/// ```
#[derive(Debug, Default)]
pub struct ReadyQueue {
    queue: VecDeque<Id>,
    /// The serial that is queued, by slot index; 0 for none.
    queued: Vec<u32>,
}

impl ReadyQueue {
    /// Appends `id`, unless it is queued already.
    pub fn push(&mut self, id: Id) {
        if self.contains(id) {
            return;
        }
        if self.queued.len() <= id.index() {
            self.queued.resize(id.index() + 1, 0);
        }
        self.queued[id.index()] = id.serial();
        self.queue.push_back(id);
    }

    /// Removes and returns the first one.
    pub fn pop(&mut self) -> Option<Id> {
        let id = self.queue.pop_front()?;
        if self.contains(id) {
            self.queued[id.index()] = 0;
        }
        Some(id)
    }

    /// Whether `id` is queued.
    pub fn contains(&self, id: Id) -> bool {
        self.queued.get(id.index()) == Some(&id.serial())
    }

    /// How many are queued.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slots;
    use super::*;

    #[test]
    fn each_is_queued_once_and_in_order() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert(()), slots.insert(()));
        let mut ready = ReadyQueue::default();
        for id in [b, a, b, a] {
            ready.push(id);
        }
        assert_eq!((ready.len(), ready.pop(), ready.pop(), ready.pop()), (2, Some(b), Some(a), None));
        ready.push(b);
        assert!(ready.contains(b) && !ready.contains(a));
    }

    #[test]
    fn a_stale_entry_does_not_keep_the_next_occupant_out() {
        let mut slots = Slots::default();
        let old = slots.insert(());
        let mut ready = ReadyQueue::default();
        ready.push(old);
        slots.remove(old);
        let young = slots.insert(());
        ready.push(young);
        assert_eq!((ready.pop(), ready.contains(young), ready.pop()), (Some(old), true, Some(young)));
    }
}

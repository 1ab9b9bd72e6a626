//! All connections, those that are ready, and those that are due: the invariant of an edge-triggered loop, in one place.
//!
//! **A guest that could make progress is in the ready queue.** Its edge has been reported and will not be reported again,
//! so a guest that is neither queued nor drained would wait without end. [`Table::wait`] checks that in debug builds.
//!
//! ```text
//!   admit, absorb, queue --> ready --pop_ready--> (served) --+-- wait      drained; due at its deadline
//!                              ^                             +-- queue     it has more to do
//!                              +-----------------------------+
//!                                                            +-- remove    over
//! ```
//!
//! Knows neither what a guest is nor how it is served.

use super::{Deadlines, Id, Moment, Readiness, ReadyQueue, Slots};

/// An object that the loop serves: one end of a connection.
pub trait Guest {
    /// Notes the readiness of an event. Returns whether the guest could now make progress.
    fn absorb(&mut self, readiness: Readiness) -> bool;

    /// Whether the guest could make progress at `now`, so that it must not wait for an event.
    fn is_ready(&self, now: Moment) -> bool;
}

/// All guests, the queue of those that are ready, and the deadlines of those that wait.
///
/// ```
/// use std::time::Duration;
/// use intake::reactor::{Guest, Moment, Readiness, Table};
///
/// struct Reader(Readiness);
///
/// impl Guest for Reader {
///     fn absorb(&mut self, readiness: Readiness) -> bool {
///         self.0.add(readiness);
///         self.0.readable
///     }
///
///     fn is_ready(&self, _: Moment) -> bool {
///         self.0.readable
///     }
/// }
///
/// let (mut table, now) = (Table::default(), Moment::default());
/// let id = table.admit(Reader(Readiness::default()));
/// assert_eq!(table.pop_ready(), Some(id), "its first bytes may have come already");
/// table.wait(id, now + Duration::from_secs(60), now);
/// table.absorb(id, Readiness { readable: true, writable: false });
/// assert_eq!(table.pop_due(now + Duration::from_secs(60)), None, "its bytes are read before it counts as late");
/// assert_eq!(table.pop_ready(), Some(id));
/// ```
#[derive(Debug)]
pub struct Table<T> {
    slots: Slots<T>,
    ready: ReadyQueue,
    deadlines: Deadlines,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Slots::default(), ready: ReadyQueue::default(), deadlines: Deadlines::default() }
    }
}

impl<T: Guest> Table<T> {
    /// The [`Id`] that the next [`Table::admit`] will use.
    pub fn next_id(&self) -> Id {
        self.slots.next_id()
    }

    /// The [`Id`] of the guest in the slot of this index.
    pub fn id_at(&self, index: usize) -> Option<Id> {
        self.slots.id_at(index)
    }

    /// Adds a guest, and queues it, because bytes that came before it was registered make no event.
    pub fn admit(&mut self, guest: T) -> Id {
        let id = self.slots.insert(guest);
        self.ready.push(id);
        id
    }

    /// Adds a guest that has nothing to do before its first event or `at`.
    pub fn admit_waiting(&mut self, guest: T, at: Moment) -> Id {
        let id = self.slots.insert(guest);
        self.deadlines.arm(id, at);
        id
    }

    /// Passes the readiness of an event to the guest `id`. Nothing is served or removed yet.
    pub fn absorb(&mut self, id: Id, readiness: Readiness) {
        if self.slots.get_mut(id).is_some_and(|guest| guest.absorb(readiness)) {
            self.ready.push(id);
        }
    }

    /// Appends `id` to the ready queue: it has more to do.
    pub fn queue(&mut self, id: Id) {
        self.ready.push(id);
    }

    /// Lets `id` wait for its next event, until `at` at most.
    pub fn wait(&mut self, id: Id, at: Moment, now: Moment) {
        debug_assert!(
            self.get(id).is_none_or(|guest| !guest.is_ready(now)),
            "it would wait for an edge that has been reported"
        );
        if at < Moment::NEVER {
            self.deadlines.arm(id, at);
        }
    }

    /// Removes and returns a guest, with its deadline.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.deadlines.disarm(id);
        self.slots.remove(id)
    }

    /// Takes the first guest out of the ready queue. Serve it, and then queue it, let it wait, or remove it.
    pub fn pop_ready(&mut self) -> Option<Id> {
        self.ready.pop()
    }

    /// The length of the ready queue. A turn serves this many; guests that are queued meanwhile are served in the next turn.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The first guest whose deadline was at `asked` or earlier. A guest in the ready queue is not late: it gets a new
    /// deadline after it is served.
    pub fn pop_due(&mut self, asked: Moment) -> Option<Id> {
        std::iter::from_fn(|| self.deadlines.pop_due(asked)).find(|id| !self.ready.contains(*id))
    }

    /// The first deadline.
    pub fn first_deadline(&self) -> Option<Moment> {
        self.deadlines.first()
    }

    /// The guest `id`, unless it was removed.
    pub fn get(&self, id: Id) -> Option<&T> {
        self.slots.get(id)
    }

    /// The guest `id`, unless it was removed.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slots.get_mut(id)
    }

    /// The [`Id`] of each guest.
    pub fn ids(&self) -> Vec<Id> {
        self.slots.ids().collect()
    }

    /// Each guest.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.ids().filter_map(|id| Some((id, self.slots.get(id)?)))
    }

    /// How many guests there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Reader(bool);

    impl Guest for Reader {
        fn absorb(&mut self, readiness: Readiness) -> bool {
            self.0 |= readiness.readable;
            self.0
        }

        fn is_ready(&self, _: Moment) -> bool {
            self.0
        }
    }

    const READABLE: Readiness = Readiness { readable: true, writable: false };

    #[test]
    #[should_panic(expected = "an edge that has been reported")]
    fn a_guest_that_could_make_progress_must_not_wait() {
        let mut table = Table::default();
        let id = table.admit(Reader(false));
        table.pop_ready();
        table.absorb(id, READABLE);
        table.wait(id, Moment::NEVER, Moment::default());
    }

    #[test]
    fn a_removed_guest_is_neither_due_nor_told_of_events() {
        let (mut table, now) = (Table::default(), Moment::default());
        let id = table.admit_waiting(Reader(false), now);
        assert!(table.remove(id).is_some());
        table.absorb(id, READABLE);
        assert_eq!((table.pop_due(now), table.pop_ready(), table.len()), (None, None, 0));
    }

    #[test]
    fn queued_guests_are_not_late_and_others_are() {
        let (mut table, now) = (Table::default(), Moment::default());
        let [queued, late] = [(); 2].map(|()| table.admit_waiting(Reader(false), now));
        table.absorb(queued, READABLE);
        assert_eq!((table.pop_due(now), table.pop_due(now), table.pop_ready()), (Some(late), None, Some(queued)));
        assert_eq!(table.first_deadline(), None);
        table.wait(late, now + Duration::from_secs(1), now);
        assert_eq!(table.first_deadline(), Some(now + Duration::from_secs(1)));
    }
}

//! A slab with keys that are never reused: each value gets a serial number of its own.
//!
//! The kernel may report an event for a connection that has been closed since, while its slot already holds a younger
//! one. The serial number tells the two apart, so a stale event finds nothing.

use slab::Slab;

/// Identifies one value for good: a later value in the same slot has another serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    key: u32,
    serial: u32,
}

impl Id {
    /// The id as one number, which is never below 2^32: smaller numbers are free for fixed tokens.
    pub fn to_bits(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.key)
    }

    /// Reads back [`Id::to_bits`]; `None` for the numbers below 2^32.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let serial = (bits >> 32) as u32;
        (serial != 0).then_some(Self { key: bits as u32, serial })
    }

    /// The slot's index: small and dense, for tables beside the slots.
    pub fn index(self) -> usize {
        self.key as usize
    }

    /// The serial number, never 0.
    pub(super) fn serial(self) -> u32 {
        self.serial
    }
}

/// Values under [`Id`]s; insert, look up and remove in constant time.
///
/// ```
/// use intake::reactor::{Id, Slots};
///
/// let mut connections = Slots::default();
/// let old = connections.insert("old");
/// let token = old.to_bits(); // The kernel returns it with each event.
/// connections.remove(old);
/// let young = connections.insert("young");
/// assert_ne!(young, old, "although it has the same slot");
/// let late = Id::from_bits(token).and_then(|id| connections.get(id));
/// assert_eq!(late, None, "an event that comes too late finds nothing");
/// ```
#[derive(Debug)]
pub struct Slots<T> {
    slab: Slab<(u32, T)>,
    next_serial: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slab: Slab::new(), next_serial: 1 }
    }
}

impl<T> Slots<T> {
    /// Reserves the [`Id`] that the next [`Slots::insert`] will use.
    pub fn next_id(&self) -> Id {
        Id { key: self.slab.vacant_key() as u32, serial: self.next_serial }
    }

    /// Puts `value` into a free slot.
    pub fn insert(&mut self, value: T) -> Id {
        let id = self.next_id();
        self.slab.insert((id.serial, value));
        self.next_serial = self.next_serial.checked_add(1).unwrap_or(1);
        id
    }

    /// The [`Id`] of the value in the slot of this index.
    pub fn id_at(&self, index: usize) -> Option<Id> {
        self.slab.get(index).map(|(serial, _)| Id { key: index as u32, serial: *serial })
    }

    /// The value of `id`, unless it has been removed.
    pub fn get(&self, id: Id) -> Option<&T> {
        self.slab.get(id.index()).filter(|(serial, _)| *serial == id.serial).map(|(_, value)| value)
    }

    /// The value of `id`, unless it has been removed.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slab.get_mut(id.index()).filter(|(serial, _)| *serial == id.serial).map(|(_, value)| value)
    }

    /// Removes the value of `id` and returns it, unless it has been removed before.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        Some(self.slab.remove(id.index()).1)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The [`Id`] of each value.
    pub fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.slab.iter().map(|(key, (serial, _))| Id { key: key as u32, serial: *serial })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_does_not_reach_the_next_occupant_of_its_slot() {
        let mut slots = Slots::default();
        let old = slots.insert("old");
        assert_eq!(slots.remove(old), Some("old"));
        let young = slots.insert("young");
        assert_eq!(young.index(), old.index());
        assert_eq!(slots.get_mut(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(young), Some(&"young"));
    }

    #[test]
    fn bits_read_back_and_leave_the_small_numbers_free() {
        let mut slots = Slots::default();
        for _ in 0..3 {
            let id = slots.insert(());
            assert!(id.to_bits() >= 1 << 32);
            assert_eq!(Id::from_bits(id.to_bits()), Some(id));
        }
        assert_eq!(Id::from_bits(u64::from(u32::MAX)), None);
    }

    #[test]
    fn serials_wrap_around_past_zero() {
        let mut slots = Slots { slab: Slab::new(), next_serial: u32::MAX };
        let (last, first) = (slots.insert(1), slots.insert(2));
        assert_eq!((last.serial, first.serial), (u32::MAX, 1));
    }
}

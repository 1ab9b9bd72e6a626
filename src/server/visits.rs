//! What the visits of connections were: of this turn, and of each connection since somebody began to watch.
//!
//! Nothing is noted, and no clock is read, while nobody watches. Knows neither connections nor the turn.

use std::collections::HashMap;
use std::time::Duration;

use crate::net;
use crate::reactor::{Id, Moment};

/// The visits of one turn, together.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnVisits {
    /// How many.
    pub count: usize,
    /// Bytes that were read and written.
    pub bytes: usize,
    /// Those that ended because their budget was spent.
    pub yields: usize,
    /// The longest one.
    pub longest: Option<(Id, Duration)>,
}

/// The visits of one connection since somebody began to watch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visited {
    /// Bytes that it has spent since the last [`Visits::forget_recent`].
    pub recent_bytes: u64,
    /// How often its budget was spent.
    pub yields: u64,
    /// How often it began to wait for the disk.
    pub disk_waits: u64,
    /// The time of all visits.
    pub time: Duration,
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its budget is spent.
    Yielded,
    /// It waits for the disk.
    WaitsForDisk,
    /// In another way.
    Otherwise,
}

/// Notes visits while somebody watches.
#[derive(Debug, Default)]
pub struct Visits {
    is_on: bool,
    turn: TurnVisits,
    of: HashMap<Id, Visited>,
}

impl Visits {
    /// Whether visits are noted from now on. What was noted is forgotten when that ends.
    pub fn watch(&mut self, is_on: bool) {
        if self.is_on && !is_on {
            self.of = HashMap::new();
        }
        self.is_on = is_on;
    }

    /// A visit begins. `None`: nobody watches.
    #[inline]
    pub fn begin(&self) -> Option<Moment> {
        self.is_on.then(net::now)
    }

    /// A visit that began at `began` is over.
    pub fn note(&mut self, id: Id, began: Moment, bytes: usize, ended: Ended) {
        let time = net::now().since(began);
        self.turn.count += 1;
        self.turn.bytes += bytes;
        self.turn.yields += usize::from(ended == Ended::Yielded);
        if self.turn.longest.is_none_or(|(_, longest)| longest < time) {
            self.turn.longest = Some((id, time));
        }
        let visited = self.of.entry(id).or_default();
        visited.recent_bytes += bytes as u64;
        visited.time += time;
        visited.yields += u64::from(ended == Ended::Yielded);
        visited.disk_waits += u64::from(ended == Ended::WaitsForDisk);
    }

    /// The connection has ended.
    pub fn forget(&mut self, id: Id) {
        if self.is_on {
            self.of.remove(&id);
        }
    }

    /// What was noted of a connection.
    pub fn of(&self, id: Id) -> Visited {
        self.of.get(&id).copied().unwrap_or_default()
    }

    /// The recent bytes of each connection begin anew.
    pub fn forget_recent(&mut self) {
        self.of.values_mut().for_each(|visited| visited.recent_bytes = 0);
    }

    /// The turn is over: its visits.
    pub fn end_turn(&mut self) -> TurnVisits {
        std::mem::take(&mut self.turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Slots;

    #[test]
    fn visits_are_noted_by_connection_and_forgotten_with_the_last_watcher() {
        let mut visits = Visits::default();
        assert_eq!(visits.begin(), None, "nobody watches, so no clock is read");
        visits.watch(true);
        let mut slots = Slots::default();
        let (one, other) = (slots.insert(()), slots.insert(()));
        let began = visits.begin().unwrap();
        visits.note(one, began, 7, Ended::Yielded);
        visits.note(one, began, 8, Ended::WaitsForDisk);
        visits.note(other, net::now(), 1, Ended::Otherwise);
        let turn = visits.end_turn();
        assert_eq!((turn.count, turn.bytes, turn.yields), (3, 16, 1));
        assert_eq!(turn.longest.map(|(id, _)| id), Some(one));
        let Visited { recent_bytes, yields, disk_waits, .. } = visits.of(one);
        assert_eq!((recent_bytes, yields, disk_waits), (15, 1, 1));
        visits.forget_recent();
        assert_eq!(visits.of(one).recent_bytes, 0);
        visits.forget(one);
        assert_eq!(visits.of(one).yields, 0);
        visits.watch(false);
        assert_eq!((visits.of(other).time, visits.end_turn().count), (Duration::ZERO, 0));
    }
}

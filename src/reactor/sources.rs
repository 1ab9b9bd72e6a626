//! What is counted of each source, in a table of fixed size.
//!
//! A table by address that grows lets strangers fill the memory. So this one never grows. Each source has a few
//! places, chosen by a hash that nobody can predict. It takes a free one, or one whose value counts for nothing any more.
//! If there is none, the caller decides: two sources share a value ([`Sources::share`]), or the one that was seen
//! least recently loses its value ([`Sources::keep`]).
//!
//! Knows neither what is counted nor the time.

use core::net::IpAddr;
use std::hash::{BuildHasher, RandomState};

/// The places that a source can have. With eight, a table that is a quarter full has none for one newcomer in a thousand.
const WAYS: usize = 8;

/// Where packets come from: an IPv4 address, however it is written, or the /64 of an IPv6 site, which one host can use all of.
///
/// ```
/// use intake::reactor::Source;
///
/// let of = |ip: &str| Source::of(ip.parse().unwrap());
/// assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.7"));
/// assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
/// assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
/// assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u64);

impl Source {
    /// The source that this address belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_bits().into()),
            // A global address begins with more than zeros, so that it cannot be taken for one of IPv4.
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}

/// A value for each source.
///
/// ```
/// use intake::reactor::{Source, Sources};
///
/// let mut seen: Sources<u32> = Sources::new(1024);
/// let source = Source::of("192.0.2.7".parse().unwrap());
/// *seen.keep(source, |count| *count == 0) += 1;
/// assert_eq!(seen.get(source), Some(&1));
/// ```
#[derive(Debug)]
pub struct Sources<T> {
    /// Keyed at random, so that an attacker cannot choose an address that has the places of a given source.
    hasher: RandomState,
    /// The places, in groups of [`WAYS`]. In each group the source that was seen last comes first.
    places: Box<[Place<T>]>,
}

#[derive(Clone, Debug, Default)]
struct Place<T> {
    source: Option<Source>,
    value: T,
}

impl<T: Clone + Default> Sources<T> {
    /// A table with `size` places, rounded up to whole groups.
    pub fn new(size: usize) -> Self {
        let size = size.next_multiple_of(WAYS).max(WAYS);
        Self { hasher: RandomState::new(), places: vec![Place::default(); size].into() }
    }

    /// The value of `source`, if it has one of its own.
    pub fn get(&self, source: Source) -> Option<&T> {
        let first = self.first_place(source);
        let places = &self.places[first..first + WAYS];
        places.iter().find(|place| place.source == Some(source)).map(|place| &place.value)
    }

    /// The value of `source`. If all its places are taken, it shares the value of the source that was seen least recently. So a
    /// crowd gets less, and never more. `is_spent`: this value counts for nothing any more.
    pub fn share(&mut self, source: Source, is_spent: impl Fn(&T) -> bool) -> &mut T {
        self.seat(source, is_spent, false)
    }

    /// The value of `source`. If all its places are taken, the source that was seen least recently loses its value. So nobody
    /// is charged for others. `is_spent`: this value counts for nothing any more.
    pub fn keep(&mut self, source: Source, is_spent: impl Fn(&T) -> bool) -> &mut T {
        self.seat(source, is_spent, true)
    }

    fn seat(&mut self, source: Source, is_spent: impl Fn(&T) -> bool, ousts: bool) -> &mut T {
        let first = self.first_place(source);
        let places = &mut self.places[first..first + WAYS];
        let own = places.iter().position(|place| place.source == Some(source));
        let free = || places.iter().position(|place| place.source.is_none() || is_spent(&place.value));
        let index = own.or_else(free);
        if own.is_none() && (index.is_some() || ousts) {
            places[index.unwrap_or(WAYS - 1)] = Place { source: Some(source), value: T::default() };
        }
        places[..=index.unwrap_or(WAYS - 1)].rotate_right(1);
        &mut places[0].value
    }

    fn first_place(&self, source: Source) -> usize {
        self.hasher.hash_one(source) as usize % (self.places.len() / WAYS) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(Ipv4Addr::from_bits(number).into())
    }

    /// A table with one group, whose sources were seen in the order of their numbers, which are also their values.
    fn full() -> Sources<u32> {
        let mut table = Sources::new(1);
        for number in 0..WAYS as u32 {
            *table.keep(source(number), |_| false) = number;
        }
        table
    }

    #[test]
    fn a_source_finds_its_value_again() {
        let mut table = full();
        for number in 0..WAYS as u32 {
            assert_eq!(table.get(source(number)), Some(&number));
            assert_eq!(*table.share(source(number), |_| true), number, "its own value is never taken for a free place");
        }
        assert_eq!(table.get(source(WAYS as u32)), None);
    }

    #[test]
    fn a_newcomer_takes_a_value_that_counts_for_nothing() {
        let mut table = full();
        assert_eq!(*table.share(source(99), |value| *value == 2), 0);
        assert_eq!((table.get(source(2)), table.get(source(99))), (None, Some(&0)));
        assert_eq!(*table.keep(source(98), |value| *value == 1), 0);
        assert_eq!((table.get(source(1)), table.get(source(3))), (None, Some(&3)));
    }

    #[test]
    fn in_a_crowd_values_are_shared_or_the_least_recent_is_lost() {
        let mut table = full();
        table.share(source(0), |_| false);
        assert_eq!(*table.share(source(99), |_| false), 1, "0 was just seen again");
        assert_eq!((table.get(source(99)), table.get(source(1))), (None, Some(&1)));
        assert_eq!(*table.keep(source(99), |_| false), 0);
        assert_eq!((table.get(source(99)), table.get(source(2)), table.get(source(1))), (Some(&0), None, Some(&1)));
    }

    #[test]
    fn a_half_full_table_has_a_place_for_nearly_all() {
        let mut table = Sources::<bool>::new(4096);
        for number in 0..2048 {
            *table.keep(source(number), |_| false) = true;
        }
        let kept = (0..2048).filter(|number| table.get(source(*number)).is_some()).count();
        assert!(kept > 1900, "{kept}");
    }
}

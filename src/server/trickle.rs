//! Content that comes in drops, and is read by the cupful.
//!
//! A sender of a hundred bytes now and then costs a turn and three system calls for each of them, where a fast one pays them
//! for a megabyte: thousands of such senders keep a processor busy with next to nothing. So the kernel is asked to tell of
//! theirs only when a few thousand bytes have come, or when no more will (the low-water mark, `SO_RCVLOWAT`, socket(7)).
//!
//! What is below the mark waits in the kernel, and no edge tells of it. Hence the mark is down again before less than that
//! may be the last that comes, and nobody is called late before what waits has been read. A silence counts from then, so it
//! may last up to twice as long as is allowed before it is noticed.
//!
//! Pure: reads go in, marks come out.

/// A read of less is a drop, in bytes.
const DROP_BYTES: usize = 1024;
/// After so many drops in a row it is taken for a trickle: a sender that has paused a few times is none.
const DROPS: u8 = 8;
/// The mark, in bytes: dozens of drops. The kernel holds more than these for them, but no more than the receive buffer.
const MARK_BYTES: usize = 4096;

/// How the content of one connection comes. Counts drops, up to [`DROPS`]; one more says that the mark is up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trickle(u8);

impl Trickle {
    const MARKED: Self = Self(DROPS + 1);

    /// So many bytes of content came at once.
    pub fn received(&mut self, bytes: usize) {
        if !self.is_marked() {
            self.0 = if bytes < DROP_BYTES { (self.0 + 1).min(DROPS) } else { 0 };
        }
    }

    /// More is waited for, of which so many bytes of content are sure to come. Returns the mark, in bytes, where it is to
    /// change.
    pub fn mark(&mut self, content_left: u64) -> Option<usize> {
        let is_enough = content_left >= MARK_BYTES as u64;
        if is_enough && self.0 == DROPS {
            *self = Self::MARKED;
            return Some(MARK_BYTES);
        }
        if !is_enough && self.is_marked() {
            *self = Self::default();
            return Some(1);
        }
        None
    }

    /// Whether something may have come that no edge has told of.
    pub fn is_marked(self) -> bool {
        self.0 > DROPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trickling() -> Trickle {
        let mut trickle = Trickle::default();
        (0..DROPS).for_each(|_| trickle.received(100));
        trickle
    }

    #[test]
    fn the_mark_goes_up_for_a_trickle_and_down_before_its_end() {
        let mut trickle = trickling();
        assert_eq!((trickle.mark(u64::MAX), trickle.is_marked()), (Some(4096), true));
        trickle.received(5000);
        assert_eq!(trickle.mark(4096), None, "it stays");
        assert_eq!((trickle.mark(4095), trickle.is_marked()), (Some(1), false));
        assert_eq!(trickle.mark(u64::MAX), None, "it has to trickle anew");
    }

    #[test]
    fn a_few_drops_and_what_is_nearly_all_there_are_no_trickle() {
        let mut trickle = Trickle::default();
        for _ in 0..20 {
            (1..DROPS).for_each(|_| trickle.received(100));
            assert_eq!(trickle.mark(u64::MAX), None);
            trickle.received(DROP_BYTES);
        }
        assert_eq!(trickling().mark(4095), None);
    }
}

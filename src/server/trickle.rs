//! Small reads: content that trickles in is read in fewer, larger pieces.
//!
//! A slow sender costs a turn and three system calls for every hundred bytes; a fast one costs them for every megabyte.
//! Thousands of slow senders would keep a processor busy with very little data. So the kernel is asked to report their
//! content only when a few thousand bytes have come, or when no more will (the low-water mark, `SO_RCVLOWAT`, socket(7)).
//!
//! Bytes below the mark wait in the kernel, and no edge reports them. So the mark is removed before the last bytes of the
//! content, which may be fewer. And no timeout acts before the waiting bytes have been read. A silence counts from that
//! read, so it may last up to twice as long as the timeout says.
//!
//! Pure: reads go in, marks come out.

/// A read of fewer bytes is a small read.
const SMALL_BYTES: usize = 1024;
/// The number of small reads in a row that sets the mark. A sender that has only paused a few times has fewer.
const SMALL_READS: u8 = 8;
/// The mark, in bytes: dozens of small reads. The kernel holds at most the receive buffer.
const MARK_BYTES: usize = 4096;

/// How the content of one connection arrives: counts small reads in a row, up to [`SMALL_READS`]; one more means that the mark is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trickle(u8);

impl Trickle {
    const MARKED: Self = Self(SMALL_READS + 1);

    /// Notes a read of `bytes` bytes of content.
    pub fn received(&mut self, bytes: usize) {
        if !self.is_marked() {
            self.0 = if bytes < SMALL_BYTES { (self.0 + 1).min(SMALL_READS) } else { 0 };
        }
    }

    /// Before a wait for more content, of which `content_left` bytes are still to come: the new mark, in bytes, if it is to change.
    pub fn mark(&mut self, content_left: u64) -> Option<usize> {
        let is_enough = content_left >= MARK_BYTES as u64;
        if is_enough && self.0 == SMALL_READS {
            *self = Self::MARKED;
            return Some(MARK_BYTES);
        }
        if !is_enough && self.is_marked() {
            *self = Self::default();
            return Some(1);
        }
        None
    }

    /// Whether bytes may have come that no edge has reported.
    pub fn is_marked(self) -> bool {
        self.0 > SMALL_READS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trickling() -> Trickle {
        let mut trickle = Trickle::default();
        (0..SMALL_READS).for_each(|_| trickle.received(100));
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
            (1..SMALL_READS).for_each(|_| trickle.received(100));
            assert_eq!(trickle.mark(u64::MAX), None);
            trickle.received(SMALL_BYTES);
        }
        assert_eq!(trickling().mark(4095), None);
    }
}

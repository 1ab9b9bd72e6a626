//! The datagrams of a turn until they are answered, and which of them can leave in one call. Knows no socket.
//!
//! That is a run: what came from one source without another between, of one size, of which the last may have less. It
//! lies in the buffer as udp(7) wants it for `UDP_SEGMENT`: one datagram straight behind the other.

use std::net::SocketAddr;
use std::ops::Range;

/// Larger than any datagram: the length field of UDP has 16 bits (RFC 768). None is ever cut short.
pub const DATAGRAM_MAX_BYTES: usize = 65_535;

/// What Ethernet carries whole. The kernel fragments no segments: where larger ones are fragmented, it refuses them.
const SEGMENT_MAX_BYTES: usize = 1472;

/// Kernels before 6.9 refuse more (`UDP_MAX_SEGMENTS`).
const RUN_MAX_SEGMENTS: usize = 64;

/// Until they are cut, the segments are one packet: of its 65,535 bytes an IPv6 header takes 40 and the UDP header 8.
const RUN_MAX_BYTES: usize = 65_487;

/// As many segments as are read in a turn, and any datagram behind them.
const BUFFER_BYTES: usize = 64 * SEGMENT_MAX_BYTES + DATAGRAM_MAX_BYTES;

/// Datagrams in the order in which they came.
#[derive(Debug)]
pub struct Batch {
    buffer: Box<[u8]>,
    runs: Vec<Extent>,
}

/// A run, and where it lies in the buffer.
#[derive(Debug)]
struct Extent {
    source: SocketAddr,
    segment: u16,
    count: usize,
    range: Range<usize>,
}

/// Datagrams that can leave in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where they came from.
    pub source: SocketAddr,
    /// The bytes of each but the last, which may have less.
    pub segment: u16,
    /// How many there are: at least one.
    pub count: usize,
    /// All of them.
    pub bytes: &'a [u8],
}

impl Batch {
    /// Without any.
    pub fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into(), runs: Vec::new() }
    }

    /// Where the next is to be received into. There is room for any, unless the batch [is full](Self::is_full).
    pub fn room(&mut self) -> &mut [u8] {
        let used = self.used();
        &mut self.buffer[used..]
    }

    /// Whether the room may be too short for the next.
    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.used() < DATAGRAM_MAX_BYTES
    }

    /// Adds the datagram from `source` that the first `size` bytes of the room are.
    pub fn push(&mut self, size: u16, source: SocketAddr) {
        let start = self.used();
        match self.runs.last_mut().filter(|run| run.takes(size, source)) {
            Some(run) => {
                run.count += 1;
                run.range.end += usize::from(size);
            }
            None => {
                let range = start..start + usize::from(size);
                self.runs.push(Extent { source, segment: size, count: 1, range });
            }
        }
    }

    /// All of them.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs.iter().map(|Extent { source, segment, count, range }| Run {
            source: *source,
            segment: *segment,
            count: *count,
            bytes: &self.buffer[range.clone()],
        })
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    fn used(&self) -> usize {
        self.runs.last().map_or(0, |run| run.range.end)
    }
}

impl Extent {
    fn takes(&self, size: u16, source: SocketAddr) -> bool {
        let (bytes, segment) = (self.range.len(), usize::from(self.segment));
        source == self.source
            && (1..=self.segment).contains(&size)
            && segment <= SEGMENT_MAX_BYTES
            && bytes == self.count * segment
            && self.count < RUN_MAX_SEGMENTS
            && bytes + usize::from(size) <= RUN_MAX_BYTES
    }
}

impl<'a> Run<'a> {
    /// Each of the datagrams as a run of its own. Of more than one, none is empty.
    pub fn singles(self) -> impl Iterator<Item = Run<'a>> {
        self.bytes.chunks(self.segment.into()).map(move |bytes| Run { count: 1, bytes, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 2000 + number))
    }

    /// A batch of these sizes by these sources, each datagram filled with its place in the batch.
    fn batch(datagrams: impl IntoIterator<Item = (u16, u16)>) -> Batch {
        let mut batch = Batch::new();
        for (place, (from, size)) in datagrams.into_iter().enumerate() {
            assert!(!batch.is_full());
            batch.room()[..size.into()].fill(place as u8);
            batch.push(size, source(from));
        }
        batch
    }

    /// Of each run: its source, the size of its first, and how many they are.
    fn shape(batch: &Batch) -> Vec<(u16, u16, usize)> {
        batch.runs().map(|run| (run.source.port() - 2000, run.segment, run.count)).collect()
    }

    #[test]
    fn equal_ones_of_one_source_are_one_run_that_a_shorter_one_ends() {
        let batch = batch([(0, 3), (0, 3), (0, 2), (0, 2)]);
        assert_eq!(shape(&batch), [(0, 3, 3), (0, 2, 1)]);
        assert_eq!(batch.runs().next().unwrap().bytes, [0, 0, 0, 1, 1, 1, 2, 2]);
        assert_eq!(batch.runs().last().unwrap().bytes, [3, 3]);
    }

    #[test]
    fn a_larger_one_begins_a_run() {
        assert_eq!(shape(&batch([(0, 3), (0, 4), (0, 4)])), [(0, 3, 1), (0, 4, 2)]);
    }

    #[test]
    fn another_source_begins_a_run() {
        assert_eq!(shape(&batch([(0, 3), (1, 3), (0, 3), (0, 3)])), [(0, 3, 1), (1, 3, 1), (0, 3, 2)]);
    }

    #[test]
    fn empty_ones_stand_alone() {
        assert_eq!(shape(&batch([(0, 0), (0, 0), (0, 1), (0, 0)])), [(0, 0, 1), (0, 0, 1), (0, 1, 1), (0, 0, 1)]);
    }

    #[test]
    fn what_ethernet_fragments_stands_alone() {
        assert_eq!(
            shape(&batch([(0, 1472), (0, 1472), (0, 1473), (0, 1473)])),
            [(0, 1472, 2), (0, 1473, 1), (0, 1473, 1)]
        );
    }

    #[test]
    fn a_run_ends_at_the_kernels_limits() {
        assert_eq!(shape(&batch([(0, 1); 65])), [(0, 1, 64), (0, 1, 1)]);
        // 44 of them are 64,768 bytes.
        assert_eq!(shape(&batch([(0, 1472); 64])), [(0, 1472, 44), (0, 1472, 20)]);
    }

    #[test]
    fn full_it_is_when_the_largest_would_not_fit() {
        assert!(!batch([(0, 1472); 64]).is_full());
        let mut batch = batch([(0, u16::MAX), (0, u16::MAX)]);
        assert!(batch.is_full());
        batch.clear();
        assert!(!batch.is_full() && batch.runs().next().is_none());
    }

    #[test]
    fn a_run_comes_apart_into_its_datagrams() {
        let batch = batch([(0, 3), (0, 3), (0, 2)]);
        let run = batch.runs().next().unwrap();
        let bytes: Vec<_> = run.singles().map(|single| (single.source, single.count, single.bytes)).collect();
        assert_eq!(bytes, [(source(0), 1, &[0; 3][..]), (source(0), 1, &[1; 3]), (source(0), 1, &[2; 2])]);
    }
}

//! Collects datagrams that can be answered in one call. Knows no socket.
//!
//! A run is a sequence of datagrams of one size on one path, of which the last may be shorter. In the buffer it is laid out
//! as `UDP_SEGMENT` needs it (udp(7)): one datagram right after the other.

use std::net::SocketAddr;
use std::ops::Range;

use super::local::Local;

/// Larger than any datagram: the length field of UDP has 16 bits (RFC 768). None is ever cut short.
pub const DATAGRAM_MAX_BYTES: usize = 65_535;

/// The largest datagram that Ethernet carries whole. The kernel does not fragment segments: it refuses larger ones.
const SEGMENT_MAX_BYTES: usize = 1472;

/// Kernels before 6.9 refuse more (`UDP_MAX_SEGMENTS`).
const RUN_MAX_SEGMENTS: usize = 64;

/// Until they are cut, the segments are one packet of 65,535 bytes, less 40 for an IPv6 header and 8 for the UDP header.
const RUN_MAX_BYTES: usize = 65_487;

/// Room for the longest run and any datagram after it. If less is left, the run is sent first.
const BUFFER_BYTES: usize = RUN_MAX_SEGMENTS * SEGMENT_MAX_BYTES + DATAGRAM_MAX_BYTES;

/// The two ends of a datagram's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its sender.
    pub peer: SocketAddr,
    /// Its destination among this machine's addresses, if the socket has several.
    pub local: Option<Local>,
}

/// The receive buffer, and the run of the last datagrams in it.
#[derive(Debug)]
pub struct Runs {
    buffer: Box<[u8]>,
    open: Option<Extent>,
}

/// The position of a run in the buffer.
#[derive(Debug)]
struct Extent {
    path: Path,
    segment: u16,
    count: usize,
    range: Range<usize>,
}

/// Datagrams that can leave in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// The path of the datagrams and of their answers.
    pub path: Path,
    /// The size of each datagram but the last, which may be shorter.
    pub segment: u16,
    /// How many datagrams there are, at least one.
    pub count: usize,
    /// The bytes of all datagrams.
    pub bytes: &'a [u8],
}

impl Runs {
    /// An empty buffer.
    pub fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into(), open: None }
    }

    /// The space for the next datagram. Any datagram fits, unless the buffer [is full](Self::is_full).
    pub fn room(&mut self) -> &mut [u8] {
        let used = self.used();
        &mut self.buffer[used..]
    }

    /// Whether the next datagram may not fit: then the run must be [ended](Self::end).
    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.used() < DATAGRAM_MAX_BYTES
    }

    /// Adds a datagram: the first `size` bytes of the room, received on `path`. If it begins another run, returns the
    /// previous one.
    pub fn push(&mut self, size: u16, path: Path) -> Option<Run<'_>> {
        if let Some(run) = self.open.as_mut().filter(|run| run.takes(size, path)) {
            run.count += 1;
            run.range.end += usize::from(size);
            return None;
        }
        let start = self.used();
        let begun = Extent { path, segment: size, count: 1, range: start..start + usize::from(size) };
        self.open.replace(begun).map(|ended| ended.within(&self.buffer))
    }

    /// Returns the run of the last datagrams. The room is then the whole buffer again.
    pub fn end(&mut self) -> Option<Run<'_>> {
        self.open.take().map(|ended| ended.within(&self.buffer))
    }

    fn used(&self) -> usize {
        self.open.as_ref().map_or(0, |run| run.range.end)
    }
}

impl Extent {
    fn within(self, buffer: &[u8]) -> Run<'_> {
        let Self { path, segment, count, range } = self;
        Run { path, segment, count, bytes: &buffer[range] }
    }

    fn takes(&self, size: u16, path: Path) -> bool {
        let (bytes, segment) = (self.range.len(), usize::from(self.segment));
        path == self.path
            && (1..=self.segment).contains(&size)
            && segment <= SEGMENT_MAX_BYTES
            && bytes == self.count * segment
            && self.count < RUN_MAX_SEGMENTS
            && bytes + usize::from(size) <= RUN_MAX_BYTES
    }
}

impl<'a> Run<'a> {
    /// Each datagram as a run of its own. Of several, none is empty.
    pub fn singles(self) -> impl Iterator<Item = Run<'a>> {
        self.bytes.chunks(self.segment.into()).map(move |bytes| Run { count: 1, bytes, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u16) -> Path {
        Path { peer: SocketAddr::from(([192, 0, 2, 1], 2000 + number)), local: None }
    }

    /// The runs of datagrams with these sources and sizes: the source, the bytes, and the number of datagrams of each.
    /// Every datagram is filled with its index.
    fn runs(datagrams: &[(u16, u16)]) -> Vec<(u16, Vec<u8>, usize)> {
        let told = |run: Run<'_>| (run.path.peer.port() - 2000, run.bytes.to_vec(), run.count);
        let mut runs = Runs::new();
        let mut ended = Vec::new();
        for (place, &(from, size)) in datagrams.iter().enumerate() {
            assert!(!runs.is_full());
            runs.room()[..size.into()].fill(place as u8);
            ended.extend(runs.push(size, source(from)).map(told));
        }
        ended.extend(runs.end().map(told));
        assert!(runs.end().is_none());
        ended
    }

    fn counts(datagrams: &[(u16, u16)]) -> Vec<usize> {
        runs(datagrams).into_iter().map(|(_, _, count)| count).collect()
    }

    #[test]
    fn equal_datagrams_of_one_source_are_a_run_and_a_shorter_one_ends_it() {
        let expected = [(0, vec![0, 0, 0, 1, 1, 1, 2, 2], 3), (0, vec![3, 3], 1)];
        assert_eq!(runs(&[(0, 3), (0, 3), (0, 2), (0, 2)]), expected);
    }

    #[test]
    fn a_larger_datagram_begins_a_run() {
        assert_eq!(runs(&[(0, 1), (0, 2), (0, 2)]), [(0, vec![0], 1), (0, vec![1, 1, 2, 2], 2)]);
    }

    #[test]
    fn another_source_begins_a_run() {
        let expected = [(0, vec![0], 1), (1, vec![1], 1), (0, vec![2, 3], 2)];
        assert_eq!(runs(&[(0, 1), (1, 1), (0, 1), (0, 1)]), expected);
    }

    #[test]
    fn another_destination_begins_a_run() {
        let to = |last| Path { local: Some(Local { ip: [192, 0, 2, last].into(), interface: 0 }), ..source(0) };
        let mut runs = Runs::new();
        assert_eq!(runs.push(1, to(1)), None);
        assert_eq!(runs.push(1, to(1)), None);
        let first = runs.push(1, to(2)).map(|run| (run.path, run.count));
        assert_eq!(first, Some((to(1), 2)));
        assert_eq!(runs.end().map(|run| (run.path, run.count)), Some((to(2), 1)));
    }

    #[test]
    fn empty_ones_stand_alone() {
        assert_eq!(counts(&[(0, 0), (0, 0), (0, 1), (0, 0)]), [1; 4]);
    }

    #[test]
    fn a_datagram_that_ethernet_fragments_is_sent_alone() {
        assert_eq!(counts(&[(0, 1472), (0, 1472), (0, 1473), (0, 1473)]), [2, 1, 1]);
    }

    #[test]
    fn a_run_ends_at_the_kernels_limits() {
        assert_eq!(counts(&[(0, 1); 65]), [64, 1]);
        // 44 of them are 64,768 bytes.
        assert_eq!(counts(&[(0, 1472); 64]), [44, 20]);
    }

    #[test]
    fn the_buffer_is_full_if_the_largest_datagram_does_not_fit() {
        let mut runs = Runs::new();
        runs.push(u16::MAX, source(0));
        assert!(!runs.is_full());
        runs.push(u16::MAX, source(0));
        assert!(runs.is_full());
        assert_eq!(runs.end().unwrap().bytes.len(), 65_535);
        assert!(!runs.is_full());
    }

    #[test]
    fn a_run_comes_apart_into_its_datagrams() {
        let run = Run { path: source(0), segment: 3, count: 3, bytes: &[1, 1, 1, 2, 2, 2, 3] };
        let singles: Vec<_> = run.singles().map(|single| (single.path, single.count, single.bytes)).collect();
        assert_eq!(singles, [(source(0), 1, &[1; 3][..]), (source(0), 1, &[2; 3]), (source(0), 1, &[3])]);
    }
}

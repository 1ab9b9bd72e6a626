//! The plan of a run over UDP: which datagrams are sent to an echo, and when.

use std::net::SocketAddr;
use std::time::Duration;

/// The number of a datagram, in bytes, at its start.
pub const NUMBER_BYTES: usize = 8;
/// The smallest datagram, in bytes: its number, and as many bytes again to check that it came back unchanged.
pub const SIZE_MIN_BYTES: usize = 2 * NUMBER_BYTES;
/// The largest datagram, in bytes: 65,535 less the headers of IPv4 (20) and UDP (8).
pub const SIZE_MAX_BYTES: usize = 65_507;

/// A run against an echo.
#[derive(Clone, Copy, Debug)]
pub struct EchoPlan {
    /// The address of the echo.
    pub target: SocketAddr,
    /// How many sockets, at least 1.
    pub sockets: usize,
    /// The size of each datagram in bytes, [`SIZE_MIN_BYTES`] to [`SIZE_MAX_BYTES`].
    pub size: usize,
    /// What triggers a datagram.
    pub pace: Pace,
    /// How many datagrams are sent at most.
    pub count: Option<u64>,
    /// For how long datagrams are sent, at most.
    pub duration: Option<Duration>,
    /// After how long an answer is late.
    pub timeout: Duration,
    /// The seed of the contents.
    pub seed: u64,
}

/// What triggers a datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The answer to an earlier one: this many are in flight on each socket.
    Window(u64),
    /// The clock: this many a second, on all sockets together. Late ones are made up for.
    Rate(f64),
    /// The clock: one after the other, with this interval. A process that was stopped does not make up for it with a burst.
    Interval(Duration),
}

//! Every limit of the server, with its unit and the reason for its default.
//!
//! What a peer can take without a limit, somebody takes: time, connections, bytes, memory. Hence there is one for each,
//! and all of them are here.
//!
//! Values only: how they are typed is the command line's, what they do is the connection's and the turn's.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::proto::Rules;

/// Descriptors for all but sockets and uploads: the standard streams, epoll, its waker and its timer, signals, the one that
/// accepting keeps, the directory and what the server has in it, the pipe, the trace; and a reserve for what is open for a
/// moment.
const RESERVED_DESCRIPTORS: u64 = 23;
/// A connection's socket and the file that it is sending.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 2;
/// Of all descriptors, one in so many may be held by files that wait for the disk.
const BACKLOG_SHARE: u64 = 16;
/// Files that wait for the disk at most: several batches, so that it never runs dry.
const BACKLOG_MAX: u64 = 256;

/// The descriptors that a server takes which holds so many connections and listens on so many sockets, TCP and UDP together.
pub fn descriptors_for(connections: u64, sockets: u64, sync: Durability) -> u64 {
    let held = RESERVED_DESCRIPTORS + sockets + DESCRIPTORS_PER_CONNECTION.saturating_mul(connections);
    match sync {
        // The share is one of the sum.
        Durability::Full => held.saturating_add((held / (BACKLOG_SHARE - 1) + 1).min(BACKLOG_MAX)),
        Durability::None => held,
    }
}

/// How many files may wait for the disk before no further one is begun, under a `limit` on descriptors.
///
/// A connection holds one file at a time, besides those that it has handed to the disk. A file is begun only while fewer than
/// this many wait for the disk, and one that is handed over is no longer the connection's: so there are never more files open
/// than connections and these together.
pub fn sync_backlog(limit: u64) -> u64 {
    (limit / BACKLOG_SHARE).clamp(1, BACKLOG_MAX)
}

/// What one server is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where TCP listens, each address once. Loopback by default: a receiver takes files from anyone who can reach it.
    pub listen: Vec<SocketAddr>,
    /// Where the UDP echo listens. Port 0 takes the number of the first TCP listener.
    pub udp: Udp,
    /// The directory that files are published in; created where it is missing.
    pub directory: PathBuf,
    /// What a receipt promises.
    pub sync: Durability,
    /// What uploads of a known size must leave free of the file system, in bytes; `None` is 256 MiB or a twentieth of it,
    /// whichever is less: room for logs and for an operator's way out.
    pub min_free: Option<u64>,
    /// How long an upload that broke off is kept to be gone on with. A day outlives a night and a weekend's first morning.
    pub partial_ttl: Duration,
    /// What is taken and what is refused.
    pub rules: Rules,
    /// What each connection may take of the server.
    pub limits: Limits,
    /// Connections held at once; `None` takes what the descriptor limit allows.
    pub max_connections: Option<usize>,
    /// How long a shutdown waits for running uploads. 30 s is what service managers grant before they kill.
    pub shutdown_timeout: Duration,
    /// Other servers of the same user may listen on the same addresses, each with connections of its own.
    pub reuse_port: bool,
    /// Datagrams a second that the echo answers to one peer; `None` is no limit. 10,000 serve any probe, and keep a
    /// spoofed sender from turning the echo into a flood.
    pub udp_rate: Option<u32>,
}

/// Whether and where the UDP echo listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Udp {
    /// The address and port of every TCP listener.
    FollowTcp,
    /// Addresses of its own, each once.
    At(Vec<SocketAddr>),
    /// No echo.
    Off,
}

/// What a receipt promises. The default is the promise that a sender may delete its copy on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The file survives a power cut.
    #[default]
    Full,
    /// The file survives the end of the server; the system writes it to the disk in its own time.
    None,
}

/// What each connection may take of the server. A limit of `None` is switched off.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the end of the name, in all: a byte now and then does not extend it. Names are sent by programs at
    /// once and by people within seconds.
    pub header_timeout: Option<Duration>,
    /// The longest silence while we wait for the peer. 60 s outlives a lost packet's retransmissions and most roaming.
    pub idle_timeout: Option<Duration>,
    /// The least mean rate over each [`Limits::RATE_WINDOW`], in bytes a second. 500 is below any modem; only a peer that
    /// means to hold a slot is slower.
    pub min_rate: Option<u64>,
    /// How long a peer that was told its last word may go on sending before we close. 30 s is nginx's lingering_time.
    pub linger_timeout: Duration,
    /// Line dialect: the silence after the name at which a waiting client is told to go on. A client that streams on is
    /// never silent for 100 ms at the start; a person does not notice it. `None`: never told.
    pub ok_grace: Option<Duration>,
    /// How long after the last byte of a name without LF more may come that belongs to it. 0 is the tutorial's protocol:
    /// what one look finds is the name.
    pub name_quiet: Duration,
}

impl Limits {
    /// The span over which the minimum rate is a mean. 60 s bridges a stall that TCP itself recovers from.
    pub const RATE_WINDOW: Duration = Duration::from_secs(60);
    /// What is read and thrown away after the last word, in bytes: more than any socket buffer holds.
    pub const LINGER_MAX_BYTES: u64 = 64 << 20;
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |limit: Option<u64>| limit.map_or("off".to_owned(), |bytes| format!("{bytes} bytes"));
        let span = |limit: Option<Duration>| limit.map_or("off".to_owned(), |span| format!("{span:?}"));
        write!(f, "header {}, idle {}, ", span(self.header_timeout), span(self.idle_timeout))?;
        write!(f, "rate {} a second, ", bytes(self.min_rate))?;
        write!(f, "linger {:?}, ok after {}, ", self.linger_timeout, span(self.ok_grace))?;
        write!(f, "name quiet {:?}", self.name_quiet)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(60)),
            min_rate: Some(500),
            linger_timeout: Duration::from_secs(30),
            ok_grace: Some(Duration::from_millis(100)),
            name_quiet: Duration::ZERO,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9000))],
            udp: Udp::FollowTcp,
            directory: PathBuf::from("./inbox"),
            sync: Durability::default(),
            min_free: None,
            partial_ttl: Duration::from_secs(24 * 3600),
            // 10 GiB fits the disk images of small machines and stops a runaway stream.
            rules: Rules { max_file_size: Some(10 << 30), ..Rules::default() },
            limits: Limits::default(),
            max_connections: None,
            shutdown_timeout: Duration::from_secs(30),
            reuse_port: false,
            udp_rate: Some(10_000),
        }
    }
}

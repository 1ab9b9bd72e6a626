//! Every limit of the server, with its unit and the reason for its default.
//!
//! Time, connections, bytes, memory: a peer will use up whatever has no limit. So each has one, and those that an operator
//! can set are all here.
//!
//! Values only. The command line says how they are typed; the connection and the turn act on them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::page::page;
use super::story::EventsTo;
use crate::access::Policy;
use crate::net::tls::Asks;
use crate::proto::{Rules, Web};
use crate::sandbox::{Sandbox, User};

/// Descriptors for everything but sockets and uploads: the standard streams, epoll, its waker and its timer, signals, the
/// spare one for accepting, the directory and the server's own files in it, the pipe, the trace; and a few more for files
/// that are open only for a moment.
const RESERVED_DESCRIPTORS: u64 = 23;
/// Descriptors for the queue: its directory, and the counter for a moment.
const QUEUE_DESCRIPTORS: u64 = 2;
/// Files that wait for the disk may hold one descriptor in this many.
const BACKLOG_SHARE: u64 = 16;
/// The most files that wait for the disk: several batches, so that the disk always has work.
const BACKLOG_MAX: u64 = 256;

/// The descriptors of one file: with a queue its slip is open, too, while it is published.
fn descriptors_per_file(queue: bool) -> u64 {
    1 + u64::from(queue)
}

/// The descriptors of a connection: its socket and its file.
pub fn descriptors_per_connection(queue: bool) -> u64 {
    1 + descriptors_per_file(queue)
}

/// The descriptors that a server needs for this many connections and listening sockets (TCP and UDP together).
pub fn descriptors_for(connections: u64, sockets: u64, sync: Durability, queue: bool) -> u64 {
    let reserved = RESERVED_DESCRIPTORS + if queue { QUEUE_DESCRIPTORS } else { 0 };
    let held = reserved + sockets + descriptors_per_connection(queue).saturating_mul(connections);
    let per_file = descriptors_per_file(queue);
    match sync {
        // The share is a share of the sum.
        Durability::Full => held.saturating_add(per_file * (held / (BACKLOG_SHARE - per_file) + 1).min(BACKLOG_MAX)),
        Durability::None => held,
    }
}

/// The descriptors of the files that wait for the disk.
pub fn backlog_descriptors(limit: u64, queue: bool) -> u64 {
    descriptors_per_file(queue) * sync_backlog(limit)
}

/// How many files may wait for the disk before no further file is begun, under a `limit` on descriptors.
///
/// A connection has one file open at a time, besides those that it has handed to the disk. A file is begun only while fewer
/// than this many wait for the disk. So there are never more open files than connections plus this number.
pub fn sync_backlog(limit: u64) -> u64 {
    (limit / BACKLOG_SHARE).clamp(1, BACKLOG_MAX)
}

/// The configuration of one server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where TCP listens, each address once. Loopback by default: a receiver takes files from anyone who can reach it.
    pub listen: Vec<SocketAddr>,
    /// Where the UDP echo listens. Port 0 takes the number of the first TCP listener.
    pub udp: Udp,
    /// Where the operator's programs ask for metrics and health, if they may. Anyone who can connect there may ask.
    pub metrics: Option<SocketAddr>,
    /// Where the outcomes of files go, for the operator's programs.
    pub events: Option<EventsTo>,
    /// The path of a Unix socket for the operator's own programs, if they may look at the server. Only its user and root may
    /// connect.
    pub admin: Option<PathBuf>,
    /// The directory that files are published in; created where it is missing.
    pub directory: PathBuf,
    /// What a receipt promises.
    pub sync: Durability,
    /// Disk space that uploads must leave free, in bytes; `None` is 256 MiB or a twentieth of the file system, whichever is
    /// less: room for logs, and for an operator to clean up.
    pub min_free: Option<u64>,
    /// Put each published file into a queue, for a program that comes next (`intake consume`).
    pub queue: bool,
    /// How long an interrupted upload is kept so that it can be resumed. A day outlives a night.
    pub partial_ttl: Duration,
    /// TLS, if the server speaks it.
    pub tls: Option<Tls>,
    /// Which requests are accepted.
    pub rules: Rules,
    /// Who may write, and how much.
    pub policy: Policy,
    /// A file may end with the stream also if it comes through a proxy, which may end it cleanly where its client did not.
    pub proxy_unsized: bool,
    /// The file with the tokens of which a client has to show one. `None`: no token is needed.
    pub token_file: Option<PathBuf>,
    /// How much of the server each connection may use.
    pub limits: Limits,
    /// The most connections at once; `None` is what the descriptor limit allows.
    pub max_connections: Option<usize>,
    /// How long a shutdown waits for running uploads. Service managers commonly kill after 30 s or more.
    pub shutdown_timeout: Duration,
    /// Other servers of the same user may listen on the same addresses. The kernel gives each its own connections.
    pub reuse_port: bool,
    /// The user that the server becomes if it is started as root.
    pub user: Option<User>,
    /// What the whole process gives up once its sockets and its directory are open. Off by default, because the process may
    /// have other business; the command line has it on.
    pub sandbox: Sandbox,
    /// Datagrams a second that the echo answers to one peer; `None` is no limit. 10,000 suffice for any probe, and keep
    /// forged datagrams from turning the echo into a flood.
    pub udp_rate: Option<u32>,
}

impl Config {
    /// Whether `new` can replace this configuration while the server runs.
    ///
    /// # Errors
    /// The options that differ and cannot.
    pub fn check_change(&self, new: &Self) -> Result<(), String> {
        // Each field is either compared or can change: a new one has to be decided about.
        let Self {
            listen,
            udp,
            metrics,
            events,
            admin,
            directory,
            sync,
            queue,
            min_free,
            partial_ttl: _,
            tls,
            rules: _,
            policy,
            proxy_unsized: _,
            token_file,
            limits: _,
            max_connections,
            shutdown_timeout: _,
            reuse_port,
            user,
            sandbox,
            udp_rate,
        } = self;
        // What counts the connections of a source is kept from the first one on.
        let counts = |policy: &Policy| policy.per_source.is_some();
        let same = [
            ("--listen", *listen == new.listen),
            ("--udp", *udp == new.udp),
            ("--udp-rate", *udp_rate == new.udp_rate),
            ("--metrics", *metrics == new.metrics),
            ("--events", *events == new.events),
            ("--admin", *admin == new.admin),
            ("--dir", *directory == new.directory),
            ("--sync", *sync == new.sync),
            ("--queue", *queue == new.queue),
            ("--min-free", *min_free == new.min_free),
            ("--max-connections", *max_connections == new.max_connections),
            ("--reuse-port", *reuse_port == new.reuse_port),
            ("--user", *user == new.user),
            ("--sandbox", sandbox.mode == new.sandbox.mode),
            ("--token-file", *token_file == new.token_file),
            ("the files and handshakes of TLS", tls.as_ref().map(Tls::fixed) == new.tls.as_ref().map(Tls::fixed)),
            ("whether there is --per-source", counts(policy) == counts(&new.policy)),
        ];
        let changed: Vec<_> = same.iter().filter(|(_, same)| !same).map(|(option, _)| *option).collect();
        match changed[..] {
            [] => Ok(()),
            _ => Err(format!("{} cannot change while the server runs: restart it", changed.join(", "))),
        }
    }
}

/// How the server speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The file of its certificate, in PEM, followed by those that lead to a known issuer.
    pub certificate: PathBuf,
    /// The file of the key, in PEM.
    pub key: PathBuf,
    /// The file of the issuers whose clients are let in, in PEM, and whether a client needs a certificate of theirs.
    pub clients: Option<(PathBuf, Asks)>,
    /// Refuse connections in clear. Otherwise the first byte decides.
    pub is_required: bool,
    /// The most handshakes that wait for their clients. Each holds some tens of kilobytes, and lasts a round trip: 256 are
    /// thousands a second.
    pub max_handshakes: usize,
}

impl Tls {
    /// What cannot change while the server runs.
    fn fixed(&self) -> (Vec<PathBuf>, usize) {
        (self.files(), self.max_handshakes)
    }

    /// Its files, which SIGHUP reads again.
    pub fn files(&self) -> Vec<PathBuf> {
        let clients = self.clients.as_ref().map(|(file, _)| file);
        [&self.certificate, &self.key].into_iter().chain(clients).cloned().collect()
    }
}

/// Whether and where the UDP echo listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Udp {
    /// On the address and port of every TCP listener.
    FollowTcp,
    /// On addresses of its own, each once.
    At(Vec<SocketAddr>),
    /// No echo.
    Off,
}

/// What a receipt promises. With the default a sender may delete its copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The file survives a power cut.
    #[default]
    Full,
    /// The file survives the end of the server. The system writes it to the disk in its own time.
    None,
}

/// How much of the server each connection may use. A limit of `None` is switched off.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the end of the name, in all: further bytes do not extend it. Programs send the name at once, people
    /// within seconds.
    pub header_timeout: Option<Duration>,
    /// The longest silence while the server waits for the peer. 60 s outlives the retransmissions of a lost packet, and most
    /// changes of a mobile network.
    pub idle_timeout: Option<Duration>,
    /// The least mean rate over each [`Limits::RATE_WINDOW`], in bytes a second. 500 is below any modem; only a peer that
    /// wants to occupy a connection is slower.
    pub min_rate: Option<u64>,
    /// How long a peer may keep sending after the last reply, before the server closes. 30 s is nginx's lingering_time.
    pub linger_timeout: Duration,
    /// Line dialect: the silence after the name before the server sends `ok`. A client that does not wait for it is never
    /// silent for 100 ms at the start; a person does not notice 100 ms. `None`: never sent.
    pub ok_grace: Option<Duration>,
    /// How long the server waits for more of a name that has no line feed. 0 is the tutorial's protocol: the name is what
    /// the first read finds.
    pub name_quiet: Duration,
}

impl Limits {
    /// The span over which the minimum rate is a mean. 60 s is longer than a stall that TCP itself recovers from.
    pub const RATE_WINDOW: Duration = Duration::from_secs(60);
    /// The most bytes that are read and discarded after the last reply: more than any socket buffer holds.
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
            metrics: None,
            events: None,
            admin: None,
            directory: PathBuf::from("./inbox"),
            sync: Durability::default(),
            min_free: None,
            queue: false,
            partial_ttl: Duration::from_secs(24 * 3600),
            tls: None,
            // Enough for the disk images of small machines, and an end for a stream that has none.
            rules: Rules {
                max_file_size: Some(10 << 30),
                web: Web { page: Some(page()), ..Web::default() },
                ..Rules::default()
            },
            policy: Policy::default(),
            proxy_unsized: false,
            token_file: None,
            limits: Limits::default(),
            max_connections: None,
            shutdown_timeout: Duration::from_secs(30),
            reuse_port: false,
            user: None,
            sandbox: Sandbox::default(),
            udp_rate: Some(10_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_can_change_and_places_cannot() {
        let now = Config::default();
        let limits = Limits { idle_timeout: None, ..Limits::default() };
        let rules = Rules { max_file_size: None, require_size: true, ..now.rules.clone() };
        let new = Config { limits, rules, shutdown_timeout: Duration::ZERO, ..now.clone() };
        assert_eq!(now.check_change(&new), Ok(()));
        let new = Config { directory: "/elsewhere".into(), sync: Durability::None, ..new };
        let words = now.check_change(&new).unwrap_err();
        assert!(words.starts_with("--dir, --sync cannot change"), "{words}");
    }
}

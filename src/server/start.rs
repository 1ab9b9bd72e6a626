//! What stands before the first turn: limits checked, sockets bound.
//!
//! What can be known to go wrong is told before anybody is connected, by words to whoever starts the server: a port
//! that is taken, an address that is not here, more connections than there will be descriptors for.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::config::{Config, Durability, Udp};
use crate::net::{Echo, Listener, Sharing};

/// Descriptors for all but connections: the standard streams, epoll, its waker and its timer, signals, the echo, the one that
/// accepting keeps, the directory and what the server has in it, the pipe, the trace; and a reserve for what is open for a
/// moment or was inherited.
const RESERVED_DESCRIPTORS: u64 = 24;
/// Of all descriptors, one in so many may be held by uploads that wait for the disk.
const BACKLOG_SHARE: u64 = 16;
/// Uploads that wait for the disk at most: several batches, so that it never runs dry.
const BACKLOG_MAX: u64 = 256;
/// A connection's socket and its partial file.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
/// How often a free number is sought for TCP and UDP together.
const PAIR_ATTEMPTS: usize = 16;

/// Why the server cannot start.
#[derive(Debug)]
pub enum StartError {
    /// More connections are asked for than there are descriptors.
    Descriptors {
        /// Connections asked for.
        asked: usize,
        /// Descriptors that this takes.
        needed: u64,
        /// Descriptors that the process may have.
        limit: u64,
    },
    /// No address is told to listen on.
    NoAddress,
    /// An address cannot be listened on.
    Listen {
        /// `tcp` or `udp`.
        transport: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The directory cannot be used.
    Directory(io::Error),
    /// The event loop cannot be set up.
    EventLoop(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors { asked, needed, limit } => write!(
                f,
                "{asked} connections need {needed} descriptors ({DESCRIPTORS_PER_CONNECTION} each and {} besides), but \
                 the limit is {limit}: ask for at most {}, or raise it (ulimit -n, LimitNOFILE=)",
                needed - DESCRIPTORS_PER_CONNECTION * *asked as u64,
                connections_for(*limit, needed - DESCRIPTORS_PER_CONNECTION * *asked as u64),
            ),
            Self::NoAddress => f.write_str("there is no address to listen on: name at least one"),
            Self::Listen { transport, addr, error } => write!(f, "cannot listen on {transport} {addr}: {error}"),
            Self::Directory(error) => error.fmt(f),
            Self::EventLoop(error) => write!(f, "cannot set up the event loop: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// How many connections may be held, given `descriptors` for the whole process.
///
/// # Errors
/// [`StartError::Descriptors`] when the configuration asks for more.
pub fn max_connections(config: &Config, descriptors: u64) -> Result<usize, StartError> {
    let backlog = if config.sync == Durability::Full { sync_backlog(descriptors) } else { 0 };
    let fixed = RESERVED_DESCRIPTORS + config.listen.len() as u64 + backlog;
    let allowed = connections_for(descriptors, fixed);
    let asked = config.max_connections.unwrap_or(allowed.max(1));
    if asked > allowed {
        let needed = fixed + DESCRIPTORS_PER_CONNECTION.saturating_mul(asked as u64);
        return Err(StartError::Descriptors { asked, needed, limit: descriptors });
    }
    Ok(asked)
}

/// How many uploads may wait for the disk at once.
pub fn sync_backlog(descriptors: u64) -> u64 {
    (descriptors / BACKLOG_SHARE).clamp(1, BACKLOG_MAX)
}

fn connections_for(descriptors: u64, fixed: u64) -> usize {
    (descriptors.saturating_sub(fixed) / DESCRIPTORS_PER_CONNECTION) as usize
}

/// Binds all that the configuration names.
///
/// # Errors
/// [`StartError::Listen`] for the first address that cannot be had, [`StartError::NoAddress`] where there is none.
pub fn bind(config: &Config) -> Result<(Vec<Listener>, Option<Echo>), StartError> {
    if config.listen.is_empty() {
        return Err(StartError::NoAddress);
    }
    let mut attempts = 1..=PAIR_ATTEMPTS;
    loop {
        let bound = bind_once(config);
        match &bound {
            // Another program may hold the number that TCP was given, but over UDP: take another number.
            Err(StartError::Listen { transport: "udp", error, .. })
                if error.kind() == io::ErrorKind::AddrInUse && attempts.next().is_some() && has_free_choice(config) => {
            }
            _ => return bound,
        }
    }
}

fn bind_once(config: &Config) -> Result<(Vec<Listener>, Option<Echo>), StartError> {
    let failed = |transport, addr| move |error| StartError::Listen { transport, addr, error };
    let mut listeners = Vec::with_capacity(config.listen.len());
    for &addr in &config.listen {
        listeners
            .push(Listener::bind(addr, sharing(addr, &config.listen, config.reuse_port)).map_err(failed("tcp", addr))?);
    }
    let addrs = udp_addrs(config, &listeners).map_err(failed("tcp", config.listen[0]))?;
    if addrs.is_empty() {
        return Ok((listeners, None));
    }
    let mut echo = Echo::new(config.udp_rate);
    for &addr in &addrs {
        echo.bind(addr, sharing(addr, &addrs, config.reuse_port)).map_err(failed("udp", addr))?;
    }
    Ok((listeners, Some(echo)))
}

/// Where the echo listens. An address of its own with port 0 takes the number of the first listener.
fn udp_addrs(config: &Config, listeners: &[Listener]) -> io::Result<Vec<SocketAddr>> {
    match &config.udp {
        Udp::FollowTcp => listeners.iter().map(Listener::local_addr).collect(),
        Udp::At(addrs) => {
            let port = listeners[0].local_addr()?.port();
            let numbered = |&addr: &SocketAddr| match addr.port() {
                0 => with_port(addr, port),
                _ => addr,
            };
            Ok(addrs.iter().map(numbered).collect())
        }
        Udp::Off => Ok(Vec::new()),
    }
}

fn with_port(mut addr: SocketAddr, port: u16) -> SocketAddr {
    addr.set_port(port);
    addr
}

fn has_free_choice(config: &Config) -> bool {
    config.listen.iter().any(|addr| addr.port() == 0)
}

fn sharing(addr: SocketAddr, all: &[SocketAddr], reuse_port: bool) -> Sharing {
    Sharing { only_v6: only_v6(addr, all), reuse_port }
}

/// `[::]` takes IPv4 as well, unless that is asked for by an address of its own.
fn only_v6(addr: SocketAddr, all: &[SocketAddr]) -> bool {
    addr.is_ipv6() && all.iter().any(|other| other.is_ipv4() && other.port() == addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_what_the_descriptors_allow() {
        let config = |sync, max_connections| Config { sync, max_connections, ..Config::default() };
        assert_eq!(max_connections(&config(Durability::None, None), 1024).unwrap(), (1024 - 25) / 2);
        assert_eq!(max_connections(&config(Durability::Full, None), 1024).unwrap(), (1024 - 25 - 64) / 2);
        assert_eq!(max_connections(&config(Durability::None, Some(499)), 1024).unwrap(), 499);
        // As the README has it.
        assert_eq!(max_connections(&config(Durability::Full, Some(10_000)), 20_300).unwrap(), 10_000);
    }

    #[test]
    fn more_than_the_descriptors_allow_is_refused_with_the_arithmetic() {
        let config = Config { max_connections: Some(500), sync: Durability::None, ..Config::default() };
        let error = max_connections(&config, 1024).unwrap_err().to_string();
        for figure in ["500 connections", "1025 descriptors", "limit is 1024", "at most 499"] {
            assert!(error.contains(figure), "{error}");
        }
    }

    #[test]
    fn without_an_address_there_is_no_server() {
        let error = bind(&Config { listen: Vec::new(), ..Config::default() }).unwrap_err().to_string();
        assert!(error.contains("no address"), "{error}");
    }

    #[test]
    fn v6_shares_its_port_with_v4_only_where_both_are_asked_for() {
        let v4 = SocketAddr::from(([0, 0, 0, 0], 9000));
        let v6: SocketAddr = "[::]:9000".parse().unwrap();
        assert!(only_v6(v6, &[v4, v6]));
        assert!(!only_v6(v6, &[v6]) && !only_v6(v4, &[v4, v6]));
    }
}

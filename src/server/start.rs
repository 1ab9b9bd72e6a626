//! What happens before the first turn: limits are checked, the directory is opened, sockets are bound, rights are given up.
//!
//! What can be known to fail is reported before any client connects: a port that is taken, an address that this machine
//! does not have, more connections than there are descriptors for.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::config::{Config, Durability, Udp, backlog_descriptors, descriptors_for, descriptors_per_connection};
use super::side;
use crate::net::{Echo, Listener, LocalListener, Sharing};
use crate::sandbox::{User, UserError};
use crate::store::Directory;

/// How many times to look for a port number that is free for both TCP and UDP.
const PAIR_ATTEMPTS: usize = 16;

/// Why the server cannot start.
#[derive(Debug)]
pub enum StartError {
    /// There are not enough descriptors for the connections that are asked for.
    Descriptors {
        /// Connections asked for.
        asked: usize,
        /// Descriptors that they need.
        needed: u64,
        /// Descriptors that the process may have.
        limit: u64,
        /// How many of these the process was started with, besides the standard streams.
        inherited: u64,
        /// Connections that there are descriptors for.
        possible: usize,
        /// Descriptors of one connection.
        each: u64,
    },
    /// There is no address to listen on.
    NoAddress,
    /// An address cannot be listened on.
    Listen {
        /// `tcp`, `udp` or `metrics`.
        transport: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The admin socket cannot be made there.
    Admin(PathBuf, io::Error),
    /// The directory cannot be used.
    Directory(io::Error),
    /// A file of the operator cannot be used: the tokens, the certificate or its key. With what is wrong with it.
    File(String),
    /// The event loop cannot be set up.
    EventLoop(io::Error),
    /// The process cannot become another user.
    User(UserError),
    /// A part of the sandbox does not hold, and all are required. In words.
    Sandbox(String),
    /// A thread that waits for the disk cannot be started.
    SyncThread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors { asked, needed, limit, inherited, possible, each } => {
                let besides = needed.saturating_sub(each * *asked as u64);
                write!(
                    f,
                    "{asked} connections need {needed} descriptors ({each} each and {besides} \
                     besides"
                )?;
                if *inherited > 0 {
                    write!(f, ", of which {inherited} were open at the start")?;
                }
                write!(
                    f,
                    "), but the limit is {limit}: ask for at most {possible}, or raise it (ulimit -n, LimitNOFILE=)"
                )
            }
            Self::NoAddress => f.write_str("there is no address to listen on: name at least one"),
            Self::Listen { transport, addr, error } => write!(f, "cannot listen on {transport} {addr}: {error}"),
            Self::Admin(path, error) => {
                write!(f, "--admin: cannot listen on unix:{}: {error}", path.display())?;
                f.write_str(match error.kind() {
                    io::ErrorKind::AddrInUse => ": give each server a path of its own",
                    io::ErrorKind::AlreadyExists => ": choose another path",
                    io::ErrorKind::NotFound => ": make its directory first",
                    io::ErrorKind::PermissionDenied => ": the user that the server runs as must own the directory",
                    _ => "",
                })
            }
            Self::Directory(error) => error.fmt(f),
            Self::File(words) => f.write_str(words),
            Self::EventLoop(error) => write!(f, "cannot set up the event loop: {error}"),
            Self::User(error) => error.fmt(f),
            Self::Sandbox(lack) => {
                write!(f, "--sandbox require: this system cannot confine the server. {lack}")?;
                f.write_str(". With --sandbox auto it runs with the parts that hold")
            }
            Self::SyncThread(error) => write!(f, "cannot start the threads that sync files to the disk: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// How many connections there may be, given a `limit` on the descriptors of the process, `inherited` of which were open when
/// it started.
///
/// # Errors
/// [`StartError::Descriptors`] when the configuration asks for more.
pub fn max_connections(config: &Config, limit: u64, inherited: u64) -> Result<usize, StartError> {
    let for_programs = metrics_sockets(config) + admin_sockets(config) + events_descriptors(config);
    let sockets = config.listen.len() as u64 + echo_sockets(config) + for_programs;
    let backlog = if config.sync == Durability::Full { backlog_descriptors(limit, config.queue) } else { 0 };
    let besides = inherited + descriptors_for(0, sockets, Durability::None, config.queue) + backlog;
    let each = descriptors_per_connection(config.queue);
    let possible = (limit.saturating_sub(besides) / each) as usize;
    let asked = config.max_connections.unwrap_or(possible.max(1));
    if asked > possible {
        let needed = inherited + descriptors_for(asked as u64, sockets, config.sync, config.queue);
        return Err(StartError::Descriptors { asked, needed, limit, inherited, possible, each });
    }
    Ok(asked)
}

/// Becomes the user of the configuration, if there is one.
///
/// # Errors
/// [`StartError::User`].
pub fn change_user(config: &Config) -> Result<(), StartError> {
    config.user.as_ref().map_or(Ok(()), User::become_it).map_err(StartError::User)
}

/// Opens the directory of the configuration, and removes what dead servers left in it.
///
/// # Errors
/// [`StartError::Directory`].
pub fn open_directory(config: &Config) -> Result<Directory, StartError> {
    let mut directory = Directory::open(&config.directory).map_err(StartError::Directory)?;
    directory.tend(config.partial_ttl);
    if let Some(bytes) = config.min_free {
        directory.keep_free(bytes);
    }
    if config.queue {
        directory.queue_files(config.sync == Durability::Full).map_err(StartError::Directory)?;
    }
    if config.sync == Durability::Full {
        directory.sync().map_err(StartError::Directory)?;
    }
    Ok(directory)
}

/// Gives up what a server whose sockets and directory are open does not need any more. To be called before any thread is
/// started.
///
/// # Errors
/// [`StartError::User`], [`StartError::Sandbox`].
pub fn confine(config: &Config, directory: &Directory) -> Result<(), StartError> {
    config.user.as_ref().map_or(Ok(()), User::give_up_ports).map_err(StartError::User)?;
    let confinement = config.sandbox.enter(directory.as_fd()).map_err(StartError::Sandbox)?;
    log::info!("sandbox: {confinement}");
    for lack in confinement.lacks() {
        log::warn!("the sandbox lacks a part. {lack}");
    }
    Ok(())
}

fn echo_sockets(config: &Config) -> u64 {
    match &config.udp {
        Udp::FollowTcp => config.listen.len() as u64,
        Udp::At(addrs) => addrs.len() as u64,
        Udp::Off => 0,
    }
}

fn metrics_sockets(config: &Config) -> u64 {
    if config.metrics.is_some() { 1 + side::CLIENTS_MAX as u64 } else { 0 }
}

/// The file of events is opened again before the old one is closed.
fn events_descriptors(config: &Config) -> u64 {
    if config.events.is_some() { 2 } else { 0 }
}

/// The socket, its clients, and two to ask the kernel with.
fn admin_sockets(config: &Config) -> u64 {
    if config.admin.is_some() { 3 + side::CLIENTS_MAX as u64 } else { 0 }
}

/// The admin socket: the one that was passed, or else one that is made, if there is a path.
///
/// # Errors
/// [`StartError::Admin`].
pub fn bind_admin(config: &Config, passed: Option<LocalListener>) -> Result<Option<LocalListener>, StartError> {
    if passed.is_some() {
        return Ok(passed);
    }
    let bind = |path: &PathBuf| LocalListener::bind(path).map_err(|error| StartError::Admin(path.clone(), error));
    config.admin.as_ref().map(bind).transpose()
}

/// The listener for metrics: the one that was passed, or else one that is bound, if there is an address. No two servers share
/// the address, or each answer would be of either of them.
///
/// # Errors
/// [`StartError::Listen`].
pub fn bind_metrics(config: &Config, passed: Option<Listener>) -> Result<Option<Listener>, StartError> {
    if passed.is_some() {
        return Ok(passed);
    }
    let bind = |addr| {
        let failed = |error| StartError::Listen { transport: "metrics", addr, error };
        Listener::bind(addr, Sharing::default()).map_err(failed)
    };
    config.metrics.map(bind).transpose()
}

/// The sockets for uploads and datagrams. Those that were passed replace the addresses of the configuration.
///
/// # Errors
/// [`StartError::Listen`] for the first address that cannot be bound, [`StartError::NoAddress`] if there is none.
pub fn bind(
    config: &Config,
    passed_tcp: Vec<Listener>,
    passed_udp: Vec<UdpSocket>,
) -> Result<(Vec<Listener>, Option<Echo>), StartError> {
    if passed_tcp.is_empty() && passed_udp.is_empty() {
        return bind_pairs(config);
    }
    let listeners = if passed_tcp.is_empty() { bind_tcp(config)? } else { passed_tcp };
    let echo = if passed_udp.is_empty() { bind_echo(config, &listeners)? } else { Some(adopt(config, passed_udp)?) };
    Ok((listeners, echo))
}

/// An echo on the sockets that were passed.
fn adopt(config: &Config, passed: Vec<UdpSocket>) -> Result<Echo, StartError> {
    let mut echo = Echo::new(config.udp_rate);
    for socket in passed {
        let addr = socket.local_addr().map_err(StartError::EventLoop)?;
        echo.adopt(socket).map_err(|error| StartError::Listen { transport: "udp", addr, error })?;
    }
    Ok(echo)
}

fn bind_pairs(config: &Config) -> Result<(Vec<Listener>, Option<Echo>), StartError> {
    let mut attempts = 1..=PAIR_ATTEMPTS;
    loop {
        let bound = bind_tcp(config).and_then(|listeners| {
            let echo = bind_echo(config, &listeners)?;
            Ok((listeners, echo))
        });
        match &bound {
            // Another program may have the number that TCP got, but for UDP: try another number.
            Err(StartError::Listen { transport: "udp", error, .. })
                if error.kind() == io::ErrorKind::AddrInUse && attempts.next().is_some() && has_free_choice(config) => {
            }
            _ => return bound,
        }
    }
}

fn bind_tcp(config: &Config) -> Result<Vec<Listener>, StartError> {
    let bind = |&addr: &SocketAddr| {
        let failed = |error| StartError::Listen { transport: "tcp", addr, error };
        Listener::bind(addr, sharing(addr, &config.listen, config.reuse_port)).map_err(failed)
    };
    let listeners = config.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    if listeners.is_empty() { Err(StartError::NoAddress) } else { Ok(listeners) }
}

fn bind_echo(config: &Config, listeners: &[Listener]) -> Result<Option<Echo>, StartError> {
    let addrs = udp_addrs(config, listeners).map_err(StartError::EventLoop)?;
    if addrs.is_empty() {
        return Ok(None);
    }
    let mut echo = Echo::new(config.udp_rate);
    for &addr in &addrs {
        let failed = |error| StartError::Listen { transport: "udp", addr, error };
        echo.bind(addr, sharing(addr, &addrs, config.reuse_port)).map_err(failed)?;
    }
    Ok(Some(echo))
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

/// `[::]` takes IPv4 as well, unless an IPv4 address is given too.
fn only_v6(addr: SocketAddr, all: &[SocketAddr]) -> bool {
    addr.is_ipv6() && all.iter().any(|other| other.is_ipv4() && other.port() == addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_what_the_descriptors_allow() {
        let config = |sync, max_connections| Config { sync, max_connections, ..Config::default() };
        assert_eq!(max_connections(&config(Durability::None, None), 1024, 0).unwrap(), (1024 - 25) / 2);
        assert_eq!(max_connections(&config(Durability::Full, None), 1024, 0).unwrap(), (1024 - 25 - 64) / 2);
        assert_eq!(max_connections(&config(Durability::None, None), 1024, 300).unwrap(), (1024 - 25 - 300) / 2);
        assert_eq!(max_connections(&config(Durability::None, Some(499)), 1024, 0).unwrap(), 499);
        // As docs/operations.md has it.
        assert_eq!(max_connections(&config(Durability::Full, Some(10_000)), 20_300, 0).unwrap(), 10_000);
    }

    #[test]
    fn what_is_told_to_be_needed_is_enough() {
        for (asked, queue) in [1, 10, 100, 1000, 10_000].into_iter().flat_map(|asked| [(asked, false), (asked, true)]) {
            let config = Config { max_connections: Some(asked), queue, ..Config::default() };
            let Err(StartError::Descriptors { needed, .. }) = max_connections(&config, 20, 7) else {
                panic!("{asked}")
            };
            assert_eq!(max_connections(&config, needed, 7).unwrap(), asked);
        }
    }

    #[test]
    fn more_than_the_descriptors_allow_is_refused_with_the_arithmetic() {
        let config = Config { max_connections: Some(500), sync: Durability::None, ..Config::default() };
        let error = max_connections(&config, 1024, 2).unwrap_err().to_string();
        let figures = ["500 connections", "1027 descriptors", "of which 2 were open", "limit is 1024", "at most 498"];
        for figure in figures {
            assert!(error.contains(figure), "{error}");
        }
    }

    #[test]
    fn without_an_address_there_is_no_server() {
        let error = bind(&Config { listen: Vec::new(), ..Config::default() }, vec![], vec![]).unwrap_err().to_string();
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

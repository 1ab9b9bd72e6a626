//! The resources of the tester's own host: descriptors, source ports, processor time.
//!
//! A load tester that lacks resources measures itself. So it checks its needs before it starts, and measures its own effort
//! while it runs.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, Socket, Type};

use crate::load::judge::Micros;
use crate::load::plan::{Closer, Loop, Plan};

/// Descriptors of the tester for all but clients: standard streams, epoll, the directory that is verified, and a reserve.
const RESERVED_DESCRIPTORS: u64 = 16;
/// Source addresses on loopback, where all of 127.0.0.0/8 is local. With this many, 30,000 connections a second find a free
/// port although each port is blocked for [`TIME_WAIT`].
const LOOPBACK_SOURCES: u32 = 64;
/// How long a port is blocked after its end of a connection closed first (TIME_WAIT, tcp(7)).
const TIME_WAIT: Duration = Duration::from_secs(60);
/// The memory of both ends of a connection and of the server's record of it, in bytes, including buffers in use.
const BYTES_PER_CLIENT: u64 = 64 << 10;
/// A full backlog drops handshakes, and each then waits for a second; no server waits for more than its kernel allows.
const BACKLOG_MAX: u64 = 4096;
/// Above this share of the time outside the poll, the tester reports itself as the bottleneck.
const BUSY_SHARE_MAX: f64 = 0.9;

/// A resource that a run needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The name of the resource.
    pub what: &'static str,
    /// The amount that is needed.
    pub needs: u64,
    /// The amount that is available.
    pub has: u64,
    /// How to get more, or need less.
    pub remedy: String,
}

impl Requirement {
    /// Whether there is enough.
    pub fn is_met(&self) -> bool {
        self.has >= self.needs
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, needs, has, remedy } = self;
        write!(f, "this needs {needs} {what}, and there are {has}: {remedy}")
    }
}

/// How many source ports `plan` uses at a time: one per connection and, in an open loop whose clients close first, those in
/// TIME_WAIT.
pub fn ports_for(plan: &Plan) -> u64 {
    let client_closes = !plan.dialect.is_framed() || plan.closer == Closer::Client;
    let resting = match plan.pace {
        Loop::Open { rate, .. } if client_closes => (rate * TIME_WAIT.as_secs_f64()) as u64,
        _ => 0,
    };
    (plan.clients as u64).saturating_add(resting).min(plan.extent.files.unwrap_or(u64::MAX))
}

/// The needs of a run of `clients` and `ports` against `target`. The process has `descriptors`.
pub fn requirements(clients: usize, ports: u64, target: SocketAddr, descriptors: u64) -> Vec<Requirement> {
    let sources = u64::from(Sources::to(target).addresses);
    let descriptors_needed = clients as u64 + RESERVED_DESCRIPTORS;
    vec![
        Requirement {
            what: "descriptors",
            needs: descriptors_needed,
            has: descriptors,
            remedy: format!("raise the hard limit (ulimit -Hn {descriptors_needed}), or run fewer clients"),
        },
        Requirement {
            what: "source ports",
            needs: ports,
            has: source_ports() * sources,
            remedy: "widen net.ipv4.ip_local_port_range (sysctl), or run fewer clients or files a second".into(),
        },
    ]
}

/// The needs of a run over UDP with `sockets`, each of which occupies a port on all addresses. The process has `descriptors`.
pub fn requirements_of_datagrams(sockets: usize, descriptors: u64) -> Vec<Requirement> {
    let needed = sockets as u64 + RESERVED_DESCRIPTORS;
    vec![
        Requirement {
            what: "descriptors",
            needs: needed,
            has: descriptors,
            remedy: format!("raise the hard limit (ulimit -Hn {needed}), or use fewer sockets"),
        },
        Requirement {
            what: "source ports",
            needs: sockets as u64,
            has: source_ports(),
            remedy: "widen net.ipv4.ip_local_port_range (sysctl), or use fewer sockets".into(),
        },
    ]
}

/// Checks that all needs are met.
///
/// # Errors
/// The first need that is not met.
pub fn insist_on(required: Vec<Requirement>) -> Result<(), Requirement> {
    required.into_iter().find(|each| !each.is_met()).map_or(Ok(()), Err)
}

/// The needs of `clients` clients and of a server for them on one host. `of_server`: the descriptors of the server.
pub fn requirements_with_server(clients: usize, of_server: u64, descriptors: u64) -> Vec<Requirement> {
    let count = clients as u64;
    let both = count + of_server + RESERVED_DESCRIPTORS;
    let mut all = requirements(clients, count, (Ipv4Addr::LOCALHOST, 0).into(), descriptors);
    all.extend([
        Requirement {
            what: "descriptors of a server",
            needs: of_server,
            has: descriptors,
            remedy: format!("raise the hard limit (ulimit -Hn {of_server}, LimitNOFILE={of_server})"),
        },
        Requirement {
            what: "descriptors of the system",
            needs: both,
            has: first_number("/proc/sys/fs/file-max").unwrap_or(u64::MAX),
            remedy: format!("sysctl fs.file-max={both}"),
        },
        Requirement {
            what: "places in the accept queue",
            needs: count.min(BACKLOG_MAX),
            has: first_number("/proc/sys/net/core/somaxconn").unwrap_or(BACKLOG_MAX),
            remedy: format!("sysctl net.core.somaxconn={BACKLOG_MAX}, or bring in the clients slowly (--ramp)"),
        },
        Requirement {
            what: "MiB of memory",
            needs: (count * BYTES_PER_CLIENT).div_ceil(1 << 20),
            has: available_memory_kib().map_or(u64::MAX, |kib| kib >> 10),
            remedy: "run fewer clients".into(),
        },
    ]);
    all
}

/// The ports that connect(2) chooses from (ip(7)).
fn source_ports() -> u64 {
    const DEFAULT: u64 = 60_999 - 32_768 + 1;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let ends: Vec<u64> = range.split_whitespace().filter_map(|end| end.parse().ok()).collect();
    match ends[..] {
        [first, last] if first <= last => last - first + 1,
        _ => DEFAULT,
    }
}

fn first_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

fn available_memory_kib() -> Option<u64> {
    let all = fs::read_to_string("/proc/meminfo").ok()?;
    let line = all.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The source addresses of connections.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The number of addresses, from 127.0.0.1 on. With 1 the kernel chooses.
    addresses: u32,
    next: u32,
}

impl Sources {
    /// The source addresses for connections to `target`.
    pub fn to(target: SocketAddr) -> Self {
        let ours = target.is_ipv4() && target.ip().is_loopback();
        Self { addresses: if ours { LOOPBACK_SOURCES } else { 1 }, next: 0 }
    }

    /// Begins a connection from the next address, without waiting for it.
    ///
    /// # Errors
    /// The error of socket(2), bind(2) or connect(2). A connect in progress is not an error.
    pub fn connect(&mut self, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Nagle's algorithm would add waits for acknowledgements to the latencies.
        socket.set_tcp_nodelay(true)?;
        if self.addresses > 1 {
            let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + self.next);
            self.next = (self.next + 1) % self.addresses;
            // The kernel then chooses the port at the connect, and can use one port towards several peers (ip(7)).
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }
}

/// Measures the effort of the tester itself.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    cpu_at_start: Duration,
    busy: Duration,
    longest_turn: Duration,
}

/// The effort of the tester itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Processor time of the process, kernel included.
    pub cpu: Duration,
    /// The share of time outside the poll, from 0 to 1.
    pub busy_share: f64,
    /// The longest turn, which limits the precision of every latency.
    pub longest_turn: Duration,
}

impl Effort {
    /// Starts to measure.
    pub fn begin() -> Self {
        Self { cpu_at_start: cpu_time(), busy: Duration::ZERO, longest_turn: Duration::ZERO }
    }

    /// Notes the end of a turn, and the time that it spent outside the poll.
    pub fn turn_ends(&mut self, turn: Duration) {
        self.busy += turn;
        self.longest_turn = self.longest_turn.max(turn);
    }

    /// The time outside the poll so far.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// The effort of a run that took `elapsed`.
    pub fn end(self, elapsed: Duration) -> Spent {
        let busy_share = self.busy.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        Spent { cpu: cpu_time() - self.cpu_at_start, busy_share: busy_share.min(1.0), longest_turn: self.longest_turn }
    }
}

impl Spent {
    /// What a report adds if the tester was the bottleneck, and anything was measured.
    pub const BOTTLENECK: &str = "the tester was the bottleneck: these figures describe it as much as the server";

    /// Whether the tester was busy nearly all the time, so that it may have measured itself.
    pub fn was_bottleneck(&self) -> bool {
        self.busy_share > BUSY_SHARE_MAX
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turn = Micros(Some(self.longest_turn.as_micros() as u64));
        let (cpu, busy) = (self.cpu.as_secs_f64(), self.busy_share * 100.0);
        write!(f, "tester: {cpu:.3} s of processor time, busy {busy:.0} % of the time, longest turn {turn}")
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;
    use crate::load::plan::{Arrivals, Extent, Mix, Sizes, Workload};
    use crate::proto::Dialect;

    #[test]
    fn connections_to_loopback_come_from_many_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let mut sources = Sources::to(target);
        let connect = |_| {
            let stream = sources.connect(target).unwrap();
            (listener.accept().unwrap().1.ip(), stream)
        };
        let (from, _streams): (HashSet<_>, Vec<_>) = (0..70).map(connect).unzip();
        assert_eq!(from.len(), 64);
        assert!(from.iter().all(|ip| ip.is_loopback()));
    }

    #[test]
    fn the_kernel_chooses_the_address_towards_other_hosts() {
        assert_eq!(Sources::to("192.0.2.1:9000".parse().unwrap()).addresses, 1);
        assert_eq!(Sources::to("[::1]:9000".parse().unwrap()).addresses, 1);
    }

    #[test]
    fn a_shortage_is_reported_with_the_needed_amount() {
        let short = requirements(2000, 2000, "127.0.0.1:9000".parse().unwrap(), 1024).remove(0);
        assert!(!short.is_met());
        let words = short.to_string();
        assert!(words.contains("2016 descriptors") && words.contains("1024") && words.contains("ulimit -Hn 2016"));
        assert!(requirements(1000, 1000, "127.0.0.1:9000".parse().unwrap(), 1024).iter().all(Requirement::is_met));
        let far = requirements(10, 1_000_000, "192.0.2.1:9000".parse().unwrap(), 1024).remove(1);
        assert!(!far.is_met() && far.to_string().starts_with("this needs 1000000 source ports"));
    }

    #[test]
    fn every_need_can_be_compared_with_the_host() {
        for requirement in requirements_with_server(1, 50, 100) {
            assert!(requirement.has > 0 && requirement.has < u64::MAX, "{requirement:?}");
        }
        assert!(source_ports() > 1000);
    }

    #[test]
    fn a_tester_that_is_always_busy_is_the_bottleneck() {
        let mut effort = Effort::begin();
        effort.turn_ends(Duration::from_millis(600));
        effort.turn_ends(Duration::from_millis(350));
        let spent = effort.end(Duration::from_secs(1));
        assert!(spent.was_bottleneck() && spent.longest_turn == Duration::from_millis(600));
        assert!(!effort.end(Duration::from_secs(2)).was_bottleneck());
    }

    #[test]
    fn ports_stay_in_time_wait_where_the_client_closes_first() {
        let open = Loop::Open { rate: 100.0, arrivals: Arrivals::Constant };
        let ports = |dialect, pace, closer, files| {
            let workload = Workload { seed: 1, sizes: Sizes::Range(1, 1), mix: Mix::default() };
            let extent = Extent { files, duration: None };
            let target = "192.0.2.1:9".parse().unwrap();
            let (ramp, patience) = (Duration::ZERO, Duration::ZERO);
            let plan = Plan {
                target,
                dialect,
                site: None,
                tls: None,
                token: None,
                clients: 10,
                per_connection: 1,
                pace,
                extent,
                ramp,
                workload,
                closer,
                patience,
            };
            ports_for(&plan)
        };
        assert_eq!(ports(Dialect::Put, open, Closer::Server, None), 10);
        assert_eq!(ports(Dialect::Put, open, Closer::Client, None), 6010);
        assert_eq!(ports(Dialect::Line, open, Closer::Server, None), 6010);
        assert_eq!(ports(Dialect::Line, open, Closer::Server, Some(500)), 500);
        assert_eq!(ports(Dialect::Line, Loop::Closed, Closer::Server, None), 10);
    }
}

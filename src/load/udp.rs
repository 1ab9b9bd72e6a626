//! Datagrams against an echo: a window of them in flight on each of several sockets, or so many a second in all.
//!
//! Each carries its number and bytes that depend on it, so that what comes back is known and its every bit compared.

mod track;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use super::content::Content;
use super::host::{Effort, Spent};
use super::latency::{Micros, QUANTILES};
use crate::net::Readiness;
use track::Track;

pub use track::Counts;

/// The number of a datagram, in bytes, at its begin.
const NUMBER_BYTES: usize = 8;
/// The smallest datagram, in bytes: its number and as many that tell whether it came back unchanged.
pub const SIZE_MIN_BYTES: usize = 2 * NUMBER_BYTES;
/// The largest datagram, in bytes: what 65,535 leave beside the headers of IPv4 (20) and UDP (8).
pub const SIZE_MAX_BYTES: usize = 65_507;
/// Datagrams received or sent on one socket before the others have their turn.
const VISIT_DATAGRAMS: usize = 64;
/// How long one address of several has time to answer before the next one is asked.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// The longest wait, so that Ctrl-C is heeded.
const TICK: Duration = Duration::from_millis(200);

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The echo.
    pub target: SocketAddr,
    /// How many sockets, at least 1.
    pub sockets: usize,
    /// The size of each datagram in bytes, [`SIZE_MIN_BYTES`] to [`SIZE_MAX_BYTES`].
    pub size: usize,
    /// What makes a datagram go.
    pub pace: Pace,
    /// For how long new ones are sent.
    pub duration: Duration,
    /// After how long an answer is late.
    pub timeout: Duration,
    /// What contents are drawn from.
    pub seed: u64,
}

/// What makes a datagram go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The answer to another: so many are in flight on each socket.
    Window(u64),
    /// The clock: so many a second, on all sockets together.
    Rate(f64),
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// What was counted.
    pub counts: Counts,
    /// The mean of all sockets.
    pub jitter: Duration,
    /// From the first datagram to the last answer or the end of the wait for it.
    pub elapsed: Duration,
    /// What the tester itself needed.
    pub spent: Spent,
    /// Whether it was ended before its end.
    pub interrupted: bool,
}

struct Port {
    socket: UdpSocket,
    track: Track,
    readiness: Readiness,
}

struct Run<'a> {
    plan: &'a Plan,
    poll: Poll,
    events: Events,
    ports: Vec<Port>,
    counts: Counts,
    start: Instant,
    /// Whose turn it is to send for the rate.
    next_port: usize,
    expected: Vec<u8>,
    received: Vec<u8>,
}

/// Does what `plan` says, until all is answered or given up, or `stop` is set.
///
/// # Errors
/// When no socket can be had, or waiting on it fails. What happens to single datagrams is counted.
pub fn run(plan: &Plan, stop: &AtomicBool) -> io::Result<Finished> {
    let mut run = Run::new(plan)?;
    let mut effort = Effort::begin();
    let mut woken = run.start;
    let mut stopped = false;
    loop {
        let wake = run.work();
        stopped |= stop.load(Ordering::Relaxed);
        let Some(timeout) = wake.filter(|_| !stopped) else { break };
        effort.turn_ends(woken.elapsed());
        run.wait(timeout)?;
        woken = Instant::now();
    }
    let elapsed = run.start.elapsed();
    let jitter = run.ports.iter().map(|port| port.track.jitter()).sum::<Duration>() / plan.sockets as u32;
    Ok(Finished { counts: run.counts, jitter, elapsed, spent: effort.end(elapsed), interrupted: stopped })
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let open = |index| {
            let mut socket = connect(plan.target)?;
            poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            let readiness = Readiness { readable: false, writable: true };
            Ok(Port { socket, track: Track::new(plan.timeout), readiness })
        };
        let ports = (0..plan.sockets).map(open).collect::<io::Result<_>>()?;
        Ok(Self {
            plan,
            poll,
            events: Events::with_capacity(plan.sockets),
            ports,
            counts: Counts::default(),
            start: Instant::now(),
            next_port: 0,
            expected: vec![0; plan.size],
            // One more, to tell a datagram that has grown.
            received: vec![0; plan.size + 1],
        })
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &self.events {
            let readiness = Readiness::from(event);
            let known = &mut self.ports[event.token().0].readiness;
            known.readable |= readiness.readable;
            known.writable |= readiness.writable;
        }
        Ok(())
    }

    /// Receives, gives up and sends. Returns how long nothing else is to be done; `None` when it is all over.
    fn work(&mut self) -> Option<Duration> {
        (0..self.ports.len()).for_each(|index| self.receive(index));
        let now = self.start.elapsed();
        let expiry = self.ports.iter_mut().filter_map(|port| port.track.expire(now)).min();
        let next_send = if now < self.plan.duration { Some(self.send_due(now)) } else { None };
        if next_send.is_none() && self.ports.iter().all(|port| port.track.in_flight() == 0) {
            return None;
        }
        if self.ports.iter().any(|port| port.readiness.readable) {
            return Some(Duration::ZERO);
        }
        let wake = [expiry, next_send, Some(now + TICK)].into_iter().flatten().min()?;
        Some(wake.saturating_sub(now))
    }

    fn receive(&mut self, index: usize) {
        for _ in 0..VISIT_DATAGRAMS {
            let port = &mut self.ports[index];
            if !port.readiness.readable {
                return;
            }
            match port.socket.recv(&mut self.received) {
                Ok(length) => self.take(index, length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => port.readiness.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.counts.errors += 1,
            }
        }
    }

    /// Number and content of a datagram make it one of ours, or it is corrupt.
    fn take(&mut self, index: usize, length: usize) {
        let now = self.start.elapsed();
        let number = self.received.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or(u64::MAX);
        let was_sent = length == self.plan.size && number < self.ports[index].track.next();
        if was_sent {
            self.compose(index, number);
        }
        if was_sent && self.expected == self.received[..length] {
            self.ports[index].track.returned(number, now, &mut self.counts);
        } else {
            self.counts.corrupted += 1;
        }
    }

    /// Sends what is due now. Returns when the next one is.
    fn send_due(&mut self, now: Duration) -> Duration {
        match self.plan.pace {
            Pace::Window(window) => {
                for index in 0..self.ports.len() {
                    let free = window.saturating_sub(self.ports[index].track.in_flight());
                    (0..free.min(VISIT_DATAGRAMS as u64)).for_each(|_| self.send(index));
                }
                let is_free = |port: &Port| port.track.in_flight() < window && port.readiness.writable;
                if self.ports.iter().any(is_free) { now } else { self.plan.duration }
            }
            Pace::Rate(rate) => {
                let due = (now.as_secs_f64() * rate) as u64 + 1;
                let burst = due.saturating_sub(self.counts.sent).min((VISIT_DATAGRAMS * self.ports.len()) as u64);
                for _ in 0..burst {
                    self.send(self.next_port);
                    self.next_port = (self.next_port + 1) % self.ports.len();
                }
                Duration::from_secs_f64(self.counts.sent as f64 / rate)
            }
        }
    }

    fn send(&mut self, index: usize) {
        if !self.ports[index].readiness.writable {
            return;
        }
        self.compose(index, self.ports[index].track.next());
        let port = &mut self.ports[index];
        let sent_at = self.start.elapsed();
        match port.socket.send(&self.expected) {
            Ok(_) => {
                port.track.sent(sent_at);
                self.counts.sent += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => port.readiness.writable = false,
            // An earlier one's, which is reported where it can be.
            Err(_) => self.counts.errors += 1,
        }
    }

    /// Makes the datagram `number` of a socket: the number, and bytes that depend on it, the socket and the seed.
    fn compose(&mut self, index: usize, number: u64) {
        let (head, tail) = self.expected.split_at_mut(NUMBER_BYTES);
        head.copy_from_slice(&number.to_be_bytes());
        Content::new(self.plan.seed ^ index as u64, number).fill(0, tail);
    }
}

/// Which of a host's addresses to send to: the first that answers a datagram, or else the first that is not refused. A host
/// with one address is not asked. Ends early when `stop` is set.
pub fn choose(targets: &[SocketAddr], stop: &AtomicBool) -> SocketAddr {
    let mut silent = None;
    for &target in targets.iter().filter(|_| targets.len() > 1) {
        match probe(target, stop) {
            Ok(true) => return target,
            Ok(false) => silent = silent.or(Some(target)),
            Err(_) => {}
        }
    }
    silent.unwrap_or(targets[0])
}

/// Whether `target` answers a datagram. That it is silent is no error, that it refuses is one.
fn probe(target: SocketAddr, stop: &AtomicBool) -> io::Result<bool> {
    let socket = net::UdpSocket::from(OwnedFd::from(connect(target)?));
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(TICK))?;
    socket.send(&[0; SIZE_MIN_BYTES])?;
    let start = Instant::now();
    while start.elapsed() < PROBE_PATIENCE && !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut [0; SIZE_MIN_BYTES]) {
            Ok(_) => return Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// A connected socket hears of ICMP errors, and of nobody but its peer.
fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket)
}

impl Finished {
    /// Datagrams that came back unchanged and in time, a second.
    pub fn answers_per_second(&self) -> f64 {
        self.counts.answered as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sent, answered, late, duplicated, reordered, corrupted, errors, round_trip } = &self.counts;
        let percent = 100.0 * self.counts.lost() as f64 / (*sent).max(1) as f64;
        writeln!(
            f,
            "{sent} datagrams in {:.3} s, {:.0} answers/s",
            self.elapsed.as_secs_f64(),
            self.answers_per_second()
        )?;
        writeln!(f, "{answered} answered, {} lost ({percent:.2} %), {late} late", self.counts.lost())?;
        writeln!(f, "{duplicated} duplicated, {reordered} reordered, {corrupted} corrupted, {errors} errors")?;
        write!(f, "\nround trip")?;
        for (name, quantile) in QUANTILES {
            write!(f, "  {name} {}", Micros(round_trip.quantile_us(quantile)))?;
        }
        writeln!(f, "  max {}  jitter {}", Micros(round_trip.max_us()), Micros(self.jitter.as_micros() as u64))?;
        writeln!(f, "{}", round_trip.bars())?;
        self.spent.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Runs against an echo that hands the number of each datagram and its bytes to `answer`, which says what to send
    /// back.
    fn run_echo(pace: Pace, answer: impl Fn(u64, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Finished {
        let echo = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = echo.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            for number in 0.. {
                let (length, from) = echo.recv_from(&mut buffer).unwrap();
                for datagram in answer(number, &buffer[..length]) {
                    echo.send_to(&datagram, from).unwrap();
                }
            }
        });
        let plan = Plan {
            target,
            sockets: 2,
            size: 64,
            pace,
            duration: Duration::from_millis(100),
            timeout: Duration::from_millis(100),
            seed: 1,
        };
        run(&plan, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn an_honest_echo_answers_all() {
        for pace in [Pace::Window(4), Pace::Rate(500.0)] {
            let Finished { counts, .. } = run_echo(pace, |_, datagram| vec![datagram.to_vec()]);
            assert!(counts.sent >= 20 && counts.answered == counts.sent, "{counts:?}");
            assert_eq!((counts.lost(), counts.duplicated, counts.corrupted, counts.errors), (0, 0, 0, 0));
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let Finished { counts, .. } = run_echo(Pace::Rate(500.0), |_, datagram| vec![datagram.to_vec()]);
        assert!((25..=51).contains(&counts.sent), "{}", counts.sent);
    }

    #[test]
    fn every_fault_of_an_echo_is_told_from_the_others() {
        let Finished { counts, .. } = run_echo(Pace::Rate(400.0), |number, datagram| {
            let mut flipped = datagram.to_vec();
            flipped[20] ^= 1;
            match number {
                3 => vec![],
                5 => vec![datagram.to_vec(); 3],
                7 => vec![flipped],
                9 => vec![[datagram, b"x"].concat()],
                _ => vec![datagram.to_vec()],
            }
        });
        assert_eq!((counts.lost(), counts.duplicated, counts.corrupted), (3, 2, 2), "{counts:?}");
    }

    #[test]
    fn nobody_there_is_an_error_of_the_system_and_not_waited_for_without_end() {
        let nobody = net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let short = Duration::from_millis(30);
        let pace = Pace::Window(2);
        let plan = Plan { target: nobody, sockets: 1, size: 16, pace, duration: short, timeout: short, seed: 1 };
        let Finished { counts, .. } = run(&plan, &AtomicBool::new(false)).unwrap();
        assert!(counts.errors > 0 && counts.answered == 0 && counts.lost() == counts.sent, "{counts:?}");
    }
}

//! The server: one thread, one poll, and the turn that drives everything.
//!
//! ```text
//!   +--> poll     asleep: not at all while anybody is ready, else until an event
//!   |    absorb   an event sets flags; who could get further ------> into the ready queue
//!   |    settle   what the disk has done; who has something to say -> into the ready queue
//!   |    serve    who waited for room to begin a file, if there is some; then
//!   |             who stood in it by then, once each --> wait, yield (back into it), close
//!   |    expire   who was late when the poll was asked, and is not ready --> the same
//!   |    echo     datagrams, so many; more are remembered
//!   +--- accept   newcomers, so many, while there is room ---------> into the ready queue
//! ```
//!
//! One turn does each of these once, in this order, and the order is what makes it right:
//!
//! * **Nothing is closed in `absorb`.** An event that was told for one connection can only find that connection, or
//!   nobody.
//! * **Nothing is accepted before all are served**, so nobody can get the slot of a connection that still has an event
//!   coming.
//! * **`expire` comes after `serve`** and judges by the moment before the poll: what a client had sent by then has been
//!   read. However long the process was stopped, nobody pays for it but the process.
//! * **Everything is bounded**: a visit, a turn's bytes, datagrams, newcomers. What is left over is remembered, because
//!   no event will tell of it again, and a turn that has left something over does not sleep.
//!
//! The first deadline is an event like any other: a timer of the kernel's tells it. A signal interrupts the poll (EINTR),
//! which is an empty batch; a disk is waited for by a thread of its own, which wakes the poll (`store::committer`). Nothing
//! that a peer, the disk or the network does ends the loop.
//!
//! Knows when things are done, and nothing of how: what a connection says is [`crate::proto`]'s, how bytes move is
//! [`crate::net`]'s and [`crate::store`]'s, who is next is [`Connections`]'.

mod acceptor;
pub mod config;
mod connection;
mod connections;
mod digesting;
mod jobs;
mod pace;
mod page;
mod published;
mod start;
pub mod story;
mod trickle;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use acceptor::Acceptor;
use config::{Config, Durability};
use story::Scene;
use story::trace::Tracer;

use crate::net::{self, Echo, Readiness, Signal, Signals, Timer};
use crate::reactor::{Id, Moment};
use crate::store::{Directory, Store, TEND_EVERY};

pub use connections::Connections;
pub use pace::Clock;
pub use page::page;
pub use start::StartError;
pub use story::Stats;

/// Datagrams answered in one turn: a full batch or a few, so that a flood leaves the uploads most of the time.
const DATAGRAMS_PER_TURN: usize = 64;

/// The tokens below this one are the listeners', in order; those from 2^32 on are connections'.
const ECHO: Token = Token(u32::MAX as usize - 1);
const SIGNALS: Token = Token(u32::MAX as usize);
/// Some uploads are published.
const SETTLED: Token = Token(u32::MAX as usize - 2);
/// The first deadline has come.
const TIMER: Token = Token(u32::MAX as usize - 3);

/// A socket that the server has bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Takes uploads.
    Tcp(SocketAddr),
    /// Echoes datagrams.
    Udp(SocketAddr),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "tcp {addr}"),
            Self::Udp(addr) => write!(f, "udp {addr}"),
        }
    }
}

/// How a server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that ran was finished.
    Clean,
    /// Uploads were cut off.
    Aborted,
}

/// A bound server that runs when it is told to.
///
/// ```
/// use intake::server::config::{Config, Udp};
/// use intake::server::{Endpoint, Server};
///
/// let inbox = tempfile::tempdir()?;
/// let config = Config {
///     listen: vec!["127.0.0.1:0".parse()?],
///     udp: Udp::Off,
///     directory: inbox.path().into(),
///     ..Config::default()
/// };
/// let server = Server::bind(&config)?;
/// let [Endpoint::Tcp(addr)] = server.endpoints() else { panic!("one was asked for") };
/// assert_ne!(addr.port(), 0, "who asks for any port is told which");
/// // server.run()? serves until a signal asks for the end.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    poll: Poll,
    events: Events,
    connections: Connections<TcpStream, Directory>,
    acceptor: Acceptor,
    endpoints: Vec<Endpoint>,
    echo: Option<Echo>,
    /// Remembered like any other readiness.
    echo_is_ready: bool,
    signals: Signals,
    timer: Timer,
    partial_ttl: Duration,
    /// When the store is to look after its own files again.
    tend_at: Moment,
    shutdown_timeout: Duration,
    shutdown: Shutdown,
    /// As the last turn read it.
    clock: Clock,
}

#[derive(Clone, Copy, Debug)]
enum Shutdown {
    NotAsked,
    By(Moment),
    AtOnce,
}

impl Server {
    /// Opens the directory, binds the sockets, and starts to catch signals.
    ///
    /// # Errors
    /// [`StartError`], in words for whoever started it.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let inherited = net::inherited_descriptors();
        let descriptors = net::raise_descriptor_limit().map_err(StartError::EventLoop)?;
        let max_connections = start::max_connections(config, descriptors, inherited)?;
        let poll = Poll::new().map_err(StartError::EventLoop)?;
        let mut directory = Directory::open(&config.directory).map_err(StartError::Directory)?;
        directory.tend(config.partial_ttl);
        if let Some(bytes) = config.min_free {
            directory.keep_free(bytes);
        }
        if config.sync == Durability::Full {
            let waker = Waker::new(poll.registry(), SETTLED).map_err(StartError::EventLoop)?;
            let wake = move || wake(&waker);
            let backlog_max = config::sync_backlog(descriptors) as usize;
            directory.sync_before_receipts(backlog_max, wake).map_err(StartError::SyncThread)?;
        }
        let (listeners, echo) = start::bind(config)?;
        let server = Self::assemble(config, poll, max_connections, directory, listeners, echo);
        let server = server.map_err(StartError::EventLoop)?;
        server.log_start(config, max_connections);
        Ok(server)
    }

    fn assemble(
        config: &Config,
        poll: Poll,
        max_connections: usize,
        directory: Directory,
        listeners: Vec<net::Listener>,
        mut echo: Option<Echo>,
    ) -> io::Result<Self> {
        let tcp = listeners.iter().map(|listener| listener.local_addr().map(Endpoint::Tcp));
        let mut endpoints = tcp.collect::<io::Result<Vec<_>>>()?;
        if let Some(echo) = &echo {
            endpoints.extend(echo.local_addrs()?.into_iter().map(Endpoint::Udp));
        }
        let mut signals = Signals::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        if let Some(echo) = &mut echo {
            poll.registry().register(echo, ECHO, Interest::READABLE)?;
        }
        // Every source fits into one batch: whatever the kernel knows when it is asked is known to us before anybody is
        // called late.
        let events = Events::with_capacity(max_connections + endpoints.len() + 3);
        let now = net::now();
        let acceptor = Acceptor::register(listeners, max_connections, poll.registry())?;
        Ok(Self {
            poll,
            events,
            connections: Connections::new(directory, config),
            acceptor,
            endpoints,
            echo,
            echo_is_ready: false,
            signals,
            timer,
            partial_ttl: config.partial_ttl,
            tend_at: now + TEND_EVERY,
            shutdown_timeout: config.shutdown_timeout,
            shutdown: Shutdown::NotAsked,
            clock: Clock { asked: now, now },
        })
    }

    /// Has the story of every connection told from now on.
    pub fn trace_to(&mut self, tracer: Tracer) {
        self.connections.trace_to(tracer);
    }

    /// The sockets, as they were bound.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Serves until a signal asks for the end.
    ///
    /// # Errors
    /// What the poll says: without it there is no server. Nothing that a peer, the disk or the network does ends it.
    pub fn run(mut self) -> io::Result<Outcome> {
        loop {
            if let Some(outcome) = self.turn()? {
                log::info!("ended: {}", self.connections.stats());
                return Ok(outcome);
            }
        }
    }

    /// The turn. Nothing is closed while events are absorbed, and nothing is accepted until all have been served, so an
    /// event never reaches a connection younger than itself.
    fn turn(&mut self) -> io::Result<Option<Outcome>> {
        let asked = self.clock.now;
        let timeout = self.timeout()?;
        log::logger().flush();
        match self.poll.poll(&mut self.events, timeout) {
            // The batch is empty then: the next turn asks again.
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.clock = Clock { asked, now: net::now() };
        self.connections.tell_time(net::time_of_day());
        self.absorb();
        self.connections.settle();
        self.connections.serve(self.clock);
        self.connections.expire(self.clock);
        self.tend();
        self.echo();
        self.acceptor.accept(&mut self.connections, self.poll.registry(), self.clock.now);
        Ok(self.outcome())
    }

    /// How long the poll may sleep: not at all while there is something to do, else until an event comes. One is the first
    /// deadline.
    fn timeout(&mut self) -> io::Result<Option<Duration>> {
        let now = self.clock.now;
        let deadline = self.first_deadline();
        let busy =
            self.connections.has_ready() || self.echo_is_ready || self.acceptor.is_ready(self.connections.len(), now);
        if busy || deadline <= now {
            return Ok(Some(Duration::ZERO));
        }
        self.timer.arm(deadline)?;
        Ok(None)
    }

    fn first_deadline(&self) -> Moment {
        let shutdown = match self.shutdown {
            Shutdown::NotAsked => None,
            Shutdown::By(at) => Some(at),
            Shutdown::AtOnce => Some(self.clock.now),
        };
        let deadlines = [self.connections.first_deadline(), self.acceptor.deadline(), shutdown];
        deadlines.into_iter().flatten().fold(self.tend_at, Moment::min)
    }

    /// Events only set flags and line up.
    fn absorb(&mut self) {
        let mut signalled = false;
        for event in &self.events {
            match event.token() {
                SIGNALS => signalled = true,
                ECHO => self.echo_is_ready = true,
                SETTLED => {}
                TIMER => self.timer.ran_out(),
                Token(bits) => match Id::from_bits(bits as u64) {
                    Some(id) => {
                        self.connections.scene(id, || Scene::Event(event.into()));
                        self.connections.absorb(id, Readiness::from(event));
                    }
                    None => self.acceptor.absorb(bits),
                },
            }
        }
        if signalled {
            self.heed_signals();
        }
    }

    fn heed_signals(&mut self) {
        let signals: Vec<Signal> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                Signal::Stop => self.stop(),
                Signal::Statistics => self.log_statistics(),
                Signal::Hangup => log::info!("SIGHUP is ignored: there is no configuration to read again"),
            }
        }
    }

    /// The first time: stops accepting, and lets uploads that have begun finish. The second time: ends at once.
    fn stop(&mut self) {
        self.shutdown = match self.shutdown {
            Shutdown::NotAsked => {
                self.log_shutdown();
                self.acceptor.close();
                self.connections.drain();
                Shutdown::By(self.clock.now + self.shutdown_timeout)
            }
            Shutdown::By(_) | Shutdown::AtOnce => Shutdown::AtOnce,
        };
    }

    fn tend(&mut self) {
        if self.tend_at <= self.clock.now {
            self.tend_at = self.clock.now + TEND_EVERY;
            self.connections.store_mut().tend(self.partial_ttl);
        }
    }

    fn echo(&mut self) {
        if let Some(echo) = self.echo.as_mut().filter(|_| self.echo_is_ready) {
            self.echo_is_ready = echo.serve(self.clock.now, DATAGRAMS_PER_TURN);
        }
    }

    /// Whether this was the last turn.
    fn outcome(&mut self) -> Option<Outcome> {
        let patience_is_over = match self.shutdown {
            Shutdown::NotAsked => return None,
            Shutdown::By(at) => at <= self.clock.asked,
            Shutdown::AtOnce => true,
        };
        // Lingering connections do not delay the end. What the disk still has to do for a later resume does.
        let all_is_done = self.connections.are_lingering() && self.connections.store().is_idle();
        let cut_off = (all_is_done || patience_is_over).then(|| self.connections.abort(self.clock))?;
        Some(if cut_off == 0 { Outcome::Clean } else { Outcome::Aborted })
    }

    fn log_start(&self, config: &Config, max_connections: usize) {
        let endpoints: Vec<String> = self.endpoints.iter().map(Endpoint::to_string).collect();
        log::info!(
            "listening on {}, files go to {} ({}, {}), at most {max_connections} connections; limits: {}",
            endpoints.join(", "),
            config.directory.display(),
            self.connections.store().method(),
            if config.sync == Durability::Full { "synced before their receipts" } else { "not synced" },
            config.limits,
        );
    }

    fn log_shutdown(&self) {
        match self.connections.uploading() {
            0 => log::info!("shutting down: no upload has to be finished"),
            1 => log::info!(
                "shutting down: 1 upload has {:?} to finish; a second signal ends it at once",
                self.shutdown_timeout
            ),
            uploads => log::info!(
                "shutting down: {uploads} uploads have {:?} to finish; a second signal ends them at once",
                self.shutdown_timeout
            ),
        }
    }

    fn log_statistics(&self) {
        let held = self.connections.len();
        log::info!("statistics: {held} connections held, {}", self.connections.stats());
        if let Some(echo) = &self.echo {
            log::info!("statistics: echo {}", echo.stats());
        }
    }
}

/// Makes the poll return. It cannot fail for good: an eventfd that is full wakes as well.
fn wake(waker: &Waker) {
    while let Err(error) = waker.wake() {
        if error.kind() != io::ErrorKind::Interrupted {
            return log::error!("the loop cannot be woken; what has settled is told at its next turn: {error}");
        }
    }
}

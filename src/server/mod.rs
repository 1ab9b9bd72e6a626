//! The server: one thread, one poll, and the turn that drives everything.
//!
//! ```text
//!   +--> poll     sleeps until an event, but not while a connection is ready
//!   |    absorb   events set flags; connections that could make progress --> into the ready queue
//!   |    settle   results of the disk; connections that have a reply ------> into the ready queue
//!   |    shake    a few TLS handshakes that waited for their turn
//!   |    serve    connections that waited for room to begin a file, if there is some; then
//!   |             those in the ready queue, once each --> wait, yield (back into it), close
//!   |    expire   connections that were late before the poll, and are not ready --> the same
//!   |    tend     once a minute: the store's own files
//!   |    echo     a bounded number of datagrams; more are remembered
//!   |    report   a bounded number of answers and frames for the operator's programs; the service manager hears that the loop turns
//!   +--- accept   a bounded number of connections, while there is room ------> into the ready queue
//! ```
//!
//! One turn does each of these once, and the order makes it correct:
//!
//! * **Nothing is closed in `absorb`.** An event for one connection can only find that connection, or none.
//! * **Nothing is accepted before all are served**, so a new connection cannot get the slot of one that still has an event in
//!   the batch.
//! * **`expire` comes after `serve`** and compares deadlines with the moment before the poll: the bytes that a client had sent
//!   by then have been read. However long the process was stopped, no client is charged for it.
//! * **Everything is bounded**: a visit, a turn's bytes, datagrams, new connections. Unfinished work is remembered, because no
//!   event will report it again, and the next poll does not sleep.
//!
//! The first deadline is an event like any other, from a kernel timer. A signal interrupts the poll (EINTR), which is an
//! empty batch. Other threads wait for the disk, and wake the poll (`store::committer`). Nothing that a peer, the disk or
//! the network does ends the loop.
//!
//! # The shutdown
//!
//! 1. SIGTERM makes a socket readable ([`crate::net::Signals`]). `absorb` calls `Server::stop`.
//! 2. It closes the listeners. Connections that are not accepted yet are reset.
//! 3. [`Connections::drain`] forbids further requests and queues every connection, so that all that clients have sent by now
//!    is still read. A running upload continues. A request that comes is refused (503). A connection between two requests is
//!    closed without a word, once its replies are sent (`Receiver::end_of_requests`).
//! 4. The turns go on until only clients that linger are left and the disk is idle, or until a second signal or the end of
//!    `--shutdown-timeout` (`Server::outcome`).
//! 5. [`Connections::abort`] ends the rest. An unfinished upload is refused (503; classic: a reset), and kept if it can be
//!    resumed. A connection whose file the disk is still busy with is reset, because the outcome is unknown.
//! 6. [`Server::run`] returns the [`Outcome`], which becomes the exit code. The drop of the store waits a moment for its
//!    threads.
//!
//! Knows when each step happens, but not how: the conversation is [`crate::proto`]'s, moving bytes is [`crate::net`]'s and
//! [`crate::store`]'s, the next connection is [`Connections`]'.

mod acceptor;
mod admin;
mod by_id;
pub mod config;
mod connection;
mod connections;
mod digesting;
mod handshakes;
mod histogram;
mod jobs;
mod meter;
mod metrics;
mod pace;
mod page;
mod proxied;
mod published;
mod reload;
mod rulebook;
mod side;
mod start;
pub mod story;
mod trickle;
mod visit;
mod visits;
mod wire;
mod work;

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::LevelFilter;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use acceptor::Acceptor;
use admin::{Admin, Wish};
use config::{Config, Durability};
use meter::{Detail, Meter, Phase};
use metrics::View;
use reload::Files;
use side::Side;
use story::trace::Tracer;
use story::{EventsTo, Out, Scene};

use crate::net::diag::Diag;
use crate::net::{self, Echo, LocalListener, Manager, Notify, Readiness, Signal, Signals, Timer};
use crate::reactor::{Id, Moment};
use crate::store::{Directory, Store, TEND_EVERY};

pub use connections::Connections;
pub use pace::Clock;
pub use page::page;
pub use reload::{Reread, check};
pub use start::StartError;
pub use story::Stats;

/// Datagrams answered in one turn: a full batch or a few, so that a flood leaves the uploads most of the time.
const DATAGRAMS_PER_TURN: usize = 64;

/// Smaller tokens are those of the listeners, in order; tokens from 2^32 on are those of connections.
const ECHO: Token = Token(u32::MAX as usize - 1);
const SIGNALS: Token = Token(u32::MAX as usize);
/// The token of the committer, which has published uploads.
const SETTLED: Token = Token(u32::MAX as usize - 2);
/// The token of the timer for the first deadline.
const TIMER: Token = Token(u32::MAX as usize - 3);
/// The token of the listener for metrics. Those of its connections follow.
const METRICS: Token = Token(u32::MAX as usize - 1000);
/// The token of the admin socket. Those of its connections follow.
const ADMIN: Token = Token(u32::MAX as usize - 2000);

/// A socket that the server has bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Accepts uploads.
    Tcp(SocketAddr),
    /// Answers questions about the server.
    Metrics(SocketAddr),
    /// Serves the operator's own programs.
    Admin(PathBuf),
    /// Echoes datagrams.
    Udp(SocketAddr),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "tcp {addr}"),
            Self::Metrics(addr) => write!(f, "metrics {addr}"),
            Self::Admin(path) => write!(f, "admin unix:{}", path.display()),
            Self::Udp(addr) => write!(f, "udp {addr}"),
        }
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every upload finished.
    Clean,
    /// Uploads were cut off.
    Aborted,
}

/// A bound server. [`Server::run`] serves.
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
/// let [Endpoint::Tcp(addr)] = server.endpoints() else { panic!("one socket was bound") };
/// assert_ne!(addr.port(), 0, "the actual port is reported");
/// // server.run()? serves until a signal ends it.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    poll: Poll,
    events: Events,
    connections: Connections<TcpStream, Directory>,
    acceptor: Acceptor,
    endpoints: Vec<Endpoint>,
    metrics: Option<Side<net::Listener, ()>>,
    admin: Option<Admin>,
    /// Sets the level of the log.
    set_log_level: Option<Box<dyn Fn(LevelFilter)>>,
    /// Lines of the log that nobody has read in time.
    log_dropped: Arc<AtomicU64>,
    /// When it started, in seconds since the epoch.
    started: u64,
    echo: Option<Echo>,
    /// The readiness of the echo, remembered like any other.
    echo_is_ready: bool,
    signals: Signals,
    /// The service manager.
    notify: Notify,
    timer: Timer,
    /// When the store must tend its own files again.
    tend_at: Moment,
    /// As it counts now.
    config: Config,
    /// Where to get another one at SIGHUP.
    reread: Option<Box<dyn Reread>>,
    shutdown: Shutdown,
    /// The clock, as read by the last turn.
    clock: Clock,
    /// In seconds since the epoch.
    time_of_day: u64,
    meter: Meter,
    /// Somebody watches.
    is_watched: bool,
    /// Somebody follows a connection.
    follows: bool,
}

/// The sockets of a server.
struct Sockets {
    listeners: Vec<net::Listener>,
    metrics: Option<net::Listener>,
    admin: Option<LocalListener>,
    echo: Option<Echo>,
}

impl Sockets {
    /// Where they are bound. Those of UDP come last.
    fn endpoints(&self) -> io::Result<Vec<Endpoint>> {
        let tcp = self.listeners.iter().map(|listener| listener.local_addr().map(Endpoint::Tcp));
        let metrics = self.metrics.iter().map(|listener| listener.local_addr().map(Endpoint::Metrics));
        let admin = self.admin.iter().map(|socket| socket.path().map(Endpoint::Admin));
        let mut endpoints = tcp.chain(metrics).chain(admin).collect::<io::Result<Vec<_>>>()?;
        if let Some(echo) = &self.echo {
            endpoints.extend(echo.local_addrs()?.into_iter().map(Endpoint::Udp));
        }
        Ok(endpoints)
    }
}

#[derive(Clone, Copy, Debug)]
enum Shutdown {
    NotAsked,
    By(Moment),
    AtOnce,
}

impl Server {
    /// Opens the directory, binds the sockets, and starts to catch signals. Then the process gives up all that it does not
    /// need any more, and only then are threads started: [`crate::sandbox`] says why.
    ///
    /// # Errors
    /// [`StartError`], with a message for the operator.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        Self::bind_under(Manager::default(), config)
    }

    /// As [`Server::bind`], but uses the sockets that a service manager has passed, each instead of those that the
    /// configuration has for the same use. The server tells the manager how it is.
    ///
    /// # Errors
    /// [`StartError`], with a message for the operator.
    pub fn bind_under(manager: Manager, config: &Config) -> Result<Self, StartError> {
        let inherited = net::inherited_descriptors();
        let descriptors = net::raise_descriptor_limit().map_err(StartError::EventLoop)?;
        let max_connections = start::max_connections(config, descriptors, inherited)?;
        start::change_user(config)?;
        // As that user, who must be able to read them again.
        let files = reload::read(config, net::time_of_day()).map_err(StartError::File)?;
        let poll = Poll::new().map_err(StartError::EventLoop)?;
        let waker = Waker::new(poll.registry(), SETTLED).map_err(StartError::EventLoop)?;
        let directory = start::open_directory(config)?;
        let events = config.events.as_ref().map(Out::open).transpose().map_err(StartError::File)?;
        let Manager { passed, notify } = manager;
        let metrics = start::bind_metrics(config, passed.metrics)?;
        let (listeners, echo) = start::bind(config, passed.tcp, passed.udp)?;
        let admin = start::bind_admin(config, passed.admin)?;
        let sockets = Sockets { listeners, metrics, admin, echo };
        let server = Self::assemble(config, poll, max_connections, directory, sockets);
        let mut server = server.map_err(StartError::EventLoop)?;
        server.use_files(files);
        server.notify = notify;
        if let Some(out) = events {
            server.connections.tell_events_to(out);
        }
        start::confine(config, server.connections.store())?;
        if config.sync == Durability::Full {
            let backlog_max = config::sync_backlog(descriptors) as usize;
            let directory = server.connections.store_mut();
            directory.sync_before_receipts(backlog_max, move || wake(&waker)).map_err(StartError::SyncThread)?;
        }
        server.log_start(config, max_connections);
        Ok(server)
    }

    fn assemble(
        config: &Config,
        poll: Poll,
        max_connections: usize,
        directory: Directory,
        sockets: Sockets,
    ) -> io::Result<Self> {
        let endpoints = sockets.endpoints()?;
        let Sockets { listeners, metrics, admin, mut echo } = sockets;
        let mut signals = Signals::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        if let Some(echo) = &mut echo {
            poll.registry().register(echo, ECHO, Interest::READABLE)?;
        }
        // One batch holds an event of every source, so that all events are known before a connection counts as late.
        let events = Events::with_capacity(max_connections + endpoints.len() + 2 * side::CLIENTS_MAX + 3);
        let now = net::now();
        let acceptor = Acceptor::register(listeners, max_connections, poll.registry())?;
        let metrics = metrics.map(|door| Side::register(door, METRICS, poll.registry())).transpose()?;
        let admin = admin.map(|socket| Admin::register(socket, ADMIN, poll.registry())).transpose()?;
        let mut connections = Connections::new(directory, config);
        if admin.is_some() {
            connections.may_follow(Diag::open());
        }
        Ok(Self {
            poll,
            events,
            connections,
            acceptor,
            endpoints,
            metrics,
            admin,
            set_log_level: None,
            log_dropped: Arc::default(),
            started: net::time_of_day(),
            echo,
            echo_is_ready: false,
            signals,
            notify: Notify::default(),
            timer,
            tend_at: now + TEND_EVERY,
            config: config.clone(),
            reread: None,
            shutdown: Shutdown::NotAsked,
            clock: Clock { asked: now, now },
            time_of_day: net::time_of_day(),
            meter: Meter::default(),
            is_watched: false,
            follows: false,
        })
    }

    /// Traces every connection from now on.
    pub fn trace_to(&mut self, tracer: Tracer) {
        self.connections.trace_to(tracer);
    }

    /// Gets its configuration there at SIGHUP.
    pub fn reread_by(&mut self, reread: Box<dyn Reread>) {
        self.reread = Some(reread);
    }

    /// Sets the level of the log in this way, when the operator asks for another.
    pub fn log_level_by(&mut self, set: Box<dyn Fn(LevelFilter)>) {
        self.set_log_level = Some(set);
    }

    /// Reports this number of lines of the log that were dropped, as it grows.
    pub fn report_dropped_lines(&mut self, dropped: Arc<AtomicU64>) {
        self.log_dropped = dropped;
    }

    /// The sockets, as they were bound.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// The error of the poll, without which there is no server. Nothing that a peer, the disk or the network does ends it.
    pub fn run(mut self) -> io::Result<Outcome> {
        self.notify.ready(&self.status());
        loop {
            if let Some(outcome) = self.turn()? {
                self.connections.flush_events();
                log::info!("ended: {}", self.connections.stats());
                return Ok(outcome);
            }
        }
    }

    /// The turn. Nothing is closed while events are absorbed, and nothing is accepted until all have been served, so an
    /// event never reaches a connection younger than itself.
    fn turn(&mut self) -> io::Result<Option<Outcome>> {
        let asked = self.clock.now;
        self.meter.begin(self.detail());
        let timeout = self.timeout()?;
        log::logger().flush();
        self.connections.flush_events();
        match self.poll.poll(&mut self.events, timeout) {
            // An interrupted poll has an empty batch. The next turn polls again.
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.clock = Clock { asked, now: net::now() };
        self.time_of_day = net::time_of_day();
        self.connections.tell_time(self.clock.now, self.time_of_day);
        self.meter.lap(Phase::Poll);
        self.absorb();
        self.meter.lap(Phase::Absorb);
        let settled = self.connections.settle(self.clock);
        self.meter.lap(Phase::Settle);
        self.connections.shake_hands(self.clock);
        self.meter.lap(Phase::Shake);
        self.measure(settled);
        self.connections.serve(self.clock);
        self.meter.lap(Phase::Serve);
        self.connections.expire(self.clock);
        self.meter.lap(Phase::Expire);
        self.tend();
        self.meter.lap(Phase::Tend);
        self.echo();
        self.meter.lap(Phase::Echo);
        self.report();
        self.notify();
        self.meter.lap(Phase::Report);
        self.acceptor.accept(&mut self.connections, self.poll.registry(), self.clock.now);
        self.meter.lap(Phase::Accept);
        self.meter.end(self.clock.now, self.connections.visits_mut());
        Ok(self.outcome())
    }

    /// How closely the next turn is to be measured.
    fn detail(&self) -> Detail {
        match self.metrics {
            _ if self.is_watched => Detail::Phases,
            Some(_) => Detail::Whole,
            None => Detail::Nothing,
        }
    }

    /// Notes what the turn has to do, if that is measured.
    fn measure(&mut self, settled: usize) {
        if self.meter.is_on() {
            let turn = self.meter.turn_mut();
            (turn.events, turn.ready, turn.settled) = (self.events.iter().count(), self.connections.ready(), settled);
        }
    }

    /// How long the poll may sleep: not at all while there is work, else until an event. The first deadline is one.
    fn timeout(&mut self) -> io::Result<Option<Duration>> {
        let now = self.clock.now;
        let deadline = self.first_deadline();
        let busy = self.connections.has_ready()
            || self.echo_is_ready
            || self.metrics.as_ref().is_some_and(|side| side.is_ready(now))
            || self.admin.as_ref().is_some_and(|admin| admin.is_ready(now))
            || self.acceptor.is_ready(self.connections.len(), now);
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
        let metrics = self.metrics.as_ref().and_then(Side::deadline);
        let admin = self.admin.as_ref().and_then(Admin::deadline);
        let deadlines = [self.connections.first_deadline(), self.acceptor.deadline(), metrics, admin, shutdown];
        deadlines.into_iter().chain([self.notify.deadline()]).flatten().fold(self.tend_at, Moment::min)
    }

    /// Events only set flags and queue their connections.
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
                    None => {
                        self.acceptor.absorb(bits);
                        if let Some(side) = &mut self.metrics {
                            side.absorb(bits, Readiness::from(event));
                        }
                        if let Some(admin) = &mut self.admin {
                            admin.absorb(bits, Readiness::from(event));
                        }
                    }
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
                Signal::Hangup => self.reload(),
            }
        }
    }

    /// Reads the files of the operator again: all of them count from now on, or none.
    fn reload(&mut self) {
        self.notify.reloading();
        self.read_files_again();
        self.notify.ready(&self.status());
    }

    fn read_files_again(&mut self) {
        let has_events = matches!(self.config.events, Some(EventsTo::File(_)));
        if self.reread.is_none() && self.config.tls.is_none() && self.config.token_file.is_none() && !has_events {
            return log::info!("SIGHUP is ignored: there is no file to read again");
        }
        match self.read_again() {
            Ok(()) => {
                log::info!("SIGHUP: all files were read again");
                // It may change the level of the log.
                self.reread.iter_mut().for_each(|reread| reread.taken());
            }
            Err(words) => log::error!("SIGHUP: what was read before stays in use: {}", words.replace('\n', "; ")),
        }
    }

    fn read_again(&mut self) -> Result<(), String> {
        let config = self.reread.as_mut().map_or_else(|| Ok(self.config.clone()), |reread| reread.read())?;
        self.config.check_change(&config)?;
        let files = reload::read(&config, net::time_of_day())?;
        if let Some(to @ EventsTo::File(_)) = &config.events {
            // It may have been renamed.
            self.connections.tell_events_to(Out::open(to)?);
        }
        self.connections.reconfigure(&config);
        self.use_files(files);
        self.config = config;
        Ok(())
    }

    fn use_files(&mut self, files: Files) {
        if let Some(tokens) = files.tokens {
            self.connections.replace_tokens(tokens);
        }
        self.connections.secure(files.security);
    }

    /// The first signal stops accepting and lets running uploads finish. The second one ends the server at once.
    fn stop(&mut self) {
        if !matches!(self.shutdown, Shutdown::NotAsked) {
            self.shutdown = Shutdown::AtOnce;
            return;
        }
        self.log_shutdown();
        self.shutdown = Shutdown::By(self.clock.now + self.config.shutdown_timeout);
        self.acceptor.close(self.poll.registry());
        self.connections.drain();
        self.notify.stopping(&self.status());
    }

    fn tend(&mut self) {
        if self.tend_at <= self.clock.now {
            self.tend_at = self.clock.now + TEND_EVERY;
            self.connections.store_mut().tend(self.config.partial_ttl);
        }
    }

    fn echo(&mut self) {
        if let Some(echo) = self.echo.as_mut().filter(|_| self.echo_is_ready) {
            self.echo_is_ready = echo.serve(self.clock.now, DATAGRAMS_PER_TURN);
        }
    }

    /// Tells the service manager that the loop turns, and its status.
    fn notify(&mut self) {
        let mut notify = mem::take(&mut self.notify);
        notify.turned(self.clock.now, || self.status());
        self.notify = notify;
    }

    /// Answers the operator's programs.
    fn report(&mut self) {
        let view = View {
            connections: &self.connections,
            acceptor: &self.acceptor,
            meter: &self.meter,
            echo: self.echo.as_ref().map(Echo::stats),
            log_dropped: self.log_dropped.load(Ordering::Relaxed),
            started: self.started,
            is_draining: !matches!(self.shutdown, Shutdown::NotAsked),
            time_of_day: self.time_of_day,
            metrics: OnceCell::new(),
        };
        if let Some(side) = &mut self.metrics {
            side.serve(self.clock, self.poll.registry(), |(), question| metrics::hear(question, &view));
        }
        if let Some(admin) = &mut self.admin {
            let wishes = admin.serve(self.clock, self.poll.registry(), &view);
            wishes.into_iter().for_each(|wish| self.grant(wish));
            self.tell_stories();
        }
    }

    /// Does what a client of the admin socket wishes.
    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Drain if matches!(self.shutdown, Shutdown::NotAsked) => {
                log::info!("the admin socket asks for the end");
                self.stop();
            }
            Wish::Drain => {}
            Wish::Log(level) => {
                log::info!("the admin socket sets the level of the log: {}", level.as_str().to_lowercase());
                self.set_log_level.iter().for_each(|set| set(level));
            }
            Wish::Follow(id) => drop(self.connections.follow(id, self.clock.now)),
            Wish::ForgetRecent => self.connections.visits_mut().forget_recent(),
        }
    }

    /// Sends the traces of connections to those who follow them, and measures from the next turn on if somebody watches.
    fn tell_stories(&mut self) {
        let Some(admin) = &mut self.admin else { return };
        if self.follows || admin.has_followers() {
            let stories = self.connections.take_lines(|id| admin.is_followed(id));
            admin.tell(self.clock.now, &stories);
            self.follows = admin.has_followers();
        }
        self.is_watched = admin.is_watched();
        self.connections.visits_mut().watch(self.is_watched);
    }

    /// Whether this was the last turn.
    fn outcome(&mut self) -> Option<Outcome> {
        let patience_is_over = match self.shutdown {
            Shutdown::NotAsked => return None,
            Shutdown::By(at) => at <= self.clock.asked,
            Shutdown::AtOnce => true,
        };
        // Lingering connections do not delay the end. Jobs of the disk for a later resume do.
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
                self.config.shutdown_timeout
            ),
            uploads => log::info!(
                "shutting down: {uploads} uploads have {:?} to finish; a second signal ends them at once",
                self.config.shutdown_timeout
            ),
        }
    }

    /// How the server is, in a few words.
    fn status(&self) -> String {
        let (held, uploading, stats) = (self.connections.len(), self.connections.uploading(), self.connections.stats());
        let state = if matches!(self.shutdown, Shutdown::NotAsked) { "serving" } else { "shutting down" };
        let refused: u64 = stats.refused.values().sum();
        format!("{state}: {held} connections, {uploading} uploads; {} files stored, {refused} refused", stats.stored)
    }

    fn log_statistics(&self) {
        let held = self.connections.len();
        log::info!("statistics: {held} connections held, {}", self.connections.stats());
        if let Some(echo) = &self.echo {
            log::info!("statistics: echo {}", echo.stats());
        }
    }
}

/// Makes the poll return. A full eventfd is no failure: it wakes the poll as well.
fn wake(waker: &Waker) {
    while let Err(error) = waker.wake() {
        if error.kind() != io::ErrorKind::Interrupted {
            return log::error!("cannot wake the event loop; receipts wait for its next turn: {error}");
        }
    }
}

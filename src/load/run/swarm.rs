//! All clients of a run, in one thread: the turn.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::client::{Client, Context, Served, State};
use super::host::{self, Effort, Sources};
use super::outcome::{Finished, LoadError};
use crate::load::judge::{Ended, Ending, Moments, Tally, Trouble};
use crate::load::plan::{Plan, Schedule};
use crate::net::{self, Readiness, Timer, now};
use crate::reactor::{Budget, Id, Moment, Table};

/// Content is made and sent in pieces of at most this size, in bytes: small enough to be in the processor's cache still when
/// the kernel copies it.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes that one client may send before the others are served.
const VISIT_BYTES: usize = 4 * BUFFER_BYTES;
/// Connections begun in one turn, so that the open ones do not wait for a thousand handshakes.
const STARTS_PER_TURN: usize = 64;
/// The token of the timer. Those of clients begin at 2^32.
const TIMER: Token = Token(0);
/// The longest wait of a turn. Ctrl-C is noticed, and progress reported, at least this often.
pub const TICK: Duration = Duration::from_millis(200);

/// The state of a run in progress.
#[derive(Debug)]
pub struct Live<'a> {
    /// The time since the start.
    pub elapsed: Duration,
    /// The counts so far.
    pub tally: &'a Tally,
    /// Clients that are in the handshake.
    pub connecting: usize,
    /// Clients that send, or wait for the server's `ok`.
    pub sending: usize,
    /// Clients that wait for the outcome.
    pub waiting: usize,
}

/// Sends the files of `plan`, until all are done or `stop` is set. `on_tick` is called with the state of the run, once a
/// tick.
///
/// # Errors
/// [`LoadError`]. A single upload that fails is counted, and is no error.
pub fn send_files(plan: &Plan, stop: &AtomicBool, on_tick: &mut dyn FnMut(&Live)) -> Result<Finished, LoadError> {
    let descriptors = net::raise_descriptor_limit().map_err(LoadError::EventLoop)?;
    let required = host::requirements(plan.clients, host::ports_for(plan), plan.target, descriptors);
    host::insist_on(required)?;
    Swarm::new(plan).map_err(LoadError::EventLoop)?.run(stop, on_tick)
}

/// The clients and everything needed to serve them.
struct Swarm<'a> {
    plan: &'a Plan,
    schedule: Schedule,
    sources: Sources,
    poll: Poll,
    timer: Timer,
    events: Events,
    table: Table<Client>,
    buffer: Box<[u8]>,
    /// Uploads that have ended and are not counted yet.
    ended: Vec<Ended>,
    tally: Tally,
    effort: Effort,
    start: Moment,
    /// The moments before and after the poll.
    asked: Moment,
    now: Moment,
    told: Moment,
}

impl<'a> Swarm<'a> {
    /// A swarm without clients.
    ///
    /// # Errors
    /// The error of epoll_create(2).
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let start = now();
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        Ok(Self {
            plan,
            schedule: Schedule::new(plan.pace, plan.extent, plan.clients, plan.ramp, plan.workload.seed),
            sources: Sources::to(plan.target),
            poll,
            timer,
            events: Events::with_capacity(plan.clients + 1),
            table: Table::default(),
            buffer: vec![0; BUFFER_BYTES].into(),
            ended: Vec::new(),
            tally: Tally::default(),
            effort: Effort::begin(),
            start,
            asked: start,
            now: start,
            told: start,
        })
    }

    /// Runs until everything is sent, or `stop` is set. `on_tick` is called with the state of the run, once a tick.
    ///
    /// # Errors
    /// The error of the poll, and [`LoadError::Unreachable`] if the first connections fail and none succeeded.
    fn run(mut self, stop: &AtomicBool, on_tick: &mut dyn FnMut(&Live)) -> Result<Finished, LoadError> {
        while !self.is_over() && !stop.load(Ordering::Relaxed) {
            self.turn()?;
            self.tally.timeline.advance(self.now.since(self.start), self.tally.totals(self.effort.busy()));
            if self.now >= self.told + TICK {
                self.told = self.now;
                on_tick(&self.live());
            }
        }
        let interrupted = !self.is_over();
        for id in self.table.ids() {
            self.end(id, &Ending::Failed(Trouble::Interrupted));
        }
        self.count_ended();
        let elapsed = self.now.since(self.start);
        self.tally.timeline.finish(elapsed, self.tally.totals(self.effort.busy()));
        let never_started = self.schedule.overdue(elapsed);
        let spent = self.effort.end(elapsed);
        Ok(Finished { tally: self.tally, elapsed, never_started, spent, interrupted })
    }

    /// Nothing is closed while events are absorbed, and connections are begun last, so an event never reaches a client
    /// younger than itself.
    fn turn(&mut self) -> Result<(), LoadError> {
        self.asked = now();
        self.effort.turn_ends(self.asked.since(self.now));
        let timeout = self.timeout().map_err(LoadError::EventLoop)?;
        match self.poll.poll(&mut self.events, timeout) {
            // An interrupted poll has no events.
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(LoadError::EventLoop(error)),
            _ => {}
        }
        self.now = now();
        self.absorb();
        self.serve();
        self.expire();
        self.begin();
        self.give_up_if_unreachable()
    }

    /// How long the poll may sleep: not at all while there is work, else until an event. The next start, deadline or tick
    /// is one.
    fn timeout(&mut self) -> io::Result<Option<Duration>> {
        let start = self.schedule.next_start(self.table.len(), self.since_start()).map(|at| self.start + at);
        let first = [self.table.first_deadline(), start].into_iter().flatten().min();
        let first = first.map_or(self.asked + TICK, |at| at.min(self.asked + TICK));
        if self.table.ready() > 0 || first <= self.asked {
            return Ok(Some(Duration::ZERO));
        }
        self.timer.arm(first)?;
        Ok(None)
    }

    fn absorb(&mut self) {
        for event in &self.events {
            match Id::from_bits(event.token().0 as u64) {
                Some(id) => self.table.absorb(id, Readiness::from(event)),
                None => self.timer.ran_out(),
            }
        }
    }

    /// Serves each client that is ready now once.
    fn serve(&mut self) {
        for _ in 0..self.table.ready() {
            let Some(id) = self.table.pop_ready() else { break };
            self.visit(id);
        }
    }

    fn expire(&mut self) {
        while let Some(id) = self.table.pop_due(self.asked) {
            self.visit(id);
        }
    }

    fn visit(&mut self, id: Id) {
        let (plan, since) = (self.plan, self.since_start());
        let others = self.table.len().saturating_sub(1);
        let Some(client) = self.table.get_mut(id) else { return };
        let (bytes_before, was_connected) = (client.sent_bytes(), client.is_connected());
        let (schedule, started) = (&mut self.schedule, &mut self.tally.started);
        let mut next_file = || {
            schedule.next_start(others, since).filter(|at| *at <= since)?;
            *started += 1;
            Some(plan.workload.file(schedule.start(since).0))
        };
        let mut cx = Context {
            plan,
            buffer: &mut self.buffer,
            asked: self.asked,
            now: self.now,
            next_file: &mut next_file,
            ended: &mut self.ended,
        };
        let served = client.serve(&mut cx, &mut Budget::new(VISIT_BYTES));
        self.tally.sent_bytes += client.sent_bytes() - bytes_before;
        self.tally.connected += u64::from(client.is_connected() && !was_connected);
        match served {
            Served::Wait(at) => self.table.wait(id, at, self.now),
            Served::Yield => self.table.queue(id),
            Served::End(ending) => self.end(id, &ending),
        }
        self.count_ended();
    }

    /// The one place where clients end.
    fn end(&mut self, id: Id, ending: &Ending) {
        let Some(client) = self.table.remove(id) else { return };
        self.ended.extend(client.close(self.plan, ending));
    }

    fn count_ended(&mut self) {
        for ended in self.ended.drain(..) {
            self.tally.end(&ended, self.plan.dialect, self.now);
        }
    }

    fn begin(&mut self) {
        for _ in 0..STARTS_PER_TURN {
            let since = self.since_start();
            match self.schedule.next_start(self.table.len(), since) {
                Some(at) if at <= since => self.begin_one(since),
                _ => break,
            }
        }
    }

    fn begin_one(&mut self, since: Duration) {
        let (number, intended) = self.schedule.start(since);
        let (file, intended) = (self.plan.workload.file(number), self.start + intended);
        self.tally.started += 1;
        match self.connect(self.plan.target) {
            Ok(stream) => {
                let client = Client::new(stream, self.plan, file, intended, self.now);
                self.table.admit_waiting(client, self.now + self.plan.patience);
            }
            Err(error) => {
                let ending = Ending::Failed(Trouble::Connect(error.kind()));
                let moments = Moments { intended, connected: None, secured: None, replied: None };
                self.ended.push(Ended { file, expected: ending.expected(false), ending, is_whole: false, moments });
                self.count_ended();
            }
        }
    }

    /// Begins the connection of the next client.
    fn connect(&mut self, target: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = self.sources.connect(target)?;
        let token = Token(self.table.next_id().to_bits() as usize);
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    /// If the first connections fail, so would all others.
    fn give_up_if_unreachable(&self) -> Result<(), LoadError> {
        match self.tally.reasons.keys().next() {
            Some(reason) if self.tally.connected == 0 => Err(LoadError::Unreachable(reason.clone())),
            _ => Ok(()),
        }
    }

    fn since_start(&self) -> Duration {
        self.now.since(self.start)
    }

    fn is_over(&self) -> bool {
        self.table.is_empty() && self.schedule.next_start(0, self.since_start()).is_none()
    }

    fn live(&self) -> Live<'_> {
        let mut live = Live { elapsed: self.since_start(), tally: &self.tally, connecting: 0, sending: 0, waiting: 0 };
        for (_, client) in self.table.iter() {
            *match client.state() {
                State::Connecting => &mut live.connecting,
                State::Sending => &mut live.sending,
                State::Waiting => &mut live.waiting,
            } += 1;
        }
        live
    }
}

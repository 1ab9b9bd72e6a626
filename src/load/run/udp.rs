//! Datagrams against an echo: a window in flight on each of several sockets, or a fixed rate.
//!
//! Each carries its number and bytes that depend on it, so that every bit of an answer can be checked. One thread serves all
//! sockets, in turns of a bounded number of datagrams. Ctrl-C is noticed between two turns.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use super::host::{self, Effort, Spent};
use super::outcome::LoadError;
use crate::load::judge::{Counts, Returned, Track};
use crate::load::plan::{EchoPlan, NUMBER_BYTES, Pace, Pattern, SIZE_MIN_BYTES};
use crate::net::{Readiness, Timer, now, raise_descriptor_limit};

/// Larger than any datagram, so that an answer that is too long is recognised.
const RECEIVED_MAX_BYTES: usize = 1 << 16;
/// The token of the timer. Those of sockets begin at 0.
const TIMER: Token = Token(usize::MAX);
/// Datagrams received or sent on one socket before the others have their turn.
const VISIT_DATAGRAMS: usize = 64;
/// Sockets served in one turn, and datagrams that the clock triggers in one.
const TURN_SOCKETS: usize = 64;
const TURN_DATAGRAMS: u64 = 1024;
/// How often datagrams without an answer are looked for. Whether an answer was late does not depend on it.
const EXPIRE_STEP: Duration = Duration::from_millis(10);
/// How long to wait for one address of several before the next one is tried.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// The longest wait for answers after Ctrl-C.
const STOPPED_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often Ctrl-C is checked, at least.
const TICK: Duration = Duration::from_millis(200);

/// What happened to a datagram, with its number on its socket, or an answer that belongs to none.
#[derive(Debug)]
pub enum Event {
    /// It came back unchanged and in time, with this round trip.
    Answer(u64, Duration),
    /// It came back unchanged after the timeout, with this round trip if it is still known.
    Late(u64, Option<Duration>),
    /// It came back once more.
    Duplicate(u64),
    /// An answer that differs from everything sent; its size in bytes.
    Corrupt(usize),
    /// The system reported an error, such as an ICMP message that nothing listens there.
    Failed(io::Error),
}

/// The outcome of a run over UDP.
#[derive(Clone, Debug, Default)]
pub struct Echoed {
    /// All counts.
    pub counts: Counts,
    /// The mean over all sockets that have received two answers.
    pub jitter: Option<Duration>,
    /// From the first datagram to the end of the run, including the wait for lost answers.
    pub elapsed: Duration,
    /// From the first datagram to the last one, or to the last answer if that came later.
    pub answering: Duration,
    /// The effort of the tester itself.
    pub spent: Spent,
    /// Whether Ctrl-C ended it.
    pub interrupted: bool,
}

struct Port {
    socket: UdpSocket,
    track: Track,
    readiness: Readiness,
    /// Whether the socket is in the queue.
    is_queued: bool,
}

struct Run<'a> {
    plan: &'a EchoPlan,
    on_event: &'a mut dyn FnMut(&Event),
    poll: Poll,
    timer: Timer,
    events: Events,
    ports: Vec<Port>,
    /// Sockets on which something can be done.
    queue: VecDeque<usize>,
    counts: Counts,
    start: Instant,
    /// The socket for the clock's next datagram, and its time.
    next_port: usize,
    next_send: Duration,
    next_expiry: Duration,
    /// When the last datagram of the run was sent.
    sending_ended: Option<Duration>,
    last_answer: Duration,
    expected: Vec<u8>,
    received: Vec<u8>,
}

/// Sends the datagrams of `plan`, until all are answered or given up. When `stop` is set, it sends no more, and waits for
/// answers until they are late, for a second at most. `on_event` is called for every answer and error.
///
/// # Errors
/// [`LoadError`]. What happens to a single datagram is counted, and is no error.
pub fn send_datagrams(
    plan: &EchoPlan,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Echoed, LoadError> {
    let descriptors = raise_descriptor_limit().map_err(LoadError::EventLoop)?;
    host::insist_on(host::requirements_of_datagrams(plan.sockets, descriptors))?;
    let mut effort = Effort::begin();
    let mut run = Run::new(plan, on_event).map_err(LoadError::EventLoop)?;
    run.open_sockets(stop)?;
    let mut woken = Instant::now();
    let mut stopped_at = None;
    loop {
        if stop.load(Ordering::Relaxed) && stopped_at.is_none() {
            stopped_at = Some(run.start.elapsed());
            run.end_sending();
        }
        let Some(timeout) = run.turn() else { break };
        if stopped_at.is_some_and(|at| run.start.elapsed() >= at + STOPPED_WAIT_MAX) {
            break;
        }
        effort.turn_ends(woken.elapsed());
        run.wait(timeout).map_err(LoadError::EventLoop)?;
        woken = Instant::now();
    }
    Ok(run.finish(effort, stopped_at.is_some()))
}

impl<'a> Run<'a> {
    fn new(plan: &'a EchoPlan, on_event: &'a mut dyn FnMut(&Event)) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        Ok(Self {
            plan,
            on_event,
            poll,
            timer,
            events: Events::with_capacity(plan.sockets + 1),
            ports: Vec::with_capacity(plan.sockets),
            queue: VecDeque::with_capacity(plan.sockets),
            counts: Counts::default(),
            start: Instant::now(),
            next_port: 0,
            next_send: Duration::ZERO,
            next_expiry: Duration::ZERO,
            sending_ended: None,
            last_answer: Duration::ZERO,
            expected: vec![0; plan.size],
            received: vec![0; RECEIVED_MAX_BYTES],
        })
    }

    /// Opens all sockets, or as many as it can before `stop` is set.
    fn open_sockets(&mut self, stop: &AtomicBool) -> Result<(), LoadError> {
        for index in 0..self.plan.sockets {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let mut socket =
                connect(self.plan.target).map_err(|error| LoadError::Unreachable(format!("cannot send: {error}")))?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(index), interest).map_err(LoadError::EventLoop)?;
            let track = Track::new(self.plan.timeout, self.plan.sockets);
            let readiness = Readiness { readable: false, writable: true };
            self.ports.push(Port { socket, track, readiness, is_queued: false });
            self.enqueue(index);
        }
        self.start = Instant::now();
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = match timeout {
            Duration::ZERO => Some(timeout),
            timeout => {
                self.timer.arm(now() + timeout)?;
                None
            }
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &self.events {
            if event.token() == TIMER {
                self.timer.ran_out();
                continue;
            }
            let readiness = Readiness::from(event);
            let port = &mut self.ports[event.token().0];
            port.readiness.readable |= readiness.readable;
            port.readiness.writable |= readiness.writable;
            if !std::mem::replace(&mut port.is_queued, true) {
                self.queue.push_back(event.token().0);
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, index: usize) {
        if !std::mem::replace(&mut self.ports[index].is_queued, true) {
            self.queue.push_back(index);
        }
    }

    /// Receives, gives up late datagrams, and sends. Returns how long to wait; `None` when the run is over.
    fn turn(&mut self) -> Option<Duration> {
        self.expire();
        for _ in 0..self.queue.len().min(TURN_SOCKETS) {
            let Some(index) = self.queue.pop_front() else { break };
            self.ports[index].is_queued = false;
            self.serve(index);
        }
        self.send_by_clock();
        if self.sending_ended.is_some() && self.ports.iter().all(|port| port.track.in_flight() == 0) {
            return None;
        }
        if !self.queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = self.start.elapsed();
        let next_send = if self.sending_ended.is_none() { self.next_send } else { Duration::MAX };
        let end = self.plan.duration.filter(|_| self.sending_ended.is_none()).unwrap_or(Duration::MAX);
        let wake = next_send.min(end).min(self.next_expiry).min(now + TICK);
        Some(wake.saturating_sub(now))
    }

    fn serve(&mut self, index: usize) {
        self.receive(index);
        if let Pace::Window(window) = self.plan.pace {
            let free = window.saturating_sub(self.ports[index].track.in_flight());
            for _ in 0..free.min(VISIT_DATAGRAMS as u64) {
                if !self.is_sending() || !self.send(index) {
                    break;
                }
            }
        }
        if self.has_work(index) {
            self.enqueue(index);
        }
    }

    fn has_work(&self, index: usize) -> bool {
        let Port { track, readiness, .. } = &self.ports[index];
        let has_room = matches!(self.plan.pace, Pace::Window(window) if track.in_flight() < window);
        readiness.readable || (has_room && readiness.writable && self.sending_ended.is_none())
    }

    /// Gives up datagrams whose answer is late, which makes room in the windows.
    fn expire(&mut self) {
        let now = self.start.elapsed();
        if now < self.next_expiry {
            return;
        }
        let mut next = Duration::MAX;
        for index in 0..self.ports.len() {
            if let Some(due) = self.ports[index].track.expire(now) {
                next = next.min(due);
            }
            if self.has_work(index) {
                self.enqueue(index);
            }
        }
        // No datagram that is sent from now on is late before this.
        let next_sent = now.saturating_add(self.plan.timeout);
        self.next_expiry = next.min(next_sent).max(now + EXPIRE_STEP);
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
                Err(error) => self.fail(index, error),
            }
        }
    }

    /// A datagram with another number or content than one that was sent is corrupt.
    fn take(&mut self, index: usize, length: usize) {
        let now = self.start.elapsed();
        let number = self.received.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or(u64::MAX);
        let was_sent = length == self.plan.size && number < self.ports[index].track.next();
        if was_sent {
            self.compose(index, number);
        }
        if !was_sent || self.expected != self.received[..length] {
            self.counts.corrupted += 1;
            return (self.on_event)(&Event::Corrupt(length));
        }
        let event = match self.ports[index].track.returned(number, now, &mut self.counts) {
            Returned::InTime(round_trip) => {
                self.last_answer = now;
                Event::Answer(number, round_trip)
            }
            Returned::Late(round_trip) => Event::Late(number, round_trip),
            Returned::Again => Event::Duplicate(number),
        };
        (self.on_event)(&event);
    }

    /// An error counts as an answer. In a window the datagram keeps its place until it is late, so that a refusal does not
    /// trigger the next one at once.
    fn fail(&mut self, index: usize, error: io::Error) {
        self.counts.errors += 1;
        if !matches!(self.plan.pace, Pace::Window(_)) {
            self.ports[index].track.give_up_one();
        }
        (self.on_event)(&Event::Failed(error));
    }

    fn send_by_clock(&mut self) {
        let now = self.start.elapsed();
        match self.plan.pace {
            Pace::Window(_) => self.next_send = Duration::MAX,
            Pace::Rate(rate) => {
                let due = (now.as_secs_f64() * rate) as u64 + 1;
                let burst = due.saturating_sub(self.counts.tried).min(TURN_DATAGRAMS);
                let before = self.counts.tried;
                (0..burst).for_each(|_| self.send_on_next());
                // Wait if every socket is full.
                let is_blocked = burst > 0 && self.counts.tried == before;
                self.next_send = if is_blocked { now + EXPIRE_STEP } else { time_of(self.counts.tried, rate) };
            }
            Pace::Interval(interval) if now >= self.next_send => {
                self.next_send = now.saturating_add(interval);
                self.send_on_next();
            }
            Pace::Interval(_) => {}
        }
        // End the sending when its time is over, even if nothing is due.
        self.is_sending();
    }

    fn send_on_next(&mut self) {
        if self.is_sending() && !self.ports.is_empty() {
            self.send(self.next_port);
            self.next_port = (self.next_port + 1) % self.ports.len();
        }
    }

    /// Whether another datagram may be sent.
    fn is_sending(&mut self) -> bool {
        let is_counted_out = self.plan.count.is_some_and(|count| self.counts.tried >= count);
        if is_counted_out || self.plan.duration.is_some_and(|duration| self.start.elapsed() >= duration) {
            self.end_sending();
        }
        self.sending_ended.is_none()
    }

    fn end_sending(&mut self) {
        self.sending_ended.get_or_insert(self.start.elapsed());
    }

    /// Returns whether the socket could take a datagram.
    fn send(&mut self, index: usize) -> bool {
        if !self.ports[index].readiness.writable {
            return false;
        }
        self.compose(index, self.ports[index].track.next());
        let port = &mut self.ports[index];
        let sent_at = self.start.elapsed();
        match port.socket.send(&self.expected) {
            Ok(_) => {
                port.track.sent(sent_at);
                self.counts.tried += 1;
                self.counts.sent += 1;
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                port.readiness.writable = false;
                false
            }
            // The error may belong to an earlier datagram. It is reported here all the same.
            Err(error) => {
                self.counts.tried += 1;
                self.fail(index, error);
                false
            }
        }
    }

    /// Makes the datagram `number` of a socket: the number, and bytes that depend on it, the socket and the seed.
    fn compose(&mut self, index: usize, number: u64) {
        let (head, tail) = self.expected.split_at_mut(NUMBER_BYTES);
        head.copy_from_slice(&number.to_be_bytes());
        Pattern::new(self.plan.seed ^ index as u64, number).fill(0, tail);
    }

    fn finish(self, effort: Effort, interrupted: bool) -> Echoed {
        let elapsed = self.start.elapsed();
        let jitters: Vec<Duration> = self.ports.iter().filter_map(|port| port.track.jitter()).collect();
        let jitter = (!jitters.is_empty()).then(|| jitters.iter().sum::<Duration>() / jitters.len() as u32);
        let answering = self.sending_ended.unwrap_or(elapsed).max(self.last_answer);
        Echoed { counts: self.counts, jitter, elapsed, answering, spent: effort.end(elapsed), interrupted }
    }
}

/// When datagram `number` is due.
fn time_of(number: u64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX)
}

/// Which of a host's addresses to send to: the first that answers a datagram, or else the first that is not refused. A host
/// with one address is not probed. Ends early when `stop` is set.
pub fn choose_address(targets: &[SocketAddr], stop: &AtomicBool) -> SocketAddr {
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

/// Whether `target` answers a datagram. Silence is not an error, a refusal is.
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

/// A connected socket reports ICMP errors, and receives only from its peer.
fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket)
}

impl Echoed {
    /// Datagrams that came back unchanged and in time, for each second in which datagrams were sent or answered. The wait
    /// for an answer that does not come is not counted.
    pub fn answers_per_second(&self) -> f64 {
        self.counts.answered as f64 / self.answering.as_secs_f64().max(1e-6)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn plan(target: SocketAddr, pace: Pace) -> EchoPlan {
        EchoPlan { target, sockets: 2, size: 64, pace, count: None, duration: None, timeout: 100 * MS, seed: 1 }
    }

    /// Runs against an echo that calls `answer` with the number and the bytes of each datagram, and sends back what it
    /// returns.
    fn run_echo(pace: Pace, answer: impl Fn(u64, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Echoed {
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
        let plan = EchoPlan { duration: Some(100 * MS), ..plan(target, pace) };
        send_datagrams(&plan, &AtomicBool::new(false), &mut |_| {}).unwrap()
    }

    #[test]
    fn an_honest_echo_answers_all() {
        for pace in [Pace::Window(4), Pace::Rate(500.0)] {
            let Echoed { counts, .. } = run_echo(pace, |_, datagram| vec![datagram.to_vec()]);
            assert!(counts.sent >= 20 && counts.answered == counts.sent, "{counts:?}");
            assert_eq!((counts.lost(), counts.duplicated, counts.corrupted, counts.errors), (0, 0, 0, 0));
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let Echoed { counts, .. } = run_echo(Pace::Rate(500.0), |_, datagram| vec![datagram.to_vec()]);
        assert!((25..=51).contains(&counts.sent), "{}", counts.sent);
    }

    #[test]
    fn every_fault_of_an_echo_is_counted_separately() {
        let Echoed { counts, .. } = run_echo(Pace::Rate(400.0), |number, datagram| {
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
    fn a_missing_echo_is_a_system_error_and_the_run_ends() {
        let nobody = net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let plan = EchoPlan { sockets: 1, duration: Some(30 * MS), timeout: 30 * MS, ..plan(nobody, Pace::Window(2)) };
        let Echoed { counts, .. } = send_datagrams(&plan, &AtomicBool::new(false), &mut |_| {}).unwrap();
        assert!(counts.errors > 0 && counts.answered == 0 && counts.lost() == counts.sent, "{counts:?}");
    }

    /// A socket that receives datagrams and never answers.
    fn silent() -> (net::UdpSocket, SocketAddr) {
        let socket = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn the_wait_for_a_lost_answer_is_not_counted_in_the_rate() {
        let finished = run_echo(Pace::Rate(500.0), |number, datagram| match number {
            3 => vec![],
            _ => vec![datagram.to_vec()],
        });
        assert!(finished.elapsed >= 100 * MS && finished.answering < finished.elapsed, "{finished:?}");
        let expected = finished.counts.answered as f64 / finished.answering.as_secs_f64();
        assert!((finished.answers_per_second() - expected).abs() < 1e-6);
    }

    #[test]
    fn exactly_the_count_is_sent() {
        let (_silent, target) = silent();
        let plan = EchoPlan { count: Some(7), timeout: MS, ..plan(target, Pace::Interval(MS)) };
        let Echoed { counts, .. } = send_datagrams(&plan, &AtomicBool::new(false), &mut |_| {}).unwrap();
        assert_eq!((counts.sent, counts.lost()), (7, 7));
    }

    #[test]
    fn a_stop_works_while_sockets_are_opened_and_under_full_load() {
        let (_silent, target) = silent();
        for pace in [Pace::Rate(1e9), Pace::Window(u64::MAX), Pace::Interval(Duration::ZERO)] {
            let plan = EchoPlan { sockets: 100, timeout: MS, ..plan(target, pace) };
            let stop = AtomicBool::new(true);
            let Echoed { counts, interrupted, .. } = send_datagrams(&plan, &stop, &mut |_| {}).unwrap();
            assert_eq!((counts.sent, interrupted), (0, true), "{pace:?}");
            stop.store(false, Ordering::Relaxed);
            let mut failed = |_: &Event| {};
            let finished = thread::scope(|scope| {
                let running = scope.spawn(|| send_datagrams(&plan, &stop, &mut failed).unwrap());
                // From the first datagram on, there is always more to send.
                _silent.recv_from(&mut [0; 64]).unwrap();
                stop.store(true, Ordering::Relaxed);
                running.join().unwrap()
            });
            assert!(finished.interrupted, "{pace:?}");
        }
    }

    #[test]
    fn a_stop_waits_for_answers_on_their_way() {
        let (echo, target) = silent();
        let stop = AtomicBool::new(false);
        let finished = thread::scope(|scope| {
            let plan = EchoPlan { sockets: 1, timeout: Duration::from_secs(60), ..plan(target, Pace::Window(1)) };
            let running = scope.spawn({
                let stop = &stop;
                move || send_datagrams(&plan, stop, &mut |_| {}).unwrap()
            });
            let mut buffer = [0; 64];
            let (length, from) = echo.recv_from(&mut buffer).unwrap();
            stop.store(true, Ordering::Relaxed);
            // Longer than it takes to notice the stop.
            thread::sleep(2 * TICK);
            echo.send_to(&buffer[..length], from).unwrap();
            running.join().unwrap()
        });
        assert_eq!((finished.interrupted, finished.counts.answered, finished.counts.lost()), (true, 1, 0));
    }

    #[test]
    fn more_sockets_than_descriptors_are_refused() {
        let (_silent, target) = silent();
        let plan = EchoPlan { sockets: usize::MAX / 2, ..plan(target, Pace::Window(1)) };
        let refused = send_datagrams(&plan, &AtomicBool::new(false), &mut |_| {});
        assert!(matches!(refused, Err(LoadError::Shortage(_))), "{refused:?}");
    }
}

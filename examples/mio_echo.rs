//! The smallest mio echo that survives its peers: TCP and UDP together, one thread, edge-triggered.
//!
//! Five things end or stall a server that is only slightly simpler, and each has its own place below:
//!
//! 1. **accept fails.** Out of descriptors, it pauses and comes back by itself; one lost connection it skips. (`accept`)
//! 2. **a peer resets.** That ends one connection. (`serve_next`)
//! 3. **a write is short.** The rest is kept, and nothing more is read until it is gone. (`Connection::echo`)
//! 4. **a peer never pauses.** A turn has a budget, and what is left over is remembered: the kernel tells of an edge only
//!    once. (`Connection::echo`, `turn`)
//! 5. **a peer falls silent.** The first deadline is the timeout of the poll. (`timeout`, `expire`)
//!
//! ```text
//! cargo run --example mio_echo                      demonstrates the five, on loopback, and ends
//! cargo run --example mio_echo 127.0.0.1:9000       echoes until it is stopped
//! ```

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const UDP: Token = Token(usize::MAX - 1);

/// What one connection may move in one turn, in bytes: enough for the work to outweigh the turn, too little to be noticed
/// by the others.
const BUDGET_BYTES: usize = 64 * 1024;
const DATAGRAMS_A_TURN: usize = 64;
const ACCEPTS_A_TURN: usize = 64;
/// The pause after accept ran out of something that only other people's closing gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The remembered readiness of the listener.
#[derive(Clone, Copy, PartialEq)]
enum Accepting {
    Waiting,
    Ready,
    PausedUntil(Instant),
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    accepting: Accepting,
    udp: UdpSocket,
    udp_ready: bool,
    connections: Slab<Connection>,
    /// Connections that may have more to do; every other one has met `WouldBlock` and waits for its next edge.
    ready: VecDeque<usize>,
    buffer: Box<[u8]>,
    idle_timeout: Duration,
}

struct Connection {
    stream: TcpStream,
    /// What was read and could not be written yet; at most one buffer.
    unsent: Vec<u8>,
    queued: bool,
    deadline: Instant,
}

/// What a connection needs next.
enum Verdict {
    Wait,
    Yield,
    Close,
}

fn main() -> io::Result<()> {
    let Some(address) = std::env::args().nth(1) else { return demonstration::all() };
    let address = address.parse().map_err(|_| io::Error::other("usage: mio_echo [IP:PORT]"))?;
    let mut server = Server::bind(address, IDLE_TIMEOUT)?;
    println!("echoing on {}, TCP and UDP", server.listener.local_addr()?);
    let mut events = Events::with_capacity(1024);
    loop {
        server.turn(&mut events, None)?;
    }
}

impl Server {
    fn bind(address: SocketAddr, idle_timeout: Duration) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        let mut udp = UdpSocket::bind(listener.local_addr()?)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut udp, UDP, Interest::READABLE)?;
        let (connections, ready, buffer) = (Slab::new(), VecDeque::new(), vec![0; 64 * 1024].into());
        let (accepting, udp_ready) = (Accepting::Waiting, false);
        Ok(Self { poll, listener, accepting, udp, udp_ready, connections, ready, buffer, idle_timeout })
    }

    /// One turn; waits `longest` at most. Nothing is closed while events are looked at and nothing is accepted until all
    /// have been served, so that no event can reach a younger connection under an old key.
    fn turn(&mut self, events: &mut Events, longest: Option<Duration>) -> io::Result<()> {
        let timeout = self.timeout().into_iter().chain(longest).min();
        match self.poll.poll(events, timeout) {
            // A signal came: an empty batch, like any other. The next turn works its timeout out anew.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        let now = Instant::now();
        for event in events.iter() {
            match event.token() {
                LISTENER if self.accepting == Accepting::Waiting => self.accepting = Accepting::Ready,
                LISTENER => {}
                UDP => self.udp_ready = true,
                Token(key) => self.enqueue(key),
            }
        }
        // Those that are ready now, once each: who yields comes after everybody else.
        for _ in 0..self.ready.len() {
            self.serve_next(now);
        }
        self.expire(now);
        self.echo_datagrams();
        self.accept(now);
        Ok(())
    }

    /// How long nothing can happen by itself: no time at all while something is still ready, else until the first deadline.
    /// (A scan, because it is short. With thousands of connections, keep the deadlines sorted.)
    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.udp_ready || self.accepting == Accepting::Ready {
            return Some(Duration::ZERO);
        }
        let paused = if let Accepting::PausedUntil(at) = self.accepting { Some(at) } else { None };
        let first = self.connections.iter().map(|(_, connection)| connection.deadline).chain(paused).min();
        first.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn enqueue(&mut self, key: usize) {
        if !std::mem::replace(&mut self.connections[key].queued, true) {
            self.ready.push_back(key);
        }
    }

    fn serve_next(&mut self, now: Instant) {
        let Some(key) = self.ready.pop_front() else { return };
        let connection = &mut self.connections[key];
        connection.queued = false;
        match connection.echo(&mut self.buffer, now + self.idle_timeout) {
            Ok(Verdict::Wait) => {}
            Ok(Verdict::Yield) => self.enqueue(key),
            Ok(Verdict::Close) => self.close(key, "the peer has finished"),
            // Whatever befell this connection is not the server's end.
            Err(error) => self.close(key, &error.to_string()),
        }
    }

    /// Ends who has been silent for too long. Who is in the queue has not: its bytes only wait for their turn.
    fn expire(&mut self, now: Instant) {
        let late =
            |(key, connection): (usize, &Connection)| (!connection.queued && connection.deadline <= now).then_some(key);
        for key in self.connections.iter().filter_map(late).collect::<Vec<_>>() {
            self.close(key, "idle for too long");
        }
        if matches!(self.accepting, Accepting::PausedUntil(at) if at <= now) {
            self.accepting = Accepting::Ready;
        }
    }

    fn close(&mut self, key: usize, why: &str) {
        self.connections.remove(key);
        println!("closed: {why}");
    }

    /// Sends datagrams back. One that cannot be sent is dropped, as the network might have done.
    fn echo_datagrams(&mut self) {
        for _ in 0..DATAGRAMS_A_TURN {
            if !self.udp_ready {
                return;
            }
            match unless_blocked(|| self.udp.recv_from(&mut self.buffer)) {
                Ok(Some((length, peer))) => drop(self.udp.send_to(&self.buffer[..length], peer)),
                Ok(None) => self.udp_ready = false,
                Err(error) => eprintln!("UDP: {error}"),
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_A_TURN {
            if self.accepting != Accepting::Ready {
                return;
            }
            let accepted = unless_blocked(|| self.listener.accept());
            match accepted.and_then(|accepted| accepted.map(|(stream, _)| self.adopt(stream, now)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => self.accepting = Accepting::Waiting,
                // The connection still waits in the backlog, and no edge will tell of it again.
                Err(error) if is_exhausted(&error) => {
                    eprintln!("accept pauses: {error}");
                    self.accepting = Accepting::PausedUntil(now + ACCEPT_PAUSE);
                }
                // One connection was lost before it was ours.
                Err(error) => eprintln!("accept skips one: {error}"),
            }
        }
    }

    fn adopt(&mut self, mut stream: TcpStream, now: Instant) -> io::Result<()> {
        let entry = self.connections.vacant_entry();
        let token = Token(entry.key());
        // Both interests for good: edges that nobody waits for cost little, and there is nothing to keep in step.
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Connection { stream, unsent: Vec::new(), queued: false, deadline: now + self.idle_timeout });
        Ok(())
    }
}

impl Connection {
    /// Echoes until the peer has no more to say, takes no more, or has had its share of the turn.
    fn echo(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<Verdict> {
        let mut budget = BUDGET_BYTES;
        loop {
            // What is owed goes first. While the peer does not take it, nothing is read from it either, and TCP makes it
            // stop: that is all there is to backpressure.
            while !self.unsent.is_empty() {
                let Some(sent) = unless_blocked(|| self.stream.write(&self.unsent))? else { return Ok(Verdict::Wait) };
                self.unsent.drain(..sent);
                self.deadline = deadline;
            }
            if budget == 0 {
                return Ok(Verdict::Yield);
            }
            let share = budget.min(buffer.len());
            match unless_blocked(|| self.stream.read(&mut buffer[..share]))? {
                None => return Ok(Verdict::Wait),
                Some(0) => return Ok(Verdict::Close),
                Some(length) => self.unsent.extend_from_slice(&buffer[..length]),
            }
            budget -= self.unsent.len();
            self.deadline = deadline;
        }
    }
}

/// The call's result, or `None` where it would block; a call that a signal interrupts is made again.
fn unless_blocked<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(Some),
        }
    }
}

/// Whether accept failed for want of something that the whole process or machine shares (accept(2)).
fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Each of the five, provoked. The server runs in the clients' own thread, turn by turn, so that what one turn did can be
/// told exactly.
mod demonstration {
    use std::fs::File;
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    pub fn all() -> io::Result<()> {
        an_echo()?;
        accept_pauses_and_comes_back()?;
        a_reset_ends_one_connection()?;
        who_does_not_read_is_not_read_from()?;
        a_flood_has_its_share_and_no_more()?;
        silence_has_an_end()?;
        a_signal_is_an_empty_batch()
    }

    fn an_echo() -> io::Result<()> {
        println!("-- an echo, TCP and UDP");
        let mut bench = Bench::new(LONG)?;
        let mut client = bench.connect()?;
        client.write_all(b"hello")?;
        assert_eq!(bench.read(&mut client, 5)?, b"hello");

        let udp = UdpSocket::bind("127.0.0.1:0")?;
        udp.set_nonblocking(true)?;
        // More at once than a turn takes, so that some are left when the only edge is spent.
        for length in 0..2 * DATAGRAMS_A_TURN {
            udp.send_to(&vec![length as u8; length], bench.address)?;
        }
        for length in 0..2 * DATAGRAMS_A_TURN {
            let mut buffer = [0; 1500];
            let received = bench.until("a datagram is back", |_| unless_blocked(|| udp.recv(&mut buffer)))?;
            assert_eq!(buffer[..received], vec![length as u8; length]);
        }
        bench.turn()?;
        assert_ne!(bench.server.timeout(), Some(Duration::ZERO), "a server with nothing to do sleeps");
        Ok(())
    }

    fn accept_pauses_and_comes_back() -> io::Result<()> {
        println!("-- accept without a descriptor");
        let mut bench = Bench::new(LONG)?;
        let limit = getrlimit(Resource::Nofile);
        // The lowest free descriptor is the next one given: with this limit the client gets the last, and accept none.
        let lowest_free = File::open("/dev/null")?.as_raw_fd() as u64;
        setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free + 1), ..limit })?;
        let mut client = bench.connect()?;
        bench
            .until("accept pauses", |server| Ok(matches!(server.accepting, Accepting::PausedUntil(_)).then_some(())))?;
        assert_ne!(bench.server.timeout(), Some(Duration::ZERO), "a pause is waited for, not spun through");

        // Nobody connects any more, so there is no new edge: the memory of the old one and the timer must do.
        setrlimit(Resource::Nofile, limit)?;
        client.write_all(b"late")?;
        assert_eq!(bench.read(&mut client, 4)?, b"late");
        Ok(())
    }

    fn a_reset_ends_one_connection() -> io::Result<()> {
        println!("-- a reset");
        let mut bench = Bench::new(LONG)?;
        let (mut resetting, mut other) = (bench.connect()?, bench.connect()?);
        bench.connections_become(2)?;
        resetting.write_all(b"never read back")?;
        socket2::SockRef::from(&resetting).set_linger(Some(Duration::ZERO))?;
        drop(resetting);
        bench.connections_become(1)?;
        other.write_all(b"still here")?;
        assert_eq!(bench.read(&mut other, 10)?, b"still here");
        Ok(())
    }

    fn who_does_not_read_is_not_read_from() -> io::Result<()> {
        println!("-- short writes");
        let mut bench = Bench::new(LONG)?;
        let mut client = bench.connect()?;
        bench.connections_become(1)?;
        // Sends without reading, until for some turns on end nothing more goes in. Both kernel buffers are full then.
        let (mut sent, mut refusals) = (0, 0);
        while refusals < 5 {
            sent += fill(&mut client, sent)?;
            bench.turn()?;
            refusals = if bench.server.ready.is_empty() { refusals + 1 } else { 0 };
            assert!(sent < 1 << 30, "a client that reads nothing must be stopped");
        }
        let unsent = bench.server.connections[0].unsent.len();
        println!("stopped the client after {sent} bytes, of which the server itself holds {unsent}");
        assert!((1..=BUDGET_BYTES).contains(&unsent));
        assert!(bench.read(&mut client, sent)?.into_iter().eq(pattern(0).take(sent)), "the echo is the same bytes");
        Ok(())
    }

    fn a_flood_has_its_share_and_no_more() -> io::Result<()> {
        println!("-- a flood beside a small request");
        let mut bench = Bench::new(LONG)?;
        let (mut flood, mut small) = (bench.connect()?, bench.connect()?);
        bench.connections_become(2)?;
        let (mut sent, mut received, before) = (0, 0, bench.turns);
        for _ in 0..100 {
            sent += fill(&mut flood, sent)?;
            small.write_all(b"ping")?;
            assert_eq!(bench.read(&mut small, 4)?, b"ping");
            assert!(!bench.server.ready.is_empty(), "what the flood has left over is remembered");
            assert_eq!(bench.server.timeout(), Some(Duration::ZERO));
            received += drain(&mut flood)?;
        }
        let turns = (bench.turns - before) as usize;
        println!("100 pings took {turns} turns, while {received} bytes of the flood came back");
        assert!(turns < 200, "a ping must not wait for the flood");
        assert!(received <= turns * BUDGET_BYTES, "no turn is longer than its budget");
        // The flood pauses. Nothing new arrives, and still all of it is served.
        bench.read(&mut flood, sent - received)?;
        Ok(())
    }

    fn silence_has_an_end() -> io::Result<()> {
        println!("-- silence");
        let mut bench = Bench::new(SHORT)?;
        let mut client = bench.connect()?;
        bench.connections_become(1)?;
        let start = Instant::now();
        // No client does anything and nothing else limits the wait: it is the deadline that ends the poll.
        let turns = bench.turns_alone_until(|server| server.connections.is_empty())?;
        println!("{turns} turns until the end");
        assert!(turns <= 3, "silence is waited for, not spun through");
        assert!(start.elapsed() > SHORT / 2, "nobody is closed early");
        assert_eq!(unless_blocked(|| client.read(&mut [0; 1]))?, Some(0));
        Ok(())
    }

    fn a_signal_is_an_empty_batch() -> io::Result<()> {
        println!("-- a signal");
        let mut bench = Bench::new(LONG)?;
        let _client = bench.connect()?;
        bench.connections_become(1)?;
        let caught = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, caught.clone())?;
        // Until the program ends, because one signal could come before the poll.
        thread::spawn(|| {
            loop {
                thread::sleep(SHORT);
                kill_process(getpid(), Signal::USR1).expect("a process may signal itself");
            }
        });
        bench.turns_alone_until(|_| caught.load(Ordering::Relaxed))?;
        assert_eq!(bench.server.connections.len(), 1, "nothing came of it");
        Ok(())
    }

    /// A server and the turns that it has had.
    struct Bench {
        server: Server,
        events: Events,
        address: SocketAddr,
        turns: u32,
    }

    impl Bench {
        fn new(idle_timeout: Duration) -> io::Result<Self> {
            let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), idle_timeout)?;
            let address = server.listener.local_addr()?;
            Ok(Self { server, events: Events::with_capacity(1024), address, turns: 0 })
        }

        /// A client that never blocks. The kernel completes the connection, whether the server accepts it or not.
        fn connect(&self) -> io::Result<TcpStream> {
            let client = TcpStream::connect(self.address)?;
            client.set_nonblocking(true)?;
            Ok(client)
        }

        fn turn(&mut self) -> io::Result<()> {
            self.turns += 1;
            self.server.turn(&mut self.events, Some(Duration::from_millis(10)))
        }

        /// Takes turns until `done` has a value.
        fn until<T>(&mut self, what: &str, mut done: impl FnMut(&Server) -> io::Result<Option<T>>) -> io::Result<T> {
            let start = Instant::now();
            loop {
                if let Some(value) = done(&self.server)? {
                    return Ok(value);
                }
                assert!(start.elapsed() < LONG / 2, "waited in vain until {what}");
                self.turn()?;
            }
        }

        /// Takes turns that wait for as long as the server itself thinks right; returns how many it took.
        fn turns_alone_until(&mut self, done: impl Fn(&Server) -> bool) -> io::Result<usize> {
            let mut turns = 0;
            while !done(&self.server) {
                self.server.turn(&mut self.events, None)?;
                turns += 1;
            }
            Ok(turns)
        }

        fn connections_become(&mut self, count: usize) -> io::Result<()> {
            self.until("connections come or go", |server| Ok((server.connections.len() == count).then_some(())))
        }

        /// Reads `length` bytes as a client, taking turns while there are none.
        fn read(&mut self, client: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; length];
            let mut read = 0;
            while read < length {
                read += self.until("a client can read", |_| unless_blocked(|| client.read(&mut bytes[read..])))?;
            }
            Ok(bytes)
        }
    }

    /// The bytes that clients send, from any offset on.
    fn pattern(offset: usize) -> impl Iterator<Item = u8> {
        (offset..).map(|position| (position % 251) as u8)
    }

    /// Sends until the kernel takes no more; returns how much it took.
    fn fill(client: &mut TcpStream, offset: usize) -> io::Result<usize> {
        let bytes: Vec<u8> = pattern(offset).take(1 << 20).collect();
        let mut sent = 0;
        while let Some(length) = unless_blocked(|| client.write(&bytes[sent..]))?.filter(|&length| length > 0) {
            sent += length;
        }
        Ok(sent)
    }

    /// Receives until there is no more for now; returns how much there was.
    fn drain(client: &mut TcpStream) -> io::Result<usize> {
        let (mut buffer, mut received) = ([0; 64 * 1024], 0);
        while let Some(length) = unless_blocked(|| client.read(&mut buffer))?.filter(|&length| length > 0) {
            received += length;
        }
        Ok(received)
    }
}

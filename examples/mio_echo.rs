//! All of it together: an echo server on raw mio that survives its peers, one thread, edge-triggered.
//!
//! The smallest such server is half as long, but ends or stalls as soon as a peer resets, does not read, never pauses, falls
//! silent, or comes when no descriptor is left. Here each of these has its place:
//!
//! 1. **A peer resets.** That ends one connection. (`Server::serve`)
//! 2. **A write is short.** The rest is kept, and nothing is read until it is written. (`Connection::echo`)
//! 3. **A peer never pauses.** It has a budget, and the server remembers that more is left. (`Connection::echo`)
//! 4. **A peer falls silent.** The first deadline is the timeout of the poll. (`Server::timeout`, `Server::expire`)
//! 5. **Accept fails.** It is tried again after a pause, because no edge will come. (`Server::accept`)
//!
//! ```text
//! cargo run --example mio_echo                      shows the first four, and ends
//! cargo run --example mio_echo 127.0.0.1:9000       echoes until it is stopped
//! ```

mod loopback;

use std::io::{self, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::time::Duration;
use std::{env, thread};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use intake::net::{Accept, Listener, Sharing, now};
use intake::reactor::{Budget, Deadlines, Id, Moment, ReadyQueue, Slots};
use loopback::{ANY, fill, id, token, unless_blocked};

/// The listener's token. The tokens of connections are larger.
const LISTENER: Token = Token(0);
const BUDGET_BYTES: usize = 64 << 10;
const ACCEPTS_A_TURN: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const FLOOD_BYTES: usize = 64 << 20;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

struct Server {
    poll: Poll,
    events: Events,
    listener: Listener,
    /// When to accept. `None`: the backlog is empty, and an edge will report the next client.
    accept_at: Option<Moment>,
    connections: Slots<Connection>,
    /// Connections that may have more to do. Every other one has met `WouldBlock` and waits for its next edge.
    ready: ReadyQueue,
    deadlines: Deadlines,
    buffer: Box<[u8]>,
    idle_timeout: Duration,
}

struct Connection {
    stream: TcpStream,
    /// Bytes that were read and could not be written yet, at most one buffer.
    unsent: Vec<u8>,
    deadline: Moment,
}

/// What happens next to a connection.
enum Verdict {
    Wait,
    Yield,
    Close,
}

fn main() -> io::Result<()> {
    let Some(address) = env::args().nth(1) else { return demonstrate() };
    let address = address.parse().map_err(|_| io::Error::other("usage: mio_echo [IP:PORT]"))?;
    let mut server = Server::bind(address, IDLE_TIMEOUT)?;
    println!("echoing on {}", server.listener.local_addr()?);
    server.run()
}

impl Server {
    fn bind(address: SocketAddr, idle_timeout: Duration) -> io::Result<Self> {
        let (poll, mut listener) = (Poll::new()?, Listener::bind(address, Sharing::default())?);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (connections, ready, deadlines) = (Slots::default(), ReadyQueue::default(), Deadlines::default());
        let (events, accept_at, buffer) = (Events::with_capacity(1024), None, vec![0; BUDGET_BYTES].into());
        Ok(Self { poll, events, listener, accept_at, connections, ready, deadlines, buffer, idle_timeout })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            self.turn()?;
        }
    }

    /// One turn. Nothing is closed while events are looked at, and nothing is accepted until all have been served.
    fn turn(&mut self) -> io::Result<()> {
        let asked = now();
        let timeout = self.timeout(asked);
        match self.poll.poll(&mut self.events, timeout) {
            // A signal came, which is like an empty batch. The next turn computes its timeout anew.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        for event in &self.events {
            match id(event) {
                Some(id) => self.ready.push(id),
                // An edge does not shorten a pause.
                None => self.accept_at = self.accept_at.or(Some(asked)),
            }
        }
        let now = now();
        self.serve(now);
        self.expire(asked);
        self.accept(now);
        Ok(())
    }

    /// How long the poll may sleep: not at all while a connection is ready, else until the first deadline.
    fn timeout(&self, now: Moment) -> Option<Duration> {
        let busy = (!self.ready.is_empty()).then_some(now);
        let first = [busy, self.accept_at, self.deadlines.first()].into_iter().flatten().min();
        first.map(|at| at.since(now))
    }

    /// Serves each connection that is ready now once. One that yields goes behind all others.
    fn serve(&mut self, now: Moment) {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop() else { return };
            let Some(connection) = self.connections.get_mut(id) else { continue };
            match connection.echo(&mut self.buffer, now + self.idle_timeout) {
                Ok(Verdict::Wait) => {}
                Ok(Verdict::Yield) => self.ready.push(id),
                Ok(Verdict::Close) => self.close(id, "the peer has finished"),
                // Whatever happened to this connection, the server continues.
                Err(error) => self.close(id, &error.to_string()),
            }
        }
    }

    /// Closes the connections that have been silent for too long. A connection in the queue is not silent: it has unread bytes.
    fn expire(&mut self, moment: Moment) {
        while let Some(id) = self.deadlines.pop_due(moment) {
            let Some(connection) = self.connections.get(id) else { continue };
            let deadline = if self.ready.contains(id) { moment + self.idle_timeout } else { connection.deadline };
            if deadline <= moment {
                self.close(id, "idle for too long");
            } else {
                self.deadlines.arm(id, deadline);
            }
        }
    }

    fn close(&mut self, id: Id, why: &str) {
        self.connections.remove(id);
        self.deadlines.disarm(id);
        println!("   the server closes: {why}");
    }

    fn accept(&mut self, now: Moment) {
        for _ in 0..ACCEPTS_A_TURN {
            if self.accept_at.is_none_or(|at| at > now) {
                return;
            }
            match self.listener.accept() {
                Accept::Connection(stream, _) => self.adopt(stream, now + self.idle_timeout),
                Accept::PeerGone(error) => eprintln!("a client disconnected before accept: {error}"),
                Accept::Drained => self.accept_at = None,
                Accept::Exhausted(error) => {
                    eprintln!("accept pauses: {error}");
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                }
            }
        }
    }

    fn adopt(&mut self, mut stream: TcpStream, deadline: Moment) {
        // Register both interests once: a needless edge costs little, and the interests never need a change.
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token(self.connections.next_id()), both) {
            return eprintln!("cannot register a connection, so it is closed: {error}");
        }
        let id = self.connections.insert(Connection { stream, unsent: Vec::new(), deadline });
        self.deadlines.arm(id, deadline);
    }
}

impl Connection {
    /// Echoes until nothing more can be read or written, or the budget is spent.
    fn echo(&mut self, buffer: &mut [u8], deadline: Moment) -> io::Result<Verdict> {
        let mut budget = Budget::new(BUDGET_BYTES);
        loop {
            // Unsent bytes go first. While the peer does not read them, the server does not read from it, and TCP stops
            // it. That is all of backpressure.
            while !self.unsent.is_empty() {
                let Some(sent) = unless_blocked(|| self.stream.write(&self.unsent))? else { return Ok(Verdict::Wait) };
                self.unsent.drain(..sent);
                self.deadline = deadline;
            }
            if budget.is_spent() {
                return Ok(Verdict::Yield);
            }
            match unless_blocked(|| self.stream.read(buffer))? {
                None => return Ok(Verdict::Wait),
                Some(0) => return Ok(Verdict::Close),
                Some(length) => self.unsent.extend_from_slice(&buffer[..length]),
            }
            budget.spend(self.unsent.len());
            self.deadline = deadline;
        }
    }
}

/// Four kinds of bad peers, and an honest one that is answered in between.
fn demonstrate() -> io::Result<()> {
    let mut server = Server::bind(ANY, Duration::from_secs(1))?;
    let address = server.listener.local_addr()?;
    thread::spawn(move || server.run());
    let mut honest = net::TcpStream::connect(address)?;
    let mut is_answered = || -> io::Result<()> {
        let mut answer = [0; 4];
        honest.write_all(b"ping")?;
        honest.read_exact(&mut answer)?;
        assert_eq!(&answer, b"ping");
        Ok(())
    };

    println!("-- one resets");
    let mut resets = net::TcpStream::connect(address)?;
    resets.write_all(b"never read back")?;
    SockRef::from(&resets).set_linger(Some(Duration::ZERO))?;
    drop(resets);
    is_answered()?;

    println!("-- one sends and does not read");
    let mut stuck = net::TcpStream::connect(address)?;
    let sent = fill(&stuck)?;
    is_answered()?;
    stuck.shutdown(Shutdown::Write)?;
    let echoed = stuck.read_to_end(&mut Vec::new())?;
    println!("   stopped after {sent} bytes, of which {echoed} come back when it reads");
    assert_eq!(echoed, sent, "bytes that the peer does not read stay where they are");

    println!("-- one never pauses");
    let (flood, mut pings) = (net::TcpStream::connect(address)?, 0);
    let echoed = thread::scope(|scope| {
        scope.spawn(|| (&flood).write_all(&vec![b'a'; FLOOD_BYTES]).and_then(|()| flood.shutdown(Shutdown::Write)));
        let echoed = scope.spawn(|| io::copy(&mut &flood, &mut io::sink()));
        while !echoed.is_finished() {
            is_answered()?;
            pings += 1;
        }
        echoed.join().expect("a read does not panic")
    })?;
    println!("   {echoed} bytes come back to it, and {pings} pings to the honest one meanwhile");
    assert_eq!(echoed as usize, FLOOD_BYTES);
    assert!(pings > 10, "a ping must not wait for the flood");

    println!("-- one falls silent");
    let (start, mut silent) = (now(), net::TcpStream::connect(address)?);
    while now().since(start) < Duration::from_millis(500) {
        is_answered()?;
    }
    assert_eq!(silent.read(&mut [0; 1])?, 0, "its deadline has passed");
    println!("   ended after {:.1?}", now().since(start));
    is_answered()
}

//! Out of descriptors: accept fails, the client stays in the backlog, and no edge says when to try again.
//!
//! Five clients have connected, and the server has descriptors for two of them. When a connection ends there is room
//! for the third. Does the server notice?

#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod loopback;

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::{Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use intake::net::diag::Diag;
use intake::net::{Accept, Listener, Sharing};
use loopback::{ANY, PATIENCE, SILENCE, settle, wait};

const CLIENTS: usize = 5;
const ROOM: usize = 2;
const PAUSE: Duration = Duration::from_millis(50);

/// What the server does after an accept has failed for lack of descriptors.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Wrong: nothing, as if another event would come.
    Forget,
    /// Wrong: tries again at once.
    TryAtOnce,
    /// Right: remembers the readiness, and sets a timer for the next try.
    Pause,
}

fn main() -> io::Result<()> {
    let [forget, at_once, pause] = [run(Manner::Forget)?, run(Manner::TryAtOnce)?, run(Manner::Pause)?];
    assert_eq!((forget.in_vain, forget.comes_back), (1, false), "silence");
    assert!(
        at_once.comes_back && at_once.in_vain > 10 * pause.in_vain,
        "it keeps a processor busy until a connection ends"
    );
    assert!(
        pause.comes_back && pause.in_vain <= 2 + SILENCE.div_duration_f64(PAUSE) as usize,
        "it sleeps between two tries"
    );
    Ok(())
}

struct Outcome {
    /// Tries that failed before a connection ended.
    in_vain: usize,
    /// Whether the third client was accepted after a connection had ended.
    comes_back: bool,
}

fn run(manner: Manner) -> io::Result<Outcome> {
    println!("-- {manner:?}");
    // Asking the kernel takes a descriptor, too, so open it in advance.
    let (mut server, mut diag) = (Server::bind(manner)?, Diag::open()?);
    let address = server.listener.local_addr()?;
    let _clients = (0..CLIENTS).map(|_| TcpStream::connect(address)).collect::<io::Result<Vec<_>>>()?;
    settle();
    let limit = leave_descriptors(ROOM)?;

    server.turns_until(SILENCE, |_| false)?;
    let (in_vain, waiting) = (server.failures, diag.listener(address)?.unread as usize);
    println!("{ROOM} accepted; failed tries within {SILENCE:?}: {in_vain}; in the backlog, says the kernel: {waiting}");
    assert_eq!((server.accepted.len(), waiting), (ROOM, CLIENTS - ROOM));

    let edges = server.edges;
    drop(server.accepted.pop());
    let longest = if let Manner::Forget = manner { SILENCE } else { PATIENCE };
    let comes_back = server.turns_until(longest, |server| server.accepted.len() == ROOM)?;
    println!("one connection ends: the third is {}", if comes_back { "accepted" } else { "not accepted" });
    assert_eq!(server.edges, edges, "none of the three servers gets an event for the free descriptor");

    setrlimit(Resource::Nofile, limit)?;
    if !comes_back {
        let _newcomer = TcpStream::connect(address)?;
        assert!(server.turns_until(PATIENCE, |server| server.accepted.len() == CLIENTS)?);
        println!("a sixth one connects, and its edge brings in all {} that waited", CLIENTS + 1 - ROOM);
    }
    Ok(Outcome { in_vain, comes_back })
}

/// Lowers the soft limit until `count` descriptors are left (getrlimit(2)). Returns the limit before.
fn leave_descriptors(count: usize) -> io::Result<Rlimit> {
    // A new descriptor is always the lowest free one, and the limit is one more than the highest allowed.
    let lowest_free = (0..count).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<_>>>()?;
    let highest = lowest_free.iter().map(|file| file.as_raw_fd()).max().unwrap_or_default();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest as u64 + 1), ..limit })?;
    Ok(limit)
}

struct Server {
    manner: Manner,
    poll: Poll,
    listener: Listener,
    /// An edge has reported clients, and accept has not returned `WouldBlock` since.
    ready: bool,
    paused_until: Option<Instant>,
    accepted: Vec<mio::net::TcpStream>,
    edges: usize,
    failures: usize,
}

impl Server {
    fn bind(manner: Manner) -> io::Result<Self> {
        let (poll, mut listener) = (Poll::new()?, Listener::bind(ANY, Sharing::default())?);
        poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
        let (ready, paused_until, accepted) = (false, None, Vec::new());
        Ok(Self { manner, poll, listener, ready, paused_until, accepted, edges: 0, failures: 0 })
    }

    /// Runs turns until `done`, for `longest` at most. Returns whether it is done.
    fn turns_until(&mut self, longest: Duration, done: impl Fn(&Self) -> bool) -> io::Result<bool> {
        let end = Instant::now() + longest;
        while !done(self) && Instant::now() < end {
            let now = Instant::now();
            let wake = self.paused_until.unwrap_or(if self.ready { now } else { end });
            let edges = wait(&mut self.poll, wake.min(end).saturating_duration_since(now))?.len();
            self.edges += edges;
            self.ready |= edges > 0;
            if self.paused_until.is_none_or(|at| at <= Instant::now()) {
                self.paused_until = None;
                self.accept();
            }
        }
        Ok(done(self))
    }

    fn accept(&mut self) {
        while self.ready {
            match self.listener.accept() {
                Accept::Connection(stream, _) => self.accepted.push(stream),
                Accept::Drained => self.ready = false,
                // One client disconnected before it was accepted. The others are not affected.
                Accept::PeerGone(_) => {}
                Accept::Exhausted(_) => return self.exhausted(),
            }
        }
    }

    fn exhausted(&mut self) {
        self.failures += 1;
        match self.manner {
            Manner::Forget => self.ready = false,
            Manner::TryAtOnce => {}
            Manner::Pause => self.paused_until = Some(Instant::now() + PAUSE),
        }
    }
}

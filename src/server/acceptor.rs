//! Accepts new connections, as long as there is room for them, and turns away clients that may not connect.
//!
//! The kernel reports a listener's readiness once, so it is remembered here until `accept` says `WouldBlock`. A client that
//! cannot be accepted yet, at the connection limit or for lack of descriptors, waits in the kernel's backlog. No new edge
//! is needed to accept it later.
//!
//! ```text
//!             an edge                    WouldBlock
//!   waiting ------------> worth a try ----------------> waiting
//!                          ^   |   |  at the limit: until a connection ends
//!        the pause is over |   |
//!  or a connection ends    |   v  out of descriptors or memory
//!                          +- paused
//! ```

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::Connections;
use crate::net::{Accept, Listener};
use crate::proto::Refusal;
use crate::reactor::Moment;
use crate::store::Store;

/// Accepted in one turn and from one listener, so that many new connections at once do not delay the others.
const ACCEPTS_PER_TURN: usize = 128;
/// How many clients are turned away in the time of one accept: they cost a few system calls, and those behind them should not
/// wait for them.
const TURNED_AWAY_PER_ACCEPT: usize = 4;
/// How much of what a client has sent is discarded before it is turned away, in bytes: more than the first packets hold.
const DISCARDED_BYTES: usize = 64 << 10;
/// How long nothing is accepted after the system ran out of descriptors or memory, unless a connection ends earlier.
const PAUSE: Duration = Duration::from_millis(100);

/// The listeners, and whether a client may be waiting at each.
pub struct Acceptor {
    doors: Vec<Door>,
    max_connections: usize,
    pause: Option<Pause>,
    /// How many pauses there have been.
    pauses: u64,
}

struct Door {
    listener: Listener,
    ready: bool,
}

struct Pause {
    until: Moment,
    /// The number of connections when it began: with fewer there is room again.
    held: usize,
}

impl Acceptor {
    /// Registers the listeners with the poll, under the tokens from 0 on.
    ///
    /// # Errors
    /// The error of the poll.
    pub fn register(listeners: Vec<Listener>, max_connections: usize, registry: &Registry) -> io::Result<Self> {
        let mut doors = Vec::with_capacity(listeners.len());
        for (index, mut listener) in listeners.into_iter().enumerate() {
            registry.register(&mut listener, Token(index), Interest::READABLE)?;
            doors.push(Door { listener, ready: false });
        }
        Ok(Self { doors, max_connections, pause: None, pauses: 0 })
    }

    /// The most connections at once.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// How often it has paused because descriptors or memory had run out.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }

    /// Whether it has paused, and clients wait.
    pub fn is_pausing(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|until| now < until)
    }

    /// Notes that a client waits at the listener of this index, if there is such a listener.
    pub fn absorb(&mut self, index: usize) {
        if let Some(door) = self.doors.get_mut(index) {
            door.ready = true;
        }
    }

    /// Whether a client waits that can be accepted now.
    pub fn is_ready(&self, held: usize, now: Moment) -> bool {
        self.somebody_waits() && held < self.max_connections && !self.is_paused(held, now)
    }

    /// When a pause ends.
    pub fn deadline(&self) -> Option<Moment> {
        self.pause.as_ref().filter(|_| self.somebody_waits()).map(|pause| pause.until)
    }

    /// Accepts a bounded number of connections, and turns away a bounded number.
    pub fn accept<D: Store>(&mut self, connections: &mut Connections<TcpStream, D>, registry: &Registry, now: Moment) {
        for index in 0..self.doors.len() {
            let mut left = ACCEPTS_PER_TURN * TURNED_AWAY_PER_ACCEPT;
            while left > 0 && self.doors[index].ready && self.is_ready(connections.len(), now) {
                let is_turned_away = self.accept_one(index, connections, registry, now);
                left = left.saturating_sub(if is_turned_away { 1 } else { TURNED_AWAY_PER_ACCEPT });
            }
        }
    }

    /// Stops listening. The kernel resets the connections in the backlog.
    pub fn close(&mut self, registry: &Registry) {
        for mut door in self.doors.drain(..) {
            // A service manager may hold the socket open, and then the close alone would not end its events.
            let _ = registry.deregister(&mut door.listener);
        }
    }

    /// Returns whether a client was turned away.
    fn accept_one<D: Store>(
        &mut self,
        index: usize,
        connections: &mut Connections<TcpStream, D>,
        registry: &Registry,
        now: Moment,
    ) -> bool {
        let door = &mut self.doors[index];
        match door.listener.accept() {
            Accept::Connection(mut stream, peer) => {
                if let Err(refusal) = connections.screen(peer, now) {
                    turn_away(stream, &refusal);
                    return true;
                }
                let admitted = connections.admit(peer, now, |id| {
                    let token = Token(id.to_bits() as usize);
                    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    Ok(stream)
                });
                match admitted {
                    Ok(()) => self.pause = None,
                    Err(error) => self.pause(&error, connections.len(), now),
                }
            }
            Accept::Drained => door.ready = false,
            Accept::PeerGone(error) => log::debug!("a client went before it was accepted: {error}"),
            Accept::Exhausted(error) => self.pause(&error, connections.len(), now),
        }
        false
    }

    fn pause(&mut self, error: &io::Error, held: usize, now: Moment) {
        if self.pause.is_none() {
            self.pauses += 1;
            log::warn!("accepting pauses with {held} connections held, until one ends or the system has room: {error}");
        }
        self.pause = Some(Pause { until: now + PAUSE, held });
    }

    fn somebody_waits(&self) -> bool {
        self.doors.iter().any(|door| door.ready)
    }

    fn is_paused(&self, held: usize, now: Moment) -> bool {
        self.pause.as_ref().is_some_and(|pause| now < pause.until && held >= pause.held)
    }
}

/// Says the refusal as a line, whatever the client speaks, since nothing of it was read; and closes. A linger would keep a
/// descriptor for each client that is not wanted. So if more comes after the close, the line may be lost to the reset that
/// answers it. What has come already is discarded, so that it does not cause one.
fn turn_away(mut stream: TcpStream, refusal: &Refusal) {
    let said = stream.write(&refusal.to_line());
    if said.is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        let _ = stream.read(&mut [0; DISCARDED_BYTES]);
    }
}

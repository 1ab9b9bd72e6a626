//! A simulated edge-triggered network with short reads and full buffers, and the random numbers that drive it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use intake::net::{Pipe, Readiness, Stream};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
#[derive(Clone)]
pub struct Chance(Rc<Cell<u64>>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(Cell::new(seed)))
    }

    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn millis(&self, limit: usize) -> Duration {
        Duration::from_millis(self.below(limit) as u64)
    }

    pub fn bytes(&self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

/// One TCP connection, as the server's kernel sees it.
#[derive(Default)]
pub struct Wire {
    pub inbound: VecDeque<u8>,
    pub fin: bool,
    pub reset: bool,
    /// A read or write reports an error once. After that the stream looks as if it had ended in order.
    error_was_reported: bool,
    pub outbound: Vec<u8>,
    /// How many more bytes fit into the send buffer. The client makes room by reading now and then.
    pub room: usize,
    /// Something happened since the last event.
    pub edge: bool,
    write_was_shut_down: bool,
    pub was_reset_by_server: bool,
    reset_on_close: bool,
    /// The planted mistake: no close is a reset.
    pub never_resets: bool,
    pub closed: bool,
    /// Fewer unread bytes than this cause no event before the end of the stream.
    low_water: usize,
    /// The stream is like TLS. It starts with a handshake: it has bytes of its own to send, and the client continues when it
    /// has them. It holds bytes that the kernel does not have any more, and its end has to be announced.
    pub is_chatty: bool,
    /// The send buffer may be full for a moment in the handshake. A server that is stopped just then finds its client late.
    pub handshake_may_block: bool,
    has_begun: bool,
    /// How many of the stream's own bytes wait to be sent.
    own: usize,
    /// Bytes that the stream holds, of which no event tells.
    held: VecDeque<u8>,
    /// The client ends without an announcement, as a program that is killed.
    pub ends_unannounced: bool,
    /// The server has announced its end.
    pub has_announced: bool,
}

impl Wire {
    /// A new connection whose send buffer takes `room` bytes.
    pub fn with_room(room: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { room, ..Self::default() }))
    }

    /// Bytes from the client arrive.
    pub fn arrive(&mut self, bytes: &[u8]) {
        self.inbound.extend(bytes);
        self.edge |= self.causes_event();
    }

    /// The next event, if one is due.
    pub fn event(&mut self) -> Option<Readiness> {
        std::mem::take(&mut self.edge).then(|| self.readiness())
    }

    /// What an event would report.
    pub fn readiness(&self) -> Readiness {
        Readiness { readable: self.own == 0 && self.causes_event(), writable: true }
    }

    fn causes_event(&self) -> bool {
        self.fin || self.reset || self.inbound.len() >= self.low_water
    }
}

pub struct SimStream {
    pub wire: Rc<RefCell<Wire>>,
    pub chance: Chance,
}

impl Read for SimStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.wire.borrow_mut();
        if self.chance.one_in(50) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if wire.is_chatty && !wire.has_begun && !wire.inbound.is_empty() {
            wire.has_begun = true;
            wire.own = 1;
        }
        if wire.own > 0 && !wire.reset {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if wire.is_chatty && wire.held.is_empty() {
            // A record at a time.
            let record = (1 + self.chance.below(3000)).min(wire.inbound.len());
            wire.held = wire.inbound.drain(..record).collect();
        }
        if !wire.held.is_empty() {
            let count = buffer.len().min(1 + self.chance.below(2000));
            return wire.held.read(&mut buffer[..count]);
        }
        if !wire.inbound.is_empty() {
            let short = if self.chance.one_in(3) { 1 + self.chance.below(40) } else { usize::MAX };
            let count = wire.inbound.len().min(buffer.len()).min(short);
            return wire.inbound.read(&mut buffer[..count]);
        }
        if wire.reset && !wire.error_was_reported {
            wire.error_was_reported = true;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if wire.fin && wire.ends_unannounced {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if wire.fin || wire.reset { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.wire.borrow_mut();
        assert!(!wire.write_was_shut_down, "nothing is sent after the last word");
        if wire.reset {
            wire.error_was_reported = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if wire.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = wire.room.min(bytes.len());
        wire.room -= count;
        wire.outbound.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut wire = self.wire.borrow_mut();
        assert!(!wire.write_was_shut_down, "nothing is sent after the last word");
        if wire.reset {
            wire.error_was_reported = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if wire.own == 0 {
            return Ok(());
        }
        // Either the buffer is full for a moment, or the bytes leave and the client continues. An event reports both.
        wire.edge = true;
        if self.chance.one_in(3) && (wire.has_announced || wire.handshake_may_block) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.own = 0;
        Ok(())
    }
}

impl Stream for SimStream {
    fn owes(&self) -> bool {
        self.wire.borrow().own > 0
    }

    fn end_is_proven(&self) -> bool {
        self.wire.borrow().is_chatty
    }

    fn announce_end(&mut self) -> bool {
        let mut wire = self.wire.borrow_mut();
        if wire.is_chatty && !wire.has_announced {
            wire.has_announced = true;
            wire.own += 1;
        }
        wire.own > 0
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 9000)))
    }

    /// Returns as little as the kernel: 0 can mean anything but an error, and an error is reported once.
    fn splice(&mut self, pipe: &Pipe, max: usize) -> io::Result<usize> {
        if self.wire.borrow().is_chatty {
            return Ok(0);
        }
        if self.wire.borrow().inbound.is_empty() && !self.wire.borrow().reset || self.chance.one_in(10) {
            return if self.chance.one_in(2) { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        // 4096 bytes fit into a pipe of any size, and into the next one.
        let mut buffer = [0; 4096];
        let count = self.read(&mut buffer[..max.min(4096)])?;
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&buffer[..count])?;
        drop(writer);
        pipe.fill(&reader, count)
    }

    fn set_low_water(&mut self, bytes: usize) {
        let mut wire = self.wire.borrow_mut();
        if wire.is_chatty {
            return;
        }
        wire.low_water = bytes;
        wire.edge |= wire.causes_event();
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let mut wire = self.wire.borrow_mut();
        assert_eq!(wire.own, 0, "the stream has sent its own bytes first");
        assert!(wire.has_announced || !wire.is_chatty, "an end is announced");
        wire.write_was_shut_down = true;
        Ok(())
    }

    fn reset_on_close(&mut self, resets: bool) -> io::Result<()> {
        self.wire.borrow_mut().reset_on_close = resets;
        Ok(())
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if thread::panicking() {
            // A machine that has stopped sends nothing.
            return;
        }
        let mut wire = self.wire.borrow_mut();
        wire.closed = true;
        // A close with unread data is a reset, and overtakes what was sent (RFC 1122 4.2.2.13).
        wire.was_reset_by_server = !wire.never_resets && wire.reset_on_close || !wire.inbound.is_empty();
    }
}

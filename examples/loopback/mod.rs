//! What the examples share: connections over loopback and the ways to wait, and in [`kernel`] what the kernel says of them.
//!
//! It must not know what any of them shows. Client and server are mostly one thread, so that a demonstration goes step by
//! step and counts the same in every run.

#![allow(clippy::disallowed_methods, reason = "helpers of blocking programs: they wait, up to a deadline")]
#![allow(dead_code, reason = "each example is a program of its own, and uses some of it")]

pub mod kernel;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use intake::reactor::Id;
use mio::event::Event;
use mio::{Events, Poll, Token};

/// Any port of this machine.
pub const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// So long a silence will last: what can come over loopback has come long before.
pub const SILENCE: Duration = Duration::from_millis(200);
/// More than any machine needs: a wait of this length is in vain.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that is established: its client and its server, both blocking.
pub fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(ANY)?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

/// The same, with a server that never blocks and can be registered.
pub fn mio_pair() -> io::Result<(TcpStream, mio::net::TcpStream)> {
    let (client, server) = pair()?;
    server.set_nonblocking(true)?;
    Ok((client, mio::net::TcpStream::from_std(server)))
}

/// Two UDP sockets, the first of which sends to the second.
pub fn udp_pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let (client, server) = (UdpSocket::bind(ANY)?, UdpSocket::bind(ANY)?);
    client.connect(server.local_addr()?)?;
    Ok((client, server))
}

/// Waits for events, for `longest` at most. After a signal it waits for the rest of the time. (A server keeps its `Events`
/// from turn to turn; a new list for each makes the examples shorter.)
pub fn wait(poll: &mut Poll, longest: Duration) -> io::Result<Vec<Event>> {
    let (end, mut events) = (Instant::now() + longest, Events::with_capacity(128));
    loop {
        match poll.poll(&mut events, Some(end.saturating_duration_since(Instant::now()))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => return polled.map(|()| events.iter().cloned().collect()),
        }
    }
}

/// The token under which a connection is registered.
pub fn token(id: Id) -> Token {
    Token(id.to_bits() as usize)
}

/// The connection that an event is for.
pub fn id(event: &Event) -> Option<Id> {
    Id::from_bits(event.token().0 as u64)
}

/// The call's result. `None`: it would block. A call that a signal interrupts is made again.
pub fn unless_blocked<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(Some),
        }
    }
}

/// Writes until no more bytes fit, so that what is sent next has to wait. Returns how many bytes fitted.
pub fn fill(mut stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let mut written = 0;
    while let Some(length) = unless_blocked(|| stream.write(&[b'a'; 64 * 1024]))? {
        written += length;
    }
    stream.set_nonblocking(false)?;
    Ok(written)
}

/// Looks until there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for what was sent to arrive, if there is no way to ask. Over loopback it mostly has arrived when the call that
/// sent it returns, but a busy kernel may be later.
pub fn settle() {
    thread::sleep(Duration::from_millis(100));
}

//! Shared helpers of the examples: connections over loopback, ways to wait, and in [`kernel`] the kernel's view of both.
//!
//! They must not know what any example shows. Client and server are mostly one thread, so that a demonstration goes step by
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
/// How long to wait before silence counts as such: anything sent over loopback arrives much sooner.
pub const SILENCE: Duration = Duration::from_millis(200);
/// How long to wait for an event: far longer than any machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The client and the server of an established connection, both blocking.
pub fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(ANY)?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

/// As [`pair`], with a non-blocking server that can be registered.
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

/// Polls until `look` returns a value.
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

/// Waits until sent bytes have arrived, where there is no way to ask. Over loopback they mostly arrive before the sending
/// call returns, but a busy kernel may be later.
pub fn settle() {
    thread::sleep(Duration::from_millis(100));
}

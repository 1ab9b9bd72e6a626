//! What the examples of readiness share: connections over loopback, a wait, and the kernel's own figures.
//!
//! Knows nothing of what any of them shows. Client and server are mostly one thread here, so that a demonstration can
//! be told step by step and counts the same at every run.

#![allow(dead_code, reason = "each example uses some of it")]

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use rustix::io::ioctl_fionread;

/// Any port of this machine.
pub const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// Silence for so long is silence: what can come over loopback has come long before.
pub const SILENCE: Duration = Duration::from_millis(200);
/// More than any machine needs; whoever waited this long has waited in vain.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that is established: the client's end, and the server's, which never blocks.
pub fn connect(listener: &TcpListener) -> io::Result<(TcpStream, mio::net::TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    server.set_nonblocking(true)?;
    Ok((client, mio::net::TcpStream::from_std(server)))
}

/// Waits for events, for `longest` at most, and returns how many came. After a signal it goes on with
/// what is left of the time.
pub fn wait(poll: &mut Poll, events: &mut Events, longest: Duration) -> io::Result<usize> {
    let end = Instant::now() + longest;
    loop {
        match poll.poll(events, Some(end.saturating_duration_since(Instant::now()))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => return polled.map(|()| events.iter().count()),
        }
    }
}

/// Lets what was sent arrive. Over loopback it mostly has when the call that sent it returns, but a busy kernel puts it
/// off.
pub fn settle() {
    thread::sleep(Duration::from_millis(100));
}

/// Returns when so many bytes wait in the kernel to be read from `stream`.
pub fn arrived(stream: &impl AsFd, bytes: usize) -> io::Result<()> {
    let start = Instant::now();
    while unread(stream)? < bytes {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {bytes} bytes");
        thread::yield_now();
    }
    Ok(())
}

/// How many bytes wait in the kernel to be read from `stream` (FIONREAD, tcp(7)).
pub fn unread(stream: &impl AsFd) -> io::Result<usize> {
    Ok(ioctl_fionread(stream)? as usize)
}

/// The call's result, or `None` where it would block; a call that a signal interrupts is made again.
pub fn unless_blocked<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(Some),
        }
    }
}

/// The number behind `NAME:` in a file such as `/proc/self/status`, as the kernel tells it now (proc(5)).
pub fn figure(file: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok();
    text.lines().find_map(number).ok_or_else(|| io::Error::other(format!("{file} has no {name}")))
}

/// What the kernel's own table says of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The TCP state by its number: 2 is SYN_SENT, 10 is LISTEN.
    pub state: u8,
    /// Bytes that wait to be read; of a listener, the connections that wait to be accepted.
    pub waiting: u64,
}

/// Looks a socket on 127.0.0.1 up in `/proc/net/tcp` or `/proc/net/udp`, by both its ports: one port may have many
/// connections, of other processes too. The peer's is 0 where there is none. The table is an open file, because a
/// process without descriptors could not open it.
pub fn look_up(table: &mut File, local: u16, peer: u16) -> io::Result<Entry> {
    let mut text = String::new();
    table.rewind()?;
    table.read_to_string(&mut text)?;
    let local = format!("{:08X}:{local:04X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let peer = format!(":{peer:04X}");
    let entry = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().skip(1).take(4).collect();
        let [ours, theirs, state, queues] = fields[..] else { return None };
        (ours == local && theirs.ends_with(&peer)).then_some(())?;
        let (_, waiting) = queues.split_once(':')?;
        Some(Entry { state: u8::from_str_radix(state, 16).ok()?, waiting: u64::from_str_radix(waiting, 16).ok()? })
    };
    text.lines()
        .find_map(entry)
        .ok_or_else(|| io::Error::other(format!("the kernel has no such socket: {local}{peer}")))
}

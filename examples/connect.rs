//! A connect that does not block, done right: an event only says "look", and two looks together tell.
//!
//! `connect` returns before there is a connection. What has come of it since is told by the socket's error and its
//! peer. Each sign alone is wrong somewhere: a refused connection is as writable as one that stands, and one that is
//! still on its way has no error either. Where nobody answers there is no event at all.
//!
//! ```text
//! cargo run --example connect
//! ```

mod loopback;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{self, SocketAddr, TcpListener};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use loopback::{ANY, PATIENCE, SILENCE, look_up, settle, wait};

/// The state in the kernel's table of a connection that nobody has answered yet.
const SYN_SENT: u8 = 2;

fn main() -> io::Result<()> {
    println!("{:28} {:9} {:19} {:5} so it is", "", "writable", "error", "peer");
    looked_at_too_early()?;
    accepted_in_the_end()?;
    refused_in_the_end()?;
    never_answered()
}

/// A socket that is watched before it connects is reported at once, although nothing has been tried yet.
fn looked_at_too_early() -> io::Result<()> {
    let nobody_yet = TcpStream::from_std(Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?.into());
    let mut attempt = Attempt::watch(nobody_yet)?;
    let verdict = attempt.look("watched before it connects", PATIENCE)?;
    assert_eq!(verdict, (Verdict::Pending, [Verdict::Connected, Verdict::Connected, Verdict::Pending]));
    let error = attempt.stream.write(b"hello").expect_err("there is nobody to write to");
    println!("    whoever writes now hears: {error}");
    Ok(())
}

/// The listener's backlog is full at first, so the answer takes until the handshake is tried again, after a second.
fn accepted_in_the_end() -> io::Result<()> {
    let (listener, address, _first) = full_listener()?;
    let mut attempt = Attempt::to(address)?;
    on_its_way(&mut attempt)?;
    let _accepted = listener.accept()?;
    let (verdict, _) = attempt.look("a place has become free", PATIENCE)?;
    assert_eq!(verdict, Verdict::Connected);
    attempt.stream.write_all(b"hello")
}

fn refused_in_the_end() -> io::Result<()> {
    let (listener, address, _first) = full_listener()?;
    let mut attempt = Attempt::to(address)?;
    on_its_way(&mut attempt)?;
    drop(listener);
    let (verdict, by_one_sign) = attempt.look("the listener has gone", PATIENCE)?;
    assert_eq!(verdict, Verdict::Failed);
    assert_eq!(by_one_sign, [Verdict::Connected, Verdict::Failed, Verdict::Pending], "writable, and yet refused");
    Ok(())
}

/// The kernel gives up in its own time, and silence is no event: the limit must be ours.
fn never_answered() -> io::Result<()> {
    let (_listener, address, _first) = full_listener()?;
    let mut attempt = Attempt::to(address)?;
    let port = attempt.stream.local_addr()?.port();
    on_its_way(&mut attempt)?;
    let mut table = File::open("/proc/net/tcp")?;
    assert_eq!(look_up(&mut table, port, address.port())?.state, SYN_SENT);
    let retries = fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries")?;
    println!("    in SYN_SENT, says the kernel, which will try {} times more, for over a minute", retries.trim());
    // Our deadline has passed: closing the socket is all that giving up takes.
    drop(attempt);
    assert!(look_up(&mut table, port, address.port()).is_err(), "it is gone");
    println!("    given up after {SILENCE:?}");
    Ok(())
}

fn on_its_way(attempt: &mut Attempt) -> io::Result<()> {
    let (verdict, by_one_sign) = attempt.look("on its way: no event", SILENCE)?;
    assert_eq!(verdict, Verdict::Pending);
    assert_eq!(by_one_sign, [Verdict::Pending, Verdict::Connected, Verdict::Pending], "no error, and no connection");
    Ok(())
}

/// A listener with room for a single connection, and the one that takes it up: further handshakes are dropped.
fn full_listener() -> io::Result<(TcpListener, SocketAddr, net::TcpStream)> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&ANY.into())?;
    listener.listen(0)?;
    let listener = TcpListener::from(listener);
    let address = listener.local_addr()?;
    let first = net::TcpStream::connect(address)?;
    settle();
    Ok((listener, address, first))
}

/// The three signs.
struct Look {
    writable: bool,
    error: Option<io::Error>,
    has_peer: bool,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Pending,
    Connected,
    Failed,
}

impl Look {
    /// Asks the kernel. It tells an error once, so there must be one place alone that takes it.
    fn at(stream: &TcpStream, events: &Events) -> io::Result<Self> {
        let writable = events.iter().any(|event| event.is_writable());
        Ok(Self { writable, error: stream.take_error()?, has_peer: stream.peer_addr().is_ok() })
    }

    /// Right: no error yet and no peer yet is no answer yet.
    fn verdict(&self) -> Verdict {
        match (&self.error, self.has_peer) {
            (Some(_), _) => Verdict::Failed,
            (None, true) => Verdict::Connected,
            (None, false) => Verdict::Pending,
        }
    }

    /// Wrong, each in its own situation: writable, no error, or no peer taken for the whole answer.
    fn verdicts_by_one_sign(&self) -> [Verdict; 3] {
        let connected_if = |sign, otherwise| if sign { Verdict::Connected } else { otherwise };
        [
            connected_if(self.writable, Verdict::Pending),
            connected_if(self.error.is_none(), Verdict::Failed),
            connected_if(self.has_peer, Verdict::Pending),
        ]
    }
}

/// A connect under way, and whoever waits for it.
struct Attempt {
    poll: Poll,
    events: Events,
    stream: TcpStream,
}

impl Attempt {
    fn to(address: SocketAddr) -> io::Result<Self> {
        Self::watch(TcpStream::connect(address)?)
    }

    fn watch(mut stream: TcpStream) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut stream, Token(0), Interest::WRITABLE)?;
        Ok(Self { poll, events: Events::with_capacity(8), stream })
    }

    /// Waits for an event, then looks, and tells what the looks say together and each alone.
    fn look(&mut self, situation: &str, longest: Duration) -> io::Result<(Verdict, [Verdict; 3])> {
        wait(&mut self.poll, &mut self.events, longest)?;
        let look = Look::at(&self.stream, &self.events)?;
        let (verdict, yes_or_no) = (look.verdict(), |sign| if sign { "yes" } else { "no" });
        let error = look.error.as_ref().map_or("none".to_owned(), |error| error.kind().to_string());
        let (writable, has_peer) = (yes_or_no(look.writable), yes_or_no(look.has_peer));
        println!("{situation:28} {writable:9} {error:19} {has_peer:5} {verdict:?}");
        Ok((verdict, look.verdicts_by_one_sign()))
    }
}

//! A non-blocking connect, done right: an event only says "look", and it takes two looks to know.
//!
//! `connect` returns before there is a connection. Later, the socket's error and its peer tell the outcome. Each
//! sign alone is wrong somewhere: a refused connection is as writable as an established one, and one that is still on its
//! way has no error either. If nobody answers, there is no event at all.

#![allow(clippy::disallowed_methods, reason = "to look for the error is half of the lesson")]

mod loopback;

use std::fs;
use std::io::{self, Write};
use std::net::{self, SocketAddr, TcpListener};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use loopback::kernel::Ends;
use loopback::{ANY, PATIENCE, SILENCE, settle, wait};

/// The outcome of a connect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Pending,
    Connected,
    Failed,
}

use Verdict::{Connected, Failed, Pending};

fn main() -> io::Result<()> {
    println!("{:30} {:9} {:19} {:5} so it is", "", "writable", "error", "peer");
    looked_at_too_early()?;
    accepted_in_the_end()?;
    refused_in_the_end()?;
    never_answered()
}

/// A socket that is registered before it connects is reported at once, although no connect has been tried.
fn looked_at_too_early() -> io::Result<()> {
    let nobody_yet = TcpStream::from_std(Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?.into());
    let mut attempt = Attempt::watch(nobody_yet)?;
    attempt.look("registered before it connects", PATIENCE, Pending, [Connected, Connected, Pending])?;
    let error = attempt.stream.write(b"hello").expect_err("there is no connection yet");
    println!("    a write now fails: {error}");
    Ok(())
}

/// The listener's backlog is full at first, so the answer comes only when the SYN is sent again, after a second.
fn accepted_in_the_end() -> io::Result<()> {
    let (listener, mut attempt, _first) = on_its_way()?;
    let _accepted = listener.accept()?;
    attempt.look("a place has become free", PATIENCE, Connected, [Connected; 3])?;
    attempt.stream.write_all(b"hello")
}

/// A refused connect is writable, too.
fn refused_in_the_end() -> io::Result<()> {
    let (listener, mut attempt, _first) = on_its_way()?;
    drop(listener);
    attempt.look("the listener has gone", PATIENCE, Failed, [Connected, Failed, Pending])
}

/// The kernel gives up after minutes, and silence is no event, so the program needs a deadline of its own.
fn never_answered() -> io::Result<()> {
    let (listener, attempt, _first) = on_its_way()?;
    let ends = Ends { client: attempt.stream.local_addr()?, server: listener.local_addr()? };
    let retries = fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries")?;
    let state = ends.client()?.state;
    println!("    in {state}, says the kernel, which will try {} times more, for over a minute", retries.trim());
    assert_eq!(state, "SYN_SENT");
    // The deadline has passed. To give up, it is enough to close the socket.
    drop(attempt);
    assert!(ends.client()?.is_closed());
    println!("    given up after {SILENCE:?}");
    Ok(())
}

/// A connect without an answer: its listener's backlog has room for one connection, and is full.
fn on_its_way() -> io::Result<(TcpListener, Attempt, net::TcpStream)> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&ANY.into())?;
    listener.listen(0)?;
    let listener = TcpListener::from(listener);
    let address: SocketAddr = listener.local_addr()?;
    let first = net::TcpStream::connect(address)?;
    settle();
    let mut attempt = Attempt::watch(TcpStream::connect(address)?)?;
    attempt.look("on its way: no event", SILENCE, Pending, [Pending, Connected, Pending])?;
    Ok((listener, attempt, first))
}

/// A connect that has begun.
struct Attempt {
    poll: Poll,
    stream: TcpStream,
}

impl Attempt {
    fn watch(mut stream: TcpStream) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut stream, Token(0), Interest::WRITABLE)?;
        Ok(Self { poll, stream })
    }

    /// Waits for an event, then looks. Both looks together must say `right`. `alone` is what each sign would say by
    /// itself: writable, no error, a peer. Each of them is wrong somewhere.
    fn look(&mut self, what: &str, longest: Duration, right: Verdict, alone: [Verdict; 3]) -> io::Result<()> {
        let writable = wait(&mut self.poll, longest)?.iter().any(|event| event.is_writable());
        // The kernel reports an error once, so only one place may take it.
        let (error, has_peer) = (self.stream.take_error()?, self.stream.peer_addr().is_ok());
        let verdict = match (&error, has_peer) {
            (Some(_), _) => Failed,
            (None, true) => Connected,
            (None, false) => Pending,
        };
        let connected_if = |sign, otherwise| if sign { Connected } else { otherwise };
        let by_one_sign =
            [connected_if(writable, Pending), connected_if(error.is_none(), Failed), connected_if(has_peer, Pending)];
        let yes_or_no = |sign| if sign { "yes" } else { "no" };
        let error = error.map_or("none".to_owned(), |error| error.kind().to_string());
        println!("{what:30} {:9} {error:19} {:5} {verdict:?}", yes_or_no(writable), yes_or_no(has_peer));
        assert_eq!((verdict, by_one_sign), (right, alone));
        Ok(())
    }
}

//! A stale token: an event for a connection that is gone must not reach the one that took its place.
//!
//! A slab gives a freed key to whoever comes next, and a token is only that key. Two ways lead an old event to a young
//! connection; a serial beside the key closes both.
//!
//! 1. **Within a batch.** Serving the first event closes another connection and accepts a third, while the second event
//!    (for the closed one) is still to be looked at.
//! 2. **Across batches.** The kernel watches open files and not descriptors (epoll(7)): while a duplicate of a closed
//!    socket lives, its events keep coming.
//!
//! ```text
//! cargo run --example stale_token
//! ```

mod loopback;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use intake::reactor::{Id, Slots};
use loopback::{ANY, PATIENCE, connect, settle, unless_blocked, wait};

/// What the server needs of a connection table.
trait Table: Default {
    const NAME: &str;
    /// The token that the next connection will have.
    fn next_token(&self) -> Token;
    fn insert(&mut self, stream: mio::net::TcpStream);
    fn remove(&mut self, token: Token) -> Option<mio::net::TcpStream>;
}

/// Wrong: the key is the token.
impl Table for Slab<mio::net::TcpStream> {
    const NAME: &str = "key alone";

    fn next_token(&self) -> Token {
        Token(self.vacant_key())
    }

    fn insert(&mut self, stream: mio::net::TcpStream) {
        Slab::insert(self, stream);
    }

    fn remove(&mut self, token: Token) -> Option<mio::net::TcpStream> {
        self.try_remove(token.0)
    }
}

/// Right: the token is the key and the serial of its occupant.
impl Table for Slots<mio::net::TcpStream> {
    const NAME: &str = "key and serial";

    fn next_token(&self) -> Token {
        Token(self.next_id().to_bits() as usize)
    }

    fn insert(&mut self, stream: mio::net::TcpStream) {
        Slots::insert(self, stream);
    }

    fn remove(&mut self, token: Token) -> Option<mio::net::TcpStream> {
        Slots::remove(self, Id::from_bits(token.0 as u64)?)
    }
}

fn main() -> io::Result<()> {
    println!("-- within a batch");
    assert!(!survives_the_batch::<Slab<_>>()?);
    assert!(survives_the_batch::<Slots<_>>()?);
    println!("-- across batches");
    assert!(!survives_a_duplicate::<Slab<_>>()?);
    assert!(survives_a_duplicate::<Slots<_>>()?);
    Ok(())
}

/// Two connections have each something to say in one batch: the first one's word ends the second, whose place a third
/// takes.
fn survives_the_batch<T: Table>() -> io::Result<bool> {
    let mut server = Server::<T>::new()?;
    let (first, mut first_client) = server.admit()?;
    let (old, old_client) = server.admit()?;
    first_client.write_all(b"close the other one")?;
    settle();
    drop(old_client);
    settle();

    assert_eq!(server.wait()?, 2, "one look finds both");
    let mut young_client = None;
    for (token, read_closed) in server.batch() {
        if token == first {
            server.table.remove(old);
            let (young, client) = server.admit()?;
            println!("{}: the closed connection had token {:#x}, the young one has {:#x}", T::NAME, old.0, young.0);
            young_client = Some(client);
        } else if read_closed {
            server.close(token);
        }
    }
    is_open(&young_client.expect("the first event is the first client's"))
}

/// A connection is closed while a duplicate of its descriptor lives on, and its place is taken; then its peer closes.
fn survives_a_duplicate<T: Table>() -> io::Result<bool> {
    let mut server = Server::<T>::new()?;
    let (old, old_client) = server.admit()?;
    let stream = server.table.remove(old).expect("it was just admitted");
    // In life a child process inherited it, or somebody wrote `try_clone`.
    let duplicate = stream.as_fd().try_clone_to_owned()?;
    drop(stream);
    let (young, young_client) = server.admit()?;
    println!("{}: the closed connection had token {:#x}, the young one has {:#x}", T::NAME, old.0, young.0);

    drop(old_client);
    assert_eq!(server.wait()?, 1, "the kernel tells of a socket that was closed and never deregistered");
    for (token, read_closed) in server.batch() {
        assert!(token == old && read_closed);
        server.close(token);
    }
    drop(duplicate);
    is_open(&young_client)
}

struct Server<T> {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    table: T,
}

impl<T: Table> Server<T> {
    fn new() -> io::Result<Self> {
        let (poll, events, listener) = (Poll::new()?, Events::with_capacity(8), TcpListener::bind(ANY)?);
        Ok(Self { poll, events, listener, table: T::default() })
    }

    fn admit(&mut self) -> io::Result<(Token, TcpStream)> {
        let (client, mut stream) = connect(&self.listener)?;
        let token = self.table.next_token();
        self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        self.table.insert(stream);
        Ok((token, client))
    }

    fn wait(&mut self) -> io::Result<usize> {
        wait(&mut self.poll, &mut self.events, PATIENCE)
    }

    /// The tokens of the last batch, and whether the peer has closed.
    fn batch(&self) -> Vec<(Token, bool)> {
        self.events.iter().map(|event| (event.token(), event.is_read_closed())).collect()
    }

    /// Closes what the table has under `token`.
    fn close(&mut self, token: Token) {
        match self.table.remove(token) {
            Some(_) => println!("{}: an event for {:#x} closed whoever is there now", T::NAME, token.0),
            None => println!("{}: an event for {:#x} found nobody", T::NAME, token.0),
        }
    }
}

/// Whether the server still holds its end: what a client reads then is nothing, and not an end.
fn is_open(mut client: &TcpStream) -> io::Result<bool> {
    settle();
    client.set_nonblocking(true)?;
    Ok(unless_blocked(|| client.read(&mut [0; 1]))?.is_none())
}

//! A stale token: an event for a closed connection must not reach the connection that took its place.
//!
//! A slab gives a freed key to the next connection. If the token is that key alone, an old event can reach a new
//! connection in two ways. A serial beside the key prevents both.
//!
//! 1. **Within a batch.** Serving the first event closes another connection and accepts a third, while the second event
//!    (for the closed one) has not been looked at yet.
//! 2. **Across batches.** The kernel watches open files and not descriptors (epoll(7)): while a duplicate of a closed
//!    socket lives, its events keep coming.

mod loopback;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use mio::{Interest, Poll, Token};

use intake::reactor::{Id, Slots};
use loopback::{PATIENCE, mio_pair, settle, unless_blocked, wait};

/// What a token consists of.
#[derive(Clone, Copy, Debug)]
enum TokenIs {
    /// Wrong: the key of its slot.
    Key,
    /// Right: the key, and a serial that no other connection has had.
    KeyAndSerial,
}

fn main() -> io::Result<()> {
    println!("-- within a batch");
    assert!(!survives_the_batch(TokenIs::Key)?);
    assert!(survives_the_batch(TokenIs::KeyAndSerial)?);
    println!("-- across batches");
    assert!(!survives_a_duplicate(TokenIs::Key)?);
    assert!(survives_a_duplicate(TokenIs::KeyAndSerial)?);
    Ok(())
}

/// Two connections have an event in one batch. Serving the first closes the second, and a third takes its slot. Returns
/// whether the third one lives.
fn survives_the_batch(token_is: TokenIs) -> io::Result<bool> {
    let mut server = Server::new(token_is)?;
    let (first, mut first_client) = server.admit()?;
    let (old, old_client) = server.admit()?;
    first_client.write_all(b"close the other one")?;
    settle();
    drop(old_client);
    settle();

    let batch = wait(&mut server.poll, PATIENCE)?;
    assert_eq!(batch.len(), 2, "one look finds both");
    let mut young_client = None;
    for event in batch {
        if event.token() == first {
            server.close(old);
            young_client = Some(server.admit()?.1);
        } else if event.is_read_closed() {
            server.close(event.token());
        }
    }
    is_open(&young_client.expect("the first event is the first client's"))
}

/// A connection is closed while a duplicate of its descriptor is open, and another one takes its slot. Then its peer closes.
/// Returns whether the other one lives.
fn survives_a_duplicate(token_is: TokenIs) -> io::Result<bool> {
    let mut server = Server::new(token_is)?;
    let (old, old_client) = server.admit()?;
    // In a real program a child process inherits it, or `try_clone` makes it.
    let _duplicate = server.stream(old).as_fd().try_clone_to_owned()?;
    server.close(old);
    let (_, young_client) = server.admit()?;

    drop(old_client);
    let batch = wait(&mut server.poll, PATIENCE)?;
    assert_eq!(batch.len(), 1, "the kernel reports a socket that was closed and never deregistered");
    assert!(batch[0].token() == old && batch[0].is_read_closed());
    server.close(batch[0].token());
    is_open(&young_client)
}

struct Server {
    token_is: TokenIs,
    poll: Poll,
    connections: Slots<mio::net::TcpStream>,
}

impl Server {
    fn new(token_is: TokenIs) -> io::Result<Self> {
        Ok(Self { token_is, poll: Poll::new()?, connections: Slots::default() })
    }

    fn admit(&mut self) -> io::Result<(Token, TcpStream)> {
        let (client, mut stream) = mio_pair()?;
        let token = self.token(self.connections.next_id());
        self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        self.connections.insert(stream);
        println!("{:?}: token {:#x} is admitted", self.token_is, token.0);
        Ok((token, client))
    }

    fn token(&self, id: Id) -> Token {
        match self.token_is {
            TokenIs::Key => Token(id.to_bits() as u32 as usize),
            TokenIs::KeyAndSerial => Token(id.to_bits() as usize),
        }
    }

    /// The connection that the token names now. (A scan finds both kinds of token; `Slots::get` needs none.)
    fn find(&self, token: Token) -> Option<Id> {
        self.connections.ids().find(|id| self.token(*id) == token)
    }

    fn stream(&self, token: Token) -> &mio::net::TcpStream {
        self.find(token).and_then(|id| self.connections.get(id)).expect("the connection was admitted")
    }

    /// Closes the connection that the token names.
    fn close(&mut self, token: Token) {
        let closed = self.find(token).and_then(|id| self.connections.remove(id));
        let what = if closed.is_some() { "closes the connection that is there now" } else { "finds no connection" };
        println!("{:?}: token {:#x} {what}", self.token_is, token.0);
    }
}

/// Whether the server's end is open: then a read of the client would block.
fn is_open(mut client: &TcpStream) -> io::Result<bool> {
    settle();
    client.set_nonblocking(true)?;
    Ok(unless_blocked(|| client.read(&mut [0; 1]))?.is_none())
}

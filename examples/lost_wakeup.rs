//! An edge is told once: whoever neither drains nor remembers waits for ever.
//!
//! The same bytes and the same end come to a server in four manners. It reads four bytes at a time, so that a read
//! leaves something behind, as any read may.
//!
//! ```text
//! cargo run --example lost_wakeup
//! ```

mod loopback;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use intake::reactor::{Budget, Id, ReadyQueue, Slots};
use loopback::{ANY, SILENCE, arrived, connect, settle, unless_blocked, unread, wait};

const READ_BYTES: usize = 4;

/// What an event leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Wrong: one read, as if the event came again while something is left. That would be level-triggered.
    OneRead,
    /// Wrong: closes when the event says that the peer has closed.
    CloseAtFlag,
    /// Right: reads until `WouldBlock`.
    Drain,
    /// Right, and fair to others: reads what a budget allows, then lines up for the next turn.
    Queue,
}

fn main() -> io::Result<()> {
    println!("-- ten bytes come, and then nothing more");
    for (manner, heard, turns) in [(Manner::OneRead, 4, 1), (Manner::Drain, 10, 1), (Manner::Queue, 10, 3)] {
        let (mut server, mut client) = Server::new(manner)?;
        client.write_all(b"0123456789")?;
        arrived(server.stream(), 10)?;
        assert_eq!(server.turns_until_silence()?, (1, turns));
        println!("{}", server.report(1, turns)?);
        assert_eq!((server.heard.len(), unread(server.stream())?), (heard, 10 - heard));
    }

    println!("-- the same mistake, but the client goes on: what comes in pushes out what was left");
    let (mut server, mut client) = Server::new(Manner::OneRead)?;
    for (burst, heard) in [("0123456789", 4), ("a", 8), ("b", 12)] {
        client.write_all(burst.as_bytes())?;
        settle();
        assert_eq!(server.turns_until_silence()?, (1, 1));
        println!("{}", server.report(1, 1)?);
        assert_eq!(server.heard.len(), heard, "under load nobody notices; the last upload of the day hangs");
    }

    println!("-- three bytes and the end come together, and are one edge");
    for (manner, heard, ended) in [
        (Manner::OneRead, 3, false),
        (Manner::CloseAtFlag, 0, true),
        (Manner::Drain, 3, true),
        (Manner::Queue, 3, true),
    ] {
        let (mut server, mut client) = Server::new(manner)?;
        client.write_all(b"bye")?;
        client.shutdown(Shutdown::Write)?;
        settle();
        assert_eq!(server.turns_until_silence()?, (1, 1));
        println!("{}", server.report(1, 1)?);
        assert_eq!((server.heard.len(), server.ended), (heard, ended));
    }
    println!("a read of 3 where 4 were asked for did not mean that there was no more: the end was behind it");
    Ok(())
}

/// A server with one connection.
struct Server {
    manner: Manner,
    poll: Poll,
    events: Events,
    connections: Slots<mio::net::TcpStream>,
    id: Id,
    ready: ReadyQueue,
    heard: Vec<u8>,
    ended: bool,
}

impl Server {
    /// The server, and the client at the other end.
    fn new(manner: Manner) -> io::Result<(Self, TcpStream)> {
        let (client, mut stream) = connect(&TcpListener::bind(ANY)?)?;
        let (poll, mut connections) = (Poll::new()?, Slots::default());
        let token = Token(connections.next_id().to_bits() as usize);
        poll.registry().register(&mut stream, token, Interest::READABLE)?;
        let (events, id, ready) = (Events::with_capacity(8), connections.insert(stream), ReadyQueue::default());
        Ok((Self { manner, poll, events, connections, id, ready, heard: Vec::new(), ended: false }, client))
    }

    /// Returns how many events came in how many turns, before nothing happened any more.
    fn turns_until_silence(&mut self) -> io::Result<(usize, usize)> {
        let (mut events, mut turns) = (0, 0);
        while let Some(told) = self.turn()? {
            (events, turns) = (events + told, turns + 1);
        }
        Ok((events, turns))
    }

    /// One turn, or `None` where there was nothing to do. Whoever is ready already must not wait for an event.
    fn turn(&mut self) -> io::Result<Option<usize>> {
        let longest = if self.ready.is_empty() { SILENCE } else { Duration::ZERO };
        let told = wait(&mut self.poll, &mut self.events, longest)?;
        for event in &self.events {
            if self.manner == Manner::CloseAtFlag && event.is_read_closed() {
                self.ended = true;
            } else if let Some(id) = Id::from_bits(event.token().0 as u64) {
                self.ready.push(id);
            }
        }
        let served = self.ready.len();
        for _ in 0..served {
            self.serve_next()?;
        }
        Ok((told + served > 0).then_some(told))
    }

    fn serve_next(&mut self) -> io::Result<()> {
        let Some(id) = self.ready.pop() else { return Ok(()) };
        let Some(stream) = self.connections.get_mut(id) else { return Ok(()) };
        let (mut buffer, mut budget) = ([0; READ_BYTES], Budget::new(READ_BYTES));
        while let Some(length) = unless_blocked(|| stream.read(&mut buffer))? {
            self.heard.extend(&buffer[..length]);
            self.ended |= length == 0;
            budget.spend(length);
            match self.manner {
                _ if self.ended => break,
                Manner::OneRead => break,
                Manner::Queue if budget.is_spent() => {
                    self.ready.push(id);
                    break;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn stream(&self) -> &mio::net::TcpStream {
        self.connections.get(self.id).expect("it is never removed")
    }

    fn report(&self, events: usize, turns: usize) -> io::Result<String> {
        let (manner, heard, left) = (format!("{:?}:", self.manner), self.heard.len(), unread(self.stream())?);
        let end = if self.ended { "known" } else { "unknown" };
        Ok(format!("{manner:12} events {events}, turns {turns}, read {heard}, left in the kernel {left}, end {end}"))
    }
}

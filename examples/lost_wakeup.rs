//! An edge is reported once: a server that neither drains nor remembers waits forever.
//!
//! Four servers get the same bytes and the same end. Each reads four bytes at a time, so that a read leaves bytes in the
//! kernel, as any read may.

mod loopback;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use mio::{Interest, Poll, Token};

use loopback::kernel::{arrived, unread};
use loopback::{SILENCE, mio_pair, settle, unless_blocked, wait};

const READ_BYTES: usize = 4;

/// What a server does at an event.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Wrong: reads once, as if the event came again while bytes are left. That would be level-triggered.
    OneRead,
    /// Wrong: closes when the event says that the peer has closed.
    CloseAtFlag,
    /// Right: reads until `WouldBlock`.
    Drain,
    /// Right, and fair to others: reads its share, remembers that there may be more, and continues in the next turn.
    Remember,
}

fn main() -> io::Result<()> {
    println!("-- ten bytes come, and then nothing more");
    for (manner, heard, turns) in [(Manner::OneRead, 4, 1), (Manner::Drain, 10, 1), (Manner::Remember, 10, 4)] {
        let (mut server, mut client) = Server::new(manner)?;
        client.write_all(b"0123456789")?;
        arrived(&server.stream, 10)?;
        assert_eq!(
            server.turns_until_silence()?,
            (1, turns),
            "a server that remembers is done at `WouldBlock`, and not before"
        );
        assert_eq!((server.heard, unread(&server.stream)?), (heard, 10 - heard));
    }

    println!("-- the same mistake, but the client sends more: new bytes push out the old ones");
    let (mut server, mut client) = Server::new(Manner::OneRead)?;
    for (burst, heard) in [("0123456789", 4), ("a", 8), ("b", 12)] {
        client.write_all(burst.as_bytes())?;
        settle();
        assert_eq!(server.turns_until_silence()?, (1, 1));
        assert_eq!(server.heard, heard, "under load the fault does not show; then the last upload of the day hangs");
    }

    println!("-- three bytes and the end come together, as one edge");
    for (manner, heard, ended) in [
        (Manner::OneRead, 3, false),
        (Manner::CloseAtFlag, 0, true),
        (Manner::Drain, 3, true),
        (Manner::Remember, 3, true),
    ] {
        let (mut server, mut client) = Server::new(manner)?;
        client.write_all(b"bye")?;
        client.shutdown(Shutdown::Write)?;
        settle();
        assert_eq!(server.turns_until_silence()?.0, 1);
        assert_eq!((server.heard, server.ended), (heard, ended));
    }
    println!("a read of 3 where 4 were asked for did not mean that there was no more: the end was behind it");
    Ok(())
}

/// A server with one connection.
struct Server {
    manner: Manner,
    poll: Poll,
    stream: mio::net::TcpStream,
    /// There may be more to read, and no event will report that. (With several connections this is a queue.)
    ready: bool,
    heard: usize,
    ended: bool,
}

impl Server {
    /// The server, and the client at the other end.
    fn new(manner: Manner) -> io::Result<(Self, TcpStream)> {
        let (client, mut stream) = mio_pair()?;
        let poll = Poll::new()?;
        poll.registry().register(&mut stream, Token(0), Interest::READABLE)?;
        Ok((Self { manner, poll, stream, ready: false, heard: 0, ended: false }, client))
    }

    /// Runs turns until nothing happens any more. Prints and returns how many events and turns there were.
    fn turns_until_silence(&mut self) -> io::Result<(usize, usize)> {
        let (mut events, mut turns) = (0, 0);
        while let Some(told) = self.turn()? {
            (events, turns) = (events + told, turns + 1);
        }
        let (manner, left) = (format!("{:?}:", self.manner), unread(&self.stream)?);
        let (heard, end) = (self.heard, if self.ended { "known" } else { "unknown" });
        println!("{manner:12} events {events}, turns {turns}, read {heard}, left in the kernel {left}, end {end}");
        Ok((events, turns))
    }

    /// One turn. `None`: there was nothing to do. It must not wait for an event if the connection is ready already.
    fn turn(&mut self) -> io::Result<Option<usize>> {
        let events = wait(&mut self.poll, if self.ready { Duration::ZERO } else { SILENCE })?;
        if events.is_empty() && !self.ready {
            return Ok(None);
        }
        if self.manner == Manner::CloseAtFlag && events.iter().any(|event| event.is_read_closed()) {
            self.ended = true;
        }
        self.serve()?;
        Ok(Some(events.len()))
    }

    fn serve(&mut self) -> io::Result<()> {
        self.ready = false;
        let mut buffer = [0; READ_BYTES];
        while !self.ended {
            let Some(length) = unless_blocked(|| self.stream.read(&mut buffer))? else { break };
            self.heard += length;
            self.ended = length == 0;
            if matches!(self.manner, Manner::OneRead | Manner::Remember) {
                self.ready = self.manner == Manner::Remember && !self.ended;
                break;
            }
        }
        Ok(())
    }
}

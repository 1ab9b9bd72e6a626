//! Deadlines without a runtime: the first one is the timeout of the poll. No other timer is needed.
//!
//! A server ends connections that are silent for too long. Three situations, each with a right server and a wrong one
//! that differs in one point: no client speaks; one speaks all the time; the process was stopped for a while.

#![allow(clippy::disallowed_methods, reason = "the example simulates a stopped process")]

mod loopback;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use mio::{Interest, Poll};

use intake::net::now;
use intake::reactor::{Deadlines, Id, Moment, Slots};
use loopback::kernel::arrived;
use loopback::{PATIENCE, id, mio_pair, token, unless_blocked, wait};

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Right: waits until the first deadline, reads all that has arrived, then closes the connections that are late.
    Right,
    /// Wrong: wakes at every tick to see whether a deadline has passed.
    Tick,
    /// Wrong: checks deadlines only when the poll returns no event.
    WhenEmpty,
    /// Wrong: closes the connections that are late, then reads all that has arrived.
    ExpireFirst,
}

fn main() -> io::Result<()> {
    println!("-- three connections with different deadlines, and none speaks");
    let (right, tick) = (turns_in_silence(Manner::Right)?, turns_in_silence(Manner::Tick)?);
    assert!(right <= 9 && right < tick, "the right server sleeps through the silence");
    println!("-- one speaks all the time, the other one never");
    assert!(ends_the_silent(Manner::Right)?);
    assert!(!ends_the_silent(Manner::WhenEmpty)?, "the poll never returns without an event");
    println!("-- it spoke in time, but then the process was stopped until long after its deadline");
    assert!(spares_the_punctual(Manner::Right)?);
    assert!(!spares_the_punctual(Manner::ExpireFirst)?, "the server blames the peer for its own delay");
    Ok(())
}

fn turns_in_silence(manner: Manner) -> io::Result<usize> {
    let mut server = Server::new(manner)?;
    let (third, first, second) = (server.admit(3 * IDLE)?, server.admit(IDLE)?, server.admit(2 * IDLE)?);
    let mut turns = 0;
    while !server.connections.is_empty() {
        server.turn()?;
        turns += 1;
    }
    println!("{manner:?}: {turns} turns until all have been ended, in the order of their deadlines");
    assert_eq!(server.ended, [first.0, second.0, third.0]);
    Ok(turns)
}

/// Whether a silent connection meets its deadline beside one that is never silent.
fn ends_the_silent(manner: Manner) -> io::Result<bool> {
    let (mut server, start) = (Server::new(manner)?, now());
    let (silent, _client) = server.admit(3 * IDLE)?;
    let (talker, mut client) = server.admit(IDLE)?;
    let longest = if let Manner::Right = manner { PATIENCE } else { 6 * IDLE };
    while server.connections.get(silent).is_some() && now().since(start) < longest {
        client.write_all(b"x")?;
        arrived(server.stream(talker), 1)?;
        server.turn()?;
    }
    let ended = server.ended.contains(&silent);
    println!("{manner:?}: the silent one is {}", if ended { "ended" } else { "still there after twice its time" });
    println!("    the other's deadline moved {} times, its entry {} times", server.heard, server.early);
    assert!(server.early < server.heard, "an entry is corrected only when it comes due");
    Ok(ended)
}

fn spares_the_punctual(manner: Manner) -> io::Result<bool> {
    let mut server = Server::new(manner)?;
    let (punctual, mut client) = server.admit(IDLE)?;
    client.write_all(b"here I am")?;
    arrived(server.stream(punctual), 9)?;
    // As after SIGSTOP: the bytes are in the kernel, unread.
    thread::sleep(2 * IDLE);
    server.turn()?;
    let spared = server.connections.get(punctual).is_some();
    println!("{manner:?}: {}", if spared { "read, and so not late" } else { "ended, with its bytes unread" });
    Ok(spared)
}

struct Connection {
    stream: mio::net::TcpStream,
    deadline: Moment,
}

struct Server {
    manner: Manner,
    poll: Poll,
    connections: Slots<Connection>,
    deadlines: Deadlines,
    ended: Vec<Id>,
    /// Bytes that were read.
    heard: usize,
    /// Entries that came due before their connection did.
    early: usize,
}

impl Server {
    fn new(manner: Manner) -> io::Result<Self> {
        let (poll, connections, deadlines) = (Poll::new()?, Slots::default(), Deadlines::default());
        Ok(Self { manner, poll, connections, deadlines, ended: Vec::new(), heard: 0, early: 0 })
    }

    fn admit(&mut self, patience: Duration) -> io::Result<(Id, TcpStream)> {
        let (client, mut stream) = mio_pair()?;
        self.poll.registry().register(&mut stream, token(self.connections.next_id()), Interest::READABLE)?;
        let deadline = now() + patience;
        let id = self.connections.insert(Connection { stream, deadline });
        self.deadlines.arm(id, deadline);
        Ok((id, client))
    }

    fn stream(&self, id: Id) -> &mio::net::TcpStream {
        &self.connections.get(id).expect("the connection is open").stream
    }

    fn turn(&mut self) -> io::Result<()> {
        let asked = now();
        let until_first = self.deadlines.first().map_or(PATIENCE, |at| at.since(asked));
        let ready = wait(&mut self.poll, if let Manner::Tick = self.manner { TICK } else { until_first })?;
        let ready: Vec<Id> = ready.iter().filter_map(id).collect();
        if let Manner::ExpireFirst = self.manner {
            self.expire(asked);
        }
        for id in &ready {
            self.read(*id)?;
        }
        // A connection is late if its deadline had passed when the poll began: all that arrived before is read by now.
        match self.manner {
            Manner::WhenEmpty if !ready.is_empty() => {}
            _ => self.expire(asked),
        }
        Ok(())
    }

    fn read(&mut self, id: Id) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        while let Some(length) = unless_blocked(|| connection.stream.read(&mut [0; 64]))?.filter(|&length| length > 0) {
            self.heard += length;
            // The entry stays where it is: moving a deadline away costs nothing.
            connection.deadline = now() + IDLE;
        }
        Ok(())
    }

    fn expire(&mut self, moment: Moment) {
        while let Some(id) = self.deadlines.pop_due(moment) {
            let deadline = self.connections.get(id).expect("connections are removed only here").deadline;
            if deadline > moment {
                self.early += 1;
                self.deadlines.arm(id, deadline);
            } else {
                self.connections.remove(id);
                self.ended.push(id);
            }
        }
    }
}

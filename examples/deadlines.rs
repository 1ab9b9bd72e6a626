//! Deadlines without a runtime: the first of them is the timeout of the poll, and that is all there is to a timer.
//!
//! A server ends connections that are silent for too long. Three situations, each for a right server and for one that
//! differs in a single point: nobody speaks; one speaks all the time; the process was stopped for a while.
//!
//! ```text
//! cargo run --example deadlines
//! ```

mod loopback;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use intake::reactor::{Deadlines, Id, ReadyQueue, Slots};
use loopback::{ANY, PATIENCE, arrived, connect, unless_blocked, wait};

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Waits until the first deadline, reads what has come, then ends who is late.
    Right,
    /// Wrong: wakes at every tick to see whether something is due.
    Tick,
    /// Wrong: thinks of deadlines when the poll comes back empty.
    WhenEmpty,
    /// Wrong: ends who is late, then reads what has come.
    ExpireFirst,
}

fn main() -> io::Result<()> {
    println!("-- three connections with different patience, and nobody speaks");
    let (right, tick) = (turns_in_silence(Manner::Right)?, turns_in_silence(Manner::Tick)?);
    assert!(right <= 9 && right < tick, "silence is waited for, not counted through");
    println!("-- one speaks all the time, the other one never");
    assert!(ends_the_silent(Manner::Right)?);
    assert!(!ends_the_silent(Manner::WhenEmpty)?, "the poll never comes back empty");
    println!("-- it spoke in time, but then the process was stopped until long after its deadline");
    assert!(spares_the_punctual(Manner::Right)?);
    assert!(!spares_the_punctual(Manner::ExpireFirst)?, "our own delay is taken for the peer's");
    Ok(())
}

fn turns_in_silence(manner: Manner) -> io::Result<usize> {
    let (mut server, now) = (Server::new(manner)?, Instant::now());
    let (third, first, second) = (server.admit(now, 3 * IDLE)?, server.admit(now, IDLE)?, server.admit(now, 2 * IDLE)?);
    while !server.connections.is_empty() {
        server.turn()?;
    }
    println!("{manner:?}: {} turns until all have been ended, in the order of their deadlines", server.turns);
    assert_eq!(server.ended, [first.0, second.0, third.0]);
    Ok(server.turns)
}

/// Whether a silent connection meets its deadline beside one that is never silent.
fn ends_the_silent(manner: Manner) -> io::Result<bool> {
    let (mut server, now) = (Server::new(manner)?, Instant::now());
    let (silent, _client) = server.admit(now, IDLE)?;
    let (talker, mut client) = server.admit(now, IDLE)?;
    let longest = if let Manner::Right = manner { PATIENCE } else { 5 * IDLE };
    while server.connections.get(silent).is_some() && now.elapsed() < longest {
        client.write_all(b"x")?;
        arrived(&server.connections.get(talker).expect("it speaks").stream, 1)?;
        server.turn()?;
    }
    let ended = server.ended.contains(&silent);
    let what = if ended { "is ended" } else { "is still there after five times its patience" };
    let (moved, looked_at) = (server.heard, server.early);
    println!("{manner:?}: the silent one {what};");
    println!("    the other's deadline moved {moved} times, its entry in the tree {looked_at} times");
    Ok(ended)
}

fn spares_the_punctual(manner: Manner) -> io::Result<bool> {
    let mut server = Server::new(manner)?;
    let (punctual, mut client) = server.admit(Instant::now(), IDLE)?;
    client.write_all(b"here I am")?;
    arrived(&server.connections.get(punctual).expect("it was just admitted").stream, 9)?;
    // As after SIGSTOP: the bytes are in the kernel, and nobody reads them.
    thread::sleep(2 * IDLE);
    server.turn()?;
    let spared = server.connections.get(punctual).is_some();
    println!("{manner:?}: {}", if spared { "read, and so not late" } else { "ended, with its bytes unread" });
    Ok(spared)
}

struct Connection {
    stream: mio::net::TcpStream,
    patience: Duration,
    deadline: Instant,
}

struct Server {
    manner: Manner,
    poll: Poll,
    events: Events,
    listener: TcpListener,
    connections: Slots<Connection>,
    ready: ReadyQueue,
    deadlines: Deadlines,
    ended: Vec<Id>,
    turns: usize,
    /// Bytes that were read.
    heard: usize,
    /// Entries that came due before their connection did.
    early: usize,
}

impl Server {
    fn new(manner: Manner) -> io::Result<Self> {
        Ok(Self {
            manner,
            poll: Poll::new()?,
            events: Events::with_capacity(8),
            listener: TcpListener::bind(ANY)?,
            connections: Slots::default(),
            ready: ReadyQueue::default(),
            deadlines: Deadlines::default(),
            ended: Vec::new(),
            turns: 0,
            heard: 0,
            early: 0,
        })
    }

    fn admit(&mut self, now: Instant, patience: Duration) -> io::Result<(Id, TcpStream)> {
        let (client, mut stream) = connect(&self.listener)?;
        let token = Token(self.connections.next_id().to_bits() as usize);
        self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        let deadline = now + patience;
        let id = self.connections.insert(Connection { stream, patience, deadline });
        self.deadlines.arm(id, deadline);
        Ok((id, client))
    }

    fn turn(&mut self) -> io::Result<()> {
        let asked = Instant::now();
        let until_first = self.deadlines.first().map_or(PATIENCE, |at| at.saturating_duration_since(asked));
        let longest = if let Manner::Tick = self.manner { TICK } else { until_first };
        let events = wait(&mut self.poll, &mut self.events, longest)?;
        for id in self.events.iter().filter_map(|event| Id::from_bits(event.token().0 as u64)) {
            self.ready.push(id);
        }
        self.turns += 1;
        match self.manner {
            Manner::WhenEmpty if events > 0 => self.serve(),
            Manner::ExpireFirst => {
                self.expire(asked);
                self.serve()
            }
            // Late is who was late when the poll was asked: what came before that has been read by now.
            _ => {
                self.serve()?;
                self.expire(asked);
                Ok(())
            }
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        while let Some(id) = self.ready.pop() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let mut read = || unless_blocked(|| connection.stream.read(&mut [0; 64]));
            while let Some(length) = read()?.filter(|&length| length > 0) {
                self.heard += length;
                // The entry stays where it is: moving a deadline away costs nothing.
                connection.deadline = Instant::now() + connection.patience;
            }
        }
        Ok(())
    }

    fn expire(&mut self, moment: Instant) {
        while let Some(id) = self.deadlines.pop_due(moment) {
            let Some(connection) = self.connections.get(id) else { continue };
            if connection.deadline > moment {
                self.early += 1;
                self.deadlines.arm(id, connection.deadline);
            } else {
                self.connections.remove(id);
                self.ended.push(id);
            }
        }
    }
}

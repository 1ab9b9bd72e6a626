//! A budget limits what one connection may read in a turn, so that a flood does not hold up fifty slow clients.
//!
//! One thread serves them all, each until `WouldBlock`. A peer that sends as fast as it is read never lets
//! that happen, so all others wait. The wrong server and the right one differ in a single number.

mod loopback;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mio::{Interest, Poll};

use intake::reactor::{Budget, Id, ReadyQueue, Slots};
use loopback::kernel::arrived;
use loopback::{PATIENCE, id, mio_pair, token, unless_blocked, wait};

const SLOW_CLIENTS: usize = 50;
/// The total size of the flood.
const FLOOD_BYTES: usize = 32 << 20;
const READ_BYTES: usize = 16 << 10;
const BUDGET_BYTES: usize = 64 << 10;
const NO_BUDGET: usize = usize::MAX;

fn main() -> io::Result<()> {
    println!("{SLOW_CLIENTS} clients send a byte before each turn; one sends {FLOOD_BYTES} bytes and never pauses");
    let without = run("without a budget", NO_BUDGET)?;
    let with = run("with a budget", BUDGET_BYTES)?;
    assert_eq!(without.turns, 1, "the first turn ends when the flood does");
    assert_eq!(without.longest_wait_bytes, FLOOD_BYTES, "and all others wait for it");
    assert!(with.longest_wait_bytes < BUDGET_BYTES + READ_BYTES, "a budget may be overdrawn by one read");
    assert!(
        with.turns > FLOOD_BYTES / (BUDGET_BYTES + READ_BYTES),
        "the flood takes more turns, and loses nothing else"
    );
    Ok(())
}

/// Figures that are taken when the flood is over.
#[derive(Default)]
struct Figures {
    turns: usize,
    flood_bytes: usize,
    slow_bytes: usize,
    /// The most bytes of the flood that were read in a turn before another client was served.
    longest_wait_bytes: usize,
}

fn run(name: &str, budget_bytes: usize) -> io::Result<Figures> {
    let mut server = Server::new(budget_bytes)?;
    let (flood_id, client) = server.admit()?;
    let slow = (0..SLOW_CLIENTS).map(|_| server.admit()).collect::<io::Result<Vec<_>>>()?;
    let (mut flood, mut figures) = (Flood::new(client)?, Figures::default());
    flood.send_more()?;
    arrived(server.stream(flood_id), 1)?;
    while figures.flood_bytes < FLOOD_BYTES {
        slow.iter().try_for_each(|(_, client)| (&*client).write_all(b"x"))?;
        slow.iter().try_for_each(|(id, _)| arrived(server.stream(*id), 1))?;
        figures.turns += 1;
        let mut flood_this_turn = 0;
        server.turn(|id, stream, length| {
            if id != flood_id {
                figures.slow_bytes += length;
                figures.longest_wait_bytes = figures.longest_wait_bytes.max(flood_this_turn);
                return Ok(());
            }
            figures.flood_bytes += length;
            flood_this_turn += length;
            flood.send_more()?;
            arrived(stream, (FLOOD_BYTES - figures.flood_bytes).min(1))
        })?;
    }
    let Figures { turns, slow_bytes, longest_wait_bytes, .. } = figures;
    println!("{name}: the flood takes {turns} turns; {slow_bytes} bytes of the others are read meanwhile,");
    println!("    each after at most {longest_wait_bytes} of the flood");
    assert_eq!(slow_bytes, turns * SLOW_CLIENTS, "every client is served in every turn");
    Ok(figures)
}

/// A peer that sends as fast as it is read. In reality it is another machine; here it refills the space that each read frees.
struct Flood {
    client: TcpStream,
    unsent_bytes: usize,
}

impl Flood {
    fn new(client: TcpStream) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        Ok(Self { client, unsent_bytes: FLOOD_BYTES })
    }

    fn send_more(&mut self) -> io::Result<()> {
        let bytes = [0; READ_BYTES];
        while self.unsent_bytes > 0 {
            let most = bytes.len().min(self.unsent_bytes);
            let Some(sent) = unless_blocked(|| self.client.write(&bytes[..most]))? else { break };
            self.unsent_bytes -= sent;
        }
        Ok(())
    }
}

struct Server {
    budget_bytes: usize,
    poll: Poll,
    connections: Slots<mio::net::TcpStream>,
    ready: ReadyQueue,
}

impl Server {
    fn new(budget_bytes: usize) -> io::Result<Self> {
        Ok(Self { budget_bytes, poll: Poll::new()?, connections: Slots::default(), ready: ReadyQueue::default() })
    }

    fn admit(&mut self) -> io::Result<(Id, TcpStream)> {
        let (client, mut stream) = mio_pair()?;
        self.poll.registry().register(&mut stream, token(self.connections.next_id()), Interest::READABLE)?;
        Ok((self.connections.insert(stream), client))
    }

    fn stream(&self, id: Id) -> &mio::net::TcpStream {
        self.connections.get(id).expect("no connection is removed")
    }

    /// One turn. Each read calls `on_read` with the connection and the number of bytes.
    fn turn(&mut self, mut on_read: impl FnMut(Id, &mio::net::TcpStream, usize) -> io::Result<()>) -> io::Result<()> {
        let longest = if self.ready.is_empty() { PATIENCE } else { Duration::ZERO };
        wait(&mut self.poll, longest)?.iter().filter_map(id).for_each(|id| self.ready.push(id));
        // Serve each connection that is ready now once. One that has spent its budget goes behind all others.
        for _ in 0..self.ready.len() {
            let id = self.ready.pop().expect("the queue has this many");
            let stream = self.connections.get_mut(id).expect("no connection is removed");
            let (mut buffer, mut budget) = ([0; READ_BYTES], Budget::new(self.budget_bytes));
            while let Some(length) = unless_blocked(|| stream.read(&mut buffer))?.filter(|&length| length > 0) {
                on_read(id, stream, length)?;
                budget.spend(length);
                if budget.is_spent() {
                    // It may have more to read, and no event will report that.
                    self.ready.push(id);
                    break;
                }
            }
        }
        Ok(())
    }
}

//! A budget: what one connection may take of a turn, so that a flood and fifty slow clients get on together.
//!
//! One thread serves them all, each until `WouldBlock`. A peer that sends as fast as it is read never lets it come to
//! that, and everybody else waits. The wrong server and the right one differ in a single number.
//!
//! ```text
//! cargo run --example budget
//! ```

mod loopback;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use intake::reactor::{Budget, Id, ReadyQueue, Slots};
use loopback::{ANY, PATIENCE, arrived, connect, unless_blocked, wait};

const SLOW_CLIENTS: usize = 50;
/// What the flood sends in all.
const FLOOD_BYTES: usize = 32 << 20;
const READ_BYTES: usize = 16 << 10;
const BUDGET_BYTES: usize = 64 << 10;
const NO_BUDGET: usize = usize::MAX;

fn main() -> io::Result<()> {
    println!("{SLOW_CLIENTS} clients send a byte before each turn; one sends {FLOOD_BYTES} bytes and never pauses");
    let without = run("without a budget", NO_BUDGET)?;
    let with = run("with a budget", BUDGET_BYTES)?;
    assert_eq!(without.flood_turns, 1, "the first turn ends when the flood does");
    assert_eq!(without.longest_wait_bytes, FLOOD_BYTES, "and all the others stand behind it");
    assert!(with.longest_wait_bytes < BUDGET_BYTES + READ_BYTES, "a budget may be overdrawn by one read");
    assert!(with.flood_turns > FLOOD_BYTES / (BUDGET_BYTES + READ_BYTES));
    assert_eq!((with.flood_bytes, without.flood_bytes), (FLOOD_BYTES, FLOOD_BYTES), "the flood loses nothing by it");
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Figures {
    flood_turns: usize,
    flood_bytes: usize,
    slow_bytes: usize,
    /// The most bytes of the flood that were read in a turn before somebody else was served.
    longest_wait_bytes: usize,
    longest_turn: Duration,
}

fn run(name: &str, budget_bytes: usize) -> io::Result<Figures> {
    let mut server = Server::new(budget_bytes)?;
    let (flood_id, mut flood) = server.admit()?;
    let slow = (0..SLOW_CLIENTS).map(|_| server.admit()).collect::<io::Result<Vec<_>>>()?;
    flood.set_nonblocking(true)?;
    let mut unsent_bytes = FLOOD_BYTES;
    send_more(&mut flood, &mut unsent_bytes)?;
    arrived(server.stream(flood_id), 1)?;
    let (mut figures, mut due_bytes) = (Figures::default(), 0);
    while figures.flood_bytes < FLOOD_BYTES || figures.slow_bytes < due_bytes {
        if figures.flood_bytes < FLOOD_BYTES {
            slow.iter().try_for_each(|(_, client)| (&*client).write_all(b"x"))?;
            slow.iter().try_for_each(|(id, _)| arrived(server.stream(*id), 1))?;
            due_bytes += SLOW_CLIENTS;
            figures.flood_turns += 1;
        }
        let (start, mut flood_this_turn) = (Instant::now(), 0);
        server.turn(|id, stream, length| {
            if id != flood_id {
                figures.slow_bytes += length;
                figures.longest_wait_bytes = figures.longest_wait_bytes.max(flood_this_turn);
                return Ok(());
            }
            figures.flood_bytes += length;
            flood_this_turn += length;
            // Another machine does this meanwhile: what was read makes room, and the room is filled.
            send_more(&mut flood, &mut unsent_bytes)?;
            arrived(stream, (FLOOD_BYTES - figures.flood_bytes).min(1))
        })?;
        figures.longest_turn = figures.longest_turn.max(start.elapsed());
    }
    let Figures { flood_turns, slow_bytes, longest_wait_bytes, longest_turn, .. } = figures;
    println!("{name}: the flood lasts {flood_turns} turns, the longest {longest_turn:.1?};");
    println!(
        "    {slow_bytes} bytes of the others are read meanwhile, each after at most {longest_wait_bytes} of the flood"
    );
    Ok(figures)
}

/// Sends as much as the kernel takes.
fn send_more(flood: &mut TcpStream, unsent_bytes: &mut usize) -> io::Result<()> {
    let bytes = [0; READ_BYTES];
    while *unsent_bytes > 0 {
        let most = bytes.len().min(*unsent_bytes);
        let Some(sent) = unless_blocked(|| flood.write(&bytes[..most]))? else { break };
        *unsent_bytes -= sent;
    }
    Ok(())
}

struct Server {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    connections: Slots<mio::net::TcpStream>,
    ready: ReadyQueue,
    budget_bytes: usize,
}

impl Server {
    fn new(budget_bytes: usize) -> io::Result<Self> {
        let (poll, events, listener) = (Poll::new()?, Events::with_capacity(2 * SLOW_CLIENTS), TcpListener::bind(ANY)?);
        Ok(Self { poll, events, listener, connections: Slots::default(), ready: ReadyQueue::default(), budget_bytes })
    }

    fn admit(&mut self) -> io::Result<(Id, TcpStream)> {
        let (client, mut stream) = connect(&self.listener)?;
        let token = Token(self.connections.next_id().to_bits() as usize);
        self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        Ok((self.connections.insert(stream), client))
    }

    fn stream(&self, id: Id) -> &mio::net::TcpStream {
        self.connections.get(id).expect("nobody is removed")
    }

    /// One turn; `on_read` hears from whom how many bytes were read.
    fn turn(&mut self, mut on_read: impl FnMut(Id, &mio::net::TcpStream, usize) -> io::Result<()>) -> io::Result<()> {
        let longest = if self.ready.is_empty() { PATIENCE } else { Duration::ZERO };
        wait(&mut self.poll, &mut self.events, longest)?;
        for id in self.events.iter().filter_map(|event| Id::from_bits(event.token().0 as u64)) {
            self.ready.push(id);
        }
        // Those that are ready now, once each: who has spent its budget comes after everybody else.
        for _ in 0..self.ready.len() {
            self.serve_next(&mut on_read)?;
        }
        Ok(())
    }

    fn serve_next(
        &mut self,
        on_read: &mut impl FnMut(Id, &mio::net::TcpStream, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(id) = self.ready.pop() else { return Ok(()) };
        let Some(stream) = self.connections.get_mut(id) else { return Ok(()) };
        let (mut buffer, mut budget) = ([0; READ_BYTES], Budget::new(self.budget_bytes));
        while let Some(length) = unless_blocked(|| stream.read(&mut buffer))?.filter(|&length| length > 0) {
            on_read(id, stream, length)?;
            budget.spend(length);
            if budget.is_spent() {
                // It may have more, and no event will tell.
                self.ready.push(id);
                break;
            }
        }
        Ok(())
    }
}

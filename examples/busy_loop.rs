//! Non-blocking sockets without readiness make a busy loop.
//!
//! A thread that must not wait for one of its connections makes them all non-blocking. Then it has to know when to try
//! again, and there are three answers: at once, after a nap, or when the kernel says so. The same messages are received
//! in all three ways, while the kernel counts the thread's reads, its sleeps and its time on the processor.

#![allow(clippy::disallowed_methods, reason = "one of its three ways to wait is a nap")]

mod loopback;

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use mio::{Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

use loopback::kernel::figure;
use loopback::{PATIENCE, mio_pair, unless_blocked, wait};

const CONNECTIONS: usize = 10;
const MESSAGES: usize = 20;
/// The pause before each message. Each message uses another connection than the previous one.
const PAUSE: Duration = Duration::from_millis(20);

/// What the receiver does while no message is there.
#[derive(Clone, Copy, Debug)]
enum Between {
    /// Wrong: tries again at once.
    Spin,
    /// Hardly better: short naps cost many calls, and long ones delay the messages.
    Nap(Duration),
    /// Right: sleeps until the kernel says which connection is ready.
    Poll,
}

fn main() -> io::Result<()> {
    println!("{MESSAGES} messages over {CONNECTIONS} connections, one each {PAUSE:?}");
    let spin = receive(Between::Spin)?;
    let nap = receive(Between::Nap(Duration::from_millis(5)))?;
    let poll = receive(Between::Poll)?;
    assert!(spin > nap && spin > 10 * poll, "nearly all of these reads find nothing");
    assert!(poll <= 2 * MESSAGES, "one read finds the message, and one finds no more");
    Ok(())
}

/// Receives all messages. Returns how many reads that took.
fn receive(between: Between) -> io::Result<usize> {
    let pairs = (0..CONNECTIONS).map(|_| mio_pair()).collect::<io::Result<Vec<_>>>()?;
    let (clients, mut streams): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mut poll = Poll::new()?;
    for (index, stream) in streams.iter_mut().enumerate() {
        poll.registry().register(stream, Token(index), Interest::READABLE)?;
    }
    // The thread hands the clients back: they must not close, as an end would be readable as well.
    let (before, sender) = (Kernel::now()?, thread::spawn(move || send(&clients).map(|()| clients)));
    let (mut received, mut tries) = (0, 0);
    while received < MESSAGES {
        let worth_a_try = match between {
            Between::Spin => (0..CONNECTIONS).collect(),
            Between::Nap(span) => {
                thread::sleep(span);
                (0..CONNECTIONS).collect()
            }
            Between::Poll => wait(&mut poll, PATIENCE)?.iter().map(|event| event.token().0).collect::<Vec<_>>(),
        };
        for index in worth_a_try {
            let (found, reads) = drain(&streams[index])?;
            (received, tries) = (received + found, tries + reads);
        }
    }
    let after = Kernel::now()?;
    let _clients = sender.join().expect("the sender ends well")?;
    let (reads, slept, busy) = (after.reads - before.reads, after.slept - before.slept, after.busy - before.busy);
    let name = format!("{between:?}:");
    println!("{name:10} {tries} tries; by the kernel: {reads} reads, {slept} sleeps, {busy:.1?} on the processor");
    assert!(reads >= tries as u64, "the kernel must have counted at least these reads");
    Ok(tries)
}

/// The messages, one over each connection in turn.
fn send(clients: &[TcpStream]) -> io::Result<()> {
    for number in 0..MESSAGES {
        thread::sleep(PAUSE);
        (&clients[number % CONNECTIONS]).write_all(b"m")?;
    }
    Ok(())
}

/// Reads until `WouldBlock`; returns the bytes that were found and the reads that it took.
fn drain(stream: &mio::net::TcpStream) -> io::Result<(usize, usize)> {
    let (mut buffer, mut found, mut reads) = ([0; 64], 0, 1);
    // read(2) and not recv(2), because the kernel counts only read(2).
    while let Some(length) = unless_blocked(|| Ok(rustix::io::read(stream, &mut buffer)?))? {
        (found, reads) = (found + length, reads + 1);
    }
    Ok((found, reads))
}

/// What the kernel has counted for this thread (proc(5)). The question itself costs a few reads.
struct Kernel {
    reads: u64,
    slept: u64,
    busy: Duration,
}

impl Kernel {
    fn now() -> io::Result<Self> {
        let reads = figure("/proc/thread-self/io", "syscr")?;
        let slept = figure("/proc/thread-self/status", "voluntary_ctxt_switches")?;
        let busy = clock_gettime(ClockId::ThreadCPUTime).try_into().expect("no thread has run for less than no time");
        Ok(Self { reads, slept, busy })
    }
}

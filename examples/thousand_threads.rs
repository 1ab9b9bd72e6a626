//! A thread for each of a thousand connections: the cost, and the limit.
//!
//! `tutorial_receiver` gives each connection a thread. Here a thousand clients send a byte each and then keep silent, as
//! most clients do most of the time. First one thread serves them all, then each has its own. The kernel's figures show the
//! cost.

mod loopback;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;

use mio::{Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use intake::net::raise_descriptor_limit;
use loopback::kernel::figure;
use loopback::{PATIENCE, mio_pair, pair, unless_blocked, wait};

const CLIENTS: usize = 1000;
/// Both ends of a connection are in this process.
const DESCRIPTORS_PER_CLIENT: u64 = 2;
const DESCRIPTORS_BESIDE: u64 = 50;
/// The default stack size of a thread in Rust, and in C (`ulimit -s`).
const RUST_STACK_BYTES: usize = 2 << 20;
const C_STACK_BYTES: usize = 8 << 20;
/// Room for six stacks and a half, so that the allocation that fails is a stack and not a small one.
const SCARCE_BYTES: u64 = 52 << 20;

fn main() -> io::Result<()> {
    let room = (raise_descriptor_limit()?.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_PER_CLIENT) as usize;
    let clients = CLIENTS.min(room);
    println!("{clients} clients that send a byte and keep silent");
    let (one, each) = (one_thread(clients)?, a_thread_each(clients, RUST_STACK_BYTES)?);
    assert_eq!((one.clients, one.threads), (clients, 0), "no thread is added");
    assert_eq!(each.threads, each.clients as u64, "one is added for each");
    assert!(each.reserved_kib >= each.threads * (RUST_STACK_BYTES >> 10) as u64, "a stack for each");
    assert!(each.resident_kib > 2 * one.resident_kib, "and memory for the part of it that was used");

    println!("the same with {} MiB of addresses left, and {} for each stack", SCARCE_BYTES >> 20, C_STACK_BYTES >> 20);
    let limit = getrlimit(Resource::As);
    let current = figure("/proc/self/status", "VmSize")? * 1024 + SCARCE_BYTES;
    setrlimit(Resource::As, Rlimit { current: Some(current), ..limit })?;
    let (one, each) = (one_thread(clients)?, a_thread_each(clients, C_STACK_BYTES)?);
    setrlimit(Resource::As, limit)?;
    assert_eq!(one.clients, clients);
    assert!(each.clients < clients, "addresses run out long before descriptors");
    Ok(())
}

fn one_thread(clients: usize) -> io::Result<Held> {
    let (before, mut poll) = (Held::by(0)?, Poll::new()?);
    let (mut connections, mut speakers) = (Vec::new(), Vec::new());
    for index in 0..clients {
        let (client, mut stream) = mio_pair()?;
        poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        connections.push(stream);
        speakers.push(client);
    }
    speakers.iter().try_for_each(|mut client| client.write_all(b"w"))?;
    let mut answered = 0;
    while answered < clients {
        for event in wait(&mut poll, PATIENCE)? {
            let stream: &mut mio::net::TcpStream = &mut connections[event.token().0];
            let mut buffer = [0; 64];
            while let Some(length) = unless_blocked(|| stream.read(&mut buffer))?.filter(|&length| length > 0) {
                stream.write_all(&buffer[..length])?;
                answered += length;
            }
        }
    }
    hear_all(&speakers)?;
    Held::by(speakers.len())?.report("one thread", before)
}

fn a_thread_each(clients: usize, stack_bytes: usize) -> io::Result<Held> {
    let (before, mut speakers, mut threads) = (Held::by(0)?, Vec::new(), Vec::new());
    while threads.len() < clients {
        let (client, stream) = pair()?;
        // `thread::spawn`, which the tutorials use, would panic here: in the accept loop, and so for all clients.
        match thread::Builder::new().stack_size(stack_bytes).spawn(move || echo(stream)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                println!("  thread {} cannot be started: {error}", threads.len() + 1);
                break;
            }
        }
        speakers.push(client);
    }
    speakers.iter().try_for_each(|mut client| client.write_all(b"w"))?;
    hear_all(&speakers)?;
    let held = Held::by(speakers.len())?.report("a thread each", before);
    drop(speakers);
    threads.into_iter().try_for_each(|thread| thread.join().expect("a thread ends when its client does"))?;
    held
}

/// A thread may simply wait for a slow client.
fn echo(stream: TcpStream) -> io::Result<()> {
    io::copy(&mut &stream, &mut &stream).map(drop)
}

/// Reads each client's answer.
fn hear_all(speakers: &[TcpStream]) -> io::Result<()> {
    speakers.iter().try_for_each(|mut client| client.read_exact(&mut [0; 1]))
}

/// The resources of this process, as the kernel counts them (proc(5)).
struct Held {
    clients: usize,
    threads: u64,
    /// Address space.
    reserved_kib: u64,
    /// Memory.
    resident_kib: u64,
}

impl Held {
    fn by(clients: usize) -> io::Result<Self> {
        let status = |name| figure("/proc/self/status", name);
        // The sum over all mappings is exact; VmRSS in `status` may be behind by some pages for each processor.
        let resident_kib = figure("/proc/self/smaps_rollup", "Rss")?;
        Ok(Self { clients, threads: status("Threads")?, reserved_kib: status("VmSize")?, resident_kib })
    }

    /// Prints the use in addition to `before`.
    fn report(self, name: &str, before: Self) -> io::Result<Self> {
        let threads = self.threads - before.threads;
        let reserved_kib = self.reserved_kib.saturating_sub(before.reserved_kib);
        let resident_kib = self.resident_kib.saturating_sub(before.resident_kib);
        let Self { clients, .. } = self;
        println!(
            "  {name}: {clients} served; {threads} more threads, {resident_kib} KiB memory, {reserved_kib} KiB addresses"
        );
        Ok(Self { clients, threads, reserved_kib, resident_kib })
    }
}

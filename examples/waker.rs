//! A thread's result comes back to the loop through a channel and a `Waker`: the one carries it, the other one tells.
//!
//! Some work has no readiness: a file on a disk cannot be polled, and a sync of it takes as long as it takes. A thread
//! does it. But the loop is asleep in its poll and hears of nothing that the kernel does not report.
//!
//! ```text
//! cargo run --example waker
//! ```

mod loopback;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use rustix::event::epoll;
use rustix::io::Errno;

use loopback::{ANY, PATIENCE, SILENCE, connect, unless_blocked, wait};

const WAKER: Token = Token(0);
const CLIENT: Token = Token(1);
const THREADS: usize = 100;

fn main() -> io::Result<()> {
    a_file_has_no_readiness()?;
    a_channel_wakes_nobody()?;
    others_are_served_meanwhile()?;
    wakes_are_one_edge()?;
    the_result_goes_first()
}

/// A loop that takes results from a channel, and what a thread needs to hand it one.
struct Loop {
    poll: Poll,
    events: Events,
    results: Receiver<usize>,
    worker: Worker,
}

#[derive(Clone)]
struct Worker {
    sender: Sender<usize>,
    /// One for each poll: shared, and kept for as long as somebody may wake (`mio::Waker`).
    waker: Arc<Waker>,
}

impl Worker {
    /// Right: first the result, then the word that it is there.
    fn finish(&self, result: usize) {
        self.sender.send(result).expect("the loop lives as long as its workers");
        self.waker.wake().expect("there is an eventfd to write to");
    }
}

impl Loop {
    fn new() -> io::Result<Self> {
        let (poll, (sender, results)) = (Poll::new()?, channel());
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, events: Events::with_capacity(8), results, worker: Worker { sender, waker } })
    }

    /// Waits, then takes up to `most` results if the waker has fired. Returns the events and the results.
    fn turn(&mut self, most: usize, longest: Duration) -> io::Result<(usize, Vec<usize>)> {
        let events = wait(&mut self.poll, &mut self.events, longest)?;
        let woken = self.events.iter().any(|event| event.token() == WAKER);
        let results = self.results.try_iter().take(if woken { most } else { 0 }).collect();
        Ok((events, results))
    }
}

fn a_file_has_no_readiness() -> io::Result<()> {
    let (file, epoll) = (tempfile::tempfile()?, epoll::create(epoll::CreateFlags::CLOEXEC)?);
    let refused = epoll::add(&epoll, &file, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
    println!("a regular file cannot be registered: {}", io::Error::from(refused.expect_err("files are always ready")));
    assert_eq!(refused, Err(Errno::PERM));
    Ok(())
}

fn a_channel_wakes_nobody() -> io::Result<()> {
    println!("-- a result arrives while the loop sleeps");
    let mut alone = Loop::new()?;
    let worker = alone.worker.clone();
    thread::spawn(move || worker.sender.send(sync_a_file())).join().expect("the thread ends well").expect("sent");
    let (events, results) = alone.turn(usize::MAX, SILENCE)?;
    println!("wrong, a channel alone: {events} events, {} results, and one that lies there", results.len());
    assert_eq!((events, results.len(), alone.results.try_iter().count()), (0, 0, 1));

    let mut told = Loop::new()?;
    let worker = told.worker.clone();
    let thread = thread::spawn(move || worker.finish(sync_a_file()));
    let (events, results) = told.turn(usize::MAX, PATIENCE)?;
    println!("right, with a waker: {events} events, {} results", results.len());
    assert_eq!((events, results.len()), (1, 1));
    thread.join().expect("the thread ends well");
    Ok(())
}

/// The job here takes until the client has been answered, so whoever waits for the job never answers.
fn others_are_served_meanwhile() -> io::Result<()> {
    println!("-- a client speaks while a thread works");
    let mut server = Loop::new()?;
    let (mut client, mut stream) = connect(&TcpListener::bind(ANY)?)?;
    server.poll.registry().register(&mut stream, CLIENT, Interest::READABLE)?;
    client.set_nonblocking(true)?;
    client.write_all(b"ping")?;
    let (worker, answered) = (server.worker.clone(), Arc::new(Barrier::new(2)));
    let end_of_job = answered.clone();
    let thread = thread::spawn(move || {
        end_of_job.wait();
        worker.finish(sync_a_file());
    });

    assert!(server.results.recv_timeout(SILENCE).is_err());
    assert!(unless_blocked(|| client.read(&mut [0; 4]))?.is_none());
    println!("wrong, waiting on the channel: no result yet, and the client has heard nothing either");
    let (_, results) = server.turn(usize::MAX, PATIENCE)?;
    assert!(results.is_empty(), "the event is the client's");
    let mut buffer = [0; 4];
    let length = unless_blocked(|| stream.read(&mut buffer))?.expect("the event said so");
    stream.write_all(&buffer[..length])?;
    println!("right, waiting in the poll: the client was answered, and the result came afterwards");
    answered.wait();
    assert_eq!(server.turn(usize::MAX, PATIENCE)?.1.len(), 1);
    thread.join().expect("the thread ends well");
    Ok(())
}

fn wakes_are_one_edge() -> io::Result<()> {
    println!("-- {THREADS} threads finish before the loop looks");
    for (name, most) in [("wrong, one result for an event", 1), ("right, all that are there", usize::MAX)] {
        let mut server = Loop::new()?;
        thread::scope(|scope| {
            for number in 0..THREADS {
                let worker = server.worker.clone();
                scope.spawn(move || worker.finish(number));
            }
        });
        assert!(eventfd_counts()?.contains(&(THREADS as u64)), "each wake adds one to a counter in the kernel");
        let (events, results) = server.turn(most, PATIENCE)?;
        println!("{name}: {THREADS} wakes by the kernel's count, {events} events, {} results", results.len());
        assert_eq!((events, results.len()), (1, most.min(THREADS)));
        assert_eq!(server.turn(most, SILENCE)?, (0, vec![]), "the edge is spent, whatever is left");
    }
    Ok(())
}

fn the_result_goes_first() -> io::Result<()> {
    println!("-- which goes first");
    let mut server = Loop::new()?;
    // Wrong: between the two the loop may look, find nothing, and fall asleep.
    server.worker.waker.wake()?;
    let woken_early = server.turn(usize::MAX, PATIENCE)?;
    server.worker.sender.send(1).expect("the loop is here");
    let asleep = server.turn(usize::MAX, SILENCE)?;
    println!("wrong, the wake: a look that found nothing, and then a result that nobody looks for");
    assert_eq!((woken_early, asleep), ((1, vec![]), (0, vec![])));
    server.worker.finish(2);
    println!("right, the result: whenever the loop looks, it is there");
    assert_eq!(server.turn(usize::MAX, PATIENCE)?, (1, vec![1, 2]));
    Ok(())
}

/// A job that no poll can wait for. Returns the bytes that are on the disk then.
fn sync_a_file() -> usize {
    let sync = || -> io::Result<usize> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&[0; 4096])?;
        file.sync_all()?;
        Ok(file.metadata()?.len() as usize)
    };
    sync().expect("a temporary file can be written")
}

/// What the counters of this process's eventfds stand at, by the kernel (eventfd(2), proc(5)).
fn eventfd_counts() -> io::Result<Vec<u64>> {
    let mut counts = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The descriptor that the directory is read through is gone by the time that it is looked at.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:"));
        counts.extend(count.and_then(|count| u64::from_str_radix(count.trim(), 16).ok()));
    }
    Ok(counts)
}

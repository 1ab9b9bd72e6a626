//! A thread returns its result to the loop through a channel, and wakes the loop with a `Waker`.
//!
//! Some work has no readiness: a file on a disk cannot be polled, and a sync of it may take long. A thread does it.
//! But the loop sleeps in its poll, and only the kernel can wake it.

mod loopback;

use std::fs;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use mio::{Interest, Poll, Token, Waker};
use rustix::event::epoll;
use rustix::io::Errno;

use loopback::{PATIENCE, SILENCE, mio_pair, unless_blocked, wait};

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

/// A loop that takes results from a channel.
struct Loop {
    poll: Poll,
    results: Receiver<usize>,
    worker: Worker,
}

/// What a thread needs to send a result.
#[derive(Clone)]
struct Worker {
    sender: Sender<usize>,
    /// One for each poll, shared by all threads, and kept for as long as any of them may use it (`mio::Waker`).
    waker: Arc<Waker>,
}

impl Worker {
    /// Right: first the result, then the wake.
    fn finish(&self, result: usize) {
        self.sender.send(result).expect("the loop lives as long as its workers");
        self.waker.wake().expect("there is an eventfd to write to");
    }
}

impl Loop {
    fn new() -> io::Result<Self> {
        let (poll, (sender, results)) = (Poll::new()?, channel());
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, results, worker: Worker { sender, waker } })
    }

    /// Waits, then takes up to `most` results if the waker has fired. Returns the events and the results.
    fn turn(&mut self, most: usize, longest: Duration) -> io::Result<(usize, Vec<usize>)> {
        let events = wait(&mut self.poll, longest)?;
        let woken = events.iter().any(|event| event.token() == WAKER);
        Ok((events.len(), self.results.try_iter().take(if woken { most } else { 0 }).collect()))
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
    for (name, wakes) in [("wrong, a channel alone", false), ("right, with a waker", true)] {
        let mut server = Loop::new()?;
        let worker = server.worker.clone();
        let job = thread::spawn(move || match wakes {
            false => worker.sender.send(1).expect("the loop lives as long as its workers"),
            true => worker.finish(1),
        });
        let (events, results) = server.turn(usize::MAX, if wakes { PATIENCE } else { SILENCE })?;
        job.join().expect("the thread ends well");
        let left = server.results.try_iter().count();
        println!("{name}: {events} events, {} results, and {left} left in the channel", results.len());
        assert_eq!((events, results.len(), left), if wakes { (1, 1, 0) } else { (0, 0, 1) });
    }
    Ok(())
}

/// The job lasts until the client is answered, so a server that waits for the job never answers.
fn others_are_served_meanwhile() -> io::Result<()> {
    println!("-- a client speaks while a thread works");
    let mut server = Loop::new()?;
    let (mut client, mut stream) = mio_pair()?;
    server.poll.registry().register(&mut stream, CLIENT, Interest::READABLE)?;
    client.write_all(b"ping")?;
    let (worker, answered) = (server.worker.clone(), Arc::new(Barrier::new(2)));
    let end_of_job = answered.clone();
    let thread = thread::spawn(move || {
        end_of_job.wait();
        worker.finish(1);
    });

    assert!(server.results.recv_timeout(SILENCE).is_err());
    println!("wrong, waiting on the channel: no result yet, and no answer to the client either");
    assert_eq!(server.turn(usize::MAX, PATIENCE)?, (1, vec![]), "the event is the client's");
    let mut buffer = [0; 4];
    let length = unless_blocked(|| stream.read(&mut buffer))?.expect("the event said so");
    stream.write_all(&buffer[..length])?;
    client.read_exact(&mut buffer)?;
    answered.wait();
    assert_eq!(server.turn(usize::MAX, PATIENCE)?.1.len(), 1);
    println!("right, waiting in the poll: the client was answered, and the result came afterwards");
    thread.join().expect("the thread ends well");
    Ok(())
}

fn wakes_are_one_edge() -> io::Result<()> {
    println!("-- {THREADS} threads finish before the loop looks");
    for (name, most) in [("wrong, one result for an event", 1), ("right, all results", usize::MAX)] {
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
        assert_eq!(server.turn(most, SILENCE)?, (0, vec![]), "no further edge comes, whatever is left");
    }
    Ok(())
}

fn the_result_goes_first() -> io::Result<()> {
    println!("-- the order of the result and the wake");
    let mut server = Loop::new()?;
    // Wrong: between the two, the loop may wake, find nothing, and sleep again.
    server.worker.waker.wake()?;
    assert_eq!(server.turn(usize::MAX, PATIENCE)?, (1, vec![]));
    server.worker.sender.send(1).expect("the loop is alive");
    assert_eq!(server.turn(usize::MAX, SILENCE)?, (0, vec![]));
    println!("wrong, the wake first: the loop finds nothing, and sleeps when the result comes");
    server.worker.finish(2);
    assert_eq!(server.turn(usize::MAX, PATIENCE)?, (1, vec![1, 2]));
    println!("right, the result first: it is there when the loop wakes");
    Ok(())
}

/// The counters of this process's eventfds, as the kernel has them (eventfd(2), proc(5)).
fn eventfd_counts() -> io::Result<Vec<u64>> {
    let infos = fs::read_dir("/proc/self/fdinfo")?.collect::<io::Result<Vec<_>>>()?;
    // The descriptor of the directory itself is closed by now, so its entry cannot be read.
    let texts = infos.iter().filter_map(|info| fs::read_to_string(info.path()).ok());
    let count = |text: String| {
        let count = text.lines().find_map(|line| line.strip_prefix("eventfd-count:"))?;
        u64::from_str_radix(count.trim(), 16).ok()
    };
    Ok(texts.filter_map(count).collect())
}

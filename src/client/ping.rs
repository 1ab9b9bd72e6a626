//! UDP round trips to an echo: datagrams sent on an interval, and a tally of what came back.
//!
//! The tally knows neither socket nor clock; times are handed in as durations since the start.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The smallest datagram, in bytes: 8 of sequence number and 8 to tell whether it came back unchanged.
pub const SIZE_MIN_BYTES: usize = 16;
/// The largest datagram, in bytes: what 65,535 leave beside the headers of IPv4 (20) and UDP (8).
pub const SIZE_MAX_BYTES: usize = 65_507;
/// The most datagrams in a run: each is remembered, to tell late and duplicate answers.
pub const COUNT_MAX: u32 = 1_000_000;

/// What is sent, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many datagrams, up to [`COUNT_MAX`].
    pub count: u32,
    /// The size of each in bytes, [`SIZE_MIN_BYTES`] to [`SIZE_MAX_BYTES`].
    pub size: usize,
    /// The pause between two, whether or not an answer has come.
    pub interval: Duration,
    /// When an answer that comes after all is late.
    pub timeout: Duration,
}

impl Default for Plan {
    /// What ping(8) sends, four times; 2 s are longer than any usual round trip.
    fn default() -> Self {
        Self { count: 4, size: 64, interval: Duration::from_secs(1), timeout: Duration::from_secs(2) }
    }
}

/// What happened to a datagram, or to one that is no answer. Sequence numbers count from 1.
#[derive(Debug)]
pub enum Event {
    /// It came back unchanged and in time.
    Answer(u64, Duration),
    /// It came back unchanged, after the timeout.
    Late(u64, Duration),
    /// It came back once more.
    Duplicate(u64),
    /// Something came back that was never sent like this; its size in bytes.
    Corrupt(usize),
    /// The system reports an error, such as an ICMP message that nothing listens there.
    Failed(io::Error),
}

/// Counts of all events, the answers' round trips, and how the run ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Datagrams sent.
    pub sent: u64,
    /// The round trips of the unchanged answers that came in time.
    pub round_trips: Vec<Duration>,
    /// Unchanged answers after the timeout.
    pub late: u64,
    /// Answers to what was answered before.
    pub duplicates: u64,
    /// Datagrams that were never sent like this.
    pub corrupt: u64,
    /// Errors that the system reported.
    pub failed: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// Pings `to` as `plan` says, until all is answered, the last timeout has passed or `stop` is readable. `on_event` hears
/// everything as it happens.
///
/// # Errors
/// When no socket can be had, or waiting on it fails. What happens to single datagrams is an [`Event`].
pub fn ping(to: SocketAddr, plan: Plan, stop: impl AsFd, mut on_event: impl FnMut(&Event)) -> io::Result<Summary> {
    let socket = connect(to)?;
    let start = Instant::now();
    let mut tally = Tally::new(plan, RandomState::new().build_hasher().finish());
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let now = start.elapsed();
        if tally.is_due(now)
            && let Err(error) = socket.send(&tally.send(now))
        {
            on_event(&tally.fail(error));
        }
        let Some(wake) = tally.wake(now) else { return Ok(tally.summary) };
        match wait(&socket, &stop, wake.saturating_sub(now))? {
            Woken::Timeout => {}
            Woken::Stop => return Ok(Summary { stopped: true, ..tally.summary }),
            Woken::Socket => match socket.recv(&mut buffer) {
                Ok(length) => on_event(&tally.receive(&buffer[..length], start.elapsed())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => on_event(&tally.fail(error)),
            },
        }
    }
}

/// A connected socket hears of ICMP errors, and of nobody but its peer.
fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

enum Woken {
    Timeout,
    Stop,
    Socket,
}

fn wait(socket: &UdpSocket, stop: &impl AsFd, timeout: Duration) -> io::Result<Woken> {
    let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
    // What no timespec holds is for ever.
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut fds, timeout.as_ref()) {
        // A signal has come: whether it means to stop is for the next wait to find.
        Ok(0) | Err(Errno::INTR) => Ok(Woken::Timeout),
        Ok(_) if fds[0].revents().is_empty() => Ok(Woken::Socket),
        Ok(_) => Ok(Woken::Stop),
        Err(error) => Err(error.into()),
    }
}

struct Tally {
    plan: Plan,
    /// Tells this run's datagrams from any other's.
    run: u64,
    /// Indexed by sequence number less 1.
    probes: Vec<Probe>,
    next_send: Duration,
    summary: Summary,
}

struct Probe {
    sent_at: Duration,
    answered: bool,
}

impl Tally {
    fn new(plan: Plan, run: u64) -> Self {
        Self { plan, run, probes: Vec::new(), next_send: Duration::ZERO, summary: Summary::default() }
    }

    fn is_due(&self, now: Duration) -> bool {
        self.summary.sent < u64::from(self.plan.count) && self.next_send <= now
    }

    /// When there is something to do; `None` when the run is over.
    fn wake(&self, now: Duration) -> Option<Duration> {
        let Summary { sent, late, failed, .. } = self.summary;
        if sent < u64::from(self.plan.count) {
            return Some(self.next_send);
        }
        let deadline = self.probes.last()?.sent_at.saturating_add(self.plan.timeout);
        (self.summary.answered() + late + failed < sent && now < deadline).then_some(deadline)
    }

    /// The next datagram, which is sent `now`. The one after it waits for a whole interval, even if this one is overdue:
    /// a process that was stopped does not make up for it with a burst.
    fn send(&mut self, now: Duration) -> Vec<u8> {
        self.next_send = now.saturating_add(self.plan.interval);
        self.probes.push(Probe { sent_at: now, answered: false });
        self.summary.sent += 1;
        datagram(self.run, self.summary.sent, self.plan.size)
    }

    fn fail(&mut self, error: io::Error) -> Event {
        self.summary.failed += 1;
        Event::Failed(error)
    }

    fn receive(&mut self, received: &[u8], now: Duration) -> Event {
        let Some(sequence) = self.sequence_of(received) else {
            self.summary.corrupt += 1;
            return Event::Corrupt(received.len());
        };
        let probe = &mut self.probes[sequence as usize - 1];
        let round_trip = now.saturating_sub(probe.sent_at);
        if std::mem::replace(&mut probe.answered, true) {
            self.summary.duplicates += 1;
            Event::Duplicate(sequence)
        } else if round_trip > self.plan.timeout {
            self.summary.late += 1;
            Event::Late(sequence, round_trip)
        } else {
            self.summary.round_trips.push(round_trip);
            Event::Answer(sequence, round_trip)
        }
    }

    /// The number of the sent datagram that is exactly this one.
    fn sequence_of(&self, received: &[u8]) -> Option<u64> {
        let sequence = u64::from_be_bytes(*received.first_chunk()?);
        let was_sent = (1..=self.summary.sent).contains(&sequence);
        (was_sent && received == datagram(self.run, sequence, self.plan.size)).then_some(sequence)
    }
}

/// The sequence number, and bytes that depend on it and the run: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn datagram(run: u64, sequence: u64, size: usize) -> Vec<u8> {
    let mut bytes = sequence.to_be_bytes().to_vec();
    let mut state = run ^ sequence.rotate_left(32);
    while bytes.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((mixed ^ (mixed >> 31)).to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Summary {
    /// Datagrams that came back unchanged and in time.
    pub fn answered(&self) -> u64 {
        self.round_trips.len() as u64
    }

    /// Datagrams that never came back unchanged.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered() - self.late
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(sequence, time) => write!(f, "seq={sequence} time={:.3} ms", millis(*time)),
            Self::Late(sequence, time) => write!(f, "seq={sequence} time={:.3} ms, late", millis(*time)),
            Self::Duplicate(sequence) => write!(f, "seq={sequence} duplicate"),
            Self::Corrupt(size) => write!(f, "{size} bytes that were not sent like this"),
            Self::Failed(error) if error.kind() == ErrorKind::ConnectionRefused => f.write_str("nothing listens there"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, round_trips, late, duplicates, corrupt, .. } = self;
        let (answered, lost) = (self.answered(), self.lost());
        let lost_percent = 100.0 * lost as f64 / (*sent).max(1) as f64;
        write!(f, "{sent} sent, {answered} answered, {late} late, {lost} lost ({lost_percent:.0} %), ")?;
        write!(f, "{duplicates} duplicate, {corrupt} corrupt")?;
        if answered == 0 {
            return Ok(());
        }
        let times = || round_trips.iter().map(|time| millis(*time));
        let mean = times().sum::<f64>() / answered as f64;
        let deviation = (times().map(|time| (time - mean).powi(2)).sum::<f64>() / answered as f64).sqrt();
        let (min, max) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
        write!(f, "\nround trip min/avg/max/mdev = {min:.3}/{mean:.3}/{max:.3}/{deviation:.3} ms")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn plan(count: u32) -> Plan {
        Plan { count, size: 64, interval: 10 * MS, timeout: 100 * MS }
    }

    fn tally(count: u32) -> Tally {
        Tally::new(plan(count), 7)
    }

    #[test]
    fn datagrams_have_their_size_and_differ_everywhere() {
        for size in [SIZE_MIN_BYTES, 17, 64, SIZE_MAX_BYTES] {
            assert_eq!(datagram(7, 1, size).len(), size);
        }
        assert_ne!(datagram(7, 1, 64)[8..], datagram(7, 2, 64)[8..]);
        assert_ne!(datagram(7, 1, 64)[8..], datagram(8, 1, 64)[8..]);
    }

    #[test]
    fn answers_duplicates_and_late_ones_are_told_apart() {
        let mut tally = tally(3);
        let first = tally.send(Duration::ZERO);
        let second = tally.send(10 * MS);
        assert!(matches!(tally.receive(&second, 12 * MS), Event::Answer(2, time) if time == 2 * MS));
        assert!(matches!(tally.receive(&second, 13 * MS), Event::Duplicate(2)));
        assert!(matches!(tally.receive(&first, 101 * MS), Event::Late(1, time) if time == 101 * MS));
        assert!(matches!(tally.receive(&first, 102 * MS), Event::Duplicate(1)));
        tally.send(20 * MS);
        let Summary { sent, late, duplicates, corrupt, .. } = tally.summary;
        assert_eq!((sent, late, duplicates, corrupt), (3, 1, 2, 0));
        assert_eq!((tally.summary.answered(), tally.summary.lost()), (1, 1));
    }

    #[test]
    fn a_changed_datagram_is_corrupt_wherever_it_was_changed() {
        let mut tally = tally(2);
        let sent = tally.send(Duration::ZERO);
        tally.send(Duration::ZERO);
        for index in 0..sent.len() {
            let mut changed = sent.clone();
            changed[index] ^= 3;
            assert!(matches!(tally.receive(&changed, MS), Event::Corrupt(64)), "byte {index}");
        }
        let longer = [&sent[..], b"x"].concat();
        for received in [&sent[..63], &sent[..7], &longer, b"", &datagram(7, 0, 64), &datagram(7, 3, 64)] {
            assert!(matches!(tally.receive(received, MS), Event::Corrupt(_)));
        }
        assert!(matches!(tally.receive(&sent, MS), Event::Answer(1, _)));
    }

    #[test]
    fn sending_keeps_the_interval_and_makes_up_for_nothing() {
        let mut tally = tally(3);
        assert!(tally.is_due(Duration::ZERO));
        tally.send(Duration::ZERO);
        assert!(!tally.is_due(9 * MS));
        assert_eq!(tally.wake(9 * MS), Some(10 * MS));
        assert!(tally.is_due(500 * MS));
        tally.send(500 * MS);
        assert_eq!(tally.wake(500 * MS), Some(510 * MS));
    }

    #[test]
    fn the_run_is_over_when_all_is_answered_or_late() {
        let mut tally = tally(1);
        let sent = tally.send(Duration::ZERO);
        assert_eq!(tally.wake(MS), Some(100 * MS));
        assert_eq!(tally.wake(100 * MS), None);
        tally.receive(&sent, MS);
        assert_eq!(tally.wake(MS), None);
    }

    #[test]
    fn the_summary_has_the_numbers_of_ping() {
        let mut tally = tally(4);
        for time in [1, 2, 3] {
            let sent = tally.send(Duration::ZERO);
            tally.receive(&sent, time * MS);
        }
        tally.send(Duration::ZERO);
        let lines = "4 sent, 3 answered, 0 late, 1 lost (25 %), 0 duplicate, 0 corrupt\n\
                     round trip min/avg/max/mdev = 1.000/2.000/3.000/0.816 ms";
        assert_eq!(tally.summary.to_string(), lines);
        let nothing = "0 sent, 0 answered, 0 late, 0 lost (0 %), 0 duplicate, 0 corrupt";
        assert_eq!(Summary::default().to_string(), nothing);
    }

    /// Pings an echo that hands each datagram to `answer`, which says what to send back.
    fn ping_echo(plan: Plan, answer: impl Fn(u64, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Summary {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let count = u64::from(plan.count);
        let echo = thread::spawn(move || {
            let mut buffer = vec![0; SIZE_MAX_BYTES];
            for number in 1..=count {
                let (length, peer) = socket.recv_from(&mut buffer).unwrap();
                for reply in answer(number, &buffer[..length]) {
                    socket.send_to(&reply, peer).unwrap();
                }
            }
        });
        let (stop, _not_stopped) = UnixStream::pair().unwrap();
        let summary = ping(address, plan, stop, |_| {}).unwrap();
        echo.join().unwrap();
        summary
    }

    #[test]
    fn an_echo_answers_all_at_any_size() {
        for size in [SIZE_MIN_BYTES, 1472, SIZE_MAX_BYTES] {
            let summary = ping_echo(Plan { size, ..plan(3) }, |_, sent| vec![sent.to_vec()]);
            assert_eq!((summary.answered(), summary.lost(), summary.corrupt), (3, 0, 0), "{size} bytes");
        }
    }

    #[test]
    fn loss_duplicates_and_damage_are_counted_over_a_real_socket() {
        let summary = ping_echo(plan(4), |number, sent| match number {
            1 => vec![],
            2 => vec![sent.to_vec(), sent.to_vec()],
            3 => vec![sent[1..].to_vec()],
            _ => vec![sent.to_vec()],
        });
        assert_eq!((summary.answered(), summary.lost(), summary.duplicates, summary.corrupt), (2, 2, 1, 1));
    }

    #[test]
    fn a_port_without_a_listener_is_told_in_words() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (stop, _not_stopped) = UnixStream::pair().unwrap();
        let mut words = Vec::new();
        let summary = ping(gone, plan(2), stop, |event| words.push(event.to_string())).unwrap();
        assert_eq!((summary.answered(), summary.failed), (0, 2));
        assert_eq!(words, ["nothing listens there", "nothing listens there"]);
    }

    #[test]
    fn a_stop_ends_the_run_at_once() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (stop, stopper) = UnixStream::pair().unwrap();
        drop(stopper);
        let plan = Plan { interval: Duration::MAX, timeout: Duration::MAX, ..plan(2) };
        let summary = ping(silent.local_addr().unwrap(), plan, stop, |_| {});
        let summary = summary.unwrap();
        assert_eq!((summary.sent, summary.stopped), (1, true));
    }
}

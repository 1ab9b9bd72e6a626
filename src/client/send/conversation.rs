//! One connection: the socket that drives a [`Sender`] through as many uploads as there are.
//!
//! The socket never blocks, so that what the server says is read while content is being sent: a server whose replies
//! nobody reads stops reading too. The connection is set to end with RST until nothing more is to be sent. A sender that
//! is killed, interrupted or at a loss in mid-file thus never looks like one that has finished: in the classic and line
//! dialects a clean end is all that tells a whole file from half of one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::content::{CHUNK_BYTES, Content, SourceError};
use super::job::{Job, Pending};
use super::{SendError, Sent};
use crate::proto::{Failure, Outcome, Sender, Step};

/// How long each address is given to accept: a lost SYN is repeated after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most uploads that wait for their outcome at once: twice what a server gathers for one write to its disk.
const IN_FLIGHT_MAX: usize = 128;
/// How long the rest of a reply may be on its way. Servers write theirs in one piece.
const REPLY_GRACE: Duration = Duration::from_secs(1);

/// One connection, and what goes over it.
pub(super) struct Conversation {
    stream: TcpStream,
    sender: Sender,
    /// What has no outcome yet, in the order of the requests.
    flights: VecDeque<Flight>,
    /// Of the last one of them, while it is being sent.
    content: Option<Content>,
    /// Why no more of it can be read. The connection is of no use then, but what was sent before gets its outcomes.
    spoiled: Option<SourceError>,
    /// To be sent; the first `written` bytes are.
    out: Vec<u8>,
    written: usize,
    /// When a byte last moved.
    moved: Instant,
    /// The start of what the server said last.
    said: Vec<u8>,
    trouble: Option<Trouble>,
}

/// One upload that has no outcome yet.
struct Flight {
    pending: Pending,
    began: Instant,
    /// The content that is dealt with, in bytes.
    position: u64,
    /// Content is being sent.
    is_sending: bool,
}

/// Why a connection can be used no more, apart from what the server says.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// For so long.
    Silence(Duration),
    Network(ErrorKind),
}

/// Connects to the first address that accepts.
///
/// # Errors
/// The last address's.
pub(super) fn connect(to: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in to {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(stream) => return configure(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn configure(stream: TcpStream) -> io::Result<TcpStream> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    // What is written is as much as there is to write: to hold back the end of it only delays the receipt.
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

impl Conversation {
    /// A conversation over a connection of [`connect`].
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            sender: Sender::new(),
            flights: VecDeque::new(),
            content: None,
            spoiled: None,
            out: Vec::with_capacity(CHUNK_BYTES),
            written: 0,
            moved: Instant::now(),
            said: Vec::new(),
            trouble: None,
        }
    }

    /// Sends what `job` has until it has no more and every outcome is known, or the conversation has ended.
    pub(super) fn run(mut self, job: &mut Job<'_>) {
        loop {
            // First, so that each connection is the chance of one upload at least, and none is made for ever in vain.
            let filled = self.fill(job);
            let sent = self.flush();
            let heard = self.hear();
            self.settle(job);
            if self.is_over() {
                break;
            }
            if !(heard || filled || sent) {
                self.wait(job.patience());
            }
        }
        self.settle(job);
    }

    /// Whether nothing more will come of it.
    fn is_over(&mut self) -> bool {
        if self.spoiled.is_some() && self.flights.len() == 1 {
            self.sender.reset();
        }
        match self.sender.step() {
            Step::Over => true,
            Step::Idle if self.flights.is_empty() && self.out.is_empty() => {
                // Fails only for a connection that has ended anyway.
                let _ = SockRef::from(&self.stream).set_linger(None);
                true
            }
            _ => false,
        }
    }

    /// Hands in what one read brings. Returns whether there was something.
    fn hear(&mut self) -> bool {
        let mut said = [0; 4096];
        match self.stream.read(&mut said) {
            Ok(0) => self.sender.end_of_stream(),
            Ok(length) => self.take_in(&said[..length]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return false,
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => self.sender.reset(),
                kind => self.break_off(Trouble::Network(kind)),
            },
        }
        true
    }

    fn take_in(&mut self, said: &[u8]) {
        self.moved = Instant::now();
        self.said = said.to_owned();
        self.sender.receive(said);
    }

    fn break_off(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble);
        self.sender.reset();
    }

    /// Passes on the outcomes that are known.
    fn settle(&mut self, job: &mut Job<'_>) {
        while let Some(outcome) = self.sender.outcome() {
            let flight = self.flights.pop_front().expect("there is one outcome for each upload");
            let spoiled = self.spoiled.take_if(|_| self.flights.is_empty());
            let result = match spoiled {
                Some(error) => Err(error.into()),
                None => self.explain(&flight, outcome),
            };
            job.settle(flight.pending, result);
        }
    }

    fn explain(&self, flight: &Flight, outcome: Outcome) -> Result<Sent, SendError> {
        let failure = match outcome {
            Ok(stored) => return Ok(Sent { size: flight.position, elapsed: flight.began.elapsed(), stored }),
            Err(failure) => failure,
        };
        let may_be_stored = failure.may_be_stored();
        Err(match (failure, self.trouble) {
            (Failure::Foreign, _) => SendError::Foreign(first_line(&self.said)),
            (Failure::Reset | Failure::Unknown, Some(Trouble::Silence(patience))) => {
                SendError::Silence { patience, may_be_stored }
            }
            (Failure::Reset | Failure::Unknown, Some(Trouble::Network(kind))) => {
                SendError::Network { kind, may_be_stored }
            }
            (failure, _) => SendError::Failed(failure),
        })
    }

    /// Makes something to send, up to a limit. Returns whether something was done.
    fn fill(&mut self, job: &mut Job<'_>) -> bool {
        let mut filled = false;
        while self.written == 0 && self.out.len() < CHUNK_BYTES && self.spoiled.is_none() {
            match self.sender.step() {
                Step::Transmit(bytes) => {
                    self.out.extend_from_slice(bytes);
                    let length = bytes.len();
                    self.sender.transmitted(length);
                }
                Step::Send(range) => self.read_content(range, true, job),
                Step::Digest(range) => {
                    self.read_content(range, false, job);
                    // There may be much of it: look at the server in between.
                    return true;
                }
                Step::Supply if self.is_supply_ready() => self.supply(),
                Step::Idle if self.flights.len() < IN_FLIGHT_MAX => {
                    self.content = None;
                    let Some((pending, content)) = job.next() else { break };
                    self.sender.begin(&job.request(&pending, &content));
                    self.content = Some(content);
                    self.flights.push_back(Flight { pending, began: Instant::now(), position: 0, is_sending: false });
                }
                _ => break,
            }
            filled = true;
        }
        filled
    }

    fn read_content(&mut self, range: Range<u64>, is_sent: bool, job: &Job<'_>) {
        let (Some(content), Some(flight)) = (&self.content, self.flights.back_mut()) else {
            unreachable!("content is that of the last upload")
        };
        let (filled, start) = (self.out.len(), range.start);
        self.out.resize(filled + CHUNK_BYTES.min((range.end - start) as usize), 0);
        let length = content.read(range, &mut self.out[filled..]).unwrap_or_else(|error| {
            self.spoiled = Some(error);
            0
        });
        self.sender.content(&self.out[filled..filled + length]);
        self.out.truncate(if is_sent { filled + length } else { filled });
        flight.position = start + length as u64;
        if is_sent && !std::mem::replace(&mut flight.is_sending, true) {
            flight.pending.went_on_from(start);
        }
        job.report_progress(&flight.pending, flight.position);
    }

    fn is_supply_ready(&self) -> bool {
        let Some(content) = &self.content else { return false };
        let mut descriptors = [PollFd::from_borrowed_fd(content.descriptor(), PollFlags::IN)];
        matches!(poll(&mut descriptors, Some(&Timespec::default())), Ok(1..))
    }

    fn supply(&mut self) {
        let content = self.content.as_mut().expect("a stream is being sent");
        if let Some(flight) = self.flights.back_mut() {
            flight.pending.consume();
        }
        match content.supply() {
            Ok(size) => self.sender.supply(size),
            Err(error) => self.spoiled = Some(error),
        }
    }

    /// Sends what there is to send. Returns whether something was done.
    fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return self.sender.step() == Step::HalfClose && self.half_close();
        }
        match self.stream.write(&self.out[self.written..]) {
            Ok(length) => {
                self.moved = Instant::now();
                self.written += length;
                if self.written == self.out.len() {
                    self.out.clear();
                    self.written = 0;
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return false,
                ErrorKind::Interrupted => {}
                kind => self.hear_last_words(kind),
            },
        }
        true
    }

    fn half_close(&mut self) -> bool {
        let closed = SockRef::from(&self.stream).set_linger(None).and_then(|()| self.stream.shutdown(Shutdown::Write));
        match closed {
            Ok(()) => self.sender.half_closed(),
            Err(error) => self.hear_last_words(error.kind()),
        }
        true
    }

    /// After a failed send the server's reason may still wait to be read; the end that follows it is no clean one, since
    /// the kernel reports a reset only once.
    fn hear_last_words(&mut self, error: ErrorKind) {
        let mut said = [0; 4096];
        while let Ok(length @ 1..) = self.stream.read(&mut said) {
            self.take_in(&said[..length]);
        }
        match error {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.sender.reset(),
            kind => self.break_off(Trouble::Network(kind)),
        }
    }

    /// Waits until something can be done, or for as long as a server is waited for.
    fn wait(&mut self, patience: Duration) {
        let writable = if self.out.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut descriptors = vec![PollFd::new(&self.stream, PollFlags::IN | writable)];
        let mut timeout = Some(patience.saturating_sub(self.moved.elapsed()));
        if let (Step::Supply, Some(content), true) = (self.sender.step(), &self.content, self.out.is_empty()) {
            descriptors.push(PollFd::from_borrowed_fd(content.descriptor(), PollFlags::IN));
            timeout = None;
        }
        if self.sender.is_mid_reply() {
            timeout = Some(timeout.map_or(REPLY_GRACE, |timeout| timeout.min(REPLY_GRACE)));
        }
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).expect("a timeout is short"));
        if let Ok(0) = poll(&mut descriptors, timeout.as_ref()) {
            self.sender.end_of_burst();
            if self.moved.elapsed() >= patience {
                self.break_off(Trouble::Silence(patience));
            }
        } else if descriptors.len() > 1 {
            // It was not the server that kept us waiting.
            self.moved = Instant::now();
        }
    }
}

/// The first line, as much of it as a person needs to recognise the server.
fn first_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said).lines().next().unwrap_or_default().chars().take(60).collect()
}

//! One connection: the socket that drives a [`Sender`] through as many uploads as there are.
//!
//! The socket never blocks, so that replies are read while content is sent: a server whose replies are not read stops
//! reading too. Until everything is sent, the connection is set to end with a reset. So a sender that is killed in mid-file
//! never looks like one that has finished: in the classic and line dialects, only a clean end distinguishes a whole file
//! from half of one.
//!
//! Over TLS the end of the stream is announced, in both directions, and an end that the server has not announced proves nothing.
//!
//! This module does not know where uploads come from, or whether failed ones are tried again: its [`Work`] does.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{self, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::content::{CHUNK_BYTES, Content, SourceError};
use super::error::SendError;
use super::pending::Pending;
use super::plan::{Plan, Sent};
use crate::net::{ClientStream, Stream, TlsError};
use crate::proto::{Code, Failure, Outcome, Refusal, Request, Sender, Step, Stored};

/// How long each address has to accept the connection. A lost SYN is sent again after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most uploads that wait for their outcome at once: twice the batch that a server gathers for one write to its disk.
const IN_FLIGHT_MAX: usize = 128;
/// How long the rest of a reply may take, or HTTP's `100 Continue`. Servers write a reply in one piece, and say `100` at once
/// if they say it.
const REPLY_GRACE: Duration = Duration::from_secs(1);
/// Replies are read in pieces of this size, in bytes: they are short.
const REPLY_BYTES: usize = 4096;
/// TLS decrypts a record in place, behind the bytes of the one before it: two records and their headers.
const INBOX_BYTES: usize = 40 << 10;
/// How a server that speaks TLS answers anything else: a fatal alert (RFC 8446, 5.1).
const TLS_ALERT: [u8; 2] = [0x15, 3];

/// The source of a conversation's uploads, which also takes their results.
pub(super) trait Work {
    /// The next upload that can be opened.
    fn next(&mut self) -> Option<(Pending, Content)>;
    /// The request for an upload.
    fn request(&self, pending: &Pending, content: &Content) -> Request;
    /// Notes that the first `position` bytes of an upload were read.
    fn report_progress(&self, pending: &Pending, position: u64);
    /// Takes the result of this attempt.
    fn settle(&mut self, pending: Pending, result: Result<Sent, SendError>);
}

/// One connection and its uploads.
pub(super) struct Conversation {
    stream: ClientStream,
    sender: Sender,
    /// How long the server may neither send nor read anything.
    patience: Duration,
    /// The uploads without an outcome, in the order of their requests.
    flights: VecDeque<Flight>,
    /// The content of the last upload, while it is sent.
    content: Option<Content>,
    /// Why the content cannot be read to its end. The connection then takes no other upload, but earlier ones get their
    /// outcomes.
    spoiled: Option<SourceError>,
    /// Bytes to send. The first `written` of them are sent already.
    out: Vec<u8>,
    written: usize,
    /// When a byte last moved.
    moved: Instant,
    /// The last wait was for the source, not for the network.
    awaits_source: bool,
    /// Where the server's bytes are read to, with room for TLS.
    inbox: Box<[u8]>,
    /// The start of the server's last bytes.
    said: Vec<u8>,
    trouble: Option<Trouble>,
}

/// An upload without an outcome.
struct Flight {
    pending: Pending,
    began: Instant,
    /// How much of the content was read, in bytes.
    position: u64,
    /// Some content was sent.
    is_sending: bool,
}

/// Why a connection can no longer be used, apart from an answer of the server.
#[derive(Clone, Debug)]
enum Trouble {
    /// The server was silent for this long.
    Silence(Duration),
    Network(ErrorKind),
    Tls(TlsError),
}

/// Connects to the first address that accepts.
///
/// # Errors
/// The error of the last address.
pub(super) fn connect(to: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in to {
        match net::TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(stream) => return configure(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn configure(stream: net::TcpStream) -> io::Result<TcpStream> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    // Each write has everything that there is to send. Holding back its end (Nagle) would only delay the receipt.
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

impl Conversation {
    /// A conversation over a connection of [`connect`].
    pub(super) fn new(stream: TcpStream, plan: &Plan) -> Self {
        Self {
            stream: ClientStream::new(stream, plan.tls.as_ref()),
            sender: plan.site.clone().map_or_else(Sender::new, Sender::over_http).showing(plan.token.clone()),
            patience: plan.patience,
            flights: VecDeque::new(),
            content: None,
            spoiled: None,
            out: Vec::with_capacity(CHUNK_BYTES),
            written: 0,
            moved: Instant::now(),
            awaits_source: false,
            inbox: vec![0; INBOX_BYTES].into(),
            said: Vec::new(),
            trouble: None,
        }
    }

    /// Sends the uploads of `work` until there are no more and every outcome is known, or the conversation has ended.
    pub(super) fn run(mut self, work: &mut impl Work) {
        loop {
            // First, so that each connection begins at least one upload. Otherwise `send` might connect without end.
            let filled = self.fill(work);
            let sent = self.flush();
            let heard = self.hear();
            self.settle(work);
            if self.is_over(heard) {
                break;
            }
            if !(heard || filled || sent) {
                self.wait();
            }
        }
        self.settle(work);
    }

    /// Whether the conversation has ended, or has nothing more to do. If bytes were `heard`, the next upload may begin.
    fn is_over(&mut self, heard: bool) -> bool {
        if self.spoiled.is_some() && self.flights.len() == 1 {
            self.sender.reset();
        }
        match self.sender.step() {
            Step::Over => true,
            Step::Idle if self.flights.is_empty() && self.out.is_empty() && !heard => self.leave(),
            _ => false,
        }
    }

    /// Ends the connection in order, after every outcome is known. Returns whether that is done.
    fn leave(&mut self) -> bool {
        let left = self.stream.reset_on_close(false).and_then(|()| self.stream.shutdown_write());
        // Another error than `WouldBlock` means that the connection has ended anyway.
        !left.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Reads once, and passes the bytes to the sender. Returns whether there were any.
    fn hear(&mut self) -> bool {
        match self.stream.receive(&mut self.inbox, REPLY_BYTES) {
            Ok(0) => self.sender.end_of_stream(),
            Ok(length) => self.take_in(length),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return false,
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => self.sender.reset(),
                ErrorKind::UnexpectedEof => self.sender.cut_off(),
                _ => self.break_off(trouble(&error)),
            },
        }
        true
    }

    fn take_in(&mut self, length: usize) {
        self.moved = Instant::now();
        self.said = self.inbox[..length].to_owned();
        self.sender.receive(&self.said);
    }

    fn break_off(&mut self, trouble: Trouble) {
        if self.stream.is_handshaking() && self.stream.owes() {
            // TLS has to tell the server why. No content was sent, so a clean end misleads nobody.
            let _ = self.stream.reset_on_close(false).and_then(|()| self.stream.flush());
        }
        self.trouble = Some(trouble);
        self.sender.reset();
    }

    /// Reports the outcomes that are known.
    fn settle(&mut self, work: &mut impl Work) {
        while let Some(outcome) = self.sender.outcome() {
            let flight = self.flights.pop_front().expect("there is one outcome for each upload");
            let spoiled = self.spoiled.take_if(|_| self.flights.is_empty());
            let result = match spoiled {
                Some(error) => Err(error.into()),
                None => self.explain(&flight, outcome),
            };
            work.settle(flight.pending, result);
        }
    }

    fn explain(&self, flight: &Flight, outcome: Outcome) -> Result<Sent, SendError> {
        let failure = match outcome {
            Ok(stored) => {
                // A file that is already stored was not read.
                let size = match &stored {
                    Stored::Receipt(receipt) => receipt.size,
                    Stored::Closed | Stored::Answered(_) => flight.position,
                };
                return Ok(Sent { size, elapsed: flight.began.elapsed(), stored });
            }
            Err(failure) => failure,
        };
        let may_be_stored = failure.may_be_stored();
        Err(match (failure, &self.trouble) {
            _ if self.said.starts_with(&TLS_ALERT) => SendError::OnlyTls,
            (Failure::Foreign, _) => SendError::Foreign(first_line(&self.said)),
            (Failure::Refused(refusal @ Refusal { code: Code::TIMEOUT, .. }), _) if self.awaits_source => {
                SendError::SlowSource(refusal)
            }
            (Failure::Reset | Failure::Unknown, Some(Trouble::Silence(patience))) => {
                SendError::Silence { patience: *patience, may_be_stored }
            }
            (Failure::Reset | Failure::Unknown, Some(Trouble::Network(kind))) => {
                SendError::Network { kind: *kind, may_be_stored }
            }
            (Failure::Reset | Failure::Unknown, Some(Trouble::Tls(error))) => {
                SendError::Tls { error: error.clone(), may_be_stored: may_be_stored && !error.is_refusal }
            }
            (failure, _) => SendError::Failed(failure),
        })
    }

    /// Reads content and begins uploads until there is enough to send. Returns whether it did any of that.
    fn fill(&mut self, work: &mut impl Work) -> bool {
        let mut filled = false;
        while self.written == 0 && self.out.len() < CHUNK_BYTES && self.spoiled.is_none() {
            match self.sender.step() {
                Step::Transmit(bytes) => {
                    self.out.extend_from_slice(bytes);
                    let length = bytes.len();
                    self.sender.transmitted(length);
                }
                Step::Send(range) => self.read_content(range, true, work),
                Step::Digest(range) => {
                    self.read_content(range, false, work);
                    // There may be much to read, so look for replies in between.
                    return true;
                }
                Step::Supply if self.is_supply_ready() => self.supply(),
                Step::Idle if self.sender.may_begin() && self.flights.len() < IN_FLIGHT_MAX => {
                    self.content = None;
                    let Some((pending, content)) = work.next() else { break };
                    self.sender.begin(&work.request(&pending, &content));
                    self.content = Some(content);
                    self.flights.push_back(Flight { pending, began: Instant::now(), position: 0, is_sending: false });
                }
                _ => break,
            }
            filled = true;
        }
        filled
    }

    fn read_content(&mut self, range: Range<u64>, is_sent: bool, work: &impl Work) {
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
            flight.pending.resumed_at(start);
        }
        work.report_progress(&flight.pending, flight.position);
    }

    fn is_supply_ready(&self) -> bool {
        let Some(content) = &self.content else { return false };
        if content.is_preloaded() {
            return true;
        }
        let mut descriptors = [PollFd::from_borrowed_fd(content.descriptor(), PollFlags::IN)];
        matches!(poll(&mut descriptors, Some(&Timespec::default())), Ok(1..))
    }

    fn supply(&mut self) {
        let content = self.content.as_mut().expect("a stream is being sent");
        if let Some(flight) = self.flights.back_mut().filter(|_| !content.is_repeatable()) {
            flight.pending.consume();
        }
        match content.supply() {
            Ok(size) => self.sender.supply(size),
            Err(error) => self.spoiled = Some(error),
        }
    }

    /// Sends as much as the socket takes. Returns whether it sent anything.
    fn flush(&mut self) -> bool {
        if self.out.is_empty() && self.sender.step() == Step::HalfClose {
            return self.half_close();
        }
        if self.out.is_empty() {
            return self.stream.owes() && self.flush_stream();
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

    /// Sends what TLS holds. Returns whether all of it is sent.
    fn flush_stream(&mut self) -> bool {
        match self.stream.flush() {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                self.hear_last_words(error.kind());
                true
            }
        }
    }

    fn half_close(&mut self) -> bool {
        match self.stream.reset_on_close(false).and_then(|()| self.stream.shutdown_write()) {
            Ok(()) => self.sender.half_closed(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => self.hear_last_words(error.kind()),
        }
        true
    }

    /// After a failed write, the server's reason may still be unread. An end of the stream after it is not a clean one,
    /// because the kernel reports a reset only once.
    fn hear_last_words(&mut self, error: ErrorKind) {
        loop {
            match self.stream.receive(&mut self.inbox, REPLY_BYTES) {
                Ok(length @ 1..) => self.take_in(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if TlsError::of(&error).is_some() => return self.break_off(trouble(&error)),
                _ => break,
            }
        }
        match error {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.sender.reset(),
            kind => self.break_off(Trouble::Network(kind)),
        }
    }

    /// Waits until something can be done, or until the server has been silent for too long.
    fn wait(&mut self) {
        let patience = self.patience;
        // During the handshake TLS takes a little content, and then no more, however much the socket would.
        let is_waiting = !self.out.is_empty() && !self.stream.is_handshaking();
        let writable = if is_waiting || self.stream.owes() { PollFlags::OUT } else { PollFlags::empty() };
        let mut descriptors = vec![PollFd::new(self.stream.socket(), PollFlags::IN | writable)];
        let mut timeout = Some(patience.saturating_sub(self.moved.elapsed()));
        self.awaits_source = self.sender.step() == Step::Supply && self.out.is_empty();
        if let (true, Some(content)) = (self.awaits_source, &self.content) {
            descriptors.push(PollFd::from_borrowed_fd(content.descriptor(), PollFlags::IN));
            timeout = None;
        }
        if self.sender.is_mid_reply() || (self.sender.awaits_continue() && self.out.is_empty()) {
            timeout = Some(timeout.map_or(REPLY_GRACE, |timeout| timeout.min(REPLY_GRACE)));
        }
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).expect("a timeout is short"));
        if let Ok(0) = poll(&mut descriptors, timeout.as_ref()) {
            self.sender.end_of_burst();
            if self.moved.elapsed() >= patience {
                self.break_off(Trouble::Silence(patience));
            }
        } else if descriptors.len() > 1 {
            // The wait was for the source, so it does not count as the server's silence.
            self.moved = Instant::now();
        }
    }
}

fn trouble(error: &io::Error) -> Trouble {
    TlsError::of(error).map_or(Trouble::Network(error.kind()), |error| Trouble::Tls(error.clone()))
}

/// The start of the first line, enough for a person to recognise the server.
fn first_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said).lines().next().unwrap_or_default().chars().take(60).collect()
}

//! One simulated client: a socket, the client's half of one upload, and its conduct.
//!
//! ```text
//! Connecting --> Header --> Waiting (for leave to send) --> Content --> Ended --> an Ending
//! ```
//!
//! Does what can be done now and says in a [`Verdict`] what the swarm has to do next. Reads no clock, knows no other client
//! and counts nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;
use rustix::io::Errno;

use super::ending::{Claim, Ending, Trouble};
use super::misbehave::{Allowance, Conduct};
use super::workload::File;
use super::{Closer, Plan};
use crate::net::{Readiness, Stream};
use crate::proto::{Failure, Sender, Step};
use crate::reactor::Budget;

/// What a server says is read in pieces of this size, in bytes: its replies are short.
const REPLY_BYTES: usize = 4096;

/// What the swarm lends to a client while it serves it.
pub struct Context<'a> {
    /// What the run is to do.
    pub plan: &'a Plan,
    /// Shared by all: content is made in it, and replies are read into it.
    pub buffer: &'a mut [u8],
    /// Before the poll was asked: nobody is called silent for a later moment.
    pub asked: Instant,
    /// After the poll.
    pub now: Instant,
}

/// What the swarm is to do with a client that it has served.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing can be done before the next event, or this moment.
    Wait(Instant),
    /// There is more to do; others first.
    Yield,
    /// It is over.
    End(Ending),
}

/// One upload.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    file: File,
    sender: Sender,
    phase: Phase,
    readiness: Readiness,
    /// A send has failed: why. What the server said before that is still worth reading.
    send_error: Option<ErrorKind>,
    /// When a byte last moved, or will be moved by our own will.
    moved: Instant,
    moments: Moments,
}

/// The moments that latencies are made of.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// When the upload was meant to start.
    pub intended: Instant,
    /// When the connection was there.
    pub connected: Option<Instant>,
    /// When the server first said something.
    pub replied: Option<Instant>,
}

/// Where an upload stands.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// The handshake is under way.
    Connecting,
    /// So much of the header is sent.
    Header {
        /// In bytes.
        sent: usize,
        /// When the connection was there.
        since: Instant,
    },
    /// The server has to answer before content may flow.
    Waiting,
    /// So much of the content is sent.
    Content {
        /// In bytes.
        sent: u64,
        /// When it began.
        since: Instant,
    },
    /// All is sent, and the stream half-closed.
    Ended {
        /// When.
        at: Instant,
    },
}

/// What came of one step.
enum Next {
    Again,
    /// Nothing before the next event or, where it waits by its own will, this moment.
    Wait(Option<Instant>),
    End(Ending),
}

impl Client {
    /// A client whose connection has been begun.
    pub fn new(stream: TcpStream, plan: &Plan, file: File, moments: Moments, now: Instant) -> Self {
        Self {
            stream,
            file,
            sender: Sender::new(plan.dialect, plan.workload.name(file.named)),
            phase: Phase::Connecting,
            readiness: Readiness::default(),
            send_error: None,
            moved: now,
            moments,
        }
    }

    /// Notes what an event said. Returns whether something may be done about it.
    pub fn absorb(&mut self, readiness: Readiness) -> bool {
        self.readiness.readable |= readiness.readable;
        self.readiness.writable |= readiness.writable;
        self.readiness != Readiness::default()
    }

    /// Gets as far as it can within `budget`.
    pub fn serve(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Verdict {
        while !budget.is_spent() {
            match self.step(cx, budget) {
                Next::Again => {}
                Next::Wait(own_will) => return self.wait(own_will, cx),
                Next::End(ending) => return Verdict::End(ending),
            }
        }
        Verdict::Yield
    }

    /// Closes the connection. One that has not ended its content is reset, so that no server takes half for a whole.
    pub fn close(mut self, ending: &Ending) -> Claim {
        let content_ended = self.has_ended_content();
        if !content_ended {
            // Fails only for a connection that there never was.
            let _ = self.stream.reset_on_close();
        }
        ending.claim(content_ended)
    }

    /// Whether all that it wanted to send is sent.
    pub fn has_ended_content(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether there has been a connection.
    pub fn is_connected(&self) -> bool {
        self.moments.connected.is_some()
    }

    /// The content that the kernel has taken, in bytes.
    pub fn sent_bytes(&self) -> u64 {
        match self.phase {
            Phase::Connecting | Phase::Header { .. } | Phase::Waiting => 0,
            Phase::Content { sent, .. } => sent,
            Phase::Ended { .. } => self.file.conduct.share_sent(self.file.size),
        }
    }

    /// The file that it sends.
    pub fn file(&self) -> File {
        self.file
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What happened when.
    pub fn moments(&self) -> Moments {
        self.moments
    }

    fn step(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        if let Phase::Connecting = self.phase {
            return self.finish_connect(cx.now);
        }
        if self.readiness.readable && self.is_listening(cx.now) {
            return self.listen(cx, budget);
        }
        if let Some(error) = self.send_error {
            return Next::End(Ending::Failed(Trouble::Network(error)));
        }
        match self.phase {
            Phase::Connecting => unreachable!("was left above"),
            Phase::Header { sent, since } => self.send_header(sent, since, cx.now),
            Phase::Waiting => self.await_leave(cx),
            Phase::Content { sent, since } => self.send_content(sent, since, cx, budget),
            Phase::Ended { at } => self.await_answer(at, cx.now),
        }
    }

    /// Who waits by its own will is not waiting for the server.
    fn wait(&mut self, own_will: Option<Instant>, cx: &Context<'_>) -> Verdict {
        debug_assert!(
            !(self.readiness.readable && self.is_listening(cx.now)),
            "would wait for an edge that has been told already"
        );
        if let Some(at) = own_will {
            self.moved = at;
            return Verdict::Wait(at);
        }
        let patience_ends = self.moved + cx.plan.patience;
        if cx.asked < patience_ends {
            return Verdict::Wait(patience_ends);
        }
        Verdict::End(Ending::Failed(match self.phase {
            Phase::Connecting => Trouble::Connect(ErrorKind::TimedOut),
            _ => Trouble::Silence,
        }))
    }

    /// "Writable" does not mean connected: an error may have made it so, or nothing at all (mio's `TcpStream::connect`).
    fn finish_connect(&mut self, now: Instant) -> Next {
        if self.readiness == Readiness::default() {
            return Next::Wait(None);
        }
        if let Err(error) | Ok(Some(error)) = self.stream.take_error() {
            return cannot_connect(&error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.moments.connected = Some(now);
                self.moved = now;
                self.phase = Phase::Header { sent: 0, since: now };
                Next::Again
            }
            Err(error) if is_still_connecting(&error) => {
                self.readiness = Readiness::default();
                Next::Wait(None)
            }
            Err(error) => cannot_connect(&error),
        }
    }

    fn is_listening(&self, now: Instant) -> bool {
        match self.phase {
            _ if self.file.conduct == Conduct::NeverRead => false,
            Phase::Ended { at } => now >= at + self.file.conduct.deaf_for(),
            _ => true,
        }
    }

    /// Hands in what one read brings.
    fn listen(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        let said = &mut cx.buffer[..REPLY_BYTES];
        match self.stream.read(said) {
            // After a failed send the end is no clean one: the kernel reports a reset only once.
            Ok(0) if self.send_error.is_some() => self.sender.reset(),
            Ok(0) => self.sender.end_of_stream(),
            Ok(length) => {
                self.moved = cx.now;
                self.moments.replied.get_or_insert(cx.now);
                budget.spend(length);
                self.sender.receive(&said[..length]);
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => self.readiness.readable = false,
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => self.sender.reset(),
                kind => return Next::End(Ending::Failed(Trouble::Network(kind))),
            },
        }
        match self.sender.step() {
            Step::Ended(Ok(_)) => Next::End(Ending::Stored),
            Step::Ended(Err(failure)) => Next::End(Ending::Failed(Trouble::Upload(failure.clone()))),
            Step::Listen | Step::Send => Next::Again,
        }
    }

    fn send_header(&mut self, sent: usize, since: Instant, now: Instant) -> Next {
        let header = self.sender.header();
        if sent == header.len() {
            self.phase = Phase::Waiting;
            return Next::Again;
        }
        let allowed = match self.file.conduct.header_allowance(sent, now.duration_since(since)) {
            Allowance::NotBefore(at) => return Next::Wait(Some(since + at)),
            Allowance::Bytes(bytes) => bytes.min((header.len() - sent) as u64) as usize,
        };
        match self.send(&header[sent..][..allowed], now) {
            Ok(length) => {
                self.phase = Phase::Header { sent: sent + length, since };
                Next::Again
            }
            Err(next) => next,
        }
    }

    fn await_leave(&mut self, cx: &mut Context<'_>) -> Next {
        match self.sender.step() {
            Step::Send => {
                self.phase = Phase::Content { sent: 0, since: cx.now };
                Next::Again
            }
            _ if self.file.conduct == Conduct::NeverRead && self.readiness.readable => self.peek(cx.buffer),
            _ => Next::Wait(None),
        }
    }

    /// Looks at the leave to send without taking it out of the kernel's hands.
    fn peek(&mut self, buffer: &mut [u8]) -> Next {
        const LEAVE: usize = b"ok".len();
        self.readiness.readable = false;
        match self.stream.peek(&mut buffer[..LEAVE]) {
            Ok(LEAVE) => {
                self.sender.receive(&buffer[..LEAVE]);
                Next::Again
            }
            // The rest of it fires an event of its own.
            Ok(1..) => Next::Wait(None),
            Ok(0) => Next::End(Ending::Failed(Trouble::Upload(Failure::Unanswered))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Next::Wait(None),
            Err(error) => Next::End(Ending::Failed(Trouble::Network(error.kind()))),
        }
    }

    fn send_content(&mut self, sent: u64, since: Instant, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        let File { number, size, conduct, .. } = self.file;
        let goal = conduct.share_sent(size);
        if sent == goal {
            return self.end_content(goal, cx);
        }
        let allowed = match conduct.content_allowance(sent, size, cx.now.duration_since(since)) {
            Allowance::NotBefore(at) => return Next::Wait(Some(since + at)),
            Allowance::Bytes(bytes) => bytes.min(goal - sent).min(cx.buffer.len() as u64) as usize,
        };
        if !self.readiness.writable {
            return Next::Wait(None);
        }
        let piece = &mut cx.buffer[..allowed];
        cx.plan.workload.content(number).fill(sent, piece);
        match self.send(piece, cx.now) {
            Ok(length) => {
                budget.spend(length);
                self.phase = Phase::Content { sent: sent + length as u64, since };
                Next::Again
            }
            Err(next) => next,
        }
    }

    fn end_content(&mut self, goal: u64, cx: &Context<'_>) -> Next {
        if self.file.conduct == Conduct::Reset {
            return Next::End(Ending::Reset);
        }
        self.phase = Phase::Ended { at: cx.now };
        if cx.plan.closer == Closer::Client {
            return Next::End(Ending::Unheard);
        }
        self.sender.content_ended(goal);
        if let Err(error) = self.stream.shutdown_write() {
            self.fail_send(error.kind());
        }
        Next::Again
    }

    fn await_answer(&mut self, at: Instant, now: Instant) -> Next {
        let conduct = self.file.conduct;
        match conduct.leaves_unheard_after() {
            Some(stay) if now >= at + stay => Next::End(Ending::Unheard),
            Some(stay) => Next::Wait(Some(at + stay)),
            None if now < at + conduct.deaf_for() => Next::Wait(Some(at + conduct.deaf_for())),
            None => Next::Wait(None),
        }
    }

    /// Sends some of `bytes`: how many, or what is to be done instead.
    fn send(&mut self, bytes: &[u8], now: Instant) -> Result<usize, Next> {
        match self.stream.write(bytes) {
            Ok(length) => {
                self.moved = now;
                Ok(length)
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock => {
                    self.readiness.writable = false;
                    Next::Wait(None)
                }
                ErrorKind::Interrupted => Next::Again,
                kind => {
                    self.fail_send(kind);
                    Next::Again
                }
            }),
        }
    }

    /// Sends no more, and reads all that the server has said until then.
    fn fail_send(&mut self, error: ErrorKind) {
        self.send_error = Some(error);
        self.readiness.readable = true;
    }
}

fn cannot_connect(error: &io::Error) -> Next {
    Next::End(Ending::Failed(Trouble::Connect(error.kind())))
}

/// Whether the handshake is still under way, as getpeername(2) says it.
fn is_still_connecting(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotConnected || error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error())
}

//! One simulated client: a connection, the client's half of the conversation over it, and the conduct of its uploads.
//!
//! ```text
//! Connecting --> (Securing) --> Open --> Leaving (/bye is sent) --> closed
//!                                |  ^
//!                                +--+  begin, send, receive: as proto::Sender asks, when the conduct allows
//! ```
//!
//! Makes as much progress as it can, and tells the swarm in a [`Served`] what to do next. Reads no clock, knows no other
//! client and counts nothing: it reports the end of each upload to the swarm as an [`Ended`].

mod sending;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use mio::net::TcpStream;
use rustix::io::Errno;

use crate::load::judge::{Ended, Ending, Moments, Trouble};
use crate::load::plan::{Closer, Conduct, File, Plan};
use crate::net::{ClientStream, Stream, TlsError};
use crate::proto::{Failure, Sender, Step};
use crate::reactor::{Budget, Guest, Moment, Readiness};

/// How long to wait for the optional acts of an HTTP server: to say `100 Continue`, and to close first. A server that does
/// them does so at once.
const COURTESY: Duration = Duration::from_secs(1);
/// Replies are read in pieces of this size, in bytes: they are short.
const REPLY_BYTES: usize = 4096;

/// What the swarm lends to a client while serving it.
pub struct Context<'a> {
    /// The plan of the run.
    pub plan: &'a Plan,
    /// A buffer for content and replies, shared by all clients.
    pub buffer: &'a mut [u8],
    /// The moment before the poll. Silence of the server counts up to here.
    pub asked: Moment,
    /// The moment after the poll.
    pub now: Moment,
    /// Gives a client that has sent its last file the next one.
    pub next_file: &'a mut dyn FnMut() -> Option<File>,
    /// Takes the uploads that have ended.
    pub ended: &'a mut Vec<Ended>,
}

/// What the swarm must do with a client after serving it.
#[derive(Debug)]
pub enum Served {
    /// Wait for the next event, or for this moment.
    Wait(Moment),
    /// Serve the others, then this client again.
    Yield,
    /// Close the connection. Uploads without an outcome ended like this.
    End(Ending),
}

/// What a client is doing, for the progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the handshake.
    Connecting,
    /// It sends, or waits for the server's `ok`.
    Sending,
    /// It waits for outcomes, or for the server to close.
    Waiting,
}

/// One connection and its uploads.
#[derive(Debug)]
pub struct Client {
    stream: ClientStream,
    sender: Sender,
    phase: Phase,
    /// Uploads without an outcome, in the order of their requests. The last one may still be sending.
    flights: VecDeque<Flight>,
    /// The next upload, which is not begun yet.
    held: Option<Flight>,
    /// How many more files this connection may carry.
    remaining: usize,
    readiness: Readiness,
    /// Why a send has failed. Earlier replies can still be read.
    send_error: Option<ErrorKind>,
    /// When the last byte moved, or when the client's own pause ends.
    moved: Moment,
    /// When the connection was established.
    connected: Option<Moment>,
    /// When the last byte of the connection was sent.
    finished: Option<Moment>,
    half_closed: bool,
    /// How much content the kernel took, in bytes.
    sent_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// TLS is in its handshake.
    Securing,
    Open,
    Leaving,
}

/// One upload.
#[derive(Debug)]
struct Flight {
    file: File,
    moments: Moments,
    /// When the next byte of a split header may be sent.
    header_due: Option<Moment>,
    /// When its content began.
    content_began: Option<Moment>,
    /// How much of the content is sent, in bytes.
    sent: u64,
    /// Whether its request was begun.
    is_begun: bool,
}

/// The result of one step.
enum Next {
    Again,
    /// Wait for the next event or, in a pause of the conduct, for this moment.
    Wait(Option<Moment>),
    End(Ending),
}

impl Flight {
    fn new(file: File, intended: Moment) -> Self {
        let moments = Moments { intended, connected: None, secured: None, replied: None };
        Self { file, moments, header_due: None, content_began: None, sent: 0, is_begun: false }
    }

    fn has_all_content(&self) -> bool {
        self.sent == self.file.conduct.share_sent(self.file.size)
    }
}

impl Guest for Client {
    fn absorb(&mut self, readiness: Readiness) -> bool {
        self.readiness.add(readiness);
        self.readiness != Readiness::default()
    }

    fn is_ready(&self, now: Moment) -> bool {
        self.phase != Phase::Connecting && self.readiness.readable && self.is_listening(now)
    }
}

impl Client {
    /// A client for `file`, which is due at `intended`. Its connection is in the handshake.
    pub fn new(stream: TcpStream, plan: &Plan, file: File, intended: Moment, now: Moment) -> Self {
        Self {
            stream: ClientStream::new(stream, plan.tls.as_ref()),
            sender: plan.site.clone().map_or_else(Sender::new, Sender::over_http).showing(plan.token.clone()),
            phase: Phase::Connecting,
            flights: VecDeque::new(),
            held: Some(Flight::new(file, intended)),
            remaining: plan.per_connection - 1,
            readiness: Readiness::default(),
            send_error: None,
            moved: now,
            connected: None,
            finished: None,
            half_closed: false,
            sent_bytes: 0,
        }
    }

    /// Makes as much progress as `budget` allows.
    pub fn serve(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Served {
        while !budget.is_spent() {
            match self.step(cx, budget) {
                Next::Again => {}
                Next::Wait(own_will) => match self.flush() {
                    Ok(()) => return self.wait(own_will, cx),
                    Err(error) => self.fail_send(error),
                },
                Next::End(ending) => return Served::End(ending),
            }
        }
        Served::Yield
    }

    /// Closes the connection. Uploads without an outcome end with `ending`. In the middle of an upload the connection is
    /// reset, so that no server takes half a file for a whole one.
    pub fn close(mut self, plan: &Plan, ending: &Ending) -> Vec<Ended> {
        let mut flights = std::mem::take(&mut self.flights);
        // A server that does not speak TLS might take the handshake for a file.
        let is_foreign = self.phase == Phase::Securing && !self.stream.owes();
        if is_foreign || flights.back().is_some_and(|flight| !self.is_whole(flight, plan)) {
            // Fails only if the connection was never established.
            let _ = self.stream.reset_on_close(true);
        } else if plan.closer != Closer::Reset && self.stream.announce_end() {
            // The server knows the outcome all the same.
            let _ = self.stream.flush();
        }
        flights.extend(self.held.take());
        flights.into_iter().map(|flight| self.ended(flight, ending.clone(), plan)).collect()
    }

    /// Whether the connection was ever established, with TLS if that was planned.
    pub fn is_connected(&self) -> bool {
        self.connected.is_some() && self.phase != Phase::Securing
    }

    /// How much content the kernel took, in bytes.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// What the client is doing.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Connecting | Phase::Securing => State::Connecting,
            Phase::Open
                if self.held.is_some() || self.flights.back().is_some_and(|flight| !flight.has_all_content()) =>
            {
                State::Sending
            }
            _ => State::Waiting,
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        if self.phase == Phase::Connecting {
            return self.finish_connect(cx.now);
        }
        if self.readiness.readable && self.is_listening(cx.now) {
            return self.listen(cx, budget);
        }
        match self.send_error {
            Some(error) => Next::End(Ending::Failed(Trouble::Network(error))),
            None if self.phase == Phase::Securing => self.finish_handshake(cx.now),
            None if self.phase == Phase::Leaving => Next::Wait(None),
            None => self.send_on(cx, budget),
        }
    }

    /// A pause of the conduct does not count as the server's silence.
    fn wait(&mut self, own_will: Option<Moment>, cx: &mut Context<'_>) -> Served {
        if let Some(at) = own_will {
            self.moved = at;
            return Served::Wait(at);
        }
        let awaits_continue = self.sender.awaits_continue();
        let awaits_close = cx.plan.dialect.speaks_http() && self.flights.is_empty() && self.held.is_none();
        let patience = cx.plan.patience;
        let patience_ends =
            self.moved + if awaits_continue || awaits_close { patience.min(COURTESY) } else { patience };
        if cx.asked < patience_ends {
            return Served::Wait(patience_ends);
        }
        self.sender.end_of_burst();
        if awaits_continue {
            return Served::Yield;
        }
        self.settle(cx);
        Served::End(Ending::Failed(match self.phase {
            Phase::Connecting => Trouble::Connect(ErrorKind::TimedOut),
            _ => Trouble::Silence,
        }))
    }

    /// "Writable" does not mean connected: it may come from an error, or from nothing at all (mio's `TcpStream::connect`).
    fn finish_connect(&mut self, now: Moment) -> Next {
        if self.readiness == Readiness::default() {
            return Next::Wait(None);
        }
        if let Err(error) | Ok(Some(error)) = self.stream.socket().take_error() {
            return cannot_connect(&error);
        }
        match self.stream.socket().peer_addr() {
            Ok(_) => {
                self.connected = Some(now);
                self.held.iter_mut().for_each(|flight| flight.moments.connected = Some(now));
                self.moved = now;
                self.phase = if self.stream.is_handshaking() { Phase::Securing } else { Phase::Open };
                Next::Again
            }
            Err(error) if is_still_connecting(&error) => {
                self.readiness = Readiness::default();
                Next::Wait(None)
            }
            Err(error) => cannot_connect(&error),
        }
    }

    fn finish_handshake(&mut self, now: Moment) -> Next {
        if self.stream.is_handshaking() {
            return Next::Wait(None);
        }
        self.held.iter_mut().for_each(|flight| flight.moments.secured = Some(now));
        self.phase = Phase::Open;
        Next::Again
    }

    /// Sends what TLS holds, as far as the socket takes it.
    fn flush(&mut self) -> Result<(), ErrorKind> {
        if !self.stream.owes() || !self.readiness.writable {
            return Ok(());
        }
        match self.stream.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readiness.writable = false,
            flushed => flushed.map_err(|error| error.kind())?,
        }
        Ok(())
    }

    fn is_listening(&self, now: Moment) -> bool {
        let conduct = self.last_conduct();
        conduct != Conduct::NeverRead && self.finished.is_none_or(|at| now >= at + conduct.deaf_for())
    }

    fn last_conduct(&self) -> Conduct {
        self.flights.back().map_or(Conduct::Honest, |flight| flight.file.conduct)
    }

    /// Reads once, and hands the bytes to the conversation.
    fn listen(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        let said = &mut *cx.buffer;
        match self.stream.receive(said, REPLY_BYTES) {
            // The kernel reports a reset once, and the failed send took that report: this is not a clean end.
            Ok(0) if self.send_error.is_some() => self.sender.reset(),
            Ok(0) if self.phase == Phase::Securing => return cannot_connect(&ErrorKind::UnexpectedEof.into()),
            Ok(0) => self.sender.end_of_stream(),
            Ok(length) => {
                self.moved = cx.now;
                budget.spend(length);
                self.flights.iter_mut().take(1).for_each(|flight| flight.note_reply(cx.now));
                self.sender.receive(&said[..length]);
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => self.readiness.readable = false,
                ErrorKind::Interrupted => {}
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if self.phase == Phase::Securing => {
                    return cannot_connect(&error);
                }
                ErrorKind::ConnectionReset => self.sender.reset(),
                ErrorKind::UnexpectedEof => self.sender.cut_off(),
                kind => {
                    let tls = TlsError::of(&error).map(|error| Trouble::Tls(error.words.clone()));
                    return Next::End(Ending::Failed(tls.unwrap_or(Trouble::Network(kind))));
                }
            },
        }
        self.settle(cx);
        match self.sender.step() {
            Step::Over => over(),
            _ => Next::Again,
        }
    }

    /// Passes on the outcomes that are known.
    fn settle(&mut self, cx: &mut Context<'_>) {
        while let Some(outcome) = self.sender.outcome() {
            let mut flight = self.flights.pop_front().expect("there is one outcome for each upload");
            flight.note_reply(cx.now);
            let ending = outcome.map_or_else(|failure| Ending::Failed(Trouble::Upload(failure)), |_| Ending::Stored);
            let ended = self.ended(flight, ending, cx.plan);
            cx.ended.push(ended);
        }
    }

    fn ended(&self, flight: Flight, ending: Ending, plan: &Plan) -> Ended {
        let is_whole = self.is_whole(&flight, plan);
        let Flight { file, moments, .. } = flight;
        Ended { file, expected: ending.expected(is_whole), ending, is_whole, moments }
    }

    /// Whether the server got everything that belongs to an upload, so that it may have stored the file.
    fn is_whole(&self, flight: &Flight, plan: &Plan) -> bool {
        let has_all = if plan.dialect.is_framed() { flight.sent == flight.file.size } else { self.half_closed };
        flight.is_begun && has_all
    }
}

impl Flight {
    fn note_reply(&mut self, now: Moment) {
        self.moments.replied.get_or_insert(now);
    }
}

/// The connection is over. All begun uploads have their outcome, and one that was not begun is unserved.
fn over() -> Next {
    Next::End(Ending::Failed(Trouble::Upload(Failure::Unserved)))
}

fn cannot_connect(error: &io::Error) -> Next {
    Next::End(Ending::Failed(Trouble::Connect(error.kind())))
}

/// Whether the error of getpeername(2) means that the handshake is not complete.
fn is_still_connecting(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotConnected || error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error())
}

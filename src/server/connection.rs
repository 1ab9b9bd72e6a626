//! One connection: the conversation, the socket and the file, glued together.
//!
//! Says what it needs in a [`Verdict`] and leaves the rest to the loop. Knows neither the poll nor the other connections,
//! and reads no clock. Generic over socket and store, so that the simulation runs this very code.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::config::Limits;
use super::pace::{Clock, Lapse, Pace};
use crate::net::{Readiness, Stream};
use crate::proto::{
    Awaits, Code, Event, Farewell, Name, NamePolicy, OnExists, Peer, Receipt, Receiver, Refusal, Request,
};
use crate::reactor::Budget;
use crate::store::{Partial, Store, StoreError};

/// What the loop lends to a connection while it serves it.
pub struct Context<'a, D> {
    /// Where files go.
    pub store: &'a D,
    /// What to do when a name is taken.
    pub on_exists: OnExists,
    /// How patient to be.
    pub limits: &'a Limits,
    /// Shared by all: what is read stays in it only until it is written.
    pub buffer: &'a mut [u8],
    /// The turn's clock.
    pub clock: Clock,
}

/// What the loop is to do with a connection that it has served.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing can be done before the next event or [`Connection::deadline`].
    Wait,
    /// There is more to do; others first.
    Yield,
    /// It is over.
    Close(CloseReason),
}

/// How a connection ended.
#[derive(Debug)]
pub enum CloseReason {
    /// Its file is stored, under this name.
    Stored(Name),
    /// It was refused, or cut off in mid-upload.
    Refused(Refusal),
    /// What it sent first is no request; the bytes are quoted only escaped.
    NotARequest(Refusal, Box<[u8]>),
    /// The peer reset it, or the network did.
    Lost(io::Error),
    /// The peer went without a word.
    Silent,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(name) => {
                write!(f, "stored as {name:?}, unverified: the end of the stream was the end of the file")
            }
            Self::Refused(Refusal { code, words, .. }) => write!(f, "refused, {} {words}", code.0),
            Self::NotARequest(Refusal { code, words, .. }, header) => {
                write!(f, "refused, {} {words}: \"{}\"", code.0, header.escape_ascii())
            }
            Self::Lost(error) => write!(f, "lost, nothing stored: {error}"),
            Self::Silent => f.write_str("closed by the peer before it sent a name"),
        }
    }
}

/// One upload in progress.
#[derive(Debug)]
pub struct Connection<S, P> {
    stream: S,
    peer: SocketAddr,
    /// What the edges told and no `WouldBlock` has taken back.
    readiness: Readiness,
    receiver: Receiver,
    pace: Pace,
    accepted: Instant,
    /// What the client calls its file.
    name: Option<Name>,
    partial: Option<P>,
    content_bytes: u64,
    lingering: bool,
    /// Why it will be closed, as soon as that is known. Boxed, as most connections most of the time have none.
    ending: Option<Box<CloseReason>>,
}

impl<S: Stream, P: Partial> Connection<S, P> {
    /// A connection that was accepted at `now`. It counts as readable at once: what the client sent with its handshake
    /// may be there already, and trying costs less than another turn.
    pub fn new(stream: S, peer: SocketAddr, names: NamePolicy, now: Instant) -> Self {
        Self {
            stream,
            peer,
            readiness: Readiness { readable: true, writable: true },
            receiver: Receiver::new(names),
            pace: Pace::begin(now),
            accepted: now,
            name: None,
            partial: None,
            content_bytes: 0,
            lingering: false,
            ending: None,
        }
    }

    /// Notes what an event said; returns whether there is something to do about it.
    pub fn absorb(&mut self, readiness: Readiness) -> bool {
        self.readiness.readable |= readiness.readable;
        self.readiness.writable |= readiness.writable;
        self.is_ready()
    }

    /// Whether serving it would get it further. One that is ready stands in the ready queue: its edge has been told, and
    /// will not be told again.
    pub fn is_ready(&self) -> bool {
        let wants_write = !self.receiver.transmit().is_empty();
        if wants_write { self.readiness.writable } else { self.readiness.readable && self.wants_read() }
    }

    /// When to [`Connection::expire`] it, if nothing happens before. May change with every call of the others.
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        self.next_lapse(limits).map(|(at, _)| at)
    }

    /// Goes on until nothing is left to do, or `budget` is spent.
    pub fn serve<D: Store<Partial = P>>(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        match self.advance(cx, budget) {
            Ok(verdict) => verdict,
            Err(error) => {
                let lost = self.lost(error);
                self.ended(lost)
            }
        }
    }

    /// Acts on what had run out when the poll was asked, then serves.
    pub fn expire<D: Store<Partial = P>>(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        if let Some((_, lapse)) = self.next_lapse(cx.limits).filter(|(at, _)| *at <= cx.clock.asked)
            && self.lapse(lapse, cx).is_break()
        {
            return self.ended(CloseReason::Silent);
        }
        self.serve(cx, budget)
    }

    /// The server shuts down: whoever has not begun an upload is sent away.
    pub fn shut_down(&mut self) {
        if matches!(self.receiver.awaits(), Awaits::Header | Awaits::RestOfHeader | Awaits::RestOfName) {
            self.refuse(Refusal::new(Code::SHUTTING_DOWN, "the server is shutting down"), Peer::Silent);
        }
    }

    /// Whether an upload would be cut off if it were closed now.
    pub fn is_uploading(&self) -> bool {
        self.ending.is_none() && self.name.is_some()
    }

    /// Ends it now; what can be told at once is told.
    pub fn abort<D: Store<Partial = P>>(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        self.refuse(Refusal::new(Code::SHUTTING_DOWN, "the server is shutting down"), Peer::Silent);
        match self.serve(cx, budget) {
            Verdict::Close(reason) => Verdict::Close(reason),
            Verdict::Wait | Verdict::Yield => self.ended(CloseReason::Silent),
        }
    }

    /// The one line that tells its story.
    pub fn summary(&self, reason: &CloseReason, now: Instant) -> String {
        let seconds = now.duration_since(self.accepted).as_secs_f64();
        let name = self.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
        format!("{}{name}: {} bytes in {seconds:.3} s, {reason}", self.peer, self.content_bytes)
    }

    /// The bytes of content that came.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    fn wants_read(&self) -> bool {
        self.receiver.awaits() != Awaits::Verdict
    }

    fn next_lapse(&self, limits: &Limits) -> Option<(Instant, Lapse)> {
        self.pace.next(self.receiver.awaits(), !self.receiver.transmit().is_empty(), limits)
    }

    fn advance<D: Store<Partial = P>>(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<Verdict> {
        loop {
            self.flush(cx.clock.now)?;
            match self.receiver.farewell() {
                Some(Farewell::Linger) if self.lingering => {}
                Some(Farewell::Linger) => self.begin_linger(cx.clock.now)?,
                Some(farewell) => return self.depart(farewell),
                None => {}
            }
            if !self.is_ready() {
                return Ok(Verdict::Wait);
            }
            if budget.is_spent() {
                return Ok(Verdict::Yield);
            }
            self.read(cx, budget)?;
        }
    }

    /// Sends what is owed, as far as the peer takes it.
    fn flush(&mut self, now: Instant) -> io::Result<()> {
        while !self.receiver.transmit().is_empty() && self.readiness.writable {
            match self.stream.write(self.receiver.transmit()) {
                Ok(sent) => {
                    self.receiver.transmitted(sent);
                    self.pace.sent(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness.writable = false;
                    self.pace.blocked();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One read, and all that follows from it.
    fn read<D: Store<Partial = P>>(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<()> {
        // Taken for the time of the read: what was read is borrowed from it while the context serves the events.
        let buffer = std::mem::take(&mut cx.buffer);
        let outcome = self.stream.read(buffer);
        match outcome {
            Ok(0) => {
                let event = self.receiver.end_of_stream();
                self.act_on(event, cx);
            }
            Ok(count) => {
                budget.spend(count);
                self.pace.received(count, cx.clock.now);
                let mut input = &buffer[..count];
                while let Some(event) = self.receiver.receive(&mut input) {
                    self.act(event, cx);
                }
            }
            Err(ref error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness.readable = false;
                if cx.limits.name_quiet.is_zero() {
                    let event = self.receiver.end_of_burst();
                    self.act_on(event, cx);
                }
            }
            Err(ref error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                cx.buffer = buffer;
                return Err(error);
            }
        }
        cx.buffer = buffer;
        Ok(())
    }

    fn act_on<D: Store<Partial = P>>(&mut self, event: Option<Event>, cx: &Context<D>) {
        if let Some(event) = event {
            self.act(event, cx);
        }
    }

    fn act<D: Store<Partial = P>>(&mut self, event: Event, cx: &Context<D>) {
        match event {
            Event::Request(request) => self.begin(request, cx),
            Event::Content(bytes) => self.append(bytes, cx),
            Event::End => self.publish(),
            Event::Refused(refusal, header) => self.end(CloseReason::NotARequest(refusal, header.into())),
            // Enough is enough: as if it had ended.
            Event::Discarded(_) if self.pace.received_bytes() > Limits::LINGER_MAX_BYTES => {
                self.receiver.end_of_stream();
            }
            Event::Discarded(_) => {}
        }
    }

    fn begin<D: Store<Partial = P>>(&mut self, request: Request, cx: &Context<D>) {
        match cx.store.begin(&request.name, cx.on_exists) {
            Ok(partial) => {
                self.partial = Some(partial);
                self.receiver.accept();
                self.pace = Pace::begin(cx.clock.now);
            }
            Err(error) => self.refuse(refusal_for(&error), Peer::Sending),
        }
        self.name = Some(request.name);
    }

    fn append<D: Store<Partial = P>>(&mut self, bytes: &[u8], cx: &Context<D>) {
        self.content_bytes += bytes.len() as u64;
        if let Some(max) = cx.limits.max_file_size.filter(|max| self.content_bytes > *max) {
            let words = format!("the file is larger than {max} bytes, the most that this server takes");
            return self.refuse(Refusal::new(Code::TOO_LARGE, words), Peer::Sending);
        }
        let partial = self.partial.as_mut().expect("content comes between begin and publish only");
        if let Err(error) = partial.append(bytes) {
            self.refuse(refusal_for(&error), Peer::Sending);
        }
    }

    fn publish(&mut self) {
        let partial = self.partial.take().expect("content ends between begin and publish only");
        let name = self.name.clone().expect("a partial belongs to a name");
        let size = partial.size();
        match partial.publish(name) {
            Ok(stored) => {
                self.receiver.published(&Receipt { size, digest: "-".into(), stored_name: stored.to_string() });
                self.end(CloseReason::Stored(stored));
            }
            Err(error) => self.refuse(refusal_for(&error), Peer::Sending),
        }
    }

    fn refuse(&mut self, refusal: Refusal, peer: Peer) {
        self.partial = None;
        self.receiver.refuse(&refusal, peer);
        self.end(CloseReason::Refused(refusal));
    }

    /// The first reason is the one that counts: what follows from it is no news.
    fn end(&mut self, reason: CloseReason) {
        self.ending.get_or_insert_with(|| Box::new(reason));
    }

    /// How it ended, or `otherwise` where nothing has been said of that yet.
    fn ended(&mut self, otherwise: CloseReason) -> Verdict {
        Verdict::Close(self.ending.take().map_or(otherwise, |reason| *reason))
    }

    fn lapse<D>(&mut self, lapse: Lapse, cx: &mut Context<D>) -> std::ops::ControlFlow<()>
    where
        D: Store<Partial = P>,
    {
        use std::ops::ControlFlow::{Break, Continue};
        let silent_from_the_start = self.receiver.awaits() == Awaits::Header;
        match lapse {
            Lapse::Burst => {
                let event = self.receiver.end_of_burst();
                self.act_on(event, cx);
            }
            Lapse::Grace => self.receiver.grace_elapsed(),
            Lapse::Linger => return Break(()),
            // It was told its last word, or would be: it does not read.
            Lapse::Idle if !self.receiver.transmit().is_empty() => return Break(()),
            Lapse::Idle => self.refuse(too_slow("nothing came", cx.limits.idle_timeout), Peer::Silent),
            Lapse::Header if silent_from_the_start => {
                self.refuse(too_slow("no name came", cx.limits.header_timeout), Peer::Silent)
            }
            Lapse::Header => self.refuse(too_slow("the name did not end", cx.limits.header_timeout), Peer::Sending),
            Lapse::RateWindow => {
                let min_rate = cx.limits.min_rate.unwrap_or(0);
                if self.pace.close_window(min_rate, cx.clock.now) {
                    let words =
                        format!("slower than {min_rate} bytes a second for {} s", Limits::RATE_WINDOW.as_secs());
                    self.refuse(Refusal::new(Code::TIMEOUT, words), Peer::Sending);
                }
            }
        }
        Continue(())
    }

    fn begin_linger(&mut self, now: Instant) -> io::Result<()> {
        self.lingering = true;
        self.pace = Pace::begin(now);
        self.stream.shutdown_write()
    }

    fn depart(&mut self, farewell: Farewell) -> io::Result<Verdict> {
        if farewell == Farewell::Reset {
            self.stream.reset_on_close()?;
        }
        Ok(self.ended(CloseReason::Silent))
    }

    /// A peer that goes with a reset before it sent anything is a probe, not a loss.
    fn lost(&self, error: io::Error) -> CloseReason {
        if self.receiver.awaits() == Awaits::Header { CloseReason::Silent } else { CloseReason::Lost(error) }
    }
}

fn too_slow(what: &str, span: Option<std::time::Duration>) -> Refusal {
    Refusal::new(Code::TIMEOUT, format!("{what} within {:?}", span.unwrap_or_default()))
}

fn refusal_for(error: &StoreError) -> Refusal {
    let code = match error {
        StoreError::Taken(_) => Code::CONFLICT,
        StoreError::Full(_) => Code::NO_SPACE,
        StoreError::Io(_) => Code::DISK,
    };
    Refusal::new(code, error.to_string())
}

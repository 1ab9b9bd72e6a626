//! One connection: the conversation, the socket and the file, glued together.
//!
//! ```text
//!   accepted, an edge, a result of the disk
//!                  |
//!                  v
//!           the ready queue --> serve ---+-- Wait     it is drained, or waits for somebody
//!                  ^                     |
//!                  +---------------------+-- Yield    its budget is spent: others first
//!                  +---------------------+-- Contend  when whoever is in its way was ended
//!                                        |
//!   a deadline ---------------> expire --+-- Close    and why: to the one place that closes
//! ```
//!
//! A visit says what is owed, as far as the peer takes it; parts, if all is said; and otherwise reads once and follows
//! what comes of it, until it would block or the budget is spent. While something is unsent nothing is read, and the
//! peer is stopped by its own window (RFC 9293, 3.8.6): that is all the flow control there is.
//!
//! **The first error is the last.** A reset is told once, and from then on looks like a clean end; so after an error
//! nothing is read any more, and an end of the stream counts only where no error came before it.
//!
//! Says what it needs in a [`Verdict`] and leaves the rest to the loop. Knows neither the poll nor the other
//! connections, and reads no clock. Generic over socket and store, so that the simulation runs this very code.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Limits;
use super::digesting::Digesting;
use super::pace::{Clock, Lapse, Pace};
use super::stats::Stats;
use super::trace::{Scene, Trace};
use crate::net::{Pipe, Readiness, Stream};
use crate::proto::{
    Awaits, Code, Event, Farewell, Hasher, Held, Name, OnExists, Peer, Receiver, Refusal, Request, ResumeId, Rules,
    Ticket, Whole,
};
use crate::reactor::{Budget, Id};
use crate::store::{Claim, Partial, Store, StoreError, Target};

/// After how long it makes sense to come back where another upload is in the way, in seconds.
const BUSY_SECONDS: u32 = 5;

/// From so many bytes on content goes through the pipe: two calls for less than a buffer gain nothing.
const PASS_AFTER_BYTES: u64 = 1 << 20;

/// What the loop lends to a connection while it serves it.
pub struct Context<'a, D> {
    /// Under which the connection is known.
    pub id: Id,
    /// Where files go.
    pub store: &'a mut D,
    /// What every conversation goes by.
    pub rules: &'a Rules,
    /// How patient to be.
    pub limits: &'a Limits,
    /// Shared by all: what is read stays in it only until it is written.
    pub buffer: &'a mut [u8],
    /// Shared by all, and empty: what nobody has to look at goes through it, where the system has one for us.
    pub pipe: Option<&'a Pipe>,
    /// What files become of it is counted here.
    pub stats: &'a mut Stats,
    /// The turn's clock.
    pub clock: Clock,
    /// Where its story is told.
    pub trace: Trace<'a>,
}

/// What the loop is to do with a connection that it has served.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing can be done before the next event or [`Connection::deadline`].
    Wait,
    /// There is more to do; others first.
    Yield,
    /// Another connection may be in its way: see to that, then [`Connection::claim`].
    Contend,
    /// It is over.
    Close(CloseReason),
}

/// How a connection ended.
#[derive(Debug)]
pub enum CloseReason {
    /// Its one file is stored. Whether it is whole only its sender knows: the end of the stream was the end of the file.
    Stored {
        /// What the client calls it.
        asked: Name,
        /// What it is called here.
        stored: Name,
    },
    /// All its requests were answered.
    Finished,
    /// It was refused, or cut off in the upload of this name.
    Refused(Refusal, Option<Name>),
    /// What it sent is no request; the bytes are quoted only escaped.
    NotARequest(Refusal, Box<[u8]>),
    /// The peer reset it, or the network did.
    Lost(io::Error),
    /// The peer went without a word.
    Silent,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { asked, stored } => {
                write!(f, "{asked:?} stored as {stored:?}, unverified: the end of the stream was the end of the file")
            }
            Self::Finished => f.write_str("finished"),
            Self::Refused(Refusal { code, words, .. }, Some(name)) => write!(f, "refused {name:?}, {} {words}", code.0),
            Self::Refused(Refusal { code, words, .. }, None) => write!(f, "refused, {} {words}", code.0),
            Self::NotARequest(Refusal { code, words, .. }, header) => {
                write!(f, "refused, {} {words}: \"{}\"", code.0, header.escape_ascii())
            }
            Self::Lost(error) => write!(f, "lost: {error}"),
            Self::Silent => f.write_str("closed by the peer before it sent a name"),
        }
    }
}

/// One client's connection.
pub struct Connection<S, D: Store> {
    stream: S,
    peer: SocketAddr,
    /// What the edges told and no `WouldBlock` has taken back.
    readiness: Readiness,
    receiver: Receiver,
    pace: Pace,
    accepted: Instant,
    upload: Option<Upload<D::Partial>>,
    /// The name of its one upload, in a dialect in which the end of the stream is the end of the file.
    only_name: Option<Name>,
    /// Boxed, as most connections never have one.
    task: Option<Box<Task<D::Content>>>,
    /// What was read and cannot be followed before something is settled.
    held: Box<[u8]>,
    /// Of all its uploads.
    content_bytes: u64,
    stored: u32,
    refused: u32,
    lingering: bool,
    /// Why it will be closed, as soon as that is known. Boxed, as most connections most of the time have none.
    ending: Option<Box<CloseReason>>,
}

/// A file under way.
struct Upload<P> {
    name: Name,
    partial: P,
    /// Those that came on this connection.
    bytes: u64,
    on_exists: OnExists,
    resume: Option<ResumeId>,
    mtime: Option<NonZeroU64>,
}

/// What the disk has to do with a request before the next input is taken.
enum Task<C> {
    /// Find out whether what has the name is the file that was uploaded, or would be.
    Compare { whole: Whole, name: Name, content: C, digesting: Digesting },
    /// Wait until whoever has the resume id has given it up.
    Contend(Request),
    /// Sum up what is held of the upload.
    Recall(Digesting),
    /// Wait until what is held would survive a power cut.
    Sync(Ticket, Held),
    /// Go on from what is held.
    Resume(Held),
}

impl<S: Stream, D: Store> Connection<S, D> {
    /// A connection that was accepted at `now`. It counts as readable at once: what the client sent with its handshake
    /// may be there already, and trying costs less than another turn.
    pub fn new(stream: S, peer: SocketAddr, rules: Arc<Rules>, now: Instant) -> Self {
        Self {
            stream,
            peer,
            readiness: Readiness { readable: true, writable: true },
            receiver: Receiver::new(rules),
            pace: Pace::begin(now),
            accepted: now,
            upload: None,
            only_name: None,
            task: None,
            held: Box::default(),
            content_bytes: 0,
            stored: 0,
            refused: 0,
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
        if self.has_unsent() {
            return self.readiness.writable;
        }
        let has_input = self.readiness.readable || !self.held.is_empty();
        self.task.as_ref().is_some_and(|task| !matches!(**task, Task::Sync(..)))
            || (has_input && self.receiver.awaits() != Awaits::Verdict)
    }

    /// When to [`Connection::expire`] it, if nothing happens before. May change with every call of the others.
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        self.next_lapse(limits).map(|(at, _)| at)
    }

    /// Goes on until nothing is left to do, or `budget` is spent.
    pub fn serve(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        match self.advance(cx, budget) {
            Ok(verdict) => verdict,
            Err(error) => {
                cx.trace.tell(|| Scene::Failed(&error));
                let lost = self.lost(error);
                self.ended(lost)
            }
        }
    }

    /// Acts on what had run out when the poll was asked, then serves.
    pub fn expire(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        let due = self.next_lapse(cx.limits).filter(|(at, _)| *at <= cx.clock.asked);
        if let Some((_, lapse)) = due {
            cx.trace.tell(|| Scene::Lapsed(lapse));
        }
        match due.map_or(Continue(()), |(_, lapse)| self.lapse(lapse, cx)) {
            Continue(()) => self.serve(cx, budget),
            Break(()) => self.ended(CloseReason::Silent),
        }
    }

    /// Takes in what became of the file that was published, confirmed or held for the request `ticket`.
    pub fn settle(&mut self, ticket: Ticket, result: Result<Name, StoreError>, stats: &mut Stats, trace: &mut Trace) {
        let awaited = |task: &mut Box<Task<_>>| matches!(**task, Task::Sync(awaited, _) if awaited == ticket);
        if let Some(Task::Sync(_, held)) = self.task.take_if(awaited).map(|task| *task) {
            trace.tell(|| Scene::Held { offset: held.offset, result: &result });
            return match result {
                Ok(_) => self.task = Some(Box::new(Task::Resume(held))),
                Err(error) => self.refuse(refusal_for(&error), Peer::Sending, stats),
            };
        }
        trace.tell(|| Scene::Settled(&result));
        match result {
            Ok(name) => {
                self.stored += 1;
                stats.stored += 1;
                self.receiver.settle(ticket, Ok(&name));
                if let Some(asked) = self.only_name.take() {
                    self.end(CloseReason::Stored { asked, stored: name });
                }
            }
            Err(error) => {
                let refusal = refusal_for(&error);
                self.receiver.settle(ticket, Err(&refusal));
                let name = self.only_name.take();
                self.note_refusal(refusal, name, stats);
            }
        }
    }

    /// The server shuts down: whoever has not begun an upload is sent away.
    pub fn shut_down(&mut self, stats: &mut Stats) {
        let peer = match self.receiver.awaits() {
            Awaits::Header => Peer::Silent,
            Awaits::RestOfHeader | Awaits::RestOfName | Awaits::NextRequest => Peer::Sending,
            _ => return,
        };
        self.refuse(shutting_down(), peer, stats);
    }

    /// Whether an upload would be cut off if it were closed now.
    pub fn is_uploading(&self) -> bool {
        self.upload.is_some() || self.receiver.owes()
    }

    /// The resume id that it wants and another upload has.
    pub fn contended(&self) -> Option<&ResumeId> {
        match self.task.as_deref()? {
            Task::Contend(request) => request.resume.as_ref(),
            _ => None,
        }
    }

    /// Whether it has an upload in progress under this resume id.
    pub fn holds(&self, id: &ResumeId) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.resume.as_ref() == Some(id))
    }

    /// Gives up the upload that another connection has claimed since: after a silent loss of the network this one may only
    /// seem to be alive.
    pub fn evict(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        let refusal = Refusal::new(Code::CONFLICT, "another connection goes on with this upload");
        self.receiver.dismiss(&refusal);
        let name = self.end_upload(true);
        self.note_refusal(refusal, name, cx.stats);
        self.serve(cx, budget)
    }

    /// Begins what it could not while another connection was in its way, if that one was.
    pub fn claim(&mut self, cx: &mut Context<D>, _: &mut Budget) -> Verdict {
        if let Some(Task::Contend(request)) =
            self.task.take_if(|task| matches!(**task, Task::Contend(_))).map(|task| *task)
        {
            if let Err(error) = self.open(&request, cx) {
                self.refuse_to_begin(&error, request.name, cx.stats);
            }
            self.follow_held(cx);
        }
        Verdict::Yield
    }

    /// Before it is dropped: what nothing has been said against may be gone on with.
    pub fn keep_upload(&mut self) {
        self.end_upload(true);
    }

    /// Whether its client has been told everything, and is only given time to hear it.
    pub fn is_lingering(&self) -> bool {
        self.lingering
    }

    /// Ends it now; what can be told at once is told.
    pub fn abort(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        self.refuse(shutting_down(), Peer::Silent, cx.stats);
        match self.serve(cx, budget) {
            Verdict::Close(reason) => Verdict::Close(reason),
            Verdict::Wait | Verdict::Yield | Verdict::Contend => self.ended(CloseReason::Silent),
        }
    }

    /// The one line that tells its story.
    pub fn summary(&self, reason: &CloseReason, now: Instant) -> String {
        let Self { peer, content_bytes, stored, refused, .. } = self;
        let seconds = now.duration_since(self.accepted).as_secs_f64();
        let name = self.upload.as_ref().map(|upload| format!(" {:?}", upload.name)).unwrap_or_default();
        let files = match reason {
            CloseReason::Stored { .. } => String::new(),
            _ if stored + refused == 0 => String::new(),
            _ => format!("{stored} stored, {refused} refused, "),
        };
        format!("{peer}{name}: {files}{content_bytes} bytes in {seconds:.3} s, {reason}")
    }

    fn has_unsent(&self) -> bool {
        !self.receiver.transmit().is_empty()
    }

    /// Whether what comes next may add to what is to be said, so that one write does for both.
    fn may_say_more(&self) -> bool {
        let has_input = self.readiness.readable || !self.held.is_empty();
        has_input && self.task.is_none() && !self.receiver.is_over() && self.receiver.awaits() != Awaits::Verdict
    }

    fn next_lapse(&self, limits: &Limits) -> Option<(Instant, Lapse)> {
        self.pace.next(self.receiver.awaits(), self.has_unsent(), limits)
    }

    fn advance(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<Verdict> {
        loop {
            cx.trace.tell_state(|| self.receiver.awaits());
            if !self.may_say_more() || budget.is_spent() || cx.store.is_congested() {
                self.flush(cx.clock.now, &mut cx.trace)?;
            }
            match self.receiver.farewell() {
                Some(Farewell::Linger) if self.lingering => {}
                Some(Farewell::Linger) => self.begin_linger(cx.clock.now, &mut cx.trace)?,
                Some(farewell) => return self.depart(farewell, &mut cx.trace),
                None => {}
            }
            if !self.is_ready() {
                return Ok(Verdict::Wait);
            }
            if budget.is_spent() || cx.store.is_congested() {
                return Ok(Verdict::Yield);
            }
            if self.contended().is_some() {
                return Ok(Verdict::Contend);
            }
            match self.task.take() {
                Some(task) => self.perform(task, cx, budget),
                None => self.take_input(cx, budget)?,
            }
        }
    }

    /// Sends what is owed, as far as the peer takes it.
    fn flush(&mut self, now: Instant, trace: &mut Trace) -> io::Result<()> {
        while self.has_unsent() && self.readiness.writable {
            match self.stream.write(self.receiver.transmit()) {
                Ok(sent) => {
                    trace.tell(|| Scene::Wrote(&self.receiver.transmit()[..sent]));
                    self.receiver.transmitted(sent);
                    self.pace.sent(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    trace.tell(|| Scene::WriteWouldBlock);
                    self.readiness.writable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is held, or else one read, and all that follows from it.
    fn take_input(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<()> {
        if !self.held.is_empty() {
            self.follow_held(cx);
            return Ok(());
        }
        if self.pass(cx, budget)? {
            return Ok(());
        }
        // Taken for the time of the read: what was read is borrowed from it while the context serves the events.
        let buffer = std::mem::take(&mut cx.buffer);
        let outcome = self.read(buffer, cx, budget);
        cx.buffer = buffer;
        outcome
    }

    /// Moves content from the socket to the file, where nobody has to look at it and there is enough of it for that to pay.
    /// Returns whether there was any; if not, a read has to tell why.
    fn pass(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<bool> {
        let is_long = self.upload.as_ref().is_some_and(|upload| upload.bytes >= PASS_AFTER_BYTES);
        let Some(pipe) = cx.pipe.filter(|_| is_long) else { return Ok(false) };
        let passable = usize::try_from(self.receiver.passable()).unwrap_or(usize::MAX);
        if passable == 0 {
            return Ok(false);
        }
        let count = match self.stream.splice(pipe, passable) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        if count > 0 {
            cx.trace.tell(|| Scene::Passed { bytes: count });
            budget.spend(count);
            self.pace.received(count, cx.clock.now);
            self.receiver.pass(count as u64);
            self.append(count, cx, |partial| partial.append_from(pipe.reader(), count).inspect_err(|_| pipe.discard()));
            self.follow(&[], cx);
        }
        Ok(count > 0)
    }

    fn read(&mut self, buffer: &mut [u8], cx: &mut Context<D>, budget: &mut Budget) -> io::Result<()> {
        let appetite = usize::try_from(self.receiver.appetite()).unwrap_or(usize::MAX).min(buffer.len());
        match self.stream.read(&mut buffer[..appetite]) {
            Ok(0) => {
                cx.trace.tell(|| Scene::ReadEnd);
                let event = self.receiver.end_of_stream();
                self.act_on(event, cx);
            }
            Ok(count) => {
                cx.trace.tell(|| Scene::Read { bytes: count, room: appetite });
                budget.spend(count);
                self.pace.received(count, cx.clock.now);
                self.follow(&buffer[..count], cx);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                cx.trace.tell(|| Scene::ReadWouldBlock);
                self.readiness.readable = false;
                if cx.limits.name_quiet.is_zero() {
                    let event = self.receiver.end_of_burst();
                    self.act_on(event, cx);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn follow_held(&mut self, cx: &mut Context<D>) {
        let held = std::mem::take(&mut self.held);
        self.follow(&held, cx);
    }

    /// Follows the conversation through `input`, and holds what cannot be followed yet.
    fn follow(&mut self, mut input: &[u8], cx: &mut Context<D>) {
        let before = self.receiver.awaits();
        while !cx.store.is_congested()
            && self.task.is_none()
            && let Some(event) = self.receiver.receive(&mut input)
        {
            self.act(event, cx);
        }
        self.held = input.into();
        let is_header = |awaits| matches!(awaits, Awaits::Header | Awaits::RestOfHeader | Awaits::RestOfName);
        if is_header(self.receiver.awaits()) && !is_header(before) {
            // Each header has a time of its own.
            self.pace = Pace::begin(cx.clock.now);
        }
    }

    fn act_on(&mut self, event: Option<Event>, cx: &mut Context<D>) {
        if let Some(event) = event {
            self.act(event, cx);
        }
    }

    fn act(&mut self, event: Event, cx: &mut Context<D>) {
        cx.trace.tell(|| Scene::Heard(&event));
        match event {
            Event::Request(request) => self.begin(request, cx),
            Event::Content(bytes) => self.append(bytes.len(), cx, |partial| partial.append(bytes)),
            Event::End(whole) => self.publish(whole, cx),
            Event::Failed(refusal) => {
                let name = self.end_upload(refusal.code.keeps_partial());
                self.note_refusal(refusal, name, cx.stats);
            }
            Event::Refused(refusal, header) if self.receiver.is_over() => {
                self.end(CloseReason::NotARequest(refusal, header.into()));
            }
            Event::Refused(refusal, _) => self.note_refusal(refusal, None, cx.stats),
            // Enough is enough: as if it had ended.
            Event::Discarded(_) if self.lingering && self.pace.received_bytes() > Limits::LINGER_MAX_BYTES => {
                self.receiver.end_of_stream();
            }
            Event::Discarded(_) => {}
        }
    }

    fn begin(&mut self, request: Request, cx: &mut Context<D>) {
        match self.open(&request, cx) {
            Ok(()) => {}
            Err(StoreError::Busy(_)) if request.resume.is_some() => self.task = Some(Box::new(Task::Contend(request))),
            Err(error) => self.refuse_to_begin(&error, request.name, cx.stats),
        }
    }

    fn refuse_to_begin(&mut self, error: &StoreError, name: Name, stats: &mut Stats) {
        let refusal = refusal_for(error);
        self.receiver.refuse(&refusal, Peer::Sending);
        self.note_refusal(refusal, Some(name), stats);
    }

    /// Makes a place to write, or finds what is held, unless the whole file may be there already.
    fn open(&mut self, request: &Request, cx: &mut Context<D>) -> Result<(), StoreError> {
        let &Request { ref name, size, mtime, .. } = request;
        let on_exists = request.on_exists.unwrap_or(cx.rules.on_exists);
        if on_exists == OnExists::Same
            && let Some(size) = size
            && let Some(content) = cx.store.find(name, size)?
            && request.tells_all()
        {
            let whole = self.receiver.needs_no_content();
            self.compare(whole, name.clone(), content);
            return Ok(());
        }
        let digest = request.known_digest();
        let partial = cx.store.begin(&Target { name, on_exists, size, digest, resume: request.resume.as_ref() })?;
        let held = partial.held();
        self.only_name = (!request.dialect.is_framed()).then(|| name.clone());
        self.upload =
            Some(Upload { name: name.clone(), partial, bytes: 0, on_exists, resume: request.resume.clone(), mtime });
        match &request.digest {
            Some(promise) if held > 0 => {
                self.task = Some(Box::new(Task::Recall(Digesting::new(promise.algorithm(), held))));
            }
            _ => self.accept(None, cx),
        }
        Ok(())
    }

    fn accept(&mut self, held: Option<Held>, cx: &mut Context<D>) {
        cx.stats.resumed += u64::from(held.is_some());
        self.receiver.accept(held);
        self.pace = Pace::begin(cx.clock.now);
    }

    fn append(
        &mut self,
        count: usize,
        cx: &mut Context<D>,
        append: impl FnOnce(&mut D::Partial) -> Result<(), StoreError>,
    ) {
        self.content_bytes += count as u64;
        cx.stats.content_bytes += count as u64;
        let upload = self.upload.as_mut().expect("content comes between begin and publish only");
        upload.bytes += count as u64;
        if let Err(error) = append(&mut upload.partial) {
            self.refuse(refusal_for(&error), Peer::Sending, cx.stats);
        }
    }

    fn publish(&mut self, whole: Whole, cx: &mut Context<D>) {
        let upload = self.upload.take().expect("content ends between begin and publish only");
        let result = match self.publish_or_compare(whole, upload, cx) {
            Ok(result) => result,
            Err(error) => Some(Err(error)),
        };
        if let Some(result) = result {
            self.settle(whole.ticket, result, cx.stats, &mut cx.trace);
        }
    }

    /// Returns the result where it is known at once.
    fn publish_or_compare(
        &mut self,
        whole: Whole,
        upload: Upload<D::Partial>,
        cx: &mut Context<D>,
    ) -> Result<Option<Result<Name, StoreError>>, StoreError> {
        let Upload { name, mut partial, on_exists, mtime, .. } = upload;
        if on_exists == OnExists::Same
            && let Some(content) = cx.store.find(&name, whole.size)?
        {
            self.compare(whole, name, content);
            return Ok(None);
        }
        mtime.map_or(Ok(()), |mtime| partial.set_mtime(mtime.get()))?;
        Ok(cx.store.publish(Claim { id: cx.id, ticket: whole.ticket }, partial, name))
    }

    fn compare(&mut self, whole: Whole, name: Name, content: D::Content) {
        let promised = whole.digest.expect("who asks for the same tells a digest");
        let digesting = Digesting::new(promised.algorithm(), whole.size);
        self.task = Some(Box::new(Task::Compare { whole, name, content, digesting }));
    }

    /// Gets a task further by a piece.
    fn perform(&mut self, mut task: Box<Task<D::Content>>, cx: &mut Context<D>, budget: &mut Budget) {
        let piece = match &mut *task {
            Task::Compare { content, digesting, .. } => {
                digesting.advance(|piece| content.read(piece), cx.buffer, budget)
            }
            Task::Recall(digesting) => {
                let partial = &mut self.upload.as_mut().expect("what is recalled is its content").partial;
                digesting.advance(|piece| partial.reread(piece), cx.buffer, budget)
            }
            Task::Contend(_) | Task::Sync(..) | Task::Resume(_) => Ok(true),
        };
        match piece {
            Ok(false) => self.task = Some(task),
            piece => {
                // The peer had to wait for the disk.
                self.pace = Pace::begin(cx.clock.now);
                self.finish(*task, piece.map(|_| ()).map_err(StoreError::from), cx);
            }
        }
    }

    /// Does what a task was for.
    fn finish(&mut self, task: Task<D::Content>, result: Result<(), StoreError>, cx: &mut Context<D>) {
        match (task, result) {
            (Task::Compare { whole, name, content, digesting }, result) => {
                let is_same = || Some(digesting.into_hasher().finish()) == whole.digest;
                let result = match result {
                    Ok(()) if is_same() => cx.store.confirm(Claim { id: cx.id, ticket: whole.ticket }, content, name),
                    Ok(()) => Some(Err(StoreError::NOT_THE_SAME)),
                    Err(error) => Some(Err(error)),
                };
                if let Some(result) = result {
                    self.settle(whole.ticket, result, cx.stats, &mut cx.trace);
                }
            }
            (Task::Recall(digesting), Ok(())) => self.hold(digesting.into_hasher(), cx),
            (Task::Resume(held), Ok(())) => {
                self.accept(Some(held), cx);
                // There may be nothing left to come.
                self.follow_held(cx);
            }
            (Task::Contend(_) | Task::Sync(..), Ok(())) => unreachable!("others bring these to their end"),
            (_, Err(error)) => self.refuse(refusal_for(&error), Peer::Sending, cx.stats),
        }
    }

    /// Sees to it that what is held lasts, before the client is told how much it is.
    fn hold(&mut self, hasher: Hasher, cx: &mut Context<D>) {
        let ticket = self.receiver.ticket();
        let upload = self.upload.as_ref().expect("what is held is its content");
        self.task = Some(Box::new(Task::Sync(ticket, Held { offset: upload.partial.held(), hasher })));
        if let Some(result) = cx.store.hold(Claim { id: cx.id, ticket }, &upload.partial, upload.name.clone()) {
            self.settle(ticket, result, cx.stats, &mut cx.trace);
        }
    }

    /// Ends the upload in progress, if there is one. Whether the connection ends with it, the conversation knows.
    fn refuse(&mut self, refusal: Refusal, peer: Peer, stats: &mut Stats) {
        self.receiver.refuse(&refusal, peer);
        let name = self.end_upload(refusal.code.keeps_partial());
        self.note_refusal(refusal, name, stats);
    }

    /// Ends the upload in progress, if there is one, and gives it up or leaves it to be gone on with.
    fn end_upload(&mut self, keep: bool) -> Option<Name> {
        self.task.take_if(|task| !matches!(**task, Task::Compare { .. }));
        let Upload { name, partial, .. } = self.upload.take()?;
        if keep {
            partial.keep();
        }
        Some(name)
    }

    fn note_refusal(&mut self, refusal: Refusal, name: Option<Name>, stats: &mut Stats) {
        if self.receiver.is_over() {
            // The upload that was in progress behind a failed one is not followed any more.
            self.end_upload(refusal.code.keeps_partial());
            self.end(CloseReason::Refused(refusal, name));
        } else {
            self.refused += 1;
            stats.refuse(refusal.code);
        }
    }

    /// The first reason is the one that counts: what follows from it is no news.
    fn end(&mut self, reason: CloseReason) {
        self.ending.get_or_insert_with(|| Box::new(reason));
    }

    /// How it ended, or `otherwise` where nothing has been said of that and nothing was done.
    fn ended(&mut self, otherwise: CloseReason) -> Verdict {
        let otherwise = match otherwise {
            CloseReason::Silent if self.stored + self.refused > 0 => CloseReason::Finished,
            otherwise => otherwise,
        };
        Verdict::Close(self.ending.take().map_or(otherwise, |reason| *reason))
    }

    fn lapse(&mut self, lapse: Lapse, cx: &mut Context<D>) -> ControlFlow<()> {
        let awaits = self.receiver.awaits();
        match lapse {
            Lapse::Burst => {
                let event = self.receiver.end_of_burst();
                self.act_on(event, cx);
            }
            Lapse::Grace => self.receiver.grace_elapsed(),
            Lapse::Linger => return Break(()),
            // It was told what it is owed and does not read it, or it is owed nothing.
            Lapse::Idle if self.has_unsent() || awaits == Awaits::NextRequest => return Break(()),
            Lapse::Idle => self.too_slow("nothing came", cx.limits.idle_timeout, Peer::Silent, cx.stats),
            Lapse::Header if awaits == Awaits::Header => {
                self.too_slow("no name came", cx.limits.header_timeout, Peer::Silent, cx.stats);
            }
            Lapse::Header if awaits == Awaits::RestOfName => {
                self.too_slow("the name did not end", cx.limits.header_timeout, Peer::Sending, cx.stats);
            }
            Lapse::Header => {
                self.too_slow("the request did not end", cx.limits.header_timeout, Peer::Sending, cx.stats)
            }
            Lapse::RateWindow => {
                let min_rate = cx.limits.min_rate.unwrap_or(0);
                if self.pace.close_window(min_rate, cx.clock.now) {
                    let words = format!("slower than {min_rate} bytes a second for {:?}", Limits::RATE_WINDOW);
                    self.refuse(Refusal::new(Code::TIMEOUT, words), Peer::Sending, cx.stats);
                }
            }
        }
        Continue(())
    }

    fn too_slow(&mut self, what: &str, span: Option<Duration>, peer: Peer, stats: &mut Stats) {
        let words = format!("{what} within {:?}", span.unwrap_or_default());
        self.refuse(Refusal::new(Code::TIMEOUT, words), peer, stats);
    }

    fn begin_linger(&mut self, now: Instant, trace: &mut Trace) -> io::Result<()> {
        self.lingering = true;
        self.pace = Pace::begin(now);
        self.stream.shutdown_write()?;
        trace.tell(|| Scene::Parting(Farewell::Linger));
        Ok(())
    }

    fn depart(&mut self, farewell: Farewell, trace: &mut Trace) -> io::Result<Verdict> {
        trace.tell(|| Scene::Parting(farewell));
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

fn shutting_down() -> Refusal {
    Refusal::new(Code::SHUTTING_DOWN, "the server is shutting down")
}

fn refusal_for(error: &StoreError) -> Refusal {
    let code = match error {
        StoreError::Taken(_) | StoreError::Busy(_) => Code::CONFLICT,
        StoreError::Full(_) => Code::NO_SPACE,
        StoreError::Io(_) | StoreError::Failed => Code::DISK,
    };
    let retry_seconds = matches!(error, StoreError::Busy(_)).then_some(BUSY_SECONDS);
    Refusal { retry_seconds, ..Refusal::new(code, error.to_string()) }
}

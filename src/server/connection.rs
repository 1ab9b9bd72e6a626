//! One connection: its socket, its conversation and its work with the disk, glued together.
//!
//! ```text
//!   accepted, an edge, a result of the disk
//!                  |
//!                  v
//!           the ready queue --> serve ---+-- Wait     the socket is drained, or the disk is busy
//!                  ^                     |
//!                  +---------------------+-- Yield    its budget is spent, others come first
//!                  +---------------------+-- Contend  once the connection in its way is ended
//!                  +---------------------+-- Room     once fewer files wait for the disk
//!                  +---------------------+-- Handshake  once few enough TLS handshakes are under way
//!                                        |
//!   a deadline ---------------> expire --+-- Close    to the one place that closes, with the reason
//! ```
//!
//! A visit asks again and again what can be done next ([`Next`]), and does that, until there is nothing or the budget is
//! spent. Replies are sent in one write as soon as no further input may add to them, and always before the connection waits
//! or yields. While the client does not take them nothing is read, so its own window stops it (RFC 9293, 3.8.6). There is
//! no other flow control.
//!
//! **The first error is the last.** The kernel reports a reset once, and a clean end from then on. So nothing is read after
//! an error, and an end of the stream counts only if no error came before it.
//!
//! **A proxy** sends a header first, which tells the client's address. Nothing before its end is for the conversation.
//!
//! **TLS** is found by the first byte. Its session reads and writes from then on, and the conversation begins anew inside it.
//! The end of a stream counts only if the client has announced it.
//!
//! The conversation ([`Receiver`]) and the [`Work`] do not know each other: this file passes events to the one and answers
//! to the other. It returns a [`Verdict`] and leaves the rest to the loop. Knows neither the poll nor the other connections,
//! and reads no clock. Generic over socket and store, so that the simulation runs the same code.

mod access;
mod answers;
mod lapses;
mod proxied;
mod tls;

use std::io;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use super::config::Limits;
use super::jobs::Jobs;
use super::pace::Pace;
use super::proxied::Proxied;
use super::story::{CloseReason, Fact, Filed, Scene, Story};
use super::trickle::Trickle;
use super::visit::{Context, Verdict};
use super::wire::Wire;
use super::work::{Answer, Ask, RequestState, Status, Work};
use crate::access::{Charge, Token};
use crate::net::Stream;
use crate::net::tls::Session;
use crate::proto::{
    Awaits, Code, Dialect, Event, Farewell, Name, Peer, Reading, Receiver, Refusal, Rules, ServerStep as Step, Ticket,
    Whole,
};
use crate::reactor::{Budget, Guest, Moment, Readiness};
use crate::store::{Done, Partial, Store, StoreError};

/// What a connection can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Send replies, or the stream's own bytes.
    Send,
    /// Read, or process input that was read before.
    Read(Reading),
    /// Do the next piece of work with the disk.
    Work,
    /// Have the connection ended that is in the way.
    Contend,
    /// Close, or shut down the write side.
    Part(Farewell),
    /// Nothing.
    Wait,
}

/// One client's connection.
pub struct Connection<S, D: Store> {
    stream: S,
    /// What events have reported and no `WouldBlock` has taken back.
    readiness: Readiness,
    receiver: Receiver,
    work: Work<D>,
    pace: Pace,
    trickle: Trickle,
    /// Any close of the socket is a reset, the kernel's own included.
    resets_on_close: bool,
    /// In a box, as few connections have any of it.
    rare: Option<Box<Rare>>,
}

/// What few connections have, most of it for a short time only.
#[derive(Default)]
struct Rare {
    /// What is known of the client behind a proxy.
    proxied: Option<Proxied>,
    /// TLS on the stream.
    session: Option<Session>,
    /// Its handshake is over.
    is_secured: bool,
    /// Input that was read, and cannot be processed before an answer of the disk.
    input: Box<[u8]>,
    /// Why the connection will be closed, as soon as that is known.
    ending: Option<CloseReason>,
    /// The token that the client has shown with its last request.
    token: Option<Arc<Token>>,
    /// What the upload in progress was charged for.
    charge: Option<Box<Charge>>,
    /// What uploads were charged for that have failed.
    failed: Vec<Charge>,
}

impl<S: Stream, D: Store> Guest for Connection<S, D> {
    fn absorb(&mut self, readiness: Readiness) -> bool {
        self.readiness.add(readiness);
        self.next(false) != Next::Wait
    }

    fn is_ready(&self, _: Moment) -> bool {
        self.next(false) != Next::Wait
    }
}

impl<S: Stream, D: Store> Connection<S, D> {
    /// A connection that was accepted at `now`. It counts as readable at once: what the client sent with its handshake
    /// may have come already, and a try costs less than another turn.
    pub fn new(stream: S, now: Moment) -> Self {
        Self {
            stream,
            readiness: Readiness { readable: true, writable: true },
            receiver: Receiver::default(),
            work: Work::default(),
            pace: Pace::begin(now),
            trickle: Trickle::default(),
            resets_on_close: false,
            rare: None,
        }
    }

    /// Serves it until it can do nothing more, or `budget` is spent.
    pub fn serve(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        match self.advance(cx, budget) {
            Ok(verdict) => verdict,
            Err(error) => {
                cx.story.scene(|| Scene::Failed(&error));
                let lost = self.lost(error);
                self.ended(lost)
            }
        }
    }

    /// Acts on the deadline that had passed before the poll, then serves it.
    pub fn expire(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        if let Some(verdict) = self.serve_below_mark(cx, budget) {
            return verdict;
        }
        let due = self.next_lapse(cx.limits).filter(|(at, _)| *at <= cx.clock.asked);
        if let Some((_, lapse)) = due {
            cx.story.scene(|| Scene::Lapsed(lapse));
        }
        match due.map_or(Continue(()), |(_, lapse)| self.lapse(lapse, cx)) {
            Continue(()) => self.serve(cx, budget),
            Break(()) => self.ended(CloseReason::Silent),
        }
    }

    /// Begins the file that it has waited for room for, unless another connection is in its way.
    pub fn begin_now(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        match self.work.status() {
            Status::Contends => return Verdict::Contend,
            // The client had to wait for the disk.
            Status::WaitsForRoom => self.pace = Pace::begin(cx.clock.now),
            Status::Idle | Status::Ready | Status::Waits => {}
        }
        self.retry(cx, budget)
    }

    /// Begins the file that it could not begin before, and yields.
    pub fn retry(&mut self, cx: &mut Context<D>, _: &mut Budget) -> Verdict {
        let answer = self.work.retry(self.state(), &mut cx.disk);
        self.tell(answer, cx);
        self.follow_kept(cx);
        Verdict::Yield
    }

    /// Gives up its upload: another connection resumes it. After a silent loss of the network this one may only seem to be
    /// alive.
    pub fn evict(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        let refusal = Refusal::new(Code::CONFLICT, "another connection resumes this upload");
        self.receiver.dismiss(&refusal, cx.rules);
        self.refused(refusal, None, &mut cx.story);
        self.serve(cx, budget)
    }

    /// Ends it now, and sends what can be sent at once. While the disk is busy with a file its outcome is unknown.
    /// The client must not take the end of the connection for one, so the connection ends with a reset.
    pub fn abort(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        if let Some(close @ Verdict::Close(_)) = self.serve_below_mark(cx, budget) {
            return close;
        }
        if self.receiver.owes() {
            self.receiver.abandon();
            self.work.give_up(true);
            self.end(CloseReason::Undecided);
            // Even if what is known cannot be sent before.
            let _ = self.reset_on_close(true);
        } else if !self.receiver.is_over() {
            self.refuse(Refusal::shutting_down(), Peer::Silent, cx.rules, &mut cx.story);
        }
        match self.serve(cx, budget) {
            Verdict::Close(reason) => Verdict::Close(reason),
            Verdict::Wait | Verdict::Yield | Verdict::Contend | Verdict::Room | Verdict::Handshake => {
                self.ended(CloseReason::Silent)
            }
        }
    }

    /// Takes in the result of a job that was submitted for the request `ticket`. `filed`: what was asked for, if the job was
    /// about a whole file.
    pub fn settle(&mut self, ticket: Ticket, filed: Option<Filed>, done: Done, rules: &Rules, story: &mut Story) {
        match (done, filed) {
            (Done::Held(result), _) => self.work.settle(ticket, result),
            (Done::Stored(result), Some(filed)) => self.tell_outcome(filed, result, rules, story),
            (Done::Stored(_), None) => {}
        }
    }

    /// Call it before the drop: keeps the upload in progress, to be resumed.
    pub fn keep_upload(&mut self) {
        self.fail_charge(false);
        if let Some(charge) = self.work.take_charge() {
            self.give_back(*charge);
        }
        self.work.give_up(true);
    }

    /// When to [`Connection::expire`] it, if nothing happens before. Any other call may change it.
    pub fn deadline(&self, limits: &Limits) -> Option<Moment> {
        self.next_lapse(limits).map(|(at, _)| at)
    }

    /// Whether a close would cut off an upload.
    pub fn is_uploading(&self) -> bool {
        self.work.name().is_some() || self.receiver.owes()
    }

    /// All replies to requests before this one are written to the socket. `None`: some that are known are not.
    pub fn told_before(&self) -> Option<Ticket> {
        if self.stream_owes() { None } else { self.receiver.told_before() }
    }

    /// How its client asked last.
    pub fn dialect(&self) -> Dialect {
        self.receiver.dialect()
    }

    /// Our address, if the socket still tells.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// What its conversation waits for.
    pub fn awaits(&self) -> Awaits {
        self.receiver.awaits()
    }

    /// Its work with the disk.
    pub fn work(&self) -> &Work<D> {
        &self.work
    }

    /// Looks whether the disk is still busy with the upload that it wants to resume. Returns whether it need not wait any
    /// more.
    pub fn stop_awaiting(&mut self, store: &D, jobs: &Jobs) -> bool {
        self.work.stop_awaiting(store, jobs)
    }

    /// Whether everything has been sent, and the client only gets time to read it.
    pub fn is_lingering(&self) -> bool {
        self.receiver.is_lingering()
    }

    /// What it can do now. `is_last`: the visit ends here, so replies are sent even if more may be added to them.
    fn next(&self, is_last: bool) -> Next {
        let status = self.work.status();
        if self.awaits_handshake() {
            return Next::Wait;
        }
        let has_input = self.readiness.readable || self.has_kept_input();
        let can_send = self.readiness.writable;
        let reads_on = has_input && can_send && status == Status::Idle && !is_last;
        let send = if can_send { Next::Send } else { Next::Wait };
        match (self.receiver.step(reads_on), status) {
            (Step::Say(_), _) => send,
            (Step::Part(Farewell::Reset), _) => Next::Part(Farewell::Reset),
            (Step::Part(_), _) if self.stream_owes() => send,
            (Step::Part(farewell), _) => Next::Part(farewell),
            (Step::Read(reading), _) if reads_on => Next::Read(reading),
            _ if can_send && self.stream_owes() => Next::Send,
            (_, Status::Ready) => Next::Work,
            (_, Status::Contends) => Next::Contend,
            (Step::Read(reading), Status::Idle) if has_input => Next::Read(reading),
            (_, Status::Idle | Status::Waits | Status::WaitsForRoom) => Next::Wait,
        }
    }

    fn advance(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<Verdict> {
        loop {
            cx.story.state(|| self.receiver.awaits());
            match self.next(budget.is_spent()) {
                Next::Send => self.send(cx)?,
                Next::Part(farewell) if farewell != Farewell::Reset && self.announces_end(cx) => {}
                Next::Part(Farewell::Linger) => self.begin_linger(cx)?,
                Next::Part(farewell) => return self.part(farewell, cx),
                Next::Wait if cx.rules.is_draining && self.leaves(cx) => {}
                Next::Wait => return Ok(self.wait(cx)),
                _ if budget.is_spent() => return Ok(Verdict::Yield),
                Next::Read(reading) => self.take_input(reading, cx, budget)?,
                Next::Work => self.advance_work(cx, budget),
                Next::Contend => return Ok(Verdict::Contend),
            }
        }
    }

    /// Whether the stream has bytes of its own to send. After the last word they do not matter.
    fn stream_owes(&self) -> bool {
        !self.receiver.is_lingering() && self.session().map_or_else(|| self.stream.owes(), Session::owes)
    }

    /// The stream, in clear or with TLS on it.
    fn wire(&mut self) -> Wire<'_, S> {
        wire(&mut self.stream, &mut self.rare)
    }

    /// Whether the client has to read before anything else happens. The stream's own bytes count only if they are the last.
    fn has_unsent(&self) -> bool {
        match self.receiver.step(false) {
            Step::Say(_) => true,
            Step::Part(_) => self.stream_owes(),
            Step::Read(_) | Step::Answer | Step::Settle => false,
        }
    }

    /// Sends as much as the client takes.
    fn send(&mut self, cx: &mut Context<D>) -> io::Result<()> {
        let unsent = match self.receiver.step(false) {
            Step::Say(unsent) => unsent,
            _ => &[],
        };
        let wire = wire(&mut self.stream, &mut self.rare);
        let outcome = if unsent.is_empty() { wire.flush().map(|()| 0) } else { wire.send(unsent) };
        match outcome {
            Ok(0) => {}
            Ok(sent) => {
                cx.story.scene(|| Scene::Wrote(&unsent[..sent]));
                self.receiver.transmitted(sent);
                self.pace.sent(cx.clock.now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                cx.story.scene(|| Scene::WriteWouldBlock);
                self.readiness.writable = false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Processes the input that was kept, or else reads once.
    fn take_input(&mut self, reading: Reading, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<()> {
        if self.has_kept_input() {
            self.follow_kept(cx);
            return Ok(());
        }
        if self.splice(cx, budget)? {
            return Ok(());
        }
        // Out of the context during the read: the events borrow from the buffer while they are acted on with the context.
        let buffer = std::mem::take(&mut cx.buffer);
        let outcome = self.read(reading, buffer, cx, budget);
        cx.buffer = buffer;
        outcome
    }

    /// Splices content from the socket into the file, if it need not be seen and there is enough of it. Returns whether any
    /// came; if not, only a read can tell why.
    fn splice(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<bool> {
        let Some(pipe) = cx.pipe.filter(|_| self.work.is_long()) else { return Ok(false) };
        let spliceable = usize::try_from(self.receiver.spliceable(cx.rules)).unwrap_or(usize::MAX);
        if spliceable == 0 {
            return Ok(false);
        }
        let count = match self.wire().splice(pipe, spliceable.min(cx.buffer.len())) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        if count > 0 {
            cx.story.scene(|| Scene::Spliced { bytes: count });
            budget.spend(count);
            self.pace.received(count, cx.clock.now);
            self.trickle.received(count);
            self.receiver.spliced(count as u64);
            self.append(count, &[], cx, |partial| {
                partial.append_from(pipe.reader(), count).inspect_err(|_| pipe.discard())
            });
            self.follow(&[], cx);
        }
        Ok(count > 0)
    }

    fn read(
        &mut self,
        reading: Reading,
        buffer: &mut [u8],
        cx: &mut Context<D>,
        budget: &mut Budget,
    ) -> io::Result<()> {
        let room = usize::try_from(reading.max_bytes).unwrap_or(usize::MAX).min(buffer.len());
        let was_handshaking = self.session().is_some_and(Session::is_handshaking);
        let outcome = self.wire().receive(buffer, room);
        if was_handshaking {
            self.secured(cx);
        }
        match outcome {
            Ok(0) => {
                cx.story.scene(|| Scene::ReadEnd);
                if self.ends_in_proxy_header(cx) {
                    return Ok(());
                }
                let event = self.receiver.end_of_stream(cx.rules);
                self.act_on(event, cx);
            }
            Ok(count) => {
                cx.story.scene(|| Scene::Read { bytes: count, room });
                budget.spend(count);
                let mut input = &buffer[..count];
                if reading.awaits == Awaits::Header && !self.may_begin(&mut input, cx) {
                    return Ok(());
                }
                self.pace.received(count, cx.clock.now);
                if reading.content_bytes > 0 {
                    self.trickle.received(count);
                }
                self.follow(input, cx);
            }
            Err(error) => self.read_failed(error, room, cx, budget)?,
        }
        Ok(())
    }

    /// Whether `first` begins the conversation, once the header of a proxy is taken from its front.
    fn may_begin(&mut self, first: &mut &[u8], cx: &mut Context<D>) -> bool {
        self.follows_proxy_header(first, cx) && !first.is_empty() && !self.is_not_plain(first, cx)
    }

    /// Acts on a read that has brought nothing.
    fn read_failed(
        &mut self,
        error: io::Error,
        room: usize,
        cx: &mut Context<D>,
        budget: &mut Budget,
    ) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                cx.story.scene(|| Scene::ReadWouldBlock);
                self.readiness.readable = false;
                if cx.limits.name_quiet.is_zero() {
                    let event = self.receiver.end_of_burst(cx.rules);
                    self.act_on(event, cx);
                }
            }
            // What TLS has for itself may cost as much as a whole read, and no client can send it without end.
            io::ErrorKind::Interrupted => budget.spend(room),
            io::ErrorKind::UnexpectedEof => self.end_unproven(cx),
            _ if self.session().is_some_and(Session::is_broken) => self.fail_session(error, cx)?,
            _ => return Err(error),
        }
        Ok(())
    }

    fn has_kept_input(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.input.is_empty())
    }

    /// Processes the input that was kept. There may be none, and the conversation may still have an event.
    fn follow_kept(&mut self, cx: &mut Context<D>) {
        let input = self.rare.as_mut().map_or_else(Box::default, |rare| std::mem::take(&mut rare.input));
        self.follow(&input, cx);
    }

    /// Processes `input`, and keeps what cannot be processed yet.
    fn follow(&mut self, mut input: &[u8], cx: &mut Context<D>) {
        let before = self.receiver.awaits();
        while self.work.status() == Status::Idle
            && let Some(event) = self.receiver.receive(&mut input, cx.rules)
        {
            self.act(event, cx);
        }
        if !input.is_empty() {
            self.rare.get_or_insert_default().input = input.into();
        }
        let is_header = |awaits| matches!(awaits, Awaits::Header | Awaits::RestOfHeader | Awaits::RestOfName);
        if is_header(self.receiver.awaits()) && !is_header(before) {
            // Each header has its own time.
            self.pace = Pace::begin(cx.clock.now);
        }
    }

    fn act_on(&mut self, event: Option<Event>, cx: &mut Context<D>) {
        if let Some(event) = event {
            self.act(event, cx);
        }
    }

    fn act(&mut self, event: Event, cx: &mut Context<D>) {
        cx.story.scene(|| Scene::Heard(&event));
        match event {
            Event::Judge(shown) => self.judge(shown, cx),
            Event::Request(request) => self.begin_upload(request, cx),
            Event::ById(what) => self.begin_by_id(what, cx),
            Event::EndOfPiece => {
                let answer = self.work.end_piece(self.receiver.ticket(), &mut cx.disk);
                if matches!(answer, Answer::Later) {
                    // The piece stays, whatever happens to the upload.
                    self.take_charge();
                }
                self.tell(answer, cx);
            }
            Event::Content(bytes) => self.append(bytes.len(), &bytes, cx, |partial| partial.append(&bytes)),
            Event::End(whole) => self.end_upload(whole, cx),
            Event::Failed(refusal) => self.refused(refusal, None, &mut cx.story),
            Event::Refused(refusal, request) => self.refused(refusal, Some(request.name), &mut cx.story),
            Event::NotARequest(refusal, head) => self.not_a_request(refusal, head, cx),
            Event::Discarded(_) if self.lingers_too_long() => {
                self.receiver.end_of_stream(cx.rules);
            }
            Event::Discarded(_) => {}
            Event::Answered(what) => cx.story.tell(&Fact::Answered { what }),
        }
    }

    fn ask(&mut self, request: Ask, cx: &mut Context<D>) {
        let answer = if cx.others_wait || cx.disk.store.is_congested() {
            self.work.ask_later(request)
        } else {
            self.work.ask(request, self.state(), &mut cx.disk)
        };
        self.tell(answer, cx);
    }

    fn state(&self) -> RequestState {
        RequestState { ticket: self.receiver.ticket(), may_omit_content: self.receiver.may_omit_content() }
    }

    fn append(
        &mut self,
        count: usize,
        seen: &[u8],
        cx: &mut Context<D>,
        append: impl FnOnce(&mut D::Partial) -> Result<(), StoreError>,
    ) {
        cx.story.tell(&Fact::Received { bytes: count });
        if let Err(refusal) = self.charge_content(count, cx) {
            return self.refuse(refusal, Peer::Sending, cx.rules, &mut cx.story);
        }
        if let Err(error) = self.work.append(seen, self.receiver.hasher(), append) {
            self.refuse(self.refusal_for(&error), Peer::Sending, cx.rules, &mut cx.story);
        }
    }

    fn end_upload(&mut self, whole: Whole, cx: &mut Context<D>) {
        let filed = self.filed(whole, &cx.story);
        match self.work.end(filed, &mut cx.disk) {
            Some(answer) => self.tell(answer, cx),
            // Content that was never accepted cannot end. If it did, its outcome would never be known.
            None => self.receiver.abandon(),
        }
    }

    /// Does the next piece of work with the disk.
    fn advance_work(&mut self, cx: &mut Context<D>, budget: &mut Budget) {
        let answer = self.work.advance(cx.buffer, budget, cx.clock.now, &mut cx.disk);
        if self.work.status() == Status::Idle {
            // The client had to wait for the disk.
            self.pace = Pace::begin(cx.clock.now);
        }
        self.tell(answer, cx);
    }

    /// Refuses the request or the upload in progress. The conversation knows whether the connection ends with it.
    fn refuse(&mut self, refusal: Refusal, peer: Peer, rules: &Rules, story: &mut Story) {
        self.receiver.refuse(&refusal, peer, rules);
        self.refused(refusal, None, story);
    }

    /// As [`Connection::refused_in`], of the last request.
    fn refused(&mut self, refusal: Refusal, name: Option<Name>, story: &mut Story) {
        let dialect = self.dialect();
        self.refused_in(dialect, refusal, name, story);
    }

    /// A refusal is among the replies: of the file `name`, or of the upload in progress, which is given up. Logs the refusal
    /// now, or keeps it as the reason for the close if the connection ends with it.
    fn refused_in(&mut self, dialect: Dialect, refusal: Refusal, name: Option<Name>, story: &mut Story) {
        let is_over = self.receiver.is_over();
        // An upload that follows a refused file in a conversation that is over is not continued either.
        let gives_up = name.is_none() || is_over;
        if gives_up {
            self.fail_charge([Code::MISMATCH, Code::CHECKSUM].contains(&refusal.code));
        }
        let given_up = if gives_up { self.work.give_up(refusal.code.keeps_partial()) } else { None };
        let name = name.or(given_up);
        if is_over && self.rare.as_ref().is_none_or(|rare| rare.ending.is_none()) {
            self.end(CloseReason::Refused(refusal, name));
        } else {
            story.tell(&Fact::Refused {
                refusal: &refusal,
                name: name.as_ref(),
                dialect,
                ticket: self.receiver.ticket(),
            });
        }
    }

    /// Keeps the reason for the close. The first one counts, as later ones follow from it.
    fn end(&mut self, reason: CloseReason) {
        self.rare.get_or_insert_default().ending.get_or_insert(reason);
    }

    /// The verdict that closes it, with the reason that was kept, or else `otherwise`.
    fn ended(&mut self, otherwise: CloseReason) -> Verdict {
        let otherwise = match otherwise {
            CloseReason::Silent if self.receiver.has_been_asked() => CloseReason::Finished,
            otherwise => otherwise,
        };
        Verdict::Close(self.rare.as_mut().and_then(|rare| rare.ending.take()).unwrap_or(otherwise))
    }

    /// A peer that resets the connection before it sent anything is a probe, not a loss.
    fn lost(&self, error: io::Error) -> CloseReason {
        if self.receiver.awaits() == Awaits::Header { CloseReason::Silent } else { CloseReason::Lost(error) }
    }

    /// It has nothing to do until the next event or deadline.
    fn wait(&mut self, cx: &mut Context<D>) -> Verdict {
        let content_left = match self.receiver.step(true) {
            Step::Read(reading) => reading.content_bytes,
            _ => 0,
        };
        if self.session().is_none()
            && let Some(bytes) = self.trickle.mark(content_left)
        {
            self.stream.set_low_water(bytes);
            cx.story.scene(|| Scene::LowWater { bytes });
        }
        match self.work.status() {
            _ if self.awaits_handshake() => Verdict::Handshake,
            Status::WaitsForRoom => Verdict::Room,
            _ => Verdict::Wait,
        }
    }

    /// Reads what may have come below the low-water mark, which no event reports. Returns the verdict, unless there is
    /// nothing more to do.
    fn serve_below_mark(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Option<Verdict> {
        if !self.trickle.is_marked() {
            return None;
        }
        self.readiness.readable = true;
        match self.serve(cx, budget) {
            Verdict::Wait => None,
            verdict => Some(verdict),
        }
    }

    fn begin_linger(&mut self, cx: &mut Context<D>) -> io::Result<()> {
        self.receiver.half_closed();
        self.pace = Pace::begin(cx.clock.now);
        self.wire().shutdown_write()?;
        cx.story.scene(|| Scene::Parting(Farewell::Linger));
        Ok(())
    }

    /// Whether the client has sent so much after the last word that nothing more of it is read.
    fn lingers_too_long(&self) -> bool {
        self.receiver.is_lingering() && self.pace.received_bytes() > Limits::LINGER_MAX_BYTES
    }

    fn part(&mut self, farewell: Farewell, cx: &mut Context<D>) -> io::Result<Verdict> {
        cx.story.scene(|| Scene::Parting(farewell));
        self.reset_on_close(farewell == Farewell::Reset)?;
        Ok(self.ended(CloseReason::Silent))
    }

    /// Makes any close of the socket a reset, or a clean end again.
    fn reset_on_close(&mut self, resets: bool) -> io::Result<()> {
        if self.resets_on_close != resets {
            self.stream.reset_on_close(resets)?;
            self.resets_on_close = resets;
        }
        Ok(())
    }

    /// The server is shutting down, and all input has been read: ends the conversation if it has nothing to finish.
    fn leaves(&mut self, cx: &mut Context<D>) -> bool {
        if self.has_unsent() || self.work.status() != Status::Idle || self.receiver.is_over() {
            return false;
        }
        let event = self.receiver.end_of_requests(cx.rules);
        self.act_on(event, cx);
        self.receiver.is_over()
    }
}

fn wire<'a, S>(stream: &'a mut S, rare: &'a mut Option<Box<Rare>>) -> Wire<'a, S> {
    Wire { stream, session: rare.as_mut().and_then(|rare| rare.session.as_mut()) }
}

#[cfg(test)]
mod tests {
    use mio::net::TcpStream;

    use super::*;
    use crate::server::story::Whom;
    use crate::store::Directory;

    #[test]
    fn a_connection_that_only_waits_is_small() {
        // Without the stream, which is larger in a debug build.
        let bytes = size_of::<Connection<TcpStream, Directory>>() + size_of::<Whom>() - size_of::<TcpStream>();
        assert!(
            bytes <= 224,
            "{bytes} bytes, and thousands of connections only wait: put what few of them have into a box"
        );
    }
}

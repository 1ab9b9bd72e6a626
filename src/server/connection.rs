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
//!                  +---------------------+-- Room     when fewer files wait for the disk
//!                                        |
//!   a deadline ---------------> expire --+-- Close    and why: to the one place that closes
//! ```
//!
//! A visit reads and follows what comes of it, until it would block or the budget is spent. What is owed is said in one
//! write, as soon as nothing may come that adds to it, and always before the connection waits or gives way; it parts when
//! all is said. While the peer does not take what is said nothing is read, and it is stopped by its own window (RFC 9293,
//! 3.8.6): that is all the flow control there is.
//!
//! **The first error is the last.** A reset is told once, and from then on looks like a clean end; so after an error
//! nothing is read any more, and an end of the stream counts only where no error came before it.
//!
//! Says what it needs in a [`Verdict`] and leaves the rest to the loop; what becomes of files is [`upload`]'s. Knows neither
//! the poll nor the other connections, and reads no clock. Generic over socket and store, so that the simulation runs
//! this very code.

mod upload;

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::time::Duration;

use super::config::Limits;
use super::jobs::Jobs;
use super::pace::{Clock, Lapse, Pace};
use super::story::{CloseReason, Fact, Scene, Story};
use super::trickle::Trickle;
use crate::net::{Pipe, Stream};
use crate::proto::{Awaits, Code, Event, Farewell, Name, Peer, Reading, Receiver, Refusal, Rules, ServerStep as Step};
use crate::reactor::{Budget, Guest, Moment, Readiness};
use crate::store::{Partial, Store};
use upload::{Task, Upload};

/// What the loop lends to a connection while it serves it.
pub struct Context<'a, D> {
    /// Where files go.
    pub store: &'a mut D,
    /// What the disk is busy with, for all connections.
    pub jobs: &'a mut Jobs,
    /// What every conversation goes by.
    pub rules: &'a Rules,
    /// How patient to be.
    pub limits: &'a Limits,
    /// Shared by all: what is read stays in it only until it is written. As long as one read may be.
    pub buffer: &'a mut [u8],
    /// Shared by all, and empty: what nobody has to look at goes through it, where the system has one for us.
    pub pipe: Option<&'a Pipe>,
    /// Whether other connections wait for room to begin a file: it would be unfair to begin one before them.
    pub others_wait: bool,
    /// The turn's clock.
    pub clock: Clock,
    /// Where it tells what happens.
    pub story: Story<'a>,
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
    /// It is about to begin a file while too many wait for the disk: [`Connection::begin_now`] when it is its turn.
    Room,
    /// It is over.
    Close(CloseReason),
}

/// What a connection can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Send what is to be said, or what the stream has to send itself.
    Send,
    /// Read, or process what was read before.
    Read(Reading),
    /// Do a piece of what the request needs of the disk.
    Work,
    /// Close, or shut down our side.
    Part(Farewell),
    /// Nothing.
    Wait,
}

/// One client's connection.
pub struct Connection<S, D: Store> {
    stream: S,
    /// What the edges told and no `WouldBlock` has taken back.
    readiness: Readiness,
    receiver: Receiver,
    pace: Pace,
    upload: Option<Upload<D::Partial>>,
    /// Boxed, as most connections never have one.
    task: Option<Box<Task<D::Content>>>,
    /// A close of the socket is a reset, by whatever it is closed.
    resets_on_close: bool,
    trickle: Trickle,
    /// Boxed, as most connections have none of it.
    rare: Option<Box<Rare>>,
}

/// What few connections have, and for a short time only.
#[derive(Default)]
struct Rare {
    /// Input that was read and cannot be processed before an answer of the disk.
    input: Box<[u8]>,
    /// Why it will be closed, as soon as that is known.
    ending: Option<CloseReason>,
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
    /// may be there already, and trying costs less than another turn.
    pub fn new(stream: S, now: Moment) -> Self {
        Self {
            stream,
            readiness: Readiness { readable: true, writable: true },
            receiver: Receiver::default(),
            pace: Pace::begin(now),
            upload: None,
            task: None,
            resets_on_close: false,
            trickle: Trickle::default(),
            rare: None,
        }
    }

    /// What it can do now. If the visit ends here (`is_last`), what can be sent is sent, even if more may be added to it.
    fn next(&self, is_last: bool) -> Next {
        let can_send = self.readiness.writable;
        let has_input = self.readiness.readable || self.has_kept_input();
        let reads_on = has_input && can_send && self.task.is_none() && !is_last;
        let send = if can_send { Next::Send } else { Next::Wait };
        match self.receiver.step(reads_on) {
            Step::Say(_) => send,
            Step::Part(Farewell::Reset) => Next::Part(Farewell::Reset),
            Step::Part(_) if self.stream_owes() => send,
            Step::Part(farewell) => Next::Part(farewell),
            Step::Read(reading) if reads_on => Next::Read(reading),
            _ if can_send && self.stream_owes() => Next::Send,
            _ if let Some(task) = &self.task => {
                if task.waits_for_others() {
                    Next::Wait
                } else {
                    Next::Work
                }
            }
            Step::Read(reading) if has_input => Next::Read(reading),
            Step::Read(_) | Step::Answer | Step::Settle => Next::Wait,
        }
    }

    /// When to [`Connection::expire`] it, if nothing happens before. May change with every call of the others.
    pub fn deadline(&self, limits: &Limits) -> Option<Moment> {
        self.next_lapse(limits).map(|(at, _)| at)
    }

    /// Goes on until nothing is left to do, or `budget` is spent.
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

    /// Acts on what had run out when the poll was asked, then serves.
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

    /// Reads what may have come without an edge that told of it. Returns the verdict, unless there is nothing more to do.
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

    /// Whether an upload would be cut off if it were closed now.
    pub fn is_uploading(&self) -> bool {
        self.upload.is_some() || self.receiver.owes()
    }

    /// Whether its client has been told everything, and is only given time to hear it.
    pub fn is_lingering(&self) -> bool {
        self.receiver.is_lingering()
    }

    /// Ends it now; what can be told at once is told. While the disk is still busy with a file, nobody knows how that will
    /// end, so the client must not take the end of the connection for an answer: it ends with a reset.
    pub fn abort(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        if let Some(close @ Verdict::Close(_)) = self.serve_below_mark(cx, budget) {
            return close;
        }
        if self.receiver.owes() {
            self.receiver.abandon();
            self.end_upload(true);
            self.end(CloseReason::Undecided);
            // Whether or not all that is known can be sent before.
            let _ = self.reset_on_close(true);
        } else {
            self.refuse(Refusal::shutting_down(), Peer::Silent, cx.rules, &mut cx.story);
        }
        match self.serve(cx, budget) {
            Verdict::Close(reason) => Verdict::Close(reason),
            Verdict::Wait | Verdict::Yield | Verdict::Contend | Verdict::Room => self.ended(CloseReason::Silent),
        }
    }

    /// The name of the upload that is under way.
    pub fn uploading(&self) -> Option<&Name> {
        self.upload.as_ref().map(Upload::name)
    }

    /// Whether the stream has bytes of its own to send. After the last word nobody waits for them.
    fn stream_owes(&self) -> bool {
        !self.receiver.is_lingering() && self.stream.owes()
    }

    /// Whether the client has to read before anything else happens. It need not read what only the stream has to send,
    /// unless that is the last.
    fn has_unsent(&self) -> bool {
        match self.receiver.step(false) {
            Step::Say(_) => true,
            Step::Part(_) => self.stream_owes(),
            Step::Read(_) | Step::Answer | Step::Settle => false,
        }
    }

    fn next_lapse(&self, limits: &Limits) -> Option<(Moment, Lapse)> {
        if let Some(at) = self.task.as_ref().and_then(|task| task.reads_again_at()) {
            return Some((at, Lapse::Disk));
        }
        self.pace.next(self.receiver.awaits(), self.has_unsent(), limits)
    }

    fn advance(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<Verdict> {
        loop {
            cx.story.state(|| self.receiver.awaits());
            match self.next(budget.is_spent()) {
                Next::Send => self.send(cx)?,
                Next::Part(Farewell::Linger) => self.begin_linger(cx)?,
                Next::Part(farewell) => return self.depart(farewell, cx),
                Next::Wait if cx.rules.is_draining && self.leaves(cx) => {}
                Next::Wait => {
                    self.set_low_water(cx);
                    return Ok(if self.waits_for_room() { Verdict::Room } else { Verdict::Wait });
                }
                Next::Read(_) | Next::Work if budget.is_spent() => return Ok(Verdict::Yield),
                Next::Read(reading) => self.take_input(reading, cx, budget)?,
                Next::Work if self.contended().is_some() => return Ok(Verdict::Contend),
                Next::Work => {
                    if let Some(task) = self.task.take() {
                        self.perform(task, cx, budget);
                    }
                }
            }
        }
    }

    /// Sends what is to be said, as far as the client takes it.
    fn send(&mut self, cx: &mut Context<D>) -> io::Result<()> {
        let unsent = match self.receiver.step(false) {
            Step::Say(unsent) => unsent,
            _ => &[],
        };
        let outcome = if unsent.is_empty() { self.stream.flush().map(|()| 0) } else { self.stream.write(unsent) };
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

    /// What is held, or else one read, and all that follows from it.
    fn take_input(&mut self, reading: Reading, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<()> {
        if self.has_kept_input() {
            self.follow_kept(cx);
            return Ok(());
        }
        if self.splice(cx, budget)? {
            return Ok(());
        }
        // Taken for the time of the read: what was read is borrowed from it while the context serves the events.
        let buffer = std::mem::take(&mut cx.buffer);
        let outcome = self.read(reading, buffer, cx, budget);
        cx.buffer = buffer;
        outcome
    }

    /// Moves content from the socket to the file, where nobody has to look at it and there is enough of it for that to pay.
    /// Returns whether there was any; if not, a read has to tell why.
    fn splice(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> io::Result<bool> {
        let is_long = self.upload.as_ref().is_some_and(Upload::is_long);
        let Some(pipe) = cx.pipe.filter(|_| is_long) else { return Ok(false) };
        let spliceable = usize::try_from(self.receiver.spliceable(cx.rules)).unwrap_or(usize::MAX);
        if spliceable == 0 {
            return Ok(false);
        }
        let count = match self.stream.splice(pipe, spliceable.min(cx.buffer.len())) {
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
            self.append(count, cx, |partial| partial.append_from(pipe.reader(), count).inspect_err(|_| pipe.discard()));
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
        match self.stream.read(&mut buffer[..room]) {
            Ok(0) => {
                cx.story.scene(|| Scene::ReadEnd);
                let event = self.receiver.end_of_stream(cx.rules);
                self.act_on(event, cx);
            }
            Ok(count) => {
                cx.story.scene(|| Scene::Read { bytes: count, room });
                budget.spend(count);
                self.pace.received(count, cx.clock.now);
                if reading.content_bytes > 0 {
                    self.trickle.received(count);
                }
                self.follow(&buffer[..count], cx);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                cx.story.scene(|| Scene::ReadWouldBlock);
                self.readiness.readable = false;
                if cx.limits.name_quiet.is_zero() {
                    let event = self.receiver.end_of_burst(cx.rules);
                    self.act_on(event, cx);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Before it waits: what the next edge has to tell of.
    fn set_low_water(&mut self, cx: &mut Context<D>) {
        let content_left = match self.receiver.step(true) {
            Step::Read(reading) => reading.content_bytes,
            _ => 0,
        };
        if let Some(bytes) = self.trickle.mark(content_left) {
            self.stream.set_low_water(bytes);
            cx.story.scene(|| Scene::LowWater { bytes });
        }
    }

    fn has_kept_input(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.input.is_empty())
    }

    /// Processes the input that was kept. There may be none, and the conversation may still have an event.
    fn follow_kept(&mut self, cx: &mut Context<D>) {
        let input = self.rare.as_mut().map_or_else(Box::default, |rare| std::mem::take(&mut rare.input));
        self.follow(&input, cx);
    }

    /// Follows the conversation through `input`, and keeps what cannot be processed yet.
    fn follow(&mut self, mut input: &[u8], cx: &mut Context<D>) {
        let before = self.receiver.awaits();
        while self.task.is_none()
            && let Some(event) = self.receiver.receive(&mut input, cx.rules)
        {
            self.act(event, cx);
        }
        if !input.is_empty() {
            self.rare.get_or_insert_default().input = input.into();
        }
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
        cx.story.scene(|| Scene::Heard(&event));
        match event {
            Event::Request(request) if cx.others_wait || cx.store.is_congested() => {
                self.task = Some(Box::new(Task::Begin(request)));
            }
            Event::Request(request) => self.begin(request, cx),
            Event::Content(bytes) => self.append(bytes.len(), cx, |partial| partial.append(&bytes)),
            Event::End(whole) => self.publish(whole, cx),
            Event::Failed(refusal) => {
                let name = self.end_upload(refusal.code.keeps_partial());
                self.note_refusal(refusal, name, &mut cx.story);
            }
            Event::Refused(refusal, request) => self.note_refusal(refusal, Some(request.name), &mut cx.story),
            Event::NotARequest(refusal, head) if self.receiver.is_over() => {
                self.end(CloseReason::NotARequest(refusal, head));
            }
            Event::NotARequest(refusal, head) => {
                cx.story.tell(&Fact::NotARequest { refusal: &refusal, head: &head });
            }
            // Enough is enough: as if it had ended.
            Event::Discarded(_)
                if self.receiver.is_lingering() && self.pace.received_bytes() > Limits::LINGER_MAX_BYTES =>
            {
                self.receiver.end_of_stream(cx.rules);
            }
            Event::Discarded(_) => {}
            Event::Answered(what) => cx.story.tell(&Fact::Answered { what }),
        }
    }

    /// Ends the upload in progress, if there is one. Whether the connection ends with it, the conversation knows.
    fn refuse(&mut self, refusal: Refusal, peer: Peer, rules: &Rules, story: &mut Story) {
        self.receiver.refuse(&refusal, peer, rules);
        let name = self.end_upload(refusal.code.keeps_partial());
        self.note_refusal(refusal, name, story);
    }

    /// Tells a refusal, at once or, if the connection ends with it, as the reason for that.
    fn note_refusal(&mut self, refusal: Refusal, name: Option<Name>, story: &mut Story) {
        let is_over = self.receiver.is_over();
        if is_over {
            // The upload that was in progress behind a failed one is not followed any more.
            self.end_upload(refusal.code.keeps_partial());
        }
        if is_over && self.rare.as_ref().is_none_or(|rare| rare.ending.is_none()) {
            return self.end(CloseReason::Refused(refusal, name));
        }
        story.tell(&Fact::Refused { refusal: &refusal, name: name.as_ref() });
    }

    /// The first reason is the one that counts: what follows from it is no news.
    fn end(&mut self, reason: CloseReason) {
        self.rare.get_or_insert_default().ending.get_or_insert(reason);
    }

    /// How it ended, or `otherwise` where nothing has been said of that and nothing was done.
    fn ended(&mut self, otherwise: CloseReason) -> Verdict {
        let otherwise = match otherwise {
            CloseReason::Silent if self.receiver.has_been_asked() => CloseReason::Finished,
            otherwise => otherwise,
        };
        Verdict::Close(self.rare.take().and_then(|rare| rare.ending).unwrap_or(otherwise))
    }

    fn lapse(&mut self, lapse: Lapse, cx: &mut Context<D>) -> ControlFlow<()> {
        let awaits = self.receiver.awaits();
        match lapse {
            Lapse::Burst => {
                let event = self.receiver.end_of_burst(cx.rules);
                self.act_on(event, cx);
            }
            Lapse::Grace => self.receiver.grace_elapsed(),
            Lapse::Disk => self.read_again(),
            Lapse::Linger => return Break(()),
            // It was told what it is owed and does not read it, or it is owed nothing.
            Lapse::Idle if self.has_unsent() || awaits == Awaits::NextRequest => return Break(()),
            Lapse::Idle => self.too_slow("nothing came", cx.limits.idle_timeout, Peer::Silent, cx),
            Lapse::Header if awaits == Awaits::Header => {
                self.too_slow("no name came", cx.limits.header_timeout, Peer::Silent, cx);
            }
            Lapse::Header if awaits == Awaits::RestOfName => {
                self.too_slow("the name did not end", cx.limits.header_timeout, Peer::Sending, cx);
            }
            Lapse::Header => self.too_slow("the request did not end", cx.limits.header_timeout, Peer::Sending, cx),
            Lapse::RateWindow => {
                let min_rate = cx.limits.min_rate.unwrap_or(0);
                if self.pace.close_window(min_rate, cx.clock.now) {
                    let words = format!("slower than {min_rate} bytes a second for {:?}", Limits::RATE_WINDOW);
                    self.refuse(Refusal::new(Code::TIMEOUT, words), Peer::Sending, cx.rules, &mut cx.story);
                }
            }
        }
        Continue(())
    }

    fn too_slow(&mut self, what: &str, span: Option<Duration>, peer: Peer, cx: &mut Context<D>) {
        let words = format!("{what} within {:?}", span.unwrap_or_default());
        self.refuse(Refusal::new(Code::TIMEOUT, words), peer, cx.rules, &mut cx.story);
    }

    fn begin_linger(&mut self, cx: &mut Context<D>) -> io::Result<()> {
        self.receiver.half_closed();
        self.pace = Pace::begin(cx.clock.now);
        self.stream.shutdown_write()?;
        cx.story.scene(|| Scene::Parting(Farewell::Linger));
        Ok(())
    }

    fn depart(&mut self, farewell: Farewell, cx: &mut Context<D>) -> io::Result<Verdict> {
        cx.story.scene(|| Scene::Parting(farewell));
        self.reset_on_close(farewell == Farewell::Reset)?;
        Ok(self.ended(CloseReason::Silent))
    }

    /// Makes the close of the socket a reset, or an end again, however it comes to be closed.
    fn reset_on_close(&mut self, resets: bool) -> io::Result<()> {
        if self.resets_on_close != resets {
            self.stream.reset_on_close(resets)?;
            self.resets_on_close = resets;
        }
        Ok(())
    }

    /// The server drains, and all that came has been read: ends the conversation if it has nothing to finish.
    fn leaves(&mut self, cx: &mut Context<D>) -> bool {
        if self.has_unsent() || self.task.is_some() || self.receiver.is_over() {
            return false;
        }
        let event = self.receiver.end_of_requests(cx.rules);
        self.act_on(event, cx);
        self.receiver.is_over()
    }

    /// A peer that goes with a reset before it sent anything is a probe, not a loss.
    fn lost(&self, error: io::Error) -> CloseReason {
        if self.receiver.awaits() == Awaits::Header { CloseReason::Silent } else { CloseReason::Lost(error) }
    }
}

#[cfg(test)]
mod tests {
    use mio::net::TcpStream;

    use super::*;
    use crate::server::story::Whom;
    use crate::store::Directory;

    #[test]
    fn one_that_only_waits_is_small() {
        // Less the stream: a debug build's is larger.
        let bytes = size_of::<Connection<TcpStream, Directory>>() + size_of::<Whom>() - size_of::<TcpStream>();
        assert!(
            bytes <= 232,
            "{bytes} bytes, which thousands that only wait take each: what few of them have goes in a box"
        );
    }
}

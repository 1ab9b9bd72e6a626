//! The sending half of a client: what it sends next, and how its conduct changes that.

use std::io::ErrorKind;

use super::{Client, Context, Flight, Next, Phase, over};
use crate::load::judge::{Ending, Trouble};
use crate::load::plan::{Allowance, Closer, Conduct, Plan};
use crate::net::Stream;
use crate::proto::{Algorithm, Dialect, Promise, Request, Step};
use crate::reactor::{Budget, Moment};

/// The most uploads that wait for their outcome on one connection: enough to keep a server's batches full.
const IN_FLIGHT_MAX: usize = 128;
/// The longest `ok OFFSET` line, or `100 Continue` with its fields, that a client which never reads peeks at, in bytes.
const LEAVE_MAX_BYTES: usize = 512;
/// Ends a conversation of put or ask in order: the server closes first.
const BYE: &[u8] = b"/bye\n";

impl Client {
    /// Does the next step of the conversation.
    pub(super) fn send_on(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        match self.sender.step() {
            Step::Transmit(bytes) => {
                let bytes = bytes.to_owned();
                self.transmit(&bytes, cx)
            }
            Step::Send(_) => self.send_content(cx, budget),
            Step::Idle => self.advance(cx),
            Step::HalfClose => self.half_close(cx),
            Step::Listen => self.await_reply(cx, budget),
            Step::Over => over(),
            Step::Digest(_) | Step::Supply => unreachable!("sizes are known, and nothing is resumed"),
        }
    }

    fn transmit(&mut self, bytes: &[u8], cx: &Context<'_>) -> Next {
        let now = cx.now;
        let Some(flight) = self.flights.back_mut() else { unreachable!("headers and trailers are an upload's") };
        let pause = flight.file.conduct.header_byte_interval();
        if let Some(due) = flight.header_due.filter(|due| now < *due) {
            return Next::Wait(Some(due));
        }
        let piece = if pause.is_some() { &bytes[..1] } else { bytes };
        flight.header_due = pause.map(|pause| now + pause);
        let content_follows = matches!(cx.plan.dialect, Dialect::Put | Dialect::Http) && !flight.has_all_content();
        match self.send(piece, content_follows, now) {
            Ok(length) => {
                self.sender.transmitted(length);
                Next::Again
            }
            Err(next) => next,
        }
    }

    fn send_content(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        let Some(flight) = self.flights.back_mut() else { unreachable!("content is an upload's") };
        let file = flight.file;
        let (goal, sent) = (file.conduct.share_sent(file.size), flight.sent);
        let began = *flight.content_began.get_or_insert(cx.now);
        if sent == goal {
            return self.cut(cx);
        }
        let allowed = match file.conduct.content_allowance(sent, file.size, cx.now.since(began)) {
            Allowance::NotBefore(at) => return Next::Wait(Some(began + at)),
            Allowance::Bytes(bytes) => bytes.min(goal - sent).min(cx.buffer.len() as u64) as usize,
        };
        if !self.readiness.writable {
            return Next::Wait(None);
        }
        let piece = &mut cx.buffer[..allowed];
        cx.plan.workload.pattern(file.number).fill(sent, piece);
        let has_trailer = matches!(cx.plan.dialect, Dialect::Put | Dialect::Ask);
        match self.send(piece, has_trailer, cx.now) {
            Ok(length) => {
                budget.spend(length);
                self.sender.content(&piece[..length]);
                self.sent_bytes += length as u64;
                self.flights.back_mut().into_iter().for_each(|flight| flight.sent += length as u64);
                Next::Again
            }
            Err(next) => next,
        }
    }

    /// Ends an upload after half of its content, as the conduct asks.
    fn cut(&mut self, cx: &Context<'_>) -> Next {
        match self.last_conduct() {
            Conduct::Abort => self.half_close(cx),
            // Wait for the outcomes of earlier uploads first.
            _ if self.flights.len() > 1 => Next::Wait(None),
            _ => Next::End(Ending::Reset),
        }
    }

    fn half_close(&mut self, cx: &Context<'_>) -> Next {
        let ended = self.stream.shutdown_write();
        if let Err(error) = &ended
            && error.kind() == ErrorKind::WouldBlock
        {
            self.readiness.writable = false;
            return Next::Wait(None);
        }
        self.half_closed = true;
        self.finished = Some(cx.now);
        if !cx.plan.dialect.is_framed() && cx.plan.closer == Closer::Client {
            return Next::End(Ending::Unheard);
        }
        self.sender.half_closed();
        if let Err(error) = ended {
            self.fail_send(error.kind());
        }
        Next::Again
    }

    /// Continues after everything that was begun is sent: with the next upload, or with the end.
    fn advance(&mut self, cx: &mut Context<'_>) -> Next {
        match self.last_conduct() {
            Conduct::NeverRead => return self.leave_unheard(cx.now),
            Conduct::HalfClose { .. } => return self.half_close(cx),
            _ => {}
        }
        if !self.sender.may_begin() {
            return Next::Wait(None);
        }
        if self.held.is_none() && self.remaining > 0 && self.flights.len() < IN_FLIGHT_MAX {
            self.held = (cx.next_file)().map(|file| Flight::new(file, cx.now));
            self.remaining = if self.held.is_some() { self.remaining - 1 } else { 0 };
        }
        match &self.held {
            // This upload ends the conversation, so wait for the outcomes of earlier ones first.
            Some(flight) if flight.file.conduct.ends_conversation() && !self.flights.is_empty() => Next::Wait(None),
            Some(_) => self.begin(cx.plan),
            None if self.flights.is_empty() => self.leave(cx),
            None => Next::Wait(None),
        }
    }

    fn begin(&mut self, plan: &Plan) -> Next {
        let Some(mut flight) = self.held.take() else { unreachable!("it was just looked at") };
        flight.is_begun = true;
        if flight.file.conduct.ends_conversation() {
            self.remaining = 0;
        }
        let request = request(&flight, plan);
        // An HTTP server closes first if the request is marked as the last.
        match plan.closer {
            Closer::Server if self.remaining == 0 => self.sender.begin_last(&request),
            _ => self.sender.begin(&request),
        }
        self.flights.push_back(flight);
        Next::Again
    }

    /// Ends the connection after all outcomes are known.
    fn leave(&mut self, cx: &Context<'_>) -> Next {
        match cx.plan.closer {
            Closer::Client => return Next::End(Ending::Unheard),
            Closer::Reset => {
                // If that fails, it becomes an ordinary close.
                let _ = self.stream.reset_on_close(true);
                return Next::End(Ending::Unheard);
            }
            // The server closes when it sees the end.
            Closer::Server if cx.plan.dialect.speaks_http() => return self.half_close(cx),
            Closer::Server => {}
        }
        match self.send(BYE, false, cx.now) {
            Ok(_) => {
                self.phase = Phase::Leaving;
                Next::Again
            }
            Err(next) => next,
        }
    }

    fn await_reply(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Next {
        let (conduct, now) = (self.last_conduct(), cx.now);
        match self.finished {
            // Over TLS nothing can be read and left there.
            None if conduct == Conduct::NeverRead && cx.plan.tls.is_some() => match self.readiness.readable {
                true => self.listen(cx, budget),
                false => Next::Wait(None),
            },
            None if conduct == Conduct::NeverRead => self.peek(cx),
            Some(_) if conduct == Conduct::NeverRead => self.leave_unheard(now),
            Some(at) if now < at + conduct.deaf_for() => Next::Wait(Some(at + conduct.deaf_for())),
            _ => Next::Wait(None),
        }
    }

    /// Closes some time after everything was sent, without reading.
    fn leave_unheard(&mut self, now: Moment) -> Next {
        let leaves = *self.finished.get_or_insert(now) + Conduct::NEVER_READ_STAY;
        if now >= leaves { Next::End(Ending::Unheard) } else { Next::Wait(Some(leaves)) }
    }

    /// Peeks at the `ok` line, and leaves it in the receive buffer.
    fn peek(&mut self, cx: &mut Context<'_>) -> Next {
        if !std::mem::take(&mut self.readiness.readable) {
            return Next::Wait(None);
        }
        let mut said = [0; LEAVE_MAX_BYTES];
        let is_whole = |said: &[u8]| match cx.plan.dialect {
            Dialect::Classic => said.len() > 1,
            Dialect::HttpExpect => said.ends_with(b"\r\n\r\n"),
            _ => said.ends_with(b"\n"),
        };
        match self.stream.socket().peek(&mut said) {
            Ok(0) => self.sender.end_of_stream(),
            Ok(length) if is_whole(&said[..length]) => self.sender.receive(&said[..length]),
            // An event will report the rest.
            Ok(_) => return Next::Wait(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait(None),
            Err(error) => return Next::End(Ending::Failed(Trouble::Network(error.kind()))),
        }
        self.settle(cx);
        Next::Again
    }

    /// Sends some of `bytes`. Returns how many, or what to do instead. `more` tells the kernel that more follows at once,
    /// so that it does not send a short end as a segment of its own: that would cost the server three reads for
    /// each small file.
    fn send(&mut self, bytes: &[u8], more: bool, now: Moment) -> Result<usize, Next> {
        let is_steady = matches!(self.last_conduct(), Conduct::Honest | Conduct::DupName);
        match self.stream.send(bytes, more && is_steady) {
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

    /// Stops sending, and reads the replies that have arrived.
    pub(super) fn fail_send(&mut self, error: ErrorKind) {
        self.send_error = Some(error);
        self.readiness.readable = true;
    }
}

/// The request of an upload. In a dialect whose content ends with the stream, its size is the number of bytes that will be
/// sent.
fn request(flight: &Flight, plan: &Plan) -> Request {
    let file = flight.file;
    let request = Request::until_end_of_stream(plan.dialect, plan.workload.name(file.named));
    match file.conduct {
        _ if plan.dialect.is_framed() => {
            let digest = Some(Promise::Trailer(Algorithm::Crc32c));
            Request { size: Some(file.size), digest, ..request }
        }
        Conduct::Abort => Request { size: Some(file.conduct.share_sent(file.size)), ..request },
        _ => Request { size: Some(file.size), ..request },
    }
}

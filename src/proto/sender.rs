//! The client's half of a conversation: what to send when, and how each upload ended.
//!
//! ```text
//!            begin()                 ok                  its last byte
//!     Idle ----------> (Listen) ----------> Send ----------------------+
//!       ^              classic, ask         Digest, Supply             |
//!       +------------------------------------- put, ask ---------------+
//!                                                                      |
//!       last word of the server --------> HalfClose <-- classic, line -+
//!                                             |
//!                                           Listen --> Over
//! ```
//!
//! The driver does what [`Sender::step`] asks, passes in the server's bytes when they arrive ([`Sender::receive`]), and
//! takes the outcomes ([`Sender::outcome`]): one for each request, in order. It may begin a request before the earlier ones
//! have their outcomes, except in HTTP. It may block or be an event loop: this module knows no socket, no file and no
//! clock, and any split of the same bytes gives the same outcomes.
//!
//! HTTP has the same steps. `sender/http.rs` reads its answers.

mod http;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::dialect::{Answers, Ok as Leave, Place, Site, is_asked, is_chunked};
use super::reply::REPLY_MAX_BYTES;
use super::request::Promise;
use super::{Algorithm, Dialect, Digest, Hasher, Name, Receipt, Refusal, Reply, Request, Secret};

/// The client's half of one conversation.
///
/// A sender of the network tutorials, step by step; a driver does the same in a loop:
///
/// ```
/// use intake::proto::{Dialect, Name, NamePolicy, Request, Sender, Step, Stored};
///
/// let name = Name::parse(b"notes.txt", NamePolicy::default()).unwrap();
/// let mut conversation = Sender::new();
/// let request = Request::until_end_of_stream(Dialect::Classic, name);
/// conversation.begin(&Request { size: Some(3), ..request });
/// assert_eq!(conversation.step(), Step::Transmit(b"notes.txt"));
/// conversation.transmitted(9);
/// assert_eq!(conversation.step(), Step::Listen, "or name and content would run together");
/// conversation.receive(b"ok");
/// assert_eq!(conversation.step(), Step::Send(0..3));
/// conversation.content(b"one");
/// assert_eq!(conversation.step(), Step::HalfClose);
/// conversation.half_closed();
/// conversation.end_of_stream();
/// assert_eq!(conversation.outcome(), Some(Ok(Stored::Closed)));
/// ```
#[derive(Debug, Default)]
pub struct Sender {
    phase: Phase,
    /// Bytes to send that are not content: request lines, the sizes of chunks, trailers.
    unsent: Vec<u8>,
    /// The uploads without an outcome, the oldest first. Only the last one can have content to send.
    uploads: VecDeque<Upload>,
    /// The received bytes that are not yet a reply.
    heard: Vec<u8>,
    /// The server has sent its last reply: an upload without a reply at the end of the stream is not served.
    last_word_heard: bool,
    outcomes: VecDeque<Outcome>,
    /// The site of the requests, in HTTP.
    site: Option<Arc<Site>>,
    /// The token that each request shows.
    token: Option<Secret>,
    answers: Answers,
    /// The server was told that no other request follows, so it closes after its answer.
    is_last_begun: bool,
}

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Send these bytes, in one write if they are a classic name, and call [`Sender::transmitted`].
    Transmit(&'a [u8]),
    /// Send content from the start of this range, and pass the same bytes to [`Sender::content`].
    Send(Range<u64>),
    /// The server has this range of the content. Pass it to [`Sender::content`], but do not send it.
    Digest(Range<u64>),
    /// Report how much more content is available: [`Sender::supply`].
    Supply,
    /// Nothing is left to send: [`Sender::begin`] another upload if [allowed](Sender::may_begin), or wait for the server.
    Idle,
    /// Shut down the write side of the stream, and call [`Sender::half_closed`].
    HalfClose,
    /// Send nothing, and wait for the server.
    Listen,
    /// The conversation has ended.
    Over,
}

/// How an upload ended.
pub type Outcome = Result<Stored, Failure>;

/// How the server confirmed that the file is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// By a clean close after the end of the content: the classic dialect has no receipt.
    Closed,
    /// By a receipt for the sent content.
    Receipt(Receipt),
    /// By the status of an HTTP answer, from a server that gives no receipts. It has confirmed neither the size nor the
    /// digest.
    Answered(Answered),
}

/// The knowledge about a file without a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status of the answer: 200, 201 or 204.
    pub status: u16,
    /// The content's size in bytes, as it was sent.
    pub size: u64,
    /// The content's digest, as it was sent, if one was computed.
    pub digest: Option<Digest>,
    /// The name in the server's answer, or else the requested one.
    pub name: Name,
}

/// Why an upload failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server refused the upload.
    Refused(Refusal),
    /// The answer is not of this protocol, or not possible at this point.
    Foreign,
    /// The server knows only the classic dialect, and the request was in another.
    OnlyClassic,
    /// The stream ended before `ok`: nothing is stored.
    Unanswered,
    /// The stream ended while content was still to be sent: nothing is stored.
    ClosedEarly,
    /// The connection was reset: nothing is stored.
    Reset,
    /// The server ended the conversation over an earlier upload: nothing is stored.
    Unserved,
    /// The size or the digest in the receipt differs from the content.
    WrongReceipt(Receipt),
    /// Everything was sent, and the connection ended without the receipt: the file may be stored or not.
    Unknown,
}

/// The state of the whole conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Nothing more will be sent, so the write side must be shut down.
    Closing,
    HalfClosed,
    Over,
}

/// An upload without an outcome.
#[derive(Debug)]
struct Upload {
    dialect: Dialect,
    /// The declared size in bytes.
    size: Option<u64>,
    /// Whether the server has said `ok`.
    ok_heard: bool,
    /// How much of the content is sent, or need not be sent, in bytes.
    position: u64,
    /// Whether the server may have some of it.
    may_be_held: bool,
    /// How much of the content the server has from an earlier connection, in bytes.
    held: u64,
    /// The end of the content, as far as it is known, in bytes.
    goal: u64,
    hasher: Option<Hasher>,
    /// The digest: known from the start, or once the content is whole.
    digest: Option<Digest>,
    is_whole: bool,
    /// The name that was asked for, in HTTP.
    name: Option<Name>,
    /// The content is sent in HTTP's chunks.
    is_chunked: bool,
    /// The content is one chunk, because its size is known and a digest follows.
    is_one_chunk: bool,
}

impl Sender {
    /// The state before the first request of a conversation that is not HTTP.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state before the first request of a conversation in HTTP, with `site`.
    pub fn over_http(site: Arc<Site>) -> Self {
        Self { site: Some(site), ..Self::default() }
    }

    /// The same, with requests that show `token`. Not in the classic and line dialects, which cannot.
    pub fn showing(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }

    /// Whether another upload can begin. HTTP's pipelining is not used, because few servers support it.
    pub fn may_begin(&self) -> bool {
        let is_turn = self.site.is_none() || self.uploads.is_empty();
        self.phase == Phase::Open && self.current().is_none() && is_turn && !self.is_last_begun
    }

    /// Begins an upload. In the classic and line dialects a conversation is one upload, and the request does not carry the
    /// `size`; if it is set here, the content ends there.
    ///
    /// # Panics
    /// Unless it is [allowed](Sender::may_begin), and if only one of the conversation and the request is HTTP.
    pub fn begin(&mut self, request: &Request) {
        self.begin_one(request, false);
    }

    /// As [`Sender::begin`], for the last upload of the conversation. An HTTP server is told, and closes after its answer;
    /// in the other dialects there is no difference.
    ///
    /// # Panics
    /// As [`Sender::begin`].
    pub fn begin_last(&mut self, request: &Request) {
        self.begin_one(request, true);
    }

    fn begin_one(&mut self, request: &Request, is_last: bool) {
        let is_http = request.dialect.speaks_http();
        assert!(self.may_begin(), "an upload is begun only when none is being sent");
        assert_eq!(is_http, self.site.is_some(), "a conversation is in HTTP or not");
        let place = Place { site: self.site.as_deref(), token: self.token.as_ref() };
        request.dialect.spell_request(request, place, is_last, &mut self.unsent);
        self.is_last_begun = is_last && is_http;
        self.uploads.push_back(Upload::new(request));
        self.begin_content();
    }

    /// Starts the content, unless it must wait for the server.
    fn begin_content(&mut self) {
        if let Some(Upload { dialect, goal: goal @ 1.., is_one_chunk: true, .. }) =
            self.uploads.back().filter(|upload| !upload.waits_for_ok())
        {
            dialect.spell_chunk(*goal, true, &mut self.unsent);
        }
        self.end_whole();
    }

    /// What to do next. Any other call may change it.
    pub fn step(&self) -> Step<'_> {
        match self.phase {
            Phase::Over => Step::Over,
            _ if !self.unsent.is_empty() => Step::Transmit(&self.unsent),
            Phase::Closing => Step::HalfClose,
            Phase::HalfClosed => Step::Listen,
            Phase::Open => self.current().map_or(Step::Idle, Upload::step),
        }
    }

    /// Notes that the first `sent` bytes of [`Step::Transmit`] are sent.
    pub fn transmitted(&mut self, sent: usize) {
        self.unsent.drain(..sent);
    }

    /// Takes bytes from the start of [`Step::Send`] or [`Step::Digest`], which were sent or read.
    pub fn content(&mut self, bytes: &[u8]) {
        let Some(upload) = self.current_mut() else { return };
        upload.position += bytes.len() as u64;
        if let Some(hasher) = &mut upload.hasher {
            hasher.update(bytes);
        }
        self.end_whole();
    }

    /// Answers [`Step::Supply`]: `size` more bytes are available; 0 is the end of the content.
    pub fn supply(&mut self, size: u64) {
        let Some(upload) = self.current_mut() else { return };
        upload.goal += size;
        let (dialect, is_first) = (upload.dialect, upload.goal == size);
        if size == 0 {
            upload.size = Some(upload.goal);
        }
        dialect.spell_chunk(size, is_first, &mut self.unsent);
        self.end_whole();
    }

    /// Answers [`Step::HalfClose`].
    pub fn half_closed(&mut self) {
        self.phase = Phase::HalfClosed;
    }

    /// Takes `bytes` from the server.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.site.is_some() {
            return self.hear_http(bytes);
        }
        for &byte in bytes {
            if self.phase == Phase::Over {
                return;
            }
            self.heard.push(byte);
            match self.uploads.front() {
                Some(Upload { dialect: Dialect::Classic, .. }) => self.hear_classic(),
                _ => self.hear_line(),
            }
        }
    }

    /// Whether part of a reply has arrived. Servers write a reply in one piece, so the rest should follow at once.
    pub fn is_mid_reply(&self) -> bool {
        !self.heard.is_empty()
    }

    /// Whether the content waits for HTTP's `100 Continue`, which not every server sends. After a while it is sent without it
    /// (RFC 9110, 10.1.1).
    pub fn awaits_continue(&self) -> bool {
        self.unsent.is_empty() && self.site.is_some() && self.current().is_some_and(Upload::waits_for_ok)
    }

    /// Notes that nothing arrived for a while, after a reply has begun or while [`Sender::awaits_continue`] is true.
    pub fn end_of_burst(&mut self) {
        self.recognise_classic();
        if self.awaits_continue() {
            self.hear_continue();
        }
    }

    /// Notes that the server's side of the stream has ended.
    pub fn end_of_stream(&mut self) {
        self.end_at_end_of_stream(true);
    }

    /// Notes that the stream has ended, but that the server has not announced it, as it must over TLS: it was killed, or
    /// somebody in between has cut the connection. What was heard counts, the end itself proves nothing.
    pub fn cut_off(&mut self) {
        self.end_at_end_of_stream(false);
    }

    fn end_at_end_of_stream(&mut self, is_proven: bool) {
        self.recognise_classic();
        self.end_answers(is_proven);
        let after_last_word = self.last_word_heard;
        self.end(|upload| match upload.end_of_stream() {
            Err(_) if after_last_word => Err(Failure::Unserved),
            Ok(_) if !is_proven => Err(Failure::Unknown),
            outcome => outcome,
        });
    }

    /// Notes that the connection was reset, or cannot be used any more for another reason.
    pub fn reset(&mut self) {
        self.recognise_classic();
        self.end_answers(false);
        self.end(Upload::reset);
    }

    /// Takes the outcome of the oldest upload, if it is known.
    pub fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// The upload whose content is sent now.
    fn current(&self) -> Option<&Upload> {
        self.uploads.back().filter(|upload| self.phase == Phase::Open && !upload.is_whole)
    }

    fn current_mut(&mut self) -> Option<&mut Upload> {
        self.uploads.back_mut().filter(|upload| self.phase == Phase::Open && !upload.is_whole)
    }

    /// Ends the content if its last byte is sent.
    fn end_whole(&mut self) {
        let Some(upload) = self.current_mut().filter(|upload| upload.is_at_its_end()) else { return };
        upload.is_whole = true;
        let digest = upload.hasher.take().map(|hasher| *upload.digest.insert(hasher.finish()));
        let &mut Upload { dialect, goal, is_chunked, is_one_chunk, .. } = upload;
        if is_one_chunk {
            dialect.spell_chunk(0, goal == 0, &mut self.unsent);
        }
        dialect.spell_end(is_chunked, digest, &mut self.unsent);
        if !dialect.is_framed() {
            self.phase = Phase::Closing;
        }
    }

    /// Reads a classic answer: `ok` without an LF, and nothing after it, or a refusal as a line.
    fn hear_classic(&mut self) {
        let upload = self.uploads.front_mut().expect("a classic upload is being sent");
        match self.heard.as_slice() {
            _ if upload.ok_heard => self.end_with(Failure::Foreign),
            b"ok" => {
                upload.ok_heard = true;
                self.heard.clear();
                self.end_whole();
            }
            b"o" | b"n" | b"no" => {}
            [b'n', b'o', b' ', ..] => self.hear_line(),
            _ => self.end_with(Failure::Foreign),
        }
    }

    fn hear_line(&mut self) {
        let Some(line) = self.heard.strip_suffix(b"\n") else {
            let is_foreign = self.heard.len() >= REPLY_MAX_BYTES;
            let awaits_ok = self.uploads.front().is_some_and(|upload| upload.dialect != Dialect::Put);
            if is_foreign {
                self.end_with(Failure::Foreign);
            } else if !awaits_ok {
                self.recognise_classic();
            }
            return;
        };
        let reply = Reply::parse(line);
        let is_bare_ok = self.has_heard_bare_ok();
        self.heard.clear();
        match reply {
            _ if is_bare_ok => self.end_with(Failure::OnlyClassic),
            Ok(Reply::Ok(offset)) => self.hear_ok(offset),
            Ok(Reply::No(refusal)) => self.hear_no(refusal),
            Ok(Reply::Done(receipt)) => self.hear_done(receipt),
            Err(_) => self.end_with(Failure::Foreign),
        }
    }

    fn recognise_classic(&mut self) {
        if self.has_heard_bare_ok() {
            self.end_with(Failure::OnlyClassic);
        }
    }

    /// Whether the server sent `ok` without an offset, which only a classic server does.
    fn has_heard_bare_ok(&self) -> bool {
        let is_framed = self.uploads.front().is_some_and(|upload| upload.dialect.is_framed());
        is_framed && self.heard.trim_ascii_end() == b"ok"
    }

    fn hear_ok(&mut self, offset: u64) {
        match self.uploads.front_mut() {
            Some(upload) if upload.may_resume_at(offset) => {
                upload.resume_at(offset);
                self.begin_content();
            }
            _ => self.end_with(Failure::Foreign),
        }
    }

    fn hear_no(&mut self, refusal: Refusal) {
        let Some(upload) = self.uploads.pop_front() else { return self.hear_last_word() };
        let in_step = refusal.code.keeps_step() && (upload.is_whole || upload.waits_for_ok());
        self.outcomes.push_back(Err(Failure::Refused(refusal)));
        match upload.dialect.is_framed() {
            true if in_step => {}
            true => self.hear_last_word(),
            false => self.phase = Phase::Over,
        }
    }

    /// Stops sending after the server's last reply: it discards further content, and closes when it sees the end.
    fn hear_last_word(&mut self) {
        self.last_word_heard = true;
        self.unsent.clear();
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
    }

    fn hear_done(&mut self, receipt: Receipt) {
        match self.uploads.front() {
            Some(upload) if upload.may_be_done() => {}
            _ => return self.end_with(Failure::Foreign),
        }
        let upload = self.uploads.pop_front().expect("the first upload was just seen");
        self.outcomes.push_back(upload.check(receipt));
        if !upload.dialect.is_framed() {
            self.phase = Phase::Over;
        }
    }

    fn end_with(&mut self, failure: Failure) {
        self.end(|_| Err(failure.clone()));
    }

    /// Ends the conversation. Each upload without an outcome gets this one.
    fn end(&mut self, outcome: impl Fn(&Upload) -> Outcome) {
        self.outcomes.extend(self.uploads.drain(..).map(|upload| outcome(&upload)));
        self.phase = Phase::Over;
    }
}

impl Upload {
    fn new(request: &Request) -> Self {
        let is_http = request.dialect.speaks_http();
        let is_spelled = |promise: &Promise| !is_http || promise.algorithm() == Algorithm::Sha256;
        let promise = request.digest.filter(|promise| request.dialect.is_framed() && is_spelled(promise));
        let is_chunked = is_http && is_chunked(request);
        let (hasher, digest) = match promise {
            Some(Promise::Trailer(algorithm)) => (Some(Hasher::new(algorithm)), None),
            Some(Promise::Known(digest)) => (None, Some(digest)),
            None => (None, None),
        };
        Self {
            dialect: if is_http && !is_asked(request) { Dialect::Http } else { request.dialect },
            size: request.size,
            ok_heard: false,
            position: 0,
            may_be_held: request.resume.is_some(),
            held: 0,
            goal: request.size.unwrap_or(0),
            hasher,
            digest,
            is_whole: false,
            name: is_http.then(|| request.name.clone()),
            is_chunked,
            is_one_chunk: is_chunked && request.size.is_some(),
        }
    }

    fn step(&self) -> Step<'static> {
        if self.waits_for_ok() {
            Step::Listen
        } else if self.position < self.held {
            Step::Digest(self.position..self.held)
        } else if self.position < self.goal {
            Step::Send(self.position..self.goal)
        } else {
            Step::Supply
        }
    }

    fn waits_for_ok(&self) -> bool {
        self.dialect.waits_for_ok() && !self.ok_heard
    }

    fn is_at_its_end(&self) -> bool {
        !self.waits_for_ok() && self.size == Some(self.position)
    }

    fn may_resume_at(&self, offset: u64) -> bool {
        let is_possible = offset == 0 || (self.may_be_held && offset <= self.goal);
        is_possible && !self.ok_heard && self.dialect.manners().ok != Leave::Never
    }

    /// Continues at `offset`. The content before it must still be read if its digest is not known yet.
    fn resume_at(&mut self, offset: u64) {
        self.ok_heard = true;
        if self.dialect == Dialect::Ask {
            self.held = offset;
            self.position = if self.hasher.is_some() { 0 } else { offset };
        }
    }

    /// Whether a receipt is possible now. If the digest is known from the start, the file may be stored already.
    fn may_be_done(&self) -> bool {
        self.is_whole || (self.waits_for_ok() && self.digest.is_some())
    }

    fn check(&self, receipt: Receipt) -> Outcome {
        let sent = if self.is_whole { Some(self.position) } else { self.size };
        if Some(receipt.size) == sent && (self.digest.is_none() || receipt.digest == self.digest) {
            Ok(Stored::Receipt(receipt))
        } else {
            Err(Failure::WrongReceipt(receipt))
        }
    }

    fn end_of_stream(&self) -> Outcome {
        match self.dialect {
            _ if self.waits_for_ok() => Err(Failure::Unanswered),
            _ if !self.is_whole => Err(Failure::ClosedEarly),
            Dialect::Classic => Ok(Stored::Closed),
            _ => Err(Failure::Unknown),
        }
    }

    fn reset(&self) -> Outcome {
        let is_unknown = self.is_whole && self.dialect != Dialect::Classic;
        Err(if is_unknown { Failure::Unknown } else { Failure::Reset })
    }
}

impl Failure {
    /// Whether the file may be stored in spite of the failure.
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Unknown | Self::WrongReceipt(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            // The words come from the peer, so quote and escape them: they must not control a terminal.
            Self::Refused(Refusal { code, retry_seconds, words }) => {
                write!(f, "the server refuses it ({}): {words:?}", code.0)?;
                return retry_seconds.map_or(Ok(()), |seconds| write!(f, "; try again in {seconds} s"));
            }
            Self::WrongReceipt(Receipt { size, digest, stored_name }) => {
                write!(f, "the server's receipt is not for what was sent: {size} bytes ")?;
                digest.map_or(Ok(()), |digest| write!(f, "of {digest} "))?;
                return write!(f, "as {stored_name:?}; look at the stored file");
            }
            Self::Foreign => "the answer is not one of this protocol; is it the right server and port?",
            Self::OnlyClassic => "the server speaks only the classic dialect, and the request was in another",
            Self::Unanswered => "the server closed the connection without an answer; nothing is stored",
            Self::ClosedEarly => "the server closed the connection before all was sent; the file is not stored",
            Self::Reset => "the server reset the connection; the file is not stored",
            Self::Unserved => "the server ended the conversation before it came to this file; it is not stored",
            Self::Unknown => "all was sent, and the connection ended without a receipt; the file may be stored or not",
        })
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{Algorithm, Code, Name, NamePolicy, ResumeId};

    pub(super) const CONTENT: &[u8] = b"twelve bytes";
    pub(super) const SIZE: u64 = CONTENT.len() as u64;
    /// The crc32c of [`CONTENT`], computed by another library.
    const DIGEST: Digest = Digest::Crc32c(0xf22a_f478);

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) enum End {
        Stream,
        Reset,
        /// An end that the server has not announced.
        Cut,
        /// The server keeps the connection open.
        Open,
    }

    fn request(dialect: Dialect) -> Request {
        let name = Name::parse(b"a.txt", NamePolicy::default()).unwrap();
        Request { size: Some(SIZE), ..Request::until_end_of_stream(dialect, name) }
    }

    fn trailer(dialect: Dialect) -> Request {
        Request { digest: Some(Promise::Trailer(Algorithm::Crc32c)), ..request(dialect) }
    }

    fn known(dialect: Dialect) -> Request {
        Request { digest: Some(Promise::Known(DIGEST)), ..request(dialect) }
    }

    fn resumed(request: Request) -> Request {
        Request { resume: ResumeId::parse("id"), ..request }
    }

    fn begun(request: &Request) -> Sender {
        let mut sender = Sender::new();
        sender.begin(request);
        sender
    }

    /// Takes all steps that need no server, `piece` bytes at a time. Returns the bytes that were sent.
    pub(super) fn run(sender: &mut Sender, piece: u64) -> String {
        let mut wire = Vec::new();
        let mut supplied = 0;
        loop {
            let (range, is_sent) = match sender.step() {
                Step::Transmit(bytes) => {
                    let length = bytes.len().min(piece as usize);
                    wire.extend_from_slice(&bytes[..length]);
                    sender.transmitted(length);
                    continue;
                }
                Step::Supply => {
                    let size = piece.min(SIZE - supplied);
                    supplied += size;
                    sender.supply(size);
                    continue;
                }
                Step::HalfClose => {
                    wire.extend_from_slice(b"|");
                    sender.half_closed();
                    continue;
                }
                Step::Send(range) => (range, true),
                Step::Digest(range) => (range, false),
                Step::Idle | Step::Listen | Step::Over => break,
            };
            let bytes = &CONTENT[range.start as usize..range.end.min(range.start + piece) as usize];
            sender.content(bytes);
            if is_sent {
                wire.extend_from_slice(bytes);
            }
        }
        String::from_utf8(wire).unwrap()
    }

    /// One conversation: the requests, the server's replies before and after the content, and the end.
    struct Script {
        requests: Vec<Request>,
        before: &'static str,
        after: &'static str,
        end: End,
        outcomes: Vec<Outcome>,
    }

    /// Plays `script`, with the server's bytes cut at `cuts`. Returns the outcomes.
    fn play(script: &Script, cuts: &[usize]) -> Vec<Outcome> {
        let mut sender = Sender::new();
        for request in &script.requests[..script.requests.len() - 1] {
            sender.begin(request);
            run(&mut sender, 5);
        }
        sender.begin(script.requests.last().unwrap());
        hear(&mut sender, [script.before, script.after], script.end, cuts);
        if script.end != End::Open {
            assert_eq!(sender.step(), Step::Over);
        }
        std::iter::from_fn(|| sender.outcome()).collect()
    }

    /// The server's bytes before and after the content, cut at `cuts`, and the end of the stream.
    pub(super) fn hear(sender: &mut Sender, [before, after]: [&str; 2], end: End, cuts: &[usize]) {
        pieces(before, cuts).for_each(|piece| sender.receive(piece));
        run(sender, 5);
        for piece in pieces(after, cuts) {
            sender.receive(piece);
            run(sender, 5);
        }
        match end {
            End::Stream => sender.end_of_stream(),
            End::Reset => sender.reset(),
            End::Cut => sender.cut_off(),
            End::Open => {}
        }
    }

    fn pieces<'a>(text: &'a str, cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        ends.push(text.len());
        ends.sort_unstable();
        ends.into_iter().scan(0, |start, end| Some(&text.as_bytes()[std::mem::replace(start, end)..end]))
    }

    fn stored(digest: Option<Digest>, stored_name: &str) -> Outcome {
        Ok(Stored::Receipt(Receipt { size: SIZE, digest, stored_name: stored_name.into() }))
    }

    fn refused(code: u16, words: &'static str) -> Outcome {
        Err(Failure::Refused(Refusal::new(Code(code), words)))
    }

    /// One upload in the classic or line dialect.
    fn unframed_scripts() -> Vec<Script> {
        use Dialect::{Classic, Line};
        let busy = Refusal { retry_seconds: Some(5), ..Refusal::new(Code::SHUTTING_DOWN, "busy") };
        let wrong = Receipt { size: 11, digest: None, stored_name: "a".into() };
        let one = |dialect, before, after, end, outcome: Option<Outcome>| Script {
            requests: vec![request(dialect)],
            before,
            after,
            end,
            outcomes: outcome.into_iter().collect(),
        };
        let failed = |dialect, before, after, end, failure| one(dialect, before, after, end, Some(Err(failure)));
        vec![
            one(Classic, "ok", "", End::Stream, Some(Ok(Stored::Closed))),
            one(Classic, "ok", "", End::Open, None),
            one(Classic, "no 409 taken\n", "", End::Stream, Some(refused(409, "taken"))),
            one(Classic, "no 409 taken\r\nand more", "", End::Reset, Some(refused(409, "taken"))),
            failed(Classic, "no 503 retry=5 busy\n", "", End::Open, Failure::Refused(busy)),
            failed(Classic, "ok", "", End::Reset, Failure::Reset),
            failed(Classic, "ok", "", End::Cut, Failure::Unknown),
            failed(Classic, "", "", End::Cut, Failure::Unanswered),
            failed(Classic, "ok\n", "", End::Stream, Failure::Foreign),
            failed(Classic, "ok 0", "", End::Stream, Failure::Foreign),
            failed(Classic, "ok", "ok", End::Stream, Failure::Foreign),
            failed(Classic, "OK", "", End::Open, Failure::Foreign),
            failed(Classic, "nothing", "", End::Open, Failure::Foreign),
            failed(Classic, "HTTP/1.1 400 Bad Request\r\n", "", End::Open, Failure::Foreign),
            failed(Classic, "done 12 - a.txt\n", "", End::Stream, Failure::Foreign),
            failed(Classic, "no way\n", "", End::Stream, Failure::Foreign),
            failed(Classic, "no 409 tak", "", End::Stream, Failure::Unanswered),
            failed(Classic, "o", "", End::Stream, Failure::Unanswered),
            failed(Classic, "", "", End::Stream, Failure::Unanswered),
            failed(Classic, "", "", End::Reset, Failure::Reset),
            one(Line, "", "done 12 - a.txt.1\n", End::Open, Some(stored(None, "a.txt.1"))),
            one(Line, "ok\n", "done 12 - a.txt.1\n", End::Stream, Some(stored(None, "a.txt.1"))),
            one(Line, "", "ok\ndone 12 - a.txt.1\r\nx", End::Reset, Some(stored(None, "a.txt.1"))),
            one(Line, "", "done 12 - a.txt.1\n", End::Cut, Some(stored(None, "a.txt.1"))),
            failed(Line, "", "done 12 - a.txt.", End::Cut, Failure::Unknown),
            one(Line, "no 507 full\n", "", End::Open, Some(refused(507, "full"))),
            one(Line, "ok\n", "no 507 full\n", End::Stream, Some(refused(507, "full"))),
            failed(Line, "", "done 11 - a\n", End::Stream, Failure::WrongReceipt(wrong)),
            failed(Line, "done 12 - a\n", "", End::Stream, Failure::Foreign),
            failed(Line, "ok\nok\n", "", End::Open, Failure::Foreign),
            failed(Line, "ok 7\n", "", End::Open, Failure::Foreign),
            failed(Line, "", "done 12 - a.txt", End::Stream, Failure::Unknown),
            failed(Line, "ok", "", End::Stream, Failure::Unknown),
            failed(Line, "", "", End::Stream, Failure::Unknown),
            failed(Line, "ok\n", "", End::Reset, Failure::Unknown),
            failed(Line, "HTTP/1.1 400 Bad Request\r\n", "", End::Open, Failure::Foreign),
            failed(Line, "\u{0}\u{1}\n", "", End::Open, Failure::Foreign),
        ]
    }

    /// Uploads one after the other on one connection.
    fn framed_scripts() -> Vec<Script> {
        use Dialect::{Ask, Put};
        let put = || vec![request(Put)];
        let three = || vec![trailer(Put), trailer(Put), trailer(Put)];
        let script = |requests, after, end, outcomes| Script { requests, before: "", after, end, outcomes };
        let one = |request, after, end, outcome| script(vec![request], after, end, vec![outcome]);
        let ask = |request, before, after, end, outcome| Script { before, ..one(request, after, end, outcome) };
        let a = || stored(Some(DIGEST), "a");
        vec![
            one(request(Put), "done 12 - a\n", End::Open, stored(None, "a")),
            one(trailer(Put), "done 12 crc32c:f22af478 a\n", End::Stream, a()),
            one(known(Put), "done 12 crc32c:f22af478 a\r\n", End::Open, a()),
            one(
                trailer(Put),
                "done 12 - a\n",
                End::Open,
                Err(Failure::WrongReceipt(Receipt { size: SIZE, digest: None, stored_name: "a".into() })),
            ),
            one(trailer(Put), "no 422 damaged\n", End::Stream, refused(422, "damaged")),
            one(request(Put), "ok", End::Open, Err(Failure::OnlyClassic)),
            one(request(Put), "ok 0\n", End::Open, Err(Failure::OnlyClassic)),
            one(request(Put), "OK\n", End::Open, Err(Failure::Foreign)),
            one(request(Put), "", End::Stream, Err(Failure::Unknown)),
            one(request(Put), "done 12 - a", End::Reset, Err(Failure::Unknown)),
            script(
                three(),
                "done 12 crc32c:f22af478 a\nno 409 taken\ndone 12 crc32c:f22af478 a.1\n",
                End::Open,
                vec![a(), refused(409, "taken"), stored(Some(DIGEST), "a.1")],
            ),
            script(
                three(),
                "done 12 crc32c:f22af478 a\n",
                End::Stream,
                vec![a(), Err(Failure::Unknown), Err(Failure::Unknown)],
            ),
            script(three(), "done 12 crc32c:f22af478 a\n", End::Open, vec![a()]),
            // Files that were on their way to the disk before the last reply still get receipts.
            script(
                three(),
                "no 500 the disk failed\ndone 12 crc32c:f22af478 a\n",
                End::Stream,
                vec![refused(500, "the disk failed"), a(), Err(Failure::Unserved)],
            ),
            script(
                three(),
                "no 503 busy\n",
                End::Reset,
                vec![refused(503, "busy"), Err(Failure::Unknown), Err(Failure::Unknown)],
            ),
            script(
                three(),
                "HTTP/1.1 400\n",
                End::Open,
                vec![Err(Failure::Foreign), Err(Failure::Foreign), Err(Failure::Foreign)],
            ),
            ask(request(Ask), "ok 0\n", "done 12 - a\n", End::Open, stored(None, "a")),
            ask(resumed(trailer(Ask)), "ok 7\n", "done 12 crc32c:f22af478 a\n", End::Open, a()),
            ask(resumed(trailer(Ask)), "ok 12\n", "done 12 crc32c:f22af478 a\n", End::Open, a()),
            ask(resumed(known(Ask)), "ok 12\n", "done 12 crc32c:f22af478 a\n", End::Open, a()),
            one(known(Ask), "done 12 crc32c:f22af478 a\n", End::Open, a()),
            one(request(Ask), "done 12 - a\n", End::Open, Err(Failure::Foreign)),
            one(resumed(trailer(Ask)), "ok 13\n", End::Open, Err(Failure::Foreign)),
            one(trailer(Ask), "ok 7\n", End::Open, Err(Failure::Foreign)),
            ask(request(Ask), "ok 0\n", "ok 0\n", End::Open, Err(Failure::Foreign)),
            one(request(Ask), "ok\n", End::Open, Err(Failure::OnlyClassic)),
            one(request(Ask), "ok", End::Stream, Err(Failure::OnlyClassic)),
            one(request(Ask), "", End::Stream, Err(Failure::Unanswered)),
            one(request(Ask), "", End::Reset, Err(Failure::Reset)),
            ask(request(Ask), "ok 0\n", "", End::Reset, Err(Failure::Unknown)),
            script(
                vec![request(Put), request(Ask)],
                "no 409 taken\nno 409 taken too\n",
                End::Open,
                vec![refused(409, "taken"), refused(409, "taken too")],
            ),
            Script { before: "no 413 large\n", ..one(request(Put), "", End::Stream, refused(413, "large")) },
            // In the middle of content, even a code that keeps step ends the conversation: another connection claims the
            // upload.
            ask(resumed(trailer(Ask)), "ok 7\nno 409 claimed\n", "", End::Stream, refused(409, "claimed")),
            Script { before: "done 12 - a\n", ..script(put(), "", End::Open, vec![Err(Failure::Foreign)]) },
        ]
    }

    fn scripts() -> Vec<Script> {
        unframed_scripts().into_iter().chain(framed_scripts()).collect()
    }

    #[test]
    fn every_conversation_ends_in_its_outcomes() {
        for script in scripts() {
            let shown = format!("{:?}", (script.requests[0].dialect, script.before, script.after, script.end));
            assert_eq!(play(&script, &[]), script.outcomes, "{shown}");
        }
    }

    #[test]
    fn every_cut_and_single_bytes_end_the_same() {
        for script in scripts() {
            let length = script.before.len().max(script.after.len());
            for first in 0..=length {
                for second in first..=length {
                    assert_eq!(play(&script, &[first, second]), script.outcomes, "{:?}", script.after);
                }
            }
            assert_eq!(play(&script, &(0..length).collect::<Vec<_>>()), script.outcomes);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_is_never_stored(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            dialect in 0..4usize,
            cut in 0..200usize,
        ) {
            let dialect = [Dialect::Classic, Dialect::Line, Dialect::Put, Dialect::Ask][dialect];
            let whole = play_garbage(&bytes, dialect, bytes.len());
            prop_assert!(whole.is_err());
            prop_assert_eq!(play_garbage(&bytes, dialect, cut.min(bytes.len())), whole);
        }
    }

    fn play_garbage(bytes: &[u8], dialect: Dialect, cut: usize) -> Outcome {
        let mut sender = begun(&request(dialect));
        sender.receive(&bytes[..cut]);
        sender.receive(&bytes[cut..]);
        sender.end_of_stream();
        assert_eq!(sender.step(), Step::Over);
        sender.outcome().expect("the end of the stream ends it")
    }

    #[test]
    fn the_sent_bytes_are_the_same_in_every_piece() {
        let chunked = Request { size: None, ..trailer(Dialect::Put) };
        for (request, wire) in [
            (request(Dialect::Line), "a.txt\ntwelve bytes|"),
            (request(Dialect::Put), "/put size=12 ./a.txt\ntwelve bytes"),
            (trailer(Dialect::Put), "/put size=12 crc32c=trailer ./a.txt\ntwelve bytescrc32c=f22af478\n"),
            (known(Dialect::Put), "/put size=12 crc32c=f22af478 ./a.txt\ntwelve bytes"),
        ] {
            for piece in 1..=13 {
                assert_eq!(run(&mut begun(&request), piece), wire);
            }
        }
        let wire = "/put size=- crc32c=trailer ./a.txt\n5\ntwelv5\ne byt2\nes0\ncrc32c=f22af478\n";
        assert_eq!(run(&mut begun(&chunked), 5), wire);
        let until_end = Request { size: None, ..request(Dialect::Line) };
        assert_eq!(run(&mut begun(&until_end), 5), "a.txt\ntwelve bytes|");
    }

    #[test]
    fn content_waits_for_ok_where_the_dialect_has_one() {
        let resumed = resumed(trailer(Dialect::Ask));
        for (request, ok, content) in [
            (&trailer(Dialect::Classic), "ok", "twelve bytes|"),
            (&trailer(Dialect::Ask), "ok 0\n", "twelve bytescrc32c=f22af478\n"),
            // The digest covers the whole file, whatever part of it the server holds.
            (&resumed, "ok 7\n", "bytescrc32c=f22af478\n"),
            (&resumed, "ok 12\n", "crc32c=f22af478\n"),
        ] {
            let mut sender = begun(request);
            let mut line = Vec::new();
            request.dialect.spell_request(request, Place::default(), false, &mut line);
            assert_eq!(run(&mut sender, 5).into_bytes(), line);
            assert_eq!(sender.step(), Step::Listen);
            let (last, first) = ok.as_bytes().split_last().unwrap();
            sender.receive(first);
            assert_eq!(sender.step(), Step::Listen);
            sender.receive(&[*last]);
            assert_eq!(run(&mut sender, 5), content, "{ok:?}");
        }
    }

    #[test]
    fn the_part_that_the_server_holds_is_not_read_if_the_digest_is_known() {
        let mut sender = begun(&resumed(known(Dialect::Ask)));
        run(&mut sender, 100);
        sender.receive(b"ok 7\n");
        assert_eq!(sender.step(), Step::Send(7..12));
    }

    #[test]
    fn a_refusal_in_mid_content_ends_what_is_sent() {
        for said in ["no 413 too large\n", "no 409 claimed elsewhere\n"] {
            let mut sender = begun(&trailer(Dialect::Put));
            sender.transmitted(0);
            let Step::Transmit(header) = sender.step() else { panic!("a header comes first") };
            sender.transmitted(header.len());
            sender.receive(said.as_bytes());
            assert_eq!(sender.step(), Step::HalfClose);
            // Content that was read in the meantime.
            sender.content(CONTENT);
            assert_eq!(run(&mut sender, 5), "|");
            assert_eq!(sender.step(), Step::Listen);
            sender.end_of_stream();
            assert_eq!(sender.step(), Step::Over);
        }
    }

    #[test]
    fn a_request_begun_when_the_last_word_came_was_not_served() {
        let mut sender = begun(&request(Dialect::Put));
        run(&mut sender, 100);
        sender.receive(b"no 500 the disk fai");
        sender.begin(&request(Dialect::Put));
        sender.receive(b"led\n");
        assert_eq!(run(&mut sender, 100), "|");
        sender.end_of_stream();
        assert_eq!(sender.outcome(), Some(refused(500, "the disk failed")));
        assert_eq!(sender.outcome(), Some(Err(Failure::Unserved)));
        assert_eq!(sender.outcome(), None);
    }

    #[test]
    fn ok_without_an_offset_comes_from_a_classic_server() {
        let mut sender = begun(&request(Dialect::Ask));
        run(&mut sender, 100);
        sender.receive(b"ok");
        assert!(sender.is_mid_reply());
        assert_eq!(sender.step(), Step::Listen);
        sender.end_of_burst();
        assert_eq!(sender.outcome(), Some(Err(Failure::OnlyClassic)));
    }

    #[test]
    fn a_line_without_an_end_is_not_collected_without_limit() {
        for dialect in [Dialect::Classic, Dialect::Line, Dialect::Put] {
            let mut sender = begun(&request(dialect));
            sender.receive(b"no 500 ");
            sender.receive(&[b'x'; REPLY_MAX_BYTES]);
            assert_eq!(sender.outcome(), Some(Err(Failure::Foreign)));
            assert!(sender.heard.len() <= REPLY_MAX_BYTES);
        }
    }

    #[test]
    fn words_of_the_peer_are_escaped() {
        let failure = Failure::Refused(Refusal::new(Code(403), "\u{1b}[2J"));
        assert_eq!(failure.to_string(), r#"the server refuses it (403): "\u{1b}[2J""#);
    }
}

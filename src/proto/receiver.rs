//! The server's half of a conversation.
//!
//! ```text
//!             first line            accept()               end of content
//!    Head  -------------> Opening ----------> Content ----------------------+
//!     ^ |                    |                   |                          |
//!     | |                    +---- refuse() -----+                          |
//!     | |                              |  (content is discarded             |
//!     | +---- no request, /bye, -------|   where its end is known)          |
//!     |       FIN                      v                                    |
//!     |                              Over <---- classic, line --------------+
//!     +---------------------------------------- put, ask -------------------+
//! ```
//!
//! The driver feeds what comes from the peer ([`Receiver::receive`], [`Receiver::end_of_stream`]) and what the clock says
//! ([`Receiver::end_of_burst`], [`Receiver::grace_elapsed`]). It acts on each [`Event`] and answers it with
//! [`Receiver::accept`], [`Receiver::needs_no_content`], [`Receiver::refuse`] or [`Receiver::settle`]. It sends what
//! [`Receiver::transmit`] holds. [`Event::Request`] must be answered before the next input. [`Event::End`] may be
//! answered any time later and in any order: replies leave in the order of the requests.
//!
//! **How the input is cut never matters**, with one exception that the wire itself makes: if the first burst ends without
//! a line feed, a classic name ends there.
//!
//! **A FIN does not say that everything has come**, only that no more will: the kernel of a killed program sends one too.
//! If a size was told, an earlier end is a failure. If none was, the end is all there is, and the file is stored as
//! unverified.
//!
//! **Refusing is harder than accepting.** A refused client may be in the middle of sending megabytes. If the end of its
//! content is known, the content is read and discarded, the refusal takes its place among the replies, and the next
//! request is served as usual. If it is not known, the refusal is the last word, and [`Farewell`] says how to close so
//! that the client hears it.

use std::mem;

use super::body::{Body, End, Piece};
use super::dialect::{Head, HeadBuffer, Ok as OkWhen};
use super::outcomes::{Outcomes, Pending};
use super::{Code, Dialect, Digest, Hasher, Name, NamePolicy, OnExists, Refusal, Reply, Request, Ticket, Whole};

/// The rules of all conversations of a server. They are passed to each call, so that no conversation holds a copy.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Which names are refused.
    pub names: NamePolicy,
    /// What to do when a name is taken and the request does not say.
    pub on_exists: OnExists,
    /// Accept only uploads whose end can be told from a broken connection.
    pub require_size: bool,
    /// The largest file, in bytes.
    pub max_file_size: Option<u64>,
    /// The server is shutting down: uploads that have begun are finished, and no further request is taken.
    pub is_draining: bool,
}

/// What the input means.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An upload is asked for. Make a place to write, then [`Receiver::accept`] or [`Receiver::refuse`].
    Request(Request),
    /// Bytes of the file.
    Content(&'a [u8]),
    /// The file is whole and as promised. Publish it, then [`Receiver::settle`].
    End(Whole),
    /// The upload has failed, and the client is told so. What came of the file is of no use.
    Failed(Refusal),
    /// The rules forbid the request, and the client is told so.
    Refused(Refusal, Request),
    /// These bytes are not a request that can be followed, and the client is told so.
    NotARequest(Refusal, Box<[u8]>),
    /// This many bytes came that are no longer of interest.
    Discarded(usize),
}

/// What the conversation waits for. It decides which timeout applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The first byte.
    Header,
    /// The rest of a request line. A pause does not end it.
    RestOfHeader,
    /// The rest of a name. A pause ends it.
    RestOfName,
    /// The first byte of content, from a client that may be waiting for `ok`.
    FirstContent,
    /// Content.
    Content,
    /// The next request. The client is owed nothing.
    NextRequest,
    /// An answer from the driver, and no input before that: [`Event::Request`] is not answered, too much is owed, or the
    /// peer has ended its side.
    Verdict,
    /// An answer from the driver, and whatever the client sends meanwhile.
    Settlement,
    /// The end of the stream, from a client that has been told the last word.
    EndOfStream,
}

/// How to close the connection once everything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Close.
    Close,
    /// Shut down the write side, keep feeding what comes until FIN, then close. A close with unread data would turn into a
    /// reset that can overtake the last word (RFC 1122 4.2.2.13).
    Linger,
    /// Close with a reset: the client can be told nothing in words, and must see an error.
    Reset,
}

/// Whether a refused peer may still be sending. A silent one hears the last word without a linger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It may have sent what was not read yet.
    Sending,
    /// Everything that it sent has been read, and nothing has come for a while.
    Silent,
}

/// What the server holds of an upload that is resumed.
#[derive(Clone, Debug)]
pub struct Held {
    /// The size of it, in bytes.
    pub offset: u64,
    /// Has taken it in, for the digest that the request promises.
    pub hasher: Hasher,
}

/// The server's half of one conversation. Feed, act, answer, send.
///
/// A classic upload has no line feed and no size: the first burst ends its name, and the end of the stream its content.
///
/// ```
/// use intake::proto::{Awaits, Event, Farewell, Receiver, Rules};
///
/// let (mut server, rules) = (Receiver::default(), Rules::default());
/// assert_eq!(server.receive(&mut &b"notes.txt"[..], &rules), None, "more of the name may come");
/// assert_eq!(server.awaits(), Awaits::RestOfName);
/// let Some(Event::Request(request)) = server.end_of_burst(&rules) else { panic!("the name is whole") };
/// server.accept(None);
/// assert_eq!(server.transmit(), b"ok", "exactly this, or the tutorials' senders stop");
/// server.transmitted(2);
///
/// let mut input = &b"one two three"[..];
/// assert_eq!(server.receive(&mut input, &rules), Some(Event::Content(b"one two three")));
/// let Some(Event::End(whole)) = server.end_of_stream() else { panic!("it ends the file") };
/// assert_eq!(server.farewell(), None, "it stays until the file is stored");
/// server.settle(whole.ticket, Ok(&request.name));
/// assert_eq!(server.farewell(), Some(Farewell::Close));
/// ```
#[derive(Debug)]
pub struct Receiver {
    phase: Phase,
    outcomes: Outcomes,
    /// Requests so far. 64 bits, so that it never wraps.
    requests: u64,
}

#[derive(Debug)]
enum Phase {
    /// The head of a request is coming in.
    Head(HeadBuffer),
    /// A request waits for its answer.
    Opening(Opening),
    Content(Content),
    Over(Farewell),
}

/// The next thing that the input completes.
enum Part<'a> {
    /// The head of a request, and its bytes.
    Head(Head, Vec<u8>),
    Content(Event<'a>),
    TooLarge,
    End(Ended),
}

#[derive(Debug)]
struct Opening {
    dialect: Dialect,
    body: Body,
}

#[derive(Debug)]
struct Content {
    dialect: Dialect,
    body: Body,
    /// None has come, and the client has not heard `ok`: it may be waiting for that.
    may_wait_for_ok: bool,
    /// The upload is refused: its content is read to get to the next request, and then this is said.
    refused: Option<Box<Refusal>>,
}

/// What is left to be said of content that has ended.
struct Ended {
    dialect: Dialect,
    size: u64,
    refused: Option<Box<Refusal>>,
    end: End,
}

impl Content {
    fn ended(&mut self, end: End) -> Ended {
        Ended { dialect: self.dialect, size: self.body.received(), refused: self.refused.take(), end }
    }
}

impl Default for Phase {
    /// The state before a request.
    fn default() -> Self {
        Self::Head(HeadBuffer::default())
    }
}

impl Default for Receiver {
    /// The state before the first byte.
    fn default() -> Self {
        Self { phase: Phase::default(), outcomes: Outcomes::default(), requests: 0 }
    }
}

impl Receiver {
    /// The most replies that may be owed before the next request is read: enough to keep a disk busy, few enough for memory.
    const OWED_MAX: usize = 64;
    /// The most bytes of replies that may be unsent before the next request is read.
    const UNSENT_MAX_BYTES: usize = 16 << 10;

    /// The most bytes to read at once while requests may follow closely on one another: what cannot be processed yet has
    /// to be kept in memory.
    const LOOK_BYTES: u64 = 16 << 10;

    /// How the server speaks before a request has told its dialect.
    const BETWEEN_REQUESTS: Dialect = Dialect::Line;

    /// Takes bytes from the front of `input` and says what they mean. Call it until `None`: then all of `input` is taken, or
    /// [`Receiver::awaits`] is [`Awaits::Verdict`] and no more can be taken yet.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8], rules: &Rules) -> Option<Event<'a>> {
        loop {
            let event = match self.receive_part(input, rules)? {
                Part::Head(head, bytes) => self.begin(head, bytes, rules),
                Part::Content(event) => return Some(event),
                Part::TooLarge => return Some(self.too_large(rules)),
                Part::End(ended) => self.end_of_content(ended),
            };
            if event.is_some() {
                return event;
            }
        }
    }

    /// The next part that `input` completes.
    fn receive_part<'a>(&mut self, input: &mut &'a [u8], rules: &Rules) -> Option<Part<'a>> {
        // Checked only between requests: one that has begun can be finished.
        let may_begin = !self.owes_too_much();
        let is_first = self.requests == 0;
        match &mut self.phase {
            Phase::Head(_) if !may_begin => None,
            Phase::Head(buffer) => {
                let head = buffer.take(input, is_first, rules.names)?;
                Some(Part::Head(head, buffer.take_bytes()))
            }
            Phase::Opening(_) => None,
            Phase::Content(content) => Some(match content.body.receive(input)? {
                Piece::Content(_) if rules.max_file_size.is_some_and(|max| content.body.received() > max) => {
                    Part::TooLarge
                }
                Piece::Content(bytes) if content.refused.is_some() => Part::Content(Event::Discarded(bytes.len())),
                Piece::Content(bytes) => {
                    content.may_wait_for_ok = false;
                    Part::Content(Event::Content(bytes))
                }
                Piece::End(end) => Part::End(content.ended(end)),
            }),
            Phase::Over(_) if input.is_empty() => None,
            Phase::Over(_) => Some(Part::Content(Event::Discarded(mem::take(input).len()))),
        }
    }

    /// The peer has paused. That ends a name without a line feed.
    pub fn end_of_burst(&mut self, rules: &Rules) -> Option<Event<'static>> {
        let Phase::Head(buffer) = &mut self.phase else { return None };
        let head = buffer.end_of_burst(rules.names)?;
        let bytes = buffer.take_bytes();
        self.begin(head, bytes, rules)
    }

    /// The peer has shut down its side (FIN). While a request waits for its answer this does nothing: call it again later.
    pub fn end_of_stream(&mut self) -> Option<Event<'static>> {
        let event = match &mut self.phase {
            Phase::Opening(_) => return None,
            Phase::Head(buffer) if buffer.is_empty() => None,
            Phase::Head(buffer) => {
                let words =
                    "the stream ended before the line did; end it with a line feed, or wait for ok after a bare name";
                let bytes = buffer.take_bytes();
                Some(self.not_a_request(Refusal::new(Code::BAD_REQUEST, words), bytes))
            }
            Phase::Content(content) => {
                let end = content.body.end_of_stream();
                let ended = content.ended(end);
                self.end_of_content(ended)
            }
            Phase::Over(Farewell::Linger) => None,
            Phase::Over(_) => return None,
        };
        self.phase = Phase::Over(Farewell::Close);
        event
    }

    /// The server shuts down ([`Rules::is_draining`]), and everything that the client has sent so far has been read. Ends the
    /// conversation between two requests, once no outcome is owed: without words, unless a part of a request has come.
    pub fn end_of_requests(&mut self) -> Option<Event<'static>> {
        let owes = self.owes();
        let Phase::Head(buffer) = &mut self.phase else { return None };
        if buffer.is_empty() && owes {
            return None;
        }
        match &*buffer.take_bytes() {
            [] if self.requests == 0 => self.phase = Phase::Over(Farewell::Close),
            // After an upload the next request may be on its way. `/b` can only become `/bye`.
            [] | [b'/', b'b', ..] => self.phase = Phase::Over(Farewell::Linger),
            part => return Some(self.not_a_request(Refusal::shutting_down(), part.into())),
        }
        None
    }

    /// The grace period after a line-dialect name passed in silence: the client may be waiting, so this says `ok`, once.
    pub fn grace_elapsed(&mut self) {
        if let Phase::Content(Content { dialect, may_wait_for_ok: waits @ true, .. }) = &mut self.phase {
            *waits = false;
            self.outcomes.say(*dialect, &Reply::Ok(0));
        }
    }

    /// Answers [`Event::Request`]: the place to write exists, and holds `held` already.
    pub fn accept(&mut self, held: Option<Held>) {
        let Some(Opening { dialect, mut body }) = self.take_opening() else { return };
        let ok = dialect.manners().ok;
        if ok == OkWhen::AtOnce {
            self.outcomes.say(dialect, &Reply::Ok(held.as_ref().map_or(0, |held| held.offset)));
        }
        if let Some(Held { offset, hasher }) = held {
            body.resume(offset, hasher);
        }
        let may_wait_for_ok = ok == OkWhen::AfterSilence;
        self.phase = Phase::Content(Content { dialect, body, may_wait_for_ok, refused: None });
    }

    /// Answers [`Event::Request`] if the file may be stored already: no content follows, and [`Receiver::settle`] tells the
    /// outcome. Returns `None` and does nothing if the client did not tell size and digest, or does not wait for its answer.
    pub fn needs_no_content(&mut self) -> Option<Whole> {
        let Phase::Opening(Opening { dialect, body }) = &self.phase else { return None };
        let (dialect, size, digest) = (*dialect, body.size()?, body.promised()?);
        if !dialect.waits_for_ok() {
            return None;
        }
        self.phase = Phase::default();
        Some(self.promise(dialect, size, Some(digest)))
    }

    fn take_opening(&mut self) -> Option<Opening> {
        match mem::take(&mut self.phase) {
            Phase::Opening(opening) => Some(opening),
            phase => {
                debug_assert!(false, "{phase:?} is no request that waits for its answer");
                self.phase = phase;
                None
            }
        }
    }

    /// Ends an upload without its file: as an answer to [`Event::Request`], or at any time during its content.
    ///
    /// If possible the conversation continues after the rest of the content. Otherwise this is the last word. A classic
    /// client that has heard its `ok` can be told nothing in words; it gets a reset.
    pub fn refuse(&mut self, refusal: &Refusal, peer: Peer) {
        match mem::replace(&mut self.phase, Phase::Over(Farewell::Close)) {
            Phase::Over(farewell) => self.phase = Phase::Over(farewell),
            Phase::Content(content) if !content.dialect.manners().has_receipt => {
                self.phase = Phase::Over(Farewell::Reset);
            }
            Phase::Opening(Opening { dialect, body }) if dialect.is_framed() && refusal.code.keeps_step() => {
                self.skip(dialect, body, refusal.clone());
            }
            Phase::Content(content) if content.dialect.is_framed() && refusal.code.keeps_step() => {
                self.discard(content.dialect, content.body, refusal.clone());
            }
            Phase::Opening(Opening { dialect, .. }) | Phase::Content(Content { dialect, .. }) => {
                self.last_word(dialect, refusal, peer);
            }
            Phase::Head(_) => self.last_word(Self::BETWEEN_REQUESTS, refusal, peer),
        }
    }

    /// Ends the conversation in any state: this is the last word.
    pub fn dismiss(&mut self, refusal: &Refusal) {
        if !self.is_over() {
            self.last_word(self.dialect(), refusal, Peer::Sending);
        }
    }

    /// The client is owed outcomes that will never be known. They may be good or bad, so it is told neither: this ends the
    /// conversation, and the connection with a reset.
    pub fn abandon(&mut self) {
        self.outcomes.forget_owed();
        self.phase = Phase::Over(Farewell::Reset);
    }

    /// Whether the end of the stream is all that will tell the client the outcome of the upload in progress.
    pub fn tells_by_ending(&self) -> bool {
        matches!(&self.phase, Phase::Content(content) if !content.dialect.manners().has_receipt)
    }

    /// The ticket of the request in progress, or of the last one.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.requests)
    }

    /// Answers [`Event::End`]: the file has this final name, or why it is not stored. Returns whether that was owed.
    pub fn settle(&mut self, ticket: Ticket, result: Result<&Name, &Refusal>) -> bool {
        let Some(pending) = self.outcomes.settle(ticket, result) else { return false };
        let wants_receipt = pending.dialect.manners().has_receipt;
        match (result, &self.phase) {
            (Err(_), _) if !wants_receipt => self.phase = Phase::Over(Farewell::Reset),
            (Err(_), Phase::Over(_)) | (Ok(_), _) => {}
            (Err(refusal), _) if refusal.code.keeps_step() => {}
            (Err(_), _) => self.phase = Phase::Over(Farewell::Linger),
        }
        true
    }

    /// Has taken in the content so far of the upload in progress, where that promised a digest.
    pub fn hasher(&self) -> Option<&Hasher> {
        match &self.phase {
            Phase::Content(content) => content.body.hasher(),
            Phase::Head(_) | Phase::Opening(_) | Phase::Over(_) => None,
        }
    }

    /// How many bytes to read at once, at most.
    pub fn appetite(&self) -> u64 {
        match &self.phase {
            Phase::Content(content) => content.body.left().saturating_add(Self::LOOK_BYTES),
            Phase::Over(_) => u64::MAX,
            Phase::Head(_) | Phase::Opening(_) => Self::LOOK_BYTES,
        }
    }

    /// The bytes of content that come next, unless the stream ends.
    pub fn content_left(&self) -> u64 {
        match &self.phase {
            Phase::Content(content) => content.body.left(),
            Phase::Head(_) | Phase::Opening(_) | Phase::Over(_) => 0,
        }
    }

    /// How many of the next bytes of content may be spliced into the file. None at the beginning of an upload: the first
    /// bytes show that the client does not wait for `ok`.
    pub fn spliceable(&self, rules: &Rules) -> u64 {
        match &self.phase {
            Phase::Content(Content { body, may_wait_for_ok: false, refused: None, .. }) => {
                let allowed = rules.max_file_size.map_or(u64::MAX, |max| max.saturating_sub(body.received()));
                body.spliceable().min(allowed)
            }
            _ => 0,
        }
    }

    /// `count` bytes of [`Receiver::spliceable`] were spliced into the file. Call [`Receiver::receive`] with an empty input
    /// to learn what follows from that.
    pub fn spliced(&mut self, count: u64) {
        if let Phase::Content(content) = &mut self.phase {
            content.body.spliced(count);
        }
    }

    /// Whether no further request is read: the last word has been said, or waits for what is owed.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// Whether the outcome of a whole file is still owed.
    pub fn owes(&self) -> bool {
        self.outcomes.owed() > 0
    }

    /// What to send now. Empty if there is nothing to send.
    pub fn transmit(&self) -> &[u8] {
        self.outcomes.unsent()
    }

    /// The first `sent` bytes of [`Receiver::transmit`] have been sent.
    pub fn transmitted(&mut self, sent: usize) {
        self.outcomes.sent(sent);
    }

    /// What the conversation waits for. Any other call may change it.
    pub fn awaits(&self) -> Awaits {
        match &self.phase {
            Phase::Opening(_) => Awaits::Verdict,
            Phase::Head(_) if self.owes_too_much() => Awaits::Verdict,
            Phase::Head(buffer) if !buffer.is_empty() => {
                if buffer.ends_with_burst() {
                    Awaits::RestOfName
                } else {
                    Awaits::RestOfHeader
                }
            }
            Phase::Head(_) if self.owes() => Awaits::Settlement,
            Phase::Head(_) if self.requests > 0 => Awaits::NextRequest,
            Phase::Head(_) => Awaits::Header,
            Phase::Content(Content { may_wait_for_ok: true, .. }) => Awaits::FirstContent,
            Phase::Content(_) => Awaits::Content,
            Phase::Over(Farewell::Linger) if self.owes() => Awaits::Settlement,
            Phase::Over(_) if self.owes() => Awaits::Verdict,
            Phase::Over(_) => Awaits::EndOfStream,
        }
    }

    /// How to close, once the conversation is over and everything is sent.
    pub fn farewell(&self) -> Option<Farewell> {
        match self.phase {
            Phase::Over(farewell) if !self.owes() && self.transmit().is_empty() => Some(farewell),
            _ => None,
        }
    }

    fn owes_too_much(&self) -> bool {
        self.outcomes.owed() >= Self::OWED_MAX || self.transmit().len() >= Self::UNSENT_MAX_BYTES
    }

    /// The dialect to speak now.
    fn dialect(&self) -> Dialect {
        match &self.phase {
            Phase::Opening(Opening { dialect, .. }) | Phase::Content(Content { dialect, .. }) => *dialect,
            Phase::Head(_) | Phase::Over(_) => Self::BETWEEN_REQUESTS,
        }
    }

    /// A head is whole, or can no longer become one. `bytes` are what came of it.
    fn begin(&mut self, head: Head, bytes: Vec<u8>, rules: &Rules) -> Option<Event<'static>> {
        match head {
            Head::Bye => {
                self.phase = Phase::Over(Farewell::Linger);
                None
            }
            _ if rules.is_draining => Some(self.not_a_request(Refusal::shutting_down(), bytes)),
            Head::Upload(request) => Some(self.request(request, rules)),
            Head::BadName { dialect, size, digest, refusal } => {
                self.requests += 1;
                self.skip(dialect, Body::framed(size, digest), refusal.clone());
                Some(Event::NotARequest(refusal, bytes.into()))
            }
            Head::Bad(refusal) => Some(self.not_a_request(refusal, bytes)),
        }
    }

    fn request(&mut self, request: Request, rules: &Rules) -> Event<'static> {
        self.requests += 1;
        let body = if request.dialect.is_framed() {
            Body::framed(request.size, request.digest)
        } else {
            Body::until_end_of_stream()
        };
        self.phase = Phase::Opening(Opening { dialect: request.dialect, body });
        match forbidden(&request, rules) {
            None => Event::Request(request),
            Some(refusal) => {
                self.refuse(&refusal, Peer::Sending);
                Event::Refused(refusal, request)
            }
        }
    }

    fn too_large(&mut self, rules: &Rules) -> Event<'static> {
        let refusal = too_large(rules);
        self.refuse(&refusal, Peer::Sending);
        Event::Failed(refusal)
    }

    fn not_a_request(&mut self, refusal: Refusal, head: Vec<u8>) -> Event<'static> {
        self.last_word(Self::BETWEEN_REQUESTS, &refusal, Peer::Sending);
        Event::NotARequest(refusal, head.into())
    }

    /// Content has ended. The next request may follow, unless the content was cut off.
    fn end_of_content(&mut self, Ended { dialect, size, refused, end }: Ended) -> Option<Event<'static>> {
        self.phase = Phase::default();
        match (end, refused) {
            (End::Broken(_), Some(refused)) => {
                self.last_word(dialect, &refused, Peer::Sending);
                None
            }
            (_, Some(refused)) => {
                self.outcomes.say(dialect, &Reply::No(*refused));
                None
            }
            (End::Whole(digest), None) => Some(Event::End(self.promise(dialect, size, digest))),
            (End::Mismatch(refusal), None) => {
                self.outcomes.say(dialect, &Reply::No(refusal.clone()));
                Some(Event::Failed(refusal))
            }
            (End::Broken(refusal), None) => {
                self.last_word(dialect, &refusal, Peer::Sending);
                Some(Event::Failed(refusal))
            }
        }
    }

    /// Keeps a place for the outcome of a whole file.
    fn promise(&mut self, dialect: Dialect, size: u64, digest: Option<Digest>) -> Whole {
        let whole = Whole { ticket: Ticket(self.requests), size, digest };
        self.outcomes.promise(Pending { whole, dialect });
        whole
    }

    /// Gets past a request that is refused before any content. A client that waits for its answer sends none.
    fn skip(&mut self, dialect: Dialect, body: Body, refusal: Refusal) {
        if dialect.waits_for_ok() {
            self.outcomes.say(dialect, &Reply::No(refusal));
            self.phase = Phase::default();
        } else {
            self.discard(dialect, body, refusal);
        }
    }

    /// Reads and discards the rest of the content, to get to the next request.
    fn discard(&mut self, dialect: Dialect, body: Body, refusal: Refusal) {
        let refused = Some(Box::new(refusal));
        self.phase = Phase::Content(Content { dialect, body, may_wait_for_ok: false, refused });
    }

    fn last_word(&mut self, dialect: Dialect, refusal: &Refusal, peer: Peer) {
        self.outcomes.say(dialect, &Reply::No(refusal.clone()));
        self.phase = Phase::Over(if peer == Peer::Silent { Farewell::Close } else { Farewell::Linger });
    }
}

/// Why the rules forbid `request`, if they do.
fn forbidden(request: &Request, rules: &Rules) -> Option<Refusal> {
    let replaces = request.on_exists == Some(OnExists::Replace) && rules.on_exists != OnExists::Replace;
    if rules.require_size && !request.dialect.is_framed() {
        let words = "this server takes uploads of a known size only: /put size=BYTES NAME, a line feed, the content";
        Some(Refusal::new(Code::FORBIDDEN, words))
    } else if rules.max_file_size.is_some_and(|max| request.size.unwrap_or(0) > max) {
        Some(too_large(rules))
    } else if replaces {
        Some(Refusal::new(Code::FORBIDDEN, "this server replaces no files; ask for rename or refuse"))
    } else {
        None
    }
}

fn too_large(rules: &Rules) -> Refusal {
    let max = rules.max_file_size.unwrap_or(u64::MAX);
    Refusal::new(Code::TOO_LARGE, format!("the file is larger than {max} bytes, the most that this server takes"))
}

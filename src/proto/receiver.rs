//! The server's half of a conversation.
//!
//! ```text
//!             first line            accept()               end of content
//!    Head  -------------> Opening ----------> Content ----------------------+
//!     ^ |                    |                   |                          |
//!     | |                    +---- refuse() -----+                          |
//!     | |                              |  (content is discarded             |
//!     | +---- no request, /bye, -------|   where its end is known)          |
//!     |       FIN                      v           half_closed()            |
//!     |                              Over ------------------> Lingering     |
//!     |                               ^ ^---- classic, line ----------------+
//!     +---------------------------------------- put, ask -------------------+
//! ```
//!
//! The driver does what [`Receiver::step`] says. It feeds what comes from the peer ([`Receiver::receive`],
//! [`Receiver::end_of_stream`]) and what the clock says ([`Receiver::end_of_burst`], [`Receiver::grace_elapsed`]). It acts
//! on each [`Event`] and answers it with [`Receiver::accept`], [`Receiver::needs_no_content`], [`Receiver::refuse`] or
//! [`Receiver::settle`]. [`Event::Request`] must be answered before the next input. [`Event::End`] may be answered any
//! time later and in any order: replies leave in the order of the requests.
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
use super::rules::Rules;
use super::step::{Awaits, Event, Farewell, Held, Peer, Reading, ServerStep as Step};
use super::{Code, Dialect, Digest, Hasher, Name, Refusal, Reply, Request, Ticket, Whole};

/// The server's half of one conversation. Do what it says, feed it, act on its events.
///
/// A classic upload has no line feed and no size: the first burst ends its name, and the end of the stream its content.
///
/// ```
/// use intake::proto::{Awaits, Event, Farewell, Receiver, Rules, ServerStep};
///
/// let (mut server, rules) = (Receiver::default(), Rules::default());
/// assert_eq!(server.receive(&mut &b"notes.txt"[..], &rules), None, "more of the name may come");
/// assert_eq!(server.awaits(), Awaits::RestOfName);
/// let Some(Event::Request(request)) = server.end_of_burst(&rules) else { panic!("the name is whole") };
/// assert_eq!(server.step(false), ServerStep::Answer);
/// server.accept(None);
/// assert_eq!(server.step(false), ServerStep::Say(b"ok"), "exactly this, or the tutorials' senders stop");
/// server.transmitted(2);
///
/// let mut input = &b"one two three"[..];
/// assert_eq!(server.receive(&mut input, &rules), Some(Event::Content(b"one two three")));
/// let Some(Event::End(whole)) = server.end_of_stream() else { panic!("it ends the file") };
/// assert_eq!(server.step(false), ServerStep::Settle, "it stays until the file is stored");
/// server.settle(whole.ticket, Ok(&request.name));
/// assert_eq!(server.step(false), ServerStep::Part(Farewell::Close));
/// ```
#[derive(Debug)]
pub struct Receiver {
    phase: Phase,
    /// How the request in progress is spoken, or else the last one.
    dialect: Dialect,
    outcomes: Outcomes,
    /// Requests so far. 64 bits, so that it never wraps.
    requests: u64,
}

#[derive(Debug)]
enum Phase {
    /// The head of a request is coming in.
    Head(HeadBuffer),
    /// A request waits for its answer. Its content is to come.
    Opening(Body),
    Content(Content),
    /// No further request is read. Everything that is owed is said, and then this is how to part.
    Over(Farewell),
    /// Our side is shut down. What still comes is discarded.
    Lingering,
}

#[derive(Debug)]
struct Content {
    body: Body,
    /// None has come, and the client has not heard `ok`: it may be waiting for that.
    may_wait_for_ok: bool,
    /// The upload is refused: its content is read to get to the next request, and then this is said.
    refused: Option<Box<Refusal>>,
}

/// What is left to be said of content that has ended.
struct Ended {
    size: u64,
    refused: Option<Box<Refusal>>,
    end: End,
}

impl Content {
    fn piece<'a>(&mut self, bytes: &'a [u8]) -> Event<'a> {
        if self.refused.is_some() {
            return Event::Discarded(bytes.len());
        }
        self.may_wait_for_ok = false;
        Event::Content(bytes)
    }

    fn ended(&mut self, end: End) -> Ended {
        Ended { size: self.body.received(), refused: self.refused.take(), end }
    }
}

impl Default for Phase {
    /// The state before a request.
    fn default() -> Self {
        Self::Head(HeadBuffer::default())
    }
}

impl Default for Receiver {
    /// The state before the first byte. Until a request has told its dialect, the server speaks in lines.
    fn default() -> Self {
        Self { phase: Phase::default(), dialect: Dialect::Line, outcomes: Outcomes::default(), requests: 0 }
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

    /// What to do next. Any other call may change it.
    ///
    /// `reads_on`: input is at hand. If it can add to what is to be said, it is read first, so that one write does for both.
    pub fn step(&self, reads_on: bool) -> Step<'_> {
        let due = self.due();
        match self.outcomes.unsent() {
            [] => due,
            _ if reads_on && !self.is_over() && matches!(due, Step::Read(_)) => due,
            unsent => Step::Say(unsent),
        }
    }

    /// What the conversation waits for, once everything is sent. Any other call may change it.
    pub fn awaits(&self) -> Awaits {
        match self.due() {
            Step::Read(Reading { awaits, .. }) => awaits,
            Step::Part(_) => Awaits::EndOfStream,
            Step::Say(_) | Step::Answer | Step::Settle => Awaits::Answer,
        }
    }

    /// What to do once everything is sent.
    fn due(&self) -> Step<'static> {
        match &self.phase {
            Phase::Head(_) if self.owes_too_much() => Step::Settle,
            Phase::Head(buffer) => {
                Step::Read(Reading { awaits: self.awaits_of(buffer), max_bytes: Self::LOOK_BYTES, content_bytes: 0 })
            }
            Phase::Opening(_) => Step::Answer,
            Phase::Content(Content { body, may_wait_for_ok, .. }) => Step::Read(Reading {
                awaits: if *may_wait_for_ok { Awaits::FirstContent } else { Awaits::Content },
                max_bytes: body.left().saturating_add(Self::LOOK_BYTES),
                content_bytes: body.left(),
            }),
            Phase::Over(Farewell::Linger) if self.owes() => Self::discard_while(Awaits::Settlement),
            Phase::Over(_) if self.owes() => Step::Settle,
            Phase::Over(farewell) => Step::Part(*farewell),
            Phase::Lingering => Self::discard_while(Awaits::EndOfStream),
        }
    }

    fn awaits_of(&self, head: &HeadBuffer) -> Awaits {
        if head.ends_with_burst() {
            Awaits::RestOfName
        } else if !head.is_empty() {
            Awaits::RestOfHeader
        } else if self.owes() {
            Awaits::Settlement
        } else if self.requests > 0 {
            Awaits::NextRequest
        } else {
            Awaits::Header
        }
    }

    fn discard_while(awaits: Awaits) -> Step<'static> {
        Step::Read(Reading { awaits, max_bytes: u64::MAX, content_bytes: 0 })
    }

    /// Takes bytes from the front of `input` and says what they mean. Call it until `None`: then all of `input` is taken, or
    /// the next step is [`Step::Answer`] or [`Step::Settle`] and no more can be taken yet.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8], rules: &Rules) -> Option<Event<'a>> {
        loop {
            let may_begin = !self.owes_too_much();
            let event = match &mut self.phase {
                // Checked only between requests: one that has begun can be finished.
                Phase::Head(_) if !may_begin => return None,
                Phase::Head(buffer) => {
                    let head = buffer.take(input, self.requests == 0, rules.names)?;
                    let bytes = buffer.take_bytes();
                    self.begin(head, bytes, rules)
                }
                Phase::Opening(_) => return None,
                Phase::Content(content) => match content.body.receive(input)? {
                    Piece::Content(_) if rules.is_too_large(content.body.received()) => Some(self.too_large(rules)),
                    Piece::Content(bytes) => Some(content.piece(bytes)),
                    Piece::End(end) => {
                        let ended = content.ended(end);
                        self.end_of_content(ended)
                    }
                },
                Phase::Over(_) | Phase::Lingering if input.is_empty() => return None,
                Phase::Over(_) | Phase::Lingering => Some(Event::Discarded(mem::take(input).len())),
            };
            if event.is_some() {
                return event;
            }
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
            Phase::Over(Farewell::Linger) | Phase::Lingering => None,
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
        if let Phase::Content(Content { may_wait_for_ok: waits @ true, .. }) = &mut self.phase {
            *waits = false;
            self.say(&Reply::Ok(0));
        }
    }

    /// Answers [`Event::Request`]: the place to write exists, and has `held` already.
    pub fn accept(&mut self, held: Option<Held>) {
        let Some(mut body) = self.take_opening() else { return };
        let ok = self.dialect.manners().ok;
        if ok == OkWhen::AtOnce {
            self.say(&Reply::Ok(held.as_ref().map_or(0, |held| held.offset)));
        }
        if let Some(Held { offset, hasher }) = held {
            body.resume(offset, hasher);
        }
        self.phase = Phase::Content(Content { body, may_wait_for_ok: ok == OkWhen::AfterSilence, refused: None });
    }

    /// Answers [`Event::Request`] if the file may be stored already: no content follows, and [`Receiver::settle`] tells the
    /// outcome. Returns `None` and does nothing if the client did not tell size and digest, or does not wait for its answer.
    pub fn needs_no_content(&mut self) -> Option<Whole> {
        let Phase::Opening(body) = &self.phase else { return None };
        let (size, digest) = (body.size()?, body.promised()?);
        if !self.dialect.waits_for_ok() {
            return None;
        }
        self.phase = Phase::default();
        Some(self.promise(size, Some(digest)))
    }

    fn take_opening(&mut self) -> Option<Body> {
        match mem::take(&mut self.phase) {
            Phase::Opening(body) => Some(body),
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
        let continues = self.dialect.is_framed() && refusal.code.keeps_step();
        match mem::replace(&mut self.phase, Phase::Over(Farewell::Reset)) {
            over @ (Phase::Over(_) | Phase::Lingering) => self.phase = over,
            Phase::Content(_) if !self.dialect.manners().has_receipt => {}
            Phase::Opening(body) if continues => self.skip(body, refusal.clone()),
            Phase::Content(content) if continues => self.discard(content.body, refusal.clone()),
            Phase::Head(_) | Phase::Opening(_) | Phase::Content(_) => self.last_word(refusal, peer),
        }
    }

    /// Ends the conversation in any state: this is the last word.
    pub fn dismiss(&mut self, refusal: &Refusal) {
        if !self.is_over() {
            self.last_word(refusal, Peer::Sending);
        }
    }

    /// The client is owed outcomes that will never be known. They may be good or bad, so it is told neither: this ends the
    /// conversation, and the connection with a reset.
    pub fn abandon(&mut self) {
        self.outcomes.forget_owed();
        self.phase = Phase::Over(Farewell::Reset);
    }

    /// The write side is shut down, after [`Farewell::Linger`].
    pub fn half_closed(&mut self) {
        self.phase = Phase::Lingering;
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

    /// The first `sent` bytes of [`Step::Say`] have been sent.
    pub fn transmitted(&mut self, sent: usize) {
        self.outcomes.sent(sent);
    }

    /// How many of the next bytes of content may be spliced into the file. None at the beginning of an upload: the first
    /// bytes show that the client does not wait for `ok`.
    pub fn spliceable(&self, rules: &Rules) -> u64 {
        match &self.phase {
            Phase::Content(Content { body, may_wait_for_ok: false, refused: None }) => {
                body.spliceable().min(rules.size_left(body.received()))
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

    /// Has taken in the content so far of the upload in progress, where that promised a digest.
    pub fn hasher(&self) -> Option<&Hasher> {
        match &self.phase {
            Phase::Content(content) => content.body.hasher(),
            _ => None,
        }
    }

    /// The ticket of the request in progress, or of the last one.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.requests)
    }

    /// Whether the end of the stream is all that will tell the client the outcome of the upload in progress.
    pub fn tells_by_ending(&self) -> bool {
        matches!(self.phase, Phase::Content(_)) && !self.dialect.manners().has_receipt
    }

    /// Whether no further request is read: the last word has been said, or waits for what is owed.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_) | Phase::Lingering)
    }

    /// Whether everything is said and our side is shut down.
    pub fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering)
    }

    /// Whether the outcome of a whole file is still owed.
    pub fn owes(&self) -> bool {
        self.outcomes.owed() > 0
    }

    fn owes_too_much(&self) -> bool {
        self.outcomes.owed() >= Self::OWED_MAX || self.outcomes.unsent().len() >= Self::UNSENT_MAX_BYTES
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
                self.dialect = dialect;
                self.skip(Body::framed(size, digest), refusal.clone());
                Some(Event::NotARequest(refusal, bytes.into()))
            }
            Head::Bad(refusal) => Some(self.not_a_request(refusal, bytes)),
        }
    }

    fn request(&mut self, request: Request, rules: &Rules) -> Event<'static> {
        self.requests += 1;
        self.dialect = request.dialect;
        self.phase = Phase::Opening(if request.dialect.is_framed() {
            Body::framed(request.size, request.digest)
        } else {
            Body::until_end_of_stream()
        });
        match rules.forbid(&request) {
            None => Event::Request(request),
            Some(refusal) => {
                self.refuse(&refusal, Peer::Sending);
                Event::Refused(refusal, request)
            }
        }
    }

    fn too_large(&mut self, rules: &Rules) -> Event<'static> {
        let refusal = rules.too_large();
        self.refuse(&refusal, Peer::Sending);
        Event::Failed(refusal)
    }

    fn not_a_request(&mut self, refusal: Refusal, head: Vec<u8>) -> Event<'static> {
        self.last_word(&refusal, Peer::Sending);
        Event::NotARequest(refusal, head.into())
    }

    /// Content has ended. The next request may follow, unless the content was cut off.
    fn end_of_content(&mut self, Ended { size, refused, end }: Ended) -> Option<Event<'static>> {
        self.phase = Phase::default();
        match (end, refused) {
            (End::Broken(_), Some(refused)) => {
                self.last_word(&refused, Peer::Sending);
                None
            }
            (_, Some(refused)) => {
                self.say(&Reply::No(*refused));
                None
            }
            (End::Whole(digest), None) => Some(Event::End(self.promise(size, digest))),
            (End::Mismatch(refusal), None) => {
                self.say(&Reply::No(refusal.clone()));
                Some(Event::Failed(refusal))
            }
            (End::Broken(refusal), None) => {
                self.last_word(&refusal, Peer::Sending);
                Some(Event::Failed(refusal))
            }
        }
    }

    /// Keeps a place for the outcome of a whole file.
    fn promise(&mut self, size: u64, digest: Option<Digest>) -> Whole {
        let whole = Whole { ticket: self.ticket(), size, digest };
        self.outcomes.promise(Pending { whole, dialect: self.dialect });
        whole
    }

    /// Gets past a request that is refused before any content. A client that waits for its answer sends none.
    fn skip(&mut self, body: Body, refusal: Refusal) {
        if self.dialect.waits_for_ok() {
            self.say(&Reply::No(refusal));
            self.phase = Phase::default();
        } else {
            self.discard(body, refusal);
        }
    }

    /// Reads and discards the rest of the content, to get to the next request.
    fn discard(&mut self, body: Body, refusal: Refusal) {
        let refused = Some(Box::new(refusal));
        self.phase = Phase::Content(Content { body, may_wait_for_ok: false, refused });
    }

    fn last_word(&mut self, refusal: &Refusal, peer: Peer) {
        self.say(&Reply::No(refusal.clone()));
        self.phase = Phase::Over(if peer == Peer::Silent { Farewell::Close } else { Farewell::Linger });
    }

    /// Says `reply` in the dialect of the request in progress, after all that is still owed.
    fn say(&mut self, reply: &Reply) {
        self.outcomes.say(self.dialect, reply);
    }
}

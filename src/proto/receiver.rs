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
//!     +------------------------------------- put, ask, HTTP ----------------+
//! ```
//!
//! A form of HTTP is one request with several files. Between two of them the state is Form; from there each file goes its way
//! through Opening and Content, and back.
//!
//! The driver does what [`Receiver::step`] says. It feeds what comes from the peer ([`Receiver::receive`],
//! [`Receiver::end_of_stream`]) and what the clock says ([`Receiver::end_of_burst`], [`Receiver::grace_elapsed`]). It acts
//! on each [`Event`] and answers it with [`Receiver::accept`], [`Receiver::needs_no_content`], [`Receiver::refuse`] or
//! [`Receiver::settle`]. [`Event::Request`] must be answered before the next input. [`Event::End`] may be answered any
//! time later and in any order: replies leave in the order of the requests.
//!
//! A resumable upload of HTTP comes in pieces ([`Event::ById`], [`Event::EndOfPiece`]). What was asked about it is answered
//! by [`Receiver::tell`] or [`Receiver::deny`], before the next input as well.
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
use super::dialect::{Head, HeadBuffer, Ok as OkWhen, Saying, Voice};
use super::outcomes::{Outcomes, Pending};
use super::rules::Rules;
use super::step::{Awaits, Event, Farewell, Held, Peer, Reading, ServerStep as Step};
use super::{ById, Code, Denial, Dialect, Digest, Hasher, Name, Promise, Refusal, Reply};
use super::{Request, ResumeId, Standing, Ticket, Whole};

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
/// assert_eq!(server.receive(&mut input, &rules), Some(Event::Content(b"one two three".into())));
/// let Some(Event::End(whole)) = server.end_of_stream(&rules) else { panic!("it ends the file") };
/// assert_eq!(server.step(false), ServerStep::Settle, "it stays until the file is stored");
/// server.settle(whole.ticket, Ok(&request.name), &rules);
/// assert_eq!(server.step(false), ServerStep::Part(Farewell::Close));
/// ```
#[derive(Debug)]
pub struct Receiver {
    phase: Phase,
    /// How the request in progress is answered, or else the last one.
    voice: Voice,
    outcomes: Outcomes,
    /// Requests so far. 64 bits, so that it never wraps.
    requests: u64,
}

#[derive(Debug)]
enum Phase {
    /// The head of a request is coming in.
    Head(HeadBuffer),
    /// A request waits to be judged. With what is quoted of it.
    Judging(Box<(Head, Vec<u8>)>),
    /// A request waits for its answer. Its content is to come.
    Opening(Body),
    Content(Body),
    /// A piece of a resumable upload has come, and the answer is not known yet.
    Answering,
    /// A form, between two of its files.
    Form(Body),
    /// No further request is read. Everything that is owed is said, and then this is how to part.
    Over(Farewell),
    /// Our side is shut down. What still comes is discarded.
    Lingering,
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
        Self { phase: Phase::default(), voice: Dialect::Line.into(), outcomes: Outcomes::default(), requests: 0 }
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
            _ if reads_on && self.may_add_to_unsent() && matches!(due, Step::Read(_)) => due,
            unsent => Step::Say(unsent),
        }
    }

    /// Whether more input can add to what is to be said. The content of a resumable upload may last for hours, and its client
    /// has to know at once where the upload is.
    fn may_add_to_unsent(&self) -> bool {
        match self.phase {
            Phase::Content(_) => !self.voice.is_by_id(),
            _ => !self.is_over(),
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
            Phase::Judging(_) | Phase::Opening(_) | Phase::Answering => Step::Answer,
            Phase::Form(_) if self.owes_too_much() => Step::Settle,
            Phase::Content(body) | Phase::Form(body) => Step::Read(Reading {
                awaits: if self.voice.may_wait_for_ok { Awaits::FirstContent } else { Awaits::Content },
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
        if head.ends_with_burst(self.after()) {
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
            let (may_begin, after) = (!self.owes_too_much(), self.after());
            let event = match &mut self.phase {
                // Checked only between requests: one that has begun can be finished.
                Phase::Head(_) if !may_begin => return None,
                Phase::Head(buffer) => {
                    let head = buffer.take(input, after, rules)?;
                    let line = buffer.take_line(after);
                    self.begin(head, line, rules)
                }
                Phase::Judging(_) | Phase::Opening(_) | Phase::Answering => return None,
                Phase::Form(_) if !may_begin => return None,
                Phase::Form(body) => match body.receive(input)? {
                    Piece::File(name) => {
                        let body = mem::take(body);
                        Some(self.begin_file(body, &name, rules))
                    }
                    Piece::End(end) => {
                        let has_files = body.has_files();
                        self.end_of_form(has_files, end, rules)
                    }
                    Piece::Content(bytes) => Some(Event::Discarded(bytes.len())),
                    Piece::EndOfFile => None,
                },
                Phase::Content(body) => match body.receive(input)? {
                    Piece::Content(_) if rules.is_too_large(body.received()) => {
                        Some(self.fail(rules.too_large(), rules))
                    }
                    Piece::Content(_) if body.is_too_long() => {
                        let Denial { refusal, problem } = Denial::more_than_its_size();
                        self.voice.note_problem(problem);
                        Some(self.fail(refusal, rules))
                    }
                    Piece::Content(bytes) if self.voice.refused().is_some() => Some(Event::Discarded(bytes.len())),
                    Piece::Content(bytes) => {
                        self.voice.may_wait_for_ok = false;
                        Some(Event::Content(bytes))
                    }
                    Piece::End(end) => {
                        let size = body.received();
                        self.end_of_content(size, end, rules)
                    }
                    Piece::EndOfFile | Piece::File(_) => {
                        let body = mem::take(body);
                        self.end_of_file(body)
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
        let after = self.after();
        let Phase::Head(buffer) = &mut self.phase else { return None };
        let head = buffer.end_of_burst(after, rules)?;
        let line = buffer.take_line(after);
        self.begin(head, line, rules)
    }

    /// The peer has shut down its side (FIN). While a request waits for its answer this does nothing: call it again later.
    pub fn end_of_stream(&mut self, rules: &Rules) -> Option<Event<'static>> {
        let after = self.after();
        let event = match &mut self.phase {
            Phase::Judging(_) | Phase::Opening(_) | Phase::Answering => return None,
            Phase::Head(buffer) if buffer.is_empty() => None,
            Phase::Head(buffer) => {
                let (words, voice) = (buffer.cut_off(after), buffer.speaks(after).into());
                let line = buffer.take_line(after);
                Some(self.not_a_request(Refusal::new(Code::BAD_REQUEST, words), voice, line, rules))
            }
            Phase::Content(body) => {
                let (end, size) = (body.end_of_stream(), body.received());
                self.end_of_content(size, end, rules)
            }
            Phase::Form(body) => {
                let (end, has_files) = (body.end_of_stream(), body.has_files());
                self.end_of_form(has_files, end, rules)
            }
            Phase::Over(Farewell::Linger) | Phase::Lingering => None,
            Phase::Over(_) => return None,
        };
        self.phase = Phase::Over(Farewell::Close);
        event
    }

    /// The server shuts down ([`Rules::is_draining`]), and everything that the client has sent so far has been read. Ends the
    /// conversation between two requests, once no outcome is owed: without words, unless a part of a request has come.
    pub fn end_of_requests(&mut self, rules: &Rules) -> Option<Event<'static>> {
        let (owes, after) = (self.owes(), self.after());
        let Phase::Head(buffer) = &mut self.phase else { return None };
        if buffer.is_empty() && owes {
            return None;
        }
        let voice = buffer.speaks(after).into();
        match &*buffer.take_line(after) {
            [] if self.requests == 0 => self.phase = Phase::Over(Farewell::Close),
            // After an upload the next request may be on its way. `/b` can only become `/bye`.
            [] | [b'/', b'b', ..] => self.phase = Phase::Over(Farewell::Linger),
            part => return Some(self.not_a_request(Refusal::shutting_down(), voice, part.into(), rules)),
        }
        None
    }

    /// The grace period after a line-dialect name passed in silence: the client may be waiting, so this says `ok`, once.
    pub fn grace_elapsed(&mut self) {
        if mem::take(&mut self.voice.may_wait_for_ok) && matches!(self.phase, Phase::Content(_)) {
            self.say(Reply::Ok(0), Saying::default());
        }
    }

    /// Answers [`Event::Request`]: the place to write exists, and has `held` already.
    pub fn accept(&mut self, held: Option<Held>) {
        let Some(mut body) = self.take_opening() else { return };
        let ok = self.voice.manners().ok;
        if ok == OkWhen::AtOnce {
            self.say(Reply::Ok(held.as_ref().map_or(0, |held| held.offset)), Saying::default());
        }
        if let Some(Held { offset, hasher }) = held {
            body.resume(offset, hasher);
        }
        self.voice.may_wait_for_ok = ok == OkWhen::AfterSilence;
        self.phase = Phase::Content(body);
    }

    /// Answers [`Event::ById`] if it has content, or may have some: there is a place for the piece, in the upload `id` after
    /// `offset` bytes. The upload may have `max_bytes` in all.
    pub fn accept_piece(&mut self, id: ResumeId, offset: u64, max_bytes: u64) {
        let Some(mut body) = self.take_opening() else { return };
        self.voice.note_upload(id);
        let mut announcement = Vec::new();
        self.voice.spell_announcement(&mut announcement);
        if !announcement.is_empty() {
            self.outcomes.say_spelled(announcement);
        }
        if self.voice.manners().ok == OkWhen::AtOnce {
            self.say(Reply::Ok(0), Saying::default());
        }
        body.begin_at(offset, max_bytes);
        self.phase = Phase::Content(body);
    }

    /// Answers [`Event::ById`], if it has no content, or [`Event::EndOfPiece`].
    pub fn tell(&mut self, standing: &Standing, rules: &Rules) {
        if !matches!(self.phase, Phase::Opening(_) | Phase::Answering) {
            return debug_assert!(false, "{:?} is no request that waits for its answer", self.phase);
        }
        let mut answer = Vec::new();
        self.voice.spell_standing(standing, Saying { now: rules.now, is_last: false }, &mut answer);
        self.outcomes.say_spelled(answer);
        self.phase = self.next();
        self.forget_request();
    }

    /// Answers [`Event::ById`] or [`Event::EndOfPiece`] with a refusal.
    pub fn deny(&mut self, denial: &Denial, rules: &Rules) {
        self.voice.note_problem(denial.problem);
        self.refuse(&denial.refusal, Peer::Sending, rules);
    }

    /// Answers [`Event::EndOfPiece`], or [`Event::ById`] without content, if the upload is whole: [`Receiver::settle`] tells
    /// the outcome. It has `size` bytes, and this `digest` if one was promised. Returns `None` and does nothing if there was no
    /// such event.
    pub fn promise_file(&mut self, size: u64, digest: Option<Digest>) -> Option<Whole> {
        match &self.phase {
            Phase::Answering => {}
            Phase::Opening(body) if self.voice.is_by_id() && body.is_empty() => {}
            _ => return None,
        }
        self.phase = self.next();
        Some(self.promise(size, digest))
    }

    /// Whether the request in progress could do without its content: the client has told size and digest, and waits for the
    /// answer to [`Event::Request`].
    pub fn may_omit_content(&self) -> bool {
        self.without_content().is_some()
    }

    /// Answers [`Event::Request`] if the file may be stored already: no content follows, and [`Receiver::settle`] tells the
    /// outcome. Returns `None` and does nothing unless [`Receiver::may_omit_content`].
    pub fn needs_no_content(&mut self) -> Option<Whole> {
        let (size, digest) = self.without_content()?;
        self.phase = self.next();
        Some(self.promise(size, Some(digest)))
    }

    fn without_content(&self) -> Option<(u64, Digest)> {
        match &self.phase {
            Phase::Opening(body) if self.voice.dialect.waits_for_ok() => Some((body.size()?, body.promised()?)),
            _ => None,
        }
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
    pub fn refuse(&mut self, refusal: &Refusal, peer: Peer, rules: &Rules) {
        let manners = self.voice.manners();
        let continues = manners.skips_refused && refusal.code.keeps_step();
        match mem::replace(&mut self.phase, Phase::Over(Farewell::Reset)) {
            over @ (Phase::Over(_) | Phase::Lingering) => self.phase = over,
            Phase::Content(_) if !manners.has_receipt => {}
            Phase::Opening(body) if self.voice.is_by_id() && body.is_empty() => self.no_piece(refusal, rules),
            Phase::Answering => self.no_piece(refusal, rules),
            Phase::Opening(body) if continues => self.skip(body, refusal.clone(), rules),
            Phase::Content(body) if continues => self.discard(body, refusal.clone()),
            Phase::Judging(judged) => {
                self.voice = judged.0.into_voice();
                self.last_word(refusal, peer, rules);
            }
            Phase::Opening(_) | Phase::Content(_) | Phase::Form(_) => self.last_word(refusal, peer, rules),
            Phase::Head(buffer) => {
                self.voice = buffer.speaks(self.after()).into();
                self.last_word(refusal, peer, rules);
            }
        }
    }

    /// Ends the conversation in any state: this is the last word.
    pub fn dismiss(&mut self, refusal: &Refusal, rules: &Rules) {
        if let Phase::Head(buffer) = &self.phase {
            self.voice = buffer.speaks(self.after()).into();
        }
        if !self.is_over() {
            self.last_word(refusal, Peer::Sending, rules);
        }
    }

    /// Ends the conversation without a word: the client could not understand any.
    pub fn hang_up(&mut self) {
        self.outcomes.forget_owed();
        self.phase = Phase::Over(Farewell::Linger);
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
    pub fn settle(&mut self, ticket: Ticket, result: Result<&Name, &Refusal>, rules: &Rules) -> bool {
        let Some(dialect) = self.outcomes.settle(ticket, result, rules.now) else { return false };
        let wants_receipt = dialect.manners().has_receipt;
        match (result, &self.phase) {
            (Err(_), _) if !wants_receipt => self.phase = Phase::Over(Farewell::Reset),
            (Err(_), Phase::Over(_)) | (Ok(_), _) => {}
            (Err(refusal), _) if refusal.code.keeps_step() => {}
            (Err(_), _) => {
                self.answer_form(true, rules);
                self.phase = Phase::Over(Farewell::Linger);
            }
        }
        true
    }

    /// The first `sent` bytes of [`Step::Say`] have been sent.
    pub fn transmitted(&mut self, sent: usize) {
        self.outcomes.sent(sent);
    }

    /// All replies to requests before this one have been sent. `None`: some that are known have not.
    pub fn told_before(&self) -> Option<Ticket> {
        self.outcomes.told_before()
    }

    /// How many of the next bytes of content may be spliced into the file. None at the beginning of an upload: the first
    /// bytes show that the client does not wait for `ok`.
    pub fn spliceable(&self, rules: &Rules) -> u64 {
        match &self.phase {
            Phase::Content(body) if !self.voice.may_wait_for_ok && self.voice.refused().is_none() => {
                body.spliceable().min(rules.size_left(body.received()))
            }
            _ => 0,
        }
    }

    /// `count` bytes of [`Receiver::spliceable`] were spliced into the file. Call [`Receiver::receive`] with an empty input
    /// to learn what follows from that.
    pub fn spliced(&mut self, count: u64) {
        if let Phase::Content(body) = &mut self.phase {
            body.spliced(count);
        }
    }

    /// Has taken in the content so far of the upload in progress, where that promised a digest.
    pub fn hasher(&self) -> Option<&Hasher> {
        match &self.phase {
            Phase::Content(body) => body.hasher(),
            _ => None,
        }
    }

    /// The ticket of the request in progress, or of the last one.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.requests)
    }

    /// The code with which the request in progress is to be refused if its name is taken.
    pub fn code_if_taken(&self) -> Code {
        self.voice.code_if_taken()
    }

    /// Whether the end of the stream is all that will tell the client the outcome of the upload in progress.
    pub fn tells_by_ending(&self) -> bool {
        matches!(self.phase, Phase::Content(_)) && !self.voice.manners().has_receipt
    }

    /// Whether no further request is read: the last word has been said, or waits for what is owed.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_) | Phase::Lingering)
    }

    /// Whether everything is said and our side is shut down.
    pub fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering)
    }

    /// Whether anything has been asked.
    pub fn has_been_asked(&self) -> bool {
        self.requests > 0
    }

    /// Whether the end of the stream would be the end of the file, and nothing else says whether the file is whole.
    pub fn trusts_the_end(&self) -> bool {
        matches!(self.phase, Phase::Content(_)) && !self.voice.dialect.is_framed()
    }

    /// Whether the client has ended the stream, so that nothing more can be asked.
    pub fn has_ended_with_stream(&self) -> bool {
        matches!(self.phase, Phase::Over(Farewell::Close))
    }

    /// Whether the outcome of a whole file is still owed.
    pub fn owes(&self) -> bool {
        self.outcomes.owed() > 0
    }

    fn owes_too_much(&self) -> bool {
        self.outcomes.owed() >= Self::OWED_MAX || self.outcomes.unsent().len() >= Self::UNSENT_MAX_BYTES
    }

    /// The dialect of the request before the head that comes in.
    fn after(&self) -> Option<Dialect> {
        self.has_been_asked().then_some(self.voice.dialect)
    }

    /// The state after a request that has ended as it should.
    fn next(&self) -> Phase {
        if self.voice.is_last() { Phase::Over(Farewell::Linger) } else { Phase::default() }
    }

    /// A head is whole, or can no longer become one. `line` is what is quoted of it.
    fn begin(&mut self, mut head: Head, line: Vec<u8>, rules: &Rules) -> Option<Event<'static>> {
        if rules.is_draining && !matches!(head, Head::Bye) {
            return Some(self.not_a_request(Refusal::shutting_down(), head.into_voice(), line, rules));
        }
        match head.voice_of_write() {
            Some(voice) if rules.needs_token => {
                let credential = voice.take_credential();
                self.phase = Phase::Judging(Box::new((head, line)));
                Some(Event::Judge(credential))
            }
            _ => self.follow(head, line, rules),
        }
    }

    /// Answers [`Event::Judge`]: the client may write. Returns what it asks for.
    pub fn admit(&mut self, rules: &Rules) -> Option<Event<'static>> {
        let (head, line) = self.take_judged()?;
        self.follow(head, line, rules)
    }

    /// Answers [`Event::Judge`]: the client may not write. This is the last word.
    pub fn turn_away(&mut self, refusal: &Refusal, rules: &Rules) {
        let Some((head, _)) = self.take_judged() else { return };
        self.count(head.into_voice());
        self.last_word(refusal, Peer::Sending, rules);
    }

    /// The dialect of the last request, or of the one that waits to be judged.
    pub fn dialect(&self) -> Dialect {
        match &self.phase {
            Phase::Judging(judged) => judged.0.dialect_of_write().unwrap_or(self.voice.dialect),
            _ => self.voice.dialect,
        }
    }

    fn take_judged(&mut self) -> Option<(Head, Vec<u8>)> {
        match mem::take(&mut self.phase) {
            Phase::Judging(judged) => Some(*judged),
            phase => {
                debug_assert!(false, "{phase:?} is no request that waits to be judged");
                self.phase = phase;
                None
            }
        }
    }

    /// The client may ask for what `head` says.
    fn follow(&mut self, head: Head, line: Vec<u8>, rules: &Rules) -> Option<Event<'static>> {
        match head {
            head if rules.only_http && !head.speaks_http() => {
                let words = "this connection was agreed to be HTTP (ALPN http/1.1)";
                Some(self.not_a_request(Refusal::new(Code::BAD_REQUEST, words), head.into_voice(), line, rules))
            }
            Head::Bye => {
                self.phase = Phase::Over(Farewell::Linger);
                None
            }
            Head::Upload(request, voice) => Some(self.request(request, voice, rules)),
            Head::ById { what, size, checksum, voice } => Some(self.by_id(what, size, checksum, voice, rules)),
            Head::BadName { voice, size, digest, refusal } => {
                self.count(voice);
                let chunks = self.voice.manners().chunks.expect("only a request with a framing has a bad name");
                self.skip(Body::framed(size, digest, chunks), refusal.clone(), rules);
                Some(Event::NotARequest(refusal, line.into()))
            }
            Head::Form { size, splitter, expects, voice } => {
                self.count(voice);
                if expects {
                    self.outcomes.say(&Dialect::Http.into(), Reply::Ok(0), Saying::default());
                }
                self.phase = Phase::Form(Body::form(size, *splitter));
                None
            }
            Head::Asked { what, answer, voice } => {
                self.count(voice);
                self.phase = self.next();
                self.forget_request();
                self.outcomes.say_spelled(answer);
                Some(match what {
                    Ok(what) => Event::Answered(what),
                    Err(refusal) => Event::NotARequest(refusal, line.into()),
                })
            }
            Head::Bad(refusal, voice) => Some(self.not_a_request(refusal, voice, line, rules)),
        }
    }

    /// Another request has come, which is answered in `voice`.
    fn count(&mut self, voice: Voice) {
        self.requests += 1;
        self.voice = voice;
    }

    fn request(&mut self, request: Request, voice: Voice, rules: &Rules) -> Event<'static> {
        self.count(voice);
        self.phase = Phase::Opening(match self.voice.manners().chunks {
            Some(chunks) => Body::framed(request.size, request.digest, chunks),
            None => Body::until_end_of_stream(),
        });
        match rules.forbid(&request) {
            None => Event::Request(request),
            Some(refusal) => {
                self.refuse(&refusal, Peer::Sending, rules);
                Event::Refused(refusal, request)
            }
        }
    }

    /// A resumable upload is asked about.
    fn by_id(
        &mut self,
        what: ById,
        size: Option<u64>,
        checksum: Option<Promise>,
        voice: Voice,
        rules: &Rules,
    ) -> Event<'static> {
        self.count(voice);
        let chunks = self.voice.manners().chunks.expect("only HTTP has resumable uploads");
        self.phase = Phase::Opening(Body::framed(size, checksum, chunks));
        let forbidden = match &what {
            ById::Create(creation) => rules.forbid(&creation.request),
            _ => what.size().filter(|size| rules.is_too_large(*size)).map(|_| rules.too_large()),
        };
        match forbidden {
            None => Event::ById(what),
            Some(refusal) => self.fail(refusal, rules),
        }
    }

    /// A file of the form begins.
    fn begin_file(&mut self, body: Body, name: &[u8], rules: &Rules) -> Event<'static> {
        self.requests += 1;
        match Name::parse(name, rules.names) {
            Ok(name) => {
                self.phase = Phase::Opening(body);
                Event::Request(Request::until_end_of_stream(self.voice.dialect, name))
            }
            Err(error) => {
                let refusal = Refusal::new(Code::FORBIDDEN, error.to_string());
                self.discard(body, refusal.clone());
                Event::NotARequest(refusal, name.into())
            }
        }
    }

    /// The file of the form has ended. Another one may follow.
    fn end_of_file(&mut self, body: Body) -> Option<Event<'static>> {
        let size = body.received();
        self.phase = Phase::Form(body);
        match self.voice.take_refused() {
            Some(refused) => {
                self.say(Reply::No(refused), Saying::default());
                None
            }
            None => Some(Event::End(self.promise(size, None))),
        }
    }

    /// Nothing more of the form comes.
    fn end_of_form(&mut self, has_files: bool, end: End, rules: &Rules) -> Option<Event<'static>> {
        let refusal = match end {
            End::Whole(_) if has_files => {
                self.phase = self.next();
                self.answer_form(false, rules);
                return None;
            }
            End::Whole(_) => Refusal::new(Code::BAD_REQUEST, "the form holds no file; choose one"),
            End::Mismatch(refusal) | End::Broken(refusal) => refusal,
        };
        self.last_word(&refusal, Peer::Sending, rules);
        Some(Event::NotARequest(refusal, b"POST /".as_slice().into()))
    }

    /// Says the one answer for the files of the form in progress, if there is one.
    fn answer_form(&mut self, is_last: bool, rules: &Rules) {
        if self.voice.is_of_form() {
            let voice = self.forget_request();
            self.outcomes.say_form(voice, Saying { now: rules.now, is_last });
        }
    }

    fn fail(&mut self, refusal: Refusal, rules: &Rules) -> Event<'static> {
        self.refuse(&refusal, Peer::Sending, rules);
        Event::Failed(refusal)
    }

    fn not_a_request(&mut self, refusal: Refusal, voice: Voice, line: Vec<u8>, rules: &Rules) -> Event<'static> {
        self.voice = voice;
        self.last_word(&refusal, Peer::Sending, rules);
        Event::NotARequest(refusal, line.into())
    }

    /// Content of `size` bytes has ended. The next request may follow, unless the content was cut off.
    fn end_of_content(&mut self, size: u64, end: End, rules: &Rules) -> Option<Event<'static>> {
        self.phase = self.next();
        let (saying, code) = (Saying { now: rules.now, is_last: false }, self.voice.code_if_mismatched());
        match (end, self.voice.refused().cloned()) {
            (End::Broken(_), Some(refused)) => {
                self.last_word(&refused, Peer::Sending, rules);
                None
            }
            (_, Some(refused)) => {
                self.say(Reply::No(refused), saying);
                None
            }
            (End::Whole(_), None) if self.voice.is_by_id() => {
                self.phase = Phase::Answering;
                Some(Event::EndOfPiece)
            }
            (End::Whole(digest), None) => Some(Event::End(self.promise(size, digest))),
            (End::Mismatch(refusal), None) => {
                let refusal = Refusal { code, ..refusal };
                self.say(Reply::No(refusal.clone()), saying);
                Some(Event::Failed(refusal))
            }
            (End::Broken(refusal), None) => {
                self.last_word(&refusal, Peer::Sending, rules);
                Some(Event::Failed(refusal))
            }
        }
    }

    /// Keeps a place for the outcome of a whole file.
    fn promise(&mut self, size: u64, digest: Option<Digest>) -> Whole {
        let whole = Whole { ticket: self.ticket(), size, digest, code_if_taken: self.code_if_taken() };
        let voice = if self.voice.is_of_form() { Dialect::HttpForm.into() } else { self.forget_request() };
        self.outcomes.promise(Pending { whole, voice });
        whole
    }

    /// Gets past a request that is refused before any content. A client that waits for its answer sends none.
    fn skip(&mut self, body: Body, refusal: Refusal, rules: &Rules) {
        if self.voice.dialect.waits_for_ok() {
            self.phase = self.next();
            self.say(Reply::No(refusal), Saying { now: rules.now, is_last: false });
        } else {
            self.discard(body, refusal);
        }
    }

    /// Reads and discards the rest of the content, to get to the next request.
    fn discard(&mut self, body: Body, refusal: Refusal) {
        self.voice.refuse(refusal);
        self.phase = Phase::Content(body);
    }

    /// Refuses what is asked about a resumable upload, where no content is left to be read.
    fn no_piece(&mut self, refusal: &Refusal, rules: &Rules) {
        if [Code::SHUTTING_DOWN, Code::TIMEOUT, Code::BAD_REQUEST].contains(&refusal.code) {
            return self.last_word(refusal, Peer::Sending, rules);
        }
        self.phase = self.next();
        self.say(Reply::No(refusal.clone()), Saying { now: rules.now, is_last: false });
    }

    fn last_word(&mut self, refusal: &Refusal, peer: Peer, rules: &Rules) {
        self.say(Reply::No(refusal.clone()), Saying { now: rules.now, is_last: true });
        self.answer_form(true, rules);
        self.phase = Phase::Over(if peer == Peer::Silent { Farewell::Close } else { Farewell::Linger });
    }

    /// Says `reply` in the voice of the request in progress, after all that is still owed.
    fn say(&mut self, reply: Reply, saying: Saying) {
        let is_answer = !matches!(reply, Reply::Ok(_)) && !self.voice.is_of_form();
        self.outcomes.say(&self.voice, reply, saying);
        if is_answer {
            self.forget_request();
        }
    }

    /// The request has its answer, or a place for one. A connection that waits for the next request holds no memory for it.
    fn forget_request(&mut self) -> Voice {
        let dialect = self.voice.dialect;
        mem::replace(&mut self.voice, dialect.into())
    }
}

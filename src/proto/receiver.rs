//! The server's half of a conversation.
//!
//! ```text
//!            first line          accept()           FIN            published()
//!   Header ------------> Opening --------> Content -----> Publishing ---------> Over
//!      |                    |                 |               |                  ^
//!      +--------------------+---- refuse() ---+---------------+------------------+
//! ```
//!
//! The one who drives it feeds what comes from the peer ([`Receiver::receive`], [`Receiver::end_of_stream`]) and what
//! time does ([`Receiver::end_of_burst`], [`Receiver::grace_elapsed`]), acts on the [`Event`]s, answers them with
//! [`Receiver::accept`], [`Receiver::published`] or [`Receiver::refuse`], and sends what [`Receiver::transmit`] holds.
//! The answer to an event comes before the next input.
//!
//! **How the input is cut never matters**, with the one exception that the wire itself makes: where the first burst ends
//! without a line feed, there the name ends.

use super::{Code, Dialect, Name, NameError, NamePolicy, Receipt, Refusal};

/// A file that a client wants to hand over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How it was asked for.
    pub dialect: Dialect,
    /// What the file is to be called.
    pub name: Name,
}

/// What the input means.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Make a place to write, then [`Receiver::accept`] or [`Receiver::refuse`].
    Request(Request),
    /// Bytes of the file.
    Content(&'a [u8]),
    /// The file is whole: publish it, then [`Receiver::published`] or [`Receiver::refuse`].
    End,
    /// What came first, so far as it came, is no request. The words are on their way.
    Refused(Refusal, Vec<u8>),
    /// So many bytes came after the last word and mean nothing any more.
    Discarded(usize),
}

/// What the conversation waits for, so that whoever holds the clock knows which patience applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The first byte.
    Header,
    /// The rest of a first line that silence does not end.
    RestOfHeader,
    /// The rest of a name that the end of the burst ends.
    RestOfName,
    /// The first byte of content, from a client that may be waiting for `ok`.
    FirstContent,
    /// Content.
    Content,
    /// The answer to an event: nothing from the peer.
    Verdict,
    /// The end of a peer that has been told the last word.
    EndOfStream,
}

/// How to part from the peer once all is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Close.
    Close,
    /// Shut down the write side, go on feeding what comes until FIN, then close: a close with unread data would turn into
    /// a reset that can overtake the last word (RFC 1122 4.2.2.13).
    Linger,
    /// Close with a reset, so that a client that can be told nothing else sees an error.
    Reset,
}

/// Whether a peer that is refused may still be sending. To one that is silent the last word gets through without a linger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It may have sent what was not read yet.
    Sending,
    /// All that it sent has been read, for a while.
    Silent,
}

/// The server's half of one conversation. Feed, act, answer, send.
#[derive(Debug)]
pub struct Receiver {
    phase: Phase,
    /// What is to be sent, and not sent yet.
    reply: Vec<u8>,
    names: NamePolicy,
}

#[derive(Debug)]
enum Phase {
    /// Collecting the first line.
    Header(Vec<u8>),
    Opening(Dialect),
    Content(Content),
    Publishing(Dialect),
    Over(Farewell),
}

#[derive(Clone, Copy, Debug)]
struct Content {
    dialect: Dialect,
    /// No content has come, and the client has not been told to go on: it may be waiting for that.
    may_wait_for_ok: bool,
}

impl Receiver {
    /// The state before the first byte.
    pub fn new(names: NamePolicy) -> Self {
        Self { phase: Phase::Header(Vec::new()), reply: Vec::new(), names }
    }

    /// Takes bytes from the front of `input` and says what they mean. Call until `None`: then all of `input` is taken.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Option<Event<'a>> {
        if input.is_empty() {
            return None;
        }
        match &mut self.phase {
            Phase::Header(_) => self.receive_header(input),
            Phase::Content(content) => {
                content.may_wait_for_ok = false;
                Some(Event::Content(std::mem::take(input)))
            }
            Phase::Over(_) => Some(Event::Discarded(std::mem::take(input).len())),
            Phase::Opening(_) | Phase::Publishing(_) => unreachable!("an event was not answered before the next input"),
        }
    }

    /// The peer has sent all that it will send for now: a name without a line feed is whole.
    pub fn end_of_burst(&mut self) -> Option<Event<'static>> {
        match &self.phase {
            Phase::Header(header) if !matches!(header.first(), None | Some(b'/')) => {
                Some(self.request(Dialect::Classic))
            }
            _ => None,
        }
    }

    /// The peer has shut down its side (FIN).
    pub fn end_of_stream(&mut self) -> Option<Event<'static>> {
        match &self.phase {
            Phase::Header(header) if header.is_empty() => self.phase = Phase::Over(Farewell::Close),
            Phase::Header(_) => {
                let words = "the stream ended before the name did; end the name with a line feed, or wait for ok";
                let refused = self.refused(Refusal::new(Code::BAD_REQUEST, words));
                self.phase = Phase::Over(Farewell::Close);
                return Some(refused);
            }
            Phase::Content(content) => {
                self.phase = Phase::Publishing(content.dialect);
                return Some(Event::End);
            }
            Phase::Over(Farewell::Linger) => self.phase = Phase::Over(Farewell::Close),
            Phase::Opening(_) | Phase::Publishing(_) | Phase::Over(_) => {}
        }
        None
    }

    /// Nothing at all came after a line-dialect name for as long as a client that streams on is never silent: tells it to
    /// go on, once.
    pub fn grace_elapsed(&mut self) {
        if self.awaits() == Awaits::FirstContent {
            self.phase = Phase::Content(Content { dialect: Dialect::Line, may_wait_for_ok: false });
            self.reply.extend_from_slice(b"ok\n");
        }
    }

    /// Answers [`Event::Request`]: the place to write exists.
    pub fn accept(&mut self) {
        let Phase::Opening(dialect) = self.phase else { unreachable!("accept answers a request") };
        if dialect == Dialect::Classic {
            self.reply.extend_from_slice(b"ok");
        }
        self.phase = Phase::Content(Content { dialect, may_wait_for_ok: dialect == Dialect::Line });
    }

    /// Answers [`Event::End`]: the file is under its final name.
    pub fn published(&mut self, receipt: &Receipt) {
        let Phase::Publishing(dialect) = self.phase else { unreachable!("published answers the end of content") };
        if dialect == Dialect::Line {
            self.say(receipt);
        }
        self.phase = Phase::Over(Farewell::Close);
    }

    /// Ends the conversation, as an answer to an event or at any other time before it is over.
    ///
    /// A classic client past its `ok` can be told nothing in words; it gets a reset.
    pub fn refuse(&mut self, refusal: &Refusal, peer: Peer) {
        self.phase = Phase::Over(match &self.phase {
            Phase::Content(Content { dialect: Dialect::Classic, .. }) | Phase::Publishing(Dialect::Classic) => {
                Farewell::Reset
            }
            Phase::Over(farewell) => *farewell,
            phase => {
                let peer_has_ended = matches!(phase, Phase::Publishing(_));
                self.say(refusal);
                if peer_has_ended || peer == Peer::Silent { Farewell::Close } else { Farewell::Linger }
            }
        });
    }

    /// What is to be sent now; empty when nothing is.
    pub fn transmit(&self) -> &[u8] {
        &self.reply
    }

    /// The first `sent` bytes of [`Receiver::transmit`] are sent.
    pub fn transmitted(&mut self, sent: usize) {
        self.reply.drain(..sent);
        if self.reply.is_empty() {
            // An idle connection holds no buffer.
            self.reply = Vec::new();
        }
    }

    /// What the conversation waits for. May change with every call of the others.
    pub fn awaits(&self) -> Awaits {
        match &self.phase {
            Phase::Header(header) => match header.first() {
                None => Awaits::Header,
                Some(b'/') => Awaits::RestOfHeader,
                Some(_) => Awaits::RestOfName,
            },
            Phase::Content(Content { may_wait_for_ok: true, .. }) => Awaits::FirstContent,
            Phase::Content(_) => Awaits::Content,
            Phase::Opening(_) | Phase::Publishing(_) => Awaits::Verdict,
            Phase::Over(_) => Awaits::EndOfStream,
        }
    }

    /// How to part, as soon as the conversation is over and all of it is sent.
    pub fn farewell(&self) -> Option<Farewell> {
        match self.phase {
            Phase::Over(farewell) if self.reply.is_empty() => Some(farewell),
            _ => None,
        }
    }

    fn receive_header<'a>(&mut self, input: &mut &'a [u8]) -> Option<Event<'a>> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            let Phase::Header(header) = &mut self.phase else { unreachable!("a header is being received") };
            if byte == b'\n' {
                header.pop_if(|last| *last == b'\r');
                return Some(self.request(Dialect::Line));
            }
            header.push(byte);
            if let Some(refusal) = refusal_so_far(header) {
                return Some(self.refused(refusal));
            }
        }
        None
    }

    /// The first line is whole.
    fn request(&mut self, dialect: Dialect) -> Event<'static> {
        let Phase::Header(header) = &self.phase else { unreachable!("a request comes out of a header") };
        match Name::parse(header, self.names) {
            Ok(name) => {
                self.phase = Phase::Opening(dialect);
                Event::Request(Request { dialect, name })
            }
            Err(error) => {
                let refusal = Refusal::new(Code::FORBIDDEN, words_for(error, header));
                self.refused(refusal)
            }
        }
    }

    fn refused(&mut self, refusal: Refusal) -> Event<'static> {
        let Phase::Header(header) = &mut self.phase else { unreachable!("only a header can be no request") };
        let header = std::mem::take(header);
        self.refuse(&refusal, Peer::Sending);
        Event::Refused(refusal, header)
    }

    fn say(&mut self, line: impl std::fmt::Display) {
        use std::io::Write;
        writeln!(self.reply, "{line}").expect("writing to a Vec cannot fail");
    }
}

/// Whether a first line can be refused at this byte already, and so at the same one however it was cut.
fn refusal_so_far(header: &[u8]) -> Option<Refusal> {
    const VERBS: [&[u8]; 3] = [b"/put ", b"/ask ", b"/bye"];
    if header[0] == b'/' {
        let words = if VERBS.contains(&header) {
            "this server does not take /put, /ask or /bye; send the base name, a line feed and the content"
        } else if VERBS.iter().any(|verb| verb.starts_with(header)) {
            return None;
        } else {
            "a name carries no path; send the base name, or /put size=BYTES NAME"
        };
        return Some(Refusal::new(Code::BAD_REQUEST, words));
    }
    // The CR of a CR LF is not part of the name.
    let name = header.strip_suffix(b"\r").unwrap_or(header);
    (name.len() > Name::MAX_BYTES).then(|| Refusal::new(Code::FORBIDDEN, NameError::TooLong.to_string()))
}

fn words_for(error: NameError, name: &[u8]) -> String {
    let speaks_http = name.windows(6).any(|word| word == b"HTTP/1");
    if speaks_http { "HTTP is not spoken here; send the base name".into() } else { error.to_string() }
}

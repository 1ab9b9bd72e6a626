//! The values that the server's half of a conversation and its driver exchange.
//!
//! The conversation says what to do next ([`ServerStep`]) and what the input means ([`Event`]). This module knows neither the
//! order of these nor the wire.

use std::borrow::Cow;

use super::{ById, Credential, Hasher, Refusal, Request, Whole};

/// What the driver of a [`super::Receiver`] does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerStep<'a> {
    /// Send these bytes, and call [`super::Receiver::transmitted`]. Until the client takes them, read nothing: its own
    /// window then stops it (RFC 9293, 3.8.6).
    Say(&'a [u8]),
    /// Read, and hand what comes to [`super::Receiver::receive`].
    Read(Reading),
    /// Read nothing before the last [`Event`] is answered.
    Answer,
    /// Read nothing before an outcome is settled.
    Settle,
    /// Close, or begin to. The conversation is over, and everything is sent.
    Part(Farewell),
}

/// What may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What is to come.
    pub awaits: Awaits,
    /// The most bytes to read at once. What is read and cannot be processed yet has to be kept in memory.
    pub max_bytes: u64,
    /// This many of the next bytes are content, unless the stream ends. `u64::MAX`: all of them.
    pub content_bytes: u64,
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
    /// An answer from the driver, and no input before that: [`Event::Request`] or another question is not answered, too
    /// much is owed, or the peer has ended its side.
    Answer,
    /// An answer from the driver. Input is read meanwhile.
    Settlement,
    /// The end of the stream. The last reply has been sent.
    EndOfStream,
}

/// How to close the connection once everything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Close.
    Close,
    /// Shut down the write side and call [`super::Receiver::half_closed`]. What still comes is read and discarded until
    /// FIN. A close with unread data would become a reset, which can overtake the last reply (RFC 1122, 4.2.2.13).
    Linger,
    /// Close with a reset. No reply is possible, or the outcome is unknown, and the client must see an error.
    Reset,
}

/// What the input means.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Before anything else about a request: may this client write, which has shown this token or none? Answer with
    /// [`super::Receiver::admit`] or [`super::Receiver::turn_away`]. Comes only if [`super::Rules::needs_token`].
    Judge(Option<Credential>),
    /// The client asks for an upload. Make a place to write, then [`super::Receiver::accept`] or [`super::Receiver::refuse`].
    Request(Request),
    /// Something is asked about a resumable upload of HTTP. Answer with [`super::Receiver::accept_piece`] if it has content,
    /// with [`super::Receiver::tell`] or with [`super::Receiver::deny`].
    ById(ById),
    /// Bytes of the file.
    Content(Cow<'a, [u8]>),
    /// The file is whole and as promised. Publish it, then [`super::Receiver::settle`].
    End(Whole),
    /// The piece of a resumable upload has all come, and has the checksum that was promised. Answer with
    /// [`super::Receiver::promise_file`] if the upload is whole, else with [`super::Receiver::tell`] or
    /// [`super::Receiver::deny`].
    EndOfPiece,
    /// The upload has failed, and the refusal is among the replies. What came of the file is of use only for a resume, if
    /// [`super::Code::keeps_partial`].
    Failed(Refusal),
    /// The rules forbid the request, and the refusal is among the replies.
    Refused(Refusal, Request),
    /// These bytes are not a request that can be followed, and the refusal is among the replies.
    NotARequest(Refusal, Box<[u8]>),
    /// The client asked for something other than an upload, and the answer is among the replies. This names it for the log.
    Answered(&'static str),
    /// This many bytes were discarded.
    Discarded(usize),
}

/// Whether a refused peer may still be sending. If not, the connection is closed without a linger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It may have sent what was not read yet.
    Sending,
    /// Everything that it sent has been read, and nothing has come for a while.
    Silent,
}

/// What the server has of an upload that is resumed.
#[derive(Clone, Debug)]
pub struct Held {
    /// How much, in bytes.
    pub offset: u64,
    /// Has taken in these bytes, for the digest that the request promises.
    pub hasher: Hasher,
}

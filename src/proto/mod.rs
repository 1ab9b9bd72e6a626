//! The wire, as values: bytes in, events and bytes out.
//!
//! Everything that affects the conversation stands here, for both of its sides, and nothing here knows a socket, a file
//! or a clock. What time does to a conversation (a burst has ended, the peer was too slow) comes in as an input like the
//! bytes do, so any split of the same bytes gives the same events.

mod body;
mod digest;
mod name;
mod number;
mod outcomes;
mod receiver;
mod reply;
mod request;
mod sender;

pub use digest::{Algorithm, Digest, Hasher};
pub use name::{Name, NameError, NamePolicy};
pub use outcomes::Ticket;
pub use receiver::{Awaits, Event, Farewell, Peer, Receiver, Rules};
pub use reply::{Code, ParseReplyError, Receipt, Refusal, Reply};
pub use request::{Promise, Request};
pub use sender::{Failure, Outcome, Sender, Step, Stored};

/// How an upload is spoken: what decides how its content ends, and what the client may be told. Nothing is negotiated, the
/// first bytes tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The network tutorials': a bare name; `ok`; content until FIN; never another word.
    #[default]
    Classic,
    /// `NAME LF`; content at once, until FIN; one receipt line.
    Line,
    /// `/put ATTRS NAME LF`; content at once, as long as the request says; a receipt line; the next request.
    Put,
    /// `/ask ATTRS NAME LF`; `ok OFFSET LF`; then as put.
    Ask,
}

impl Dialect {
    /// Whether the end of the content is told by its framing, so that it is not mistaken for a broken connection and
    /// another request may follow.
    pub fn is_framed(self) -> bool {
        matches!(self, Self::Put | Self::Ask)
    }
}

/// What to do when an upload's final name is already taken. The default is [`OnExists::Rename`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExists {
    /// The upload is refused (409) and what is there stays as it is.
    Refuse,
    /// The upload takes the next free name: `report.pdf.1`, `report.pdf.2`, …
    #[default]
    Rename,
    /// The upload takes the place of the regular file that is there.
    Replace,
}

impl OnExists {
    const WORDS: [(&'static str, Self); 3] =
        [("refuse", Self::Refuse), ("rename", Self::Rename), ("replace", Self::Replace)];

    /// As the wire spells it.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// Reads [`OnExists::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }
}

//! The wire, as values: bytes in, events and bytes out.
//!
//! Everything that affects the conversation stands here, for both of its sides, and nothing here knows a socket, a file
//! or a clock. What time does to a conversation (a burst has ended, the peer was too slow) comes in as an input like the
//! bytes do, so any split of the same bytes gives the same events.

mod name;
mod receiver;
mod reply;
mod sender;

pub use name::{Name, NameError, NamePolicy};
pub use receiver::{Awaits, Event, Farewell, Peer, Receiver, Request};
pub use reply::{Code, ParseReplyError, Receipt, Refusal, Reply};
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

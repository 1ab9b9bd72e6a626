//! The wire, as values: bytes in, events and bytes out.
//!
//! Everything that affects the conversation stands here, for both of its sides, and nothing here knows a socket, a file
//! or a clock. What time does to a conversation (a burst has ended, the peer was too slow) comes in as an input like
//! the bytes do, so any split of the same bytes gives the same events.
//!
//! That is what it is good for. TCP is a stream (RFC 9293, 2.2): what was written by one call is read by any number of
//! them. A protocol that reads its socket itself is tried only with the pieces that a test's network happens to make;
//! this one is fed every split of every request, and a whole conversation is a few lines without any network:
//!
//! ```
//! use intake::proto::{Dialect, Event, Name, NamePolicy, Receiver, Request, Rules};
//! use intake::proto::{Sender, Step, Stored};
//!
//! let name = Name::parse(b"hello.txt", NamePolicy::default()).unwrap();
//! let (mut client, mut server, rules) = (Sender::new(), Receiver::default(), Rules::default());
//! let request = Request::until_end_of_stream(Dialect::Put, name.clone());
//! client.begin(&Request { size: Some(5), ..request });
//!
//! let mut wire = Vec::new();
//! let outcome = loop {
//!     match client.step() {
//!         Step::Transmit(line) => {
//!             wire.extend_from_slice(line);
//!             let sent = line.len();
//!             client.transmitted(sent);
//!         }
//!         Step::Send(range) => {
//!             let content = &b"hello"[range.start as usize..range.end as usize];
//!             wire.extend_from_slice(content);
//!             client.content(content);
//!         }
//!         _ => {}
//!     }
//!     let mut input = &*std::mem::take(&mut wire);
//!     while let Some(event) = server.receive(&mut input, &rules) {
//!         match event {
//!             Event::Request(_) => server.accept(None),
//!             Event::Content(bytes) => assert_eq!(bytes, b"hello"),
//!             Event::End(whole) => {
//!                 server.settle(whole.ticket, Ok(&name));
//!             }
//!             other => panic!("{other:?}"),
//!         }
//!     }
//!     client.receive(server.transmit());
//!     let sent = server.transmit().len();
//!     server.transmitted(sent);
//!     if let Some(outcome) = client.outcome() {
//!         break outcome;
//!     }
//! };
//! let Ok(Stored::Receipt(receipt)) = outcome else { panic!("{outcome:?}") };
//! assert_eq!(receipt.stored_name, "hello.txt");
//! ```
//!
//! # The dialects
//!
//! Nothing is negotiated: the first bytes tell, because a base name cannot begin with `/`.
//!
//! | the client begins with | is told while it sends | the content ends | is told in the end |
//! |---|---|---|---|
//! | classic: a name | `ok`, at once | with the stream | nothing but how the stream ends |
//! | line: a name and a line feed | `ok`, if it falls silent | with the stream | a receipt |
//! | `/put`, attributes, a name | nothing | with its size or its last chunk | a receipt; then the next request |
//! | `/ask`, attributes, a name | `ok OFFSET`, before it sends | as put | as put |
//!
//! # Two rules
//!
//! **Silence protects data.** A client that closes with something unread resets its connection (RFC 2525, 2.17), and
//! loses what it had still to send. So whoever may not be reading is told nothing while it sends, and after a last word
//! the server lingers: it reads on to the end before it closes.
//!
//! **`done` transfers the responsibility**, as 250 does in SMTP (RFC 5321, 4.2.5): from then on the file is the
//! server's to lose. It is said once for each request, in their order, when the file has its name and is as durable as
//! was promised.

mod body;
mod digest;
mod header;
mod name;
mod number;
mod outcomes;
mod receiver;
mod reply;
mod request;
mod sender;

pub use digest::{Algorithm, Digest, Hasher};
pub use name::{Name, NameError, NamePolicy};
pub use outcomes::{Ticket, Whole};
pub use receiver::{Awaits, Event, Farewell, Held, Peer, Receiver, Rules};
pub use reply::{Code, ParseReplyError, Receipt, Refusal, Reply};
pub use request::{Promise, Request, ResumeId};
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
    /// As [`OnExists::Refuse`], except that a file of the same size and digest is stored already: a retry changes nothing.
    /// A client asks for it; it is no server's policy.
    Same,
}

impl OnExists {
    const WORDS: [(&'static str, Self); 4] =
        [("refuse", Self::Refuse), ("rename", Self::Rename), ("replace", Self::Replace), ("same", Self::Same)];

    /// As the wire spells it.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// Reads [`OnExists::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }
}

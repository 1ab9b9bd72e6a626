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
mod dialect;
mod digest;
mod name;
mod number;
mod outcomes;
mod receiver;
mod reply;
mod request;
mod sender;

pub use dialect::Dialect;
pub use digest::{Algorithm, Digest, Hasher};
pub use name::{Name, NameError, NamePolicy};
pub use outcomes::{Ticket, Whole};
pub use receiver::{Awaits, Event, Farewell, Held, Peer, Receiver, Rules};
pub use reply::{Code, ParseReplyError, Receipt, Refusal, Reply};
pub use request::{OnExists, Promise, Request, ResumeId};
pub use sender::{Failure, Outcome, Sender, Step, Stored};

//! The wire, as values: bytes in, events and bytes out.
//!
//! This module holds everything that affects the conversation, for both of its sides. It knows no socket, no file and no
//! clock. Time is an input like the bytes are (a burst has ended, the peer was too slow), so any split of the same bytes
//! gives the same events.
//!
//! That pays off in tests. TCP is a stream (RFC 9293, 2.2): the bytes of one write may arrive in any number of reads. A
//! protocol that reads its own socket is tested only with the pieces that the network of the test makes. The tests feed this
//! one every split of every request, and a whole conversation is a few lines without any network:
//!
//! ```
//! use intake::proto::{Dialect, Event, Name, NamePolicy, Receiver, Request, Rules, ServerStep};
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
//!             Event::Content(bytes) => assert_eq!(&*bytes, b"hello"),
//!             Event::End(whole) => {
//!                 server.settle(whole.ticket, Ok(&name), &rules);
//!             }
//!             other => panic!("{other:?}"),
//!         }
//!     }
//!     if let ServerStep::Say(reply) = server.step(false) {
//!         client.receive(reply);
//!         let sent = reply.len();
//!         server.transmitted(sent);
//!     }
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
//! Nothing is negotiated. The first bytes tell the dialects apart, because a base name cannot begin with `/`.
//!
//! | the client begins with | what it hears while it sends | what ends the content | what it hears at the end |
//! |---|---|---|---|
//! | classic: a name | `ok`, at once | the end of the stream | nothing but how the stream ends |
//! | line: a name and a line feed | `ok`, if it falls silent | the end of the stream | a receipt |
//! | `/put`, attributes, a name | nothing | its size or its last chunk | a receipt; then the next request may follow |
//! | `/ask`, attributes, a name | `ok OFFSET`, before it sends | as put | as put |
//! | HTTP: `PUT /NAME` | nothing; `100 Continue` if it expects that | its length or its last chunk | an answer with its receipt; then the next request may follow |
//! | HTTP: `POST /`, a form | as above | each file: the next boundary | one answer with a line for each file; then as above |
//! | HTTP: a resumable upload | as above | of each piece: its length or its last chunk | the offset, or where the file is stored; then as above |
//!
//! # Two rules
//!
//! **Silence protects data.** A client that closes with something unread resets its connection (RFC 2525, 2.17), and
//! loses what it had still to send. So the server says nothing to a client that may not be reading while it sends. After
//! its last word the server lingers: it reads to the end before it closes.
//!
//! **`done` transfers the responsibility**, as 250 does in SMTP (RFC 5321, 4.2.5): from then on the file is the
//! server's to lose. The server says it once for each request, in the order of the requests, when the file has its name
//! and is as durable as was promised.

mod body;
mod by_id;
mod credential;
mod dialect;
mod digest;
mod digest_field;
mod name;
mod number;
mod outcomes;
mod proxied;
mod receiver;
mod reply;
mod request;
mod rules;
mod sender;
mod step;
mod web;

pub use by_id::{Append, ById, Creation, Denial, Problem, Standing};
pub use credential::{Credential, Secret};
pub use dialect::{Dialect, Get, Site, SiteError};
pub use digest::{Algorithm, Digest, Hasher};
pub use name::{Name, NameError, NamePolicy};
pub use outcomes::{Ticket, Whole};
pub use proxied::{Origin, ProxyHeader, SIGNATURE as PROXY_SIGNATURE};
pub use receiver::Receiver;
pub use reply::{Code, ParseReplyError, Receipt, Refusal, Reply};
pub use request::{OnExists, Promise, Request, ResumeId};
pub use rules::Rules;
pub use sender::{Answered, Failure, Outcome, Sender, Step, Stored};
pub use step::{Awaits, Event, Farewell, Held, Peer, Reading, ServerStep};
pub use web::{Page, Web};

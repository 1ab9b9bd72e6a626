//! The sender: `send`.
//!
//! A few connections need no event loop: `send` has a thread for each, and drives the client's half of the conversation
//! ([`crate::proto::Sender`]) over a socket.
//!
//! It takes values and returns results. It knows no command line, no terminal and no signal.

pub mod send;

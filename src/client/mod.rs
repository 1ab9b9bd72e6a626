//! The sender: `send`.
//!
//! A client with a few connections needs no event loop: `send` has a thread for each, and drives the client's half of the
//! conversation ([`crate::proto::Sender`]) over a socket.
//!
//! Values in, results out: nothing here knows a command line, a terminal or a signal.

pub mod send;

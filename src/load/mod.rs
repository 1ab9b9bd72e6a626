//! `load`: many clients in one thread, honest figures, misbehaviour on demand. `ping` is its run over UDP with one socket.
//!
//! ```text
//! plan    what to send, when, and how its clients behave
//! judge   how each upload ended, and what must now be in the receiver's directory
//! run     the TCP clients and UDP sockets that do it
//! tell    the report: in words, as JSON, and as figures for conditions
//! ```
//!
//! Each room uses those above it. `plan` and `judge` are pure: times are values that are handed in, and only
//! [`judge::verify()`] reads files. `run` has the sockets and the clock. Its turn over TCP mirrors the server's: events
//! only queue clients, each client is served within a budget, then deadlines are checked, and new connections come last.
//! The content of a file is a function of the seed and its number ([`plan::Pattern`]), so no content is stored, and the
//! receiver's files can be compared byte for byte, in the same run or days later.

pub mod judge;
pub mod plan;
pub mod run;
pub mod tell;

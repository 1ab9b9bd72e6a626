//! `load`: many clients in one thread, honest figures, misbehaviour on demand. `ping` is its run over UDP with one socket.
//!
//! ```text
//! plan    what is to be sent, when, and how its clients behave
//! judge   what became of it, and what must now be in the receiver's directory
//! run     the clients of TCP and the sockets of UDP that do it
//! tell    the report: in words, as JSON, and by figures that a limit can be set on
//! ```
//!
//! Each room uses those above it. `plan` and `judge` are pure: times are values that are handed in, and only
//! [`judge::verify()`] reads files. `run` has the sockets and the clock. Its turn over TCP is the server's, seen from the other
//! end: events only line clients up, each is served within a budget, deadlines are looked at, and new connections are begun
//! last. What a file holds is a function of the seed and its number ([`plan::Pattern`]), so nothing is stored in order to
//! be sent, and whatever the receiver has stored can be compared byte for byte, in the same run or days later.

pub mod judge;
pub mod plan;
pub mod run;
pub mod tell;

//! The binary, over real sockets and real files, one test crate.
//!
//! Everything that only the protocol or the store decides is tested beside its code; here stands what takes a process, a
//! kernel and a client that was written by somebody else.

mod fixture;
mod interop;
mod uploads;

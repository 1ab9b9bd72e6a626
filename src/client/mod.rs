//! The other end: `send` and `ping`.
//!
//! Values in, results out: nothing here knows a command line, a terminal or a signal.

pub mod ping;
pub mod send;

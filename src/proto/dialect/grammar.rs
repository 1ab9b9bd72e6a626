//! What a grammar is, and what it makes of a head.
//!
//! Knows none of the grammars.

use super::manners::Dialect;
use crate::proto::{NamePolicy, Promise, Refusal, Request};

/// What the head of a request says.
#[derive(Debug)]
pub(in crate::proto) enum Head {
    /// There is a file to hand over.
    Upload(Request),
    /// There would be, under a name that is refused. Its content can be read past.
    BadName { dialect: Dialect, size: Option<u64>, digest: Option<Promise>, refusal: Refusal },
    /// The client asks for nothing more.
    Bye,
    /// No request.
    Bad(Refusal),
}

/// How the heads of some dialects are read. All of them are lines.
pub(super) struct Grammar {
    /// Whether a head that begins with these bytes, one at least, is read by it.
    pub(super) reads: fn(&[u8]) -> bool,
    /// Whether a head of it may come after an earlier request.
    pub(super) may_follow: Result<(), &'static str>,
    /// Whether a head of it is whole when the client pauses.
    pub(super) ends_with_burst: bool,
    /// Why no line that begins with these bytes can be a head of it.
    pub(super) refuse_early: fn(&[u8]) -> Option<Refusal>,
    /// Reads a whole head, its LF and a CR before it taken off. `true`: the burst ended it, and no LF came.
    pub(super) read: fn(&[u8], bool, NamePolicy) -> Head,
}

//! What a grammar is, and what it makes of a head.
//!
//! Knows none of the grammars.

use super::http::multipart::Splitter;
use super::manners::Dialect;
use super::scan::Scan;
use super::voice::Voice;
use crate::proto::{Promise, Refusal, Request, Rules};

/// What the head of a request says.
#[derive(Debug)]
pub(in crate::proto) enum Head {
    /// There is a file to hand over.
    Upload(Request, Voice),
    /// There would be, under a name that is refused. Its content can be read past.
    BadName { voice: Voice, size: Option<u64>, digest: Option<Promise>, refusal: Refusal },
    /// No file is handed over, and this is the whole answer. `Err`: it is a refusal.
    Asked { what: Result<&'static str, Refusal>, answer: Vec<u8>, voice: Voice },
    /// There are files in a form of this size, or in chunks.
    Form { size: Option<u64>, splitter: Box<Splitter>, expects: bool, voice: Voice },
    /// The client asks for nothing more.
    Bye,
    /// No request that can be followed. Nothing that comes after it is one.
    Bad(Refusal, Voice),
}

impl Head {
    /// How it is answered.
    pub(in crate::proto) fn into_voice(self) -> Voice {
        match self {
            Self::Upload(_, voice) | Self::BadName { voice, .. } | Self::Form { voice, .. } => voice,
            Self::Asked { voice, .. } | Self::Bad(_, voice) => voice,
            Self::Bye => Dialect::Line.into(),
        }
    }
}

/// How the heads of some dialects are read.
pub(super) struct Grammar {
    /// Whether a head that begins with these bytes is read by it, after one of a dialect.
    pub(super) reads: fn(&[u8], Option<Dialect>) -> bool,
    /// Whether a head of it may come after an earlier request.
    pub(super) may_follow: Result<(), &'static str>,
    /// How the server speaks while the head is not whole.
    pub(super) speaks: Dialect,
    /// Why nothing that the stream ends in is a head.
    pub(super) cut_off: &'static str,
    /// What ends a head.
    pub(super) shape: Shape,
    /// Reads a whole head. `true`: the burst ended it, and no LF came.
    pub(super) read: fn(&[u8], bool, &Rules) -> Head,
}

/// What ends a head.
pub(super) enum Shape {
    /// A line feed, which is no part of it, nor is a CR before that.
    Line {
        /// Whether a pause of the client ends it too.
        ends_with_burst: bool,
        /// Why no line that begins with these bytes can be a head.
        refuse_early: fn(&[u8]) -> Option<Refusal>,
    },
    /// An empty line.
    Lines {
        /// What the head is, at its last byte.
        scan: fn(&[u8]) -> Scan,
        /// How many of the bytes that follow it need no scan.
        plain: fn(&[u8], &[u8]) -> usize,
    },
}

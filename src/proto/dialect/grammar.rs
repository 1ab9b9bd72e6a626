//! What a grammar is, and what it reads from a head.
//!
//! Knows none of the grammars.

use super::http::multipart::Splitter;
use super::manners::Dialect;
use super::scan::Scan;
use super::voice::Voice;
use crate::proto::{ById, Promise, Refusal, Request, Rules};

/// What the head of a request says.
#[derive(Debug)]
pub(in crate::proto) enum Head {
    /// A file is to be stored.
    Upload(Request, Voice),
    /// A file is to be stored, under a name that is refused. The end of its content is known, so it can be discarded.
    BadName { voice: Voice, size: Option<u64>, digest: Option<Promise>, refusal: Refusal },
    /// Something other than an upload. `answer` is the whole answer; `what` names it for the log, or is the refusal.
    Asked { what: Result<&'static str, Refusal>, answer: Vec<u8>, voice: Voice },
    /// A resumable upload is asked about. A piece of it follows, of this size or in chunks.
    ById { what: ById, size: Option<u64>, checksum: Option<Promise>, voice: Voice },
    /// A form with files, of this size or in chunks. `expects`: the client waits for `100 Continue`.
    Form { size: Option<u64>, splitter: Box<Splitter>, expects: bool, voice: Voice },
    /// No further request follows.
    Bye,
    /// A request that cannot be followed. It is the last one: where the next would begin is not known.
    Bad(Refusal, Voice),
}

impl Head {
    /// How the reply is spelled, of a request that would write.
    pub(in crate::proto) fn dialect_of_write(&self) -> Option<Dialect> {
        match self {
            Self::Upload(_, voice)
            | Self::BadName { voice, .. }
            | Self::Form { voice, .. }
            | Self::ById { voice, .. } => Some(voice.dialect),
            Self::Asked { .. } | Self::Bad(..) | Self::Bye => None,
        }
    }

    /// The same, to take from it.
    pub(in crate::proto) fn voice_of_write(&mut self) -> Option<&mut Voice> {
        match self {
            Self::Upload(_, voice) | Self::BadName { voice, .. } | Self::Form { voice, .. } => Some(voice),
            Self::ById { voice, .. } => Some(voice),
            Self::Asked { .. } | Self::Bad(..) | Self::Bye => None,
        }
    }

    /// Whether it is HTTP, or was meant to be.
    pub(in crate::proto) fn speaks_http(&self) -> bool {
        match self {
            Self::Upload(_, voice) | Self::BadName { voice, .. } | Self::Form { voice, .. } => {
                voice.dialect.speaks_http()
            }
            Self::ById { voice, .. } | Self::Asked { voice, .. } | Self::Bad(_, voice) => voice.dialect.speaks_http(),
            Self::Bye => false,
        }
    }

    /// How the reply is spelled.
    pub(in crate::proto) fn into_voice(self) -> Voice {
        match self {
            Self::Upload(_, voice) | Self::BadName { voice, .. } | Self::Form { voice, .. } => voice,
            Self::ById { voice, .. } => voice,
            Self::Asked { voice, .. } | Self::Bad(_, voice) => voice,
            Self::Bye => Dialect::Line.into(),
        }
    }
}

/// How the heads of some dialects are read.
pub(super) struct Grammar {
    /// Whether it reads a head that begins with these bytes, after a request of this dialect.
    pub(super) reads: fn(&[u8], Option<Dialect>) -> bool,
    /// Whether its head may come after an earlier request, or why not.
    pub(super) may_follow: Result<(), &'static str>,
    /// The dialect of the server's replies until the head is whole.
    pub(super) speaks: Dialect,
    /// The words of the refusal if the stream ends within a head.
    pub(super) cut_off: &'static str,
    /// What ends a head.
    pub(super) shape: Shape,
    /// Reads a whole head. `true`: the burst ended it, and no LF came.
    pub(super) read: fn(&[u8], bool, &Rules) -> Head,
}

/// What ends a head.
pub(super) enum Shape {
    /// A line feed. Neither it nor a CR before it belongs to the head.
    Line {
        /// Whether a pause of the client also ends it.
        ends_with_burst: bool,
        /// The refusal of a line that begins with these bytes and cannot become a head.
        refuse_early: fn(&[u8]) -> Option<Refusal>,
    },
    /// An empty line.
    Lines {
        /// What the head is, at its last byte.
        scan: fn(&[u8]) -> Scan,
        /// How many of the next bytes need no scan.
        plain: fn(&[u8], &[u8]) -> usize,
    },
}

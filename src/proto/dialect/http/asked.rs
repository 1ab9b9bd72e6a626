//! What an answer has to know of its request.

use super::authorization;
use super::head::{Fields, Parsed};
use crate::proto::{Credential, Denial, Problem, Refusal, ResumeId};

/// What an answer has to know of its request. Without one, as after a head that could not be read, the defaults hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proto) struct Asked {
    /// The answer has no content, only its fields.
    pub(super) is_head: bool,
    /// A taken name is a failed precondition, not a conflict.
    pub(in crate::proto::dialect) must_be_new: bool,
    /// The client sends no further request.
    pub(in crate::proto) is_last: bool,
    /// The client has to be told that a further request may follow.
    pub(super) is_1_0: bool,
    /// How a refusal is written.
    pub(super) reads: Reads,
    /// The origin of a page that may read the answer.
    pub(super) origin: Option<Box<str>>,
    /// The token that the client has shown.
    pub(in crate::proto::dialect) credential: Option<Credential>,
    /// It is about a resumable upload.
    pub(in crate::proto::dialect) resumable: Option<Resumable>,
}

/// How a request for a resumable upload is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proto::dialect) struct Resumable {
    /// What is asked for.
    pub(super) verb: Verb,
    /// How it is asked for.
    pub(super) protocol: Protocol,
    /// The upload, once it is known.
    pub(in crate::proto::dialect) id: Option<ResumeId>,
    /// What is wrong, if a refusal tells it.
    pub(in crate::proto::dialect) problem: Option<Problem>,
}

/// How a resumable upload is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// tus 1.0.0.
    Tus,
    /// The draft of the IETF.
    Ietf(Draft),
}

/// What an answer by the draft of the IETF tells besides the upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    /// The version that the client speaks, if this server speaks it too. Only such a client gets the place of its upload before
    /// the answer.
    pub(super) version: Option<Interop>,
    /// The largest file, in bytes.
    pub(super) max_size: Option<u64>,
    /// How long an upload is kept that nobody continues, in seconds. 0: that is not told.
    pub(super) ttl_seconds: u64,
}

/// The versions of the draft (`Upload-Draft-Interop-Version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interop {
    /// draft-ietf-httpbis-resumable-upload-04 and -05.
    Six,
    /// -09 and later.
    Eight,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// To begin an upload.
    Create,
    /// Its offset.
    Ask,
    /// To add a piece.
    Append,
    /// To remove it.
    Remove,
}

impl Resumable {
    pub(super) fn new(verb: Verb, protocol: Protocol) -> Self {
        Self { verb, protocol, id: None, problem: None }
    }
}

/// What the client reads best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reads {
    /// The lines of the other dialects.
    #[default]
    Lines,
    /// `application/problem+json` (RFC 9457).
    Problems,
    /// HTML: a person looks at it.
    Html,
}

impl Asked {
    /// Keeps the problem for the answer, and returns the refusal.
    pub(super) fn note(&mut self, denial: Denial) -> Refusal {
        if let Some(resumable) = &mut self.resumable {
            resumable.problem = denial.problem;
        }
        denial.refusal
    }

    /// Whether the request is one of tus.
    pub(in crate::proto::dialect) fn is_tus(&self) -> bool {
        self.resumable.as_ref().is_some_and(|resumable| resumable.protocol == Protocol::Tus)
    }

    /// What a request by the draft of the IETF is answered with.
    pub(super) fn draft(&self) -> Option<Draft> {
        match self.resumable.as_ref()?.protocol {
            Protocol::Ietf(draft) => Some(draft),
            Protocol::Tus => None,
        }
    }

    /// What the head says of it. Who may read the answer is found out later.
    pub(super) fn of(parsed: &Parsed) -> Self {
        let fields = &parsed.fields;
        let keeps = |token| fields.lists("Connection", token);
        Self {
            is_head: parsed.method == "HEAD",
            must_be_new: false,
            is_last: keeps("close") || parsed.is_1_0 && !keeps("keep-alive"),
            is_1_0: parsed.is_1_0,
            reads: Reads::of(fields),
            origin: None,
            credential: authorization::read(fields),
            resumable: None,
        }
    }
}

impl Reads {
    fn of(fields: &Fields) -> Self {
        let accepts = |kind: &[u8]| {
            fields.list("Accept").any(|range| {
                let range = range.split(|byte| *byte == b';').next().unwrap_or_default();
                range.trim_ascii().eq_ignore_ascii_case(kind)
            })
        };
        if accepts(b"application/problem+json") {
            Self::Problems
        } else if accepts(b"text/html") {
            Self::Html
        } else {
            Self::Lines
        }
    }
}

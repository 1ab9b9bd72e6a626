//! Resumable uploads of HTTP: requests for an upload that is found by an id of the server's making, and the answers.
//!
//! Each request brings a piece of the upload or none. Plain values: does not know how they are spelled, nor who keeps the
//! upload.

use super::{Code, Name, Refusal, Request, ResumeId};

/// A request for an upload that is found by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ById {
    /// Begin one. Its first piece follows, which may be empty.
    Create(Box<Creation>),
    /// How much of it does the server have?
    Ask(ResumeId),
    /// Add the piece that follows.
    Append(Box<Append>),
    /// Remove it.
    Remove(ResumeId),
}

/// What an upload is begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// The file. Its size is that of the whole upload.
    pub request: Request,
    /// What the client wants to hear again when it asks: one line, as it was.
    pub note: Box<str>,
}

/// A further piece of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The upload.
    pub id: ResumeId,
    /// How much of it the client believes the server to have, in bytes.
    pub offset: u64,
    /// The size of the piece in bytes, if it is given before the content.
    pub length: Option<u64>,
    /// The size of the whole upload in bytes, if the client tells it now.
    pub size: Option<u64>,
}

impl ById {
    /// The id of the upload, unless it is begun now.
    pub fn id(&self) -> Option<&ResumeId> {
        match self {
            Self::Create(_) => None,
            Self::Ask(id) | Self::Remove(id) => Some(id),
            Self::Append(append) => Some(&append.id),
        }
    }

    /// What it asks for, in words.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Create(_) => "begin a resumable upload",
            Self::Ask(_) => "tell the offset of an upload",
            Self::Append(_) => "continue an upload",
            Self::Remove(_) => "remove an upload",
        }
    }

    /// The size of the whole upload, if the client tells it.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Create(creation) => creation.request.size,
            Self::Append(append) => append.size,
            Self::Ask(_) | Self::Remove(_) => None,
        }
    }
}

/// What the server has of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The upload.
    pub id: ResumeId,
    /// How much, in bytes. No crash takes it back.
    pub offset: u64,
    /// The size of the whole upload in bytes, if it is known.
    pub size: Option<u64>,
    /// When it will be removed if nobody continues it, in seconds since the epoch. `None`: it is stored or removed.
    pub expires: Option<u64>,
    /// What the client told when it began the upload.
    pub note: Box<str>,
    /// The name under which it is stored, once it is.
    pub stored: Option<Name>,
}

impl Standing {
    /// Of an upload that was stored.
    pub fn stored(id: ResumeId, size: u64, name: Name) -> Self {
        Self { id, offset: size, size: Some(size), expires: None, note: "".into(), stored: Some(name) }
    }

    /// Of an upload that was removed.
    pub fn removed(id: ResumeId) -> Self {
        Self { id, offset: 0, size: None, expires: None, note: "".into(), stored: None }
    }
}

/// Why a request for an upload is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// For the client.
    pub refusal: Refusal,
    /// The offset that would have been right.
    pub offset: Option<u64>,
}

impl Denial {
    /// There is no such upload.
    pub fn unknown() -> Self {
        let words = "there is no such upload: it was never begun, or it was removed or has expired; begin it again";
        Refusal::new(Code::UNKNOWN, words).into()
    }

    /// The piece does not continue the upload where it is.
    pub fn wrong_offset(told: u64, right: u64) -> Self {
        let words = format!("the upload continues at byte {right}, not at {told}");
        Self { refusal: Refusal::new(Code::CONFLICT, words), offset: Some(right) }
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, offset: None }
    }
}

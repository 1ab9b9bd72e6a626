//! Resumable uploads of HTTP: requests for an upload that is found by an id of the server's making, and the answers.
//!
//! Each request brings a piece of the upload or none. **An upload is whole when its last byte has come**: when it has the
//! size that was told, or when a piece was told to be the last one. Plain values: does not know how they are spelled, nor who
//! keeps the upload.

use super::{Code, Digest, Promise, Receipt, Refusal, Request, ResumeId};

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
    /// The file. Its size and its digest are those of the whole upload.
    pub request: Request,
    /// What the client wants to hear again when it asks: one line, as it was.
    pub note: Box<str>,
    /// The client hears of the id before the first piece, so it can continue if that is cut off.
    pub is_announced: bool,
    /// The first piece is also the last one.
    pub is_last: bool,
    /// The name of the token that was shown, to which the upload belongs.
    pub owner: Option<Box<str>>,
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
    /// The digest of the whole upload, if the client tells it again.
    pub digest: Option<Digest>,
    /// It is the last piece.
    pub is_last: bool,
}

impl Append {
    /// Whether it can be a piece of an upload that was begun with this size and this promise. Its offset is another matter.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, size: Option<u64>, promise: Option<Promise>) -> Result<(), Denial> {
        let size = size.or(self.size);
        if self.size.is_some_and(|told| Some(told) != size) {
            return Err(Denial::inconsistent_length("the upload was begun with another size"));
        }
        let end = self.offset.saturating_add(self.length.unwrap_or(0));
        if size.is_some_and(|size| end > size) {
            return Err(Denial::more_than_its_size());
        }
        if self.digest.is_some_and(|told| promise != Some(Promise::Known(told))) {
            let words = "the digest of an upload is told when it begins, and stays the same: Repr-Digest";
            return Err(Refusal::new(Code::BAD_REQUEST, words).into());
        }
        Ok(())
    }
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

    /// The same for an upload of the client whose token has the name `owner`.
    pub fn owned_by(self, owner: &str) -> Self {
        match self {
            Self::Create(creation) => Self::Create(Box::new(Creation { owner: Some(owner.into()), ..*creation })),
            Self::Ask(id) => Self::Ask(id.owned_by(owner)),
            Self::Append(append) => {
                let id = append.id.clone().owned_by(owner);
                Self::Append(Box::new(Append { id, ..*append }))
            }
            Self::Remove(id) => Self::Remove(id.owned_by(owner)),
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

/// What the server has of an upload. The default is that of an upload that was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How much, in bytes. No crash takes it back.
    pub offset: u64,
    /// The size of the whole upload in bytes, if it is known.
    pub size: Option<u64>,
    /// When it will be removed if nobody continues it, in seconds since the epoch. `None`: it is stored or removed.
    pub expires: Option<u64>,
    /// What the client told when it began the upload.
    pub note: Box<str>,
    /// What its client gets once it is stored.
    pub stored: Option<Receipt>,
}

impl Standing {
    /// Of an upload that was stored.
    pub fn stored(receipt: Receipt) -> Self {
        Self { offset: receipt.size, size: Some(receipt.size), stored: Some(receipt), ..Self::default() }
    }
}

/// Why a request for an upload is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// For the client.
    pub refusal: Refusal,
    /// What programs want to know of it.
    pub problem: Option<Problem>,
}

/// What is wrong with a request for an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The piece does not begin where the upload ends.
    WrongOffset {
        /// Where it begins, in bytes.
        told: u64,
        /// Where it has to.
        right: u64,
    },
    /// The upload is stored, so nothing can be added to it.
    Completed {
        /// Its size in bytes.
        size: u64,
    },
    /// The client has told two sizes of the upload, or more content than its size.
    InconsistentLength,
}

impl Problem {
    /// Where the upload continues, in bytes, if that is what the client has to know.
    pub fn offset(self) -> Option<u64> {
        match self {
            Self::WrongOffset { right, .. } => Some(right),
            Self::Completed { size } => Some(size),
            Self::InconsistentLength => None,
        }
    }
}

impl Denial {
    fn of(problem: Problem, code: Code, words: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self { refusal: Refusal::new(code, words), problem: Some(problem) }
    }

    /// There is no such upload.
    pub fn unknown() -> Self {
        let words = "there is no such upload: it was never begun, or it was removed or has expired; begin it again";
        Refusal::new(Code::UNKNOWN, words).into()
    }

    /// The piece does not continue the upload where it is.
    pub fn wrong_offset(told: u64, right: u64) -> Self {
        let words = format!("the upload continues at byte {right}, not at {told}");
        Self::of(Problem::WrongOffset { told, right }, Code::CONFLICT, words)
    }

    /// The upload of `size` bytes is stored.
    pub fn completed(size: u64) -> Self {
        let words = "the upload is whole and stored; nothing can be added to it";
        Self::of(Problem::Completed { size }, Code::BAD_REQUEST, words)
    }

    /// More content comes than the size that was told for the whole upload.
    pub fn more_than_its_size() -> Self {
        Self::inconsistent_length("there is more content than the size of the upload says")
    }

    /// The sizes of the upload differ.
    pub fn inconsistent_length(words: &'static str) -> Self {
        Self::of(Problem::InconsistentLength, Code::BAD_REQUEST, words)
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, problem: None }
    }
}

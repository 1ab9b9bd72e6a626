//! What the disk does for a resumable upload of HTTP, during one request for it.
//!
//! ```text
//!   create ---+------------> Writing --append, append--> end --+--> the file is whole: submitted
//!   append ---+                                                |
//!             +-- the offset is wrong --+                      +--> Holding --> the client is told
//!   ask ------------------------------- +----------------------------^
//! ```
//!
//! The client is told an offset when the disk has so much ([`Job::Hold`]), so that no crash takes it back. After each
//! request the upload is kept, and the next one finds it by its id alone.
//!
//! Knows neither the socket nor the conversation.

use super::published::Finished;
use crate::proto::{Append, ById, Code, Creation, Denial, Name, OnExists, Refusal, ResumeId, Standing, Ticket};
use crate::store::{Done, Job, Partial, Reopened, Settled, Store, StoreError, Target, Terms, Token};

/// An upload, during one request for it.
pub struct Session<P> {
    id: ResumeId,
    partial: P,
    terms: Terms,
    stage: Stage,
    /// The client knows the id, so that it can continue.
    is_known: bool,
    /// It is of no further use.
    is_broken: bool,
}

/// What is done for it.
enum Stage {
    /// The piece comes in.
    Writing,
    /// What is there of it is synced, and then the client is told.
    Holding {
        /// The request that waits.
        ticket: Ticket,
        /// The result, once it is known.
        held: Option<Result<(), StoreError>>,
        /// The offset that the client named, if it was wrong.
        wrong: Option<u64>,
    },
}

/// What a request for an upload has come to.
pub enum Opened<P> {
    /// The piece may come.
    Writing(Session<P>),
    /// The client is told where the upload is, once the disk has it.
    Holding(Session<P>),
    /// The answer is known.
    Answer(Result<Standing, Denial>),
}

impl<P: Partial> Session<P> {
    /// Opens the upload that `what` is about.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another request has it, and any error of the store.
    pub fn open<S: Store<Partial = P>>(
        what: &ById,
        ticket: Ticket,
        on_exists: OnExists,
        finished: impl FnOnce(&ResumeId) -> Option<Standing>,
        store: &S,
    ) -> Result<Opened<P>, StoreError> {
        let id = match what {
            ById::Create(creation) => return Self::create(creation, on_exists, store).map(Opened::Writing),
            ById::Ask(id) | ById::Remove(id) => id,
            ById::Append(append) => &append.id,
        };
        let Some(Reopened { partial, terms }) = store.reopen(id)? else {
            return Ok(Opened::Answer(after_the_end(what, finished(id))));
        };
        let stage = Stage::Holding { ticket, held: None, wrong: None };
        let session = Self { id: id.clone(), partial, terms, stage, is_known: true, is_broken: false };
        match what {
            ById::Append(append) => session.append_to(append, ticket),
            ById::Remove(_) => {
                drop(session.partial);
                Ok(Opened::Answer(Ok(Standing::removed(session.id))))
            }
            ById::Ask(_) | ById::Create(_) => Ok(Opened::Holding(session)),
        }
    }

    fn create<S: Store<Partial = P>>(creation: &Creation, on_exists: OnExists, store: &S) -> Result<Self, StoreError> {
        let Creation { request, note } = creation;
        let (id, on_exists) = (store.make_id()?, request.on_exists.unwrap_or(on_exists));
        let partial = store.begin(&Target {
            name: &request.name,
            on_exists,
            size: request.size,
            promise: None,
            resume: Some(&id),
            mtime: request.mtime,
            note,
        })?;
        let terms = Terms {
            name: request.name.clone(),
            on_exists,
            size: request.size,
            promise: None,
            mtime: request.mtime,
            note: note.clone(),
        };
        Ok(Self { id, partial, terms, stage: Stage::Writing, is_known: false, is_broken: false })
    }

    fn append_to(mut self, append: &Append, ticket: Ticket) -> Result<Opened<P>, StoreError> {
        let held = self.partial.held();
        if append.offset != held {
            self.stage = Stage::Holding { ticket, held: None, wrong: Some(append.offset) };
            return Ok(Opened::Holding(self));
        }
        if let Err(refusal) = self.fits(append) {
            self.partial.keep();
            return Ok(Opened::Answer(Err(refusal.into())));
        }
        match self.prepare(append) {
            Ok(()) => {
                self.stage = Stage::Writing;
                Ok(Opened::Writing(self))
            }
            Err(error) => {
                self.partial.keep();
                Err(error)
            }
        }
    }

    /// Whether the piece is one of the upload.
    fn fits(&self, append: &Append) -> Result<(), Refusal> {
        let size = self.terms.size.or(append.size);
        if append.size.is_some_and(|told| Some(told) != size) {
            return Err(Refusal::new(Code::BAD_REQUEST, "the upload was begun with another size"));
        }
        let end = append.length.map(|length| length.saturating_add(append.offset));
        if size.is_some_and(|size| end.unwrap_or(append.offset) > size) {
            return Err(Refusal::more_than_its_size());
        }
        Ok(())
    }

    fn prepare(&mut self, append: &Append) -> Result<(), StoreError> {
        if let (None, Some(size)) = (self.terms.size, append.size) {
            self.partial.set_size(size)?;
            self.terms.size = Some(size);
        }
        self.partial.reserve(self.terms.size)
    }

    /// The id of the upload.
    pub fn id(&self) -> &ResumeId {
        &self.id
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        self.partial.name()
    }

    /// How much of it is there, in bytes.
    pub fn held(&self) -> u64 {
        self.partial.held()
    }

    /// How many bytes it may have.
    pub fn max_bytes(&self) -> u64 {
        self.terms.size.unwrap_or(u64::MAX)
    }

    /// Whether the piece may come in.
    pub fn is_writing(&self) -> bool {
        matches!(self.stage, Stage::Writing)
    }

    /// Whether [`Session::end`] can be called.
    pub fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Holding { held: Some(_), .. })
    }

    /// Appends content by `append`. `is_checked`: the piece has a checksum, which comes first.
    ///
    /// # Errors
    /// What `append` says.
    pub fn append(
        &mut self,
        is_checked: bool,
        append: impl FnOnce(&mut P) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        append(&mut self.partial).inspect_err(|error| self.is_broken = !matches!(error, StoreError::Full(_)))?;
        if !is_checked {
            self.partial.checkpoint(None);
        }
        Ok(())
    }

    /// The piece has come, and is as it was promised. Returns whether the upload is whole.
    pub fn end_piece(&mut self) -> bool {
        self.partial.checkpoint(None);
        self.terms.size == Some(self.held())
    }

    /// The partial file of the whole upload, and what to remember of it once it is published.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn into_file(mut self) -> Result<(P, Finished), StoreError> {
        if let Some(mtime) = self.terms.mtime {
            self.partial.set_mtime(mtime.get())?;
        }
        let finished = Finished { id: self.id, size: self.partial.held() };
        Ok((self.partial, finished))
    }

    /// Has the disk keep what is there, for the request `ticket`.
    pub fn hold<S: Store<Partial = P>>(&mut self, ticket: Ticket, token: Token, store: &mut S) {
        let wrong = match self.stage {
            Stage::Holding { wrong, .. } => wrong,
            Stage::Writing => None,
        };
        let held = match store.submit(token, Job::Hold(&mut self.partial)) {
            Some(Settled { done: Done::Held(result), .. }) => Some(result),
            _ => None,
        };
        self.stage = Stage::Holding { ticket, held, wrong };
    }

    /// The disk has what the request `ticket` waits for, or has not.
    pub fn settle(&mut self, settled: Ticket, result: Result<(), StoreError>) {
        if let Stage::Holding { ticket, held, .. } = &mut self.stage
            && *ticket == settled
        {
            *held = Some(result);
        }
    }

    /// The end of the request: keeps the upload, and returns what the client is told. It expires `ttl_seconds` after the last
    /// change.
    ///
    /// # Errors
    /// The disk does not have it.
    pub fn end(self, ttl_seconds: u64) -> Result<Result<Standing, Denial>, StoreError> {
        let Stage::Holding { held, wrong, .. } = self.stage else { return Err(StoreError::Failed) };
        let expires = held.unwrap_or(Ok(())).and_then(|()| self.partial.changed_at());
        let offset = self.partial.held();
        self.partial.keep();
        let expires = Some(expires?.saturating_add(ttl_seconds));
        Ok(match wrong {
            Some(told) => Err(Denial::wrong_offset(told, offset)),
            None => {
                let Terms { size, note, .. } = self.terms;
                Ok(Standing { id: self.id, offset, size, expires, note, stored: None })
            }
        })
    }

    /// The request is over before its time. The upload is kept if the client can continue it.
    pub fn give_up(self) -> Name {
        let name = self.partial.name().clone();
        if self.is_known && !self.is_broken {
            self.partial.keep();
        }
        name
    }
}

/// The answer where there is no such upload, or not any more.
fn after_the_end(what: &ById, finished: Option<Standing>) -> Result<Standing, Denial> {
    let standing = finished.ok_or_else(Denial::unknown)?;
    match what {
        ById::Append(append) if append.offset != standing.offset => {
            Err(Denial::wrong_offset(append.offset, standing.offset))
        }
        ById::Append(append) if append.length != Some(0) => {
            let words = "the upload is whole and stored; nothing can be added to it";
            Err(Denial { refusal: Refusal::new(Code::CONFLICT, words), offset: Some(standing.offset) })
        }
        ById::Remove(_) => Err(Denial::unknown()),
        _ => Ok(standing),
    }
}

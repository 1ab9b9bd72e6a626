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

use crate::proto::{
    Append, ById, Code, Creation, Denial, Digest, Hasher, Name, OnExists, Promise, Receipt, Refusal, ResumeId,
    Standing, Ticket,
};
use crate::store::{Done, Job, Partial, Reopened, Settled, Store, StoreError, Target, Terms, Token};

/// An upload, during one request for it.
pub struct Session<P> {
    id: ResumeId,
    partial: P,
    terms: Terms,
    /// Has taken in all that is there, if a digest of the whole upload is promised.
    hasher: Option<Hasher>,
    stage: Stage,
    /// The client knows the id, so that it can continue.
    is_known: bool,
    /// The client has told that no further piece follows.
    is_last: bool,
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

/// What an upload has when it is whole.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, if one was promised.
    pub digest: Option<Digest>,
}

/// What a request for an upload has come to.
pub enum Opened<P> {
    /// The piece may come.
    Writing(Session<P>),
    /// The client is told where the upload is, once the disk has it.
    Holding(Session<P>),
    /// It is whole, but was not published when its last piece came: the server was killed. [`Session::end_piece`] is next.
    Whole(Session<P>),
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
        store: &S,
    ) -> Result<Opened<P>, StoreError> {
        let id = match what {
            ById::Create(creation) => return Self::create(creation, on_exists, store).map(Opened::Writing),
            ById::Ask(id) | ById::Remove(id) => id,
            ById::Append(append) => &append.id,
        };
        let Some(Reopened { partial, terms }) = store.reopen(id)? else {
            return Ok(Opened::Answer(after_the_end(what, store.receipt(id))));
        };
        let stage = Stage::Holding { ticket, held: None, wrong: None };
        let hasher = hasher_of(&partial, &terms);
        let id = id.clone();
        let session = Self { id, partial, terms, hasher, stage, is_known: true, is_last: false, is_broken: false };
        match what {
            ById::Append(append) => session.append_to(append, ticket),
            ById::Remove(_) => {
                drop(session.partial);
                Ok(Opened::Answer(Ok(Standing::default())))
            }
            ById::Ask(_) if session.terms.size == Some(session.held()) => Ok(Opened::Whole(session)),
            ById::Ask(_) | ById::Create(_) => Ok(Opened::Holding(session)),
        }
    }

    fn create<S: Store<Partial = P>>(creation: &Creation, on_exists: OnExists, store: &S) -> Result<Self, StoreError> {
        let &Creation { ref request, ref note, is_announced, is_last, ref owner } = creation;
        let id = store.make_id()?;
        let id = owner.as_ref().map_or(id.clone(), |owner| id.owned_by(owner));
        let on_exists = request.on_exists.unwrap_or(on_exists);
        let partial = store.begin(&Target {
            name: &request.name,
            on_exists,
            size: request.size,
            promise: request.digest,
            resume: Some(&id),
            mtime: request.mtime,
            note,
        })?;
        let terms = Terms {
            name: request.name.clone(),
            on_exists,
            size: request.size,
            promise: request.digest,
            mtime: request.mtime,
            note: note.clone(),
        };
        let (hasher, stage) = (hasher_of(&partial, &terms), Stage::Writing);
        Ok(Self { id, partial, terms, hasher, stage, is_known: is_announced, is_last, is_broken: false })
    }

    fn append_to(mut self, append: &Append, ticket: Ticket) -> Result<Opened<P>, StoreError> {
        let held = self.partial.held();
        if append.offset != held {
            self.stage = Stage::Holding { ticket, held: None, wrong: Some(append.offset) };
            return Ok(Opened::Holding(self));
        }
        if let Err(denial) = append.check(self.terms.size, self.terms.promise) {
            self.partial.keep();
            return Ok(Opened::Answer(Err(denial)));
        }
        match self.prepare(append) {
            Ok(()) => {
                (self.stage, self.is_last) = (Stage::Writing, append.is_last);
                Ok(Opened::Writing(self))
            }
            Err(error) => {
                self.partial.keep();
                Err(error)
            }
        }
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

    /// Whether its content stays when a request is cut off: the client can continue it.
    pub fn keeps_content(&self) -> bool {
        self.is_known && !self.is_broken
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

    /// Whether the content must be seen, for the digest of the whole upload.
    pub fn looks_at_content(&self) -> bool {
        self.hasher.is_some()
    }

    /// Appends content by `append`. `seen`: the content, unless it was spliced. `is_checked`: the piece has a checksum, which
    /// comes first.
    ///
    /// # Errors
    /// What `append` says.
    pub fn append(
        &mut self,
        seen: &[u8],
        is_checked: bool,
        append: impl FnOnce(&mut P) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        append(&mut self.partial).inspect_err(|error| self.is_broken = !matches!(error, StoreError::Full(_)))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(seen);
        }
        if !is_checked {
            self.partial.checkpoint(self.hasher.as_ref());
        }
        Ok(())
    }

    /// The piece has come, and is as it was promised. If the upload is whole, returns its digest, where one was promised.
    ///
    /// # Errors
    /// The last piece has come, and the upload has not the size or the digest that was told.
    pub fn end_piece(&mut self) -> Result<Option<Whole>, Denial> {
        self.partial.checkpoint(self.hasher.as_ref());
        let size = self.held();
        match self.terms.size {
            Some(told) if told == size => {}
            Some(_) if self.is_last => {
                return Err(Denial::inconsistent_length("the last piece does not end at the size of the upload"));
            }
            None if self.is_last => {}
            _ => return Ok(None),
        }
        let Some(hasher) = self.hasher.take() else { return Ok(Some(Whole { size, digest: None })) };
        let computed = hasher.finish();
        match self.terms.promise {
            Some(Promise::Known(promised)) if promised != computed => {
                self.is_broken = true;
                let words = format!("the upload has {computed}, not {promised} as promised; begin it again");
                Err(Refusal::new(Code::MISMATCH, words).into())
            }
            _ => Ok(Some(Whole { size, digest: Some(computed) })),
        }
    }

    /// The partial file of the whole upload, and its id.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn into_file(mut self) -> Result<(P, ResumeId), StoreError> {
        if let Some(mtime) = self.terms.mtime {
            self.partial.set_mtime(mtime.get())?;
        }
        Ok((self.partial, self.id))
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
                Ok(Standing { offset, size, expires, note, stored: None })
            }
        })
    }

    /// The request is over before its time. The upload is kept if the client can continue it.
    pub fn give_up(self) -> Name {
        let name = self.partial.name().clone();
        if self.keeps_content() {
            self.partial.keep();
        }
        name
    }
}

/// Takes in what follows, if a digest of the whole upload is promised.
fn hasher_of(partial: &impl Partial, terms: &Terms) -> Option<Hasher> {
    let promise = terms.promise?;
    Some(partial.state().map_or_else(|| Hasher::new(promise.algorithm()), |held| held.hasher))
}

/// The answer where there is no such upload, or not any more.
fn after_the_end(what: &ById, finished: Option<Receipt>) -> Result<Standing, Denial> {
    let receipt = finished.ok_or_else(Denial::unknown)?;
    match what {
        ById::Append(append) if append.offset != receipt.size => Err(Denial::wrong_offset(append.offset, receipt.size)),
        ById::Append(append) if append.length != Some(0) => Err(Denial::completed(receipt.size)),
        ById::Remove(_) => Err(Denial::unknown()),
        _ => Ok(Standing::stored(receipt)),
    }
}

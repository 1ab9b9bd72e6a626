//! What the disk does for one connection: an upload is begun, filled, compared and published.
//!
//! ```text
//!   ask --+---------------------------------------> Writing --append, append, end--> submitted
//!         +-- some of it is here: Resuming -----------^ ^                              ^
//!         +-- too many files wait: Room ----------------+                              |
//!         +-- another upload has its id: Rival ---------+                              |
//!         |      the disk is busy with that one: Disk --+                              |
//!         +-- the same file may be here: Comparing ------------------------------------+
//! ```
//!
//! The resumable uploads of HTTP have their own path ([`Session`]): each request brings a piece.
//!
//! Each call returns an [`Answer`]: what the conversation is to be told. While [`Work::status`] is not [`Status::Idle`] no
//! further input may be taken. Then either [`Work::advance`] does the next piece, or the work waits: for the store
//! ([`Work::settle`]), for the time, or for the loop ([`Work::retry`]).
//!
//! Knows neither the socket nor the conversation.

use std::io::{self, Read};
use std::mem;
use std::num::NonZeroU64;
use std::time::Duration;

use super::by_id::{self, Opened, Session};
use super::digesting::Digesting;
use super::jobs::{Jobs, Waiter};
use super::published::Claim;
use super::story::Filed;
use crate::access::Charge;
use crate::proto::{
    ById, Code, Denial, Digest, Hasher, Held, Name, OnExists, Refusal, Request, ResumeId, Standing, Ticket, Whole,
};
use crate::reactor::{Budget, Id, Moment};
use crate::store::slip::Slip;
use crate::store::{Done, Job, Partial, Settled, Store, StoreError, Target, Token};

/// How long the disk gets for content that could not be read at once: a try costs little, and a disk takes some
/// milliseconds.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// From this size on an upload is spliced: for less than a buffer the two calls gain nothing.
const SPLICE_AFTER_BYTES: u64 = 1 << 20;

/// What the disk does for one connection. An idle connection has none of the boxes.
#[derive(Default)]
pub enum Work<D: Store> {
    /// Nothing.
    #[default]
    Idle,
    /// It takes the content of an upload.
    Writing(Upload<D::Partial>),
    /// It syncs what an earlier connection brought of an upload.
    Resuming(Box<Resumed<D::Partial>>),
    /// It reads a stored file, to find out whether that is the file of the request.
    Comparing(Box<Comparison<D::Content>>),
    /// It has a resumable upload of HTTP, during one request for it.
    ById(Box<Session<D::Partial>>),
    /// A request waits for others.
    Waiting(Box<Waiting>),
}

/// An upload whose content comes in.
pub struct Upload<P> {
    partial: P,
    /// Boxed, as most uploads have none.
    wishes: Option<Box<Wishes>>,
}

/// What few requests ask for.
#[derive(Default, PartialEq)]
struct Wishes {
    /// A stored file of the same name will do, if it is the same.
    same_will_do: bool,
    /// The file is stored already, under this name. Only its digest has not come yet.
    stored: Option<Name>,
    resume: Option<ResumeId>,
    mtime: Option<NonZeroU64>,
}

/// An upload that is resumed.
pub struct Resumed<P> {
    upload: Upload<P>,
    held: Held,
    /// The request that waits for the sync.
    ticket: Ticket,
    /// The result of the sync, once it is known.
    synced: Option<Result<(), StoreError>>,
}

/// What a request waits for.
pub enum Waiting {
    /// Until fewer files wait for the disk.
    Room(Ask),
    /// Until another upload with its resume id is ended. `has_waited`: the disk was busy with that one until now.
    Rival {
        /// The request.
        request: Ask,
        /// See above.
        has_waited: bool,
    },
    /// Until the disk is done with another upload that has its resume id.
    Disk(Ask),
}

/// What is asked for.
#[derive(Clone)]
pub enum Ask {
    /// A file is to be stored.
    Upload(Request),
    /// Something is to be done with a resumable upload of HTTP.
    ById(ById),
}

impl Ask {
    /// The id of the upload that it is about, if that can be resumed.
    fn resume_id(&self) -> Option<&ResumeId> {
        match self {
            Self::Upload(request) => request.resume.as_ref(),
            Self::ById(what) => what.id(),
        }
    }
}

/// A stored file that is compared with the file of a request.
pub struct Comparison<C> {
    filed: Filed,
    content: C,
    digesting: Digesting,
    /// The content could not be read at once: when to try again.
    again_at: Option<Moment>,
}

/// What the connection is to do about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Take input.
    Idle,
    /// Call [`Work::advance`].
    Ready,
    /// Have the rival ended, then call [`Work::retry`].
    Contends,
    /// Wait for room, then call [`Work::retry`].
    WaitsForRoom,
    /// Wait for the disk.
    Waits,
}

/// What the conversation is to be told.
pub enum Answer<C> {
    /// Nothing yet.
    Later,
    /// The client may send. The server has this much of its upload.
    Accept(Option<Held>),
    /// As [`Answer::Accept`], if what the server has could be synced.
    Synced(Held, Result<(), StoreError>),
    /// The request is refused.
    Refuse(Option<Name>, StoreError),
    /// The request needs no content, as its file is stored under this name.
    Stored {
        /// The name that was asked for.
        asked: Name,
        /// The name that it has.
        stored: Name,
    },
    /// The request needs no content, if this stored file is the one: [`Work::compare`].
    Same(Name, C),
    /// The client may send a piece of the upload `id`, which has `offset` bytes and may have `max_bytes`.
    Piece {
        /// See above.
        id: ResumeId,
        /// See above.
        offset: u64,
        /// See above.
        max_bytes: u64,
    },
    /// What is asked about a resumable upload has this answer.
    ById(Result<Standing, Denial>),
    /// The resumable upload is whole: [`Work::file`].
    Whole {
        /// Its size in bytes.
        size: u64,
        /// Its digest, if one was promised.
        digest: Option<Digest>,
    },
    /// The outcome of a whole file.
    Settled(Filed, Result<Name, StoreError>),
}

/// The store, as one connection uses it.
pub struct Disk<'a, D> {
    /// Where files go.
    pub store: &'a mut D,
    /// What the disk is busy with, for all connections.
    pub jobs: &'a mut Jobs,
    /// The connection.
    pub id: Id,
    /// The time.
    pub now: Moment,
    /// What to do when a name is taken and the request does not say.
    pub on_exists: OnExists,
    /// How long an interrupted upload is kept, in seconds.
    pub ttl_seconds: u64,
}

/// What a conversation says of its request.
#[derive(Clone, Copy, Debug)]
pub struct RequestState {
    /// Its number.
    pub ticket: Ticket,
    /// The client has told size and digest and waits for the answer, so that the content can be left out.
    pub may_omit_content: bool,
}

impl<P: Partial> Upload<P> {
    fn resume_id(&self) -> Option<&ResumeId> {
        self.wishes.as_ref()?.resume.as_ref()
    }
}

impl<D: Store> Disk<'_, D> {
    fn token(&self, ticket: Ticket) -> Token {
        Waiter { id: self.id, ticket }.token()
    }

    /// Hands a whole file to the store. `id`: of the upload, if it can be resumed. `claim`: what to remember of it once it is
    /// published.
    fn file(
        &mut self,
        filed: Filed,
        id: Option<ResumeId>,
        claim: Option<Claim>,
        mut job: Job<D>,
    ) -> Answer<D::Content> {
        if let Job::Publish(partial) = &mut job
            && self.store.has_queue()
        {
            partial.queue_as(slip_of(&filed));
        }
        let token = self.token(filed.whole.ticket);
        self.jobs.file(token, filed, id, claim, self.now);
        let Some(settled) = self.store.submit(token, job) else { return Answer::Later };
        match (self.jobs.settle(&settled, self.now), settled.done) {
            (Some(filed), Done::Stored(result)) => Answer::Settled(filed, result),
            _ => Answer::Later,
        }
    }

    fn is_busy_with(&self, id: Option<&ResumeId>) -> bool {
        id.is_some_and(|id| is_busy_with(self.store, self.jobs, id))
    }
}

impl<D: Store> Work<D> {
    /// Begins what `request` asks for.
    pub fn ask(&mut self, request: Ask, state: RequestState, disk: &mut Disk<D>) -> Answer<D::Content> {
        if disk.is_busy_with(request.resume_id()) {
            return self.wait(Waiting::Rival { request, has_waited: false });
        }
        match self.begin(&request, false, state, disk) {
            Err(StoreError::Busy(_)) if request.resume_id().is_some() => {
                self.wait(Waiting::Rival { request, has_waited: false })
            }
            outcome => outcome.unwrap_or_else(|error| refuse(request, error)),
        }
    }

    fn begin(
        &mut self,
        request: &Ask,
        has_waited: bool,
        state: RequestState,
        disk: &mut Disk<D>,
    ) -> Result<Answer<D::Content>, StoreError> {
        match request {
            Ask::Upload(request) => self.open(request, has_waited, state, disk),
            Ask::ById(what) => self.open_by_id(what, state, disk),
        }
    }

    /// As [`Work::ask`], when there is room for another file.
    pub fn ask_later(&mut self, request: Ask) -> Answer<D::Content> {
        self.wait(Waiting::Room(request))
    }

    /// Begins what it could not begin before: there is room now, or the rival is ended.
    pub fn retry(&mut self, state: RequestState, disk: &mut Disk<D>) -> Answer<D::Content> {
        let waiting = match mem::take(self) {
            Self::Waiting(waiting) => *waiting,
            other => {
                *self = other;
                return Answer::Later;
            }
        };
        match waiting {
            Waiting::Room(request) => self.ask(request, state, disk),
            // Looked at only once: the disk may be done with it at any time.
            Waiting::Rival { request, .. } if disk.is_busy_with(request.resume_id()) => {
                self.wait(Waiting::Disk(request))
            }
            Waiting::Rival { request, has_waited } => {
                let outcome = self.begin(&request, has_waited, state, disk);
                outcome.unwrap_or_else(|error| refuse(request, error))
            }
            Waiting::Disk(request) => self.wait(Waiting::Disk(request)),
        }
    }

    fn wait(&mut self, waiting: Waiting) -> Answer<D::Content> {
        *self = Self::Waiting(Box::new(waiting));
        Answer::Later
    }

    /// Opens a partial file for the upload, unless its file is stored already.
    fn open(
        &mut self,
        request: &Request,
        has_waited: bool,
        state: RequestState,
        disk: &mut Disk<D>,
    ) -> Result<Answer<D::Content>, StoreError> {
        let &Request { ref name, size, mtime, .. } = request;
        if let Some(answer) = self.open_published(request, has_waited, state, disk)? {
            return Ok(answer);
        }
        let on_exists = request.on_exists.unwrap_or(disk.on_exists);
        if on_exists == OnExists::Same
            && let Some(size) = size
            && let Some(content) = disk.store.find(name, size)?
            && state.may_omit_content
        {
            return Ok(Answer::Same(name.clone(), content));
        }
        let (promise, resume) = (request.digest, request.resume.as_ref());
        let partial = disk.store.begin(&Target { size, promise, resume, ..Target::new(name, on_exists) })?;
        let held = partial.state();
        let same_will_do = on_exists == OnExists::Same;
        let wishes = Wishes { same_will_do, resume: request.resume.clone(), mtime, stored: None };
        let wishes = (wishes != Wishes::default()).then(|| Box::new(wishes));
        let upload = Upload { partial, wishes };
        Ok(match held {
            Some(held) => self.resume(Resumed { upload, held, ticket: state.ticket, synced: None }, disk),
            None => {
                *self = Self::Writing(upload);
                Answer::Accept(None)
            }
        })
    }

    /// Answers the request for an upload that was published a short time ago, if its file is still there as it was
    /// published. `None`: it is no such request.
    ///
    /// A request whose digest follows the content may be about another file with this id, name and size. So it is answered only
    /// if it has waited for this very upload (`has_waited`). The client then gets the full size as its offset, and sends the
    /// digest, which is compared as always.
    fn open_published(
        &mut self,
        request: &Request,
        has_waited: bool,
        state: RequestState,
        disk: &Disk<D>,
    ) -> Result<Option<Answer<D::Content>>, StoreError> {
        let Some((claim, stored)) = disk.jobs.published().find(request) else { return Ok(None) };
        let (name, stored) = (&request.name, stored.clone());
        if disk.store.mark(&stored).as_ref() != Some(&claim.mark) {
            // It has been removed or changed since, or another file has its name.
            return Ok(None);
        }
        if request.known_digest().is_some() {
            return Ok(state.may_omit_content.then(|| Answer::Stored { asked: name.clone(), stored }));
        }
        if !has_waited {
            return Ok(None);
        }
        // Nothing is written to it.
        let partial = disk.store.begin(&Target::new(name, OnExists::Rename))?;
        let wishes = Wishes { stored: Some(stored), ..Wishes::default() };
        *self = Self::Writing(Upload { partial, wishes: Some(Box::new(wishes)) });
        Ok(Some(Answer::Accept(Some(claim.held.clone()))))
    }

    /// Opens the resumable upload that `what` is about.
    fn open_by_id(
        &mut self,
        what: &ById,
        state: RequestState,
        disk: &mut Disk<D>,
    ) -> Result<Answer<D::Content>, StoreError> {
        Ok(match Session::open(what, state.ticket, disk.on_exists, disk.store)? {
            Opened::Writing(session) => {
                let (id, offset, max_bytes) = (session.id().clone(), session.held(), session.max_bytes());
                *self = Self::ById(Box::new(session));
                Answer::Piece { id, offset, max_bytes }
            }
            Opened::Holding(mut session) => {
                session.hold(state.ticket, disk.token(state.ticket), disk.store);
                *self = Self::ById(Box::new(session));
                Answer::Later
            }
            Opened::Whole(session) => {
                *self = Self::ById(Box::new(session));
                self.end_piece(state.ticket, disk)
            }
            Opened::Answer(answer) => Answer::ById(answer),
        })
    }

    /// The piece of a resumable upload has come.
    pub fn end_piece(&mut self, ticket: Ticket, disk: &mut Disk<D>) -> Answer<D::Content> {
        let Self::ById(session) = self else { return Answer::ById(Err(nothing_is_open().into())) };
        match session.end_piece() {
            Ok(Some(by_id::Whole { size, digest })) => Answer::Whole { size, digest },
            Ok(None) => {
                session.hold(ticket, disk.token(ticket), disk.store);
                Answer::Later
            }
            Err(denial) => Answer::ById(Err(denial)),
        }
    }

    /// Publishes the resumable upload, which is whole. `None`: there is none.
    pub fn file(&mut self, filed: impl FnOnce(Name) -> Filed, disk: &mut Disk<D>) -> Option<Answer<D::Content>> {
        let session = match mem::take(self) {
            Self::ById(session) => *session,
            other => {
                *self = other;
                return None;
            }
        };
        let filed = filed(session.name().clone());
        Some(match session.into_file() {
            Ok((partial, id)) => disk.file(filed, Some(id), None, Job::Publish(partial)),
            Err(error) => Answer::Settled(filed, Err(error)),
        })
    }

    /// Syncs what is there of an upload, before the client is told how much it is.
    fn resume(&mut self, mut resumed: Resumed<D::Partial>, disk: &mut Disk<D>) -> Answer<D::Content> {
        let job = Job::Hold(&mut resumed.upload.partial);
        if let Some(Settled { done: Done::Held(result), .. }) = disk.store.submit(disk.token(resumed.ticket), job) {
            resumed.synced = Some(result);
        }
        *self = Self::Resuming(Box::new(resumed));
        Answer::Later
    }

    /// The sync that the request `ticket` waits for has this result. The upload may have been given up since.
    pub fn settle(&mut self, ticket: Ticket, result: Result<(), StoreError>) {
        match self {
            Self::Resuming(resumed) if resumed.ticket == ticket => resumed.synced = Some(result),
            Self::ById(session) => session.settle(ticket, result),
            _ => {}
        }
    }

    /// Looks whether the disk is still busy with the upload that the request waits for. Returns whether it need not wait any
    /// more.
    pub fn stop_awaiting(&mut self, store: &D, jobs: &Jobs) -> bool {
        let Self::Waiting(waiting) = self else { return true };
        let Waiting::Disk(request) = &**waiting else { return true };
        if request.resume_id().is_some_and(|id| is_busy_with(store, jobs, id)) {
            return false;
        }
        **waiting = Waiting::Rival { request: request.clone(), has_waited: true };
        true
    }

    /// Appends content to the upload by `append`. `seen`: the content, unless it was spliced. `hasher` has taken in all of the
    /// content so far, where there is one.
    ///
    /// # Errors
    /// What `append` says.
    pub fn append(
        &mut self,
        seen: &[u8],
        hasher: Option<&Hasher>,
        append: impl FnOnce(&mut D::Partial) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let upload = match self {
            Self::Writing(upload) => upload,
            Self::ById(session) => return session.append(seen, hasher.is_some(), append),
            _ => return Err(nothing_begun()),
        };
        append(&mut upload.partial)?;
        if let Some(hasher) = hasher
            && upload.resume_id().is_some()
        {
            upload.partial.checkpoint(Some(hasher));
        }
        Ok(())
    }

    /// The content of the upload is whole. `filed` takes the name that was asked for. `None`: there is no upload.
    pub fn end(&mut self, filed: impl FnOnce(Name) -> Filed, disk: &mut Disk<D>) -> Option<Answer<D::Content>> {
        let Upload { mut partial, wishes } = self.take_upload()?;
        let Wishes { same_will_do, stored, resume, mtime } = wishes.map_or_else(Wishes::default, |wishes| *wishes);
        let filed = filed(partial.name().clone());
        if let Some(stored) = stored {
            return Some(Answer::Settled(filed, Ok(stored)));
        }
        let found = if same_will_do { disk.store.find(partial.name(), filed.whole.size) } else { Ok(None) };
        let set_mtime = |partial: &mut D::Partial| mtime.map_or(Ok(()), |mtime| partial.set_mtime(mtime.get()));
        Some(match found.and_then(|found| set_mtime(&mut partial).map(|()| found)) {
            Ok(Some(content)) => self.compare(filed, content),
            Ok(None) => {
                let claim = resume.clone().and_then(|id| to_remember(id, &filed.whole, &mut partial));
                disk.file(filed, resume, claim, Job::Publish(partial))
            }
            Err(error) => Answer::Settled(filed, Err(error)),
        })
    }

    /// Compares the stored file `content` with the file of the request. It is read piece by piece.
    pub fn compare(&mut self, filed: Filed, content: D::Content) -> Answer<D::Content> {
        let Whole { size, digest, .. } = filed.whole;
        // Without a digest nothing can be compared.
        let Some(promised) = digest else { return Answer::Settled(filed, Err(StoreError::NOT_THE_SAME)) };
        let digesting = Digesting::new(promised.algorithm(), size);
        *self = Self::Comparing(Box::new(Comparison { filed, content, digesting, again_at: None }));
        Answer::Later
    }

    /// Does the next piece. It reads through `buffer`.
    pub fn advance(
        &mut self,
        buffer: &mut [u8],
        budget: &mut Budget,
        now: Moment,
        disk: &mut Disk<D>,
    ) -> Answer<D::Content> {
        match mem::take(self) {
            Self::Resuming(resumed) => match *resumed {
                Resumed { upload, held, synced: Some(result), .. } => {
                    *self = Self::Writing(upload);
                    Answer::Synced(held, result)
                }
                resumed => {
                    *self = Self::Resuming(Box::new(resumed));
                    Answer::Later
                }
            },
            Self::ById(session) if session.is_held() => {
                let name = session.name().clone();
                match session.end(disk.ttl_seconds) {
                    Ok(answer) => Answer::ById(answer),
                    Err(error) => Answer::Refuse(Some(name), error),
                }
            }
            Self::Comparing(mut comparison) => {
                match comparison.digesting.advance(|piece| comparison.content.read(piece), buffer, budget) {
                    Ok(true) => return comparison.end(disk),
                    Ok(false) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        comparison.again_at = Some(now + READ_AGAIN_AFTER);
                    }
                    Err(error) => return Answer::Settled(comparison.filed, Err(error.into())),
                }
                *self = Self::Comparing(comparison);
                Answer::Later
            }
            other => {
                *self = other;
                Answer::Later
            }
        }
    }

    /// When to read again, if the content could not be read at once.
    pub fn reads_again_at(&self) -> Option<Moment> {
        match self {
            Self::Comparing(comparison) => comparison.again_at,
            _ => None,
        }
    }

    /// That moment has come.
    pub fn read_again(&mut self) {
        if let Self::Comparing(comparison) = self {
            comparison.again_at = None;
        }
    }

    /// Gives up the request or the upload, and returns the name of the upload. `keep`: it can be resumed later, if it has a
    /// resume id. A file that is whole is still compared.
    pub fn give_up(&mut self, keep: bool) -> Option<Name> {
        if let Self::ById(_) = self
            && let Self::ById(session) = mem::take(self)
        {
            return Some(session.give_up());
        }
        let partial = self.take_upload()?.partial;
        let name = partial.name().clone();
        if keep {
            partial.keep();
        }
        Some(name)
    }

    fn take_upload(&mut self) -> Option<Upload<D::Partial>> {
        match mem::take(self) {
            Self::Writing(upload) => Some(upload),
            Self::Resuming(resumed) => Some(resumed.upload),
            Self::Waiting(_) => None,
            other @ (Self::Comparing(_) | Self::ById(_) | Self::Idle) => {
                *self = other;
                None
            }
        }
    }

    fn upload(&self) -> Option<&Upload<D::Partial>> {
        match self {
            Self::Writing(upload) => Some(upload),
            Self::Resuming(resumed) => Some(&resumed.upload),
            Self::Idle | Self::Comparing(_) | Self::ById(_) | Self::Waiting(_) => None,
        }
    }

    /// Whether the content that came stays when the request is cut off, as it does of a resumable upload of HTTP.
    pub fn keeps_content(&self) -> bool {
        matches!(self, Self::ById(session) if session.keeps_content())
    }

    /// What a file was charged for that is still compared.
    pub fn take_charge(&mut self) -> Option<Box<Charge>> {
        match self {
            Self::Comparing(comparison) => comparison.filed.charge.take(),
            _ => None,
        }
    }

    /// The name of the upload in progress.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::ById(session) => Some(session.name()),
            _ => Some(self.upload()?.partial.name()),
        }
    }

    /// Whether the upload in progress has this resume id.
    pub fn has_resume_id(&self, id: &ResumeId) -> bool {
        match self {
            Self::ById(session) => session.id() == id,
            _ => self.upload().and_then(Upload::resume_id) == Some(id),
        }
    }

    /// Whether the upload has so much content that splicing the rest is likely to pay.
    pub fn is_long(&self) -> bool {
        match self {
            Self::Writing(upload) => upload.partial.held() >= SPLICE_AFTER_BYTES,
            Self::ById(session) => {
                session.is_writing() && session.held() >= SPLICE_AFTER_BYTES && !session.looks_at_content()
            }
            _ => false,
        }
    }

    /// The resume id that the request wants and another upload has.
    pub fn contended(&self) -> Option<&ResumeId> {
        let Self::Waiting(waiting) = self else { return None };
        let Waiting::Rival { request, .. } = &**waiting else { return None };
        request.resume_id()
    }

    /// Whether it waits until the disk is done with another upload.
    pub fn is_awaiting_disk(&self) -> bool {
        matches!(self, Self::Waiting(waiting) if matches!(**waiting, Waiting::Disk(_)))
    }

    /// What the connection is to do about it.
    pub fn status(&self) -> Status {
        match self {
            Self::Idle | Self::Writing(_) => Status::Idle,
            Self::Resuming(resumed) if resumed.synced.is_none() => Status::Waits,
            Self::Comparing(comparison) if comparison.again_at.is_some() => Status::Waits,
            Self::ById(session) if session.is_writing() => Status::Idle,
            Self::ById(session) if !session.is_held() => Status::Waits,
            Self::Resuming(_) | Self::Comparing(_) | Self::ById(_) => Status::Ready,
            Self::Waiting(waiting) => match **waiting {
                Waiting::Room(_) => Status::WaitsForRoom,
                Waiting::Rival { .. } => Status::Contends,
                Waiting::Disk(_) => Status::Waits,
            },
        }
    }
}

impl<C> Comparison<C> {
    /// The stored file has been read.
    fn end<D: Store<Content = C>>(self, disk: &mut Disk<D>) -> Answer<C> {
        let Self { filed, content, digesting, .. } = self;
        if Some(digesting.into_hasher().finish()) == filed.whole.digest {
            disk.file(filed, None, None, Job::Confirm(content))
        } else {
            Answer::Settled(filed, Err(StoreError::NOT_THE_SAME))
        }
    }
}

/// What the queue is told of the client and the content.
fn slip_of(Filed { peer, who, whole, .. }: &Filed) -> Slip {
    let (digest, who) =
        (whole.digest.map(|digest| digest.to_string()), who.as_ref().map(|who| who.as_str().to_owned()));
    Slip { peer: peer.to_string(), who, digest, ..Slip::default() }
}

/// Whether the upload `id` is in progress, or what has become of it is not known yet.
fn is_busy_with(store: &impl Store, jobs: &Jobs, id: &ResumeId) -> bool {
    jobs.are_about(id) || store.is_busy_with(id)
}

/// What to remember of the upload `id` once it is published.
fn to_remember(id: ResumeId, whole: &Whole, partial: &mut impl Partial) -> Option<Claim> {
    let (held, digest, mark) = (partial.state()?, whole.digest?, partial.mark()?);
    Some(Claim { id, name: partial.name().clone(), held, digest, mark })
}

fn refuse<C>(request: Ask, error: StoreError) -> Answer<C> {
    let name = match request {
        Ask::Upload(request) => Some(request.name),
        Ask::ById(ById::Create(creation)) => Some(creation.request.name),
        Ask::ById(_) => None,
    };
    Answer::Refuse(name, error)
}

/// The conversation ends a piece only after it was told to accept one.
fn nothing_is_open() -> Refusal {
    Refusal::new(Code::DISK, "the server has lost the upload; ask for its offset")
}

/// The conversation sends content only after it was told to accept some.
fn nothing_begun() -> StoreError {
    io::Error::other("no upload has begun").into()
}

//! What the disk has to do with a request: a file is begun, gone on with, filled, compared, and published.
//!
//! ```text
//!   begin --+-----------------------------------------> accept --> append ... --> publish --> settle
//!           |     (while too many files wait for the disk: Begin, and then as here)
//!           +-- some is held: Sync --> Resume -------------^                         |
//!           +-- another has it: Contend --> claim, as at the beginning               |
//!           |      the disk is busy with it: Await --^                               |
//!           +-- it was published just now: done, and no content                      |
//!           +-- it may be here already: Compare <----- on-exists=same ---------------+
//! ```
//!
//! What cannot be done at once is a [`Task`], and until that is done no further input is taken. A task that reads is
//! performed piece by piece, one that only somebody else can bring on waits for [`Connection::settle`] or
//! [`Connection::claim`]. Knows nothing of the socket.

use std::io::{self, Read};
use std::num::NonZeroU64;
use std::time::Duration;

use super::{Connection, Context, Verdict};
use crate::net::Stream;
use crate::proto::{Code, Held, Name, OnExists, Peer, Refusal, Request, ResumeId, Rules, Ticket, Whole};
use crate::reactor::{Budget, Moment};
use crate::server::digesting::Digesting;
use crate::server::jobs::Waiter;
use crate::server::pace::Pace;
use crate::server::published;
use crate::server::story::{CloseReason, Fact, Filed, Scene, Story};
use crate::store::{Done, Job, Partial, Settled, Store, StoreError, Target};

/// After how long it makes sense to come back where another upload is in the way, in seconds.
const BUSY_SECONDS: u32 = 5;

/// How long the disk is given for what was not there to be read: a look costs little, and a disk takes some milliseconds.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// From so many bytes on content goes through the pipe: two calls for less than a buffer gain nothing.
const SPLICE_AFTER_BYTES: u64 = 1 << 20;

/// A file under way.
pub struct Upload<P> {
    partial: P,
    /// Boxed, as most have none.
    wishes: Option<Box<Wishes>>,
}

/// What is seldom asked for.
#[derive(Default, PartialEq)]
struct Wishes {
    /// What has the name shall do, if it is the same.
    same_will_do: bool,
    /// It is published already, under this name: only its digest is still to be compared.
    stored: Option<Name>,
    resume: Option<ResumeId>,
    mtime: Option<NonZeroU64>,
}

/// What the disk has to do with a request before the next input is taken.
pub enum Task<C> {
    /// Find out whether what has the name is the file that was uploaded, or would be.
    /// `again_at`: it was not there to be read, and is to be tried again then.
    Compare { whole: Whole, name: Name, content: C, digesting: Digesting, again_at: Option<Moment> },
    /// Wait until there is room among the files that wait for the disk.
    Begin(Request),
    /// Wait until whoever has the resume id has given it up. `has_waited`: the disk was busy with it until now.
    Contend { request: Request, has_waited: bool },
    /// Wait until the disk is done with what has the resume id.
    Await(Request),
    /// Wait until what is held would survive a power cut.
    Sync(Ticket, Held),
    /// Go on from what is held.
    Resume(Held),
}

/// What is to be done with a file that is whole.
enum Ending<P> {
    /// It is to be published. `published::Upload`: what to remember of it then.
    Publish(P, Option<published::Upload>),
    /// It is stored already, under this name.
    Stored(Name),
    /// It may be there already: that is being found out.
    Compare,
}

impl<P: Partial> Upload<P> {
    pub fn name(&self) -> &Name {
        self.partial.name()
    }

    fn is_resumable(&self) -> bool {
        self.wishes.as_ref().is_some_and(|wishes| wishes.resume.is_some())
    }

    /// Whether so much is there that the rest is likely to be worth the pipe.
    pub fn is_long(&self) -> bool {
        self.partial.held() >= SPLICE_AFTER_BYTES
    }
}

impl<C> Task<C> {
    /// Whether the connection can do nothing about it: the disk is busy with it, or with too many others.
    pub fn waits_for_others(&self) -> bool {
        matches!(self, Self::Begin(_) | Self::Await(_) | Self::Sync(..) | Self::Compare { again_at: Some(_), .. })
    }

    /// When to read on, where the disk is waited for.
    pub fn reads_again_at(&self) -> Option<Moment> {
        match self {
            Self::Compare { again_at, .. } => *again_at,
            _ => None,
        }
    }

    /// Whether it is what becomes of `ticket` that brings it on.
    fn waits_for(&self, ticket: Ticket) -> bool {
        matches!(self, Self::Sync(awaited, _) if *awaited == ticket)
    }
}

impl<S: Stream, D: Store> Connection<S, D> {
    /// The resume id that it wants and another upload has.
    pub fn contended(&self) -> Option<&ResumeId> {
        match self.task.as_deref()? {
            Task::Contend { request, .. } => request.resume.as_ref(),
            _ => None,
        }
    }

    /// Whether it has an upload in progress under this resume id.
    pub fn holds(&self, id: &ResumeId) -> bool {
        let wishes = self.upload.as_ref().and_then(|upload| upload.wishes.as_ref());
        wishes.is_some_and(|wishes| wishes.resume.as_ref() == Some(id))
    }

    /// Gives up the upload that another connection has claimed since: after a silent loss of the network this one may only
    /// seem to be alive.
    pub fn evict(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        let refusal = Refusal::new(Code::CONFLICT, "another connection goes on with this upload");
        self.receiver.dismiss(&refusal, cx.rules);
        let name = self.end_upload(true);
        self.note_refusal(refusal, name, &mut cx.story);
        self.serve(cx, budget)
    }

    /// Begins what it could not while another connection was in its way, if that one was. Where the disk is busy with it,
    /// waits for the disk.
    pub fn claim(&mut self, cx: &mut Context<D>, _: &mut Budget) -> Verdict {
        if let Some(Task::Contend { request, has_waited }) =
            self.task.take_if(|task| matches!(**task, Task::Contend { .. })).map(|task| *task)
        {
            match self.open(&request, has_waited, cx) {
                Ok(()) => self.follow_kept(cx),
                Err(StoreError::Busy(_)) if request.resume.as_ref().is_some_and(|id| cx.store.is_busy_with(id)) => {
                    self.task = Some(Box::new(Task::Await(request)));
                }
                Err(error) => self.refuse_to_begin(&error, request.name, cx),
            }
        }
        Verdict::Yield
    }

    /// Whether it waits for room to begin a file.
    pub fn waits_for_room(&self) -> bool {
        self.task.as_ref().is_some_and(|task| matches!(**task, Task::Begin(_)))
    }

    /// Begins the file that it has waited for room for.
    pub fn begin_now(&mut self, cx: &mut Context<D>, _: &mut Budget) -> Verdict {
        if self.contended().is_some() {
            return Verdict::Contend;
        }
        if let Some(Task::Begin(request)) = self.task.take_if(|task| matches!(**task, Task::Begin(_))).map(|task| *task)
        {
            // The peer had to wait for the disk.
            self.pace = Pace::begin(cx.clock.now);
            self.begin(request, cx);
            self.follow_kept(cx);
        }
        Verdict::Yield
    }

    /// Whether it waits until the disk is done with the upload that it wants to resume.
    pub fn is_awaiting(&self) -> bool {
        self.task.as_ref().is_some_and(|task| matches!(**task, Task::Await(_)))
    }

    /// Looks whether the disk is still busy. Returns whether there is nothing to wait for any more.
    pub fn stop_awaiting(&mut self, store: &D) -> bool {
        let is_done = |id: &ResumeId| !store.is_busy_with(id);
        let task = self.task.take_if(|task| match &**task {
            Task::Await(request) => request.resume.as_ref().is_none_or(is_done),
            _ => false,
        });
        if let Some(Task::Await(request)) = task.map(|task| *task) {
            self.task = Some(Box::new(Task::Contend { request, has_waited: true }));
        }
        !self.is_awaiting()
    }

    /// Before it is dropped: what nothing has been said against may be gone on with.
    pub fn keep_upload(&mut self) {
        self.end_upload(true);
    }

    /// Takes in the result of a job that was submitted for the request `ticket`. `filed`: what was asked for, if the job was
    /// about a whole file.
    pub fn settle(&mut self, ticket: Ticket, filed: Option<Filed>, done: Done, rules: &Rules, story: &mut Story) {
        match (done, filed) {
            (Done::Held(result), _) => self.settle_held(ticket, result, rules, story),
            (Done::Stored(result), Some(filed)) => self.tell_outcome(filed, result, rules, story),
            (Done::Stored(_), None) => {}
        }
    }

    fn settle_held(&mut self, ticket: Ticket, result: Result<(), StoreError>, rules: &Rules, story: &mut Story) {
        // Without the task the upload has been given up since.
        let Some(Task::Sync(_, held)) = self.task.take_if(|task| task.waits_for(ticket)).map(|task| *task) else {
            return;
        };
        story.scene(|| Scene::Held { offset: held.offset, result: &result });
        match result {
            Ok(()) => self.task = Some(Box::new(Task::Resume(held))),
            Err(error) => self.refuse(refusal_for(&error), Peer::Sending, rules, story),
        }
    }

    /// Takes in a result that was known at once.
    fn settle_at_once(&mut self, settled: Option<Settled>, cx: &mut Context<D>) {
        if let Some(settled) = settled {
            let filed = cx.jobs.settle(&settled);
            self.settle(Waiter::of(settled.token).ticket, filed, settled.done, cx.rules, &mut cx.story);
        }
    }

    fn tell_outcome(&mut self, filed: Filed, result: Result<Name, StoreError>, rules: &Rules, story: &mut Story) {
        let outcome = result.as_ref().map_err(refusal_for);
        if !self.receiver.settle(filed.whole.ticket, outcome.as_ref().copied(), rules) {
            // Nobody waits for it any more.
            return;
        }
        story.scene(|| Scene::Settled(&result));
        match outcome {
            Ok(stored) => {
                story.tell(&Fact::Stored { filed: &filed, stored });
                if filed.is_alone {
                    self.end(CloseReason::Stored {
                        asked: filed.asked,
                        stored: stored.clone(),
                        is_proven: filed.is_proven,
                    });
                }
            }
            Err(refusal) => self.note_refusal(refusal, Some(filed.asked), story),
        }
    }

    fn filed(&self, whole: Whole, asked: Name, story: &Story) -> Filed {
        // A conversation that is over with the content has had only this one.
        Filed {
            peer: story.whom.peer(),
            whole,
            asked,
            is_alone: self.receiver.has_ended_with_stream(),
            is_proven: self.stream.end_is_proven(),
        }
    }

    /// Hands a whole file to the disk. `resumable`: what to remember of it once it is published.
    fn file(&mut self, filed: Filed, resumable: Option<published::Upload>, job: Job<D>, cx: &mut Context<D>) {
        let token = Waiter { id: cx.story.id, ticket: filed.whole.ticket }.token();
        cx.jobs.file(token, filed, resumable);
        let settled = cx.store.submit(token, job);
        self.settle_at_once(settled, cx);
    }

    pub(super) fn begin(&mut self, request: Request, cx: &mut Context<D>) {
        match self.open(&request, false, cx) {
            Ok(()) => {}
            Err(StoreError::Busy(_)) if request.resume.is_some() => {
                self.task = Some(Box::new(Task::Contend { request, has_waited: false }));
            }
            Err(error) => self.refuse_to_begin(&error, request.name, cx),
        }
    }

    fn refuse_to_begin(&mut self, error: &StoreError, name: Name, cx: &mut Context<D>) {
        let refusal = refusal_for(error);
        self.receiver.refuse(&refusal, Peer::Sending, cx.rules);
        self.note_refusal(refusal, Some(name), &mut cx.story);
    }

    /// Makes a place to write, or finds what is held, unless the whole file may be there already.
    fn open(&mut self, request: &Request, has_waited: bool, cx: &mut Context<D>) -> Result<(), StoreError> {
        let &Request { ref name, size, mtime, .. } = request;
        if request.resume.as_ref().is_some_and(|id| cx.store.is_busy_with(id)) {
            return Err(StoreError::BUSY);
        }
        if self.open_published(request, has_waited, cx)? {
            return Ok(());
        }
        let on_exists = request.on_exists.unwrap_or(cx.rules.on_exists);
        if on_exists == OnExists::Same
            && let Some(size) = size
            && let Some(content) = cx.store.find(name, size)?
            && let Some(whole) = self.receiver.needs_no_content()
        {
            self.compare(whole, name.clone(), content);
            return Ok(());
        }
        let (promise, resume) = (request.digest, request.resume.as_ref());
        let partial = cx.store.begin(&Target { size, promise, resume, ..Target::new(name, on_exists) })?;
        let held = partial.state();
        let same_will_do = on_exists == OnExists::Same;
        let wishes = Wishes { same_will_do, resume: request.resume.clone(), mtime, stored: None };
        let wishes = (wishes != Wishes::default()).then(|| Box::new(wishes));
        self.upload = Some(Upload { partial, wishes });
        match held {
            Some(held) => self.hold(held, cx),
            None => self.accept(None, cx),
        }
        Ok(())
    }

    /// Answers the request for an upload that was published just now, without its content, if its file is still there as it
    /// was published. Returns whether it was one.
    ///
    /// A client that does not tell the digest yet may mean another file, unless it has waited for that one. It is told that
    /// all is held, and its digest is compared as always.
    fn open_published(&mut self, request: &Request, has_waited: bool, cx: &mut Context<D>) -> Result<bool, StoreError> {
        let Some(published) = cx.jobs.published().find(request) else { return Ok(false) };
        let stored = published.stored.clone();
        if cx.store.mark(&stored).as_ref() != Some(&published.mark) {
            // Somebody has removed or changed it since, or another file has its name.
            return Ok(false);
        }
        if request.known_digest().is_some() {
            let Some(whole) = self.receiver.needs_no_content() else { return Ok(false) };
            let filed = self.filed(whole, request.name.clone(), &cx.story);
            self.tell_outcome(filed, Ok(stored), cx.rules, &mut cx.story);
        } else if has_waited {
            let held = published.held.clone();
            // Nothing is written to it.
            let partial = cx.store.begin(&Target::new(&request.name, OnExists::Rename))?;
            let wishes = Wishes { stored: Some(stored), ..Wishes::default() };
            self.upload = Some(Upload { partial, wishes: Some(Box::new(wishes)) });
            self.task = Some(Box::new(Task::Resume(held)));
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn accept(&mut self, held: Option<Held>, cx: &mut Context<D>) {
        if held.is_some() {
            cx.story.tell(&Fact::Resumed);
        }
        self.receiver.accept(held);
        if self.receiver.tells_by_ending() {
            // From here on only what is stored ends well, even if this process is killed. Refused, it would be no worse.
            let _ = self.reset_on_close(true);
        }
        self.pace = Pace::begin(cx.clock.now);
    }

    pub(super) fn append(
        &mut self,
        count: usize,
        cx: &mut Context<D>,
        append: impl FnOnce(&mut D::Partial) -> Result<(), StoreError>,
    ) {
        cx.story.tell(&Fact::Received { bytes: count });
        let upload = self.upload.as_mut().expect("content comes between begin and publish only");
        match append(&mut upload.partial) {
            Ok(()) => {
                if let Some(hasher) = self.receiver.hasher().filter(|_| upload.is_resumable()) {
                    upload.partial.checkpoint(Some(hasher));
                }
            }
            Err(error) => self.refuse(refusal_for(&error), Peer::Sending, cx.rules, &mut cx.story),
        }
    }

    pub(super) fn publish(&mut self, whole: Whole, cx: &mut Context<D>) {
        let upload = self.upload.take().expect("content ends between begin and publish only");
        let filed = self.filed(whole, upload.name().clone(), &cx.story);
        match self.ending(whole, upload, cx) {
            Ok(Ending::Compare) => {}
            Ok(Ending::Stored(name)) => self.tell_outcome(filed, Ok(name), cx.rules, &mut cx.story),
            Ok(Ending::Publish(partial, resumable)) => self.file(filed, resumable, Job::Publish(partial), cx),
            Err(error) => self.tell_outcome(filed, Err(error), cx.rules, &mut cx.story),
        }
    }

    fn ending(
        &mut self,
        whole: Whole,
        upload: Upload<D::Partial>,
        cx: &mut Context<D>,
    ) -> Result<Ending<D::Partial>, StoreError> {
        let Upload { mut partial, wishes } = upload;
        let Wishes { same_will_do, stored, resume, mtime } = wishes.map_or_else(Wishes::default, |wishes| *wishes);
        if let Some(stored) = stored {
            return Ok(Ending::Stored(stored));
        }
        if same_will_do && let Some(content) = cx.store.find(partial.name(), whole.size)? {
            self.compare(whole, partial.name().clone(), content);
            return Ok(Ending::Compare);
        }
        mtime.map_or(Ok(()), |mtime| partial.set_mtime(mtime.get()))?;
        let resumable = match (resume, partial.state(), whole.digest) {
            (Some(id), Some(held), Some(digest)) => partial.mark().map(|mark| {
                let name = partial.name();
                published::Upload { id, name: name.clone(), held, digest, stored: name.clone(), mark }
            }),
            _ => None,
        };
        Ok(Ending::Publish(partial, resumable))
    }

    fn compare(&mut self, whole: Whole, name: Name, content: D::Content) {
        let promised = whole.digest.expect("who asks for the same tells a digest");
        let digesting = Digesting::new(promised.algorithm(), whole.size);
        self.task = Some(Box::new(Task::Compare { whole, name, content, digesting, again_at: None }));
    }

    /// Gets a task further by a piece.
    pub(super) fn perform(&mut self, mut task: Box<Task<D::Content>>, cx: &mut Context<D>, budget: &mut Budget) {
        let piece = match &mut *task {
            Task::Compare { content, digesting, .. } => {
                digesting.advance(|piece| content.read(piece), cx.buffer, budget)
            }
            Task::Begin(_) | Task::Contend { .. } | Task::Await(_) | Task::Sync(..) | Task::Resume(_) => Ok(true),
        };
        match piece {
            Ok(false) => self.task = Some(task),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Task::Compare { again_at, .. } = &mut *task {
                    *again_at = Some(cx.clock.now + READ_AGAIN_AFTER);
                }
                self.task = Some(task);
            }
            piece => {
                // The peer had to wait for the disk.
                self.pace = Pace::begin(cx.clock.now);
                self.finish(*task, piece.map(|_| ()).map_err(StoreError::from), cx);
            }
        }
    }

    /// The disk has had some time.
    pub(super) fn read_again(&mut self) {
        if let Some(Task::Compare { again_at, .. }) = self.task.as_deref_mut() {
            *again_at = None;
        }
    }

    /// Does what a task was for.
    fn finish(&mut self, task: Task<D::Content>, result: Result<(), StoreError>, cx: &mut Context<D>) {
        match (task, result) {
            (Task::Compare { whole, name, content, digesting, .. }, result) => {
                let is_same = || Some(digesting.into_hasher().finish()) == whole.digest;
                let filed = self.filed(whole, name, &cx.story);
                match result {
                    Ok(()) if is_same() => self.file(filed, None, Job::Confirm(content), cx),
                    Ok(()) => self.tell_outcome(filed, Err(StoreError::NOT_THE_SAME), cx.rules, &mut cx.story),
                    Err(error) => self.tell_outcome(filed, Err(error), cx.rules, &mut cx.story),
                }
            }
            (Task::Resume(held), Ok(())) => {
                self.accept(Some(held), cx);
                // There may be nothing left to come.
                self.follow_kept(cx);
            }
            (Task::Begin(_) | Task::Contend { .. } | Task::Await(_) | Task::Sync(..), Ok(())) => {
                unreachable!("others bring these to their end")
            }
            (_, Err(error)) => self.refuse(refusal_for(&error), Peer::Sending, cx.rules, &mut cx.story),
        }
    }

    /// Sees to it that what is held lasts, before the client is told how much it is.
    fn hold(&mut self, held: Held, cx: &mut Context<D>) {
        let ticket = self.receiver.ticket();
        let upload = self.upload.as_mut().expect("what is held is its content");
        self.task = Some(Box::new(Task::Sync(ticket, held)));
        let token = Waiter { id: cx.story.id, ticket }.token();
        let settled = cx.store.submit(token, Job::Hold(&mut upload.partial));
        self.settle_at_once(settled, cx);
    }

    /// Ends the upload in progress, if there is one, and gives it up or leaves it to be gone on with.
    pub(super) fn end_upload(&mut self, keep: bool) -> Option<Name> {
        self.task.take_if(|task| !matches!(**task, Task::Compare { .. }));
        let Upload { partial, .. } = self.upload.take()?;
        let name = partial.name().clone();
        if keep {
            partial.keep();
        }
        Some(name)
    }
}

fn refusal_for(error: &StoreError) -> Refusal {
    let code = match error {
        StoreError::Taken(_) | StoreError::Busy(_) => Code::CONFLICT,
        StoreError::Full(_) => Code::NO_SPACE,
        StoreError::Io(_) | StoreError::Failed => Code::DISK,
    };
    let retry_seconds = matches!(error, StoreError::Busy(_)).then_some(BUSY_SECONDS);
    Refusal { retry_seconds, ..Refusal::new(code, error.to_string()) }
}

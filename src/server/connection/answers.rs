//! What the work with the disk answers, and what the client and the log are told of it.

use super::Connection;
use crate::net::Stream;
use crate::proto::{Code, Digest, Held, Name, Peer, Refusal, Rules, Whole};
use crate::server::pace::Pace;
use crate::server::story::{CloseReason, Fact, Filed, Scene, Story};
use crate::server::visit::Context;
use crate::server::work::Answer;
use crate::store::{Store, StoreError};

/// After how many seconds a client should come back whose upload is in use by another connection.
const BUSY_SECONDS: u32 = 5;

impl<S: Stream, D: Store> Connection<S, D> {
    /// The last piece of a resumable upload has come, which now has `size` bytes.
    pub(super) fn file(&mut self, size: u64, digest: Option<Digest>, cx: &mut Context<D>) {
        let Some(whole) = self.receiver.promise_file(size, digest) else { return };
        let filed = self.filed(whole, &cx.story);
        match self.work.file(filed, &mut cx.disk) {
            Some(answer) => self.tell(answer, cx),
            None => self.receiver.abandon(),
        }
    }

    /// What to log of a whole file. The name is added later.
    pub(super) fn filed(&mut self, whole: Whole, story: &Story) -> impl FnOnce(Name) -> Filed + use<S, D> {
        let charge = self.take_charge();
        let (peer, who) = (story.whom.peer(), story.whom.who().cloned());
        let (is_alone, is_proven) = (self.receiver.has_ended_with_stream(), self.end_is_proven());
        let dialect = self.dialect();
        move |asked| Filed { peer, who, whole, charge, asked, dialect, is_alone, is_proven }
    }

    /// Passes the answer of the work on to the conversation.
    pub(super) fn tell(&mut self, answer: Answer<D::Content>, cx: &mut Context<D>) {
        match answer {
            Answer::Later => {}
            Answer::Accept(held) => self.accept(held, cx),
            Answer::Synced(held, result) => {
                cx.story.scene(|| Scene::Held { offset: held.offset, result: &result });
                match result {
                    Ok(()) => {
                        self.accept(Some(held), cx);
                        // The file may be whole already.
                        self.follow_kept(cx);
                    }
                    Err(error) => self.refuse(self.refusal_for(&error), Peer::Sending, cx.rules, &mut cx.story),
                }
            }
            Answer::Refuse(name, error) => {
                self.fail_charge(false);
                let refusal = self.refusal_for(&error);
                self.receiver.refuse(&refusal, Peer::Sending, cx.rules);
                self.refused(refusal, name, &mut cx.story);
            }
            Answer::Piece { id, offset, max_bytes } => {
                if offset > 0 {
                    cx.story.tell(&Fact::Resumed);
                }
                if let Some(charge) = self.rare.as_mut().and_then(|rare| rare.charge.as_mut()) {
                    charge.continue_at(offset);
                }
                self.receiver.accept_piece(id, offset, max_bytes);
                self.pace = Pace::begin(cx.clock.now);
            }
            Answer::ById(Ok(standing)) => {
                cx.story.tell(&Fact::Answered { what: "a resumable upload" });
                self.receiver.tell(&standing, cx.rules);
            }
            Answer::ById(Err(denial)) => {
                self.receiver.deny(&denial, cx.rules);
                self.refused(denial.refusal, None, &mut cx.story);
            }
            Answer::Whole { size, digest } => self.file(size, digest, cx),
            Answer::Stored { asked, stored } => {
                if let Some(filed) = self.omit_content(asked, &cx.story) {
                    self.tell_outcome(filed, Ok(stored), cx.rules, &mut cx.story);
                }
            }
            Answer::Same(asked, content) => {
                if let Some(filed) = self.omit_content(asked, &cx.story) {
                    let answer = self.work.compare(filed, content);
                    self.tell(answer, cx);
                }
            }
            Answer::Settled(filed, result) => self.tell_outcome(filed, result, cx.rules, &mut cx.story),
        }
    }

    fn omit_content(&mut self, asked: Name, story: &Story) -> Option<Filed> {
        let whole = self.receiver.needs_no_content()?;
        self.fail_charge(false);
        Some(self.filed(whole, story)(asked))
    }

    fn accept(&mut self, held: Option<Held>, cx: &mut Context<D>) {
        if held.is_some() {
            cx.story.tell(&Fact::Resumed);
        }
        self.receiver.accept(held);
        if self.receiver.tells_by_ending() {
            // From here on only a stored file may end with a clean close, even if this process is killed. If the option
            // cannot be set, a refusal of the upload would help nobody.
            let _ = self.reset_on_close(true);
        }
        self.pace = Pace::begin(cx.clock.now);
    }

    pub(super) fn tell_outcome(
        &mut self,
        mut filed: Filed,
        result: Result<Name, StoreError>,
        rules: &Rules,
        story: &mut Story,
    ) {
        if let (Some(charge), Err(_)) = (filed.charge.take(), &result) {
            self.give_back(*charge);
        }
        let outcome = result.as_ref().map_err(|error| refusal_for(error, filed.whole.code_if_taken));
        if !self.receiver.settle(filed.whole.ticket, outcome.as_ref().copied(), rules) {
            // The conversation was abandoned.
            return;
        }
        story.scene(|| Scene::Settled(&result));
        match outcome {
            Ok(stored) => {
                story.tell(&Fact::Stored { filed: &filed, stored });
                if filed.is_alone {
                    let (stored, is_proven) = (stored.clone(), filed.is_proven);
                    self.end(CloseReason::Stored { asked: filed.asked, stored, is_proven });
                }
            }
            Err(refusal) => self.refused_in(filed.dialect, refusal, Some(filed.asked), story),
        }
    }

    /// The refusal of the request or of the upload in progress for an error of the store.
    pub(super) fn refusal_for(&self, error: &StoreError) -> Refusal {
        refusal_for(error, self.receiver.code_if_taken())
    }
}

/// The refusal that a client gets for an error of the store.
fn refusal_for(error: &StoreError, code_if_taken: Code) -> Refusal {
    let code = match error {
        StoreError::Taken(_) => code_if_taken,
        StoreError::Busy(_) => Code::CONFLICT,
        StoreError::Full(_) | StoreError::Queue(_) => Code::NO_SPACE,
        StoreError::Io(_) | StoreError::Failed => Code::DISK,
    };
    let retry_seconds = matches!(error, StoreError::Busy(_)).then_some(BUSY_SECONDS);
    Refusal { retry_seconds, ..Refusal::new(code, error.to_string()) }
}

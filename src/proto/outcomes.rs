//! The replies that the server owes a client, in the order of its requests.
//!
//! A client may send its next request before it has the last reply, as with SMTP's pipelining (RFC 2920). All files then cost
//! one round trip together, not one each. Files may be published in any order, and long after their content has come. Their
//! replies wait here for their turn.
//!
//! ```text
//!   asked for    1   2   3
//!   settled      3                1             2
//!   said         (it waits)       done 1        done 2, done 3
//! ```

use std::collections::VecDeque;

use super::dialect::{Saying, Voice};
use super::{Code, Dialect, Digest, Name, Receipt, Refusal, Reply};

/// Identifies a request within its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A file that is whole and agrees with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The request that it answers.
    pub ticket: Ticket,
    /// The size in bytes.
    pub size: u64,
    /// The digest that was compared, if one was promised.
    pub digest: Option<Digest>,
    /// The code of the refusal if its name is taken.
    pub code_if_taken: Code,
}

/// Replies in order, some of them not known yet. An idle connection has none, and uses no memory for them.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Option<Box<Replies>>);

#[derive(Debug, Default)]
struct Replies {
    /// The first reply that is not known yet, and all after it.
    queue: VecDeque<Outcome>,
    /// The bytes that can be sent now.
    unsent: Vec<u8>,
    /// The replies to files of a form whose one answer is still to come.
    form: Vec<Reply>,
}

#[derive(Debug)]
enum Outcome {
    Pending(Pending),
    /// The bytes for the client.
    Known(Vec<u8>),
    /// Of a file of a form.
    OfFile(Reply),
    /// The one answer for all files of a form that come before it.
    OfForm(Voice, Saying),
}

/// A file that is whole and has no outcome yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) whole: Whole,
    /// How the reply is spelled.
    pub(super) voice: Voice,
}

impl Pending {
    /// The reply; `None` if the dialect has no reply for this outcome.
    fn known(&self, result: Result<&Name, &Refusal>, now: u64) -> Option<Outcome> {
        if !self.voice.manners().has_receipt {
            return None;
        }
        let Whole { size, digest, .. } = self.whole;
        let reply = match result {
            Ok(name) => Reply::Done(Receipt { size, digest, stored_name: name.as_str().into() }),
            Err(refusal) => Reply::No(refusal.clone()),
        };
        let is_last = result.is_err_and(|refusal| !refusal.code.keeps_step());
        Some(Outcome::known(&self.voice, reply, Saying { now, is_last }))
    }
}

impl Outcome {
    fn known(voice: &Voice, reply: Reply, saying: Saying) -> Self {
        if voice.dialect == Dialect::HttpForm {
            return Self::OfFile(reply);
        }
        let mut spelled = Vec::new();
        voice.spell(&reply, saying, &mut spelled);
        Self::Known(spelled)
    }
}

impl Outcomes {
    /// Queues `reply`, after all replies that are still owed.
    pub(super) fn say(&mut self, voice: &Voice, reply: Reply, saying: Saying) {
        self.queue(Outcome::known(voice, reply, saying));
    }

    /// Queues the one answer for all files of a form, after their outcomes.
    pub(super) fn say_form(&mut self, voice: Voice, saying: Saying) {
        self.queue(Outcome::OfForm(voice, saying));
    }

    /// Queues an answer that is spelled already, after all replies that are still owed.
    pub(super) fn say_spelled(&mut self, answer: Vec<u8>) {
        self.queue(Outcome::Known(answer));
    }

    fn queue(&mut self, outcome: Outcome) {
        let replies = self.0.get_or_insert_default();
        replies.queue.push_back(outcome);
        replies.release();
    }

    /// Reserves the place of an outcome that is not known yet.
    pub(super) fn promise(&mut self, pending: Pending) {
        self.0.get_or_insert_default().queue.push_back(Outcome::Pending(pending));
    }

    /// Fills the place of `ticket` with `result`. Returns the dialect of the reply, or `None` if the place was not reserved.
    pub(super) fn settle(&mut self, ticket: Ticket, result: Result<&Name, &Refusal>, now: u64) -> Option<Dialect> {
        let replies = self.0.as_mut()?;
        let (index, pending) = replies.queue.iter().enumerate().find_map(|(index, outcome)| match outcome {
            Outcome::Pending(pending) if pending.whole.ticket == ticket => Some((index, pending)),
            _ => None,
        })?;
        let dialect = pending.voice.dialect;
        match pending.known(result, now) {
            Some(known) => replies.queue[index] = known,
            None => drop(replies.queue.remove(index)),
        }
        replies.release();
        self.forget_if_idle();
        Some(dialect)
    }

    /// Forgets all replies that are owed. Bytes that can be sent already stay.
    pub(super) fn forget_owed(&mut self) {
        if let Some(replies) = &mut self.0 {
            replies.queue.clear();
            replies.form.clear();
        }
        self.forget_if_idle();
    }

    /// How many replies are owed. Known ones that wait behind an unknown one count.
    pub(super) fn owed(&self) -> usize {
        self.0.as_ref().map_or(0, |replies| replies.queue.len())
    }

    /// The bytes that can be sent now.
    pub(super) fn unsent(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |replies| &replies.unsent)
    }

    /// All replies to requests before this one have been sent. `None`: some that are known have not.
    pub(super) fn told_before(&self) -> Option<Ticket> {
        let Some(replies) = &self.0 else { return Some(Ticket(u64::MAX)) };
        if !replies.unsent.is_empty() || !replies.form.is_empty() {
            return None;
        }
        match replies.queue.front() {
            Some(Outcome::Pending(pending)) => Some(pending.whole.ticket),
            _ => Some(Ticket(u64::MAX)),
        }
    }

    /// Notes that the first `count` bytes of [`Outcomes::unsent`] are sent.
    pub(super) fn sent(&mut self, count: usize) {
        if let Some(replies) = &mut self.0 {
            replies.unsent.drain(..count);
        }
        self.forget_if_idle();
    }

    /// An idle connection keeps no buffer.
    fn forget_if_idle(&mut self) {
        self.0.take_if(|replies| replies.queue.is_empty() && replies.unsent.is_empty() && replies.form.is_empty());
    }
}

impl Replies {
    /// Releases all known replies up to the first unknown one.
    fn release(&mut self) {
        while let Some(outcome) = self.queue.pop_front_if(|outcome| !matches!(outcome, Outcome::Pending(_))) {
            match outcome {
                Outcome::Known(line) => self.unsent.extend_from_slice(&line),
                Outcome::OfFile(reply) => self.form.push(reply),
                Outcome::OfForm(voice, saying) => {
                    voice.spell_form(&std::mem::take(&mut self.form), saying, &mut self.unsent);
                }
                Outcome::Pending(_) => unreachable!("it is not taken off"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Code, NamePolicy};

    fn pending(dialect: Dialect, ticket: u64) -> Pending {
        Pending {
            whole: Whole { ticket: Ticket(ticket), size: 0, digest: None, code_if_taken: Code::CONFLICT },
            voice: dialect.into(),
        }
    }

    fn no(words: &'static str) -> Refusal {
        Refusal::new(Code::CONFLICT, words)
    }

    fn unsent(outcomes: &Outcomes) -> &str {
        std::str::from_utf8(outcomes.unsent()).unwrap()
    }

    #[test]
    fn a_reply_that_is_known_early_waits_for_its_turn() {
        let mut outcomes = Outcomes::default();
        outcomes.say(&Dialect::Put.into(), Reply::No(no("a")), Saying::default());
        outcomes.promise(pending(Dialect::Put, 1));
        outcomes.promise(pending(Dialect::Put, 2));
        outcomes.say(&Dialect::Put.into(), Reply::No(no("d")), Saying::default());
        outcomes.settle(Ticket(2), Err(&no("c")), 0);
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("no 409 a\n", 3));
        assert_eq!(outcomes.told_before(), None, "\"no 409 a\" is not sent");
        outcomes.settle(Ticket(1), Ok(&Name::parse(b"b", NamePolicy::default()).unwrap()), 0);
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("no 409 a\ndone 0 - b\nno 409 c\nno 409 d\n", 0));
        outcomes.sent(9);
        assert_eq!(unsent(&outcomes), "done 0 - b\nno 409 c\nno 409 d\n");
        assert_eq!(outcomes.told_before(), None);
        outcomes.sent(29);
        assert_eq!(outcomes.told_before(), Some(Ticket(u64::MAX)));
    }

    #[test]
    fn a_reply_that_waits_behind_another_is_not_told() {
        let mut outcomes = Outcomes::default();
        outcomes.promise(pending(Dialect::Put, 1));
        outcomes.promise(pending(Dialect::Put, 2));
        outcomes.settle(Ticket(2), Err(&no("c")), 0);
        assert_eq!(outcomes.told_before(), Some(Ticket(1)));
        outcomes.promise(pending(Dialect::Put, 3));
        outcomes.settle(Ticket(1), Err(&no("b")), 0);
        outcomes.sent(18);
        assert_eq!(outcomes.told_before(), Some(Ticket(3)));
    }

    #[test]
    fn owed_replies_can_be_forgotten_and_sendable_bytes_stay() {
        let mut outcomes = Outcomes::default();
        outcomes.say(&Dialect::Put.into(), Reply::No(no("a")), Saying::default());
        outcomes.promise(pending(Dialect::Put, 1));
        outcomes.say(&Dialect::Put.into(), Reply::No(no("b")), Saying::default());
        outcomes.forget_owed();
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("no 409 a\n", 0));
        assert!(outcomes.settle(Ticket(1), Err(&no("late")), 0).is_none());
    }

    #[test]
    fn an_outcome_without_a_reply_frees_its_place() {
        let mut outcomes = Outcomes::default();
        outcomes.promise(pending(Dialect::Classic, 1));
        outcomes.say(&Dialect::Put.into(), Reply::No(no("after")), Saying::default());
        assert!(outcomes.settle(Ticket(1), Err(&no("unheard")), 0).is_some());
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("no 409 after\n", 0));
        assert!(outcomes.settle(Ticket(1), Err(&no("twice")), 0).is_none());
    }
}

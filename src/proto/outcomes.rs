//! What the server owes a client, in the order of its requests.
//!
//! A client may send its next request before it has heard of the last one, as SMTP's pipelining does (RFC 2920): a
//! round trip is then paid once and not for each file. Files may become final in any order, and long after their
//! content came; what is said of them waits here for its turn.
//!
//! ```text
//!   asked for    1   2   3
//!   settled      3                1             2
//!   said         (it waits)       done 1        done 2, done 3
//! ```

use std::collections::VecDeque;

use super::{Dialect, Digest, Name, Receipt, Refusal, Reply};

/// Tells the requests of one conversation apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A file that is whole and as it was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its request.
    pub ticket: Ticket,
    /// In bytes.
    pub size: u64,
    /// The digest that was compared, where one was promised.
    pub digest: Option<Digest>,
}

/// Replies in order, some of them not known yet. Boxed, as an idle connection has none.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Option<Box<Replies>>);

#[derive(Debug, Default)]
struct Replies {
    /// From the first one that is not known yet on.
    queue: VecDeque<Outcome>,
    /// What can be sent, and is not sent yet.
    unsent: Vec<u8>,
}

#[derive(Debug)]
enum Outcome {
    Pending(Pending),
    /// As it is spelled.
    Known(Vec<u8>),
}

/// A file that is whole and has no outcome yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) whole: Whole,
    /// How its outcome is told.
    pub(super) dialect: Dialect,
}

impl Pending {
    /// The outcome as the client reads it; `None` where its dialect has no words for it.
    fn spell(&self, result: Result<&Name, &Refusal>) -> Option<Vec<u8>> {
        if !self.dialect.manners().has_receipt {
            return None;
        }
        let Whole { size, digest, .. } = self.whole;
        Some(spelled(
            self.dialect,
            &match result {
                Ok(name) => Reply::Done(Receipt { size, digest, stored_name: name.as_str().into() }),
                Err(refusal) => Reply::No(refusal.clone()),
            },
        ))
    }
}

impl Outcomes {
    /// Says `reply` after all that is owed.
    pub(super) fn say(&mut self, dialect: Dialect, reply: &Reply) {
        let replies = self.0.get_or_insert_default();
        if replies.queue.is_empty() {
            dialect.spell(reply, &mut replies.unsent);
        } else {
            replies.queue.push_back(Outcome::Known(spelled(dialect, reply)));
        }
    }

    /// Keeps a place for what is not known yet.
    pub(super) fn promise(&mut self, pending: Pending) {
        self.0.get_or_insert_default().queue.push_back(Outcome::Pending(pending));
    }

    /// Fills the place of `ticket` with `result`. Returns what was kept there.
    pub(super) fn settle(&mut self, ticket: Ticket, result: Result<&Name, &Refusal>) -> Option<Pending> {
        let replies = self.0.as_mut()?;
        let (index, pending) = replies.queue.iter().enumerate().find_map(|(index, outcome)| match outcome {
            Outcome::Pending(pending) if pending.whole.ticket == ticket => Some((index, pending.clone())),
            _ => None,
        })?;
        match pending.spell(result) {
            Some(line) => replies.queue[index] = Outcome::Known(line),
            None => drop(replies.queue.remove(index)),
        }
        replies.release();
        self.forget_if_idle();
        Some(pending)
    }

    /// How many places are kept, known ones behind an unknown one included.
    pub(super) fn owed(&self) -> usize {
        self.0.as_ref().map_or(0, |replies| replies.queue.len())
    }

    /// What can be sent now.
    pub(super) fn unsent(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |replies| &replies.unsent)
    }

    /// The first `count` bytes of [`Outcomes::unsent`] are sent.
    pub(super) fn sent(&mut self, count: usize) {
        if let Some(replies) = &mut self.0 {
            replies.unsent.drain(..count);
        }
        self.forget_if_idle();
    }

    /// An idle connection holds no buffer.
    fn forget_if_idle(&mut self) {
        self.0.take_if(|replies| replies.queue.is_empty() && replies.unsent.is_empty());
    }
}

impl Replies {
    /// Lets out all that is known up to the first that is not.
    fn release(&mut self) {
        while let Some(Outcome::Known(line)) = self.queue.pop_front_if(|outcome| matches!(outcome, Outcome::Known(_))) {
            self.unsent.extend_from_slice(&line);
        }
    }
}

fn spelled(dialect: Dialect, reply: &Reply) -> Vec<u8> {
    let mut line = Vec::new();
    dialect.spell(reply, &mut line);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Code, NamePolicy};

    fn pending(dialect: Dialect, ticket: u64) -> Pending {
        Pending { whole: Whole { ticket: Ticket(ticket), size: 0, digest: None }, dialect }
    }

    fn no(words: &'static str) -> Refusal {
        Refusal::new(Code::CONFLICT, words)
    }

    fn unsent(outcomes: &Outcomes) -> &str {
        std::str::from_utf8(outcomes.unsent()).unwrap()
    }

    #[test]
    fn what_is_known_early_waits_for_its_turn() {
        let mut outcomes = Outcomes::default();
        outcomes.say(Dialect::Put, &Reply::No(no("a")));
        outcomes.promise(pending(Dialect::Put, 1));
        outcomes.promise(pending(Dialect::Put, 2));
        outcomes.say(Dialect::Put, &Reply::No(no("d")));
        outcomes.settle(Ticket(2), Err(&no("c")));
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("no 409 a\n", 3));
        outcomes.settle(Ticket(1), Ok(&Name::parse(b"b", NamePolicy::default()).unwrap()));
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("no 409 a\ndone 0 - b\nno 409 c\nno 409 d\n", 0));
        outcomes.sent(9);
        assert_eq!(unsent(&outcomes), "done 0 - b\nno 409 c\nno 409 d\n");
    }

    #[test]
    fn an_outcome_without_words_frees_its_place() {
        let mut outcomes = Outcomes::default();
        outcomes.promise(pending(Dialect::Classic, 1));
        outcomes.say(Dialect::Put, &Reply::No(no("after")));
        assert!(outcomes.settle(Ticket(1), Err(&no("unheard"))).is_some());
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("no 409 after\n", 0));
        assert!(outcomes.settle(Ticket(1), Err(&no("twice"))).is_none());
    }
}

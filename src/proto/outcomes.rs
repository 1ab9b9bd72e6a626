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
use std::fmt::Display;
use std::io::Write;

use super::{Digest, Receipt};

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
    Known(String),
}

/// A file that is being published.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) whole: Whole,
    /// Whether its client is told in words.
    pub(super) wants_receipt: bool,
}

impl Pending {
    pub(super) fn receipt(&self, stored_name: &str) -> Option<Receipt> {
        let Whole { size, digest, .. } = self.whole;
        let receipt = Receipt { size, digest, stored_name: stored_name.into() };
        self.wants_receipt.then_some(receipt)
    }
}

impl Outcomes {
    /// Says a line after all that is owed.
    pub(super) fn say(&mut self, line: impl Display) {
        let replies = self.0.get_or_insert_default();
        if replies.queue.is_empty() {
            replies.let_out(line);
        } else {
            replies.queue.push_back(Outcome::Known(line.to_string()));
        }
    }

    /// Says `ok` as the classic dialect has it: two bytes, no line.
    pub(super) fn say_classic_ok(&mut self) {
        self.0.get_or_insert_default().unsent.extend_from_slice(b"ok");
    }

    /// Keeps a place for what is not known yet.
    pub(super) fn promise(&mut self, pending: Pending) {
        self.0.get_or_insert_default().queue.push_back(Outcome::Pending(pending));
    }

    /// Fills the place of `ticket` with the line that `tell` makes of it, or with none. Returns what was kept there.
    pub(super) fn settle<L: Display>(
        &mut self,
        ticket: Ticket,
        tell: impl FnOnce(&Pending) -> Option<L>,
    ) -> Option<Pending> {
        let replies = self.0.as_mut()?;
        let place = |outcome: &Outcome| matches!(outcome, Outcome::Pending(pending) if pending.whole.ticket == ticket);
        let index = replies.queue.iter().position(place)?;
        let Some(Outcome::Pending(pending)) = replies.queue.remove(index) else { unreachable!("it was just found") };
        if let Some(line) = tell(&pending) {
            replies.queue.insert(index, Outcome::Known(line.to_string()));
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
            self.let_out(line);
        }
    }

    fn let_out(&mut self, line: impl Display) {
        writeln!(self.unsent, "{line}").expect("writing to a Vec cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(ticket: u64) -> Pending {
        Pending { whole: Whole { ticket: Ticket(ticket), size: 0, digest: None }, wants_receipt: true }
    }

    fn unsent(outcomes: &Outcomes) -> &str {
        std::str::from_utf8(outcomes.unsent()).unwrap()
    }

    #[test]
    fn what_is_known_early_waits_for_its_turn() {
        let mut outcomes = Outcomes::default();
        outcomes.say("a");
        outcomes.promise(pending(1));
        outcomes.promise(pending(2));
        outcomes.say("d");
        outcomes.settle(Ticket(2), |_| Some("c"));
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("a\n", 3));
        outcomes.settle(Ticket(1), |_| Some("b"));
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("a\nb\nc\nd\n", 0));
        outcomes.sent(2);
        assert_eq!(unsent(&outcomes), "b\nc\nd\n");
    }

    #[test]
    fn an_outcome_without_words_frees_its_place() {
        let mut outcomes = Outcomes::default();
        outcomes.promise(pending(1));
        outcomes.say("after");
        assert!(outcomes.settle(Ticket(1), |_| None::<String>).is_some());
        assert_eq!((unsent(&outcomes), outcomes.owed()), ("after\n", 0));
        assert!(outcomes.settle(Ticket(1), |_| Some("twice")).is_none());
    }
}

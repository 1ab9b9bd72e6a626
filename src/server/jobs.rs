//! The jobs of the disk, and the requests that wait for their results.
//!
//! A job goes to the store under a [`Token`], which means nothing to the store. Here the token identifies the connection
//! and its request. The connection may have ended when the result comes. Knows no files.

use std::collections::{BTreeMap, HashSet};

use super::published::{Memory, Published};
use super::story::Filed;
use crate::proto::{ResumeId, Ticket};
use crate::reactor::Id;
use crate::store::{Done, Settled, Token};

/// The request that waits for the result of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The connection.
    pub id: Id,
    /// Its request.
    pub ticket: Ticket,
}

impl Waiter {
    /// The token for the store, which comes back with the result.
    pub fn token(self) -> Token {
        Token(u128::from(self.id.to_bits()) << 64 | u128::from(self.ticket.0))
    }

    /// Reads back [`Waiter::token`].
    pub fn of(token: Token) -> Self {
        let id = Id::from_bits((token.0 >> 64) as u64).expect("a token is made from an id");
        Self { id, ticket: Ticket(token.0 as u64) }
    }
}

/// The jobs of the disk that are about whole files, and the last published uploads.
#[derive(Debug, Default)]
pub struct Jobs {
    /// What to log of each file, and what to remember once it is published.
    files: BTreeMap<Token, (Filed, Option<Box<Memory>>)>,
    /// The uploads among them that can be resumed. The store may have published one already, and not told so yet: nothing is
    /// kept of it then, and nothing is remembered.
    resumable: HashSet<ResumeId>,
    published: Published,
}

impl Jobs {
    /// Notes a job for the whole file `filed`. `memory`: what to remember once it is published.
    pub fn file(&mut self, token: Token, filed: Filed, memory: Option<Memory>) {
        self.resumable.extend(memory.as_ref().map(|memory| memory.id().clone()));
        self.files.insert(token, (filed, memory.map(Box::new)));
    }

    /// Takes the result of a job. Returns what was noted with it, if the job was for a whole file.
    pub fn settle(&mut self, settled: &Settled) -> Option<Filed> {
        let Done::Stored(result) = &settled.done else { return None };
        let (filed, memory) = self.files.remove(&settled.token)?;
        if let Some(memory) = &memory {
            self.resumable.remove(memory.id());
        }
        if let (Ok(stored), Some(memory)) = (result, memory) {
            self.published.remember(*memory, stored);
        }
        Some(filed)
    }

    /// Whether there is a job for the whole file of the upload `id`.
    pub fn are_about(&self, id: &ResumeId) -> bool {
        self.resumable.contains(id)
    }

    /// The last published uploads that could be resumed.
    pub fn published(&self) -> &Published {
        &self.published
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Code, Name, NamePolicy, Whole};
    use crate::reactor::Slots;
    use crate::server::published::Finished;

    #[test]
    fn a_token_tells_who_waits() {
        let mut slots = Slots::default();
        for ticket in [0, 7, u64::MAX] {
            let waiter = Waiter { id: slots.insert(()), ticket: Ticket(ticket) };
            assert_eq!(Waiter::of(waiter.token()), waiter);
        }
    }

    /// Between the two the store has neither the upload nor a result, so that a request for it would find nothing.
    #[test]
    fn an_upload_is_in_progress_until_the_result_of_its_job_is_taken() {
        let (mut jobs, id, name) =
            (Jobs::default(), ResumeId::made(1), Name::parse(b"a", NamePolicy::default()).unwrap());
        let whole = Whole { ticket: Ticket(1), size: 3, digest: None, code_if_taken: Code::CONFLICT };
        let filed = Filed {
            peer: ([127, 0, 0, 1], 9).into(),
            who: None,
            charge: None,
            whole,
            asked: name.clone(),
            is_alone: false,
            is_proven: true,
        };
        let memory = Memory::Finished(Finished { id: id.clone(), size: 3, digest: None });
        jobs.file(Token(7), filed, Some(memory));
        assert!(jobs.are_about(&id) && jobs.published().find_by_id(&id).is_none());
        jobs.settle(&Settled { token: Token(7), done: Done::Stored(Ok(name)) }).unwrap();
        assert!(!jobs.are_about(&id) && jobs.published().find_by_id(&id).is_some());
    }
}

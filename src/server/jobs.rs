//! The jobs of the disk, and the requests that wait for their results.
//!
//! A job goes to the store under a [`Token`], which means nothing to the store. Here the token identifies the connection
//! and its request. The connection may have ended when the result comes. Knows no files.

use std::collections::{BTreeMap, HashSet};

use super::histogram::Histogram;
use super::published::{Claim, Published};
use super::story::Filed;
use crate::proto::{ResumeId, Ticket};
use crate::reactor::{Id, Moment};
use crate::store::{Done, Settled, Token};

/// The bounds for [`Jobs::waits_us`], in microseconds: from a fast disk to one that hangs.
const WAIT_BOUNDS_US: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

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
#[derive(Debug)]
pub struct Jobs {
    files: BTreeMap<Token, File>,
    /// The uploads among them that can be resumed. The store may have published one already, and not told so yet: then
    /// nothing is kept of it, and its receipt is not durable.
    resumable: HashSet<ResumeId>,
    published: Published,
    /// How long whole files took until they were stored, in microseconds.
    waits_us: Histogram,
}

/// A whole file.
#[derive(Debug)]
struct File {
    /// What to log of it.
    filed: Filed,
    /// When the disk got it.
    since: Moment,
    /// Its id, if it can be resumed. Boxed with the next, as most have neither.
    resumable: Option<Box<(ResumeId, Option<Claim>)>>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            resumable: HashSet::new(),
            published: Published::default(),
            waits_us: Histogram::new(WAIT_BOUNDS_US),
        }
    }
}

impl Jobs {
    /// Notes a job for the whole file `filed`, which begins at `now`. `id`: of the upload, if it can be resumed. `claim`: what to remember once it is
    /// published.
    pub fn file(&mut self, token: Token, filed: Filed, id: Option<ResumeId>, claim: Option<Claim>, now: Moment) {
        self.resumable.extend(id.clone());
        self.files.insert(token, File { filed, since: now, resumable: id.map(|id| Box::new((id, claim))) });
    }

    /// Takes the result of a job. Returns what was noted with it, if the job was for a whole file.
    pub fn settle(&mut self, settled: &Settled, now: Moment) -> Option<Filed> {
        let Done::Stored(result) = &settled.done else { return None };
        let File { filed, since, resumable } = self.files.remove(&settled.token)?;
        self.waits_us.count(now.since(since).as_micros() as u64);
        if let Some((id, claim)) = resumable.map(|resumable| *resumable) {
            self.resumable.remove(&id);
            if let (Ok(stored), Some(claim)) = (result, claim) {
                self.published.remember(claim, stored);
            }
        }
        Some(filed)
    }

    /// Whether there is a job for the whole file of the upload `id`.
    pub fn are_about(&self, id: &ResumeId) -> bool {
        self.resumable.contains(id)
    }

    /// How long whole files took until the disk had them, or had failed, in microseconds.
    pub fn waits_us(&self) -> &Histogram {
        &self.waits_us
    }

    /// The last published uploads that could be resumed.
    pub fn published(&self) -> &Published {
        &self.published
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::{Code, Dialect, Name, NamePolicy, Whole};
    use crate::reactor::Slots;

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
            dialect: Dialect::Put,
            is_alone: false,
            is_proven: true,
        };
        jobs.file(Token(7), filed, Some(id.clone()), None, Moment::default());
        assert!(jobs.are_about(&id));
        let later = Moment::default() + Duration::from_millis(3);
        jobs.settle(&Settled { token: Token(7), done: Done::Stored(Ok(name)) }, later).unwrap();
        assert!(!jobs.are_about(&id));
        assert_eq!((jobs.waits_us().total(), jobs.waits_us().sum()), (1, 3000));
    }
}

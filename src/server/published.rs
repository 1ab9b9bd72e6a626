//! The uploads with a resume id that were published last, for clients that ask again because they did not hear of it.
//!
//! A client that waits in vain for its receipt comes back on another connection, and asks for the same upload. By then the
//! upload may be published, and nothing is left to be resumed: sent again, it would be stored a second time. So what was
//! published is remembered, as long as there is room. Knows what was said of uploads, and nothing of files.

use std::collections::VecDeque;

use crate::proto::{Digest, Held, Name, Promise, Request, ResumeId};
use crate::store::{Claim, StoreError};

/// How many are remembered.
const REMEMBERED_MAX: usize = 256;

/// What was published, and what is being published.
#[derive(Debug, Default)]
pub struct Published {
    /// The oldest first.
    settled: VecDeque<Upload>,
    /// What the disk is busy with.
    pending: Vec<(Claim, Upload)>,
}

/// An upload that is whole.
#[derive(Debug)]
pub struct Upload {
    /// Under which it could be resumed.
    pub id: ResumeId,
    /// What it was to be called, and, once it is published, what it is called.
    pub name: Name,
    /// All of its content.
    pub held: Held,
    /// What its content has.
    pub digest: Digest,
    /// What it is called now.
    pub stored: Name,
}

impl Published {
    /// The disk is busy with `upload`.
    pub fn expect(&mut self, claim: Claim, upload: Upload) {
        self.pending.push((claim, upload));
    }

    /// Something has come of `claim`.
    pub fn settle(&mut self, claim: Claim, result: &Result<Name, StoreError>) {
        let Some(index) = self.pending.iter().position(|(pending, _)| *pending == claim) else { return };
        let (_, upload) = self.pending.swap_remove(index);
        if let Ok(stored) = result {
            if self.settled.len() == REMEMBERED_MAX {
                self.settled.pop_front();
            }
            self.settled.push_back(Upload { stored: stored.clone(), ..upload });
        }
    }

    /// What was published for a request that is the same: id, name, size and, as far as it is known, digest.
    pub fn find(&self, request: &Request) -> Option<&Upload> {
        self.settled.iter().rev().find(|upload| {
            let is_same = Some(&upload.id) == request.resume.as_ref()
                && upload.name == request.name
                && Some(upload.held.offset) == request.size;
            is_same
                && request.digest.is_some_and(|promise| match promise {
                    Promise::Known(digest) => digest == upload.digest,
                    Promise::Trailer(algorithm) => algorithm == upload.digest.algorithm(),
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Algorithm, Dialect, Hasher, NamePolicy, Ticket};
    use crate::reactor::Slots;

    fn name(name: &str) -> Name {
        Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
    }

    fn request(id: &str, as_name: &str, size: u64, promise: Promise) -> Request {
        let request = Request::until_end_of_stream(Dialect::Ask, name(as_name));
        Request { size: Some(size), digest: Some(promise), resume: ResumeId::parse(id), ..request }
    }

    fn upload(id: &str) -> Upload {
        let held = Held { offset: 3, hasher: Hasher::new(Algorithm::Crc32c) };
        let id = ResumeId::parse(id).unwrap();
        Upload { id, name: name("a"), held, digest: Digest::Crc32c(7), stored: name("a") }
    }

    #[test]
    fn the_same_request_finds_what_was_published_and_no_other_does() {
        let mut published = Published::default();
        let known = Promise::Known(Digest::Crc32c(7));
        let claim = Claim { id: Slots::default().insert(()), ticket: Ticket(1) };
        published.expect(claim, upload("x"));
        assert!(published.find(&request("x", "a", 3, known)).is_none(), "it may fail yet");
        published.settle(claim, &Ok(name("a.1")));
        for promise in [known, Promise::Trailer(Algorithm::Crc32c)] {
            let found = published.find(&request("x", "a", 3, promise)).unwrap();
            assert_eq!(found.stored, name("a.1"));
        }
        for other in [
            request("y", "a", 3, known),
            request("x", "b", 3, known),
            request("x", "a", 4, known),
            request("x", "a", 3, Promise::Known(Digest::Crc32c(8))),
            request("x", "a", 3, Promise::Trailer(Algorithm::Sha256)),
        ] {
            assert!(published.find(&other).is_none(), "{other:?}");
        }
        published.expect(claim, upload("z"));
        published.settle(claim, &Err(StoreError::Failed));
        assert!(published.find(&request("z", "a", 3, known)).is_none());
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut published = Published::default();
        let claim = Claim { id: Slots::default().insert(()), ticket: Ticket(1) };
        for number in 0..=REMEMBERED_MAX {
            published.expect(claim, upload(&number.to_string()));
            published.settle(claim, &Ok(name("a")));
        }
        let finds = |id: &str| published.find(&request(id, "a", 3, Promise::Known(Digest::Crc32c(7)))).is_some();
        assert_eq!((finds("0"), finds("1")), (false, true));
    }
}

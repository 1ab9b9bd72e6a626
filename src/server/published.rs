//! The last published uploads with a resume id, for clients that ask again because their receipt was lost.
//!
//! Such a client asks for the same upload on another connection. By then the upload may be published, and nothing is left
//! to resume. If the client sent it again, the file would be stored twice. So the server remembers the last uploads. Those
//! of HTTP are found by their id alone, also after the file was taken away: the client only has to know that it may stop.
//! Knows the requests of clients, but no files.

use std::collections::VecDeque;

use crate::proto::{Digest, Held, Name, Promise, Receipt, Request, ResumeId};
use crate::store::Mark;

/// How many uploads are remembered.
const REMEMBERED_MAX: usize = 256;
/// How many uploads over HTTP are remembered: several pages may send a thousand files each. One takes some 200 bytes.
const FINISHED_MAX: usize = 4096;

/// The last published uploads that could be resumed.
#[derive(Debug, Default)]
pub struct Published {
    /// With the names under which they are stored, the oldest first.
    claims: VecDeque<(Claim, Name)>,
    /// As above, those of HTTP.
    finished: VecDeque<(Finished, Name)>,
}

/// What is to be remembered of an upload.
#[derive(Debug)]
pub enum Memory {
    /// Its client tells all of its claim again.
    Claim(Claim),
    /// Its client knows the id.
    Finished(Finished),
}

impl Memory {
    /// The id of the upload.
    pub fn id(&self) -> &ResumeId {
        match self {
            Self::Claim(claim) => &claim.id,
            Self::Finished(finished) => &finished.id,
        }
    }
}

/// A published upload over HTTP.
#[derive(Debug)]
pub struct Finished {
    /// Its id.
    pub id: ResumeId,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, if one was promised.
    pub digest: Option<Digest>,
}

/// A published upload that was claimed by a client's own id.
#[derive(Debug)]
pub struct Claim {
    /// The id under which it could be resumed.
    pub id: ResumeId,
    /// The requested name.
    pub name: Name,
    /// The digest state of the whole content.
    pub held: Held,
    /// The digest of its content.
    pub digest: Digest,
    /// The mark of its file.
    pub mark: Mark,
}

impl Published {
    /// Remembers an upload that was published as `stored`, and forgets the oldest one if there are too many.
    pub fn remember(&mut self, memory: Memory, stored: &Name) {
        match memory {
            Memory::Claim(claim) => push(&mut self.claims, REMEMBERED_MAX, (claim, stored.clone())),
            Memory::Finished(finished) => push(&mut self.finished, FINISHED_MAX, (finished, stored.clone())),
        }
    }

    /// The receipt of the published upload with this id, over HTTP.
    pub fn find_by_id(&self, id: &ResumeId) -> Option<Receipt> {
        let (finished, stored) = self.finished.iter().rev().find(|(finished, _)| finished.id == *id)?;
        let &Finished { size, digest, .. } = finished;
        Some(Receipt { size, digest, stored_name: stored.as_str().into() })
    }

    /// The published upload of the same request: the same id, name, size and, as far as it is known, digest. With the name
    /// under which it is stored.
    pub fn find(&self, request: &Request) -> Option<&(Claim, Name)> {
        self.claims.iter().rev().find(|(claim, _)| {
            let is_same = Some(&claim.id) == request.resume.as_ref()
                && claim.name == request.name
                && Some(claim.held.offset) == request.size;
            is_same
                && request.digest.is_some_and(|promise| match promise {
                    Promise::Known(digest) => digest == claim.digest,
                    Promise::Trailer(algorithm) => algorithm == claim.digest.algorithm(),
                })
        })
    }
}

fn push<T>(queue: &mut VecDeque<T>, max: usize, item: T) {
    if queue.len() == max {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Algorithm, Dialect, Hasher, NamePolicy};

    fn name(name: &str) -> Name {
        Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
    }

    fn request(id: &str, as_name: &str, size: u64, promise: Promise) -> Request {
        let request = Request::until_end_of_stream(Dialect::Ask, name(as_name));
        Request { size: Some(size), digest: Some(promise), resume: ResumeId::parse(id), ..request }
    }

    fn claim(id: &str) -> Claim {
        let held = Held { offset: 3, hasher: Hasher::new(Algorithm::Crc32c) };
        let id = ResumeId::parse(id).unwrap();
        Claim { id, name: name("a"), held, digest: Digest::Crc32c(7), mark: Mark::default() }
    }

    #[test]
    fn only_the_same_request_finds_a_published_upload() {
        let mut published = Published::default();
        let known = Promise::Known(Digest::Crc32c(7));
        published.remember(Memory::Claim(claim("x")), &name("a.1"));
        for promise in [known, Promise::Trailer(Algorithm::Crc32c)] {
            let (_, stored) = published.find(&request("x", "a", 3, promise)).unwrap();
            assert_eq!(*stored, name("a.1"));
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
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut published = Published::default();
        for number in 0..=REMEMBERED_MAX {
            published.remember(Memory::Claim(claim(&number.to_string())), &name("a"));
        }
        let finds = |id: &str| published.find(&request(id, "a", 3, Promise::Known(Digest::Crc32c(7)))).is_some();
        assert_eq!((finds("0"), finds("1")), (false, true));
    }

    #[test]
    fn an_upload_over_http_is_found_by_its_id() {
        let mut published = Published::default();
        for number in 0..=FINISHED_MAX {
            let id = ResumeId::made(number as u128);
            published.remember(Memory::Finished(Finished { id, size: 3, digest: None }), &name("a.1"));
        }
        let [oldest, last] = [0, FINISHED_MAX as u128].map(ResumeId::made);
        assert_eq!(published.find_by_id(&oldest), None);
        assert_eq!(published.find_by_id(&last), Some(Receipt { size: 3, digest: None, stored_name: "a.1".into() }));
    }
}

//! The last published uploads with a resume id, for clients that ask again because their receipt was lost.
//!
//! Such a client asks for the same upload on another connection. By then the upload may be published, and nothing is left
//! to resume. If the client sent it again, the file would be stored twice. So the server remembers the last uploads. (The
//! store remembers those of HTTP, which are found by their id alone.) Knows the requests of clients, but no files.

use std::collections::VecDeque;

use crate::proto::{Digest, Held, Name, Promise, Request, ResumeId};
use crate::store::Mark;

/// How many uploads are remembered.
const REMEMBERED_MAX: usize = 256;

/// The last published uploads that could be resumed.
#[derive(Debug, Default)]
pub struct Published {
    /// With the names under which they are stored, the oldest first.
    claims: VecDeque<(Claim, Name)>,
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
    pub fn remember(&mut self, claim: Claim, stored: &Name) {
        if self.claims.len() == REMEMBERED_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back((claim, stored.clone()));
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
        published.remember(claim("x"), &name("a.1"));
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
            published.remember(claim(&number.to_string()), &name("a"));
        }
        let finds = |id: &str| published.find(&request(id, "a", 3, Promise::Known(Digest::Crc32c(7)))).is_some();
        assert_eq!((finds("0"), finds("1")), (false, true));
    }
}

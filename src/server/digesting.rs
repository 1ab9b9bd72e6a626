//! The digest of a stored file, computed piece by piece, so that a large file does not delay other connections.
//!
//! Reading ten gigabytes takes many seconds. So each visit reads what its budget allows, and the connection joins the ready
//! queue again, like one that has more to read from its socket.
//!
//! Knows neither the file nor what the digest is for.

use std::io;

use crate::proto::{Algorithm, Hasher};
use crate::reactor::Budget;

/// A digest that is being computed.
#[derive(Debug)]
pub struct Digesting {
    hasher: Hasher,
    /// Bytes that are still to be read.
    left: u64,
}

impl Digesting {
    /// The digest of the next `size` bytes.
    pub fn new(algorithm: Algorithm, size: u64) -> Self {
        Self { hasher: Hasher::new(algorithm), left: size }
    }

    /// Adds one piece, which `read` puts into `buffer`. Returns whether it was the last one.
    ///
    /// # Errors
    /// What `read` says, `WouldBlock` included, and `UnexpectedEof` if the file is shorter than `size`.
    pub fn advance(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        buffer: &mut [u8],
        budget: &mut Budget,
    ) -> io::Result<bool> {
        let piece = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if piece > 0 {
            match read(&mut buffer[..piece]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    budget.spend(count);
                    self.hasher.update(&buffer[..count]);
                    self.left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.left == 0)
    }

    /// The state of the digest.
    pub fn into_hasher(self) -> Hasher {
        self.hasher
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn it_goes_piece_by_piece_and_no_further_than_it_was_told() {
        let mut content = &b"abcdefgh and more"[..];
        let (mut digesting, mut buffer, mut budget) = (Digesting::new(Algorithm::Crc32c, 8), [0; 3], Budget::new(100));
        let mut pieces = 1;
        while !digesting.advance(|piece| content.read(piece), &mut buffer, &mut budget).unwrap() {
            pieces += 1;
        }
        let mut expected = Hasher::new(Algorithm::Crc32c);
        expected.update(b"abcdefgh");
        assert_eq!((pieces, budget.spent_bytes(), content), (3, 8, &b" and more"[..]));
        assert_eq!(digesting.into_hasher().finish(), expected.finish());
    }

    #[test]
    fn nothing_is_read_of_nothing_and_an_early_end_is_an_error() {
        let mut budget = Budget::new(100);
        let never = |_: &mut [u8]| panic!("nothing is to be read");
        assert!(Digesting::new(Algorithm::Sha256, 0).advance(never, &mut [0; 3], &mut budget).unwrap());
        let error = Digesting::new(Algorithm::Sha256, 1).advance(|_| Ok(0), &mut [0; 3], &mut budget).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! Digests of content: their names and spellings on the wire, and how they are computed.
//!
//! TCP's own checksum has 16 bits and is recomputed on the way, so in the long run a damaged segment gets through ("When
//! the CRC and TCP Checksum Disagree", Stone and Partridge, 2000). CRC-32C (RFC 9260, appendix A) detects random damage,
//! at the speed of memory. SHA-256 also detects deliberate changes.
//!
//! Libraries compute them, with the processor's own instructions. This module does not know what a digest is compared
//! with, or when.

use std::fmt;

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256};

/// A digest algorithm of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// CRC-32C (Castagnoli; RFC 3720 appendix B.4): detects damage at next to no cost.
    Crc32c,
    /// SHA-256 (FIPS 180-4): detects forgery as well.
    Sha256,
}

impl Algorithm {
    /// As the wire spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
            Self::Sha256 => "sha256",
        }
    }

    /// Reads [`Algorithm::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Crc32c, Self::Sha256].into_iter().find(|algorithm| algorithm.as_str() == word)
    }
}

/// The digest of some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// Of [`Algorithm::Crc32c`].
    Crc32c(u32),
    /// Of [`Algorithm::Sha256`].
    Sha256([u8; 32]),
}

impl Digest {
    /// The algorithm of the digest.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Crc32c(_) => Algorithm::Crc32c,
            Self::Sha256(_) => Algorithm::Sha256,
        }
    }

    /// Parses hex of exactly the length of `algorithm`, in either case.
    pub fn parse(algorithm: Algorithm, hex: &str) -> Option<Self> {
        match algorithm {
            Algorithm::Crc32c => parse_hex(hex).map(u32::from_be_bytes).map(Self::Crc32c),
            Algorithm::Sha256 => parse_hex(hex).map(Self::Sha256),
        }
    }

    /// Lower-case hex.
    pub fn to_hex(&self) -> String {
        match self {
            Self::Crc32c(sum) => to_hex(&sum.to_be_bytes()),
            Self::Sha256(sum) => to_hex(sum),
        }
    }
}

/// As in receipts: `crc32c:` or `sha256:` and lower-case hex.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().as_str(), self.to_hex())
    }
}

/// Computes the digest of a stream of content.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// For [`Algorithm::Crc32c`].
    Crc32c(u32),
    /// For [`Algorithm::Sha256`].
    Sha256(Box<Sha256>),
}

impl Hasher {
    /// A hasher of no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32c => Self::Crc32c(0),
            Algorithm::Sha256 => Self::Sha256(Box::default()),
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
            Self::Sha256(sum) => sum.update(bytes),
        }
    }

    /// The algorithm of the digest.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Crc32c(_) => Algorithm::Crc32c,
            Self::Sha256(_) => Algorithm::Sha256,
        }
    }

    /// The state as hex. [`Hasher::restore`] makes a hasher from it that continues with the next bytes.
    pub fn state(&self) -> String {
        match self {
            Self::Crc32c(sum) => to_hex(&sum.to_be_bytes()),
            Self::Sha256(sum) => to_hex(&sum.serialize()),
        }
    }

    /// A hasher with a state of [`Hasher::state`]. `None` if it is not a state of this algorithm.
    pub fn restore(algorithm: Algorithm, state: &str) -> Option<Self> {
        match algorithm {
            Algorithm::Crc32c => parse_hex(state).map(u32::from_be_bytes).map(Self::Crc32c),
            Algorithm::Sha256 => {
                let state = SerializedState::<Sha256>::from(parse_hex(state)?);
                Sha256::deserialize(&state).ok().map(Box::new).map(Self::Sha256)
            }
        }
    }

    /// The digest of all added bytes.
    pub fn finish(self) -> Digest {
        match self {
            Self::Crc32c(sum) => Digest::Crc32c(sum),
            Self::Sha256(sum) => Digest::Sha256(sum.finalize().into()),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits: Vec<u32> = hex.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(algorithm: Algorithm, pieces: &[&[u8]]) -> String {
        let mut hasher = Hasher::new(algorithm);
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finish().to_string()
    }

    #[test]
    fn digests_agree_with_the_standards() {
        // RFC 3720 B.4 (32 bytes of zeros, and of ones); FIPS 180-4 example "abc".
        assert_eq!(digest(Algorithm::Crc32c, &[&[0; 32]]), "crc32c:8a9136aa");
        assert_eq!(digest(Algorithm::Crc32c, &[&[0xff; 20], &[0xff; 12]]), "crc32c:62a8ab43");
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(Algorithm::Sha256, &[b"a", b"", b"bc"]), abc);
    }

    #[test]
    fn a_restored_state_continues_at_any_offset() {
        let content: Vec<u8> = (0..=255).collect();
        for algorithm in [Algorithm::Crc32c, Algorithm::Sha256] {
            let expected = digest(algorithm, &[&content]);
            for at in 0..=content.len() {
                let mut before = Hasher::new(algorithm);
                before.update(&content[..at]);
                let mut after = Hasher::restore(algorithm, &before.state()).unwrap();
                assert_eq!(after.algorithm(), algorithm);
                after.update(&content[at..]);
                assert_eq!(after.finish().to_string(), expected, "{at}");
            }
        }
    }

    #[test]
    fn a_state_of_another_algorithm_is_not_restored() {
        let state = |algorithm| Hasher::new(algorithm).state();
        let (crc32c, sha256) = (state(Algorithm::Crc32c), state(Algorithm::Sha256));
        assert!(Hasher::restore(Algorithm::Crc32c, &sha256).is_none());
        assert!(Hasher::restore(Algorithm::Sha256, &crc32c).is_none());
        // The last byte is the number of buffered bytes of a block.
        for broken in ["", &crc32c[1..], &format!("{}ff", &sha256[..sha256.len() - 2])] {
            assert!(Hasher::restore(Algorithm::Sha256, broken).is_none(), "{broken}");
            assert!(Hasher::restore(Algorithm::Crc32c, broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn hex_is_read_in_either_case_and_only_at_its_length() {
        assert_eq!(Digest::parse(Algorithm::Crc32c, "8A9136aa"), Some(Digest::Crc32c(0x8a91_36aa)));
        for hex in ["", "8a9136a", "8a9136aa0", "8a9136ag", "+a9136aa", "８a9136aa"] {
            assert_eq!(Digest::parse(Algorithm::Crc32c, hex), None, "{hex}");
        }
        let sha = Digest::Sha256([0xab; 32]);
        assert_eq!(Digest::parse(Algorithm::Sha256, &sha.to_hex()), Some(sha));
    }
}

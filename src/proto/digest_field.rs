//! Digests in the fields of HTTP: `Repr-Digest: sha-256=:BASE64:` (RFC 9530), a dictionary of byte sequences (RFC 9651).
//!
//! Of all algorithms only SHA-256 is compared. Knows one field's value at a time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Digest;

/// The key of SHA-256 in the dictionary.
const SHA_256: &str = "sha-256";

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The SHA-256.
    Sha256(Digest),
    /// Only digests of other algorithms.
    OnlyOthers,
}

/// Reads a field's value. `None` where it is no dictionary of byte sequences, or its SHA-256 none of 32 bytes.
pub(super) fn parse(value: &[u8]) -> Option<Told> {
    let value = std::str::from_utf8(value).ok()?;
    let mut told = Told::OnlyOthers;
    for member in value.split(',') {
        let (key, sequence) = member.trim_matches([' ', '\t']).split_once('=')?;
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
        let base64 = sequence.strip_prefix(':')?.strip_suffix(':')?;
        if !key.starts_with(|first: char| first.is_ascii_lowercase() || first == '*') || !key.bytes().all(is_key) {
            return None;
        }
        let bytes = STANDARD.decode(base64).ok()?;
        if key == SHA_256 {
            if told != Told::OnlyOthers {
                return None;
            }
            told = Told::Sha256(Digest::Sha256(bytes.try_into().ok()?));
        }
    }
    Some(told)
}

/// The value of a field that tells `digest`. `None` where HTTP has no name for its algorithm.
pub(super) fn spell(digest: &Digest) -> Option<String> {
    match digest {
        Digest::Crc32c(_) => None,
        Digest::Sha256(sum) => Some(format!("{SHA_256}=:{}:", STANDARD.encode(sum))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Algorithm, Hasher};

    #[test]
    fn the_example_of_the_rfc_is_read_and_spelled() {
        // RFC 9530, appendix B.1: the SHA-256 of `{"hello": "world"}` and a line feed.
        let value = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"{\"hello\": \"world\"}\n");
        let digest = hasher.finish();
        assert_eq!(parse(value.as_bytes()), Some(Told::Sha256(digest)));
        assert_eq!(spell(&digest).as_deref(), Some(value));
        assert_eq!(spell(&Digest::Crc32c(1)), None);
    }

    #[test]
    fn other_algorithms_are_read_past_and_broken_ones_are_none() {
        let ours = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        for value in [format!("md5=:AAAA:, {ours}"), format!("{ours},\tsha-512=:AAAA:")] {
            assert!(matches!(parse(value.as_bytes()), Some(Told::Sha256(_))), "{value}");
        }
        assert_eq!(parse(b"sha-512=:AAAA:"), Some(Told::OnlyOthers));
        for value in [
            "",
            "sha-256",
            "sha-256=",
            "sha-256=AAAA",
            "sha-256=:AAAA",
            "sha-256=:AAAA:",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg:",
            "sha-256=:RK_0qy18MlBSVnWgjwz6lZEWjP_lF5HF9bvEF8FabDg=:",
            "SHA-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:;q=1",
            &format!("{ours}, {ours}"),
            &format!("{ours},"),
            "\u{e9}=:AAAA:",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
        assert_eq!(parse(b"\xff=:AAAA:"), None);
    }
}

//! What a client shows to prove that it may write: the token, and what a server keeps of it.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The longest token that a client shows, in bytes: beside it a request line has room for the longest name.
const SECRET_MAX_BYTES: usize = 1024;

/// A token, as a client has it. Not printed by `Debug`.
///
/// ```
/// use intake::proto::Secret;
///
/// let secret = Secret::parse(" c2VjcmV0\n").unwrap();
/// assert_eq!((secret.as_str(), format!("{secret:?}").as_str()), ("c2VjcmV0", "Secret(…)"));
/// assert!(Secret::parse("two words").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The token in this text, without the white space around it.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not quote it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let token = text.trim_ascii();
        if !(1..=SECRET_MAX_BYTES).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token is one word of letters, digits and signs, as `intake token` prints it");
        }
        Ok(Self(token.into()))
    }

    /// The token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The digest of a token that was shown. The token itself is forgotten at once, so that nothing can print it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential([u8; 32]);

impl Credential {
    /// The digest of `token`.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads 64 hexadecimal digits, in either case.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if hex.len() != 2 * digest.len() || !hex.is_ascii() {
            return None;
        }
        for (byte, digits) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |index: usize| char::from(digits[index]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Self(digest))
    }

    /// As [`Credential::from_hex`] reads it, in lower case.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes, to be compared in constant time.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Replaces the tokens in a request line, whole or not, so that it can be logged: what follows `token=`, up to the next space.
/// A wrong request may have it anywhere.
pub(super) fn mask_tokens(line: &mut Vec<u8>) {
    const KEY: &[u8] = b"token=";
    let mut from = 0;
    while let Some(found) = line[from..].windows(KEY.len()).position(|word| word.eq_ignore_ascii_case(KEY)) {
        let start = from + found + KEY.len();
        let end = line[start..].iter().position(|byte| *byte == b' ').map_or(line.len(), |length| start + length);
        line.splice(start..end, *b"***");
        from = start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_sha256sum_and_reads_back() {
        let credential = Credential::of(b"abc");
        // FIPS 180-2, B.1.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(credential.to_hex(), hex);
        assert_eq!(Credential::from_hex(&hex.to_uppercase()), Some(credential));
        for wrong in ["", &hex[1..], &format!("{hex}0"), &format!("+{}", &hex[1..]), &"é".repeat(32)] {
            assert_eq!(Credential::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{credential:?}"), "Credential(…)");
    }

    #[test]
    fn no_line_keeps_a_token() {
        for (line, masked) in [
            ("/put size=1 token=abc a", "/put size=1 token=*** a"),
            ("/put token=abc", "/put token=***"),
            ("/put TOKEN=abc Token=d e", "/put TOKEN=*** Token=*** e"),
            ("/put token= a", "/put token=*** a"),
            ("PUT /a?token=abc HTTP/1.1", "PUT /a?token=*** HTTP/1.1"),
            ("token=token=token=", "token=***"),
            ("/put size=1 a", "/put size=1 a"),
            ("", ""),
        ] {
            let mut line = line.as_bytes().to_vec();
            mask_tokens(&mut line);
            assert_eq!(line.escape_ascii().to_string(), masked);
        }
    }
}

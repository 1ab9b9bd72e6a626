//! The lines around the chunks of HTTP (RFC 9112, 7.1): sizes in hex, extensions, and the trailers after the last one.
//!
//! Read strictly, as the head is. If a proxy and the server find the end of a chunk in different places, bytes of one client
//! can become the request of another (request smuggling). Knows one whole line at a time.

use super::super::Digest;
use super::super::digest_field::{self, Told};

/// The most trailers. The only one of use is a digest.
const MAX_TRAILERS: u8 = 32;

/// Fields that must not be trailers: they say how to read the request, which has been read by then (RFC 9110, 6.5.1).
const NO_TRAILERS: [&str; 7] =
    ["content-length", "transfer-encoding", "host", "trailer", "content-encoding", "content-range", "expect"];

/// Reads the size in the line before a chunk. Extensions, after a `;`, are ignored.
pub(in crate::proto) fn size(line: &str) -> Option<u64> {
    let digits = line.split(';').next().unwrap_or_default();
    let is_size = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_size && is_text(line)).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Whether a line holds no control character but tabs. A CR or LF within a line is an error.
fn is_text(line: &str) -> bool {
    line.chars().all(|c| c.is_ascii() && !c.is_ascii_control() || c == '\t')
}

/// What has been read of the trailers.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    lines: u8,
    /// The SHA-256 that one of them gave.
    pub(super) told: Option<Digest>,
}

impl Trailers {
    /// Takes in a line that is not the empty one.
    pub(super) fn add(&mut self, line: &str) -> Result<(), &'static str> {
        self.lines += 1;
        if self.lines > MAX_TRAILERS {
            return Err("at most 32 trailers follow the content");
        }
        let is_token = |name: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !name.is_empty() && name.bytes().all(is_allowed)
        };
        let (name, value) = line
            .split_once(':')
            .filter(|(name, _)| is_token(name) && is_text(line))
            .ok_or("a trailer is one line NAME: VALUE that ends with CR LF, and no space stands before its colon")?;
        if NO_TRAILERS.iter().any(|no| name.eq_ignore_ascii_case(no)) {
            return Err("a field that says how the request is read comes before the content");
        }
        if name.eq_ignore_ascii_case("repr-digest") || name.eq_ignore_ascii_case("content-digest") {
            self.tell(value.trim_matches([' ', '\t']))?;
        }
        Ok(())
    }

    fn tell(&mut self, value: &str) -> Result<(), &'static str> {
        match digest_field::parse(value.as_bytes()) {
            Some(Told::Sha256(digest)) if self.told.is_none_or(|earlier| earlier == digest) => self.told = Some(digest),
            Some(Told::Sha256(_)) => return Err("two digests follow the content, and they differ"),
            Some(Told::OnlyOthers) => return Err("the only digest that is compared is sha-256"),
            None => return Err("a digest is sha-256=:BASE64:, of 32 bytes"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_hex_and_nothing_else() {
        for (line, expected) in [
            ("0", Some(0)),
            ("a", Some(10)),
            ("00Ff", Some(255)),
            ("ffffffffffffffff", Some(u64::MAX)),
            ("5;name=value;\"x\"", Some(5)),
            ("5;", Some(5)),
        ] {
            assert_eq!(size(line), expected, "{line}");
        }
        for line in [
            "",
            ";x",
            "+5",
            "-5",
            "0x5",
            "5 ",
            " 5",
            "5 ;x",
            "g",
            "00000000000000005",
            "5;\r",
            "5;\n",
            "5\r",
            "5;\u{e9}",
        ] {
            assert_eq!(size(line), None, "{line:?}");
        }
    }

    #[test]
    fn trailers_are_fields_and_few() {
        let mut trailers = Trailers::default();
        for line in ["x:", "X-Y: z\tz", "repr-digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"] {
            assert_eq!(trailers.add(line), Ok(()), "{line}");
        }
        assert!(trailers.told.is_some());
        let other = "Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        for line in ["x", ":", "x : y", " x: y", "x: \r", "x: y\n", "x: \u{e9}", "Content-Length: 0", "HOST: a", other]
        {
            assert!(trailers.add(line).is_err(), "{line:?}");
        }
        let mut many = Trailers::default();
        assert!((0..32).all(|_| many.add("x: y").is_ok()) && many.add("x: y").is_err());
    }
}

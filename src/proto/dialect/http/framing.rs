//! Where the content of a request ends (RFC 9112, 6).
//!
//! Whatever two programs have been seen to frame differently is refused, even where the RFC lets a server mend it: two
//! equal lengths, a length beside chunks, white space around a number.
//!
//! Knows the fields, and no byte of the content.

use super::head::{Parsed, bad};
use super::status;
use crate::proto::Refusal;
use crate::proto::number::parse_number;

/// How the content of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no content, and nothing says so.
    Absent,
    /// This many bytes.
    Sized(u64),
    /// In chunks.
    Chunked,
}

/// Fields that a proxy must not be told to take away (`Connection: content-length`).
const END_TO_END: [&str; 3] = ["content-length", "transfer-encoding", "host"];

impl Framing {
    /// How long the content is, unless it is in chunks.
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Self::Sized(size) => Some(size),
            Self::Absent => Some(0),
            Self::Chunked => None,
        }
    }

    /// Whether there may be content.
    pub(super) fn has_content(self) -> bool {
        !matches!(self, Self::Absent | Self::Sized(0))
    }

    /// Reads it off the fields.
    ///
    /// # Errors
    /// 501 for an unknown transfer coding, 400 for all else. The end of the content is not known then.
    pub(super) fn read(parsed: &Parsed) -> Result<Self, Refusal> {
        let fields = &parsed.fields;
        if let Some(name) = END_TO_END.iter().find(|name| fields.lists("connection", name)) {
            return Err(bad(format!("Connection names {name}, which belongs to the whole way")));
        }
        let (length, coding) = (fields.one("Content-Length")?, fields.one("Transfer-Encoding")?);
        match (length, coding) {
            (None, None) => Ok(Self::Absent),
            (Some(_), Some(_)) => Err(bad("Content-Length and Transfer-Encoding exclude one another")),
            (Some(length), None) => {
                let size = std::str::from_utf8(length).ok().and_then(parse_number);
                let size = size.filter(|_| !fields.is_padded(length));
                size.map(Self::Sized).ok_or_else(|| bad("Content-Length is 1 to 19 decimal digits, and nothing else"))
            }
            (None, Some(_)) if parsed.is_1_0 => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (None, Some(coding)) => chunked(coding).map(|()| Self::Chunked),
        }
    }
}

fn chunked(coding: &[u8]) -> Result<(), Refusal> {
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let codings: Vec<&[u8]> = coding.split(|byte| *byte == b',').collect();
    match codings.as_slice() {
        [coding] if is_chunked(coding) => Ok(()),
        [] | [b""] => Err(bad("Transfer-Encoding is empty")),
        [before @ .., _] if before.iter().any(|coding| is_chunked(coding)) => {
            Err(bad("chunked is the last transfer coding, and there once"))
        }
        _ => Err(Refusal::new(status::NOT_IMPLEMENTED, "the only transfer coding that is taken is chunked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(fields: &str) -> Result<Framing, u16> {
        let head = format!("PUT /a HTTP/1.1\r\n{fields}\r\n");
        let parsed = Parsed::read(head.as_bytes()).unwrap_or_else(|refusal| panic!("{fields}: {refusal:?}"));
        Framing::read(&parsed).map_err(|refusal| refusal.code.0)
    }

    #[test]
    fn the_length_is_digits_and_there_once() {
        for (fields, expected) in [
            ("", Ok(Framing::Absent)),
            ("Content-Length: 5\r\n", Ok(Framing::Sized(5))),
            ("CONTENT-LENGTH:005\r\n", Ok(Framing::Sized(5))),
            ("Content-Length: 9999999999999999999\r\n", Ok(Framing::Sized(9_999_999_999_999_999_999))),
            ("Content-Length: 10000000000000000000\r\n", Err(400)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(400)),
            ("Content-Length: 5\r\ncontent-length: 6\r\n", Err(400)),
            ("Content-Length: 5, 5\r\n", Err(400)),
            ("Content-Length: +5\r\n", Err(400)),
            ("Content-Length: -5\r\n", Err(400)),
            ("Content-Length: 5 \r\n", Err(400)),
            ("Content-Length: 5\t\r\n", Err(400)),
            ("Content-Length: 5 5\r\n", Err(400)),
            ("Content-Length: 0x5\r\n", Err(400)),
            ("Content-Length: 5e1\r\n", Err(400)),
            ("Content-Length: 5;q=1\r\n", Err(400)),
            ("Content-Length:\r\n", Err(400)),
            ("Content-Length: \u{666}\r\n", Err(400)),
        ] {
            assert_eq!(framing(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn chunked_is_the_only_coding_and_stands_alone() {
        for (fields, expected) in [
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("transfer-encoding:CHUNKED\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(400)),
            ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", Err(400)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked, identity\r\n", Err(400)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked,\r\n", Err(400)),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(400)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
            ("Transfer-Encoding: xchunked\r\n", Err(501)),
            ("Transfer-Encoding: x chunked\r\n", Err(501)),
            ("Transfer-Encoding: chunked;q=1\r\n", Err(501)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(501)),
            ("Transfer-Encoding: identity\r\n", Err(501)),
            ("Transfer-Encoding:\r\n", Err(400)),
            ("Connection: close, Content-Length\r\nContent-Length: 5\r\n", Err(400)),
            ("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Connection: host\r\n", Err(400)),
        ] {
            assert_eq!(framing(fields), expected, "{fields:?}");
        }
        let old = b"PUT /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        let Ok(parsed) = Parsed::read(old) else { panic!("the head is fine") };
        assert_eq!(Framing::read(&parsed).map_err(|refusal| refusal.code.0), Err(400));
    }
}

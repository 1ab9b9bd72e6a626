//! The server's replies, and their spelling as lines: `ok OFFSET`, `done …` and `no …`.
//!
//! A code is for programs and words are for people, as in SMTP and HTTP. This module knows after which codes the
//! conversation continues ([`Code::keeps_step`]) and an upload can be resumed ([`Code::keeps_partial`]). It knows the
//! grammar of the lines, not when they may be sent.

use std::borrow::Cow;
use std::fmt;

use super::number::parse_number;
use super::{Algorithm, Digest};

/// The longest reply line that a client accepts, LF included, in bytes: far above any that a server writes.
pub const REPLY_MAX_BYTES: usize = 4096;

/// The code of a refusal, for programs. The numbers are HTTP's, because people know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl Code {
    /// The grammar is broken, or content was cut short.
    pub const BAD_REQUEST: Self = Self(400);
    /// The client has shown no token, or one that the server does not know.
    pub const UNAUTHORIZED: Self = Self(401);
    /// The name is not allowed, or the server's policy forbids the upload.
    pub const FORBIDDEN: Self = Self(403);
    /// There is no such upload.
    pub const UNKNOWN: Self = Self(404);
    /// The client was too slow: the header, idle or rate limit.
    pub const TIMEOUT: Self = Self(408);
    /// The name is taken, or another connection has the upload.
    pub const CONFLICT: Self = Self(409);
    /// The name is taken, and the client asked to be refused in that case (HTTP's `If-None-Match: *`).
    pub const PRECONDITION: Self = Self(412);
    /// The file is larger than the server accepts.
    pub const TOO_LARGE: Self = Self(413);
    /// The content does not have the promised digest.
    pub const MISMATCH: Self = Self(422);
    /// As above, of a piece of a resumable upload (tus).
    pub const CHECKSUM: Self = Self(460);
    /// The client has too many connections, has shown too many wrong tokens, or has sent enough for today.
    pub const TOO_MANY: Self = Self(429);
    /// This port speaks TLS only.
    pub const TLS_REQUIRED: Self = Self(426);
    /// The disk failed.
    pub const DISK: Self = Self(500);
    /// The server is shutting down.
    pub const SHUTTING_DOWN: Self = Self(503);
    /// No space is left.
    pub const NO_SPACE: Self = Self(507);

    /// Those above, in ascending order. HTTP has more, for requests that cannot be followed.
    pub const ALL: [Self; 15] = [
        Self::BAD_REQUEST,
        Self::UNAUTHORIZED,
        Self::FORBIDDEN,
        Self::UNKNOWN,
        Self::TIMEOUT,
        Self::CONFLICT,
        Self::PRECONDITION,
        Self::TOO_LARGE,
        Self::MISMATCH,
        Self::TLS_REQUIRED,
        Self::TOO_MANY,
        Self::CHECKSUM,
        Self::DISK,
        Self::SHUTTING_DOWN,
        Self::NO_SPACE,
    ];

    /// Whether the conversation continues after it, if the end of the content is known.
    pub fn keeps_step(self) -> bool {
        [Self::FORBIDDEN, Self::CONFLICT, Self::PRECONDITION, Self::MISMATCH, Self::NO_SPACE].contains(&self)
    }

    /// Whether the upload may be resumed after it: neither its content nor the disk is known to be bad.
    pub fn keeps_partial(self) -> bool {
        [Self::BAD_REQUEST, Self::TIMEOUT, Self::CONFLICT, Self::TOO_MANY, Self::SHUTTING_DOWN].contains(&self)
    }
}

/// `no CODE [retry=SECONDS] WORDS`: the words for people, the code for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code, for programs.
    pub code: Code,
    /// After how many seconds the client should try again.
    pub retry_seconds: Option<u32>,
    /// What failed, why, and what to do.
    pub words: Cow<'static, str>,
}

impl Refusal {
    /// A refusal without a time to try again.
    pub fn new(code: Code, words: impl Into<Cow<'static, str>>) -> Self {
        Self { code, retry_seconds: None, words: words.into() }
    }

    /// Its line, LF included.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        Reply::No(self.clone()).spell_line(&mut line);
        line
    }

    /// The refusal of a server that is shutting down.
    pub fn shutting_down() -> Self {
        Self::new(Code::SHUTTING_DOWN, "the server is shutting down")
    }
}

/// `done SIZE DIGEST STORED-NAME`: the file is under its final name, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The file's size in bytes.
    pub size: u64,
    /// The digest that was compared, if one was promised.
    pub digest: Option<Digest>,
    /// The final name, byte for byte.
    pub stored_name: String,
}

/// One line from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `ok OFFSET`, or in the line dialect just `ok`, which counts as offset 0.
    Ok(u64),
    /// The file is stored.
    Done(Receipt),
    /// The file is not stored, and why.
    No(Refusal),
}

/// The line is not of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseReplyError;

impl fmt::Display for ParseReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server answered with a line that is not of this protocol")
    }
}

impl std::error::Error for ParseReplyError {}

impl Reply {
    /// Appends the line to `out`, LF included.
    pub(super) fn spell_line(&self, out: &mut Vec<u8>) {
        let line = match self {
            Self::Ok(offset) => format!("ok {offset}\n"),
            Self::Done(Receipt { size, digest, stored_name }) => {
                let digest = digest.map_or("-".to_owned(), |digest| digest.to_string());
                format!("done {size} {digest} {stored_name}\n")
            }
            Self::No(Refusal { code, retry_seconds, words }) => {
                let retry = retry_seconds.map_or(String::new(), |seconds| format!("retry={seconds} "));
                format!("no {} {retry}{words}\n", code.0)
            }
        };
        out.extend_from_slice(line.as_bytes());
    }

    /// Parses one line without its LF.
    ///
    /// # Errors
    /// [`ParseReplyError`] if the line is not UTF-8 or breaks the grammar.
    pub fn parse(line: &[u8]) -> Result<Self, ParseReplyError> {
        let line = std::str::from_utf8(line).map_err(|_| ParseReplyError)?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ok" if rest.is_empty() => Some(Self::Ok(0)),
            "ok" => parse_number(rest).map(Self::Ok),
            "done" => parse_receipt(rest).map(Self::Done),
            "no" => parse_refusal(rest).map(Self::No),
            _ => None,
        }
        .ok_or(ParseReplyError)
    }
}

fn parse_receipt(rest: &str) -> Option<Receipt> {
    let mut words = rest.splitn(3, ' ');
    let (size, digest, name) = (words.next()?, words.next()?, words.next()?);
    let digest = match digest.split_once(':') {
        Some((algorithm, hex)) => Some(Digest::parse(Algorithm::parse(algorithm)?, hex)?),
        None if digest == "-" => None,
        None => return None,
    };
    (!name.is_empty()).then_some(Receipt { size: parse_number(size)?, digest, stored_name: name.into() })
}

fn parse_refusal(rest: &str) -> Option<Refusal> {
    let (code, rest) = rest.split_once(' ')?;
    let code = Some(code).filter(|code| code.len() == 3).and_then(parse_number)?;
    let (retry_seconds, words) = match rest.strip_prefix("retry=") {
        Some(rest) => rest.split_once(' ').and_then(|(seconds, words)| Some((Some(seconds.parse().ok()?), words)))?,
        None => (None, rest),
    };
    Some(Refusal { code: Code(code as u16), retry_seconds, words: words.to_owned().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_read_back_as_they_were_written() {
        let refusal = Refusal::new(Code::CONFLICT, "the name is taken");
        let busy = Refusal { retry_seconds: Some(5), ..refusal.clone() };
        let receipt = Receipt { size: 12, digest: None, stored_name: "a b.txt".into() };
        let checked = Receipt { digest: Some(Digest::Crc32c(0xbeef)), ..receipt.clone() };
        for (reply, line) in [
            (Reply::Ok(0), "ok 0"),
            (Reply::Done(checked), "done 12 crc32c:0000beef a b.txt"),
            (Reply::Done(receipt), "done 12 - a b.txt"),
            (Reply::No(refusal), "no 409 the name is taken"),
            (Reply::No(busy), "no 409 retry=5 the name is taken"),
        ] {
            let mut spelled = Vec::new();
            reply.spell_line(&mut spelled);
            assert_eq!(spelled, format!("{line}\n").as_bytes());
            assert_eq!(Reply::parse(line.as_bytes()), Ok(reply));
        }
        assert_eq!(Reply::parse(b"ok"), Ok(Reply::Ok(0)));
        assert_eq!(Reply::parse(b"ok 4096\r"), Ok(Reply::Ok(4096)));
    }

    #[test]
    fn any_other_line_is_an_error() {
        let lines: [&[u8]; 12] = [
            b"",
            b"HTTP/1.1 200 OK",
            b"ok -1",
            b"ok +1",
            b"ok 12345678901234567890",
            b"done 1 -",
            b"done x - a",
            b"done 1 md5:00 a",
            b"done 1 crc32c:0 a",
            b"no",
            b"no 4000 words",
            b"no 409 retry=x words",
        ];
        for line in lines {
            assert_eq!(Reply::parse(line), Err(ParseReplyError), "{:?}", String::from_utf8_lossy(line));
        }
    }
}

//! The grammar of classic and line: a bare name is the whole head.
//!
//! Nothing stands before the name, so nothing can be said of the file but that. A line feed after it makes it the line
//! dialect's; where the burst ends without one it is the tutorials' classic dialect, whose name has no end of its own.

use super::{Dialect, Grammar, Head};
use crate::proto::{Code, Name, NameError, NamePolicy, Refusal, Request};

pub(super) const GRAMMAR: Grammar = Grammar {
    reads: |_| true,
    may_follow: Err("after a /put or /ask only /put, /ask or /bye may come"),
    ends_with_burst: true,
    refuse_early,
    read,
};

fn refuse_early(head: &[u8]) -> Option<Refusal> {
    // The CR of a CR LF is not part of the name.
    let name = head.strip_suffix(b"\r").unwrap_or(head);
    (name.len() > Name::MAX_BYTES).then(|| Refusal::new(Code::FORBIDDEN, NameError::TooLong.to_string()))
}

fn read(head: &[u8], by_burst: bool, names: NamePolicy) -> Head {
    let dialect = if by_burst { Dialect::Classic } else { Dialect::Line };
    match Name::parse(head, names) {
        Ok(name) => Head::Upload(Request::until_end_of_stream(dialect, name)),
        Err(error) => Head::Bad(Refusal::new(Code::FORBIDDEN, words_for(error, head))),
    }
}

fn words_for(error: NameError, head: &[u8]) -> String {
    let speaks_http = head.windows(6).any(|word| word == b"HTTP/1");
    if speaks_http { "HTTP is not spoken here; send the base name".into() } else { error.to_string() }
}

pub(super) fn spell_request(dialect: Dialect, request: &Request, out: &mut Vec<u8>) {
    out.extend_from_slice(request.name.as_str().as_bytes());
    end_line(dialect, out);
}

/// A classic client compares what it reads with these two bytes, and stops at anything else.
pub(super) fn spell_ok(dialect: Dialect, out: &mut Vec<u8>) {
    out.extend_from_slice(b"ok");
    end_line(dialect, out);
}

fn end_line(dialect: Dialect, out: &mut Vec<u8>) {
    if dialect != Dialect::Classic {
        out.push(b'\n');
    }
}

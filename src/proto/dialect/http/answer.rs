//! How answers are spelled.
//!
//! A receipt and a refusal are the lines of the other dialects, so that they read the same everywhere; the status, and a
//! field or two, say the same to programs. Knows one answer at a time, not when it is said.

use std::fmt::Write;

use super::asked::{Asked, Draft, Reads, Resumable, Verb};
use super::authorization;
use super::date;
use super::status::{self, phrase};
use super::target::encode;
use crate::proto::{Code, Page, Problem, Receipt, Refusal, Reply, digest_field};

/// Tells a client that waits for it to send the content. Not an answer: that follows.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The only version of tus that is spoken here.
pub(super) const TUS_VERSION: &str = "1.0.0";
/// What is spoken of it besides its core.
const TUS_EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination";

/// Where types of problems are registered (RFC 9457, 4.2).
const PROBLEM_TYPES: &str = "https://iana.org/assignments/http-problem-types";

/// The types of a piece of an upload (`Accept-Patch`, RFC 5789, 3.1).
pub(super) const PIECES: &str = "application/partial-upload, application/offset+octet-stream";

/// What a page of an allowed origin may send.
const MAY_SEND: &str = "Content-Type, Content-Disposition, Content-Digest, Repr-Digest, If-None-Match, Last-Modified, \
    Authorization, Upload-Offset, Upload-Length, Upload-Complete, Upload-Draft-Interop-Version, Upload-Metadata, \
    Upload-Defer-Length, Upload-Checksum, Tus-Resumable, X-HTTP-Method-Override";
/// What it may read of an answer.
const MAY_READ: &str = "Location, Content-Location, Repr-Digest, Retry-After, Upload-Offset, Upload-Length, \
    Upload-Complete, Upload-Limit, Upload-Expires, Upload-Metadata, Upload-Defer-Length, Tus-Resumable, Tus-Version, Tus-Extension, \
    Tus-Max-Size, Tus-Checksum-Algorithm";

/// When an answer is said, and whether it is the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proto) struct Saying {
    /// In seconds since the epoch.
    pub(in crate::proto) now: u64,
    /// The connection is closed after it.
    pub(in crate::proto) is_last: bool,
}

/// Appends `reply` to `out`.
pub(in crate::proto) fn spell(reply: &Reply, asked: &Asked, saying: Saying, out: &mut Vec<u8>) {
    match reply {
        Reply::Ok(_) => out.extend_from_slice(CONTINUE),
        Reply::Done(receipt) => created(receipt).spell(asked, saying, out),
        Reply::No(refusal) => refused(refusal, asked).spell(asked, saying, out),
    }
}

/// One answer.
pub(super) struct Answer {
    status: Code,
    /// Whole lines.
    fields: String,
    content: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: Code) -> Self {
        Self { status, fields: String::new(), content: Vec::new() }
    }

    pub(super) fn field(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        write!(self.fields, "{name}: {value}\r\n").expect("writing to a String cannot fail");
        self
    }

    /// When to come back, and how to show a token.
    fn with_advice(self, refusal: &Refusal) -> Self {
        let answer = match refusal.retry_seconds {
            Some(seconds) => self.field("Retry-After", seconds),
            None => self,
        };
        match refusal.code {
            Code::UNAUTHORIZED => answer.field("WWW-Authenticate", authorization::CHALLENGES),
            _ => answer,
        }
    }

    pub(super) fn content(self, kind: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { content: content.into(), ..self.field("Content-Type", kind) }
    }

    pub(super) fn spell(self, asked: &Asked, saying: Saying, out: &mut Vec<u8>) {
        let Self { status, fields, content } = self.common(asked, saying);
        out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n{fields}\r\n", status.0, phrase(status)).as_bytes());
        if !asked.is_head {
            out.extend_from_slice(&content);
        }
    }

    /// With the fields that every answer has.
    fn common(mut self, asked: &Asked, saying: Saying) -> Self {
        if let Some(origin) = &asked.origin {
            self = self.field("Access-Control-Allow-Origin", origin).field("Vary", "Origin");
            self = self.field("Access-Control-Expose-Headers", MAY_READ);
        }
        if asked.is_tus() {
            self = self.field("Tus-Resumable", TUS_VERSION);
            if self.status == Code::PRECONDITION {
                self = self.field("Tus-Version", TUS_VERSION);
            }
        }
        self = self.field("Date", date::spell(saying.now)).field("Cache-Control", "no-store");
        // RFC 9110, 8.6: a 204 has none.
        if self.status != Code(204) {
            let length = self.content.len();
            self = self.field("Content-Length", length);
        }
        match (saying.is_last || asked.is_last, asked.is_1_0) {
            (true, _) => self.field("Connection", "close"),
            (false, true) => self.field("Connection", "keep-alive"),
            (false, false) => self,
        }
    }
}

/// Appends the one answer for all files of a form: a line for each, and the status of the first that was refused.
pub(in crate::proto) fn spell_form(replies: &[Reply], asked: &Asked, saying: Saying, out: &mut Vec<u8>) {
    let failed = replies.iter().find_map(|reply| match reply {
        Reply::No(refusal) => Some(refusal),
        Reply::Ok(_) | Reply::Done(_) => None,
    });
    let is_last = saying.is_last || replies.iter().any(|reply| matches!(reply, Reply::No(no) if !no.code.keeps_step()));
    let answer = match failed {
        Some(refusal) => Answer::new(refusal.code).with_advice(refusal),
        None => Answer::new(Code(201)),
    };
    let mut lines = Vec::new();
    replies.iter().for_each(|reply| reply.spell_line(&mut lines));
    let answer = match asked.reads {
        Reads::Html => answer
            .field("Content-Security-Policy", "default-src 'none'")
            .content("text/html; charset=utf-8", readable(&String::from_utf8_lossy(&lines), failed.is_none())),
        Reads::Lines | Reads::Problems => answer.content("text/plain; charset=utf-8", lines),
    };
    answer.spell(asked, Saying { is_last, ..saying }, out);
}

/// What a browser shows after a form that was sent without script.
fn readable(lines: &str, all_is_well: bool) -> String {
    let title = if all_is_well { "Stored" } else { "Not all is stored" };
    let lines = lines.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <h1>{title}</h1>\n<pre>\n{lines}</pre>\n<p><a href=\"/\">Send more</a></p>\n"
    )
}

/// The file is stored.
pub(super) fn created(receipt: &Receipt) -> Answer {
    let answer = Answer::new(Code(201)).field("Location", format_args!("/{}", encode(&receipt.stored_name)));
    let answer = match receipt.digest.as_ref().and_then(digest_field::spell) {
        Some(digest) => answer.field("Repr-Digest", digest),
        None => answer,
    };
    let mut line = Vec::new();
    Reply::Done(receipt.clone()).spell_line(&mut line);
    answer.content("text/plain; charset=utf-8", line)
}

/// The answer that a refusal is.
pub(super) fn refused(refusal: &Refusal, asked: &Asked) -> Answer {
    let code = refusal.code;
    let answer = Answer::new(code);
    let problem = asked.resumable.as_ref().and_then(|resumable| resumable.problem);
    let answer = match problem.and_then(Problem::offset) {
        Some(offset) => answer.field("Upload-Offset", offset),
        None => answer,
    };
    let answer = match asked.draft() {
        Some(draft) if code == Code::TOO_LARGE => answer.field("Upload-Limit", draft.limit(draft.ttl_seconds)),
        Some(_) if problem.is_some() => answer.field("Upload-Complete", "?0"),
        _ => answer,
    };
    let answer = match &asked.resumable {
        Some(Resumable { verb: Verb::Append, .. }) if code == status::UNSUPPORTED_CONTENT => {
            answer.field("Accept-Patch", PIECES)
        }
        _ => answer,
    };
    let answer = answer.with_advice(refusal);
    if asked.reads == Reads::Problems || asked.draft().is_some() {
        return answer.content("application/problem+json", details(code, &refusal.words, problem));
    }
    let mut line = Vec::new();
    Reply::No(refusal.clone()).spell_line(&mut line);
    answer.content("text/plain; charset=utf-8", line)
}

/// The details of a problem (RFC 9457).
fn details(code: Code, words: &str, problem: Option<Problem>) -> String {
    let mut details = serde_json::json!({ "status": code.0, "title": phrase(code), "detail": words });
    let kind = match problem {
        Some(Problem::WrongOffset { told, right }) => {
            details["expected-offset"] = right.into();
            details["provided-offset"] = told.into();
            "mismatching-upload-offset"
        }
        Some(Problem::Completed { .. }) => "completed-upload",
        Some(Problem::InconsistentLength) => "inconsistent-upload-length",
        // draft-ietf-httpapi-digest-fields-problem-types.
        None if code == Code::MISMATCH => "digest-mismatched-values",
        None => return details.to_string(),
    };
    details["type"] = format!("{PROBLEM_TYPES}#{kind}").into();
    details.to_string()
}

/// The page on which files are dropped.
pub(super) fn page(page: &Page) -> Answer {
    let answer = Answer::new(Code(200))
        .field("Content-Security-Policy", &page.policy)
        .field("X-Content-Type-Options", "nosniff")
        .field("X-Frame-Options", "DENY")
        // Not no-referrer: a form of such a page says that it is of no origin.
        .field("Referrer-Policy", "same-origin");
    answer.content("text/html; charset=utf-8", page.html.as_bytes())
}

/// What may be asked for, and by a page of an allowed origin (the preflight of the Fetch standard).
pub(super) fn options(allow: &str, draft: Draft, asked: &Asked) -> Answer {
    let answer = Answer::new(Code(204)).field("Allow", allow).field("Tus-Resumable", TUS_VERSION);
    let answer = answer.field("Tus-Version", TUS_VERSION).field("Tus-Extension", TUS_EXTENSIONS);
    let answer = answer.field("Tus-Checksum-Algorithm", "sha256").field("Upload-Limit", draft.limit(draft.ttl_seconds));
    let answer = match draft.max_size {
        Some(max) => answer.field("Tus-Max-Size", max),
        None => answer,
    };
    if asked.origin.is_none() {
        return answer;
    }
    let answer = answer.field("Access-Control-Allow-Methods", allow);
    answer.field("Access-Control-Allow-Headers", MAY_SEND).field("Access-Control-Max-Age", 600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Algorithm, Hasher};

    /// 1994-11-06, the date of RFC 9110, 5.6.7.
    const NOW: u64 = 784_111_777;

    fn said(reply: &Reply, asked: &Asked, is_last: bool) -> String {
        let mut out = Vec::new();
        spell(reply, asked, Saying { now: NOW, is_last }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_receipt_is_created_at_its_location() {
        let receipt = Receipt { size: 3, digest: None, stored_name: "a b.txt".into() };
        let expected = "HTTP/1.1 201 Created\r\nLocation: /a%20b.txt\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: no-store\r\nContent-Length: 17\r\n\r\ndone 3 - a b.txt\n";
        assert_eq!(said(&Reply::Done(receipt.clone()), &Asked::default(), false), expected);
        let digest = Some(Hasher::new(Algorithm::Sha256).finish());
        let said = said(&Reply::Done(Receipt { digest, ..receipt }), &Asked::default(), true);
        assert!(said.contains("\r\nRepr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n"), "{said}");
        assert!(said.contains("\r\nConnection: close\r\n"), "{said}");
    }

    #[test]
    fn a_refusal_is_its_line_or_a_problem() {
        let taken =
            Reply::No(Refusal { retry_seconds: Some(5), ..Refusal::new(Code::CONFLICT, "the name is \"taken\"") });
        let line = said(&taken, &Asked::default(), true);
        assert!(line.starts_with("HTTP/1.1 409 Conflict\r\nRetry-After: 5\r\n"), "{line}");
        assert!(line.ends_with("\r\nConnection: close\r\n\r\nno 409 retry=5 the name is \"taken\"\n"), "{line}");
        let line = said(&taken, &Asked { is_head: true, ..Asked::default() }, false);
        assert!(line.ends_with("Content-Length: 35\r\n\r\n"), "a HEAD is told the length and no content: {line}");
        let problems = Asked { reads: Reads::Problems, ..Asked::default() };
        let problem = said(&taken, &problems, false);
        let expected = r#"{"detail":"the name is \"taken\"","status":409,"title":"Conflict"}"#;
        assert!(problem.ends_with(expected) && problem.contains("application/problem+json"), "{problem}");
        let mismatch = said(&Reply::No(Refusal::new(Code::MISMATCH, "x")), &problems, false);
        assert!(mismatch.contains("#digest-mismatched-values"), "{mismatch}");
    }

    #[test]
    fn only_an_allowed_page_is_told_what_it_may_read() {
        let done = Reply::Done(Receipt { size: 3, digest: None, stored_name: "a".into() });
        assert!(!said(&done, &Asked::default(), false).contains("Access-Control"));
        let asked = Asked { origin: Some("https://app.example".into()), is_1_0: true, ..Asked::default() };
        let said = said(&done, &asked, false);
        assert!(said.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\nVary: Origin\r\n"), "{said}");
        assert!(
            said.contains("Expose-Headers: Location,") && said.contains("\r\nConnection: keep-alive\r\n"),
            "{said}"
        );
    }

    #[test]
    fn every_code_has_its_phrase() {
        let codes = [
            Code::BAD_REQUEST,
            Code::UNAUTHORIZED,
            Code::TOO_MANY,
            Code::FORBIDDEN,
            Code::UNKNOWN,
            Code::TIMEOUT,
            Code::CONFLICT,
            Code::TOO_LARGE,
            Code::MISMATCH,
            Code::DISK,
            Code::SHUTTING_DOWN,
            Code::NO_SPACE,
            status::NOT_ALLOWED,
            status::CHECKSUM,
            status::LENGTH_REQUIRED,
            Code::PRECONDITION,
            status::UNSUPPORTED_CONTENT,
            status::EXPECTATION_FAILED,
            status::MISDIRECTED,
            status::HEAD_TOO_LARGE,
            status::NOT_IMPLEMENTED,
            status::VERSION,
        ];
        for code in codes {
            assert_ne!(phrase(code), "Unknown", "{code:?}");
        }
    }
}

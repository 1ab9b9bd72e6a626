//! HTTP/1.1 (RFC 9110, RFC 9112), in front of the same uploads.
//!
//! ```text
//!   bytes --> head --> target, framing, visitor --> put ----> Request
//!             (scan)   (whether it may be followed)     \---> an answer that is no upload's
//! ```
//!
//! `PUT /NAME` is put, with `Expect: 100-continue` it is ask, and `POST /` is one put for each file of a form. Both begin a
//! resumable upload if their fields say so. What a request says is read in files of their own, one question each; this one
//! asks them in their order. A first line `METHOD SP /` cannot be a base name, so it needs no port of its own.
//!
//! **A request that is refused is the last one.** Its content, if it has some, is not looked at, and what was sent behind
//! it is not run: where the one ends and the other begins is just what a wrong request leaves in doubt.

pub(super) mod answer;
pub(super) mod asked;
mod authorization;
pub(super) mod by_id;
pub(super) mod client;
mod date;
mod framing;
pub(in crate::proto) mod get;
mod head;
mod ietf;
mod metadata;
pub(super) mod multipart;
mod parameters;
mod put;
pub(super) mod status;
mod target;
mod tus;
mod visitor;

use answer::{Answer, Saying};
use asked::{Asked, Draft};
use framing::Framing;
use head::{Parsed, bad};
use multipart::Splitter;
use target::Target;

use super::grammar::{Grammar, Head, Shape};
use super::manners::Dialect;
use super::voice::Voice;
use crate::proto::{Refusal, Rules};

/// The longest method that is one (RFC 3253: `VERSION-CONTROL`, `BASELINE-CONTROL`), in bytes.
const METHOD_MAX_BYTES: usize = 16;

pub(super) const GRAMMAR: Grammar = Grammar {
    reads: |head, after| after.map_or_else(|| begins_request(head), Dialect::speaks_http),
    may_follow: Ok(()),
    speaks: Dialect::Http,
    cut_off: "the stream ended before the head of the request did",
    shape: Shape::Lines { scan: head::scan, plain: head::plain },
    read,
};

/// Whether it begins as no name can: `METHOD SP`, and a target that holds `/` or is followed by ` HTTP/`.
fn begins_request(head: &[u8]) -> bool {
    let method = head.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match head.split_at(method) {
        (method, [b' ', target @ ..]) if (1..=METHOD_MAX_BYTES).contains(&method.len()) => {
            target.starts_with(b"/")
                || target.starts_with(b"http:/")
                || target.contains(&b'/') && target.windows(6).any(|word| word == b" HTTP/")
        }
        _ => false,
    }
}

fn read(head: &[u8], _by_burst: bool, rules: &Rules) -> Head {
    let mut asked = Asked::default();
    follow(head, rules, &mut asked).unwrap_or_else(|refusal| Head::Bad(refusal, Voice::http(Dialect::Http, asked)))
}

/// What a head asks for. `asked` knows what came to light before a refusal.
fn follow(head: &[u8], rules: &Rules, asked: &mut Asked) -> Result<Head, Refusal> {
    let parsed = Parsed::read(head)?;
    *asked = Asked::of(&parsed);
    let framing = Framing::read(&parsed)?;
    let (target, authority) = Target::read(parsed.target)?;
    let host = visitor::host(&parsed.fields, authority, &rules.web)?;
    let is_safe = matches!(parsed.method, "GET" | "HEAD");
    asked.origin = visitor::origin(&parsed.fields, host, is_safe, &rules.web)?.map(Box::from);
    match (parsed.method, &target) {
        ("PUT", Target::Name(name)) if by_id::is_creation(&parsed)? => {
            by_id::create(&parsed, framing, Some(name), rules, asked)
        }
        ("POST", Target::Root) if by_id::is_creation(&parsed)? => by_id::create(&parsed, framing, None, rules, asked),
        ("PUT", Target::Name(name)) => {
            asked.must_be_new = parsed.fields.one("If-None-Match")?.is_some();
            let request = put::read(&parsed, framing, name, rules.names)?;
            let voice = Voice::http(request.dialect, std::mem::take(asked));
            Ok(Head::Upload(request, voice))
        }
        ("OPTIONS", _) => {
            let answer = answer::options(allowed(&target, rules), Draft::of(&parsed.fields, rules)?, asked);
            let answer = match target {
                Target::Upload(_) => answer.field("Accept-Patch", answer::PIECES),
                _ => answer,
            };
            Ok(said(Ok("the options"), answer, framing, rules, asked))
        }
        (_, Target::Upload(id)) => {
            let head = by_id::follow(&parsed, framing, id.clone(), rules, asked)?;
            Ok(head.unwrap_or_else(|| not_allowed(&target, framing, rules, asked)))
        }
        ("POST", Target::Root) => form(&parsed, framing, asked),
        ("PUT", _) => Err(bad("the target names no file: PUT /NAME (curl: the URL ends with / or with the name)")),
        ("GET" | "HEAD", Target::Root) if let Some(page) = &rules.web.page => {
            Ok(said(Ok("the page"), answer::page(page), framing, rules, asked))
        }
        _ => Ok(not_allowed(&target, framing, rules, asked)),
    }
}

/// The files of a form.
fn form(parsed: &Parsed, framing: Framing, asked: &mut Asked) -> Result<Head, Refusal> {
    put::refuse_codings(&parsed.fields)?;
    let size = put::size(framing)?;
    let splitter = Box::new(Splitter::new(parsed.fields.one("Content-Type")?.unwrap_or_default())?);
    let expects = put::expects(parsed, framing)?;
    Ok(Head::Form { size, splitter, expects, voice: Voice::http(Dialect::HttpForm, std::mem::take(asked)) })
}

/// The methods that a target takes.
fn allowed(target: &Target, rules: &Rules) -> &'static str {
    match target {
        Target::Name(_) => "PUT, OPTIONS",
        Target::Upload(_) => by_id::ALLOWED,
        Target::Root | Target::Server if rules.web.page.is_some() => "GET, HEAD, POST, OPTIONS",
        Target::Root | Target::Server => "POST, OPTIONS",
    }
}

fn not_allowed(target: &Target, framing: Framing, rules: &Rules, asked: &mut Asked) -> Head {
    let words = "files are taken here and not given out: PUT /NAME stores one";
    let refusal = Refusal::new(status::NOT_ALLOWED, words);
    let answer = answer::refused(&refusal, asked).field("Allow", allowed(target, rules));
    said(Err(refusal), answer, framing, rules, asked)
}

/// An answer that is no upload's. The next request may follow, unless there is content that nobody wants.
fn said(
    what: Result<&'static str, Refusal>,
    answer: Answer,
    framing: Framing,
    rules: &Rules,
    asked: &mut Asked,
) -> Head {
    asked.is_last |= framing.has_content();
    let mut spelled = Vec::new();
    answer.spell(asked, Saying { now: rules.now, is_last: false }, &mut spelled);
    Head::Asked { what, answer: spelled, voice: Voice::http(Dialect::Http, std::mem::take(asked)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_begins_as_no_name_can() {
        for head in [
            "GET /",
            "PUT /a HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "PRI * HTTP/2.0",
            "M-SEARCH * HTTP/1.1",
            "CONNECT example.org:443 HTTP/1.1",
            "PUT http://h/a HTTP/1.1",
            "A /",
            "GET  HTTP/1.1",
        ] {
            assert!(begins_request(head.as_bytes()), "{head}");
        }
        for name in [
            "GET",
            "GET ",
            "PU",
            "get /",
            "Get / HTTP/1.1",
            "A b/c",
            "OPTIONS *",
            "GET http",
            "REPORT FOR 2026",
            " /",
            "GET\t/",
            "ABCDEFGHIJKLMNOPQ /",
            "/put size=1 a",
        ] {
            assert!(!begins_request(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_follows_a_request_of_http_is_read_as_one() {
        let reads = |head: &[u8], after| (GRAMMAR.reads)(head, after);
        assert!(reads(b"x", Some(Dialect::Http)) && reads(b"/put ", Some(Dialect::HttpExpect)));
        assert!(!reads(b"GET /", Some(Dialect::Put)) && !reads(b"", None));
    }
}

//! The grammar of put and ask: a verb, the attributes of the file, and its name.
//!
//! The name is the rest of the line. So it may hold spaces, and needs no quoting, which a shell script would get wrong. The
//! attributes come before it, as in scp's `C0644 size name`. With the size before raw bytes, nothing in them has to be
//! escaped or searched for (SMTP's BDAT, RFC 3030). An unknown attribute is refused and not skipped: a client that asks for
//! a digest to be compared must not get `done` from a server that did not compare it.

use std::num::NonZeroU64;

use super::grammar::{Grammar, Head, Shape};
use super::manners::Dialect;
use super::voice::Voice;
use crate::proto::number::parse_number;
use crate::proto::request::Promise;
use crate::proto::{
    Algorithm, Code, Credential, Digest, Name, NamePolicy, OnExists, Refusal, Request, ResumeId, Rules, Secret,
};

/// A base name cannot begin with `/`, so that one byte tells a request from a name.
pub(super) const GRAMMAR: Grammar = Grammar {
    reads: |head, after| head.starts_with(b"/") && !after.is_some_and(|after| after.speaks_http()),
    may_follow: Ok(()),
    speaks: Dialect::Line,
    cut_off: "the stream ended before the line did; end it with a line feed, or wait for ok after a bare name",
    shape: Shape::Line { ends_with_burst: false, refuse_early },
    read,
};

/// The requests, each up to the byte that tells it from everything else.
const VERBS: [&[u8]; 3] = [b"/put ", b"/ask ", b"/bye\r"];

fn refuse_early(head: &[u8]) -> Option<Refusal> {
    let is_or_becomes_verb = VERBS.iter().any(|verb| verb.starts_with(head) || head.starts_with(verb));
    let words = if !is_or_becomes_verb {
        "a name carries no path; send the base name, or /put size=BYTES NAME"
    } else if head.len() >= Request::MAX_BYTES {
        "a request is at most 4096 bytes"
    } else {
        return None;
    };
    Some(Refusal::new(Code::BAD_REQUEST, words))
}

fn read(head: &[u8], _by_burst: bool, rules: &Rules) -> Head {
    if head == b"/bye" {
        return Head::Bye;
    }
    let bad = |words| Head::Bad(Refusal::new(Code::BAD_REQUEST, words), Dialect::Line.into());
    parse(head, rules.names).unwrap_or_else(bad)
}

/// Reads a `/put` or `/ask` line. An error is a broken grammar: where the content ends is not known.
fn parse(line: &[u8], names: NamePolicy) -> Result<Head, &'static str> {
    let (dialect, mut rest) = match (line.strip_prefix(b"/put "), line.strip_prefix(b"/ask ")) {
        (Some(rest), _) => (Dialect::Put, rest),
        (_, Some(rest)) => (Dialect::Ask, rest),
        _ => return Err("send /put, /ask or /bye"),
    };
    let mut attributes = Attributes::default();
    while let Some((word, after)) = split_attribute(rest)? {
        attributes.set(word)?;
        rest = after;
    }
    // As a name it would be in the log.
    if !rest.starts_with(b"./") && memchr::memmem::find(rest, b" token=").is_some() {
        return Err("token=TOKEN comes before the name; ./ before a name that holds such words");
    }
    let Attributes { size, digest, on_exists, resume, mtime, token } = attributes;
    let size = size.ok_or("size=BYTES is missing (size=- for chunks)")?;
    if on_exists == Some(OnExists::Same) && digest.is_none() {
        return Err("on-exists=same needs crc32c or sha256, to tell what is the same");
    }
    let can_resume = dialect == Dialect::Ask && size.is_some() && digest.is_some();
    if resume.is_some() && !can_resume {
        return Err("resume needs /ask, a size, and crc32c or sha256 (hex or trailer)");
    }
    let mtime = mtime.and_then(NonZeroU64::new);
    let voice = Voice::from(dialect).show(token);
    Ok(match Name::parse(rest.strip_prefix(b"./").unwrap_or(rest), names) {
        Ok(name) => Head::Upload(Request { dialect, name, size, digest, on_exists, resume, mtime }, voice),
        Err(error) => {
            let refusal = Refusal::new(Code::FORBIDDEN, error.to_string());
            Head::BadName { voice, size, digest, refusal }
        }
    })
}

pub(super) fn spell_request(dialect: Dialect, request: &Request, token: Option<&Secret>, out: &mut Vec<u8>) {
    let mut line = String::from(if dialect == Dialect::Ask { "/ask" } else { "/put" });
    let mut attribute = |key: &str, value: &str| line.extend([" ", key, "=", value]);
    attribute("size", &request.size.map_or("-".to_owned(), |size| size.to_string()));
    match request.digest {
        Some(Promise::Known(digest)) => attribute(digest.algorithm().as_str(), &digest.to_hex()),
        Some(Promise::Trailer(algorithm)) => attribute(algorithm.as_str(), "trailer"),
        None => {}
    }
    if let Some(on_exists) = request.on_exists {
        attribute("on-exists", on_exists.as_str());
    }
    if let Some(resume) = &request.resume {
        attribute("resume", resume.told());
    }
    if let Some(mtime) = request.mtime {
        attribute("mtime", &mtime.to_string());
    }
    if let Some(token) = token {
        attribute("token", token.as_str());
    }
    // Without "./" a first word with "=" would be read as an attribute, and a "./" of the name's own be dropped.
    line.extend([" ./", request.name.as_str(), "\n"]);
    out.extend_from_slice(line.as_bytes());
}

pub(super) fn spell_chunk(size: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{size}\n").as_bytes());
}

pub(super) fn spell_trailer(digest: &Digest, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}={}\n", digest.algorithm().as_str(), digest.to_hex()).as_bytes());
}

#[derive(Default)]
struct Attributes {
    size: Option<Option<u64>>,
    digest: Option<Promise>,
    on_exists: Option<OnExists>,
    resume: Option<ResumeId>,
    mtime: Option<u64>,
    token: Option<Credential>,
}

impl Attributes {
    fn set(&mut self, word: &str) -> Result<(), &'static str> {
        let (key, value) = word.split_once('=').expect("an attribute holds =");
        match key {
            "size" => set(&mut self.size, parse_size(value).ok_or("size is 1 to 19 decimal digits, or - for chunks")),
            "crc32c" | "sha256" => {
                let words = "a digest is trailer or hex, 8 digits of crc32c or 64 of sha256";
                set(&mut self.digest, parse_promise(key, value).ok_or(words))
            }
            "on-exists" => {
                let words = "on-exists is refuse, rename, replace or same";
                set(&mut self.on_exists, OnExists::parse(value).ok_or(words))
            }
            "resume" => set(&mut self.resume, ResumeId::parse(value).ok_or("resume is 1 to 64 of A-Za-z0-9._-")),
            "mtime" => set(&mut self.mtime, parse_number(value).ok_or("mtime is seconds since the epoch")),
            "token" => set(&mut self.token, Ok(Credential::of(value.as_bytes()))),
            _ => Err("the keys are size, crc32c, sha256, on-exists, resume, mtime and token; ./ before a name with ="),
        }
    }
}

/// Sets an attribute, once.
fn set<T>(slot: &mut Option<T>, value: Result<T, &'static str>) -> Result<(), &'static str> {
    if slot.is_some() {
        return Err("each attribute is there once, and one digest at most");
    }
    *slot = Some(value?);
    Ok(())
}

/// The first word if it is an attribute, and the rest of the line after it.
fn split_attribute(rest: &[u8]) -> Result<Option<(&str, &[u8])>, &'static str> {
    let end = rest.iter().position(|byte| *byte == b' ');
    let word = &rest[..end.unwrap_or(rest.len())];
    if word.is_empty() && end.is_some() {
        return Err("there is one space between two words");
    }
    if !word.contains(&b'=') || word.starts_with(b"./") {
        return Ok(None);
    }
    let words = "an attribute is key=value, and the name follows it";
    let word = std::str::from_utf8(word).map_err(|_| words)?;
    let end = end.ok_or("the name is missing")?;
    Ok(Some((word, &rest[end + 1..])))
}

fn parse_size(value: &str) -> Option<Option<u64>> {
    if value == "-" { Some(None) } else { parse_number(value).map(Some) }
}

fn parse_promise(key: &str, value: &str) -> Option<Promise> {
    let algorithm = Algorithm::parse(key)?;
    match value {
        "trailer" => Some(Promise::Trailer(algorithm)),
        hex => Digest::parse(algorithm, hex).map(Promise::Known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        match read(line.as_bytes(), false, &Rules::default()) {
            Head::Upload(request, _) => Ok(request),
            Head::Bad(refusal, _) if refusal.code == Code::BAD_REQUEST => Err(refusal.words.into()),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn put(name: &str, size: Option<u64>) -> Request {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        Request { size, ..Request::until_end_of_stream(Dialect::Put, name) }
    }

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let digest = Digest::Crc32c(0xdead_beef);
        let requests = [
            put("a b.txt", Some(0)),
            put("k=v", None),
            Request { dialect: Dialect::Ask, digest: Some(Promise::Known(digest)), ..put("x", Some(7)) },
            Request {
                dialect: Dialect::Ask,
                digest: Some(Promise::Trailer(Algorithm::Sha256)),
                resume: ResumeId::parse("A.b_c-9"),
                ..put("x", Some(7))
            },
            Request { digest: Some(Promise::Trailer(Algorithm::Sha256)), ..put("x", Some(7)) },
            Request {
                on_exists: Some(OnExists::Same),
                digest: Some(Promise::Trailer(Algorithm::Crc32c)),
                ..put("x", None)
            },
            Request { on_exists: Some(OnExists::Replace), mtime: NonZeroU64::new(86_400), ..put("x", Some(7)) },
        ];
        for request in requests {
            let mut line = Vec::new();
            spell_request(request.dialect, &request, None, &mut line);
            let line = String::from_utf8(line).unwrap();
            assert_eq!(parse(line.strip_suffix('\n').unwrap()), Ok(request), "{line}");
        }
    }

    #[test]
    fn names_need_no_quoting() {
        for (line, name) in [
            ("/put size=1 a", "a"),
            ("/put size=1 ./a", "a"),
            ("/put size=1 ./k=v", "k=v"),
            ("/put size=1 a k=v", "a k=v"),
            ("/put size=1 ./a token=b", "a token=b"),
            ("/put size=1 a  b", "a  b"),
        ] {
            assert_eq!(parse(line).map(|request| request.name.to_string()), Ok(name.to_owned()), "{line}");
        }
    }

    #[test]
    fn broken_grammar_is_told_by_what_is_known() {
        for (line, words) in [
            ("/get x", "/put, /ask or /bye"),
            ("/put x", "size=BYTES is missing"),
            ("/put size=1", "name is missing"),
            ("/put crc32c=trailer x", "size=BYTES is missing"),
            ("/put size=x a", "size is"),
            ("/put size=+1 a", "size is"),
            ("/put size=12345678901234567890 a", "size is"),
            ("/put size=1 size=1 a", "once"),
            ("/put size=1  a", "one space"),
            ("/put  size=1 a", "one space"),
            ("/put size=1 colour=red a", "the keys are"),
            ("/put size=1 Size=1 a", "the keys are"),
            ("/put size=1 k=v", "name is missing"),
            ("/put size=1 a token=b", "comes before the name"),
            ("/put size=1 crc32c=xyz a", "a digest is"),
            ("/put size=1 crc32c=trailer sha256=trailer a", "one digest at most"),
            ("/put size=1 on-exists=keep a", "on-exists is"),
            ("/put size=1 mtime=-1 a", "mtime is"),
            ("/put size=1 on-exists=same a", "on-exists=same needs"),
            ("/ask size=1 crc32c=trailer resume= a", "resume is"),
            ("/ask size=1 crc32c=trailer resume=a/b a", "resume is"),
            ("/put size=1 crc32c=trailer resume=x a", "resume needs"),
            ("/ask size=- crc32c=trailer resume=x a", "resume needs"),
            ("/ask size=1 resume=x a", "resume needs"),
        ] {
            match parse(line) {
                Err(said) => assert!(said.contains(words), "{line}: {said}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_bad_name_leaves_the_end_of_the_content_known() {
        for (line, expected) in [
            ("/put size=7 ../x", (Dialect::Put, Some(7), None)),
            ("/ask size=- ", (Dialect::Ask, None, None)),
            ("/put size=1 sha256=trailer .x", (Dialect::Put, Some(1), Some(Promise::Trailer(Algorithm::Sha256)))),
        ] {
            match read(line.as_bytes(), false, &Rules::default()) {
                Head::BadName { voice, size, digest, refusal } => {
                    assert_eq!(
                        (voice.dialect, size, digest, refusal.code),
                        (expected.0, expected.1, expected.2, Code::FORBIDDEN)
                    );
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}

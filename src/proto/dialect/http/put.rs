//! What a PUT says of its file.
//!
//! An unknown condition is refused and not skipped: a client that asks for one must not hear `201` from a server that did
//! not heed it.

use std::num::NonZeroU64;

use super::date;
use super::framing::Framing;
use super::head::{Fields, Parsed, bad};
use super::status;
use crate::proto::digest_field::{self, Told};
use crate::proto::request::Promise;
use crate::proto::{Algorithm, Code, Dialect, Digest, Name, NamePolicy, OnExists, Refusal, Request};

/// The names of the fields that tell a digest (RFC 9530). Without a content coding they tell the same.
const DIGESTS: [&str; 2] = ["Repr-Digest", "Content-Digest"];

/// Reads a PUT of `name`.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn read(parsed: &Parsed, framing: Framing, name: &[u8], names: NamePolicy) -> Result<Request, Refusal> {
    let fields = &parsed.fields;
    refuse_codings(fields)?;
    let size = size(framing)?;
    let dialect = dialect(parsed, framing)?;
    let on_exists = condition(fields)?;
    let digest = promise(fields, framing)?;
    let mtime = mtime(fields)?;
    let name = self::name(name, names)?;
    Ok(Request { dialect, name, size, digest, on_exists, resume: None, mtime })
}

/// The name of a file.
pub(super) fn name(name: &[u8], names: NamePolicy) -> Result<Name, Refusal> {
    Name::parse(name, names).map_err(|error| Refusal::new(Code::FORBIDDEN, error.to_string()))
}

/// The size of the content, unless it is in chunks.
pub(super) fn size(framing: Framing) -> Result<Option<u64>, Refusal> {
    match framing {
        Framing::Sized(size) => Ok(Some(size)),
        Framing::Chunked => Ok(None),
        Framing::Absent => {
            let words = "an upload has a Content-Length or Transfer-Encoding: chunked (curl: -T FILE)";
            Err(Refusal::new(status::LENGTH_REQUIRED, words))
        }
    }
}

pub(super) fn refuse_codings(fields: &Fields) -> Result<(), Refusal> {
    if fields.list("Content-Encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let words = "files are stored as they come, and not decoded: send it without Content-Encoding";
        return Err(Refusal::new(status::UNSUPPORTED_CONTENT, words));
    }
    if fields.one("Content-Range")?.is_some() {
        return Err(bad(
            "a PUT stores a whole file, not a range of one: send it from its beginning (curl: without -C)",
        ));
    }
    // Otherwise the first piece by an early draft of the IETF would be stored as a whole file.
    if fields.one("Upload-Incomplete")? == Some(b"?1") {
        return Err(bad(
            "Upload-Incomplete is of an early draft: send Upload-Complete (interop version 6 or 8), or the whole file",
        ));
    }
    Ok(())
}

/// How a request with this content is answered.
pub(super) fn dialect(parsed: &Parsed, framing: Framing) -> Result<Dialect, Refusal> {
    Ok(if expects(parsed, framing)? { Dialect::HttpExpect } else { Dialect::Http })
}

/// Whether the client waits for `100 Continue` (RFC 9110, 10.1.1). HTTP/1.0 has none, and without content it waits for
/// nothing.
pub(super) fn expects(parsed: &Parsed, framing: Framing) -> Result<bool, Refusal> {
    if parsed.is_1_0 {
        return Ok(false);
    }
    let mut expects = false;
    for expectation in parsed.fields.list("Expect") {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::new(status::EXPECTATION_FAILED, "the only expectation that is met is 100-continue"));
        }
        expects = true;
    }
    Ok(expects && framing.has_content())
}

pub(super) fn condition(fields: &Fields) -> Result<Option<OnExists>, Refusal> {
    for name in ["If-Match", "If-Unmodified-Since"] {
        if fields.one(name)?.is_some() {
            return Err(bad(format!("{name} is not heeded here: files have no versions")));
        }
    }
    match fields.one("If-None-Match")? {
        None => Ok(None),
        Some(b"*") => Ok(Some(OnExists::Refuse)),
        Some(_) => Err(bad("If-None-Match is *: files have no entity tags")),
    }
}

/// The digest that is told before the content, or that one follows it.
fn promise(fields: &Fields, framing: Framing) -> Result<Option<Promise>, Refusal> {
    let [whole, content] = DIGESTS.map(|name| told(fields, name));
    let (whole, content) = (whole?, content?);
    match (whole, content) {
        (Some(Told::Sha256(whole)), Some(Told::Sha256(content))) if whole != content => {
            Err(bad("Repr-Digest and Content-Digest differ"))
        }
        (Some(Told::Sha256(digest)), _) | (_, Some(Told::Sha256(digest))) => Ok(Some(Promise::Known(digest))),
        (None, None) => follows(fields, framing, &DIGESTS),
        _ => follows(fields, framing, &DIGESTS)?.map(Some).ok_or_else(other_algorithm),
    }
}

/// The digest of a whole upload that comes in pieces.
///
/// # Errors
/// What of it cannot be compared. It comes before the content, because that is not the whole file.
pub(super) fn digest_of_upload(fields: &Fields) -> Result<Option<Digest>, Refusal> {
    if fields.lists("Trailer", DIGESTS[0]) {
        return Err(bad(
            "the Repr-Digest of a resumable upload is told when the upload begins, not behind a piece of it",
        ));
    }
    match told(fields, DIGESTS[0])? {
        None => Ok(None),
        Some(Told::Sha256(digest)) => Ok(Some(digest)),
        Some(Told::OnlyOthers) => Err(other_algorithm()),
    }
}

/// The digest of one piece of an upload.
///
/// # Errors
/// What of it cannot be compared.
pub(super) fn digest_of_piece(fields: &Fields, framing: Framing) -> Result<Option<Promise>, Refusal> {
    match told(fields, DIGESTS[1])? {
        None => follows(fields, framing, &DIGESTS[1..]),
        Some(Told::Sha256(digest)) => Ok(Some(Promise::Known(digest))),
        Some(Told::OnlyOthers) => Err(other_algorithm()),
    }
}

fn told(fields: &Fields, name: &str) -> Result<Option<Told>, Refusal> {
    let lines: Vec<&[u8]> = fields.all(name).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let told = digest_field::parse(&lines.join(&b","[..]));
    told.map(Some).ok_or_else(|| bad(format!("{name} is sha-256=:BASE64:, of 32 bytes")))
}

/// Whether one of the digests `names` follows the content.
fn follows(fields: &Fields, framing: Framing, names: &[&str]) -> Result<Option<Promise>, Refusal> {
    if !names.iter().any(|name| fields.lists("Trailer", name)) {
        return Ok(None);
    }
    match framing {
        Framing::Chunked => Ok(Some(Promise::Trailer(Algorithm::Sha256))),
        _ => Err(bad("a digest follows the content in chunks only")),
    }
}

fn other_algorithm() -> Refusal {
    bad("the only digest that is compared is sha-256")
}

pub(super) fn mtime(fields: &Fields) -> Result<Option<NonZeroU64>, Refusal> {
    let words = || bad("Last-Modified is a date of HTTP, not before 1970: Sun, 06 Nov 1994 08:49:37 GMT");
    let Some(date) = fields.text("Last-Modified")? else { return Ok(None) };
    Ok(NonZeroU64::new(date::parse(date).ok_or_else(words)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(fields: &str) -> Result<Request, (u16, String)> {
        let head = format!("PUT /a HTTP/1.1\r\n{fields}\r\n");
        let parsed = Parsed::read(head.as_bytes()).unwrap_or_else(|refusal| panic!("{fields}: {refusal:?}"));
        let framing = Framing::read(&parsed).unwrap();
        read(&parsed, framing, b"a", NamePolicy::default()).map_err(|refusal| (refusal.code.0, refusal.words.into()))
    }

    const SHA: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    const OTHER_SHA: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    #[test]
    fn what_is_said_of_the_file_is_what_the_other_dialects_say() {
        let Some(Told::Sha256(digest)) = digest_field::parse(SHA.as_bytes()) else { panic!("it is one") };
        let name = Name::parse(b"a", NamePolicy::default()).unwrap();
        let plain = Request { size: Some(5), ..Request::until_end_of_stream(Dialect::Http, name) };
        let known = Request { digest: Some(Promise::Known(digest)), ..plain.clone() };
        let follows = Request { size: None, digest: Some(Promise::Trailer(Algorithm::Sha256)), ..plain.clone() };
        for (fields, expected) in [
            ("Content-Length: 5\r\n".into(), plain.clone()),
            ("Transfer-Encoding: chunked\r\n".into(), Request { size: None, ..plain.clone() }),
            (
                "Content-Length: 5\r\nExpect: 100-Continue\r\n".into(),
                Request { dialect: Dialect::HttpExpect, ..plain.clone() },
            ),
            ("Content-Length: 0\r\nExpect: 100-continue\r\n".into(), Request { size: Some(0), ..plain.clone() }),
            (
                "Content-Length: 5\r\nIf-None-Match: *\r\n".into(),
                Request { on_exists: Some(OnExists::Refuse), ..plain.clone() },
            ),
            (
                "Content-Length: 5\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n".into(),
                Request { mtime: NonZeroU64::new(784_111_777), ..plain.clone() },
            ),
            ("Content-Length: 5\r\nContent-Encoding: identity\r\n".into(), plain.clone()),
            (format!("Content-Length: 5\r\nRepr-Digest: {SHA}\r\n"), known.clone()),
            (format!("Content-Length: 5\r\nContent-Digest: md5=:AAAA:\r\nContent-Digest: {SHA}\r\n"), known.clone()),
            (format!("Content-Length: 5\r\nContent-Digest: {SHA}\r\nRepr-Digest: {SHA}\r\n"), known.clone()),
            (format!("Content-Length: 5\r\nContent-Digest: sha-512=:AAAA:\r\nRepr-Digest: {SHA}\r\n"), known),
            ("Transfer-Encoding: chunked\r\nTrailer: x, repr-digest\r\n".into(), follows),
        ] {
            assert_eq!(put(&fields), Ok(expected), "{fields}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_and_not_skipped() {
        let sized = |fields: &str| format!("Content-Length: 5\r\n{fields}\r\n");
        for (fields, code, words) in [
            (String::new(), 411, "-T FILE"),
            (sized("Content-Encoding: gzip"), 415, "Content-Encoding"),
            (sized("Content-Encoding: identity, br"), 415, "Content-Encoding"),
            (sized("Content-Range: bytes 500-999/1000"), 400, "-C"),
            (sized("Upload-Incomplete: ?1"), 400, "Upload-Complete"),
            (sized("Expect: 200-ok"), 417, "100-continue"),
            (sized("Expect: 100-continue, x"), 417, "100-continue"),
            (sized("If-Match: *"), 400, "If-Match"),
            (sized("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"), 400, "If-Unmodified-Since"),
            (sized("If-None-Match: \"a\""), 400, "If-None-Match"),
            (sized("Repr-Digest: sha-512=:AAAA:"), 400, "only digest"),
            (sized("Repr-Digest: sha-256=AAAA"), 400, "BASE64"),
            (sized("Repr-Digest: sha-256=:AAAA:"), 400, "32 bytes"),
            (sized(&format!("Repr-Digest: {SHA}\r\nContent-Digest: {OTHER_SHA}")), 400, "differ"),
            (sized("Trailer: Repr-Digest"), 400, "chunks only"),
            (sized("Last-Modified: yesterday"), 400, "Last-Modified"),
            (sized("Last-Modified: Sun, 06 Nov 1904 08:49:37 GMT"), 400, "1970"),
        ] {
            let (said, why) = put(&fields).expect_err(&fields);
            assert!(said == code && why.contains(words), "{fields}: {said} {why}");
        }
    }

    #[test]
    fn http_1_0_waits_for_nothing() {
        let head = b"PUT /a HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        let Ok(parsed) = Parsed::read(head) else { panic!("the head is fine") };
        assert_eq!(expects(&parsed, Framing::Sized(5)), Ok(false));
    }
}

//! tus 1.0.0 (tus.io/protocols/resumable-upload): the grammar of its requests.
//!
//! Of its extensions there are creation, creation-with-upload, creation-defer-length, checksum, expiration and termination.
//! Concatenation is not: it makes one file of several uploads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answer::TUS_VERSION;
use super::framing::Framing;
use super::head::{Fields, Parsed, bad};
use super::{metadata, put, status};
use crate::proto::number::parse_number;
use crate::proto::request::Promise;
use crate::proto::{Append, Code, Creation, Digest, NamePolicy, Refusal, Request, ResumeId};

/// The type of a piece.
const PIECE: &[u8] = b"application/offset+octet-stream";

/// The method of a request for an upload. A client whose network lets only GET and POST pass names it in a field.
///
/// # Errors
/// The field is there twice, or is not ASCII.
pub(super) fn method<'h>(parsed: &Parsed<'h>) -> Result<&'h str, Refusal> {
    match parsed.method {
        "POST" => Ok(parsed.fields.text("X-HTTP-Method-Override")?.unwrap_or("POST")),
        method => Ok(method),
    }
}

/// Whether a request is one of tus.
pub(super) fn is_spoken(fields: &Fields) -> bool {
    fields.all("Tus-Resumable").next().is_some()
}

/// # Errors
/// 412 unless the client speaks our version.
pub(super) fn check_version(fields: &Fields) -> Result<(), Refusal> {
    match fields.one("Tus-Resumable")? {
        Some(version) if version == TUS_VERSION.as_bytes() => Ok(()),
        _ => Err(Refusal::new(Code::PRECONDITION, "the only version of tus that is spoken here is 1.0.0")),
    }
}

/// Reads a request to begin an upload.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn create(
    parsed: &Parsed,
    framing: Framing,
    names: NamePolicy,
) -> Result<(Creation, Option<Promise>), Refusal> {
    let fields = &parsed.fields;
    if framing.has_content() {
        check_type(fields)?;
    }
    if fields.one("Upload-Concat")?.is_some() {
        return Err(bad("uploads are not concatenated here: send the file as one upload"));
    }
    let size = number(fields, "Upload-Length")?;
    let is_deferred = match fields.one("Upload-Defer-Length")? {
        None => false,
        Some(b"1") => true,
        Some(_) => return Err(bad("Upload-Defer-Length is 1")),
    };
    if size.is_some() == is_deferred {
        return Err(bad("an upload begins with its Upload-Length, or else with Upload-Defer-Length: 1"));
    }
    if size.zip(framing.length()).is_some_and(|(size, length)| length > size) {
        return Err(Refusal::new(Code::TOO_LARGE, "there is more content than Upload-Length says"));
    }
    let note = fields.text("Upload-Metadata")?.unwrap_or_default();
    let words = "Upload-Metadata has no filename: filename BASE64 says how the file is called";
    let file_name = metadata::file_name(note)?.ok_or_else(|| bad(words))?;
    let request = Request {
        size,
        digest: put::digest_of_upload(fields)?.map(Promise::Known),
        on_exists: put::condition(fields)?,
        mtime: put::mtime(fields)?,
        ..Request::until_end_of_stream(put::dialect(parsed, framing)?, put::name(&file_name, names)?)
    };
    let creation = Creation { request, note: note.into(), is_announced: false, is_last: false, owner: None };
    Ok((creation, checksum(fields, framing)?))
}

/// Reads a request to continue the upload `id`.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn append(parsed: &Parsed, framing: Framing, id: ResumeId) -> Result<(Append, Option<Promise>), Refusal> {
    let fields = &parsed.fields;
    check_type(fields)?;
    if framing == Framing::Absent {
        let words = "a PATCH has a Content-Length or Transfer-Encoding: chunked";
        return Err(Refusal::new(status::LENGTH_REQUIRED, words));
    }
    let offset = number(fields, "Upload-Offset")?.ok_or_else(|| bad("a PATCH says its Upload-Offset"))?;
    let size = number(fields, "Upload-Length")?;
    let digest = put::digest_of_upload(fields)?;
    let append = Append { id, offset, length: framing.length(), size, digest, is_last: false };
    Ok((append, checksum(fields, framing)?))
}

fn number(fields: &Fields, name: &'static str) -> Result<Option<u64>, Refusal> {
    let Some(value) = fields.text(name)? else { return Ok(None) };
    parse_number(value).map(Some).ok_or_else(|| bad(format!("{name} is 1 to 19 decimal digits")))
}

fn check_type(fields: &Fields) -> Result<(), Refusal> {
    put::refuse_codings(fields)?;
    match fields.one("Content-Type")? {
        Some(kind) if kind.eq_ignore_ascii_case(PIECE) => Ok(()),
        _ => {
            let words = "a piece of an upload has Content-Type: application/offset+octet-stream";
            Err(Refusal::new(status::UNSUPPORTED_CONTENT, words))
        }
    }
}

/// The checksum of the piece.
fn checksum(fields: &Fields, framing: Framing) -> Result<Option<Promise>, Refusal> {
    let digest = put::digest_of_piece(fields, framing)?;
    let Some(value) = fields.text("Upload-Checksum")? else { return Ok(digest) };
    if digest.is_some() {
        return Err(bad("a piece of an upload has an Upload-Checksum or a Content-Digest, not both"));
    }
    let words = || bad("Upload-Checksum is sha256 and the checksum in base64; no other algorithm is compared");
    let (algorithm, base64) = value.split_once(' ').ok_or_else(words)?;
    let sum = STANDARD.decode(base64).ok().filter(|_| algorithm == "sha256").ok_or_else(words)?;
    Ok(Some(Promise::Known(Digest::Sha256(sum.try_into().map_err(|_| words())?))))
}

//! tus 1.0.0 (tus.io/protocols/resumable-upload): the grammar of its requests.
//!
//! Of its extensions there are creation, creation-with-upload, creation-defer-length, checksum, expiration and termination.
//! Concatenation is not: it makes one file of several uploads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answer::TUS_VERSION;
use super::framing::Framing;
use super::head::{Fields, Parsed, bad};
use super::{put, status};
use crate::proto::number::parse_number;
use crate::proto::request::Promise;
use crate::proto::{Append, Code, Creation, Digest, NamePolicy, Refusal, Request, ResumeId};

/// The type of a piece.
const PIECE: &[u8] = b"application/offset+octet-stream";
/// The longest Upload-Metadata, in bytes: a name of 255 bytes takes 340, programs add a type and a path.
const METADATA_MAX_BYTES: usize = 4096;

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

/// # Errors
/// 412 unless the client speaks our version.
pub(super) fn check_version(fields: &Fields) -> Result<(), Refusal> {
    match fields.one("Tus-Resumable")? {
        Some(version) if version == TUS_VERSION.as_bytes() => Ok(()),
        Some(_) => Err(Refusal::new(Code::PRECONDITION, "the only version of tus that is spoken here is 1.0.0")),
        None => {
            let words = "a request for a resumable upload says Tus-Resumable: 1.0.0";
            Err(Refusal::new(Code::PRECONDITION, words))
        }
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
    let file_name = file_name(note)?;
    let (on_exists, mtime, checksum) = (put::condition(fields)?, put::mtime(fields)?, checksum(fields)?);
    let dialect = put::dialect(parsed, framing)?;
    let request =
        Request { on_exists, mtime, size, ..Request::until_end_of_stream(dialect, put::name(&file_name, names)?) };
    Ok((Creation { request, note: note.into() }, checksum))
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
    Ok((Append { id, offset, length: framing.length(), size }, checksum(fields)?))
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

/// The name of the file, from metadata: `KEY BASE64,KEY BASE64`. Clients call it `filename`, some `name`.
fn file_name(metadata: &str) -> Result<Vec<u8>, Refusal> {
    let words = || bad("Upload-Metadata is KEY BASE64,KEY BASE64, of at most 4096 bytes");
    if metadata.len() > METADATA_MAX_BYTES || metadata.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(words());
    }
    let mut found: [Option<Vec<u8>>; 2] = [None, None];
    for pair in metadata.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = STANDARD.decode(value.trim()).map_err(|_| words())?;
        if let Some(index) = ["filename", "name"].iter().position(|known| *known == key)
            && found[index].replace(value).is_some()
        {
            return Err(words());
        }
    }
    let [file_name, name] = found;
    file_name
        .or(name)
        .ok_or_else(|| bad("Upload-Metadata has no filename: filename BASE64 says how the file is called"))
}

/// The checksum of the piece.
fn checksum(fields: &Fields) -> Result<Option<Promise>, Refusal> {
    if fields.one("Repr-Digest")?.is_some() || fields.one("Content-Digest")?.is_some() {
        return Err(bad("a piece of an upload is compared with its Upload-Checksum, and with no other digest"));
    }
    let Some(value) = fields.text("Upload-Checksum")? else { return Ok(None) };
    let words = || bad("Upload-Checksum is sha256 and the checksum in base64; no other algorithm is compared");
    let (algorithm, base64) = value.split_once(' ').ok_or_else(words)?;
    let sum = STANDARD.decode(base64).ok().filter(|_| algorithm == "sha256").ok_or_else(words)?;
    Ok(Some(Promise::Known(Digest::Sha256(sum.try_into().map_err(|_| words())?))))
}

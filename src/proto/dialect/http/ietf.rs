//! Resumable uploads by the draft of the IETF (draft-ietf-httpbis-resumable-upload): its requests and its answers.
//!
//! A client says the version of the draft that it speaks. Versions 6 (drafts -04 and -05) and 8 (since -09) are spoken here.
//! A client of another version, or of none, gets the same answers, but no `104`: the draft forbids that.
//!
//! The name of the file is the target of a PUT. A POST tells it in `Content-Disposition`, as the draft says, or in
//! `Upload-Metadata`, as tus-js-client does.

use std::fmt::Write;

use super::answer::Answer;
use super::asked::{Draft, Interop, Resumable, Verb};
use super::framing::Framing;
use super::head::{Fields, Parsed, bad};
use super::parameters::Parameters;
use super::target::{UPLOADS, decode};
use super::{metadata, put, status};
use crate::proto::request::Promise;
use crate::proto::{Append, Code, Creation, Denial, Refusal, Request, ResumeId, Rules, Standing};

/// The type of a piece.
const PIECE: &[u8] = b"application/partial-upload";

impl Interop {
    fn as_str(self) -> &'static str {
        match self {
            Self::Six => "6",
            Self::Eight => "8",
        }
    }
}

impl Draft {
    /// What the answers to this request tell.
    ///
    /// # Errors
    /// The version is there twice.
    pub(super) fn of(fields: &Fields, rules: &Rules) -> Result<Self, Refusal> {
        let version = match fields.one("Upload-Draft-Interop-Version")?.map(item) {
            Some(b"6") => Some(Interop::Six),
            Some(b"8") => Some(Interop::Eight),
            _ => None,
        };
        Ok(Self { version, max_size: rules.max_file_size, ttl_seconds: rules.upload_ttl_seconds })
    }

    /// `Upload-Limit`, of an upload that is kept for so many seconds.
    pub(super) fn limit(self, seconds: u64) -> String {
        let age = if self.version == Some(Interop::Six) { "expires" } else { "max-age" };
        let size = self.max_size.map(|size| format!("max-size={size}"));
        let age = (seconds > 0).then(|| format!("{age}={seconds}"));
        match (size, age) {
            (Some(size), Some(age)) => format!("{size}, {age}"),
            (size, age) => size.or(age).unwrap_or_else(|| "min-size=0".to_owned()),
        }
    }
}

/// A structured field of one item (RFC 9651), without its parameters.
fn item(value: &[u8]) -> &[u8] {
    Parameters::after(value).0
}

/// `Upload-Complete`. `None`: it is not there, or is no boolean, which counts as the same.
///
/// # Errors
/// It is there twice.
pub(super) fn complete(fields: &Fields) -> Result<Option<bool>, Refusal> {
    Ok(match fields.one("Upload-Complete")?.map(item) {
        Some(b"?1") => Some(true),
        Some(b"?0") => Some(false),
        _ => None,
    })
}

/// A number of bytes. `None`: it is not there, or is no integer of a structured field, which counts as the same.
fn bytes(fields: &Fields, name: &'static str) -> Result<Option<u64>, Refusal> {
    let Some(value) = fields.one(name)?.map(item) else { return Ok(None) };
    let is_integer = (1..=15).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    Ok(std::str::from_utf8(value).ok().filter(|_| is_integer).and_then(|digits| digits.parse().ok()))
}

/// The size of the whole upload, which there are two ways to tell.
fn size(fields: &Fields, rest: Option<u64>) -> Result<Option<u64>, Denial> {
    match (bytes(fields, "Upload-Length")?, rest) {
        (Some(told), Some(rest)) if told != rest => {
            Err(Denial::inconsistent_length("Upload-Length is not what the end of the content makes it"))
        }
        (told, rest) => Ok(told.or(rest)),
    }
}

/// Reads a request to begin an upload. `name`: of the file, if the target has one.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn create(
    parsed: &Parsed,
    framing: Framing,
    name: Option<&[u8]>,
    draft: Draft,
    rules: &Rules,
) -> Result<(Creation, Option<Promise>), Denial> {
    let fields = &parsed.fields;
    put::refuse_codings(fields)?;
    let is_last = complete(fields)?.unwrap_or(false);
    let length = if is_last { put::size(framing)? } else { framing.length() };
    if bytes(fields, "Upload-Offset")?.is_some() {
        return Err(bad("an upload begins at its first byte: it has no Upload-Offset yet").into());
    }
    let size = size(fields, length.filter(|_| is_last))?;
    if size.zip(length).is_some_and(|(size, length)| length > size) {
        return Err(Denial::more_than_its_size());
    }
    let note = fields.text("Upload-Metadata")?.unwrap_or_default();
    let name = match name {
        Some(name) => put::name(name, rules.names)?,
        None => put::name(&file_name(fields, note)?, rules.names)?,
    };
    let request = Request {
        size,
        digest: put::digest_of_upload(fields)?.map(Promise::Known),
        on_exists: put::condition(fields)?,
        mtime: put::mtime(fields)?,
        ..Request::until_end_of_stream(put::dialect(parsed, framing)?, name)
    };
    let is_announced = draft.version.is_some() && !parsed.is_1_0;
    Ok((
        Creation { request, note: note.into(), is_announced, is_last, owner: None },
        put::digest_of_piece(fields, framing)?,
    ))
}

/// Reads a request to continue the upload `id`.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn append(parsed: &Parsed, framing: Framing, id: ResumeId) -> Result<(Append, Option<Promise>), Denial> {
    let fields = &parsed.fields;
    put::refuse_codings(fields)?;
    if !fields.one("Content-Type")?.is_some_and(|kind| item(kind).eq_ignore_ascii_case(PIECE)) {
        let words = "a piece of an upload has Content-Type: application/partial-upload";
        return Err(Refusal::new(status::UNSUPPORTED_CONTENT, words).into());
    }
    let is_last = complete(fields)?.unwrap_or(false);
    let offset = bytes(fields, "Upload-Offset")?.ok_or_else(|| bad("a PATCH says its Upload-Offset"))?;
    let length = framing.length();
    let size = size(fields, length.filter(|_| is_last).map(|length| length.saturating_add(offset)))?;
    let digest = put::digest_of_upload(fields)?;
    Ok((Append { id, offset, length, size, digest, is_last }, put::digest_of_piece(fields, framing)?))
}

/// Version 6 forbids the state of the upload in requests that ask for it or remove it.
///
/// # Errors
/// One of its fields is there.
pub(super) fn check_plain(fields: &Fields, draft: Draft) -> Result<(), Refusal> {
    let has = |name: &&str| fields.all(name).next().is_some();
    match ["Upload-Offset", "Upload-Complete", "Upload-Length"].iter().find(|name| has(name)) {
        Some(name) if draft.version == Some(Interop::Six) => Err(bad(format!("this request has no {name}"))),
        _ => Ok(()),
    }
}

/// The name of the file that a POST begins.
fn file_name(fields: &Fields, note: &str) -> Result<Vec<u8>, Refusal> {
    if let Some(value) = fields.one("Content-Disposition")? {
        let (_, parameters) = Parameters::after(value);
        if let Some(name) = parameters.find(b"filename*")? {
            return extended(&name).ok_or_else(|| bad("filename* is UTF-8''NAME, with % and two hex digits"));
        }
        if let Some(name) = parameters.find(b"filename")? {
            return Ok(name);
        }
    }
    let words = "a POST says the name of its file: Content-Disposition: attachment; filename=\"NAME\"; or PUT /NAME";
    metadata::file_name(note)?.ok_or_else(|| bad(words))
}

/// The value of `filename*` (RFC 8187, 3.2).
fn extended(value: &[u8]) -> Option<Vec<u8>> {
    let (charset, rest) = value.split_at(memchr::memchr(b'\'', value)?);
    let (_, name) = rest[1..].split_at(memchr::memchr(b'\'', &rest[1..])?);
    let name = decode(&name[1..])?;
    charset.eq_ignore_ascii_case(b"UTF-8").then(|| name.into_owned())
}

/// Appends the interim answer that tells a client where its upload is.
pub(super) fn announce(id: &ResumeId, draft: Draft, out: &mut Vec<u8>) {
    let Some(version) = draft.version else { return };
    let mut text = String::from("HTTP/1.1 104 Upload Resumption Supported\r\n");
    let (version, id, limit) = (version.as_str(), id.told(), draft.limit(draft.ttl_seconds));
    write!(text, "Upload-Draft-Interop-Version: {version}\r\nLocation: {UPLOADS}{id}\r\nUpload-Limit: {limit}\r\n\r\n")
        .expect("writing to a String cannot fail");
    out.extend_from_slice(text.as_bytes());
}

/// The answer to a request that has not made its upload whole, or asks about one. `now`: in seconds since the epoch.
pub(super) fn told(resumable: &Resumable, draft: Draft, standing: &Standing, now: u64) -> Answer {
    let status = match resumable.verb {
        Verb::Create => Code(201),
        // Version 6: "MUST acknowledge it by responding with the 201 (Created) status code".
        Verb::Append if draft.version == Some(Interop::Six) => Code(201),
        Verb::Append | Verb::Ask | Verb::Remove => Code(204),
    };
    let answer = Answer::new(status);
    let answer = match &resumable.id {
        Some(id) if resumable.verb == Verb::Create => answer.field("Location", format_args!("{UPLOADS}{}", id.told())),
        _ => answer,
    };
    let answer = state(answer, standing.offset, standing.stored.is_some());
    let answer = match standing.size {
        Some(size) if resumable.verb == Verb::Ask => answer.field("Upload-Length", size),
        _ => answer,
    };
    let left = standing.expires.map_or(0, |at| at.saturating_sub(now));
    answer.field("Upload-Limit", draft.limit(left))
}

/// Adds offset and completeness.
pub(super) fn state(answer: Answer, offset: u64, is_complete: bool) -> Answer {
    answer.field("Upload-Complete", if is_complete { "?1" } else { "?0" }).field("Upload-Offset", offset)
}

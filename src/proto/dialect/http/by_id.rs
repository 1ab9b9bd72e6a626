//! Resumable uploads: which requests are about one, and how they are answered.
//!
//! `/.intake/uploads/ID` is an upload that has begun. No file has such a name, as none begins with a dot. A client speaks tus
//! ([`super::tus`]) if it says so, else the draft of the IETF ([`super::ietf`]); both are about the same uploads.

use super::answer::{Answer, Saying, created};
use super::asked::{Asked, Draft, Interop, Protocol, Resumable, Verb};
use super::date;
use super::framing::Framing;
use super::head::Parsed;
use super::target::{UPLOADS, encode};
use super::{ietf, put, tus};
use crate::proto::dialect::grammar::Head;
use crate::proto::dialect::manners::Dialect;
use crate::proto::dialect::voice::Voice;
use crate::proto::request::Promise;
use crate::proto::{ById, Code, Denial, Receipt, Refusal, ResumeId, Rules, Standing, digest_field};

/// The methods that an upload takes.
pub(super) const ALLOWED: &str = "HEAD, PATCH, DELETE, OPTIONS";

/// A request about the upload `id`. `None`: no upload has such an id. Returns `None` for a method that no upload takes.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn follow(
    parsed: &Parsed,
    framing: Framing,
    id: Option<ResumeId>,
    rules: &Rules,
    asked: &mut Asked,
) -> Result<Option<Head>, Refusal> {
    let protocol = speak(parsed, Verb::Ask, rules, asked)?;
    let verb = match tus::method(parsed)? {
        "HEAD" => Verb::Ask,
        "PATCH" => Verb::Append,
        "DELETE" => Verb::Remove,
        _ => return Ok(None),
    };
    let resumable = asked.resumable.insert(Resumable::new(verb, protocol));
    if protocol == Protocol::Tus {
        tus::check_version(&parsed.fields)?;
    }
    let id = id.ok_or_else(|| Denial::unknown().refusal)?;
    resumable.id = Some(id.clone());
    if let (Protocol::Ietf(draft), Verb::Ask | Verb::Remove) = (protocol, verb) {
        ietf::check_plain(&parsed.fields, draft)?;
    }
    match verb {
        Verb::Append => {
            let read = match protocol {
                Protocol::Tus => tus::append(parsed, framing, id).map_err(Denial::from),
                Protocol::Ietf(_) => ietf::append(parsed, framing, id),
            };
            let (append, checksum) = read.map_err(|denial| asked.note(denial))?;
            let dialect = put::dialect(parsed, framing)?;
            Ok(Some(piece(ById::Append(Box::new(append)), checksum, dialect, framing, asked)))
        }
        Verb::Remove => Ok(Some(without_piece(ById::Remove(id), framing, asked))),
        Verb::Ask | Verb::Create => Ok(Some(without_piece(ById::Ask(id), framing, asked))),
    }
}

/// A request to begin an upload. `name`: of the file, if the target has one.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn create(
    parsed: &Parsed,
    framing: Framing,
    name: Option<&[u8]>,
    rules: &Rules,
    asked: &mut Asked,
) -> Result<Head, Refusal> {
    let protocol = speak(parsed, Verb::Create, rules, asked)?;
    asked.must_be_new = parsed.fields.one("If-None-Match")?.is_some();
    let read = match protocol {
        Protocol::Tus => {
            tus::check_version(&parsed.fields)?;
            tus::create(parsed, framing, rules.names).map_err(Denial::from)
        }
        Protocol::Ietf(draft) => ietf::create(parsed, framing, name, draft, rules),
    };
    let (creation, checksum) = read.map_err(|denial| asked.note(denial))?;
    let dialect = creation.request.dialect;
    Ok(piece(ById::Create(Box::new(creation)), checksum, dialect, framing, asked))
}

/// Whether a request begins an upload: a POST, or a PUT of a file.
///
/// A form that would be upgraded to a resumable upload is taken as a form: its files are what is stored.
///
/// # Errors
/// A field is there twice.
pub(super) fn is_creation(parsed: &Parsed) -> Result<bool, Refusal> {
    let fields = &parsed.fields;
    if parsed.method == "POST" && tus::is_spoken(fields) {
        return Ok(true);
    }
    let is_form = || fields.one("Content-Type").is_ok_and(|kind| kind.is_some_and(is_multipart));
    Ok(match ietf::complete(fields)? {
        Some(true) => parsed.method == "PUT" || !is_form(),
        Some(false) => true,
        None => false,
    })
}

fn is_multipart(kind: &[u8]) -> bool {
    kind.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"))
}

/// Finds out what the client speaks, and notes it for the answer.
fn speak(parsed: &Parsed, verb: Verb, rules: &Rules, asked: &mut Asked) -> Result<Protocol, Refusal> {
    let protocol = match tus::is_spoken(&parsed.fields) {
        true => Protocol::Tus,
        false => Protocol::Ietf(Draft::of(&parsed.fields, rules)?),
    };
    asked.resumable = Some(Resumable::new(verb, protocol));
    Ok(protocol)
}

/// With a piece, which may be empty.
fn piece(what: ById, checksum: Option<Promise>, dialect: Dialect, framing: Framing, asked: &mut Asked) -> Head {
    Head::ById { what, size: framing.length(), checksum, voice: Voice::http(dialect, std::mem::take(asked)) }
}

/// Content that nobody wants is not looked at, so that no request follows it.
fn without_piece(what: ById, framing: Framing, asked: &mut Asked) -> Head {
    asked.is_last |= framing.has_content();
    let voice = Voice::http(Dialect::Http, std::mem::take(asked));
    Head::ById { what, size: Some(0), checksum: None, voice }
}

/// Appends to `out` what tells the client of its upload before the answer, if it has to be told.
pub(in crate::proto) fn announce(asked: &Asked, out: &mut Vec<u8>) {
    if let Some(Resumable { verb: Verb::Create, protocol: Protocol::Ietf(draft), id: Some(id), .. }) = &asked.resumable
        && !asked.is_1_0
    {
        ietf::announce(id, *draft, out);
    }
}

/// Appends what the server has of an upload to `out`.
pub(in crate::proto) fn spell(standing: &Standing, asked: &Asked, saying: Saying, out: &mut Vec<u8>) {
    let Some(resumable) = &asked.resumable else { return };
    let answer = match (resumable.protocol, resumable.verb, &standing.stored) {
        (_, Verb::Remove, _) => Answer::new(Code(204)),
        (_, Verb::Create | Verb::Append, Some(receipt)) => return spell_stored(receipt, asked, saying, out),
        (Protocol::Tus, ..) => told(resumable, standing),
        (Protocol::Ietf(draft), ..) => ietf::told(resumable, draft, standing, saying.now),
    };
    let answer = match &standing.stored {
        Some(receipt) => at(answer, receipt),
        None => answer,
    };
    answer.spell(asked, saying, out);
}

/// Appends the answer to the request that has made an upload whole to `out`.
pub(in crate::proto) fn spell_stored(receipt: &Receipt, asked: &Asked, saying: Saying, out: &mut Vec<u8>) {
    let Some(resumable) = &asked.resumable else { return };
    let answer = match (resumable.protocol, resumable.verb) {
        (_, Verb::Ask | Verb::Remove) => return spell(&Standing::stored(receipt.clone()), asked, saying, out),
        (Protocol::Tus, Verb::Create) => at(offset(located(Answer::new(Code(201)), resumable), receipt.size), receipt),
        (Protocol::Tus, Verb::Append) => at(offset(Answer::new(Code(204)), receipt.size), receipt),
        // Version 6: the Location of a creation is the upload's.
        (Protocol::Ietf(Draft { version: Some(Interop::Six), .. }), Verb::Create) => {
            at(ietf::state(located(Answer::new(Code(201)), resumable), receipt.size, true), receipt)
        }
        // As if the file had come in one request.
        (Protocol::Ietf(_), Verb::Create | Verb::Append) => ietf::state(created(receipt), receipt.size, true),
    };
    answer.spell(asked, saying, out);
}

fn offset(answer: Answer, offset: u64) -> Answer {
    answer.field("Upload-Offset", offset)
}

fn located(answer: Answer, resumable: &Resumable) -> Answer {
    match &resumable.id {
        Some(id) => answer.field("Location", format_args!("{UPLOADS}{}", id.told())),
        None => answer,
    }
}

/// Where the file is stored, and its digest.
fn at(answer: Answer, receipt: &Receipt) -> Answer {
    let answer = answer.field("Content-Location", format_args!("/{}", encode(&receipt.stored_name)));
    match receipt.digest.as_ref().and_then(digest_field::spell) {
        Some(digest) => answer.field("Repr-Digest", digest),
        None => answer,
    }
}

/// The answer of tus to a request that has not made its upload whole, or asks about one.
fn told(resumable: &Resumable, standing: &Standing) -> Answer {
    let answer = match resumable.verb {
        Verb::Create => located(Answer::new(Code(201)), resumable),
        Verb::Ask => asked_for(Answer::new(Code(200)), standing),
        Verb::Append | Verb::Remove => Answer::new(Code(204)),
    };
    let answer = offset(answer, standing.offset);
    match standing.expires {
        Some(at) => answer.field("Upload-Expires", date::spell(at)),
        None => answer,
    }
}

/// What the client wants to hear again.
fn asked_for(answer: Answer, standing: &Standing) -> Answer {
    let answer = match standing.size {
        Some(size) => answer.field("Upload-Length", size),
        None => answer.field("Upload-Defer-Length", 1),
    };
    if standing.note.is_empty() { answer } else { answer.field("Upload-Metadata", &standing.note) }
}

//! Resumable uploads: which requests are about one, and how they are answered.
//!
//! `/.intake/uploads/ID` is an upload that has begun. No file has such a name, as none begins with a dot. The grammar of the
//! requests is in [`super::tus`].

use super::answer::{Answer, Saying};
use super::asked::{Asked, Resumable, Verb};
use super::date;
use super::framing::Framing;
use super::head::{Fields, Parsed};
use super::target::{UPLOADS, encode};
use super::{put, tus};
use crate::proto::dialect::grammar::Head;
use crate::proto::dialect::manners::Dialect;
use crate::proto::dialect::voice::Voice;
use crate::proto::request::Promise;
use crate::proto::{ById, Code, Denial, Receipt, Refusal, ResumeId, Rules, Standing};

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
    asked: &mut Asked,
) -> Result<Option<Head>, Refusal> {
    asked.resumable = Some(Verb::Ask.into());
    let verb = match tus::method(parsed)? {
        "HEAD" => Verb::Ask,
        "PATCH" => Verb::Append,
        "DELETE" => Verb::Remove,
        _ => return Ok(None),
    };
    asked.resumable = Some(verb.into());
    tus::check_version(&parsed.fields)?;
    let id = id.ok_or_else(|| Denial::unknown().refusal)?;
    match verb {
        Verb::Append => {
            let (append, checksum) = tus::append(parsed, framing, id)?;
            let dialect = put::dialect(parsed, framing)?;
            Ok(Some(piece(ById::Append(Box::new(append)), checksum, dialect, framing, asked)))
        }
        Verb::Remove => Ok(Some(without_piece(ById::Remove(id), framing, asked))),
        Verb::Ask | Verb::Create => Ok(Some(without_piece(ById::Ask(id), framing, asked))),
    }
}

/// A request to begin an upload.
///
/// # Errors
/// What of it cannot be followed.
pub(super) fn create(parsed: &Parsed, framing: Framing, rules: &Rules, asked: &mut Asked) -> Result<Head, Refusal> {
    asked.resumable = Some(Verb::Create.into());
    asked.must_be_new = parsed.fields.one("If-None-Match")?.is_some();
    tus::check_version(&parsed.fields)?;
    let (creation, checksum) = tus::create(parsed, framing, rules.names)?;
    let dialect = creation.request.dialect;
    Ok(piece(ById::Create(Box::new(creation)), checksum, dialect, framing, asked))
}

/// Whether a request begins an upload.
pub(super) fn is_creation(fields: &Fields) -> bool {
    fields.all("Tus-Resumable").next().is_some()
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

/// Appends what the server has of an upload to `out`.
pub(in crate::proto) fn spell(standing: &Standing, asked: &Asked, saying: Saying, out: &mut Vec<u8>) {
    let verb = asked.resumable.as_ref().map_or(Verb::Ask, |resumable| resumable.verb);
    let answer = match verb {
        Verb::Create => created(&standing.id),
        Verb::Ask => told(Answer::new(Code(200)), standing),
        Verb::Append => Answer::new(Code(204)),
        Verb::Remove => return Answer::new(Code(204)).spell(asked, saying, out),
    };
    let answer = answer.field("Upload-Offset", standing.offset);
    let answer = match (&standing.stored, standing.expires) {
        (Some(name), _) => at(answer, name.as_str()),
        (None, Some(at)) => answer.field("Upload-Expires", date::spell(at)),
        (None, None) => answer,
    };
    answer.spell(asked, saying, out);
}

/// Appends the answer to the request that has made an upload whole to `out`.
pub(in crate::proto) fn spell_stored(receipt: &Receipt, asked: &Asked, saying: Saying, out: &mut Vec<u8>) {
    let answer = match &asked.resumable {
        Some(Resumable { verb: Verb::Create, id: Some(id), .. }) => created(id),
        _ => Answer::new(Code(204)),
    };
    at(answer.field("Upload-Offset", receipt.size), &receipt.stored_name).spell(asked, saying, out);
}

fn created(id: &ResumeId) -> Answer {
    Answer::new(Code(201)).field("Location", format_args!("{UPLOADS}{}", id.as_str()))
}

/// Where the file is stored.
fn at(answer: Answer, name: &str) -> Answer {
    answer.field("Content-Location", format_args!("/{}", encode(name)))
}

/// What the client wants to hear again.
fn told(answer: Answer, standing: &Standing) -> Answer {
    let answer = match standing.size {
        Some(size) => answer.field("Upload-Length", size),
        None => answer.field("Upload-Defer-Length", 1),
    };
    if standing.note.is_empty() { answer } else { answer.field("Upload-Metadata", &standing.note) }
}

//! What a client asks for, and how `/put` and `/ask` spell it.
//!
//! The name is the rest of the line, so that it may hold spaces and needs no quoting, which a shell script would get
//! wrong; what is said of it stands in front, as in scp's `C0644 size name`. A size in front of raw bytes means that
//! nothing in them has to be escaped, looked for or counted (SMTP's BDAT, RFC 3030). An attribute that is not known is
//! refused and not skipped: whoever asks for a digest to be compared must not hear `done` from a server that did not
//! compare it.
//!
//! Knows the grammar of one line. What is allowed now, and what follows, is the conversation's.

use std::fmt;
use std::num::NonZeroU64;

use super::number::parse_number;
use super::{Algorithm, Code, Dialect, Digest, Name, NameError, NamePolicy, OnExists, Refusal};

/// A file that a client wants to hand over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How it was asked for.
    pub dialect: Dialect,
    /// What the file is to be called.
    pub name: Name,
    /// Its size in bytes, where that is known before.
    pub size: Option<u64>,
    /// The digest that its content must have.
    pub digest: Option<Promise>,
    /// What to do when the name is taken; the server's policy where nothing is said.
    pub on_exists: Option<OnExists>,
    /// Under which it is gone on with after a broken connection.
    pub resume: Option<ResumeId>,
    /// The time of the stored file, in seconds since the epoch.
    pub mtime: Option<NonZeroU64>,
}

/// What a client calls an upload that it may have to go on with: 1 to 64 of `A-Za-z0-9._-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResumeId(Box<str>);

impl ResumeId {
    /// Reads one; `None` where it is none.
    pub fn parse(word: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ((1..=64).contains(&word.len()) && word.bytes().all(is_allowed)).then(|| Self(word.into()))
    }

    /// As the wire spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A digest that a client promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It is told before the content.
    Known(Digest),
    /// It comes after the content.
    Trailer(Algorithm),
}

impl Promise {
    /// Which digest it is.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Known(digest) => digest.algorithm(),
            Self::Trailer(algorithm) => *algorithm,
        }
    }
}

/// Why a request line cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// The grammar is broken: where the content ends is not known.
    Grammar(&'static str),
    /// Only the name is bad; the rest is as it should be.
    Name(Dialect, Option<u64>, Option<Promise>, NameError),
}

impl Request {
    /// The longest request line, LF included, in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// A request of a dialect whose content ends with the stream.
    pub fn until_end_of_stream(dialect: Dialect, name: Name) -> Self {
        Self { dialect, name, size: None, digest: None, on_exists: None, resume: None, mtime: None }
    }

    /// The digest, where it is told before the content.
    pub fn known_digest(&self) -> Option<Digest> {
        match self.digest? {
            Promise::Known(digest) => Some(digest),
            Promise::Trailer(_) => None,
        }
    }

    /// Whether it is an `/ask` that tells all that there is to know of its content.
    pub fn tells_all(&self) -> bool {
        self.dialect == Dialect::Ask && self.size.is_some() && self.known_digest().is_some()
    }

    /// Reads a `/put` or `/ask` line, its LF and CR taken off.
    pub(super) fn parse(line: &[u8], names: NamePolicy) -> Result<Self, RequestError> {
        let (dialect, mut rest) = match (line.strip_prefix(b"/put "), line.strip_prefix(b"/ask ")) {
            (Some(rest), _) => (Dialect::Put, rest),
            (_, Some(rest)) => (Dialect::Ask, rest),
            _ => return Err(RequestError::Grammar("send /put, /ask or /bye")),
        };
        let mut attributes = Attributes::default();
        while let Some((word, after)) = split_attribute(rest)? {
            attributes.set(word)?;
            rest = after;
        }
        let size = attributes.size.ok_or(RequestError::Grammar("size=BYTES is missing (size=- for chunks)"))?;
        if attributes.on_exists == Some(OnExists::Same) && attributes.digest.is_none() {
            return Err(RequestError::Grammar("on-exists=same needs crc32c or sha256, to tell what is the same"));
        }
        let can_resume = dialect == Dialect::Ask && size.is_some() && attributes.digest.is_some();
        if attributes.resume.is_some() && !can_resume {
            return Err(RequestError::Grammar("resume needs /ask, a size, and crc32c or sha256 (hex or trailer)"));
        }
        let name = rest.strip_prefix(b"./").unwrap_or(rest);
        match Name::parse(name, names) {
            Ok(name) => Ok(Self {
                dialect,
                name,
                size,
                digest: attributes.digest,
                on_exists: attributes.on_exists,
                resume: attributes.resume,
                mtime: attributes.mtime.and_then(NonZeroU64::new),
            }),
            Err(error) => Err(RequestError::Name(dialect, size, attributes.digest, error)),
        }
    }
}

/// As it goes over the wire, LF included where the dialect has one.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.dialect {
            Dialect::Classic => return write!(f, "{}", self.name),
            Dialect::Line => return writeln!(f, "{}", self.name),
            Dialect::Put => "/put",
            Dialect::Ask => "/ask",
        };
        let size = self.size.map_or("-".to_owned(), |size| size.to_string());
        write!(f, "{verb} size={size}")?;
        match self.digest {
            Some(Promise::Known(digest)) => write!(f, " {}={}", digest.algorithm().as_str(), digest.to_hex())?,
            Some(Promise::Trailer(algorithm)) => write!(f, " {}=trailer", algorithm.as_str())?,
            None => {}
        }
        if let Some(on_exists) = self.on_exists {
            write!(f, " on-exists={}", on_exists.as_str())?;
        }
        if let Some(resume) = &self.resume {
            write!(f, " resume={}", resume.as_str())?;
        }
        if let Some(mtime) = self.mtime {
            write!(f, " mtime={mtime}")?;
        }
        // Else a first word with "=" would be read as an attribute, and a leading "./" be dropped.
        writeln!(f, " ./{}", self.name)
    }
}

#[derive(Default)]
struct Attributes {
    size: Option<Option<u64>>,
    digest: Option<Promise>,
    on_exists: Option<OnExists>,
    resume: Option<ResumeId>,
    mtime: Option<u64>,
}

impl Attributes {
    fn set(&mut self, word: &str) -> Result<(), RequestError> {
        let (key, value) = word.split_once('=').expect("an attribute holds =");
        match key {
            "size" => set(&mut self.size, parse_size(value), "size is 1 to 19 decimal digits, or - for chunks"),
            "crc32c" | "sha256" => {
                let words = "a digest is trailer or hex, 8 digits of crc32c or 64 of sha256, and there is one at most";
                set(&mut self.digest, parse_promise(key, value), words)
            }
            "on-exists" => {
                set(&mut self.on_exists, OnExists::parse(value), "on-exists is refuse, rename, replace or same, once")
            }
            "resume" => set(&mut self.resume, ResumeId::parse(value), "resume is 1 to 64 of A-Za-z0-9._-, once"),
            "mtime" => set(&mut self.mtime, parse_number(value), "mtime is seconds since the epoch, once"),
            _ => Err(RequestError::Grammar(
                "the keys are size, crc32c, sha256, on-exists, resume and mtime; ./ before a name with =",
            )),
        }
    }
}

/// Sets what is not set yet.
fn set<T>(slot: &mut Option<T>, value: Option<T>, words: &'static str) -> Result<(), RequestError> {
    match (&slot, value) {
        (None, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(RequestError::Grammar(words)),
    }
}

/// The first word where it holds `=`, and what comes after it.
fn split_attribute(rest: &[u8]) -> Result<Option<(&str, &[u8])>, RequestError> {
    let end = rest.iter().position(|byte| *byte == b' ');
    let word = &rest[..end.unwrap_or(rest.len())];
    if word.is_empty() && end.is_some() {
        return Err(RequestError::Grammar("there is one space between two words"));
    }
    if !word.contains(&b'=') || word.starts_with(b"./") {
        return Ok(None);
    }
    let words = "an attribute is key=value, and the name follows it";
    let word = std::str::from_utf8(word).map_err(|_| RequestError::Grammar(words))?;
    let end = end.ok_or(RequestError::Grammar("the name is missing"))?;
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

impl RequestError {
    /// What the client is told.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Grammar(words) => Refusal::new(Code::BAD_REQUEST, *words),
            Self::Name(.., error) => Refusal::new(Code::FORBIDDEN, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, RequestError> {
        Request::parse(line.as_bytes(), NamePolicy::default())
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
            let line = request.to_string();
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
            ("/put size=1 size=1 a", "size is"),
            ("/put size=1  a", "one space"),
            ("/put  size=1 a", "one space"),
            ("/put size=1 colour=red a", "the keys are"),
            ("/put size=1 Size=1 a", "the keys are"),
            ("/put size=1 k=v", "name is missing"),
            ("/put size=1 crc32c=xyz a", "a digest is"),
            ("/put size=1 crc32c=trailer sha256=trailer a", "one at most"),
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
                Err(RequestError::Grammar(said)) => assert!(said.contains(words), "{line}: {said}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_bad_name_leaves_the_size_known() {
        let bad = parse("/put size=7 ../x");
        assert_eq!(bad, Err(RequestError::Name(Dialect::Put, Some(7), None, NameError::Path)));
        assert_eq!(parse("/ask size=- "), Err(RequestError::Name(Dialect::Ask, None, None, NameError::Empty)));
    }
}

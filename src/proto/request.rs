//! A client's request, in any dialect.
//!
//! Values only. [`super::dialect`] knows how each dialect spells them.

use std::num::NonZeroU64;

use super::{Algorithm, Dialect, Digest, Name};

/// A client's request to store a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The dialect of the request.
    pub dialect: Dialect,
    /// The name to store the file under.
    pub name: Name,
    /// The size in bytes, if it is given before the content.
    pub size: Option<u64>,
    /// The digest that its content must have.
    pub digest: Option<Promise>,
    /// What to do when the name is taken. `None`: the server's policy.
    pub on_exists: Option<OnExists>,
    /// The id under which the upload can be resumed after a broken connection.
    pub resume: Option<ResumeId>,
    /// The time of the stored file, in seconds since the epoch.
    pub mtime: Option<NonZeroU64>,
}

/// The id under which an upload can be resumed: a client's (1 to 64 of `A-Za-z0-9._-`), or one that the server made.
///
/// No client can choose an id of the second kind: they begin with a `/`.
///
/// ```
/// use intake::proto::ResumeId;
///
/// let made = ResumeId::made(7);
/// assert_eq!(made.as_str(), "/00000000000000000000000000000007");
/// assert_eq!(ResumeId::parse_made(&made.as_str()[1..]), Some(made.clone()));
/// assert_eq!(ResumeId::parse(made.as_str()), None);
/// ```
/// Where clients show tokens, an upload belongs to its token. Under another token the same id is another one.
///
/// ```
/// use intake::proto::ResumeId;
///
/// let id = ResumeId::parse("x").unwrap();
/// let of_alice = id.clone().owned_by("alice");
/// assert_ne!(of_alice, id);
/// assert_ne!(of_alice, id.owned_by("bob"));
/// assert_eq!(of_alice.told(), "x");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResumeId(Box<str>);

impl ResumeId {
    /// Reads a client's id, or returns `None` if the word is not valid.
    pub fn parse(word: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ((1..=64).contains(&word.len()) && word.bytes().all(is_allowed)).then(|| Self(word.into()))
    }

    /// The server's id of these 128 random bits.
    pub fn made(bits: u128) -> Self {
        Self(format!("/{bits:032x}").into())
    }

    /// Reads a server's id without its `/`: 32 hexadecimal digits in lower case.
    pub fn parse_made(word: &str) -> Option<Self> {
        let made = Self::made(u128::from_str_radix(word, 16).ok()?);
        (made.0[1..] == *word).then_some(made)
    }

    /// Whether the server has made it.
    pub fn is_made(&self) -> bool {
        self.0.starts_with('/')
    }

    /// The same id, of a client whose token has the name `owner`. An id never holds an `@`.
    pub fn owned_by(self, owner: &str) -> Self {
        Self(format!("{}@{owner}", self.told()).into())
    }

    /// A client's id as the wire spells it; a server's with its `/`, as it ends the path of a URL.
    pub fn told(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }

    /// As [`ResumeId::told`], and with its owner: different for different ids.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A digest that a client promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It is given before the content.
    Known(Digest),
    /// It comes after the content.
    Trailer(Algorithm),
}

impl Promise {
    /// The digest, if it is given before the content.
    pub fn known(&self) -> Option<Digest> {
        match self {
            Self::Known(digest) => Some(*digest),
            Self::Trailer(_) => None,
        }
    }

    /// The algorithm of the digest.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Known(digest) => digest.algorithm(),
            Self::Trailer(algorithm) => *algorithm,
        }
    }
}

impl Request {
    /// The longest request line, LF included, in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// A request of a dialect whose content ends with the stream.
    pub fn until_end_of_stream(dialect: Dialect, name: Name) -> Self {
        Self { dialect, name, size: None, digest: None, on_exists: None, resume: None, mtime: None }
    }

    /// The digest, if it is given before the content.
    pub fn known_digest(&self) -> Option<Digest> {
        self.digest?.known()
    }
}

/// What to do when an upload's final name is already taken. The default is [`OnExists::Rename`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExists {
    /// The upload is refused (409), and the existing file stays as it is.
    Refuse,
    /// The upload takes the next free name: `report.pdf.1`, `report.pdf.2`, …
    #[default]
    Rename,
    /// The upload replaces the existing regular file.
    Replace,
    /// As [`OnExists::Refuse`], except that a file of the same size and digest counts as stored: a retry changes nothing.
    /// Only a client asks for it; it is not a server policy.
    Same,
}

impl OnExists {
    const WORDS: [(&'static str, Self); 4] =
        [("refuse", Self::Refuse), ("rename", Self::Rename), ("replace", Self::Replace), ("same", Self::Same)];

    /// As the wire spells it.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// Reads [`OnExists::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }
}

//! How a connection ends.
//!
//! Every connection ends for one [`CloseReason`], which decides what is logged and counted. Knows nothing of sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::access::{Charge, Who};
use crate::proto::{Dialect, Name, Refusal, Whole};

/// How a connection ended.
#[derive(Debug)]
pub enum CloseReason {
    /// Its one file is stored. The end of the stream was the end of the file, so only the sender knows whether it is whole.
    Stored {
        /// The name that the client asked for.
        asked: Name,
        /// The name under which it is stored.
        stored: Name,
        /// The client itself has ended the stream.
        is_proven: bool,
    },
    /// All its requests were answered.
    Finished,
    /// It was refused, or the upload of this name was cut off.
    Refused(Refusal, Option<Name>),
    /// The bytes of the client were not a request. They are escaped wherever they are quoted.
    NotARequest(Refusal, Box<[u8]>),
    /// The server had to end while the disk was busy with the files of this connection. Their outcome is unknown.
    Undecided,
    /// It was reset by the peer or the network.
    Lost(io::Error),
    /// It ended before the peer sent anything.
    Silent,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { asked, stored, is_proven: false } => {
                write!(f, "{asked:?} stored as {stored:?}, unverified: the end of the stream was the end of the file")
            }
            Self::Stored { asked, stored, is_proven: true } => {
                write!(f, "{asked:?} stored as {stored:?}, whole: the client itself has ended the stream")
            }
            Self::Finished => f.write_str("finished"),
            Self::Refused(refusal, name) => write!(f, "{}", refused(refusal, name.as_ref())),
            Self::NotARequest(refusal, head) => write!(f, "{}", not_a_request(refusal, head)),
            Self::Undecided => f.write_str(
                "reset, as the server had to end before the disk had its files: whether they are stored is not known",
            ),
            Self::Lost(error) => write!(f, "lost: {error}"),
            Self::Silent => f.write_str("closed before a name came"),
        }
    }
}

/// A whole file that was passed to the disk.
#[derive(Debug)]
pub struct Filed {
    /// The address of its client.
    pub peer: SocketAddr,
    /// The name that its client had proven.
    pub who: Option<Who>,
    /// Its size and digest.
    pub whole: Whole,
    /// What it was charged for, to be given back if it is not stored.
    pub charge: Option<Box<Charge>>,
    /// The name that the client asked for.
    pub asked: Name,
    /// How the client asked.
    pub dialect: Dialect,
    /// The connection carries no other file: one log line serves for both.
    pub is_alone: bool,
    /// The client itself has ended the stream. This matters only for a file that ends with the stream.
    pub is_proven: bool,
}

impl Filed {
    /// The log line of the stored file.
    pub fn line(&self, stored: &Name) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            let Self { whole: Whole { size, digest, .. }, asked, .. } = self;
            write!(f, "{asked:?} stored as {stored:?}, {size} bytes, ")?;
            match digest {
                Some(digest) => write!(f, "{digest}"),
                None => f.write_str("no digest"),
            }
        })
    }
}

/// The log line of a refused request.
pub fn refused(Refusal { code, words, .. }: &Refusal, name: Option<&Name>) -> impl fmt::Display {
    fmt::from_fn(move |f| match name {
        Some(name) => write!(f, "refused {name:?}, {} {words}", code.0),
        None => write!(f, "refused, {} {words}", code.0),
    })
}

/// The log line of bytes that are not a request.
pub fn not_a_request(Refusal { code, words, .. }: &Refusal, head: &[u8]) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "refused, {} {words}: \"{}\"", code.0, head.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Code, NamePolicy};

    fn name(name: &str) -> Name {
        Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
    }

    #[test]
    fn what_a_peer_has_sent_is_quoted_only_escaped() {
        let refusal = || Refusal::new(Code::BAD_REQUEST, "no name");
        let reason = CloseReason::NotARequest(refusal(), b"a\n\x1b\"".as_slice().into());
        assert_eq!(reason.to_string(), r#"refused, 400 no name: "a\n\x1b\"""#);
        let reason = CloseReason::Refused(refusal(), Some(name("a \"b\"")));
        assert_eq!(reason.to_string(), r#"refused "a \"b\"", 400 no name"#);
    }
}

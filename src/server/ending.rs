//! How a connection ends: the reason, and the one line that the log has of it.
//!
//! Every connection ends for one [`CloseReason`], and for nothing else: what is logged, counted and told follows from
//! it. Knows nothing of how it came to that.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::proto::{Name, Refusal, Whole};
use crate::reactor::Moment;

/// How a connection ended.
#[derive(Debug)]
pub enum CloseReason {
    /// Its one file is stored. Whether it is whole only its sender knows: the end of the stream was the end of the file.
    Stored {
        /// What the client calls it.
        asked: Name,
        /// What it is called here.
        stored: Name,
    },
    /// All its requests were answered.
    Finished,
    /// It was refused, or cut off in the upload of this name.
    Refused(Refusal, Option<Name>),
    /// What it sent is no request; the bytes are quoted only escaped.
    NotARequest(Refusal, Box<[u8]>),
    /// The server had to end while the disk was busy with its files: nobody knows what becomes of them.
    Undecided,
    /// The peer reset it, or the network did.
    Lost(io::Error),
    /// The peer went without a word.
    Silent,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { asked, stored } => {
                write!(f, "{asked:?} stored as {stored:?}, unverified: the end of the stream was the end of the file")
            }
            Self::Finished => f.write_str("finished"),
            Self::Refused(Refusal { code, words, .. }, Some(name)) => write!(f, "refused {name:?}, {} {words}", code.0),
            Self::Refused(Refusal { code, words, .. }, None) => write!(f, "refused, {} {words}", code.0),
            Self::NotARequest(Refusal { code, words, .. }, header) => {
                write!(f, "refused, {} {words}: \"{}\"", code.0, header.escape_ascii())
            }
            Self::Undecided => f.write_str(
                "reset, as the server had to end before the disk had its files: whether they are stored is not known",
            ),
            Self::Lost(error) => write!(f, "lost: {error}"),
            Self::Silent => f.write_str("closed before a name came"),
        }
    }
}

/// A file that is whole, and that the disk is busy with.
#[derive(Debug)]
pub struct Filed {
    /// Who it is from.
    pub peer: SocketAddr,
    /// What has come of it.
    pub whole: Whole,
    /// What the client calls it.
    pub asked: Name,
    /// The connection carries no other file: the line at its end is that of the file, too.
    pub is_alone: bool,
}

impl Filed {
    /// What the log says of it when it is stored.
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

/// What one connection has done so far, for the line that tells its story.
#[derive(Debug)]
pub struct Summary {
    peer: SocketAddr,
    accepted: Moment,
    /// Bytes of content, of all its uploads.
    pub content_bytes: u64,
    /// Files stored.
    pub stored: u32,
    /// Requests refused that did not end it.
    pub refused: u32,
}

impl Summary {
    /// Of a connection that was accepted at `now`.
    pub fn begin(peer: SocketAddr, now: Moment) -> Self {
        Self { peer, accepted: now, content_bytes: 0, stored: 0, refused: 0 }
    }

    /// Who it is with.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The line: how it has ended, and with the upload of which name in progress.
    pub fn line(&self, reason: &CloseReason, uploading: Option<&Name>, now: Moment) -> String {
        let Self { peer, accepted, content_bytes, stored, refused } = self;
        let seconds = now.since(*accepted).as_secs_f64();
        let name = uploading.map(|name| format!(" {name:?}")).unwrap_or_default();
        let files = match reason {
            CloseReason::Stored { .. } => String::new(),
            _ if self.has_answered() => format!("{stored} stored, {refused} refused, "),
            _ => String::new(),
        };
        format!("{peer}{name}: {files}{content_bytes} bytes in {seconds:.3} s, {reason}")
    }

    /// Whether any of its requests has been answered.
    pub fn has_answered(&self) -> bool {
        self.stored + self.refused > 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::{Code, NamePolicy};

    fn name(name: &str) -> Name {
        Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
    }

    /// The line of a connection of a second and a half, without the peer.
    fn line(stored: u32, reason: &CloseReason, uploading: Option<&Name>) -> String {
        let (peer, start) = (SocketAddr::from(([192, 0, 2, 1], 9)), Moment::default());
        let summary = Summary { content_bytes: 7, stored, ..Summary::begin(peer, start) };
        let line = summary.line(reason, uploading, start + Duration::from_millis(1500));
        line.strip_prefix("192.0.2.1:9").unwrap().to_owned()
    }

    #[test]
    fn a_line_tells_of_files_only_where_more_than_one_was_possible() {
        let stored = CloseReason::Stored { asked: name("a"), stored: name("a.1") };
        let unverified = "stored as \"a.1\", unverified: the end of the stream was the end of the file";
        assert_eq!(line(1, &stored, None), format!(": 7 bytes in 1.500 s, \"a\" {unverified}"));
        assert_eq!(line(2, &CloseReason::Finished, None), ": 2 stored, 0 refused, 7 bytes in 1.500 s, finished");
        let lost = CloseReason::Lost(io::ErrorKind::ConnectionReset.into());
        assert_eq!(line(0, &lost, Some(&name("a"))), " \"a\": 7 bytes in 1.500 s, lost: connection reset");
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

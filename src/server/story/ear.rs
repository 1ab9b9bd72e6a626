//! The facts about a connection, and those who listen to them.

use std::fmt;
use std::net::SocketAddr;

use super::ending::{CloseReason, Filed};
use super::peer::Peer;
use crate::access::Who;
use crate::proto::{Dialect, Name, Refusal, Ticket};
use crate::reactor::Moment;
use crate::store::StoreError;

/// An event of a connection. Each is told once.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// It was accepted.
    Accepted,
    /// It was closed at once, before anything of it was read.
    TurnedAway {
        /// The reason.
        refusal: &'a Refusal,
    },
    /// It comes from a proxy, whose client has this address.
    Proxied {
        /// The address.
        client: SocketAddr,
    },
    /// It comes from a proxy that checks the server's health.
    Checked,
    /// TLS has come into being.
    Secured,
    /// It ends, and the TLS that the client has begun never came into being.
    NotSecured,
    /// The client has proven its name.
    Named {
        /// The name.
        who: &'a Who,
    },
    /// It resumes an upload.
    Resumed,
    /// Content has arrived.
    Received {
        /// The number of bytes.
        bytes: usize,
    },
    /// A file is stored.
    Stored {
        /// The file as it was requested.
        filed: &'a Filed,
        /// The name under which it is stored.
        stored: &'a Name,
    },
    /// A request was refused or an upload cut off, and the connection does not end for that reason.
    Refused {
        /// The reason.
        refusal: &'a Refusal,
        /// The requested name, if it is known.
        name: Option<&'a Name>,
        /// How the client asked.
        dialect: Dialect,
        /// The last request that had been read when the reply was made.
        ticket: Ticket,
    },
    /// Bytes that are not a request were refused, and the connection stays.
    NotARequest {
        /// The reason.
        refusal: &'a Refusal,
        /// The bytes.
        head: &'a [u8],
    },
    /// A request that is no upload was answered.
    Answered {
        /// A description of the request.
        what: &'static str,
    },
    /// A file is stored, and its connection has ended already.
    StoredForNobody {
        /// The file as it was requested.
        filed: &'a Filed,
        /// The name under which it is stored.
        stored: &'a Name,
    },
    /// A file could not be stored, and its connection has ended already.
    LostForNobody {
        /// The file as it was requested.
        filed: &'a Filed,
        /// The reason.
        error: &'a StoreError,
    },
    /// The connection ends.
    Closed {
        /// The reason.
        reason: &'a CloseReason,
        /// The name of the upload in progress.
        uploading: Option<&'a Name>,
        /// How the client asked last.
        dialect: Dialect,
        /// The moment of the end.
        now: Moment,
    },
}

/// A listener to the facts of all connections.
pub trait Ear {
    /// Hears a fact about `whom`.
    fn hear(&mut self, whom: &Whom, fact: &Fact);
}

/// The peer of a connection, the time of its accept, and counts of its uploads. The log names it by its address, and by its
/// name if it has proven one.
#[derive(Debug)]
pub struct Whom {
    peer: Peer,
    who: Option<Who>,
    pub(super) accepted: Moment,
    /// The bytes of content of all its uploads.
    pub(super) content_bytes: u64,
    /// The files that were stored.
    pub(super) stored: u32,
    /// The refused requests that did not end the connection.
    pub(super) refused: u32,
}

impl Whom {
    /// The story of a connection that was accepted at `now`.
    pub fn new(peer: SocketAddr, now: Moment) -> Self {
        Self { peer: peer.into(), who: None, accepted: now, content_bytes: 0, stored: 0, refused: 0 }
    }

    /// The address of the peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer.into()
    }

    /// When it was accepted.
    pub fn accepted(&self) -> Moment {
        self.accepted
    }

    /// The bytes of content of all its uploads so far.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Its files that were stored, and its requests that were refused without an end of the connection.
    pub fn counts(&self) -> (u32, u32) {
        (self.stored, self.refused)
    }

    /// The name that the client has proven.
    pub fn who(&self) -> Option<&Who> {
        self.who.as_ref()
    }

    /// The same with this name.
    pub fn with_name(self, who: Option<Who>) -> Self {
        Self { who, ..self }
    }

    /// Whether it is a check of the server's health that nothing came of.
    pub(super) fn is_mere_check(&self) -> bool {
        self.peer.is_check && !self.has_answered() && self.content_bytes == 0
    }

    /// Whether any of its requests has been answered.
    pub fn has_answered(&self) -> bool {
        self.stored + self.refused > 0
    }

    pub(super) fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Proxied { client } => self.peer = (*client).into(),
            Fact::Checked => self.peer.is_check = true,
            Fact::Named { who } => self.who = Some((*who).clone()),
            Fact::Received { bytes } => self.content_bytes += *bytes as u64,
            Fact::Stored { .. } => self.stored += 1,
            Fact::Refused { .. } | Fact::NotARequest { .. } => self.refused += 1,
            _ => {}
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer())?;
        self.who.as_ref().map_or(Ok(()), |who| write!(f, " by {who}"))
    }
}

//! The facts about a connection, and those who listen to them.

use std::net::SocketAddr;

use super::ending::{CloseReason, Filed};
use crate::proto::{Name, Refusal};
use crate::reactor::Moment;
use crate::store::StoreError;

/// Something that happened to a connection, told once.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// It was accepted.
    Accepted,
    /// It resumes an upload.
    Resumed,
    /// Content has come.
    Received {
        /// How many bytes.
        bytes: usize,
    },
    /// A file is stored.
    Stored {
        /// What was asked for.
        filed: &'a Filed,
        /// The name that it got.
        stored: &'a Name,
    },
    /// A request was refused or an upload cut off, and the connection does not end for that reason.
    Refused {
        /// Why.
        refusal: &'a Refusal,
        /// The name that was asked for, if it is known.
        name: Option<&'a Name>,
    },
    /// Bytes that are not a request were refused, and the connection stays.
    NotARequest {
        /// Why.
        refusal: &'a Refusal,
        /// The bytes.
        head: &'a [u8],
    },
    /// Something else than an upload was asked for, and answered.
    Answered {
        /// What it was.
        what: &'static str,
    },
    /// A file is stored, and its connection has ended already.
    StoredForNobody {
        /// What was asked for.
        filed: &'a Filed,
        /// The name that it got.
        stored: &'a Name,
    },
    /// A file could not be stored, and its connection has ended already.
    LostForNobody {
        /// What was asked for.
        filed: &'a Filed,
        /// Why.
        error: &'a StoreError,
    },
    /// The connection ends.
    Closed {
        /// Why.
        reason: &'a CloseReason,
        /// The name of the upload in progress.
        uploading: Option<&'a Name>,
        /// When.
        now: Moment,
    },
}

/// Something that listens to the story of all connections.
pub trait Ear {
    /// Hears a fact about `whom`.
    fn hear(&mut self, whom: &Whom, fact: &Fact);
}

/// The peer of a connection, when it was accepted, and what it has done.
#[derive(Debug)]
pub struct Whom {
    pub(super) peer: SocketAddr,
    pub(super) accepted: Moment,
    /// Bytes of content, of all its uploads.
    pub(super) content_bytes: u64,
    /// Files stored.
    pub(super) stored: u32,
    /// Requests refused that did not end it.
    pub(super) refused: u32,
}

impl Whom {
    /// The story of a connection that was accepted at `now`.
    pub fn new(peer: SocketAddr, now: Moment) -> Self {
        Self { peer, accepted: now, content_bytes: 0, stored: 0, refused: 0 }
    }

    /// The address of the peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether any of its requests has been answered.
    pub fn has_answered(&self) -> bool {
        self.stored + self.refused > 0
    }

    pub(super) fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Received { bytes } => self.content_bytes += *bytes as u64,
            Fact::Stored { .. } => self.stored += 1,
            Fact::Refused { .. } | Fact::NotARequest { .. } => self.refused += 1,
            _ => {}
        }
    }
}

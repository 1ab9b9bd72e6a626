//! What to send and how, and what is reported meanwhile. Plain data: nothing here does anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::content::Source;
use super::error::SendError;
use crate::proto::{Algorithm, Dialect, Name, Site, Stored};

/// How to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The addresses of the server, in the order in which they are tried.
    pub to: Vec<SocketAddr>,
    /// The dialect of the requests. `None`: put, and from [`Plan::LARGE_BYTES`] on ask, which can be resumed; with a
    /// [`Plan::site`] HTTP, and from that size on HTTP that waits for `100 Continue`.
    pub dialect: Option<Dialect>,
    /// The site that is sent to, if the dialect is HTTP.
    pub site: Option<Arc<Site>>,
    /// The digest by which the server checks what it received, in put and ask; in HTTP only SHA-256 is told.
    pub algorithm: Algorithm,
    /// The most connections at once.
    pub jobs: usize,
    /// How many failures in a row, each for a passing reason, an upload may have before the last one. Progress starts the
    /// count again. Waits that [`Plan::busy_limit`] and [`Plan::restart_limit`] cover are not counted. 0: nothing is tried
    /// again, whatever the reason.
    pub retries: u32,
    /// How long the server may be silent, and take nothing more.
    pub patience: Duration,
    /// How long in all an upload is tried again because the server said when to come back, or that it is shutting down.
    pub busy_limit: Duration,
    /// How long in all a connection is tried again after one that worked.
    pub restart_limit: Duration,
}

/// A file and the name to store it under.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where its content comes from.
    pub source: Source,
    /// Its name at the server.
    pub name: Name,
}

/// What happens while files are sent. Uploads are named by their index in the list.
#[derive(Debug)]
pub enum Event<'a> {
    /// Content was read, either to be sent or because the server has it already.
    Progress {
        /// Which connection, from 0.
        job: usize,
        /// Which upload.
        upload: usize,
        /// How far it is, in bytes.
        position: u64,
    },
    /// Uploads failed, and are tried again after a pause.
    Again {
        /// How many.
        uploads: usize,
        /// Why the first of them failed.
        error: &'a SendError,
        /// How long the pause is.
        pause: Duration,
    },
    /// An upload has ended.
    Settled {
        /// Which upload.
        upload: usize,
        /// How it ended.
        result: &'a Result<Sent, SendError>,
    },
}

/// An upload that is stored.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The content's size in bytes.
    pub size: u64,
    /// From its request until its receipt.
    pub elapsed: Duration,
    /// How the server confirmed it.
    pub stored: Stored,
}

impl Plan {
    /// From this size on, in bytes, a round trip to learn how much of the file the server has is worth its time.
    pub const LARGE_BYTES: u64 = 8 << 20;

    /// Whether the server can tell the end of an upload from a broken connection.
    pub(super) fn is_framed(&self) -> bool {
        self.dialect.is_none_or(Dialect::is_framed)
    }

    /// The dialect for content of `size`.
    pub(super) fn dialect_for(&self, size: Option<u64>) -> Dialect {
        let (small, large) = match self.site {
            Some(_) => (Dialect::Http, Dialect::HttpExpect),
            None => (Dialect::Put, Dialect::Ask),
        };
        self.dialect.unwrap_or(if size >= Some(Self::LARGE_BYTES) { large } else { small })
    }

    /// Whether the server is told the digest of what it gets.
    pub(super) fn tells_digest(&self) -> bool {
        self.is_framed() && (self.site.is_none() || self.algorithm == Algorithm::Sha256)
    }
}

/// To no address. Two connections keep the server busy while one of them waits for a reply. CRC-32C finds what networks and
/// disks do to a file, and costs either side next to nothing. A server gives its clients 60 s. A slow sync is over in ten
/// minutes, and a server that is restarted is back in 30 s.
impl Default for Plan {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            dialect: None,
            site: None,
            algorithm: Algorithm::Crc32c,
            jobs: 2,
            retries: 3,
            patience: Duration::from_secs(60),
            busy_limit: Duration::from_secs(600),
            restart_limit: Duration::from_secs(30),
        }
    }
}

//! The plan: what to send and how, and the events that are reported meanwhile. Plain data, without any action.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::content::Source;
use super::error::SendError;
use crate::net::ClientTls;
use crate::proto::{Algorithm, Dialect, Name, Secret, Site, Stored};

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
    /// TLS to the server. `None`: the connection is plain.
    pub tls: Option<ClientTls>,
    /// The token that each request shows.
    pub token: Option<Secret>,
    /// The digest with which the server checks the content, in put and ask. HTTP sends only SHA-256.
    pub algorithm: Algorithm,
    /// The most connections at once.
    pub jobs: usize,
    /// How often in a row an upload is tried again after a failure that may pass. Progress resets the count. Waits under
    /// [`Plan::busy_limit`] and [`Plan::restart_limit`] are not counted. 0: nothing is tried again, whatever the reason.
    pub retries: u32,
    /// How long the server may neither send nor read anything.
    pub patience: Duration,
    /// The total wait of an upload for a server that said when to come back, or that it is shutting down.
    pub busy_limit: Duration,
    /// The total wait for a refused connection, after an earlier one was accepted.
    pub restart_limit: Duration,
}

/// A file and the name to store it under.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The source of its content.
    pub source: Source,
    /// Its name at the server.
    pub name: Name,
}

/// An event while files are sent. Uploads are identified by their index in the list.
#[derive(Debug)]
pub enum Event<'a> {
    /// Content was read, either to be sent or because the server has it already.
    Progress {
        /// The number of the connection, from 0.
        job: usize,
        /// The index of the upload.
        upload: usize,
        /// How much of the content was read, in bytes.
        position: u64,
    },
    /// Uploads failed, and will be tried again after a pause.
    Again {
        /// How many uploads.
        uploads: usize,
        /// Why the first of them failed.
        error: &'a SendError,
        /// The length of the pause.
        pause: Duration,
    },
    /// An upload has ended.
    Settled {
        /// The index of the upload.
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
    /// The time from its request to its receipt.
    pub elapsed: Duration,
    /// How the server confirmed it.
    pub stored: Stored,
}

impl Plan {
    /// From this size on, in bytes, asking how much of the file the server has is worth a round trip.
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

    /// Whether the server is told the digest of the content.
    pub(super) fn tells_digest(&self) -> bool {
        self.is_framed() && (self.site.is_none() || self.algorithm == Algorithm::Sha256)
    }
}

/// A plan without an address. Two connections keep the server busy while one of them waits for a reply. CRC-32C finds the
/// damage that networks and disks do, and costs next to nothing on either side. A patience of 60 s is that of a server with
/// its clients. A slow sync ends within ten minutes, and a server that restarts is back within 30 s.
impl Default for Plan {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            dialect: None,
            site: None,
            tls: None,
            token: None,
            algorithm: Algorithm::Crc32c,
            jobs: 2,
            retries: 3,
            patience: Duration::from_secs(60),
            busy_limit: Duration::from_secs(600),
            restart_limit: Duration::from_secs(30),
        }
    }
}

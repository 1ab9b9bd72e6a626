//! The plan of a run: its files or datagrams, their contents, when they are due, and how clients behave.
//!
//! A pure function of a seed. Knows no socket, no file and no clock, and not how a run ends.

mod conduct;
mod datagrams;
mod pattern;
mod schedule;
mod workload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::ClientTls;
use crate::proto::{Dialect, Secret, Site};

pub use conduct::{Allowance, Conduct, Mix, MixError};
pub use datagrams::{EchoPlan, NUMBER_BYTES, Pace, SIZE_MAX_BYTES, SIZE_MIN_BYTES};
pub use pattern::{Pattern, Random};
pub use schedule::{Arrivals, Extent, Loop, Schedule};
pub use workload::{File, Sizes, Workload};

/// A run over TCP.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The receiver.
    pub target: SocketAddr,
    /// The dialect to send in.
    pub dialect: Dialect,
    /// The site that is sent to, if the dialect is HTTP.
    pub site: Option<Arc<Site>>,
    /// TLS to the receiver. `None`: connections are plain.
    pub tls: Option<ClientTls>,
    /// The token that each request shows.
    pub token: Option<Secret>,
    /// Connections open at once, at most. At least 1.
    pub clients: usize,
    /// Files that each connection carries, at least 1. Just 1 in a dialect that ends a file with the stream.
    pub per_connection: usize,
    /// What triggers a file.
    pub pace: Loop,
    /// How many files, or for how long.
    pub extent: Extent,
    /// The time over which the load rises.
    pub ramp: Duration,
    /// The files.
    pub workload: Workload,
    /// The side that closes a connection first.
    pub closer: Closer,
    /// How long a client waits for a server that neither reads nor answers.
    pub patience: Duration,
}

/// The side that closes a connection first if every upload on it went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closer {
    /// The server, after its last reply, for which the client waits.
    #[default]
    Server,
    /// The client. In put, ask and HTTP it knows all outcomes by then. In classic and line it closes as soon as everything is
    /// sent, and does not learn the outcome.
    Client,
    /// The client, by a reset, which leaves no port in TIME_WAIT. Not in classic and line, where it would undo the upload.
    Reset,
}

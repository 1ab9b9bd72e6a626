//! What a run is to do: which files or datagrams there are, what they hold, when they are due, and how clients behave.
//!
//! Pure, and a function of a seed: knows no socket, no file and no clock, and not what comes of it.

mod conduct;
mod datagrams;
mod pattern;
mod schedule;
mod workload;

use std::net::SocketAddr;
use std::time::Duration;

use crate::proto::Dialect;

pub use conduct::{Allowance, Conduct, Mix, MixError};
pub use datagrams::{EchoPlan, NUMBER_BYTES, Pace, SIZE_MAX_BYTES, SIZE_MIN_BYTES};
pub use pattern::{Pattern, Random};
pub use schedule::{Arrivals, Extent, Loop, Schedule};
pub use workload::{File, Sizes, Workload};

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The receiver.
    pub target: SocketAddr,
    /// How to speak to it.
    pub dialect: Dialect,
    /// The most connections at a time. At least 1.
    pub clients: usize,
    /// How many files each connection carries, at least 1; not above 1 where the dialect ends a file with the stream.
    pub per_connection: usize,
    /// What starts a file.
    pub pace: Loop,
    /// How much there is to do.
    pub extent: Extent,
    /// The span over which the load comes up.
    pub ramp: Duration,
    /// The files.
    pub workload: Workload,
    /// Who closes first.
    pub closer: Closer,
    /// How long a client waits for the server to take or say something.
    pub patience: Duration,
}

/// Who closes a connection on which all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closer {
    /// The server, after its last word, for which the client has waited.
    #[default]
    Server,
    /// The client. In put and ask it knows all outcomes by then; in classic and line it closes as soon as all is sent, and
    /// nobody tells it what became of its file.
    Client,
    /// The client, by a reset, which leaves no port in TIME_WAIT. Only in put and ask: in the others it would undo the
    /// upload.
    Reset,
}

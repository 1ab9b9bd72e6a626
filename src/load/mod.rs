//! `load`: many clients in one thread, honest numbers, misbehaviour on demand.
//!
//! ```text
//! schedule -- when --> swarm -- serves --> client -- drives --> proto::Sender
//! workload -- what -->   |                   |
//! misbehave -- how -->   |                   +--> ending: as it should be? what is stored?
//!                        +--> tally --> report, json          verify <-- claims, workload
//! ```
//!
//! The swarm's turn is the server's, seen from the other end: events only line clients up, each is served within a budget,
//! deadlines are looked at, and new connections are begun last. What each file holds is a function of the seed and its
//! number ([`content`]), so nothing is kept in order to be sent, and whatever the receiver has stored can be compared byte
//! for byte ([`verify`]), in the same run or days later. What is drawn and judged is pure; only [`client`], [`swarm`],
//! [`udp`], [`host`] and [`verify`] touch the system.

pub mod client;
pub mod content;
pub mod ending;
pub mod figures;
pub mod host;
pub mod json;
pub mod latency;
pub mod misbehave;
pub mod report;
pub mod schedule;
pub mod swarm;
pub mod tally;
pub mod udp;
pub mod verify;
pub mod workload;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::net;
use crate::proto::Dialect;
use host::{Requirement, Spent};
use schedule::{Extent, Loop};
use swarm::{Live, Swarm};
use tally::Tally;
use workload::Workload;

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

impl Plan {
    /// How many source ports are in use at a time: one a connection and, of an open loop whose clients close first, those
    /// that rest for a minute after that.
    fn source_ports(&self) -> u64 {
        let client_closes = !self.dialect.is_framed() || self.closer == Closer::Client;
        let resting = match self.pace {
            Loop::Open { rate, .. } if client_closes => (rate * host::TIME_WAIT.as_secs_f64()) as u64,
            _ => 0,
        };
        (self.clients as u64 + resting).min(self.extent.files.unwrap_or(u64::MAX))
    }
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

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// What was counted.
    pub tally: Tally,
    /// From the first connection to the last word.
    pub elapsed: Duration,
    /// Files of an open loop that were due and not begun when the run ended: all clients were busy.
    pub never_started: u64,
    /// What the tester itself needed.
    pub spent: Spent,
    /// Whether it was ended before its end.
    pub interrupted: bool,
}

/// Why there was no run.
#[derive(Debug)]
pub enum LoadError {
    /// This host has not what it takes.
    Shortage(Requirement),
    /// Nobody accepts connections there; why.
    Unreachable(String),
    /// The event loop cannot be set up, or has failed.
    EventLoop(io::Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shortage(requirement) => requirement.fmt(f),
            Self::Unreachable(reason) => f.write_str(reason),
            Self::EventLoop(error) => write!(f, "the event loop failed: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Does what `plan` says, until all is done or `stop` is set. `on_tick` hears from time to time how it goes.
///
/// # Errors
/// [`LoadError`]; single uploads that fail are counted and are none.
pub fn run(plan: &Plan, stop: &AtomicBool, on_tick: &mut dyn FnMut(&Live)) -> Result<Finished, LoadError> {
    let descriptors = net::raise_descriptor_limit().map_err(LoadError::EventLoop)?;
    let required = host::requirements(plan.clients, plan.source_ports(), plan.target, descriptors);
    let short = required.into_iter().find(|each| !each.is_met());
    match short {
        Some(requirement) => Err(LoadError::Shortage(requirement)),
        None => Swarm::new(plan).map_err(LoadError::EventLoop)?.run(stop, on_tick),
    }
}

#[cfg(test)]
mod tests {
    use super::misbehave::Mix;
    use super::schedule::Arrivals;
    use super::workload::Sizes;
    use super::*;

    #[test]
    fn ports_rest_for_a_minute_where_the_client_closes_first() {
        let open = Loop::Open { rate: 100.0, arrivals: Arrivals::Constant };
        let ports = |dialect, pace, closer, files| {
            let workload = Workload { seed: 1, sizes: Sizes::Range(1, 1), mix: Mix::default() };
            let extent = Extent { files, duration: None };
            let target = "192.0.2.1:9".parse().unwrap();
            let (ramp, patience) = (Duration::ZERO, Duration::ZERO);
            let plan = Plan {
                target,
                dialect,
                clients: 10,
                per_connection: 1,
                pace,
                extent,
                ramp,
                workload,
                closer,
                patience,
            };
            plan.source_ports()
        };
        assert_eq!(ports(Dialect::Put, open, Closer::Server, None), 10);
        assert_eq!(ports(Dialect::Put, open, Closer::Client, None), 6010);
        assert_eq!(ports(Dialect::Line, open, Closer::Server, None), 6010);
        assert_eq!(ports(Dialect::Line, open, Closer::Server, Some(500)), 500);
        assert_eq!(ports(Dialect::Line, Loop::Closed, Closer::Server, None), 10);
    }
}

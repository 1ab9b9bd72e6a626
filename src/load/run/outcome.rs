//! The outcome of a run over TCP, or why it could not run.

use std::fmt;
use std::io;
use std::time::Duration;

use super::host::{Requirement, Spent};
use crate::load::judge::Tally;

/// The outcome of a run over TCP.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// All counts.
    pub tally: Tally,
    /// From the first connection to the last outcome.
    pub elapsed: Duration,
    /// Files of an open loop that were due but not begun when the run ended, because all clients were busy.
    pub never_started: u64,
    /// The effort of the tester itself.
    pub spent: Spent,
    /// Whether Ctrl-C ended the run.
    pub interrupted: bool,
}

/// Why a run is not possible.
#[derive(Debug)]
pub enum LoadError {
    /// This host lacks a resource.
    Shortage(Requirement),
    /// The target cannot be reached, with the reason.
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

impl From<Requirement> for LoadError {
    fn from(short: Requirement) -> Self {
        Self::Shortage(short)
    }
}

//! How a run over TCP ended, and why there was none.

use std::fmt;
use std::io;
use std::time::Duration;

use super::host::{Requirement, Spent};
use crate::load::judge::Tally;

/// What came of a run over TCP.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// What was counted.
    pub tally: Tally,
    /// From the first connection to the last outcome.
    pub elapsed: Duration,
    /// Files of an open loop that were due and not begun when the run ended: all clients were busy.
    pub never_started: u64,
    /// What the tester itself needed.
    pub spent: Spent,
    /// Whether Ctrl-C ended it.
    pub interrupted: bool,
}

/// Why there was no run.
#[derive(Debug)]
pub enum LoadError {
    /// This host lacks something.
    Shortage(Requirement),
    /// The target cannot be reached; why.
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

//! The exit codes.

use std::process::ExitCode;

/// How a run ended, as scripts see it. Each subcommand's help lists its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// Something failed or was refused.
    Failed = 1,
    /// Usage error. The same number as clap uses.
    Usage = 2,
    /// Could not connect.
    Unreachable = 3,
    /// A stored file is not what was sent.
    Broken = 4,
    /// A `--fail-if` condition was met.
    BadOutcome = 5,
    /// Ctrl-C: 128 plus the number of the signal, as shells report it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

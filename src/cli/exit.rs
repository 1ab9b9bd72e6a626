//! The exit codes.

use std::process::ExitCode;

/// How a run ended, as scripts see it. Each subcommand's help lists its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// Something failed or was refused.
    Failed = 1,
    /// What was typed makes no sense. clap's own number for it.
    Usage = 2,
    /// There was nobody to talk to.
    Unreachable = 3,
    /// What was stored is not what was sent.
    Broken = 4,
    /// What was named as a bad outcome has come about.
    BadOutcome = 5,
    /// Ctrl-C; 128 and the number of the signal, as shells report it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

//! Files: a directory that is held open, and partial files that only publishing gives a final name.
//!
//! Takes validated names only and knows nothing of sockets or of the conversation. The rest of the program sees the two
//! traits below; the simulation puts its own store behind them.

use std::fmt;
use std::io;

use crate::proto::{Name, OnExists};

/// A place that uploads are stored in.
pub trait Store {
    /// What an upload is written to until it is whole.
    type Partial: Partial;

    /// Creates a partial file for an upload that is to become `name`.
    ///
    /// # Errors
    /// [`StoreError::Taken`] as early as it can be known, and whatever the file system says.
    fn begin(&self, name: &Name, on_exists: OnExists) -> Result<Self::Partial, StoreError>;
}

/// An upload's bytes before they have a final name. Dropping it removes it.
pub trait Partial {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Whatever the file system says; the partial is then of no further use.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// The bytes appended so far.
    fn size(&self) -> u64;

    /// Gives the file its final name, and returns the one that it got: `name`, or under [`OnExists::Rename`] one with a
    /// number. The only way to a final name.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and whatever the file system says; the partial is then removed.
    fn publish(self, name: Name) -> Result<Name, StoreError>;
}

/// Why an upload cannot be stored.
#[derive(Debug)]
pub enum StoreError {
    /// The final name is taken, and the policy leaves no other; says by what or why.
    Taken(&'static str),
    /// No space, no inodes or no quota left.
    Full(io::Error),
    /// Anything else that the file system says.
    Io(io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(why) => f.write_str(why),
            Self::Full(error) => write!(f, "no space is left for the file: {error}"),
            Self::Io(error) => write!(f, "the file cannot be stored: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

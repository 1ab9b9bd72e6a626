//! The contract of a store: what the rest of the program asks of it, and how it answers. Knows no directory and no disk.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, read, retry_on_intr};

use crate::proto::{Hasher, Held, Name, OnExists, Promise, ResumeId, Ticket};
use crate::reactor::Id;

/// A place that uploads are stored in.
pub trait Store {
    /// What an upload is written to until it is whole.
    type Partial: Partial;
    /// A stored file, to be read from its beginning. A read fails with `WouldBlock` where it would wait for the disk.
    type Content: io::Read;

    /// Creates a partial file for an upload, or goes on with the one that was kept for it.
    ///
    /// # Errors
    /// [`StoreError::Taken`] and [`StoreError::Full`] as early as it can be known, [`StoreError::Busy`] while another upload
    /// has the resume id, and whatever the file system says.
    fn begin(&self, target: &Target) -> Result<Self::Partial, StoreError>;

    /// Gives `partial` the final name `name`, or under [`OnExists::Rename`] one with a number: at once and with the result,
    /// or, where durability takes its time, later, and then [`Store::settled`] tells.
    fn publish(&mut self, claim: Claim, partial: Self::Partial, name: Name) -> Option<Result<Name, StoreError>>;

    /// Opens what is stored as `name`, where a file of `size` bytes is.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where anything else is, and whatever the file system says.
    fn find(&self, name: &Name, size: u64) -> Result<Option<Self::Content>, StoreError>;

    /// Makes what was found under `name` as durable as what is published; tells the result as [`Store::publish`] does.
    fn confirm(&mut self, claim: Claim, content: Self::Content, name: Name) -> Option<Result<Name, StoreError>>;

    /// Makes what `partial` holds as durable as what is published; tells the result as [`Store::publish`] does.
    fn hold(&mut self, claim: Claim, partial: &mut Self::Partial, name: Name) -> Option<Result<Name, StoreError>>;

    /// Whether an upload with this resume id is under way here, or the disk is still busy with one.
    fn is_busy_with(&self, id: &ResumeId) -> bool;

    /// What has been published, confirmed or held since, in any order.
    fn settled(&mut self) -> Vec<Settled> {
        Vec::new()
    }

    /// Whether so many files wait for the disk that no further one should be begun. Those that have begun may still be
    /// published.
    fn is_congested(&self) -> bool {
        false
    }

    /// Whether the disk has nothing left to do, for a client or for a later resume.
    fn is_idle(&self) -> bool {
        true
    }
}

/// What an upload is to become.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its final name.
    pub name: &'a Name,
    /// What to do when that is taken.
    pub on_exists: OnExists,
    /// In bytes, where it is known before.
    pub size: Option<u64>,
    /// The digest that its content must have.
    pub promise: Option<Promise>,
    /// Under which it can be resumed. Takes a size and a promise.
    pub resume: Option<&'a ResumeId>,
}

impl<'a> Target<'a> {
    /// Of content that only its end tells more of.
    pub fn new(name: &'a Name, on_exists: OnExists) -> Self {
        Self { name, on_exists, size: None, promise: None, resume: None }
    }
}

/// Whose upload it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The connection.
    pub id: Id,
    /// Its request.
    pub ticket: Ticket,
}

/// What has become of a file that somebody waits for.
pub type Settled = (Claim, Result<Name, StoreError>);

/// An upload's bytes before they have a final name. Dropping it removes it.
pub trait Partial {
    /// What it holds, in bytes.
    fn held(&self) -> u64;

    /// All that it holds, and the state of its digest. `None` where it has no resume id, or holds nothing.
    fn state(&self) -> Option<Held>;

    /// `hasher` has taken in all that it holds. What is kept of it can be resumed from the last such state.
    fn summed(&mut self, hasher: &Hasher);

    /// Leaves it to be resumed, if it was begun with a resume id; else removes it.
    fn keep(self);

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Whatever the file system says; the partial is then of no further use.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Appends all of the `count` bytes that `pipe` holds.
    ///
    /// # Errors
    /// As [`Partial::append`], and `UnexpectedEof` where there are fewer; some of the bytes may still be in the pipe.
    fn append_from(&mut self, pipe: BorrowedFd<'_>, count: usize) -> Result<(), StoreError> {
        self.copy_from(pipe, count)
    }

    /// [`Partial::append_from`] for where there is no way around a copy.
    ///
    /// # Errors
    /// As [`Partial::append_from`].
    fn copy_from(&mut self, pipe: BorrowedFd<'_>, count: usize) -> Result<(), StoreError> {
        let mut buffer = [0; 16 << 10];
        let mut left = count;
        while left > 0 {
            let most = left.min(buffer.len());
            let copied = retry_on_intr(|| read(pipe, &mut buffer[..most]))?;
            if copied == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.append(&buffer[..copied])?;
            left -= copied;
        }
        Ok(())
    }

    /// Sets the time of the file's last change, in seconds since the epoch. Appending afterwards changes it again.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn set_mtime(&mut self, seconds: u64) -> Result<(), StoreError>;

    /// Gives the file its final name, and returns the one that it got: `name`, or under [`OnExists::Rename`] one with a
    /// number. The only way to a final name.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and whatever the file system says; the partial is then removed.
    fn publish(self, name: Name) -> Result<Name, StoreError>;
}

impl StoreError {
    /// What has the name is not the file that was uploaded.
    pub const NOT_THE_SAME: Self = Self::Taken("the name is taken by another file");
    /// What has the resume id is under way, here or at another server.
    pub const BUSY: Self = Self::Busy("another upload goes on under this resume id");
}

/// Why an upload cannot be stored.
#[derive(Debug)]
pub enum StoreError {
    /// The final name is taken, and the policy leaves no other; says by what or why.
    Taken(&'static str),
    /// Another upload is in the way, for now; says how.
    Busy(&'static str),
    /// No space, no inodes or no quota left.
    Full(io::Error),
    /// Anything else that the file system says.
    Io(io::Error),
    /// A sync has failed before: nothing more is taken.
    Failed,
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        let why = match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Self::Full(error),
            io::ErrorKind::FileTooLarge => "larger than the file system or the server's limit (ulimit -f) allows",
            io::ErrorKind::InvalidFilename => "the directory's file system takes no name as long as this",
            _ => return Self::Io(error),
        };
        Self::Io(io::Error::new(kind, format!("{why}: {error}")))
    }
}

impl From<Errno> for StoreError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(why) | Self::Busy(why) => f.write_str(why),
            Self::Full(error) => write!(f, "no space is left for the file: {error}"),
            Self::Io(error) => write!(f, "the file cannot be stored: {error}"),
            Self::Failed => f.write_str("the server's disk has failed; it takes no files until it is restarted"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Words for people: what could not be done with what, and why.
pub(super) fn cannot<E: fmt::Display + Into<io::Error>>(
    subject: impl fmt::Display,
    what: &str,
) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let words = format!("{subject} cannot be {what}: {error}");
        io::Error::new(error.into().kind(), words)
    }
}

//! The contract of a store: what the rest of the program asks of it, and how it answers. Knows no directory and no disk.

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, read, retry_on_intr};

use super::Mark;
use super::slip::Slip;
use crate::proto::{Hasher, Held, Name, OnExists, Promise, Receipt, ResumeId};

/// A place that uploads are stored in.
///
/// ```text
///   begin --> Partial --append, append--> submit(Job::Publish) ----> settled
///                |                                                     ^
///                +-- submit(Job::Hold): what it has will last ---------+
///                +-- keep: to be resumed                               |
///   find  --> Content --read, read------> submit(Job::Confirm) --------+
/// ```
///
/// All that may have to wait for the disk goes in through [`Store::submit`] and comes out as a [`Settled`]: from
/// [`Store::settled`] later, or from `submit` itself where there is nothing to wait for.
///
/// # Uploads that can be resumed
///
/// There are two kinds, which are kept in the same way. The newest request for an id gets the upload: the caller ends an
/// older request of its own ([`Store::is_busy_with`]), and one of another server on the directory is [`StoreError::Busy`].
///
/// * **Under a word of the client's** (`resume=`). Each request has the whole claim, so [`Store::begin`] finds what is kept
///   for it or begins anew.
/// * **Under an id of the server's making** ([`Store::make_id`]), for resumable uploads over HTTP. It is begun once. After
///   that [`Store::reopen`] finds it by the id alone.
///
/// | request | calls, in order |
/// |---|---|
/// | create | `make_id`, `begin`, `submit(Hold)`; settled: tell the id, `keep` |
/// | ask for the offset | `reopen`, `submit(Hold)`; settled: tell `held`, `keep` |
/// | append | `reopen`, compare the offset with `held`, `reserve`, `append` and `checkpoint` …, `submit(Hold)`; settled: tell `held`, `keep` |
/// | append the rest | the same with `submit(Publish)` in the place of `submit(Hold)` |
/// | remove | `reopen`, drop |
///
/// **An offset may be told when a [`Job::Hold`] has settled**: then no crash takes it back. Content behind the last
/// [`Partial::checkpoint`] does not count yet. So if the checksum of a piece comes at its end, the checkpoint is made after
/// the comparison; if the checksum is wrong, `keep` forgets the piece, and the offset is what it was.
///
/// The id of an upload that is published or removed is unknown from then on. For a published one there is its receipt, for a
/// while ([`Store::receipt`]).
pub trait Store: Sized {
    /// What an upload is written to until it is whole.
    type Partial: Partial;
    /// A stored file, to be read from its beginning. A read fails with `WouldBlock` where it would wait for the disk.
    type Content: io::Read;

    /// Creates a partial file for an upload, or opens the one that was kept for it.
    ///
    /// # Errors
    /// [`StoreError::Taken`] and [`StoreError::Full`] as early as it can be known, [`StoreError::Busy`] while another upload
    /// has the resume id, and any error of the file system.
    fn begin(&self, target: &Target) -> Result<Self::Partial, StoreError>;

    /// A new id for an upload: 128 random bits, so that nobody can guess it.
    ///
    /// # Errors
    /// The system has no random numbers yet.
    fn make_id(&self) -> Result<ResumeId, StoreError>;

    /// Opens the upload that was begun under `id`, which the server has made. `None`: there is none, or not any more. No space
    /// is reserved for it yet. Its content that no checkpoint covers is gone. A drop of the partial file removes the upload, so
    /// usually [`Partial::keep`] is called.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another request has the upload, and any error of the file system.
    fn reopen(&self, id: &ResumeId) -> Result<Option<Reopened<Self::Partial>>, StoreError>;

    /// The receipt of the upload that was published under `id`, which the server has made. `None`: there was none, it was
    /// removed, or that is too long ago. A crash may leave it before the caller has heard of the result.
    fn receipt(&self, id: &ResumeId) -> Option<Receipt>;

    /// Opens the stored file `name`, which must have `size` bytes. `None`: there is no such name.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if anything else has the name, and any error of the file system.
    fn find(&self, name: &Name, size: u64) -> Result<Option<Self::Content>, StoreError>;

    /// The mark of the stored file `name`. `None`: there is no such name, or the file system does not tell.
    fn mark(&self, name: &Name) -> Option<Mark>;

    /// Hands a job to the disk. Returns what has become of it if that is known at once (nothing is synced, or the job failed
    /// before it got to the disk). If not, [`Store::settled`] tells it later, once, under the same `token`.
    fn submit(&mut self, token: Token, job: Job<'_, Self>) -> Option<Settled>;

    /// What has become of submitted jobs since the last call, in any order.
    fn settled(&mut self) -> Vec<Settled> {
        Vec::new()
    }

    /// Whether each published file is to be put into a queue: see [`Partial::queue_as`].
    fn has_queue(&self) -> bool {
        false
    }

    /// Whether an upload with this resume id is in progress here, or the disk is still busy with one.
    fn is_busy_with(&self, id: &ResumeId) -> bool;

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
    /// In bytes, if it is known in advance.
    pub size: Option<u64>,
    /// The digest that its content must have.
    pub promise: Option<Promise>,
    /// Under which it can be resumed. A client's needs a size and a promise.
    pub resume: Option<&'a ResumeId>,
    /// Under an id of the server's making: kept with it, for [`Terms`].
    pub mtime: Option<NonZeroU64>,
    /// Under an id of the server's making: kept with it, for [`Terms`]. At most [`super::Record::NOTE_MAX_BYTES`], without
    /// control characters.
    pub note: &'a str,
}

impl<'a> Target<'a> {
    /// An upload of unknown size and digest.
    pub fn new(name: &'a Name, on_exists: OnExists) -> Self {
        Self { name, on_exists, size: None, promise: None, resume: None, mtime: None, note: "" }
    }
}

/// What an upload was begun with that is found by its id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its final name.
    pub name: Name,
    /// What to do when that is taken.
    pub on_exists: OnExists,
    /// In bytes, once it is known: from the beginning, or by [`Partial::set_size`].
    pub size: Option<u64>,
    /// The digest that its content must have.
    pub promise: Option<Promise>,
    /// The time of the stored file, in seconds since the epoch. It is not set yet.
    pub mtime: Option<NonZeroU64>,
    /// What the caller wants to know again, as it was.
    pub note: Box<str>,
}

/// An upload that was opened by its id.
#[derive(Debug)]
pub struct Reopened<P> {
    /// It holds all that counts.
    pub partial: P,
    /// What the upload was begun with.
    pub terms: Terms,
}

/// How much of an upload counts: from here it can be resumed.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The number of bytes that count.
    pub offset: u64,
    /// Their digest so far, if one is promised.
    pub hasher: Option<Hasher>,
}

/// The caller's word for one job: it comes back with the result. The store only passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u128);

/// Work that may have to wait for the disk.
pub enum Job<'a, S: Store> {
    /// Give a partial file its final name: the one of its [`Target`], or under [`OnExists::Rename`] that name with a number.
    Publish(S::Partial),
    /// Make a stored file as durable as a published one: another upload may just have stored it.
    Confirm(S::Content),
    /// Make what a partial file holds durable. The upload may continue meanwhile.
    Hold(&'a mut S::Partial),
}

/// What has become of a submitted job.
#[derive(Debug)]
pub struct Settled {
    /// As it was submitted.
    pub token: Token,
    /// The result.
    pub done: Done,
}

/// The result of a job.
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Publish`] and [`Job::Confirm`]: the name of the stored file.
    Stored(Result<Name, StoreError>),
    /// Of [`Job::Hold`].
    Held(Result<(), StoreError>),
}

/// An upload's bytes before they have a final name. Dropping it removes it.
pub trait Partial {
    /// The final name that was asked for.
    fn name(&self) -> &Name;

    /// What it holds, in bytes.
    fn held(&self) -> u64;

    /// All that it holds, and the state of its digest. `None` if it has no resume id, promises no digest, or holds nothing.
    fn state(&self) -> Option<Held>;

    /// All that it holds counts from now on. If a digest is promised, `hasher` has taken all of it in. An upload that is kept
    /// can be resumed from its last checkpoint.
    fn checkpoint(&mut self, hasher: Option<&Hasher>);

    /// Keeps it up to its last checkpoint, to be resumed. Removes it if it has no checkpoint or no resume id.
    fn keep(self);

    /// Sets space aside for the rest of an upload whose id the server has made. To be called before content is accepted.
    /// `size`: of the whole upload, if it is known.
    ///
    /// # Errors
    /// [`StoreError::Full`], and any error of the file system. There may be space later: the partial is as it was.
    fn reserve(&mut self, size: Option<u64>) -> Result<(), StoreError>;

    /// The size of an upload whose id the server has made has become known. It is durable when a later [`Job::Hold`] has
    /// settled.
    ///
    /// # Errors
    /// It was known before, and any error of the file system.
    fn set_size(&mut self, size: u64) -> Result<(), StoreError>;

    /// When its content was last changed, in seconds since the epoch. A kept upload expires `--partial-ttl` later.
    ///
    /// # Errors
    /// Any error of the file system.
    fn changed_at(&self) -> Result<u64, StoreError>;

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Any error of the file system; the partial is then of no further use.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Appends all of the `count` bytes that `pipe` holds.
    ///
    /// # Errors
    /// As [`Partial::append`], and `UnexpectedEof` if there are fewer; some of the bytes may still be in the pipe.
    fn append_from(&mut self, pipe: BorrowedFd<'_>, count: usize) -> Result<(), StoreError> {
        self.copy_from(pipe, count)
    }

    /// [`Partial::append_from`] where the bytes have to be copied.
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
    /// Any error of the file system.
    fn set_mtime(&mut self, seconds: u64) -> Result<(), StoreError>;

    /// The mark that it will have when it is published. Appending changes it. `None`: the file system does not tell.
    fn mark(&mut self) -> Option<Mark>;

    /// When the file is published, it is also put into the queue of the store, with this slip. To be called before
    /// [`Job::Publish`] is submitted, if [`Store::has_queue`].
    fn queue_as(&mut self, _: Slip) {}

    /// Gives the file its final name, and returns the one that it got: the one that was asked for, or under
    /// [`OnExists::Rename`] that one with a number. The only way to a final name. For the store itself: others submit a
    /// [`Job::Publish`].
    ///
    /// # Errors
    /// [`StoreError::Taken`], and any error of the file system; the partial is then removed.
    fn publish(self) -> Result<Name, StoreError>;
}

impl StoreError {
    /// The name belongs to a file that differs from the upload.
    pub const NOT_THE_SAME: Self = Self::Taken("the name is taken by another file");
    /// An upload with the same resume id is in progress, here or at another server.
    pub const BUSY: Self = Self::Busy("another upload is in progress under this resume id");
}

/// Why an upload cannot be stored.
#[derive(Debug)]
pub enum StoreError {
    /// The final name is taken, and the policy allows no other; the words say by what or why.
    Taken(&'static str),
    /// Another upload has it at the moment; the words say what.
    Busy(&'static str),
    /// No space, no inodes or no quota left.
    Full(io::Error),
    /// It cannot be put into the queue.
    Queue(io::Error),
    /// Any other error of the file system.
    Io(io::Error),
    /// A sync has failed before: the store takes nothing more.
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
            Self::Queue(error) => write!(f, "the file cannot be put into the queue, so it is not stored: {error}"),
            Self::Io(error) => write!(f, "the file cannot be stored: {error}"),
            Self::Failed => f.write_str("the server's disk has failed; it takes no files until it is restarted"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Adds to an error what could not be done with what, in words for people.
pub(super) fn cannot<E: fmt::Display + Into<io::Error>>(
    subject: impl fmt::Display,
    what: &str,
) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let words = format!("{subject} cannot be {what}: {error}");
        io::Error::new(error.into().kind(), words)
    }
}

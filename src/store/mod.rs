//! Files: an open directory, and partial files, which get a final name by publishing only.
//!
//! ```text
//!   begin --> Partial --append, append--> publish --> (sync) --> a name, all at once
//!                |
//!                +-- dropped: it is removed
//!                +-- kept: under its resume id, to be resumed
//! ```
//!
//! **A name says that the file is whole.** A server that writes to the final name shows half a file to every reader, and
//! leaves it there when it dies. So the bytes go to a file that has no name (`O_TMPFILE`, open(2)) or one of the server's
//! own. The final name is given in one step, linkat(2) or rename(2) with `RENAME_NOREPLACE`, so that an existing file is
//! not touched. A killed server leaves nothing that looks like an upload.
//!
//! **A file is on the disk when it has been synced, and its name when its directory has** (fsync(2)). The order matters: a
//! name that survives a power cut without its content is an empty file that looks like an upload.
//!
//! This module takes validated names only, and knows nothing of sockets or of the conversation. The rest of the program
//! sees the traits of `port`; the simulation has its own store behind them. Syncs and names go through [`Commit`] on any
//! [`Disk`].
//!
//! ```
//! use intake::proto::{Name, NamePolicy, OnExists};
//! use intake::store::{Directory, Done, Job, Partial, Store, Target, Token};
//!
//! let inbox = tempfile::tempdir()?;
//! let mut store = Directory::open(inbox.path())?;
//! let name = Name::parse(b"notes.txt", NamePolicy::default()).unwrap();
//!
//! let mut partial = store.begin(&Target::new(&name, OnExists::Rename)).unwrap();
//! partial.append(b"one ").unwrap();
//! partial.append(b"two").unwrap();
//! assert!(!inbox.path().join("notes.txt").exists(), "nobody sees it before it is whole");
//! let settled = store.submit(Token(1), Job::Publish(partial)).expect("without a sync it is done at once");
//! let Done::Stored(Ok(stored)) = settled.done else { panic!("it cannot be stored") };
//! assert_eq!(std::fs::read(inbox.path().join(stored.as_str()))?, b"one two");
//!
//! let again = store.begin(&Target::new(&name, OnExists::Rename)).unwrap();
//! let settled = store.submit(Token(2), Job::Publish(again)).unwrap();
//! let Done::Stored(Ok(stored)) = settled.done else { panic!("it cannot be stored") };
//! assert_eq!((settled.token, stored.as_str()), (Token(2), "notes.txt.1"));
//! # Ok::<(), std::io::Error>(())
//! ```

mod blocks;
mod boot;
mod commit;
mod committer;
mod directory;
mod handles;
mod kept;
mod lockdir;
mod mark;
mod method;
mod naming;
mod owned;
mod partial;
mod permissions;
mod port;
mod queue;
mod queued;
mod record;
mod rounds;
pub mod slip;
mod space;
mod stored;

pub use commit::{Commit, Disk, Hold, Lineup, Synced, Taken, Work};
pub use directory::{Directory, TEND_EVERY};
pub use mark::Mark;
pub use method::{Link, Method};
pub use owned::{Owned, Owners};
pub use partial::PartialFile;
use port::cannot;
pub use port::{Checkpoint, Done, Job, Partial, Reopened, Settled, Store, StoreError, Target, Terms, Token};
pub use record::{Content, Found, Patch, Record};
use slip::Slip;
pub use space::Room;
pub use stored::Stored;

#[cfg(test)]
mod reopen_tests;
#[cfg(test)]
mod tests;

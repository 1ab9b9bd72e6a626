//! What happens on one connection, step by step: what the trace shows.
//!
//! Plain values. [`super::words`] spells them for people, [`super::json`] for programs.

use std::io;
use std::net::SocketAddr;

use super::ending::CloseReason;
use crate::net::Flags;
use crate::net::diag::Tcp;
use crate::proto::{Awaits, Event, Farewell, Name};
use crate::server::pace::Lapse;
use crate::store::StoreError;

/// The most that is quoted of what was said, in bytes, so that no line is too long to be written at once.
const EXCERPT_BYTES: usize = 200;

/// Something that happened on one connection.
#[derive(Debug)]
pub enum Scene<'a> {
    /// It was taken from the backlog.
    Accepted {
        /// The server's address.
        local: Option<SocketAddr>,
    },
    /// The poll reported it.
    Event(Flags),
    /// A read found bytes.
    Read {
        /// How many.
        bytes: usize,
        /// The size of the buffer, in bytes.
        room: usize,
    },
    /// Bytes were spliced from the socket into the file.
    Spliced {
        /// How many.
        bytes: usize,
    },
    /// A read found the end: the client sends no more.
    ReadEnd,
    /// A read found nothing: the socket is drained.
    ReadWouldBlock,
    /// The kernel now reports content only when this much has come (`SO_RCVLOWAT`).
    LowWater {
        /// In bytes.
        bytes: usize,
    },
    /// This was written.
    Wrote(&'a [u8]),
    /// A write found no room: the client does not read.
    WriteWouldBlock,
    /// A read or a write failed, for good.
    Failed(&'a io::Error),
    /// The conversation made this of what was read.
    Heard(&'a Event<'a>),
    /// What the conversation waits for has changed.
    State {
        /// What it waited for.
        from: Awaits,
        /// What it waits for.
        to: Awaits,
    },
    /// What is held of an upload that is resumed has been synced, or has not.
    Held {
        /// How much is held, in bytes.
        offset: u64,
        /// The name that the file will have, or why the sync failed.
        result: &'a Result<Name, StoreError>,
    },
    /// A file is stored, or is not.
    Settled(&'a Result<Name, StoreError>),
    /// A deadline has passed.
    Lapsed(Lapse),
    /// It goes back into the ready queue, behind the others.
    Yielded {
        /// What it spent of its budget, in bytes.
        spent_bytes: usize,
    },
    /// Everything is sent, and this is how the connection is closed.
    Parting(Farewell),
    /// What the kernel knows of the two addresses, or why it is not asked any more.
    Kernel(&'a io::Result<Tcp>),
    /// The socket is closed.
    Closed {
        /// Why.
        reason: &'a CloseReason,
        /// Which side ended first.
        first: Side,
    },
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender of files.
    Client,
    /// The receiver of files.
    Server,
}

/// The beginning of what was said.
pub fn excerpt(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(EXCERPT_BYTES)];
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(start))
}

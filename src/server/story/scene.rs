//! The steps of one connection, as the trace shows them.
//!
//! Plain values. [`super::words`] spells them for people, [`super::json`] for programs.

use std::io;
use std::net::SocketAddr;

use super::ending::CloseReason;
use crate::access::Who;
use crate::net::Flags;
use crate::net::diag::Tcp;
use crate::net::tls::Agreed;
use crate::proto::{Awaits, Event, Farewell, Name, Origin};
use crate::server::pace::Lapse;
use crate::store::StoreError;

/// The most bytes of a reply that are quoted, so that no line is too long to be written at once.
const EXCERPT_BYTES: usize = 200;

/// A step of one connection.
#[derive(Debug)]
pub enum Scene<'a> {
    /// It was accepted.
    Accepted {
        /// The server's address.
        local: Option<SocketAddr>,
    },
    /// The proxy that has connected has told where the bytes come from.
    Proxied(&'a Origin),
    /// The client has proven its name.
    Named(&'a Who),
    /// The TLS handshake is over.
    Secured(&'a Agreed),
    /// The poll reported it.
    Event(Flags),
    /// A read returned bytes.
    Read {
        /// The number of bytes.
        bytes: usize,
        /// The size of the buffer, in bytes.
        room: usize,
    },
    /// Bytes were spliced from the socket into the file.
    Spliced {
        /// The number of bytes.
        bytes: usize,
    },
    /// A read returned the end: the client sends no more.
    ReadEnd,
    /// A read would block: the socket is drained.
    ReadWouldBlock,
    /// The kernel now reports content only when this much has come (`SO_RCVLOWAT`).
    LowWater {
        /// In bytes.
        bytes: usize,
    },
    /// These bytes were written.
    Wrote(&'a [u8]),
    /// A write would block: the client does not read.
    WriteWouldBlock,
    /// A read or a write failed: the connection is lost.
    Failed(&'a io::Error),
    /// The meaning of the bytes for the conversation.
    Heard(&'a Event<'a>),
    /// The conversation now waits for something else.
    State {
        /// The state before.
        from: Awaits,
        /// The state now.
        to: Awaits,
    },
    /// The partial file of a resumed upload has been synced, or the sync failed.
    Held {
        /// Its size, in bytes.
        offset: u64,
        /// Why the sync failed, if it did.
        result: &'a Result<(), StoreError>,
    },
    /// A file is stored, or could not be.
    Settled(&'a Result<Name, StoreError>),
    /// A deadline has passed.
    Lapsed(Lapse),
    /// It joins the end of the ready queue.
    Yielded {
        /// What it spent of its budget, in bytes.
        spent_bytes: usize,
    },
    /// Everything is sent, and this is how the server closes.
    Parting(Farewell),
    /// What the kernel knows about the two addresses, or why it is not asked any more.
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

/// The beginning of a reply.
pub fn excerpt(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(EXCERPT_BYTES)];
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(start))
}

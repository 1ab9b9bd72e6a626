//! intake: a file receiver on raw mio. One thread, one poll, thousands of uploads; a file gets its name when it is whole.
//!
//! This page is the way in: how the code is laid out, what one turn of the loop does, and what a byte passes on its way
//! from the network to the disk. Each module begins with its own theory, the private ones too (`cargo doc` shows them with
//! `--document-private-items`); the small programs in `examples/` show every piece of it at work, on a real kernel.
//!
//! # What is promised
//!
//! This library exists for the program `intake` and its tests. To be used by others are [`proto`], [`server::Server`] with
//! its [`server::config::Config`], [`client::send`], and [`load::run()`] with its [`load::Plan`]. Everything else is public
//! for the program and its tests: no promise.
//!
//! # The floors
//!
//! Imports go down, never up. To find something, ask what it must know to do its work.
//!
//! ```text
//!   people       cli                        what was typed -> what is meant (in the binary)
//!   ------------------------------------------------------------------------------------
//!   drives       server   client   load     the turn; the sender; the load tester and ping
//!   ------------------------------------------------------------------------------------
//!   the system   net      store             sockets; files
//!   ------------------------------------------------------------------------------------
//!   the ground   proto    reactor           the wire as values; what a turn is made of
//! ```
//!
//! | room | what is in it | what it must not know |
//! |---|---|---|
//! | [`proto`] | both halves of the conversation: bytes in, events and bytes out | sockets, files, clocks |
//! | [`reactor`] | moments, slots, ready queue, deadlines, budget | sockets, files, clocks |
//! | [`net`] | listener, stream, echo, signals, readiness | what is said over them |
//! | [`store`] | a directory handle, partial files, publish, the committer | who sent what |
//! | [`server`] | the turn, the connection table, one connection's glue, every limit | how any of it is done |
//! | [`client`] | what `send` does | the server's insides |
//! | [`load`] | many clients at once, and what must become of their files | the server's insides |
//!
//! Time is a value that the turn hands down, and so the lower floors can be run by a test without waiting: the simulation
//! in `tests/it/simulation.rs` drives the very connection code that the poll drives, over wires, disks and hours of its own,
//! and `tests/it/crash.rs` drives it and the commit over a disk whose power is cut at every step.
//!
//! # The turn
//!
//! ```text
//!   +-> poll      asleep until something happens or somebody is late
//!   |   absorb    events set flags and line connections up; nothing is closed yet
//!   |   settle    what the committer has published is told
//!   |   serve     who was ready at the start, once each, within a budget of bytes
//!   |   expire    whose time was up when the poll was asked, and who is not ready
//!   |   echo      a bounded number of datagrams
//!   +-- accept    a bounded number of connections, last
//! ```
//!
//! The order is the correctness. Nothing is closed while events are absorbed and nothing is accepted before all are served,
//! so an event cannot reach a connection younger than itself; a serial in every [`reactor::Id`] is the second lock.
//! Deadlines are judged by the moment *before* the poll: what a client had sent by then is known and has been read, however
//! long the process was stopped in between.
//!
//! Readiness is *edge-triggered*: the kernel tells a change once. So it is kept in user space until a read or a write says
//! `WouldBlock`, and **a connection that could get further stands in the ready queue**. Whatever else changes, that must
//! not: a connection that is neither drained nor queued waits for an edge that never comes.
//!
//! # The path of a byte
//!
//! ```text
//!   kernel -- read ----> one buffer, shared by all
//!     |                    |
//!     |                    |  proto::Receiver says which part of it is content
//!     |                    v
//!     |                  store::Partial -- write ---> page cache -- publish --> a name
//!     |                                                   ^
//!     +------ splice --> one pipe, shared by all -- splice
//! ```
//!
//! No connection has a buffer of its own but for its header, and nothing is copied in between: the receiver says which part
//! of the shared buffer is content, and that slice is what is written. Of a long upload that nothing is computed over nobody
//! has to see the bytes: they pass from the socket to the file through a pipe. When the content is whole the partial file is
//! published, which is the only way to a final name. Under [`server::config::Durability::Full`] a thread of its own, the
//! committer, syncs it first, in batches, and wakes the poll; no other work leaves the loop's thread.
//!
//! # In which order to read
//!
//! 1. [`reactor`], five small structures, and why an edge must be remembered.
//! 2. [`proto`], the conversation. Its `receiver` is the heart of the server, and knows no server.
//! 3. [`net`] and [`store`], what the kernel promises and what it does not.
//! 4. [`server`], the turn; then its `connections`, one turn without the operating system, and `connection`, one visit.
//! 5. A story of your own: `intake serve --trace`, and `docs/one-upload.md` beside it.

#[allow(clippy::disallowed_methods, reason = "it blocks: nobody but its own user waits for it")]
pub mod client;
#[allow(clippy::disallowed_methods, reason = "it measures, and looks for the errors of its own connects")]
pub mod load;
pub mod net;
pub mod proto;
pub mod reactor;
pub mod server;
pub mod store;

#[cfg(test)]
#[path = "../tests/it/leave_out.rs"]
mod leave_out;

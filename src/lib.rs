//! intake: a file receiver on raw mio. One thread, one poll, thousands of uploads; a file gets its name when it is whole.
//!
//! Begin here: how the code is laid out, what one turn of the loop does, and where a byte goes on its way from the network
//! to the disk. Each module begins with its purpose, the private ones too (`cargo doc` shows them with
//! `--document-private-items`). The small programs in `examples/` show each part at work, on a real kernel.
//!
//! # What is promised
//!
//! This library exists for the program `intake` and its tests. Others may use [`proto`], [`server::Server`] with its
//! [`server::config::Config`], [`client::send`], and [`load::run::send_files`]. Everything else is public for
//! the program and its tests, without a promise.
//!
//! # The floors
//!
//! Imports go down: a room uses the floors below it, never the rooms beside it. To find a piece of code, ask what it must
//! know to do its work.
//!
//! ```text
//!   people       cli                        the command line (in the binary)
//!   ------------------------------------------------------------------------------------
//!   drives       server   client   load   consume   the turn; the sender; the load tester; what comes after
//!   ------------------------------------------------------------------------------------
//!   the system   net      store    access   sandbox   sockets; files; who may write; what the process gives up
//!   ------------------------------------------------------------------------------------
//!   the ground   proto    reactor  units    the wire as values; the parts of a turn; sizes and durations
//! ```
//!
//! | room | content | must not know |
//! |---|---|---|
//! | [`proto`] | both halves of the conversation: bytes in, events and bytes out | sockets, files, clocks |
//! | [`reactor`] | moments, slots, ready queue, deadlines, the table of these, budget; counts by source | sockets, files, clocks |
//! | [`units`] | sizes and durations, as people type them | everything else |
//! | [`access`] | who may write, and how much | sockets, files, clocks, the conversation's state |
//! | [`net`] | listener, stream, echo, signals, readiness | the conversation |
//! | [`sandbox`] | another user, Landlock, seccomp | who uses which file, and what for |
//! | [`store`] | a directory handle, partial files, publish, the committer | who sent what |
//! | [`server`] | the turn, the connection table, each connection, every limit | how sockets and files do their work |
//! | [`client`] | the sender | the server's insides |
//! | [`consume`] | runs a command for each published file | the server's insides |
//! | [`load`] | many clients at once, and a check of their files | the server's insides |
//!
//! The turn hands the time down as a value, so a test can run the lower floors without waiting. The simulation in
//! `tests/it/simulation.rs` drives the same connection code as the poll does, over its own wires, disks and hours.
//! `tests/it/crash.rs` drives it and the commit over a disk whose power is cut at every step.
//!
//! # The turn
//!
//! ```text
//!   +-> poll      sleeps until something happens or a deadline passes
//!   |   absorb    events set flags and queue their connections; nothing is closed yet
//!   |   settle    clients get the receipts of published files
//!   |   shake     a few TLS handshakes that have waited for their turn
//!   |   serve     the connections that were ready at the start, once each, within a budget of bytes
//!   |   expire    connections whose deadline had passed when the poll began, unless they are ready
//!   |   tend      once a minute: the server's own files
//!   |   echo      a bounded number of datagrams
//!   +-- accept    a bounded number of connections, last
//! ```
//!
//! The order makes it correct. Nothing is closed while events are absorbed, and nothing is accepted before all are served.
//! So an event cannot reach a connection younger than itself; a serial in every [`reactor::Id`] is a second safeguard.
//! Deadlines are compared with the moment *before* the poll. All bytes that a client had sent by then have been read, however
//! long the process was stopped in between.
//!
//! Readiness is *edge-triggered*: the kernel reports each change once. So the server remembers it until a read or a write
//! returns `WouldBlock`, and **a connection that could make progress is in the ready queue**. This must stay true whatever
//! else changes: a connection that is neither drained nor queued waits for an edge that never comes.
//!
//! The turn is a function of [`server::Server`]. [`server`] explains each step, and what happens after SIGTERM.
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
//! The path is the same in every dialect, HTTP included. The receiver collects the head of a request until it is whole. Then
//! it says which parts of the shared buffer are content: not the sizes of chunks, nor the boundaries of a form. Those slices
//! are written from where they lie. A connection keeps bytes of its own only for a short time: an unfinished head, input that
//! has to wait for the disk, and, in a form, the few bytes that may begin a boundary.
//!
//! After its first megabyte an upload is spliced, unless it has a digest to compute or is a form: its bytes go from the
//! socket to the file through a pipe, and never enter the program. When the content is whole, the partial file is published,
//! which is the only way to a final name. Under [`server::config::Durability::Full`] other threads come first: several sync,
//! each one file at a time; one more, the committer, names the synced files and wakes the poll. Another thread tends the
//! server's own files, once a minute.
//!
//! TLS comes in between, if the first byte of a connection asks for it (`net::tls`): records are read in large pieces into the
//! same buffer, and decrypted over themselves. Nothing is spliced then, and nothing above the stream differs, except that an
//! end counts only if the client has announced it.
//!
//! A reply goes the other way. The receiver spells it and puts it into the order of the requests; the connection writes it
//! to the socket. The system calls for bytes are in few places: `Connection::read`, `splice` and `send`
//! (`src/server/connection.rs`) for the socket, `append` and `append_from` (`src/store/partial.rs`) for the file.
//!
//! # In which order to read
//!
//! 1. [`reactor`]: six small structures, and why an edge must be remembered.
//! 2. [`proto`]: the conversation. Read `step` first, the words between a conversation and its driver. The `receiver` is the
//!    heart of the server, and knows no server; `dialect` reads its heads, `body` finds the end of its content.
//! 3. [`net`] and [`store`]: the promises of the kernel, and their limits.
//! 4. [`server`]: the turn. Then its `connections`, one turn without the operating system; `connection`, one visit; and
//!    `work`, what the disk does for a connection.
//! 5. An upload of your own: `intake serve --trace`, with `docs/one-upload.md` beside it.

pub mod access;
#[allow(clippy::disallowed_methods, reason = "it may block: only its own user waits for it")]
pub mod client;
#[allow(clippy::disallowed_methods, reason = "a process of its own: it may wait, and measures how long a command runs")]
pub mod consume;
#[allow(clippy::disallowed_methods, reason = "it measures time, and asks its own sockets for the error of a connect")]
pub mod load;
pub mod net;
pub mod proto;
pub mod reactor;
pub mod sandbox;
pub mod server;
pub mod store;
pub mod units;

#[cfg(test)]
#[path = "../tests/it/leave_out.rs"]
mod leave_out;

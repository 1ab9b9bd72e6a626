//! The parts of an event loop's turn: slots, a ready queue, moments and deadlines, a table of them, and a budget. And a table of
//! fixed size for what is counted of each source.
//!
//! ```text
//!   event ---> Slots: whose is it? a stale event finds nothing
//!                |
//!                v
//!           ReadyQueue ---> served within a Budget ---> drained: waits for its next edge
//!                ^                    |                           |
//!                +--- budget spent ---+                           v
//!                                                  Deadlines: how long it may wait
//! ```
//!
//! The kernel reports each *change* once (edge-triggered, epoll(7)). It does not report unfinished work again. So
//! readiness is kept here until a read or a write returns `WouldBlock`. A connection is either drained or in the ready
//! queue. One that is neither waits for an event that never comes, and under load this goes unnoticed, because the next
//! bytes make a new edge.
//!
//! Plain data structures. Nothing here knows a socket, a file or a clock; time is a value that is passed in.

mod budget;
mod deadlines;
mod moment;
mod readiness;
mod ready;
mod slots;
mod sources;
mod table;

pub use budget::Budget;
pub use deadlines::Deadlines;
pub use moment::Moment;
pub use readiness::Readiness;
pub use ready::ReadyQueue;
pub use slots::{Id, Slots};
pub use sources::{Source, Sources};
pub use table::{Guest, Table};

//! What a turn of the event loop is made of: slots, a ready queue, moments and deadlines, and a budget.
//!
//! ```text
//!   event ---> Slots: whom is it for? a stale one finds nobody
//!                |
//!                v
//!           ReadyQueue ---> served within a Budget ---> drained: it waits for its next edge
//!                ^                    |                           |
//!                +--- budget spent ---+                           v
//!                                                  Deadlines: and not for ever
//! ```
//!
//! The kernel tells of a *change* (edge-triggered, epoll(7)): once, and never again for what was left undone. So what
//! it has told is kept here until a read or a write says `WouldBlock`. A connection is either drained or in the queue;
//! one that is neither waits for an event that never comes, and under load nobody notices, because the next bytes make
//! a new edge.
//!
//! Plain data structures. Nothing here knows a socket, a file or a clock; time is a value that is handed in.

mod budget;
mod deadlines;
mod moment;
mod ready;
mod slots;

pub use budget::Budget;
pub use deadlines::Deadlines;
pub use moment::Moment;
pub use ready::ReadyQueue;
pub use slots::{Id, Slots};

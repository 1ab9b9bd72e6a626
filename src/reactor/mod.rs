//! What a turn of the event loop is made of: slots, a ready queue, deadlines and a budget.
//!
//! Plain data structures. Nothing here knows a socket, a file or a clock; time is a value that is handed in.

mod budget;
mod deadlines;
mod ready;
mod slots;

pub use budget::Budget;
pub use deadlines::Deadlines;
pub use ready::ReadyQueue;
pub use slots::{Id, Slots};

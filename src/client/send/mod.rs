//! Sends files: a few connections, each with as many uploads as it takes, until every file has its outcome.
//!
//! ```text
//! uploads -- one by one --> job -- over one connection after the other --> conversation
//!                            ^                                                 |
//!                            +---- how each ended; which to try again ---------+
//! ```
//!
//! Imports go one way: `job` uses `conversation`, and both use `pending`, `error`, `plan` and `content`.

mod content;
mod conversation;
mod error;
mod job;
mod pending;
mod plan;
#[cfg(test)]
mod tests;

use std::thread;

pub use content::{Content, Source, SourceError};
pub use error::SendError;
use job::{Job, Shared};
pub use plan::{Event, Plan, Sent, Upload};

/// Sends `uploads`, and calls `on_event` from several threads. An upload without an [`Event::Settled`] was not tried, because
/// there is no server.
pub fn send(plan: &Plan, uploads: &[Upload], on_event: impl Fn(Event<'_>) + Sync) {
    let shared = Shared::new(plan, uploads, &on_event);
    thread::scope(|scope| {
        for number in 0..plan.jobs.min(uploads.len()) {
            let job = Job::new(number, &shared);
            scope.spawn(|| job.run());
        }
    });
}

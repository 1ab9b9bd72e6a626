//! One visit of a connection: what the loop lends to it, and what the loop is to do afterwards.
//!
//! Values only. Knows neither the loop nor the connection.

use super::config::Limits;
use super::pace::Clock;
use super::story::{CloseReason, Story};
use super::work::Disk;
use crate::net::Pipe;
use crate::proto::Rules;

/// What the loop lends to a connection while it serves it.
pub struct Context<'a, D> {
    /// Where files go.
    pub disk: Disk<'a, D>,
    /// The rules of every conversation.
    pub rules: &'a Rules,
    /// How long to wait for the client, and for how much.
    pub limits: &'a Limits,
    /// One buffer for all connections. Nothing stays in it after the visit. Its length is the most that one read may bring.
    pub buffer: &'a mut [u8],
    /// One pipe for all connections, empty between visits. `None`: the system has no pipe left, so nothing is spliced.
    pub pipe: Option<&'a Pipe>,
    /// Other connections wait for room to begin a file: it would be unfair to begin one before them.
    pub others_wait: bool,
    /// The turn's clock.
    pub clock: Clock,
    /// Where the connection tells what happens.
    pub story: Story<'a>,
}

/// What the loop is to do with a connection that it has served.
#[derive(Debug)]
pub enum Verdict {
    /// Wait for the next event or the deadline.
    Wait,
    /// Put it back into the ready queue, behind the others: it has more to do.
    Yield,
    /// End the connection that has the upload it wants to resume, then visit it with `retry`.
    Contend,
    /// Wait until fewer files wait for the disk, then visit it with `begin_now`: it is about to begin a file.
    Room,
    /// Close it.
    Close(CloseReason),
}

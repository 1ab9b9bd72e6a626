//! One visit of a connection: what the loop lends to it, and what the loop is to do afterwards.
//!
//! Values only. Knows neither the loop nor the connection.

use super::config::Limits;
use super::pace::Clock;
use super::reload::Security;
use super::rulebook::{Kind, RuleBook};
use super::story::{CloseReason, Story};
use super::work::Disk;
use crate::access::Access;
use crate::net::Pipe;
use crate::proto::Rules;

/// What the loop lends to a connection while it serves it.
pub struct Context<'a, D> {
    /// Where files go.
    pub disk: Disk<'a, D>,
    /// Who may write, and how much.
    pub access: &'a mut Access,
    /// The rules of this conversation.
    pub rules: &'a Rules,
    /// Those of every kind of connection.
    pub book: &'a RuleBook,
    /// How the server proves who it is, and whether it must.
    pub security: &'a Security,
    /// How long to wait for the client, and for how much.
    pub limits: &'a Limits,
    /// One buffer for all connections. Nothing stays in it after the visit. One read takes at most its length.
    pub buffer: &'a mut [u8],
    /// One pipe for all connections, empty between visits. `None`: the system has no pipe left, so nothing is spliced.
    pub pipe: Option<&'a Pipe>,
    /// Other connections wait for room to begin a file, so this one waits behind them.
    pub others_wait: bool,
    /// The turn's clock.
    pub clock: Clock,
    /// Takes what happens, for the log, the counters and the trace.
    pub story: Story<'a>,
}

impl<D> Context<'_, D> {
    /// The connection has become another kind.
    pub fn becomes(&mut self, kind: Kind) {
        self.rules = self.book.of(kind);
    }
}

/// What the loop is to do with a connection that it has served.
#[derive(Debug)]
pub enum Verdict {
    /// Wait for the next event or the deadline.
    Wait,
    /// Put it back into the ready queue, behind the others: it has more to do.
    Yield,
    /// Another connection has the upload that this one wants to resume: end that one, then visit this one with `retry`.
    Contend,
    /// It is about to begin a file: wait until fewer files wait for the disk, then visit it with `begin_now`.
    Room,
    /// It is about to begin a TLS handshake: wait until that may begin, then visit it with `shake_hands`.
    Handshake,
    /// Close it.
    Close(CloseReason),
}

//! What the server has done so far, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use super::connection::CloseReason;
use crate::proto::Code;

/// Counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections taken on.
    pub accepted: u64,
    /// Files published.
    pub stored: u64,
    /// Bytes of the files published.
    pub stored_bytes: u64,
    /// Conversations refused or cut off by us, by code.
    pub refused: BTreeMap<Code, u64>,
    /// Connections reset by the peer or the network in mid-upload.
    pub lost: u64,
    /// Connections that ended without a byte.
    pub silent: u64,
}

impl Stats {
    /// Counts one connection's ending.
    pub fn count(&mut self, reason: &CloseReason, content_bytes: u64) {
        match reason {
            CloseReason::Stored(_) => {
                self.stored += 1;
                self.stored_bytes += content_bytes;
            }
            CloseReason::Refused(refusal) | CloseReason::NotARequest(refusal, _) => {
                *self.refused.entry(refusal.code).or_default() += 1;
            }
            CloseReason::Lost(_) => self.lost += 1,
            CloseReason::Silent => self.silent += 1,
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, stored, stored_bytes, refused, lost, silent } = self;
        write!(f, "{accepted} accepted, {stored} stored ({stored_bytes} bytes), {lost} lost, {silent} silent")?;
        refused.iter().try_for_each(|(code, count)| write!(f, ", {count} refused with {}", code.0))
    }
}

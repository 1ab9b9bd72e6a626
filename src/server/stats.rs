//! What the server has done so far, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use super::ending::CloseReason;
use crate::proto::Code;

/// Counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections taken on.
    pub accepted: u64,
    /// Files published, or found to be there already.
    pub stored: u64,
    /// Uploads gone on with.
    pub resumed: u64,
    /// Bytes of content received.
    pub content_bytes: u64,
    /// Requests refused and uploads cut off by us, by code.
    pub refused: BTreeMap<Code, u64>,
    /// Connections reset by the peer or the network in mid-upload.
    pub lost: u64,
    /// Connections that ended without a byte.
    pub silent: u64,
}

impl Stats {
    /// Counts one connection's ending.
    pub fn count(&mut self, reason: &CloseReason) {
        match reason {
            CloseReason::Stored { .. } | CloseReason::Finished | CloseReason::Undecided => {}
            CloseReason::Refused(refusal, _) | CloseReason::NotARequest(refusal, _) => self.refuse(refusal.code),
            CloseReason::Lost(_) => self.lost += 1,
            CloseReason::Silent => self.silent += 1,
        }
    }

    /// Counts one refusal.
    pub fn refuse(&mut self, code: Code) {
        *self.refused.entry(code).or_default() += 1;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, stored, resumed, content_bytes, refused, lost, silent } = self;
        write!(
            f,
            "{accepted} accepted, {stored} stored, {resumed} resumed, {content_bytes} bytes received, {lost} lost, {silent} silent"
        )?;
        refused.iter().try_for_each(|(code, count)| write!(f, ", {count} refused with {}", code.0))
    }
}

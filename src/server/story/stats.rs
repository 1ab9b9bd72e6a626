//! The counts of the server since its start.

use std::collections::BTreeMap;
use std::fmt;

use super::ending::CloseReason;
use super::files::Files;
use super::{Ear, Fact, Whom};
use crate::proto::Code;

/// Counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Files published, or found to be stored already.
    pub stored: u64,
    /// Uploads resumed.
    pub resumed: u64,
    /// Bytes of content received.
    pub content_bytes: u64,
    /// Requests refused and uploads cut off by the server, by code.
    pub refused: BTreeMap<Code, u64>,
    /// Connections reset by the peer or the network.
    pub lost: u64,
    /// Connections that ended before a byte came.
    pub silent: u64,
    /// TLS handshakes that succeeded.
    pub secured: u64,
    /// TLS handshakes that did not: the two sides do not agree, or the client went or was too slow.
    pub not_secured: u64,
    /// What became of files.
    pub files: Files,
}

impl Ear for Stats {
    fn hear(&mut self, whom: &Whom, fact: &Fact) {
        self.files.hear(whom, fact);
        match fact {
            Fact::Accepted => self.accepted += 1,
            Fact::Secured => self.secured += 1,
            Fact::NotSecured => self.not_secured += 1,
            Fact::Resumed => self.resumed += 1,
            Fact::Received { bytes } => self.content_bytes += *bytes as u64,
            Fact::Stored { .. } | Fact::StoredForNobody { .. } => self.stored += 1,
            Fact::TurnedAway { refusal } => self.refuse(refusal.code),
            Fact::Refused { refusal, .. } | Fact::NotARequest { refusal, .. } => self.refuse(refusal.code),
            Fact::Proxied { .. } | Fact::Checked => {}
            Fact::Named { .. } | Fact::LostForNobody { .. } | Fact::Answered { .. } => {}
            Fact::Closed { reason, .. } => self.close(reason),
        }
    }
}

impl Stats {
    fn close(&mut self, reason: &CloseReason) {
        match reason {
            CloseReason::Stored { .. } | CloseReason::Finished | CloseReason::Undecided => {}
            CloseReason::Refused(refusal, _) | CloseReason::NotARequest(refusal, _) => self.refuse(refusal.code),
            CloseReason::Lost(_) => self.lost += 1,
            CloseReason::Silent => self.silent += 1,
        }
    }

    fn refuse(&mut self, code: Code) {
        *self.refused.entry(code).or_default() += 1;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, stored, resumed, content_bytes, refused, lost, silent, .. } = self;
        write!(
            f,
            "{accepted} accepted, {stored} stored, {resumed} resumed, {content_bytes} bytes received, {lost} lost, {silent} silent"
        )?;
        refused.iter().try_for_each(|(code, count)| write!(f, ", {count} refused with {}", code.0))
    }
}

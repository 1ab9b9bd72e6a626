//! The log: one line for each file, and one for each connection when it ends.
//!
//! A connection that carries one file only, in the classic or line dialect, has one line for both.

use log::{Level, log};

use super::ending::{CloseReason, not_a_request, refused};
use super::{Ear, Fact, Whom};
use crate::proto::Name;
use crate::reactor::Moment;

/// The target of these lines: users need not know which module writes them.
const TARGET: &str = "intake::server";

/// The listener that writes the log.
#[derive(Debug)]
pub struct Line;

impl Ear for Line {
    fn hear(&mut self, whom: &Whom, fact: &Fact) {
        match *fact {
            Fact::Stored { filed, stored } if !filed.is_alone => {
                log::info!(target: TARGET, "{whom}: {}", filed.line(stored))
            }
            Fact::TurnedAway { refusal } => {
                log::debug!(target: TARGET, "{whom}: turned away, {}", refused(refusal, None))
            }
            Fact::Refused { refusal, name: Some(name), .. } => {
                log::info!(target: TARGET, "{whom}: {}", refused(refusal, Some(name)))
            }
            Fact::NotARequest { refusal, head } => {
                log::info!(target: TARGET, "{whom}: {}", not_a_request(refusal, head))
            }
            Fact::Answered { what } => log::debug!(target: TARGET, "{whom}: asked for {what}"),
            Fact::StoredForNobody { filed, stored } => {
                log::info!(target: TARGET, "{whom}, which has gone: {}", filed.line(stored))
            }
            Fact::LostForNobody { filed, error } => {
                log::info!(target: TARGET, "{whom}, which has gone: {:?} not stored: {error}", filed.asked);
            }
            Fact::Closed { reason, uploading, now, .. } => {
                let is_noise = match reason {
                    CloseReason::Silent => true,
                    CloseReason::Finished | CloseReason::Lost(_) => whom.is_mere_check(),
                    _ => false,
                };
                let level = if is_noise { Level::Debug } else { Level::Info };
                if log::log_enabled!(target: TARGET, level) {
                    log!(target: TARGET, level, "{}", summary(whom, reason, uploading, now));
                }
            }
            _ => {}
        }
    }
}

/// The line of a whole connection. `uploading`: the name of the upload in progress.
fn summary(whom: &Whom, reason: &CloseReason, uploading: Option<&Name>, now: Moment) -> String {
    let Whom { accepted, content_bytes, stored, refused, .. } = whom;
    let seconds = now.since(*accepted).as_secs_f64();
    let name = uploading.map(|name| format!(" {name:?}")).unwrap_or_default();
    let files = match reason {
        CloseReason::Stored { .. } => String::new(),
        _ if whom.has_answered() => format!("{stored} stored, {refused} refused, "),
        _ => String::new(),
    };
    format!("{whom}{name}: {files}{content_bytes} bytes in {seconds:.3} s, {reason}")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::proto::NamePolicy;
    use crate::server::story::Who;

    fn name(name: &str) -> Name {
        Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
    }

    /// The line of a connection that lasted a second and a half, without the peer.
    fn line(stored: u32, reason: &CloseReason, uploading: Option<&Name>) -> String {
        line_by(None, stored, reason, uploading)
    }

    /// As [`line`], of a client that has proven a name.
    fn line_by(who: Option<Who>, stored: u32, reason: &CloseReason, uploading: Option<&Name>) -> String {
        let (peer, start) = (SocketAddr::from(([192, 0, 2, 1], 9)), Moment::default());
        let mut whom = Whom::new(peer, start).with_name(who);
        (whom.content_bytes, whom.stored) = (7, stored);
        let line = summary(&whom, reason, uploading, start + Duration::from_millis(1500));
        line.strip_prefix("192.0.2.1:9").unwrap().to_owned()
    }

    #[test]
    fn a_line_tells_of_files_only_where_more_than_one_was_possible() {
        let stored = CloseReason::Stored { asked: name("a"), stored: name("a.1"), is_proven: false };
        let unverified = "stored as \"a.1\", unverified: the end of the stream was the end of the file";
        assert_eq!(line(1, &stored, None), format!(": 7 bytes in 1.500 s, \"a\" {unverified}"));
        assert_eq!(line(2, &CloseReason::Finished, None), ": 2 stored, 0 refused, 7 bytes in 1.500 s, finished");
        let lost = CloseReason::Lost(io::ErrorKind::ConnectionReset.into());
        assert_eq!(line(0, &lost, Some(&name("a"))), " \"a\": 7 bytes in 1.500 s, lost: connection reset");
    }

    #[test]
    fn a_client_is_named_by_its_address_and_by_what_it_has_proven() {
        let by = |name| line_by(Some(Who::new(name)), 1, &CloseReason::Finished, None);
        assert_eq!(by("alice"), " by alice: 1 stored, 0 refused, 7 bytes in 1.500 s, finished");
        assert!(by("x: \n192.0.2.1:9: ").starts_with(" by x: \\n192.0.2.1:9: : 1 stored"), "nobody can forge a line");
    }
}

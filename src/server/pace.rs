//! The clocks of one connection: how long the server waits for what.
//!
//! A peer whose network has gone (a cable, a phone in a tunnel) looks like an idle one: neither sends anything. Without a
//! limit it would keep its connection for ever. A peer that sends a byte now and then would keep it almost as long. So
//! there is a time limit for the whole name, and a minimum rate for the content over each minute.
//!
//! Pure: moments go in, and the next deadline comes out. The clocks run only while the server waits for the peer, not while
//! the peer waits for the server's disk.

use std::time::Duration;

use super::config::Limits;
use crate::proto::Awaits;
use crate::reactor::Moment;

/// The two moments of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Before the poll: everything that came until then has been read. No peer is late for a deadline after it, however
    /// long the process was stopped since.
    pub asked: Moment,
    /// After the poll.
    pub now: Moment,
}

/// Which time has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// The time for the name.
    Header,
    /// The pause that ends the first burst.
    Burst,
    /// The silence of a line-dialect client that may be waiting for `ok`.
    Grace,
    /// The longest silence.
    Idle,
    /// A window over which the rate is measured.
    RateWindow,
    /// The linger after the last reply.
    Linger,
    /// The pause before a stored file is read again that was not in the page cache.
    Disk,
}

/// The moments that the clocks of one connection count from.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When the current wait began: the connection, its linger, or the window over which the rate is measured.
    began: Moment,
    /// When a byte last moved, in either direction.
    moved: Moment,
    /// Bytes received since then.
    bytes: u64,
}

impl Pace {
    /// Clocks that begin at `now`.
    pub fn begin(now: Moment) -> Self {
        Self { began: now, moved: now, bytes: 0 }
    }

    /// Notes that `bytes` came.
    pub fn received(&mut self, bytes: usize, now: Moment) {
        self.moved = now;
        self.bytes += bytes as u64;
    }

    /// The bytes received since the clocks began, or the window did.
    pub fn received_bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes that the peer took some of the replies. The server reads nothing until it has, and the peer may have been
    /// waiting for that. So its time counts from here.
    pub fn sent(&mut self, now: Moment) {
        *self = Self::begin(now);
    }

    /// Begins the next window; returns whether the one that ends was slower than `min_rate` bytes a second.
    pub fn close_window(&mut self, min_rate: u64, now: Moment) -> bool {
        let least = min_rate.saturating_mul(Limits::RATE_WINDOW.as_secs());
        let too_slow = self.bytes < least;
        (self.began, self.bytes) = (now, 0);
        too_slow
    }

    /// What runs out next, and when. `unsent`: the peer has not taken all replies.
    pub fn next(&self, awaits: Awaits, unsent: bool, limits: &Limits) -> Option<(Moment, Lapse)> {
        let idle = || after(self.moved, limits.idle_timeout, Lapse::Idle);
        if unsent {
            return idle();
        }
        let header = || after(self.began, limits.header_timeout, Lapse::Header);
        match awaits {
            Awaits::Header | Awaits::RestOfHeader => header(),
            Awaits::RestOfName => {
                // A name is not late if only the process was stopped and read it late.
                let in_time = header().filter(|(at, _)| self.moved <= *at);
                earlier(in_time, after(self.moved, Some(limits.name_quiet), Lapse::Burst))
            }
            Awaits::FirstContent => earlier(after(self.began, limits.ok_grace, Lapse::Grace), self.content(limits)),
            Awaits::Content => self.content(limits),
            Awaits::NextRequest => idle(),
            Awaits::Answer | Awaits::Settlement => None,
            Awaits::EndOfStream => after(self.began, Some(limits.linger_timeout), Lapse::Linger),
        }
    }

    fn content(&self, limits: &Limits) -> Option<(Moment, Lapse)> {
        let window = limits.min_rate.map(|_| (self.began + Limits::RATE_WINDOW, Lapse::RateWindow));
        earlier(after(self.moved, limits.idle_timeout, Lapse::Idle), window)
    }
}

fn after(moment: Moment, span: Option<Duration>, lapse: Lapse) -> Option<(Moment, Lapse)> {
    Some((moment + span?, lapse))
}

/// The earlier of two; the first one if they are equal.
fn earlier(a: Option<(Moment, Lapse)>, b: Option<(Moment, Lapse)>) -> Option<(Moment, Lapse)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_now_and_then_does_not_extend_the_header_deadline() {
        let start = Moment::default();
        let mut pace = Pace::begin(start);
        pace.received(1, start + 9 * SECOND);
        let limits = Limits::default();
        let next = pace.next(Awaits::RestOfHeader, false, &limits);
        assert_eq!(next, Some((start + 10 * SECOND, Lapse::Header)));
    }

    #[test]
    fn a_name_that_is_read_late_ends_by_silence_and_is_not_called_late() {
        let start = Moment::default();
        let mut pace = Pace::begin(start);
        let limits = Limits { name_quiet: SECOND, ..Limits::default() };
        pace.received(4, start + 9 * SECOND);
        assert_eq!(pace.next(Awaits::RestOfName, false, &limits), Some((start + 10 * SECOND, Lapse::Header)));
        pace.received(4, start + 90 * SECOND);
        assert_eq!(pace.next(Awaits::RestOfName, false, &limits), Some((start + 91 * SECOND, Lapse::Burst)));
    }

    #[test]
    fn content_extends_the_idle_deadline_but_not_the_window() {
        let start = Moment::default();
        let mut pace = Pace::begin(start);
        let limits = Limits::default();
        assert_eq!(pace.next(Awaits::Content, false, &limits), Some((start + 60 * SECOND, Lapse::Idle)));
        pace.received(1, start + SECOND);
        assert_eq!(pace.next(Awaits::Content, false, &limits), Some((start + 60 * SECOND, Lapse::RateWindow)));
    }

    #[test]
    fn each_window_is_judged_by_its_own_bytes() {
        let start = Moment::default();
        let mut pace = Pace::begin(start);
        pace.received(500 * 60, start);
        assert!(!pace.close_window(500, start + 60 * SECOND));
        pace.received(500 * 60 - 1, start + 61 * SECOND);
        assert!(pace.close_window(500, start + 120 * SECOND));
    }

    #[test]
    fn the_time_before_what_we_say_is_taken_is_not_the_peers() {
        let start = Moment::default();
        let mut pace = Pace::begin(start);
        pace.sent(start + 90 * SECOND);
        let next = pace.next(Awaits::Content, false, &Limits::default());
        assert_eq!(next, Some((start + 150 * SECOND, Lapse::Idle)));
    }

    #[test]
    fn a_limit_that_is_off_never_runs_out() {
        let pace = Pace::begin(Moment::default());
        let limits =
            Limits { header_timeout: None, idle_timeout: None, min_rate: None, ok_grace: None, ..Limits::default() };
        for awaits in [Awaits::Header, Awaits::FirstContent, Awaits::Content, Awaits::NextRequest, Awaits::Answer] {
            assert_eq!(pace.next(awaits, false, &limits), None);
        }
        assert_eq!(pace.next(Awaits::EndOfStream, true, &limits), None);
    }

    #[test]
    fn the_grace_ends_before_the_silence_does() {
        let start = Moment::default();
        let next = Pace::begin(start).next(Awaits::FirstContent, false, &Limits::default());
        assert_eq!(next, Some((start + SECOND / 10, Lapse::Grace)));
    }
}

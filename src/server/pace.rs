//! How long we are patient, and with what: the clocks of one connection.
//!
//! A peer that has gone without a word (a cable, a phone in a tunnel) sends nothing, and nothing is what an idle one
//! sends: without a limit it holds its connection for good. One that sends a byte now and then is only slower about it,
//! so the name has a time in all, and the content a least rate over each minute.
//!
//! Pure: moments come in, the next moment to look comes out. The clocks run only while we wait for the peer, and not
//! while it waits for our disk.

use std::time::Duration;

use super::config::Limits;
use crate::proto::Awaits;
use crate::reactor::Moment;

/// The two moments that a turn goes by.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Before the poll was asked: what came until then is known. Nobody is called late for a later moment, however long
    /// the process was stopped since.
    pub asked: Moment,
    /// After the poll.
    pub now: Moment,
}

/// What has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// The name did not come in time.
    Header,
    /// Nothing more came after the first burst: it is over.
    Burst,
    /// A line-dialect client that may be waiting for `ok` has been silent.
    Grace,
    /// Silence.
    Idle,
    /// The end of a window in which the rate is judged.
    RateWindow,
    /// A peer that was told the last word did not go.
    Linger,
    /// The disk has had some time for what was not there to be read.
    Disk,
}

/// The moments that the clocks of one connection count from.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When what we wait for now began: the connection, its linger, or the window in which the rate of its content is judged.
    began: Moment,
    /// When a byte last moved, in either direction.
    moved: Moment,
    /// Bytes received since it began.
    bytes: u64,
}

impl Pace {
    /// The clocks of something that begins at `now`.
    pub fn begin(now: Moment) -> Self {
        Self { began: now, moved: now, bytes: 0 }
    }

    /// So many bytes came.
    pub fn received(&mut self, bytes: usize, now: Moment) {
        self.moved = now;
        self.bytes += bytes as u64;
    }

    /// The bytes received since the clocks or the window began.
    pub fn received_bytes(&self) -> u64 {
        self.bytes
    }

    /// Some of what we say was taken by the peer. Until then we were not willing to read, and it may have been waiting for
    /// just that, so its time counts from here.
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

    /// What runs out next, and when. `unsent`: the peer has not taken all that we said.
    pub fn next(&self, awaits: Awaits, unsent: bool, limits: &Limits) -> Option<(Moment, Lapse)> {
        let idle = || after(self.moved, limits.idle_timeout, Lapse::Idle);
        if unsent {
            return idle();
        }
        let header = || after(self.began, limits.header_timeout, Lapse::Header);
        match awaits {
            Awaits::Header | Awaits::RestOfHeader => header(),
            Awaits::RestOfName => {
                // A name that was read late, because the process was stopped, has not come late.
                let in_time = header().filter(|(at, _)| self.moved <= *at);
                earlier(in_time, after(self.moved, Some(limits.name_quiet), Lapse::Burst))
            }
            Awaits::FirstContent => earlier(after(self.began, limits.ok_grace, Lapse::Grace), self.content(limits)),
            Awaits::Content => self.content(limits),
            Awaits::NextRequest => idle(),
            Awaits::Verdict | Awaits::Settlement => None,
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

/// The earlier of two; the first one where they are equal.
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
        for awaits in [Awaits::Header, Awaits::FirstContent, Awaits::Content, Awaits::NextRequest, Awaits::Verdict] {
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

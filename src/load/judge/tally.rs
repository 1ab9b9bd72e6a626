//! The counts of a run. Every started file is counted under exactly one ending.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ending::{Ended, Ending, Expected, Moments, Trouble};
use super::latency::Latency;
use super::timeline::{Timeline, Totals};
use crate::load::plan::{Conduct, File};
use crate::proto::Dialect;
use crate::reactor::Moment;

/// Counts, latencies, and the expectation for each file.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Uploads that were begun.
    pub started: u64,
    /// Connections that were established.
    pub connected: u64,
    /// Uploads that were sent whole, including their end.
    pub sent: u64,
    /// Bytes of content that the kernel took.
    pub sent_bytes: u64,
    /// Files that the server confirmed.
    pub acknowledged: u64,
    /// Files that were sent whole by clients that did not wait for the answer.
    pub unheard: u64,
    /// Uploads that clients reset on purpose.
    pub reset: u64,
    /// Uploads with any other ending that is right for their conduct.
    pub refused_as_expected: u64,
    /// Uploads that were cut off by the end of the run.
    pub interrupted: u64,
    /// Uploads with a wrong ending.
    pub failed: u64,
    /// Failed uploads whose confirmation has another size or digest than was sent.
    pub misconfirmed: u64,
    /// The failed uploads by reason.
    pub reasons: BTreeMap<String, Failed>,
    /// For each kind of misbehaviour, how many uploads had a right ending and how many a wrong one.
    pub misbehaved: BTreeMap<&'static str, (u64, u64)>,
    /// From the intended start to the connection. Honest clients only, as in the next three.
    pub connect: Latency,
    /// From the connection to the end of the handshake of TLS.
    pub handshake: Latency,
    /// From the intended start to the server's first reply.
    pub first_reply: Latency,
    /// From the intended start to the confirmation.
    pub stored: Latency,
    /// The run second by second.
    pub timeline: Timeline,
    /// The expectation for each file, by its number.
    pub expected: Vec<Expected>,
}

/// The files that failed for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// The number of files.
    pub count: u64,
    /// The file number of the first, to find it in a receiver's log.
    pub first: u64,
    /// What the server said when it refused the first.
    pub said: Option<String>,
}

impl Tally {
    /// Counts an upload that has ended.
    pub fn end(&mut self, ended: &Ended, dialect: Dialect, now: Moment) {
        let Ended { file, ending, expected, is_whole, moments } = ended;
        self.sent += u64::from(*is_whole);
        self.count(file, ending, dialect);
        self.expect(file.number, *expected);
        if file.conduct == Conduct::Honest {
            self.record(*moments, (*ending == Ending::Stored).then_some(now));
        }
    }

    /// What the timeline has to know, besides the time that the tester was `busy`.
    pub fn totals(&self, busy: Duration) -> Totals {
        let Self { acknowledged, failed, sent_bytes, .. } = *self;
        Totals { acknowledged, failed, sent_bytes, busy }
    }

    fn count(&mut self, file: &File, ending: &Ending, dialect: Dialect) {
        let expected = ending.is_expected_of(file, dialect);
        let counter = match ending {
            Ending::Failed(Trouble::Interrupted) => {
                self.interrupted += 1;
                return;
            }
            _ if !expected => &mut self.failed,
            Ending::Stored => &mut self.acknowledged,
            Ending::Unheard => &mut self.unheard,
            Ending::Reset => &mut self.reset,
            Ending::Failed(_) => &mut self.refused_as_expected,
        };
        *counter += 1;
        if file.conduct != Conduct::Honest {
            let (as_expected, otherwise) = self.misbehaved.entry(file.conduct.kind()).or_default();
            *if expected { as_expected } else { otherwise } += 1;
        }
        if !expected {
            self.blame(file, ending);
        }
    }

    fn blame(&mut self, file: &File, ending: &Ending) {
        let reason = match ending {
            Ending::Failed(trouble) => {
                self.misconfirmed += u64::from(trouble.is_damage());
                trouble.to_string()
            }
            _ => "confirmed against expectation".into(),
        };
        let first = || Failed { count: 0, first: file.number, said: ending.said().map(str::to_owned) };
        self.reasons.entry(reason).or_insert_with(first).count += 1;
    }

    fn expect(&mut self, number: u64, expected: Expected) {
        let index = number as usize;
        if self.expected.len() <= index {
            self.expected.resize(index + 1, Expected::Absent);
        }
        self.expected[index] = expected;
    }

    fn record(&mut self, moments: Moments, stored: Option<Moment>) {
        let since = |at: Moment| -> Duration { at.since(moments.intended) };
        for (latency, at) in [
            (&mut self.connect, moments.connected),
            (&mut self.first_reply, moments.replied),
            (&mut self.stored, stored),
        ] {
            at.map(since).inspect(|took| latency.record(*took));
        }
        stored.map(since).inspect(|took| self.timeline.record(*took));
        if let (Some(connected), Some(secured)) = (moments.connected, moments.secured) {
            self.handshake.record(secured.since(connected));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Failure, Receipt};

    fn end(tally: &mut Tally, number: u64, conduct: Conduct, ending: Ending) {
        let start = Moment::default();
        let moments = Moments { intended: start, connected: Some(start), secured: None, replied: None };
        let expected = ending.expected(true);
        tally.started += 1;
        let file = File { number, named: number, size: 1, conduct, is_contested: false };
        tally.end(&Ended { file, ending, expected, is_whole: true, moments }, Dialect::Line, start);
    }

    #[test]
    fn every_file_is_counted_in_one_ending() {
        let mut tally = Tally::default();
        let failed = |failure| Ending::Failed(Trouble::Upload(failure));
        let endings = [
            (Conduct::Honest, Ending::Stored),
            (Conduct::Abort, Ending::Stored),
            (Conduct::NeverRead, Ending::Unheard),
            (Conduct::Reset, Ending::Reset),
            (Conduct::KINDS[1].1, failed(Failure::Reset)),
            (Conduct::Honest, Ending::Failed(Trouble::Interrupted)),
            (
                Conduct::Honest,
                failed(Failure::WrongReceipt(Receipt { size: 1, digest: None, stored_name: "a".into() })),
            ),
            (Conduct::Reset, Ending::Stored),
        ];
        for (number, (conduct, ending)) in endings.into_iter().enumerate() {
            end(&mut tally, number as u64, conduct, ending);
        }
        let Tally { acknowledged, unheard, reset, refused_as_expected, interrupted, failed, .. } = tally;
        let counts = [acknowledged, unheard, reset, refused_as_expected, interrupted, failed];
        assert_eq!((counts, tally.started), ([2, 1, 1, 1, 1, 2], 8));
        assert_eq!((tally.misconfirmed, tally.reasons.len()), (1, 2));
        assert_eq!(tally.misbehaved["reset"], (1, 1));
        assert_eq!((tally.stored.count(), tally.connect.count()), (1, 3));
        assert_eq!(tally.expected[0], Expected::Present);
    }
}

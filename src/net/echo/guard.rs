//! Decides which datagrams the echo answers. Pure: a source and a time in, a verdict out; knows no socket.
//!
//! An echo that answers everybody can be used against others, because a UDP source is whatever the sender writes: one spoofed
//! datagram makes two echoes loop without end (CVE-2024-2169), and a stream of them floods a third party.

use std::net::SocketAddr;
use std::time::Duration;

use crate::reactor::{Moment, Source, Sources};

/// Below are the system ports (RFC 6335), with the services that answer a stray datagram: echo, chargen, DNS, NTP.
const FIRST_CLIENT_PORT: u16 = 1024;

/// Far more than the peers that use one echo at a time. They take 160 KiB, which no flood of spoofed peers can increase.
const BUCKETS: usize = 4096;

/// The decision about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Admit,
    /// Not answered: its source port belongs to an echo or another service that would answer.
    RefuseSource,
    /// Not answered: its peer is over its rate.
    OverRate,
}

/// Decides for one echo socket.
#[derive(Debug)]
pub struct Guard {
    own_ports: Vec<u16>,
    limiter: Option<Limiter>,
}

impl Guard {
    /// For an echo that answers `rate` datagrams a second to each peer; `None` is no limit.
    pub fn new(rate: Option<u32>) -> Self {
        Self { own_ports: Vec::new(), limiter: rate.map(Limiter::new) }
    }

    /// Notes that the echo answers from `port`.
    pub fn refuse_port(&mut self, port: u16) {
        self.own_ports.push(port);
    }

    /// Decides on a datagram from `source` that was received at `now`.
    pub fn judge(&mut self, source: SocketAddr, now: Moment) -> Verdict {
        // Our port on another address may be another echo of ours, or this very one.
        if source.port() < FIRST_CLIENT_PORT || self.own_ports.contains(&source.port()) {
            return Verdict::RefuseSource;
        }
        let within_rate = self.limiter.as_mut().is_none_or(|limiter| limiter.admit(Source::of(source.ip()), now));
        if within_rate { Verdict::Admit } else { Verdict::OverRate }
    }
}

/// A token bucket for each peer, in a table of fixed size.
#[derive(Debug)]
struct Limiter {
    rate: u32,
    buckets: Sources<Bucket>,
}

impl Limiter {
    fn new(rate: u32) -> Self {
        Self { rate, buckets: Sources::new(BUCKETS) }
    }

    /// A full bucket is as good as none. In a crowd of spoofed peers several share a bucket: each gets less, never more.
    fn admit(&mut self, peer: Source, now: Moment) -> bool {
        let rate = self.rate;
        self.buckets.share(peer, |bucket| bucket.is_full(rate, now)).take(rate, now)
    }
}

/// Tokens that grow back at the rate, up to one second's worth.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The tokens in billionths, so that any rate adds up exactly over any nanoseconds. Twice the largest rate fits.
    nanotokens: u64,
    /// When it was last filled. `None`: it was never used, so it is full.
    filled: Option<Moment>,
}

impl Bucket {
    /// One token, in billionths: a nanosecond at a rate of one a second.
    const TOKEN: u64 = 1_000_000_000;
    /// The longest burst is one second's worth, so that no second sees more than twice the rate.
    const FULL_AFTER: Duration = Duration::from_secs(1);

    /// What is in it at `now`, in billionths of a token.
    fn level(&self, rate: u32, now: Moment) -> u64 {
        let elapsed = self.filled.map_or(Self::FULL_AFTER, |filled| now.since(filled));
        let grown = u64::from(rate) * elapsed.min(Self::FULL_AFTER).as_nanos() as u64;
        (self.nanotokens + grown).min(Self::full(rate))
    }

    fn is_full(&self, rate: u32, now: Moment) -> bool {
        self.level(rate, now) == Self::full(rate)
    }

    fn full(rate: u32) -> u64 {
        u64::from(rate) * Self::TOKEN
    }

    fn take(&mut self, rate: u32, now: Moment) -> bool {
        self.nanotokens = self.level(rate, now);
        self.filled = Some(now);
        match self.nanotokens.checked_sub(Self::TOKEN) {
            Some(rest) => {
                self.nanotokens = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_PORT: u16 = 9000;

    fn guard(rate: Option<u32>) -> Guard {
        let mut guard = Guard::new(rate);
        guard.refuse_port(OWN_PORT);
        guard
    }

    fn from(source: &str) -> SocketAddr {
        source.parse().unwrap()
    }

    /// How many of `tries` datagrams from `source` are answered.
    fn admitted(guard: &mut Guard, source: &str, now: Moment, tries: usize) -> usize {
        (0..tries).filter(|_| guard.judge(from(source), now) == Verdict::Admit).count()
    }

    #[test]
    fn ports_that_answer_by_themselves_are_refused() {
        let now = Moment::default();
        for rate in [None, Some(1)] {
            let mut guard = guard(rate);
            guard.refuse_port(9001);
            for refused in ["127.0.0.1:9000", "192.0.2.7:9001", "[2001:db8::1]:9000", "192.0.2.7:0", "192.0.2.7:7"] {
                assert_eq!(guard.judge(from(refused), now), Verdict::RefuseSource, "{refused}");
            }
            assert_eq!(guard.judge(from("192.0.2.7:1023"), now), Verdict::RefuseSource);
            // None of them counted against the peer's rate.
            assert_eq!(guard.judge(from("192.0.2.7:1024"), now), Verdict::Admit);
        }
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        assert_eq!(admitted(&mut guard(None), "192.0.2.7:5000", Moment::default(), 100_000), 100_000);
    }

    #[test]
    fn a_peer_has_one_seconds_worth_at_once_and_then_its_rate() {
        let mut guard = guard(Some(300));
        let start = Moment::default();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(admitted(&mut guard, "192.0.2.7:5000", at(0), 1000), 300);
        assert_eq!(guard.judge(from("192.0.2.7:5000"), at(0)), Verdict::OverRate);
        // Another port is the same peer.
        assert_eq!(admitted(&mut guard, "192.0.2.7:5001", at(3), 1000), 0);
        assert_eq!(admitted(&mut guard, "192.0.2.7:5001", at(4), 1000), 1);
        assert_eq!(admitted(&mut guard, "192.0.2.7:5000", at(500), 1000), 149);
        // However long it was silent, and however much it had left.
        assert_eq!(admitted(&mut guard, "192.0.2.7:5000", at(3_600_000), 1), 1);
        assert_eq!(admitted(&mut guard, "192.0.2.7:5000", at(3_601_000), 1000), 300);
    }

    #[test]
    fn looking_often_does_not_lose_fractions_of_a_token() {
        let mut guard = guard(Some(3));
        let start = Moment::default();
        assert_eq!(admitted(&mut guard, "192.0.2.7:5000", start, 10), 3);
        let answered = (1..=10_000u64)
            .filter(|tick| guard.judge(from("192.0.2.7:5000"), start + Duration::from_millis(*tick)) == Verdict::Admit)
            .count();
        assert_eq!(answered, 30);
    }

    #[test]
    fn the_largest_rate_and_a_clock_that_stands_still_do_not_overflow() {
        let mut guard = guard(Some(u32::MAX));
        let now = Moment::default();
        assert_eq!(admitted(&mut guard, "192.0.2.7:5000", now, 1000), 1000);
        assert_eq!(admitted(&mut guard, "192.0.2.7:5000", now + Duration::from_secs(1_000_000), 1000), 1000);
    }

    #[test]
    fn peers_do_not_share_a_rate() {
        let mut guard = guard(Some(1));
        let now = Moment::default();
        let peers = |third: u8| (0..200u8).map(move |last| SocketAddr::from(([198, 51, third, last], 5000)));
        let answered = peers(100).filter(|peer| guard.judge(*peer, now) == Verdict::Admit).count();
        // Eight of 200 do not meet by chance in 512 groups; a hash that spreads badly would lose most.
        assert_eq!(answered, 200);
    }

    #[test]
    fn a_crowd_of_spoofed_peers_gains_nothing_and_keeps_nobody_out_for_long() {
        let mut guard = guard(Some(1));
        let start = Moment::default();
        let peers = || (0..=255).flat_map(|third| (0..=255).map(move |last| [198, 51, third, last]));
        let answer = |guard: &mut Guard, now| {
            let judged = peers().map(|ip| guard.judge((ip, 5000).into(), now));
            judged.filter(|verdict| *verdict == Verdict::Admit).count()
        };
        assert_eq!(answer(&mut guard, start), BUCKETS, "each bucket has one token, for all sources that share it");
        assert_eq!(answer(&mut guard, start), 0);
        assert_eq!(guard.judge(from("192.0.2.7:5000"), start + Duration::from_secs(1)), Verdict::Admit);
    }
}

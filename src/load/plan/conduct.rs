//! How clients behave: the shares of those that misbehave, and what each kind does when.
//!
//! Pure: it tells how much may be sent after how much time. Another module judges the right ending of each kind.

use std::fmt;
use std::time::Duration;

/// What one client does with its upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// Sends as fast as it can, and reads every reply.
    #[default]
    Honest,
    /// Sends at a low rate.
    Slow {
        /// Not 0.
        bytes_per_second: u64,
    },
    /// Sends half, pauses, and sends the rest.
    Stall {
        /// How long it pauses.
        pause: Duration,
    },
    /// Ends its stream (FIN) after half of the content. An empty file has no half.
    Abort,
    /// Resets the connection (RST) after half of the content.
    Reset,
    /// Sends everything, shuts down its write side, and reads the answer some time later.
    HalfClose {
        /// How much later.
        pause: Duration,
    },
    /// Sends its header a byte at a time.
    SplitHeader,
    /// Never reads a byte. (Where it has to wait for `ok`, it peeks.)
    NeverRead,
    /// Takes the name of another file.
    DupName,
}

/// The time between two bytes of a split header: long enough for a server that is not busy to read each by itself.
const HEADER_BYTE_INTERVAL: Duration = Duration::from_millis(5);
/// Pieces that a slow client sends a second. Fewer would be stalls, more would keep the tester busy.
const SLOW_PIECES_PER_SECOND: u64 = 10;

/// How much may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// This many bytes, at least one.
    Bytes(u64),
    /// Nothing until this much time has passed.
    NotBefore(Duration),
}

impl Conduct {
    /// How long a client that never reads stays after it has sent everything: the server has read it by then.
    pub const NEVER_READ_STAY: Duration = Duration::from_secs(1);

    /// Every kind by its name on the command line and in reports, with the default of its parameter.
    pub const KINDS: [(&str, Self); 8] = [
        ("slow", Self::Slow { bytes_per_second: 16 << 10 }),
        ("stall", Self::Stall { pause: Duration::from_secs(1) }),
        ("abort", Self::Abort),
        ("reset", Self::Reset),
        ("half-close", Self::HalfClose { pause: Duration::from_millis(500) }),
        ("split-header", Self::SplitHeader),
        ("never-read", Self::NeverRead),
        ("dup-name", Self::DupName),
    ];

    /// The name of the kind.
    pub fn kind(self) -> &'static str {
        let same = |other: &Self| std::mem::discriminant(other) == std::mem::discriminant(&self);
        Self::KINDS.iter().find(|(_, each)| same(each)).map_or("honest", |(kind, _)| kind)
    }

    /// How many bytes of a file of `size` bytes are sent.
    pub fn share_sent(self, size: u64) -> u64 {
        match self {
            Self::Abort | Self::Reset => size / 2,
            _ => size,
        }
    }

    /// The pause between two bytes of a header; `None`: the header is sent in one piece.
    pub fn header_byte_interval(self) -> Option<Duration> {
        (self == Self::SplitHeader).then_some(HEADER_BYTE_INTERVAL)
    }

    /// How much more content may be sent, with `sent` of `size` bytes sent and `since` after its first byte.
    pub fn content_allowance(self, sent: u64, size: u64, since: Duration) -> Allowance {
        match self {
            Self::Slow { bytes_per_second } => {
                let piece = (bytes_per_second / SLOW_PIECES_PER_SECOND).max(1);
                let due = Duration::from_secs_f64(sent as f64 / bytes_per_second as f64);
                if since < due { Allowance::NotBefore(due) } else { Allowance::Bytes(piece) }
            }
            Self::Stall { pause } if since < pause => match size / 2 {
                half if sent < half => Allowance::Bytes(half - sent),
                _ => Allowance::NotBefore(pause),
            },
            _ => Allowance::Bytes(u64::MAX),
        }
    }

    /// How long the client does not read after it has sent everything.
    pub fn deaf_for(self) -> Duration {
        match self {
            Self::HalfClose { pause } => pause,
            _ => Duration::ZERO,
        }
    }

    /// Whether this is the last upload of its connection.
    pub fn ends_conversation(self) -> bool {
        matches!(self, Self::Abort | Self::Reset | Self::HalfClose { .. } | Self::NeverRead)
    }
}

/// The share of each conduct; the rest of the clients are honest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mix {
    shares: Vec<(Conduct, f64)>,
}

/// The shares add up to more than the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixError;

impl fmt::Display for MixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shares add up to more than 100 %")
    }
}

impl std::error::Error for MixError {}

impl Mix {
    /// Each conduct with its share, from 0 to 1.
    ///
    /// # Errors
    /// [`MixError`] when the sum is above 1.
    pub fn new(shares: Vec<(Conduct, f64)>) -> Result<Self, MixError> {
        const ROUNDING: f64 = 1e-9;
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if sum > 1.0 + ROUNDING { Err(MixError) } else { Ok(Self { shares }) }
    }

    /// The conduct at `point`, which is evenly drawn from 0 to 1.
    pub fn pick(&self, point: f64) -> Conduct {
        let mut above = 0.0;
        let share = self.shares.iter().find(|(_, share)| {
            above += share;
            point < above
        });
        share.map_or(Conduct::Honest, |(conduct, _)| *conduct)
    }

    /// All conducts but the honest one.
    pub fn conducts(&self) -> impl Iterator<Item = Conduct> {
        self.shares.iter().map(|(conduct, _)| *conduct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn shares_are_kept() {
        let mix = Mix::new(vec![(Conduct::Abort, 0.125), (Conduct::Reset, 0.25)]).unwrap();
        let counts = (0..1000).map(|point| mix.pick(f64::from(point) / 1000.0)).fold([0; 3], |mut counts, conduct| {
            counts[[Conduct::Abort, Conduct::Reset, Conduct::Honest]
                .iter()
                .position(|each| *each == conduct)
                .unwrap()] += 1;
            counts
        });
        assert_eq!(counts, [125, 250, 625]);
    }

    #[test]
    fn shares_may_add_up_to_the_whole_but_not_to_more() {
        let tenths = |count| Mix::new(vec![(Conduct::Abort, 0.1); count]);
        assert_eq!(tenths(10).unwrap().pick(0.999), Conduct::Abort);
        assert_eq!(tenths(11), Err(MixError));
    }

    #[test]
    fn a_slow_client_keeps_its_rate() {
        let slow = Conduct::Slow { bytes_per_second: 1000 };
        let (mut sent, mut since) = (0, Duration::ZERO);
        while sent < 3000 {
            match slow.content_allowance(sent, 3000, since) {
                Allowance::Bytes(bytes) => sent += bytes,
                Allowance::NotBefore(at) => since = at,
            }
        }
        assert_eq!(since, 2900 * MS);
    }

    #[test]
    fn a_stalled_client_pauses_at_half_and_continues() {
        let stall = Conduct::Stall { pause: 100 * MS };
        assert_eq!(stall.content_allowance(0, 10, MS), Allowance::Bytes(5));
        assert_eq!(stall.content_allowance(5, 10, 99 * MS), Allowance::NotBefore(100 * MS));
        assert_eq!(stall.content_allowance(5, 10, 100 * MS), Allowance::Bytes(u64::MAX));
        assert_eq!(stall.content_allowance(0, 0, MS), Allowance::NotBefore(100 * MS));
    }

    #[test]
    fn every_kind_has_its_name() {
        for (kind, conduct) in Conduct::KINDS {
            assert_eq!(conduct.kind(), kind);
        }
        assert_eq!(Conduct::Slow { bytes_per_second: 1 }.kind(), "slow");
        assert_eq!(Conduct::Honest.kind(), "honest");
    }
}

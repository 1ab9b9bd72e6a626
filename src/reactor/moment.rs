//! A moment, as one number.
//!
//! Half the size of [`std::time::Instant`], and tests can make any moment they need. Reads no clock: [`crate::net::now`]
//! does.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds on a scale that only goes forward. It reaches 584 years; anything beyond is [`Moment::NEVER`].
///
/// ```
/// use std::time::Duration;
/// use intake::reactor::Moment;
///
/// let second = Duration::from_secs(1);
/// let (start, later) = (Moment::default(), Moment::default() + second);
/// assert_eq!((later.since(start), start.since(later)), (second, Duration::ZERO));
/// assert_eq!(start + Duration::MAX, Moment::NEVER);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Later than any other moment.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment this long after the beginning of the scale.
    pub fn after(beginning: Duration) -> Self {
        Self::default() + beginning
    }

    /// The time since `earlier`, or zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

//! What may be sent in a day, and what of it is used.
//!
//! A day begins with the first upload and lasts 24 hours. After a restart all days begin anew.

use std::time::Duration;

use crate::reactor::Moment;

/// From the first upload on.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What may be sent in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of stored files.
    pub bytes: Option<u64>,
    /// Uploads.
    pub uploads: Option<u32>,
}

impl Quota {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// What is used of a day.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Day {
    begun: Moment,
    bytes: u64,
    uploads: u32,
}

/// Why there is not enough left of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// No day has so much.
    Never { max: u64 },
    /// There is more after this time.
    Until { max: u64, left: u64, unit: &'static str, after: Duration },
}

impl Day {
    /// Whether another one has begun, so that it counts for nothing.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        now.since(self.begun) >= DAY
    }

    /// Bytes and uploads.
    pub(super) fn used(&self) -> (u64, u32) {
        (self.bytes, self.uploads)
    }

    /// Whether nothing was sent, or all of it was given back.
    pub(super) fn is_unused(&self) -> bool {
        self.used() == (0, 0)
    }

    /// Whether so much more may be sent at `now`. Begins a new day if that is due.
    pub(super) fn check(&mut self, quota: &Quota, bytes: u64, uploads: u32, now: Moment) -> Result<(), Short> {
        if self.is_over(now) || self.is_unused() {
            *self = Self { begun: now, ..Self::default() };
        }
        let after = DAY.saturating_sub(now.since(self.begun));
        if let Some(max) = quota.bytes {
            let left = max.saturating_sub(self.bytes);
            if bytes > max {
                return Err(Short::Never { max });
            }
            if bytes > left {
                return Err(Short::Until { max, left, unit: "bytes", after });
            }
        }
        if let Some(max) = quota.uploads {
            let left = max.saturating_sub(self.uploads);
            if uploads > left {
                return Err(Short::Until { max: max.into(), left: left.into(), unit: "files", after });
            }
        }
        Ok(())
    }

    /// Notes that so much more is used.
    fn add(&mut self, bytes: u64, uploads: u32) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.uploads = self.uploads.saturating_add(uploads);
    }

    /// Charges so much more to this day, and notes it in `share`.
    pub(super) fn charge(&mut self, share: &mut Self, bytes: u64, uploads: u32) {
        if share.begun != self.begun {
            // What was charged to an earlier day is over with that day.
            *share = Self { begun: self.begun, ..Self::default() };
        }
        self.add(bytes, uploads);
        share.add(bytes, uploads);
    }

    /// As a share: its uploads are not to be taken back.
    pub(super) fn keep_uploads(&mut self) {
        self.uploads = 0;
    }

    /// Takes back what was charged to this very day.
    pub(super) fn give_back(&mut self, share: &Self) {
        if share.begun == self.begun {
            self.bytes = self.bytes.saturating_sub(share.bytes);
            self.uploads = self.uploads.saturating_sub(share.uploads);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { bytes: Some(100), uploads: Some(3) };

    fn at(seconds: u64) -> Moment {
        Moment::after(Duration::from_secs(seconds))
    }

    /// Charges, if there is enough left.
    fn charge(day: &mut Day, bytes: u64, uploads: u32, now: Moment) -> Result<Day, Short> {
        let mut share = Day::default();
        day.check(&QUOTA, bytes, uploads, now)?;
        day.charge(&mut share, bytes, uploads);
        Ok(share)
    }

    #[test]
    fn the_last_byte_fits_and_no_further_one() {
        let mut day = Day::default();
        charge(&mut day, 60, 1, at(7)).unwrap();
        let short = |left, unit, max, after| Short::Until { max, left, unit, after: Duration::from_secs(after) };
        assert_eq!(charge(&mut day, 41, 1, at(9)).unwrap_err(), short(40, "bytes", 100, 24 * 3600 - 2));
        charge(&mut day, 40, 1, at(9)).unwrap();
        assert_eq!(charge(&mut day, 1, 1, at(10)).unwrap_err(), short(0, "bytes", 100, 24 * 3600 - 3));
        charge(&mut day, 0, 1, at(10)).unwrap();
        assert_eq!(charge(&mut day, 0, 1, at(10)).unwrap_err(), short(0, "files", 3, 24 * 3600 - 3));
        assert_eq!(charge(&mut day, 101, 0, at(10)).unwrap_err(), Short::Never { max: 100 });
    }

    #[test]
    fn a_day_begins_with_its_first_upload_and_is_over_when_it_was_told() {
        let mut day = Day::default();
        charge(&mut day, 100, 1, at(1000)).unwrap();
        let Err(Short::Until { after, .. }) = charge(&mut day, 1, 1, at(5000)) else { panic!("nothing is left") };
        let moment_before = at(5000) + after.checked_sub(Duration::from_nanos(1)).unwrap();
        assert!(charge(&mut day, 1, 1, moment_before).is_err());
        charge(&mut day, 100, 1, at(5000) + after).unwrap();
    }

    #[test]
    fn what_is_given_back_can_be_used_again_but_only_on_its_day() {
        let mut day = Day::default();
        let first = charge(&mut day, 100, 2, at(0)).unwrap();
        day.give_back(&first);
        let second = charge(&mut day, 100, 3, at(10)).unwrap();
        let next = at(10 + 24 * 3600);
        charge(&mut day, 100, 3, next).unwrap();
        day.give_back(&second);
        assert!(charge(&mut day, 1, 0, next).is_err(), "what belonged to yesterday does not count today");
    }

    #[test]
    fn an_upload_that_lasts_over_the_end_of_a_day_gives_back_what_belongs_to_the_new_one() {
        let (mut day, mut share) = (Day::default(), Day::default());
        day.check(&QUOTA, 70, 1, at(0)).unwrap();
        day.charge(&mut share, 70, 1);
        let next = at(24 * 3600);
        day.check(&QUOTA, 30, 0, next).unwrap();
        day.charge(&mut share, 30, 0);
        day.give_back(&share);
        assert!(day.is_unused());
    }
}

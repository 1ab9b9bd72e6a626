//! The dates of HTTP (RFC 9110, 5.6.7), in seconds since the epoch.

use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999: a date has four digits for a year.
const MAX_SECONDS: u64 = 253_402_300_799;

/// A date as a field tells it. A later one than HTTP can spell becomes the latest that it can.
pub(super) fn spell(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(MAX_SECONDS)))
}

/// Reads a date. `None`: it is none, or before 1970.
pub(super) fn parse(date: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(date).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Whether there is a date for it.
pub(super) fn can_spell(seconds: u64) -> bool {
    seconds <= MAX_SECONDS
}

//! Numbers on the wire: 1 to 19 decimal digits without a sign, so that every one fits in 64 bits.

/// Parses a number; `None` if `digits` is not a valid one.
pub(super) fn parse_number(digits: &str) -> Option<u64> {
    let well_formed = (1..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    well_formed.then(|| digits.parse().ok())?
}

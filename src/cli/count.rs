//! Options that count something.

use std::fmt::Display;
use std::str::FromStr;

/// Parses a number that must not be zero.
pub fn some<T: FromStr<Err: Display>>(typed: &str) -> Result<T, String> {
    let is_zero = typed.bytes().all(|byte| byte == b'0') && !typed.is_empty();
    typed.parse().map_err(|error: T::Err| if is_zero { "it must be at least 1".into() } else { error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::some;

    #[test]
    fn zero_is_refused_in_words() {
        assert_eq!(some::<NonZeroUsize>("7"), Ok(NonZeroUsize::new(7).unwrap()));
        assert_eq!(some::<NonZeroUsize>("00").unwrap_err(), "it must be at least 1");
        assert_eq!(some::<NonZeroUsize>("x").unwrap_err(), "invalid digit found in string");
    }
}

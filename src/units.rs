//! Typed quantities: sizes, durations, counts, and limits that can be `off`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `64k`, `10M`, `2GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

/// A duration in whole milliseconds: `250ms`, `10s`, `5m`, `2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub u32);

/// A limit above zero, or the word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<T>(pub Option<T>);

/// The units of one kind of quantity, the smallest first.
struct Units {
    /// The spellings of each unit, and its size in the smallest unit. The first spelling is used for printing.
    units: &'static [(&'static [&'static str], u64)],
    /// A description of the valid input, for error messages.
    allowed: &'static str,
}

const SIZES: Units = Units {
    units: &[
        (&["", "B"], 1),
        (&["k", "K", "kB", "KB", "kiB", "KiB"], 1 << 10),
        (&["M", "MB", "MiB"], 1 << 20),
        (&["G", "GB", "GiB"], 1 << 30),
        (&["T", "TB", "TiB"], 1 << 40),
    ],
    allowed: "a size is a whole number and k, M, G or T (powers of 1024), such as 64k or 2GiB",
};

const SPANS: Units = Units {
    units: &[(&["ms"], 1), (&["s"], 1000), (&["m"], 60_000), (&["h"], 3_600_000)],
    allowed: "a duration is a whole number and ms, s, m or h, such as 250ms or 10s",
};

const COUNTS: Units = Units { units: &[(&[""], 1)], allowed: "a count is a whole number below 4294967296" };

impl Units {
    fn parse(&self, typed: &str) -> Result<u64, String> {
        let digits = typed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = typed.split_at(digits);
        let Some((_, factor)) = self.units.iter().find(|(ways, _)| ways.contains(&unit)) else {
            return Err(format!("{unit:?} is no unit; {}", self.allowed));
        };
        if number.is_empty() {
            return Err(format!("the number is missing; {}", self.allowed));
        }
        let value = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        value.ok_or_else(|| format!("too large; {}", self.allowed))
    }

    /// Prints the value in the largest unit that divides it.
    fn print(&self, value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |factor: u64| value.is_multiple_of(factor) && (value > 0 || factor == 1);
        let (ways, factor) = self.units.iter().rfind(|(_, factor)| whole(*factor)).expect("1 divides all");
        write!(f, "{}{}", value / factor, ways[0])
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        SIZES.parse(typed).map(Self)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        SPANS.parse(typed).map(|millis| Self(Duration::from_millis(millis)))
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let count = COUNTS.parse(typed)?.try_into();
        count.map(Self).map_err(|_| format!("too large; {}", COUNTS.allowed))
    }
}

impl<T: FromStr<Err = String> + Default + PartialEq> FromStr for Limit<T> {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        if typed == "off" {
            return Ok(Self(None));
        }
        let value = typed.parse().map_err(|error| format!("{error}, or `off`"))?;
        if value == T::default() {
            return Err("0 would allow nothing; `off` switches the limit off".into());
        }
        Ok(Self(Some(value)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SIZES.print(self.0, f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SPANS.print(self.0.as_millis() as u64, f)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        COUNTS.print(self.0.into(), f)
    }
}

impl<T: fmt::Display> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_count_in_powers_of_1024() {
        for (typed, bytes) in [
            ("0", 0),
            ("1", 1),
            ("500B", 500),
            ("64k", 65_536),
            ("64K", 65_536),
            ("1KiB", 1024),
            ("10M", 10 << 20),
            ("10MB", 10 << 20),
            ("2GiB", 2 << 30),
            ("3T", 3 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(typed.parse(), Ok(Size(bytes)), "{typed}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (typed, millis) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("0ms", 0)] {
            assert_eq!(typed.parse(), Ok(Span(Duration::from_millis(millis))), "{typed}");
        }
    }

    #[test]
    fn errors_name_what_is_allowed() {
        for typed in
            ["", "k", "10x", "10 k", "-1", "1.5G", "0x10", "10iB", "1e3", "+1", "16777216T", "99999999999999999999"]
        {
            let words = typed.parse::<Size>().unwrap_err();
            assert!(words.contains("such as 64k"), "{typed}: {words}");
        }
        for typed in ["", "10", "10S", "s", "-5s", "1d", "10 s", "1h30m", "9999999999999999h", "٣s"] {
            let words = typed.parse::<Span>().unwrap_err();
            assert!(words.contains("such as 250ms"), "{typed}: {words}");
        }
        for typed in ["", "1k", "-1", "4294967296"] {
            let words = typed.parse::<Count>().unwrap_err();
            assert!(words.contains("whole number"), "{typed}: {words}");
        }
    }

    #[test]
    fn off_is_its_own_word_and_zero_is_another_value() {
        assert_eq!("off".parse(), Ok(Limit::<Size>(None)));
        assert_eq!("5s".parse(), Ok(Limit(Some(Span(Duration::from_secs(5))))));
        assert!("0".parse::<Limit<Size>>().unwrap_err().contains("`off`"));
        assert!("0s".parse::<Limit<Span>>().unwrap_err().contains("`off`"));
        assert!("of".parse::<Limit<Count>>().unwrap_err().ends_with(", or `off`"));
    }

    #[test]
    fn the_largest_whole_unit_is_printed() {
        assert_eq!(Size(10 << 30).to_string(), "10G");
        assert_eq!(Size(1025).to_string(), "1025");
        assert_eq!(Size(0).to_string(), "0");
        assert_eq!(Span(Duration::ZERO).to_string(), "0ms");
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Limit::<Size>(None).to_string(), "off");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(value: u64, count: u32) {
            prop_assert_eq!(Size(value).to_string().parse(), Ok(Size(value)));
            let span = Span(Duration::from_millis(value));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            prop_assert_eq!(Count(count).to_string().parse(), Ok(Count(count)));
        }

        #[test]
        fn nothing_typed_panics(typed: String) {
            let _ = (typed.parse::<Size>(), typed.parse::<Limit<Span>>(), typed.parse::<Count>());
        }
    }
}

//! Parsers for the option values of a load: sizes, rates and misbehaviour.

use std::time::Duration;

use intake::load::plan::{Conduct, Mix, Sizes};

use crate::cli::units::{Size, Span};

/// `64k`, `1k..1M`, `lognormal:64k,2`.
///
/// # Errors
/// A message that says what is wrong.
pub fn parse_sizes(typed: &str) -> Result<Sizes, String> {
    let size = |typed: &str| typed.parse().map(|Size(bytes)| bytes);
    if let Some(rest) = typed.strip_prefix("lognormal:") {
        let (median, sigma) = rest.split_once(',').ok_or("write the median and the deviation: lognormal:64k,2")?;
        let sigma = sigma.parse().ok().filter(|sigma| (0.0..=5.0).contains(sigma));
        return Ok(Sizes::LogNormal {
            median: size(median)?,
            sigma: sigma.ok_or("the deviation of the logarithm is a number from 0 to 5")?,
        });
    }
    let (least, most) = typed.split_once("..").unwrap_or((typed, typed));
    let (least, most) = (size(least)?, size(most)?);
    if least <= most { Ok(Sizes::Range(least, most)) } else { Err("the first size is the smaller one".into()) }
}

/// A duration above zero.
///
/// # Errors
/// A message that says what is wrong.
pub fn parse_some_time(typed: &str) -> Result<Span, String> {
    match typed.parse()? {
        Span(Duration::ZERO) => Err("0 is no time to wait: write a duration above 0, such as 10s".into()),
        span => Ok(span),
    }
}

/// `500/s`, or just `500`.
///
/// # Errors
/// A message that says what is wrong.
pub fn parse_rate(typed: &str) -> Result<f64, String> {
    let number = typed.strip_suffix("/s").unwrap_or(typed);
    let rate = number.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.001);
    rate.ok_or_else(|| "a rate is a number above 0 and /s, such as 500/s".into())
}

/// `slow=10%:16k,stall=5%:2s,reset=1%`: kinds with their shares, and a parameter where the kind has one.
///
/// # Errors
/// A message that says what is wrong.
pub fn parse_mix(typed: &str) -> Result<Mix, String> {
    let shares = typed.split(',').map(parse_share).collect::<Result<_, _>>()?;
    Mix::new(shares).map_err(|error| error.to_string())
}

fn parse_share(typed: &str) -> Result<(Conduct, f64), String> {
    let (kind, rest) = typed.split_once('=').ok_or("write KIND=SHARE%, such as slow=10%:16k")?;
    let (share, parameter) = rest.split_once(':').map_or((rest, None), |(share, parameter)| (share, Some(parameter)));
    let known = Conduct::KINDS.iter().find(|(each, _)| *each == kind);
    let (_, conduct) = known.ok_or_else(|| format!("{kind:?} is no misbehaviour; known are {}", known_kinds()))?;
    let percent = share.strip_suffix('%').and_then(|number| number.parse().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    let percent: f64 = percent.ok_or_else(|| format!("{share:?} is no share; write 0% to 100%"))?;
    Ok((with_parameter(*conduct, parameter)?, percent / 100.0))
}

fn with_parameter(conduct: Conduct, typed: Option<&str>) -> Result<Conduct, String> {
    let Some(typed) = typed else { return Ok(conduct) };
    let pause = || typed.parse().map(|Span(pause)| pause);
    match conduct {
        Conduct::Slow { .. } => match typed.parse()? {
            Size(0) => Err("0 bytes a second is no rate; a client that stops is a stall".into()),
            Size(bytes_per_second) => Ok(Conduct::Slow { bytes_per_second }),
        },
        Conduct::Stall { .. } => Ok(Conduct::Stall { pause: pause()? }),
        Conduct::HalfClose { .. } => Ok(Conduct::HalfClose { pause: pause()? }),
        _ => Err(format!("{} takes no parameter", conduct.kind())),
    }
}

fn known_kinds() -> String {
    Conduct::KINDS.map(|(kind, _)| kind).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_or_a_range_or_a_distribution() {
        assert_eq!(parse_sizes("64k"), Ok(Sizes::Range(65_536, 65_536)));
        assert_eq!(parse_sizes("1k..1M"), Ok(Sizes::Range(1 << 10, 1 << 20)));
        assert_eq!(parse_sizes("lognormal:64k,1.5"), Ok(Sizes::LogNormal { median: 65_536, sigma: 1.5 }));
        for (typed, word) in [
            ("1M..1k", "smaller"),
            ("1k..", "number is missing"),
            ("lognormal:64k", "lognormal:64k,2"),
            ("lognormal:64k,-1", "0 to 5"),
            ("lognormal:64k,nan", "0 to 5"),
            ("lots", "is no unit"),
        ] {
            let words = parse_sizes(typed).unwrap_err();
            assert!(words.contains(word), "{typed}: {words}");
        }
    }

    #[test]
    fn rates_are_a_second() {
        assert_eq!((parse_rate("500/s"), parse_rate("0.5")), (Ok(500.0), Ok(0.5)));
        for typed in ["0/s", "-1", "500/m", "nan", "inf", ""] {
            assert!(parse_rate(typed).unwrap_err().contains("such as 500/s"), "{typed}");
        }
    }

    #[test]
    fn misbehaviour_has_shares_and_parameters() {
        let mix = parse_mix("slow=10%:8k,stall=5%:2s,half-close=1%,reset=0.5%").unwrap();
        let conducts: Vec<Conduct> = mix.conducts().collect();
        assert_eq!(
            conducts[..2],
            [Conduct::Slow { bytes_per_second: 8192 }, Conduct::Stall { pause: Duration::from_secs(2) }]
        );
        assert_eq!((mix.pick(0.1), mix.pick(0.1605), mix.pick(0.17)), (conducts[1], Conduct::Reset, Conduct::Honest));
        for (typed, word) in [
            ("slow", "KIND=SHARE%"),
            ("late=1%", "split-header"),
            ("slow=1", "is no share"),
            ("slow=101%", "is no share"),
            ("slow=60%,abort=60%", "more than 100 %"),
            ("slow=1%:0", "stall"),
            ("stall=1%:5", "is no unit"),
            ("abort=1%:5s", "takes no parameter"),
        ] {
            let words = parse_mix(typed).unwrap_err();
            assert!(words.contains(word), "{typed}: {words}");
        }
    }
}

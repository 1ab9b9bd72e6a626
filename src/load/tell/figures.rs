//! The figures of a report by name, and conditions on them.
//!
//! Works on the JSON form of a report: each number in it is a figure, under its name there.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// If several figures end in a short name, these prefixes come first.
const PREFERRED: [&str; 2] = ["latency.stored.", "files."];
/// The units at the end of names. A condition may leave them out.
const UNITS: [&str; 4] = ["_us", "_seconds", "_percent", "_bytes"];

/// One number of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its path in the report, such as `latency.stored.p99_us`.
    pub name: String,
    /// The value, in the unit at the end of the name. A boolean is 1 or 0. `None`: there was nothing to measure.
    pub value: Option<f64>,
}

/// All figures of a report.
pub fn figures(report: &Value) -> Vec<Figure> {
    let mut figures = Vec::new();
    collect(report, "", &mut figures);
    figures
}

fn collect(value: &Value, name: &str, figures: &mut Vec<Figure>) {
    let number = match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect(field, &name, figures);
            }
            None
        }
        Value::Bool(truth) => Some(Some(f64::from(u8::from(*truth)))),
        // A missing part of the report is not a figure; a quantity that was not measured is one.
        Value::Null => (without_unit(name) != name).then_some(None),
        _ => value.as_f64().map(Some),
    };
    figures.extend(number.map(|value| Figure { name: name.to_owned(), value }));
}

/// A condition that makes the outcome of a run bad: `p99>50ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    figure: String,
    is_above: bool,
    limit: f64,
    /// Whether the limit is a duration; it is then in microseconds.
    is_duration: bool,
    typed: String,
}

impl Condition {
    /// The figure that the condition names.
    ///
    /// # Errors
    /// A message, if the report has no such figure, or one of another kind than the limit.
    pub fn find<'a>(&self, figures: &'a [Figure]) -> Result<&'a Figure, String> {
        let found = self.matching(figures).ok_or_else(|| {
            let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
            format!("{:?} is no figure of this report; they are {}", self.figure, names.join(", "))
        })?;
        let is_duration = microseconds_in(found).is_some();
        match (self.is_duration, is_duration) {
            (true, false) => Err(format!("{} is no duration; leave the unit out", found.name)),
            (false, true) => Err(format!("{} is a duration; write it with us, ms or s, such as 50ms", found.name)),
            _ => Ok(found),
        }
    }

    /// Whether the condition is met; `None`: there was nothing to measure.
    pub fn is_true_of(&self, figure: &Figure) -> Option<bool> {
        let value = figure.value? * microseconds_in(figure).unwrap_or(1.0);
        Some(if self.is_above { value > self.limit } else { value < self.limit })
    }

    fn matching<'a>(&self, figures: &'a [Figure]) -> Option<&'a Figure> {
        let ends_in_it = |figure: &&Figure| {
            let ways = [figure.name.as_str(), without_unit(&figure.name)];
            ways.iter().any(|way| {
                let rest = way.strip_suffix(self.figure.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        let all: Vec<&Figure> = figures.iter().filter(ends_in_it).collect();
        let preferred = PREFERRED.iter().find_map(|place| all.iter().find(|each| each.name.starts_with(place)));
        preferred.or(all.first()).copied()
    }
}

fn without_unit(name: &str) -> &str {
    UNITS.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name)
}

/// How many microseconds the unit of a duration has; `None`: it is not a duration.
fn microseconds_in(figure: &Figure) -> Option<f64> {
    let units = [("_us", 1.0), ("_seconds", 1e6)];
    units.iter().find(|(unit, _)| figure.name.ends_with(unit)).map(|(_, microseconds)| *microseconds)
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        const WAY: &str = "write FIGURE>LIMIT or FIGURE<LIMIT, such as p99>50ms or files_per_second<100";
        let at = typed.find(['<', '>']).ok_or(WAY)?;
        let (figure, limit) = (typed[..at].trim(), typed[at + 1..].trim());
        let digits = limit.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let factor = match &limit[digits.len()..] {
            "" => None,
            "us" => Some(1.0),
            "ms" => Some(1e3),
            "s" => Some(1e6),
            unit => return Err(format!("{unit:?} is no unit of a limit; durations have us, ms or s")),
        };
        let number: f64 = digits.parse().map_err(|_| WAY)?;
        if figure.is_empty() {
            return Err(WAY.into());
        }
        Ok(Self {
            // The dot of the quantile does not separate parts of the path.
            figure: figure.replace("p99.9", "p99_9"),
            is_above: typed[at..].starts_with('>'),
            limit: number * factor.unwrap_or(1.0),
            is_duration: factor.is_some(),
            typed: typed.to_owned(),
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Vec<Figure> {
        figures(&json!({
            "elapsed_seconds": 2.5,
            "interrupted": false,
            "files": { "failed": 3, "reset": 1 },
            "misbehaved": { "reset": { "as_expected": 1 } },
            "latency": {
                "connect": { "p99_us": 100, "buckets_us": [[1, 2]] },
                "stored": { "p99_us": 2000, "p99_9_us": 3000, "p50_us": null },
            },
            "verification": null,
        }))
    }

    fn holds(typed: &str) -> Result<Option<bool>, String> {
        let (condition, figures) = (typed.parse::<Condition>()?, report());
        condition.find(&figures).map(|figure| condition.is_true_of(figure))
    }

    #[test]
    fn conditions_find_their_figures_and_convert_durations() {
        for (typed, expected) in [
            ("p99>1ms", true),
            ("p99>2ms", false),
            ("p99 > 1999us", true),
            ("connect.p99>1ms", false),
            ("latency.stored.p99_us<2.1ms", true),
            ("p99.9>2500us", true),
            ("stored.p99.9<3ms", false),
            ("elapsed>2s", true),
            ("elapsed_seconds<2500ms", false),
            ("failed>2", true),
            ("failed<3", false),
            ("reset>0", true),
            ("interrupted>0", false),
        ] {
            assert_eq!(holds(typed), Ok(Some(expected)), "{typed}");
        }
    }

    #[test]
    fn a_quantity_without_a_value_is_a_figure_and_a_missing_part_is_not() {
        assert_eq!((holds("p50>1ms"), holds("p50<1ms")), (Ok(None), Ok(None)));
        assert!(holds("verification>0").unwrap_err().contains("is no figure"));
    }

    #[test]
    fn nonsense_is_refused_with_a_message() {
        for (typed, word) in [
            ("p99", "FIGURE>LIMIT"),
            ("p99>", "FIGURE>LIMIT"),
            (">5", "FIGURE>LIMIT"),
            ("p99>5h", "us, ms or s"),
            ("p99>5", "is a duration"),
            ("failed>5ms", "is no duration"),
            ("p98>5ms", "latency.stored.p99_us"),
            ("9>5", "is no figure"),
        ] {
            let words = holds(typed).unwrap_err();
            assert!(words.contains(word), "{typed}: {words}");
        }
    }
}

//! The text in which Prometheus reads metrics (version 0.0.4): for each family a line of help, its type, and a line a value.
//!
//! Knows no metric.

use std::fmt::{Display, Write};

use crate::server::histogram::Histogram;

/// Families of metrics, as text.
#[derive(Debug, Default)]
pub struct Text(String);

/// A family whose values are being written.
pub struct Family<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Text {
    /// A family of values that only rise until the server ends. Its name ends with `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// A family of values that rise and fall.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// A family with one histogram, of whose values `unit` make 1 of what is told.
    pub fn histogram(&mut self, name: &'static str, help: &str, values: &Histogram, unit: f64) {
        self.family(name, "histogram", help);
        let told = |value: u64| value as f64 / unit;
        for (bound, count) in values.cumulative() {
            write(&mut self.0, format_args!("{name}_bucket{{le=\"{}\"}} {count}\n", told(bound)));
        }
        let (total, sum) = (values.total(), told(values.sum()));
        write(
            &mut self.0,
            format_args!("{name}_bucket{{le=\"+Inf\"}} {total}\n{name}_sum {sum}\n{name}_count {total}\n"),
        );
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        write(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { name, text: &mut self.0 }
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Its only value.
    pub fn is(&mut self, value: impl Display) {
        self.with(&[], value);
    }

    /// One value, under these labels. Their values are words of this program: nothing in them has to be escaped.
    pub fn with(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        write(self.text, format_args!("{}", self.name));
        for (index, (label, word)) in labels.iter().enumerate() {
            debug_assert!(!word.contains(['"', '\\', '\n']), "{word:?} would have to be escaped");
            write(self.text, format_args!("{}{label}=\"{word}\"", if index == 0 { '{' } else { ',' }));
        }
        write(self.text, format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
        self
    }
}

fn write(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words).expect("writing to a String cannot fail");
}

//! Reports of earlier runs, beside one another. Works on their JSON form.

use std::fmt::Write;

use serde_json::Value;

use super::json::SCHEMA;
use crate::load::judge::Micros;

/// A report that was read.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it is called, such as the name of its file.
    pub name: String,
    /// The report, as `--json` prints it.
    pub report: Value,
}

impl Run {
    /// Takes the text of a report.
    ///
    /// # Errors
    /// In words: it is no report of a run over TCP.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let report: Value = serde_json::from_str(text)
            .map_err(|error| format!("{name} is no report of `intake load --json`: {error}"))?;
        if report["schema"] != SCHEMA {
            return Err(format!("{name} is no report of this version of `intake load --json`"));
        }
        if !report["files"].is_object() || !report["latency"]["stored"].is_object() {
            return Err(format!("{name} is no report of uploads"));
        }
        Ok(Self { name: name.into(), report })
    }

    /// The number at a path. 0 if it is missing.
    pub(super) fn number(&self, path: &str) -> f64 {
        self.at(path).as_f64().unwrap_or_default()
    }

    /// The value at a path of names.
    pub(super) fn at(&self, path: &str) -> &Value {
        path.split('.').fold(&self.report, |value, name| &value[name])
    }

    /// A time in words. `-`: it was not measured.
    pub(super) fn time(&self, path: &str) -> String {
        self.at(path).as_u64().map_or("-".into(), |us| Micros(Some(us)).to_string())
    }

    /// How the files were started.
    pub(super) fn pace(&self) -> String {
        match self.at("loop.kind").as_str() {
            Some("open") => format!("open, {}/s", self.number("loop.rate_per_second")),
            _ => "closed".into(),
        }
    }
}

/// The heading of a row, and its content for a run.
type Row = (&'static str, fn(&Run) -> String);

/// The rows of the table.
pub(super) const ROWS: &[Row] = &[
    ("target", |run| run.at("target").as_str().unwrap_or_default().into()),
    ("dialect", |run| run.at("dialect").as_str().unwrap_or_default().into()),
    ("loop", Run::pace),
    ("clients", |run| run.number("clients").to_string()),
    ("seconds", |run| format!("{:.1}", run.number("elapsed_seconds"))),
    ("stored files", |run| run.number("files.acknowledged").to_string()),
    ("failed", |run| run.number("files.failed").to_string()),
    ("files/s", |run| format!("{:.1}", run.number("files_per_second"))),
    ("MiB/s", |run| format!("{:.1}", run.number("bytes_per_second") / f64::from(1 << 20))),
    ("stored, p50", |run| run.time("latency.stored.p50_us")),
    ("stored, p90", |run| run.time("latency.stored.p90_us")),
    ("stored, p99", |run| run.time("latency.stored.p99_us")),
    ("stored, p99.9", |run| run.time("latency.stored.p99_9_us")),
    ("stored, longest", |run| run.time("latency.stored.max_us")),
    ("tester busy", |run| format!("{:.0} %", run.number("tester.busy_percent"))),
];

/// The runs beside one another, a column each.
pub fn table(runs: &[Run]) -> String {
    let names = ("", runs.iter().map(|run| run.name.clone()).collect());
    let rows = ROWS.iter().map(|(heading, of)| (*heading, runs.iter().map(of).collect::<Vec<_>>()));
    let rows: Vec<(&str, Vec<String>)> = std::iter::once(names).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|(_, cells)| cells[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..runs.len()).map(width).collect();
    let mut table = String::new();
    for (heading, cells) in &rows {
        let _ = write!(table, "{heading:15}");
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(table, "  {cell:>width$}");
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A report with `count` files that took up to `us`.
    pub fn run(name: &str, count: u64, us: u64) -> Run {
        let latency = json!({ "p50_us": us, "p90_us": us, "p99_us": us, "p99_9_us": us, "max_us": us, "mean_us": us as f64,
            "count": count, "buckets_us": [[us, count]] });
        let step = json!({ "end_seconds": 1.0, "files_per_second": count, "failures_per_second": 0, "bytes_per_second": 9,
            "p50_us": us, "p99_us": us, "max_us": us, "busy_percent": 10.0 });
        let report = json!({
            "schema": SCHEMA, "target": "192.0.2.1:9", "dialect": "put", "tls": false, "clients": 7,
            "loop": { "kind": "open", "rate_per_second": 5.0 }, "elapsed_seconds": 2.0, "interrupted": false,
            "files": { "acknowledged": count, "failed": 1 }, "sent_bytes": 9, "files_per_second": count,
            "bytes_per_second": 1048576.0, "failures": { "a <reason>": 1 }, "misbehaved": {},
            "latency": { "connect": latency, "first_reply": latency, "stored": latency },
            "timeline": [step, step], "verification": null,
            "tester": { "cpu_seconds": 1.0, "busy_percent": 10.0, "longest_turn_us": 5, "was_bottleneck": false },
        });
        Run::parse(name, &report.to_string()).unwrap()
    }

    #[test]
    fn runs_stand_beside_one_another() {
        let table = table(&[run("a.json", 10, 500), run("b.json", 2000, 1_500_000)]);
        let line = |heading: &str| {
            table.lines().find(|line| line.starts_with(heading)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["a.json", "b.json"]);
        assert_eq!(line("stored files")[2..], ["10", "2000"]);
        assert_eq!(line("MiB/s")[1..], ["1.0", "1.0"]);
        assert!(line("stored, p99 ").contains(&"500"), "{table}");
    }

    #[test]
    fn what_is_no_report_is_told() {
        for (text, words) in [
            ("", "is no report of `intake load --json`"),
            ("{\"schema\": 99}", "of this version"),
            (&json!({ "schema": SCHEMA, "datagrams": {} }).to_string(), "of uploads"),
        ] {
            let error = Run::parse("x.json", text).unwrap_err();
            assert!(error.starts_with("x.json") && error.contains(words), "{error}");
        }
    }
}

//! The reports of testers that ran at the same time, added up to one.
//!
//! Works on their JSON form, so the testers may have run on any host.

use serde_json::{Map, Value, json};

use super::json::{SCHEMA, latency};
use super::runs::Run;
use crate::load::judge::Latency;

/// Adds up `runs`: counts and rates are sums, latencies are those of all files, durations the longest.
///
/// # Errors
/// In words: there is no run, or they differ in what must be the same.
pub fn merge(runs: &[Run]) -> Result<Value, String> {
    let Some((first, others)) = runs.split_first() else { return Err("there is no report to add up".into()) };
    for other in others {
        for same in ["dialect", "tls", "loop.kind"] {
            if first.at(same) != other.at(same) {
                let words = "differ in it, so their sum would mean nothing";
                return Err(format!("{same}: {} and {} {words}", first.name, other.name));
            }
        }
    }
    let of_all = |path: &'static str| runs.iter().map(move |run| run.number(path));
    let sum = |path| of_all(path).sum::<f64>();
    let most = |path| of_all(path).fold(0.0, f64::max);
    let any = |path| runs.iter().any(|run| run.at(path).as_bool() == Some(true));
    let mut pace = first.at("loop").clone();
    if pace["kind"] == "open" {
        pace["rate_per_second"] = sum("loop.rate_per_second").into();
    }
    let mut targets: Vec<&str> = runs.iter().filter_map(|run| run.at("target").as_str()).collect();
    targets.dedup();
    Ok(json!({
        "schema": SCHEMA,
        "target": targets.join(", "),
        "dialect": first.at("dialect"),
        "tls": first.at("tls"),
        "clients": sum("clients") as u64,
        "loop": pace,
        "elapsed_seconds": most("elapsed_seconds"),
        "interrupted": any("interrupted"),
        "files": sums(runs, "files"),
        "sent_bytes": sum("sent_bytes") as u64,
        "files_per_second": sum("files_per_second"),
        "bytes_per_second": sum("bytes_per_second"),
        "failures": sums(runs, "failures"),
        "misbehaved": sums(runs, "misbehaved"),
        "latency": latencies(runs),
        "timeline": timeline(runs),
        "verification": null_unless_all(runs, "verification"),
        "tester": {
            "cpu_seconds": sum("tester.cpu_seconds"),
            "busy_percent": most("tester.busy_percent"),
            "longest_turn_us": most("tester.longest_turn_us") as u64,
            "was_bottleneck": any("tester.was_bottleneck"),
        },
    }))
}

/// The sums of the numbers in objects, name by name.
fn sums(runs: &[Run], path: &str) -> Value {
    let mut all = Value::Object(Map::new());
    runs.iter().for_each(|run| add(&mut all, run.at(path)));
    all
}

fn add(to: &mut Value, from: &Value) {
    match from {
        Value::Object(fields) => {
            if !to.is_object() {
                *to = Value::Object(Map::new());
            }
            fields.iter().for_each(|(name, value)| add(&mut to[name], value));
        }
        Value::Array(findings) => {
            let before = to.as_array().into_iter().flatten();
            *to = before.chain(findings).cloned().collect();
        }
        _ => *to = (to.as_u64().unwrap_or_default() + from.as_u64().unwrap_or_default()).into(),
    }
}

fn null_unless_all(runs: &[Run], path: &str) -> Value {
    if runs.iter().all(|run| run.at(path).is_object()) { sums(runs, path) } else { Value::Null }
}

fn latencies(runs: &[Run]) -> Map<String, Value> {
    let names = runs[0].at("latency").as_object().into_iter().flat_map(Map::keys);
    names
        .map(|name| {
            let mut all = Latency::default();
            let buckets = runs.iter().filter_map(|run| run.at("latency")[name]["buckets_us"].as_array()).flatten();
            for bucket in buckets {
                if let (Some(end), Some(count)) = (bucket[0].as_u64(), bucket[1].as_u64()) {
                    all.add_bucket(end, count);
                }
            }
            latency((name, &all))
        })
        .collect()
}

/// Steps of the same number, added up. Their medians cannot be.
fn timeline(runs: &[Run]) -> Vec<Value> {
    let steps = |run: &Run| run.at("timeline").as_array().map_or(0, Vec::len);
    let step = |number: usize| {
        let of_all = |name: &'static str| runs.iter().map(move |run| run.at("timeline")[number][name].as_f64());
        let sum = |name| of_all(name).flatten().sum::<f64>();
        let most = |name| of_all(name).flatten().reduce(f64::max);
        json!({
            "end_seconds": most("end_seconds"),
            "files_per_second": sum("files_per_second"),
            "failures_per_second": sum("failures_per_second"),
            "bytes_per_second": sum("bytes_per_second"),
            "p50_us": null,
            "p99_us": null,
            "max_us": most("max_us").map(|us| us as u64),
            "busy_percent": most("busy_percent"),
        })
    };
    (0..runs.iter().map(steps).max().unwrap_or_default()).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::super::runs::tests::run;
    use super::*;

    #[test]
    fn counts_are_added_and_latencies_are_those_of_all_files() {
        let merged = merge(&[run("a", 30, 100), run("b", 70, 900)]).unwrap();
        assert_eq!((&merged["files"]["acknowledged"], &merged["files"]["failed"]), (&json!(100), &json!(2)));
        assert_eq!((&merged["failures"]["a <reason>"], &merged["clients"]), (&json!(2), &json!(14)));
        assert_eq!((&merged["files_per_second"], &merged["loop"]["rate_per_second"]), (&json!(100.0), &json!(10.0)));
        let stored = &merged["latency"]["stored"];
        assert_eq!((&stored["count"], &stored["max_us"]), (&json!(100), &json!(900)));
        assert_eq!((&stored["p50_us"], &stored["buckets_us"]), (&json!(900), &json!([[100, 30], [900, 70]])));
        assert_eq!(
            (&merged["timeline"][0]["files_per_second"], &merged["timeline"][1]["max_us"]),
            (&json!(100.0), &json!(900))
        );
        assert!(merged["verification"].is_null());
        let again = Run::parse("again", &merged.to_string()).unwrap();
        assert_eq!(merge(&[again]).unwrap(), merged, "the sum is a report itself");
    }

    #[test]
    fn runs_that_differ_in_kind_are_not_added() {
        let (a, mut b) = (run("a", 1, 1), run("b", 1, 1));
        b.report["dialect"] = "http".into();
        assert!(merge(&[a, b]).unwrap_err().starts_with("dialect: a and b"));
        assert!(merge(&[]).is_err());
    }
}

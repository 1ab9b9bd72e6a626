//! The report as one JSON object, for programs. `docs/load-report.md` describes its fields, and a test compares the two.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::report::Report;
use crate::load::judge::{Latency, QUANTILES, Step, Verification};
use crate::load::plan::{Arrivals, EchoPlan, Loop, Pace};
use crate::load::run::{Echoed, Spent};

/// Incremented when a field changes its meaning or is removed.
pub(super) const SCHEMA: u32 = 1;

/// The whole report.
pub fn json_of(report: &Report<'_>) -> Value {
    let (plan, finished) = (report.plan, report.finished);
    json!({
        "schema": SCHEMA,
        "target": plan.target.to_string(),
        "dialect": plan.dialect.word(),
        "tls": plan.tls.is_some(),
        "seed": plan.workload.seed,
        "clients": plan.clients,
        "per_connection": plan.per_connection,
        "loop": pace(plan.pace),
        "elapsed_seconds": finished.elapsed.as_secs_f64(),
        "interrupted": finished.interrupted,
        "files": files(report),
        "sent_bytes": finished.tally.sent_bytes,
        "files_per_second": report.files_per_second(),
        "bytes_per_second": report.bytes_per_second(),
        "failures": finished.tally.reasons.iter().map(|(reason, failed)| (reason, failed.count)).collect::<BTreeMap<_, _>>(),
        "misbehaved": misbehaved(report),
        "latency": report.latencies().into_iter().map(latency).collect::<Map<_, _>>(),
        "timeline": finished.tally.timeline.steps().iter().map(step).collect::<Vec<_>>(),
        "verification": report.verification.map(verification),
        "tester": tester(&finished.spent),
    })
}

/// The report of `--verify-only`: the same object with only the verification in it.
pub fn json_of_verification(found: &Verification) -> Value {
    json!({ "schema": SCHEMA, "verification": verification(found) })
}

/// The report of a run over UDP.
pub fn json_of_echo(plan: &EchoPlan, finished: &Echoed) -> Value {
    let counts = &finished.counts;
    let pace = match plan.pace {
        Pace::Window(window) => json!({ "kind": "closed", "window_datagrams": window }),
        Pace::Interval(interval) => {
            json!({ "kind": "open", "rate_per_second": interval.as_secs_f64().recip() })
        }
        Pace::Rate(rate) => json!({ "kind": "open", "rate_per_second": rate }),
    };
    json!({
        "schema": SCHEMA,
        "target": plan.target.to_string(),
        "seed": plan.seed,
        "sockets": plan.sockets,
        "size_bytes": plan.size,
        "loop": pace,
        "elapsed_seconds": finished.elapsed.as_secs_f64(),
        "interrupted": finished.interrupted,
        "datagrams": {
            "sent": counts.sent,
            "answered": counts.answered,
            "lost": counts.lost(),
            "late": counts.late,
            "duplicated": counts.duplicated,
            "reordered": counts.reordered,
            "corrupted": counts.corrupted,
            "errors": counts.errors,
        },
        "answering_seconds": finished.answering.as_secs_f64(),
        "answers_per_second": finished.answers_per_second(),
        "jitter_us": finished.jitter.map(|jitter| jitter.as_micros() as u64),
        "latency": Map::from_iter([latency(("round_trip", &counts.round_trip))]),
        "tester": tester(&finished.spent),
    })
}

fn pace(pace: Loop) -> Value {
    match pace {
        Loop::Closed => json!({ "kind": "closed" }),
        Loop::Open { rate, arrivals } => {
            let arrivals = match arrivals {
                Arrivals::Constant => "constant",
                Arrivals::Poisson => "poisson",
            };
            json!({ "kind": "open", "rate_per_second": rate, "arrivals": arrivals })
        }
    }
}

fn files(report: &Report<'_>) -> Value {
    let tally = &report.finished.tally;
    json!({
        "started": tally.started,
        "connected": tally.connected,
        "sent": tally.sent,
        "acknowledged": tally.acknowledged,
        "unheard": tally.unheard,
        "reset": tally.reset,
        "refused_as_expected": tally.refused_as_expected,
        "interrupted": tally.interrupted,
        "failed": tally.failed,
        "misconfirmed": tally.misconfirmed,
        "never_started": report.finished.never_started,
    })
}

fn misbehaved(report: &Report<'_>) -> Map<String, Value> {
    let counts = report.finished.tally.misbehaved.iter();
    counts
        .map(|(kind, (as_expected, otherwise))| {
            ((*kind).into(), json!({ "as_expected": as_expected, "otherwise": otherwise }))
        })
        .collect()
}

/// The figures of a latency.
pub(super) fn latency((name, latency): (&str, &Latency)) -> (String, Value) {
    let quantiles = QUANTILES
        .iter()
        .map(|(name, quantile)| (format!("{}_us", name.replace('.', "_")), latency.quantile_us(*quantile).into()));
    let mut figures: Map<String, Value> = quantiles.collect();
    figures.insert("max_us".into(), latency.max_us().into());
    figures.insert("mean_us".into(), latency.mean_us().into());
    figures.insert("count".into(), latency.count().into());
    figures.insert("buckets_us".into(), latency.buckets().map(|(end, count)| json!([end, count])).collect());
    (name.into(), figures.into())
}

fn step(step: &Step) -> Value {
    let seconds = step.length.as_secs_f64();
    json!({
        "end_seconds": step.end.as_secs_f64(),
        "files_per_second": step.counted.acknowledged as f64 / seconds,
        "failures_per_second": step.counted.failed as f64 / seconds,
        "bytes_per_second": step.counted.sent_bytes as f64 / seconds,
        "p50_us": step.p50_us,
        "p99_us": step.p99_us,
        "max_us": step.max_us,
        "busy_percent": step.counted.busy.as_secs_f64() / seconds * 100.0,
    })
}

fn verification(found: &Verification) -> Value {
    json!({
        "verified": found.verified,
        "compared_bytes": found.compared_bytes,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "damaged": found.damaged,
        "unexpected": found.unexpected,
        "open": found.open,
        "foreign": found.foreign,
        "findings": found.findings,
    })
}

fn tester(spent: &Spent) -> Value {
    json!({
        "cpu_seconds": spent.cpu.as_secs_f64(),
        "busy_percent": spent.busy_share * 100.0,
        "longest_turn_us": spent.longest_turn.as_micros() as u64,
        "was_bottleneck": spent.was_bottleneck(),
    })
}

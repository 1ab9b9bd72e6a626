//! The families of metrics, each with its help. `docs/operations.md` says what they mean to an operator.

use std::collections::BTreeMap;

use super::text::Text;
use super::view::View;
use crate::access::Limited;
use crate::net::{EchoStats, processor_time};
use crate::proto::{Code, Dialect};
use crate::server::meter::Total;
use crate::server::story::Fate;
use crate::store::Room;

/// In a second.
const MICROSECONDS: f64 = 1e6;

/// All families, as text.
pub(super) fn all(view: &View) -> String {
    let mut text = Text::default();
    process(view, &mut text);
    turns(view, &mut text);
    connections(view, &mut text);
    files(view, &mut text);
    limits(view, &mut text);
    disk(view, &mut text);
    echo(view, &mut text);
    text.into_text()
}

fn process(view: &View, text: &mut Text) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    text.gauge("intake_build_info", "The version of the server. Always 1.").with(&version, 1);
    text.gauge("intake_draining", "1 while the server shuts down.").is(u8::from(view.is_draining));
    text.gauge("process_start_time_seconds", "When the server started, in seconds since the epoch.").is(view.started);
    let seconds = processor_time().as_secs_f64();
    text.counter("process_cpu_seconds_total", "Processor time of all threads, in seconds.").is(seconds);
    text.counter("intake_log_dropped_total", "Lines of the log that were dropped, as nobody read them in time.")
        .is(view.log_dropped);
    text.counter("intake_events_dropped_total", "Events (--events) that were dropped, as nobody read them in time.")
        .is(view.connections.events_dropped());
}

fn turns(view: &View, text: &mut Text) {
    let Total { work_us, events, .. } = view.meter.total();
    text.histogram("intake_turn_seconds", "How long turns of the loop take, without its sleep.", work_us, MICROSECONDS);
    text.histogram("intake_turn_events", "How many events a turn begins with.", events, 1.0);
    text.counter(
        "intake_budget_spent_total",
        "Turns in which connections had to wait, as enough was read for one turn.",
    )
    .is(view.connections.budgets_spent());
}

fn connections(view: &View, text: &mut Text) {
    let stats = view.connections.stats();
    text.gauge("intake_connections", "Connections that are open.").is(view.connections.len());
    text.gauge("intake_connections_max", "The most connections at once.").is(view.acceptor.max_connections());
    text.counter("intake_connections_total", "Connections that were accepted.").is(stats.accepted);
    text.counter("intake_connections_lost_total", "Connections that were reset by the client or the network.")
        .is(stats.lost);
    text.counter("intake_connections_silent_total", "Connections that ended before a byte came.").is(stats.silent);
    text.counter("intake_accept_pauses_total", "Pauses of accepting, as descriptors or memory had run out.")
        .is(view.acceptor.pauses());
    text.counter("intake_handshakes_total", "TLS handshakes, by their result.")
        .with(&[("result", "done")], stats.secured)
        .with(&[("result", "failed")], stats.not_secured);
    if let Some(end) = view.connections.certificate_ends() {
        text.gauge("intake_certificate_end_seconds", "When the certificate ends, in seconds since the epoch.").is(end);
    }
}

fn files(view: &View, text: &mut Text) {
    let stats = view.connections.stats();
    let mut files = text.counter("intake_files_total", "Files, by what became of them and by how they were sent.");
    for (word, fate) in Fate::WORDS {
        for dialect in Dialect::ALL {
            files.with(&[("result", word), ("dialect", dialect.word())], stats.files.count(fate, dialect));
        }
    }
    text.counter("intake_received_bytes_total", "Bytes of content that were received.").is(stats.content_bytes);
    text.counter("intake_resumed_total", "Uploads that were resumed.").is(stats.resumed);
    let mut refusals = text
        .counter("intake_refusals_total", "Refused requests, cut off uploads and connections turned away, by code.");
    // A series that begins at 1 has no increase: those that are known begin at 0.
    let mut counts: BTreeMap<Code, u64> = Code::ALL.into_iter().map(|code| (code, 0)).collect();
    counts.extend(&stats.refused);
    for (code, count) in counts {
        refusals.with(&[("code", &code.0.to_string())], count);
    }
}

fn limits(view: &View, text: &mut Text) {
    let Limited { connections, wrong_tokens, source_day, token_day } = view.connections.access().limited();
    text.counter("intake_sources_limited_total", "What was refused for a limit of one source or token, by limit.")
        .with(&[("limit", "connections")], connections)
        .with(&[("limit", "wrong_tokens")], wrong_tokens)
        .with(&[("limit", "source_day")], source_day)
        .with(&[("limit", "token_day")], token_day);
}

fn disk(view: &View, text: &mut Text) {
    let store = view.connections.store();
    text.histogram(
        "intake_commit_seconds",
        "How long whole files wait until the disk has them, and their clients can be told.",
        view.connections.disk_waits_us(),
        MICROSECONDS,
    );
    text.gauge("intake_commit_backlog", "Whole files that wait for the disk.").is(store.waiting());
    text.gauge("intake_store_failed", "1 if nothing can be stored before the server is restarted.")
        .is(u8::from(store.check_usable().is_err()));
    text.gauge("intake_partials_kept", "Partial files of resumable uploads, running ones included, once a minute.")
        .is(store.kept_files());
    if let Some((waiting, failed)) = store.queued() {
        text.gauge("intake_queue_files", "Files in the queue, by state, once a minute.")
            .with(&[("state", "waiting")], waiting)
            .with(&[("state", "failed")], failed);
    }
    if let Ok(Some(Room { free_bytes, min_free_bytes })) = store.room() {
        text.gauge("intake_disk_free_bytes", "Free space of the file system that files are stored on.").is(free_bytes);
        text.gauge("intake_disk_min_free_bytes", "Space that uploads must leave free.").is(min_free_bytes);
    }
}

fn echo(view: &View, text: &mut Text) {
    let Some(EchoStats { echoed, refused_source, over_rate, not_sent, .. }) = view.echo else { return };
    text.counter("intake_datagrams_total", "Datagrams, by what became of them.")
        .with(&[("result", "echoed")], echoed)
        .with(&[("result", "refused_source")], refused_source)
        .with(&[("result", "over_rate")], over_rate)
        .with(&[("result", "not_sent")], not_sent);
}

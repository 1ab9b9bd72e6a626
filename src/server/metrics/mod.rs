//! What the operator's programs may ask: `/metrics`, `/healthz` and `/readyz`.
//!
//! An answer is written from a [`View`] of the server at the moment of the question. Nothing is computed before somebody asks.
//! Labels have few values, all of them in this program. A name, an address or a token as a label would let a stranger fill the
//! memory of whoever collects them.
//!
//! Knows the server's counts, and neither sockets nor the turn.

mod text;

use mio::net::TcpStream;

use super::Connections;
use super::side::Heard;
use super::story::Fate;
use crate::proto::{Code, Dialect, Get, Refusal};
use crate::store::{Directory, Room};
use text::Text;

/// The format of the answer to `/metrics`: Prometheus' text, version 0.0.4.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// That of the others.
const WORDS_TYPE: &str = "text/plain; charset=utf-8";

/// The server at the moment of a question.
pub struct View<'a> {
    pub connections: &'a Connections<TcpStream, Directory>,
    /// The most connections at once.
    pub max_connections: usize,
    /// The server is shutting down.
    pub is_draining: bool,
    /// In seconds since the epoch.
    pub time_of_day: u64,
}

/// Answers the first question of what a client has sent.
pub fn hear(input: &[u8], view: &View) -> Heard {
    let Some((get, taken)) = Get::read(input) else { return Heard::More };
    let say = |code, words: &str| get.answer(code, WORDS_TYPE, words.as_bytes(), view.time_of_day);
    let answer = match get.path() {
        Ok("/metrics") => get.answer(Code(200), METRICS_TYPE, view.metrics().as_bytes(), view.time_of_day),
        // Whoever hears this knows that the loop turns.
        Ok("/healthz") => say(Code(200), "ok\n"),
        Ok("/readyz") => match view.obstacle() {
            None => say(Code(200), "ready\n"),
            Some(words) => say(Code(503), &format!("not ready: {words}\n")),
        },
        Ok(_) => get.refuse(&Refusal::new(Code(404), "there is /metrics, /healthz and /readyz"), view.time_of_day),
        Err(refusal) => get.refuse(refusal, view.time_of_day),
    };
    Heard::Answer { taken, answer, is_last: get.is_last() }
}

impl View<'_> {
    /// Why uploads are not taken now, if they are not.
    fn obstacle(&self) -> Option<String> {
        if self.is_draining {
            return Some("the server is shutting down".into());
        }
        let store = self.connections.store();
        if let Err(error) = store.check_usable() {
            return Some(error.to_string());
        }
        match store.room() {
            Err(error) => Some(format!("the file system does not tell its free space: {error}")),
            Ok(Some(Room { free_bytes, min_free_bytes })) if free_bytes <= min_free_bytes => Some(format!(
                "{free_bytes} bytes are free on the disk, and uploads must leave {min_free_bytes} (--min-free)"
            )),
            Ok(_) => None,
        }
    }

    fn metrics(&self) -> String {
        let mut text = Text::default();
        let stats = self.connections.stats();
        text.gauge("intake_build_info", "The version of the server. Always 1.")
            .with(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.gauge("intake_connections", "Connections that are open.").is(self.connections.len());
        text.gauge("intake_connections_max", "The most connections at once.").is(self.max_connections);
        text.counter("intake_connections_total", "Connections that were accepted.").is(stats.accepted);
        let mut files = text.counter("intake_files_total", "Files, by what became of them and by how they were sent.");
        for (word, fate) in Fate::WORDS {
            for dialect in Dialect::ALL {
                files.with(&[("result", word), ("dialect", dialect.word())], stats.files.count(fate, dialect));
            }
        }
        text.counter("intake_received_bytes_total", "Bytes of content that were received.").is(stats.content_bytes);
        let mut refusals =
            text.counter("intake_refusals_total", "Requests that were refused and uploads that were cut off, by code.");
        for (code, count) in &stats.refused {
            refusals.with(&[("code", &code.0.to_string())], *count);
        }
        text.into_text()
    }
}

//! What the operator's programs may ask: `/metrics`, `/healthz` and `/readyz`.
//!
//! An answer is written from a [`View`] of the server at the moment of the question. Nothing is computed before somebody asks.
//! Labels have few values, all of them in this program. A name, an address or a token as a label would let a stranger fill the
//! memory of their collector.
//!
//! Knows the server's counts, and neither sockets nor the turn.

mod families;
mod text;
mod view;

pub use view::View;

use super::side::Heard;
use crate::proto::{Code, Get, Refusal};

/// The format of the answer to `/metrics`: Prometheus' text, version 0.0.4.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// That of the others.
const WORDS_TYPE: &str = "text/plain; charset=utf-8";

/// Answers the first question of what a client has sent.
pub fn hear(input: &[u8], view: &View) -> Heard {
    let Some((get, taken)) = Get::read(input) else { return Heard::More };
    let now = view.time_of_day;
    let say = |code, words: &str| get.answer(code, WORDS_TYPE, words.as_bytes(), now);
    let answer = match get.path() {
        Ok("/metrics") => {
            let text = view.metrics.get_or_init(|| families::all(view));
            get.answer(Code(200), METRICS_TYPE, text.as_bytes(), now)
        }
        // The answer shows that the loop turns.
        Ok("/healthz") => say(Code(200), "ok\n"),
        Ok("/readyz") => match view.obstacle() {
            None => say(Code(200), "ready\n"),
            Some(words) => say(Code(503), &format!("not ready: {words}\n")),
        },
        Ok(_) => get.refuse(&Refusal::new(Code(404), "there is /metrics, /healthz and /readyz"), now),
        Err(refusal) => get.refuse(refusal, now),
    };
    Heard::Answer { taken, answer, is_last: get.is_last() }
}

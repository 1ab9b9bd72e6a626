//! The admin socket: the operator's own programs look at the server, and shut it down.
//!
//! A client sends commands, one a line ([`caller`]), and gets lines of JSON ([`frame`]). One that watches is sent a frame up to
//! ten times a second. One that does not read loses frames, and is told how many: no more than one waits for it.
//!
//! Knows no socket ([`Side`] does), and changes nothing: what a client wishes, the turn does.

mod caller;
mod frame;

use std::collections::HashMap;
use std::io;

use mio::{Registry, Token};
use serde_json::json;

pub use caller::Wish;
use caller::{COMMANDS, Caller, Command};
use frame::Shown;

use super::metrics::View;
use super::pace::Clock;
use super::side::{Heard, Side};
use super::story::trace::Lines;
use crate::net::LocalListener;
use crate::net::diag::Diag;
use crate::reactor::{Id, Moment, Readiness};

/// The most bytes of a trace that wait for a client that does not read: a long story of an upload.
const STORY_MAX_BYTES: usize = 64 << 10;

/// The admin socket and its clients.
pub struct Admin {
    side: Side<LocalListener, Caller>,
    diag: Option<Diag>,
    /// When the recent bytes of connections began to count.
    recent_since: Moment,
    frames: u64,
    wishes: Vec<Wish>,
}

impl Admin {
    /// Serves clients of this socket, under the token `first` and those that follow.
    ///
    /// # Errors
    /// The error of the poll.
    pub fn register(socket: LocalListener, first: Token, registry: &Registry) -> io::Result<Self> {
        let side = Side::register(socket, first, registry)?;
        let diag = Diag::open().inspect_err(|error| log::info!("the admin socket shows no queues: {error}")).ok();
        Ok(Self { side, diag, recent_since: Moment::default(), frames: 0, wishes: Vec::new() })
    }

    /// Notes an event, if it is one of the socket or its clients.
    pub fn absorb(&mut self, token: usize, readiness: Readiness) {
        self.side.absorb(token, readiness);
    }

    /// Whether there is something to do now.
    pub fn is_ready(&self, now: Moment) -> bool {
        self.side.is_ready(now)
    }

    /// When there is something to do without an event.
    pub fn deadline(&self) -> Option<Moment> {
        self.side.followers().filter_map(Caller::due).chain(self.side.deadline()).min()
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.side.followers().any(Caller::is_watching)
    }

    /// Whether somebody follows `id`.
    pub fn is_followed(&self, id: Id) -> bool {
        self.side.followers().any(|caller| caller.follows(id))
    }

    /// Whether somebody follows a connection.
    pub fn has_followers(&self) -> bool {
        self.side.followers().any(|caller| matches!(caller, Caller::Follows { .. }))
    }

    /// Answers a bounded number of commands, and sends the frames that are due. Returns what clients wish.
    pub fn serve(&mut self, clock: Clock, registry: &Registry, view: &View) -> Vec<Wish> {
        let Self { side, diag, recent_since, frames, wishes } = self;
        let recent = clock.now.since(*recent_since);
        let mut shown = Shown { view, diag: diag.as_mut(), now: clock.now, recent };
        side.serve(clock, registry, |caller, input| hear(caller, input, &mut shown, wishes));
        let mut frame = None;
        side.push(clock.now, |caller, unsent_bytes| {
            let Caller::Watches { every, due, lost } = caller else { return Vec::new() };
            if clock.now < *due {
                return Vec::new();
            }
            *due = caller::next_due(*every, clock.now);
            if unsent_bytes > 0 {
                *lost += 1;
                return Vec::new();
            }
            let frame = frame.get_or_insert_with(|| {
                *frames += 1;
                shown.frame()
            });
            // What is left out here is the brace that opens the frame.
            format!("{{\"frame\":{frames},\"lost\":{lost},{}", &frame[1..]).into_bytes()
        });
        if frame.is_some() {
            *recent_since = clock.now;
            wishes.push(Wish::ForgetRecent);
        }
        std::mem::take(wishes)
    }

    /// Sends the traces of connections to those who follow them.
    pub fn tell(&mut self, now: Moment, stories: &HashMap<Id, Lines>) {
        self.side.push(now, |caller, unsent_bytes| {
            let Caller::Follows { id, lost } = caller else { return Vec::new() };
            let Some(lines) = stories.get(id) else { return Vec::new() };
            *lost += lines.dropped;
            if unsent_bytes + lines.bytes.len() > STORY_MAX_BYTES {
                *lost += lines.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                return Vec::new();
            }
            let mut out = lines.bytes.clone();
            if *lost > 0 && (lines.is_over || !out.is_empty()) {
                out.extend(line(&json!({ "lost": std::mem::take(lost) })));
            }
            if lines.is_over {
                out.extend(line(&json!({ "over": true })));
                *caller = Caller::Asks;
            }
            out
        });
    }
}

/// Answers a command.
fn hear(caller: &mut Caller, input: &[u8], shown: &mut Shown, wishes: &mut Vec<Wish>) -> Heard {
    let Some((taken, command)) = caller::read(input) else { return Heard::More };
    let answer = |bytes: Vec<u8>| Heard::Answer { taken, answer: bytes, is_last: false };
    match command {
        Err(words) => answer(line(&json!({ "error": words }))),
        Ok(Command::Sessions) => answer(shown.sessions().into_bytes()),
        Ok(Command::Turns) => answer(line(&shown.turns())),
        Ok(Command::Stats) => answer(line(&shown.stats())),
        Ok(Command::Help) => answer(line(&json!({ "commands": COMMANDS }))),
        Ok(Command::Bye) => Heard::Answer { taken, answer: line(&json!({ "ok": "bye" })), is_last: true },
        Ok(Command::Drain) => {
            wishes.push(Wish::Drain);
            let words = if shown.view.is_draining { "it is shutting down already" } else { "it shuts down" };
            answer(line(&json!({ "ok": words })))
        }
        Ok(Command::Log(level)) => {
            wishes.push(Wish::Log(level));
            answer(line(&json!({ "ok": format!("logs at {}", level.as_str().to_lowercase()) })))
        }
        Ok(Command::Watch(every)) => {
            *caller = Caller::watches(every, shown.now);
            Heard::Follow { taken, answer: Vec::new() }
        }
        Ok(Command::Story(id)) => match shown.view.connections.seat(id) {
            Some((_, whom)) => {
                *caller = Caller::Follows { id, lost: 0 };
                wishes.push(Wish::Follow(id));
                let ok = json!({ "ok": "the story begins", "peer": whom.peer().to_string() });
                Heard::Follow { taken, answer: line(&ok) }
            }
            None => answer(line(&json!({ "error": "there is no such connection, or no longer" }))),
        },
    }
}

fn line(value: &serde_json::Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

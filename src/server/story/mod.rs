//! The story of each connection: one stream of facts, and its listeners.
//!
//! A connection tells each [`Fact`] once. Every [`Ear`] hears it: the statistics count, the log writes a line, and a new
//! listener is one more ear. The trace hears more: every single step, as a [`Scene`].
//!
//! ```text
//!   Connection --tell--> Story --+--> Whom    counts of this connection
//!                                +--> Stats   counts of the server
//!                                +--> Line    the log
//!                                +--> Events  the outcomes for the operator's programs, if he wants them
//!              --scene-> Story -----> Tracer  the trace, if there is one
//! ```
//!
//! [`Whom`] owns the peer's address, its name if it has proven one ([`Who`]), and the time of the accept. Nothing here influences a connection.

mod ear;
mod ending;
mod events;
mod files;
mod json;
mod line;
mod peer;
mod scene;
mod stats;
pub mod trace;
mod words;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use ear::{Ear, Fact, Whom};
pub use ending::{CloseReason, Filed};
pub use events::{Events, EventsTo, Out};
pub use files::{Fate, Files};
use line::Line;
pub use scene::Scene;
pub use stats::Stats;
use trace::{Lines, Tracer};
pub use words::awaited;

pub use crate::access::Who;
use crate::net::diag::Diag;

use crate::proto::{Awaits, Ticket};
use crate::reactor::Id;

/// The listeners for all connections.
#[derive(Debug, Default)]
pub struct Ears {
    stats: Stats,
    events: Option<Events>,
    tracers: Vec<Tracer>,
    /// A tracer has something to do.
    are_traced: bool,
}

impl Ears {
    /// Traces every connection from now on.
    pub fn trace_to(&mut self, tracer: Tracer) {
        self.tracers.push(tracer);
        self.are_traced = true;
    }

    /// Connections may be followed from now on, each by its id.
    pub fn may_follow(&mut self, diag: io::Result<Diag>) {
        self.tracers.push(Tracer::of_chosen(diag));
    }

    /// Follows a connection that was accepted `age` ago.
    pub fn follow(&mut self, id: Id, peer: SocketAddr, local: Option<SocketAddr>, age: Duration, awaits: Awaits) {
        self.tracers.iter_mut().for_each(|tracer| tracer.follow(id, peer, local, age, awaits));
        self.note_tracers();
    }

    /// Takes what was noted of the connections that are followed, and follows only those any longer that `keep` names.
    pub fn take_lines(&mut self, keep: impl Fn(Id) -> bool) -> HashMap<Id, Lines> {
        let taken = self.tracers.iter_mut().flat_map(Tracer::take_lines).collect();
        self.tracers.iter_mut().for_each(|tracer| tracer.follow_only(&keep));
        self.note_tracers();
        taken
    }

    fn note_tracers(&mut self) {
        self.are_traced = self.tracers.iter().any(Tracer::is_needed);
    }

    /// Writes the outcomes of files to `out` from now on.
    pub fn tell_events_to(&mut self, out: Out) {
        match &mut self.events {
            Some(events) => events.redirect(out),
            None => self.events = Some(Events::new(out)),
        }
    }

    /// The outcomes of files, if they are written.
    pub fn events(&self) -> Option<&Events> {
        self.events.as_ref()
    }

    /// As [`Ears::events`].
    pub fn events_mut(&mut self) -> Option<&mut Events> {
        self.events.as_mut()
    }

    /// The statistics so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// A fact about the connection `id` with `whom`.
    pub fn hear_of(&mut self, id: Id, whom: &Whom, fact: &Fact) {
        self.hear(whom, fact);
        if let Some(events) = &mut self.events {
            events.hear(id, whom, fact);
        }
    }

    /// A fact about `whom`, whose connection is not or no longer held.
    pub fn hear(&mut self, whom: &Whom, fact: &Fact) {
        self.stats.hear(whom, fact);
        Line.hear(whom, fact);
    }

    /// A connection was accepted.
    pub fn accepted(&mut self, id: Id, local: impl FnOnce() -> Option<SocketAddr>, whom: &Whom) {
        self.hear(whom, &Fact::Accepted);
        if self.are_traced {
            let local = local();
            self.tracers.iter_mut().for_each(|tracer| tracer.accepted(id, local, whom.peer()));
        }
    }

    /// Shows a step of a connection. Without a trace, `scene` is not even called.
    #[inline]
    pub fn scene<'s>(&mut self, id: Id, scene: impl FnOnce() -> Scene<'s>) {
        if self.are_traced {
            let scene = scene();
            self.tracers.iter_mut().for_each(|tracer| tracer.hear(id, &scene));
        }
    }

    /// A connection is about to be closed.
    pub fn closing(&mut self, id: Id) {
        self.tracers.iter_mut().for_each(|tracer| tracer.closing(id));
    }

    /// The socket of a connection is closed.
    pub fn closed(&mut self, id: Id, reason: &CloseReason) {
        if let Some(events) = &mut self.events {
            events.closed(id);
        }
        self.tracers.iter_mut().for_each(|tracer| tracer.closed(id, reason));
    }
}

/// The place where one connection tells its facts.
#[derive(Debug)]
pub struct Story<'a> {
    /// The connection.
    pub id: Id,
    /// The peer and the counts of the connection.
    pub whom: &'a mut Whom,
    /// The listeners.
    pub ears: &'a mut Ears,
}

impl Story<'_> {
    /// Tells a fact.
    pub fn tell(&mut self, fact: &Fact) {
        self.whom.note(fact);
        self.ears.hear_of(self.id, self.whom, fact);
    }

    /// Replies may have been written: all of those to requests before `ticket`, if it is known.
    #[inline]
    pub fn told(&mut self, ticket: impl FnOnce() -> Option<Ticket>) {
        if let Some(events) = &mut self.ears.events
            && events.has_untold(self.id)
            && let Some(ticket) = ticket()
        {
            events.told(self.id, ticket);
        }
    }

    /// The client has proven that it is `who`. Told once for each name.
    pub fn name(&mut self, who: &Who) {
        if self.whom.who() != Some(who) {
            self.tell(&Fact::Named { who });
            self.scene(|| Scene::Named(who));
        }
    }

    /// Shows a step. Without a trace, `scene` is not even called.
    #[inline]
    pub fn scene<'s>(&mut self, scene: impl FnOnce() -> Scene<'s>) {
        self.ears.scene(self.id, scene);
    }

    /// Shows what the conversation waits for, if that has changed.
    #[inline]
    pub fn state(&mut self, awaits: impl FnOnce() -> Awaits) {
        if self.ears.are_traced {
            let awaits = awaits();
            self.ears.tracers.iter_mut().for_each(|tracer| tracer.hear_state(self.id, awaits));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Code, Dialect, Name, NamePolicy, Refusal};
    use crate::reactor::{Moment, Slots};

    #[test]
    fn every_listener_hears_a_fact_once() {
        let (mut whom, mut ears) =
            (Whom::new(SocketAddr::from(([192, 0, 2, 1], 9)), Moment::default()), Ears::default());
        let id = Slots::default().insert(());
        let name = Name::parse(b"a", NamePolicy::default()).unwrap();
        let refusal = Refusal::new(Code::CONFLICT, "taken");
        let mut story = Story { id, whom: &mut whom, ears: &mut ears };
        story.tell(&Fact::Received { bytes: 7 });
        story.tell(&Fact::Refused { refusal: &refusal, name: Some(&name), dialect: Dialect::Put, ticket: Ticket(1) });
        assert!(whom.has_answered());
        let Whom { content_bytes, stored, refused, .. } = whom;
        assert_eq!((content_bytes, stored, refused), (7, 0, 1));
        let stats = ears.stats();
        assert_eq!((stats.content_bytes, stats.refused[&Code::CONFLICT]), (7, 1));
    }

    #[test]
    fn a_name_is_told_when_it_changes() {
        let (mut whom, mut ears) =
            (Whom::new(SocketAddr::from(([192, 0, 2, 1], 9)), Moment::default()), Ears::default());
        let id = Slots::default().insert(());
        let mut story = Story { id, whom: &mut whom, ears: &mut ears };
        for name in ["alice", "alice", "bob"] {
            story.name(&Who::new(name));
            assert_eq!(story.whom.who().map(Who::as_str), Some(name));
        }
        assert_eq!(whom.to_string(), "192.0.2.1:9 by bob");
    }

    #[test]
    fn without_a_tracer_no_scene_is_made() {
        let id = Slots::default().insert(());
        Ears::default().scene(id, || unreachable!("nobody listens"));
    }
}

//! All connections: who is ready, who is due, and the one place that closes.
//!
//! This is the turn without the operating system: readiness and time are handed in, so that the simulation drives the
//! very code that the poll drives. The [`Table`] sees to it that a connection that could get further is queued.

use std::io;
use std::net::SocketAddr;

use super::config::{Config, Limits};
use super::connection::Connection;
use super::jobs::{Jobs, Waiter};
use super::pace::Clock;
use super::story::trace::Tracer;
use super::story::{CloseReason, Ears, Fact, Filed, Scene, Stats, Story, Whom};
use super::visit::{Context, Verdict};
use super::work::Disk;
use crate::net::{Pipe, Stream};
use crate::proto::{Name, Rules};
use crate::reactor::{Budget, Guest, Id, Moment, Readiness, ReadyQueue, Table};
use crate::store::{Done, Store, StoreError};

/// One read, at most: past 1 MiB a file system gains nothing from larger writes.
const BUFFER_BYTES: usize = 1 << 20;
/// What all connections together may be visited for: each has its share of it, so that with many of them none waits long.
const ROUND_BYTES: usize = 16 << 20;
/// The least that is. Less would cost each byte more.
const SHARE_MIN_BYTES: usize = 256 << 10;
/// What all may read in one turn, so that deadlines, datagrams and new connections wait for milliseconds only.
const TURN_BYTES: usize = 8 << 20;
/// What a visit counts for at least: opening and publishing a small file takes as long as this many bytes of a large one.
const VISIT_MIN_BYTES: usize = 16 << 10;

/// What a visit does with the connection.
type Act<S, D> = fn(&mut Connection<S, D>, &mut Context<'_, D>, &mut Budget) -> Verdict;

/// The connection table and what it takes to serve it.
pub struct Connections<S, D: Store> {
    store: D,
    rules: Rules,
    limits: Limits,
    table: Table<Seat<S, D>>,
    /// Those that are about to begin a file and wait until fewer files wait for the disk, first come first served.
    waiting_for_room: ReadyQueue,
    jobs: Jobs,
    /// Those who wait until the disk is done with the upload that they want to resume.
    awaiting: Vec<Id>,
    buffer: Box<[u8]>,
    pipe: Option<Pipe>,
    ears: Ears,
}

/// A connection, and who it is with.
struct Seat<S, D: Store> {
    connection: Connection<S, D>,
    whom: Whom,
}

impl<S: Stream, D: Store> Guest for Seat<S, D> {
    fn absorb(&mut self, readiness: Readiness) -> bool {
        self.connection.absorb(readiness)
    }

    fn is_ready(&self, now: Moment) -> bool {
        self.connection.is_ready(now)
    }
}

impl<S: Stream, D: Store> Connections<S, D> {
    /// No connection yet.
    pub fn new(store: D, config: &Config) -> Self {
        Self {
            store,
            rules: config.rules.clone(),
            limits: config.limits.clone(),
            table: Table::default(),
            waiting_for_room: ReadyQueue::default(),
            jobs: Jobs::default(),
            awaiting: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into(),
            pipe: open_pipe(),
            ears: Ears::default(),
        }
    }

    /// Has the trace of every connection written from now on.
    pub fn trace_to(&mut self, tracer: Tracer) {
        self.ears.trace_to(tracer);
    }

    /// Shows a step of `id` in the trace.
    pub fn scene<'s>(&mut self, id: Id, scene: impl FnOnce() -> Scene<'s>) {
        self.ears.scene(id, scene);
    }

    /// Takes on a new connection; `register` makes the poll report it under the [`Id`] that it is given.
    ///
    /// # Errors
    /// What `register` says; nothing is taken on then.
    pub fn admit(
        &mut self,
        peer: SocketAddr,
        now: Moment,
        register: impl FnOnce(Id) -> io::Result<S>,
    ) -> io::Result<()> {
        let id = self.table.next_id();
        let stream = register(id)?;
        let whom = Whom::new(peer, now);
        self.ears.accepted(id, || stream.local_addr().ok(), &whom);
        self.table.admit(Seat { connection: Connection::new(stream, now), whom });
        Ok(())
    }

    /// Notes what an event said about `id`. Nothing is read, written or closed yet.
    pub fn absorb(&mut self, id: Id, readiness: Readiness) {
        self.table.absorb(id, readiness);
    }

    /// Takes in the time of day, in seconds since the epoch. It is only told to clients.
    pub fn tell_time(&mut self, now: u64) {
        self.rules.now = now;
    }

    /// Passes the results of the disk on to those who wait for them.
    pub fn settle(&mut self) {
        for settled in self.store.settled() {
            let Waiter { id, ticket } = Waiter::of(settled.token);
            let filed = self.jobs.settle(&settled);
            if let Some(Seat { connection, whom }) = self.table.get_mut(id) {
                let mut story = Story { id, whom, ears: &mut self.ears };
                connection.settle(ticket, filed, settled.done, &self.rules, &mut story);
                self.table.queue(id);
            } else if let (Some(filed), Done::Stored(result)) = (filed, settled.done) {
                self.settle_orphan(&filed, &result);
            }
        }
        self.stop_awaiting();
    }

    /// Lets those go on whose upload the disk is done with.
    fn stop_awaiting(&mut self) {
        let Self { awaiting, table, store, .. } = self;
        awaiting.retain(|id| {
            let Some(seat) = table.get_mut(*id) else { return false };
            let is_ready = seat.connection.stop_awaiting(store);
            if is_ready {
                table.queue(*id);
            }
            !is_ready
        });
    }

    /// A file is stored, or not, whose client has gone.
    fn settle_orphan(&mut self, filed: &Filed, result: &Result<Name, StoreError>) {
        let fact = match result {
            Ok(stored) => Fact::StoredForNobody { filed, stored },
            Err(error) => Fact::LostForNobody { filed, error },
        };
        self.ears.hear(&Whom::new(filed.peer, Moment::default()), &fact);
    }

    /// Serves those that are ready now, once each, as far as the turn's budget goes. Those that have waited for room come
    /// first, as far as there is room.
    pub fn serve(&mut self, clock: Clock) {
        let mut turn = Budget::new(TURN_BYTES);
        while self.may_begin_one()
            && !turn.is_spent()
            && let Some(id) = self.waiting_for_room.pop()
        {
            let spent = self.visit(id, clock, Connection::begin_now);
            turn.spend(spent.max(VISIT_MIN_BYTES));
        }
        for _ in 0..self.table.ready() {
            if turn.is_spent() {
                break;
            }
            let Some(id) = self.table.pop_ready() else { break };
            let spent = self.visit(id, clock, Connection::serve);
            turn.spend(spent.max(VISIT_MIN_BYTES));
        }
    }

    /// Whether somebody waits for room to begin a file, and there is some.
    fn may_begin_one(&self) -> bool {
        !self.waiting_for_room.is_empty() && !self.store.is_congested()
    }

    /// Calls those late whose deadline had passed when the poll was asked and who have nothing to be read since: what a
    /// client sent before its deadline is always read before the client is judged.
    pub fn expire(&mut self, clock: Clock) {
        let mut turn = Budget::new(TURN_BYTES);
        while !turn.is_spent()
            && let Some(id) = self.table.pop_due(clock.asked)
        {
            let spent = self.visit(id, clock, Connection::expire);
            turn.spend(spent.max(VISIT_MIN_BYTES));
        }
    }

    /// Takes no further request. Uploads that have begun go on, and each client that is between two of them is let go when
    /// all that it had sent has been looked at.
    pub fn drain(&mut self) {
        self.rules.is_draining = true;
        // What has come since the last event counts as sent before.
        let look = Readiness { readable: true, writable: false };
        for id in self.table.ids() {
            self.table.absorb(id, look);
            self.table.queue(id);
        }
    }

    /// Ends all connections now. Returns how many uploads that cut off.
    pub fn abort(&mut self, clock: Clock) -> usize {
        let uploading = self.uploading();
        for id in self.table.ids() {
            self.visit(id, clock, Connection::abort);
        }
        uploading
    }

    /// How many have begun an upload that is not stored yet.
    pub fn uploading(&self) -> usize {
        self.table.iter().filter(|(_, seat)| seat.connection.is_uploading()).count()
    }

    /// Whether there is nobody left but clients that have been told everything.
    pub fn are_lingering(&self) -> bool {
        self.table.iter().all(|(_, seat)| seat.connection.is_lingering())
    }

    /// When somebody has to be looked at, at the latest.
    pub fn first_deadline(&self) -> Option<Moment> {
        self.table.first_deadline()
    }

    /// Whether somebody can be served at once.
    pub fn has_ready(&self) -> bool {
        self.table.ready() > 0 || self.may_begin_one()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Where files go.
    pub fn store(&self) -> &D {
        &self.store
    }

    /// Where files go, to change how.
    pub fn store_mut(&mut self) -> &mut D {
        &mut self.store
    }

    /// What has been counted.
    pub fn stats(&self) -> &Stats {
        self.ears.stats()
    }

    /// Lets `act` get a connection further and does what its verdict says. Returns the bytes that were spent.
    fn visit(&mut self, id: Id, clock: Clock, act: Act<S, D>) -> usize {
        let share = self.share_bytes();
        // Over with half of it, as what is left would make for a short read.
        let mut budget = Budget::new(share / 2);
        let Some(Seat { connection, whom }) = self.table.get_mut(id) else { return 0 };
        let mut cx = Context {
            disk: Disk { store: &mut self.store, jobs: &mut self.jobs, id, on_exists: self.rules.on_exists },
            rules: &self.rules,
            limits: &self.limits,
            buffer: &mut self.buffer[..share],
            pipe: self.pipe.as_ref(),
            clock,
            others_wait: !self.waiting_for_room.is_empty(),
            story: Story { id, whom, ears: &mut self.ears },
        };
        let verdict = act(connection, &mut cx, &mut budget);
        match verdict {
            Verdict::Wait | Verdict::Room => {
                let deadline = connection.deadline(&self.limits).unwrap_or(Moment::NEVER);
                self.table.wait(id, deadline, clock.now);
                if matches!(verdict, Verdict::Room) {
                    self.waiting_for_room.push(id);
                }
            }
            Verdict::Yield => {
                cx.story.scene(|| Scene::Yielded { spent_bytes: budget.spent_bytes() });
                self.table.queue(id);
            }
            Verdict::Contend => self.contend(id, clock),
            Verdict::Close(reason) => self.close(id, &reason, clock.now),
        }
        budget.spent_bytes()
    }

    /// What one connection may read before the others have their turn.
    fn share_bytes(&self) -> usize {
        (ROUND_BYTES / self.table.len().max(1)).clamp(SHARE_MIN_BYTES, BUFFER_BYTES)
    }

    /// The newest claim wins: ends the connection that has the upload that `id` wants to resume. Then, and where only the disk
    /// is still busy with it, `id` waits for the disk. Where another server has it, `id` is told to come back. Looks
    /// through all connections: a table by resume id would cost every upload what only this one needs.
    fn contend(&mut self, id: Id, clock: Clock) {
        if self.store.is_congested() {
            // It is about to begin a file.
            return self.waiting_for_room.push(id);
        }
        let wanted = self.table.get(id).and_then(|seat| seat.connection.work().contended());
        let rival = wanted
            .and_then(|wanted| self.table.iter().find(|(_, other)| other.connection.work().has_resume_id(wanted)));
        if let Some((rival, _)) = rival {
            self.visit(rival, clock, Connection::evict);
        }
        self.visit(id, clock, Connection::retry);
        if self.table.get(id).is_some_and(|seat| seat.connection.work().is_awaiting_disk()) {
            self.awaiting.push(id);
        }
    }

    /// The one place that closes: takes the connection off all tables, counts its ending and tells its story.
    fn close(&mut self, id: Id, reason: &CloseReason, now: Moment) {
        let Some(Seat { mut connection, whom }) = self.table.remove(id) else { return };
        self.ears.hear(&whom, &Fact::Closed { reason, uploading: connection.work().name(), now });
        connection.keep_upload();
        self.ears.closing(id);
        drop(connection);
        self.ears.closed(id, reason);
    }
}

/// Without one everything is read: that costs more, and nothing else.
fn open_pipe() -> Option<Pipe> {
    Pipe::open().inspect_err(|error| log::info!("long uploads are copied twice, for want of a pipe: {error}")).ok()
}

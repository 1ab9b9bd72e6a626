//! All connections: which are ready, which are due, and the one place that closes them.
//!
//! This is the turn without the operating system. Readiness and time are parameters, so the simulation drives the same code
//! as the poll. The [`Table`] ensures that a connection that could make progress is in the ready queue.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use super::config::{Config, Limits};
use super::connection::Connection;
use super::handshakes::{ANSWERS_PER_TURN, Handshakes};
use super::histogram::Histogram;
use super::jobs::{Jobs, Waiter};
use super::pace::Clock;
use super::reload::Security;
use super::rulebook::{Kind, RuleBook};
use super::story::trace::{Lines, Tracer};
use super::story::{CloseReason, Ears, Events, Fact, Filed, Out, Scene, Stats, Story, Whom};
use super::visit::{Context, Verdict};
use super::visits::{Ended, Visits};
use super::work::{Disk, Status};
use crate::access::{Access, Tokens};
use crate::net::diag::Diag;
use crate::net::tls::Identity;
use crate::net::{Pipe, Stream};
use crate::proto::{Name, Refusal, Rules};
use crate::reactor::{Budget, Guest, Id, Moment, Readiness, ReadyQueue, Source, Table};
use crate::store::{Done, Store, StoreError};

/// The most bytes of one read. A file system gains nothing from writes larger than 1 MiB.
const BUFFER_BYTES: usize = 1 << 20;
/// The bytes of one visit to every connection. Each gets an equal share, so that none waits long, even among many.
const ROUND_BYTES: usize = 16 << 20;
/// The smallest share. Less would make each byte more expensive.
const SHARE_MIN_BYTES: usize = 256 << 10;
/// The most bytes that all read in one turn, so that deadlines, datagrams and new connections wait for milliseconds only.
const TURN_BYTES: usize = 8 << 20;
/// The fewest bytes that a visit counts for: opening and publishing a small file takes as long as this many bytes of a large one.
const VISIT_MIN_BYTES: usize = 16 << 10;

/// What a visit does with the connection.
type Act<S, D> = fn(&mut Connection<S, D>, &mut Context<'_, D>, &mut Budget) -> Verdict;

/// The connection table and what it takes to serve it.
pub struct Connections<S, D: Store> {
    store: D,
    access: Access,
    book: RuleBook,
    limits: Limits,
    security: Security,
    handshakes: Handshakes,
    table: Table<Seat<S, D>>,
    /// Connections that wait until fewer files wait for the disk, to begin a file. First come, first served.
    waiting_for_room: ReadyQueue,
    jobs: Jobs,
    /// Connections that wait until the disk is done with the upload that they want to resume.
    awaiting: Vec<Id>,
    buffer: Box<[u8]>,
    pipe: Option<Pipe>,
    /// How many turns have spent their budget.
    budgets_spent: u64,
    ears: Ears,
    visits: Visits,
}

/// A connection, and its client as the log names it.
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
            access: Access::new(config.policy.clone()),
            book: RuleBook::new(rules_of(config), config.proxy_unsized),
            limits: config.limits.clone(),
            security: Security::default(),
            handshakes: Handshakes::new(config.tls.as_ref().map_or(0, |tls| tls.max_handshakes)),
            table: Table::default(),
            waiting_for_room: ReadyQueue::default(),
            jobs: Jobs::default(),
            awaiting: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into(),
            pipe: open_pipe(),
            budgets_spent: 0,
            ears: Ears::default(),
            visits: Visits::default(),
        }
    }

    /// The rules, the limits and the policy of `config` count from now on.
    pub fn reconfigure(&mut self, config: &Config) {
        self.access.replace_policy(config.policy.clone());
        self.book.replace(rules_of(config), config.proxy_unsized);
        self.limits = config.limits.clone();
        // The deadlines of connections follow from the limits.
        self.table.ids().into_iter().for_each(|id| self.table.queue(id));
    }

    /// Writes a trace of every connection from now on.
    pub fn tell_events_to(&mut self, out: Out) {
        self.ears.tell_events_to(out);
    }

    /// Writes the events of this turn.
    pub fn flush_events(&mut self) {
        if let Some(events) = self.ears.events_mut() {
            events.flush();
        }
    }

    /// How many events were dropped.
    pub fn events_dropped(&self) -> u64 {
        self.ears.events().map_or(0, Events::dropped)
    }

    /// Traces every connection from now on.
    pub fn trace_to(&mut self, tracer: Tracer) {
        self.ears.trace_to(tracer);
    }

    /// Connections may be followed from now on.
    pub fn may_follow(&mut self, diag: io::Result<Diag>) {
        self.ears.may_follow(diag);
    }

    /// Traces this connection from now on. Returns whether there is such a connection.
    pub fn follow(&mut self, id: Id, now: Moment) -> bool {
        let Some(Seat { connection, whom }) = self.table.get(id) else { return false };
        let age = now.since(whom.accepted());
        self.ears.follow(id, whom.peer(), connection.local_addr(), age, connection.awaits());
        true
    }

    /// Takes the traces of the connections that are followed. Those that `keep` does not name are not followed any longer.
    pub fn take_lines(&mut self, keep: impl Fn(Id) -> bool) -> HashMap<Id, Lines> {
        self.ears.take_lines(keep)
    }

    /// The connection `id`, and its client.
    pub fn seat(&self, id: Id) -> Option<(&Connection<S, D>, &Whom)> {
        self.table.get(id).map(|seat| (&seat.connection, &seat.whom))
    }

    /// All ids.
    pub fn ids(&self) -> Vec<Id> {
        self.table.ids()
    }

    /// From now on new connections are served with this certificate. Others keep theirs.
    pub fn secure(&mut self, security: Security) {
        self.security = security;
    }

    /// Shows a step of `id` in the trace.
    pub fn scene<'s>(&mut self, id: Id, scene: impl FnOnce() -> Scene<'s>) {
        self.ears.scene(id, scene);
    }

    /// Clients need one of these tokens from now on. What their connections have begun they may finish.
    pub fn replace_tokens(&mut self, tokens: Tokens) {
        self.access.replace_tokens(tokens);
        self.book.need_token();
    }

    /// Whether a client at `peer` may connect, or a proxy, whose clients are known later. If so, [`Connections::admit`] follows.
    ///
    /// # Errors
    /// The reason why it is turned away.
    pub fn screen(&mut self, peer: SocketAddr, now: Moment) -> Result<(), Refusal> {
        if self.access.is_proxy(peer.ip()) {
            return Ok(());
        }
        self.access.enter(peer.ip()).inspect_err(|refusal| {
            self.ears.hear(&Whom::new(peer, now), &Fact::TurnedAway { refusal });
        })
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
        let is_proxy = self.access.is_proxy(peer.ip());
        let stream = register(id).inspect_err(|_| {
            if !is_proxy {
                self.access.leave(peer.ip());
            }
        })?;
        let whom = Whom::new(peer, now);
        self.ears.accepted(id, || stream.local_addr().ok(), &whom);
        let mut connection = Connection::new(stream, now);
        if is_proxy {
            connection.begin_proxied();
        }
        self.table.admit(Seat { connection, whom });
        Ok(())
    }

    /// Notes what an event said about `id`. Nothing is read, written or closed yet.
    pub fn absorb(&mut self, id: Id, readiness: Readiness) {
        self.table.absorb(id, readiness);
    }

    /// Sets the time, and the time of day in seconds since the epoch. HTTP answers and events show the latter.
    pub fn tell_time(&mut self, now: Moment, time_of_day: u64) {
        self.book.tell_time(time_of_day);
        if let Some(events) = self.ears.events_mut() {
            events.begin_turn(now, time_of_day);
        }
    }

    /// Passes the results of the disk on to the connections that wait for them. Returns how many there were.
    pub fn settle(&mut self, clock: Clock) -> usize {
        let mut count = 0;
        for settled in self.store.settled() {
            count += 1;
            let Waiter { id, ticket } = Waiter::of(settled.token);
            let filed = self.jobs.settle(&settled, clock.now);
            if let Some(Seat { connection, whom }) = self.table.get_mut(id) {
                let mut story = Story { id, whom, ears: &mut self.ears };
                connection.settle(ticket, filed, settled.done, self.book.of(connection.kind()), &mut story);
                give_back(connection, &mut self.access);
                self.table.queue(id);
            } else if let (Some(filed), Done::Stored(result)) = (filed, settled.done) {
                self.settle_orphan(id, filed, &result);
            }
        }
        self.stop_awaiting();
        count
    }

    /// Queues the connections that need not wait for the disk any more.
    fn stop_awaiting(&mut self) {
        let Self { awaiting, table, store, jobs, .. } = self;
        awaiting.retain(|id| {
            let Some(seat) = table.get_mut(*id) else { return false };
            let is_ready = seat.connection.stop_awaiting(store, jobs);
            if is_ready {
                table.queue(*id);
            }
            !is_ready
        });
    }

    /// Reports the outcome of a file whose connection, `id`, has ended.
    fn settle_orphan(&mut self, id: Id, filed: Filed, result: &Result<Name, StoreError>) {
        let fact = match result {
            Ok(stored) => Fact::StoredForNobody { filed: &filed, stored },
            Err(error) => Fact::LostForNobody { filed: &filed, error },
        };
        let whom = Whom::new(filed.peer, Moment::default()).with_name(filed.who.clone());
        self.ears.hear_of(id, &whom, &fact);
        if let (Some(charge), Err(_)) = (filed.charge, result) {
            self.access.give_back(*charge);
        }
    }

    /// Serves the connections that are ready now, once each, within the turn's budget. Those that have waited for room come
    /// first, while there is room.
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
        self.budgets_spent += u64::from(turn.is_spent());
    }

    /// Begins TLS handshakes that have waited, a few in each turn.
    pub fn shake_hands(&mut self, clock: Clock) {
        for _ in 0..ANSWERS_PER_TURN {
            if let Some(slowest) = self.handshakes.slowest(clock.now) {
                self.visit(slowest, clock, Connection::make_room);
            }
            let Some(id) = self.handshakes.next() else { break };
            self.visit(id, clock, Connection::shake_hands);
        }
    }

    /// Whether a connection waits for room to begin a file, and there is room.
    fn may_begin_one(&self) -> bool {
        !self.waiting_for_room.is_empty() && !self.store.is_congested()
    }

    /// Visits the connections whose deadline had passed before the poll, unless they are ready. So what a client sent before
    /// its deadline is always read first.
    pub fn expire(&mut self, clock: Clock) {
        let mut turn = Budget::new(TURN_BYTES);
        while !turn.is_spent()
            && let Some(id) = self.table.pop_due(clock.asked)
        {
            let spent = self.visit(id, clock, Connection::expire);
            turn.spend(spent.max(VISIT_MIN_BYTES));
        }
    }

    /// Begins the shutdown: further requests are refused, and running uploads continue. A connection between two requests is
    /// closed when everything that its client has sent by now has been read.
    pub fn drain(&mut self) {
        self.book.drain();
        // What has come since the last event counts as sent before.
        let look = Readiness { readable: true, writable: false };
        for id in self.table.ids() {
            self.table.absorb(id, look);
            self.table.queue(id);
        }
    }

    /// Ends all connections now. Returns the number of uploads that this cuts off.
    pub fn abort(&mut self, clock: Clock) -> usize {
        let uploading = self.uploading();
        for id in self.table.ids() {
            self.visit(id, clock, Connection::abort);
        }
        uploading
    }

    /// The number of connections with an upload that is not stored yet.
    pub fn uploading(&self) -> usize {
        self.table.iter().filter(|(_, seat)| seat.connection.is_uploading()).count()
    }

    /// Whether all connections that are left only linger.
    pub fn are_lingering(&self) -> bool {
        self.table.iter().all(|(_, seat)| seat.connection.is_lingering())
    }

    /// The earliest deadline of a connection.
    pub fn first_deadline(&self) -> Option<Moment> {
        let deadlines = [self.table.first_deadline(), self.handshakes.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Whether a connection can be served at once.
    pub fn has_ready(&self) -> bool {
        self.table.ready() > 0 || self.may_begin_one() || self.handshakes.has_next()
    }

    /// The number of connections that can be served at once.
    pub fn ready(&self) -> usize {
        self.table.ready()
    }

    /// What visits were, while somebody watches.
    pub fn visits(&self) -> &Visits {
        &self.visits
    }

    /// The same, to begin or to end the watch.
    pub fn visits_mut(&mut self) -> &mut Visits {
        &mut self.visits
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Who may write, and what was counted.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Where files go.
    pub fn store(&self) -> &D {
        &self.store
    }

    /// The store, to change its settings.
    pub fn store_mut(&mut self) -> &mut D {
        &mut self.store
    }

    /// What has been counted.
    pub fn stats(&self) -> &Stats {
        self.ears.stats()
    }

    /// How long whole files took until the disk had them, or had failed, in microseconds.
    pub fn disk_waits_us(&self) -> &Histogram {
        self.jobs.waits_us()
    }

    /// How many turns have spent all bytes that one may spend.
    pub fn budgets_spent(&self) -> u64 {
        self.budgets_spent
    }

    /// When the certificate ends, in seconds since the epoch.
    pub fn certificate_ends(&self) -> Option<u64> {
        self.security.identity.as_ref().map(Identity::not_after)
    }

    /// Visits a connection: calls `act`, and does what its verdict says. Returns the bytes that were spent.
    fn visit(&mut self, id: Id, clock: Clock, act: Act<S, D>) -> usize {
        let share = self.share_bytes();
        let began = self.visits.begin();
        // Half of the share: the visit ends once no full read is left.
        let mut budget = Budget::new(share / 2);
        let Some(Seat { connection, whom }) = self.table.get_mut(id) else { return 0 };
        let mut cx = Context {
            disk: Disk {
                store: &mut self.store,
                jobs: &mut self.jobs,
                id,
                now: clock.now,
                on_exists: self.book.of(Kind::Plain).on_exists,
                ttl_seconds: self.book.of(Kind::Plain).upload_ttl_seconds,
            },
            access: &mut self.access,
            rules: self.book.of(connection.kind()),
            book: &self.book,
            security: &self.security,
            limits: &self.limits,
            buffer: &mut self.buffer[..share],
            pipe: self.pipe.as_ref(),
            clock,
            others_wait: !self.waiting_for_room.is_empty(),
            story: Story { id, whom, ears: &mut self.ears },
        };
        let was_shaking_hands = connection.is_shaking_hands();
        let verdict = act(connection, &mut cx, &mut budget);
        cx.story.told(|| connection.told_before());
        if let Some(began) = began {
            let ended = ended(&verdict, connection.work().status());
            self.visits.note(id, began, budget.spent_bytes(), ended);
        }
        give_back(connection, cx.access);
        let shakes_hands = connection.is_shaking_hands();
        if shakes_hands != was_shaking_hands {
            self.handshakes.note(id, Source::of(cx.story.whom.peer().ip()), shakes_hands, clock.now);
        }
        match verdict {
            Verdict::Wait | Verdict::Room | Verdict::Handshake => {
                let deadline = connection.deadline(&self.limits).unwrap_or(Moment::NEVER);
                match verdict {
                    Verdict::Room => self.waiting_for_room.push(id),
                    Verdict::Handshake => self.handshakes.wait(id, Source::of(cx.story.whom.peer().ip())),
                    _ => {}
                }
                self.table.wait(id, deadline, clock.now);
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

    /// The newest claim wins: ends the connection that has the upload that `id` wants to resume. If the disk is still busy with
    /// that upload, `id` waits for the disk. If another server has the upload, `id` is refused, with the time after which to
    /// try again. Searches all connections, because a table by resume id would be a cost for every upload.
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

    /// The one place that closes: removes the connection from all tables, and counts and logs its end.
    fn close(&mut self, id: Id, reason: &CloseReason, now: Moment) {
        let Some(Seat { mut connection, whom }) = self.table.remove(id) else { return };
        let source = Source::of(whom.peer().ip());
        if connection.is_shaking_hands() {
            self.handshakes.note(id, source, false, now);
        }
        self.handshakes.forget(id, source);
        if connection.has_failed_handshake() {
            self.ears.hear(&whom, &Fact::NotSecured);
        }
        let dialect = connection.dialect();
        let closed = Fact::Closed { reason, uploading: connection.work().name(), dialect, now };
        self.ears.hear_of(id, &whom, &closed);
        connection.keep_upload();
        give_back(&mut connection, &mut self.access);
        if connection.has_entered() {
            self.access.leave(whom.peer().ip());
        }
        self.visits.forget(id);
        self.ears.closing(id);
        drop(connection);
        self.ears.closed(id, reason);
    }
}

/// How a visit ended, for those who watch.
fn ended(verdict: &Verdict, status: Status) -> Ended {
    match (verdict, status) {
        (Verdict::Yield, _) => Ended::Yielded,
        (Verdict::Wait, Status::Waits) | (Verdict::Room, _) => Ended::WaitsForDisk,
        _ => Ended::Otherwise,
    }
}

/// What uploads were charged that have failed counts no more.
fn give_back<S: Stream, D: Store>(connection: &mut Connection<S, D>, access: &mut Access) {
    connection.failed_charges().into_iter().for_each(|charge| access.give_back(charge));
}

/// The rules that follow from the configuration.
fn rules_of(config: &Config) -> Rules {
    Rules { upload_ttl_seconds: config.partial_ttl.as_secs(), ..config.rules.clone() }
}

/// Opens the pipe for splicing. Without it all content is read and written instead, which only costs more.
fn open_pipe() -> Option<Pipe> {
    Pipe::open()
        .inspect_err(|error| log::info!("long uploads are copied twice, as no pipe can be opened: {error}"))
        .ok()
}

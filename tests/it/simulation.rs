//! The real connection code over a simulated network, store and clock.
//!
//! Each seed is a day in the life of a server: honest clients, clients that reset, fall silent or trickle, a disk that
//! fails, a process that is stopped for longer than every timeout. The wires are edge-triggered and short of breath: an
//! event is told once, reads are short, send buffers are full. What must hold on every seed:
//!
//! - what has a final name is, byte for byte, a whole upload, and each honest client's upload has one;
//! - who reset, fell silent, trickled or met a failing disk has none;
//! - every client hears what its dialect owes it, and nothing else;
//! - in the end no connection, no partial file and no deadline is left.
//!
//! A failing seed is printed; `INTAKE_SEED=N cargo test simulation` runs that one alone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use intake::net::{Readiness, Stream};
use intake::proto::Name;
use intake::reactor::Id;
use intake::server::config::{Config, Limits};
use intake::server::{Clock, Connections};
use intake::store::{Claim, Partial, Store, StoreError, Target};

const SEEDS: u64 = 300;

#[test]
fn every_seed_keeps_the_promises() {
    let one = std::env::var("INTAKE_SEED").ok().map(|seed| seed.parse::<u64>().expect("INTAKE_SEED is a number"));
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let run = std::panic::catch_unwind(|| World::new(seed).run());
        if let Err(panic) = run {
            eprintln!("seed {seed} fails; run it alone with INTAKE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

// ---- chance ----------------------------------------------------------------------------------------------------------

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
#[derive(Clone)]
struct Chance(Rc<Cell<u64>>);

impl Chance {
    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn millis(&self, limit: usize) -> Duration {
        Duration::from_millis(self.below(limit) as u64)
    }

    fn bytes(&self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

// ---- the network -----------------------------------------------------------------------------------------------------

/// One TCP connection, as the server's kernel sees it.
#[derive(Default)]
struct Wire {
    inbound: VecDeque<u8>,
    fin: bool,
    reset: bool,
    /// An error is told once; after it the stream looks as if it had ended well.
    error_was_told: bool,
    outbound: Vec<u8>,
    /// The client reads now and then only: so much more fits into the send buffer.
    room: usize,
    /// Something happened that no event has told yet.
    edge: bool,
    write_was_shut_down: bool,
    was_reset_by_server: bool,
    reset_on_close: bool,
    closed: bool,
}

struct SimStream {
    wire: Rc<RefCell<Wire>>,
    chance: Chance,
}

impl Read for SimStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.wire.borrow_mut();
        if self.chance.one_in(50) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if !wire.inbound.is_empty() {
            let short = if self.chance.one_in(3) { 1 + self.chance.below(40) } else { usize::MAX };
            let count = wire.inbound.len().min(buffer.len()).min(short);
            return wire.inbound.read(&mut buffer[..count]);
        }
        if wire.reset && !wire.error_was_told {
            wire.error_was_told = true;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if wire.fin || wire.reset { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.wire.borrow_mut();
        assert!(!wire.write_was_shut_down, "nothing is said after the last word");
        if wire.reset {
            wire.error_was_told = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if wire.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = wire.room.min(bytes.len());
        wire.room -= count;
        wire.outbound.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for SimStream {
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.wire.borrow_mut().write_was_shut_down = true;
        Ok(())
    }

    fn reset_on_close(&mut self) -> io::Result<()> {
        self.wire.borrow_mut().reset_on_close = true;
        Ok(())
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        wire.closed = true;
        // A close with unread data is a reset, and overtakes what was said (RFC 1122 4.2.2.13).
        wire.was_reset_by_server = wire.reset_on_close || !wire.inbound.is_empty();
    }
}

// ---- the store -------------------------------------------------------------------------------------------------------

/// Names of files that meet a failing disk, by where it fails.
const FAILS_TO_BEGIN: &str = "fails-to-begin";
const FAILS_TO_APPEND: &str = "fails-to-append";
const FAILS_TO_PUBLISH: &str = "fails-to-publish";

#[derive(Clone)]
struct SimStore {
    disk: Rc<SimDisk>,
    chance: Chance,
    /// Whether what is published lasts only later, and is told then.
    syncs: bool,
}

/// What waits for the disk: so much may.
const BACKLOG_MAX: usize = 3;

#[derive(Default)]
struct SimDisk {
    waiting: RefCell<Vec<(Claim, SimPartial, Name)>>,
    published: RefCell<BTreeMap<String, Vec<u8>>>,
    partials: Cell<usize>,
}

struct SimPartial {
    disk: Rc<SimDisk>,
    name: String,
    bytes: Vec<u8>,
}

impl Store for SimStore {
    type Partial = SimPartial;
    type Content = io::Cursor<Vec<u8>>;

    fn begin(&self, &Target { name, .. }: &Target) -> Result<SimPartial, StoreError> {
        if name.as_str().starts_with(FAILS_TO_BEGIN) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        self.disk.partials.set(self.disk.partials.get() + 1);
        Ok(SimPartial { disk: self.disk.clone(), name: name.to_string(), bytes: Vec::new() })
    }

    fn publish(&mut self, claim: Claim, partial: SimPartial, name: Name) -> Option<Result<Name, StoreError>> {
        if !self.syncs {
            return Some(partial.publish(name));
        }
        assert!(!self.is_congested(), "nothing is published to a congested store");
        self.disk.waiting.borrow_mut().push((claim, partial, name));
        None
    }

    fn find(&self, name: &Name, size: u64) -> Result<Option<Self::Content>, StoreError> {
        match self.disk.published.borrow().get(name.as_str()) {
            Some(bytes) if bytes.len() as u64 != size => Err(StoreError::NOT_THE_SAME),
            found => Ok(found.cloned().map(io::Cursor::new)),
        }
    }

    fn confirm(&mut self, _: Claim, _: Self::Content, name: Name) -> Option<Result<Name, StoreError>> {
        Some(Ok(name))
    }

    fn hold(&mut self, _: Claim, _: &SimPartial, name: Name) -> Option<Result<Name, StoreError>> {
        Some(Ok(name))
    }

    /// In any order, and not all at once.
    fn settled(&mut self) -> Vec<(Claim, Result<Name, StoreError>)> {
        let mut settled = Vec::new();
        let mut waiting = self.disk.waiting.borrow_mut();
        while !waiting.is_empty() && self.chance.one_in(3) {
            let index = self.chance.below(waiting.len());
            let (claim, partial, name) = waiting.swap_remove(index);
            settled.push((claim, partial.publish(name)));
        }
        settled
    }

    fn is_congested(&self) -> bool {
        self.disk.waiting.borrow().len() >= BACKLOG_MAX
    }
}

impl Partial for SimPartial {
    fn held(&self) -> u64 {
        0
    }

    fn reread(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("nothing is held")
    }

    fn keep(self) {}

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.name.starts_with(FAILS_TO_APPEND) {
            return Err(io::Error::other("the disk is on fire").into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn set_mtime(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn publish(mut self, name: Name) -> Result<Name, StoreError> {
        if self.name.starts_with(FAILS_TO_PUBLISH) {
            return Err(StoreError::Taken("the name is taken"));
        }
        let before = self.disk.published.borrow_mut().insert(name.to_string(), std::mem::take(&mut self.bytes));
        assert_eq!(before, None, "a name is published once");
        Ok(name)
    }
}

impl Drop for SimPartial {
    fn drop(&mut self) {
        self.disk.partials.set(self.disk.partials.get() - 1);
    }
}

// ---- the clients -----------------------------------------------------------------------------------------------------

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    AwaitOk,
    Fin,
    Reset,
    /// Reads so much of what the server says.
    Read(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Stored,
    /// Refused by the server.
    Refused,
    /// Cut off by the server in the middle: too slow.
    TooSlow,
    /// It went itself.
    Gone,
}

/// The kind of client that does.
const TRICKLES: usize = 7;

struct Client {
    wire: Rc<RefCell<Wire>>,
    is_line: bool,
    content: Vec<u8>,
    name: String,
    steps: VecDeque<(Duration, Step)>,
    next_at: Instant,
    fate: Fate,
    id: Option<Id>,
}

impl Client {
    fn new(number: usize, chance: &Chance, start: Instant) -> Self {
        let kind = chance.below(16);
        let stem = match kind {
            0 => FAILS_TO_BEGIN,
            1 => FAILS_TO_APPEND,
            2 => FAILS_TO_PUBLISH,
            3 => "../outside",
            _ => "file",
        };
        let name = format!("{stem}-{number}");
        let is_line = chance.one_in(2);
        let size = if chance.one_in(50) { 3 << 20 } else { 1 + chance.below(5000) };
        let content = chance.bytes(size);
        let mut steps = VecDeque::new();
        if is_line {
            steps.push_back((Duration::ZERO, Step::Send(format!("{name}\n").into_bytes())));
        } else {
            steps.push_back((Duration::ZERO, Step::Send(name.clone().into_bytes())));
            steps.push_back((Duration::ZERO, Step::AwaitOk));
        }
        if kind == TRICKLES {
            // Never silent for long, and never done: a byte or so a second. It can be told why it is cut off.
            steps.push_back((Duration::ZERO, Step::Read(1000)));
            let bytes = content.iter().cycle().take(1000);
            steps.extend(bytes.map(|byte| (chance.millis(2000), Step::Send(vec![*byte]))));
        } else {
            let piece = 1 + chance.below(size);
            for piece in content.chunks(piece.max(size / 10 + 1)) {
                steps.push_back((chance.millis(800), Step::Send(piece.to_vec())));
            }
        }
        let fate = match kind {
            0..=3 => Fate::Refused,
            4 | 5 => {
                steps.truncate(1 + chance.below(steps.len()));
                steps.push_back((chance.millis(800), Step::Reset));
                Fate::Gone
            }
            6 => {
                // Falls silent in the middle, for ever.
                steps.truncate(steps.len() - 1);
                Fate::TooSlow
            }
            TRICKLES => Fate::TooSlow,
            _ => Fate::Stored,
        };
        if matches!(kind, 0..=3 | TRICKLES..) {
            steps.push_back((chance.millis(800), Step::Fin));
        }
        for _ in 0..4 {
            steps.push_back((chance.millis(2000), Step::Read(1 + chance.below(30))));
        }
        steps.push_back((Duration::ZERO, Step::Read(1000)));
        let room = chance.below(3);
        let wire = Rc::new(RefCell::new(Wire { room, ..Wire::default() }));
        let next_at = start + chance.millis(3000);
        Self { wire, is_line, content, name, steps, next_at, fate, id: None }
    }

    /// Takes all steps that are due.
    fn act(&mut self, now: Instant) {
        while self.next_at <= now {
            let Some((_, step)) = self.steps.front() else { return };
            let mut wire = self.wire.borrow_mut();
            let over = wire.closed;
            match step {
                Step::AwaitOk if wire.outbound == b"ok" || over => {}
                Step::AwaitOk if wire.outbound.starts_with(b"no ") => {
                    // It was refused, as the tutorial's client is: it goes.
                    wire.fin = true;
                    wire.edge = true;
                    self.steps.retain(|(_, step)| matches!(step, Step::Read(_)));
                    self.steps.push_front((Duration::ZERO, Step::Read(0)));
                }
                Step::AwaitOk => {
                    // It is reading, so there is room.
                    wire.room += 1;
                    wire.edge = true;
                    self.next_at = now + Duration::from_millis(20);
                    return;
                }
                _ if over => {}
                Step::Send(bytes) => {
                    wire.inbound.extend(bytes);
                    wire.edge = true;
                }
                Step::Fin => (wire.fin, wire.edge) = (true, true),
                Step::Reset => (wire.reset, wire.edge) = (true, true),
                Step::Read(count) => {
                    wire.room += count;
                    wire.edge = true;
                }
            }
            drop(wire);
            self.steps.pop_front();
            self.next_at += self.steps.front().map_or(Duration::ZERO, |(pause, _)| *pause);
        }
    }

    fn check(&self, published: &BTreeMap<String, Vec<u8>>) {
        let wire = self.wire.borrow();
        assert!(wire.closed, "{} is left", self.name);
        let said = String::from_utf8_lossy(&wire.outbound);
        let stored = published.get(&self.name);
        if self.fate != Fate::Stored {
            assert_eq!(stored, None, "{} must not be stored", self.name);
            assert!(!said.contains("done"), "{} was told {said:?}", self.name);
            if self.fate == Fate::TooSlow {
                let told = if self.is_line { said.contains("no 408 ") } else { wire.was_reset_by_server };
                assert!(told, "{} was told {said:?}", self.name);
            }
            return;
        }
        assert!(stored == Some(&self.content), "{} is not stored whole; it was told {said:?}", self.name);
        assert!(!wire.was_reset_by_server, "{} is stored, and was reset", self.name);
        let receipt = format!("done {} - {}\n", self.content.len(), self.name);
        if self.is_line {
            assert!(said == receipt || said == format!("ok\n{receipt}"), "{} was told {said:?}", self.name);
        } else {
            assert_eq!(said, "ok", "to {}", self.name);
        }
    }
}

// ---- the world -------------------------------------------------------------------------------------------------------

struct World {
    chance: Chance,
    clients: Vec<Client>,
    disk: SimStore,
    connections: Connections<SimStream, SimStore>,
    /// Ids of connections that are closed: the kernel may still name them.
    stale: Vec<Id>,
    clock: Instant,
    /// What the last turn took for now.
    now: Instant,
}

impl World {
    fn new(seed: u64) -> Self {
        let chance = Chance(Rc::new(Cell::new(seed)));
        let clock = Instant::now();
        let clients = (0..1 + chance.below(40)).map(|number| Client::new(number, &chance, clock)).collect();
        let name_quiet = if chance.one_in(4) { Duration::from_millis(50) } else { Duration::ZERO };
        let limits = Limits { name_quiet, ..Limits::default() };
        let disk = SimStore { disk: Rc::default(), chance: chance.clone(), syncs: chance.one_in(2) };
        let connections = Connections::new(disk.clone(), &Config { limits, ..Config::default() });
        Self { chance, clients, disk, connections, stale: Vec::new(), clock, now: clock }
    }

    fn run(mut self) {
        for _ in 0..200_000 {
            if self.clients.iter().all(|client| client.id.is_some() && client.wire.borrow().closed) {
                return self.check();
            }
            self.turn();
        }
        panic!("the world does not come to an end");
    }

    fn turn(&mut self) {
        self.pass_time();
        let events = self.poll();
        if self.chance.one_in(40) {
            // Stopped after the poll and before the clock is read: all that comes now is not in the batch.
            self.stop_the_process();
        }
        let clock = Clock { asked: self.now, now: self.clock };
        self.now = self.clock;
        for (id, readiness) in events {
            self.connections.absorb(id, readiness);
        }
        self.connections.settle();
        self.connections.serve(clock);
        self.connections.expire(clock);
        self.accept();
    }

    /// As far as the poll would sleep: not at all while somebody is ready.
    fn pass_time(&mut self) {
        self.clock += self.chance.millis(3);
        if self.chance.one_in(40) {
            self.stop_the_process();
        } else if !self.connections.has_ready() {
            let acts = self.clients.iter().filter(|client| !client.steps.is_empty()).map(|client| client.next_at);
            let next = acts.chain(self.connections.first_deadline()).min();
            self.clock = next.map_or(self.clock, |next| next.max(self.clock));
        }
        self.clients.iter_mut().for_each(|client| client.act(self.clock));
    }

    /// SIGSTOP for longer than every timeout, then SIGCONT.
    fn stop_the_process(&mut self) {
        self.clock += Duration::from_secs(90);
        self.clients.iter_mut().for_each(|client| client.act(self.clock));
    }

    /// Each edge once; besides, now and then, an event about nothing and one about somebody who is gone.
    fn poll(&mut self) -> Vec<(Id, Readiness)> {
        let both = Readiness { readable: true, writable: true };
        let mut events = Vec::new();
        for client in &self.clients {
            let Some(id) = client.id else { continue };
            let mut wire = client.wire.borrow_mut();
            if !wire.closed && (std::mem::take(&mut wire.edge) || self.chance.one_in(30)) {
                events.push((id, both));
            }
        }
        if !self.stale.is_empty() && self.chance.one_in(3) {
            events.push((self.stale[self.chance.below(self.stale.len())], both));
        }
        events
    }

    fn accept(&mut self) {
        for client in &mut self.clients {
            if let Some(id) = client.id {
                if client.wire.borrow().closed {
                    self.stale.push(id);
                }
                continue;
            }
            if client.next_at > self.clock && client.wire.borrow().inbound.is_empty() {
                continue;
            }
            let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
            let (wire, chance) = (client.wire.clone(), self.chance.clone());
            let id = &mut client.id;
            let register = |given| {
                *id = Some(given);
                Ok(SimStream { wire, chance })
            };
            self.connections.admit(peer, self.now, register).expect("the simulated poll takes everybody");
        }
    }

    fn check(self) {
        assert!(self.connections.is_empty() && !self.connections.has_ready());
        assert_eq!(self.connections.first_deadline(), None, "a deadline outlives its connection");
        assert_eq!(self.disk.disk.partials.get(), 0, "a partial file is left");
        let published = self.disk.disk.published.borrow();
        self.clients.iter().for_each(|client| client.check(&published));
        let stored = self.clients.iter().filter(|client| client.fate == Fate::Stored).count();
        assert_eq!(published.len(), stored);
    }
}

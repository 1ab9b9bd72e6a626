//! The real connection code over a simulated network, store and clock.
//!
//! Each seed is one day of a server: honest clients, clients that reset, fall silent or trickle, a disk that fails, a process
//! that is stopped for longer than every timeout. The wires are edge-triggered: an event is reported once, reads are short,
//! send buffers are full. One in three is like TLS: it has bytes of its own to send, and holds bytes of which no event tells.
//! On every seed:
//!
//! - every final name belongs to a whole upload, byte for byte, and the upload of every honest client has one;
//! - clients that reset, fell silent, trickled or met a failing disk have none;
//! - every client hears what its dialect promises, and nothing else;
//! - an interrupted upload is resumed from what is durable, without a gap or an overlap, and under its newest request;
//! - the offset of a resumable upload over HTTP never decreases, and what is told of it is durable;
//! - in the end no connection, no partial file and no deadline is left, and just the stored files are charged.
//!
//! A failing seed is printed. `INTAKE_SEED=N cargo test simulation` runs that one alone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use intake::access::{Policy, Quota};
use intake::net::Readiness;
use intake::proto::{Algorithm, Digest, Hasher, Held, Name, OnExists, Promise, Receipt, ResumeId};
use intake::reactor::{Id, Moment};
use intake::server::config::{Config, Limits};
use intake::server::story::trace::{Format, Tracer};
use intake::server::{Clock, Connections};
use intake::store::{
    Checkpoint, Done, Job, Mark, Owned, Owners, Partial, Reopened, Settled, Store, StoreError, Target, Terms, Token,
};

use crate::wire::{Chance, SimStream, Wire};

const SEEDS: u64 = 300;

/// Where all clients connect from.
const SOURCE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The planted mistake: of an upload that is kept, the last byte is lost.
#[test]
fn an_offset_that_decreases_is_found() {
    let found = (0..SEEDS).find_map(|seed| {
        let world = World::new(seed);
        world.disk.disk.loses_a_byte.set(true);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run())).err()?;
        panic.downcast::<String>().ok()
    });
    assert!(found.is_some_and(|words| words.contains("has decreased")));
}

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

// ---- the store -------------------------------------------------------------------------------------------------------

/// Name prefixes of files for which the disk fails, by the step that fails.
const FAILS_TO_BEGIN: &str = "fails-to-begin";
const FAILS_TO_APPEND: &str = "fails-to-append";
const FAILS_TO_PUBLISH: &str = "fails-to-publish";

#[derive(Clone)]
struct SimStore {
    disk: Rc<SimDisk>,
    chance: Chance,
    /// Whether files are synced, so that an outcome comes in a later turn.
    syncs: bool,
}

/// How many jobs may wait for the disk.
const BACKLOG_MAX: usize = 3;

#[derive(Default)]
struct SimDisk {
    waiting: RefCell<Vec<(Option<Token>, Work, Name)>>,
    published: RefCell<BTreeMap<String, Vec<u8>>>,
    partials: Cell<usize>,
    /// The most connections that were open at once.
    connected: Cell<usize>,
    /// How many more turns the disk does nothing.
    stalled_turns: Cell<usize>,
    /// The names of the files, in the order in which they were begun.
    begun: RefCell<Vec<String>>,
    /// Interrupted uploads that can be resumed, by resume id.
    kept: RefCell<BTreeMap<String, Kept>>,
    /// The resume ids that an upload is using now.
    owners: Owners,
    /// How many bytes under each resume id would survive a power cut.
    lasting: RefCell<BTreeMap<String, u64>>,
    /// The planted mistake: of what is kept, the last byte is lost.
    loses_a_byte: Cell<bool>,
    /// Of published uploads whose ids the server has made.
    receipts: RefCell<BTreeMap<String, Receipt>>,
}

struct Kept {
    terms: Terms,
    bytes: Vec<u8>,
    checkpoint: Checkpoint,
}

/// A job for the disk.
enum Work {
    Publish(SimPartial),
    Confirm(Name),
    /// Makes this many of the first bytes under this resume id durable.
    Hold(String, u64),
    /// Keeps what arrived of an interrupted upload. The upload owns its resume id until then.
    Keep(String, Kept, Arc<Owned>),
}

struct SimPartial {
    disk: Rc<SimDisk>,
    terms: Terms,
    resume: Option<ResumeId>,
    owned: Option<Arc<Owned>>,
    bytes: Vec<u8>,
    checkpoint: Option<Checkpoint>,
    syncs: bool,
}

impl SimDisk {
    /// Takes the upload that is kept under a resume id.
    fn claim(&self, id: &str, target: &Target) -> Result<Option<Kept>, StoreError> {
        if self.owners.has(id) {
            return Err(StoreError::BUSY);
        }
        let kept = self.kept.borrow_mut().remove(id);
        let agrees = |kept: &Kept| kept.terms.name == *target.name && kept.terms.size == target.size;
        Ok(kept.filter(agrees))
    }

    fn finish(&self, work: Work) -> Done {
        match work {
            Work::Publish(partial) => return Done::Stored(partial.publish()),
            Work::Confirm(name) => return Done::Stored(Ok(name)),
            Work::Hold(id, bytes) => drop(self.lasting.borrow_mut().insert(id, bytes)),
            Work::Keep(id, kept, _owned) => drop(self.kept.borrow_mut().insert(id, kept)),
        }
        Done::Held(Ok(()))
    }
}

impl Store for SimStore {
    type Partial = SimPartial;
    type Content = SimContent;

    fn begin(&self, target: &Target) -> Result<SimPartial, StoreError> {
        self.disk.begun.borrow_mut().push(target.name.to_string());
        assert!(!self.is_congested(), "no upload is begun while too many files wait for the disk");
        if target.name.as_str().starts_with(FAILS_TO_BEGIN) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        let kept = target.resume.map_or(Ok(None), |id| self.disk.claim(id.as_str(), target))?;
        let begun = |id: &ResumeId| id.is_made().then_some(Checkpoint { offset: 0, hasher: None });
        let (bytes, checkpoint) = match kept {
            Some(kept) => (kept.bytes, Some(kept.checkpoint)),
            None => (Vec::new(), target.resume.and_then(begun)),
        };
        let &Target { on_exists, size, promise, mtime, .. } = target;
        let terms = Terms { name: target.name.clone(), on_exists, size, promise, mtime, note: target.note.into() };
        Ok(self.partial(terms, target.resume, bytes, checkpoint))
    }

    fn make_id(&self) -> Result<ResumeId, StoreError> {
        Ok(ResumeId::made(self.chance.below(usize::MAX) as u128))
    }

    fn reopen(&self, id: &ResumeId) -> Result<Option<Reopened<SimPartial>>, StoreError> {
        if self.disk.owners.has(id.as_str()) {
            return Err(StoreError::BUSY);
        }
        let kept = self.disk.kept.borrow_mut().remove(id.as_str());
        Ok(kept.map(|Kept { terms, bytes, checkpoint }| {
            let partial = self.partial(terms.clone(), Some(id), bytes, Some(checkpoint));
            Reopened { partial, terms }
        }))
    }

    fn receipt(&self, id: &ResumeId) -> Option<Receipt> {
        self.disk.receipts.borrow().get(id.as_str()).cloned()
    }

    fn find(&self, name: &Name, size: u64) -> Result<Option<Self::Content>, StoreError> {
        match self.disk.published.borrow().get(name.as_str()) {
            Some(bytes) if bytes.len() as u64 != size => Err(StoreError::NOT_THE_SAME),
            found => Ok(found.cloned().map(|bytes| {
                let (bytes, name, chance) = (io::Cursor::new(bytes), name.clone(), self.chance.clone());
                SimContent { bytes, name, chance }
            })),
        }
    }

    fn mark(&self, name: &Name) -> Option<Mark> {
        self.disk.published.borrow().contains_key(name.as_str()).then(Mark::default)
    }

    fn submit(&mut self, token: Token, job: Job<'_, Self>) -> Option<Settled> {
        let (work, name) = match job {
            Job::Publish(partial) => {
                let name = partial.terms.name.clone();
                (Work::Publish(partial), name)
            }
            Job::Confirm(content) => (Work::Confirm(content.name.clone()), content.name),
            Job::Hold(partial) => {
                let id = partial.resume.as_ref().expect("only an upload with a resume id is held");
                let checkpoint = partial.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.offset);
                (Work::Hold(id.as_str().to_owned(), checkpoint), partial.terms.name.clone())
            }
        };
        if !self.syncs {
            return Some(Settled { token, done: self.disk.finish(work) });
        }
        let open = self.disk.partials.get();
        let most = self.disk.connected.get() + BACKLOG_MAX;
        assert!(open < most, "{open} files are open, more than one per connection and the backlog");
        self.disk.waiting.borrow_mut().push((Some(token), work, name));
        None
    }

    fn is_busy_with(&self, id: &ResumeId) -> bool {
        self.disk.owners.has(id.as_str())
    }

    /// In any order but that of one name, and not all at once.
    fn settled(&mut self) -> Vec<Settled> {
        let mut settled = Vec::new();
        if self.chance.one_in(60) {
            self.disk.stalled_turns.set(40);
        }
        self.disk.stalled_turns.set(self.disk.stalled_turns.get().saturating_sub(1));
        if self.disk.stalled_turns.get() > 0 {
            return settled;
        }
        while !self.disk.waiting.borrow().is_empty() && self.chance.one_in(3) {
            let mut waiting = self.disk.waiting.borrow_mut();
            let any = self.chance.below(waiting.len());
            let first_of_name = waiting.iter().position(|(.., name)| *name == waiting[any].2).unwrap_or(any);
            let (token, work, _) = waiting.remove(first_of_name);
            drop(waiting);
            let done = self.disk.finish(work);
            settled.extend(token.map(|token| Settled { token, done }));
        }
        settled
    }

    fn is_congested(&self) -> bool {
        self.disk.waiting.borrow().len() >= BACKLOG_MAX
    }
}

impl SimStore {
    fn partial(
        &self,
        terms: Terms,
        id: Option<&ResumeId>,
        bytes: Vec<u8>,
        checkpoint: Option<Checkpoint>,
    ) -> SimPartial {
        self.disk.partials.set(self.disk.partials.get() + 1);
        let owned = id.map(|id| self.disk.owners.own(id.as_str()));
        SimPartial { disk: self.disk.clone(), terms, resume: id.cloned(), owned, bytes, checkpoint, syncs: self.syncs }
    }
}

/// A stored file whose reads sometimes have to wait for the disk.
struct SimContent {
    bytes: io::Cursor<Vec<u8>>,
    name: Name,
    chance: Chance,
}

impl Read for SimContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chance.one_in(3) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.read(buffer)
    }
}

impl Partial for SimPartial {
    fn name(&self) -> &Name {
        &self.terms.name
    }

    fn held(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn state(&self) -> Option<Held> {
        let Checkpoint { offset, hasher } =
            self.checkpoint.clone().filter(|checkpoint| checkpoint.offset == self.held() && checkpoint.offset > 0)?;
        Some(Held { offset, hasher: hasher? })
    }

    fn checkpoint(&mut self, hasher: Option<&Hasher>) {
        self.checkpoint = Some(Checkpoint { offset: self.held(), hasher: hasher.cloned() });
    }

    fn keep(mut self) {
        let (Some(id), Some(checkpoint)) = (&self.resume, self.checkpoint.take()) else { return };
        if !id.is_made() {
            assert_eq!(checkpoint.offset, self.held(), "the digest state covers all kept bytes");
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(checkpoint.offset as usize);
        if id.is_made() && self.disk.loses_a_byte.get() && !bytes.is_empty() {
            bytes.pop();
        }
        let kept = Kept { terms: self.terms.clone(), bytes, checkpoint };
        let owned = self.owned.clone().expect("an upload with a resume id owns it");
        let work = Work::Keep(id.as_str().to_owned(), kept, owned);
        if self.syncs {
            self.disk.waiting.borrow_mut().push((None, work, self.terms.name.clone()));
        } else {
            self.disk.finish(work);
        }
    }

    fn reserve(&mut self, _: Option<u64>) -> Result<(), StoreError> {
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> Result<(), StoreError> {
        assert_eq!(self.terms.size.replace(size), None, "it becomes known once");
        Ok(())
    }

    fn changed_at(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.terms.name.as_str().starts_with(FAILS_TO_APPEND) {
            return Err(io::Error::other("the disk is on fire").into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn set_mtime(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn mark(&mut self) -> Option<Mark> {
        Some(Mark::default())
    }

    fn publish(mut self) -> Result<Name, StoreError> {
        let name = self.terms.name.clone();
        if name.as_str().starts_with(FAILS_TO_PUBLISH) {
            return Err(StoreError::Taken("the name is taken"));
        }
        if self.terms.on_exists == OnExists::Same && self.disk.published.borrow().contains_key(name.as_str()) {
            return Err(StoreError::Busy("another upload has just taken the name"));
        }
        let before = self.disk.published.borrow_mut().insert(name.to_string(), std::mem::take(&mut self.bytes));
        assert_eq!(before, None, "a name is published once");
        if let Some(id) = self.resume.as_ref().filter(|id| id.is_made()) {
            let size = self.disk.published.borrow()[name.as_str()].len() as u64;
            let digest = self.terms.promise.as_ref().and_then(Promise::known);
            let receipt = Receipt { size, digest, stored_name: name.to_string() };
            self.disk.receipts.borrow_mut().insert(id.as_str().to_owned(), receipt);
        }
        Ok(name)
    }
}

impl Drop for SimPartial {
    fn drop(&mut self) {
        self.disk.partials.set(self.disk.partials.get() - 1);
    }
}

// ---- the clients -----------------------------------------------------------------------------------------------------

enum Step {
    Send(Vec<u8>),
    AwaitOk,
    /// Reads until the server has sent this many lines.
    AwaitLines(usize),
    Fin,
    Reset,
    /// Reads this many bytes from the server.
    Read(usize),
    /// Waits until each of these clients is answered or disconnected.
    AwaitOthers(Vec<Rc<RefCell<Wire>>>),
    /// Reads the offset from the reply, sends the content from there up to this position, and then this line.
    SendFromOffset(usize, String),
    /// Waits until each of these clients is disconnected.
    AwaitEnds(Vec<Rc<RefCell<Wire>>>),
    /// Asks for the offset of a resumable upload over HTTP, if its place is known. If not, waits until the connection that begins
    /// it has heard, or is over.
    AskForOffset,
    /// Sends this piece of it.
    SendPiece(Piece),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Stored,
    /// The server refuses it.
    Refused,
    /// The server cuts it off in the middle because it is too slow.
    TooSlow,
    /// The client leaves by itself.
    Gone,
}

/// The kind of client that sends a trickle.
const TRICKLES: usize = 7;

struct Client {
    wire: Rc<RefCell<Wire>>,
    steps: VecDeque<(Duration, Step)>,
    next_at: Moment,
    id: Option<Id>,
    errand: Errand,
}

/// What a client wants to do.
enum Errand {
    /// One upload in the classic or the line dialect.
    Bare { is_line: bool, content: Vec<u8>, name: String, fate: Fate },
    /// Many uploads, one after the other, on one connection. It may end before all are sent.
    Framed { requests: Vec<Framed>, ending: Ending },
    /// One of several connections for the same upload. The last one completes it.
    Attempt { upload: Rc<Resumable>, disk: Rc<SimDisk>, is_last: bool },
    /// The same over HTTP. `floor`: the offset that was told before this one asked, once it has.
    ByIdAttempt { upload: Rc<ByIdUpload>, disk: Rc<SimDisk>, floor: Option<u64>, is_last: bool },
}

impl Client {
    fn new(number: usize, chance: &Chance, start: Moment) -> Self {
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
            // A byte every second or so: never silent for long, and never done. It reads why it is cut off.
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
                // Falls silent in the middle and stays so.
                steps.truncate(steps.len() - 1);
                Fate::TooSlow
            }
            TRICKLES => Fate::TooSlow,
            _ => Fate::Stored,
        };
        // A client that trickles is never done: while it waits for the disk no rate is judged.
        if matches!(kind, 0..=3 | 8..) {
            steps.push_back((chance.millis(800), Step::Fin));
        }
        for _ in 0..4 {
            steps.push_back((chance.millis(2000), Step::Read(1 + chance.below(30))));
        }
        steps.push_back((Duration::ZERO, Step::Read(1000)));
        let wire = Wire::with_room(chance.below(3));
        let next_at = start + chance.millis(3000);
        Self { wire, steps, next_at, id: None, errand: Errand::Bare { is_line, content, name, fate } }
    }

    /// Sends all of `requests` in pieces that end anywhere.
    fn framed(number: usize, chance: &Chance, start: Moment) -> Self {
        let mut requests: Vec<Framed> = Vec::new();
        let is_http = chance.one_in(3);
        for index in 0..1 + chance.below(12) {
            let suffix = format!("{number}-{index}");
            requests.push(match is_http {
                true => Framed::http(&suffix, chance),
                false => Framed::new(&suffix, requests.last(), chance),
            });
        }
        let mut sent = requests.iter().flat_map(|request| request.sent.clone()).collect::<Vec<u8>>();
        // A method that is cut in two is a name of the classic dialect.
        let least = if is_http { b"PUT /".len() } else { 0 };
        let ending = match chance.below(6) {
            0 => Ending::CutShort(chance.below(sent.len()).max(least), Step::Fin),
            1 => Ending::CutShort(chance.below(sent.len()).max(least), Step::Reset),
            _ => Ending::Whole,
        };
        let mut steps = VecDeque::new();
        match &ending {
            Ending::CutShort(length, _) => sent.truncate(*length),
            Ending::Whole if is_http => {}
            Ending::Whole => sent.extend(b"/bye\n"),
        }
        let trickles = chance.one_in(4);
        let (piece, pause) = match trickles {
            // It does not read meanwhile, so it must not take as long as the idle timeout.
            true => ((1 + chance.below(600)).max(least).max(sent.len() / 1000 + 1), 20),
            false => ((1 + chance.below(2 * sent.len() + 1)).max(sent.len() / 10 + 1), 300),
        };
        for piece in sent.chunks(piece) {
            steps.push_back((chance.millis(pause), Step::Send(piece.to_vec())));
        }
        if trickles
            && !is_http
            && matches!(ending, Ending::Whole)
            && !requests.iter().any(|request| request.is_last_word)
        {
            // Only the receipts make this client end, so they must come before its end.
            steps.push_back((
                Duration::ZERO,
                Step::AwaitLines(requests.iter().map(|request| request.heard.len()).sum()),
            ));
        }
        steps.push_back((
            chance.millis(300),
            if let Ending::CutShort(_, Step::Reset) = ending { Step::Reset } else { Step::Fin },
        ));
        steps.extend((0..4).map(|_| (chance.millis(500), Step::Read(1 + chance.below(100)))));
        steps.push_back((Duration::ZERO, Step::Read(10_000)));
        let wire = Wire::with_room(chance.below(3));
        let next_at = start + chance.millis(3000);
        Self { wire, steps, next_at, id: None, errand: Errand::Framed { requests, ending } }
    }

    /// Several connections for one upload. All but the last are interrupted, displaced by a newer one, or send a wrong
    /// digest.
    fn attempts(number: usize, chance: &Chance, start: Moment, disk: &Rc<SimDisk>) -> Vec<Self> {
        let upload = Rc::new(Resumable::new(number, chance));
        let count = 1 + chance.below(4);
        let mut attempts: Vec<Self> = Vec::new();
        for attempt in 0..=count {
            let (size, is_last) = (upload.content.len(), attempt == count);
            let mut steps = VecDeque::new();
            if is_last {
                let others = attempts.iter().map(|other| other.wire.clone()).collect();
                steps.push_back((Duration::ZERO, Step::AwaitOthers(others)));
            }
            steps.push_back((chance.millis(300), Step::Send(upload.request.clone().into_bytes())));
            let kind = if is_last { 0 } else { 1 + chance.below(4) };
            let (end, line) = match kind {
                0 => (size, format!("crc32c={}\n", upload.digest.to_hex())),
                1 => (size, "crc32c=00000000\n".to_owned()),
                _ => (chance.below(size), String::new()),
            };
            steps.push_back((Duration::ZERO, Step::SendFromOffset(end, line)));
            match kind {
                2 => steps.push_back((chance.millis(300), Step::Reset)),
                // Falls silent and stays so.
                3 => {}
                _ => steps.push_back((chance.millis(300), Step::Fin)),
            }
            steps.push_back((chance.millis(500), Step::Read(10_000)));
            let wire = Wire::with_room(chance.below(3));
            let errand = Errand::Attempt { upload: upload.clone(), disk: disk.clone(), is_last };
            attempts.push(Self { wire, steps, next_at: start + chance.millis(3000), id: None, errand });
        }
        attempts
    }

    /// Several connections for one resumable upload over HTTP. All but the last are cut off, displaced by a newer one, fall
    /// silent, or send a wrong checksum.
    fn by_id_attempts(number: usize, chance: &Chance, start: Moment, disk: &Rc<SimDisk>) -> Vec<Self> {
        let upload = Rc::new(ByIdUpload::new(number, chance));
        let count = 1 + chance.below(5);
        let mut attempts: Vec<Self> = Vec::new();
        for attempt in 0..=count {
            let (size, is_last) = (upload.content.len(), attempt == count);
            let mut steps = VecDeque::new();
            if is_last {
                let others = attempts.iter().map(|other| other.wire.clone()).collect();
                steps.push_back((Duration::ZERO, Step::AwaitEnds(others)));
            }
            steps.push_back((chance.millis(300), Step::AskForOffset));
            let kind = if is_last { 0 } else { 1 + chance.below(5) };
            let end = if is_last { size } else { chance.below(size) };
            let missing = if kind > 2 { chance.below(200) } else { 0 };
            steps.push_back((chance.millis(200), Step::SendPiece(Piece { end, missing, is_wrong: kind == 1 })));
            match kind {
                3 => steps.push_back((chance.millis(300), Step::Reset)),
                // Falls silent and stays so.
                4 => {}
                _ => steps.push_back((chance.millis(300), Step::Fin)),
            }
            steps.push_back((chance.millis(500), Step::Read(10_000)));
            let wire = Wire::with_room(chance.below(3));
            upload.wires.borrow_mut().push(wire.clone());
            let errand = Errand::ByIdAttempt { upload: upload.clone(), disk: disk.clone(), floor: None, is_last };
            attempts.push(Self { wire, steps, next_at: start + chance.millis(3000), id: None, errand });
        }
        attempts
    }

    /// Takes a step of a resumable upload over HTTP. Returns whether it is taken.
    fn act_by_id(&mut self) -> bool {
        let Self { wire, steps, errand: Errand::ByIdAttempt { upload, disk, floor, .. }, .. } = self else {
            return true;
        };
        let has_ended = wire.borrow().closed;
        match &steps.front().expect("there is a step").1 {
            _ if has_ended => true,
            Step::AskForOffset => {
                if let Some(place) = upload.place() {
                    *floor = Some(upload.told());
                    wire.borrow_mut().arrive(upload.ask(&place).as_bytes());
                } else if upload.begun_by.borrow().as_ref().is_some_and(|begun_by| !begun_by.borrow().closed) {
                    return false;
                } else {
                    upload.begun_by.replace(Some(wire.clone()));
                }
                true
            }
            Step::SendPiece(piece) => match *floor {
                None => {
                    wire.borrow_mut().arrive(&upload.begin(*piece));
                    true
                }
                Some(floor) => {
                    let said = String::from_utf8_lossy(&wire.borrow().outbound).into_owned();
                    let Some((head, _)) = said.split_once("\r\n\r\n") else {
                        let mut wire = wire.borrow_mut();
                        wire.room += 1000;
                        wire.edge = true;
                        return false;
                    };
                    if let Some(offset) = offsets(head).max() {
                        upload.check_offset(offset, floor, disk);
                        let piece = upload.piece(offset as usize, *piece);
                        wire.borrow_mut().arrive(&piece);
                    }
                    true
                }
            },
            _ => true,
        }
    }

    /// Takes every step that is due.
    fn act(&mut self, now: Moment) {
        while self.next_at <= now {
            if self.steps.is_empty() {
                return;
            }
            if !self.act_by_id() {
                self.next_at = now + Duration::from_millis(20);
                return;
            }
            let Some((_, step)) = self.steps.front() else { return };
            let mut wire = self.wire.borrow_mut();
            let over = wire.closed;
            match step {
                Step::AwaitOk if wire.outbound == b"ok" || over => {}
                Step::AwaitOk if wire.outbound.starts_with(b"no ") => {
                    // The server refused it, and like the tutorial's client it closes the connection.
                    wire.fin = true;
                    wire.edge = true;
                    self.steps.retain(|(_, step)| matches!(step, Step::Read(_)));
                    self.steps.push_front((Duration::ZERO, Step::Read(0)));
                }
                Step::AwaitOk => {
                    // The client is reading, so the server's send buffer has room.
                    wire.room += 1;
                    wire.edge = true;
                    self.next_at = now + Duration::from_millis(20);
                    return;
                }
                _ if over => {}
                Step::Send(bytes) => wire.arrive(bytes),
                Step::AwaitLines(count) => {
                    let lines = wire.outbound.iter().filter(|byte| **byte == b'\n').count();
                    if lines < *count {
                        wire.room += 100;
                        wire.edge = true;
                        self.next_at = now + Duration::from_millis(20);
                        return;
                    }
                }
                Step::Fin => (wire.fin, wire.edge) = (true, true),
                Step::Reset => (wire.reset, wire.edge) = (true, true),
                Step::AskForOffset | Step::SendPiece(_) => {}
                Step::AwaitEnds(others) => {
                    if !others.iter().all(|other| other.borrow().closed) {
                        self.next_at = now + Duration::from_millis(50);
                        return;
                    }
                }
                Step::AwaitOthers(others) => {
                    let is_answered = |other: &Wire| other.closed || other.outbound.contains(&b'\n');
                    if !others.iter().all(|other| is_answered(&other.borrow())) {
                        self.next_at = now + Duration::from_millis(50);
                        return;
                    }
                }
                Step::SendFromOffset(end, line) => {
                    let Errand::Attempt { upload, disk, .. } = &self.errand else { unreachable!("it resumes") };
                    let said = String::from_utf8_lossy(&wire.outbound).into_owned();
                    if !said.contains('\n') {
                        wire.room += 1;
                        wire.edge = true;
                        self.next_at = now + Duration::from_millis(20);
                        return;
                    }
                    let offset = said.strip_prefix("ok ").and_then(|said| said.lines().next()?.parse::<usize>().ok());
                    if let Some(offset) = offset {
                        let lasts = disk.lasting.borrow().get(&upload.id).copied().unwrap_or(0);
                        assert!(
                            offset as u64 <= lasts,
                            "{}: told offset {offset}, but only {lasts} bytes are durable",
                            upload.name
                        );
                        wire.arrive(upload.content.get(offset..*end).unwrap_or_default());
                        wire.arrive(line.as_bytes());
                    }
                }
                Step::Read(count) => {
                    wire.room += count;
                    wire.edge = true;
                }
            }
            drop(wire);
            self.steps.pop_front();
            self.next_at = self.next_at + self.steps.front().map_or(Duration::ZERO, |(pause, _)| *pause);
        }
    }

    /// Whether the server has told it this id.
    fn has_heard_of(&self, id: &str) -> bool {
        String::from_utf8_lossy(&self.wire.borrow().outbound).contains(id)
    }

    /// Checks what the client got. Returns the names under which it may have files.
    fn check(&self, published: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
        let wire = self.wire.borrow();
        assert!(wire.closed, "a connection is still open");
        let said = String::from_utf8_lossy(&wire.outbound);
        match &self.errand {
            Errand::Bare { is_line, content, name, fate } => {
                check_bare(*is_line, content, name, *fate, published, &said);
                assert!(
                    *fate != Fate::Stored || wire.has_announced || !wire.is_chatty,
                    "{name} is stored, but the end of the stream was not announced"
                );
                assert!(
                    *fate != Fate::Stored || !wire.was_reset_by_server,
                    "{name} is stored, but the connection was reset"
                );
                let told = if *is_line { said.contains("no 408 ") } else { wire.was_reset_by_server };
                assert!(*fate != Fate::TooSlow || told, "{name} was told {said:?}");
                vec![name.clone()]
            }
            Errand::Framed { requests, ending } => {
                check_framed(requests, ending, published, &lines_of(&said));
                requests.iter().map(|request| request.name.clone()).collect()
            }
            Errand::ByIdAttempt { upload, is_last, .. } => {
                let (name, size) = (&upload.name, upload.content.len() as u64);
                assert!(published.get(name) == Some(&upload.content), "{name} is incomplete: {said:?}");
                assert!(!is_last || offsets(&said).last() == Some(size), "{name} was told {said:?}");
                vec![name.clone()]
            }
            Errand::Attempt { upload, is_last, .. } => {
                assert!(
                    published.get(&upload.name) == Some(&upload.content),
                    "{} is incomplete: {said:?}",
                    upload.name
                );
                let done = format!("done {} {} {}\n", upload.content.len(), upload.digest, upload.name);
                assert_eq!(
                    said.starts_with("ok ") && said.ends_with(&done),
                    *is_last,
                    "{} was told {said:?}",
                    upload.name
                );
                vec![upload.name.clone()]
            }
        }
    }
}

fn check_bare(
    is_line: bool,
    content: &[u8],
    name: &str,
    fate: Fate,
    published: &BTreeMap<String, Vec<u8>>,
    said: &str,
) {
    let stored = published.get(name);
    if fate != Fate::Stored {
        assert_eq!(stored, None, "{name} must not be stored");
        assert!(!said.contains("done"), "{name} was told {said:?}");
        return;
    }
    assert!(stored.is_some_and(|stored| stored == content), "{name} is not stored whole; it was told {said:?}");
    let receipt = format!("done {} - {name}\n", content.len());
    if is_line {
        assert!(said == receipt || said == format!("ok\n{receipt}"), "{name} was told {said:?}");
    } else {
        assert_eq!(said, "ok", "the answer to {name}");
    }
}

// ---- put and ask -----------------------------------------------------------------------------------------------------

/// One of many requests, what it sends, and the answers it expects.
struct Framed {
    name: String,
    content: Vec<u8>,
    sent: Vec<u8>,
    /// For each line, the beginnings that are allowed.
    heard: Vec<Vec<String>>,
    is_stored: bool,
    is_last_word: bool,
    /// A form with this one file, which may be whole although the form is cut short.
    is_form: bool,
}

enum Ending {
    Whole,
    /// The connection ends after this many bytes of all requests.
    CutShort(usize, Step),
}

pub fn digest_of(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Crc32c);
    hasher.update(content);
    hasher.finish()
}

impl Framed {
    fn new(suffix: &str, before: Option<&Self>, chance: &Chance) -> Self {
        if let Some(before) = before.filter(|before| before.is_stored && chance.one_in(4)) {
            return before.again();
        }
        let stem = Self::stem(chance);
        let name = format!("{stem}-{suffix}");
        let content = Self::content(chance);
        let digest = digest_of(&content);
        let is_wrong = chance.one_in(5);
        let told = if is_wrong { "00000000".to_owned() } else { digest.to_hex() };
        let (attribute, trailer, receipt) = match chance.below(3) {
            0 => (String::new(), String::new(), "-".to_owned()),
            1 => (format!(" crc32c={told}"), String::new(), digest.to_string()),
            _ => (" crc32c=trailer".to_owned(), format!("crc32c={told}\n"), digest.to_string()),
        };
        let is_wrong = is_wrong && !attribute.is_empty();
        // A client sends content right after `/ask` only where the server is sure to accept it.
        let verb = if stem == "framed" && chance.one_in(3) { "ask" } else { "put" };
        let (size, body) = if chance.one_in(3) {
            ("-".to_owned(), chunked(&content, chance))
        } else {
            (content.len().to_string(), content.clone())
        };
        let sent = [format!("/{verb} size={size}{attribute} {name}\n").as_bytes(), &body, trailer.as_bytes()].concat();
        let outcome = match stem {
            FAILS_TO_BEGIN => "no 507 ".into(),
            FAILS_TO_APPEND => "no 500 ".into(),
            "../outside" => "no 403 ".into(),
            _ if is_wrong => "no 422 ".into(),
            FAILS_TO_PUBLISH => "no 409 ".into(),
            _ => format!("done {} {receipt} {name}", content.len()),
        };
        let is_stored = outcome.starts_with("done");
        let ok = (verb == "ask").then(|| vec!["ok 0".to_owned()]);
        let heard = ok.into_iter().chain([vec![outcome]]).collect();
        Self { name, content, sent, heard, is_stored, is_last_word: stem == FAILS_TO_APPEND, is_form: false }
    }

    fn stem(chance: &Chance) -> &'static str {
        match chance.below(24) {
            0 => FAILS_TO_BEGIN,
            1 => FAILS_TO_APPEND,
            2 => FAILS_TO_PUBLISH,
            3 => "../outside",
            _ => "framed",
        }
    }

    fn content(chance: &Chance) -> Vec<u8> {
        let size = if chance.one_in(8) { 4096 + chance.below(12_000) } else { 1 + chance.below(3000) };
        chance.bytes(size)
    }

    /// A form, or a PUT, by its length or in chunks, with a digest before or behind its content or with none. A refusal before the
    /// end of the content is the last word.
    fn http(suffix: &str, chance: &Chance) -> Self {
        if chance.one_in(4) {
            return Self::form(suffix, chance);
        }
        let stem = Self::stem(chance);
        let (name, content) = (format!("{stem}-{suffix}"), Self::content(chance));
        let told = sum(if chance.one_in(5) { b"something else" } else { content.as_slice() });
        let is_chunked = chance.one_in(3);
        let field = format!("Repr-Digest: {}\r\n", sha256_field(&told));
        let (fields, trailer, has_digest) = match chance.below(3) {
            0 if is_chunked => ("Trailer: Repr-Digest\r\n".to_owned(), field, true),
            0 | 1 => (field, String::new(), true),
            _ => (String::new(), String::new(), false),
        };
        let expects = stem == "framed" && chance.one_in(3);
        let expect = if expects { "Expect: 100-continue\r\n" } else { "" };
        let (framing, body) = match is_chunked {
            true => ("Transfer-Encoding: chunked".to_owned(), http_chunks(&content, &trailer, chance)),
            false => (format!("Content-Length: {}", content.len()), content.clone()),
        };
        let target = name.replace('/', "%2F");
        let head = format!("PUT /{target} HTTP/1.1\r\nHost: localhost\r\n{expect}{fields}{framing}\r\n\r\n");
        let is_wrong = has_digest && sum(&content) != told;
        let outcome = match stem {
            FAILS_TO_BEGIN => "no 507 ".into(),
            FAILS_TO_APPEND => "no 500 ".into(),
            "../outside" => "no 400 ".into(),
            _ if is_wrong => "no 422 ".into(),
            FAILS_TO_PUBLISH => "no 409 ".into(),
            _ if has_digest => format!("done {} {told} {name}", content.len()),
            _ => format!("done {} - {name}", content.len()),
        };
        Self {
            is_stored: outcome.starts_with("done"),
            is_last_word: [FAILS_TO_BEGIN, FAILS_TO_APPEND, "../outside"].contains(&stem),
            heard: expects.then(|| vec!["ok 0".to_owned()]).into_iter().chain([vec![outcome]]).collect(),
            sent: [head.as_bytes(), &body].concat(),
            is_form: false,
            name,
            content,
        }
    }

    /// A form with one file. A refused file is read past, and the next request is served.
    fn form(suffix: &str, chance: &Chance) -> Self {
        let stem = Self::stem(chance);
        let (name, content) = (format!("{stem}-{suffix}"), Self::content(chance));
        let field = "--xYz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n";
        let part = format!("--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        let form = [field.as_bytes(), part.as_bytes(), &content, b"\r\n--xYz--\r\n"].concat();
        let (framing, body) = match chance.one_in(3) {
            true => ("Transfer-Encoding: chunked".to_owned(), http_chunks(&form, "", chance)),
            false => (format!("Content-Length: {}", form.len()), form),
        };
        let kind = "Content-Type: multipart/form-data; boundary=xYz";
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{framing}\r\n\r\n");
        let outcome = match stem {
            FAILS_TO_BEGIN => "no 507 ".into(),
            FAILS_TO_APPEND => "no 500 ".into(),
            FAILS_TO_PUBLISH => "no 409 ".into(),
            "../outside" => "no 403 ".into(),
            _ => format!("done {} - {name}", content.len()),
        };
        Self {
            is_stored: outcome.starts_with("done"),
            is_last_word: stem == FAILS_TO_APPEND,
            heard: vec![vec![outcome]],
            sent: [head.as_bytes(), &body].concat(),
            is_form: true,
            name,
            content,
        }
    }

    /// The same file again. There is no second copy, whether or not the first is published yet.
    fn again(&self) -> Self {
        let (size, digest) = (self.content.len(), digest_of(&self.content));
        let request = format!("/put size={size} crc32c={} on-exists=same {}\n", digest.to_hex(), self.name);
        Self {
            name: self.name.clone(),
            content: self.content.clone(),
            sent: [request.as_bytes(), &self.content].concat(),
            heard: vec![vec![format!("done {size} {digest} {}", self.name), "no 409 retry=5 ".into()]],
            is_stored: true,
            is_last_word: false,
            is_form: false,
        }
    }
}

pub fn chunked(content: &[u8], chance: &Chance) -> Vec<u8> {
    let chunks = content.chunks(1 + chance.below(content.len()));
    let mut body: Vec<u8> =
        chunks.flat_map(|chunk| [format!("{}\n", chunk.len()).as_bytes(), chunk].concat()).collect();
    body.extend(b"0\n");
    body
}

fn http_chunks(content: &[u8], trailer: &str, chance: &Chance) -> Vec<u8> {
    let chunks = content.chunks(1 + chance.below(content.len()));
    let mut body: Vec<u8> =
        chunks.flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).collect();
    body.extend(format!("0\r\n{trailer}\r\n").as_bytes());
    body
}

fn sha256_field(digest: &Digest) -> String {
    let Digest::Sha256(sum) = digest else { panic!("{digest} is no SHA-256") };
    format!("sha-256=:{}:", STANDARD.encode(sum))
}

/// The lines that answers of HTTP hold, and `ok` for each that says to continue. Of other dialects all.
fn lines_of(said: &str) -> String {
    if !said.starts_with("HTTP/") {
        return said.into();
    }
    let is_line = |line: &&str| ["HTTP/1.1 100 ", "done ", "no "].iter().any(|start| line.starts_with(start));
    let lines = said.lines().filter(is_line).map(|line| if line.starts_with("HTTP/") { "ok 0" } else { line });
    lines.map(|line| format!("{line}\n")).collect()
}

fn check_framed(requests: &[Framed], ending: &Ending, published: &BTreeMap<String, Vec<u8>>, said: &str) {
    let mut lines = said.lines();
    let (mut sent, mut goes_on, mut cut_form) = (0, true, None);
    for request in requests {
        sent += request.sent.len();
        let is_whole = goes_on && !matches!(ending, Ending::CutShort(length, _) if *length < sent);
        let stored = published.get(&request.name);
        assert!(stored.is_none_or(|stored| *stored == request.content), "{} has the wrong content", request.name);
        match ending {
            // The request, or its answer, may have been lost on the way.
            Ending::CutShort(_, Step::Reset) => {
                assert!(request.is_stored || stored.is_none(), "{} must not be stored", request.name);
                continue;
            }
            _ if !is_whole => {
                cut_form = Some(request).filter(|request| request.is_form);
                break;
            }
            _ => assert_eq!(stored.is_some(), request.is_stored, "{}: {said:?}", request.name),
        }
        for ways in &request.heard {
            let line = lines.next().unwrap_or_default();
            assert!(ways.iter().any(|way| line.starts_with(way)), "{line:?} is none of {ways:?} in {said:?}");
        }
        goes_on = !request.is_last_word;
    }
    if !matches!(ending, Ending::CutShort(_, Step::Reset)) {
        let is_of_cut_form = |line: &str| cut_form.is_some_and(|form| line.starts_with(&form.heard[0][0]));
        let mut rest: Vec<&str> = lines.filter(|line| *line != "ok 0").collect();
        rest.drain(..usize::from(rest.first().is_some_and(|line| is_of_cut_form(line))));
        let is_cut = matches!(ending, Ending::CutShort(..)) && goes_on;
        assert!(rest.is_empty() || (is_cut && rest.len() == 1 && rest[0].starts_with("no ")), "{rest:?} in {said:?}");
    }
}

/// An upload that is sent over several connections.
struct Resumable {
    id: String,
    name: String,
    content: Vec<u8>,
    digest: Digest,
    request: String,
}

impl Resumable {
    fn new(number: usize, chance: &Chance) -> Self {
        let (id, name) = (format!("id-{number}"), format!("resumed-{number}"));
        let size = if chance.one_in(20) { 3 << 20 } else { 1 + chance.below(5000) };
        let content = chance.bytes(size);
        let digest = digest_of(&content);
        let request = format!("/ask size={size} crc32c=trailer resume={id} {name}\n");
        Self { id, name, content, digest, request }
    }
}

/// A resumable upload over HTTP that is sent over several connections.
struct ByIdUpload {
    name: String,
    content: Vec<u8>,
    is_tus: bool,
    has_digest: bool,
    /// Of all its connections.
    wires: RefCell<Vec<Rc<RefCell<Wire>>>>,
    /// The one that begins it, unless that is cut off too early.
    begun_by: RefCell<Option<Rc<RefCell<Wire>>>>,
}

/// What one request brings of such an upload.
#[derive(Clone, Copy)]
struct Piece {
    /// Where it is said to end.
    end: usize,
    /// How much of it is not sent.
    missing: usize,
    /// Its checksum is another one's.
    is_wrong: bool,
}

impl ByIdUpload {
    fn new(number: usize, chance: &Chance) -> Self {
        let size = if chance.one_in(20) { 3 << 20 } else { 2 + chance.below(5000) };
        let (is_tus, has_digest) = (chance.one_in(2), chance.one_in(2));
        let name = format!("pieces-{number}");
        Self {
            name,
            content: chance.bytes(size),
            is_tus,
            has_digest,
            wires: RefCell::default(),
            begun_by: RefCell::default(),
        }
    }

    /// All that the server has said about it.
    fn said(&self) -> impl Iterator<Item = String> {
        let said = |wire: &Rc<RefCell<Wire>>| String::from_utf8_lossy(&wire.borrow().outbound).into_owned();
        self.wires.borrow().iter().map(said).collect::<Vec<_>>().into_iter()
    }

    /// Where it is, once the server has said so.
    fn place(&self) -> Option<String> {
        self.said().find_map(|said| {
            let at = said.find("\r\nLocation: /.intake/uploads/")? + "\r\nLocation: ".len();
            Some(said[at..].split_once("\r\n")?.0.to_owned())
        })
    }

    /// The largest offset that was told so far.
    fn told(&self) -> u64 {
        self.said().flat_map(|said| offsets(&said).collect::<Vec<_>>()).max().unwrap_or(0)
    }

    fn check_offset(&self, offset: u64, floor: u64, disk: &SimDisk) {
        let (name, id) = (&self.name, self.place().expect("it has begun"));
        assert!(offset >= floor, "{name}: the offset was {floor}, and has decreased to {offset}");
        let id = &id["/.intake/uploads".len()..];
        let is_stored = disk.receipts.borrow().contains_key(id);
        let lasts = disk.lasting.borrow().get(id).copied().unwrap_or(0);
        assert!(is_stored || offset <= lasts, "{name}: told offset {offset}, but only {lasts} bytes are durable");
    }

    /// The version of what is spoken.
    fn version(&self) -> &'static str {
        if self.is_tus { "Tus-Resumable: 1.0.0" } else { "Upload-Draft-Interop-Version: 8" }
    }

    fn request(&self, line: &str, fields: &str, length: usize) -> String {
        let version = self.version();
        format!("{line} HTTP/1.1\r\nHost: localhost\r\n{version}\r\n{fields}Content-Length: {length}\r\n\r\n")
    }

    fn ask(&self, place: &str) -> String {
        self.request(&format!("HEAD {place}"), "", 0)
    }

    /// Whether the piece is the last one, as the draft of the IETF tells it.
    fn complete(&self, end: usize) -> &'static str {
        if end == self.content.len() { "Upload-Complete: ?1\r\n" } else { "Upload-Complete: ?0\r\n" }
    }

    /// The request that begins it, with its first piece.
    fn begin(&self, piece: Piece) -> Vec<u8> {
        let digest = if self.has_digest {
            format!("Repr-Digest: {}\r\n", sha256_field(&sum(&self.content)))
        } else {
            String::new()
        };
        let size = format!("Upload-Length: {}\r\n", self.content.len());
        let (line, fields) = match self.is_tus {
            true => {
                let name = STANDARD.encode(&self.name);
                let kind = "Content-Type: application/offset+octet-stream";
                ("POST /".to_owned(), format!("Upload-Metadata: filename {name}\r\n{kind}\r\n"))
            }
            false => (format!("PUT /{}", self.name), self.complete(piece.end).to_owned()),
        };
        self.with_content(&line, &(fields + &size + &digest), 0, piece)
    }

    /// The request that continues it at `offset`, unless the piece has come already.
    fn piece(&self, offset: usize, piece: Piece) -> Vec<u8> {
        if offset >= piece.end {
            return Vec::new();
        }
        let place = self.place().expect("it has begun");
        let kind = match self.is_tus {
            true => "Content-Type: application/offset+octet-stream\r\n".to_owned(),
            false => format!("Content-Type: application/partial-upload\r\n{}", self.complete(piece.end)),
        };
        self.with_content(&format!("PATCH {place}"), &format!("Upload-Offset: {offset}\r\n{kind}"), offset, piece)
    }

    fn with_content(&self, line: &str, fields: &str, offset: usize, piece: Piece) -> Vec<u8> {
        let content = &self.content[offset..piece.end];
        let checksum = match piece.is_wrong {
            true => format!("Content-Digest: {}\r\n", sha256_field(&sum(b"something else"))),
            false => String::new(),
        };
        let sent = &content[..content.len().saturating_sub(piece.missing)];
        [self.request(line, &(fields.to_owned() + &checksum), content.len()).as_bytes(), sent].concat()
    }
}

/// The offsets that are told in `said`, in their order.
fn offsets(said: &str) -> impl Iterator<Item = u64> {
    let told = said.lines().filter_map(|line| line.strip_prefix("Upload-Offset: "));
    told.map(|offset| offset.parse().expect("an offset is a number"))
}

fn sum(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(content);
    hasher.finish()
}

// ---- the world -------------------------------------------------------------------------------------------------------

struct World {
    chance: Chance,
    clients: Vec<Client>,
    disk: SimStore,
    connections: Connections<SimStream, SimStore>,
    /// Ids of closed connections. The kernel may still report events for them.
    stale: Vec<Id>,
    clock: Moment,
    /// The time that the last turn used.
    now: Moment,
}

impl World {
    fn new(seed: u64) -> Self {
        let chance = Chance::new(seed);
        let clock = Moment::default();
        let mut clients: Vec<Client> =
            (0..1 + chance.below(40)).map(|number| Client::new(number, &chance, clock)).collect();
        clients.extend((0..chance.below(10)).map(|number| Client::framed(number, &chance, clock)));
        let name_quiet = if chance.one_in(4) { Duration::from_millis(50) } else { Duration::ZERO };
        let limits = Limits { name_quiet, ..Limits::default() };
        let disk = SimStore { disk: Rc::default(), chance: chance.clone(), syncs: chance.one_in(2) };
        let resumed = chance.below(5);
        clients.extend((0..resumed).flat_map(|number| Client::attempts(number, &chance, clock, &disk.disk)));
        let by_id = chance.below(4);
        clients.extend((0..by_id).flat_map(|number| Client::by_id_attempts(number, &chance, clock, &disk.disk)));
        for client in &clients {
            client.wire.borrow_mut().is_chatty = chance.one_in(3);
        }
        // More than all clients send, so that it is counted and refuses nobody.
        let plenty = Quota { bytes: Some(u64::MAX), uploads: Some(u32::MAX) };
        let source_quota = if seed.is_multiple_of(2) { plenty } else { Quota::default() };
        let policy = Policy { source_quota, ..Policy::default() };
        let mut connections = Connections::new(disk.clone(), &Config { limits, policy, ..Config::default() });
        if seed.is_multiple_of(8) {
            // Tracing must not change what happens.
            connections.trace_to(Tracer::new(Format::Json, Box::new(io::sink())));
        }
        Self { chance, clients, disk, connections, stale: Vec::new(), clock, now: clock }
    }

    fn run(mut self) {
        for _ in 0..200_000 {
            let disk_is_idle = self.disk.disk.waiting.borrow().is_empty();
            if disk_is_idle && self.clients.iter().all(|client| client.id.is_some() && client.wire.borrow().closed) {
                return self.check();
            }
            self.turn();
        }
        panic!("the simulation does not end");
    }

    fn turn(&mut self) {
        self.pass_time();
        let events = self.poll();
        if self.chance.one_in(40) {
            // The process stops after the poll and before the clock is read, so the batch misses all that arrives
            // meanwhile.
            self.stop_the_process();
        }
        let clock = Clock { asked: self.now, now: self.clock };
        self.now = self.clock;
        for (id, readiness) in events {
            self.connections.absorb(id, readiness);
        }
        self.connections.settle(clock);
        self.connections.serve(clock);
        self.connections.expire(clock);
        self.accept();
    }

    /// Advances the clock as far as the poll would sleep. It does not sleep while a connection is ready.
    fn pass_time(&mut self) {
        self.clock = self.clock + self.chance.millis(3);
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
        self.clock = self.clock + Duration::from_secs(90);
        self.clients.iter_mut().for_each(|client| client.act(self.clock));
    }

    /// Each edge once, and now and then a spurious event or one for a closed connection.
    fn poll(&mut self) -> Vec<(Id, Readiness)> {
        let mut events = Vec::new();
        for client in &self.clients {
            let Some(id) = client.id else { continue };
            let mut wire = client.wire.borrow_mut();
            wire.edge |= self.chance.one_in(30);
            if let Some(readiness) = wire.event().filter(|_| !wire.closed) {
                events.push((id, readiness));
            }
        }
        if !self.stale.is_empty() && self.chance.one_in(3) {
            let both = Readiness { readable: true, writable: true };
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
            let peer = SocketAddr::from((SOURCE, 40_000));
            let (wire, chance) = (client.wire.clone(), self.chance.clone());
            let id = &mut client.id;
            let register = |given| {
                *id = Some(given);
                Ok(SimStream { wire, chance })
            };
            self.connections.admit(peer, self.now, register).expect("the simulated poll has room for every connection");
            let connected = &self.disk.disk.connected;
            connected.set(connected.get().max(self.connections.len()));
        }
    }

    fn check(self) {
        assert!(self.connections.is_empty() && !self.connections.has_ready());
        assert_eq!(self.connections.first_deadline(), None, "a deadline outlives its connection");
        assert_eq!(self.disk.disk.partials.get(), 0, "a partial file is left over over");
        let published = self.disk.disk.published.borrow();
        let names: BTreeSet<String> = self.clients.iter().flat_map(|client| client.check(&published)).collect();
        assert!(published.keys().all(|name| names.contains(name)));
        // A client that was cut off before it heard of its upload has begun another one.
        let is_known = |id: &str| self.clients.iter().any(|client| client.has_heard_of(id));
        let left = self.disk.disk.kept.borrow().keys().find(|id| !id.starts_with('/') || is_known(id)).cloned();
        assert_eq!(left, None, "no finished upload is still kept");
        assert!(self.disk.disk.owners.is_empty());
        let (bytes, uploads) = self.connections.access().used(SOURCE.into());
        if uploads > 0 {
            let stored: usize = published.values().map(Vec::len).sum();
            let kept = self.disk.disk.kept.borrow().len() as u64;
            assert_eq!(
                u64::from(uploads),
                self.connections.stats().stored + kept,
                "a failed upload counts, or a stored one does not"
            );
            assert!(bytes >= stored as u64, "{bytes} bytes are charged, and {stored} are stored");
        }
    }
}

// ---- shutdowns -------------------------------------------------------------------------------------------------------

/// How a shutdown ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum CutShort {
    /// By a second signal or the deadline. The server may still send the outcomes that it knows.
    Aborted,
    /// By SIGKILL: the kernel closes the sockets.
    Killed,
    /// By itself, after every upload in progress has finished.
    Never,
}

impl World {
    /// Shuts down in the middle of the day and cuts that short some turns later. Returns a promise that was broken.
    fn run_to_a_shutdown(mut self, cut_short: CutShort) -> Result<(), String> {
        (0..self.chance.below(200)).for_each(|_| self.turn());
        self.connections.drain();
        let most_turns = if cut_short == CutShort::Never { 20_000 } else { self.chance.below(60) };
        for _ in 0..most_turns {
            if self.connections.are_lingering() {
                break;
            }
            self.turn_without_accepting();
        }
        if cut_short == CutShort::Never && !self.connections.are_lingering() {
            return Err("the shutdown never ends".into());
        }
        if cut_short == CutShort::Aborted {
            self.connections.abort(Clock { asked: self.now, now: self.clock });
        }
        drop(self.connections);
        // Jobs that the disk has not finished are lost.
        let published = self.disk.disk.published.borrow().clone();
        self.clients.iter().filter(|client| client.id.is_some()).try_for_each(|client| client.check_told(&published))
    }

    fn turn_without_accepting(&mut self) {
        self.pass_time();
        let clock = Clock { asked: self.now, now: self.clock };
        self.now = self.clock;
        for (id, readiness) in self.poll() {
            self.connections.absorb(id, readiness);
        }
        self.connections.settle(clock);
        self.connections.serve(clock);
        self.connections.expire(clock);
    }
}

impl Client {
    /// Every file that the client was told is stored, is stored.
    fn check_told(&self, published: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        let wire = self.wire.borrow();
        let said = String::from_utf8_lossy(&wire.outbound);
        if let Errand::Bare { is_line: false, name, content, .. } = &self.errand {
            let sees_the_end = wire.fin && wire.closed && !wire.reset && !wire.was_reset_by_server && said == "ok";
            return match published.get(name) {
                None if sees_the_end => Err(format!("{name} ended without a reset, and is not stored")),
                Some(stored) if stored != content => Err(format!("{name} is incomplete")),
                _ => Ok(()),
            };
        }
        for line in said.split_inclusive('\n').filter(|line| line.starts_with("done ") && line.ends_with('\n')) {
            let name = line.trim_end().splitn(4, ' ').nth(3).unwrap_or_default();
            if !published.contains_key(name) {
                return Err(format!("{name} got a receipt, and is not stored"));
            }
        }
        Ok(())
    }
}

fn shutdowns() -> impl Iterator<Item = (u64, CutShort)> {
    (0..120).flat_map(|seed| [CutShort::Aborted, CutShort::Killed, CutShort::Never].map(|cut_short| (seed, cut_short)))
}

#[test]
fn a_shutdown_that_is_cut_short_has_told_only_the_truth() {
    for (seed, cut_short) in shutdowns() {
        assert_eq!(World::new(seed).run_to_a_shutdown(cut_short), Ok(()), "seed {seed}, {cut_short:?}");
    }
}

#[test]
fn an_orderly_end_while_an_outcome_is_owed_is_found() {
    for ending in [CutShort::Aborted, CutShort::Killed] {
        let found = shutdowns().filter(|(_, cut_short)| *cut_short == ending).find_map(|(seed, cut_short)| {
            let world = World::new(seed);
            world.clients.iter().for_each(|client| client.wire.borrow_mut().never_resets = true);
            world.run_to_a_shutdown(cut_short).err()
        });
        assert!(found.is_some_and(|found| found.ends_with("ended without a reset, and is not stored")), "{ending:?}");
    }
}

// ---- room among the files that wait for the disk ---------------------------------------------------------------------

/// A server whose disk does nothing until the test lets it.
struct StalledServer {
    disk: SimStore,
    connections: Connections<SimStream, SimStore>,
    clients: Vec<(Id, Rc<RefCell<Wire>>)>,
    now: Moment,
}

impl StalledServer {
    fn new() -> Self {
        let disk = SimStore { disk: Rc::default(), chance: Chance::new(0), syncs: true };
        disk.disk.stalled_turns.set(usize::MAX);
        let connections = Connections::new(disk.clone(), &Config::default());
        Self { disk, connections, clients: Vec::new(), now: Moment::default() }
    }

    /// Connects a client that has sent these bytes. Returns its number.
    fn connect(&mut self, sent: &[u8]) -> usize {
        let (wire, chance) = (Wire::with_room(usize::MAX), self.disk.chance.clone());
        wire.borrow_mut().arrive(sent);
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let (stream, clients) = (SimStream { wire: wire.clone(), chance }, &mut self.clients);
        let register = |id| {
            clients.push((id, wire));
            Ok(stream)
        };
        self.connections.admit(peer, self.now, register).expect("the simulated poll has room");
        self.disk.disk.connected.set(self.connections.len());
        self.clients.len() - 1
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].1.borrow_mut().arrive(bytes);
    }

    fn heard(&self, client: usize) -> String {
        String::from_utf8_lossy(&self.clients[client].1.borrow().outbound).into_owned()
    }

    /// Advances the clock by `passed` and runs turns until no connection is ready.
    fn settle_down(&mut self, passed: Duration) {
        self.now = self.now + passed;
        for (id, wire) in &self.clients {
            let event = wire.borrow_mut().event();
            if let Some(readiness) = event {
                self.connections.absorb(*id, readiness);
            }
        }
        let clock = Clock { asked: self.now, now: self.now };
        self.connections.settle(clock);
        self.connections.serve(clock);
        while self.connections.has_ready() {
            self.connections.settle(clock);
            self.connections.serve(clock);
        }
        self.connections.expire(clock);
    }
}

#[test]
fn while_the_disk_is_behind_running_uploads_flow_and_new_ones_queue_without_a_timeout() {
    const MOMENT: Duration = Duration::from_millis(1);
    let mut server = StalledServer::new();
    let flows = server.connect(b"/put size=3000000 flows\n");
    server.settle_down(MOMENT);
    for number in 0..BACKLOG_MAX {
        server.connect(format!("/put size=1 small-{number}\nx").as_bytes());
    }
    server.settle_down(MOMENT);
    assert!(server.disk.is_congested());

    let waiting: Vec<usize> = ["first", "second", "third"]
        .into_iter()
        .map(|name| {
            let client = server.connect(name.as_bytes());
            server.settle_down(MOMENT);
            client
        })
        .collect();
    // A connection has no job for the disk before its upload is whole.
    for _ in 0..30 {
        server.send(flows, &[0; 99_999]);
        server.settle_down(Duration::from_secs(50));
        assert!(server.clients[flows].1.borrow().inbound.is_empty(), "its content is not read");
    }
    assert!(waiting.iter().all(|client| server.heard(*client).is_empty()), "they wait, and no timeout applies");
    assert!(server.clients.iter().all(|(_, wire)| !wire.borrow().closed));

    // A client that arrives when there is room again queues behind them.
    let last = server.connect(b"last");
    server.disk.disk.stalled_turns.set(0);
    for _ in 0..100 {
        server.settle_down(MOMENT);
    }
    let begun = server.disk.disk.begun.borrow();
    assert_eq!(begun[1 + BACKLOG_MAX..], ["first", "second", "third", "last"].map(str::to_owned));
    assert!(waiting.iter().chain([&last]).all(|client| server.heard(*client) == "ok"));
}

// ---- a stream with bytes of its own ----------------------------------------------------------------------------------

#[test]
fn a_handshake_continues_while_the_conversation_has_nothing_to_send() {
    for seed in 0..40 {
        let mut server = StalledServer::new();
        server.disk = SimStore { disk: Rc::default(), chance: Chance::new(seed), syncs: false };
        server.connections = Connections::new(server.disk.clone(), &Config::default());
        let client = server.connect(b"");
        server.clients[client].1.borrow_mut().is_chatty = true;
        server.clients[client].1.borrow_mut().handshake_may_block = true;
        server.settle_down(Duration::ZERO);
        server.send(client, b"/put size=1 a\nx/bye\n");
        // An event reports each time that the send buffer has room or that the client has answered.
        (0..20).for_each(|_| server.settle_down(Duration::ZERO));
        assert_eq!(server.heard(client), "done 1 - a\n", "{seed}");
    }
}

/// The kernel of a killed client ends the stream, but only the client itself can announce its end.
#[test]
fn an_end_that_is_not_announced_ends_only_what_has_a_size() {
    for seed in 0..40 {
        for (sent, is_stored) in [(&b"a\nx"[..], false), (b"a", false), (b"/put size=1 a\nx", true)] {
            let mut server = StalledServer::new();
            server.disk = SimStore { disk: Rc::default(), chance: Chance::new(seed), syncs: false };
            server.connections = Connections::new(server.disk.clone(), &Config::default());
            let client = server.connect(b"");
            server.clients[client].1.borrow_mut().is_chatty = true;
            server.settle_down(Duration::ZERO);
            server.send(client, sent);
            (0..20).for_each(|_| server.settle_down(Duration::ZERO));
            {
                let mut wire = server.clients[client].1.borrow_mut();
                (wire.fin, wire.ends_unannounced, wire.edge) = (true, true, true);
            }
            (0..20).for_each(|_| server.settle_down(Duration::ZERO));
            let heard = server.heard(client);
            assert_eq!(server.disk.disk.published.borrow().contains_key("a"), is_stored, "{seed}: {heard}");
            let wire = server.clients[client].1.borrow();
            assert!(wire.closed && wire.was_reset_by_server == (sent == b"a"), "{seed}: {heard}");
        }
    }
}

//! A receipt survives a power cut: the real connections and the real commit, over a simulated disk that forgets.
//!
//! The same day of a server is played again and again. Each time the power is cut before another step of the disk, and a
//! different part of what was not synced is lost. Afterwards:
//!
//! - every file with a receipt is there under its name, byte for byte, and in the queue;
//! - every final name belongs to a whole upload that was not refused;
//! - every offset that a client was told can be resumed from;
//! - the next server completes every interrupted upload.
//!
//! Each [`Mistake`] is planted once, and the same checks must find it: they can fail.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use intake::proto::{Digest, OnExists};
use intake::reactor::{Id, Moment};
use intake::server::config::Config;
use intake::server::{Clock, Connections};
use proptest::prelude::*;

use crate::forgetful::*;
use crate::simulation::{chunked, digest_of};
use crate::wire::{Chance, SimStream, Wire};

// ---- the clients -----------------------------------------------------------------------------------------------------

/// What a client sends, and what may be stored of it later.
struct Upload {
    name: String,
    content: Vec<u8>,
    digest: Digest,
    replaces: bool,
    /// It is sent whole, and not refused.
    is_good: bool,
    resume: Option<String>,
}

enum Step {
    Send(Vec<u8>),
    /// Waits until the server has said something.
    AwaitWords,
    /// Sends the content from the offset that it is told up to this one, then this line. On any other reply, nothing.
    SendFromOffset(usize, String),
    Fin,
    Reset,
}

/// One connection.
struct Session {
    wire: Rc<RefCell<Wire>>,
    id: Option<Id>,
    steps: VecDeque<Step>,
    uploads: Vec<Rc<Upload>>,
    is_classic: bool,
    /// It connects after that connection has closed.
    after: Option<Rc<RefCell<Wire>>>,
}

impl Upload {
    fn new(name: impl Into<String>, chance: &Chance) -> Self {
        let content = chance.bytes(1 + chance.below(400));
        let digest = digest_of(&content);
        Self { name: name.into(), content, digest, replaces: false, is_good: true, resume: None }
    }

    fn size(&self) -> usize {
        self.content.len()
    }

    fn is_as(&self, bytes: Option<&[u8]>) -> bool {
        bytes == Some(&self.content)
    }

    /// Whether this upload may be stored as `name`.
    fn fits(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&*self.name);
        rest.is_some_and(|rest| rest.is_empty() || rest[1..].parse::<u16>().is_ok())
    }

    /// A request to resume it. The digest stands here or in a trailer.
    fn ask(&self, digest: &str, attributes: &str) -> Step {
        let Self { name, resume, .. } = self;
        let id = resume.as_ref().expect("it has a resume id");
        let request = format!("/ask size={} crc32c={digest} resume={id}{attributes} {name}\n", self.size());
        Step::Send(request.into_bytes())
    }
}

impl Session {
    fn new(steps: Vec<Step>, uploads: Vec<Rc<Upload>>) -> Self {
        let wire = Wire::with_room(usize::MAX);
        Self { wire, id: None, steps: steps.into(), uploads, is_classic: false, after: None }
    }

    /// A classic or line upload: its name, its content in two pieces, and its end. The second piece may be missing.
    fn bare(is_classic: bool, is_good: bool, chance: &Chance) -> Self {
        let name = format!("{}-{is_good}", if is_classic { "classic" } else { "line" });
        let upload = Upload { is_good, ..Upload::new(name, chance) };
        let (start, end) = upload.content.split_at(chance.below(upload.size()));
        let (start, end) = (Step::Send(start.to_vec()), Step::Send(end.to_vec()));
        let header = match is_classic {
            true => vec![Step::Send(upload.name.clone().into_bytes()), Step::AwaitWords, start],
            false => vec![Step::Send(format!("{}\n", upload.name).into_bytes()), start],
        };
        let ending = match is_good {
            true => vec![end, Step::Fin],
            // Whether all of it arrived, nobody can tell.
            false if chance.one_in(2) => vec![end, Step::Reset],
            false => vec![Step::Reset],
        };
        Self { is_classic, ..Self::new(header.into_iter().chain(ending).collect(), vec![Rc::new(upload)]) }
    }

    /// Many uploads on one connection. One has a wrong digest, and one an impossible name.
    fn pipelined(number: usize, chance: &Chance) -> Self {
        let upload = |kind: &str| Upload::new(format!("{kind}-{number}"), chance);
        let mut puts: Vec<(Upload, String, String)> = Vec::new();
        let mut put = |upload, attributes: &str, trailer: &str| puts.push((upload, attributes.into(), trailer.into()));
        put(upload("plain"), "", "");
        for _ in 0..2 {
            put(upload("numbered"), " on-exists=rename", "");
            put(Upload { replaces: true, ..upload("replaced") }, " on-exists=replace", "");
        }
        put(Upload { is_good: false, ..upload("wrong") }, " crc32c=trailer", "crc32c=00000000\n");
        put(Upload { is_good: false, ..upload("../outside") }, "", "");
        let right = upload("right");
        let trailer = format!("crc32c={}\n", right.digest.to_hex());
        put(right, " crc32c=trailer", &trailer);

        let mut sent = Vec::new();
        for (upload, attributes, trailer) in &puts {
            let (size, body) = match chance.one_in(3) {
                true => ("-".to_owned(), chunked(&upload.content, chance)),
                false => (upload.size().to_string(), upload.content.clone()),
            };
            let request = format!("/put size={size}{attributes} {}\n", upload.name);
            sent.extend([request.as_bytes(), &body, trailer.as_bytes()].concat());
        }
        let pieces = sent.chunks(1 + chance.below(sent.len())).map(|piece| Step::Send(piece.to_vec()));
        let uploads = puts.into_iter().map(|(upload, ..)| Rc::new(upload)).collect();
        Self::new(pieces.chain([Step::Fin]).collect(), uploads)
    }

    /// The same file twice. The second time it is stored already.
    fn repeated(chance: &Chance) -> [Self; 2] {
        let upload = Rc::new(Upload::new("repeated", chance));
        let (size, digest) = (upload.size(), upload.digest.to_hex());
        let request = format!("/put size={size} crc32c={digest} on-exists=same {}\n", upload.name);
        let sent = [request.as_bytes(), &upload.content].concat();
        let session = || Self::new(vec![Step::Send(sent.clone()), Step::Fin], vec![upload.clone()]);
        let first = session();
        let after = Some(first.wire.clone());
        [first, Self { after, ..session() }]
    }

    /// A stored file is replaced by another one, and then uploaded again under the same resume id.
    fn recalled(chance: &Chance) -> [Self; 3] {
        let resume = Some("recalled".to_owned());
        let upload = Rc::new(Upload { replaces: true, resume, ..Upload::new("recalled", chance) });
        let content = chance.bytes(upload.size());
        let other = Upload { digest: digest_of(&content), content, replaces: true, ..Upload::new("recalled", chance) };
        let put = format!("/put size={} on-exists=replace recalled\n", other.size());
        let put = [put.as_bytes(), &other.content].concat();
        let first = || {
            let ask = upload.ask(&upload.digest.to_hex(), " on-exists=replace");
            let steps = vec![ask, Step::SendFromOffset(upload.size(), String::new()), Step::Fin];
            Self::new(steps, vec![upload.clone()])
        };
        let (first, last) = (first(), first());
        let second = Self::new(vec![Step::Send(put), Step::Fin], vec![Rc::new(other)]);
        let (after_first, after_second) = (Some(first.wire.clone()), Some(second.wire.clone()));
        [first, Self { after: after_first, ..second }, Self { after: after_second, ..last }]
    }

    /// Cuts it short with a reset at any step.
    fn interrupted(mut self, chance: &Chance) -> Self {
        self.steps.truncate(1 + chance.below(self.steps.len()));
        self.steps.push_back(Step::Reset);
        self
    }

    /// An upload that is interrupted twice and completed over a third connection.
    fn resumed(number: usize, chance: &Chance) -> Vec<Self> {
        let resume = Some(format!("id-{number}"));
        let upload = Rc::new(Upload { resume, ..Upload::new(format!("resumed-{number}"), chance) });
        let digest = upload.digest.to_hex();
        let mut sessions: Vec<Self> = Vec::new();
        for is_last in [false, false, true] {
            // A client that resumes may know the digest by now.
            let is_known = !sessions.is_empty() && chance.one_in(2);
            let end = if is_last { upload.size() } else { chance.below(upload.size()) };
            let line = if is_last && !is_known { format!("crc32c={digest}\n") } else { String::new() };
            let asked = upload.ask(if is_known { &digest } else { "trailer" }, "");
            let ending = if !is_last && chance.one_in(2) { Step::Reset } else { Step::Fin };
            let steps = vec![asked, Step::SendFromOffset(end, line), ending];
            let after = sessions.last().map(|before| before.wire.clone());
            sessions.push(Self { after, ..Self::new(steps, vec![upload.clone()]) });
        }
        sessions
    }

    /// Resumes an upload as a client does after the server has crashed. If the crash left wrong content, that is
    /// refused once.
    fn resume_after_crash(upload: &Rc<Upload>) -> [Self; 2] {
        let steps = || {
            let ask = upload.ask(&upload.digest.to_hex(), " on-exists=same");
            vec![ask, Step::SendFromOffset(upload.size(), String::new()), Step::Fin]
        };
        let first = Self::new(steps(), vec![upload.clone()]);
        let second = Self { after: Some(first.wire.clone()), ..Self::new(steps(), vec![upload.clone()]) };
        [first, second]
    }

    fn is_over(&self) -> bool {
        self.wire.borrow().closed
    }

    fn may_connect(&self) -> bool {
        self.id.is_none() && self.after.as_ref().is_none_or(|before| before.borrow().closed)
    }

    /// Takes one step.
    fn act(&mut self) {
        let mut wire = self.wire.borrow_mut();
        let has_heard_a_line = wire.outbound.contains(&b'\n');
        match self.steps.front() {
            Some(Step::AwaitWords) if wire.outbound.is_empty() => return,
            Some(Step::SendFromOffset(..)) if !has_heard_a_line && !wire.closed => return,
            _ => {}
        }
        match self.steps.pop_front() {
            Some(Step::Send(bytes)) => wire.arrive(&bytes),
            Some(Step::SendFromOffset(end, line)) => {
                if let Some(offset) = offset_in(&wire.outbound) {
                    wire.arrive(self.uploads[0].content.get(offset..end).unwrap_or_default());
                    wire.arrive(line.as_bytes());
                }
            }
            Some(Step::Fin) => wire.fin = true,
            Some(Step::Reset) => wire.reset = true,
            Some(Step::AwaitWords) | None => return,
        }
        wire.edge = true;
    }

    /// The receipts: which upload, and the name that it is stored under.
    fn receipts(&self) -> Vec<(usize, String)> {
        let wire = self.wire.borrow();
        if self.is_classic {
            let is_told = wire.fin && wire.closed && !wire.was_reset_by_server && wire.outbound == b"ok";
            return is_told.then(|| (0, self.uploads[0].name.clone())).into_iter().collect();
        }
        let said = String::from_utf8_lossy(&wire.outbound);
        let whole_lines = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let outcomes = whole_lines.filter(|line| !line.starts_with("ok")).enumerate();
        outcomes
            .filter(|(_, line)| line.starts_with("done "))
            .map(|(index, line)| (index, line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()))
            .collect()
    }
}

/// The offset that a client was told.
fn offset_in(said: &[u8]) -> Option<usize> {
    let said = std::str::from_utf8(said).ok()?;
    said.strip_prefix("ok ")?.split_once('\n')?.0.parse().ok()
}

// ---- a day -----------------------------------------------------------------------------------------------------------

/// What determines a day. The same plan gives the same day.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    syncs: bool,
    fault: Option<Fault>,
    mistake: Option<Mistake>,
}

struct Day {
    sessions: Vec<Session>,
    disk: Rc<ForgetfulDisk>,
    chance: Chance,
    syncs: bool,
    /// Whether the queue is checked: other mistakes break what holds of it, too, and are to be found by what they are about.
    has_queue: bool,
}

impl Day {
    fn new(plan: Plan) -> Self {
        let Plan { seed, syncs, fault, mistake } = plan;
        let of_queue = [Mistake::ReceiptBeforeQueue, Mistake::NoSlipSync, Mistake::QueueAfterName];
        let has_queue = syncs && mistake.is_none_or(|mistake| of_queue.contains(&mistake));
        let chance = Chance::new(seed);
        let disk = ForgetfulDisk::new(State::default(), chance.clone(), fault, mistake);
        let mut sessions: Vec<Session> = [(true, true), (true, false), (false, true), (false, false)]
            .into_iter()
            .map(|(is_classic, is_good)| Session::bare(is_classic, is_good, &chance))
            .collect();
        sessions.extend(Session::repeated(&chance));
        sessions.push(Session::pipelined(0, &chance));
        sessions.push(Session::pipelined(1, &chance).interrupted(&chance));
        sessions.extend((0..1 + chance.below(2)).flat_map(|number| Session::resumed(number, &chance)));
        sessions.extend(Session::recalled(&chance));
        Self { sessions, disk, chance, syncs, has_queue }
    }

    /// The day after a power cut: every upload that can be resumed is.
    fn after(&self, state: State) -> Self {
        let chance = Chance::new(self.disk.steps().len() as u64);
        let disk = ForgetfulDisk::new(state, chance.clone(), None, None);
        let sessions = self.resumable().flat_map(Session::resume_after_crash).collect();
        Self { sessions, disk, chance, syncs: true, has_queue: self.has_queue }
    }

    fn resumable(&self) -> impl Iterator<Item = &Rc<Upload>> {
        let firsts = self.sessions.iter().filter(|session| session.after.is_none());
        firsts.map(|session| &session.uploads[0]).filter(|upload| upload.resume.is_some() && !upload.replaces)
    }

    /// Plays the day to its end, or until the power is cut.
    fn play(mut self) -> Self {
        until_the_power_is_cut(|| {
            let mut store = ForgetfulStore::new(&self.disk, self.syncs);
            let mut config = Config::default();
            config.rules.on_exists = OnExists::Replace;
            let mut connections = Connections::new(store.clone(), &config);
            let now = Moment::default();
            for _ in 0..20_000 {
                if self.sessions.iter().all(Session::is_over) && store.is_idle() {
                    return;
                }
                self.turn(&mut connections, now);
                if self.chance.one_in(2) {
                    store.commit();
                }
            }
            panic!("the day does not end");
        });
        self
    }

    /// Asks the server to stop at some moment of the day, and cuts that shutdown short.
    fn play_until_stopped(mut self) -> Self {
        let mut store = ForgetfulStore::new(&self.disk, self.syncs);
        let mut connections = Connections::new(store.clone(), &Config::default());
        let (now, stops_at) = (Moment::default(), self.chance.below(60));
        for turn in 0..stops_at + self.chance.below(20) {
            if turn == stops_at {
                connections.drain();
            }
            self.turn(&mut connections, now);
            if self.chance.one_in(2) {
                store.commit();
            }
        }
        connections.abort(Clock { asked: now, now });
        self
    }

    fn turn(&mut self, connections: &mut Connections<SimStream, ForgetfulStore>, now: Moment) {
        for session in &mut self.sessions {
            if self.chance.one_in(2) && session.id.is_some() {
                session.act();
            }
            // The borrow must end before the connection looks at the wire.
            let event = session.id.and_then(|id| Some((id, session.wire.borrow_mut().event()?)));
            if let Some((id, readiness)) = event {
                connections.absorb(id, readiness);
            }
        }
        connections.settle(Clock { asked: now, now });
        connections.serve(Clock { asked: now, now });
        for session in self.sessions.iter_mut().filter(|session| session.may_connect()) {
            let (wire, chance) = (session.wire.clone(), self.chance.clone());
            let register = |id| {
                session.id = Some(id);
                Ok(SimStream { wire, chance })
            };
            let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
            connections.admit(peer, now, register).expect("the simulated poll has room for every connection");
        }
    }

    /// Checks the final names that are on the disk afterwards.
    fn check_names(&self, state: &State) -> Result<(), String> {
        (0..self.sessions.len()).try_for_each(|first| check_receipts(&self.sessions[first..], state))?;
        state.uploads().try_for_each(|name| self.check_upload(name, state))?;
        if !self.has_queue {
            return Ok(());
        }
        state.uploads().try_for_each(|name| check_queued(name, state))?;
        state.queue().try_for_each(|(content, _)| self.check_entry(content))
    }

    /// Every entry of the queue is a whole upload.
    fn check_entry(&self, content: &[u8]) -> Result<(), String> {
        let mut uploads = self.sessions.iter().flat_map(|session| &session.uploads);
        let is_right = uploads.any(|upload| upload.is_good && upload.is_as(Some(content)));
        is_right.then_some(()).ok_or_else(|| "an entry of the queue is not a whole upload".to_owned())
    }

    /// Checks the partial files that are on the disk afterwards.
    fn check_held(&self, state: &State) -> Result<(), String> {
        self.sessions.iter().try_for_each(|session| self.check_offset(session, state))
    }

    /// Every final name belongs to one whole upload.
    fn check_upload(&self, name: &str, state: &State) -> Result<(), String> {
        let mut uploads = self.sessions.iter().flat_map(|session| &session.uploads);
        let bytes = state.content(Place::Uploads, name);
        let is_right = uploads.any(|upload| upload.is_good && upload.fits(name) && upload.is_as(bytes));
        is_right.then_some(()).ok_or_else(|| format!("{name} has a final name, and is not a whole upload"))
    }

    /// What a client was told is held, is held, unless the upload was published or given up since.
    fn check_offset(&self, session: &Session, state: &State) -> Result<(), String> {
        let upload = &session.uploads[0];
        let (Some(id), Some(offset)) = (&upload.resume, offset_in(&session.wire.borrow().outbound)) else {
            return Ok(());
        };
        let held = state.held(id, &upload.name, upload.size());
        if self.disk.has_ended(id) || held.starts_with(&upload.content[..offset]) {
            return Ok(());
        }
        Err(format!("{} was told offset {offset}, but only {} bytes are held", upload.name, held.len()))
    }
}

/// Every file that has its final name has its entry: nothing is consumed here.
fn check_queued(name: &str, state: &State) -> Result<(), String> {
    let content = state.content(Place::Uploads, name);
    let is_slip = |slip: &[u8]| {
        let asked = std::str::from_utf8(slip).ok().and_then(|slip| slip.strip_prefix("slip of "));
        asked.is_some_and(|asked| name.starts_with(asked) && !asked.is_empty())
    };
    let is_queued = state.queue().any(|(queued, slip)| Some(queued) == content && is_slip(slip));
    is_queued.then_some(()).ok_or_else(|| format!("{name} has its final name, and is not in the queue"))
}

/// Every file with a receipt of the first of `sessions` is stored, or a later one that replaced it.
fn check_receipts(sessions: &[Session], state: &State) -> Result<(), String> {
    for (index, stored_as) in sessions[0].receipts() {
        let mut uploads = sessions.iter().flat_map(|session| &session.uploads).skip(index);
        let upload = uploads.next().expect("each outcome belongs to a request");
        let stored = state.content(Place::Uploads, &stored_as);
        let is_replaced = upload.replaces && uploads.any(|later| later.name == upload.name && later.is_as(stored));
        if !upload.is_as(stored) && !is_replaced {
            return Err(format!("{} got a receipt, but {stored_as} is not that upload", upload.name));
        }
    }
    Ok(())
}

// ---- what must hold --------------------------------------------------------------------------------------------------

/// Cuts the power before step `cut`, and checks all that may survive.
fn check_cut(plan: Plan, cut: usize) -> Result<(), String> {
    let day = Day::new(plan);
    day.disk.cut_power_at(cut);
    let day = day.play();
    for state in remains(&day.disk) {
        day.check_names(&state)?;
        day.check_held(&state)?;
    }
    // A server that was killed, and one that lost its power.
    [0, 4]
        .into_iter()
        .filter_map(|number| remains(&day.disk).nth(number))
        .try_for_each(|state| check_next_day(&day, state))
}

/// Cuts the power right after a shutdown that was cut short, and checks all that may survive.
fn check_stop(seed: u64, never_resets: bool) -> Result<(), String> {
    let day = Day::new(Plan { seed, ..HONEST });
    day.sessions.iter().for_each(|session| session.wire.borrow_mut().never_resets = never_resets);
    let day = day.play_until_stopped();
    remains(&day.disk).try_for_each(|state| day.check_names(&state))
}

/// Lets the next server resume from `state`, and checks what it stores.
fn check_next_day(day: &Day, state: State) -> Result<(), String> {
    let next = day.after(state).play();
    let state = next.disk.state();
    day.check_names(&state)?;
    for upload in day.resumable() {
        if !upload.is_as(state.content(Place::Uploads, &upload.name)) {
            return Err(format!("{} was not completed", upload.name));
        }
    }
    Ok(())
}

/// Cuts the power at every step, and returns the first violation. Up to the step of its fault, a day is as one without
/// it.
fn violation(plan: Plan) -> Option<String> {
    let steps = Day::new(plan).play().disk.steps();
    let first = plan.fault.map_or(0, |fault| fault.step(&steps).expect("the operation that fails is part of the day"));
    // In the last round no cut comes.
    (first..=steps.len()).find_map(|cut| {
        let error = check_cut(plan, cut).err()?;
        Some(format!("{plan:?}, cut after {cut} of {} steps, the next {:?}: {error}", steps.len(), steps.get(cut)))
    })
}

// ---- the proof -------------------------------------------------------------------------------------------------------

const HONEST: Plan = Plan { seed: 0, syncs: true, fault: None, mistake: None };

fn assert_none(plan: Plan) {
    assert_eq!(violation(plan), None);
}

/// The same day again and again. Each time another operation of this kind fails.
fn days_with_faults(seed: u64, operation: Operation, is_full: bool) -> impl Iterator<Item = Plan> {
    let steps = Day::new(Plan { seed, ..HONEST }).play().disk.steps();
    let count = steps.into_iter().filter(|step| *step == operation).count();
    (0..count).map(move |nth| Plan { seed, fault: Some(Fault { operation, nth, is_full }), ..HONEST })
}

#[test]
fn without_a_fault_every_good_upload_gets_its_receipt() {
    for seed in 0..20 {
        let day = Day::new(Plan { seed, ..HONEST }).play();
        for session in &day.sessions {
            let (wire, name) = (session.wire.borrow(), &session.uploads[0].name);
            let good = session.uploads.iter().filter(|upload| upload.is_good).count();
            let is_interrupted = session.uploads[0].resume.is_some() && session.receipts().is_empty();
            let said = String::from_utf8_lossy(&wire.outbound);
            assert!(session.receipts().len() == good || wire.reset || is_interrupted, "{seed}, {name}: {said}");
        }
        let state = day.disk.state();
        assert!(day.resumable().all(|upload| upload.is_as(state.content(Place::Uploads, &upload.name))));
    }
}

#[test]
fn promises_survive_a_crash_at_any_step() {
    (0..3).for_each(|seed| assert_none(Plan { seed, ..HONEST }));
}

#[test]
fn promises_survive_a_crash_when_syncs_fail() {
    let operations = [Operation::StartWriteBack, Operation::SyncData, Operation::SyncKept];
    let days = operations.into_iter().flat_map(|operation| days_with_faults(0, operation, false));
    days.chain(days_with_faults(2, Operation::SyncDirectory, false)).for_each(assert_none);
}

#[test]
fn promises_survive_a_crash_when_the_disk_is_full() {
    let operations = [Operation::Create, Operation::Append, Operation::Name];
    operations.into_iter().flat_map(|operation| days_with_faults(0, operation, true).step_by(7)).for_each(assert_none);
}

#[test]
fn promises_survive_a_crash_when_write_back_finds_the_disk_full() {
    let operations = [Operation::StartWriteBack, Operation::SyncData, Operation::SyncKept, Operation::SyncDirectory];
    operations.into_iter().flat_map(|operation| days_with_faults(0, operation, true).step_by(3)).for_each(assert_none);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn promises_survive_any_crash_of_any_day(
        seed in any::<u64>(),
        cut in any::<prop::sample::Index>(),
        fault in prop::option::of((0..Operation::FAILING.len(), 0..20_usize, any::<bool>())),
    ) {
        let fault = fault.map(|(operation, nth, is_full)| Fault { operation: Operation::FAILING[operation], nth, is_full });
        let plan = Plan { seed, fault, ..HONEST };
        let steps = Day::new(plan).play().disk.steps().len();
        prop_assert_eq!(check_cut(plan, cut.index(steps + 1)), Ok(()));
    }
}

/// The checks must find this violation on one of these days.
fn assert_found(mut plans: impl Iterator<Item = Plan>, words: &str) {
    let mut others = Vec::new();
    let is_found = plans.any(|plan| match violation(plan) {
        Some(found) if found.contains(words) => true,
        found => {
            others.extend(found);
            false
        }
    });
    assert!(is_found, "only other violations are found: {others:#?}");
}

fn days_with(mistake: Mistake) -> impl Iterator<Item = Plan> {
    (0..8).map(move |seed| Plan { seed, mistake: Some(mistake), ..HONEST })
}

const LOST: &str = "got a receipt, but";
const WRONG: &str = "has a final name, and is not a whole upload";
const NOT_QUEUED: &str = "has its final name, and is not in the queue";
const NOT_HELD: &str = ", but only";

#[test]
fn without_syncs_a_crash_breaks_promises() {
    assert_found((0..8).map(|seed| Plan { seed, syncs: false, ..HONEST }), LOST);
}

#[test]
fn a_receipt_before_the_entry_in_the_queue_is_durable_is_found() {
    for mistake in [Mistake::ReceiptBeforeQueue, Mistake::NoSlipSync, Mistake::QueueAfterName] {
        assert_found(days_with(mistake), NOT_QUEUED);
    }
}

#[test]
fn a_publish_on_reset_is_found() {
    assert_found(days_with(Mistake::PublishOnReset), WRONG);
}

#[test]
fn a_receipt_before_the_sync_is_found() {
    assert_found(days_with(Mistake::ReceiptBeforeSync), LOST);
}

#[test]
fn a_publish_before_the_sync_of_the_data_is_found() {
    assert_found(days_with(Mistake::PublishBeforeDataSync), WRONG);
}

#[test]
fn a_publish_after_the_sync_of_another_file_is_found() {
    assert_found(days_with(Mistake::SyncOfAnother), WRONG);
}

#[test]
fn a_missing_sync_of_the_directory_is_found() {
    assert_found(days_with(Mistake::NoDirectorySync), LOST);
}

#[test]
fn a_receipt_before_the_sync_of_the_directory_is_found() {
    assert_found(days_with(Mistake::ReceiptBeforeDirectorySync), LOST);
}

#[test]
fn files_of_one_name_that_are_named_out_of_order_are_found() {
    assert_found(days_with(Mistake::NamesOutOfOrder), LOST);
}

#[test]
fn a_retry_of_a_failed_sync_is_found() {
    let mistake = Some(Mistake::RetryOfAFailedSync);
    assert_found(days_with_faults(0, Operation::SyncData, false).map(|plan| Plan { mistake, ..plan }), WRONG);
}

#[test]
fn carrying_on_after_a_failed_sync_is_found() {
    let mistake = Some(Mistake::CarryingOnAfterAFailedSync);
    let days = (0..20).flat_map(|seed| days_with_faults(seed, Operation::SyncDirectory, false));
    assert_found(days.map(|plan| Plan { mistake, ..plan }), LOST);
}

#[test]
fn an_offset_that_is_told_before_it_is_durable_is_found() {
    let of_claims = [Mistake::NoKeptSync, Mistake::NoClaimSync, Mistake::ClaimOverwritten];
    for mistake in of_claims.into_iter().chain([Mistake::ToldStateOverwritten]) {
        assert_found(days_with(mistake), NOT_HELD);
    }
}

#[test]
fn a_receipt_for_a_file_that_was_replaced_is_found() {
    assert_found(days_with(Mistake::ReplacedCountsAsStored), LOST);
}

#[test]
fn promises_survive_a_crash_after_a_shutdown_that_is_cut_short() {
    for seed in 0..400 {
        assert_eq!(check_stop(seed, false), Ok(()), "seed {seed}");
    }
}

#[test]
fn an_orderly_end_while_an_outcome_is_owed_is_found() {
    let found = (0..400).find_map(|seed| check_stop(seed, true).err()).expect("the violation is found");
    assert!(found.contains(LOST), "{found}");
}

#[test]
fn a_digest_state_of_content_that_is_not_durable_is_found() {
    assert_found(days_with(Mistake::StateBeforeContent), WRONG);
}

#[test]
fn a_digest_state_that_counts_for_another_file_is_found() {
    let mistake = Some(Mistake::StateOfAnotherFile);
    let days = days_with_faults(0, Operation::SyncData, true);
    assert_found(days.map(|plan| Plan { mistake, ..plan }), WRONG);
}

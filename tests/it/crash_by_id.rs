//! An offset survives a power cut: uploads under ids of the server's making, over a simulated disk that forgets.
//!
//! Several clients create uploads, ask for their offsets, append at them, break off, send content with a wrong checksum, and
//! finish. Each request goes to the store as in the table at [`Store`]. The same day is played again and again, and each
//! time the power is cut before another step of the disk. Afterwards:
//!
//! - each upload whose id was told is published, or found by its id with the promised offset and size;
//! - its content up to the offset is right, and so is the state of its digest;
//! - every file with a receipt is stored, and every final name belongs to a whole upload;
//! - a client that asks for a stored upload hears its receipt after a kill, and never hears one of a file that is not stored;
//! - the next server completes all of them.
//!
//! Each [`Mistake`] is planted once, and the same checks must find it.

use std::rc::Rc;

use intake::proto::{Algorithm, Hasher, Name, NamePolicy, OnExists, Promise, ResumeId};
use intake::store::{Checkpoint, Done, Job, Partial, Reopened, Settled, Store, StoreError, Target, Token};

use crate::forgetful::*;
use crate::wire::Chance;

// ---- the clients -----------------------------------------------------------------------------------------------------

/// A client and its current request.
struct Client {
    upload: Rc<Upload>,
    id: Option<ResumeId>,
    /// The promises that it was given.
    told: Told,
    /// A job of the disk, whose answer is not sent yet.
    pending: Option<Pending>,
    is_over: bool,
}

struct Upload {
    name: Name,
    content: Vec<u8>,
    promise: Option<Promise>,
    /// The size is given at the creation.
    has_size: bool,
}

#[derive(Clone, Debug, Default)]
struct Told {
    /// The last offset. The first one comes with the id.
    offset: Option<u64>,
    /// The server has confirmed the size.
    size: bool,
    stored: Option<String>,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Pending {
    /// `size`: the answer also confirms the size.
    Hold {
        partial: ForgetfulPartial,
        size: bool,
    },
    Publish,
}

impl Upload {
    fn new(number: usize, chance: &Chance) -> Self {
        let content = chance.bytes(1 + chance.below(300));
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&content);
        let promises = [None, Some(Promise::Trailer(Algorithm::Crc32c)), Some(Promise::Known(hasher.finish()))];
        let promise = promises[chance.below(promises.len())];
        let name = Name::parse(format!("upload-{number}").as_bytes(), NamePolicy::default()).expect("it is valid");
        Self { name, content, promise, has_size: chance.one_in(2) }
    }

    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    /// The state of the digest after the first `offset` bytes.
    fn hasher(&self, offset: u64) -> Option<Hasher> {
        let mut hasher = Hasher::new(self.promise?.algorithm());
        hasher.update(&self.content[..offset as usize]);
        Some(hasher)
    }
}

impl Client {
    fn new(upload: Rc<Upload>) -> Self {
        Self { upload, id: None, told: Told::default(), pending: None, is_over: false }
    }

    /// Sends the next request, and does what the server can do at once.
    fn act(&mut self, token: Token, store: &mut ForgetfulStore, chance: &Chance) {
        let outcome = match self.id.clone() {
            None => self.create(token, store),
            Some(id) => match store.reopen(&id) {
                Ok(Some(found)) => self.request(token, found, store, chance),
                Ok(None) => {
                    self.is_over = true;
                    Ok(())
                }
                Err(StoreError::Busy(_)) => Ok(()),
                Err(error) => Err(error),
            },
        };
        self.is_over |= outcome.is_err();
    }

    fn create(&mut self, token: Token, store: &mut ForgetfulStore) -> Result<(), StoreError> {
        let Upload { name, promise, has_size, .. } = &*self.upload;
        let id = store.make_id()?;
        let size = has_size.then_some(self.upload.size());
        let target = Target { size, promise: *promise, resume: Some(&id), ..Target::new(name, OnExists::Rename) };
        let partial = store.begin(&target)?;
        self.id = Some(id);
        self.hold(token, partial, *has_size, store);
        Ok(())
    }

    fn request(
        &mut self,
        token: Token,
        Reopened { mut partial, terms }: Reopened<ForgetfulPartial>,
        store: &mut ForgetfulStore,
        chance: &Chance,
    ) -> Result<(), StoreError> {
        let upload = self.upload.clone();
        let at = partial.held();
        assert!(at >= self.told.offset.unwrap_or(0), "the offset is less than was told");
        let mut tells_size = terms.size.is_some();
        if at == upload.size() {
            if !tells_size {
                partial.set_size(at)?;
            }
            self.pending = Some(Pending::Publish);
            self.submitted(store.submit(token, Job::Publish(partial)));
            return Ok(());
        }
        if !tells_size && chance.one_in(3) {
            partial.set_size(upload.size())?;
            tells_size = true;
        }
        let piece = &upload.content[at as usize..][..1 + chance.below((upload.size() - at) as usize)];
        match chance.below(6) {
            0 => self.hold(token, partial, tells_size, store),
            1 => {
                // The checksum of this piece will be wrong.
                partial.append(&vec![0; piece.len()])?;
                if store.has(Mistake::CheckpointBeforeChecksum) {
                    partial.checkpoint(upload.hasher(at).as_ref());
                }
                partial.keep();
            }
            kind => {
                for piece in piece.chunks(50) {
                    partial.append(piece)?;
                    partial.checkpoint(upload.hasher(partial.held()).as_ref());
                }
                match kind {
                    2 => partial.keep(),
                    _ => self.hold(token, partial, tells_size, store),
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, token: Token, mut partial: ForgetfulPartial, size: bool, store: &mut ForgetfulStore) {
        if store.has(Mistake::OffsetBeforeHold) {
            self.told.offset = Some(partial.held());
        }
        let settled = store.submit(token, Job::Hold(&mut partial));
        self.pending = Some(Pending::Hold { partial, size });
        self.submitted(settled);
    }

    fn submitted(&mut self, settled: Option<Settled>) {
        if let Some(settled) = settled {
            self.settle(settled.done);
        }
    }

    /// Sends the answer after the disk is done.
    fn settle(&mut self, done: Done) {
        match (done, self.pending.take()) {
            (Done::Held(Ok(())), Some(Pending::Hold { partial, size })) => {
                self.told.offset = Some(partial.held());
                self.told.size |= size;
                partial.keep();
            }
            (Done::Stored(Ok(name)), _) => {
                self.told.stored = Some(name.to_string());
                self.is_over = true;
            }
            (Done::Held(_) | Done::Stored(_), _) => self.is_over = true,
        }
    }

    /// Whether the disk has failed for this upload, so that no promise holds any more.
    fn was_given_up(&self, disk: &ForgetfulDisk) -> bool {
        self.id.as_ref().is_some_and(|id| disk.has_ended(id.as_str()))
    }

    /// Checks what a client hears that has missed its receipt. `is_kill`: the power was not cut, only the server is gone.
    fn check_receipt(&self, disk: &ForgetfulDisk, state: &State, is_kill: bool) -> Result<(), String> {
        let Some(id) = self.id.as_ref().filter(|id| self.told.offset.is_some() && !disk.has_ended(id.as_str())) else {
            return Ok(());
        };
        let name = self.upload.name.as_str();
        let is_stored = |name: &str| state.content(Place::Uploads, name) == Some(&self.upload.content);
        match state.receipt(id) {
            Some(receipt) if receipt.size == self.upload.size() && is_stored(&receipt.stored_name) => Ok(()),
            Some(receipt) => Err(format!("{name} has a receipt that is not true: {receipt:?}")),
            None if is_kill && is_stored(name) => Err(format!("{name} is stored, and its client does not hear so")),
            None => Ok(()),
        }
    }

    /// Checks the promises on `state`, which survived of `disk`.
    fn check(&self, disk: &ForgetfulDisk, state: &State) -> Result<(), String> {
        let (upload, name) = (&*self.upload, &self.upload.name);
        if let Some(stored) = &self.told.stored {
            let is_there = state.content(Place::Uploads, stored) == Some(&upload.content);
            return is_there
                .then_some(())
                .ok_or_else(|| format!("{name} got a receipt, but {stored} is not that upload"));
        }
        let (Some(id), Some(told)) = (&self.id, self.told.offset) else { return Ok(()) };
        let is_published = state.content(Place::Uploads, name.as_str()).is_some();
        if is_published || disk.has_ended(id.as_str()) {
            return Ok(());
        }
        let Some((_, terms, found)) = state.reopen(id) else {
            return Err(format!("{name} was told offset {told}, but is gone"));
        };
        let Some(Checkpoint { offset, hasher }) = found.checkpoint else { return Err(format!("{name} has no offset")) };
        let content = state.content(Place::Kept, id.as_str()).unwrap_or_default();
        if offset < told {
            return Err(format!("{name} was told offset {told}, but has offset {offset}"));
        }
        if self.told.size && terms.size != Some(upload.size()) {
            return Err(format!("{name} was told that its size is known, but it is {:?}", terms.size));
        }
        let state_of = |hasher: Option<Hasher>| hasher.map(|hasher| hasher.state());
        let is_right = content.get(..offset as usize) == Some(&upload.content[..offset as usize])
            && state_of(hasher) == state_of(upload.hasher(offset));
        is_right.then_some(()).ok_or_else(|| format!("{name} has wrong content before its offset {offset}"))
    }
}

// ---- a day -----------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    fault: Option<Fault>,
    mistake: Option<Mistake>,
}

struct Day {
    clients: Vec<Client>,
    disk: Rc<ForgetfulDisk>,
    chance: Chance,
}

impl Day {
    fn new(Plan { seed, fault, mistake }: Plan) -> Self {
        let chance = Chance::new(seed);
        let disk = ForgetfulDisk::new(State::default(), chance.clone(), fault, mistake);
        let clients = (0..3).map(|number| Client::new(Rc::new(Upload::new(number, &chance)))).collect();
        Self { clients, disk, chance }
    }

    /// The day after a power cut: every client that was told an id resumes.
    fn after(&self, state: State) -> Self {
        let chance = Chance::new(self.disk.steps().len() as u64);
        let disk = ForgetfulDisk::new(state, chance.clone(), None, None);
        let told = self.clients.iter().filter(|client| client.told.offset.is_some() && client.told.stored.is_none());
        let clients = told.map(|client| {
            let told = if client.was_given_up(&self.disk) { Told::default() } else { client.told.clone() };
            Client { id: client.id.clone(), told, ..Client::new(client.upload.clone()) }
        });
        Self { clients: clients.collect(), disk, chance }
    }

    /// Plays the day to its end, or until the power is cut.
    fn play(mut self) -> Self {
        until_the_power_is_cut(|| {
            let mut store = ForgetfulStore::new(&self.disk, true);
            for _ in 0..20_000 {
                if self.clients.iter().all(|client| client.is_over && client.pending.is_none()) && store.is_idle() {
                    return;
                }
                for (number, client) in self.clients.iter_mut().enumerate() {
                    if !client.is_over && client.pending.is_none() && self.chance.one_in(2) {
                        client.act(Token(number as u128), &mut store, &self.chance);
                    }
                }
                store.commit();
                for settled in store.settled() {
                    self.clients[settled.token.0 as usize].settle(settled.done);
                }
            }
            panic!("the day does not come to an end");
        });
        // After a power cut nothing is cleaned up.
        self.clients.iter_mut().for_each(|client| std::mem::forget(client.pending.take()));
        self
    }

    fn check(&self, state: &State) -> Result<(), String> {
        self.clients.iter().try_for_each(|client| client.check(&self.disk, state))?;
        state.uploads().try_for_each(|name| {
            let bytes = state.content(Place::Uploads, name);
            let is_whole = self
                .clients
                .iter()
                .any(|client| name.starts_with(client.upload.name.as_str()) && bytes == Some(&client.upload.content));
            is_whole.then_some(()).ok_or_else(|| format!("{name} has a final name, and is not a whole upload"))
        })
    }
}

// ---- what must hold --------------------------------------------------------------------------------------------------

/// Cuts the power before step `cut`, and checks all that may survive.
fn check_cut(plan: Plan, cut: usize) -> Result<(), String> {
    let day = Day::new(plan);
    day.disk.cut_power_at(cut);
    let day = day.play();
    for (number, state) in remains(&day.disk).enumerate() {
        day.check(&state)?;
        day.clients.iter().try_for_each(|client| client.check_receipt(&day.disk, &state, number == 0))?;
    }
    // A server that was killed, and one that lost its power.
    [0, 4].into_iter().filter_map(|number| remains(&day.disk).nth(number)).try_for_each(|state| {
        let next = day.after(state).play();
        let state = next.disk.state();
        day.check(&state)?;
        let is_stored = |client: &Client| state.content(Place::Uploads, client.upload.name.as_str()).is_some();
        match next.clients.iter().find(|client| !is_stored(client) && !client.was_given_up(&day.disk)) {
            Some(client) => Err(format!("{} was not completed", client.upload.name)),
            None => Ok(()),
        }
    })
}

/// Cuts the power at every step, and returns the first violation. Up to the step of its fault, a day is as one without it.
fn violation(plan: Plan) -> Option<String> {
    violation_at(plan, 1)
}

/// As [`violation`], but cuts only at every `every`th step.
fn violation_at(plan: Plan, every: usize) -> Option<String> {
    let steps = Day::new(plan).play().disk.steps();
    let first = plan.fault.map_or(0, |fault| fault.step(&steps).expect("the operation that fails is part of the day"));
    (first + plan.seed as usize % every..=steps.len()).step_by(every).find_map(|cut| {
        let error = check_cut(plan, cut).err()?;
        Some(format!("{plan:?}, cut after {cut} of {} steps, the next {:?}: {error}", steps.len(), steps.get(cut)))
    })
}

const HONEST: Plan = Plan { seed: 0, fault: None, mistake: None };

#[test]
fn without_a_fault_every_upload_is_stored() {
    for seed in 0..50 {
        let day = Day::new(Plan { seed, ..HONEST }).play();
        assert!(day.clients.iter().all(|client| client.told.stored.is_some()), "seed {seed}");
        assert_eq!(day.check(&day.disk.state()), Ok(()), "seed {seed}");
    }
}

#[test]
fn an_offset_that_was_told_survives_a_crash_at_any_step() {
    for seed in 0..6 {
        assert_eq!(violation(Plan { seed, ..HONEST }), None);
    }
}

#[test]
fn an_offset_that_was_told_survives_a_crash_of_a_disk_that_fails_or_is_full() {
    for (seed, operation) in
        Operation::FAILING.into_iter().enumerate().map(|(seed, operation)| (seed as u64, operation))
    {
        let steps = Day::new(Plan { seed, ..HONEST }).play().disk.steps();
        let count = steps.iter().filter(|step| **step == operation).count();
        for nth in (0..count).step_by(3) {
            let fault = Some(Fault { operation, nth, is_full: nth % 2 == 0 });
            assert_eq!(violation_at(Plan { seed, fault, ..HONEST }, 7), None);
        }
    }
}

fn assert_found(mistake: Mistake, words: &str) {
    let found = (0..8).find_map(|seed| violation(Plan { seed, mistake: Some(mistake), ..HONEST }));
    let found = found.unwrap_or_else(|| panic!("{mistake:?} is not found"));
    assert!(found.contains(words), "{found}");
}

#[test]
fn an_offset_that_is_told_before_its_sync_is_found() {
    assert_found(Mistake::OffsetBeforeHold, "was told");
}

#[test]
fn an_offset_that_is_synced_only_in_part_is_found() {
    for mistake in [Mistake::NoKeptSync, Mistake::NoClaimSync, Mistake::ToldStateOverwritten] {
        assert_found(mistake, "was told");
    }
}

#[test]
fn a_state_before_its_content_is_found() {
    assert_found(Mistake::StateBeforeContent, "");
}

#[test]
fn content_that_counts_before_its_checksum_was_compared_is_found() {
    assert_found(Mistake::CheckpointBeforeChecksum, "wrong content");
}

#[test]
fn an_end_that_is_noted_after_the_publish_is_found() {
    assert_found(Mistake::EndAfterPublish, "does not hear so");
}

#[test]
fn a_record_that_is_removed_before_the_publish_is_found() {
    assert_found(Mistake::RecordRemovedFirst, "is gone");
}

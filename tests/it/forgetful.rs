//! A simulated disk that forgets, and the store on it: what is not synced may be lost when the power is cut.
//!
//! Data and directory entries have a volatile and a durable layer each. After a power cut the durable layer is there, and any
//! part of the volatile one, page by page and change by change, as if the kernel had written back just that. A rename is one
//! change. Every operation is a step. The power is cut before the step that a test names, and the running code stops there for
//! good. A sync that fails loses its data and leaves the pages clean, as on Linux.
//!
//! The store hands its work to the real [`Commit`], unless a [`Mistake`] is planted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::panic;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use intake::proto::{Algorithm, Hasher, Held, Name, NamePolicy, OnExists, Promise, Receipt, ResumeId};
use intake::store::slip::Slip;
use intake::store::{
    Checkpoint, Commit, Content, Disk, Done, Found, Hold, Job, Lineup, Mark, Owned, Owners, Partial, Patch, Record,
    Reopened, Settled, Store, StoreError, Synced, Target, Terms, Token, Work,
};

use crate::wire::Chance;

/// Small, so that small files and the state of a digest span several pages.
const PAGE_BYTES: usize = 24;
/// How many files may wait for a commit.
const BACKLOG_MAX: usize = 6;

/// The operations of a disk. Each is a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Append,
    StartWriteBack,
    SyncData,
    Name,
    Remove,
    SyncDirectory,
    SyncKept,
    SyncQueue,
}

impl Operation {
    /// Those that can fail.
    pub const FAILING: [Self; 8] = [
        Self::Create,
        Self::Append,
        Self::StartWriteBack,
        Self::SyncData,
        Self::Name,
        Self::SyncDirectory,
        Self::SyncKept,
        Self::SyncQueue,
    ];
}

/// The `nth` operation of its kind fails, counted from 0.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub operation: Operation,
    pub nth: usize,
    /// It fails because the disk is full. Otherwise the disk is broken.
    pub is_full: bool,
}

impl Fault {
    /// The index of this operation in `steps`.
    pub fn step(&self, steps: &[Operation]) -> Option<usize> {
        let same = steps.iter().enumerate().filter(|(_, step)| **step == self.operation);
        same.map(|(index, _)| index).nth(self.nth)
    }

    fn error(&self) -> io::Error {
        if self.is_full { io::ErrorKind::StorageFull.into() } else { io::Error::other("the disk is on fire") }
    }
}

/// A mistake that a server could make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mistake {
    PublishOnReset,
    ReceiptBeforeSync,
    PublishBeforeDataSync,
    /// The file of the previous job is synced instead.
    SyncOfAnother,
    NoDirectorySync,
    /// The directory is synced for the previous batch only.
    ReceiptBeforeDirectorySync,
    /// Files of one name are published in another order than they came.
    NamesOutOfOrder,
    RetryOfAFailedSync,
    /// Commits continue as if the sync had not failed.
    CarryingOnAfterAFailedSync,
    /// An offset is told before the name of the partial file is synced.
    NoKeptSync,
    /// An offset is told before the record, which tells whose partial file it is, is synced.
    NoClaimSync,
    /// The record is rewritten when more is known, instead of appended to.
    ClaimOverwritten,
    /// The digest state is written before the content that it covers is synced.
    StateBeforeContent,
    /// A digest state counts for any file of that name, not only for the one that it was written for.
    StateOfAnotherFile,
    /// The digest state at the offset that a client was told is overwritten by later ones.
    ToldStateOverwritten,
    /// Any file of that name counts as the one that was stored under it.
    ReplacedCountsAsStored,
    /// The record of an upload that is found by its id is removed before the file has its final name.
    RecordRemovedFirst,
    /// The name of an upload that is found by its id is noted after the file has got it.
    EndAfterPublish,
    /// The client is told an offset before it is synced.
    OffsetBeforeHold,
    /// Content counts before its checksum has been compared.
    CheckpointBeforeChecksum,
    /// A file gets its name and its receipt before its entry in the queue is synced.
    ReceiptBeforeQueue,
    /// The entry is synced before what is known of the file.
    NoSlipSync,
    /// The entry is made after the file has its name.
    QueueAfterName,
}

/// The directory of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Uploads,
    Kept,
    Queue,
}

type Key = (Place, String);
type Inode = usize;
/// Names that are set or removed in one atomic step.
type Change = Vec<(Key, Option<Inode>)>;

/// The panic payload that stops the code when the power is cut.
struct PowerCut;

/// Runs `act` until it ends or the power is cut.
pub fn until_the_power_is_cut(act: impl FnOnce()) {
    if let Err(thrown) = panic::catch_unwind(panic::AssertUnwindSafe(act))
        && !thrown.is::<PowerCut>()
    {
        panic::resume_unwind(thrown);
    }
}

// ---- files and names -------------------------------------------------------------------------------------------------

/// A file's bytes, in the page cache and on the disk.
#[derive(Clone, Default)]
struct Data {
    cached: Vec<u8>,
    /// The pages on the disk, up to the last one written.
    pages: Vec<u8>,
    /// The file size on the disk.
    size: usize,
    dirty_pages: BTreeSet<usize>,
    size_is_dirty: bool,
    /// The error of a failed write-back, until a sync has reported it.
    error: Option<io::ErrorKind>,
}

impl Data {
    fn append(&mut self, bytes: &[u8]) {
        let before = self.cached.len();
        self.cached.extend_from_slice(bytes);
        self.dirty_pages.extend(before / PAGE_BYTES..self.cached.len().div_ceil(PAGE_BYTES));
        self.size_is_dirty = true;
    }

    fn set_len(&mut self, size: usize) {
        if self.cached.len() != size {
            self.cached.resize(size, 0);
            self.dirty_pages.retain(|page| page * PAGE_BYTES < size);
            self.size_is_dirty = true;
        }
    }

    /// Overwrites, and extends the file where needed.
    fn write_at(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.size_is_dirty |= end > self.cached.len();
        self.cached.resize(self.cached.len().max(end), 0);
        self.cached[at..end].copy_from_slice(bytes);
        self.dirty_pages.extend(at / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
    }

    /// Writes back those dirty pages that `reaches` picks.
    fn write_back(&mut self, mut reaches: impl FnMut() -> bool) {
        let (cached, pages) = (&self.cached, &mut self.pages);
        self.dirty_pages.retain(|page| {
            let is_written = reaches();
            if is_written {
                let (start, end) = (page * PAGE_BYTES, cached.len().min((page + 1) * PAGE_BYTES));
                pages.resize(pages.len().max(end), 0);
                pages[start..end].copy_from_slice(&cached[start..end]);
            }
            !is_written
        });
        if self.size_is_dirty && reaches() {
            self.size = self.cached.len();
            self.size_is_dirty = false;
        }
    }

    /// A failed write-back: some pages reach the disk, and all are marked clean.
    fn lose(&mut self, reaches: impl FnMut() -> bool) {
        self.write_back(reaches);
        self.dirty_pages.clear();
        self.size_is_dirty = false;
    }

    /// The file after a power cut and a restart.
    fn after_power_cut(mut self, reaches: impl FnMut() -> bool) -> Self {
        self.write_back(reaches);
        self.pages.resize(self.size, 0);
        Self { cached: self.pages.clone(), pages: self.pages, size: self.size, ..Self::default() }
    }
}

/// All files and names of a disk.
#[derive(Clone, Default)]
pub struct State {
    files: Vec<Data>,
    names: BTreeMap<Key, Inode>,
    durable_names: BTreeMap<Key, Inode>,
    /// The changes between the durable names and the current ones, the oldest first.
    changes: Vec<Change>,
    /// The mistake: two files cannot be told apart.
    has_no_identities: bool,
}

fn apply(names: &mut BTreeMap<Key, Inode>, change: &Change) {
    for (key, inode) in change {
        match inode {
            Some(inode) => names.insert(key.clone(), *inode),
            None => names.remove(key),
        };
    }
}

impl State {
    fn create(&mut self) -> Inode {
        self.files.push(Data::default());
        self.files.len() - 1
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    /// Takes the pending changes of names in `place` off the list. Those that `reaches` picks become durable.
    fn settle_names(&mut self, place: Place, mut reaches: impl FnMut() -> bool) {
        let is_there = |change: &Change| change.iter().any(|((at, _), _)| *at == place);
        let (settled, mut rest): (Vec<Change>, Vec<Change>) =
            std::mem::take(&mut self.changes).into_iter().partition(is_there);
        for change in settled.iter().filter(|_| reaches()) {
            apply(&mut self.durable_names, change);
            // An older change to one of these names no longer matters. A younger one would have been in the same batch.
            let is_newer = |key: &Key| change.iter().all(|(settled, _)| settled != key);
            rest.iter_mut().for_each(|older| older.retain(|(key, _)| is_newer(key)));
        }
        self.changes = rest;
    }

    /// The disk after a power cut and a restart, if `change` and `page` pick the volatile changes that reached it.
    pub fn after_power_cut(&self, mut change: impl FnMut() -> bool, mut page: impl FnMut() -> bool) -> Self {
        let mut names = self.durable_names.clone();
        self.changes.iter().filter(|_| change()).for_each(|change| apply(&mut names, change));
        let files = self.files.iter().cloned().map(|file| file.after_power_cut(&mut page)).collect();
        let has_no_identities = self.has_no_identities;
        Self { files, durable_names: names.clone(), names, changes: Vec::new(), has_no_identities }
    }

    /// The content of the file with this name.
    pub fn content(&self, place: Place, name: &str) -> Option<&[u8]> {
        Some(&self.files[*self.names.get(&(place, name.to_owned()))?].cached)
    }

    /// What a record knows of a file.
    fn identify(&self, inode: Inode) -> Content {
        let id = if self.has_no_identities { 0 } else { inode as u32 };
        Content { id, length: self.files[inode].cached.len() as u64 }
    }

    /// The bytes that would be resumed for an upload of this name and size under this resume id.
    pub fn held(&self, id: &str, name: &str, size: usize) -> &[u8] {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).expect("the name was valid before");
        let promise = Some(Promise::Trailer(Algorithm::Crc32c));
        let target = Target { size: Some(size as u64), promise, ..Target::new(&name, OnExists::Rename) };
        let content = self.content(Place::Kept, id).unwrap_or_default();
        let record = self.content(Place::Kept, &record_of(id)).unwrap_or_default();
        let held = self.names.get(&(Place::Kept, id.to_owned())).and_then(|inode| {
            let file = self.identify(*inode);
            Record::find(record, &target, file, None).checkpoint
        });
        &content[..held.map_or(0, |checkpoint| checkpoint.offset as usize)]
    }

    /// The upload under this id, which the server has made.
    pub fn reopen(&self, id: &ResumeId) -> Option<(Inode, Terms, Found)> {
        let inode = *self.names.get(&(Place::Kept, id.as_str().to_owned()))?;
        let record = self.content(Place::Kept, &record_of(id.as_str()))?;
        let (terms, found) = Record::read(record, self.identify(inode), None)?;
        Some((inode, terms, found))
    }

    /// The receipt of the upload that was published under this id, which the server has made.
    pub fn receipt(&self, id: &ResumeId) -> Option<Receipt> {
        let receipt = Record::read_end(self.content(Place::Kept, &record_of(id.as_str()))?);
        receipt.filter(|_| !self.names.contains_key(&(Place::Kept, id.as_str().to_owned())))
    }

    /// The content and the slip of each entry in the queue. An entry counts while both are there.
    pub fn queue(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.names.iter().filter_map(|((place, name), slip)| {
            let number = name.strip_suffix(".json").filter(|_| *place == Place::Queue)?;
            Some((self.content(Place::Queue, number)?, &self.files[*slip].cached[..]))
        })
    }

    /// All final names.
    pub fn uploads(&self) -> impl Iterator<Item = &str> {
        self.names.keys().filter(|(place, _)| *place == Place::Uploads).map(|(_, name)| name.as_str())
    }
}

/// Whether a volatile change reaches the disk.
type Reaches = fn(&Chance) -> bool;

/// What may survive a power cut: all, nothing, all names and no data, all data and no names, and some of both.
pub fn remains(disk: &ForgetfulDisk) -> impl Iterator<Item = State> + use<> {
    let (state, chance) = (disk.state(), Chance::new(disk.steps().len() as u64));
    let half = |chance: &Chance| chance.one_in(2);
    let (all, nothing): (Reaches, Reaches) = (|_| true, |_| false);
    let picks =
        [(all, all), (nothing, nothing), (all, nothing), (nothing, all), (half, half), (half, half), (half, half)];
    picks.into_iter().map(move |(names, data)| state.after_power_cut(|| names(&chance), || data(&chance)))
}

// ---- the disk --------------------------------------------------------------------------------------------------------

pub struct ForgetfulDisk {
    state: RefCell<State>,
    chance: Chance,
    steps: RefCell<Vec<Operation>>,
    /// The step before which the power is cut.
    power_is_cut_at: Cell<Option<usize>>,
    fault: Option<Fault>,
    mistake: Option<Mistake>,
    /// The resume ids that an upload is using now.
    owners: Owners,
    /// The number of the last entry in the queue.
    last_entry: Cell<usize>,
    /// The resume ids whose upload was given up or is being published. Their offsets are no longer promised.
    ended: RefCell<BTreeSet<String>>,
}

impl ForgetfulDisk {
    pub fn new(mut state: State, chance: Chance, fault: Option<Fault>, mistake: Option<Mistake>) -> Rc<Self> {
        let entries = state.names.keys().filter(|(place, _)| *place == Place::Queue);
        let last_entry = entries.filter_map(|(_, name)| name.parse().ok()).max().unwrap_or(0);
        state.has_no_identities |= mistake == Some(Mistake::StateOfAnotherFile);
        Rc::new(Self {
            state: RefCell::new(state),
            chance,
            steps: RefCell::default(),
            power_is_cut_at: Cell::new(None),
            fault,
            mistake,
            owners: Owners::default(),
            last_entry: Cell::new(last_entry),
            ended: RefCell::default(),
        })
    }

    /// Cuts the power before this step, counted from 0.
    pub fn cut_power_at(&self, step: usize) {
        self.power_is_cut_at.set(Some(step));
    }

    /// All steps so far.
    pub fn steps(&self) -> Vec<Operation> {
        self.steps.borrow().clone()
    }

    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Whether the partial file of this resume id need no longer exist.
    pub fn has_ended(&self, id: &str) -> bool {
        self.ended.borrow().contains(id)
    }

    /// Counts a step. Stops the code if the power is cut here.
    fn step(&self, operation: Operation) -> io::Result<()> {
        let mut steps = self.steps.borrow_mut();
        if self.power_is_cut_at.get() == Some(steps.len()) {
            panic::resume_unwind(Box::new(PowerCut));
        }
        let this = steps.len();
        steps.push(operation);
        match self.fault.filter(|fault| fault.step(&steps) == Some(this)) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    fn is_kept(&self, inode: Inode, is_such: impl Fn(&str) -> bool) -> bool {
        let state = self.state.borrow();
        state.names.iter().any(|((place, name), of)| *place == Place::Kept && *of == inode && is_such(name))
    }

    fn coin(&self) -> bool {
        self.chance.one_in(2)
    }

    fn append(&self, inode: Inode, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Short writes.
            let (piece, more) = rest.split_at(rest.len().min(1 + self.chance.below(200)));
            self.step(Operation::Append)?;
            self.state.borrow_mut().files[inode].append(piece);
            rest = more;
            if self.chance.one_in(4) {
                self.start_write_back(inode);
            }
        }
        Ok(())
    }

    /// Sets or removes one name, which is one step.
    fn set_name(&self, place: Place, name: &str, inode: Option<Inode>) -> io::Result<()> {
        self.step(if inode.is_some() { Operation::Create } else { Operation::Remove })?;
        self.state.borrow_mut().change(vec![((place, name.to_owned()), inode)]);
        Ok(())
    }

    fn find(&self, place: Place, name: &str) -> Option<Inode> {
        self.state.borrow().names.get(&(place, name.to_owned())).copied()
    }

    /// Each file is another one.
    fn mark(&self, inode: Inode) -> Mark {
        let is_another = self.mistake != Some(Mistake::ReplacedCountsAsStored);
        Mark::of_inode(if is_another { inode as u64 } else { 0 })
    }

    fn find_or_create(&self, place: Place, name: &str) -> io::Result<Inode> {
        if let Some(inode) = self.find(place, name) {
            return Ok(inode);
        }
        let inode = self.state.borrow_mut().create();
        self.set_name(place, name, Some(inode))?;
        Ok(inode)
    }

    /// The partial file that is kept for `target`, or a new one, and its record.
    fn claim(&self, id: &str, target: &Target) -> Result<(Inode, Found), StoreError> {
        if self.owners.has(id) {
            return Err(StoreError::BUSY);
        }
        let record = self.state.borrow().content(Place::Kept, &record_of(id)).unwrap_or_default().to_owned();
        let find = |inode: Inode| Record::find(&record, target, self.state.borrow().identify(inode), None);
        let before = self.find(Place::Kept, id);
        let found = before.map(|inode| (inode, find(inode))).filter(|(_, found)| !found.record.is_new());
        let (inode, found) = match found {
            Some(found) => found,
            None => {
                if before.is_some() {
                    self.set_name(Place::Kept, id, None)?;
                }
                let inode = self.find_or_create(Place::Kept, id)?;
                (inode, find(inode))
            }
        };
        self.cut_off(inode, found.checkpoint.as_ref());
        if let Some(patch) = &found.patch {
            self.write_record(id, patch)?;
        }
        Ok((inode, found))
    }

    /// Cuts off what does not count. A crash may have left an entry of the file in the queue.
    fn cut_off(&self, inode: Inode, checkpoint: Option<&Checkpoint>) {
        let is_of_file = |(place, _): &Key, of: Inode| *place == Place::Queue && of == inode;
        let state = self.state();
        let entries = state.names.iter().filter(|(key, of)| is_of_file(key, **of));
        for ((_, number), _) in entries {
            // A crash in between leaves a slip alone.
            for name in [number, &format!("{number}.json")] {
                let _ = self.set_name(Place::Queue, name, None);
            }
        }
        let size = checkpoint.map_or(0, |checkpoint| checkpoint.offset as usize);
        self.state.borrow_mut().files[inode].set_len(size);
    }

    fn write_record(&self, id: &str, patch: &Patch) -> io::Result<()> {
        let inode = self.find_or_create(Place::Kept, &record_of(id))?;
        self.patch(inode, patch)
    }

    fn patch(&self, inode: Inode, patch: &Patch) -> io::Result<()> {
        let mut bytes = self.state.borrow().files[inode].cached.clone();
        let (mut at, mut piece) = (patch.at as usize, &patch.bytes[..]);
        let is_state = piece.len() == Record::STATE_BYTES;
        match self.mistake {
            Some(Mistake::ToldStateOverwritten) if is_state => at = Record::CLAIMS_BYTES,
            Some(Mistake::ClaimOverwritten) if at > 0 && !is_state => {
                bytes[at..at + piece.len()].copy_from_slice(piece);
                self.state.borrow_mut().files[inode].set_len(0);
                (at, piece) = (0, &bytes);
            }
            _ => {}
        }
        self.step(Operation::Append)?;
        self.state.borrow_mut().files[inode].write_at(at, piece);
        Ok(())
    }

    fn start_write_back(&self, inode: Inode) {
        let outcome = self.step(Operation::StartWriteBack);
        let file = &mut self.state.borrow_mut().files[inode];
        match outcome {
            Ok(()) => file.write_back(|| self.coin()),
            Err(error) => {
                file.lose(|| self.coin());
                file.error = Some(error.kind());
            }
        }
    }

    fn sync(&self, inode: Inode) -> io::Result<()> {
        let outcome = self.step(Operation::SyncData);
        let file = &mut self.state.borrow_mut().files[inode];
        let outcome = outcome.and(file.error.take().map_or(Ok(()), |kind| Err(kind.into())));
        match &outcome {
            Ok(()) => file.write_back(|| true),
            Err(_) => file.lose(|| self.coin()),
        }
        outcome
    }

    fn sync_names(&self, operation: Operation, place: Place) -> io::Result<()> {
        let outcome = self.step(operation);
        self.state.borrow_mut().settle_names(place, || outcome.is_ok() || self.coin());
        outcome
    }
}

fn record_of(id: &str) -> String {
    format!("{id}.claim")
}

/// The disk as the commit sees it, with the planted mistake.
struct Mistaken {
    disk: Rc<ForgetfulDisk>,
    /// Files whose sync is postponed.
    put_off: RefCell<Vec<Inode>>,
    /// The sync of the directory is postponed.
    directory_is_due: Cell<bool>,
}

impl Mistaken {
    fn commit(disk: &Rc<ForgetfulDisk>) -> Rc<Commit<Self>> {
        Rc::new(Commit::new(Self {
            disk: disk.clone(),
            put_off: RefCell::default(),
            directory_is_due: Cell::default(),
        }))
    }
}

impl Disk for Mistaken {
    type Partial = ForgetfulPartial;
    type File = ForgetfulFile;

    fn file(partial: &ForgetfulPartial) -> &ForgetfulFile {
        &partial.file
    }

    /// A power cut may keep any part of what is not synced, so this changes nothing.
    fn start_write_back(&self, _: &ForgetfulFile) {}

    fn sync_data(&self, file: &ForgetfulFile) -> io::Result<()> {
        match self.disk.mistake {
            Some(Mistake::NoClaimSync) if self.disk.is_kept(file.inode, |name| name.ends_with(".claim")) => {}
            Some(Mistake::StateBeforeContent) if self.disk.is_kept(file.inode, |name| !name.ends_with(".claim")) => {}
            Some(Mistake::PublishBeforeDataSync) => self.put_off.borrow_mut().push(file.inode),
            Some(Mistake::SyncOfAnother) => {
                let before = self.put_off.replace(vec![file.inode]);
                return before.into_iter().try_for_each(|inode| self.disk.sync(inode));
            }
            Some(Mistake::RetryOfAFailedSync) => {
                return self.disk.sync(file.inode).or_else(|_| self.disk.sync(file.inode));
            }
            _ => return self.disk.sync(file.inode),
        }
        Ok(())
    }

    fn write_record(&self, record: &ForgetfulFile, patch: &Patch) -> io::Result<()> {
        self.disk.patch(record.inode, patch)
    }

    fn write_slip(&self, partial: &mut ForgetfulPartial) -> Result<(), StoreError> {
        Ok(partial.write_slip()?)
    }

    fn sync_slip(&self, partial: &ForgetfulPartial) -> io::Result<()> {
        match &partial.queued {
            Some(queued) if self.disk.mistake != Some(Mistake::NoSlipSync) => self.disk.sync(queued.slip),
            _ => Ok(()),
        }
    }

    fn enqueue(&self, partial: &mut ForgetfulPartial) -> Result<bool, StoreError> {
        match self.disk.mistake {
            Some(Mistake::QueueAfterName) => Ok(false),
            _ => Ok(partial.enqueue()?),
        }
    }

    fn sync_queue(&self) -> io::Result<()> {
        match self.disk.mistake {
            Some(Mistake::ReceiptBeforeQueue) => Ok(()),
            _ => self.disk.sync_names(Operation::SyncQueue, Place::Queue),
        }
    }

    fn discard(&self, file: &ForgetfulFile) {
        let mut state = self.disk.state.borrow_mut();
        state.files[file.inode].set_len(0);
        let names = state.names.iter().filter(|((place, _), inode)| *place == Place::Kept && **inode == file.inode);
        self.disk.ended.borrow_mut().extend(names.map(|((_, id), _)| id.clone()));
    }

    fn sync_directory(&self) -> io::Result<()> {
        if self.disk.mistake == Some(Mistake::NoDirectorySync) {
            return Ok(());
        }
        match self.disk.mistake {
            Some(Mistake::ReceiptBeforeDirectorySync) if !self.directory_is_due.replace(true) => return Ok(()),
            Some(Mistake::PublishBeforeDataSync) => {
                self.put_off.take().into_iter().try_for_each(|inode| self.disk.sync(inode))?;
            }
            _ => {}
        }
        self.disk.sync_names(Operation::SyncDirectory, Place::Uploads)
    }

    fn sync_kept(&self) -> io::Result<()> {
        if self.disk.mistake == Some(Mistake::NoKeptSync) {
            return Ok(());
        }
        self.disk.sync_names(Operation::SyncKept, Place::Kept)
    }
}

/// An open file.
pub struct ForgetfulFile {
    disk: Rc<ForgetfulDisk>,
    inode: Inode,
    /// The name under which it was found.
    name: Option<Name>,
    /// The position of the next read.
    at: usize,
}

impl ForgetfulFile {
    fn open(disk: &Rc<ForgetfulDisk>, inode: Inode) -> Self {
        Self { disk: disk.clone(), inode, name: None, at: 0 }
    }
}

impl Read for ForgetfulFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&self.disk.state.borrow().files[self.inode].cached[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

pub struct ForgetfulPartial {
    file: ForgetfulFile,
    name: Name,
    on_exists: OnExists,
    /// The id under which it can be resumed, and its record.
    resume: Option<(ResumeId, Record)>,
    promise: Option<Promise>,
    owned: Option<Arc<Owned>>,
    /// The queue of jobs for the commit; `None` without syncs.
    jobs: Option<Jobs>,
    /// How much of it counts.
    checkpoint: Option<Checkpoint>,
    /// Its entry in the queue.
    queued: Option<Box<QueuedFile>>,
    /// It was published or kept, so a drop leaves it alone.
    released: bool,
}

/// The entry of an upload.
struct QueuedFile {
    number: String,
    /// The file of its slip, which is made when it is written.
    slip: Inode,
    text: String,
    is_placed: bool,
}

impl ForgetfulPartial {
    fn write_slip(&mut self) -> io::Result<()> {
        let disk = self.file.disk.clone();
        let Some(queued) = &mut self.queued else { return Ok(()) };
        disk.step(Operation::Create)?;
        queued.slip = disk.state.borrow_mut().create();
        disk.append(queued.slip, queued.text.as_bytes())
    }

    fn enqueue(&mut self) -> io::Result<bool> {
        let disk = self.file.disk.clone();
        let inode = self.file.inode;
        if self.owned.as_ref().is_some_and(|owned| owned.has_lost()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let Some(queued) = &mut self.queued else { return Ok(false) };
        disk.set_name(Place::Queue, &queued.number, Some(inode))?;
        queued.is_placed = true;
        disk.set_name(Place::Queue, &format!("{}.json", queued.number), Some(queued.slip))?;
        Ok(true)
    }

    /// The job that makes all its content so far durable.
    fn hold(&mut self) -> Option<Hold<ForgetfulFile>> {
        let (Some((id, record)), Some(upload), Some(checkpoint)) = (&mut self.resume, &self.owned, &self.checkpoint)
        else {
            return None;
        };
        let disk = &self.file.disk;
        let of_record = disk.find(Place::Kept, &record_of(id.as_str()))?;
        Some(Hold {
            content: ForgetfulFile::open(disk, self.file.inode),
            record: ForgetfulFile::open(disk, of_record),
            state: record.add(checkpoint, None),
            name: self.name.clone(),
            upload: upload.clone(),
        })
    }

    /// Queues the job that makes all its content so far durable.
    fn write_state(&mut self) {
        if let (Some(jobs), Some(hold)) = (self.jobs.clone(), self.hold()) {
            jobs.borrow_mut().submit(None, Work::Hold(hold));
        }
    }

    /// Notes that the file gets this name.
    fn note_end(&self, name: &Name) -> Result<(), StoreError> {
        let Some((id, _)) = self.resume.as_ref().filter(|(id, _)| id.is_made()) else { return Ok(()) };
        let digest = self.promise.as_ref().and_then(Promise::known);
        let receipt = Receipt { size: self.held(), digest, stored_name: name.to_string() };
        Ok(self.file.disk.write_record(id.as_str(), &Record::end(&receipt))?)
    }

    fn check_lost(&self) -> Result<(), StoreError> {
        match &self.owned {
            Some(owned) if owned.has_lost() => Err(StoreError::Full(io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }

    /// The name that it is published under.
    fn choose(&self) -> Result<Name, StoreError> {
        let name = self.name.clone();
        let is_taken = |name: &Name| self.file.disk.find(Place::Uploads, name.as_str()).is_some();
        let numbered = |number| Name::parse(format!("{name}.{number}").as_bytes(), NamePolicy::default());
        match self.on_exists {
            OnExists::Replace => Ok(name),
            _ if !is_taken(&name) => Ok(name),
            OnExists::Rename => {
                let free = (1..100).filter_map(|number| numbered(number).ok()).find(|name| !is_taken(name));
                free.ok_or(StoreError::Taken("the name is taken"))
            }
            OnExists::Same => Err(StoreError::Busy("another upload has just taken the name")),
            OnExists::Refuse => Err(StoreError::Taken("the name is taken")),
        }
    }
}

impl Partial for ForgetfulPartial {
    fn name(&self) -> &Name {
        &self.name
    }

    fn held(&self) -> u64 {
        self.file.disk.state.borrow().files[self.file.inode].cached.len() as u64
    }

    fn state(&self) -> Option<Held> {
        let Checkpoint { offset, hasher } =
            self.checkpoint.clone().filter(|checkpoint| checkpoint.offset == self.held() && checkpoint.offset > 0)?;
        Some(Held { offset, hasher: hasher? })
    }

    fn checkpoint(&mut self, hasher: Option<&Hasher>) {
        self.checkpoint = Some(Checkpoint { offset: self.held(), hasher: hasher.cloned() });
        if self.file.disk.chance.one_in(3) && self.owned.as_ref().is_some_and(Owned::is_idle) {
            self.write_state();
        }
    }

    fn keep(mut self) {
        if self.resume.is_some() {
            if self.checkpoint.is_some() && self.check_lost().is_ok() {
                self.write_state();
                self.released = true;
            }
        } else if self.file.disk.mistake == Some(Mistake::PublishOnReset) {
            drop(self.publish());
        }
    }

    fn reserve(&mut self, _: Option<u64>) -> Result<(), StoreError> {
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> Result<(), StoreError> {
        let Some((id, record)) = &mut self.resume else { return Ok(()) };
        let patch = record.add_size(size, self.promise, &self.name);
        Ok(self.file.disk.write_record(id.as_str(), &patch)?)
    }

    fn changed_at(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_lost()?;
        Ok(self.file.disk.append(self.file.inode, bytes)?)
    }

    fn set_mtime(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn queue_as(&mut self, _: Slip) {
        let number = self.file.disk.last_entry.get() + 1;
        self.file.disk.last_entry.set(number);
        let (text, number) = (format!("slip of {}", self.name), number.to_string());
        self.queued = Some(Box::new(QueuedFile { number, slip: 0, text, is_placed: false }));
    }

    fn mark(&mut self) -> Option<Mark> {
        Some(self.file.disk.mark(self.file.inode))
    }

    fn publish(mut self) -> Result<Name, StoreError> {
        self.check_lost()?;
        let (disk, mut change) = (self.file.disk.clone(), Change::new());
        if let Some((id, _)) = &self.resume {
            if !id.is_made() || disk.mistake == Some(Mistake::RecordRemovedFirst) {
                disk.set_name(Place::Kept, &record_of(id.as_str()), None)?;
            }
            if !id.is_made() {
                disk.ended.borrow_mut().insert(id.as_str().to_owned());
            }
            change.push(((Place::Kept, id.as_str().to_owned()), None));
        }
        let name = self.choose()?;
        if disk.mistake != Some(Mistake::EndAfterPublish) {
            self.note_end(&name)?;
        }
        change.push(((Place::Uploads, name.to_string()), Some(self.file.inode)));
        disk.step(Operation::Name)?;
        disk.state.borrow_mut().change(change);
        self.released = true;
        if disk.mistake == Some(Mistake::QueueAfterName) {
            self.enqueue()?;
            disk.sync_names(Operation::SyncQueue, Place::Queue)?;
        }
        if disk.mistake == Some(Mistake::EndAfterPublish) {
            self.note_end(&name)?;
        }
        Ok(name)
    }
}

impl Drop for ForgetfulPartial {
    fn drop(&mut self) {
        if thread::panicking() {
            // After a power cut nothing is cleaned up.
            return;
        }
        if let Some(queued) = self.queued.as_ref().filter(|queued| queued.is_placed && !self.released) {
            for name in [&queued.number, &format!("{}.json", queued.number)] {
                let _ = self.file.disk.set_name(Place::Queue, name, None);
            }
        }
        let Some((id, _)) = &self.resume else { return };
        let disk = &self.file.disk;
        if !self.released {
            disk.ended.borrow_mut().insert(id.as_str().to_owned());
            for name in [&record_of(id.as_str()), id.as_str()] {
                // A file that cannot be removed is left.
                let _ = disk.set_name(Place::Kept, name, None);
            }
        }
    }
}

/// The jobs that wait for the commit.
type Jobs = Rc<RefCell<Lineup<Mistaken>>>;

// ---- the store -------------------------------------------------------------------------------------------------------

#[derive(Clone)]
pub struct ForgetfulStore {
    disk: Rc<ForgetfulDisk>,
    /// `None` if nothing is synced.
    commit: Option<Rc<Commit<Mistaken>>>,
    jobs: Jobs,
    /// Files that a thread has synced and not yet reported.
    unreported: Rc<RefCell<Vec<Synced<Mistaken>>>>,
    settled: Rc<RefCell<Vec<Settled>>>,
    /// How many jobs have no outcome yet.
    pending: Rc<Cell<usize>>,
}

impl ForgetfulStore {
    pub fn new(disk: &Rc<ForgetfulDisk>, syncs: bool) -> Self {
        Self {
            disk: disk.clone(),
            commit: syncs.then(|| Mistaken::commit(disk)),
            jobs: Rc::default(),
            unreported: Rc::default(),
            settled: Rc::default(),
            pending: Rc::default(),
        }
    }

    /// Does some of the work of the committer's threads, in any order in which they may do it.
    pub fn commit(&mut self) {
        let Some(commit) = self.commit.clone() else { return };
        self.sync_some(&commit);
        if self.jobs.borrow().has_ready() && self.disk.chance.one_in(2) {
            let settled = commit.finish(|| {
                // The syncing threads work meanwhile.
                self.sync_some(&commit);
                let mut ready = self.jobs.borrow_mut().take_ready();
                if self.disk.mistake == Some(Mistake::NamesOutOfOrder) {
                    ready.reverse();
                }
                ready
            });
            self.settled.borrow_mut().extend(settled);
        }
        if commit.has_failed() && self.disk.mistake == Some(Mistake::CarryingOnAfterAFailedSync) {
            self.commit = Some(Mistaken::commit(&self.disk));
        }
    }

    /// Syncs some jobs, and reports some of the synced ones in any order.
    fn sync_some(&self, commit: &Commit<Mistaken>) {
        let chance = &self.disk.chance;
        while chance.one_in(2) {
            let Some(taken) = self.jobs.borrow_mut().take() else { break };
            let synced = commit.sync(taken);
            self.unreported.borrow_mut().push(synced);
        }
        while chance.one_in(2) && !self.unreported.borrow().is_empty() {
            let any = chance.below(self.unreported.borrow().len());
            let synced = self.unreported.borrow_mut().swap_remove(any);
            self.jobs.borrow_mut().put_back(synced);
        }
    }

    fn check_failed(&self) -> Result<(), StoreError> {
        let has_failed = self.commit.as_ref().is_some_and(|commit| commit.has_failed());
        let carries_on = self.disk.mistake == Some(Mistake::CarryingOnAfterAFailedSync);
        if has_failed && !carries_on { Err(StoreError::Failed) } else { Ok(()) }
    }

    fn partial(
        &self,
        inode: Inode,
        target: &Target,
        resume: Option<(ResumeId, Record)>,
        checkpoint: Option<Checkpoint>,
    ) -> ForgetfulPartial {
        ForgetfulPartial {
            file: ForgetfulFile::open(&self.disk, inode),
            name: target.name.clone(),
            on_exists: target.on_exists,
            owned: resume.as_ref().map(|(id, _)| self.disk.owners.own(id.as_str())),
            resume,
            promise: target.promise,
            jobs: self.commit.is_some().then(|| self.jobs.clone()),
            checkpoint,
            queued: None,
            released: false,
        }
    }

    /// Whether this mistake is planted.
    pub fn has(&self, mistake: Mistake) -> bool {
        self.disk.mistake == Some(mistake)
    }

    /// Whether no job and no outcome is waiting.
    pub fn is_idle(&self) -> bool {
        self.jobs.borrow().is_empty() && self.settled.borrow().is_empty()
    }
}

impl Store for ForgetfulStore {
    type Partial = ForgetfulPartial;
    type Content = ForgetfulFile;

    fn begin(&self, target: &Target) -> Result<ForgetfulPartial, StoreError> {
        self.check_failed()?;
        let Some(id) = target.resume else {
            self.disk.step(Operation::Create)?;
            let inode = self.disk.state.borrow_mut().create();
            return Ok(self.partial(inode, target, None, None));
        };
        let (inode, Found { record, checkpoint, .. }) = self.disk.claim(id.as_str(), target)?;
        Ok(self.partial(inode, target, Some((id.clone(), record)), checkpoint))
    }

    fn make_id(&self) -> Result<ResumeId, StoreError> {
        Ok(ResumeId::made(self.disk.chance.below(usize::MAX) as u128))
    }

    fn reopen(&self, id: &ResumeId) -> Result<Option<Reopened<ForgetfulPartial>>, StoreError> {
        self.check_failed()?;
        if self.disk.owners.has(id.as_str()) {
            return Err(StoreError::BUSY);
        }
        let Some((inode, terms, Found { record, checkpoint, .. })) = self.disk.state().reopen(id) else {
            return Ok(None);
        };
        self.disk.cut_off(inode, checkpoint.as_ref());
        let target = Target { promise: terms.promise, ..Target::new(&terms.name, terms.on_exists) };
        let partial = self.partial(inode, &target, Some((id.clone(), record)), checkpoint);
        Ok(Some(Reopened { partial, terms }))
    }

    fn receipt(&self, id: &ResumeId) -> Option<Receipt> {
        self.disk.state().receipt(id)
    }

    fn find(&self, name: &Name, size: u64) -> Result<Option<ForgetfulFile>, StoreError> {
        let Some(inode) = self.disk.find(Place::Uploads, name.as_str()) else { return Ok(None) };
        let is_as_large = self.disk.state.borrow().files[inode].cached.len() as u64 == size;
        let found = || ForgetfulFile { name: Some(name.clone()), ..ForgetfulFile::open(&self.disk, inode) };
        if is_as_large { Ok(Some(found())) } else { Err(StoreError::NOT_THE_SAME) }
    }

    fn mark(&self, name: &Name) -> Option<Mark> {
        self.disk.find(Place::Uploads, name.as_str()).map(|inode| self.disk.mark(inode))
    }

    fn submit(&mut self, token: Token, job: Job<'_, Self>) -> Option<Settled> {
        if self.commit.is_none() {
            let done = match job {
                Job::Publish(mut partial) => Done::Stored(
                    partial
                        .write_slip()
                        .and_then(|()| partial.enqueue())
                        .map_err(Into::into)
                        .and_then(|_| partial.publish()),
                ),
                Job::Confirm(file) => Done::Stored(Ok(file.name.expect("a file to confirm was found by its name"))),
                Job::Hold(_) => Done::Held(Ok(())),
            };
            return Some(Settled { token, done });
        }
        let work = match job {
            Job::Publish(partial) => Work::Publish(partial),
            Job::Confirm(mut file) => {
                let name = file.name.take().expect("a file to confirm was found by its name");
                Work::Confirm(file, name)
            }
            Job::Hold(partial) => Work::Hold(partial.hold().expect("only an upload with a resume id is held")),
        };
        let told = match &work {
            Work::<Mistaken>::Publish(partial) if self.disk.mistake == Some(Mistake::ReceiptBeforeSync) => {
                Some(Settled { token, done: Done::Stored(Ok(partial.name.clone())) })
            }
            _ => None,
        };
        self.jobs.borrow_mut().submit(Some(token), work);
        self.pending.update(|pending| pending + 1);
        told
    }

    fn has_queue(&self) -> bool {
        true
    }

    fn is_busy_with(&self, id: &ResumeId) -> bool {
        self.disk.owners.has(id.as_str())
    }

    fn settled(&mut self) -> Vec<Settled> {
        let settled = self.settled.take();
        self.pending.update(|pending| pending - settled.len());
        settled
    }

    fn is_congested(&self) -> bool {
        self.pending.get() >= BACKLOG_MAX
    }
}

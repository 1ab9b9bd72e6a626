//! One upload's file before it has its final name, with or without a name of its own until then.
//!
//! Without one (`O_TMPFILE`) it is the best of partial files: nobody can find it, and it is gone with its descriptor.
//! Not every file system has them, and a kept one needs a name to be found by; then it stands among the server's own
//! files. Which of the two it is stays in here. A final name comes from publishing alone, and never at the cost of what
//! has it.
//!
//! A long upload is written back as it comes (posix_fadvise(2)), so that little is left for the sync at its end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Advice, AtFlags, OFlags, RenameFlags};
use rustix::fs::{fadvise, fstat, linkat, openat, renameat, renameat_with, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::{Arg, DecInt};
use rustix::pipe::{SpliceFlags, splice};

use super::blocks::Blocks;
use super::committer::Queue;
use super::handles::{Handles, Intake};
use super::lockdir::is_gone;
use super::method::{FILE_MODE, Link, Method, create_unnamed, link_unnamed, make};
use super::{Checkpoint, Hold, Mark, Owned, Partial, Record, StoreError, Target, Work, cannot, naming, permissions};
use crate::proto::{Hasher, Held, Name, OnExists, Promise};

/// A file under way in a [`super::Directory`].
#[derive(Debug)]
pub struct PartialFile {
    /// Before the file, whose close gives up the lock on it: nobody may find it then that is removed.
    origin: Origin,
    file: File,
    size: u64,
    /// The final name that was asked for.
    name: Name,
    on_exists: OnExists,
    /// It will be synced: the disk may begin early.
    will_sync: bool,
    /// None yet for a short upload of unknown size.
    blocks: Option<Box<Blocks>>,
    /// Of a kept one. After the file, whose close gives up the lock on it.
    owned: Option<Arc<Owned>>,
}

/// How much of a long upload is written back at a time, in bytes, so that the sync at its end is short.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// How much of a kept upload is appended, in bytes, before the state of its digest is written. So much is sent again when
/// the server is killed, and what the disk did not have by then.
const STATE_EVERY_BYTES: u64 = 16 << 20;

/// What a final name is made from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Nothing: the file goes with its descriptor.
    Unnamed(Arc<Handles>, Link),
    /// A name among the server's own. Boxed, as most have none.
    Named(Box<Entry>),
}

impl Origin {
    /// With a name of its own if `is_named`, or if `method` knows no other way.
    pub(super) fn create(handles: &Arc<Handles>, method: Method, is_named: bool) -> Result<(File, Self), StoreError> {
        match method {
            Method::Unnamed(link) if !is_named => {
                Ok((create_unnamed(handles.directory.as_fd())?, Self::Unnamed(handles.clone(), link)))
            }
            _ => Entry::create(handles, method).map(|(file, entry)| (file, Self::Named(entry.into()))),
        }
    }

    fn handles(&self) -> &Handles {
        match self {
            Self::Unnamed(handles, _) => handles,
            Self::Named(entry) => &entry.handles,
        }
    }

    /// It stays where it is.
    fn release(&mut self) {
        if let Self::Named(entry) = self {
            entry.released = true;
        }
    }

    /// Of a file that is kept in `intake` and was claimed there.
    pub(super) fn kept(handles: &Arc<Handles>, intake: Arc<Intake>, kept: KeptAs) -> Self {
        Self::Named(Entry::new(handles, intake, Place::Kept(kept)).into())
    }
}

impl PartialFile {
    pub(super) fn new(
        file: File,
        origin: Origin,
        size: u64,
        target: &Target,
        will_sync: bool,
        blocks: Option<Blocks>,
        owned: Option<Arc<Owned>>,
    ) -> Self {
        let (name, on_exists) = (target.name.clone(), target.on_exists);
        Self { origin, file, size, name, on_exists, will_sync, blocks: blocks.map(Box::new), owned }
    }

    fn appended(&mut self, count: usize) {
        let before = self.size;
        self.size += count as u64;
        if let Some(blocks) = &mut self.blocks {
            blocks.written(count);
        }
        if self.will_sync && before / WRITE_BACK_BYTES != self.size / WRITE_BACK_BYTES {
            start_write_back(&self.file);
        }
    }

    /// Sees to it that there is room for `count` bytes more.
    fn cover(&mut self, count: usize) -> Result<(), StoreError> {
        let handles = self.origin.handles();
        if self.blocks.is_none() && Blocks::are_needless(self.size + count as u64) {
            return handles.space.take(&self.file, count as u64);
        }
        let ahead = || Box::new(Blocks::ahead(handles.allocates, handles.space.reserve_nothing()));
        self.blocks.get_or_insert_with(ahead).cover(&handles.space, &self.file, self.size, count)
    }

    /// No more content comes: gives back the blocks that it did not need.
    pub(super) fn give_back(&mut self) {
        if let Some(blocks) = &mut self.blocks {
            blocks.give_back(&self.file, self.size);
        }
    }

    /// The content so far.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What there is to make durable of it, up to its last checkpoint.
    pub(super) fn hold(&mut self) -> io::Result<Option<Hold<File>>> {
        let (Origin::Named(entry), Some(upload)) = (&mut self.origin, &self.owned) else { return Ok(None) };
        let Place::Kept(kept) = &mut entry.place else { return Ok(None) };
        let Some(checkpoint) = &kept.checkpoint else { return Ok(None) };
        Ok(Some(Hold {
            content: self.file.try_clone()?,
            record: entry.intake.kept.open_record(&kept.name)?,
            state: kept.record.add(checkpoint, None),
            name: self.name.clone(),
            upload: upload.clone(),
        }))
    }

    /// Writes its last checkpoint to its record, as soon as the content is synced. Without a sync, at once.
    fn write_state(&mut self) -> io::Result<()> {
        let Origin::Named(entry) = &mut self.origin else { return Ok(()) };
        let Place::Kept(kept) = &mut entry.place else { return Ok(()) };
        let Some(checkpoint) = kept.checkpoint.as_ref().filter(|checkpoint| Some(checkpoint.offset) != kept.written)
        else {
            return Ok(());
        };
        kept.written = Some(checkpoint.offset);
        if kept.queue.is_none() {
            let Some(boot) = entry.intake.kept.boot() else { return Ok(()) };
            let patch = kept.record.add(checkpoint, Some(boot));
            return entry.intake.kept.write_record(&kept.name, &patch);
        }
        let hold = self.hold()?;
        if let (Some(hold), Some(KeptAs { queue: Some(queue), .. })) = (hold, self.kept_as()) {
            queue.submit(Work::Hold(hold));
        }
        Ok(())
    }

    fn write_state_or_warn(&mut self) {
        if let Err(error) = self.write_state() {
            log::warn!("an upload may have to be resumed from further back, as its state cannot be written: {error}");
        }
    }

    /// Closes it as a killed process does: nothing is written or removed.
    #[cfg(test)]
    pub(super) fn forget(mut self) {
        self.origin.release();
    }

    fn kept_as(&mut self) -> Option<&mut KeptAs> {
        match &mut self.origin {
            Origin::Named(entry) => entry.kept_as(),
            Origin::Unnamed(..) => None,
        }
    }

    /// # Errors
    /// What came of it before could not be stored.
    fn check_lost(&self) -> Result<(), StoreError> {
        match &self.owned {
            Some(owned) if owned.has_lost() => Err(StoreError::Full(io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }
}

/// Makes the disk begin with what it does not have yet, and waits for nothing: of all calls that safe code can reach,
/// `POSIX_FADV_DONTNEED` is the one that starts a write-back (posix_fadvise(2)). What is clean leaves the page cache.
fn start_write_back(file: &File) {
    // Only a hint: the sync decides.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

impl Partial for PartialFile {
    fn name(&self) -> &Name {
        &self.name
    }

    fn held(&self) -> u64 {
        self.size
    }

    fn state(&self) -> Option<Held> {
        let Origin::Named(entry) = &self.origin else { return None };
        let Place::Kept(kept) = &entry.place else { return None };
        let Checkpoint { offset, hasher } =
            kept.checkpoint.as_ref().filter(|checkpoint| checkpoint.offset == self.size && checkpoint.offset > 0)?;
        Some(Held { offset: *offset, hasher: hasher.clone()? })
    }

    fn checkpoint(&mut self, hasher: Option<&Hasher>) {
        let offset = self.size;
        let is_idle = self.owned.as_ref().is_some_and(Owned::is_idle);
        let Some(kept) = self.kept_as() else { return };
        kept.checkpoint = Some(Checkpoint { offset, hasher: hasher.cloned() });
        let has_room = kept.queue.as_ref().is_none_or(Queue::has_room);
        if is_idle && has_room && offset - kept.written.unwrap_or(0) >= STATE_EVERY_BYTES {
            self.write_state_or_warn();
        }
    }

    fn keep(mut self) {
        self.give_back();
        let has_checkpoint = self.kept_as().is_some_and(|kept| kept.checkpoint.is_some());
        if has_checkpoint && self.check_lost().is_ok() {
            self.write_state_or_warn();
            self.origin.release();
        }
    }

    fn reserve(&mut self, size: Option<u64>) -> Result<(), StoreError> {
        let blocks = self.origin.handles().set_aside(&self.file, size, self.size)?;
        self.blocks = blocks.map(Box::new);
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> Result<(), StoreError> {
        let Origin::Named(entry) = &mut self.origin else { return Ok(()) };
        let Place::Kept(kept) = &mut entry.place else { return Ok(()) };
        if kept.size.replace(size).is_some() {
            return Err(StoreError::Io(io::Error::other("the size of the upload was known before")));
        }
        let patch = kept.record.add_size(size, kept.promise, &self.name);
        Ok(entry.intake.kept.write_record(&kept.name, &patch)?)
    }

    fn changed_at(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata()?.mtime().max(0).cast_unsigned())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_lost()?;
        self.cover(bytes.len())?;
        self.file.write_all(bytes)?;
        self.appended(bytes.len());
        Ok(())
    }

    fn append_from(&mut self, pipe: BorrowedFd<'_>, count: usize) -> Result<(), StoreError> {
        self.check_lost()?;
        self.cover(count)?;
        let mut left = count;
        while left > 0 {
            match retry_on_intr(|| splice(pipe, None, &self.file, None, left, SpliceFlags::MOVE)) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(moved) => {
                    self.appended(moved);
                    left -= moved;
                }
                // Not every file system can.
                Err(Errno::INVAL) => return self.copy_from(pipe, left),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn set_mtime(&mut self, seconds: u64) -> Result<(), StoreError> {
        // Later it would count as a change.
        self.give_back();
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(Errno::INVAL)?;
        Ok(self.file.set_modified(time)?)
    }

    fn mark(&mut self) -> Option<Mark> {
        // Later it would count as a change.
        self.give_back();
        Mark::of(&self.file, "").ok()
    }

    fn publish(self) -> Result<Name, StoreError> {
        self.check_lost()?;
        // Ours until the file is closed.
        let Self { file, size, name, on_exists, origin, owned: _owned, .. } = self;
        match origin {
            Origin::Unnamed(handles, link) => {
                let directory = handles.directory.as_fd();
                naming::assign(directory, name, on_exists, |name| link_unnamed(&file, link, directory, name.as_str()))
            }
            Origin::Named(entry) => {
                check_untouched(&file, size)?;
                if on_exists == OnExists::Replace {
                    let directory = entry.handles.directory.as_fd();
                    permissions::take_over(&file, directory, &name)
                        .map_err(io::Error::from)
                        .map_err(cannot("the permissions of the file that it replaces", "kept"))?;
                }
                // Dropped last: nobody else owns a kept file before it has its name.
                let _lock = entry.is_kept().then(|| file.try_clone()).transpose()?;
                // Some file systems (NFS, FUSE) tell a failed write only here (close(2)), and this is the last moment.
                nix::unistd::close(file).map_err(io::Error::from)?;
                entry.publish(name, on_exists)
            }
        }
    }
}

/// Finds out whether `method` works, by storing an empty file in the lock directory and removing it.
pub(super) fn probe(handles: &Arc<Handles>, method: Method) -> io::Result<()> {
    let intake = handles.intake();
    let lockdir = intake.lockdir.as_fd();
    let number = DecInt::new(intake.lockdir.next_file());
    let name = number.as_c_str();
    match method {
        Method::Unnamed(_) => drop(make(handles.directory.as_fd(), method, lockdir, name)?),
        Method::Named => Entry::create_in(handles, &intake, method)?.1.rename(lockdir, name).map_err(no_method)?,
    }
    Ok(unlinkat(lockdir, name, AtFlags::empty())?)
}

/// Why a named file cannot be renamed, where no other method works either.
fn no_method(errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    match errno {
        Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => io::Error::new(
            error.kind(),
            format!(
                "its file system has neither unnamed files (O_TMPFILE) nor RENAME_NOREPLACE nor hard links: {error}"
            ),
        ),
        _ => error,
    }
}

/// Finds out whether files can be moved from the server's own directories into that of the uploads. They cannot from another
/// file system, which may be mounted there, or from another subvolume, project or bind mount.
///
/// # Errors
/// In words about the directory of the uploads.
pub(super) fn probe_moves(handles: &Handles) -> io::Result<()> {
    let intake = handles.intake();
    for (place, words) in [(intake.lockdir.as_fd(), ".intake"), (intake.kept.as_fd(), ".intake/kept")] {
        probe_move(place, handles.directory.as_fd()).map_err(|errno| match errno {
            Errno::XDEV => {
                let words =
                    format!("its {words} is on another file system, or as good as that; unmount it or move it away");
                io::Error::new(io::ErrorKind::CrossesDevices, words)
            }
            _ => errno.into(),
        })?;
    }
    Ok(())
}

fn probe_move(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    const PROBE: &str = ".intake.probe";
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(from, PROBE, flags, FILE_MODE)?;
    let moved = renameat(from, PROBE, to, PROBE);
    let left_in = if moved.is_ok() { to } else { from };
    match moved.and(unlinkat(left_in, PROBE, AtFlags::empty())) {
        // Another server that starts has just done the same with it, so it can be done.
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Whether a named file is still what was written: others with our user's rights can reach it.
fn check_untouched(file: &File, size: u64) -> Result<(), StoreError> {
    let stat = fstat(file)?;
    if stat.st_nlink == 0 {
        return Err(StoreError::Io(io::Error::other("the partial file was removed while it was written")));
    }
    if u64::try_from(stat.st_size) != Ok(size) {
        let words = format!("the partial file was changed by others: {} bytes, {size} were written", stat.st_size);
        return Err(StoreError::Io(io::Error::other(words)));
    }
    Ok(())
}

/// A file among the server's own. Dropping removes it, unless it is released.
#[derive(Debug)]
pub(super) struct Entry {
    handles: Arc<Handles>,
    intake: Arc<Intake>,
    place: Place,
    /// It has moved out, or is to stay where it is.
    released: bool,
}

/// Where it is, and under which name.
#[derive(Debug)]
enum Place {
    /// In the lock directory, under a number.
    LockDir(u64),
    /// Among what outlives its server.
    Kept(KeptAs),
}

/// A kept file of ours.
#[derive(Debug)]
pub(super) struct KeptAs {
    pub(super) name: Box<str>,
    pub(super) record: Record,
    /// The server has made its id, and nobody begins another upload under it.
    pub(super) is_made: bool,
    /// The size that it will have, in bytes, once that is known.
    pub(super) size: Option<u64>,
    /// The digest that its content must have.
    pub(super) promise: Option<Promise>,
    /// Up to where it counts.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Up to where its record tells that, or will, in bytes.
    pub(super) written: Option<u64>,
    /// Where it is synced.
    pub(super) queue: Option<Queue<Arc<Handles>>>,
}

impl Entry {
    fn create(handles: &Arc<Handles>, method: Method) -> Result<(File, Self), StoreError> {
        handles.with_intake(|intake| Ok(Self::create_in(handles, intake, method)?))
    }

    fn create_in(handles: &Arc<Handles>, intake: &Arc<Intake>, method: Method) -> rustix::io::Result<(File, Self)> {
        loop {
            let number = intake.lockdir.next_file();
            match make(handles.directory.as_fd(), method, intake.lockdir.as_fd(), DecInt::new(number)) {
                // Planted: no file of ours had this number.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
                Ok(file) => return Ok((file, Self::new(handles, intake.clone(), Place::LockDir(number)))),
            }
        }
    }

    fn new(handles: &Arc<Handles>, intake: Arc<Intake>, place: Place) -> Self {
        Self { handles: handles.clone(), intake, place, released: false }
    }

    fn is_kept(&self) -> bool {
        matches!(self.place, Place::Kept(_))
    }

    fn kept_as(&mut self) -> Option<&mut KeptAs> {
        match &mut self.place {
            Place::Kept(kept) => Some(kept),
            Place::LockDir(_) => None,
        }
    }

    fn publish(mut self, name: Name, on_exists: OnExists) -> Result<Name, StoreError> {
        let handles = self.handles.clone();
        let directory = handles.directory.as_fd();
        if on_exists == OnExists::Replace {
            naming::check(directory, &name, on_exists)?;
        }
        if let Place::Kept(kept) = &self.place
            && !kept.is_made
        {
            // As soon as the file has moved out, its old name and the record may belong to another upload. Where they cannot,
            // the record stays until the final name is on the disk, so that a crash leaves one or the other: tending removes it.
            self.intake.kept.remove_record(&kept.name);
        }
        naming::assign(directory, name, on_exists, |name| match on_exists {
            OnExists::Replace => self.replace(directory, name.as_str()),
            OnExists::Refuse | OnExists::Rename | OnExists::Same => self.rename(directory, name.as_str()),
        })
    }

    /// Fails with `EEXIST` where there is anything under `name`.
    fn rename(&mut self, to: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<()> {
        let (from, own_name) = self.path();
        match renameat_with(from, &own_name, &to, name, RenameFlags::NOREPLACE) {
            // Not known to the file system or the kernel. The drop then removes what stays behind.
            Err(Errno::INVAL | Errno::NOSYS) => linkat(from, &own_name, &to, name, AtFlags::empty()),
            result => {
                self.released = result.is_ok();
                result
            }
        }
    }

    /// Fails with `EISDIR` where there is a directory under `name`, and takes the place of anything else.
    fn replace(&mut self, to: impl AsFd, name: impl Arg) -> rustix::io::Result<()> {
        let (from, own_name) = self.path();
        let result = renameat(from, own_name, to, name);
        self.released = result.is_ok();
        result
    }

    /// The directory that it is in, and its name there.
    fn path(&self) -> (BorrowedFd<'_>, String) {
        match &self.place {
            Place::LockDir(number) => (self.intake.lockdir.as_fd(), number.to_string()),
            Place::Kept(kept) => (self.intake.kept.as_fd(), kept.name.to_string()),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &self.place {
            _ if self.released => {}
            Place::Kept(kept) => self.intake.kept.remove(&kept.name),
            Place::LockDir(number) => match unlinkat(&self.intake.lockdir, DecInt::new(*number), AtFlags::empty()) {
                Err(errno) if !is_gone(errno) => log::warn!("a partial file is left in the lock directory: {errno}"),
                _ => {}
            },
        }
    }
}

//! The file of one upload until it has its final name.
//!
//! A file without a name (`O_TMPFILE`) is best: no other program can find it, and it goes with its descriptor. But not
//! every file system has such files, and a kept file needs a name to be found by: those have a name among the server's own
//! files. Only this module knows which of the two a file is. Only publishing gives a final name, and it never touches a
//! file that has the name already.
//!
//! A long upload is written back while it comes (posix_fadvise(2)), so that the sync at its end is short.

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
use super::boot::boot_id;
use super::committer::Queue;
use super::handles::{Handles, Intake};
use super::lockdir::is_gone;
use super::method::{FILE_MODE, Link, Method, create_unnamed, link_unnamed, make};
use super::queued::Queued;
use super::{
    Checkpoint, Hold, Mark, Owned, Partial, Record, Slip, StoreError, Target, Work, cannot, naming, permissions,
};
use crate::proto::{Hasher, Held, Name, OnExists, Promise, Receipt};

/// A partial file in a [`super::Directory`].
#[derive(Debug)]
pub struct PartialFile {
    /// Dropped before the file, because closing that releases the lock: a file that is removed must not be found unlocked.
    origin: Origin,
    file: File,
    size: u64,
    /// The final name that was asked for.
    name: Name,
    on_exists: OnExists,
    /// It will be synced, so the disk may begin early.
    will_sync: bool,
    /// `None`: a short upload of unknown size has none yet.
    blocks: Option<Box<Blocks>>,
    /// What few of them have. Dropped after the file, because closing that releases the lock of a kept one.
    rare: Option<Box<Rare>>,
}

/// What few partial files have.
#[derive(Debug, Default)]
struct Rare {
    /// The entry in the queue, if it is to have one.
    queued: Option<Queued>,
    /// For a kept file.
    owned: Option<Arc<Owned>>,
}

/// How much of a long upload is written back at a time, in bytes.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// How much of a kept upload is appended, in bytes, before its next state is written. If the server is killed, so much is
/// sent again, and what the disk did not have yet.
const STATE_EVERY_BYTES: u64 = 16 << 20;

/// Where the file gets its final name from.
#[derive(Debug)]
pub(super) enum Origin {
    /// It has no name, and goes with its descriptor.
    Unnamed(Arc<Handles>, Link),
    /// It has a name among the server's own files. Boxed, as most have none.
    Named(Box<Entry>),
}

impl Origin {
    /// With a name if `is_named` or `method` requires it.
    pub(super) fn create(handles: &Arc<Handles>, method: Method, is_named: bool) -> Result<(File, Self), StoreError> {
        match method {
            Method::Unnamed(link) if !is_named => {
                Ok((create_unnamed(handles.directory.as_fd())?, Self::Unnamed(handles.clone(), link)))
            }
            _ => Entry::create(handles, method).map(|(file, entry)| (file, Self::Named(entry.into()))),
        }
    }

    fn handles(&self) -> &Arc<Handles> {
        match self {
            Self::Unnamed(handles, _) => handles,
            Self::Named(entry) => &entry.handles,
        }
    }

    /// A drop then leaves the file where it is.
    fn release(&mut self) {
        if let Self::Named(entry) = self {
            entry.released = true;
        }
    }

    /// For a file that is kept in `intake` and was locked there.
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
        let rare = owned.map(|owned| Box::new(Rare { owned: Some(owned), queued: None }));
        Self { origin, file, size, name, on_exists, will_sync, blocks: blocks.map(Box::new), rare }
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

    /// Takes space for `count` more bytes.
    fn cover(&mut self, count: usize) -> Result<(), StoreError> {
        let handles = self.origin.handles();
        if self.blocks.is_none() && Blocks::are_needless(self.size + count as u64) {
            return handles.space.take(&self.file, count as u64);
        }
        let ahead = || Box::new(Blocks::ahead(handles.allocates, handles.space.reserve_nothing()));
        self.blocks.get_or_insert_with(ahead).cover(&handles.space, &self.file, self.size, count)
    }

    /// No more content comes: gives back the blocks that were not needed.
    pub(super) fn give_back(&mut self) {
        if let Some(blocks) = &mut self.blocks {
            blocks.give_back(&self.file, self.size);
        }
    }

    /// Writes the slip of its entry in the queue, if it is to have one. Both files are written back at once then.
    pub(super) fn write_slip(&mut self) -> Result<(), StoreError> {
        let Some(Rare { queued: Some(queued), .. }) = self.rare.as_deref_mut() else { return Ok(()) };
        let handles = self.origin.handles();
        let stored = naming::predict(handles.directory.as_fd(), &self.name, self.on_exists);
        queued.write(handles, self.size, &stored)?;
        if let Some(slip) = queued.slip().filter(|_| self.will_sync) {
            start_write_back(slip);
        }
        Ok(())
    }

    /// Returns when the slip would survive a power cut.
    pub(super) fn sync_slip(&self) -> io::Result<()> {
        self.rare.as_ref().and_then(|rare| rare.queued.as_ref()?.slip()).map_or(Ok(()), File::sync_data)
    }

    /// Puts it into the queue, if it is to be queued. Returns whether it is.
    pub(super) fn enqueue(&mut self) -> Result<bool, StoreError> {
        self.check_lost()?;
        let Some(Rare { queued: Some(queued), .. }) = self.rare.as_deref_mut() else { return Ok(false) };
        queued.place(|queue, name| match &self.origin {
            Origin::Unnamed(_, link) => link_unnamed(&self.file, *link, queue, name),
            Origin::Named(entry) => {
                let (from, own_name) = entry.path();
                linkat(from, own_name, queue, name, AtFlags::empty())
            }
        })?;
        Ok(true)
    }

    /// The content so far.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The job that makes it durable up to its last checkpoint. `None`: it is not kept or has no checkpoint.
    pub(super) fn hold(&mut self) -> io::Result<Option<Hold<File>>> {
        let (Origin::Named(entry), Some(upload)) =
            (&mut self.origin, self.rare.as_ref().and_then(|rare| rare.owned.as_ref()))
        else {
            return Ok(None);
        };
        let Place::Kept(kept) = &mut entry.place else { return Ok(None) };
        let Some(checkpoint) = &kept.checkpoint else { return Ok(None) };
        // Tried once: what fails here would fail again with each piece of content.
        kept.written = Some(checkpoint.offset);
        Ok(Some(Hold {
            content: self.file.try_clone()?,
            record: entry.intake.kept.open_record(&kept.name)?,
            state: kept.record.add(checkpoint, None),
            name: self.name.clone(),
            upload: upload.clone(),
        }))
    }

    /// Writes a state for its last checkpoint to its record: after a sync of the content, or at once if nothing is synced.
    fn write_state(&mut self) -> io::Result<()> {
        let Origin::Named(entry) = &mut self.origin else { return Ok(()) };
        let Place::Kept(kept) = &mut entry.place else { return Ok(()) };
        let Some(checkpoint) = kept.checkpoint.as_ref().filter(|checkpoint| Some(checkpoint.offset) != kept.written)
        else {
            return Ok(());
        };
        if kept.queue.is_none() {
            kept.written = Some(checkpoint.offset);
            let Some(boot) = boot_id() else { return Ok(()) };
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

    fn owned(&self) -> Option<&Arc<Owned>> {
        self.rare.as_ref()?.owned.as_ref()
    }

    /// # Errors
    /// Some of its content could not be synced.
    fn check_lost(&self) -> Result<(), StoreError> {
        match self.owned() {
            Some(owned) if owned.has_lost() => Err(StoreError::Full(io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }
}

/// Starts the write-back of dirty pages, and does not wait. Of the calls that safe code can make, `POSIX_FADV_DONTNEED` is
/// the one that does so (posix_fadvise(2)). Clean pages leave the page cache.
pub(super) fn start_write_back(file: &File) {
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
        let is_idle = self.owned().is_some_and(Owned::is_idle);
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
                // Not every file system can splice.
                Err(Errno::INVAL) => return self.copy_from(pipe, left),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn set_mtime(&mut self, seconds: u64) -> Result<(), StoreError> {
        // Done later, that would count as a change.
        self.give_back();
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(Errno::INVAL)?;
        Ok(self.file.set_modified(time)?)
    }

    fn mark(&mut self) -> Option<Mark> {
        // Done later, that would count as a change.
        self.give_back();
        Mark::of(&self.file, "").ok()
    }

    fn queue_as(&mut self, slip: Slip) {
        if let Some(queue) = self.origin.handles().queue.get() {
            let queued = Queued::new(queue.clone(), Slip { name: self.name.to_string(), ..slip });
            self.rare.get_or_insert_default().queued = Some(queued);
        }
    }

    fn publish(mut self) -> Result<Name, StoreError> {
        // Dropped after the file, if that gets no name: then no consumer has seen the entry.
        let queued = self.rare.as_mut().and_then(|rare| rare.queued.take());
        let stored = self.name_file()?;
        if let Some(queued) = queued {
            queued.release(&stored);
        }
        Ok(stored)
    }
}

impl PartialFile {
    fn name_file(self) -> Result<Name, StoreError> {
        self.check_lost()?;
        // Owned until the file is closed.
        let Self { file, size, name, on_exists, origin, rare: _owned, .. } = self;
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
                // Dropped last, so that a kept file is locked until it has its name.
                let _lock = entry.is_kept().then(|| file.try_clone()).transpose()?;
                // Some file systems (NFS, FUSE) report a failed write only at close(2). It must be known before the file
                // gets its name.
                nix::unistd::close(file).map_err(io::Error::from)?;
                entry.publish(name, on_exists, size)
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

/// The error if a named file cannot be renamed and no other method works either.
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

/// Finds out whether files can be moved from the server's own directories to that of the uploads. They cannot be moved from
/// another file system, subvolume, project or bind mount.
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
        // Another server that starts has just moved it, so it can be moved.
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Whether a named file is as it was written: other programs of our user can change it.
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

/// A file among the server's own. A drop removes it, unless it is released.
#[derive(Debug)]
pub(super) struct Entry {
    handles: Arc<Handles>,
    intake: Arc<Intake>,
    place: Place,
    /// It has its final name, or is kept.
    released: bool,
}

/// Where it is, and under which name.
#[derive(Debug)]
enum Place {
    /// In the lock directory, under a number.
    LockDir(u64),
    /// In the directory of kept files.
    Kept(KeptAs),
}

/// A kept file that this process owns.
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
    /// Its last checkpoint.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The offset of the last state in its record, or of one that the disk is busy with.
    pub(super) written: Option<u64>,
    /// If it is synced: where jobs go.
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
                // Another program made it: no file of this server had this number.
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

    /// Publishes the file, which has `size` bytes.
    fn publish(mut self, name: Name, on_exists: OnExists, size: u64) -> Result<Name, StoreError> {
        let handles = self.handles.clone();
        let directory = handles.directory.as_fd();
        if on_exists == OnExists::Replace {
            naming::check(directory, &name, on_exists)?;
        }
        if let Place::Kept(kept) = &self.place
            && !kept.is_made
        {
            // As soon as the file has moved, its old name and the record may belong to another upload. An id of the
            // server's making is not used again: there the record stays until the final name must be durable, so that a
            // crash leaves the kept file with its record or the final name. `Kept::expire` removes it.
            self.intake.kept.remove_record(&kept.name);
        }
        naming::assign(directory, name, on_exists, |name| {
            self.note_end(name, size);
            match on_exists {
                OnExists::Replace => self.replace(directory, name.as_str()),
                OnExists::Refuse | OnExists::Rename | OnExists::Same => self.rename(directory, name.as_str()),
            }
        })
    }

    /// Notes in the record of an upload whose id the server has made that its file, of `size` bytes, gets this name.
    fn note_end(&self, name: &Name, size: u64) {
        let Place::Kept(kept @ KeptAs { is_made: true, .. }) = &self.place else { return };
        let digest = kept.promise.as_ref().and_then(Promise::known);
        let end = Record::end(&Receipt { size, digest, stored_name: name.as_str().into() });
        if let Err(error) = self.intake.kept.write_record(&kept.name, &end) {
            log::warn!("{name:?} is stored, but a client that loses its receipt may send it again: {error}");
        }
    }

    /// Fails with `EEXIST` if `name` is taken.
    fn rename(&mut self, to: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<()> {
        let (from, own_name) = self.path();
        match renameat_with(from, &own_name, &to, name, RenameFlags::NOREPLACE) {
            // The file system or the kernel does not know the flag. The drop removes the old name then.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(from, &own_name, &to, name, AtFlags::empty())?;
                if let Place::Kept(KeptAs { name, is_made: true, .. }) = &self.place {
                    // The drop would remove the record too.
                    self.intake.kept.unlink(name);
                    self.released = true;
                }
                Ok(())
            }
            result => {
                self.released = result.is_ok();
                result
            }
        }
    }

    /// Fails with `EISDIR` if `name` is a directory, and replaces anything else.
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
            Place::Kept(kept) => {
                if kept.is_made {
                    // A record without a file must not look as if the file were published.
                    let _ = self.intake.kept.write_record(&kept.name, &Record::no_end());
                }
                self.intake.kept.remove(&kept.name);
            }
            Place::LockDir(number) => match unlinkat(&self.intake.lockdir, DecInt::new(*number), AtFlags::empty()) {
                Err(errno) if !is_gone(errno) => log::warn!("a partial file is left in the lock directory: {errno}"),
                _ => {}
            },
        }
    }
}

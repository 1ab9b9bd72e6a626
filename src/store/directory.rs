//! The directory that uploads are stored in. It is opened and probed once; everything after that goes through its handle.
//!
//! Every call looks a path up anew, and a link in it may lead elsewhere. A handle cannot change its meaning (openat(2)): if
//! the directory is moved and another one put in its place, uploads still go to the one that was opened. Which way of
//! storing a file works there is found out by trying, as a file system does not tell.

use std::cell::Cell;
use std::fs::{File, create_dir_all};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fstat, fsync, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::rand::{GetRandomFlags, getrandom};

use super::blocks::Blocks;
use super::commit::{Disk, Work};
use super::committer::Committer;
use super::handles::{Handles, Intake};
use super::kept::KeptFile;
use super::method::{Method, make};
use super::naming;
use super::partial::{self, KeptAs, Origin, PartialFile};
use super::permissions;
use super::queue::Queue;
use super::space::Room;
use super::{
    Done, Job, Mark, Partial, Patch, Record, Reopened, Settled, Store, StoreError, Stored, Target, Token, cannot,
};
use crate::proto::{Name, OnExists, Receipt, ResumeId};

/// How often to call [`Directory::tend`]. After ten times as long without a call, other hosts take the server for dead.
pub const TEND_EVERY: Duration = Duration::from_secs(60);

/// A directory held open, with a lock directory of this server's own in it. The real [`Store`].
///
/// The lock directory is removed when the directory and all its partial files are dropped.
#[derive(Debug)]
pub struct Directory {
    handles: Arc<Handles>,
    method: Method,
    /// If there is one, files are synced before their results are told.
    committer: Option<Committer<Arc<Handles>>>,
    /// The thread that last looked after the server's own files.
    tending: Option<JoinHandle<()>>,
    /// The path as it was given, for the log.
    path: PathBuf,
    /// The log has a line that it was removed.
    was_removed: AtomicBool,
    /// The directory was there when it was last looked at, and nothing has failed since.
    is_there: Cell<bool>,
}

impl Directory {
    /// Opens the directory at `path`, and makes it and its parents if they are missing. Removes what dead servers left in
    /// it, and finds out how files can be stored there.
    ///
    /// # Errors
    /// In words that name the path: it cannot be made, opened or written to, or its `.intake` is not the server's.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, &Method::ALL)
    }

    /// Opens with the first of `methods` that works there.
    pub(super) fn open_with(path: &Path, methods: &[Method]) -> io::Result<Self> {
        permissions::check_umask()?;
        let directory = open_writable(path)?;
        let handles = Arc::new(Handles::open(directory).map_err(cannot(path.display(), "used"))?);
        let method = choose(&handles, methods).map_err(cannot(path.display(), "stored in"))?;
        partial::probe_moves(&handles).map_err(cannot(path.display(), "stored in"))?;
        if method == Method::Named {
            pass_on_permissions(&handles);
        }
        handles.intake().kept.give_back_blocks().map_err(cannot("its .intake/kept", "listed"))?;
        let (path, was_removed) = (path.to_owned(), AtomicBool::new(false));
        Ok(Self { handles, method, committer: None, tending: None, path, was_removed, is_there: Cell::new(false) })
    }

    /// Returns when the directory, its entry in its parent and what is in it would survive a power cut: it may be new.
    ///
    /// # Errors
    /// It cannot be synced.
    pub fn sync(&self) -> io::Result<()> {
        self.handles.intake().sync()?;
        fsync(&self.handles.directory)?;
        match openat(&self.handles.directory, "..", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(parent) => fsync(parent)?,
            // A service often may not list the parent. Then it did not make the directory either, so its entry is not new.
            Err(Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// From now on nothing counts as published before it would survive a power cut, as far as [`Directory::sync`] was called
    /// before. The result of [`Store::submit`] then comes later: `wake` is called, from another thread, when
    /// [`Store::settled`] has something new. At most `backlog_max` files wait for that at once.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn sync_before_receipts(&mut self, backlog_max: usize, wake: impl Fn() + Send + 'static) -> io::Result<()> {
        self.committer = Some(Committer::start(self.handles.clone(), backlog_max, wake)?);
        Ok(())
    }

    /// Each published file is put into the queue from now on (`.intake/queue`). `syncs`: an entry must survive a power cut.
    ///
    /// # Errors
    /// In words: the queue cannot be made, opened or written to.
    pub fn queue_files(&self, syncs: bool) -> io::Result<()> {
        let queue = Queue::open(self.handles.intake().lockdir.intake(), syncs)?;
        queue.recount()?;
        self.handles.queue.set(Arc::new(queue)).map_err(|_| io::Error::other("there is a queue already"))
    }

    /// New uploads must leave `bytes` of the file system free from now on. The default is 256 MiB or a twentieth of the
    /// file system, whichever is less.
    pub fn keep_free(&self, bytes: u64) {
        self.handles.space.keep_free(bytes);
    }

    /// The free space, if the file system tells it.
    ///
    /// # Errors
    /// The error of fstatvfs(3).
    pub fn room(&self) -> io::Result<Option<Room>> {
        self.handles.space.room(&self.handles.directory)
    }

    /// How many entries of the queue wait and how many have failed, if there is one. As they were counted when the server last
    /// looked after its files.
    pub fn queued(&self) -> Option<(u64, u64)> {
        self.handles.queue.get().map(|queue| queue.counts())
    }

    /// How many whole files wait for the disk.
    pub fn waiting(&self) -> usize {
        self.committer.as_ref().map_or(0, Committer::pending)
    }

    /// How many partial files of resumable uploads there were when they were last looked after, those of running uploads
    /// included.
    pub fn kept_files(&self) -> u64 {
        self.handles.intake().kept.files()
    }

    /// Looks after the server's own files: tells other servers on the directory that this one lives, and removes what dead
    /// servers left and kept uploads that were not resumed for `partial_ttl`. To be called every [`TEND_EVERY`].
    ///
    /// On a network file system that may take minutes. So a thread does it, if there are threads for syncs.
    pub fn tend(&mut self, partial_ttl: Duration) {
        self.is_there.set(false);
        if self.committer.is_none() {
            return self.handles.tend(partial_ttl);
        }
        if self.tending.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return log::warn!("the file system of the directory has not answered for {TEND_EVERY:?}");
        }
        let handles = self.handles.clone();
        match thread::Builder::new().name("tender".into()).spawn(move || handles.tend(partial_ttl)) {
            Ok(thread) => self.tending = Some(thread),
            Err(error) => log::warn!("no thread can be started to look after .intake: {error}"),
        }
    }

    fn create(&self, target: &Target) -> Result<PartialFile, StoreError> {
        let reservation = self.handles.space.reserve(&self.handles.directory, target.size)?;
        // A link never replaces.
        let is_named = target.on_exists == OnExists::Replace;
        let (file, origin) = Origin::create(&self.handles, self.method, is_named)?;
        let blocks = self.handles.blocks(&file, target.size, reservation)?;
        Ok(PartialFile::new(file, origin, 0, target, self.committer.is_some(), blocks, None))
    }

    fn resume(&self, id: &ResumeId, target: &Target) -> Result<PartialFile, StoreError> {
        check_note(target.note)?;
        let directory = self.handles.directory.as_fd();
        let make = |place: BorrowedFd<'_>, name: &str| make(directory, self.method, place, name);
        if id.is_made() {
            // Only a check: the content may come much later.
            self.handles.space.reserve(directory, target.size)?;
        }
        let (intake, kept) =
            self.handles.with_intake(|intake| Ok((intake.clone(), intake.kept.claim(id, target, &make)?)))?;
        // Nothing is removed if this fails: there may be space later.
        let at = kept.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.offset);
        let blocks = if id.is_made() { None } else { self.handles.set_aside(&kept.file, target.size, at)? };
        Ok(self.kept(id, intake, kept, target, blocks))
    }

    /// Makes a partial file of a kept file.
    fn kept(
        &self,
        id: &ResumeId,
        intake: Arc<Intake>,
        kept: KeptFile,
        target: &Target,
        blocks: Option<Blocks>,
    ) -> PartialFile {
        let KeptFile { file, name, record, checkpoint, owned } = kept;
        let offset = checkpoint.as_ref().map(|checkpoint| checkpoint.offset);
        let written = offset.filter(|_| !record.is_new());
        let (is_made, size, promise) = (id.is_made(), target.size, target.promise);
        let queue = self.committer.as_ref().map(Committer::queue);
        let kept = KeptAs { name, record, is_made, size, promise, checkpoint, written, queue };
        let origin = Origin::kept(&self.handles, intake, kept);
        PartialFile::new(file, origin, offset.unwrap_or(0), target, self.committer.is_some(), blocks, Some(owned))
    }

    /// # Errors
    /// A sync has failed, or the directory was removed.
    /// Whether files can be stored.
    ///
    /// # Errors
    /// Why no upload can be stored any more: a sync has failed, or the directory was removed.
    pub fn check_usable(&self) -> Result<(), StoreError> {
        if self.committer.as_ref().is_some_and(Committer::has_failed) {
            return Err(StoreError::Failed);
        }
        self.check_directory()
    }

    /// Looks at the directory if anything has failed since the last time: nothing can be published in one that was removed.
    fn check_directory(&self) -> Result<(), StoreError> {
        if self.is_there.get() {
            return Ok(());
        }
        let result = naming::check_directory(self.handles.directory.as_fd());
        if result.is_err() && !self.was_removed.swap(true, Ordering::Relaxed) {
            let path = self.path.display();
            log::warn!(
                "{path} was removed while the server runs: nothing can be stored before the server is restarted"
            );
        }
        self.is_there.set(result.is_ok());
        result
    }

    /// A job has ended. If it has failed, the directory may have been removed.
    fn note(&self, done: &Done) {
        if matches!(done, Done::Stored(Err(_)) | Done::Held(Err(_))) {
            self.is_there.set(false);
        }
    }

    /// How files are stored here. Files that replace others are always made with a name.
    pub fn method(&self) -> Method {
        self.method
    }
}

/// The directory itself.
impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handles.directory.as_fd()
    }
}

impl Store for Directory {
    type Partial = PartialFile;
    type Content = Stored;

    fn begin(&self, target: &Target) -> Result<PartialFile, StoreError> {
        self.check_usable()?;
        naming::check(self.handles.directory.as_fd(), target.name, target.on_exists)?;
        let begun = match target.resume {
            Some(id) => self.resume(id, target),
            None => self.create(target),
        };
        begun.or_else(|error| {
            self.is_there.set(false);
            self.check_directory().and(Err(error))
        })
    }

    fn make_id(&self) -> Result<ResumeId, StoreError> {
        let mut bytes = [0; 16];
        // Does not wait: right after the start of the system there may be no random bytes yet (getrandom(2)).
        let count = retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::NONBLOCK))?;
        assert_eq!(count, bytes.len(), "so few bytes come at once");
        Ok(ResumeId::made(u128::from_be_bytes(bytes)))
    }

    fn reopen(&self, id: &ResumeId) -> Result<Option<Reopened<PartialFile>>, StoreError> {
        self.check_usable()?;
        let found = self.handles.with_intake(|intake| Ok((intake.clone(), intake.kept.reopen(id)?)))?;
        let (intake, Some((kept, terms))) = found else { return Ok(None) };
        let target = Target { size: terms.size, promise: terms.promise, ..Target::new(&terms.name, terms.on_exists) };
        let partial = self.kept(id, intake, kept, &target, None);
        Ok(Some(Reopened { partial, terms }))
    }

    fn receipt(&self, id: &ResumeId) -> Option<Receipt> {
        self.handles.intake().kept.receipt(id)
    }

    fn find(&self, name: &Name, size: u64) -> Result<Option<Stored>, StoreError> {
        let found = naming::find(self.handles.directory.as_fd(), name, size)?;
        Ok(found.map(|file| Stored::new(file, name.clone())))
    }

    fn mark(&self, name: &Name) -> Option<Mark> {
        Mark::of(&self.handles.directory, name.as_str()).ok()
    }

    fn submit(&mut self, token: Token, mut job: Job<'_, Self>) -> Option<Settled> {
        if let Job::Publish(partial) = &mut job {
            partial.give_back();
        }
        let Some(committer) = &self.committer else {
            let done = finish(job);
            self.note(&done);
            return Some(Settled { token, done });
        };
        let work = match job {
            Job::Publish(partial) => Work::Publish(partial),
            Job::Confirm(content) => {
                let (file, name) = content.into_parts();
                Work::Confirm(file, name)
            }
            Job::Hold(partial) => match partial.hold() {
                Ok(Some(hold)) => Work::Hold(hold),
                // There is nothing to hold.
                Ok(None) => return Some(Settled { token, done: Done::Held(Ok(())) }),
                Err(error) => return Some(Settled { token, done: Done::Held(Err(error.into())) }),
            },
        };
        committer.submit(token, work);
        None
    }

    fn has_queue(&self) -> bool {
        self.handles.queue.get().is_some()
    }

    fn is_busy_with(&self, id: &ResumeId) -> bool {
        self.handles.intake().kept.has(id)
    }

    fn settled(&mut self) -> Vec<Settled> {
        let settled = self.committer.as_mut().map(Committer::settled).unwrap_or_default();
        settled.iter().for_each(|settled| self.note(&settled.done));
        settled
    }

    fn is_congested(&self) -> bool {
        self.committer.as_ref().is_some_and(Committer::is_congested)
    }

    fn is_idle(&self) -> bool {
        self.committer.as_ref().is_none_or(Committer::is_idle)
    }
}

/// A note is one line of the record.
fn check_note(note: &str) -> Result<(), StoreError> {
    if note.len() > Record::NOTE_MAX_BYTES || note.chars().any(char::is_control) {
        let words =
            format!("what is to be kept with an upload must be one line of at most {} bytes", Record::NOTE_MAX_BYTES);
        return Err(StoreError::Io(io::Error::new(io::ErrorKind::InvalidInput, words)));
    }
    Ok(())
}

/// Does a job if nothing is synced.
fn finish(job: Job<'_, Directory>) -> Done {
    match job {
        Job::Publish(partial) => Done::Stored(publish(partial)),
        Job::Confirm(content) => Done::Stored(Ok(content.into_parts().1)),
        Job::Hold(_) => Done::Held(Ok(())),
    }
}

/// The steps of a [`Commit`](super::Commit), without syncs.
fn publish(mut partial: PartialFile) -> Result<Name, StoreError> {
    partial.write_slip()?;
    partial.enqueue()?;
    partial.publish()
}

impl Disk for Arc<Handles> {
    type Partial = PartialFile;
    type File = File;

    fn file(partial: &PartialFile) -> &File {
        partial.file()
    }

    fn write_slip(&self, partial: &mut PartialFile) -> Result<(), StoreError> {
        partial.write_slip()
    }

    fn sync_slip(&self, partial: &PartialFile) -> io::Result<()> {
        partial.sync_slip()
    }

    fn enqueue(&self, partial: &mut PartialFile) -> Result<bool, StoreError> {
        partial.enqueue()
    }

    fn sync_queue(&self) -> io::Result<()> {
        self.queue.get().map_or(Ok(()), sync_names)
    }

    fn start_write_back(&self, file: &File) {
        partial::start_write_back(file);
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        // If a signal interrupts a sync, it has not failed: this function repeats it, as do those below.
        file.sync_data()
    }

    fn discard(&self, file: &File) {
        let _ = file.set_len(0);
    }

    fn write_record(&self, record: &File, patch: &Patch) -> io::Result<()> {
        record.write_all_at(&patch.bytes, patch.at)
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_names(&self.directory)
    }

    fn sync_kept(&self) -> io::Result<()> {
        sync_names(&self.intake().kept)
    }
}

/// Syncs a directory. If XFS has shut itself down after an error, a sync still succeeds there, but fstat(2) does not.
fn sync_names(directory: impl AsFd) -> io::Result<()> {
    retry_on_intr(|| fsync(&directory))?;
    fstat(directory)?;
    Ok(())
}

/// Makes new files in the server's own directories get the permissions that they would get in the directory of the uploads.
fn pass_on_permissions(handles: &Handles) {
    let (intake, directory) = (handles.intake(), handles.directory.as_fd());
    for place in [intake.lockdir.intake(), intake.lockdir.as_fd(), intake.kept.as_fd()] {
        if let Err(errno) = permissions::pass_on(directory, place) {
            return log::warn!(
                "files that are resumed or replace others may get another group or ACL than others: {errno}"
            );
        }
    }
}

/// The first of `methods` that works, or the error of the last one.
fn choose(handles: &Arc<Handles>, methods: &[Method]) -> io::Result<Method> {
    let mut failure = io::ErrorKind::Unsupported.into();
    for &method in methods {
        match partial::probe(handles, method) {
            Ok(()) => return Ok(method),
            Err(error) => failure = error,
        }
        log::debug!("storing with {method} does not work here: {failure}");
    }
    Err(failure)
}

fn open_writable(path: &Path) -> io::Result<OwnedFd> {
    create_dir_all(path).map_err(cannot(path.display(), "made"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty()).map_err(cannot(path.display(), "opened"))?;
    accessat(&directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(cannot(path.display(), "written to"))?;
    if is_anybodys(Mode::from_raw_mode(fstat(&directory)?.st_mode)) {
        log::warn!("{}: anybody may rename and remove files here; 'chmod +t' or 'chmod o-w' ends that", path.display());
    }
    Ok(directory)
}

/// Whether users who own nothing in a directory may rename and remove files in it (sticky bit, inode(7)).
fn is_anybodys(directory: Mode) -> bool {
    directory.contains(Mode::WOTH) && !directory.contains(Mode::SVTX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};

    use std::time::UNIX_EPOCH;

    use rustix::fs::{IFlags, ioctl_setflags};

    use super::*;
    use crate::leave_out::leave_out;
    use crate::proto::NamePolicy;
    use crate::store::Partial;

    fn upload(directory: &Directory, on_exists: OnExists) -> Name {
        let name = Name::parse(b"a", NamePolicy::default()).unwrap();
        let mut partial = directory.begin(&Target::new(&name, on_exists)).unwrap();
        partial.append(b"content").unwrap();
        partial.publish().unwrap()
    }

    #[test]
    fn a_missing_directory_is_made_with_its_parents() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("not/yet/there");
        let stored = upload(&Directory::open(&path).unwrap(), OnExists::Refuse);
        assert_eq!(fs::read(path.join(stored)).unwrap(), b"content");
    }

    #[test]
    fn files_are_unnamed_wherever_the_file_system_has_that() {
        let base = tempfile::tempdir().unwrap();
        let flags = OFlags::TMPFILE.bits().cast_signed();
        let has_unnamed = fs::File::options().write(true).custom_flags(flags).open(base.path()).is_ok();
        let method = Directory::open(base.path()).unwrap().method();
        assert_eq!(matches!(method, Method::Unnamed(_)), has_unnamed, "{method}");
    }

    #[test]
    fn what_cannot_be_written_to_is_refused_at_the_start_in_words() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("a file");
        fs::write(&file, "old").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = Directory::open(&path).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{} cannot be made: ", path.display())), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"old");

        // Once without an `.intake`, once with one, which can be written to.
        for intake_before in [false, true] {
            let path = base.path().join(format!("read-only {intake_before}"));
            fs::create_dir(&path).unwrap();
            if intake_before {
                Directory::open(&path).unwrap();
            }
            let Some(_restored) = ReadOnly::make(&path) else {
                return leave_out("this user may write to a directory that is read-only");
            };
            for methods in [&Method::ALL[..], &[Method::Named]] {
                let error = Directory::open_with(&path, methods).err().unwrap().to_string();
                assert!(error.starts_with(&format!("{} cannot be written to: ", path.display())), "{error}");
            }
        }
    }

    /// A directory that is read-only until this is dropped, for root too if the file system can do that.
    struct ReadOnly(fs::File);

    impl ReadOnly {
        fn make(path: &Path) -> Option<Self> {
            let directory = fs::File::open(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
            let for_root = ioctl_setflags(&directory, IFlags::IMMUTABLE);
            (for_root.is_ok() || !rustix::process::geteuid().is_root()).then_some(Self(directory))
        }
    }

    impl Drop for ReadOnly {
        fn drop(&mut self) {
            // This fails if it could not be made immutable.
            let _ = ioctl_setflags(&self.0, IFlags::empty());
            self.0.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn a_directory_is_anybodys_unless_sticky() {
        for (mode, expected) in [(0o777, true), (0o702, true), (0o1777, false), (0o775, false)] {
            assert_eq!(is_anybodys(Mode::from_raw_mode(mode)), expected, "{mode:o}");
        }
    }

    #[test]
    fn two_servers_share_a_directory_and_leave_one_anothers_partials_alone() {
        let base = tempfile::tempdir().unwrap();
        let name = Name::parse(b"a", NamePolicy::default()).unwrap();
        let open = || Directory::open_with(base.path(), &[Method::Named]).unwrap();
        let first = open();
        let mut partial = first.begin(&Target::new(&name, OnExists::Rename)).unwrap();
        partial.append(b"first").unwrap();
        let second = open();
        assert_eq!(upload(&second, OnExists::Rename).as_str(), "a");
        drop(second);
        drop(open());
        assert_eq!(partial.publish().unwrap().as_str(), "a.1");
        assert_eq!(fs::read(base.path().join("a.1")).unwrap(), b"first");
        drop(first);
        assert_eq!(fs::read_dir(base.path().join(".intake")).unwrap().count(), 1, "only the directory of what is kept");
    }

    #[test]
    fn the_directory_is_tended_by_a_thread_where_uploads_are_synced() {
        for synced in [false, true] {
            let base = tempfile::tempdir().unwrap();
            let mut directory = Directory::open(base.path()).unwrap();
            if synced {
                directory.sync_before_receipts(1, || {}).unwrap();
            }
            let intake = base.path().join(".intake");
            let dead = intake.join("server.another-host.1.1");
            fs::create_dir(&dead).unwrap();
            let lock = File::create(dead.join("lock")).unwrap();
            lock.set_modified(UNIX_EPOCH).unwrap();
            fs::write(dead.join("1"), "a partial").unwrap();
            directory.tend(Duration::ZERO);
            let thread = directory.tending.take();
            assert_eq!(thread.is_some(), synced);
            thread.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(!dead.exists());
            assert_eq!(fs::read_dir(&intake).unwrap().count(), 2, "the server's own, and what is kept");
        }
    }

    #[test]
    fn a_file_system_that_hangs_is_not_asked_again_before_it_answers() {
        let base = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(base.path()).unwrap();
        directory.sync_before_receipts(1, || {}).unwrap();
        let (answer, question) = std::sync::mpsc::channel::<()>();
        directory.tending = Some(thread::spawn(move || while question.recv().is_ok() {}));
        let hanging = directory.tending.as_ref().unwrap().thread().id();
        directory.tend(Duration::ZERO);
        assert_eq!(directory.tending.as_ref().unwrap().thread().id(), hanging);
        drop(answer);
        while !directory.tending.as_ref().unwrap().is_finished() {
            thread::yield_now();
        }
        directory.tend(Duration::ZERO);
        assert_ne!(directory.tending.take().unwrap().thread().id(), hanging);
    }

    #[test]
    fn a_partial_outlives_its_directory() {
        let base = tempfile::tempdir().unwrap();
        for method in [Method::ALL[1], Method::Named] {
            let name = Name::parse(b"a", NamePolicy::default()).unwrap();
            let Ok(directory) = Directory::open_with(base.path(), &[method]) else {
                leave_out(&format!("{} knows no {method}", base.path().display()));
                continue;
            };
            let partial = directory.begin(&Target::new(&name, OnExists::Rename)).unwrap();
            drop(directory);
            partial.publish().unwrap();
            assert_eq!(
                fs::read_dir(base.path().join(".intake")).unwrap().count(),
                1,
                "only the directory of what is kept"
            );
        }
    }

    #[test]
    fn the_directorys_group_is_handed_down_where_it_says_so() {
        let base = tempfile::tempdir().unwrap();
        if chown(base.path(), None, Some(54_321)).is_err() {
            return leave_out("this user may not give a directory to any group");
        }
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o2775)).unwrap();
        let directory = Directory::open(base.path()).unwrap();
        for on_exists in [OnExists::Rename, OnExists::Replace] {
            let file = fs::metadata(base.path().join(upload(&directory, on_exists))).unwrap();
            assert_eq!(file.gid(), 54_321, "{on_exists:?}");
        }
    }
}

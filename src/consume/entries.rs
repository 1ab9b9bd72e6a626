//! The entries of a queue, as a consumer sees them: claimed, removed, put off, failed, put back.
//!
//! Every step leaves something that the next consumer understands, whenever this one is killed:
//!
//! | what is there of an entry | so it is |
//! |---|---|
//! | `NUMBER` and `NUMBER.json` | to be done |
//! | `NUMBER.json` alone | done: the content goes first |
//! | `NUMBER` alone | never confirmed to a client, or the rest of a put back; removed when it is ten minutes old |
//! | `NUMBER.retry` besides | to be done later: how often it was tried, and when it is due |
//! | `failed/NUMBER` and `failed/NUMBER.json` | failed. If it is in the queue, too, it is to be done again |
//!
//! Knows no processes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, flock, fstat, fsync, linkat, mkdirat,
    openat, renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use serde_json::{Value, json};

use crate::proto::{Name, NamePolicy};
use crate::store::slip::{FAILED, Slip, entry_name, number_of, number_of_slip, slip_name};

/// The name of the file that says when an entry is tried again is that of the entry, and this.
const RETRY: &str = ".retry";
/// How old an entry without a slip is when it is removed. A server adds the slip within a moment.
const ORPHAN_AGE: Duration = Duration::from_secs(600);

/// The queue of a server's directory.
pub(super) struct Entries {
    directory: OwnedFd,
    path: PathBuf,
    queue: OwnedFd,
    queue_path: PathBuf,
    /// The user whose slips count: the owner of the queue.
    owner: u32,
}

/// What became of a claim.
pub(super) enum Claim {
    /// It is ours.
    Entry(Entry),
    /// It is due after this time.
    Later(Duration),
    /// Another consumer has it, or its file is still being published.
    Taken,
    /// There is no such entry, or not any more.
    Gone,
}

/// An entry that is ours until it is released, or until the last process that has its slip open ends.
pub(super) struct Entry {
    number: u64,
    /// Holds the lock.
    file: File,
    /// `None`: it is damaged.
    slip: Option<Slip>,
    tries: u32,
}

impl Entry {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn slip(&self) -> Option<&Slip> {
        self.slip.as_ref()
    }

    /// How often it was tried before.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// The slip from its beginning, with the lock.
    pub(super) fn stdin(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    /// Lets others claim it. A program that the command has left behind may still have the slip open, so a close does not
    /// suffice.
    pub(super) fn release(self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", entry_name(self.number))?;
        let Some(Slip { name, peer, .. }) = &self.slip else { return Ok(()) };
        write!(f, " {name:?} from {}", peer.escape_debug())
    }
}

impl Entries {
    /// Opens the queue of the server's directory `path`.
    ///
    /// # Errors
    /// In words: it has none, or this user may not use it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let cannot = |what: &str, error: io::Error| {
            let kind = error.kind();
            io::Error::new(kind, format!("{}: {what}: {error}", path.display()))
        };
        let path = path.canonicalize().map_err(|error| cannot("it cannot be found", error))?;
        let directory = open_directory(CWD, &path).map_err(|errno| cannot("it cannot be opened", errno.into()))?;
        let queue = open_directory(directory.as_fd(), ".intake")
            .and_then(|intake| open_directory(intake.as_fd(), "queue"))
            .map_err(|errno| match errno {
                Errno::NOENT => cannot("it has no queue; start its server with --queue", errno.into()),
                Errno::ACCESS => cannot("its queue is another user's; run as the user of the server", errno.into()),
                _ => cannot("its queue cannot be opened", errno.into()),
            })?;
        let (owner, queue_path) = (fstat(&queue)?.st_uid, path.join(".intake/queue"));
        Ok(Self { directory, path, queue, queue_path, owner })
    }

    pub(super) fn queue_path(&self) -> &Path {
        &self.queue_path
    }

    /// The numbers of all entries that there may be. Removes what is left of entries that are done.
    pub(super) fn list(&self) -> io::Result<Vec<u64>> {
        let (mut slips, mut contents, mut retries) = (Vec::new(), Vec::new(), Vec::new());
        for entry in Dir::read_from(&self.queue)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            slips.extend(number_of_slip(name));
            contents.extend(number_of(name));
            retries.extend(name.strip_suffix(RETRY).and_then(number_of));
        }
        slips.sort_unstable();
        let is_alone = |number: &u64| slips.binary_search(number).is_err();
        for number in contents.into_iter().filter(is_alone) {
            self.remove_orphan(number);
        }
        for number in retries.into_iter().filter(is_alone) {
            let _ = unlink(self.queue.as_fd(), &retry_name(number));
        }
        Ok(slips)
    }

    fn remove_orphan(&self, number: u64) {
        let name = entry_name(number);
        let has_slip = || stat(self.queue.as_fd(), &slip_name(number)).is_ok_and(|slip| slip.is_some());
        if let Ok(Some(content)) = stat(self.queue.as_fd(), &name)
            && now().saturating_sub(Duration::from_secs(content.st_ctime.cast_unsigned())) > ORPHAN_AGE
            && !has_slip()
            && unlink(self.queue.as_fd(), &name).is_ok()
        {
            log::debug!("removed {name} from the queue: it has had no slip for ten minutes, so nobody was told of it");
        }
    }

    /// Claims an entry.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn claim(&self, number: u64) -> io::Result<Claim> {
        let file = match self.open_slip(number) {
            Err(Errno::NOENT) => return Ok(Claim::Gone),
            file => file?,
        };
        let file = match self.lock(number, file) {
            Err(Errno::WOULDBLOCK) => return Ok(Claim::Taken),
            Err(Errno::NOENT) => return Ok(Claim::Gone),
            file => file?,
        };
        let meta = file.metadata()?;
        if meta.nlink() == 0 {
            return Ok(Claim::Gone);
        }
        if !meta.is_file() || meta.uid() != self.owner {
            log::warn!("{} is left alone: the server did not make it", slip_name(number));
            return Ok(Claim::Taken);
        }
        if stat(self.queue.as_fd(), &entry_name(number))?.is_none() {
            unlink(self.queue.as_fd(), &slip_name(number))?;
            return Ok(Claim::Gone);
        }
        let (tries, wait) = self.read_retry(number);
        let slip = Slip::read(&file)?.filter(|slip| is_name(&slip.name) && is_name(&slip.stored));
        let entry = Entry { number, file, slip, tries };
        Ok(if wait.is_zero() { Claim::Entry(entry) } else { Claim::Later(wait) })
    }

    fn open_slip(&self, number: u64) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(&self.queue, slip_name(number), flags, Mode::empty()).map(File::from)
    }

    /// NFS locks only files that are open for writing, and says `EBADF`.
    fn lock(&self, number: u64, file: File) -> rustix::io::Result<File> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::BADF) => {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(&self.queue, slip_name(number), flags, Mode::empty())?;
                flock(&file, FlockOperation::NonBlockingLockExclusive)?;
                Ok(file.into())
            }
            result => result.map(|()| file),
        }
    }

    /// Where a command finds the content: under its stored name, or in the queue if that name has gone to another file.
    pub(super) fn path_of(&self, entry: &Entry, slip: &Slip) -> PathBuf {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        let stored = stat(self.directory.as_fd(), &slip.stored).ok().flatten().map(identity);
        let content = stat(self.queue.as_fd(), &entry_name(entry.number)).ok().flatten().map(identity);
        if stored.is_some() && stored == content {
            self.path.join(&slip.stored)
        } else {
            self.queue_path.join(entry_name(entry.number))
        }
    }

    /// Removes an entry that is done.
    ///
    /// # Errors
    /// Any error of the file system. It may be done again then.
    pub(super) fn remove(&self, entry: &Entry) -> io::Result<()> {
        let Entry { number, .. } = *entry;
        for name in [entry_name(number), retry_name(number), slip_name(number)] {
            unlink(self.queue.as_fd(), &name)?;
        }
        Ok(())
    }

    /// Notes that it was tried this often, and is due after `wait`.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn put_off(&self, entry: &Entry, tries: u32, wait: Duration) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.queue, retry_name(entry.number), flags, Mode::RUSR | Mode::WUSR)?;
        let due = (now() + wait).as_millis();
        File::from(file).write_all_at(format!("{tries:>10} {due:>20}\n").as_bytes(), 0)
    }

    /// How often an entry was tried, and after which time it is due.
    fn read_retry(&self, number: u64) -> (u32, Duration) {
        let read = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(openat(&self.queue, retry_name(number), flags, Mode::empty()).ok()?);
            let mut text = String::new();
            file.take(64).read_to_string(&mut text).ok()?;
            let (tries, due) = text.trim().split_once(' ')?;
            Some((tries.parse().ok()?, due.trim().parse().ok()?))
        };
        let (tries, due): (u32, u64) = read().unwrap_or_default();
        (tries, Duration::from_millis(due).saturating_sub(now()))
    }

    /// Moves an entry to the failed ones. It is there before it is removed from the queue.
    ///
    /// # Errors
    /// Any error of the file system. It may be tried again then.
    pub(super) fn fail(&self, entry: &Entry, why: &str) -> io::Result<()> {
        let failed = lock_failed(self.queue.as_fd())?;
        let name = entry_name(entry.number);
        match linkat(&self.queue, &name, &failed, &name, AtFlags::empty()) {
            // A consumer was killed here before, or the command has taken the content away.
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut text = String::new();
        let _ = entry.stdin()?.read_to_string(&mut text);
        let mut slip: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "id": name, "damaged": text }));
        slip["failed"] = why.into();
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&failed, slip_name(entry.number), flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(format!("{slip}\n").as_bytes())?;
        file.sync_data()?;
        retry_on_intr(|| fsync(&failed))?;
        self.remove(entry)
    }
}

/// Puts all failed entries of the server's directory `path` back into its queue. Returns how many.
///
/// # Errors
/// As [`super::run`], and any error of the file system.
pub fn retry_failed(path: &Path) -> io::Result<usize> {
    let queue = Entries::open(path)?.queue;
    let failed = lock_failed(queue.as_fd())?;
    let (mut contents, mut slips) = (Vec::new(), Vec::new());
    for entry in Dir::read_from(&failed)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        contents.extend(number_of(name));
        slips.extend(number_of_slip(name));
    }
    slips.retain(|slip| contents.contains(slip));
    let mut count = 0;
    for number in slips {
        let (name, slip) = (entry_name(number), slip_name(number));
        match linkat(&failed, &name, &queue, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        match renameat_with(&failed, &slip, &queue, &slip, RenameFlags::NOREPLACE) {
            Ok(()) => count += 1,
            // It is still in the queue: its consumer was killed before it had removed it from there.
            Err(Errno::EXIST) => unlink(failed.as_fd(), &slip)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    retry_on_intr(|| fsync(&queue))?;
    // Of all of these the queue has the entry.
    contents.iter().try_for_each(|number| unlink(failed.as_fd(), &entry_name(*number)))?;
    Ok(count)
}

/// Opens the directory of failed entries, and makes it if it is missing. One process at a time changes it.
fn lock_failed(queue: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match mkdirat(queue, FAILED, Mode::RWXU) {
        Ok(()) => retry_on_intr(|| fsync(queue))?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let failed = open_directory(queue, FAILED)?;
    retry_on_intr(|| flock(&failed, FlockOperation::LockExclusive))?;
    Ok(failed)
}

fn retry_name(number: u64) -> String {
    entry_name(number) + RETRY
}

fn is_name(text: &str) -> bool {
    Name::parse(text.as_bytes(), NamePolicy::default()).is_ok()
}

fn open_directory(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// As unlinkat(2), but without an error if there is no such file.
fn unlink(at: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Of a regular file. `None`: there is none.
fn stat(at: BorrowedFd<'_>, name: &str) -> io::Result<Option<Stat>> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(Some(stat)),
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The time of day, since the epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

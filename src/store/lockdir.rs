//! Lock directories: `.intake/server.BOOT.DEVICE.NUMBER/`, one for each living server, with its partial files in it.
//!
//! A server holds two locks (flock(2)), on its directory and on the file `lock` in it, and touches that file every minute: its
//! heartbeat. A server that starts, and each running one every minute, tells from these which directories are a dead server's:
//!
//! | both locks | the directory is of | the last heartbeat | so its server is |
//! |---|---|---|---|
//! | one is held | any host | at any time | living |
//! | can be taken | this host | at any time | dead |
//! | can be taken | another host | less than ten minutes ago | perhaps living |
//! | can be taken | another host | longer ago | dead |
//!
//! **The lock on the file** holds between hosts: GlusterFS passes it on, and so does NFS, as a byte-range lock. It does not
//! suffice to judge other hosts. A mount may keep it local (NFS with `nolock`), and a network that fails may lose it. **The
//! lock on the directory** is local to each mount there, so the network cannot lose it.
//!
//! **This host** means this run of the kernel and this mount, by the boot id and the device number in the directory's name:
//! only then do locks that can be taken prove anything. Containers share both with their host, whatever they are named.
//!
//! No lock protects a directory while it is made. A sweep may find it half made and remove it; its maker notices that and
//! makes another.
//!
//! Knows nothing of uploads and their names.

use std::ffi::{CStr, CString};
use std::fmt::{self, Display};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::fs::{UTIME_NOW, UTIME_OMIT, flock, fstat, futimens, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

use super::boot::boot_id;
use super::naming::kind_of;
use super::slip::QUEUE;

/// The directory of kept files, in `.intake`.
pub(super) const KEPT: &CStr = c"kept";

/// The name of the file in a lock directory that its server has locked.
const LOCK: &CStr = c"lock";

/// What the name of a lock directory begins with. Earlier versions, whose directories are named by a number alone, ignore it.
const PREFIX: &str = "server.";

/// A server of another host is dead if its heartbeat is older than this, in seconds. It may be late by a few beats: a file
/// system that hangs delays them, and so does a machine that is stopped for a while.
const HEARTBEAT_MAX_AGE_SECS: i64 = 600;

const NOT_OURS: &str = "no server made it";

/// The lock directory of this server. Dropping it removes it.
#[derive(Debug)]
pub(super) struct LockDir {
    intake: OwnedFd,
    /// Holds the lock on the directory.
    fd: OwnedFd,
    /// Holds the lock on the file.
    lock: OwnedFd,
    host: Host,
    name: CString,
    last_file: AtomicU64,
}

impl LockDir {
    /// Makes a lock directory in `intake`.
    ///
    /// # Errors
    /// Any error of the file system, for instance that it has no locks.
    pub(super) fn make(intake: OwnedFd, host: Host) -> rustix::io::Result<Self> {
        let mut number = 0;
        loop {
            number += 1;
            let name = host.lock_dir(number);
            match mkdirat(&intake, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno),
            }
            match make_lock(intake.as_fd(), &name) {
                Ok((fd, lock)) => return Ok(Self { intake, fd, lock, host, name, last_file: AtomicU64::new(0) }),
                // Another server is removing the directory, or has.
                Err(errno) if errno == Errno::WOULDBLOCK || is_gone(errno) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Tells other servers that this one lives, and takes the lock again, which a network file system may have lost.
    /// Returns the time of the beat in seconds, by the clock of the file system.
    ///
    /// # Errors
    /// One for which [`is_gone`] is true if the directory was removed, and any other error of the file system.
    pub(super) fn beat(&self) -> rustix::io::Result<i64> {
        match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
            // Another server is checking whether this one lives.
            Err(Errno::WOULDBLOCK) => {}
            result => result?,
        }
        touch(self.lock.as_fd())
    }

    /// Removes the lock directories of dead servers. `now` is the time of a beat. Anything that no server made is left
    /// alone, and named in the log at `level`.
    ///
    /// # Errors
    /// `.intake` cannot be listed.
    pub(super) fn sweep(&self, now: i64, level: log::Level) -> rustix::io::Result<()> {
        let sweep = Sweep { intake: self.intake.as_fd(), now, level };
        for_each_entry(self.intake.as_fd(), |name| {
            if name == self.name.as_c_str() || [KEPT, QUEUE].contains(&name) {
                return;
            }
            let swept = match self.host.maker(name) {
                Some(maker) => sweep.lock_dir(name, maker).map_err(io::Error::from),
                None => Err(io::Error::other(NOT_OURS)),
            };
            swept.unwrap_or_else(|error| sweep.leave(name, error));
        })
    }

    /// The directory that all lock directories are in.
    pub(super) fn intake(&self) -> BorrowedFd<'_> {
        self.intake.as_fd()
    }

    /// A number that no file in the directory had before, as a name.
    pub(super) fn next_file(&self) -> u64 {
        self.last_file.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl AsFd for LockDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for LockDir {
    fn drop(&mut self) {
        let removed = unlinkat(&self.fd, LOCK, AtFlags::empty())
            .and_then(|()| unlink(self.intake.as_fd(), &self.name, AtFlags::REMOVEDIR));
        match removed {
            // If the file is gone, so is the directory, and its name may belong to another one.
            Err(errno) if !is_gone(errno) => {
                log::warn!("the lock directory {:?} is left in .intake: {errno}", self.name);
            }
            _ => {}
        }
    }
}

/// The scope in which a lock that can be taken proves that nobody holds it: this run of the kernel, and this mount.
#[derive(Clone, Debug)]
pub(super) struct Host {
    boot: String,
    device: u64,
}

/// The maker of a lock directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    ThisHost,
    /// Another host, or an earlier version of the server, which left no host in the name.
    AnotherHost,
}

impl Host {
    /// This kernel, and the mount that `intake` is on.
    pub(super) fn of(intake: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        // Without an id only its own directory counts as this host's.
        let boot = boot_id().map_or_else(|| format!("{:x}", RandomState::new().hash_one(LOCK)), str::to_owned);
        Ok(Self { boot, device: fstat(intake)?.st_dev })
    }

    fn lock_dir(&self, number: u32) -> CString {
        CString::new(format!("{self}{number}")).expect("no part of it has a NUL")
    }

    /// `None`: no server makes a directory of that name.
    fn maker(&self, name: &CStr) -> Option<Maker> {
        if is_number(name.to_bytes()) {
            return Some(Maker::AnotherHost);
        }
        let name = name.to_str().ok().filter(|name| name.starts_with(PREFIX))?;
        let (_, number) = name.rsplit_once('.').filter(|(_, number)| is_number(number.as_bytes()))?;
        let is_own = name.strip_suffix(number) == Some(self.to_string().as_str());
        Some(if is_own { Maker::ThisHost } else { Maker::AnotherHost })
    }
}

/// The names of this host's lock directories up to their number.
impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.{:x}.", self.boot, self.device)
    }
}

/// Whether an error says that a file or its directory was removed. A network file system says that its handle is stale.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::STALE)
}

pub(super) fn open_directory(at: BorrowedFd<'_>, name: impl Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Returns the directory `name` and the locked file in it. [`Errno::WOULDBLOCK`], or an error for which [`is_gone`] is true: a
/// sweep has come first.
fn make_lock(intake: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let fd = open_directory(intake, name)?;
    flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(&fd, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    let lock = lock_file(fd.as_fd(), lock)?;
    touch(lock.as_fd())?;
    Ok((fd, lock))
}

/// Locks the file `lock` in `dir`, which is open for reading. NFS locks only files that are open for writing, and says
/// `EBADF`: there it is opened again. Elsewhere it is not, because a file that is open for writing keeps the file system
/// from being remounted read-only.
fn lock_file(dir: BorrowedFd<'_>, mut lock: OwnedFd) -> rustix::io::Result<OwnedFd> {
    let take = |lock: &OwnedFd| flock(lock, FlockOperation::NonBlockingLockExclusive);
    match take(&lock) {
        Err(Errno::BADF) => {
            lock =
                openat(dir, LOCK, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            take(&lock)?;
        }
        result => result?,
    }
    Ok(lock)
}

/// Sets the time of the last change to now, and returns it in seconds. Fails if the file was removed. On a local file
/// system the count of its links says so. A network file system may remember an old count, but the attempt fails.
pub(super) fn touch(file: BorrowedFd<'_>) -> rustix::io::Result<i64> {
    let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    futimens(file, &Timestamps { last_access: at(UTIME_OMIT), last_modification: at(UTIME_NOW) })?;
    let stat = fstat(file)?;
    if stat.st_nlink == 0 { Err(Errno::NOENT) } else { Ok(stat.st_mtime) }
}

/// One look at all lock directories.
struct Sweep<'a> {
    intake: BorrowedFd<'a>,
    now: i64,
    level: log::Level,
}

impl Sweep<'_> {
    /// Removes the lock directory `name` if its server is dead.
    fn lock_dir(&self, name: &CStr, maker: Maker) -> rustix::io::Result<()> {
        let dir = open_directory(self.intake, name)?;
        let lock = open_lock(dir.as_fd())?;
        let beat = match &lock {
            Some(lock) => fstat(lock)?.st_mtime,
            None => last_change(dir.as_fd())?,
        };
        if !may_be_dead(maker, lock.is_some(), self.now.saturating_sub(beat)) {
            log::debug!("{name:?} may be a living server's");
            return Ok(());
        }
        let locked = flock(&dir, FlockOperation::NonBlockingLockExclusive)
            .and_then(|()| lock.map(|lock| lock_file(dir.as_fd(), lock)).transpose());
        match locked {
            Ok(_lock) => self.remove(name, dir.as_fd()),
            Err(Errno::WOULDBLOCK) => {
                log::debug!("{name:?} is a living server's");
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    fn remove(&self, name: &CStr, dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let mut removed = 0;
        for_each_entry(dir, |file| match remove_partial(dir, file) {
            _ if file == LOCK => {}
            Ok(()) => removed += 1,
            Err(error) => self.leave(file, error),
        })?;
        if removed > 0 {
            log::info!("removed {removed} partial files of a server that is gone");
        }
        unlink(dir, LOCK, AtFlags::empty())?;
        unlink(self.intake, name, AtFlags::REMOVEDIR)
    }

    fn leave(&self, name: &CStr, why: impl Display) {
        log::log!(self.level, "left {name:?} in .intake: {why}");
    }
}

/// Whether a server that was last seen `silent_secs` ago may be dead. If it is, its locks can be taken.
fn may_be_dead(maker: Maker, has_lock: bool, silent_secs: i64) -> bool {
    // Without its lock file a directory is half made, or the file was removed from a living server's.
    (maker == Maker::ThisHost && has_lock) || silent_secs > HEARTBEAT_MAX_AGE_SECS
}

/// Opens the file that the server of a lock directory has locked, if there is one.
fn open_lock(dir: BorrowedFd<'_>) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(dir, LOCK, flags, Mode::empty()) {
        Ok(lock) if FileType::from_raw_mode(fstat(&lock)?.st_mode) == FileType::RegularFile => Ok(Some(lock)),
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// When a directory, or anything in it, was last changed, in seconds.
fn last_change(dir: BorrowedFd<'_>) -> rustix::io::Result<i64> {
    let at = |stat: Stat| stat.st_ctime;
    let mut last = at(fstat(dir)?);
    for_each_entry(dir, |name| {
        // If an entry was removed meanwhile, the directory has changed.
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        last = last.max(stat.map_or(i64::MIN, at));
    })?;
    Ok(last)
}

/// Removes what can only be a partial file: a numbered regular file.
fn remove_partial(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match kind_of(dir, name)? {
        Some(FileType::RegularFile) if is_number(name.to_bytes()) => Ok(unlinkat(dir, name, AtFlags::empty())?),
        _ => Err(io::Error::other(NOT_OURS)),
    }
}

/// As unlinkat(2), but without an error if another server has removed the file first.
fn unlink(at: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> rustix::io::Result<()> {
    match unlinkat(at, name, flags) {
        Err(errno) if is_gone(errno) => Ok(()),
        result => result,
    }
}

fn for_each_entry(directory: BorrowedFd<'_>, mut visit: impl FnMut(&CStr)) -> rustix::io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            visit(entry.file_name());
        }
    }
    Ok(())
}

fn is_number(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::{Path, PathBuf};
    use std::time::SystemTime;

    use rustix::fs::{CWD, fcntl_getfl, mknodat};

    use super::*;

    fn host(boot: &str) -> Host {
        Host { boot: boot.into(), device: 0x2b }
    }

    fn open(intake: &Path) -> OwnedFd {
        File::open(intake).unwrap().into()
    }

    /// A server that has started and swept.
    fn start(intake: &Path, boot: &str) -> LockDir {
        let server = LockDir::make(open(intake), host(boot)).unwrap();
        server.sweep(server.beat().unwrap(), log::Level::Warn).unwrap();
        server
    }

    /// What a killed server leaves.
    fn kill(server: LockDir) -> String {
        flock(&server.fd, FlockOperation::Unlock).unwrap();
        flock(&server.lock, FlockOperation::Unlock).unwrap();
        let name = server.name.to_str().unwrap().to_owned();
        std::mem::forget(server);
        name
    }

    fn plant_fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }

    fn listing(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_server_has_a_private_directory_and_removes_it() {
        let intake = tempfile::tempdir().unwrap();
        let servers = [start(intake.path(), "a"), start(intake.path(), "a"), start(intake.path(), "b")];
        assert_eq!(listing(intake.path()), ["server.a.2b.1", "server.a.2b.2", "server.b.2b.1"]);
        for name in listing(intake.path()) {
            assert_eq!(fs::metadata(intake.path().join(name)).unwrap().mode() & 0o777, 0o700);
        }
        drop(servers);
        assert!(listing(intake.path()).is_empty());
    }

    #[test]
    fn a_host_is_a_run_of_a_kernel_and_a_mount() {
        let this = host("0d-1f");
        for (name, maker) in [
            (c"server.0d-1f.2b.1", Some(Maker::ThisHost)),
            (c"server.0d-1f.2b.42", Some(Maker::ThisHost)),
            (c"server.0d-1f.2c.1", Some(Maker::AnotherHost)),
            (c"server.0d-1e.2b.1", Some(Maker::AnotherHost)),
            (c"7", Some(Maker::AnotherHost)),
            (c"server.0d-1f.2b.", None),
            (c"server.0d-1f.2b.x", None),
            (c"servers", None),
            (c"notes.1", None),
            (c"\xff.1", None),
        ] {
            assert_eq!(this.maker(name), maker, "{name:?}");
        }
        let base = tempfile::tempdir().unwrap();
        let (here, again) =
            (Host::of(open(base.path()).as_fd()).unwrap(), Host::of(open(base.path()).as_fd()).unwrap());
        assert_eq!(here.maker(&again.lock_dir(1)), Some(Maker::ThisHost));
        let proc = Host::of(open(Path::new("/proc")).as_fd()).unwrap();
        assert_eq!(here.maker(&proc.lock_dir(1)), Some(Maker::AnotherHost));
    }

    /// A lock directory with a partial file in it, and the locks that its server still holds.
    struct Found {
        path: PathBuf,
        held: Vec<OwnedFd>,
    }

    impl Found {
        /// `locks`: the locks that are held. `d`: the directory's, `f`: the file's, `-`: there is no file.
        fn plant(intake: &Path, name: &str, locks: &str) -> Self {
            let path = intake.join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("1"), "a partial").unwrap();
            let mut held = Vec::new();
            if locks.contains('d') {
                held.push(open(&path));
            }
            if !locks.contains('-') {
                let lock = File::create(path.join("lock")).unwrap();
                held.extend(locks.contains('f').then(|| lock.into()));
            }
            held.iter().for_each(|file| flock(file, FlockOperation::NonBlockingLockExclusive).unwrap());
            Self { path, held }
        }
    }

    #[test]
    fn only_what_is_surely_a_dead_servers_is_swept() {
        let (this, another, earlier) = ("server.a.2b.7", "server.b.2b.7", "7");
        for (name, locks, silent_secs, swept) in [
            (this, "df", 1_000_000, false),
            (this, "d", 1_000_000, false),
            (this, "f", 1_000_000, false),
            (this, "", 0, true),
            (this, "", -1_000_000, true),
            (this, "-", 590, false),
            (this, "-", 610, true),
            (this, "d-", 1_000_000, false),
            (another, "df", 1_000_000, false),
            (another, "f", 1_000_000, false),
            (another, "d", 1_000_000, false),
            (another, "", -1_000_000, false),
            (another, "", 0, false),
            (another, "", 590, false),
            (another, "", 610, true),
            (another, "-", 590, false),
            (another, "-", 610, true),
            (earlier, "d-", 1_000_000, false),
            (earlier, "-", 590, false),
            (earlier, "-", 610, true),
        ] {
            let intake = tempfile::tempdir().unwrap();
            let server = start(intake.path(), "a");
            let found = Found::plant(intake.path(), name, locks);
            let planted = last_change(open(&found.path).as_fd()).unwrap();
            server.sweep(planted + silent_secs, log::Level::Warn).unwrap();
            let case = format!("{name}, locks {locks:?}, silent for {silent_secs} s");
            assert_eq!(!found.path.exists(), swept, "{case}");
            assert_eq!(found.path.join("1").exists(), !swept, "{case}");
            drop(found.held);
        }
        assert!(!may_be_dead(Maker::AnotherHost, true, 600) && may_be_dead(Maker::AnotherHost, true, 601));
    }

    #[test]
    fn a_heartbeat_is_what_another_host_goes_by() {
        let intake = tempfile::tempdir().unwrap();
        let server = start(intake.path(), "a");
        let found = Found::plant(intake.path(), "server.b.2b.1", "");
        let lock = File::open(found.path.join("lock")).unwrap();
        let now = server.beat().unwrap();
        // Only the heartbeat is young, then only the heartbeat is old.
        lock.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now as u64 + 999_400)).unwrap();
        server.sweep(now + 1_000_000, log::Level::Warn).unwrap();
        assert!(found.path.exists());
        lock.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now as u64 - 601)).unwrap();
        server.sweep(now, log::Level::Warn).unwrap();
        assert!(!found.path.exists());
    }

    #[test]
    fn a_beat_tells_the_time_takes_the_lock_again_and_notices_what_is_gone() {
        let intake = tempfile::tempdir().unwrap();
        let server = start(intake.path(), "a");
        let path = intake.path().join("server.a.2b.1");
        let lock = File::options().write(true).open(path.join("lock")).unwrap();
        lock.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let now = server.beat().unwrap();
        assert_eq!(lock.metadata().unwrap().mtime(), now);
        assert!(now > 1_700_000_000, "{now}");

        flock(&server.lock, FlockOperation::Unlock).unwrap();
        server.beat().unwrap();
        assert_eq!(flock(&lock, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
        flock(&server.lock, FlockOperation::Unlock).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        server.beat().unwrap();
        drop(lock);

        fs::remove_file(path.join("lock")).unwrap();
        assert!(server.beat().is_err_and(is_gone));
        fs::remove_dir(&path).unwrap();
        assert!(server.beat().is_err_and(is_gone));
    }

    #[test]
    fn a_server_whose_directory_is_gone_leaves_the_next_one_of_its_name_alone() {
        let intake = tempfile::tempdir().unwrap();
        let server = start(intake.path(), "a");
        let path = intake.path().join("server.a.2b.1");
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
        drop(server);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_can_be_locked_only_when_it_is_open_for_writing_is_opened_so() {
        let intake = tempfile::tempdir().unwrap();
        let dir = open(intake.path());
        File::create(intake.path().join("lock")).unwrap();
        let flags = |how: OFlags| openat(&dir, LOCK, how | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let writable = |file: &OwnedFd| fcntl_getfl(file).unwrap().contains(OFlags::RDWR);
        let read_only = lock_file(dir.as_fd(), flags(OFlags::RDONLY)).unwrap();
        assert!(!writable(&read_only));
        assert_eq!(lock_file(dir.as_fd(), flags(OFlags::RDONLY)).unwrap_err(), Errno::WOULDBLOCK);
        drop(read_only);
        // A descriptor that says EBADF here, as NFS does for a file that is open for reading.
        let opened_anew = lock_file(dir.as_fd(), flags(OFlags::PATH)).unwrap();
        assert!(writable(&opened_anew));
        assert_eq!(lock_file(dir.as_fd(), flags(OFlags::PATH)).unwrap_err(), Errno::WOULDBLOCK);
    }

    #[test]
    fn a_directory_that_a_sweep_met_half_made_is_given_up_for_another() {
        let intake = tempfile::tempdir().unwrap();
        let fd = open(intake.path());
        assert!(make_lock(fd.as_fd(), c"removed").is_err_and(is_gone));
        fs::create_dir(intake.path().join("locked")).unwrap();
        let sweeper = open(&intake.path().join("locked"));
        flock(&sweeper, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(make_lock(fd.as_fd(), c"locked").unwrap_err(), Errno::WOULDBLOCK);
    }

    #[test]
    fn many_servers_start_sweep_and_end_at_once() {
        let intake = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for boot in ["a", "a", "a", "a", "b", "b", "c", "c"] {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let server = start(intake.path(), boot);
                        // As if every heartbeat were old: only the locks protect.
                        server.sweep(i64::MAX, log::Level::Debug).unwrap();
                        let mine = intake.path().join(server.name.to_str().unwrap());
                        fs::write(mine.join("1"), "a partial").unwrap();
                        server.sweep(i64::MAX, log::Level::Debug).unwrap();
                        fs::remove_file(mine.join("1")).unwrap();
                        server.beat().unwrap();
                    }
                });
            }
        });
        start(intake.path(), "d").sweep(i64::MAX, log::Level::Warn).unwrap();
        assert!(listing(intake.path()).is_empty());
    }

    #[test]
    fn a_dead_servers_directory_is_swept_and_a_living_ones_is_not() {
        let intake = tempfile::tempdir().unwrap();
        let (dead, living) = (start(intake.path(), "a"), start(intake.path(), "a"));
        let dead = intake.path().join(kill(dead));
        let alive = intake.path().join("server.a.2b.2");
        for file in [dead.join("1"), dead.join("18446744073709551615"), alive.join("1")] {
            fs::write(file, "a partial").unwrap();
        }
        let _next = start(intake.path(), "a");
        assert_eq!(listing(intake.path()), ["server.a.2b.2", "server.a.2b.3"]);
        assert_eq!(listing(&alive), ["1", "lock"]);
        fs::remove_file(alive.join("1")).unwrap();
        drop(living);
        assert_eq!(listing(intake.path()), ["server.a.2b.3"]);
    }

    #[test]
    fn what_no_server_made_is_left_and_stops_no_start() {
        let base = tempfile::tempdir().unwrap();
        let (intake, outside) = (base.path().join("intake"), base.path().join("outside"));
        fs::create_dir(&intake).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("1"), "precious").unwrap();

        let dead = intake.join(kill(start(&intake, "a")));
        symlink(&outside, intake.join("server.a.2b.2")).unwrap();
        symlink("nowhere", intake.join("server.a.2b.3")).unwrap();
        plant_fifo(&intake.join("server.a.2b.4"));
        fs::write(intake.join("server.a.2b.5"), "a file").unwrap();
        fs::create_dir(intake.join("server.a.2b.6")).unwrap();
        fs::create_dir(intake.join("server.a.2b.6/lock")).unwrap();
        fs::create_dir(intake.join("server.a.2b.7")).unwrap();
        plant_fifo(&intake.join("server.a.2b.7/lock"));
        fs::create_dir(intake.join("notes")).unwrap();
        fs::write(intake.join("notes/1"), "precious").unwrap();
        symlink(outside.join("1"), dead.join("2")).unwrap();
        symlink(&outside, dead.join("3")).unwrap();
        plant_fifo(&dead.join("4"));
        fs::create_dir(dead.join("5")).unwrap();
        fs::write(dead.join("notes"), "precious").unwrap();
        fs::write(dead.join("6"), "a partial").unwrap();
        let before = listing(&intake);

        let next = start(&intake, "a");
        assert_eq!(next.name.as_c_str(), c"server.a.2b.8");
        drop(next);
        assert_eq!(listing(&intake), before);
        assert_eq!(listing(&dead), ["2", "3", "4", "5", "notes"]);
        for file in [outside.join("1"), intake.join("notes/1"), dead.join("notes")] {
            assert_eq!(fs::read(&file).unwrap(), b"precious", "{}", file.display());
        }
    }
}

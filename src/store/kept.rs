//! Partial files that outlive their connection and their server, to be resumed: `.intake/kept/`.
//!
//! A file is named by a hash of its resume id. Beside it, in `….claim`, is its [`Record`]: what it is to become, and from
//! where it can be resumed. **The holder of the lock on the file owns both** (flock(2)). The lock holds between hosts (see
//! `lockdir`), and ends with the last descriptor, so a killed server holds none. If the record is missing, torn or of
//! another upload, a new file begins.
//!
//! **Kept content is never read again.** An upload is resumed from a state of its digest, and content beyond that is cut
//! off. So a resume takes as long for a large file as for a small one.
//!
//! A network file system remembers names for a second or so. A file that another host has just published may then still be
//! found here under its old name, and be locked. So a file that is not resumed is never truncated: it is removed by its name,
//! which the file system looks up anew, and another file is made.

use std::ffi::CStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::boot::boot_id;
use super::method::{FILE_MODE, Method, make};
use super::queue::withdraw;
use super::{Checkpoint, Content, Found, Owned, Owners, Patch, Record, StoreError, Target, Terms, blocks};
use crate::proto::{Algorithm, Hasher, Receipt, ResumeId};

/// The name of a record is that of its file, and this.
const RECORD: &str = ".claim";
/// How long a record is left after its file has gone. Longer than a sync of a directory takes.
const RECORD_TTL: Duration = Duration::from_secs(600);
/// How many records are left after their files have gone, once they are as old as that: several pages may send a thousand
/// files each. One takes 8 KiB at most.
const RECEIPTS_MAX: usize = 4096;

const NOT_OURS: &str = "something else has the name of a kept partial file";

/// Makes a file in the directory of kept files. Fails with `EEXIST` if the name is taken.
pub(super) type Make<'a> = &'a dyn Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<File>;

/// Opens a file. `None`: there is none, and none is to be made.
type Open<'a> = &'a dyn Fn() -> rustix::io::Result<Option<Locked>>;

/// The directory of kept files.
#[derive(Debug)]
pub(super) struct Kept {
    directory: OwnedFd,
    owners: Owners,
    /// See [`Kept::files`].
    files: AtomicU64,
}

/// A kept file that is ours until it is closed.
#[derive(Debug)]
pub(super) struct KeptFile {
    /// Positioned at its end.
    pub(super) file: File,
    pub(super) name: Box<str>,
    pub(super) record: Record,
    /// The checkpoint at its end.
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) owned: Arc<Owned>,
}

/// An open file that is locked, or will be.
#[derive(Debug)]
struct Locked {
    file: File,
    /// It was made by this call.
    is_new: bool,
}

/// What is left of an upload that may have been abandoned, and when it was last written to, in seconds since the epoch.
enum Abandoned {
    /// Its file.
    File(i64),
    /// Only its record.
    Record(i64),
    /// Nothing, or nothing that can be read.
    No,
}

impl Kept {
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self { directory, owners: Owners::default(), files: AtomicU64::new(0) }
    }

    /// Whether the file that is kept under `id` is ours.
    pub(super) fn has(&self, id: &ResumeId) -> bool {
        self.owners.has(&name_of(id))
    }

    /// Locks the file that is kept for `target`, or a new one that `make` makes.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another upload owns it, and any error of the file system.
    pub(super) fn claim(&self, id: &ResumeId, target: &Target, make: Make) -> Result<KeptFile, StoreError> {
        let name = name_of(id);
        let mut file = self.lock_or_make(&name, make)?;
        let record = self.read_record(&name);
        let mut found = Record::find(&record, target, content_of(&file.file)?, boot_id());
        if found.record.is_new() && !file.is_new {
            file = self.replace(&name, file, make)?;
            found = Record::find(&record, target, content_of(&file.file)?, boot_id());
        }
        self.own(&name, file.file, found)
    }

    /// Locks the file that is kept under `id`, which the server has made. `None`: there is none.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another upload owns it, and any error of the file system.
    pub(super) fn reopen(&self, id: &ResumeId) -> Result<Option<(KeptFile, Terms)>, StoreError> {
        let name = name_of(id);
        let Some(Locked { file, .. }) = self.lock(&name, &|| self.open(&name, OFlags::empty()))? else {
            return Ok(None);
        };
        let read = Record::read(&self.read_record(&name), content_of(&file)?, boot_id());
        let Some((terms, found)) = read.filter(|_| id.is_made()) else { return Ok(None) };
        Ok(Some((self.own(&name, file, found)?, terms)))
    }

    /// The receipt of the upload that was published under `id`, which the server has made.
    pub(super) fn receipt(&self, id: &ResumeId) -> Option<Receipt> {
        let name = name_of(id);
        let receipt = Record::read_end(&self.read_record(&name)).filter(|_| id.is_made())?;
        let has_gone = matches!(statat(&self.directory, &*name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT));
        has_gone.then_some(receipt)
    }

    /// Cuts off what no checkpoint covers, and notes that the file, which is locked, is ours.
    fn own(
        &self,
        name: &str,
        mut file: File,
        Found { record, checkpoint, patch }: Found,
    ) -> Result<KeptFile, StoreError> {
        if file.metadata()?.nlink() > 1 {
            withdraw(self.directory.as_fd(), &file)?;
        }
        let size = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.offset);
        if size < file.metadata()?.len() {
            file.set_len(size)?;
        }
        file.seek(SeekFrom::Start(size))?;
        if let Some(patch) = patch {
            self.write_record(name, &patch)?;
        }
        let owned = self.owners.own(name);
        Ok(KeptFile { file, name: name.into(), record, checkpoint, owned })
    }

    /// Removes the file `name` and its record. For its owner only.
    pub(super) fn remove(&self, name: &str) {
        self.remove_record(name);
        self.unlink(name);
    }

    /// Removes the record of `name`. For its owner only.
    pub(super) fn remove_record(&self, name: &str) {
        self.unlink(&record_of(name));
    }

    /// Removes the files, with their records, that have no owner and were not written to for `ttl`. Also removes the records
    /// without a file that are as old, and of the others the oldest beyond [`RECEIPTS_MAX`].
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn expire(&self, ttl: Duration) -> io::Result<()> {
        let (mut files, mut removed, mut receipts) = (0, 0, Vec::new());
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Some(name) = file_of(entry.file_name()) else { continue };
            files += u64::from(entry.file_name().count_bytes() == name.len());
            match self.abandoned_since(name) {
                Abandoned::File(since) if is_older(since, ttl) => {
                    removed += u64::from(self.remove_abandoned(name, ttl))
                }
                Abandoned::Record(since) if is_older(since, ttl.max(RECORD_TTL)) => {
                    self.remove_abandoned(name, ttl);
                }
                Abandoned::Record(since) => receipts.push((since, name.to_owned())),
                Abandoned::File(_) | Abandoned::No => {}
            }
        }
        receipts.sort_unstable();
        let most = receipts.len().saturating_sub(RECEIPTS_MAX);
        let too_many = receipts.iter().take(most).filter(|(since, _)| is_older(*since, RECORD_TTL));
        for (_, name) in too_many {
            self.remove_abandoned(name, ttl);
        }
        self.files.store(files.saturating_sub(removed), Ordering::Relaxed);
        if removed > 0 {
            log::info!("removed {removed} partial files that nobody has resumed for {ttl:?}");
        }
        Ok(())
    }

    /// How many files were there at the end of the last [`Kept::expire`], those of running uploads included.
    pub(super) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Gives back the blocks that a killed server had allocated in advance, for files without an owner.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn give_back_blocks(&self) -> io::Result<()> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            if let Some(name) = file_of(entry.file_name())
                && entry.file_name().count_bytes() == name.len()
                && let Ok(Some(Locked { file, .. })) = self.lock(name, &|| self.open(name, OFlags::empty()))
                && let Err(error) = blocks::give_back(&file)
            {
                log::warn!("{name} may take more of the disk than it holds: {error}");
            }
        }
        Ok(())
    }

    /// Removes this name only.
    pub(super) fn unlink(&self, name: &str) {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => log::warn!("{name} cannot be removed from what is kept: {errno}"),
        }
    }

    /// Since when nobody has written to the file `name`, or else to its record. To be sure, it has to be locked.
    fn abandoned_since(&self, name: &str) -> Abandoned {
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Abandoned::File(stat.st_mtime),
            Err(Errno::NOENT) => match statat(&self.directory, record_of(name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Abandoned::Record(stat.st_mtime),
                Err(_) => Abandoned::No,
            },
            Err(_) => Abandoned::No,
        }
    }

    /// Removes `name`, unless it has an owner or was written to meanwhile. Returns whether it has.
    fn remove_abandoned(&self, name: &str, ttl: Duration) -> bool {
        let Ok(Locked { file, is_new }) = self.lock_or_make(name, &make_plainly) else { return false };
        let is_abandoned = is_new || file.metadata().is_ok_and(|meta| is_older(meta.mtime(), ttl));
        if is_abandoned {
            self.remove(name);
        }
        is_abandoned
    }

    fn lock_or_make(&self, name: &str, make: Make) -> Result<Locked, StoreError> {
        Ok(self.lock(name, &|| self.open_or_make(name, make))?.ok_or(Errno::NOENT)?)
    }

    /// Opens the file `name` by `open`, and locks it. `None`: `open` finds none. If it loses its name before it is locked,
    /// it may be a published file by then, and the next one is tried.
    fn lock(&self, name: &str, open: Open) -> Result<Option<Locked>, StoreError> {
        loop {
            let Some(Locked { file, is_new }) = open()? else { return Ok(None) };
            let meta = file.metadata()?;
            check_ours(&meta)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(StoreError::BUSY),
                Err(errno) => return Err(errno.into()),
            }
            match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It has a second name, which may be a final one. So only the name here is removed.
                Ok(named) if named.st_ino == meta.ino() && named.st_nlink > 1 => self.unlink(name),
                Ok(named) if named.st_ino == meta.ino() => return Ok(Some(Locked { file, is_new })),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn open_or_make(&self, name: &str, make: Make) -> rustix::io::Result<Option<Locked>> {
        match make(self.as_fd(), name) {
            Ok(file) => Ok(Some(Locked { file, is_new: true })),
            // If it has just been removed, this makes it again. It counts as found.
            Err(Errno::EXIST) => self.open(name, OFlags::CREATE),
            Err(errno) => Err(errno),
        }
    }

    fn open(&self, name: &str, flags: OFlags) -> rustix::io::Result<Option<Locked>> {
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&self.directory, name, flags, FILE_MODE) {
            Ok(fd) => Ok(Some(Locked { file: fd.into(), is_new: false })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Replaces `found`, which is locked and cannot be resumed, by a new file.
    fn replace(&self, name: &str, found: Locked, make: Make) -> Result<Locked, StoreError> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        // If a file is found again, another upload was quicker, or the file system only remembers the name.
        let file = self.lock_or_make(name, make)?;
        drop(found);
        if file.is_new { Ok(file) } else { Err(StoreError::BUSY) }
    }

    /// Opens the record of `name`. For its owner only.
    pub(super) fn open_record(&self, name: &str) -> io::Result<File> {
        self.open_record_with(name, OFlags::RDWR)
    }

    /// Does not wait if the name is that of a pipe.
    fn open_record_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.directory, record_of(name), flags, Mode::RUSR | Mode::WUSR)?);
        let meta = file.metadata()?;
        check_ours(&meta)?;
        if meta.nlink() > 1 { Err(io::Error::other(NOT_OURS)) } else { Ok(file) }
    }

    /// The record of `name`, as far as it can be read. It may be missing.
    fn read_record(&self, name: &str) -> Vec<u8> {
        let mut record = Vec::new();
        if let Ok(file) = self.open_record_with(name, OFlags::RDONLY) {
            let _ = file.take(Record::MAX_BYTES as u64).read_to_end(&mut record);
        }
        record
    }

    /// Writes to the record of `name`. For its owner only. The rest of the record stays: the client may have been told what
    /// is there.
    pub(super) fn write_record(&self, name: &str, patch: &Patch) -> io::Result<()> {
        if patch.at == 0 {
            // If the name is taken, it is not by this upload.
            self.remove_record(name);
        }
        let file = self.open_record_with(name, OFlags::CREATE | OFlags::RDWR)?;
        file.write_all_at(&patch.bytes, patch.at)
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Makes a file that is only locked, not written to.
fn make_plainly(kept: BorrowedFd<'_>, name: &str) -> rustix::io::Result<File> {
    make(kept, Method::Named, kept, name)
}

/// # Errors
/// The file is not a regular one of our user: another program has put it there.
fn check_ours(meta: &Metadata) -> io::Result<()> {
    let is_ours = meta.is_file() && meta.uid() == geteuid().as_raw();
    if is_ours { Ok(()) } else { Err(io::Error::other(NOT_OURS)) }
}

/// The name of the file that is kept under `id`. All names have one length, and an id cannot be found from its name.
fn name_of(id: &ResumeId) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(id.as_str().as_bytes());
    hasher.finish().to_hex()
}

fn record_of(name: &str) -> String {
    format!("{name}{RECORD}")
}

/// The name of the file that a directory entry belongs to: it is the file or its record.
fn file_of(entry: &CStr) -> Option<&str> {
    let name = entry.to_str().ok()?;
    let name = name.strip_suffix(RECORD).unwrap_or(name);
    (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// The length of a file, and a number that tells it from other files. The inode number alone does not: another file may get
/// it later.
fn content_of(file: &File) -> io::Result<Content> {
    let meta = file.metadata()?;
    let made = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let identity =
        [meta.ino().to_be_bytes(), made.as_secs().to_be_bytes(), u64::from(made.subsec_nanos()).to_be_bytes()];
    Ok(Content { id: crc32c::crc32c(identity.as_flattened()), length: meta.len() })
}

/// Whether `changed` (seconds since the epoch) is longer ago than `ttl`.
fn is_older(changed: i64, ttl: Duration) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the file's own time is of the wall clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(changed.max(0).cast_unsigned())) > ttl
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;
    use crate::proto::{Digest, Name, NamePolicy, OnExists, Promise};

    fn open(path: &Path) -> Kept {
        Kept::new(File::open(path).unwrap().into())
    }

    fn id(id: &str) -> ResumeId {
        ResumeId::parse(id).unwrap()
    }

    /// Claims `id` for a file, and returns what it holds.
    fn claim(kept: &Kept, as_id: &str, name: &str, size: u64, promise: Promise) -> Result<KeptFile, StoreError> {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        let target = Target { size: Some(size), promise: Some(promise), ..Target::new(&name, OnExists::Rename) };
        kept.claim(&id(as_id), &target, &make_plainly)
    }

    fn sum(content: &[u8]) -> Hasher {
        let mut hasher = Hasher::new(Algorithm::Crc32c);
        hasher.update(content);
        hasher
    }

    fn add_state(kept: &Kept, claimed: &mut KeptFile, offset: u64, hasher: &Hasher) {
        let patch = claimed.record.add(&Checkpoint { offset, hasher: Some(hasher.clone()) }, None);
        kept.write_record(&claimed.name, &patch).unwrap();
    }

    /// The content that is resumed. Checks the length, the position and the state of the digest.
    fn held(claimed: Result<KeptFile, StoreError>) -> String {
        let mut claimed = claimed.unwrap();
        let offset = claimed.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.offset);
        assert_eq!((claimed.file.metadata().unwrap().len(), claimed.file.stream_position().unwrap()), (offset, offset));
        let mut content = String::new();
        claimed.file.rewind().unwrap();
        claimed.file.read_to_string(&mut content).unwrap();
        let state =
            claimed.checkpoint.map_or_else(|| sum(b"").state(), |checkpoint| checkpoint.hasher.unwrap().state());
        assert_eq!(state, sum(content.as_bytes()).state());
        content
    }

    const LATER: Promise = Promise::Trailer(Algorithm::Crc32c);
    const DIGEST: Promise = Promise::Known(Digest::Crc32c(7));
    const OTHER: Promise = Promise::Known(Digest::Crc32c(8));

    fn record_path(base: &Path, as_id: &str) -> PathBuf {
        base.join(record_of(&name_of(&id(as_id))))
    }

    /// Keeps `abc` of a file `a` of 9 bytes under the id `x`.
    fn leave(kept: &Kept, promise: Promise) {
        kept.remove(&name_of(&id("x")));
        let mut claimed = claim(kept, "x", "a", 9, promise).unwrap();
        claimed.file.write_all(b"abc").unwrap();
        add_state(kept, &mut claimed, 3, &sum(b"abc"));
    }

    #[test]
    fn the_same_claim_is_resumed_and_any_other_begins_anew() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        for (left, name, size, promise, expected) in [
            (LATER, "a", 9, LATER, "abc"),
            (LATER, "a", 9, DIGEST, "abc"),
            (DIGEST, "a", 9, LATER, "abc"),
            (DIGEST, "a", 9, DIGEST, "abc"),
            (DIGEST, "a", 9, OTHER, ""),
            (LATER, "b", 9, LATER, ""),
            (LATER, "a", 8, LATER, ""),
            (LATER, "a", 2, LATER, ""),
            (LATER, "a", 9, Promise::Trailer(Algorithm::Sha256), ""),
            (LATER, "a", 9, Promise::Known(Digest::Sha256([0; 32])), ""),
        ] {
            leave(&kept, left);
            assert_eq!(held(claim(&kept, "x", name, size, promise)), expected, "{left:?} {name} {size} {promise:?}");
            assert_eq!(held(claim(&kept, "y", name, size, promise)), "", "another id");
        }
        // A digest that became known stays known.
        leave(&kept, LATER);
        assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "abc");
        assert_eq!(held(claim(&kept, "x", "a", 9, LATER)), "abc");
        assert_eq!(held(claim(&kept, "x", "a", 9, OTHER)), "");
    }

    #[test]
    fn a_file_that_is_not_resumed_is_never_written_to() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        for (name, size) in [("b", 9), ("a", 2)] {
            leave(&kept, LATER);
            // As if another host had published the file, and this one only remembered the old name.
            let published = base.path().join("published");
            fs::hard_link(base.path().join(name_of(&id("x"))), &published).unwrap();
            let mut claimed = claim(&kept, "x", name, size, LATER).unwrap();
            claimed.file.write_all(b"another").unwrap();
            assert_eq!(fs::read(&published).unwrap(), b"abc");
            assert!(matches!(claim(&kept, "x", name, size, LATER), Err(StoreError::Busy(_))), "the new file is locked");
            fs::remove_file(published).unwrap();
        }
    }

    #[test]
    fn what_goes_beyond_the_last_state_is_cut_off() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        let append = |bytes: &[u8]| {
            let mut claimed = claim(&kept, "x", "a", 9, LATER).unwrap();
            claimed.file.write_all(bytes).unwrap();
            claimed
        };
        // As a killed server leaves it.
        leave(&kept, LATER);
        drop(append(b"de"));
        assert_eq!(held(claim(&kept, "x", "a", 9, LATER)), "abc");
        // As a server leaves it that is killed before the first state.
        fs::remove_file(record_path(base.path(), "x")).unwrap();
        drop(append(b"abc"));
        assert_eq!(held(claim(&kept, "x", "a", 9, LATER)), "");
    }

    #[test]
    fn a_file_that_is_shorter_than_its_state_begins_anew() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        leave(&kept, LATER);
        let mut claimed = claim(&kept, "x", "a", 9, LATER).unwrap();
        claimed.file.write_all(b"def").unwrap();
        add_state(&kept, &mut claimed, 6, &sum(b"abcdef"));
        // As a power cut leaves it.
        claimed.file.set_len(5).unwrap();
        drop(claimed);
        assert_eq!(held(claim(&kept, "x", "a", 9, LATER)), "");
    }

    #[test]
    fn a_record_without_a_state_as_earlier_versions_left_it_begins_anew() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        leave(&kept, LATER);
        fs::write(record_path(base.path(), "x"), "9 - a\n").unwrap();
        assert_eq!(held(claim(&kept, "x", "a", 9, LATER)), "");
    }

    #[test]
    fn a_record_that_is_torn_or_missing_begins_anew_or_is_whole() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        let path = record_path(base.path(), "x");
        leave(&kept, DIGEST);
        let whole = fs::read(&path).unwrap();
        let mut resumed = 0;
        // Of the padding in between, one place is enough.
        let is_telling = |at: &usize| whole[*at] != 0 || whole[at.saturating_sub(1)] != 0;
        for torn in (0..whole.len()).filter(is_telling) {
            leave(&kept, DIGEST);
            // The record of a new file differs.
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..torn]).unwrap();
            let held = held(claim(&kept, "x", "a", 9, DIGEST));
            assert!(held.is_empty() || whole[torn..].iter().all(|byte| *byte == 0), "{torn}");
            resumed += usize::from(!held.is_empty());
        }
        assert!(resumed > 0, "only the padding is torn off at the end");
        leave(&kept, DIGEST);
        fs::remove_file(&path).unwrap();
        assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "");
    }

    #[test]
    fn one_owns_it_at_a_time_and_a_file_that_has_moved_out_is_never_touched_again() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        leave(&kept, LATER);
        let owner = claim(&kept, "x", "a", 9, LATER).unwrap();
        assert!(matches!(claim(&open(base.path()), "x", "a", 9, LATER), Err(StoreError::Busy(_))));
        // After the publish the name is free. A process that has the file open must not take it for the kept one.
        fs::rename(base.path().join(&*owner.name), base.path().join("a")).unwrap();
        let mut next = claim(&kept, "x", "a", 9, LATER).unwrap();
        assert!(next.checkpoint.is_none());
        next.file.write_all(b"new").unwrap();
        assert_eq!(fs::read(base.path().join("a")).unwrap(), b"abc");
    }

    #[test]
    fn nothing_is_written_to_what_was_planted_and_no_pipe_is_waited_for() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        let name = name_of(&id("x"));
        let (file, record, precious) =
            (base.path().join(&name), base.path().join(record_of(&name)), base.path().join("precious"));
        fs::write(&precious, "abc").unwrap();
        let plant = |at: &Path, kind: &str| {
            leave(&kept, DIGEST);
            fs::remove_file(at).unwrap();
            match kind {
                "hard link" => fs::hard_link(&precious, at).unwrap(),
                "symbolic link" => std::os::unix::fs::symlink(&precious, at).unwrap(),
                _ => mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            }
        };
        for kind in ["hard link", "symbolic link", "pipe"] {
            plant(&record, kind);
            assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "", "{kind}");
            leave(&kept, DIGEST);
            assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "abc", "its record is a file again");

            plant(&file, kind);
            match claim(&kept, "x", "a", 9, DIGEST) {
                Ok(mut claimed) => claimed.file.write_all(b"new").unwrap(),
                Err(error) => assert!(matches!(error, StoreError::Io(_)), "{kind}: {error}"),
            }
            assert_eq!(fs::read(&precious).unwrap(), b"abc", "{kind}");
        }
    }

    #[test]
    fn what_nobody_owns_or_writes_to_expires() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        let left = || fs::read_dir(base.path()).unwrap().count();
        fs::write(base.path().join("notes"), "precious").unwrap();
        leave(&kept, LATER);
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 3);
        let owner = claim(&kept, "x", "a", 9, LATER).unwrap();
        owner.file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 3);
        drop(owner);
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 1);
        fs::write(record_path(base.path(), "x"), "alone").unwrap();
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 2, "a file may still be on its way out");
        File::open(record_path(base.path(), "x")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 1);
    }
}

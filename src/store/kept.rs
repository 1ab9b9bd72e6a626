//! Partial files that outlive their connection and their server, to be gone on with: `.intake/kept/`.
//!
//! A file is named by a hash of its resume id. Beside it, in `….claim`, stands what it is to become. **Who holds the lock on
//! the file owns both** (flock(2)). The lock holds between hosts (see `lockdir`), and goes with the last descriptor, so a killed
//! server holds none. A claim that is missing, torn or another upload's makes a new file begin: nothing has to be written in
//! any order for that to be safe, and what is resumed by mistake fails its digest. If the digest becomes known later it is
//! appended as a new line.
//!
//! A network file system remembers names for a second or so. A file that another host has just published may then still be
//! found here under its old name, and be locked. So what is not resumed is never truncated: it is removed by its name, which
//! the file system looks up anew, and another file is made.

use std::ffi::CStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::method::{FILE_MODE, Method, make};
use super::{StoreError, Target, blocks};
use crate::proto::{Algorithm, Hasher, ResumeId};

const BUSY: StoreError = StoreError::Busy("another upload goes on under this resume id");

/// The directory of kept files, in `.intake`.
pub(super) const KEPT: &CStr = c"kept";

/// What ends the name of a claim, after that of its file.
const CLAIM: &str = ".claim";
/// Longer than any claim, in bytes.
const CLAIM_MAX_BYTES: u64 = 1024;

const NOT_OURS: &str = "something else has the name of a kept partial file";

/// Makes a file under a name that nothing else has in the directory of kept files; else fails with `EEXIST`.
pub(super) type Make<'a> = &'a dyn Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<File>;

/// The directory of kept files.
#[derive(Debug)]
pub(super) struct Kept(OwnedFd);

/// A kept file that is ours until it is closed.
#[derive(Debug)]
pub(super) struct KeptFile {
    pub(super) file: File,
    pub(super) name: Box<str>,
    /// What it holds already, in bytes.
    pub(super) size: u64,
}

/// An open file that nobody else has locked.
#[derive(Debug)]
struct Locked {
    file: File,
    /// It was made just now.
    is_new: bool,
}

impl Kept {
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// The file that is kept for `target`, or a new one that `make` makes: locked, and at its beginning.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another upload owns it, and whatever the file system says.
    pub(super) fn claim(&self, id: &ResumeId, target: &Target, make: Make) -> Result<KeptFile, StoreError> {
        let name = name_of(id);
        let mut file = self.lock(&name, make)?;
        let wanted = claim_for(target);
        let found = self.read_claim(&name);
        let latest = found.split_inclusive('\n').next_back();
        let agrees = latest.is_some_and(|latest| agree(latest, &wanted));
        let held = file.file.metadata()?.len();
        let size = if agrees && target.size.is_some_and(|size| held <= size) { held } else { 0 };
        if size == 0 && !file.is_new {
            file = self.replace(&name, file, make)?;
        }
        if !agrees {
            self.write_claim(&name, "", &wanted)?;
        } else if target.digest.is_some() && latest != Some(&wanted) {
            self.write_claim(&name, &found, &wanted)?;
        }
        Ok(KeptFile { file: file.file, name: name.into(), size })
    }

    /// Removes the file `name` and its claim. For its owner only.
    pub(super) fn remove(&self, name: &str) {
        self.remove_claim(name);
        self.unlink(name);
    }

    /// Removes the claim of `name`. For its owner only.
    pub(super) fn remove_claim(&self, name: &str) {
        self.unlink(&claim_of(name));
    }

    /// Removes what nobody owns and nobody has written to for `ttl`, and what is empty.
    ///
    /// # Errors
    /// That the directory cannot be read.
    pub(super) fn expire(&self, ttl: Duration) -> io::Result<()> {
        let mut removed = 0;
        for entry in Dir::read_from(&self.0)? {
            if let Some(name) = file_of(entry?.file_name())
                && self.may_be_abandoned(name, ttl)
                && let Ok(Locked { file, .. }) = self.lock(name, &make_plainly)
                && file.metadata().is_ok_and(|meta| is_abandoned(meta.len(), meta.mtime(), ttl))
            {
                self.remove(name);
                removed += 1;
            }
        }
        if removed > 0 {
            log::info!("removed {removed} partial files that nobody has gone on with for {ttl:?}");
        }
        Ok(())
    }

    /// Gives back the blocks that a killed server had allocated in advance, of files that nobody owns.
    ///
    /// # Errors
    /// That the directory cannot be read.
    pub(super) fn give_back_blocks(&self) -> io::Result<()> {
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            if let Some(name) = file_of(entry.file_name())
                && entry.file_name().count_bytes() == name.len()
                && let Ok(Locked { file, .. }) = self.lock(name, &make_plainly)
                && let Err(error) = blocks::give_back(&file)
            {
                log::warn!("{name} may take more of the disk than it holds: {error}");
            }
        }
        Ok(())
    }

    fn unlink(&self, name: &str) {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => log::warn!("{name} cannot be removed from what is kept: {errno}"),
        }
    }

    /// Whether `name` is worth being locked to see whether it is abandoned. A claim without its file is.
    fn may_be_abandoned(&self, name: &str, ttl: Duration) -> bool {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => is_abandoned(stat.st_size.cast_unsigned(), stat.st_mtime, ttl),
            Err(errno) => errno == Errno::NOENT,
        }
    }

    /// Opens or makes the file `name`, and locks it. Before it is locked it can have lost its name: then it is somebody's
    /// final file by now.
    fn lock(&self, name: &str, make: Make) -> Result<Locked, StoreError> {
        loop {
            let Locked { file, is_new } = self.open(name, make)?;
            let meta = file.metadata()?;
            check_ours(&meta)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(BUSY),
                Err(errno) => return Err(errno.into()),
            }
            match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It has another name as well, which may be a final one: only the name here is given up.
                Ok(named) if named.st_ino == meta.ino() && named.st_nlink > 1 => self.unlink(name),
                Ok(named) if named.st_ino == meta.ino() => return Ok(Locked { file, is_new }),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn open(&self, name: &str, make: Make) -> rustix::io::Result<Locked> {
        match make(self.as_fd(), name) {
            Ok(file) => Ok(Locked { file, is_new: true }),
            Err(Errno::EXIST) => {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                // Without EXCL it may be made here all the same, where it has just gone. It counts as found.
                let fd = openat(&self.0, name, flags | OFlags::CREATE, FILE_MODE)?;
                Ok(Locked { file: fd.into(), is_new: false })
            }
            Err(errno) => Err(errno),
        }
    }

    /// A new file in the place of `found`, which is locked and is not to be resumed.
    fn replace(&self, name: &str, found: Locked, make: Make) -> Result<Locked, StoreError> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Found again: another upload was quicker, or the name is one that the file system only remembers.
        let file = self.lock(name, make)?;
        drop(found);
        if file.is_new { Ok(file) } else { Err(BUSY) }
    }

    /// Opens the claim of `name`, to be read or synced.
    pub(super) fn open_claim(&self, name: &str) -> io::Result<File> {
        self.open_claim_with(name, OFlags::RDONLY)
    }

    /// Never waits for what has the name, if that is a pipe.
    fn open_claim_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, claim_of(name), flags, Mode::RUSR | Mode::WUSR)?);
        let meta = file.metadata()?;
        check_ours(&meta)?;
        if meta.nlink() > 1 { Err(io::Error::other(NOT_OURS)) } else { Ok(file) }
    }

    /// The whole lines of the claim of `name`: the last one counts, what is torn does not.
    fn read_claim(&self, name: &str) -> String {
        let file = self.open_claim(name);
        let claim = file.and_then(|file| io::read_to_string(file.take(CLAIM_MAX_BYTES))).unwrap_or_default();
        let whole = claim.rfind('\n').map_or(0, |end| end + 1);
        claim[..whole].to_owned()
    }

    /// Adds `line` to what is to stay of the claim. That may have been synced, and told as held: it is never overwritten.
    fn write_claim(&self, name: &str, stays: &str, line: &str) -> io::Result<()> {
        if stays.is_empty() {
            // Whatever has the name, it is not this upload's.
            self.remove_claim(name);
        }
        let file = self.open_claim_with(name, OFlags::CREATE | OFlags::WRONLY)?;
        let end = stays.len() as u64;
        file.set_len(end)?;
        file.write_all_at(line.as_bytes(), end)
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Of a file that only others will fill, or nobody.
fn make_plainly(kept: BorrowedFd<'_>, name: &str) -> rustix::io::Result<File> {
    make(kept, Method::Named, kept, name)
}

/// Others may have planted something, with our user's rights.
fn check_ours(meta: &Metadata) -> io::Result<()> {
    let is_ours = meta.is_file() && meta.uid() == geteuid().as_raw();
    if is_ours { Ok(()) } else { Err(io::Error::other(NOT_OURS)) }
}

/// Of one length whatever the id, and telling nobody what that is.
fn name_of(id: &ResumeId) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(id.as_str().as_bytes());
    hasher.finish().to_hex()
}

fn claim_of(name: &str) -> String {
    format!("{name}{CLAIM}")
}

/// The name of the file that an entry of the directory is, or is the claim of.
fn file_of(entry: &CStr) -> Option<&str> {
    let name = entry.to_str().ok()?;
    let name = name.strip_suffix(CLAIM).unwrap_or(name);
    (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// Whether a file of `size` bytes is one that nobody resumes any more, `changed` being in seconds since the epoch.
fn is_abandoned(size: u64, changed: i64, ttl: Duration) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the file's own time is of the wall clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_secs(changed.max(0).cast_unsigned()));
    size == 0 || age > ttl
}

/// A line of a claim, `SIZE DIGEST NAME LF`: the LF tells that it is whole.
fn claim_for(&Target { name, size, digest, .. }: &Target) -> String {
    let digest = digest.map_or("-".to_owned(), |digest| digest.to_string());
    format!("{} {digest} {name}\n", size.unwrap_or(0))
}

/// Whether two lines are for the same file. A digest that one of them does not know yet is no difference.
fn agree(a: &str, b: &str) -> bool {
    let parts = |line: &str| -> Option<[String; 3]> {
        let parts: Vec<String> = line.strip_suffix('\n')?.splitn(3, ' ').map(Into::into).collect();
        parts.try_into().ok()
    };
    let (Some([size, digest, name]), Some([other_size, other_digest, other_name])) = (parts(a), parts(b)) else {
        return false;
    };
    let digests_agree = digest == other_digest || digest == "-" || other_digest == "-";
    size == other_size && name == other_name && digests_agree
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;
    use crate::proto::{Digest, Name, NamePolicy, OnExists};

    fn open(path: &Path) -> Kept {
        Kept::new(File::open(path).unwrap().into())
    }

    fn id(id: &str) -> ResumeId {
        ResumeId::parse(id).unwrap()
    }

    /// Claims `id` for a file, and returns what it holds.
    fn claim(kept: &Kept, as_id: &str, name: &str, size: u64, digest: Option<Digest>) -> Result<KeptFile, StoreError> {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        let target = Target { size: Some(size), digest, ..Target::new(&name, OnExists::Rename) };
        kept.claim(&id(as_id), &target, &make_plainly)
    }

    fn held(claimed: Result<KeptFile, StoreError>) -> String {
        let mut claimed = claimed.unwrap();
        let mut content = String::new();
        claimed.file.read_to_string(&mut content).unwrap();
        assert_eq!(content.len() as u64, claimed.size);
        content
    }

    const DIGEST: Option<Digest> = Some(Digest::Crc32c(7));
    const OTHER: Option<Digest> = Some(Digest::Crc32c(8));

    /// Leaves `abc` of a file `a` of 9 bytes under the id `x`.
    fn leave(kept: &Kept, digest: Option<Digest>) {
        kept.remove(&name_of(&id("x")));
        claim(kept, "x", "a", 9, digest).unwrap().file.write_all(b"abc").unwrap();
    }

    #[test]
    fn the_same_claim_goes_on_and_any_other_starts_anew() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        for (left, name, size, digest, expected) in [
            (None, "a", 9, None, "abc"),
            (None, "a", 9, DIGEST, "abc"),
            (DIGEST, "a", 9, None, "abc"),
            (DIGEST, "a", 9, DIGEST, "abc"),
            (DIGEST, "a", 9, OTHER, ""),
            (None, "b", 9, None, ""),
            (None, "a", 8, None, ""),
            (None, "a", 2, None, ""),
        ] {
            leave(&kept, left);
            assert_eq!(held(claim(&kept, "x", name, size, digest)), expected, "{left:?} {name} {size} {digest:?}");
            assert_eq!(held(claim(&kept, "y", name, size, digest)), "", "another id");
        }
        // A digest that came to be known stays known.
        leave(&kept, None);
        assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "abc");
        assert_eq!(held(claim(&kept, "x", "a", 9, None)), "abc");
        assert_eq!(held(claim(&kept, "x", "a", 9, OTHER)), "");
    }

    #[test]
    fn a_file_that_is_not_resumed_is_never_written_to() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        for (name, size) in [("b", 9), ("a", 2)] {
            leave(&kept, None);
            // As if the file had been published by another host, and its old name were only remembered here.
            let published = base.path().join("published");
            fs::hard_link(base.path().join(name_of(&id("x"))), &published).unwrap();
            let mut claimed = claim(&kept, "x", name, size, None).unwrap();
            claimed.file.write_all(b"another").unwrap();
            assert_eq!(fs::read(&published).unwrap(), b"abc");
            assert!(matches!(claim(&kept, "x", name, size, None), Err(StoreError::Busy(_))), "the new file is locked");
            fs::remove_file(published).unwrap();
        }
    }

    #[test]
    fn a_claim_that_is_torn_or_missing_starts_anew() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        let path = base.path().join(claim_of(&name_of(&id("x"))));
        leave(&kept, DIGEST);
        let whole = fs::read(&path).unwrap();
        for torn in 0..whole.len() {
            leave(&kept, DIGEST);
            fs::write(&path, &whole[..torn]).unwrap();
            assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "", "{torn}");
        }
        leave(&kept, DIGEST);
        fs::remove_file(&path).unwrap();
        assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "");
    }

    #[test]
    fn what_comes_to_be_known_leaves_what_was_known_before() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        let path = base.path().join(claim_of(&name_of(&id("x"))));
        leave(&kept, None);
        let before = fs::read(&path).unwrap();
        claim(&kept, "x", "a", 9, DIGEST).unwrap();
        let after = fs::read(&path).unwrap();
        assert!(after.starts_with(&before));
        for torn in before.len()..after.len() {
            fs::write(&path, &after[..torn]).unwrap();
            assert_eq!(held(claim(&kept, "x", "a", 9, OTHER)), "abc", "{torn}: the digest is not known any more");
            fs::write(&path, &after[..torn]).unwrap();
            assert_eq!(held(claim(&kept, "x", "a", 9, DIGEST)), "abc", "{torn}");
            assert_eq!(fs::read(&path).unwrap(), after);
        }
        // However often it is told.
        claim(&kept, "x", "a", 9, DIGEST).unwrap();
        assert_eq!(fs::read(&path).unwrap(), after);
    }

    #[test]
    fn one_owns_it_at_a_time_and_a_file_that_has_moved_out_is_never_touched_again() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        leave(&kept, None);
        let owner = claim(&kept, "x", "a", 9, None).unwrap();
        assert!(matches!(claim(&open(base.path()), "x", "a", 9, None), Err(StoreError::Busy(_))));
        // Published: the name is free, and whoever has the file open already must not take it for the kept one.
        fs::rename(base.path().join(&*owner.name), base.path().join("a")).unwrap();
        let mut next = claim(&kept, "x", "a", 9, None).unwrap();
        assert_eq!(next.size, 0);
        next.file.write_all(b"new").unwrap();
        assert_eq!(fs::read(base.path().join("a")).unwrap(), b"abc");
    }

    #[test]
    fn nothing_is_written_to_what_was_planted_and_no_pipe_is_waited_for() {
        let base = tempfile::tempdir().unwrap();
        let kept = open(base.path());
        let name = name_of(&id("x"));
        let (file, record, precious) =
            (base.path().join(&name), base.path().join(claim_of(&name)), base.path().join("precious"));
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
        leave(&kept, None);
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 3);
        let owner = claim(&kept, "x", "a", 9, None).unwrap();
        owner.file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 3);
        drop(owner);
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 1);
        fs::write(base.path().join(claim_of(&name_of(&id("x")))), "alone").unwrap();
        kept.expire(Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), 1);
    }
}

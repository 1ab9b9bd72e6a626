//! The open directories that uploads are stored in: the directory itself, and the server's own ones in `.intake`.
//!
//! The server's own files are its lock directory and the kept files. If another program removes them while the server runs,
//! the uploads in there fail and no others: the directories are made again ([`Handles::with_intake`]).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::fs::{Mode, fchmod, fstat, fsync, mkdirat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;

use super::blocks::Blocks;
use super::kept::Kept;
use super::lockdir::{Host, KEPT, LockDir, is_gone, open_directory, touch};
use super::queue::Queue;
use super::space::{Reservation, Space};
use super::{StoreError, blocks, cannot};

/// The directory of the server's own files. It is hidden, and the name of an upload never begins with a dot.
const INTAKE: &str = ".intake";

/// [`INTAKE`], in words about the directory that it is in.
const OURS: &str = "its .intake";

/// What a partial file needs of its directory.
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) directory: OwnedFd,
    /// The free space that all uploads share.
    pub(super) space: Space,
    /// Whether blocks are allocated in advance there.
    pub(super) allocates: bool,
    /// Where published files are queued, if they are.
    pub(super) queue: OnceLock<Arc<Queue>>,
    intake: Mutex<Arc<Intake>>,
}

/// The server's own files.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) lockdir: LockDir,
    pub(super) kept: Kept,
}

impl Handles {
    /// Makes the server's own files in `directory` and removes what dead servers left there.
    ///
    /// # Errors
    /// In words: `.intake` belongs to another user or is no directory; any error of the file system.
    pub(super) fn open(directory: OwnedFd) -> io::Result<Self> {
        let intake = Intake::open(directory.as_fd())?;
        intake.beat_and_sweep(log::Level::Warn).map_err(cannot(OURS, "swept"))?;
        let allocates = blocks::pay(&directory)?;
        let intake = Mutex::new(Arc::new(intake));
        Ok(Self { directory, space: Space::default(), allocates, queue: OnceLock::new(), intake })
    }

    /// Sets space aside for the rest of an upload, of which `file` has the first `at` bytes. `None`: its size is not known.
    ///
    /// # Errors
    /// [`StoreError::Full`], and any other error of the file system.
    pub(super) fn set_aside(&self, file: &File, size: Option<u64>, at: u64) -> Result<Option<Blocks>, StoreError> {
        let rest = size.map(|size| size.saturating_sub(at));
        let reservation = self.space.reserve(&self.directory, rest)?;
        self.blocks(file, size, reservation)
    }

    /// The blocks for an upload. `None`: its size is not known, and they are made when it grows long, so that an idle
    /// connection has none.
    ///
    /// # Errors
    /// As [`Blocks::of_size`].
    pub(super) fn blocks(
        &self,
        file: &File,
        size: Option<u64>,
        reservation: Reservation,
    ) -> Result<Option<Blocks>, StoreError> {
        size.map(|size| Blocks::of_size(file, size, self.allocates, reservation)).transpose()
    }

    /// The server's own files. They may have been removed.
    pub(super) fn intake(&self) -> Arc<Intake> {
        self.intake.lock().expect("its holders do not panic").clone()
    }

    /// Does `work` in the server's own files. If they were removed, makes them again and repeats `work`.
    ///
    /// # Errors
    /// Those of `work`, and that the files cannot be made again.
    pub(super) fn with_intake<T>(&self, work: impl Fn(&Arc<Intake>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let intake = self.intake();
        match work(&intake) {
            Err(StoreError::Io(error)) if Errno::from_io_error(&error).is_some_and(is_gone) => {
                work(&self.replace(&intake)?)
            }
            result => result,
        }
    }

    /// Makes the server's own files again, unless another thread has. Both threads may try, as they hold no lock meanwhile:
    /// the second one drops what it made.
    fn replace(&self, gone: &Arc<Intake>) -> io::Result<Arc<Intake>> {
        if !gone.is_gone() {
            return Ok(gone.clone());
        }
        let made = Arc::new(Intake::open(self.directory.as_fd())?);
        // A client is told an offset when the directory of kept files is synced. So the directories above it must be
        // durable.
        made.sync()?;
        retry_on_intr(|| fsync(&self.directory))?;
        let mut current = self.intake.lock().expect("its holders do not panic");
        if Arc::ptr_eq(&current, gone) {
            log::warn!("somebody removed the server's own files in .intake: uploads in there fail, new ones are taken");
            *current = made;
        }
        Ok(current.clone())
    }

    /// Tells other servers that this one lives, and removes what dead servers left and kept uploads that were not resumed
    /// for `partial_ttl`. Waits for the file system.
    pub(super) fn tend(&self, partial_ttl: Duration) {
        let tended = self.with_intake(|intake| {
            intake.beat_and_sweep(log::Level::Debug)?;
            Ok(intake.kept.expire(partial_ttl)?)
        });
        if let Err(error) = tended {
            log::warn!("{OURS} cannot be looked after: {error}");
        }
        if let Some(Err(error)) = self.queue.get().map(|queue| queue.recount()) {
            log::warn!("the queue in {OURS} cannot be counted: {error}");
        }
    }
}

impl Intake {
    fn open(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let intake = open_intake(directory)?;
        let kept = Kept::new(open_kept(intake.as_fd())?);
        let host = Host::of(intake.as_fd())?;
        let lockdir = LockDir::make(intake, host).map_err(cannot(OURS, "given a lock directory for this server"))?;
        Ok(Self { lockdir, kept })
    }

    fn beat_and_sweep(&self, level: log::Level) -> rustix::io::Result<()> {
        let now = self.lockdir.beat()?;
        self.lockdir.sweep(now, level)
    }

    /// Whether the lock directory, its lock or the directory of kept files was removed.
    fn is_gone(&self) -> bool {
        let looked = self.lockdir.beat().and_then(|_| touch(self.kept.as_fd()));
        looked.is_err_and(is_gone)
    }

    /// Returns when the server's own directories would survive a power cut.
    ///
    /// # Errors
    /// They may not survive.
    pub(super) fn sync(&self) -> rustix::io::Result<()> {
        retry_on_intr(|| fsync(self.lockdir.intake()))
    }
}

/// Opens `.intake`, never through a symbolic link, and makes it inaccessible to other users.
fn open_intake(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match mkdirat(directory, INTAKE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(cannot(OURS, "made")(errno)),
    }
    let intake = open_directory(directory, INTAKE).map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => cannot(OURS, "used (move it away)")(errno),
        Errno::ACCESS => cannot(OURS, "opened (is it another user's?)")(errno),
        _ => cannot(OURS, "opened")(errno),
    })?;
    let stat = fstat(&intake)?;
    if stat.st_uid != geteuid().as_raw() {
        let words = format!("{OURS} belongs to user {}; run as that user, or remove it", stat.st_uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    // A set-group-ID bit stays: it gives the group of the directory to the files.
    let mode = Mode::from_raw_mode(stat.st_mode);
    let private = Mode::RWXU | (mode & Mode::SGID);
    if mode != private {
        fchmod(&intake, private).map_err(cannot(OURS, "made private"))?;
    }
    Ok(intake)
}

fn open_kept(intake: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match mkdirat(intake, KEPT, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(cannot("its .intake/kept", "made")(errno)),
    }
    open_directory(intake, KEPT).map_err(cannot("its .intake/kept", "opened"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::Path;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;
    use crate::leave_out::leave_out;

    fn open(path: &Path) -> io::Result<Handles> {
        Handles::open(File::open(path).unwrap().into())
    }

    fn plant_fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }

    fn listing(path: &Path) -> Vec<String> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_gone_is_made_again_once() {
        let base = tempfile::tempdir().unwrap();
        let handles = open(base.path()).unwrap();
        let intake = base.path().join(INTAKE);
        let lock_directory = || {
            let own = listing(&intake).into_iter().find(|name| name != "kept");
            intake.join(own.unwrap())
        };
        let removals: [&dyn Fn(); 5] = [
            &|| fs::remove_dir_all(&intake).unwrap(),
            &|| fs::remove_dir_all(lock_directory()).unwrap(),
            &|| fs::remove_file(lock_directory().join("lock")).unwrap(),
            &|| fs::remove_dir_all(intake.join("kept")).unwrap(),
            &|| {},
        ];
        for (case, remove) in removals.into_iter().enumerate() {
            let before = handles.intake();
            remove();
            let after = [handles.replace(&before).unwrap(), handles.replace(&before).unwrap()];
            assert!(Arc::ptr_eq(&after[0], &after[1]), "case {case}");
            assert_eq!(Arc::ptr_eq(&before, &after[0]), case == 4, "case {case}");
            assert!(!after[0].is_gone(), "case {case}");
        }
    }

    #[test]
    fn work_is_done_again_only_in_files_that_were_gone() {
        let base = tempfile::tempdir().unwrap();
        let handles = open(base.path()).unwrap();
        let before = handles.intake();
        let fail = |errno: Errno| handles.with_intake(|_| Err::<(), _>(StoreError::from(errno))).is_err();
        assert!(fail(Errno::NOENT) && fail(Errno::STALE) && fail(Errno::IO));
        assert!(Arc::ptr_eq(&before, &handles.intake()));
        fs::remove_dir_all(base.path().join(INTAKE)).unwrap();
        assert!(fail(Errno::IO));
        assert!(Arc::ptr_eq(&before, &handles.intake()));
        handles.tend(Duration::ZERO);
        assert!(!Arc::ptr_eq(&before, &handles.intake()));
        assert_eq!(listing(&base.path().join(INTAKE)).len(), 2);
    }

    #[test]
    fn an_intake_that_is_no_directory_is_refused_in_words() {
        let base = tempfile::tempdir().unwrap();
        let (intake, outside) = (base.path().join(INTAKE), base.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        let plants: [&dyn Fn(); 4] = [
            &|| symlink(&outside, &intake).unwrap(),
            &|| symlink(base.path().join("nowhere"), &intake).unwrap(),
            &|| fs::write(&intake, "a file").unwrap(),
            &|| plant_fifo(&intake),
        ];
        for plant in plants {
            plant();
            let error = open(base.path()).err().unwrap().to_string();
            assert!(error.contains("its .intake cannot be used (move it away)"), "{error}");
            assert!(fs::symlink_metadata(&intake).is_ok_and(|meta| !meta.is_dir()));
            fs::remove_file(&intake).unwrap();
        }
        assert_eq!(listing(base.path()), ["outside"]);
        assert!(listing(&outside).is_empty());
    }

    #[test]
    fn an_intake_of_ours_is_made_private_and_another_users_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let intake = base.path().join(INTAKE);
        fs::create_dir(&intake).unwrap();
        fs::set_permissions(&intake, fs::Permissions::from_mode(0o2777)).unwrap();
        drop(open(base.path()).unwrap());
        assert_eq!(fs::metadata(&intake).unwrap().mode() & 0o7777, 0o2700);

        if chown(&intake, Some(54_321), None).is_err() {
            return leave_out("this user may not give a directory away");
        }
        let error = open(base.path()).err().unwrap().to_string();
        assert!(error.contains("belongs to user 54321"), "{error}");
    }
}

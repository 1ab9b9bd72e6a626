//! The server's own corner of its directory: `.intake/`, with one room in it for each living server.
//!
//! A room is a numbered directory that its server holds a lock on, and named partial files are numbered in it. A lock
//! that can be taken is a dead server's, so its room is removed. (A file with a process id in it would be the usual
//! way. It outlives the process, and the number is given to another one.) Knows nothing of uploads and their names.

use std::ffi::CStr;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::fs::{fchmod, flock, fstat, mkdirat, openat, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::DecInt;
use rustix::process::geteuid;

use super::cannot;
use super::naming::kind_of;

/// Where the server's own files live. Hidden, and no upload's name begins with a dot.
const INTAKE: &str = ".intake";

/// [`INTAKE`], in words about the directory that it is in.
const OURS: &str = "its .intake";

/// What outlives its server is in here.
const KEPT: &CStr = c"kept";

const NOT_OURS: &str = "no server made it";

/// One server's room, removed by drop.
#[derive(Debug)]
pub(super) struct Room {
    intake: OwnedFd,
    /// Also holds the lock.
    fd: OwnedFd,
    number: u32,
    last_file: AtomicU64,
}

impl Room {
    /// Makes a room in `directory`'s `.intake`, and removes those of dead servers.
    ///
    /// # Errors
    /// In words: `.intake` is somebody else's or no directory, and whatever the file system says.
    pub(super) fn open(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let intake = open_intake(directory)?;
        // Between the making of a room and the lock on it, the room looks like a dead server's.
        lock(&intake).map_err(cannot(OURS, "locked"))?;
        sweep(intake.as_fd()).map_err(cannot(OURS, "swept"))?;
        let (number, fd) = make_room(intake.as_fd()).map_err(cannot(OURS, "given a room for this server"))?;
        flock(&intake, FlockOperation::Unlock).map_err(cannot(OURS, "unlocked"))?;
        Ok(Self { intake, fd, number, last_file: AtomicU64::new(0) })
    }

    /// The directory beside all rooms for what outlives its server.
    pub(super) fn open_kept(&self) -> io::Result<OwnedFd> {
        match mkdirat(&self.intake, KEPT, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(cannot("its .intake/kept", "made")(errno)),
        }
        open_directory(self.intake.as_fd(), KEPT).map_err(cannot("its .intake/kept", "opened"))
    }

    /// The directory that all rooms are in.
    pub(super) fn intake(&self) -> BorrowedFd<'_> {
        self.intake.as_fd()
    }

    /// A number that no file in the room had before, as a name.
    pub(super) fn next_file(&self) -> u64 {
        self.last_file.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl AsFd for Room {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        remove_room(self.intake.as_fd(), DecInt::new(self.number).as_c_str());
    }
}

/// Opens `.intake`, never through a symbolic link, and sees to it that nobody else can look in.
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
    // A set-group-ID bit is kept: it hands the directory's group down to the files.
    let mode = Mode::from_raw_mode(stat.st_mode);
    let private = Mode::RWXU | (mode & Mode::SGID);
    if mode != private {
        fchmod(&intake, private).map_err(cannot(OURS, "made private"))?;
    }
    Ok(intake)
}

fn open_directory(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn lock(intake: &OwnedFd) -> rustix::io::Result<()> {
    match flock(intake, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            log::info!("waiting for another server that starts on the same directory");
            retry_on_intr(|| flock(intake, FlockOperation::LockExclusive))
        }
        result => result,
    }
}

/// The first free number gets the room.
fn make_room(intake: BorrowedFd<'_>) -> rustix::io::Result<(u32, OwnedFd)> {
    let mut number = 1;
    while let Err(errno) = mkdirat(intake, DecInt::new(number), Mode::RWXU) {
        match errno {
            Errno::EXIST => number += 1,
            _ => return Err(errno),
        }
    }
    let room = open_directory(intake, DecInt::new(number))?;
    flock(&room, FlockOperation::NonBlockingLockExclusive)?;
    Ok((number, room))
}

/// Removes the rooms of dead servers. What no server made is left, with a word in the log.
fn sweep(intake: BorrowedFd<'_>) -> rustix::io::Result<()> {
    for_each_entry(intake, |name| {
        if name == KEPT {
            return;
        }
        if !is_number(name) {
            return leave(name, NOT_OURS);
        }
        match open_directory(intake, name) {
            Ok(room) => sweep_room(intake, name, room),
            Err(errno) => leave(name, errno),
        }
    })
}

fn sweep_room(intake: BorrowedFd<'_>, name: &CStr, room: OwnedFd) {
    match flock(&room, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return log::debug!("{INTAKE}/{name:?} is a living server's"),
        Err(errno) => return leave(name, errno),
    }
    let mut removed = 0;
    let swept = for_each_entry(room.as_fd(), |file| match remove_file(room.as_fd(), file) {
        Ok(()) => removed += 1,
        Err(errno) => leave(file, errno),
    });
    if removed > 0 {
        log::info!("removed {removed} partial files of a server that is gone");
    }
    match swept {
        Ok(()) => remove_room(intake, name),
        Err(errno) => leave(name, errno),
    }
}

/// Removes what can only be a partial file: a numbered regular file.
fn remove_file(room: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match kind_of(room, name)? {
        Some(FileType::RegularFile) if is_number(name) => Ok(unlinkat(room, name, AtFlags::empty())?),
        _ => Err(io::Error::other(NOT_OURS)),
    }
}

/// Removes a room that is empty. It may be gone already: its server ended while another one swept.
fn remove_room(intake: BorrowedFd<'_>, name: &CStr) {
    match unlinkat(intake, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => leave(name, errno),
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

/// Whether `name` is one that a server gives to a room or a partial file.
fn is_number(name: &CStr) -> bool {
    name.to_bytes().iter().all(u8::is_ascii_digit)
}

fn leave(name: &CStr, why: impl Display) {
    log::warn!("left {name:?} in {INTAKE}: {why}");
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::Path;

    use rustix::fs::{CWD, mknodat};

    use super::*;
    use crate::leave_out::leave_out;

    fn open(path: &Path) -> io::Result<Room> {
        Room::open(File::open(path).unwrap().as_fd())
    }

    /// Ends a server without a chance to tidy up.
    fn kill(room: Room) {
        flock(&room, FlockOperation::Unlock).unwrap();
        std::mem::forget(room);
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
    fn each_server_has_a_private_room_and_removes_it() {
        let base = tempfile::tempdir().unwrap();
        let intake = base.path().join(INTAKE);
        let rooms = [open(base.path()).unwrap(), open(base.path()).unwrap()];
        assert_eq!(listing(&intake), ["1", "2"]);
        for path in [intake.clone(), intake.join("1"), intake.join("2")] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700, "{}", path.display());
        }
        drop(rooms);
        assert!(listing(&intake).is_empty());
    }

    #[test]
    fn many_servers_start_and_end_at_once() {
        let base = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let room = open(base.path()).unwrap();
                        let mine = base.path().join(INTAKE).join(room.number.to_string());
                        fs::write(mine.join("1"), "a partial").unwrap();
                        fs::remove_file(mine.join("1")).unwrap();
                    }
                });
            }
        });
        assert!(listing(&base.path().join(INTAKE)).is_empty());
    }

    #[test]
    fn a_dead_servers_room_is_swept_and_a_living_ones_is_not() {
        let base = tempfile::tempdir().unwrap();
        let intake = base.path().join(INTAKE);
        let (dead, living) = (open(base.path()).unwrap(), open(base.path()).unwrap());
        for file in ["1/1", "1/18446744073709551615", "2/1"] {
            fs::write(intake.join(file), "a partial").unwrap();
        }
        kill(dead);
        let next = open(base.path()).unwrap();
        assert_eq!(next.number, 1);
        assert!(listing(&intake.join("1")).is_empty());
        assert_eq!(listing(&intake.join("2")), ["1"]);
        fs::remove_file(intake.join("2/1")).unwrap();
        drop((living, next));
    }

    #[test]
    fn what_no_server_made_is_left_and_stops_no_start() {
        let base = tempfile::tempdir().unwrap();
        let (intake, outside) = (base.path().join(INTAKE), base.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("1"), "precious").unwrap();

        kill(open(base.path()).unwrap());
        let room = intake.join("1");
        symlink(&outside, intake.join("2")).unwrap();
        symlink("nowhere", intake.join("3")).unwrap();
        plant_fifo(&intake.join("4"));
        fs::write(intake.join("5"), "a file").unwrap();
        fs::create_dir(intake.join("notes")).unwrap();
        fs::write(intake.join("notes/1"), "precious").unwrap();
        symlink(outside.join("1"), room.join("2")).unwrap();
        symlink(&outside, room.join("3")).unwrap();
        plant_fifo(&room.join("4"));
        fs::create_dir(room.join("5")).unwrap();
        fs::write(room.join("notes"), "precious").unwrap();
        fs::write(room.join("6"), "a partial").unwrap();

        let next = open(base.path()).unwrap();
        assert_eq!(next.number, 6);
        assert_eq!(listing(&intake), ["1", "2", "3", "4", "5", "6", "notes"]);
        assert_eq!(listing(&room), ["2", "3", "4", "5", "notes"]);
        for file in [outside.join("1"), intake.join("notes/1"), room.join("notes")] {
            assert_eq!(fs::read(&file).unwrap(), b"precious", "{}", file.display());
        }
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

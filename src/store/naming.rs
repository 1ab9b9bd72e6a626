//! Final names in a directory: which are taken, and which name an upload gets.
//!
//! To look first and to create then is a race. So the call that gives a name fails if the name is taken (`EEXIST`), and a
//! look before it is only a hint which number to try. The next free number is found by doubling and halving, so that the
//! ten-thousandth `report.pdf` takes a few dozen look-ups.
//!
//! The caller passes in how a file is given a name. Knows nothing of files and where they come from.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use rustix::path::Arg;

use super::StoreError;
use crate::proto::{Name, OnExists};

const TAKEN: StoreError = StoreError::Taken("the name is taken");
const ALL_TAKEN: StoreError = StoreError::Taken("the name is taken, and so is every number that it could get");
const BUSY: StoreError = StoreError::Busy("another upload has just taken the name; ask again whether it is the same");
const REMOVED: &str = "the server's directory was removed";
const NOT_A_FILE: StoreError = StoreError::Taken("the name is that of something that is not a regular file");

/// The type of the file `name`, if there is one. A symbolic link counts as itself.
pub(super) fn kind_of(directory: BorrowedFd<'_>, name: impl Arg) -> rustix::io::Result<Option<FileType>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Fails if the directory was removed. On some file systems (XFS, btrfs) files can still be made in it, and are lost.
pub(super) fn check_directory(directory: BorrowedFd<'_>) -> Result<(), StoreError> {
    if fstat(directory)?.st_nlink == 0 { Err(StoreError::Io(io::Error::other(REMOVED))) } else { Ok(()) }
}

/// The error to report if a name cannot be given.
fn failure(directory: BorrowedFd<'_>, errno: Errno) -> StoreError {
    check_directory(directory).err().unwrap_or_else(|| errno.into())
}

/// Refuses an upload that is known to fail before its content comes. Only a look: the publish decides.
pub(super) fn check(directory: BorrowedFd<'_>, name: &Name, on_exists: OnExists) -> Result<(), StoreError> {
    match on_exists {
        // Whether the file is the same is known only later.
        OnExists::Rename | OnExists::Same => Ok(()),
        OnExists::Refuse => kind_of(directory, name.as_str())?.map_or(Ok(()), |_| Err(TAKEN)),
        OnExists::Replace => match kind_of(directory, name.as_str())? {
            None | Some(FileType::RegularFile) => Ok(()),
            Some(_) => Err(NOT_A_FILE),
        },
    }
}

/// Opens `name` if it is a regular file of `size` bytes. Never follows a link, never waits for a pipe.
pub(super) fn find(directory: BorrowedFd<'_>, name: &Name, size: u64) -> Result<Option<File>, StoreError> {
    match kind_of(directory, name.as_str())? {
        None => return Ok(None),
        Some(FileType::RegularFile) => {}
        Some(_) => return Err(NOT_A_FILE),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, name.as_str(), flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let meta = file.metadata()?;
    if meta.is_file() && meta.len() == size { Ok(Some(file)) } else { Err(StoreError::NOT_THE_SAME) }
}

/// Publishes under `name`, or, if that is taken and `on_exists` is [`OnExists::Rename`], under `name` with a free number.
///
/// `publish` tries one name. It fails with `EEXIST` if the name is taken; if it replaces, with `EISDIR` if a directory has
/// the name.
pub(super) fn assign(
    directory: BorrowedFd<'_>,
    name: Name,
    on_exists: OnExists,
    mut publish: impl FnMut(&Name) -> rustix::io::Result<()>,
) -> Result<Name, StoreError> {
    match publish(&name) {
        Ok(()) => Ok(name),
        Err(Errno::EXIST) if on_exists == OnExists::Rename => assign_number(directory, &name, publish),
        Err(Errno::EXIST) if on_exists == OnExists::Same => Err(BUSY),
        Err(Errno::EXIST) => Err(TAKEN),
        Err(Errno::ISDIR) => Err(NOT_A_FILE),
        Err(errno) => Err(failure(directory, errno)),
    }
}

/// The name that [`assign`] would give now.
pub(super) fn predict(directory: BorrowedFd<'_>, name: &Name, on_exists: OnExists) -> Name {
    let is_taken = |name: &Name| Ok(kind_of(directory, name.as_str())?.is_some());
    if on_exists != OnExists::Rename || !is_taken(name).unwrap_or(false) {
        return name.clone();
    }
    let free = next_free(0, last_number(name), |number| name.numbered(number).map_or(Ok(true), |name| is_taken(&name)));
    free.ok().flatten().and_then(|number| name.numbered(number)).unwrap_or_else(|| name.clone())
}

fn assign_number(
    directory: BorrowedFd<'_>,
    name: &Name,
    mut publish: impl FnMut(&Name) -> rustix::io::Result<()>,
) -> Result<Name, StoreError> {
    let mut taken = 0;
    loop {
        let free = next_free(taken, last_number(name), |number| {
            name.numbered(number).map_or(Ok(true), |name| Ok(kind_of(directory, name.as_str())?.is_some()))
        })?;
        let (number, name) = free.and_then(|number| Some((number, name.numbered(number)?))).ok_or(ALL_TAKEN)?;
        match publish(&name) {
            Ok(()) => return Ok(name),
            // Another upload was quicker. The search continues from that number.
            Err(Errno::EXIST) => taken = number,
            Err(errno) => return Err(failure(directory, errno)),
        }
    }
}

/// The largest number that `name` has room for, 0 for none.
fn last_number(name: &Name) -> u16 {
    [u16::MAX, 9999, 999, 99, 9].into_iter().find(|&number| name.numbered(number).is_some()).unwrap_or(0)
}

/// A free number in `after + 1..=last` whose predecessor is taken: the least one, unless there are gaps.
///
/// Gallops (1, 2, 4, 8, … further) to a free number, then halves the distance to the last taken one: 20 look-ups find
/// the thousandth, where counting needs a thousand.
fn next_free(
    after: u16,
    last: u16,
    mut is_taken: impl FnMut(u16) -> rustix::io::Result<bool>,
) -> rustix::io::Result<Option<u16>> {
    let (mut taken, mut step) = (after, 1);
    let mut free = loop {
        if taken == last {
            return Ok(None);
        }
        let number = after.saturating_add(step).min(last);
        if !is_taken(number)? {
            break number;
        }
        taken = number;
        step = step.saturating_mul(2);
    };
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_taken(middle)? {
            taken = middle;
        } else {
            free = middle;
        }
    }
    Ok(Some(free))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::proto::NamePolicy;

    /// The number that is found if the numbers of `is_taken` are taken, and the count of look-ups.
    fn search(after: u16, last: u16, is_taken: impl Fn(u16) -> bool) -> (Option<u16>, usize) {
        let mut looks = 0;
        let found = next_free(after, last, |number| {
            looks += 1;
            Ok(is_taken(number))
        });
        (found.unwrap(), looks)
    }

    #[test]
    fn without_gaps_the_least_free_number_is_found_in_few_looks() {
        for first_free in (1..=300).chain([1000, 32_767, 32_768, 32_769, 65_534, 65_535]) {
            let (found, looks) = search(0, u16::MAX, |number| number < first_free);
            assert_eq!(found, Some(first_free));
            assert!(looks <= 33, "{looks} for {first_free}");
        }
        assert_eq!(search(0, u16::MAX, |number| number < 1000), (Some(1000), 20));
        assert_eq!(search(0, u16::MAX, |_| false), (Some(1), 1));
    }

    #[test]
    fn gaps_are_used_and_never_mislead() {
        for gaps in [&[3, 700][..], &[1], &[2, 4, 8], &[65_535], &[9, 10, 11]] {
            let (found, _) = search(0, u16::MAX, |number| !gaps.contains(&number) && number < 40_000);
            let found = found.unwrap();
            assert!(gaps.contains(&found) || found >= 40_000, "{found} of {gaps:?}");
        }
    }

    #[test]
    fn the_search_goes_on_after_a_lost_race_and_ends_at_the_last() {
        assert_eq!(search(6, 9, |_| false).0, Some(7));
        assert_eq!(search(6, 9, |number| number < 9).0, Some(9));
        assert_eq!(search(0, 9, |_| true).0, None);
        assert_eq!(search(9, 9, |_| false).0, None);
        assert_eq!(search(0, 0, |_| false).0, None);
        assert_eq!(search(0, u16::MAX, |_| true).0, None);
    }

    #[test]
    fn each_way_of_failing_to_publish_has_its_error() {
        let name = Name::parse(b"a", NamePolicy::default()).unwrap();
        let base = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(base.path()).unwrap();
        let fail = |errno, on_exists| {
            assign(directory.as_fd(), name.clone(), on_exists, |_| Err(errno)).unwrap_err().to_string()
        };
        // A directory was made between the look and the rename.
        assert_eq!(fail(Errno::ISDIR, OnExists::Replace), NOT_A_FILE.to_string());
        assert_eq!(fail(Errno::EXIST, OnExists::Refuse), TAKEN.to_string());
        assert_eq!(fail(Errno::EXIST, OnExists::Same), BUSY.to_string());
        assert_eq!(fail(Errno::EXIST, OnExists::Rename), ALL_TAKEN.to_string());
        assert_eq!(fail(Errno::IO, OnExists::Rename), StoreError::from(Errno::IO).to_string());
    }

    #[test]
    fn only_a_regular_file_of_the_size_is_found() {
        let base = tempfile::tempdir().unwrap();
        let directory = File::open(base.path()).unwrap();
        let find = |name: &str, size| {
            let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
            find(directory.as_fd(), &name, size).map(|file| file.map(|file| std::io::read_to_string(file).unwrap()))
        };
        std::fs::write(base.path().join("a"), "abc").unwrap();
        std::os::unix::fs::symlink("a", base.path().join("link")).unwrap();
        rustix::fs::mknodat(&directory, "pipe", FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!((find("a", 3).unwrap(), find("b", 3).unwrap()), (Some("abc".into()), None));
        for (name, size) in [("a", 4), ("link", 3), ("pipe", 0)] {
            assert!(matches!(find(name, size), Err(StoreError::Taken(_))), "{name}");
        }
    }

    #[test]
    fn the_last_number_is_the_one_that_fits() {
        for (length, last) in [(1, 65_535), (249, 65_535), (250, 9999), (252, 99), (253, 9), (254, 0), (255, 0)] {
            let name = Name::parse("n".repeat(length).as_bytes(), NamePolicy::default()).unwrap();
            assert_eq!(last_number(&name), last, "{length}");
        }
    }
}

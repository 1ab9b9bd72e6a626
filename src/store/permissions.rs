//! Group, mode and ACL of stored files.
//!
//! A stored file has those of any other new file in its directory. An unnamed file gets them when it is made. Without
//! unnamed files, partial files are made in the server's own directories, which then have to give them what the directory
//! of the uploads would ([`pass_on`]).
//!
//! A file that replaces another one gets the permissions of that one ([`take_over`]): it may have been private.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, XattrFlags, fchmod, fchown, fgetxattr, fremovexattr, fsetxattr, fstat,
    openat, statat,
};
use rustix::io::Errno;

use crate::proto::Name;

/// The ACL of a file or directory.
const ACCESS_ACL: &str = "system.posix_acl_access";
/// The ACL of new files in a directory.
const DEFAULT_ACL: &str = "system.posix_acl_default";
/// The largest value that Linux stores, in bytes.
const ACL_MAX_BYTES: usize = 64 << 10;

/// Makes new files in `to` get the group and the ACL that they would get in `from`.
///
/// # Errors
/// Any error of the file system, for instance that this user may not set the group.
pub(super) fn pass_on(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let (wanted, stat) = (fstat(from)?, fstat(to)?);
    let hands_group_down = mode_of(&wanted).contains(Mode::SGID);
    if hands_group_down && wanted.st_gid != stat.st_gid {
        fchown(to, None, Some(Gid::from_raw(wanted.st_gid)))?;
    }
    if hands_group_down != mode_of(&stat).contains(Mode::SGID) {
        fchmod(to, Mode::RWXU | (mode_of(&wanted) & Mode::SGID))?;
        // For a group that this user is not in, the kernel drops the bit silently.
        if hands_group_down != mode_of(&fstat(to)?).contains(Mode::SGID) {
            return Err(Errno::PERM);
        }
    }
    set_acl(to, DEFAULT_ACL, acl_of(from, DEFAULT_ACL)?.as_deref())
}

/// Gives `file` the mode, the ACL and the group of the file `name`, if there is one. If this user may not set the group,
/// the file's own group gets no more rights than all users have.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn take_over(file: &File, directory: BorrowedFd<'_>, name: &Name) -> rustix::io::Result<()> {
    let old = match statat(directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => stat,
        Err(errno) if errno != Errno::NOENT => return Err(errno),
        // Others decide about anything else.
        _ => return Ok(()),
    };
    let stat = fstat(file)?;
    let rights = mode_of(&old) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
    if old.st_gid != stat.st_gid && fchown(file, None, Some(Gid::from_raw(old.st_gid))).is_err() {
        set_acl(file.as_fd(), ACCESS_ACL, None)?;
        return fchmod(file, without_group(rights));
    }
    let acl = old_acl(directory, name)?;
    set_acl(file.as_fd(), ACCESS_ACL, acl.as_deref())?;
    if mode_of(&fstat(file)?) == rights { Ok(()) } else { fchmod(file, rights) }
}

/// `rights`, in which the group has no more than others.
fn without_group(rights: Mode) -> Mode {
    let of_others = Mode::from_raw_mode((rights & Mode::RWXO).bits() << 3);
    (rights & !Mode::RWXG) | (rights & of_others)
}

fn old_acl(directory: BorrowedFd<'_>, name: &Name) -> rustix::io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(directory, name.as_str(), flags, Mode::empty()) {
        Ok(old) => acl_of(old.as_fd(), ACCESS_ACL),
        // This user may replace a file that it may not read. Then only the mask of an ACL is known: the group's part of the
        // mode.
        Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn acl_of(file: BorrowedFd<'_>, kind: &str) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut acl = vec![0; ACL_MAX_BYTES];
    match fgetxattr(file, kind, &mut acl) {
        Ok(size) => {
            acl.truncate(size);
            Ok(Some(acl))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn set_acl(file: BorrowedFd<'_>, kind: &str, acl: Option<&[u8]>) -> rustix::io::Result<()> {
    let Some(acl) = acl else {
        return match fremovexattr(file, kind) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            result => result,
        };
    };
    fsetxattr(file, kind, acl, XattrFlags::empty())
}

fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode)
}

/// Refuses a umask that takes the owner's rights: the server could not use its own directories and files.
///
/// # Errors
/// In words.
pub(super) fn check_umask() -> io::Result<()> {
    // umask(2) cannot read it without a change. Without /proc, errors show up later.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match umask_in(&status).filter(|umask| umask & 0o700 != 0) {
        Some(umask) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "the umask ({umask:04o}) takes the server's rights to its own files; start it with another, as umask 022"
            ),
        )),
        None => Ok(()),
    }
}

/// proc_pid_status(5).
fn umask_in(status: &str) -> Option<u32> {
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(umask.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_umask_is_found_in_the_status() {
        assert_eq!(umask_in("Name:\tintake\nUmask:\t0027\nState:\tR (running)\n"), Some(0o027));
        assert_eq!(umask_in("Name:\tintake\n"), None);
        check_umask().unwrap();
    }

    #[test]
    fn without_its_group_a_file_gives_the_group_what_everybody_has() {
        for (rights, expected) in [(0o640, 0o600), (0o664, 0o644), (0o775, 0o755), (0o707, 0o707), (0o666, 0o666)] {
            assert_eq!(without_group(Mode::from_raw_mode(rights)), Mode::from_raw_mode(expected), "{rights:o}");
        }
    }
}

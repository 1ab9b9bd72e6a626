//! How a file is made: with the permissions of any new file in the directory, and without a name there until it is
//! published.
//!
//! Which way works on a file system is found out by trying it. Knows nothing of uploads.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::path::Arg;

/// How a file is made and published. No method touches a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Without a name (`O_TMPFILE`, open(2)) until it is linked: a killed server leaves nothing, and no other program can
    /// interfere.
    Unnamed(Link),
    /// Under a number in the server's lock directory, then renamed (`RENAME_NOREPLACE`, rename(2)), or linked if the file
    /// system cannot do that.
    Named,
}

/// How a file without a name is linked (linkat(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// By its descriptor (`AT_EMPTY_PATH`). Before Linux 6.10 that needs a privilege.
    Descriptor,
    /// By the descriptor's link in `/proc/self/fd`.
    Proc,
}

impl Method {
    /// All of them, the cheapest first.
    pub(super) const ALL: [Self; 3] = [Self::Unnamed(Link::Descriptor), Self::Unnamed(Link::Proc), Self::Named];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unnamed(Link::Descriptor) => "unnamed files",
            Self::Unnamed(Link::Proc) => "unnamed files linked through /proc",
            Self::Named => "named partial files",
        })
    }
}

/// Makes a file under `name` in `place`, one of the server's own directories, with the permissions that it would get in
/// `directory`, if `method` allows that. Fails with `EEXIST` if `name` is taken.
pub(super) fn make(
    directory: BorrowedFd<'_>,
    method: Method,
    place: BorrowedFd<'_>,
    name: impl Arg,
) -> rustix::io::Result<File> {
    match method {
        Method::Unnamed(link) => {
            let file = create_unnamed(directory)?;
            link_unnamed(&file, link, place, name)?;
            Ok(file)
        }
        Method::Named => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
            openat(place, name, flags, FILE_MODE).map(File::from)
        }
    }
}

/// The umask is subtracted, as for any file that a program makes.
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

pub(super) fn create_unnamed(directory: BorrowedFd<'_>) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat(directory, ".", flags, FILE_MODE).map(File::from)
}

/// Fails with `EEXIST` if `name` is taken.
pub(super) fn link_unnamed(file: &File, link: Link, to: impl AsFd, name: impl Arg) -> rustix::io::Result<()> {
    match link {
        Link::Descriptor => linkat(file, "", to, name, AtFlags::EMPTY_PATH),
        Link::Proc => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, path, to, name, AtFlags::SYMLINK_FOLLOW)
        }
    }
}

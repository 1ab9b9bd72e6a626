//! How a stored file is recognized later, and whether it has been written to since.
//!
//! The name does not suffice, as another file may have it by now. Nor does the inode number, as a later file may get it.
//! The time of birth (statx(2)) tells two files of one number apart, and no program can set it. Knows no name.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::path::Arg;

/// Two marks are equal if they are of one file, whose content has not changed in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Major and minor number.
    device: (u32, u32),
    inode: u64,
    /// The time of birth in seconds and nanoseconds since the epoch. `None`: the file system does not tell.
    born: Option<(i64, u32)>,
    size: u64,
    /// The time of the last change of its content, as `born`.
    modified: (i64, u32),
}

impl Mark {
    /// The mark of a file that is never written to again, on a disk that uses no number twice.
    pub fn of_inode(inode: u64) -> Self {
        Self { inode, ..Self::default() }
    }

    /// The mark of the file `name` in `directory`, or of `directory` itself if `name` is empty. Follows no link.
    pub(super) fn of(directory: impl AsFd, name: impl Arg) -> rustix::io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        Ok(Self::from(&statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?))
    }
}

impl From<&Statx> for Mark {
    fn from(stat: &Statx) -> Self {
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let tells_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: tells_birth.then(|| time(stat.stx_btime)),
            size: stat.stx_size,
            modified: time(stat.stx_mtime),
        }
    }
}

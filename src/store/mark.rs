//! By what a stored file is known again, and whether somebody has written to it since.
//!
//! A name says nothing of that: another file may have it by now. An inode's number says little more, as the next file may get
//! it. The time of birth (statx(2)) tells two files of one number apart, and nobody can set it. Knows no name.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::path::Arg;

/// Two marks are equal if they are of one file, whose content has not changed in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Major and minor number.
    device: (u32, u32),
    inode: u64,
    /// Seconds and nanoseconds since the epoch. `None` where the file system does not tell.
    born: Option<(i64, u32)>,
    size: u64,
    /// As `born`.
    modified: (i64, u32),
}

impl Mark {
    /// Of a file that is never written to again, on a disk that uses no number twice.
    pub fn of_inode(inode: u64) -> Self {
        Self { inode, ..Self::default() }
    }

    /// Of the file that `name` is in `directory`, or of `directory` itself where that is empty. Follows no link.
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

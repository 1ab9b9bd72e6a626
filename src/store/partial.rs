//! One upload's file before it has its final name, with or without a name of its own until then.
//!
//! Which of the two it is stays in here. A final name comes from publishing alone, and never at the cost of what has it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Advice, AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::fs::{fadvise, fstat, linkat, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use rustix::path::{Arg, DecInt};

use super::directory::{Handles, Link, Method};
use super::{Partial, StoreError, naming};
use crate::proto::{Name, OnExists};

/// A file under way in a [`super::Directory`].
#[derive(Debug)]
pub struct PartialFile {
    file: File,
    size: u64,
    on_exists: OnExists,
    /// It will be synced: the disk may begin early.
    will_sync: bool,
    origin: Origin,
}

/// How much of a long upload is written back at a time, in bytes, so that the sync at its end is short.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// What a final name is made from.
#[derive(Debug)]
enum Origin {
    /// Nothing: the file goes with its descriptor.
    Unnamed(Arc<Handles>, Link),
    /// A name in the room.
    Named(Entry),
}

impl PartialFile {
    pub(super) fn create(
        handles: &Arc<Handles>,
        method: Method,
        on_exists: OnExists,
        will_sync: bool,
    ) -> Result<Self, StoreError> {
        let (file, origin) = match method {
            Method::Unnamed(link) => (create_unnamed(handles)?, Origin::Unnamed(handles.clone(), link)),
            Method::Named => {
                let (file, entry) = Entry::create(handles)?;
                (file, Origin::Named(entry))
            }
        };
        Ok(Self { file, size: 0, on_exists, will_sync, origin })
    }

    /// Makes the disk begin with what it does not have yet, and waits for nothing: of all calls that safe code can reach,
    /// `POSIX_FADV_DONTNEED` is the one that starts a write-back (posix_fadvise(2)). What is clean leaves the page cache.
    pub(super) fn start_write_back(&self) {
        // Only a hint: the sync decides.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    /// Waits until the content would survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Partial for PartialFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes)?;
        let before = self.size;
        self.size += bytes.len() as u64;
        if self.will_sync && before / WRITE_BACK_BYTES != self.size / WRITE_BACK_BYTES {
            self.start_write_back();
        }
        Ok(())
    }

    fn set_mtime(&mut self, seconds: u64) -> Result<(), StoreError> {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(Errno::INVAL)?;
        Ok(self.file.set_modified(time)?)
    }

    fn publish(self, name: Name) -> Result<Name, StoreError> {
        let Self { file, size, on_exists, origin, .. } = self;
        match origin {
            Origin::Unnamed(handles, link) => {
                let directory = handles.directory.as_fd();
                naming::claim(directory, name, on_exists, |name| link_unnamed(&file, link, directory, name.as_str()))
            }
            Origin::Named(entry) => {
                check_untouched(&file, size)?;
                // Some file systems (NFS, FUSE) tell a failed write only here (close(2)), and this is the last moment.
                nix::unistd::close(file).map_err(io::Error::from)?;
                entry.publish(name, on_exists)
            }
        }
    }
}

/// Finds out whether `method` works, by storing an empty file in the room and removing it.
pub(super) fn probe(handles: &Arc<Handles>, method: Method) -> io::Result<()> {
    let room = handles.room.as_fd();
    let number = DecInt::new(handles.room.next_file());
    let name = number.as_c_str();
    match method {
        Method::Unnamed(link) => link_unnamed(&create_unnamed(handles)?, link, room, name)?,
        Method::Named => Entry::create(handles)?.1.rename(room, name)?,
    }
    Ok(unlinkat(room, name, AtFlags::empty())?)
}

/// Less the umask, like any file that a program makes.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

fn create_unnamed(handles: &Handles) -> rustix::io::Result<File> {
    // In the directory rather than the room, for its default ACL and group.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(&handles.directory, ".", flags, FILE_MODE).map(File::from)
}

/// Fails with `EEXIST` where there is anything under `name`.
fn link_unnamed(file: &File, link: Link, to: impl AsFd, name: impl Arg) -> rustix::io::Result<()> {
    match link {
        Link::Descriptor => linkat(file, "", to, name, AtFlags::EMPTY_PATH),
        Link::Proc => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, path, to, name, AtFlags::SYMLINK_FOLLOW)
        }
    }
}

/// Whether a named file is still what was written: others with our user's rights can reach it.
fn check_untouched(file: &File, size: u64) -> Result<(), StoreError> {
    let stat = fstat(file)?;
    if stat.st_nlink == 0 {
        return Err(StoreError::Io(io::Error::other("the partial file was removed while it was written")));
    }
    if u64::try_from(stat.st_size) != Ok(size) {
        let words = format!("the partial file was changed by others: {} bytes, {size} were written", stat.st_size);
        return Err(StoreError::Io(io::Error::other(words)));
    }
    Ok(())
}

/// A file's number in the room, which is all of its name. Dropping removes the file, unless it has moved out.
#[derive(Debug)]
struct Entry {
    handles: Arc<Handles>,
    number: u64,
    moved: bool,
}

impl Entry {
    fn create(handles: &Arc<Handles>) -> rustix::io::Result<(File, Self)> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        loop {
            let number = handles.room.next_file();
            match openat(&handles.room, DecInt::new(number), flags, FILE_MODE) {
                // Planted: no file of ours had this number.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
                Ok(fd) => return Ok((fd.into(), Self { handles: handles.clone(), number, moved: false })),
            }
        }
    }

    fn publish(mut self, name: Name, on_exists: OnExists) -> Result<Name, StoreError> {
        let handles = self.handles.clone();
        let directory = handles.directory.as_fd();
        if on_exists == OnExists::Replace {
            naming::check(directory, &name, on_exists)?;
        }
        naming::claim(directory, name, on_exists, |name| match on_exists {
            OnExists::Replace => self.replace(directory, name.as_str()),
            OnExists::Refuse | OnExists::Rename => self.rename(directory, name.as_str()),
        })
    }

    /// Fails with `EEXIST` where there is anything under `name`.
    fn rename(&mut self, to: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<()> {
        let (room, number) = (&self.handles.room, DecInt::new(self.number));
        match renameat_with(room, number.as_c_str(), &to, name, RenameFlags::NOREPLACE) {
            // Not known to the file system or the kernel. The drop then removes what stays in the room.
            Err(Errno::INVAL | Errno::NOSYS) => linkat(room, number.as_c_str(), &to, name, AtFlags::empty()),
            result => {
                self.moved = result.is_ok();
                result
            }
        }
    }

    /// Fails with `EISDIR` where there is a directory under `name`, and takes the place of anything else.
    fn replace(&mut self, to: impl AsFd, name: impl Arg) -> rustix::io::Result<()> {
        let result = renameat(&self.handles.room, DecInt::new(self.number), to, name);
        self.moved = result.is_ok();
        result
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.moved {
            return;
        }
        match unlinkat(&self.handles.room, DecInt::new(self.number), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => log::warn!("a partial file is left in the server's room: {errno}"),
        }
    }
}

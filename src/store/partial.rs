//! One upload's file before it has its final name, with or without a name of its own until then.
//!
//! Without one (`O_TMPFILE`) it is the best of partial files: nobody can find it, and it is gone with its descriptor.
//! Not every file system has them, and a kept one needs a name to be found by; then it stands among the server's own
//! files. Which of the two it is stays in here. A final name comes from publishing alone, and never at the cost of what
//! has it.
//!
//! A long upload is written back as it comes (posix_fadvise(2)), so that little is left for the sync at its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Advice, AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::fs::{fadvise, fstat, linkat, openat, renameat, renameat_with, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::{Arg, DecInt};
use rustix::pipe::{SpliceFlags, splice};

use super::blocks::Blocks;
use super::directory::{Handles, Link, Method};
use super::{Partial, StoreError, naming};
use crate::proto::{Name, OnExists};

/// A file under way in a [`super::Directory`].
#[derive(Debug)]
pub struct PartialFile {
    /// Before the file, whose close gives up the lock on it: nobody may find it then that is removed.
    origin: Origin,
    file: File,
    size: u64,
    on_exists: OnExists,
    /// It will be synced: the disk may begin early.
    will_sync: bool,
    /// Boxed, so that an idle connection stays small.
    blocks: Box<Blocks>,
}

/// How much of a long upload is written back at a time, in bytes, so that the sync at its end is short.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// What a final name is made from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Nothing: the file goes with its descriptor.
    Unnamed(Arc<Handles>, Link),
    /// A name among the server's own. Boxed, as most have none.
    Named(Box<Entry>),
}

impl Origin {
    pub(super) fn create(handles: &Arc<Handles>, method: Method) -> rustix::io::Result<(File, Self)> {
        match method {
            Method::Unnamed(link) => Ok((create_unnamed(handles)?, Self::Unnamed(handles.clone(), link))),
            Method::Named => Entry::create(handles).map(|(file, entry)| (file, Self::Named(entry.into()))),
        }
    }

    /// Of a file that its owner goes on with.
    pub(super) fn kept(handles: &Arc<Handles>, name: Box<str>) -> Self {
        Self::Named(Entry::new(handles, Place::Kept(name)).into())
    }
}

impl PartialFile {
    pub(super) fn new(
        file: File,
        origin: Origin,
        size: u64,
        on_exists: OnExists,
        will_sync: bool,
        blocks: Blocks,
    ) -> Self {
        Self { origin, file, size, on_exists, will_sync, blocks: blocks.into() }
    }

    fn appended(&mut self, count: usize) {
        let before = self.size;
        self.size += count as u64;
        self.blocks.written(count);
        if self.will_sync && before / WRITE_BACK_BYTES != self.size / WRITE_BACK_BYTES {
            start_write_back(&self.file);
        }
    }

    /// No more content comes: gives back the blocks that it did not need.
    pub(super) fn give_back(&mut self) {
        self.blocks.give_back(&self.file, self.size);
    }

    /// The content so far.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// All that has to last if it is to be gone on with after a power cut: its content, and the claim on that.
    pub(super) fn held_files(&self) -> io::Result<Vec<File>> {
        let mut files = vec![self.file.try_clone()?];
        if let Origin::Named(entry) = &self.origin
            && let Place::Kept(name) = &entry.place
        {
            files.push(entry.handles.kept.open_claim(name)?);
        }
        Ok(files)
    }
}

/// Makes the disk begin with what it does not have yet, and waits for nothing: of all calls that safe code can reach,
/// `POSIX_FADV_DONTNEED` is the one that starts a write-back (posix_fadvise(2)). What is clean leaves the page cache.
pub(super) fn start_write_back(file: &File) {
    // Only a hint: the sync decides.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

impl Partial for PartialFile {
    fn held(&self) -> u64 {
        self.size
    }

    fn reread(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Leaves the file at its end, where appending goes on.
        self.file.read(buffer)
    }

    fn keep(mut self) {
        if let Origin::Named(entry) = &mut self.origin {
            entry.released = entry.is_kept() && self.size > 0;
            self.give_back();
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.blocks.cover(&self.file, self.size, bytes.len())?;
        self.file.write_all(bytes)?;
        self.appended(bytes.len());
        Ok(())
    }

    fn append_from(&mut self, pipe: BorrowedFd<'_>, count: usize) -> Result<(), StoreError> {
        self.blocks.cover(&self.file, self.size, count)?;
        let mut left = count;
        while left > 0 {
            match retry_on_intr(|| splice(pipe, None, &self.file, None, left, SpliceFlags::MOVE)) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(moved) => {
                    self.appended(moved);
                    left -= moved;
                }
                // Not every file system can.
                Err(Errno::INVAL) => return self.copy_from(pipe, left),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn set_mtime(&mut self, seconds: u64) -> Result<(), StoreError> {
        // Later it would count as a change.
        self.give_back();
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
                // Dropped last: nobody else owns a kept file before it has its name.
                let _lock = entry.is_kept().then(|| file.try_clone()).transpose()?;
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
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

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

/// A file among the server's own. Dropping removes it, unless it is released.
#[derive(Debug)]
pub(super) struct Entry {
    handles: Arc<Handles>,
    place: Place,
    /// It has moved out, or is to stay where it is.
    released: bool,
}

/// Where it is, and under which name.
#[derive(Debug)]
enum Place {
    /// In this server's room, under a number.
    Room(u64),
    /// Among what outlives its server.
    Kept(Box<str>),
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
                Ok(fd) => return Ok((fd.into(), Self::new(handles, Place::Room(number)))),
            }
        }
    }

    fn new(handles: &Arc<Handles>, place: Place) -> Self {
        Self { handles: handles.clone(), place, released: false }
    }

    fn is_kept(&self) -> bool {
        matches!(self.place, Place::Kept(_))
    }

    fn publish(mut self, name: Name, on_exists: OnExists) -> Result<Name, StoreError> {
        let handles = self.handles.clone();
        let directory = handles.directory.as_fd();
        if on_exists == OnExists::Replace {
            naming::check(directory, &name, on_exists)?;
        }
        if let Place::Kept(own_name) = &self.place {
            // As soon as the file has moved out its old name may be somebody else's, and so may the claim.
            handles.kept.remove_claim(own_name);
        }
        naming::claim(directory, name, on_exists, |name| match on_exists {
            OnExists::Replace => self.replace(directory, name.as_str()),
            OnExists::Refuse | OnExists::Rename | OnExists::Same => self.rename(directory, name.as_str()),
        })
    }

    /// Fails with `EEXIST` where there is anything under `name`.
    fn rename(&mut self, to: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<()> {
        let (from, own_name) = self.path();
        match renameat_with(from, &own_name, &to, name, RenameFlags::NOREPLACE) {
            // Not known to the file system or the kernel. The drop then removes what stays behind.
            Err(Errno::INVAL | Errno::NOSYS) => linkat(from, &own_name, &to, name, AtFlags::empty()),
            result => {
                self.released = result.is_ok();
                result
            }
        }
    }

    /// Fails with `EISDIR` where there is a directory under `name`, and takes the place of anything else.
    fn replace(&mut self, to: impl AsFd, name: impl Arg) -> rustix::io::Result<()> {
        let (from, own_name) = self.path();
        let result = renameat(from, own_name, to, name);
        self.released = result.is_ok();
        result
    }

    /// The directory that it is in, and its name there.
    fn path(&self) -> (BorrowedFd<'_>, String) {
        match &self.place {
            Place::Room(number) => (self.handles.room.as_fd(), number.to_string()),
            Place::Kept(name) => (self.handles.kept.as_fd(), name.to_string()),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &self.place {
            _ if self.released => {}
            Place::Kept(name) => self.handles.kept.remove(name),
            Place::Room(number) => match unlinkat(&self.handles.room, DecInt::new(*number), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => log::warn!("a partial file is left in the server's room: {errno}"),
            },
        }
    }
}

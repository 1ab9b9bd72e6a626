//! What the process gives up once its sockets and its directory are open, so that a fault of the server, or of a library
//! under it, harms no more than the stored files.
//!
//! | part | what it takes away |
//! |---|---|
//! | [`User`] | root: the process becomes another user, for good |
//! | no new privileges (prctl(2)) | privileges that a set-user-ID program would give |
//! | Landlock (landlock(7)) | all files but those in the directory and those that are opened again; TCP; signals |
//! | seccomp (seccomp(2)) | all system calls but those that the server makes |
//!
//! All of it holds for threads that are started later, and cannot be taken back. So the sandbox comes after everything is
//! open, and before any thread is started.
//!
//! Knows which files may be used, but neither who uses them nor what for.

#[cfg(feature = "sandbox")]
mod calls;
#[cfg(feature = "sandbox")]
mod files;
mod user;

#[cfg(not(feature = "sandbox"))]
mod left_out;
#[cfg(not(feature = "sandbox"))]
use left_out::{calls, files};

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::process::geteuid;
use rustix::thread::set_no_new_privs;

pub use user::{User, UserError};

/// What to do if the kernel lacks a part of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Run with the parts that there are.
    Auto,
    /// Do not run.
    Require,
    /// Run without a sandbox.
    #[default]
    Off,
}

/// What the process needs once it runs.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// What to do if the kernel lacks a part.
    pub mode: Mode,
    /// Files that are read again while it runs, besides those of the directory. Programs replace such files by a rename, so
    /// any file in their directories may be read.
    pub reread: Vec<PathBuf>,
    /// Files that are opened again to write to their end. As they may have been renamed, any file in their directories may be
    /// made and written.
    pub rewrite: Vec<PathBuf>,
    /// Files that are removed when it ends. Landlock knows directories only, so any file beside them may be removed.
    pub removed: Vec<PathBuf>,
}

/// The parts of the sandbox that hold, each in words, and those that do not, with the reason.
#[derive(Debug, Default)]
pub struct Confinement {
    holds: Vec<String>,
    lacks: Vec<String>,
}

impl Sandbox {
    /// Confines this thread and those that it will start: of all files, they may use those beneath `directory` only.
    ///
    /// # Errors
    /// In words: the first part that does not hold, if [`Mode::Require`] asks for all.
    pub fn enter(&self, directory: BorrowedFd<'_>) -> Result<Confinement, String> {
        let mut confinement = Confinement::default();
        if self.mode != Mode::Off {
            let no_new_privileges = || match set_no_new_privs(true) {
                Ok(()) => Ok("no new privileges".into()),
                Err(errno) => Err(format!("no new privileges: {errno}")),
            };
            // The first one permits a process without privileges to enter the others.
            self.take(&mut confinement, no_new_privileges())?;
            self.take(&mut confinement, files::confine(directory, &self.reread, &self.rewrite, &self.removed))?;
            self.take(&mut confinement, calls::confine())?;
        }
        Ok(confinement)
    }

    fn take(&self, confinement: &mut Confinement, part: Result<String, String>) -> Result<(), String> {
        match part {
            Ok(part) => confinement.holds.push(part),
            Err(lack) if self.mode == Mode::Require => return Err(lack),
            Err(lack) => confinement.lacks.push(lack),
        }
        Ok(())
    }
}

impl Confinement {
    /// The parts that do not hold, each with the reason.
    pub fn lacks(&self) -> &[String] {
        &self.lacks
    }
}

/// What holds, in one line.
impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holds.is_empty() {
            f.write_str("off, ")?;
        }
        for part in &self.holds {
            write!(f, "{part}, ")?;
        }
        match geteuid() {
            uid if uid.is_root() => f.write_str("user root"),
            uid => write!(f, "user {}", uid.as_raw()),
        }
    }
}

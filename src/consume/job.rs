//! One run of the command, for one file.
//!
//! The command runs in a process group of its own, so that all that it starts can be terminated with it. Its standard input is
//! the slip of the file itself: with it the command inherits the lock. Only its own end counts: programs that it leaves behind,
//! with its output open, hold nobody up.
//!
//! Knows how a command ends, but not what becomes of the file then.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::entries::Entry;

/// How long a command that is terminated may take to end, before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// sysexits.h: a temporary failure.
const EX_TEMPFAIL: i32 = 75;

/// How a command has ended, in words where it has not succeeded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Result {
    Done,
    /// It may succeed later.
    Again(String),
    Failed(String),
}

/// A running command.
pub(super) struct Job {
    entry: Entry,
    child: Child,
    /// Readable when it has ended.
    pidfd: OwnedFd,
    started_at: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It may run until then.
    Runs(Instant),
    /// It was told to end, and may take until then. `late`: because it has run for too long.
    Terminated { until: Instant, late: bool },
    /// As `Terminated`, but it has no choice.
    Killed { late: bool },
}

impl Job {
    /// The command that [`spawn`] has started for `entry`. It may run until then.
    pub(super) fn new(entry: Entry, (child, pidfd): Started, until: Instant) -> Self {
        Self { entry, child, pidfd, started_at: Instant::now(), stage: Stage::Runs(until) }
    }

    pub(super) fn number(&self) -> u64 {
        self.entry.number()
    }

    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// When to call [`Job::advance`] at the latest.
    pub(super) fn deadline(&self) -> Instant {
        match self.stage {
            Stage::Runs(until) | Stage::Terminated { until, .. } => until,
            // Nothing more can be done but wait.
            Stage::Killed { .. } => Instant::now() + GRACE,
        }
    }

    /// Returns how it has ended, if it has. Ends it if it has run for too long.
    ///
    /// # Errors
    /// Any error of the system.
    pub(super) fn advance(&mut self, now: Instant) -> io::Result<Option<Result>> {
        if let Some(status) = self.ended()? {
            let late = matches!(self.stage, Stage::Terminated { late: true, .. } | Stage::Killed { late: true });
            return Ok(Some(judge(status, late)));
        }
        match self.stage {
            Stage::Runs(until) if until <= now => {
                self.signal(Signal::TERM);
                self.stage = Stage::Terminated { until: now + GRACE, late: true };
            }
            Stage::Terminated { until, late } if until <= now => {
                self.signal(Signal::KILL);
                self.stage = Stage::Killed { late };
            }
            _ => {}
        }
        Ok(None)
    }

    /// Tells it to end.
    pub(super) fn terminate(&mut self, now: Instant) {
        if let Stage::Runs(_) = self.stage {
            self.signal(Signal::TERM);
            self.stage = Stage::Terminated { until: now + GRACE, late: false };
        }
    }

    pub(super) fn into_entry(self) -> Entry {
        self.entry
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let mut fds = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)))? == 0 {
            return Ok(None);
        }
        if !matches!(self.stage, Stage::Runs(_)) {
            // What it has left behind was told to end, too. Its number still belongs to it: nobody has waited for it yet.
            self.signal(Signal::KILL);
        }
        self.child.wait().map(Some)
    }

    /// To all processes of its group.
    fn signal(&self, signal: Signal) {
        // It may just have ended.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl AsFd for Job {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A process, and a descriptor that is readable when it has ended.
pub(super) type Started = (Child, OwnedFd);

/// Starts the command for `entry`, whose content is at `path`.
///
/// # Errors
/// It cannot be started. `InvalidInput`: because of what it is to be told of this entry.
pub(super) fn spawn(words: &[OsString], entry: &Entry, path: &Path) -> io::Result<Started> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).process_group(0).stdin(entry.stdin()?);
    if let Some(slip) = entry.slip() {
        command.env("INTAKE_ID", &slip.id).env("INTAKE_NAME", &slip.name).env("INTAKE_PATH", path);
        command.env("INTAKE_SIZE", slip.size.to_string()).env("INTAKE_PEER", &slip.peer);
        command.env("INTAKE_DIGEST", slip.digest.as_deref().unwrap_or_default());
    }
    // A consumer under systemd has one; the command is no service of its own.
    command.env_remove("NOTIFY_SOCKET");
    let mut child = command.spawn()?;
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(errno) => {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            Err(errno.into())
        }
    }
}

fn judge(status: ExitStatus, late: bool) -> Result {
    match (status.code(), status.signal()) {
        _ if late => Result::Again("it ran for too long and was terminated".into()),
        (Some(0), _) => Result::Done,
        (Some(EX_TEMPFAIL), _) => Result::Again("it ended with 75, a temporary failure".into()),
        (Some(code), _) => Result::Failed(format!("it ended with {code}")),
        (None, Some(signal)) => Result::Again(format!("signal {signal} ended it")),
        (None, None) => Result::Again(format!("it ended, {status}")),
    }
}

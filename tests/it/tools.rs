//! What a test needs of its machine: programs by other authors, and rights.
//!
//! A test without them says so and passes. If `INTAKE_REQUIRE_INTEROP` is set, it fails.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::NamedTempFile;

pub use crate::leave_out::leave_out;

/// Where the program is, if it is anywhere.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file());
    if found.is_none() {
        leave_out(&format!("{program} is not installed"));
    }
    found
}

/// The words that run a program where it may mount file systems that nobody else sees (unshare(1)), if that can be had.
pub fn unshare_mounts() -> Option<[&'static str; 3]> {
    let unshare = ["unshare", "--map-root-user", "--mount"];
    installed(unshare[0])?;
    installed("mount")?;
    let mut try_it = Command::new(unshare[0]);
    try_it.args(&unshare[1..]).args(["mount", "-t", "tmpfs", "tmpfs", "/tmp"]);
    let can = try_it.status().expect("unshare can be started").success();
    if !can {
        leave_out("this user may not mount file systems, not even for itself");
    }
    can.then_some(unshare)
}

/// The words that run a program with a network of its own, whose loopback is up, and where it may mount as in
/// [`unshare_mounts`].
pub fn unshare_network() -> Option<Vec<&'static str>> {
    let unshare = [&unshare_mounts()?[..], &["--net"]].concat();
    installed("ip")?;
    installed("nsenter")?;
    let mut try_it = Command::new(unshare[0]);
    try_it.args(&unshare[1..]).args(["ip", "link", "set", "lo", "up"]);
    let can = try_it.status().expect("unshare can be started").success();
    if !can {
        leave_out("this user may not have a network of its own");
    }
    can.then_some(unshare)
}

/// The words that run a program where it may mount a file system in a file, made by `mkfs`, if that can be had.
pub fn unshare_loop_mounts(mkfs: &str) -> Option<[&'static str; 2]> {
    installed(mkfs)?;
    let can = geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !can {
        leave_out("root and a loop device are needed");
    }
    can.then_some(["unshare", "--mount"])
}

/// strace(1) on a thread of a running server: it watches the system calls, and makes some fail, until it is dropped.
pub struct Strace {
    process: Child,
    output: NamedTempFile,
    /// Held open: strace reports new threads here, and a closed pipe would end it.
    _words: BufReader<ChildStderr>,
}

impl Strace {
    /// From when this returns on, calls are watched and counted. `None`: it is left out.
    pub fn attach(thread: u32, args: &[&str]) -> Option<Self> {
        let strace = installed("strace")?;
        let output = NamedTempFile::new().expect("a temporary file can be made");
        let mut command = Command::new(strace);
        command.args(args).arg("-o").arg(output.path()).args(["-p", &thread.to_string()]);
        let mut process = command.stderr(Stdio::piped()).spawn().expect("strace can be started");
        let mut words = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        words.read_line(&mut line).expect("strace says how it went");
        if line.contains(" attached") {
            return Some(Self { process, output, _words: words });
        }
        words.read_to_string(&mut line).expect("strace ends");
        process.wait().expect("a child can be waited for");
        assert!(line.contains("not permitted"), "{command:?}: {line}");
        leave_out("strace may not attach to another process");
        None
    }

    /// Lets go of the thread, and returns the calls that it made, one a line.
    pub fn calls(mut self) -> Vec<String> {
        self.detach();
        let output = fs::read_to_string(self.output.path()).expect("strace writes text");
        output.lines().map(str::to_owned).collect()
    }

    /// Ends strace at once, for a server that has ended: a delayed thread of it would be held until its delay is over.
    pub fn kill(mut self) {
        self.process.kill().expect("a child can be killed");
    }

    fn detach(&mut self) {
        // It ends by itself with the server that it watches.
        if self.process.try_wait().expect("a child can be waited for").is_none() {
            // Killed instead of asked, it would leave the server stopped.
            kill_process(Pid::from_child(&self.process), Signal::TERM).expect("a child can be signalled");
            self.process.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.detach();
    }
}

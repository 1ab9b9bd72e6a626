//! Programs and rights that a test needs of its machine.
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

/// The option that makes a server insist on its whole sandbox, if `INTAKE_REQUIRE_SANDBOX` is set and `args` do not choose.
/// Without the option it takes the parts that the kernel has.
pub fn sandbox(args: &[&str]) -> &'static [&'static str] {
    let is_required = env::var_os("INTAKE_REQUIRE_SANDBOX").is_some() && !args.contains(&"--sandbox");
    if is_required { &["--sandbox", "require"] } else { &[] }
}

/// The path of an installed program. `None`: the test is left out.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file());
    if found.is_none() {
        leave_out(&format!("{program} is not installed"));
    }
    found
}

/// The command that runs a program in a mount namespace of its own (unshare(1)), if this user may have one.
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

/// The command that runs a program in a network namespace of its own, with the loopback interface up, and in a mount
/// namespace as in [`unshare_mounts`].
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

/// The command that runs a program where it may mount a file system that `mkfs` made in a file, if this user may do so.
pub fn unshare_loop_mounts(mkfs: &str) -> Option<[&'static str; 2]> {
    installed(mkfs)?;
    let can = geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !can {
        leave_out("root and a loop device are needed");
    }
    can.then_some(["unshare", "--mount"])
}

/// strace(1) on a thread of a running server: it records the system calls, and makes some of them fail, until it is
/// dropped.
pub struct Strace {
    process: Child,
    output: NamedTempFile,
    /// Held open: strace reports new threads here, and a closed pipe would end it.
    _words: BufReader<ChildStderr>,
}

impl Strace {
    /// Calls are recorded and counted from the return of this function on. `None`: the test is left out.
    pub fn attach(thread: u32, args: &[&str]) -> Option<Self> {
        let strace = installed("strace")?;
        let output = NamedTempFile::new().expect("a temporary file can be made");
        let mut command = Command::new(strace);
        command.args(args).arg("-o").arg(output.path()).args(["-p", &thread.to_string()]);
        let mut process = command.stderr(Stdio::piped()).spawn().expect("strace can be started");
        let mut words = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        words.read_line(&mut line).expect("strace reports its start");
        if line.contains(" attached") {
            return Some(Self { process, output, _words: words });
        }
        words.read_to_string(&mut line).expect("strace ends");
        process.wait().expect("a child can be waited for");
        assert!(line.contains("not permitted"), "{command:?}: {line}");
        leave_out("strace may not attach to another process");
        None
    }

    /// Detaches from the thread, and returns the calls that it made, one a line.
    pub fn calls(mut self) -> Vec<String> {
        self.detach();
        let output = fs::read_to_string(self.output.path()).expect("strace writes text");
        output.lines().map(str::to_owned).collect()
    }

    /// Kills strace, for a server that has ended: otherwise it would hold a delayed thread until the delay is over.
    pub fn kill(mut self) {
        self.process.kill().expect("a child can be killed");
    }

    fn detach(&mut self) {
        // It exits by itself when the server has ended.
        if self.process.try_wait().expect("a child can be waited for").is_none() {
            // SIGKILL would leave the server stopped.
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

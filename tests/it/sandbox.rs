//! The sandbox from inside: system calls made in a running server, as by an attacker who has taken it over. Each attempt is
//! refused; the same attempt in a server without a sandbox shows that it is the sandbox that refuses.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use nix::libc::{self, c_long};
use rustix::process::geteuid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::*;
use crate::tools::{installed, leave_out};

const INSIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/inside.py");

/// The command that runs a server where some system calls fail, as in a container. `None`: the test is left out.
fn without(calls: &[c_long]) -> Option<Vec<String>> {
    let python = installed("python3")?.to_str().expect("text").to_owned();
    let calls = calls.iter().map(c_long::to_string).collect::<Vec<_>>().join(",");
    Some(vec![python, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/without.py").to_owned(), calls])
}

/// Makes system calls in a running server, each a JSON list of its number and its arguments. Returns their results, up to
/// the one that killed the server. `None`: the test is left out.
fn inside(server: &Server, calls: &[Value]) -> Option<Vec<String>> {
    let python = installed("python3")?;
    if cfg!(not(target_arch = "x86_64")) {
        leave_out("system calls are made inside a process on x86-64 only");
        return None;
    }
    let mut command = Command::new(python);
    command.args([INSIDE, &server.pid().to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.stderr(Stdio::piped()).spawn().expect("python3 can be started");
    let lines: String = calls.iter().map(|call| format!("{call}\n")).collect();
    process.stdin.take().expect("stdin is piped").write_all(lines.as_bytes()).expect("python3 reads");
    let output = process.wait_with_output().expect("python3 ends");
    let words = String::from_utf8(output.stderr).expect("words");
    if words.contains("ptrace: Operation not permitted") {
        leave_out("this user may not trace a process of its own");
        return None;
    }
    assert_eq!(words, "");
    Some(String::from_utf8(output.stdout).expect("words").lines().map(str::to_owned).collect())
}

/// A result of [`inside`] in words.
fn told(result: &str) -> String {
    match result.parse::<i64>() {
        Ok(errno) if errno < 0 => format!("{:?}", nix::errno::Errno::from_raw(-errno as i32)),
        Ok(_) => "done".into(),
        Err(_) => result.to_owned(),
    }
}

/// What an attacker tries.
struct Attempt {
    what: &'static str,
    call: Value,
    /// The result in the sandbox, as [`told`].
    refused: &'static str,
    /// Whether root gets it done without a sandbox; `None` where a success would do harm, or needs more than the call.
    free: Option<bool>,
}

fn attempt(what: &'static str, call: c_long, args: Value, refused: &'static str) -> Attempt {
    let args = args.as_array().expect("a list").iter().cloned();
    Attempt { what, call: [Value::from(call)].into_iter().chain(args).collect(), refused, free: Some(true) }
}

/// An attempt that is made in the sandbox only.
fn only_inside(what: &'static str, call: c_long, args: Value, refused: &'static str) -> Attempt {
    Attempt { free: None, ..attempt(what, call, args, refused) }
}

const KILLED: &str = "killed 31";
/// The current directory, for calls that take a directory and a path.
const HERE: i32 = libc::AT_FDCWD;

/// A directory outside the server's, with a secret in it, and the paths that attempts use.
struct Places {
    home: Arc<TempDir>,
    secret: String,
    /// A file and a directory that attempts remove.
    victim: String,
    victims: String,
    new: String,
    inner: String,
    stored: String,
}

impl Places {
    fn new() -> Self {
        let home = Server::home();
        let path = |name: &str| home.path().join(name).to_str().expect("text").to_owned();
        let places = Self {
            secret: path("secret"),
            victim: path("victim"),
            victims: path("victims"),
            new: path("new"),
            inner: path("inbox/new"),
            stored: path("inbox/stored"),
            home: home.clone(),
        };
        fs::write(&places.secret, "a secret").expect("a file can be written");
        fs::write(&places.victim, "").expect("a file can be written");
        for directory in [&places.victims, &path("inbox")] {
            fs::create_dir(directory).expect("a directory can be made");
        }
        fs::write(&places.stored, "stored before").expect("a file can be written");
        places
    }

    /// Attempts on files. Those with EACCES and EXDEV are refused by Landlock, the others by seccomp.
    fn on_files(&self) -> Vec<Attempt> {
        let Self { home, secret, victim, victims, new, inner, stored } = self;
        let home = home.path().to_str().expect("text");
        let environment = format!("/proc/{}/environ", std::process::id());
        vec![
            attempt("read /etc/passwd", libc::SYS_openat, json!([HERE, "/etc/passwd", libc::O_RDONLY]), "EACCES"),
            attempt("read another process's environment", libc::SYS_openat, json!([HERE, environment, 0]), "EACCES"),
            attempt("open its own memory", libc::SYS_openat, json!([HERE, "/proc/self/mem", libc::O_RDWR]), "EACCES"),
            attempt("open a device", libc::SYS_openat, json!([HERE, "/dev/null", libc::O_RDWR]), "EACCES"),
            attempt("list a directory outside", libc::SYS_openat, json!([HERE, home, libc::O_DIRECTORY]), "EACCES"),
            attempt("open the parent", libc::SYS_openat, json!([HERE, "inbox/..", libc::O_DIRECTORY]), "EACCES"),
            attempt("write to a file outside", libc::SYS_openat, json!([HERE, secret, libc::O_WRONLY]), "EACCES"),
            attempt("empty a file outside", libc::SYS_openat, json!([HERE, secret, libc::O_TRUNC]), "EACCES"),
            attempt("shorten a file outside", libc::SYS_truncate, json!([secret, 0]), "EPERM"),
            attempt(
                "make an unnamed file outside",
                libc::SYS_openat,
                json!([HERE, "/tmp", libc::O_TMPFILE | libc::O_RDWR, 0o600]),
                "EACCES",
            ),
            attempt(
                "make a file outside",
                libc::SYS_openat,
                json!([HERE, new, libc::O_CREAT | libc::O_WRONLY, 0o600]),
                "EACCES",
            ),
            attempt("remove a file outside", libc::SYS_unlinkat, json!([HERE, victim, 0]), "EACCES"),
            attempt("make a directory outside", libc::SYS_mkdirat, json!([HERE, new.clone() + "er", 0o700]), "EACCES"),
            attempt(
                "remove a directory outside",
                libc::SYS_unlinkat,
                json!([HERE, victims, libc::AT_REMOVEDIR]),
                "EACCES",
            ),
            attempt(
                "link a file outside into the directory",
                libc::SYS_linkat,
                json!([HERE, secret, HERE, inner, 0]),
                "EXDEV",
            ),
            attempt("remove it again", libc::SYS_unlinkat, json!([HERE, inner, 0]), "ENOENT"),
            attempt(
                "link a stored file outside",
                libc::SYS_linkat,
                json!([HERE, stored, HERE, new.clone() + "est", 0]),
                "EACCES",
            ),
            attempt("rename a stored file outside", libc::SYS_renameat2, json!([HERE, stored, HERE, new, 0]), "EACCES"),
            attempt(
                "rename a file outside into the directory",
                libc::SYS_renameat2,
                json!([HERE, secret, HERE, inner, 0]),
                "EACCES",
            ),
            attempt("make a symbolic link", libc::SYS_symlinkat, json!(["/etc", HERE, inner.clone() + "er"]), "EPERM"),
            attempt(
                "make a device",
                libc::SYS_mknodat,
                json!([HERE, inner.clone() + "est", libc::S_IFCHR | 0o600, 0x103]),
                "EPERM",
            ),
            attempt("change the mode by a path", libc::SYS_fchmodat, json!([HERE, home, 0o700]), "EPERM"),
            attempt("change the owner by a path", libc::SYS_fchownat, json!([HERE, home, 0, 0, 0]), "EPERM"),
            attempt("set a time by a path", libc::SYS_utimensat, json!([HERE, home, 0, 0]), "EPERM"),
            only_inside("set an attribute by a path", libc::SYS_setxattr, json!([home, "user.x", "", 0, 0]), "EPERM"),
            attempt(
                "read a link",
                libc::SYS_readlinkat,
                json!([HERE, "/proc/self/exe", "                ", 16]),
                "EPERM",
            ),
            attempt("change its directory", libc::SYS_chdir, json!(["/"]), "EPERM"),
            attempt("watch files", libc::SYS_inotify_init1, json!([0]), "EPERM"),
            attempt("make a file in memory", libc::SYS_memfd_create, json!(["x", 0]), "EPERM"),
        ]
    }
}

/// Attempts on the network, on other processes and on the process itself.
fn on_the_rest() -> Vec<Attempt> {
    let (parent, readable) = (std::process::id(), libc::PROT_READ);
    let map = |protection| json!([0, 4096, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0]);
    vec![
        attempt("open a TCP socket", libc::SYS_socket, json!([libc::AF_INET, libc::SOCK_STREAM, 0]), "EPERM"),
        attempt("open a raw socket", libc::SYS_socket, json!([libc::AF_INET, libc::SOCK_RAW, 1]), "EPERM"),
        attempt("open a packet socket", libc::SYS_socket, json!([libc::AF_PACKET, libc::SOCK_RAW, 0]), "EPERM"),
        attempt("open a Unix socket", libc::SYS_socket, json!([libc::AF_UNIX, libc::SOCK_STREAM, 0]), "EPERM"),
        attempt("open a netlink socket", libc::SYS_socket, json!([libc::AF_NETLINK, libc::SOCK_RAW, 0]), "EPERM"),
        only_inside("connect", libc::SYS_connect, json!([5, "", 16]), "EPERM"),
        only_inside("bind", libc::SYS_bind, json!([5, "", 16]), "EPERM"),
        only_inside("listen", libc::SYS_listen, json!([5, 1]), "EPERM"),
        attempt("signal its parent", libc::SYS_kill, json!([parent, 0]), "EPERM"),
        only_inside("abort its parent", libc::SYS_tgkill, json!([parent, parent, libc::SIGABRT]), "EPERM"),
        attempt("open its parent", libc::SYS_pidfd_open, json!([parent, 0]), "ENOSYS"),
        only_inside("make a process", libc::SYS_clone, json!([libc::SIGCHLD, 0, 0, 0, 0]), "EPERM"),
        only_inside("make a process by clone3", libc::SYS_clone3, json!(["", 64]), "ENOSYS"),
        only_inside(
            "make a namespace by clone",
            libc::SYS_clone,
            json!([libc::CLONE_THREAD | libc::CLONE_NEWUSER]),
            "EPERM",
        ),
        attempt("map memory for code", libc::SYS_mmap, map(readable | libc::PROT_EXEC), "EPERM"),
        only_inside("make its stack code", libc::SYS_mprotect, json!([0, 4096, readable | libc::PROT_EXEC]), "EPERM"),
        attempt("become root", libc::SYS_setuid, json!([0]), "EPERM"),
        attempt("join root's group", libc::SYS_setgroups, json!([1, "\0\0\0"]), "EPERM"),
        only_inside("take privileges", libc::SYS_capset, json!(["", ""]), "EPERM"),
        attempt("change its personality", libc::SYS_personality, json!([0xffff_ffff_u32]), "EPERM"),
        attempt("let others trace it", libc::SYS_prctl, json!([libc::PR_SET_DUMPABLE, 1]), "EPERM"),
        only_inside("add a filter", libc::SYS_seccomp, json!([0, 0, 0]), "EPERM"),
        only_inside("add a Landlock ruleset", libc::SYS_landlock_create_ruleset, json!([0, 0, 1]), "ENOSYS"),
        only_inside("type into its terminal", libc::SYS_ioctl, json!([2, libc::TIOCSTI, "x"]), "EPERM"),
        only_inside("raise a limit", libc::SYS_prlimit64, json!([0, libc::RLIMIT_CORE, "", 0]), "EPERM"),
        only_inside("set the clock", libc::SYS_clock_settime, json!([0, ""]), "EPERM"),
        only_inside("name the host", libc::SYS_sethostname, json!(["", 0]), "EPERM"),
        only_inside("read the kernel's log", libc::SYS_syslog, json!([10, 0, 0]), "EPERM"),
        only_inside("make a message queue", libc::SYS_msgget, json!([0, 0o1600]), "EPERM"),
    ]
}

/// Calls that kill the process.
fn deadly() -> Vec<Attempt> {
    let call = |what, call, args| only_inside(what, call, args, KILLED);
    vec![
        call("run a program", libc::SYS_execve, json!(["/bin/true", 0, 0])),
        call("run a program by its descriptor", libc::SYS_execveat, json!([0, "", 0, 0, libc::AT_EMPTY_PATH])),
        call("trace a process", libc::SYS_ptrace, json!([16, 1, 0, 0])),
        call("read another process's memory", libc::SYS_process_vm_readv, json!([1, 0, 0, 0, 0, 0])),
        call("write another process's memory", libc::SYS_process_vm_writev, json!([1, 0, 0, 0, 0, 0])),
        call("take another process's descriptor", libc::SYS_pidfd_getfd, json!([0, 0, 0])),
        call("measure the kernel", libc::SYS_perf_event_open, json!([0, 0, -1, -1, 0])),
        call("leave its namespaces", libc::SYS_unshare, json!([libc::CLONE_NEWUSER])),
        call("enter a namespace", libc::SYS_setns, json!([0, 0])),
        call("change its root", libc::SYS_chroot, json!(["/"])),
        call("swap its root", libc::SYS_pivot_root, json!(["/", "/"])),
        call("mount", libc::SYS_mount, json!(["none", "/nowhere", "tmpfs", 0, 0])),
        call("unmount", libc::SYS_umount2, json!(["/nowhere", 0])),
        call("open a file system", libc::SYS_fsopen, json!(["tmpfs", 0])),
        call("move a mount", libc::SYS_move_mount, json!([-1, "", -1, "", 0])),
        call("open a file by its number", libc::SYS_open_by_handle_at, json!([-1, "", 0])),
        call("load a program into the kernel", libc::SYS_bpf, json!([0, "", 0])),
        call("load a module", libc::SYS_init_module, json!(["", 0, ""])),
        call("load a module from a file", libc::SYS_finit_module, json!([-1, "", 0])),
        call("remove a module", libc::SYS_delete_module, json!(["none", 0])),
        call("load another kernel", libc::SYS_kexec_load, json!([0, 99, 0, 0])),
        call("reboot", libc::SYS_reboot, json!([0, 0, 0, 0])),
        call("swap to a file", libc::SYS_swapon, json!(["/nowhere", 0])),
        call("account processes", libc::SYS_acct, json!(["/nowhere"])),
        call("read the keys of the kernel", libc::SYS_keyctl, json!([0, -3, 0])),
        call("add a key to the kernel", libc::SYS_add_key, json!(["none", "none", "", 0, 0])),
        call("make a ring of calls", libc::SYS_io_uring_setup, json!([1, ""])),
        call("handle page faults", libc::SYS_userfaultfd, json!([0])),
    ]
}

/// Makes each attempt in `server`, and returns those that end otherwise than `expected` says.
fn wrong(
    server: &Server,
    attempts: &[Attempt],
    expected: impl Fn(&Attempt) -> Option<&'static str>,
) -> Option<Vec<String>> {
    let tried: Vec<_> = attempts.iter().filter_map(|attempt| Some((attempt, expected(attempt)?))).collect();
    let results = inside(server, &tried.iter().map(|(attempt, _)| attempt.call.clone()).collect::<Vec<_>>())?;
    let mut wrong = Vec::new();
    for (at, (attempt, expected)) in tried.iter().enumerate() {
        let found = results.get(at).map_or("not reached".into(), |result| told(result));
        println!("{:45} {found}", attempt.what);
        if found != *expected {
            wrong.push(format!("{}: {found} instead of {expected}", attempt.what));
        }
    }
    Some(wrong)
}

#[test]
fn a_server_that_was_taken_over_can_do_nothing_else() {
    let places = Places::new();
    let server = Server::start_in(&places.home, &["--sandbox", "require"]);
    let attempts = [places.on_files(), on_the_rest()];
    for attempts in &attempts {
        let Some(wrong) = wrong(&server, attempts, |attempt| Some(attempt.refused)) else { return };
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
    assert_eq!(fs::read_to_string(&places.secret).expect("it is still there"), "a secret");
    assert!(!Path::new(&places.new).exists());
    // It still works.
    assert_eq!(line(server.tcp(), "a", b"content").expect("a receipt"), "done 7 - a\n");

    if !geteuid().is_root() {
        return leave_out("only root gets all this done without a sandbox");
    }
    let places = Places::new();
    let server = Server::start_in(&places.home, &["--sandbox", "off"]);
    for attempts in [places.on_files(), on_the_rest()] {
        let wrong = wrong(&server, &attempts, |attempt| attempt.free.map(|_| "done")).expect("it was possible before");
        assert!(wrong.is_empty(), "without a sandbox: {wrong:#?}");
    }
}

#[test]
fn a_server_that_asks_for_what_only_an_attacker_needs_is_killed() {
    for attempt in deadly() {
        let mut server = Server::start(&["--sandbox", "require"]);
        let Some(wrong) = wrong(&server, &[attempt], |attempt| Some(attempt.refused)) else { return };
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(!server.wait().success());
    }
}

/// Each layer holds without the other.
#[test]
fn a_server_runs_with_the_parts_that_there_are_unless_all_are_required() {
    let file = json!([libc::SYS_openat, HERE, "/etc/passwd", libc::O_RDONLY]);
    let socket = json!([libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0]);
    for (lacking, holds, lack, results) in [
        (
            libc::SYS_landlock_create_ruleset,
            "seccomp allows ",
            "Landlock: the kernel does not have it",
            ["done", "EPERM"],
        ),
        (libc::SYS_seccomp, "Landlock ABI ", "seccomp: ", ["EACCES", "done"]),
    ] {
        let Some(wrapper) = without(&[lacking]) else { return };
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        let server = Server::start_under(&wrapper, &Server::home(), &["--sandbox", "auto"]);
        let warning = format!("WARN  intake::server::start] the sandbox lacks a part. {lack}");
        for words in ["sandbox: no new privileges, ", holds, &warning] {
            await_until(words, || server.log().contains(words));
        }
        assert_eq!(line(server.tcp(), "a", b"content").expect("a receipt"), "done 7 - a\n");
        let Some(found) = inside(&server, &[file.clone(), socket.clone()]) else { return };
        assert_eq!(found.iter().map(|result| told(result)).collect::<Vec<_>>(), results);

        let output = Server::fail_to_start_under(&wrapper, &Server::home(), &["--sandbox", "require"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let words = words_of(&output);
        assert!(words.contains("--sandbox require: this system cannot confine the server. "), "{words}");
        assert!(words.contains(lack), "{words}");
    }
}

fn words_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Landlock alone keeps the server from the network and from other processes.
#[test]
fn without_seccomp_there_is_still_no_network_and_no_signal() {
    let Some(wrapper) = without(&[libc::SYS_seccomp]) else { return };
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let server = Server::start_under(&wrapper, &Server::home(), &["--sandbox", "auto"]);
    await_until("the log", || server.log().contains("listening on"));
    let Some(abi) = server.log().split("Landlock ABI ").nth(1).and_then(|rest| rest[..1].parse::<u8>().ok()) else {
        return leave_out("this kernel has no Landlock");
    };
    if abi < 6 {
        return leave_out("this kernel's Landlock knows no scopes");
    }
    // An address of all zeros but the family: any port, or port 0.
    let address = "\u{2}";
    let made = inside(&server, &[json!([libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0])]);
    let Some(made) = made else { return };
    let results = inside(
        &server,
        &[
            json!([libc::SYS_bind, made[0].parse::<i32>().expect("a descriptor"), address, 16]),
            json!([libc::SYS_connect, made[0].parse::<i32>().expect("a descriptor"), address, 16]),
            json!([libc::SYS_kill, std::process::id(), 0]),
        ],
    );
    let results: Vec<_> = results.expect("it was possible before").iter().map(|result| told(result)).collect();
    assert_eq!(results, ["EACCES", "EACCES", "EPERM"]);
}

/// Sockets and directory are open before rights are given up, and threads are started after it.
#[test]
fn rights_are_given_up_between_the_last_socket_and_the_first_thread() {
    let Some(strace) = installed("strace") else { return };
    let home = Server::home();
    let record = home.path().join("record");
    let record = record.to_str().expect("text");
    let calls = "trace=openat,bind,listen,prctl,landlock_restrict_self,seccomp,clone,clone3";
    let wrapper = [strace.to_str().expect("text"), "-D", "-f", "-e", calls, "-o", record];
    let server = Server::start_under(&wrapper, &home, &["--sandbox", "require"]);
    line(server.tcp(), "a", b"content").expect("a receipt");
    let record = fs::read_to_string(record).expect("strace writes text");
    let at =
        |call: &str| record.lines().position(|line| line.contains(call)).unwrap_or_else(|| panic!("{call}\n{record}"));
    let last =
        |call: &str| record.lines().collect::<Vec<_>>().iter().rposition(|line| line.contains(call)).expect(call);
    let order = [
        at(", \"inbox\", "),
        at("listen("),
        last(" bind("),
        at("PR_SET_NO_NEW_PRIVS"),
        at("landlock_restrict_self("),
        at("SECCOMP_SET_MODE_FILTER"),
        last("SECCOMP_SET_MODE_FILTER"),
        at("CLONE_THREAD"),
    ];
    assert!(order.is_sorted(), "{order:?}\n{record}");
}

/// The rights are those of the directory itself.
#[test]
fn a_directory_that_is_moved_keeps_its_rights() {
    let server = Server::start(&["--sandbox", "require"]);
    let moved = server.dir().with_file_name("moved");
    fs::rename(server.dir(), &moved).expect("the inbox can be moved");
    fs::remove_dir_all(moved.join(".intake")).expect("the server's own files can be removed");
    assert_eq!(line(server.tcp(), "a", b"content").expect("a receipt"), "done 7 - a\n");
    assert_eq!(fs::read(moved.join("a")).expect("the file is stored"), b"content");
    assert!(!server.dir().exists());
}

const UID: u32 = 54_321;

/// A directory for a server that becomes another user. `None`: the test is left out.
fn home_of_user() -> Option<Arc<TempDir>> {
    if !geteuid().is_root() {
        leave_out("only root becomes another user");
        return None;
    }
    let home = Server::home();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("root may");
    fs::create_dir(home.path().join("inbox")).expect("root may");
    chown(home.path().join("inbox"), Some(UID), Some(UID)).expect("root may");
    Some(home)
}

#[test]
fn root_becomes_another_user_for_good() {
    let Some(home) = home_of_user() else { return };
    // Without a sandbox, so that only the user's rights count.
    let server = Server::start_in(&home, &["--user", &UID.to_string(), "--sandbox", "off"]);
    assert_eq!(line(server.tcp(), "a", b"content").expect("a receipt"), "done 7 - a\n");
    for path in ["a", ".intake", ".intake/kept"] {
        let meta = fs::metadata(server.dir().join(path)).expect("it exists");
        assert_eq!((meta.uid(), meta.gid()), (UID, UID), "{path}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let all = format!("{UID}\t{UID}\t{UID}\t{UID}");
    for line in [&format!("Uid:\t{all}"), &format!("Gid:\t{all}"), "Groups:\t", "CapPrm:\t0000000000000000"] {
        assert!(status.lines().any(|found| found.trim_end() == line.trim_end()), "{line}\n{status}");
    }
    let attempts = [
        json!([libc::SYS_setuid, 0]),
        json!([libc::SYS_setresuid, -1, 0, -1]),
        json!([libc::SYS_setgid, 0]),
        json!([libc::SYS_setgroups, 1, "\0\0\0"]),
        json!([libc::SYS_chroot, "/"]),
    ];
    let Some(found) = inside(&server, &attempts) else { return };
    assert!(found.iter().all(|result| told(result) == "EPERM"), "{found:?}");
}

/// Port 80 of a network of its own, as another user.
#[test]
fn a_port_below_1024_is_bound_before_root_is_given_up() {
    let (Some(home), Some(unshare), Some(_), Some(nsenter)) =
        (home_of_user(), installed("unshare"), installed("ip"), installed("nsenter"))
    else {
        return;
    };
    let script = "ip link set lo up && exec \"$@\"";
    let wrapper = [unshare.to_str().expect("text"), "--net", "sh", "-c", script, "sh"];
    let listen = ["--listen", "127.0.0.1:80", "--udp", "127.0.0.1:81"];
    let server =
        Server::start_under(&wrapper, &home, &[&listen[..], &["--user", "54321", "--sandbox", "require"]].concat());
    assert_eq!(server.tcp().port(), 80);
    fs::write(home.path().join("a"), "content").expect("root may");
    let mut client = Command::new(nsenter);
    client.args(["--target", &server.pid().to_string(), "--net", env!("CARGO_BIN_EXE_intake"), "send", "--to"]);
    let output = client.args(["127.0.0.1:80", "a"]).current_dir(home.path()).output().expect("nsenter can be started");
    assert!(output.status.success(), "{}", words_of(&output));
    let stored = fs::metadata(server.dir().join("a")).expect("the file is stored");
    assert_eq!((stored.uid(), stored.gid()), (UID, UID));
    // Another port would be refused now, even without a sandbox.
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    assert!(
        status.contains("CapEff:\t0000000000000000\n") && status.contains("CapPrm:\t0000000000000000\n"),
        "{status}"
    );
}

#[test]
fn a_user_that_the_server_cannot_become_is_refused_at_the_start() {
    let refused = |home: &Arc<TempDir>, wrapper: &[&str], user: &str| {
        let output = Server::fail_to_start_under(wrapper, home, &["--user", user]);
        (output.status.code(), words_of(&output))
    };
    for user in ["root", "0", "no such user"] {
        assert_eq!(refused(&Server::home(), &[], user).0, Some(2), "{user}");
    }
    let Some(home) = home_of_user() else { return };
    // This is not root any more, and that user is another one.
    let other = ["setpriv", "--reuid", "54322", "--regid", "54322", "--clear-groups"];
    let (code, words) = refused(&home, &other, "54321");
    assert!(code == Some(1) && words.contains("only root can become another user"), "{words}");
    let (code, words) = refused(&Server::home(), &[], "54321");
    assert!(code == Some(1) && words.contains("inbox cannot be "), "{words}");
}

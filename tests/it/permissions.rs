//! The group, the mode and the ACL of a stored file: those of any new file in the directory, or those of the file that
//! it replaces. A directory with unusable permissions or mounts is refused at the start.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::fs::getxattr;

use crate::fixture::*;
use crate::tools::{Strace, installed, leave_out, unshare_mounts};

/// The attributes that decide who may read and write a file.
#[derive(Debug, PartialEq)]
struct Access {
    group: u32,
    mode: u32,
    acl: Option<Vec<u8>>,
}

impl Access {
    fn to(path: &Path) -> Self {
        let meta = fs::metadata(path).expect("the file exists");
        let mut acl = vec![0; 1024];
        let size = getxattr(path, "system.posix_acl_access", &mut acl).ok();
        Self { group: meta.gid(), mode: meta.mode(), acl: size.map(|size| acl[..size].to_vec()) }
    }

    /// The attributes of a file that another program creates in `directory`.
    fn to_new(directory: &Path) -> Self {
        let path = directory.join("like any other");
        let made = Command::new("sh").args(["-c", "umask 002; : > \"$0\""]).arg(&path).status();
        assert!(made.expect("sh can be started").success());
        let access = Self::to(&path);
        fs::remove_file(path).expect("the file can be removed");
        access
    }
}

/// Runs a command on `directory`. `false`: this user may not, and the test is left out.
fn change(directory: &Path, command: &str) -> bool {
    if command.starts_with("setfacl") && installed("setfacl").is_none() {
        return false;
    }
    let output = Command::new("sh").args(["-c", command]).current_dir(directory).output().expect("sh can be started");
    let is_done = output.status.success();
    if !is_done {
        leave_out(&format!("{command:?} is not permitted: {}", String::from_utf8_lossy(&output.stderr)));
    }
    is_done
}

/// Sends `request` and the bytes that follow it, and returns the last line of the answer.
fn ask(server: &Server, request: &str, rest: &[u8]) -> String {
    let mut stream = connect(server.tcp()).expect("the server listens");
    stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(rest)).expect("the server reads");
    stream.shutdown(Shutdown::Write).expect("a stream can be shut down");
    io::read_to_string(stream).expect("an answer").lines().next_back().unwrap_or_default().to_owned()
}

/// Stores a file in every way, checks that all get the same permissions, and removes them.
fn assert_alike(server: &Server, label: &str) {
    let expected = Access::to_new(&server.dir());
    for (name, attributes) in [
        ("bare", None),
        ("sized", Some(" on-exists=rename")),
        ("replacing", Some(" on-exists=replace")),
        ("kept", Some(" on-exists=rename resume=id")),
    ] {
        let told = match attributes {
            None => line(server.tcp(), name, b"abc").expect("a receipt"),
            Some(attributes) => {
                ask(server, &format!("/ask size=3 crc32c=trailer{attributes} {name}\n"), b"abccrc32c=364b3fb7\n")
            }
        };
        assert!(told.starts_with("done "), "{label}, {name}: {told}");
        assert_eq!(Access::to(&server.dir().join(name)), expected, "{label}, {name}");
    }
    server.remove_files();
}

/// Only with this option may a request replace a file.
const REPLACE: [&str; 2] = ["--on-exists", "replace"];
const UMASK: [&str; 4] = ["sh", "-c", "umask 002; exec \"$@\"", "sh"];
const WITHOUT_UNNAMED_FILES: [&str; 6] = ["strace", "-D", "-o", "/dev/null", "-e", "inject=linkat:error=EOPNOTSUPP"];

const CHANGES: [&str; 3] =
    ["chgrp 54321 . && chmod 2775 .", "setfacl -d -m u:54321:rw,g::r,o::- .", "setfacl -d -m o::- . && chmod g-s ."];

#[test]
fn a_stored_file_has_the_permissions_of_any_other_file_in_the_directory() {
    for wrapper in [&UMASK[..], &[&UMASK[..], &WITHOUT_UNNAMED_FILES].concat()] {
        if wrapper.len() > UMASK.len() && installed("strace").is_none() {
            return;
        }
        let home = Server::home();
        assert_alike(&Server::start_under(wrapper, &home, &REPLACE), "at first");
        for command in CHANGES {
            if !change(&home.path().join("inbox"), command) {
                return;
            }
            let server = Server::start_under(wrapper, &home, &REPLACE);
            assert_alike(&server, command);
            let log = server.log();
            assert!(!log.contains(" WARN "), "{log}");
            let intake = fs::metadata(server.dir().join(".intake")).expect("the file exists");
            assert_eq!(intake.mode() & 0o777, 0o700, "{command}");
        }
    }
}

#[test]
fn permissions_that_change_while_the_server_runs_apply_to_later_files() {
    let server = Server::start_under(&UMASK, &Server::home(), &REPLACE);
    for command in CHANGES {
        if !change(&server.dir(), command) {
            return;
        }
        assert_alike(&server, command);
    }
}

#[test]
fn a_file_that_replaces_another_keeps_its_permissions() {
    let server = Server::start(&REPLACE);
    let path = server.dir().join("a");
    for command in ["chmod 640 a", "chmod 4755 a", "chgrp 54321 a", "setfacl -m u:54321:rw,g::- a", "chmod 604 a"] {
        fs::write(&path, "old").expect("a file can be made");
        if !change(&server.dir(), command) {
            return;
        }
        let before = Access::to(&path);
        assert_eq!(line(server.tcp(), "a", b"new").expect("a receipt"), "done 3 - a\n");
        assert_eq!(fs::read(&path).expect("the file exists"), b"new");
        // Set-user-ID is not kept: the new content must not run with the rights of the owner.
        let expected = Access { mode: before.mode & 0o100_777, ..before };
        assert_eq!(Access::to(&path), expected, "{command}");
        fs::remove_file(&path).expect("the file can be removed");
    }
    server.assert_holds_only(&Files::new());
}

#[test]
fn a_group_that_cannot_be_kept_gets_no_more_rights_than_others() {
    let server = Server::start(&REPLACE);
    let path = server.dir().join("a");
    fs::write(&path, "old").expect("a file can be made");
    fs::set_permissions(&path, Permissions::from_mode(0o664)).expect("the file is ours");
    if chown(&path, None, Some(54_321)).is_err() {
        return leave_out("this user may not give a file to any group");
    }
    let publisher = server.threads()[1];
    let Some(_strace) = Strace::attach(publisher, &["-e", "inject=fchown:error=EPERM"]) else { return };
    assert_eq!(line(server.tcp(), "a", b"new").expect("a receipt"), "done 3 - a\n");
    let meta = fs::metadata(&path).expect("the file exists");
    assert_eq!((meta.gid(), meta.mode() & 0o777), (rustix::process::getegid().as_raw(), 0o644));
}

/// The message of a server that does not start after `script` has run in its directory.
fn refusal(unshare: &[&str], wrapper: &[&str], script: &str) -> String {
    let script = format!("mkdir inbox && {script} && exec \"$@\"");
    let home = Server::home();
    // If the server does start, it is killed, and the test fails.
    let words = [unshare, &["timeout", "20", "sh", "-c", &script, "sh"], wrapper].concat();
    let intake = [env!("CARGO_BIN_EXE_intake"), "serve", "--dir", "inbox", "--listen", "127.0.0.1:0"];
    let words = [words, intake.to_vec()].concat();
    let output =
        Command::new(words[0]).args(&words[1..]).current_dir(home.path()).output().expect("the server can be started");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("words")
}

#[test]
fn an_intake_directory_on_another_mount_is_refused_at_the_start() {
    let Some(unshare) = unshare_mounts() else { return };
    for (mount, place) in [
        ("mkdir inbox/.intake && mount -t tmpfs tmpfs inbox/.intake && chmod 700 inbox/.intake", ".intake"),
        ("mkdir other inbox/.intake && mount --bind other inbox/.intake", ".intake"),
        ("mkdir -p -m 700 inbox/.intake/kept && mount -t tmpfs tmpfs inbox/.intake/kept", ".intake/kept"),
    ] {
        let told = refusal(&unshare, &[], mount);
        assert!(told.contains(&format!("inbox cannot be stored in: its {place} is on another file system")), "{told}");
    }
}

#[test]
fn the_error_for_an_unusable_file_system_says_what_it_lacks() {
    if installed("strace").is_none() {
        return;
    }
    let wrapper =
        ["strace", "-D", "-o", "/dev/null", "-e", "inject=linkat:error=EPERM", "-e", "inject=renameat2:error=EINVAL"];
    let told = refusal(&[], &wrapper, "true");
    assert!(told.contains("neither unnamed files (O_TMPFILE) nor RENAME_NOREPLACE nor hard links"), "{told}");
    assert!(told.contains("Operation not permitted"), "{told}");
}

#[test]
fn a_umask_that_removes_the_servers_own_rights_is_refused_at_the_start() {
    let told = refusal(&[], &[], "umask 0700");
    assert!(told.contains("the umask (0700)") && told.contains("umask 022"), "{told}");
}

//! Disks that are full, broken, or late to report it: one upload ends, with a refusal or a reset, and the server
//! continues.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::fs::{statvfs, syncfs};
use rustix::process::geteuid;

use crate::fixture::*;
use crate::tools::{Strace, unshare_loop_mounts};

/// Uploads in both dialects, and checks that each is refused before any content: classic instead of its `ok`.
fn assert_refused(server: &Server, start: &str) {
    let error = classic_begin(server.tcp(), "classic.bin").expect_err("the server cannot create a file");
    assert!(error.to_string().starts_with(start), "{error}");
    let reply = line(server.tcp(), "line.bin", &content(1 << 20, 1)).expect("the answer arrives");
    assert!(reply.starts_with(start), "{reply}");
}

/// Uploads in both dialects, and checks that each is aborted in the middle.
fn assert_aborted(server: &Server, bytes: &[u8], start: &str) {
    assert!(is_reset(&classic(server.tcp(), "classic.bin", bytes)));
    let reply = line(server.tcp(), "line.bin", bytes).expect("the answer arrives");
    assert!(reply.starts_with(start), "{reply}");
}

#[test]
fn an_upload_that_does_not_fit_on_the_disk_is_aborted_and_its_space_freed() {
    for policy in ["rename", "replace"] {
        let mount = "mount -t tmpfs -o size=3000k tmpfs inbox";
        let Some(server) = Server::start_after(mount, &["--on-exists", policy]) else { return };
        let free_pages = || statvfs(server.dir()).expect("the inbox is a directory").f_bfree;
        let before = free_pages();
        server.withstands(|| {
            assert_aborted(&server, &content(6 << 20, 1), "no 507 no space is left for the file: ");
            // Minus one page for the honest upload.
            await_until("the space to be free again", || free_pages() >= before - 1);
            let bytes = content(500_000, 2);
            classic(server.tcp(), "fits.bin", &bytes).expect("the upload is accepted");
            files_of([("fits.bin", &bytes)])
        });
    }
}

#[test]
fn a_disk_without_inodes_refuses_before_any_content() {
    let Some(server) = Server::start_after("mount -t tmpfs -o nr_inodes=20 tmpfs inbox", &[]) else { return };
    server.withstands(|| {
        let fillers = (0..).map(|number| server.dir().join(format!("filler {number}")));
        let made: Vec<_> = fillers.take_while(|filler| File::create(filler).is_ok()).collect();
        assert_refused(&server, "no 507 no space is left for the file: ");
        made.iter().for_each(|filler| fs::remove_file(filler).expect("it can be removed"));
        classic(server.tcp(), "fits.bin", b"content").expect("the upload is accepted");
        files_of([("fits.bin", b"content")])
    });
}

#[test]
fn a_file_over_the_size_limit_of_the_process_aborts_only_its_upload() {
    for limit in [100_000, 4_000_000] {
        let server = Server::start_under(&["prlimit", &format!("--fsize={limit}")], &Server::home(), &[]);
        server.withstands(|| {
            let start = "no 500 the file cannot be stored: larger than the file system";
            assert_aborted(&server, &content(limit + 1, 1), start);
            let bytes = content(limit, 2);
            classic(server.tcp(), "fits.bin", &bytes).expect("the upload is accepted");
            files_of([("fits.bin", &bytes)])
        });
    }
}

#[test]
fn a_lost_directory_fails_uploads_but_not_the_server() {
    let server = Server::start(&[]);
    let descriptors = server.descriptors();
    let running = classic_begin(server.tcp(), "running.bin").expect("the name is accepted");
    fs::remove_dir_all(server.dir()).expect("it can be removed");
    assert!(is_reset(&classic_finish(running, b"content")));
    let words = "the server's directory was removed";
    (0..2).for_each(|_| assert_refused(&server, &format!("no 500 the file cannot be stored: {words}")));
    let log = server.log();
    assert!(log.contains(&format!("refused \"running.bin\", 500 the file cannot be stored: {words}")), "{log}");
    assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
    assert!(log.contains("inbox was removed while the server runs"), "{log}");
    server.assert_echoes(b"anybody there?");
    await_until("every descriptor to be closed", || server.descriptors() == descriptors);
}

#[test]
fn a_lost_directory_is_reported_by_the_first_upload_after_it() {
    for policy in ["rename", "replace"] {
        let server = Server::start(&["--on-exists", policy]);
        classic(server.tcp(), "before.bin", b"content").expect("the upload is taken");
        fs::remove_dir_all(server.dir()).expect("it can be removed");
        let words = "no 500 the file cannot be stored: the server's directory was removed";
        let reply = line(server.tcp(), "first.bin", b"content").expect("the answer arrives");
        assert!(reply.starts_with(words), "{policy}: {reply}");
        (0..2).for_each(|_| assert_refused(&server, words));
        let log = server.log();
        assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
        assert!(log.contains("inbox was removed while the server runs"), "{log}");
    }
}

#[test]
fn a_directory_without_write_permission_fails_uploads_until_it_has_it_again() {
    // Root may write in spite of the mode because it has a capability.
    let wrapper: &[&str] = if geteuid().is_root() { &["setpriv", "--bounding-set", "-all"] } else { &[] };
    for policy in ["rename", "replace"] {
        let server = Server::start_under(wrapper, &Server::home(), &["--on-exists", policy]);
        let set_mode =
            |mode| fs::set_permissions(server.dir(), fs::Permissions::from_mode(mode)).expect("the directory is ours");
        server.withstands(|| {
            set_mode(0);
            assert_refused(&server, "no 500 the file cannot be stored: Permission denied");
            set_mode(0o755);
            classic(server.tcp(), "later.bin", b"content").expect("the upload is accepted");
            files_of([("later.bin", b"content")])
        });
    }
}

#[test]
fn a_read_only_file_system_fails_uploads_until_it_is_writable_again() {
    for policy in ["rename", "replace"] {
        let Some(server) = Server::start_after("mount -t tmpfs tmpfs inbox", &["--on-exists", policy]) else { return };
        // The kernel refuses a remount while a file is open for writing.
        remount(&server, "ro");
        assert_refused(&server, "no 500 the file cannot be stored: Read-only file system");
        remount(&server, "rw");
        classic(server.tcp(), "later.bin", b"content").expect("the upload is accepted");
        server.assert_holds_only(&files_of([("later.bin", b"content")]));
    }
}

/// Remounts the file system of the server.
fn remount(server: &Server, mode: &str) {
    let (pid, option) = (server.pid().to_string(), format!("remount,{mode}"));
    let mut command = Command::new("nsenter");
    command.args(["--user", "--mount", "--preserve-credentials", "--target", &pid, "mount", "-o", &option]);
    let output = command.arg(server.dir()).output().expect("nsenter comes with unshare");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn a_mount_point_under_the_name_is_not_written_through() {
    let mount = "mkdir inbox/mounted && mount -t tmpfs tmpfs inbox/mounted && \
                 touch elsewhere inbox/bound && mount --bind elsewhere inbox/bound";
    let Some(server) = Server::start_after(mount, &["--on-exists", "replace"]) else { return };
    server.withstands(|| {
        let reply = line(server.tcp(), "mounted", b"content").expect("the answer arrives");
        assert!(reply.starts_with("no 409 "), "{reply}");
        assert!(is_reset(&classic(server.tcp(), "bound", b"content")));
        // The mounted file is unchanged.
        files_of([("bound", b"")])
    });
}

/// Makes the next call of this kind in `thread` fail with each of these errors, and checks that the upload is refused
/// with this code.
fn assert_each_fails(thread: u32, call: &str, errors: &[(&str, u16)], upload: impl Fn() -> String) {
    for (error, code) in errors {
        let inject = format!("inject={call}:error={error}:when=1");
        let Some(_strace) = Strace::attach(thread, &["-e", &inject]) else { return };
        let told = upload();
        assert!(told.starts_with(&format!("no {code} ")), "{call}, {error}: {told}");
    }
}

const ERRORS: [(&str, u16); 7] =
    [("EIO", 500), ("EACCES", 500), ("EROFS", 500), ("ENOMEM", 500), ("ENFILE", 500), ("ENOSPC", 507), ("EDQUOT", 507)];

#[test]
fn a_file_that_cannot_be_created_is_refused_before_any_content() {
    for policy in ["rename", "replace"] {
        let server = Server::start(&["--on-exists", policy]);
        server.withstands(|| {
            let errors = [&ERRORS[..], &[("EMFILE", 500)]].concat();
            assert_each_fails(server.pid(), "openat", &errors, || {
                classic_begin(server.tcp(), "name.bin").expect_err("the server cannot create a file").to_string()
            });
            Files::new()
        });
    }
}

#[test]
fn a_file_that_cannot_be_published_is_refused_and_removed() {
    for (sync, policy, call) in
        [("none", "refuse", "linkat"), ("full", "rename", "linkat"), ("full", "replace", "/^rename")]
    {
        let server = Server::start(&["--sync", sync, "--on-exists", policy]);
        server.withstands(|| {
            let publisher = server.naming_thread();
            let errors = [&ERRORS[..], &[("EXDEV", 500), ("EMLINK", 500), ("EPERM", 500)]].concat();
            assert_each_fails(publisher, call, &errors, || {
                line(server.tcp(), "name.bin", b"content").expect("the answer arrives")
            });
            let inject = format!("inject={call}:error=EIO:when=1");
            let Some(_strace) = Strace::attach(publisher, &["-e", &inject]) else { return Files::new() };
            assert!(is_reset(&classic(server.tcp(), "name.bin", b"content")));
            Files::new()
        });
    }
}

#[test]
fn a_failed_write_ends_its_upload() {
    let server = Server::start(&["--on-exists", "replace"]);
    server.withstands(|| {
        let errors =
            ["EIO", "ENOSPC", "EDQUOT", "EROFS"].into_iter().flat_map(|error| (1..=3).map(move |k| (error, k)));
        errors.for_each(|(error, k)| fail_kth_write(&server, error, k));
        Files::new()
    });
}

/// The server's descriptor of the file at `path`, as the kernel and strace(1) name it. The file was opened without a
/// name.
fn descriptor_path(server: &Server, path: &Path) -> String {
    let inode = fs::metadata(path).expect("it is there").ino();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the server runs");
    let mut paths = descriptors.map(|entry| entry.expect("and read").path());
    let descriptor = paths.find(|path| fs::metadata(path).is_ok_and(|meta| meta.ino() == inode));
    let target = fs::read_link(descriptor.expect("the file is open")).expect("a descriptor is a link");
    target.to_str().expect("a path in UTF-8").trim_end_matches(" (deleted)").to_owned()
}

/// Begins an upload, and finds its partial file.
fn begin_named(server: &Server) -> (TcpStream, PathBuf) {
    let others = server.partials();
    let stream = classic_begin(server.tcp(), "name.bin").expect("the name is accepted");
    let partial = server.partials().into_iter().find(|path| !others.contains(path));
    (stream, partial.expect("it has a name"))
}

/// Uploads in three pieces, each of which is written separately, and makes the `k`th write fail.
fn fail_kth_write(server: &Server, error: &str, k: usize) {
    let (mut stream, partial) = begin_named(server);
    let path = descriptor_path(server, &partial);
    let inject = format!("inject=write:error={error}:when={k}");
    let Some(_strace) = Strace::attach(server.pid(), &["-P", &path, "-e", &inject]) else { return };
    for piece in 1..k {
        stream.write_all(b"piece").expect("content can be sent");
        await_until("the piece to be written", || {
            fs::metadata(&partial).is_ok_and(|meta| meta.len() == 5 * piece as u64)
        });
    }
    assert!(is_reset(&classic_finish(stream, b"piece")), "{error} in write {k}");
}

#[test]
fn a_close_that_fails_fails_the_upload_and_is_not_repeated() {
    for sync in ["none", "full"] {
        let server = Server::start(&["--sync", sync, "--on-exists", "replace"]);
        let publisher = server.naming_thread();
        for error in ["EIO", "ENOSPC", "EDQUOT", "EINTR"] {
            let (stream, partial) = begin_named(&server);
            let path = descriptor_path(&server, &partial);
            let inject = format!("inject=close:error={error}:when=1");
            let args = ["-P", &path, "-e", "trace=close", "-e", &inject];
            let Some(strace) = Strace::attach(publisher, &args) else { return };
            assert!(is_reset(&classic_finish(stream, b"content")), "{error}");
            assert_eq!(strace.calls().len(), 1, "the descriptor may be another file's by then");
            server.assert_holds_only(&Files::new());
        }
    }
}

#[test]
fn interrupted_calls_are_repeated() {
    let server = Server::start(&[]);
    let of_loop = ["epoll_wait", "accept4", "recvfrom", "sendto", "write"];
    server.withstands(|| {
        let stored = [
            (server.pid(), &of_loop[..]),
            (server.syncing_thread(), &["fdatasync"]),
            (server.naming_thread(), &["fsync"]),
        ]
        .map(interrupt(&server));
        stored.into_iter().flatten().collect()
    });
}

/// Uploads while the thread's calls of these kinds fail with EINTR.
fn interrupt(server: &Server) -> impl Fn((u32, &[&str])) -> Files {
    move |(thread, calls)| {
        let inject: Vec<String> = calls.iter().map(|call| format!("inject={call}:error=EINTR:when=2+3")).collect();
        let args: Vec<&str> = inject.iter().flat_map(|inject| ["-e", inject]).collect();
        let Some(strace) = Strace::attach(thread, &args) else { return Files::new() };
        let bytes = content(1 << 20, 1);
        let upload = |number| {
            let name = format!("{number} of {thread}.bin");
            classic(server.tcp(), &name, &bytes).expect("the upload is accepted");
            (name, bytes.clone())
        };
        let stored = (0..10).map(upload).collect();
        let interrupted = strace.calls().iter().filter(|call| call.contains("EINTR")).count();
        assert!(interrupted >= 3 * calls.len(), "{interrupted}");
        stored
    }
}

#[test]
fn a_failed_sync_is_reported_and_never_repeated() {
    // A file that is already published when the sync of the directory fails is whole, and gets no receipt.
    let (lost, named) = (Files::new(), files_of([("named.bin", b"content")]));
    for (call, error, stored) in [("fdatasync", "EIO", &lost), ("fsync", "EIO", &named), ("fsync", "ENOSPC", &named)] {
        let server = Server::start(&[]);
        classic(server.tcp(), "before.bin", b"content").expect("the upload is accepted");
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when=1"));
        let thread = if call == "fsync" { server.naming_thread() } else { server.syncing_thread() };
        let Some(strace) = Strace::attach(thread, &["-e", &trace, "-e", &inject]) else { return };
        let running = classic_begin(server.tcp(), "running.bin").expect("the name is accepted");
        let reply = line(server.tcp(), "named.bin", b"content").expect("the answer arrives");
        assert!(reply.starts_with("no 500 "), "{reply}");
        assert_refused(&server, "no 500 ");
        assert!(is_reset(&classic_finish(running, b"content")));
        assert_eq!(strace.calls().len(), 1, "a second {call} that succeeds would prove nothing");
        let mut expected = files_of([("before.bin", b"content")]);
        expected.extend(stored.clone());
        server.assert_holds_only(&expected);
        server.assert_echoes(b"anybody there?");
    }
}

#[test]
fn a_sync_that_finds_no_space_fails_only_its_own_upload() {
    for error in ["ENOSPC", "EDQUOT"] {
        let server = Server::start(&[]);
        server.withstands(|| {
            let inject = format!("inject=fdatasync:error={error}:when=1");
            let Some(_strace) = Strace::attach(server.syncing_thread(), &["-e", &inject]) else { return Files::new() };
            let running = classic_begin(server.tcp(), "running.bin").expect("the name is accepted");
            let reply = line(server.tcp(), "lost.bin", b"content").expect("the answer arrives");
            assert!(reply.starts_with("no 507 "), "{reply}");
            classic_finish(running, b"content").expect("the upload is stored");
            assert_eq!(line(server.tcp(), "next.bin", b"content").expect("a receipt"), "done 7 - next.bin\n");
            files_of([("running.bin", b"content"), ("next.bin", b"content")])
        });
    }
}

#[test]
fn a_late_write_error_is_known_before_the_receipt() {
    let Some(unshare) = unshare_loop_mounts("mkfs.ext4") else { return };
    // A thinly provisioned disk, which has less space than it reports: every write to a file succeeds.
    let mount = "mkdir thin && mount -t tmpfs -o size=16m tmpfs thin && truncate -s 256m thin/disk && \
                 mkfs.ext4 -q thin/disk && mount -o loop thin/disk inbox";
    let server = Server::start_secluded(&unshare, mount, &[]);
    classic(server.tcp(), "before.bin", b"content").expect("the upload is accepted");
    let reply = line(server.tcp(), "lost.bin", &content(40 << 20, 1)).expect("the answer arrives");
    assert!(reply.starts_with("no 5"), "{reply}");
    let mut expected = files_of([("before.bin", b"content")]);
    // The disk may or may not have space for it. The answer must be true.
    if line(server.tcp(), "next.bin", b"content").expect("the answer arrives").starts_with("done ") {
        expected.extend(files_of([("next.bin", b"content")]));
    }
    server.assert_holds_only(&expected);
}

#[test]
fn a_file_system_may_compress() {
    let Some(unshare) = unshare_loop_mounts("mkfs.btrfs") else { return };
    // mkfs.btrfs looks into each mounted loop device. It gives up at one whose file another program has taken away.
    let hide = "while read -r device at _; do case $device in /dev/loop*) \
                [ -e \"$(losetup -nO BACK-FILE $device)\" ] || umount -l \"$at\";; esac; done < /proc/mounts";
    let mount = "mkdir disk && mount -t tmpfs -o size=300m tmpfs disk && truncate -s 256m disk/image && \
                 mkfs.btrfs -q disk/image && mount -o loop,compress=zstd disk/image inbox";
    let server = Server::start_secluded(&unshare, &format!("{hide}; {mount}"), &[]);
    let directory = File::open(server.dir()).expect("the inbox can be opened");
    let free_mib = || {
        syncfs(&directory).expect("a file system can be synced");
        statvfs(server.dir()).map(|disk| disk.f_bfree * disk.f_frsize / (1 << 20)).expect("it is a directory")
    };
    let (before, text) = (free_mib(), b"text, text, ".repeat(2 << 20));
    classic(server.tcp(), "classic.txt", &text).expect("the upload is accepted");
    let mut stream = connect(server.tcp()).expect("the server listens");
    let put = format!("/put size={} put.txt\n", text.len());
    [put.as_bytes(), &text].iter().for_each(|bytes| stream.write_all(bytes).expect("the server reads"));
    stream.shutdown(Shutdown::Write).expect("a stream can be shut down");
    assert!(io::read_to_string(stream).expect("a receipt").starts_with("done "));
    let taken_mib = before - free_mib();
    assert!(taken_mib < 8, "48 MiB of text take {taken_mib} MiB");
}

#[test]
fn a_slow_disk_delays_only_uploads_that_wait_for_it() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let inject = "inject=fdatasync:delay_enter=3s:when=1";
        let Some(_strace) = Strace::attach(server.syncing_thread(), &["-e", inject]) else { return Files::new() };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| classic(server.tcp(), "waiting.bin", b"content"));
            (0..10).for_each(|number| server.assert_echoes(&content(number, 1)));
            let mut other = classic_begin(server.tcp(), "other.bin").expect("the name is accepted");
            other.write_all(b"content").expect("content can be sent");
            assert!(line(server.tcp(), "../outside", b"").expect("a refusal is said").starts_with("no 403 "));
            assert!(!waiting.is_finished());
            classic_finish(other, b"").expect("the upload is accepted");
            waiting.join().expect("no client panics").expect("the upload is accepted");
        });
        files_of([("waiting.bin", b"content"), ("other.bin", b"content")])
    });
}

#[test]
fn without_splice_long_uploads_are_copied() {
    for error in ["ENOSYS", "EPERM"] {
        if crate::tools::installed("strace").is_none() {
            return;
        }
        let inject = format!("inject=splice:error={error}");
        let wrapper = ["strace", "-D", "-o", "/dev/null", "-e", "trace=splice", "-e", &inject];
        let server = Server::start_under(&wrapper, &Server::home(), &[]);
        let bytes = content(5_000_000, 1);
        classic(server.tcp(), "long.bin", &bytes).expect("the upload is accepted");
        server.assert_holds_only(&files_of([("long.bin", &bytes)]));
    }
}

#[test]
fn without_unnamed_files_and_exclusive_renames_every_promise_holds() {
    let refused: [&[&str]; 2] = [
        &["-e", "inject=linkat:error=EOPNOTSUPP"],
        &["-e", "inject=linkat:error=EOPNOTSUPP:when=1..2", "-e", "inject=renameat2:error=EINVAL"],
    ];
    for inject in refused {
        if crate::tools::installed("strace").is_none() {
            return;
        }
        let wrapper = [&["strace", "-D", "-o", "/dev/null"], inject].concat();
        let server = Server::start_under(&wrapper, &Server::home(), &[]);
        await_until("the log to tell how files are stored", || server.log().contains("named partial files"));
        server.withstands(|| {
            let bytes = content(100_000, 1);
            (0..3).for_each(|_| classic(server.tcp(), "name.bin", &bytes).expect("the upload is accepted"));
            reset(classic_begin(server.tcp(), "lost.bin").expect("the name is accepted"));
            files_of([("name.bin", &bytes), ("name.bin.1", &bytes), ("name.bin.2", &bytes)])
        });
    }
}

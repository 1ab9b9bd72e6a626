//! Signals, shutdowns, crashes and restarts: a running upload is finished or leaves nothing, and every receipt is true.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::fixture::*;
use crate::tools::Strace;

fn await_closed_listener(server: &Server) {
    let refused = || TcpStream::connect(server.tcp()).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    await_until("the listener to be closed", refused);
}

#[test]
fn a_shutdown_finishes_running_uploads_and_accepts_no_new_one() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut server = Server::start(&[]);
        let running = classic_begin(server.tcp(), "running.bin").expect("the name is accepted");
        let mut nameless = connect(server.tcp()).expect("the server accepts");
        nameless.write_all(b"/put size=1 half a li").expect("part of a request can be sent");
        let _silent = connect(server.tcp()).expect("the server accepts");
        server.signal(signal);
        await_closed_listener(&server);
        // The client may still be sending, so the server leaves it time to read the reason.
        drop(nameless);
        classic_finish(running, b"content").expect("the upload is accepted");
        assert_eq!(server.wait().code(), Some(0));
        server.assert_holds_only(&files_of([("running.bin", b"content")]));
    }
}

/// Everything that the server sends from now on, up to a clean end.
fn heard(stream: &mut TcpStream) -> String {
    let mut words = String::new();
    stream.read_to_string(&mut words).expect("a clean end");
    words
}

const SHUTTING_DOWN: &str = "no 503 the server is shutting down\n";

#[test]
fn a_shutdown_closes_connections_without_a_request_silently() {
    let mut server = Server::start(&[]);
    let mut silent = connect(server.tcp()).expect("the server accepts");
    let mut idle = connect(server.tcp()).expect("the server accepts");
    idle.write_all(b"/put size=1 a\nx").expect("an upload can be sent");
    let mut receipt = [0; b"done 1 - a\n".len()];
    idle.read_exact(&mut receipt).expect("a receipt comes");
    server.await_accepted();
    server.signal(Signal::TERM);
    assert_eq!((heard(&mut silent), heard(&mut idle)), (String::new(), String::new()));
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log();
    assert!(log.contains("shutting down: no upload has to be finished") && !log.contains("503"), "{log}");
}

#[test]
fn a_shutdown_refuses_each_request_that_was_sent_and_not_begun() {
    let mut server = Server::start(&["--name-quiet", "20s"]);
    let begin = |start: &[u8]| {
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(start).expect("part of a request can be sent");
        stream
    };
    let mut half_a_line = begin(b"/put size=1 half a li");
    let mut half_a_name = begin(b"nam");
    let mut after_one = begin(b"/put size=1 a\nx/put size=1 ");
    let mut bye = begin(b"/put size=1 b\nx/by");
    for name in ["a", "b"] {
        server.await_file(name, b"x");
    }
    server.await_accepted();
    server.stop();
    let mut unread = TcpStream::connect(server.tcp()).expect("the kernel accepts");
    unread.write_all(b"/put size=1 c\nx").expect("a request can be sent");
    server.signal(Signal::TERM);
    server.resume();
    for refused in [&mut half_a_line, &mut half_a_name] {
        assert_eq!(heard(refused), SHUTTING_DOWN);
    }
    assert_eq!(heard(&mut after_one), format!("done 1 - a\n{SHUTTING_DOWN}"));
    assert_eq!(heard(&mut bye), "done 1 - b\n");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_client_that_finishes_during_the_shutdown_begins_no_other_upload() {
    let mut server = Server::start(&[]);
    let begin = || {
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(b"/ask size=6 a\nabc").expect("half an upload can be sent");
        stream.read_exact(&mut [0; b"ok 0\n".len()]).expect("the upload begins");
        stream
    };
    let (mut goes_on, mut is_silent) = (begin(), begin());
    server.signal(Signal::TERM);
    await_closed_listener(&server);
    goes_on.write_all(b"def/put size=1 new\nz").expect("content can be sent");
    assert_eq!(heard(&mut goes_on), format!("done 6 - a\n{SHUTTING_DOWN}"));
    is_silent.write_all(b"def").expect("content can be sent");
    assert_eq!(heard(&mut is_silent), "done 6 - a.1\n");
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.log().contains("shutting down: 2 uploads have 30s to finish"), "{}", server.log());
    server.assert_holds_only(&files_of([("a", b"abcdef"), ("a.1", b"abcdef")]));
}

/// A server whose next sync takes longer than the test.
fn with_a_stalled_disk(args: &[&str]) -> Option<(Server, Strace)> {
    let server = Server::start(args);
    let delay = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=20s:when=1"];
    let strace = Strace::attach(server.syncing_thread(), &delay)?;
    Some((server, strace))
}

/// A classic client that has sent everything.
fn whole_classic(server: &Server) -> TcpStream {
    let mut classic = classic_begin(server.tcp(), "classic.bin").expect("the name is accepted");
    classic.write_all(b"content").expect("content can be sent");
    classic.shutdown(std::net::Shutdown::Write).expect("a stream can be shut down");
    classic
}

/// A put client that has sent everything. Its first file is refused.
fn whole_put(server: &Server) -> TcpStream {
    let mut put = connect(server.tcp()).expect("the server accepts");
    put.write_all(b"/put size=1 ../outside\nx/put size=1 a\nx").expect("uploads can be sent");
    put.read_exact(&mut [0; b"no".len()]).expect("the first one is refused");
    put
}

/// Cuts a shutdown short while the sync of an upload hangs. Returns what the client then reads.
fn cut_short(args: &[&str], signals: &[Signal], upload: fn(&Server) -> TcpStream) -> Option<(Vec<u8>, io::Result<()>)> {
    let (mut server, strace) = with_a_stalled_disk(args)?;
    let mut client = upload(&server);
    let start = Instant::now();
    for (number, signal) in signals.iter().enumerate() {
        server.signal(*signal);
        if number + 1 < signals.len() {
            await_closed_listener(&server);
        }
    }
    let mut words = Vec::new();
    if signals.contains(&Signal::KILL) {
        // The kernel closes the sockets when the last thread ends, and strace holds the thread that it delays.
        strace.kill();
        let end = client.read_to_end(&mut words).map(drop);
        return Some((words, end));
    }
    let end = client.read_to_end(&mut words).map(drop);
    // From here on the process itself does nothing more.
    await_until("the main thread to end", || server.stat().starts_with(" Z"));
    assert!(start.elapsed() < Duration::from_secs(10), "{signals:?}: the process waits for the sync");
    strace.kill();
    server.wait();
    Some((words, end))
}

#[test]
fn a_shutdown_that_is_cut_short_never_confirms_an_unsynced_file() {
    let cut_short = |args: &[&str], signals: &[Signal]| {
        let Some((_, end)) = cut_short(args, signals, whole_classic) else { return };
        assert!(is_reset(&end), "{signals:?}: an end would look like success");
        let Some((words, end)) = cut_short(args, signals, whole_put) else { return };
        assert!(words.starts_with(b" 403 ") && !words.windows(4).any(|word| word == b"done"), "{words:?}");
        assert!(is_reset(&end) || signals.contains(&Signal::KILL), "{signals:?}: its outcome is unknown");
    };
    thread::scope(|scope| {
        scope.spawn(|| cut_short(&["--shutdown-timeout", "500ms"], &[Signal::TERM]));
        scope.spawn(|| cut_short(&[], &[Signal::TERM, Signal::INT]));
        scope.spawn(|| cut_short(&[], &[Signal::TERM, Signal::KILL]));
        scope.spawn(|| cut_short(&[], &[Signal::KILL]));
    });
}

#[test]
fn a_server_that_is_killed_in_mid_upload_ends_it_with_a_reset() {
    let server = Server::start(&["--sync", "none"]);
    let mut stream = classic_begin(server.tcp(), "name.bin").expect("the name is accepted");
    server.signal(Signal::KILL);
    assert!(is_reset(&stream.read(&mut [0]).map(drop)), "an end would look like success");
}

#[test]
fn a_shutdown_resets_a_stuck_upload_at_its_timeout_and_leaves_nothing_of_it() {
    for policy in ["rename", "replace"] {
        let mut server = Server::start(&["--shutdown-timeout", "500ms", "--on-exists", policy]);
        let mut stuck = classic_begin(server.tcp(), "stuck.bin").expect("the name is accepted");
        let mut stuck_line = connect(server.tcp()).expect("the server accepts");
        stuck_line.write_all(b"stuck line.bin\nhalf").expect("half an upload can be sent");
        classic(server.tcp(), "name.bin", b"content").expect("the upload is accepted");
        let start = Instant::now();
        server.signal(Signal::TERM);
        assert!(is_reset(&stuck.read(&mut [0]).map(drop)), "a clean end would look like success");
        assert!(start.elapsed() >= Duration::from_millis(500));
        let mut words = String::new();
        stuck_line.read_to_string(&mut words).expect("a clean end");
        assert_eq!(words, "no 503 the server is shutting down\n");
        assert_eq!(server.wait().code(), Some(1));
        server.assert_holds_only(&files_of([("name.bin", b"content")]));
    }
}

#[test]
fn a_second_signal_aborts_running_uploads_and_leaves_nothing_of_them() {
    let mut server = Server::start(&[]);
    let running = classic_begin(server.tcp(), "running.bin").expect("the name is accepted");
    server.signal(Signal::TERM);
    await_closed_listener(&server);
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(1));
    assert!(is_reset(&classic_finish(running, b"content")), "a silent close would look like success");
    server.assert_holds_only(&Files::new());
}

#[test]
fn signals_that_the_parent_has_blocked_still_work() {
    let mut server = Server::start_under(&["env", "--block-signal"], &Server::home(), &[]);
    let running = classic_begin(server.tcp(), "running.bin").expect("the name is accepted");
    server.signal(Signal::TERM);
    await_closed_listener(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1));
    assert!(is_reset(&classic_finish(running, b"content")));
}

#[test]
fn a_server_that_cannot_start_a_thread_says_which() {
    // The limit counts all threads of the user, and does not apply to root.
    let uid = rustix::process::getuid();
    if uid.is_root() {
        let wrapper = "ulimit -u 1; exec setpriv --reuid 12345 --clear-groups \"$@\"";
        return assert_no_thread(&["bash", "-c", wrapper, "bash"]);
    }
    assert_no_thread(&["prlimit", "--nproc=1"]);
}

fn assert_no_thread(wrapper: &[&str]) {
    let home = Server::home();
    std::fs::create_dir(home.path().join("inbox")).expect("a directory can be made");
    for path in [home.path().to_owned(), home.path().join("inbox")] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("the directory is ours");
    }
    let output = Server::fail_to_start_under(wrapper, &home, &[]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("cannot start the threads that sync files to the disk: Resource temporarily"), "{words}");
}

#[test]
fn other_signals_have_no_effect_on_uploads() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let bytes = content(4 << 20, 1);
        thread::scope(|scope| {
            let upload = scope.spawn(|| classic(server.tcp(), "name.bin", &bytes));
            while !upload.is_finished() {
                let harmless = [Signal::HUP, Signal::USR1, Signal::PIPE, Signal::XFSZ];
                harmless.into_iter().for_each(|signal| server.signal(signal));
                thread::sleep(Duration::from_micros(100));
            }
            upload.join().expect("no client panics").expect("the upload is accepted");
        });
        files_of([("name.bin", &bytes)])
    });
    server.signal(Signal::USR1);
    await_until("the statistics", || server.log().contains("2 stored, 0 resumed, 4244304 bytes received, 0 lost"));
    assert!(server.log().contains("SIGHUP is ignored"));
}

#[test]
fn a_port_that_is_taken_is_an_error_at_the_start() {
    let server = Server::start(&[]);
    let address = server.tcp().to_string();
    let output = Server::fail_to_start(&Server::home(), &["--listen", &address]);
    let words = String::from_utf8(output.stderr).expect("it prints UTF-8");
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains(&format!("cannot listen on tcp {address}: Address already in use")), "{words}");
}

#[test]
fn two_servers_share_a_directory_and_leave_each_others_partial_files_alone() {
    let home = Server::home();
    let start = || Server::start_in(&home, &["--on-exists", "replace"]);
    let begin = |server: &Server, name: &str| {
        let mut stream = classic_begin(server.tcp(), name).expect("the name is accepted");
        stream.write_all(b"half").expect("content can be sent");
        stream
    };
    let (first, mut second) = (start(), start());
    let (of_first, of_second) = (begin(&first, "first.bin"), begin(&second, "second.bin"));
    classic(second.tcp(), "whole.bin", b"whole").expect("the upload is accepted");
    assert_eq!(first.partials().len(), 2);
    second.signal(Signal::KILL);
    second.wait();
    drop(of_second);
    assert_eq!(first.partials().len(), 2, "no server has looked for it yet");
    let third = start();
    assert_eq!(first.partials().len(), 1, "a server that starts removes the partial files of a dead one");
    let of_third = begin(&third, "first.bin");
    classic_finish(of_first, b" of first").expect("the upload is accepted");
    classic_finish(of_third, b" of third").expect("the upload is accepted");
    first.assert_holds_only(&files_of([("first.bin", b"half of third"), ("whole.bin", b"whole")]));
}

#[test]
fn a_server_killed_at_any_moment_leaves_only_whole_files_and_all_confirmed_ones() {
    let home = Server::home();
    for round in 0..20 {
        // Unnamed and named partial files in turn.
        let mut server = Server::start_in(&home, &["--on-exists", ["rename", "replace"][round as usize % 2]]);
        server.assert_holds_only(&Files::new());
        let (address, confirmed) = (server.tcp(), Mutex::new(Files::new()));
        let bytes = |number: u64| content(number as usize * 7919 % 50_000, number);
        let upload_until_it_dies = |client: u64| {
            for number in (1000 * client..).take(1000) {
                let (name, bytes) = (format!("{number}.bin"), bytes(number));
                let receipt = line(address, &name, &bytes);
                if !receipt.is_ok_and(|receipt| receipt == format!("done {} - {name}\n", bytes.len())) {
                    return;
                }
                confirmed.lock().expect("no client panics").insert(name, bytes);
            }
        };
        thread::scope(|scope| {
            (0..8).for_each(|client| drop(scope.spawn(move || upload_until_it_dies(client))));
            await_until("an upload to be confirmed", || !confirmed.lock().expect("no client panics").is_empty());
            thread::sleep(Duration::from_millis(7 * round));
            server.signal(Signal::KILL);
            server.wait();
        });
        let files = server.files();
        for (name, stored) in &files {
            let number = name.strip_suffix(".bin").expect("a name that was sent").parse().expect("a number");
            assert!(*stored == bytes(number), "{name} is incomplete");
        }
        server.remove_files();
        let confirmed = confirmed.into_inner().expect("no client panics");
        assert!(confirmed.iter().all(|(name, bytes)| files.get(name) == Some(bytes)), "every confirmed file is stored");
    }
    Server::start_in(&home, &[]).assert_holds_only(&Files::new());
}

#[test]
fn a_server_killed_at_any_system_call_leaves_the_file_whole_or_not_at_all() {
    for args in [["--sync", "none", "--on-exists", "rename"], ["--sync", "full", "--on-exists", "replace"]] {
        let home = Server::home();
        let mut threads: Vec<fn(&Server) -> u32> = vec![Server::pid];
        if args[1] == "full" {
            threads.extend([Server::naming_thread as fn(&Server) -> u32, Server::syncing_thread]);
        }
        assert_eq!(Server::start_in(&home, &args).threads().len(), threads.len());
        threads.into_iter().for_each(|thread| kill_at_each_call(&home, &args, thread));
        Server::start_in(&home, &args).assert_holds_only(&Files::new());
    }
}

/// Once for each system call that this thread makes for an upload: uploads, and kills the server at that call.
fn kill_at_each_call(home: &Arc<TempDir>, args: &[&str], thread: fn(&Server) -> u32) {
    let (server, bytes) = (Server::start_in(home, args), content(3000, 1));
    let Some(strace) = Strace::attach(thread(&server), &[]) else { return };
    line(server.tcp(), "name.bin", &bytes).expect("the upload is accepted");
    let calls = strace.calls().len();
    server.remove_files();
    drop(server);
    for call in 1..=calls {
        let mut server = Server::start_in(home, args);
        server.assert_holds_only(&Files::new());
        let inject = format!("inject=all:signal=KILL:when={call}");
        let Some(_strace) = Strace::attach(thread(&server), &["-e", &inject]) else { return };
        let confirmed = line(server.tcp(), "name.bin", &bytes).is_ok_and(|reply| reply == "done 3000 - name.bin\n");
        await_until("the server to be killed", || {
            // If the upload needed fewer calls this time, one more upload reaches the call.
            drop(line(server.tcp(), "more.bin", b""));
            server.has_ended()
        });
        let stored = server.files().remove("name.bin");
        assert!(stored.as_ref().is_none_or(|stored| *stored == bytes), "killed at call {call}");
        assert!(stored.is_some() || !confirmed, "killed at call {call}");
        server.remove_files();
    }
}

#[test]
fn servers_that_share_a_port_share_its_clients_and_one_can_go() {
    let mut first = Server::start(&["--reuse-port"]);
    let address = first.tcp().to_string();
    let second = Server::start(&["--reuse-port", "--listen", &address]);
    let mut sent = Files::new();
    let mut upload = |number: usize| {
        let (name, content) = (format!("{number}.bin"), content(3000, number as u64));
        classic(second.tcp(), &name, &content).expect("one of them accepts it");
        sent.insert(name, content);
    };
    for number in 0..100 {
        upload(number);
        first.assert_echoes(b"whichever of them this is");
    }
    let (by_first, by_second) = (first.files(), second.files());
    assert!(!by_first.is_empty() && !by_second.is_empty(), "{} and {}", by_first.len(), by_second.len());
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    (100..110).for_each(&mut upload);
    assert!(by_first.into_iter().chain(second.files()).collect::<Files>() == sent);
}

#[test]
fn a_port_is_shared_only_if_all_servers_have_reuse_port() {
    for (first, second) in [(&["--reuse-port"][..], &[][..]), (&[], &["--reuse-port"])] {
        let server = Server::start(first);
        let address = server.tcp().to_string();
        let refused = Server::fail_to_start(&Server::home(), &[&["--listen", &address], second].concat());
        assert_eq!(refused.status.code(), Some(1));
        let words = String::from_utf8_lossy(&refused.stderr);
        assert!(words.contains(&format!("cannot listen on tcp {address}: Address already in use")), "{words}");
    }
}

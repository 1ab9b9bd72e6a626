//! More clients, connections or log lines than the server can take: it serves as many as it can, and does not spin.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use intake::net::raise_descriptor_limit;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::fixture::*;
use crate::tools::{Strace, leave_out};

/// How long a server is watched. A server that spins makes at least 10,000 system calls in this time.
const WATCH: Duration = Duration::from_secs(1);

/// Checks that the server makes hardly any system calls for a while.
fn assert_calm(server: &Server) {
    let strace = Strace::attach(server.pid(), &[]);
    let before = server.processor_time();
    thread::sleep(WATCH);
    let taken = server.processor_time() - before;
    assert!(taken < WATCH / 5, "{taken:?} of processor time");
    let calls = strace.map(Strace::calls).unwrap_or_default().len();
    assert!(calls < 500, "{calls} system calls");
}

#[test]
fn more_clients_than_descriptors_are_all_served_in_the_end_without_a_spin() {
    serve_more_clients_than_descriptors(&Server::start_under(&["prlimit", "--nofile=72"], &Server::home(), &[]));
}

#[test]
fn inherited_descriptors_are_subtracted_from_the_limit() {
    // The server inherits forty more descriptors.
    let inherit = "for fd in $(seq 10 49); do eval \"exec $fd</dev/null\"; done; exec \"$@\"";
    let wrapper = ["prlimit", "--nofile=112", "bash", "-c", inherit, "bash"];
    serve_more_clients_than_descriptors(&Server::start_under(&wrapper, &Server::home(), &[]));
}

/// Checks that a server with descriptors for about twenty clients serves more of them, one after the other.
fn serve_more_clients_than_descriptors(server: &Server) {
    server.withstands(|| {
        let (gate, accepted) = (Mutex::new(()), AtomicUsize::new(0));
        let upload = |number: u64| {
            let stream = classic_begin(server.tcp(), format!("{number}.bin")).expect("the name is accepted");
            accepted.fetch_add(1, Ordering::Relaxed);
            drop(gate.lock());
            classic_finish(stream, &content(10_000, number)).expect("the upload is accepted");
        };
        let closed = gate.lock();
        thread::scope(|scope| {
            (0..500).for_each(|number| drop(scope.spawn(move || upload(number))));
            await_until("the descriptors to be used up", || accepted.load(Ordering::Relaxed) >= 16);
            assert_calm(server);
            assert!(accepted.load(Ordering::Relaxed) < 36, "a connection takes two descriptors");
            drop(closed);
        });
        (0..500).map(|number| (format!("{number}.bin"), content(10_000, number))).collect()
    });
}

#[test]
fn without_descriptors_or_memory_accepting_pauses_and_resumes_by_itself() {
    let server = Server::start(&[]);
    server.withstands(|| {
        for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
            let inject = format!("inject=accept4:error={error}");
            let Some(strace) = Strace::attach(server.pid(), &["-e", "trace=accept4", "-e", &inject]) else { continue };
            let mut waiting = connect(server.tcp()).expect("the kernel accepts");
            waiting.write_all(error.as_bytes()).expect("a name can be sent");
            thread::sleep(WATCH);
            let tries = strace.calls().len();
            assert!((2..20).contains(&tries), "{tries} tries under {error}");
            classic_finish(await_ok(waiting).expect("the name is accepted"), b"content")
                .expect("the upload is accepted");
        }
        let mut stored = server.files();
        stored.retain(|name, _| name.starts_with('E'));
        assert!(stored.values().all(|stored| stored == b"content"));
        stored
    });
}

#[test]
fn connections_that_fail_before_they_are_accepted_delay_no_other() {
    let server = Server::start(&[]);
    server.withstands(|| {
        for error in ["ECONNABORTED", "EPROTO", "ECONNRESET", "EPERM", "ENETDOWN", "EHOSTUNREACH"] {
            let inject = format!("inject=accept4:error={error}:when=1..20");
            let Some(strace) = Strace::attach(server.pid(), &["-e", "trace=accept4", "-e", &inject]) else { continue };
            classic(server.tcp(), "name.bin", b"content").expect("the upload is accepted");
            assert!(strace.calls().len() > 20);
            fs::remove_file(server.dir().join("name.bin")).expect("the file is stored");
        }
        Files::new()
    });
    assert!(!server.log().contains("accepting pauses"));
}

#[test]
fn a_thousand_idle_connections_take_little_and_delay_no_other() {
    const IDLE: usize = 1500;
    if raise_descriptor_limit().expect("the limit can be read") < 2 * IDLE as u64 + 100 {
        return leave_out("the descriptor limit is too low for a thousand connections");
    }
    let server = Server::start(&["--header-timeout", "off", "--idle-timeout", "off", "--min-rate", "off"]);
    server.withstands(|| {
        let before = server.memory_bytes();
        let silent: Vec<TcpStream> = (0..IDLE / 2).map(|_| connect(server.tcp()).expect("it accepts")).collect();
        let idle = |number| {
            let mut stream = classic_begin(server.tcp(), format!("{number}.bin")).expect("the name is accepted");
            stream.write_all(b"a start").expect("content can be sent");
            stream
        };
        let uploading: Vec<TcpStream> = (0..IDLE / 2).map(idle).collect();
        let taken = server.memory_bytes().saturating_sub(before);
        assert!(taken / IDLE < 2048, "{taken} bytes for {IDLE} connections");
        let bytes = content(5 << 20, 1);
        classic(server.tcp(), "beside.bin", &bytes).expect("the upload is accepted");
        assert_calm(&server);
        uploading.into_iter().for_each(reset);
        drop(silent);
        files_of([("beside.bin", &bytes)])
    });
}

#[test]
fn thousands_that_connect_and_close_leave_memory_and_descriptors_flat() {
    let server = Server::start(&["--ok-grace", "off"]);
    let round = || {
        server.withstands(|| {
            for number in 0..5000 {
                let mut stream = connect(server.tcp()).expect("the server accepts");
                match number % 4 {
                    0 => reset(stream),
                    1 => stream.write_all(b"../outside\n").expect("a name can be sent"),
                    2 => stream.write_all(b"/half a requ").expect("a start can be sent"),
                    _ => {}
                }
            }
            Files::new()
        });
        server.memory_bytes()
    };
    let first = round();
    let last = [round(), round()][1];
    assert!(last < first + (128 << 10), "{first} bytes after 5,000 connections, {last} after 15,000");
    await_until("the sockets to be closed", || !tcp_states(server.tcp()).contains(&"08".to_owned()));
}

#[test]
fn a_server_that_was_stopped_for_longer_than_every_timeout_loses_no_upload() {
    let server = Server::start(&["--idle-timeout", "2s", "--header-timeout", "2s", "--name-quiet", "50ms"]);
    server.withstands(|| {
        let (begun, stopped, resumed) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let name = |number: u64| format!("{number}.bin");
        let bytes = |number: u64| content(60_000, number);
        let run = |number: u64, goes_on_during_the_stop: bool| {
            let mut stream = classic_begin(server.tcp(), name(number)).expect("the name is accepted");
            begun.fetch_add(1, Ordering::Relaxed);
            await_until("the stop", || stopped.load(Ordering::Relaxed));
            stream.write_all(&bytes(number)[..30_000]).expect("content can be sent");
            await_until("its end", || goes_on_during_the_stop || resumed.load(Ordering::Relaxed));
            classic_finish(stream, &bytes(number)[30_000..]).expect("the upload is accepted");
        };
        let start_anew = |number| classic(server.tcp(), name(number), &bytes(number)).expect("the upload is accepted");
        let run = &run;
        thread::scope(|scope| {
            (0..20).for_each(|number| drop(scope.spawn(move || run(number, number < 10))));
            await_until("all to begin", || begun.load(Ordering::Relaxed) == 20);
            server.stop();
            stopped.store(true, Ordering::Relaxed);
            (20..30).for_each(|number| drop(scope.spawn(move || start_anew(number))));
            thread::sleep(Duration::from_secs(4));
            server.resume();
            resumed.store(true, Ordering::Relaxed);
        });
        (0..30).map(|number| (name(number), bytes(number))).collect()
    });
}

#[test]
fn a_log_that_nobody_reads_delays_no_client() {
    let home = Server::home();
    let log = home.path().join("log");
    mknodat(CWD, &log, FileType::Fifo, Mode::RWXU, 0).expect("a pipe can be made");
    // Opened for reading and writing, so that the open does not block (fifo(7)).
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let mut reader =
        File::options().read(true).write(true).custom_flags(nonblock).open(&log).expect("the pipe can be opened");
    let wrapper = ["env", "RUST_LOG=trace", "sh", "-c", "exec \"$@\" 2> log", "sh"];
    let server = Server::start_under(&wrapper, &home, &[]);
    server.withstands(|| {
        // Far more lines than fit into a pipe.
        for _ in 0..1000 {
            let error = classic(server.tcp(), "n".repeat(256), b"").expect_err("a long name is refused");
            assert!(error.to_string().starts_with("no 403 "), "{error}");
        }
        classic(server.tcp(), "unread.bin", b"content").expect("the upload is accepted");
        let full = read_available(&mut reader);
        assert!(full.len() > 32_000, "the pipe was full");
        classic(server.tcp(), "read.bin", b"content").expect("the upload is accepted");
        await_until("the server to report the dropped lines", || {
            read_available(&mut reader).contains(" lines were dropped")
        });
        drop(reader);
        classic(server.tcp(), "gone.bin", b"content").expect("the upload is accepted");
        files_of([("unread.bin", b"content"), ("read.bin", b"content"), ("gone.bin", b"content")])
    });
}

/// Reads all bytes that are available without blocking.
fn read_available(reader: &mut File) -> String {
    let mut read = Vec::new();
    let end = reader.read_to_end(&mut read).expect_err("the pipe stays open");
    assert_eq!(end.kind(), ErrorKind::WouldBlock);
    String::from_utf8(read).expect("the log is text")
}

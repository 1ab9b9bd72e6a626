//! `intake send` against the real server, against broken connections, and against other receivers.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;
use tempfile::TempDir;

use crate::fixture::*;
use crate::tools::{Strace, leave_out};

/// The directory of the files to send.
pub struct Sender {
    directory: TempDir,
}

impl Sender {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory can be made") }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).expect("a file can be written");
    }

    /// `intake send --to SERVER ARGS`, in the directory of the files.
    pub fn command(&self, to: impl ToString, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intake"));
        command.args(["send", "--to", &to.to_string()]).args(args).current_dir(self.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, to: impl ToString, args: &[&str]) -> Output {
        self.command(to, args).output().expect("intake can be started")
    }

    /// As [`Sender::run`], with `input` on standard input.
    fn pipe(&self, to: impl ToString, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(to, args).stdin(Stdio::piped()).spawn().expect("intake can be started");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(input).expect("intake reads its input");
        drop(stdin);
        child.wait_with_output().expect("a child can be waited for")
    }
}

pub fn stdout(output: &Output) -> Vec<&str> {
    std::str::from_utf8(&output.stdout).expect("words are UTF-8").lines().collect()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("words are UTF-8")
}

pub fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

/// Stands between a sender and a server, and breaks their connections.
pub struct Proxy {
    pub address: SocketAddr,
    /// The bytes that went from the senders to the server.
    pub passed: Arc<AtomicU64>,
}

/// When the proxy breaks a connection.
#[derive(Clone, Copy)]
pub enum Cut {
    /// After the sender has sent this many bytes.
    Sent(u64),
    /// After this many replies. The next one does not reach the sender.
    Reply(usize),
    Never,
}

impl Proxy {
    /// Cuts each connection as the next of `cuts` says. Later connections are not cut.
    pub fn new(to: SocketAddr, cuts: &'static [Cut]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a proxy can listen");
        let address = listener.local_addr().expect("a listener has an address");
        let passed = Arc::new(AtomicU64::new(0));
        let counter = passed.clone();
        thread::spawn(move || {
            let cuts = cuts.iter().copied().chain(std::iter::repeat(Cut::Never));
            for (sender, cut) in listener.incoming().map_while(Result::ok).zip(cuts) {
                let server = TcpStream::connect(to).expect("the server accepts");
                let counter = counter.clone();
                thread::spawn(move || relay(&sender, &server, cut, &counter));
            }
        });
        Self { address, passed }
    }
}

fn relay(mut sender: &TcpStream, mut server: &TcpStream, cut: Cut, passed: &AtomicU64) {
    thread::scope(|scope| {
        scope.spawn(move || match cut {
            Cut::Reply(before) => {
                for _ in 0..before {
                    sender.write_all(&reply(server)).expect("the sender listens");
                }
                reply(server);
                reset_both(sender, server);
            }
            Cut::Sent(_) | Cut::Never => {
                let _ = io::copy(&mut server, &mut sender);
                let _ = sender.shutdown(Shutdown::Write);
            }
        });
        let mut left = if let Cut::Sent(limit) = cut { limit } else { u64::MAX };
        let mut buffer = [0; 1 << 16];
        while left > 0 {
            let Ok(length @ 1..) = sender.take(left).read(&mut buffer) else { break };
            if server.write_all(&buffer[..length]).is_err() {
                break;
            }
            passed.fetch_add(length as u64, Ordering::Relaxed);
            left -= length as u64;
        }
        match left {
            0 => reset_both(sender, server),
            _ => drop(server.shutdown(Shutdown::Write)),
        }
    });
}

fn reply(mut server: &TcpStream) -> Vec<u8> {
    let mut reply = Vec::new();
    while !reply.ends_with(b"\n") {
        let mut byte = [0];
        server.read_exact(&mut byte).expect("the server replies");
        reply.push(byte[0]);
    }
    reply
}

/// Both sides see the end at once, and a reset if they continue to send.
fn reset_both(sender: &TcpStream, server: &TcpStream) {
    for stream in [sender, server] {
        SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("an option can be set");
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn two_hundred_files_get_two_hundred_receipts_and_a_taken_name_fails_only_its_file() {
    let (server, sender) = (Server::start(&["--on-exists", "refuse"]), Sender::new());
    line(server.tcp(), "77.bin", b"here already").expect("the upload is accepted");
    for number in 0..200 {
        sender.write(&format!("{number}.bin"), &content(number * 50, number as u64));
    }
    let list: String = (0..200).map(|number| format!("{number}.bin\n")).collect();
    let output = sender.pipe(server.tcp(), &["--files-from", "-"], list.as_bytes());
    assert_exit(&output, 1);
    assert_eq!(stdout(&output).len(), 199);
    assert!(stderr(&output).starts_with("intake: \"77.bin\": the server refuses it (409)"), "{output:?}");
    assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    let files = server.files();
    assert_eq!((files.len(), files["77.bin"].as_slice()), (200, &b"here already"[..]));
    for number in (0..200).filter(|number| *number != 77) {
        assert!(files[&format!("{number}.bin")] == content(number * 50, number as u64), "{number}.bin");
    }
}

#[test]
fn small_and_large_files_arrive_in_every_dialect() {
    let sender = Sender::new();
    let sizes = [0, 1, (256 << 10) + 1, (8 << 20) - 1, 8 << 20];
    let names: Vec<_> = sizes.iter().map(|size| format!("{size}.bin")).collect();
    for (name, size) in names.iter().zip(sizes) {
        sender.write(name, &content(size, 1));
    }
    for dialect in [&[][..], &["put"], &["ask"], &["line"], &["classic"], &["http"], &["http-expect"]] {
        let server = Server::start(&[]);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let option = if dialect.is_empty() { &[][..] } else { &["--dialect"] };
        let output = sender.run(server.tcp(), &[&names, option, dialect].concat());
        assert_exit(&output, 0);
        assert_eq!(stdout(&output).len(), sizes.len(), "{output:?}");
        let files = server.files();
        assert!(names.iter().zip(sizes).all(|(name, size)| files[*name] == content(size, 1)), "{dialect:?}");
    }
}

#[test]
fn a_list_may_be_ended_by_nul_and_come_from_a_file() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("a b", b"1");
    sender.write("c", b"2");
    sender.write("list", b"a b\0./c\0");
    assert_exit(&sender.run(server.tcp(), &["--files-from", "list", "--jobs", "1"]), 0);
    assert_eq!(server.files(), [("a b".to_owned(), b"1".to_vec()), ("c".to_owned(), b"2".to_vec())].into());
}

#[test]
fn a_broken_connection_is_replaced_until_every_file_is_stored_once() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("large.bin", &content(20 << 20, 2));
    for number in 0..20 {
        sender.write(&format!("{number}.bin"), &content(5000, number));
    }
    let proxy = Proxy::new(server.tcp(), &[Cut::Sent(7_000_000), Cut::Sent(60_000), Cut::Sent(12_000_000)]);
    let list: String = (0..20).map(|number| format!("{number}.bin\n")).collect();
    let list = format!("large.bin\n{list}");
    let output = sender.pipe(proxy.address, &["--files-from", "-", "--retry", "5"], list.as_bytes());
    assert_exit(&output, 0);
    assert_eq!(stdout(&output).len(), 21);
    assert!(stderr(&output).contains("trying again in"), "{output:?}");
    let files = server.files();
    assert!(files["large.bin"] == content(20 << 20, 2));
    assert!((0..20).all(|number| files[&format!("{number}.bin")] == content(5000, number)));
}

#[test]
fn without_another_attempt_a_broken_connection_is_a_failure() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("cut.bin", &content(5 << 20, 3));
    let proxy = Proxy::new(server.tcp(), &[Cut::Sent(1_000_000)]);
    assert_exit(&sender.run(proxy.address, &["cut.bin", "--retry", "0"]), 1);
    assert_eq!(proxy.passed.load(Ordering::Relaxed), 1_000_000);
    assert!(server.files().is_empty());
}

#[test]
fn a_large_file_is_resumed_in_the_same_run_and_in_a_later_one() {
    const SIZE: usize = 40 << 20;
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("large.bin", &content(SIZE, 11));
    let proxy = Proxy::new(server.tcp(), &[Cut::Sent(18 << 20), Cut::Sent(8 << 20), Cut::Sent(8 << 20)]);
    assert_exit(&sender.run(proxy.address, &["large.bin", "--retry", "0"]), 1);
    // One more attempt is enough for two cuts, since an attempt that gets further resets the count.
    let output = sender.run(proxy.address, &["large.bin", "--retry", "1"]);
    assert_exit(&output, 0);
    server.await_file("large.bin", &content(SIZE, 11));
    let passed = proxy.passed.load(Ordering::Relaxed);
    // A cut loses the bytes in flight, at most a full receive buffer.
    assert!(passed < (SIZE + 3 * (6 << 20)) as u64, "{passed} bytes were sent");
}

#[test]
fn a_file_whose_receipt_was_lost_is_not_stored_twice() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("small.bin", &content(1000, 12));
    sender.write("large.bin", &content(9 << 20, 13));
    for (name, cuts) in [("small.bin", &[Cut::Reply(0)]), ("large.bin", &[Cut::Reply(1)])] {
        let output = sender.run(Proxy::new(server.tcp(), cuts).address, &[name]);
        assert_exit(&output, 0);
        assert!(stderr(&output).contains("may be stored or not; trying again"), "{output:?}");
        assert!(stdout(&output)[0].contains(&format!("stored as {name:?}")), "{output:?}");
    }
    assert_eq!(server.files().into_keys().collect::<Vec<_>>(), ["large.bin", "small.bin"]);
}

#[test]
fn over_http_a_broken_connection_costs_the_file_again_and_a_lost_answer_is_told() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    let large = content(20 << 20, 14);
    sender.write("large.bin", &large);
    sender.write("small.bin", b"hello");
    let proxy = Proxy::new(server.tcp(), &[Cut::Sent(7_000_000)]);
    assert_exit(&sender.run(proxy.address, &["large.bin", "--dialect", "http"]), 0);
    assert!(proxy.passed.load(Ordering::Relaxed) > 27_000_000);
    let proxy = Proxy::new(server.tcp(), &[Cut::Reply(0)]);
    let output = sender.run(proxy.address, &["small.bin", "--dialect", "http"]);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("(412)") && stderr(&output).contains("its answer was lost"), "{output:?}");
    server.assert_holds_only(&files_of([("large.bin", &large), ("small.bin", b"hello")]));
}

#[test]
fn over_http_a_receipt_confirms_the_digest_that_a_manifest_lists() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    let large = content(9 << 20, 15);
    sender.write("large.bin", &large);
    sender.write("small.bin", b"hello");
    for (args, input) in [(&["small.bin", "large.bin"][..], &b""[..]), (&["-", "--name", "piped"], &large)] {
        let url = format!("http://{}/", server.tcp());
        let output = sender.pipe(url, &[args, &["--json", "--manifest", "list"]].concat(), input);
        assert_exit(&output, 0);
        let objects = stdout(&output).into_iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let list = fs::read_to_string(sender.path().join("list")).unwrap();
        for object in objects {
            let hex = object["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let name = object["stored_name"].as_str().unwrap();
            assert!(object.get("http_status").is_none(), "there is a receipt: {object}");
            assert!(list.contains(&format!("{hex}  {name}\n")), "{list}");
        }
    }
    server.assert_holds_only(&files_of([("large.bin", &large), ("small.bin", b"hello"), ("piped", &large)]));
}

#[test]
fn over_http_what_the_server_refuses_is_told_in_its_words_and_the_rest_is_sent() {
    let (server, sender) = (Server::start(&["--max-file-size", "1M"]), Sender::new());
    sender.write("a.bin", b"hello");
    sender.write("large.bin", &content(9 << 20, 16));
    sender.write("z.bin", b"hello");
    let proxy = Proxy::new(server.tcp(), &[]);
    let url = format!("http://{}/", proxy.address);
    let output = sender.run(url, &["a.bin", "large.bin", "z.bin", "--jobs", "1"]);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("large.bin\": the server refuses it (413)"), "{output:?}");
    assert!(proxy.passed.load(Ordering::Relaxed) < 10_000, "it was refused before its content");
    server.assert_holds_only(&files_of([("a.bin", b"hello"), ("z.bin", b"hello")]));
}

#[test]
fn a_missing_server_is_reported_once_after_the_last_attempt() {
    let sender = Sender::new();
    sender.write("a", b"1");
    sender.write("b", b"2");
    let nowhere = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free");
    let output = sender.run(nowhere, &["a", "b", "--retry", "1", "--jobs", "1"]);
    assert_exit(&output, 3);
    assert_eq!(stderr(&output).matches("trying again").count(), 1, "{output:?}");
    assert!(stderr(&output).ends_with("1 more files were not tried\n"), "{output:?}");
}

#[test]
fn a_stream_without_a_size_is_stored_whole_or_not_at_all() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    let bytes = content(3_000_000, 4);
    let output = sender.pipe(server.tcp(), &["-", "--name", "stream.bin"], &bytes);
    assert_exit(&output, 0);
    server.await_file("stream.bin", &bytes);
    assert_exit(&sender.pipe(server.tcp(), &["-", "--name", "empty.bin"], b""), 0);
    server.await_file("empty.bin", b"");
}

#[test]
fn a_sender_that_is_killed_leaves_nothing() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    let before = server.descriptors();
    for dialect in ["classic", "line", "put", "ask", "http", "http-expect"] {
        let args = ["-", "--name", "killed.bin", "--dialect", dialect];
        let mut child =
            sender.command(server.tcp(), &args).stdin(Stdio::piped()).spawn().expect("intake can be started");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(&content(1 << 20, 5)).expect("intake reads its input");
        await_until("the upload to begin", || server.descriptors() > before);
        kill(&mut child);
        await_until("every descriptor to be closed", || server.descriptors() == before);
        assert!(server.files().is_empty(), "{dialect}");
    }
}

fn kill(child: &mut Child) {
    child.kill().and_then(|()| child.wait()).expect("a child can be killed");
}

#[test]
fn json_has_an_object_for_each_file() {
    let (server, sender) = (Server::start(&["--on-exists", "refuse", "--max-file-size", "1k"]), Sender::new());
    sender.write("a.bin", b"hello");
    sender.write("large.bin", &content(2000, 6));
    let objects = |output: &Output| -> Vec<Value> {
        stdout(output).iter().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
    };
    let output = sender.run(server.tcp(), &["a.bin", "large.bin", "--json", "--jobs", "1"]);
    assert_exit(&output, 1);
    let told = objects(&output);
    assert_eq!((told.len(), &told[0]["status"], &told[0]["stored_name"]), (2, &"done".into(), &"a.bin".into()));
    assert_eq!((&told[0]["size_bytes"], &told[0]["digest"]), (&5.into(), &"crc32c:9a71bb4c".into()));
    assert_eq!((&told[1]["file"], &told[1]["code"]), (&"large.bin".into(), &413.into()));
    assert_eq!(stderr(&output), "");
}

#[test]
fn sha256sum_accepts_the_manifest() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    line(server.tcp(), "a b.bin", b"here already").expect("the upload is accepted");
    sender.write("a b.bin", &content(1000, 7));
    sender.write("large.bin", &content(9 << 20, 8));
    assert_exit(&sender.run(server.tcp(), &["a b.bin", "large.bin", "--manifest", "list"]), 0);
    let list = fs::read_to_string(sender.path().join("list")).expect("the list is written");
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains("  a b.bin.1\n") && list.contains("  large.bin\n"), "{list}");
    let list = File::open(sender.path().join("list")).expect("the list is written");
    match Command::new("sha256sum").args(["-c", "--strict"]).current_dir(server.dir()).stdin(list).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => leave_out(&format!("sha256sum: {error}")),
    }
}

#[test]
fn a_receiver_of_the_tutorials_is_recognised_and_stores_nothing() {
    let sender = Sender::new();
    sender.write("small.bin", &content(1000, 9));
    sender.write("large.bin", &content(9 << 20, 10));
    for name in ["small.bin", "large.bin"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a receiver can listen");
        let address = listener.local_addr().expect("a listener has an address");
        // It reads once for the name, answers, and takes the end of the stream for the end of the file.
        let receiver = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client connects");
            let _ = stream.read(&mut [0; 4096]).expect("a name comes");
            stream.write_all(b"ok").expect("ok can be said");
            io::copy(&mut stream, &mut io::sink())
        });
        let output = sender.run(address, &[name]);
        assert_exit(&output, 1);
        assert!(stderr(&output).ends_with("send with --dialect classic\n"), "{output:?}");
        assert!(receiver.join().expect("the receiver ends").is_err(), "after a clean end it would store a file");
    }
}

/// Runs `args` with a redirection by a shell.
fn redirected(sender: &Sender, to: SocketAddr, args: &[&str], redirection: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$@\" {redirection}"), "sh", env!("CARGO_BIN_EXE_intake"), "send"]);
    command.args(["--to", &to.to_string()]).args(args).current_dir(sender.path());
    command.output().expect("a shell can be started")
}

#[test]
fn a_file_of_reported_size_0_that_is_not_empty_arrives_whole_in_every_dialect() {
    let sender = Sender::new();
    let version = fs::read("/proc/version").expect("every Linux has it");
    assert!(fs::metadata("/proc/version").expect("it is there").len() == 0 && !version.is_empty());
    for dialect in [&[][..], &["put"], &["ask"], &["line"], &["classic"], &["http"]] {
        let server = Server::start(&[]);
        let option = if dialect.is_empty() { &[][..] } else { &["--dialect"] };
        let output = sender.run(server.tcp(), &[&["/proc/version"], option, dialect].concat());
        assert_exit(&output, 0);
        server.await_file("version", &version);
    }
}

#[test]
fn a_file_of_reported_size_0_is_sent_again_after_a_lost_receipt_and_stored_once() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    let output = sender.run(Proxy::new(server.tcp(), &[Cut::Reply(0)]).address, &["/proc/version"]);
    assert_exit(&output, 0);
    assert_eq!(server.files().into_keys().collect::<Vec<_>>(), ["version"]);
}

#[test]
fn a_file_shorter_than_its_reported_size_is_refused_with_the_reason() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    // Every file of sysfs reports the size of a page.
    let output = sender.run(server.tcp(), &["/sys/kernel/fscaps"]);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("its size says 4096, as in /sys; it is not stored"), "{output:?}");
    assert!(server.files().is_empty());
}

#[test]
fn a_manifest_that_is_one_of_the_inputs_is_refused() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("precious", b"precious\n");
    std::os::unix::fs::symlink("precious", sender.path().join("symlink")).expect("a link can be made");
    fs::hard_link(sender.path().join("precious"), sender.path().join("hard link")).expect("a link can be made");
    for manifest in ["precious", "./precious", "symlink", "hard link"] {
        for args in [&["precious"][..], &["symlink"], &["--files-from", "precious"], &["missing", "precious"]] {
            let output = sender.run(server.tcp(), &[args, &["--manifest", manifest]].concat());
            assert_exit(&output, 2);
            assert!(stderr(&output).contains("it would be overwritten"), "{output:?}");
        }
        let output = redirected(&sender, server.tcp(), &["-", "--name", "a", "--manifest", manifest], "< precious");
        assert_exit(&output, 2);
    }
    assert_eq!(fs::read(sender.path().join("precious")).expect("it is there"), b"precious\n");
    assert!(server.files().is_empty());
}

#[test]
fn a_manifest_is_replaced_only_by_a_list_of_stored_files() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    let list = || fs::read_to_string(sender.path().join("list")).expect("the list exists");
    sender.write("a", b"1");
    sender.write("list", b"yesterday\n");
    let nowhere = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free");
    assert_exit(&sender.run(nowhere, &["a", "--manifest", "list", "--retry", "0"]), 3);
    assert_exit(&sender.run(server.tcp(), &["missing", "--manifest", "list"]), 1);
    assert_eq!(list(), "yesterday\n");
    let output = sender.run(server.tcp(), &["a", "missing", "--manifest", "list"]);
    assert_exit(&output, 1);
    assert!(list().ends_with("  a\n") && list().lines().count() == 1, "{}", list());
    assert_eq!(fs::read_dir(sender.path()).expect("it can be listed").count(), 2, "no partial list is left");
    assert_exit(&sender.run(server.tcp(), &["a", "--manifest", "/dev/full"]), 1);
}

#[test]
fn results_that_cannot_be_written_are_reported_once_and_every_file_is_still_sent() {
    let (server, sender) = (Server::start(&["--on-exists", "replace"]), Sender::new());
    sender.write("a", b"1");
    sender.write("b", b"2");
    for args in [&["a", "b"][..], &["a", "b", "--json"]] {
        server.remove_files();
        let output = redirected(&sender, server.tcp(), args, "> /dev/full");
        assert_exit(&output, 1);
        assert_eq!(stderr(&output).matches("cannot write the results").count(), 1, "{output:?}");
        assert_eq!(server.files(), files_of([("a", b"1"), ("b", b"2")]));
    }
}

#[test]
fn a_reader_of_the_results_may_stop_early() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("a", b"1");
    let mut command = sender.command(server.tcp(), &["a"]);
    let (reader, writer) = io::pipe().expect("a pipe can be made");
    drop(reader);
    let output = command.stdout(writer).output().expect("intake can be started");
    assert_exit(&output, 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn the_file_that_gets_the_results_is_not_sent() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("a", b"1");
    sender.write("log", b"before\n");
    let output = redirected(&sender, server.tcp(), &["a", "log"], ">> log");
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("\"log\": is where standard output goes"), "{output:?}");
    assert_eq!(server.files(), files_of([("a", b"1")]));
}

#[test]
fn files_that_cannot_be_sent_do_not_stop_the_others() {
    let (server, sender) = (Server::start(&["--on-exists", "replace"]), Sender::new());
    sender.write("good", b"1");
    sender.write(".hidden", b"2");
    sender.write("odd\tname", b"3");
    sender.write("also good", b"4");
    let list = b"good\nmissing\n.hidden\nodd\tname\n.\nalso good\n";
    let output = sender.pipe(server.tcp(), &["--files-from", "-"], list);
    assert_exit(&output, 1);
    assert_eq!((stdout(&output).len(), stderr(&output).lines().count()), (2, 4), "{output:?}");
    assert!(!stderr(&output).contains("--name"), "a name cannot be given to one of several files: {output:?}");
    assert_eq!(server.files(), files_of([("good", b"1"), ("also good", b"4")]));

    let output = sender.pipe(server.tcp(), &["--files-from", "-", "--json"], list);
    assert_exit(&output, 1);
    let told: Vec<Value> =
        stdout(&output).iter().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
    let failed: Vec<_> =
        told.iter().filter(|file| file["status"] == "failed").filter_map(|file| file["file"].as_str()).collect();
    assert_eq!((told.len(), failed), (6, vec!["missing", ".hidden", "odd\tname", "."]));
    assert_eq!(stderr(&output), "");
}

#[test]
fn errors_in_a_list_are_reported() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("a", b"1");
    for (list, word, code) in [
        (&b"a\r\n"[..], "a carriage return ends the path", 1),
        (b"\xef\xbb\xbfa\n", "the list begins with a byte order mark", 1),
        (b"\xff\xfea\0\n\0", "UTF-16", 1),
        (b"", "is empty: there is nothing to send", 0),
        (b"\n\n", "is empty: there is nothing to send", 0),
    ] {
        let output = sender.pipe(server.tcp(), &["--files-from", "-"], list);
        assert_exit(&output, code);
        assert!(stderr(&output).contains(word), "{output:?}");
    }
    assert!(server.files().is_empty());
}

#[test]
fn a_slow_producer_is_distinguished_from_a_slow_network() {
    let (server, sender) = (Server::start(&["--idle-timeout", "200ms"]), Sender::new());
    let mut command = sender.command(server.tcp(), &["-", "--name", "stream"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("intake can be started");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(b"some").expect("intake reads its input");
    // The input stays open until the server times out.
    child.wait().expect("a child can be waited for");
    drop(stdin);
    let output = child.wait_with_output().expect("a child can be waited for");
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("(408)") && stderr(&output).contains("the input came more slowly"), "{output:?}");
    assert!(server.files().is_empty());
}

#[test]
fn a_closed_standard_input_is_not_an_empty_file() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    for args in [&["-", "--name", "a"][..], &["--files-from", "-"]] {
        let output = redirected(&sender, server.tcp(), args, "<&-");
        assert_exit(&output, 1);
        assert!(stderr(&output).contains("is closed; pipe the content in"), "{output:?}");
    }
    assert!(server.files().is_empty());
    assert_exit(&redirected(&sender, server.tcp(), &["-", "--name", "empty"], "< /dev/null"), 0);
    server.await_file("empty", b"");
}

#[test]
fn a_file_that_another_run_is_sending_is_stored_once() {
    let (server, sender) = (Server::start(&[]), Sender::new());
    sender.write("nine", &content(9_000_000, 21));
    let delayed = "inject=fdatasync:delay_enter=3000000:when=1";
    let Some(_strace) = Strace::attach(server.syncing_thread(), &["-e", "trace=fdatasync", "-e", delayed]) else {
        return;
    };
    let proxy = Proxy::new(server.tcp(), &[]);
    let first = sender.command(proxy.address, &["nine"]).spawn().expect("intake can be started");
    await_until("all content to be sent", || proxy.passed.load(Ordering::Relaxed) > 9_000_000);
    let second = sender.run(server.tcp(), &["nine", "--retry", "1"]);
    assert_exit(&second, 0);
    first.wait_with_output().expect("a child can be waited for");
    assert_eq!(server.files().into_keys().collect::<Vec<_>>(), ["nine"]);
}

#[test]
fn send_waits_for_a_server_that_restarts() {
    let sender = Sender::new();
    sender.write("a", b"1");
    let stopping = TcpListener::bind("127.0.0.1:0").expect("a server can listen");
    let address = stopping.local_addr().expect("a listener has an address");
    let mut child = sender.command(address, &["a", "--retry", "1"]).spawn().expect("intake can be started");
    let (mut stream, _) = stopping.accept().expect("a client connects");
    drop(stopping);
    reply(&stream);
    stream.write_all(b"no 503 the server is shutting down\n").expect("a refusal can be said");
    drop(stream);
    // More refused connections than --retry allows.
    let words = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    let refused = words.map_while(Result::ok).filter(|line| line.contains("cannot connect")).take(3).count();
    assert_eq!(refused, 3);
    let server = Server::start(&["--listen", &address.to_string()]);
    assert_exit(&child.wait_with_output().expect("a child can be waited for"), 0);
    server.await_file("a", b"1");
}

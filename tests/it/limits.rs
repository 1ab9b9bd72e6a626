//! Each limit of the server, set low: it is enforced and reported, and affects only the client that breaks it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::*;

/// The value of most limits under test. It is long enough for honest clients on a busy machine.
const SPAN: Duration = Duration::from_secs(1);

/// Far longer than any limit under test, even on a busy machine, and far shorter than any default.
const LATE: Duration = Duration::from_secs(8);

fn assert_lasted(since: Instant, limit: Duration) {
    let lasted = since.elapsed();
    assert!((limit..LATE).contains(&lasted), "{lasted:?}");
}

#[test]
fn a_client_that_sends_no_name_is_refused_at_the_header_timeout() {
    let server = Server::start(&["--header-timeout", "1s"]);
    server.withstands(|| {
        let start = Instant::now();
        let silent: Vec<TcpStream> = (0..500).map(|_| connect(server.tcp()).expect("the server accepts")).collect();
        for stream in silent {
            assert_eq!(io::read_to_string(stream).expect("a clean end"), "no 408 no name came within 1s\n");
            assert_lasted(start, SPAN);
        }
        Files::new()
    });
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_header_timeout() {
    let server = Server::start(&["--header-timeout", "2s", "--name-quiet", "1s"]);
    server.withstands(|| {
        let start = Instant::now();
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
        while stream.peek(&mut [0]).is_err() {
            stream.write_all(b"n").expect("a byte can be sent");
        }
        let words = io::read_to_string(stream).expect("a refusal is said");
        assert_eq!(words, "no 408 the name did not end within 2s\n");
        assert_lasted(start, Duration::from_secs(2));
        Files::new()
    });
}

#[test]
fn a_client_that_falls_silent_in_mid_upload_is_cut_off_at_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "1s"]);
    server.withstands(|| {
        let start = Instant::now();
        let mut classic = classic_begin(server.tcp(), "classic.bin").expect("the name is accepted");
        classic.write_all(b"half").expect("content can be sent");
        let mut line = connect(server.tcp()).expect("the server accepts");
        line.write_all(b"line.bin\nhalf").expect("half an upload can be sent");
        assert_eq!(io::read_to_string(line).expect("a clean end"), "no 408 nothing came within 1s\n");
        assert_lasted(start, SPAN);
        assert!(is_reset(&classic.read(&mut [0]).map(drop)), "the only refusal of a classic client is a reset");
        Files::new()
    });
}

#[test]
fn a_file_of_the_largest_size_is_accepted_and_one_byte_more_is_not() {
    let server = Server::start(&["--max-file-size", "64k"]);
    server.withstands(|| {
        let bytes = content(64 << 10, 1);
        classic(server.tcp(), "classic.bin", &bytes).expect("the upload is accepted");
        assert_eq!(line(server.tcp(), "line.bin", &bytes).expect("a receipt comes"), "done 65536 - line.bin\n");
        let more = content((64 << 10) + 1, 1);
        assert!(is_reset(&classic(server.tcp(), "more.bin", &more)));
        let words = "no 413 the file is larger than 65536 bytes, the most that this server takes\n";
        assert_eq!(line(server.tcp(), "more.bin", &more).expect("the answer arrives"), words);
        // The refusal comes long before the end of the content, and the server reads on to that end.
        assert_eq!(line(server.tcp(), "much more.bin", &content(8 << 20, 1)).expect("the answer arrives"), words);
        files_of([("classic.bin", &bytes), ("line.bin", &bytes)])
    });
}

#[test]
fn a_client_over_the_connection_limit_waits_and_is_served_when_one_ends() {
    // One of the two connections is the honest upload.
    let server = Server::start(&["--max-connections", "2"]);
    server.withstands(|| {
        let second = classic_begin(server.tcp(), "second.bin").expect("the name is accepted");
        let mut third = connect(server.tcp()).expect("the kernel accepts");
        third.write_all(b"third.bin").expect("a name can be sent");
        third.set_read_timeout(Some(SPAN / 2)).expect("a timeout can be set");
        let unanswered = third.peek(&mut [0]).expect_err("the server has no room for it");
        assert_eq!(unanswered.kind(), ErrorKind::WouldBlock);
        third.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        classic_finish(second, b"2").expect("the upload is accepted");
        classic_finish(await_ok(third).expect("the name is accepted"), b"3").expect("the upload is accepted");
        files_of([("second.bin", b"2"), ("third.bin", b"3")])
    });
}

#[test]
fn a_refused_client_that_never_ends_is_closed_at_the_linger_timeout() {
    let server = Server::start(&["--linger-timeout", "1s"]);
    server.withstands(|| {
        let start = Instant::now();
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(b"../outside\n").expect("a name can be sent");
        // A close with nothing unread sends no reset. The next byte is answered by one.
        await_until("the server to close", || stream.write_all(b"more").is_err());
        assert_lasted(start, SPAN);
        Files::new()
    });
}

#[test]
fn a_refused_client_that_never_stops_sending_is_closed_long_before_the_linger_timeout() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let start = Instant::now();
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(b"../outside\n").expect("a name can be sent");
        let more = vec![0; 1 << 20];
        let sent = (1..).find(|_| stream.write_all(&more).is_err()).expect("a number") - 1;
        // The server reads 64 MiB. The buffers of both sides hold some more, which it does not read.
        assert!((64..96).contains(&sent), "{sent} MiB");
        assert!(start.elapsed() < Duration::from_secs(25), "the linger timeout is 30 s");
        Files::new()
    });
}

#[test]
fn a_line_client_that_waits_after_its_name_gets_ok_once() {
    let server = Server::start(&["--ok-grace", "200ms"]);
    server.withstands(|| {
        let start = Instant::now();
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(b"line.bin\n").expect("a name can be sent");
        let mut ok = [0; 3];
        stream.read_exact(&mut ok).expect("ok arrives");
        assert_eq!((&ok, start.elapsed() >= Duration::from_millis(200)), (b"ok\n", true));
        thread::sleep(Duration::from_millis(300));
        stream.write_all(b"content").expect("content can be sent");
        stream.shutdown(std::net::Shutdown::Write).expect("a stream can be shut down");
        assert_eq!(io::read_to_string(stream).expect("a receipt comes"), "done 7 - line.bin\n");
        files_of([("line.bin", b"content")])
    });
}

#[test]
fn more_connections_than_descriptors_are_refused_at_the_start_with_the_arithmetic() {
    let output = Server::fail_to_start(&Server::home(), &["--sync", "none", "--max-connections", "100000000"]);
    let words = String::from_utf8(output.stderr).expect("it prints UTF-8");
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("100000000 connections need 200000") && words.contains("ask for at most "), "{words}");
}

#[test]
fn the_reserved_descriptors_are_enough_for_everything_but_connections() {
    let output = Server::fail_to_start(&Server::home(), &["--sync", "none", "--max-connections", "100000000"]);
    let words = String::from_utf8(output.stderr).expect("it prints UTF-8");
    let (_, rest) = words.split_once("each and ").expect("the message shows the arithmetic");
    let kept_back: usize = rest.split_once(" besides").and_then(|(number, _)| number.parse().ok()).expect("a number");
    let server = Server::start(&["--sync", "full", "--trace"]);
    let held = server.descriptors();
    assert!(
        held + 4 <= kept_back,
        "{held} are open, {kept_back} are reserved: too few for files that are open for a moment"
    );
}

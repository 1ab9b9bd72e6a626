//! Tests of `send` against servers of a few lines, one script for each connection.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tempfile::TempDir;

use super::*;
use crate::proto::{Algorithm, Answered, Dialect, Failure, Name, NamePolicy, Receipt, Site, Stored};

const MANY: usize = 20;
/// More than the socket buffers of both sides hold.
const HUGE_BYTES: u64 = 1 << 30;

/// Files to send, and how to send them.
struct Bench {
    directory: TempDir,
    uploads: Vec<Upload>,
    plan: Plan,
}

type Ending = Result<(u64, Stored), String>;

/// How each upload ended, and why others were tried again.
#[derive(Debug, Default)]
struct Log {
    settled: Vec<(usize, Ending)>,
    again: Vec<String>,
    position: u64,
}

impl Bench {
    fn new(dialect: impl Into<Option<Dialect>>) -> Self {
        let plan = Plan { dialect: dialect.into(), jobs: 1, retries: 0, ..Plan::default() };
        Self { directory: tempfile::tempdir().unwrap(), uploads: Vec::new(), plan }
    }

    /// Sends over HTTP.
    fn http() -> Self {
        let mut bench = Self::new(None);
        bench.plan.site = Some(Arc::new(Site::new("host", "/").unwrap()));
        bench
    }

    /// Adds a file of zeros.
    fn file(mut self, size: u64) -> Self {
        let name = format!("{}.txt", self.uploads.len());
        let path = self.directory.path().join(&name);
        File::create(&path).unwrap().set_len(size).unwrap();
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        self.uploads.push(Upload { source: Source::File(path), name });
        self
    }

    fn path(&self, upload: usize) -> PathBuf {
        self.directory.path().join(self.uploads[upload].name.as_str())
    }

    fn retries(mut self, retries: u32) -> Self {
        self.plan.retries = retries;
        self
    }

    /// Sends to a server that plays `scripts`, one per connection, and then refuses connections.
    fn send<T: Send + 'static>(&mut self, scripts: Vec<fn(TcpStream) -> T>) -> (Log, Vec<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.plan.to = vec![listener.local_addr().unwrap()];
        let server =
            thread::spawn(move || scripts.into_iter().map(|script| script(listener.accept().unwrap().0)).collect());
        let log = self.log();
        (log, server.join().unwrap())
    }

    fn log(&self) -> Log {
        let log = Mutex::new(Log::default());
        send(&self.plan, &self.uploads, |event| {
            let mut log = log.lock().unwrap();
            match event {
                Event::Progress { position, .. } => log.position = position,
                Event::Again { error, .. } => log.again.push(error.to_string()),
                Event::Settled { upload, result } => {
                    let result = result.as_ref().map(|sent| (sent.size, sent.stored.clone()));
                    log.settled.push((upload, result.map_err(ToString::to_string)));
                }
            }
        });
        log.into_inner().unwrap()
    }
}

impl Log {
    /// Why the only upload failed.
    fn error(&self) -> &str {
        match self.settled.as_slice() {
            [(0, Err(error))] => error,
            other => panic!("{other:?}"),
        }
    }

    fn stored(&self) -> Vec<usize> {
        self.settled.iter().filter(|(_, result)| result.is_ok()).map(|(upload, _)| *upload).collect()
    }
}

fn read_line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

fn read_to_end(mut stream: &TcpStream) -> io::Result<usize> {
    let mut read = Vec::new();
    stream.read_to_end(&mut read)
}

fn say(mut stream: &TcpStream, words: &str) {
    stream.write_all(words.as_bytes()).unwrap();
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A receiver of the network tutorials. Returns how many bytes it read, and whether they ended without a reset.
fn tutorial(mut stream: TcpStream) -> (usize, bool) {
    let length = stream.read(&mut [0; 4096]).unwrap();
    say(&stream, "ok");
    match read_to_end(&stream) {
        Ok(rest) => (length + rest, true),
        Err(_) => (length, false),
    }
}

#[test]
fn a_tutorial_server_gets_every_byte() {
    for size in [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3_000_000] {
        let mut bench = Bench::new(Dialect::Classic).file(size);
        let (log, server) = bench.send(vec![tutorial]);
        assert_eq!(log.settled, [(0, Ok((size, Stored::Closed)))]);
        assert_eq!((log.position, server.as_slice()), (size, &[(size as usize + "0.txt".len(), true)][..]));
    }
}

#[test]
fn ok_in_two_segments_is_ok() {
    let (log, _) = Bench::new(Dialect::Classic).file(5).send(vec![|stream| {
        stream.set_nodelay(true).unwrap();
        say(&stream, "o");
        say(&stream, "k");
        read_to_end(&stream).unwrap()
    }]);
    assert_eq!(log.stored(), [0]);
}

#[test]
fn a_refusal_instead_of_ok_is_reported_and_nothing_is_sent() {
    let (log, read) = Bench::new(Dialect::Classic).file(HUGE_BYTES).send(vec![|stream| {
        say(&stream, "no 409 the name is taken\n");
        read_to_end(&stream).unwrap_or_default()
    }]);
    assert!(log.error().contains("the name is taken"), "{log:?}");
    assert!(read[0] <= "0.txt".len());
}

#[test]
fn a_reset_in_mid_file_or_after_it_is_a_failure() {
    let in_mid_file: fn(TcpStream) = |mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        say(&stream, "ok");
        stream.read_exact(&mut [0; 1000]).unwrap();
        reset(stream);
    };
    let after_it: fn(TcpStream) = |mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        say(&stream, "ok");
        read_to_end(&stream).unwrap();
        reset(stream);
    };
    for (size, script) in [(HUGE_BYTES, in_mid_file), (5, after_it)] {
        let (log, _) = Bench::new(Dialect::Classic).file(size).send(vec![script]);
        assert_eq!(log.error(), Failure::Reset.to_string());
    }
}

#[test]
fn a_server_that_closes_at_once_has_stored_nothing() {
    for dialect in [Dialect::Classic, Dialect::Ask] {
        let (log, _) = Bench::new(dialect).file(5).send(vec![|mut stream| stream.read(&mut [0; 4096]).unwrap()]);
        assert_eq!(log.error(), Failure::Unanswered.to_string());
    }
}

#[test]
fn another_kind_of_server_is_recognised_by_its_answer() {
    for dialect in [Dialect::Classic, Dialect::Line, Dialect::Put, Dialect::Ask] {
        let mut bench = Bench::new(dialect).file(HUGE_BYTES).file(5).retries(3);
        let (log, _) = bench.send(vec![|stream| {
            say(&stream, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            let _ = read_to_end(&stream);
        }]);
        assert!(log.error().ends_with("it said \"HTTP/1.1 400 Bad Request\""), "{log:?}");
    }
}

#[test]
fn a_classic_server_is_recognised_and_gets_no_clean_end() {
    for (dialect, size) in [(Dialect::Put, 5), (Dialect::Put, HUGE_BYTES), (Dialect::Ask, 5)] {
        let (log, ended) = Bench::new(dialect).file(size).file(5).retries(3).send(vec![tutorial]);
        assert_eq!(log.settled[0], (0, Err(Failure::OnlyClassic.to_string())));
        assert!(!ended[0].1, "it would take half a file for a whole one");
    }
}

#[test]
fn a_receipt_confirms_a_line_upload() {
    let (log, _) = Bench::new(Dialect::Line).file(5).send(vec![|stream| {
        say(&stream, "ok\n");
        assert_eq!(read_to_end(&stream).unwrap(), "0.txt\n".len() + 5);
        say(&stream, "done 5 - 0.txt.1\n");
    }]);
    let receipt = Receipt { size: 5, digest: None, stored_name: "0.txt.1".into() };
    assert_eq!(log.settled, [(0, Ok((5, Stored::Receipt(receipt))))]);
}

#[test]
fn a_refusal_in_mid_file_stops_the_content() {
    for dialect in [Dialect::Line, Dialect::Put] {
        let (log, _) = Bench::new(dialect).file(HUGE_BYTES).send(vec![|mut stream| {
            say(&stream, "no 413 too large\n");
            // The copy returns only if the sender stops.
            let _ = io::copy(&mut stream, &mut io::sink());
        }]);
        assert!(log.error().contains("too large"), "{log:?}");
    }
}

#[test]
fn a_reason_given_before_a_reset_is_read() {
    for dialect in [Dialect::Line, Dialect::Put] {
        let (log, _) = Bench::new(dialect).file(HUGE_BYTES).send(vec![|mut stream| {
            stream.read_exact(&mut [0; 100_000]).unwrap();
            say(&stream, "no 500 the disk is broken\n");
            // The unread bytes turn the close into a reset after the reply (RFC 1122 4.2.2.13).
        }]);
        assert!(log.error().contains("the disk is broken"), "{log:?}");
    }
}

#[test]
fn the_wait_for_a_silent_server_ends() {
    for dialect in [Dialect::Classic, Dialect::Line, Dialect::Put, Dialect::Ask] {
        let mut bench = Bench::new(dialect).file(HUGE_BYTES);
        bench.plan.patience = Duration::from_millis(20);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bench.plan.to = vec![listener.local_addr().unwrap()];
        assert!(bench.log().error().starts_with("the server was silent"), "{dialect:?}");
    }
}

#[test]
fn the_next_address_is_tried_and_a_missing_server_is_an_error() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(conversation::connect(&[gone, listener.local_addr().unwrap()]).is_ok());
    assert!(conversation::connect(&[]).is_err());
    let mut bench = Bench::new(None).file(5).file(5);
    bench.plan.to = vec![gone];
    let log = bench.log();
    assert!(log.error().starts_with("cannot connect"), "the second file is not tried: {log:?}");
}

#[test]
fn many_small_files_are_sent_without_waiting() {
    let mut bench = Bench::new(None);
    for _ in 0..MANY {
        bench = bench.file(3);
    }
    let (log, _) = bench.send(vec![|stream| {
        let mut reader = BufReader::new(&stream);
        for number in 0..MANY {
            assert_eq!(read_line(&mut reader), format!("/put size=3 crc32c=trailer ./{number}.txt\n"));
            reader.read_exact(&mut [0; 3]).unwrap();
            assert_eq!(read_line(&mut reader), "crc32c=6064a37a\n");
        }
        for number in 0..MANY {
            match number {
                7 => say(&stream, "no 409 the name is taken\n"),
                _ => say(&stream, &format!("done 3 crc32c:6064a37a {number}.txt\n")),
            }
        }
        assert_eq!(read_to_end(&stream).unwrap(), 0);
    }]);
    assert_eq!(log.stored(), (0..MANY).filter(|number| *number != 7).collect::<Vec<_>>());
    assert_eq!(log.settled.len(), MANY);
}

#[test]
fn bytes_that_the_server_holds_are_not_sent_again() {
    let (log, _) = Bench::new(None).file(Plan::LARGE_BYTES).send(vec![|stream| {
        let mut reader = BufReader::new(&stream);
        let line = read_line(&mut reader);
        assert!(line.starts_with("/ask size=8388608 crc32c=trailer resume="), "{line}");
        say(&stream, "ok 8388000\n");
        reader.read_exact(&mut [0; 608]).unwrap();
        let digest = read_line(&mut reader);
        say(&stream, &format!("done 8388608 {} 0.txt\n", digest.trim().replace('=', ":")));
    }]);
    assert_eq!((log.stored(), log.position), (vec![0], Plan::LARGE_BYTES));
}

#[test]
fn an_unknown_outcome_is_asked_for_again_by_its_digest() {
    let first: fn(TcpStream) = |stream| {
        read_line(&mut BufReader::new(&stream));
        say(&stream, "done 3 crc32c:6064a37a 0.txt\n");
        reset(stream);
    };
    let second: fn(TcpStream) = |stream| {
        let mut reader = BufReader::new(&stream);
        let line = read_line(&mut reader);
        assert_eq!(line, "/put size=3 crc32c=6064a37a on-exists=same ./1.txt\n");
        say(&stream, "done 3 crc32c:6064a37a 1.txt\n");
        let _ = read_to_end(&stream);
    };
    let mut bench = Bench::new(None).file(3).file(3).retries(1);
    let (log, _) = bench.send(vec![first, second]);
    assert_eq!(log.stored(), [0, 1]);
    assert_eq!(log.again, [Failure::Unknown.to_string()]);
}

#[test]
fn a_busy_server_is_asked_again_as_long_as_allowed_and_costs_the_others_nothing() {
    let busy: fn(TcpStream) = |stream| {
        read_line(&mut BufReader::new(&stream));
        say(&stream, "no 503 retry=0 busy\n");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = read_to_end(&stream);
    };
    let mut bench = Bench::new(None).file(3).retries(1);
    bench.plan.busy_limit = Duration::from_millis(1);
    let (log, _) = bench.send(vec![busy, busy]);
    assert!(log.error().contains("busy") && log.again.len() == 1, "{log:?}");
    let rest: fn(TcpStream) = |stream| {
        let mut reader = BufReader::new(&stream);
        assert_eq!(read_line(&mut reader), "/put size=3 crc32c=trailer ./1.txt\n");
        say(&stream, "done 3 crc32c:6064a37a 1.txt\n");
        let _ = read_to_end(&stream);
    };
    let (log, _) = Bench::new(None).file(3).file(3).send(vec![busy, rest]);
    assert_eq!((log.settled.len(), log.stored(), log.again.len()), (2, vec![1], 0));
}

#[test]
fn damaged_content_is_sent_again_as_often_as_allowed() {
    let damaged: fn(TcpStream) = |stream| {
        read_line(&mut BufReader::new(&stream));
        say(&stream, "no 422 the content has another digest\n");
        let _ = read_to_end(&stream);
    };
    let right: fn(TcpStream) = |stream| {
        assert_eq!(read_line(&mut BufReader::new(&stream)), "/put size=3 crc32c=6064a37a ./0.txt\n");
        say(&stream, "done 3 crc32c:6064a37a 0.txt\n");
        let _ = read_to_end(&stream);
    };
    let (log, _) = Bench::new(None).file(3).retries(1).send(vec![damaged, right]);
    assert_eq!((log.stored(), log.again.len()), (vec![0], 1));
    let (log, _) = Bench::new(None).file(3).retries(1).send(vec![damaged, damaged]);
    assert!(log.error().contains("another digest") && log.again.len() == 1, "{log:?}");
}

#[test]
fn a_file_that_shrinks_ends_in_a_reset_after_the_outcomes_before_it() {
    let mut bench = Bench::new(None).file(3).file(HUGE_BYTES);
    bench.plan.dialect = Some(Dialect::Put);
    let path = bench.path(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    bench.plan.to = vec![listener.local_addr().unwrap()];
    let server = thread::spawn(move || {
        let mut reader = BufReader::new(listener.accept().unwrap().0);
        while !read_line(&mut reader).ends_with("./1.txt\n") {}
        fs::write(path, b"").unwrap();
        say(reader.get_ref(), "done 3 crc32c:6064a37a 0.txt\n");
        io::copy(&mut reader, &mut io::sink()).unwrap_err().kind()
    });
    let log = bench.log();
    assert_eq!((log.stored(), log.settled.len()), (vec![0], 2));
    assert!(matches!(&log.settled[1], (1, Err(error)) if error.contains("has shrunk")), "{log:?}");
    assert_eq!(server.join().unwrap(), ErrorKind::ConnectionReset);
}

#[test]
fn a_busy_server_is_asked_again_more_often_than_failures_are_allowed() {
    let busy: fn(TcpStream) = |stream| {
        read_line(&mut BufReader::new(&stream));
        say(&stream, "no 503 retry=0 busy\n");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = read_to_end(&stream);
    };
    let ready: fn(TcpStream) = |stream| {
        read_line(&mut BufReader::new(&stream));
        say(&stream, "done 3 crc32c:6064a37a 0.txt\n");
        let _ = read_to_end(&stream);
    };
    let (log, _) = Bench::new(None).file(3).retries(1).send(vec![busy, busy, busy, ready]);
    assert_eq!((log.stored(), log.again.len()), (vec![0], 3));
}

#[test]
fn send_waits_for_a_server_that_restarts_until_it_is_back_or_stays_away() {
    let stopping: fn(TcpStream) = |stream| {
        read_line(&mut BufReader::new(&stream));
        say(&stream, "no 503 the server is shutting down\n");
        let _ = read_to_end(&stream);
    };
    let mut bench = Bench::new(None).file(3).retries(1);
    bench.plan.restart_limit = Duration::from_millis(600);
    let (log, _) = bench.send(vec![stopping]);
    assert!(log.error().starts_with("cannot connect"), "{log:?}");
    assert!(log.again[0].contains("shutting down"), "{log:?}");
    assert!(log.again.len() >= 2, "a refused connection must not use up the only retry: {log:?}");
}

#[test]
fn an_upload_that_another_connection_has_open_is_stored_once() {
    let claimed: fn(TcpStream) = |stream| {
        let line = read_line(&mut BufReader::new(&stream));
        assert!(line.contains("crc32c=trailer") && !line.contains("on-exists"), "{line}");
        say(&stream, "no 409 retry=0 another connection has this upload open\n");
        let _ = read_to_end(&stream);
    };
    let stored: fn(TcpStream) = |stream| {
        let line = read_line(&mut BufReader::new(&stream));
        assert!(line.contains(" on-exists=same ") && !line.contains("trailer"), "{line}");
        let digest = line.split("crc32c=").nth(1).unwrap().split(' ').next().unwrap();
        say(&stream, &format!("done {} crc32c:{digest} 0.txt\n", Plan::LARGE_BYTES));
        let _ = read_to_end(&stream);
    };
    let (log, _) = Bench::new(None).file(Plan::LARGE_BYTES).retries(1).send(vec![claimed, stored]);
    assert!(matches!(log.settled[..], [(0, Ok((Plan::LARGE_BYTES, _)))]), "{log:?}");
}

#[test]
fn an_address_that_cannot_be_connected_to_is_tried_once() {
    let mut bench = Bench::new(None).file(3).retries(3);
    // Link-local, without an interface.
    bench.plan.to = vec!["[fe80::1]:9".parse().unwrap()];
    let log = bench.log();
    if !log.error().contains("invalid input") {
        return crate::leave_out::leave_out(&format!("there is no IPv6: {}", log.error()));
    }
    assert!(log.again.is_empty() && log.error().contains("%INTERFACE"), "{log:?}");
}

/// Reads a head of HTTP, and returns its lines.
fn read_head(stream: &mut impl BufRead) -> Vec<String> {
    std::iter::from_fn(|| Some(read_line(stream).trim_end().to_owned()).filter(|line| !line.is_empty())).collect()
}

/// Reads a request with a body of 3 bytes, and returns its first line.
fn read_put(stream: &mut impl BufRead) -> String {
    let head = read_head(stream);
    assert!(head.contains(&"Content-Length: 3".to_owned()), "{head:?}");
    stream.read_exact(&mut [0; 3]).unwrap();
    head[0].clone()
}

/// Reads the content of a file of [`Plan::LARGE_BYTES`], and answers.
fn read_large(reader: &mut BufReader<&TcpStream>) {
    io::copy(&mut reader.take(Plan::LARGE_BYTES), &mut io::sink()).unwrap();
    say(reader.get_ref(), "HTTP/1.1 204 No Content\r\n\r\n");
}

/// The last answer on a connection.
const DONE_LAST: &str = "HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 9\r\n\r\ndone 3 - ";

#[test]
fn over_http_a_connection_carries_as_many_files_as_the_server_allows() {
    let first: fn(TcpStream) = |stream| {
        let mut reader = BufReader::new(&stream);
        for number in 0..3 {
            assert_eq!(read_put(&mut reader), format!("PUT /{number}.txt HTTP/1.1"));
            let close = if number == 2 { "Connection: close\r\n" } else { "" };
            say(&stream, &format!("HTTP/1.1 204 No Content\r\n{close}\r\n"));
        }
    };
    let second: fn(TcpStream) = |stream| {
        assert_eq!(read_put(&mut BufReader::new(&stream)), "PUT /3.txt HTTP/1.1");
        say(&stream, "HTTP/1.1 201 Created\r\nContent-Length: 15\r\n\r\ndone 3 - 3.txt\n");
        let _ = read_to_end(&stream);
    };
    let (log, _) = Bench::http().file(3).file(3).file(3).file(3).send(vec![first, second]);
    assert_eq!((log.stored(), log.again.len()), (vec![0, 1, 2, 3], 0));
    let name = |name: &str| Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
    let answered = Answered { status: 204, size: 3, digest: None, name: name("0.txt") };
    assert_eq!(log.settled[0], (0, Ok((3, Stored::Answered(answered)))));
    let receipt = Receipt { size: 3, digest: None, stored_name: "3.txt".into() };
    assert_eq!(log.settled[3], (3, Ok((3, Stored::Receipt(receipt)))));
}

#[test]
fn over_http_a_large_file_waits_for_100_continue_but_not_without_end() {
    let polite: fn(TcpStream) = |stream| {
        let mut reader = BufReader::new(&stream);
        assert!(read_head(&mut reader).contains(&"Expect: 100-continue".to_owned()));
        assert!(reader.buffer().is_empty(), "content came before it was asked for");
        say(&stream, "HTTP/1.1 100 Continue\r\n\r\n");
        read_large(&mut reader);
    };
    let silent: fn(TcpStream) = |stream| {
        let mut reader = BufReader::new(&stream);
        read_head(&mut reader);
        read_large(&mut reader);
    };
    for script in [polite, silent] {
        let (log, _) = Bench::http().file(Plan::LARGE_BYTES).send(vec![script]);
        assert_eq!((log.stored(), log.position), (vec![0], Plan::LARGE_BYTES));
    }
}

#[test]
fn over_http_no_content_follows_a_refusal() {
    let (log, read) = Bench::http().file(HUGE_BYTES).file(3).retries(3).send(vec![
        |stream| {
            read_head(&mut BufReader::new(&stream));
            say(&stream, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 19\r\n\r\nno 413 over 5 bytes\n");
            read_to_end(&stream).unwrap_or_default()
        },
        |stream| {
            // No other request may follow content that was announced but not sent.
            read_put(&mut BufReader::new(&stream));
            say(&stream, "HTTP/1.1 204 No Content\r\n\r\n");
            0
        },
    ]);
    assert!(matches!(&log.settled[0], (0, Err(error)) if error.contains("(413): \"over 5 bytes\"")), "{log:?}");
    assert_eq!((log.stored(), log.again.len(), read[0]), (vec![1], 0, 0));
}

#[test]
fn over_http_an_unknown_outcome_is_sent_again_unless_the_name_is_taken() {
    let lost: fn(TcpStream) = |stream| {
        assert!(!read_head(&mut BufReader::new(&stream)).contains(&"If-None-Match: *".to_owned()));
    };
    let free: fn(TcpStream) = |stream| {
        assert!(read_head(&mut BufReader::new(&stream)).contains(&"If-None-Match: *".to_owned()));
        say(&stream, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        let _ = read_to_end(&stream);
    };
    let taken: fn(TcpStream) = |stream| {
        read_head(&mut BufReader::new(&stream));
        say(&stream, "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n");
        let _ = read_to_end(&stream);
    };
    let mut bench = Bench::http().file(3).retries(1);
    let (log, _) = bench.send(vec![lost, free]);
    assert_eq!((log.stored(), log.again.len()), (vec![0], 1));
    let (log, _) = bench.send(vec![lost, taken]);
    assert!(log.error().contains("(412)") && log.error().contains("its answer was lost"), "{log:?}");
    // A name that is taken at the first attempt is another file's.
    let (log, _) = bench.send(vec![taken]);
    assert!(log.error().contains("(412)") && !log.error().contains("lost"), "{log:?}");
}

#[test]
fn over_http_a_busy_server_is_waited_for_and_damaged_content_is_sent_again() {
    let busy: fn(TcpStream) = |stream| {
        read_put(&mut BufReader::new(&stream));
        say(&stream, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
        let _ = read_to_end(&stream);
    };
    let damaged: fn(TcpStream) = |stream| {
        read_put(&mut BufReader::new(&stream));
        say(&stream, "HTTP/1.1 422 X\r\nContent-Length: 0\r\n\r\n");
        let _ = read_to_end(&stream);
    };
    let done: fn(TcpStream) = |stream| {
        read_put(&mut BufReader::new(&stream));
        say(&stream, DONE_LAST.replace("9", "15").as_str());
        say(&stream, "0.txt\n");
    };
    let (log, _) = Bench::http().file(3).retries(1).send(vec![busy, busy, damaged, done]);
    assert_eq!((log.stored(), log.again.len()), (vec![0], 3), "{log:?}");
}

#[test]
fn over_http_a_digest_follows_the_content_unless_it_is_known_before() {
    // `head -c 3 /dev/zero | openssl dgst -sha256 -binary | base64`.
    const FIELD: &str = "Repr-Digest: sha-256=:cJ6AyISHokEeHuTfufIqhhSS0gxHZRUMDHlKvXD4FHw=:";
    let damaged: fn(TcpStream) = |stream| {
        let mut reader = BufReader::new(&stream);
        let head = read_head(&mut reader);
        assert!(head.contains(&"Trailer: Repr-Digest".to_owned()), "{head:?}");
        assert_eq!(read_line(&mut reader), "3\r\n");
        reader.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(read_head(&mut reader).len() + read_head(&mut reader).len(), 2);
        say(&stream, "HTTP/1.1 422 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    };
    let done: fn(TcpStream) = |stream| {
        let mut reader = BufReader::new(&stream);
        let head = read_head(&mut reader);
        assert!(head.contains(&FIELD.to_owned()) && head.contains(&"Content-Length: 3".to_owned()), "{head:?}");
        say(&stream, "HTTP/1.1 204 X\r\n\r\n");
        let _ = read_to_end(&stream);
    };
    let mut bench = Bench::http().file(3).retries(1);
    bench.plan.algorithm = Algorithm::Sha256;
    let (log, _) = bench.send(vec![damaged, done]);
    assert_eq!(log.stored(), [0], "{log:?}");
}

#[test]
fn over_http_another_kind_of_server_is_recognised_by_its_answer() {
    let (log, _) = Bench::http().file(3).file(3).retries(3).send(vec![|stream| {
        say(&stream, "no 403 HTTP is not spoken here; send the base name\n");
        let _ = read_to_end(&stream);
    }]);
    assert!(log.error().contains("it said \"no 403 HTTP is not spoken here"), "{log:?}");
}

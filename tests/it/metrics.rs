//! What the server tells the operator's programs: metrics and health, and that uploads do not notice who asks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::fixture::{
    Files, Server, await_until, classic_begin, classic_finish, connect, content, files_of, line, reset,
};

const ARGS: &[&str] = &["--metrics", "127.0.0.1:0"];

/// An answer of HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: String,
    content: String,
}

/// Asks once, on a connection of its own.
fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = connect(address).expect("the server accepts");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request can be sent");
    let answer = io::read_to_string(stream).expect("an answer comes, and then the end");
    let (head, content) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let (line, fields) = head.split_once("\r\n").expect("a head has fields");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, fields: fields.into(), content: content.into() }
}

fn get(server: &Server, path: &str) -> Answer {
    ask(server.metrics(), "GET", path)
}

/// The value of a metric, with its labels as they are printed.
fn value(server: &Server, metric: &str) -> Option<f64> {
    let text = get(server, "/metrics").content;
    let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')).map(str::to_owned);
    line.map(|value| value.parse().expect("a value is a number"))
}

#[test]
fn each_path_has_its_answer_and_only_reading_is_allowed() {
    let server = Server::start(ARGS);
    for (method, path, status) in [
        ("GET", "/metrics", 200),
        ("GET", "/metrics?collect=all", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("PUT", "/metrics", 405),
        ("POST", "/", 405),
        ("DELETE", "/healthz", 405),
    ] {
        let answer = ask(server.metrics(), method, path);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.content.is_empty(), method == "HEAD", "{method} {path}");
        assert_eq!(answer.fields.contains("Allow: GET, HEAD"), status == 405, "{method} {path}");
    }
    let metrics = get(&server, "/metrics");
    assert!(metrics.fields.contains("Content-Type: text/plain; version=0.0.4"), "{}", metrics.fields);
    assert_eq!(get(&server, "/healthz").content, "ok\n");
}

#[test]
fn a_connection_is_kept_for_the_next_question() {
    let server = Server::start(ARGS);
    let stream = connect(server.metrics()).unwrap();
    let mut reader = BufReader::new(&stream);
    for _ in 0..3 {
        // Two at once: the second is answered after the first.
        (&stream).write_all(&b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2)).unwrap();
        for _ in 0..2 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                reader.read_until(b'\n', &mut head).unwrap();
            }
            let mut content = [0; 3];
            reader.read_exact(&mut content).unwrap();
            assert_eq!(&content, b"ok\n");
        }
    }
}

#[test]
fn no_upload_is_taken_there() {
    let server = Server::start(ARGS);
    for request in [
        "name",
        "name\ncontent",
        "/put size=3 name\nabc",
        "PUT /name HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut stream = connect(server.metrics()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(server.files(), Files::new());
}

#[test]
fn a_server_that_shuts_down_is_not_ready_and_says_so() {
    let mut server = Server::start(ARGS);
    let upload = classic_begin(server.tcp(), "last").unwrap();
    assert_eq!(get(&server, "/readyz").content, "ready\n");
    server.signal(Signal::TERM);
    await_until("the server to shut down", || server.log().contains("shutting down"));
    let answer = get(&server, "/readyz");
    assert_eq!((answer.status, answer.content.as_str()), (503, "not ready: the server is shutting down\n"));
    assert_eq!(get(&server, "/healthz").status, 200, "the loop still turns");
    classic_finish(upload, b"all").unwrap();
    assert!(server.wait().success());
    assert_eq!(server.files(), files_of([("last", b"all")]));
}

#[test]
fn a_server_without_space_is_not_ready_and_gives_the_figures() {
    let server = Server::start(&[ARGS, &["--min-free", "1000000G"]].concat());
    let answer = get(&server, "/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.content.contains("bytes are free") && answer.content.contains("--min-free"), "{answer:?}");
    assert_eq!(get(&server, "/healthz").status, 200);
}

#[test]
fn a_server_whose_directory_was_removed_is_not_ready() {
    let server = Server::start(ARGS);
    std::fs::remove_dir_all(server.dir()).unwrap();
    // It looks when something fails, and once a minute.
    let refused = line(server.tcp(), "a", b"b").unwrap();
    assert!(refused.starts_with("no 500"), "{refused}");
    let answer = get(&server, "/readyz");
    assert!(answer.status == 503 && answer.content.contains("removed"), "{answer:?}");
}

/// Clients that take a place and never read, never ask, or never finish to ask.
fn idlers(address: SocketAddr, count: usize, say: &[u8]) -> Vec<TcpStream> {
    let idler = |_| {
        let mut stream = connect(address).expect("the kernel accepts");
        // The server may have closed it already, in favour of a later one.
        let _ = stream.write_all(say);
        stream
    };
    (0..count).map(idler).collect()
}

#[test]
fn clients_that_never_read_ask_or_end_keep_nobody_out_and_uploads_do_not_notice() {
    let server = Server::start(ARGS);
    let address = server.metrics();
    server.withstands(|| {
        let many_questions = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
        let idlers = [
            idlers(address, 100, b""),
            idlers(address, 100, b"GET /metrics HTTP/1.1\r\nHost:"),
            idlers(address, 100, &many_questions),
        ];
        let bytes = content(300_000, 1);
        let upload = classic_begin(server.tcp(), "beside").unwrap();
        assert_eq!(get(&server, "/healthz").status, 200);
        classic_finish(upload, &bytes).unwrap();
        drop(idlers);
        files_of([("beside", &bytes)])
    });
}

#[test]
fn what_is_no_request_or_too_long_is_refused() {
    let server = Server::start(ARGS);
    let long = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'x'; 100_000]].concat();
    for (sent, start) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00"[..], "HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\n\n", "HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 "),
        (&long, ""),
    ] {
        let mut stream = connect(server.metrics()).unwrap();
        let _ = stream.write_all(sent);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(start), "{answer}");
    }
    assert_eq!(get(&server, "/healthz").status, 200);
}

#[test]
fn an_address_in_use_is_an_error_with_its_name() {
    let server = Server::start(ARGS);
    let taken = server.metrics().to_string();
    let output = Server::fail_to_start(&Server::home(), &["--metrics", &taken]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains(&format!("cannot listen on metrics {taken}")), "{words}");
}

/// Sends `request`, ends the stream, and reads to the end.
fn say(server: &Server, request: &str) -> String {
    let mut stream = connect(server.tcp()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    io::read_to_string(stream).unwrap()
}

#[test]
fn each_file_is_counted_once_by_its_result_and_its_dialect() {
    let server = Server::start(&[ARGS, &["--on-exists", "refuse"]].concat());
    let form = "--x\r\nContent-Disposition: form-data; name=f; filename=form\r\n\r\nab\r\n--x--\r\n";
    let post = "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n";
    classic_finish(classic_begin(server.tcp(), "classic").unwrap(), b"12345").unwrap();
    for request in [
        "line\n12345",
        "/put size=5 put\n12345/put size=5 put\n12345",
        "/ask size=5 ask\n12345",
        "PUT /http HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n12345",
        "PUT /expect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n12345",
        &format!("{post}Content-Length: {}\r\n\r\n{form}", form.len()),
        "line\n12345",
        // Cut off: five bytes are announced, and four come.
        "/put size=5 short\n1234",
    ] {
        say(&server, request);
    }
    let lost = classic_begin(server.tcp(), "lost").unwrap();
    reset(lost);
    await_until("the loss to be counted", || files(&server, "lost", "classic") == 1.0);
    for (dialect, stored, refused, lost) in [
        ("classic", 1.0, 0.0, 1.0),
        ("line", 1.0, 1.0, 0.0),
        ("put", 1.0, 2.0, 0.0),
        ("ask", 1.0, 0.0, 0.0),
        ("http", 1.0, 0.0, 0.0),
        ("http-expect", 1.0, 0.0, 0.0),
        ("http-form", 1.0, 0.0, 0.0),
    ] {
        let counted = ["stored", "refused", "lost"].map(|result| files(&server, result, dialect));
        assert_eq!(counted, [stored, refused, lost], "{dialect}");
    }
    assert_eq!(value(&server, "intake_refusals_total{code=\"409\"}"), Some(2.0));
    assert_eq!(value(&server, "intake_refusals_total{code=\"400\"}"), Some(1.0));
}

fn files(server: &Server, result: &str, dialect: &str) -> f64 {
    value(server, &format!("intake_files_total{{result=\"{result}\",dialect=\"{dialect}\"}}"))
        .expect("it is told from the start")
}

//! Who may write: tokens in every dialect, networks, and limits by source and by name.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::fixture::*;

/// Another source than 127.0.0.1.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// A home with a token file of these names, each with its limits, and their tokens.
struct Keys {
    home: Arc<TempDir>,
    tokens: Vec<String>,
}

impl Keys {
    fn of(names: &[&[&str]]) -> Self {
        let (mut tokens, mut lines) = (Vec::new(), String::from("# who may send\n"));
        for words in names {
            let (token, line) = make_token(words);
            tokens.push(token);
            lines.extend([&line, "\n"]);
        }
        let keys = Self { home: Server::home(), tokens };
        keys.write(&lines);
        keys
    }

    fn write(&self, lines: &str) {
        fs::write(self.home.path().join("tokens"), lines).expect("a file can be written");
    }

    fn server(&self, args: &[&str]) -> Server {
        Server::start_in(&self.home, &[&["--token-file", "tokens"], args].concat())
    }
}

/// What `intake token` prints: a token, and its line for the file.
fn make_token(words: &[&str]) -> (String, String) {
    let output = intake(&[&["token"], words].concat());
    let text = String::from_utf8(output.stdout).expect("it prints text");
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().expect("the token"), lines.next().expect("the line"))
}

fn intake(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_intake")).args(args).output().expect("it can be started")
}

/// Connects from another source of this machine.
fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("all of 127/8 is this machine");
    socket.connect(&address.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

/// All that the server says to these bytes, after which the client sends no more.
fn converse(mut stream: TcpStream, sent: &[u8]) -> String {
    // A server that refuses does not have to read on.
    let _ = stream.write_all(sent).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).expect("the server says text")
}

fn ask(server: &Server, sent: impl AsRef<[u8]>) -> String {
    converse(connect(server.tcp()).expect("the server accepts"), sent.as_ref())
}

/// A request of HTTP with this content.
fn http(method: &str, target: &str, fields: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{content}"
    )
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn basic(token: &str) -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("anyone:{token}"));
    format!("Authorization: Basic {pair}\r\n")
}

const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"form\"\r\n\r\nabc\r\n--b--\r\n";
const TUS: &str = "Tus-Resumable: 1.0.0\r\nUpload-Length: 3\r\nUpload-Metadata: filename dHVz\r\n\
    Content-Type: application/offset+octet-stream\r\n";

/// A request in each dialect that can show a token, made of the token, or of `None`; and the beginning of its answer if it
/// is stored.
type Way = (fn(Option<&str>) -> String, &'static str);

fn ways() -> Vec<Way> {
    fn attribute(token: Option<&str>) -> String {
        token.map_or_else(String::new, |token| format!(" token={token}"))
    }
    fn field(token: Option<&str>) -> String {
        token.map_or_else(String::new, bearer)
    }
    vec![
        (|token| format!("/put size=3{} put\nabc", attribute(token)), "done 3 - put"),
        (|token| format!("/put{} size=- chunks\n3\nabc0\n", attribute(token)), "done 3 - chunks"),
        (|token| format!("/ask size=3{} ask\nabc", attribute(token)), "ok 0\ndone 3 - ask"),
        (|token| http("PUT", "/bearer", &field(token), "abc"), "HTTP/1.1 201"),
        (|token| http("PUT", "/basic", &token.map_or_else(String::new, basic), "abc"), "HTTP/1.1 201"),
        (|token| http("PUT", "/expect", &format!("Expect: 100-continue\r\n{}", field(token)), "abc"), "HTTP/1.1 100"),
        (
            |token| {
                http("POST", "/", &format!("Content-Type: multipart/form-data; boundary=b\r\n{}", field(token)), FORM)
            },
            "HTTP/1.1 201",
        ),
        (|token| http("POST", "/", &format!("{TUS}{}", field(token)), "abc"), "HTTP/1.1 201"),
    ]
}

#[test]
fn every_dialect_that_can_show_a_token_needs_the_right_one() {
    let keys = Keys::of(&[&["alice"], &["bob"]]);
    let server = keys.server(&["--trace"]);
    let wrong = make_token(&["eve"]).0;
    for (request, stored) in ways() {
        for shown in [None, Some(wrong.as_str())] {
            let said = ask(&server, request(shown));
            let code = said.trim_start_matches("HTTP/1.1 ").trim_start_matches("no ");
            assert!(code.starts_with("401 "), "{}: {said}", request(shown));
            if said.starts_with("HTTP") {
                assert!(said.contains("\r\nWWW-Authenticate: Basic realm=\"intake\""), "{said}");
                assert!(said.contains("Bearer realm"), "{said}");
            }
        }
        let said = ask(&server, request(Some(&keys.tokens[1])));
        assert!(said.starts_with(stored), "{said}");
        server.await_accepted();
    }
    let names: Vec<String> = server.files().into_keys().collect();
    assert_eq!(names, ["ask", "basic", "bearer", "chunks", "expect", "form", "put", "tus"]);
    await_until("the log to name the token", || server.log().contains(" by bob: \"tus\" stored as \"tus\""));
    await_until("the trace to name it", || server.log().contains("the client is bob"));
    for token in [&wrong, &keys.tokens[1]] {
        assert!(!server.log().contains(token), "neither has what was shown");
        assert!(!server.log().contains(basic(token).split(' ').next_back().unwrap().trim()));
    }
}

#[test]
fn a_bare_name_cannot_show_a_token_and_what_is_no_upload_needs_none() {
    let server = Keys::of(&[&["alice"]]).server(&[]);
    let words = "no 403 this server needs a token, and a bare name cannot carry one: /put size=BYTES token=TOKEN NAME";
    assert!(ask(&server, "line\ncontent").starts_with(words));
    let refused = classic_begin(server.tcp(), "classic").expect_err("it is refused").to_string();
    assert!(refused.starts_with(words), "{refused}");
    assert!(ask(&server, http("GET", "/", "", "")).starts_with("HTTP/1.1 200"), "the page asks for the token");
    assert!(ask(&server, http("OPTIONS", "/", "", "")).starts_with("HTTP/1.1 204"));
    assert!(ask(&server, http("PUT", "/.a", "", "x")).starts_with("HTTP/1.1 4"));
    assert!(
        ask(&server, "/put size=1 ../a\nx").starts_with("no 401"),
        "a stranger does not learn which names are taken"
    );
    assert_eq!(server.files(), Files::new());
}

#[test]
fn where_no_token_is_needed_the_log_shows_wrong_requests_without_theirs() {
    let server = Server::start(&["--trace=json", "-v"]);
    for request in [
        "/put token=SECRET",
        "/put token=SECRET size=x a\n",
        "/put size=1 token=SECRET token=SECRET a\nx",
        "/put size=1 colour=red token=SECRET a\nx",
        "/put size=1 a token=SECRET\nx",
        "/ask Token=SECRET size=1 a\nx",
        "PUT /a?token=SECRET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let said = ask(&server, request);
        assert!(!said.contains("SECRET") && said.contains("400"), "{request}: {said}");
    }
    server.await_accepted();
    await_until("the log", || server.log().matches("token=***").count() >= 7);
    assert!(!server.log().contains("SECRET"));
}

#[test]
fn a_token_in_a_wrong_place_is_not_logged() {
    let server = Keys::of(&[&["alice"]]).server(&["-v"]);
    for (request, code) in [
        ("/put size=3 Token:SECRET a\nabc", "401"),
        ("/put size=3 token= SECRET a\nabc", "401"),
        ("/put size=3 tokn=SECRET a\nabc", "400"),
        ("/put size=3 a SECRET\nabc", "401"),
        ("token=SECRET a\nabc", "403"),
        ("SECRET\n", "403"),
        ("PUT http://x:SECRET@localhost/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", "400"),
        ("HEAD /.intake/uploads/SECRET HTTP/1.1\r\nHost: localhost\r\n\r\n", "40"),
    ] {
        let said = ask(&server, request);
        assert!(said.contains(code) && !said.contains("SECRET"), "{request}: {said}");
    }
    await_until("the log", || server.log().matches("refused, 4").count() == 8);
    server.await_accepted();
    assert!(!server.log().contains("SECRET"), "{}", server.log());
}

#[test]
fn the_eleventh_wrong_token_in_a_minute_is_one_too_many_for_its_source_alone() {
    let keys = Keys::of(&[&["alice"]]);
    let server = keys.server(&[]);
    let put = |token: &str| format!("/put size=3 token={token} a\nabc");
    for number in 0..10 {
        assert!(ask(&server, put(&format!("wrong{number}"))).starts_with("no 401 "), "{number}");
    }
    let said = ask(&server, put("wrong"));
    let seconds = said.strip_prefix("no 429 retry=").and_then(|rest| rest.split(' ').next()).expect("it is told when");
    assert!((50..=60).contains(&seconds.parse::<u32>().expect("a number")), "{said}");
    let said = ask(&server, http("PUT", "/a", &bearer(&keys.tokens[0]), "abc"));
    assert!(said.starts_with("HTTP/1.1 429 Too Many Requests\r\nRetry-After: "), "{said}");
    let said = converse(connect_from(ELSEWHERE, server.tcp()), put(&keys.tokens[0]).as_bytes());
    assert_eq!(said, "done 3 - a\n");
}

#[test]
fn an_upload_belongs_to_the_token_that_has_begun_it() {
    let keys = Keys::of(&[&["alice"], &["bob"]]);
    let server = keys.server(&[]);
    let [alice, bob] = [&keys.tokens[0], &keys.tokens[1]];
    let resume = |token: &str| format!("/ask size=6 crc32c=trailer resume=x token={token} a\n");
    assert!(ask(&server, resume(alice) + "abc").starts_with("ok 0\n"));
    assert!(ask(&server, resume(bob)).starts_with("ok 0\n"), "the id is another one");
    assert!(ask(&server, resume(alice)).starts_with("ok 3\n"));

    let tus =
        format!("{}Tus-Resumable: 1.0.0\r\nUpload-Length: 6\r\nUpload-Metadata: filename Yg==\r\n", bearer(alice));
    let said = ask(&server, http("POST", "/", &tus, ""));
    let (_, rest) = said.split_once("\r\nLocation: ").expect("the upload has a place");
    let place = rest.split("\r\n").next().expect("a line").to_owned();
    let ask_for = |method: &str, token: &str, fields: &str, content: &str| {
        let said =
            ask(&server, http(method, &place, &format!("Tus-Resumable: 1.0.0\r\n{fields}{}", bearer(token)), content));
        said.split(' ').nth(1).expect("a status").to_owned()
    };
    let piece = "Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n";
    for (method, fields, content) in [("HEAD", "", ""), ("PATCH", piece, "abc"), ("DELETE", "", "")] {
        assert_eq!(ask_for(method, bob, fields, content), "404", "{method}");
        assert_eq!(ask_for(method, "wrong", fields, content), "401", "{method}");
    }
    assert_eq!(ask_for("HEAD", alice, "", ""), "200");
    assert_eq!(ask_for("PATCH", alice, piece, "abcdef"), "204");
    server.await_file("b", b"abcdef");
}

#[test]
fn a_token_has_limits_of_its_own_to_the_byte() {
    let keys =
        Keys::of(&[&["alice", "--max-file-size", "100", "--per-day", "250", "--uploads-per-day", "4"], &["bob"]]);
    let server = keys.server(&[]);
    let put = |size: usize, token: &str| {
        ask(&server, [format!("/put size={size} token={token} a\n").as_bytes(), &vec![b'x'; size]].concat())
    };
    let chunks = |size: usize, token: &str| {
        ask(&server, [format!("/put size=- token={token} a\n{size}\n").as_bytes(), &vec![b'x'; size], b"0\n"].concat())
    };
    let [alice, bob] = [&keys.tokens[0], &keys.tokens[1]];
    for send in [&put as &dyn Fn(usize, &str) -> String, &chunks] {
        let words = "no 413 the file is larger than 100 bytes, the most that is allowed with this token\n";
        assert_eq!(send(101, alice), words);
        assert!(send(100, alice).starts_with("done 100 "));
    }
    for send in [&put as &dyn Fn(usize, &str) -> String, &chunks] {
        let said = send(51, alice);
        assert!(said.starts_with("no 429 retry=86"), "{said}");
        assert!(said.ends_with("this token may send 250 bytes in a day, and 50 are left\n"), "{said}");
    }
    // Content that is cut short is given back.
    let cut = format!("/put size=50 token={alice} a\nabc");
    assert!(ask(&server, &cut).starts_with("no 400 "));
    // As is a file with a wrong digest.
    let damaged = format!("/put size=3 crc32c=00000000 token={alice} a\nabc");
    assert!(ask(&server, &damaged).starts_with("no 422 "));
    assert!(put(50, alice).starts_with("done 50 "));
    assert!(put(0, alice).starts_with("done 0 "), "the fourth file");
    assert!(put(0, alice).ends_with("this token may send 4 files in a day, and 0 are left\n"));
    assert!(put(300, bob).starts_with("done 300 "));
}

#[test]
fn uploads_at_the_same_time_cannot_exceed_a_day_together() {
    let keys = Keys::of(&[&["alice", "--per-day", "1000"]]);
    let server = keys.server(&[]);
    let (address, token) = (server.tcp(), keys.tokens[0].clone());
    let upload = |number: usize| {
        let token = token.clone();
        thread::spawn(move || {
            let mut stream = connect(address).expect("the server accepts");
            let size = if number.is_multiple_of(2) { "100".to_owned() } else { "-".to_owned() };
            let head = format!("/put size={size} token={token} a\n");
            stream.write_all(head.as_bytes()).expect("a head can be sent");
            let content = [b'x'; 100];
            if number.is_multiple_of(2) {
                converse(stream, &content)
            } else {
                converse(stream, &[b"50\n", &content[..50], b"50\n", &content[50..], b"0\n"].concat())
            }
        })
    };
    let uploads: Vec<_> = (0..40).map(upload).collect();
    let said: Vec<String> = uploads.into_iter().map(|upload| upload.join().expect("no client panics")).collect();
    assert!(said.iter().all(|said| said.starts_with("done 100 ") || said.starts_with("no 429 retry=")), "{said:?}");
    let stored: usize = server.files().values().map(Vec::len).sum();
    assert!(stored <= 1000, "{stored} bytes");
    // What refused ones had reserved is given back, so that all of it can be used.
    for _ in 0..(1000 - stored) / 100 {
        assert!(
            ask(&server, [format!("/put size=100 token={token} a\n").as_bytes(), &[b'x'; 100]].concat())
                .starts_with("done")
        );
    }
    assert!(ask(&server, format!("/put size=1 token={token} a\nx")).starts_with("no 429 "));
}

#[test]
fn pieces_of_a_resumable_upload_count_once_however_they_are_cut() {
    let keys = Keys::of(&[&["alice", "--per-day", "10"]]);
    let server = keys.server(&[]);
    let token = bearer(&keys.tokens[0]);
    let create = |length: usize| {
        ask(
            &server,
            http(
                "POST",
                "/",
                &format!(
                    "{token}Tus-Resumable: 1.0.0\r\nUpload-Length: {length}\r\nUpload-Metadata: filename Yg==\r\n"
                ),
                "",
            ),
        )
    };
    assert!(create(11).starts_with("HTTP/1.1 413"), "no day has so much");
    let said = create(10);
    let place = said.split("Location: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a place").to_owned();
    let piece = |offset: usize, fields: &str, content: &str| {
        let fields = format!(
            "{token}Tus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\nContent-Type: application/offset+octet-stream\r\n{fields}"
        );
        ask(&server, http("PATCH", &place, &fields, content)).split(' ').nth(1).map(str::to_owned).expect("a status")
    };
    // The checksum of another piece: what came of it is dropped, and does not count.
    let wrong = "Upload-Checksum: sha256 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\r\n";
    assert_eq!(piece(0, wrong, "abcde"), "460");
    assert_eq!(piece(0, "", "abcde"), "204");
    assert_eq!(piece(5, "", "fghij"), "204");
    server.await_file("b", b"abcdefghij");
    assert!(create(1).starts_with("HTTP/1.1 429"));
}

#[test]
fn a_source_has_a_day_of_its_own() {
    let server = Server::start(&["--per-source-day", "10", "--per-source-uploads", "2"]);
    assert!(classic(server.tcp(), "a", b"123456789").is_ok());
    assert_eq!(line(server.tcp(), "b", b"1").expect("an answer"), "done 1 - b\n");
    let said = line(server.tcp(), "c", b"").expect("an answer");
    assert!(said.starts_with("no 429 retry=86"), "{said}");
    assert!(said.ends_with("your address may send 2 files in a day, and 0 are left\n"), "{said}");
    let said = converse(connect_from(ELSEWHERE, server.tcp()), b"/put size=10 d\n0123456789");
    assert_eq!(said, "done 10 - d\n");
    assert_eq!(server.files().len(), 3);
}

#[test]
fn other_networks_are_turned_away_before_a_byte_is_read() {
    let server = Server::start(&["--allow", "127.0.0.1/32", "--allow", "::1"]);
    let said = converse(connect_from(ELSEWHERE, server.tcp()), b"");
    assert_eq!(said, "no 403 your address may not send here; the operator can --allow it\n");
    assert_eq!(line(server.tcp(), "a", b"1").expect("an answer"), "done 1 - a\n");
    server.signal(Signal::USR1);
    await_until("the statistics", || server.log().contains("1 refused with 403"));
}

#[test]
fn a_source_has_as_many_connections_as_it_may_and_gets_them_back() {
    let server = Server::start(&["--per-source", "3"]);
    let held: Vec<_> = (0..3).map(|number| classic_begin(server.tcp(), format!("{number}")).expect("taken")).collect();
    let said = converse(connect(server.tcp()).expect("the kernel accepts"), b"");
    assert_eq!(said, "no 429 retry=5 your address has 3 connections already, the most that this server takes\n");
    assert_eq!(converse(connect_from(ELSEWHERE, server.tcp()), b"other\nx"), "done 1 - other\n");
    for stream in held {
        classic_finish(stream, b"x").expect("it is stored");
    }
    // The server counts an end when it has seen it.
    await_until("a place", || line(server.tcp(), "next", b"x").is_ok_and(|said| said.starts_with("done 1 - next")));
}

#[test]
fn one_hostile_source_keeps_no_other_out() {
    let keys = Keys::of(&[&["alice"]]);
    let server = keys.server(&["--per-source", "50"]);
    let address = server.tcp();
    // It holds all connections that it may have and sends a byte of a head now and then, connects without end, and guesses.
    let slow: Vec<_> = (0..50).map(|_| connect(address).expect("the kernel accepts")).collect();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood: Vec<_> = (0..3)
        .map(|_| {
            let done = done.clone();
            thread::spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok(mut stream) = TcpStream::connect(address) {
                        let _ = stream.write_all(b"/put size=1 token=guess a\nx");
                    }
                }
            })
        })
        .collect();
    let start = Instant::now();
    for number in 0..50 {
        slow.iter().for_each(|mut stream| drop(stream.write(b"/")));
        let request = format!("/put size=3 token={} {number}\nabc", keys.tokens[0]);
        let said = converse(connect_from(ELSEWHERE, address), request.as_bytes());
        assert_eq!(said, format!("done 3 - {number}\n"));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.into_iter().for_each(|thread| thread.join().expect("no client panics"));
    assert!(start.elapsed() < PATIENCE, "none of them had to wait for a timeout");
    assert_eq!(server.files().len(), 50);
}

#[test]
fn the_tokens_are_read_again_at_sighup_and_stay_if_anything_is_wrong() {
    let keys = Keys::of(&[&["alice", "--per-day", "6"]]);
    let server = keys.server(&[]);
    let put = |token: &str| ask(&server, format!("/put size=3 token={token} a\nabc"));
    let (bob, line) = make_token(&["bob"]);
    let alice = keys.tokens[0].clone();
    assert!(put(&alice).starts_with("done") && put(&bob).starts_with("no 401"));
    let mut running = connect(server.tcp()).expect("the server accepts");
    running.write_all(format!("/put size=3 token={alice} running\na").as_bytes()).expect("half an upload can be sent");
    server.await_accepted();
    for (lines, words) in
        [(format!("{line}\n{line}\n"), "line 2: bob is there already"), (String::new(), "there is no token in it")]
    {
        keys.write(&lines);
        server.signal(Signal::HUP);
        await_until("the log to say what is wrong", || server.log().contains(words));
        assert!(put(&bob).starts_with("no 401"), "the old tokens stay");
    }
    keys.write(&line);
    server.signal(Signal::HUP);
    await_until("the new token to count", || put(&bob).starts_with("done"));
    assert!(put(&alice).starts_with("no 401"));
    assert_eq!(converse(running, b"bc"), "done 3 - running\n", "what has begun may finish");
}

/// An address of this machine that is not loopback: a connection to it comes from it.
fn own_address() -> Option<std::net::IpAddr> {
    let found = intake::net::host_addresses().into_iter().find(|address| address.is_ipv4() && !address.is_loopback());
    if found.is_none() {
        crate::leave_out::leave_out("this machine has no address but loopback");
    }
    found
}

#[test]
fn from_elsewhere_a_token_is_taken_only_where_nobody_reads_along() {
    let Some(address) = own_address() else { return };
    let keys = Keys::of(&[&["alice"]]);
    let to = |server: &Server| SocketAddr::new(address, server.tcp().port());
    let put = format!("/put size=3 token={} a\nabc", keys.tokens[0]);
    let request = http("PUT", "/b", "", "abc");
    let server = keys.server(&["--listen", "0.0.0.0:0"]);
    let words = "no 403 a token is not taken on a connection that others can read along; use TLS\n";
    assert_eq!(converse(connect(to(&server)).expect("the server accepts"), put.as_bytes()), words);
    let said = converse(connect(to(&server)).expect("the server accepts"), request.as_bytes());
    assert!(said.starts_with("HTTP/1.1 403") && !said.contains("WWW-Authenticate"), "no password is asked for: {said}");
    drop(server);
    let server = keys.server(&["--listen", "0.0.0.0:0", "--plain-tokens"]);
    assert_eq!(converse(connect(to(&server)).expect("the server accepts"), put.as_bytes()), "done 3 - a\n");
}

#[cfg(feature = "rustls")]
#[test]
fn over_tls_a_token_is_taken_from_everywhere() {
    let Some(address) = own_address() else { return };
    let keys = Keys::of(&[&["alice"]]);
    let (host, token) = (address.to_string(), keys.tokens[0].clone());
    let output = intake_with(&keys, &token, None, &["cert", &host]);
    assert!(output.status.success(), "{output:?}");
    let server = keys.server(&["--listen", "0.0.0.0:0", "--tls-cert", "intake.crt", "--tls-key", "intake.key"]);
    fs::write(keys.home.path().join("a"), b"abc").expect("a file can be written");
    for to in [format!("{host}:{}", server.tcp().port()), format!("https://{host}:{}/", server.tcp().port())] {
        let send = ["send", "a", "--to", &to, "--tls-ca", "intake.crt", "--token-file", "mine"];
        let output = intake_with(&keys, &token, None, &send);
        assert!(output.status.success(), "{output:?}");
        let output = intake_with(&keys, "wrong", None, &send);
        assert!(output.status.code() == Some(1), "{output:?}");
    }
    assert!(server.log().contains(" by alice: \"a\" stored as \"a.1\""));
}

/// `intake` in the home of these keys, with a token in the file `mine` and another one in the environment.
fn intake_with(keys: &Keys, in_file: &str, in_environment: Option<&str>, args: &[&str]) -> Output {
    fs::write(keys.home.path().join("mine"), in_file).expect("a file can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_intake"));
    command.args(args).current_dir(keys.home.path()).env_remove("INTAKE_TOKEN");
    in_environment.map(|token| command.env("INTAKE_TOKEN", token));
    command.output().expect("it can be started")
}

#[test]
fn send_and_load_show_their_token_in_each_dialect() {
    let keys = Keys::of(&[&["alice"]]);
    let server = keys.server(&["--trace"]);
    let (address, token) = (server.tcp().to_string(), format!("{}\n", keys.tokens[0]));
    let url = format!("http://{address}/");
    let (small, large) = (content(1000, 1), content(9 << 20, 2));
    fs::write(keys.home.path().join("small"), &small).expect("a file can be written");
    fs::write(keys.home.path().join("large"), &large).expect("a file can be written");
    for to in [&address, &url] {
        let output =
            intake_with(&keys, &token, Some("wrong"), &["send", "small", "large", "--to", to, "--token-file", "mine"]);
        assert!(output.status.success(), "{output:?}");
        let output = intake_with(&keys, "wrong", Some(&token), &["send", "small", "--to", to]);
        assert!(output.status.success(), "{output:?}");
        let output = intake_with(&keys, "wrong", None, &["send", "small", "large", "--to", to, "--token-file", "mine"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains("the token is not one of this server's") && !words.contains("trying again"), "{words}");
        server.remove_files();
        let run = ["--files", "20", "--clients", "4", "--size", "2k", "--per-connection", "5", "--verify", "inbox"];
        let load = [&["load", to], &run[..], &["--token-file", "mine"]].concat();
        let output = intake_with(&keys, &token, None, &load);
        assert!(output.status.success(), "{output:?}");
        server.remove_files();
    }
    let output = intake_with(&keys, &token, None, &["send", "small", "--to", "192.0.2.1:9", "--token-file", "mine"]);
    assert!(
        output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("in clear"),
        "{output:?}"
    );
    assert!(!server.log().contains(token.trim()));
}

#[test]
fn a_token_file_that_is_wrong_is_refused_at_the_start_with_its_line() {
    let keys = Keys::of(&[]);
    let hex = "0".repeat(64);
    for (lines, words) in [
        (format!("alice {hex}\n\nbob {}\n", &hex[1..]), "line 3: the second word is the SHA-256"),
        ("# nobody\n".into(), "there is no token in it"),
        (format!("alice {hex} per-day=x"), "line 1: per-day: "),
        ("x".repeat(2 << 20), "larger than 1048576 bytes"),
    ] {
        keys.write(&lines);
        let output = Server::fail_to_start(&keys.home, &["--token-file", "tokens"]);
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(
            output.status.code() == Some(1) && said.contains("the token file tokens: ") && said.contains(words),
            "{said}"
        );
        assert!(!keys.home.path().join("inbox").exists(), "it is looked at before anything is made");
    }
    let output = Server::fail_to_start(&keys.home, &["--token-file", "missing"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the token file missing: No such file"), "{output:?}");
    let output = Server::fail_to_start(&keys.home, &["--allow", "127.0.0.1/8"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("which is 127.0.0.0/8"), "{output:?}");
}

#[test]
fn a_token_is_made_of_256_random_bits_and_only_its_digest_is_kept() {
    let ((first, line), (second, _)) = (make_token(&["alice", "--per-day", "2G"]), make_token(&["alice"]));
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(first.len() == 43 && first.bytes().all(is_base64url) && first != second);
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils");
    sum.stdin.take().expect("piped").write_all(first.as_bytes()).expect("it reads");
    let sum = String::from_utf8(sum.wait_with_output().expect("it ends").stdout).expect("text");
    assert_eq!(line, format!("alice {} per-day=2G", &sum[..64]));
    let output = intake(&["token", "a b"]);
    assert!(
        output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("is no name for a token")
    );
}

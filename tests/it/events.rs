//! `--events`: one line for each outcome, after its client could know it, and never a wait for a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::documents::root;
use crate::fixture::*;
use crate::tools::Strace;

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The whole lines of a file.
fn events_in(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(parse).collect()
}

/// Waits for so many events in a file, and returns all of them.
fn await_events(path: &Path, count: usize) -> Vec<Value> {
    await_until("the events", || events_in(path).len() >= count);
    events_in(path)
}

/// A server with a directory of its own for events, and the file.
fn start(args: &[&str]) -> (Server, tempfile::TempDir, std::path::PathBuf) {
    let log = tempfile::tempdir().unwrap();
    let file = log.path().join("events.jsonl");
    let server = Server::start(&[&["--events", file.to_str().unwrap()], args].concat());
    (server, log, file)
}

/// Sends requests, and returns what comes back up to the end.
fn ask(server: &Server, requests: &str) -> String {
    let mut stream = connect(server.tcp()).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    io::read_to_string(stream).unwrap()
}

fn http(line: &str, fields: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{content}"
    )
}

/// The place of a new upload of `abcdef` by tus, of which the first three bytes are there.
fn begin_tus(server: &Server) -> String {
    let fields = "Tus-Resumable: 1.0.0\r\nUpload-Length: 6\r\nUpload-Metadata: filename dHVz\r\n\
                  Content-Type: application/offset+octet-stream\r\n";
    let answer = ask(server, &http("POST /", fields, "abc"));
    let place = answer.lines().find_map(|line| line.strip_prefix("Location: ")).expect("it has a place");
    place.to_owned()
}

fn continue_tus(server: &Server, place: &str) -> String {
    let fields = "Tus-Resumable: 1.0.0\r\nUpload-Offset: 3\r\nContent-Type: application/offset+octet-stream\r\n";
    ask(server, &http(&format!("PATCH {place}"), fields, "def"))
}

/// Cuts an upload off by a reset, in the middle of its content.
fn cut_off(server: &Server, request: &str) {
    let mut stream = connect(server.tcp()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    await_until("the upload", || server.log().contains("bytes received") || !server.partials().is_empty());
    reset(stream);
}

/// The fields of the table in the document.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, section) = text.split_once("\n## Events\n").expect("the section is there");
    let (section, _) = section.split_once("\n## ").expect("another one follows");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(field, _)| field.to_owned()).collect()
}

#[test]
fn each_outcome_in_each_dialect_is_one_event_with_the_documented_fields() {
    let (server, _log, file) = start(&["--max-file-size", "100"]);
    classic(server.tcp(), "classic", b"x").unwrap();
    line(server.tcp(), "line", b"xy").unwrap();
    ask(&server, "/put size=5 crc32c=9a71bb4c put\nhello/put size=101 large\n");
    ask(&server, "/ask size=5 crc32c=9a71bb4c ask\n");
    ask(&server, &http("PUT /http", "", "x"));
    ask(&server, &http("PUT /wrong", "Repr-Digest: sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:\r\n", "x"));
    let form = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"form\"\r\n\r\nx\r\n--b--\r\n";
    ask(&server, &http("POST /", "Content-Type: multipart/form-data; boundary=b\r\n", form));
    let place = begin_tus(&server);
    assert!(continue_tus(&server, &place).starts_with("HTTP/1.1 204"));
    cut_off(&server, "/ask size=9 crc32c=trailer resume=one cut\n123");

    let seen: Vec<Value> = await_events(&file, 10);
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or("-").to_owned();
    let gists = seen.iter().map(|event| {
        let code = event["code"].as_u64().unwrap_or(0);
        (text(event, "dialect"), text(event, "name"), text(event, "result"), text(event, "stored"), code)
    });
    let gists: Vec<_> = gists.collect();
    for (dialect, name, result, code) in [
        ("classic", "classic", "stored", 0),
        ("line", "line", "stored", 0),
        ("put", "put", "stored", 0),
        ("put", "large", "refused", 413),
        ("http", "http", "stored", 0),
        ("http", "wrong", "refused", 422),
        ("http-form", "form", "stored", 0),
        ("http", "tus", "stored", 0),
        ("ask", "cut", "lost", 0),
        ("ask", "ask", "refused", 400),
    ] {
        let stored = if result == "stored" { name } else { "-" };
        let gist = (dialect.into(), name.into(), result.into(), stored.into(), code);
        let count = gists.iter().filter(|seen| **seen == gist).count();
        assert_eq!(count, 1, "{gist:?} is not once in {gists:#?}");
    }
    assert_eq!(gists.len(), 10, "{gists:#?}");

    let put = seen.iter().find(|event| event["name"] == "put").unwrap();
    assert_eq!((put["size"].as_u64(), put["digest"].as_str()), (Some(5), Some("crc32c:9a71bb4c")));
    assert!(put["seconds"].as_f64().unwrap() < PATIENCE.as_secs_f64() && put["at"].as_u64().unwrap() > 1_700_000_000);
    assert!(put["peer"].as_str().unwrap().starts_with("127.0.0.1:") && put["who"].is_null());
    for event in &seen {
        assert_eq!(event["reason"].is_string(), event["result"] != "stored", "{event}");
        let fields: BTreeSet<String> = event.as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, documented());
    }
}

#[test]
fn each_of_many_files_on_one_connection_has_one_event() {
    let (server, _log, file) = start(&[]);
    let requests: String = (0..500).map(|number| format!("/put size=3 {number}\nabc")).collect();
    assert_eq!(ask(&server, &requests).lines().count(), 500);
    let mut counts = BTreeMap::new();
    for event in await_events(&file, 500) {
        *counts.entry(event["stored"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 500);
    assert!(counts.values().all(|count| *count == 1) && server.files().keys().eq(counts.keys()));
}

/// The calls of the loop, as strace(1) records them.
#[test]
fn an_event_is_written_after_its_client_was_told() {
    let (server, _log, _) = start(&[]);
    let watched = ["-y", "-s", "1000", "-e", "trace=write,sendto,close"];
    let Some(strace) = Strace::attach(server.pid(), &watched) else { return };
    ask(&server, "/put size=1 one\nx/put size=1 two\ny");
    classic(server.tcp(), "three", b"z").unwrap();
    server.await_accepted();
    let calls = strace.calls();
    let index = |what: &dyn Fn(&str) -> bool| {
        calls.iter().position(|call| what(call)).unwrap_or_else(|| panic!("it is missing: {calls:#?}"))
    };
    let event = |name: &str| index(&|call| call.contains("events.jsonl") && call.contains(&format!("\\\"{name}\\\"")));
    for name in ["one", "two"] {
        let done = index(&|call| call.starts_with("sendto(") && call.contains(&format!("done 1 - {name}")));
        assert!(done < event(name), "{name}: {calls:#?}");
    }
    // The end of the connection tells it.
    let ok = index(&|call| call.starts_with("sendto(") && call.contains("\"ok\""));
    let (socket, _) = calls[ok]["sendto(".len()..].split_once(',').unwrap();
    let end = ok + calls[ok..].iter().position(|call| call.starts_with(&format!("close({socket})"))).unwrap();
    assert!(end < event("three"), "{calls:#?}");
}

#[test]
fn after_sighup_a_renamed_file_is_left_alone() {
    let (server, log, file) = start(&[]);
    line(server.tcp(), "a", b"a").unwrap();
    await_events(&file, 1);
    let old = log.path().join("events.jsonl.1");
    fs::rename(&file, &old).unwrap();
    line(server.tcp(), "b", b"b").unwrap();
    await_events(&old, 2);
    server.signal(Signal::HUP);
    await_until("the file to be opened again", || file.exists());
    line(server.tcp(), "c", b"c").unwrap();
    assert_eq!(await_events(&file, 1)[0]["name"], "c");
    assert_eq!(events_in(&old).len(), 2);
}

#[test]
fn a_file_that_cannot_be_opened_again_leaves_everything_as_it_was() {
    let (server, log, file) = start(&[]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    server.signal(Signal::HUP);
    await_until("the error", || server.log().contains("what was read before stays in use: --events: cannot open"));
    line(server.tcp(), "a", b"a").unwrap();
    drop(log);
}

#[test]
fn a_socket_gets_a_datagram_for_each_and_one_that_nobody_reads_costs_uploads_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("events");
    let to = format!("unix:{}", path.display());
    let server = Server::start(&["--events", &to, "--metrics", "127.0.0.1:0"]);
    // Nobody is there yet.
    line(server.tcp(), "early", b"x").unwrap();
    let reader = UnixDatagram::bind(&path).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    let requests: String = (0..2000).map(|number| format!("/put size=3 {number}\nabc")).collect();
    assert_eq!(ask(&server, &requests).lines().count(), 2000, "every file is stored");

    let dropped = || {
        let mut stream = connect(server.metrics()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix("intake_events_dropped_total ")).unwrap();
        value.parse::<f64>().unwrap() as usize
    };
    await_until("each event to be dropped or sent", || dropped() > 1);
    let was_dropped = dropped();
    let read = || {
        let mut bytes = [0; 4096];
        let count = reader.recv(&mut bytes).unwrap();
        parse(std::str::from_utf8(&bytes[..count]).unwrap())
    };
    for _ in 0..2001 - was_dropped {
        assert_eq!(read()["result"], "stored");
    }
    line(server.tcp(), "late", b"x").unwrap();
    assert_eq!(read()["name"], "late");
    assert_eq!(dropped(), was_dropped);
}

#[test]
fn standard_output_can_have_the_events() {
    let server = Server::start(&["--events", "-"]);
    line(server.tcp(), "a", b"a").unwrap();
    await_until("the event", || !server.said("{").is_empty());
    assert_eq!(parse(&format!("{{{}", server.said("{")[0]))["name"], "a");
}

#[test]
fn a_pipe_that_nobody_reads_is_refused_in_words() {
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let output = Server::fail_to_start(&Server::home(), &["--events", pipe.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("--events: cannot open") && stderr.contains("start its reader first"), "{stderr}");
}

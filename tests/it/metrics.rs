//! What the server tells the operator's programs: metrics and health, and that uploads do not notice who asks.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::fixture::{
    Files, Server, await_until, classic_begin, classic_finish, connect, content, files_of, line, reset,
};
use crate::tools::installed;

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

/// The text of all metrics.
fn metrics(server: &Server) -> String {
    get(server, "/metrics").content
}

/// The names of all families.
fn families(server: &Server) -> Vec<String> {
    let text = metrics(server);
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.map(|line| line.split(' ').next().expect("a name").to_owned()).collect()
}

#[test]
fn every_family_is_documented_and_no_other() {
    const PAGE: &str = include_str!("../../docs/operations.md");
    let server = Server::start(&[ARGS, &["--queue"]].concat());
    let families = families(&server);
    assert!(families.len() > 20, "{families:?}");
    for family in &families {
        assert!(PAGE.contains(&format!("`{family}`")), "{family} is not documented");
    }
    let documented = PAGE.split('`').filter(|word| {
        let is_word = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_word && (word.starts_with("intake_") || word.starts_with("process_"))
    });
    for family in documented.filter(|family| *family != "intake_certificate_end_seconds") {
        assert!(families.iter().any(|known| known == family), "{family} is documented, and there is none");
    }
}

#[test]
fn promtool_has_nothing_against_it() {
    let Some(promtool) = installed("promtool") else { return };
    let server = Server::start(ARGS);
    line(server.tcp(), "a", b"12345").unwrap();
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("promtool can be started");
    check.stdin.take().unwrap().write_all(metrics(&server).as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{words}");
}

/// The folder of the alerts and the dashboard.
fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring")
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    let Some(promtool) = installed("promtool") else { return };
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts-test.yml"]] {
        let output = Command::new(&promtool).args(args).current_dir(monitoring()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let [alerts, tests] =
        ["alerts.yml", "alerts-test.yml"].map(|file| std::fs::read_to_string(monitoring().join(file)).unwrap());
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(
            tests.contains(&format!("        alertname: {name}\n        exp_alerts:\n")),
            "{name} is never seen to fire"
        );
    }
}

#[test]
fn alerts_and_dashboard_ask_only_for_what_is_told() {
    let server = Server::start(&[ARGS, &["--queue"]].concat());
    let families = families(&server);
    for file in ["alerts.yml", "dashboard.json"] {
        let text = std::fs::read_to_string(monitoring().join(file)).unwrap();
        let words = text.split(|next: char| !(next.is_ascii_alphanumeric() || next == '_'));
        let asked: BTreeSet<_> =
            words.filter(|word| word.starts_with("intake_") || word.starts_with("process_")).collect();
        assert!(asked.len() > 10, "{asked:?}");
        for family in asked {
            let family =
                ["_bucket", "_count", "_sum"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
            let needs_tls = family == "intake_certificate_end_seconds";
            assert!(needs_tls || families.iter().any(|told| told == family), "{file} asks for {family}");
        }
    }
}

#[test]
fn whole_files_are_timed_until_the_disk_has_them() {
    for sync in ["full", "none"] {
        let server = Server::start(&[ARGS, &["--sync", sync]].concat());
        for number in 0..5 {
            line(server.tcp(), format!("a{number}"), b"12345").unwrap();
        }
        assert_eq!(value(&server, "intake_commit_seconds_count"), Some(5.0), "{sync}");
        assert_eq!(value(&server, "intake_commit_seconds_bucket{le=\"+Inf\"}"), Some(5.0));
        assert_eq!(value(&server, "intake_commit_backlog"), Some(0.0));
        let sum = value(&server, "intake_commit_seconds_sum").unwrap();
        assert!((sum > 0.0) == (sync == "full"), "{sum}");
    }
}

#[test]
fn connections_and_limits_by_source_are_counted() {
    let server =
        Server::start(&[ARGS, &["--per-source", "1", "--per-source-uploads", "1", "--max-connections", "7"]].concat());
    let held = classic_begin(server.tcp(), "a").unwrap();
    let refused = io::read_to_string(connect(server.tcp()).unwrap()).unwrap();
    assert!(refused.starts_with("no 429"), "{refused}");
    assert_eq!(value(&server, "intake_connections"), Some(1.0));
    assert_eq!(value(&server, "intake_connections_max"), Some(7.0));
    classic_finish(held, b"1").unwrap();
    await_until("the connection to be closed", || value(&server, "intake_connections") == Some(0.0));
    let refused = line(server.tcp(), "b", b"2").unwrap();
    assert!(refused.starts_with("no 429"), "{refused}");
    for (limit, count) in [("connections", 1.0), ("wrong_tokens", 0.0), ("source_day", 1.0), ("token_day", 0.0)] {
        assert_eq!(
            value(&server, &format!("intake_sources_limited_total{{limit=\"{limit}\"}}")),
            Some(count),
            "{limit}"
        );
    }
    assert_eq!(value(&server, "intake_connections_total"), Some(2.0));
}

#[test]
fn the_disk_and_the_partial_files_of_resumable_uploads_are_told() {
    let home = Server::home();
    let server = Server::start_in(&home, &[ARGS, &["--min-free", "12345"]].concat());
    assert_eq!(value(&server, "intake_disk_min_free_bytes"), Some(12345.0));
    assert!(value(&server, "intake_disk_free_bytes").unwrap() > 12345.0);
    assert_eq!(value(&server, "intake_partials_kept"), Some(0.0));
    let mut cut_off = connect(server.tcp()).unwrap();
    cut_off.write_all(b"/ask size=9 crc32c=trailer resume=one name\n123").unwrap();
    cut_off.shutdown(Shutdown::Write).unwrap();
    io::read_to_string(cut_off).unwrap();
    drop(server);
    // They are counted at the start, and once a minute.
    let server = Server::start_in(&home, ARGS);
    assert_eq!(value(&server, "intake_partials_kept"), Some(1.0));
    assert_eq!(value(&server, "intake_store_failed"), Some(0.0));
}

#[test]
fn datagrams_are_counted_and_absent_without_an_echo() {
    let server = Server::start(ARGS);
    server.assert_echoes(b"anybody there?");
    assert!(value(&server, "intake_datagrams_total{result=\"echoed\"}").unwrap() >= 1.0);
}

#[cfg(feature = "rustls")]
#[test]
fn handshakes_are_counted_by_their_result_and_the_end_of_the_certificate_is_told() {
    use crate::certificates::Issuer;

    let issuer = Issuer::new();
    let pair = issuer.sign("server", &["localhost", "127.0.0.1"]);
    let (certificate, key) = (pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap());
    let server = Server::start(&[ARGS, &["--tls-cert", certificate, "--tls-key", key]].concat());
    let handshakes = |result| value(&server, &format!("intake_handshakes_total{{result=\"{result}\"}}")).unwrap();
    assert_eq!(["done", "failed"].map(handshakes), [0.0, 0.0]);
    // A record of TLS, and no message of TLS in it.
    let mut broken = connect(server.tcp()).unwrap();
    broken.write_all(b"\x16\x03\x01\x00\x04abcd").unwrap();
    drop(broken);
    await_until("the failure to be counted", || handshakes("failed") == 1.0);
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a"), b"1").unwrap();
    let mut send = Command::new(env!("CARGO_BIN_EXE_intake"));
    send.args(["send", "--to", &server.tcp().to_string(), "--tls", "--tls-ca"]).arg(issuer.path());
    let output = send.arg(home.path().join("a")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(["done", "failed"].map(handshakes), [1.0, 1.0]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(value(&server, "intake_certificate_end_seconds").unwrap() > now);
}

#[test]
fn lines_of_the_log_that_nobody_reads_are_counted() {
    // Its standard error is a pipe of which nobody reads.
    let home = Server::home();
    let (_reader, writer) = io::pipe().unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_intake"));
    serve.args([
        "serve",
        "-v",
        "--udp",
        "off",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--dir",
        "inbox",
    ]);
    let mut process = Killed(serve.current_dir(home.path()).stdout(Stdio::piped()).stderr(writer).spawn().unwrap());
    let mut printed = BufReader::new(process.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut address =
        |kind: &str| -> SocketAddr { printed.next().unwrap().strip_prefix(kind).unwrap().parse().unwrap() };
    let (tcp, metrics) = (address("tcp "), address("metrics "));
    let dropped = || {
        let text = ask(metrics, "GET", "/metrics").content;
        let line = text.lines().find_map(|line| line.strip_prefix("intake_log_dropped_total ")).map(str::to_owned);
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(dropped(), 0);
    let name = "x".repeat(250);
    await_until("the pipe to be full", || {
        line(tcp, &name, b"1").unwrap();
        dropped() > 0
    });
}

/// A process that is killed at the end of the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn turns_are_timed() {
    let server = Server::start(ARGS);
    let turns = value(&server, "intake_turn_seconds_count").unwrap();
    line(server.tcp(), "a", b"12345").unwrap();
    assert!(value(&server, "intake_turn_seconds_count").unwrap() > turns);
    assert!(value(&server, "intake_turn_seconds_sum").unwrap() > 0.0);
    assert!(value(&server, "intake_turn_events_sum").unwrap() > 2.0);
    assert_eq!(value(&server, "intake_budget_spent_total"), Some(0.0));
}

#[test]
fn the_queue_is_counted_at_the_start() {
    let home = Server::home();
    let args = [ARGS, &["--queue"]].concat();
    let queued = |server: &Server, state| value(server, &format!("intake_queue_files{{state=\"{state}\"}}"));
    let server = Server::start_in(&home, &args);
    assert_eq!(queued(&server, "waiting"), Some(0.0));
    for name in ["a", "b", "c"] {
        line(server.tcp(), name, b"12345").unwrap();
    }
    drop(server);
    // A consumer has given up one.
    let queue = home.path().join("inbox/.intake/queue");
    let first = std::fs::read_dir(&queue).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let first = first.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).min().unwrap();
    std::fs::create_dir(queue.join("failed")).unwrap();
    std::fs::rename(queue.join(&first), queue.join("failed").join(&first)).unwrap();
    let server = Server::start_in(&home, &args);
    assert_eq!([queued(&server, "waiting"), queued(&server, "failed")], [Some(2.0), Some(1.0)]);
    assert_eq!(value(&Server::start(ARGS), "intake_queue_files{state=\"waiting\"}"), None, "it has no queue");
}

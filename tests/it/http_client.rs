//! `intake send` and `intake load` over HTTP: against nginx, and against servers that lie.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{content, serve_each};
use crate::load::{Run, figure};
use crate::tools::installed;

/// nginx with its module for WebDAV, which stores what is PUT and gives no receipts. It closes a connection after 50
/// requests.
pub struct Nginx {
    process: Child,
    directory: TempDir,
    pub address: SocketAddr,
}

impl Nginx {
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts it with TLS; `tls` is a certificate, its key, and a version (`TLSv1.2`).
    pub fn start_with(tls: &[&str]) -> Option<Self> {
        let (nginx, python) = (installed("nginx")?, installed("python3")?);
        let directory = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/nginx_dav.py");
        let mut command = Command::new(python);
        command.arg(script).arg(nginx).arg(directory.path()).args(tls).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some(Self { process, directory, address: SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap())) })
    }

    fn url(&self, folder: &str) -> String {
        format!("http://{}/{folder}", self.address)
    }

    pub fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }
}

impl Drop for Nginx {
    /// SIGTERM, because SIGKILL would leave its workers running.
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap();
    }
}

/// The directory of the files to send.
struct Outbox(TempDir);

impl Outbox {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(directory.path().join(name), bytes).unwrap());
        Self(directory)
    }

    fn send(&self, url: &str, args: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intake"));
        command.args(["send", "--to", url]).args(args).current_dir(&self.0).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn objects(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

#[test]
fn nginx_stores_what_is_sent_under_its_name() {
    let Some(nginx) = Nginx::start() else { return };
    let (small, large) = (content(4096, 1), content(9 << 20, 2));
    let files: [(&str, &[u8]); 4] = [("empty", b""), ("a b%2F#?ä.txt", &small), ("k=v&w+x", b"x"), ("large", &large)];
    let outbox = Outbox::with(&files);
    let names = files.map(|(name, _)| name);
    let output = outbox.send(&nginx.url("some/folder%20x/"), &[&names[..], &["--json"]].concat(), b"");
    assert_exit(&output, 0);
    for object in objects(&output) {
        assert_eq!(object["http_status"], 201, "{object}");
        assert!(object["digest"].is_null() && object["stored_name"] == object["file"], "{object}");
    }
    for (name, bytes) in files {
        assert!(fs::read(nginx.files().join("some/folder x").join(name)).unwrap() == bytes, "{name}");
    }
    let output = outbox.send(&nginx.url(""), &["-", "--name", "piped"], &large);
    assert_exit(&output, 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("gave no receipt"), "{output:?}");
    assert!(fs::read(nginx.files().join("piped")).unwrap() == large);
}

#[test]
fn many_small_files_take_as_few_connections_as_nginx_allows() {
    let Some(nginx) = Nginx::start() else { return };
    let names: Vec<String> = (0..120).map(|number| number.to_string()).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let output = Outbox::with(&files).send(
        &nginx.url(""),
        &[&["--jobs", "1"], &names.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat(),
        b"",
    );
    assert_exit(&output, 0);
    assert!(output.stderr.is_empty(), "a connection that the server closes in order is no failure: {output:?}");
    assert!(names.iter().all(|name| fs::read(nginx.files().join(name)).unwrap() == name.as_bytes()));
}

#[test]
fn a_manifest_lists_what_was_sent_to_a_server_without_receipts() {
    let (Some(nginx), Some(sha256sum)) = (Nginx::start(), installed("sha256sum")) else { return };
    let large = content(9 << 20, 3);
    let outbox = Outbox::with(&[("small", b"hello"), ("large", &large)]);
    assert_exit(&outbox.send(&nginx.url(""), &["small", "large", "--manifest", "list"], b""), 0);
    let mut check = Command::new(sha256sum);
    let checked = check.arg("-c").arg(outbox.0.path().join("list")).current_dir(nginx.files()).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(checked.stdout.iter().filter(|byte| **byte == b'\n').count(), 2, "{checked:?}");
}

#[test]
fn a_refusal_of_nginx_is_reported_with_its_status() {
    let Some(nginx) = Nginx::start() else { return };
    let outbox = Outbox::with(&[("small", b"hello"), ("large", &content(9 << 20, 3))]);
    let output = outbox.send(&nginx.url("forbidden/"), &["small", "large", "--json"], b"");
    assert_exit(&output, 1);
    for object in objects(&output) {
        assert_eq!((&object["status"], &object["code"]), (&"failed".into(), &403.into()), "{object}");
    }
    let huge = content(65 << 20, 3);
    let output = outbox.send(&nginx.url(""), &["-", "--name", "huge", "--json"], &huge[..1 << 20]);
    assert_exit(&output, 0);
    fs::write(outbox.0.path().join("huge"), huge).unwrap();
    let output = outbox.send(&nginx.url(""), &["huge", "--json"], b"");
    assert_exit(&output, 1);
    assert_eq!(objects(&output)[0]["code"], 413);
}

#[test]
fn a_web_server_is_recognised_if_http_was_not_asked_for() {
    let Some(nginx) = Nginx::start() else { return };
    let output = Outbox::with(&[("a", b"hello")]).send(&nginx.address.to_string(), &["a"], b"");
    assert_exit(&output, 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--to http://"), "{output:?}");
}

#[test]
fn a_load_on_nginx_is_verified_whatever_the_clients_do() {
    let Some(nginx) = Nginx::start() else { return };
    for (number, args) in [
        "",
        "--rate 400/s",
        "--per-connection 80",
        "--per-connection 7 --closer client",
        "--per-connection 7 --closer reset",
        "--dialect http-expect",
        "--misbehave slow=10%:500k,stall=5%:100ms,abort=10%,reset=10%,half-close=5%:50ms,split-header=2%,never-read=5%",
        "--dialect http-expect --misbehave abort=10%,reset=10%,half-close=5%:50ms,never-read=5%",
    ]
    .into_iter()
    .enumerate()
    {
        let directory = nginx.files().join(number.to_string());
        fs::create_dir(&directory).unwrap();
        let verify = format!("--verify {} --json", directory.display());
        let run = Run::load(
            nginx.url(&format!("{number}/")),
            &format!("--files 200 --clients 10 --size 0..100k --seed {number} {args} {verify}"),
        );
        assert_eq!(run.exit(), 0, "{args}: {}", run.text());
        let report = run.json();
        assert_eq!((figure(&report, "files.started"), figure(&report, "files.failed")), (200, 0), "{args}: {report}");
        assert!(figure(&report, "verification.compared_bytes") > 1_000_000, "{args}: {report}");
        let dialect = if args.contains("expect") { "http-expect" } else { "http" };
        assert_eq!(report["dialect"], dialect);
        if args == "--per-connection 80" {
            assert!(figure(&report, "files.connected") < 40, "{report}");
        }
    }
}

/// What an HTTP server does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// Nothing: the control.
    None,
    FlipsABit,
    Forgets,
    /// Confirms one byte less than the size.
    ConfirmsLess,
    /// Answers in a protocol of its own.
    IsForeign,
}

/// Starts a server that stores in `directory`, and answers with a receipt. It lives until the test ends, and never closes
/// first, although the client asks for it.
fn receiver(lie: Lie, directory: &Path) -> SocketAddr {
    let directory = directory.to_owned();
    // A client may disconnect without failing the test.
    serve_each(move |stream| receive(stream, lie, &directory).unwrap_or_default())
}

fn receive(stream: TcpStream, lie: Lie, directory: &Path) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let name = head[0].strip_prefix("PUT /")?.strip_suffix(" HTTP/1.1")?.to_owned();
        let size: usize = head.iter().find_map(|field| field.strip_prefix("Content-Length: "))?.parse().ok()?;
        let mut content = vec![0; size];
        reader.read_exact(&mut content).ok()?;
        match lie {
            Lie::FlipsABit => *content.last_mut()? ^= 1,
            Lie::IsForeign => return reader.get_mut().write_all(b"220 ready\r\n").ok(),
            _ => {}
        }
        if lie != Lie::Forgets {
            fs::write(directory.join(&name), &content).unwrap();
        }
        let told = if lie == Lie::ConfirmsLess { size - 1 } else { size };
        answer(&mut reader, &format!("done {told} - {name}\n"))?;
    }
}

fn answer(reader: &mut BufReader<TcpStream>, body: &str) -> Option<()> {
    let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", body.len());
    reader.get_mut().write_all(format!("{head}{body}").as_bytes()).ok()
}

#[test]
fn a_server_that_lies_is_caught() {
    for (lie, exit, path) in [
        (Lie::None, 0, "verification.verified"),
        (Lie::FlipsABit, 4, "verification.damaged"),
        (Lie::Forgets, 4, "verification.lost"),
        (Lie::ConfirmsLess, 4, "files.misconfirmed"),
        (Lie::IsForeign, 1, "files.failed"),
    ] {
        let directory = TempDir::new().unwrap();
        let address = receiver(lie, directory.path());
        let args = format!(
            "--files 20 --clients 4 --size 100k..200k --per-connection 5 --json --verify {}",
            directory.path().display()
        );
        let run = Run::load(format!("http://{address}/"), &args);
        assert_eq!(run.exit(), exit, "{lie:?} {}", run.text());
        assert_eq!(figure(&run.json(), path), 20, "{lie:?} {}", run.text());
        assert_eq!(
            figure(&run.json(), "files.acknowledged"),
            if path.starts_with("files") { 0 } else { 20 },
            "{lie:?}"
        );
    }
}

#[test]
fn a_success_before_the_content_does_not_count() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut reader = BufReader::new(listener.accept().unwrap().0);
        reader.read_line(&mut String::new()).unwrap();
        answer(&mut reader, "done 100000000 - x\n");
        // The server reads nothing, so the client cannot have sent everything.
        thread::park();
    });
    let run = Run::load(format!("http://{address}/"), "--files 1 --clients 1 --size 100000000 --json");
    assert_eq!((run.exit(), figure(&run.json(), "files.failed")), (1, 1), "{}", run.text());
}

#[test]
fn a_receipt_over_http_is_reported_with_its_name() {
    let directory = TempDir::new().unwrap();
    let address = receiver(Lie::None, directory.path());
    let output = Outbox::with(&[("a", b"hello")]).send(&format!("http://{address}/"), &["a"], b"");
    assert_exit(&output, 0);
    assert!(output.stdout.starts_with(b"\"a\": stored as \"a\", 5 bytes"), "{output:?}");
}

#[test]
fn contradictory_options_are_refused_with_the_reason() {
    let outbox = Outbox::with(&[("a", b"hello")]);
    for (url, args, words) in [
        ("http://127.0.0.1:1/file", &["a"][..], "slash"),
        ("http://127.0.0.1:1/", &["a", "--tls"], "write https://"),
        ("http://127.0.0.1:1/", &["a", "--dialect", "ask"], "--dialect ask"),
    ] {
        let output = outbox.send(url, args, b"");
        assert_exit(&output, 2);
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
    for (args, words) in [("--dialect line", "--dialect line"), ("--udp", "HOST:PORT")] {
        let run = Run::load("http://127.0.0.1:1/", args);
        assert!(run.exit() == 2 && run.text().contains(words), "{}", run.text());
    }
}

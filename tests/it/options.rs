//! `serve --config` and `intake check`: every option works in the file, and SIGHUP takes all of it or nothing.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::fixture::{Server, await_until, classic_begin, classic_finish, content, line};

/// A directory with a file of options. Its text can be replaced.
struct File {
    home: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { home: tempfile::tempdir().expect("a temporary directory can be made") };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("intake.conf")
    }

    /// Replaces the file by a rename, as editors do.
    fn write(&self, text: &str) {
        let new = self.home.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    fn start(&self, args: &[&str]) -> Server {
        let path = self.path();
        Server::start(&[&["--config", path.to_str().unwrap()], args].concat())
    }
}

/// Sends SIGHUP, and waits until the log says what has come of it.
fn reload(server: &Server) -> String {
    let before = server.log().lines().count();
    server.signal(Signal::HUP);
    let mut answer = String::new();
    await_until("an answer to SIGHUP", || {
        let log = server.log();
        let said = log.lines().skip(before).find(|line| line.contains("SIGHUP"));
        said.is_some_and(|line| {
            answer = line.into();
            true
        })
    });
    answer
}

fn check(file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_intake")).arg("check").arg(file).output().expect("intake can be started")
}

fn put(server: &Server, size: usize) -> String {
    let name = format!("/put size={size} f");
    line(server.tcp(), name, &content(size, 1)).expect("an answer arrives")
}

#[test]
fn options_come_from_the_file_and_the_command_line_wins() {
    let file = File::new("# A small server.\nmax-file-size 10\non-exists refuse   # not rename\nno-page\n");
    let server = file.start(&["--max-file-size", "20"]);
    assert!(put(&server, 15).starts_with("done 15 "));
    assert!(put(&server, 15).starts_with("no 409 "));
    assert!(put(&server, 21).starts_with("no 413 "));
}

#[test]
fn sighup_changes_what_can_change_and_running_uploads_go_on() {
    let file = File::new("max-file-size 10\n");
    let server = file.start(&[]);
    let running = classic_begin(server.tcp(), "running").unwrap();
    assert!(put(&server, 11).starts_with("no 413 "));
    file.write("max-file-size 100\non-exists refuse\nquiet\n");
    assert!(reload(&server).contains("were read again"));
    assert!(put(&server, 11).starts_with("done 11 "));
    assert!(put(&server, 11).starts_with("no 409 "));
    classic_finish(running, b"content").expect("it is stored");
    // The level of the log has changed too.
    let lines = server.log().lines().count();
    file.write("max-file-size 100\n");
    server.signal(Signal::HUP);
    await_until("the old limits", || put(&server, 11).starts_with("done 11 "));
    let log = server.log();
    let told: Vec<_> = log.lines().skip(lines).collect();
    assert!(!told.iter().any(|line| line.contains("INFO") && line.contains("no 409")), "{told:?}");
}

#[test]
fn limits_of_time_change_for_connections_that_are_there() {
    let file = File::new("idle-timeout off\n");
    let server = file.start(&[]);
    let mut idle = classic_begin(server.tcp(), "idle").unwrap();
    file.write("idle-timeout 1ms\n");
    reload(&server);
    assert!(idle.read(&mut [0]).is_err(), "an upload that is cut off ends with a reset");
}

#[test]
fn a_mistake_in_the_file_changes_nothing() {
    let file = File::new("max-file-size 10\n");
    let server = file.start(&[]);
    let cases = [
        ("max-file-size 100\nidle-timeout soon\n", "intake.conf:2: invalid value 'soon'"),
        ("max-file-size 100\nsync none\nudp-rate 5\n", "--udp-rate, --sync cannot change while the server runs"),
        ("max-file-size 100\nmetrics 127.0.0.1:1\n", "--metrics cannot change while the server runs"),
        ("max-file-size 100\nper-source 3\n", "--per-source cannot change"),
        ("max-file-size 100\ntls-cert c\n", "--tls-key"),
    ];
    for (text, words) in cases {
        file.write(text);
        let said = reload(&server);
        assert!(said.contains("stays in use") && said.contains(words), "{text}: {said}");
        assert!(put(&server, 11).starts_with("no 413 "), "{text}");
    }
    fs::remove_file(file.path()).unwrap();
    assert!(reload(&server).contains("cannot read the options"), "{}", server.log());
    file.write("max-file-size 100\n");
    assert!(reload(&server).contains("were read again"));
    assert!(put(&server, 11).starts_with("done 11 "));
}

#[test]
fn check_tells_every_fault_with_its_line() {
    let file = File::new("max-file-size 4X\n\nidel-timeout 10s\nlisten 127.0.0.1:9000\n");
    let output = check(&file.path());
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}");
    let lines: Vec<_> = words.lines().collect();
    assert_eq!(lines.len(), 2, "{words}");
    assert!(lines[0].contains("intake.conf:1: ") && lines[1].contains("intake.conf:3: "), "{words}");
    assert!(lines[1].contains("'--idle-timeout'"), "a similar option is named: {words}");
}

#[test]
fn check_reads_the_files_that_the_options_name() {
    let file = File::new("token-file tokens\n");
    let tokens = file.home.path().join("tokens");
    file.write(&format!("token-file {}\n", tokens.display()));
    let missing = check(&file.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot use the token file"), "{missing:?}");
    fs::write(&tokens, format!("alice {}\n", "0".repeat(64))).unwrap();
    let result = check(&file.path());
    assert_eq!((result.status.code(), result.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_server_does_not_start_with_a_faulty_file() {
    let file = File::new("max-file-size 4X\n");
    let path = file.path();
    let output = Server::fail_to_start(&Server::home(), &["--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("intake.conf:1: "), "{output:?}");
}

/// Each option of the help that takes a value or none is understood in a file.
#[test]
fn every_option_of_the_help_is_known_in_a_file() {
    let help = Command::new(env!("CARGO_BIN_EXE_intake")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options = help.lines().filter_map(|line| line.trim().split_once("--").filter(|(before, _)| before.len() <= 4));
    let options: Vec<_> = options.map(|(_, option)| option.split(['=', ' ', '[']).next().unwrap()).collect();
    assert!(options.len() > 40, "{options:?}");
    for option in options.iter().filter(|option| !["help", "config"].contains(option)) {
        let file = File::new(&format!("{option} nonsense\n"));
        let words = String::from_utf8(check(&file.path()).stderr).unwrap();
        assert!(!words.contains("unexpected argument"), "{option}: {words}");
    }
}

#[test]
fn the_file_in_the_documents_has_no_fault_but_the_missing_certificate() {
    let page = fs::read_to_string(crate::documents::root().join("docs/operations.md")).unwrap();
    let (_, text) = page.split_once("```conf\n").expect("there is an example");
    let (text, _) = text.split_once("```").unwrap();
    let file = File::new(text);
    let words = String::from_utf8(check(&file.path()).stderr).unwrap();
    assert!(words.lines().count() == 1 && words.contains("--tls-cert: cannot read /etc/intake/intake.crt"), "{words}");
    let file = File::new(
        &text.lines().filter(|line| !line.starts_with("tls-")).map(|line| format!("{line}\n")).collect::<String>(),
    );
    assert_eq!(check(&file.path()).status.code(), Some(0));
}

#[test]
fn faults_without_a_line_name_the_file_and_a_device_is_not_read() {
    let told = |file: &Path| String::from_utf8(check(file).stderr).unwrap();
    for text in ["tls-cert c\n", "quiet\nverbose\n", "dir a\ndir b\n", "dir 'a b'\n"] {
        let words = told(&File::new(text).path());
        assert!(words.contains("intake.conf"), "{text}: {words}");
    }
    assert!(told(Path::new("/dev/zero")).contains("it is no regular file"));
}

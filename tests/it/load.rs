//! The load tester against the real server, and against receivers that lie.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fixture::{Server, await_until};

/// What a run of `intake load` printed and how it ended.
pub struct Run {
    output: Output,
}

impl Run {
    /// Runs `intake load ADDR ARGS`, the arguments separated by spaces.
    pub fn load(address: impl ToString, args: &str) -> Self {
        Self::of(&[&["load", &address.to_string()], &*args.split_whitespace().collect::<Vec<_>>()].concat())
    }

    fn of(words: &[&str]) -> Self {
        let output = Command::new(env!("CARGO_BIN_EXE_intake")).args(words).output().expect("intake can be started");
        Self { output }
    }

    /// Its exit code.
    pub fn exit(&self) -> i32 {
        self.output.status.code().expect("it was not killed")
    }

    /// What it printed, for a run with `--json`.
    pub fn json(&self) -> Value {
        let printed = &self.output.stdout;
        serde_json::from_slice(printed).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// All that it printed.
    pub fn text(&self) -> String {
        let Output { stdout, stderr, .. } = &self.output;
        format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
    }
}

/// The number at `path` in a report.
pub fn figure(report: &Value, path: &str) -> u64 {
    let pointer = format!("/{}", path.replace('.', "/"));
    let value = report.pointer(&pointer).unwrap_or_else(|| panic!("there is no {path} in {report}"));
    value.as_u64().unwrap_or_else(|| panic!("{path} is {value}"))
}

fn files_of(server: &Server) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[test]
fn every_file_is_acknowledged_and_verified() {
    for dialect in ["classic", "line", "put", "ask", "http", "http-expect"] {
        let server = Server::start(&[]);
        let verify = format!("--verify {}", server.dir().display());
        let run = Run::load(
            server.tcp(),
            &format!("--files 200 --clients 20 --size 0..100k --dialect {dialect} --json {verify}"),
        );
        assert_eq!(run.exit(), 0, "{}", run.text());
        let report = run.json();
        for path in
            ["files.started", "files.sent", "files.acknowledged", "verification.verified", "latency.stored.count"]
        {
            assert_eq!(figure(&report, path), 200, "{dialect}: {path}");
        }
        assert_eq!(figure(&report, "sent_bytes"), figure(&report, "verification.compared_bytes"));
        assert_eq!(files_of(&server).len(), 200);
        let stored = |path: &str| figure(&report, &format!("latency.{path}.max_us"));
        assert!(stored("connect") <= stored("first_reply") && stored("first_reply") <= stored("stored"), "{report}");
    }
}

#[test]
fn damaged_files_are_found_by_the_seed_alone() {
    let server = Server::start(&[]);
    let workload = "--files 30 --size 1k..300k --seed 77";
    assert_eq!(Run::load(server.tcp(), workload).exit(), 0);
    let verify = format!("{workload} --json --verify-only {}", server.dir().display());
    let clean = Run::load("127.0.0.1:1", &verify);
    assert_eq!((clean.exit(), figure(&clean.json(), "verification.verified")), (0, 30));

    let files = files_of(&server);
    let mut content = fs::read(&files[3]).unwrap();
    *content.last_mut().unwrap() ^= 0x10;
    fs::write(&files[3], content).unwrap();
    fs::remove_file(&files[5]).unwrap();
    fs::copy(&files[7], format!("{}.1", files[7].display())).unwrap();
    let damaged = Run::load("127.0.0.1:1", &verify);
    assert_eq!(damaged.exit(), 4);
    for (path, count) in [("verified", 28), ("damaged", 1), ("lost", 1), ("duplicated", 1), ("unexpected", 0)] {
        assert_eq!(figure(&damaged.json(), &format!("verification.{path}")), count, "{path}");
    }
    for (file, words) in [(&files[3], "damaged"), (&files[5], "lost"), (&files[7], "2 times")] {
        let name = file.file_name().unwrap().to_str().unwrap();
        let report = damaged.json();
        let findings = report["verification"]["findings"].as_array().unwrap();
        let told = |finding: &&Value| finding.as_str().is_some_and(|text| text.contains(name) && text.contains(words));
        assert!(findings.iter().any(|finding| told(&finding)), "{name} {words}: {findings:?}");
    }
}

#[test]
fn a_server_that_is_not_there_has_its_own_exit_code() {
    let run = Run::load("127.0.0.1:1", "--duration 60s");
    assert_eq!(run.exit(), 3);
    assert!(run.text().contains("127.0.0.1:1: cannot connect"), "{}", run.text());
}

#[test]
fn a_refused_upload_is_a_failure_with_its_reason() {
    let server = Server::start(&["--max-file-size", "1k"]);
    let run = Run::load(server.tcp(), "--files 10 --dialect line --json");
    assert_eq!((run.exit(), figure(&run.json(), "files.failed")), (1, 10));
    assert_eq!(figure(&run.json(), "failures.refused with 413"), 10);
    let text = Run::load(server.tcp(), "--files 10 --dialect line").text().to_owned();
    let line = text.lines().find(|line| line.contains("10 x refused with 413, the first was ")).expect("the reason");
    assert!(line.ends_with('"') && line.contains(": \""), "the server's words are shown: {line}");
}

#[test]
fn too_few_descriptors_for_the_clients_are_reported_before_the_start() {
    let words = ["--nofile=100", env!("CARGO_BIN_EXE_intake"), "load", "127.0.0.1:1", "--clients", "100"];
    let output = Command::new("prlimit").args(words).output().expect("util-linux is installed");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("116 descriptors, and there are") && told.contains("ulimit -Hn 116"), "{told}");
}

#[test]
fn an_open_loop_measures_from_the_moment_a_file_was_due() {
    let server = Server::start(&[]);
    // Half a second of silence, as a stalled disk makes it, while files go on being due.
    server.stop();
    let address = server.tcp();
    let load =
        thread::spawn(move || Run::load(address, "--rate 200/s --arrivals constant --files 200 --clients 500 --json"));
    thread::sleep(Duration::from_millis(500));
    server.signal(Signal::CONT);
    let run = load.join().unwrap();
    assert_eq!(run.exit(), 0, "{}", run.text());
    let report = run.json();
    assert_eq!(figure(&report, "latency.stored.count"), 200);
    // The files due in the first half of the silence, at least 20 of 200, waited for at least half of it.
    assert!(figure(&report, "latency.stored.p90_us") > 200_000, "{report}");
    let elapsed = report["elapsed_seconds"].as_f64().unwrap();
    assert!(elapsed >= 0.99, "{elapsed}: 200 files at 200 a second take a second");
}

#[test]
fn files_that_find_no_free_client_are_reported() {
    let server = Server::start(&[]);
    server.stop();
    let address = server.tcp();
    let load = thread::spawn(move || {
        Run::load(address, "--rate 100/s --arrivals constant --duration 500ms --clients 5 --json")
    });
    thread::sleep(Duration::from_millis(700));
    server.signal(Signal::CONT);
    let report = load.join().unwrap().json();
    assert_eq!((figure(&report, "files.started"), figure(&report, "files.never_started")), (5, 45));
}

#[test]
fn a_client_that_closes_first_gets_no_answer_and_loses_no_file() {
    for dialect in ["classic", "line"] {
        let server = Server::start(&[]);
        let verify = format!("--verify {}", server.dir().display());
        let run = Run::load(server.tcp(), &format!("--files 50 --closer client --dialect {dialect} --json {verify}"));
        let report = run.json();
        assert_eq!((run.exit(), figure(&report, "files.unheard")), (0, 50), "{report}");
        // No client waited for the server, so some files may not be finished when the tester looks.
        let found = figure(&report, "verification.verified") + figure(&report, "verification.open");
        assert_eq!((found, figure(&report, "verification.damaged")), (50, 0), "{report}");
        await_until("the server to have them all", || server.files().len() == 50);
    }
}

const EVERY_MISBEHAVIOUR: &str = "slow=10%:200k,stall=10%:200ms,abort=10%,reset=10%,half-close=10%:100ms,\
                                  split-header=10%,never-read=10%,dup-name=10%";

#[test]
fn every_misbehaviour_ends_as_it_should() {
    const DIALECTS: [&str; 8] =
        ["classic", "line", "put", "ask", "http", "http-expect", "put --per-connection 10", "http --per-connection 10"];
    for dialect in DIALECTS {
        let server = Server::start(&["--name-quiet", "1s"]);
        let verify = format!("--verify {}", server.dir().display());
        let run = Run::load(
            server.tcp(),
            &format!(
                "--files 400 --clients 100 --size 0..100k --misbehave {EVERY_MISBEHAVIOUR} --dialect {dialect} --json {verify}"
            ),
        );
        assert_eq!(run.exit(), 0, "{}", run.text());
        let report = run.json();
        let misbehaved = report["misbehaved"].as_object().unwrap();
        assert_eq!(misbehaved.len(), 8, "{misbehaved:?}");
        for (kind, counts) in misbehaved {
            assert!(figure(counts, "as_expected") > 10 && figure(counts, "otherwise") == 0, "{kind}: {counts}");
        }
        let file = |path: &str| figure(&report, &format!("files.{path}"));
        assert_eq!(file("acknowledged") + file("unheard") + file("reset") + file("refused_as_expected"), 400);
        let stored = figure(&report, "verification.verified");
        assert!(stored >= file("acknowledged") && stored <= file("acknowledged") + file("unheard"), "{report}");
        // Later, the seed alone is enough to verify the files.
        let workload = format!(
            "--files 400 --size 0..100k --misbehave {EVERY_MISBEHAVIOUR} --dialect {dialect} --seed {} --verify-only {}",
            report["seed"],
            server.dir().display()
        );
        let later = Run::load("127.0.0.1:1", &workload);
        assert_eq!(later.exit(), 0, "{}", later.text());
    }
}

#[test]
fn a_taken_name_is_refused_as_expected_where_the_receiver_refuses() {
    let server = Server::start(&["--on-exists", "refuse"]);
    let verify = format!("--verify {}", server.dir().display());
    let run = Run::load(server.tcp(), &format!("--files 100 --dialect line --misbehave dup-name=50% --json {verify}"));
    let report = run.json();
    let refused = figure(&report, "files.refused_as_expected");
    assert!(run.exit() == 0 && refused > 20, "{report}");
    assert_eq!(figure(&report, "verification.verified") + refused, 100, "{report}");
}

#[test]
fn datagrams_come_back_and_are_counted() {
    let server = Server::start(&["--udp-rate", "off"]);
    for pace in ["--window 4", "--rate 2000/s"] {
        let run = Run::load(server.udp(), &format!("--udp --sockets 3 {pace} --duration 200ms --json"));
        let report = run.json();
        assert_eq!(run.exit(), 0, "{report}");
        let count = |name: &str| figure(&report, &format!("datagrams.{name}"));
        assert!(count("sent") > 100, "{report}");
        assert_eq!(count("answered") + count("lost") + count("late"), count("sent"), "{report}");
        assert_eq!((count("corrupted"), count("duplicated")), (0, 0), "{report}");
        assert_eq!(figure(&report, "latency.round_trip.count"), count("answered"));
    }
}

#[test]
fn an_echo_that_changes_a_datagram_has_its_own_exit_code() {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = echo.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            buffer[length - 1] ^= 0x80;
            echo.send_to(&buffer[..length], from).unwrap();
        }
    });
    let run = Run::load(address, "--udp --duration 100ms --timeout 100ms --json");
    assert_eq!((run.exit(), figure(&run.json(), "datagrams.answered")), (4, 0), "{}", run.text());
}

#[test]
fn a_bad_outcome_is_worse_than_a_failure_and_named() {
    let server = Server::start(&["--max-file-size", "1k"]);
    let run = Run::load(server.tcp(), "--files 10 --dialect line --fail-if p99>1h --fail-if failed<5");
    assert_eq!(run.exit(), 2, "an hour is no unit of a limit");
    let run = Run::load(server.tcp(), "--files 10 --dialect line --fail-if p99>100s --fail-if failed>5");
    assert_eq!(run.exit(), 5, "{}", run.text());
    assert!(run.text().contains("condition failed>5 is met") && !run.text().contains("p99>100s is"), "{}", run.text());
    let run = Run::load("127.0.0.1:1", "--files 10 --fail-if lost>0");
    assert_eq!(run.exit(), 2, "without --verify the lost files are unknown: {}", run.text());
}

#[test]
fn a_limit_on_what_was_not_measured_is_a_bad_outcome_and_has_no_figure() {
    let server = Server::start(&[]);
    let args = "--files 3 --dialect classic --closer client --json";
    let run = Run::load(server.tcp(), &format!("{args} --fail-if p99>1h --fail-if stored.max>1s"));
    assert_eq!(run.exit(), 2, "an hour is no unit of a limit");
    let run = Run::load(server.tcp(), &format!("{args} --fail-if p99>1s --fail-if stored.mean<1s"));
    let told = String::from_utf8_lossy(&run.output.stderr).into_owned();
    assert!(run.exit() == 5 && told.contains("p99>1s cannot") && told.contains("mean<1s cannot"), "{}", run.text());
    let stored = &run.json()["latency"]["stored"];
    for figure in ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us", "mean_us"] {
        assert_eq!(stored[figure], Value::Null, "{figure}: {stored}");
    }
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    let run = Run::load(address, "--udp --duration 50ms --timeout 50ms --json --fail-if jitter>1s");
    assert_eq!((run.exit(), &run.json()["jitter_us"]), (5, &Value::Null), "{}", run.text());
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let server = Server::start(&[]);
    let (tcp, udp) = (server.tcp(), server.udp());
    let commands = [
        format!("load {tcp} --files 2"),
        format!("load {tcp} --files 2 --json"),
        format!("load {udp} --udp --duration 50ms --json"),
        format!("load --verify-only {} --seed 1 --files 0", server.dir().display()),
        format!("ping {udp} --count 2 --interval 1ms"),
        "doctor --clients 1".into(),
    ];
    for command in commands {
        let run = |stdout: Stdio| {
            let mut run = Command::new(env!("CARGO_BIN_EXE_intake"));
            run.args(command.split(' ')).stdout(stdout).output().expect("intake can be started")
        };
        let full = File::options().write(true).open("/dev/full").expect("this is Linux");
        let Output { status, stderr, .. } = run(full.into());
        let told = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(1), "{command}: {told}");
        assert_eq!(told.matches("cannot write the results").count(), 1, "{command}: {told}");
        let (reader, writer) = io::pipe().expect("a pipe can be made");
        drop(reader);
        let Output { status, stderr, .. } = run(writer.into());
        assert_eq!((status.code(), stderr.len()), (Some(0), 0), "{command}: a reader may stop early");
    }
}

#[test]
fn too_few_descriptors_for_the_sockets_are_reported_before_the_start() {
    let words = ["--nofile=100", env!("CARGO_BIN_EXE_intake"), "load", "127.0.0.1:1", "--udp", "--sockets", "100"];
    let output = Command::new("prlimit").args(words).output().expect("util-linux is installed");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("116 descriptors, and there are"), "{told}");
}

#[test]
fn no_time_at_all_is_wrong_usage() {
    for args in ["--timeout 0s", "--udp --timeout 0ms", "--duration 0s"] {
        let run = Run::load("127.0.0.1:1", args);
        assert!(run.exit() == 2 && run.text().contains("above 0"), "{args}: {}", run.text());
    }
}

#[test]
fn ctrl_c_works_whatever_there_is_to_send() {
    let server = Server::start(&["--udp-rate", "off"]);
    let (tcp, udp) = (server.tcp(), server.udp());
    for args in [
        format!("load {tcp} --rate 1e9/s --duration 1000s --size 1 --json"),
        format!("load {udp} --udp --rate 1e9/s --duration 1000s --json"),
        format!("load {udp} --udp --sockets 400 --window 1000000 --duration 1000s --json"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intake"));
        let child = command.args(args.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Wait for its poll, which it creates after it has caught the signals.
        await_until("the run to begin", || has_epoll(child.id()));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let run = Run { output: child.wait_with_output().unwrap() };
        assert_eq!((run.exit(), &run.json()["interrupted"]), (130, &Value::Bool(true)), "{args}: {}", run.text());
    }
}

fn has_epoll(pid: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| target == Path::new("anon_inode:[eventpoll]"))
}

#[test]
fn ctrl_c_ends_a_run_early_with_a_report() {
    let server = Server::start(&[]);
    let verify = format!("--verify {}", server.dir().display());
    let args = format!("load {} --duration 60s --size 1M --dialect line --json {verify}", server.tcp());
    let mut command = Command::new(env!("CARGO_BIN_EXE_intake"));
    let child = command.args(args.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_until("some files to be stored", || files_of(&server).len() > 70);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = Run { output: child.wait_with_output().unwrap() };
    let report = run.json();
    assert_eq!((run.exit(), &report["interrupted"]), (130, &Value::Bool(true)), "{}", run.text());
    assert!(figure(&report, "files.acknowledged") > 0 && figure(&report, "files.interrupted") > 0, "{report}");
    let ended = ["acknowledged", "interrupted"].map(|name| figure(&report, &format!("files.{name}")));
    assert_eq!(ended.iter().sum::<u64>(), figure(&report, "files.started"), "{report}");
}

#[test]
fn doctor_reports_what_is_missing() {
    let doctor = |limit: &str| {
        let words = [limit, env!("CARGO_BIN_EXE_intake"), "doctor", "--clients", "100"];
        Run { output: Command::new("prlimit").args(words).output().expect("util-linux is installed") }
    };
    let (enough, short) = (doctor("--nofile=1000"), doctor("--nofile=150"));
    assert_eq!((enough.exit(), short.exit()), (0, 1), "{}{}", enough.text(), short.text());
    let rows = short.text();
    let row = |what: &str| rows.lines().find(|row| row.starts_with(what)).unwrap().to_owned();
    assert!(row("descriptors  ").ends_with("enough"), "{rows}");
    assert!(row("the sandbox of a server").contains(": no new privileges"), "{rows}");
    let of_server = row("descriptors of a server");
    let needed =
        of_server.split_once("short: raise the hard limit (ulimit -Hn ").and_then(|(_, rest)| rest.split_once(','));
    let needed: u64 = needed.expect("the number is given").0.parse().expect("a number");
    // 241 and the descriptors that this test inherited. A server must be able to start with exactly that.
    assert!((241..300).contains(&needed), "{rows}");
    let limit = format!("--nofile={needed}");
    Server::start_under(&["prlimit", &limit], &Server::home(), &["--max-connections", "100"]);
}

#[test]
fn every_field_of_the_report_is_documented() {
    const PAGE: &str = include_str!("../../docs/load-report.md");
    let server = Server::start(&["--udp-rate", "off"]);
    let verify = format!("--verify {}", server.dir().display());
    let files = Run::load(server.tcp(), &format!("--files 5 --rate 100/s --misbehave reset=100% --json {verify}"));
    let datagrams = Run::load(server.udp(), "--udp --window 1 --duration 50ms --json");
    for report in [files.json(), datagrams.json()] {
        let mut paths = Vec::new();
        leaves(&report, "", &mut paths);
        assert!(paths.len() > 20, "{paths:?}");
        for path in paths {
            let path = path.replace("misbehaved.reset.", "misbehaved.KIND.");
            let named = |name: &str| PAGE.contains(&format!("`{name}`"));
            let (place, last) = path.rsplit_once('.').unwrap_or(("", &path));
            let in_table = named(&format!("{place}.…")) && (place == "tester" || named(&format!("….{last}")));
            assert!(named(&path) || in_table, "{path} is not documented");
        }
    }
}

/// The path of each value in a report that is no object.
fn leaves(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) => fields.iter().for_each(|(key, field)| {
            leaves(field, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, paths);
        }),
        None => paths.push(path.to_owned()),
    }
}

#[test]
fn many_files_go_over_one_connection_and_each_closer_loses_none() {
    for closer in ["server", "client", "reset"] {
        let server = Server::start(&[]);
        let verify = format!("--verify {}", server.dir().display());
        let args =
            format!("--files 300 --clients 3 --per-connection 50 --size 0..20k --closer {closer} --json {verify}");
        let run = Run::load(server.tcp(), &args);
        let report = run.json();
        assert_eq!((run.exit(), figure(&report, "verification.verified")), (0, 300), "{closer}: {report}");
        // Six connections are full. The last one of each client may find that the others have taken the rest.
        let connections = figure(&report, "files.connected");
        assert!((6..=9).contains(&connections), "{closer}: {report}");
    }
}

#[test]
fn what_a_dialect_cannot_do_is_refused_in_words() {
    for (args, words) in [
        ("--dialect line --per-connection 2", "a connection carries one file"),
        ("--dialect classic --closer reset", "a reset undoes the upload"),
        ("--per-connection 2 --rate 5/s", "cannot be used with"),
    ] {
        let run = Run::load("127.0.0.1:1", args);
        assert!(run.exit() == 2 && run.text().contains(words), "{args}: {}", run.text());
    }
}

#[test]
fn reports_are_added_up_compared_and_drawn() {
    let server = Server::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    for (name, files) in [("a.json", 30), ("b.json", 20)] {
        let run = Run::load(server.tcp(), &format!("--files {files} --size 4k --json --html {}", path("run.html")));
        assert_eq!(run.exit(), 0, "{}", run.text());
        fs::write(path(name), &run.output.stdout).unwrap();
        let timeline = run.json()["timeline"].as_array().expect("there are steps").clone();
        let stored: f64 = timeline.iter().map(|step| step["files_per_second"].as_f64().expect("a number")).sum();
        assert!(!timeline.is_empty() && stored > 0.0, "{timeline:?}");
    }
    let page = fs::read_to_string(path("run.html")).unwrap();
    assert!(page.contains("<svg") && page.contains(&server.tcp().to_string()));

    let (a, b, html) = (path("a.json"), path("b.json"), path("both.html"));
    let sum = Run::of(&["load", "--merge", &a, &b, "--json"]);
    assert_eq!((sum.exit(), figure(&sum.json(), "files.acknowledged")), (0, 50), "{}", sum.text());
    assert_eq!(figure(&sum.json(), "latency.stored.count"), 50);
    let met = Run::of(&["load", "--merge", &a, &b, "--fail-if", "files.acknowledged>49"]);
    assert_eq!(met.exit(), 5, "{}", met.text());
    let both = Run::of(&["load", "--compare", &a, &b, "--html", &html]);
    let text = both.text();
    let row = text.lines().find(|line| line.starts_with("stored files")).expect("it is in the table");
    assert_eq!((both.exit(), row.split_whitespace().collect::<Vec<_>>()), (0, vec!["stored", "files", "30", "20"]));
    assert!(fs::read_to_string(&html).unwrap().contains("a.json"));
    let missing = Run::of(&["load", "--compare", &path("none.json")]);
    assert!(missing.exit() == 1 && missing.text().contains("cannot read"), "{}", missing.text());
    let unwritable = Run::of(&["load", "--compare", &a, "--html", "/proc/none"]);
    assert!(unwritable.exit() == 1 && unwritable.text().contains("/proc/none"), "{}", unwritable.text());
}

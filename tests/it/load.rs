//! The load tester against the real server, and against receivers that lie.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::fixture::Server;

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
    for dialect in ["classic", "line"] {
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
fn a_damaged_directory_is_found_out_by_its_seed_alone() {
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
fn nobody_there_is_an_exit_of_its_own() {
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
}

#[test]
fn more_clients_than_descriptors_is_told_before_it_starts() {
    let words = ["--nofile=100", env!("CARGO_BIN_EXE_intake"), "load", "127.0.0.1:1", "--clients", "100"];
    let output = Command::new("prlimit").args(words).output().expect("util-linux is installed");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("116 descriptors are needed") && told.contains("ulimit -Hn 116"), "{told}");
}

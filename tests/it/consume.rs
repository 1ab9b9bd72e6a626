//! `intake consume`: a command for each published file, at least once, whatever ends when.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::documents::root;
use crate::fixture::*;
use crate::tools::installed;

/// A directory in which a server with a queue has stored these files.
fn stored(names: &[&str]) -> Arc<TempDir> {
    let home = Server::home();
    let mut server = Server::start_in(&home, &["--queue"]);
    for name in names {
        let content = format!("content of {name}");
        line(server.tcp(), name, content.as_bytes()).expect("the server answers");
    }
    server.signal(Signal::TERM);
    server.wait();
    home
}

fn inbox(home: &TempDir) -> PathBuf {
    home.path().join("inbox")
}

fn queue(home: &TempDir) -> PathBuf {
    inbox(home).join(".intake/queue")
}

/// What is in the queue besides the counter, or among the failed ones.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("it can be listed").file_name().into_string().expect("ASCII"));
    let mut names: Vec<_> = names.filter(|name| !["next", "failed"].contains(&&**name)).collect();
    names.sort();
    names
}

/// A consumer that runs `script` with a shell, in the directory `home`.
fn consumer(home: &TempDir, wrapper: &[&str], options: &[&str], script: &str) -> Command {
    let words = [wrapper, &[env!("CARGO_BIN_EXE_intake"), "consume", "inbox"], options].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--", "sh", "-c", script]).current_dir(home.path()).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Drains the queue.
fn drain(home: &TempDir, options: &[&str], script: &str) -> Output {
    let options = [&["--once"][..], options].concat();
    consumer(home, &[], &options, script).output().expect("it can be started")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn terminate(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).expect("a child can be signalled");
}

/// The lines of the file `log` in `home`, counted.
fn logged(home: &TempDir) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(home.path().join("log")).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(line, count)| (line.to_owned(), count)).collect()
}

const LOG_NAME: &str = "echo \"$INTAKE_NAME\" >> log";

#[test]
fn a_command_is_told_of_its_file_and_the_entry_is_gone_when_it_succeeds() {
    let home = stored(&["a b", "c"]);
    let script = "cat > \"$INTAKE_ID.stdin\"; echo \"$INTAKE_ID,$INTAKE_NAME,$INTAKE_PATH,$INTAKE_SIZE,$INTAKE_DIGEST,\
                  $INTAKE_PEER,$(cat \"$INTAKE_PATH\")\" >> log";
    let output = drain(&home, &["--jobs", "1"], script);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let text = fs::read_to_string(home.path().join("log")).expect("the command has run");
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split(',').collect()).collect();
    let path = inbox(&home).canonicalize().unwrap().join("a b").display().to_string();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0][1..5], ["a b", &path, "14", ""], "{text}");
    assert!(lines[0][5].starts_with("127.0.0.1:") && lines[0][6] == "content of a b", "{text}");
    let stdin = fs::read_to_string(home.path().join(format!("{}.stdin", lines[1][0]))).expect("it was written");
    let slip: Value = serde_json::from_str(&stdin).expect("it is JSON");
    assert_eq!((&slip["name"], &slip["stored"], &slip["size"]), (&"c".into(), &"c".into(), &12.into()));
    assert_eq!((slip["id"].as_str(), slip["peer"].as_str()), (Some(lines[1][0]), Some(lines[1][5])));
    assert!(slip["time"].as_u64() > Some(1_700_000_000), "{slip}");
    assert_eq!(names_in(&queue(&home)), Vec::<String>::new());
    assert!(inbox(&home).join("a b").exists() && inbox(&home).join("c").exists(), "stored files stay");
    assert!(words(&output).contains(" \"a b\" from 127.0.0.1:"), "{}", words(&output));
}

#[test]
fn a_file_that_fails_is_kept_with_the_reason_and_can_be_put_back() {
    let home = stored(&["good", "bad"]);
    let output = drain(&home, &[], "test \"$INTAKE_NAME\" = good || exit 3");
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("\"bad\" from 127.0.0.1") && words(&output).contains("it ended with 3"));
    assert_eq!(names_in(&queue(&home)), Vec::<String>::new());
    let failed = queue(&home).join("failed");
    let [content, slip] = &names_in(&failed)[..] else { panic!("{:?}", names_in(&failed)) };
    assert_eq!(fs::read(failed.join(content)).unwrap(), b"content of bad");
    let slip: Value = serde_json::from_slice(&fs::read(failed.join(slip)).unwrap()).unwrap();
    assert_eq!((&slip["name"], &slip["failed"]), (&"bad".into(), &"it ended with 3".into()));

    let mut again = Command::new(env!("CARGO_BIN_EXE_intake"));
    let output = again.args(["consume", "inbox", "--retry-failed"]).current_dir(home.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 files are back in the queue\n", "{}", words(&output));
    assert!(names_in(&failed).is_empty());
    assert_eq!(drain(&home, &[], LOG_NAME).status.code(), Some(0));
    assert_eq!(logged(&home), counts([("bad", 1)]));
    assert!(names_in(&queue(&home)).is_empty());
}

#[test]
fn a_temporary_failure_or_a_signal_is_tried_again_up_to_the_last_try() {
    let home = stored(&["75", "signal", "hopeless"]);
    let script = "echo \"$INTAKE_NAME\" >> log; n=$(grep -cx \"$INTAKE_NAME\" log)
                  case $INTAKE_NAME in
                    75) test $n = 3 || exit 75;;
                    signal) test $n = 2 || kill -9 $$;;
                    *) exit 75;;
                  esac";
    let child =
        consumer(&home, &[], &["--tries", "3", "--backoff", "10ms"], script).spawn().expect("it can be started");
    let is_over = || names_in(&queue(&home)).is_empty() && names_in(&queue(&home).join("failed")).len() == 2;
    await_until("all to be done", is_over);
    terminate(&child);
    let output = child.wait_with_output().expect("a child can be waited for");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert_eq!(logged(&home), counts([("75", 3), ("signal", 2), ("hopeless", 3)]));
    assert!(words(&output).contains("a temporary failure, the last of 3 tries"), "{}", words(&output));
}

/// What was tried, and when it is due, is known to other consumers and after a restart.
#[test]
fn tries_are_counted_over_restarts() {
    let home = stored(&["a"]);
    let script = "echo a >> log; exit 75";
    for expected in [1, 1] {
        // The second one finds that it is not due.
        let output = drain(&home, &["--tries", "2", "--backoff", "1h"], script);
        assert_eq!((output.status.code(), logged(&home)), (Some(1), counts([("a", expected)])), "{}", words(&output));
    }
    let retry = queue(&home).join(names_in(&queue(&home)).into_iter().find(|name| name.ends_with(".retry")).unwrap());
    fs::write(&retry, format!("{:>10} {:>20}\n", 1, 0)).expect("it can be written");
    assert_eq!(drain(&home, &["--tries", "2"], script).status.code(), Some(1));
    assert_eq!(logged(&home), counts([("a", 2)]));
    assert_eq!((names_in(&queue(&home)).len(), names_in(&queue(&home).join("failed")).len()), (0, 2));
}

#[test]
fn a_command_that_runs_for_too_long_is_terminated_with_all_that_it_has_started() {
    let home = stored(&["a"]);
    let script = "sleep 600 & echo $! > pid; wait";
    let output = drain(&home, &["--timeout", "300ms", "--tries", "1"], script);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("it ran for too long and was terminated"), "{}", words(&output));
    let pid = fs::read_to_string(home.path().join("pid")).expect("the command has run");
    let stat = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    await_until("its child to end", || stat().is_ok_and(|stat| stat.contains(") Z")) || stat().is_err());
}

/// Ten seconds pass: that is the subject.
#[test]
fn a_command_that_does_not_heed_its_termination_is_killed() {
    let home = stored(&["a"]);
    let script = "trap '' TERM; echo $$ > pid; while :; do sleep 1; done";
    let output = drain(&home, &["--timeout", "100ms", "--tries", "1"], script);
    assert!(words(&output).contains("it ran for too long and was terminated"), "{}", words(&output));
    let pid = fs::read_to_string(home.path().join("pid")).expect("the command has run");
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

#[test]
fn a_program_that_is_left_behind_holds_nobody_up() {
    let home = stored(&["a", "b"]);
    // It keeps the output and the slip open.
    let script = "sleep 600 & echo $! >> pids; test $INTAKE_NAME = a || exit 75";
    let mut command = consumer(&home, &[], &["--once", "--backoff", "10ms", "--tries", "2"], script);
    let log = fs::File::create(home.path().join("output")).expect("a file can be made");
    let status = command.stdout(Stdio::null()).stderr(log).status().expect("it can be started");
    assert_eq!(status.code(), Some(1), "b waits for its second try");
    await_until("the second try", || {
        let mut command = consumer(&home, &[], &["--once", "--tries", "2"], script);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it can be started");
        names_in(&queue(&home)).is_empty()
    });
    assert_eq!(names_in(&queue(&home).join("failed")).len(), 2);
    for pid in fs::read_to_string(home.path().join("pids")).unwrap().lines() {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).expect("it still runs");
    }
}

#[test]
fn consumers_share_a_queue_and_each_file_is_done_once() {
    let names: Vec<_> = (0..60).map(|number| format!("file {number}")).collect();
    let home = stored(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let start = || consumer(&home, &[], &["--once"], LOG_NAME).spawn().expect("it can be started");
    for consumer in [start(), start(), start()] {
        let output = consumer.wait_with_output().expect("a child can be waited for");
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    }
    assert_eq!(logged(&home), names.iter().map(|name| (name.clone(), 1)).collect());
    assert!(names_in(&queue(&home)).is_empty());
}

#[test]
fn files_are_consumed_while_a_server_stores_them() {
    let home = Server::home();
    let server = Server::start_in(&home, &["--queue"]);
    let child = consumer(&home, &[], &[], LOG_NAME).spawn().expect("it can be started");
    for number in 0..20 {
        let name = format!("file {number}");
        assert!(line(server.tcp(), &name, b"content").expect("the server answers").starts_with("done "));
    }
    await_until("all to be done", || logged(&home).len() == 20 && names_in(&queue(&home)).is_empty());
    terminate(&child);
    let output = child.wait_with_output().expect("a child can be waited for");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(logged(&home).values().all(|count| *count == 1), "{:?}", logged(&home));
}

#[test]
fn a_signal_lets_commands_finish_and_a_second_one_ends_them() {
    let home = stored(&["a", "b"]);
    let script = "echo \"began $INTAKE_NAME\" >> log; while ! test -e go; do sleep 0.05; done; echo finished >> log";
    let start = || consumer(&home, &[], &["--jobs", "1"], script).spawn().expect("it can be started");
    let child = start();
    await_until("the first to begin", || !logged(&home).is_empty());
    terminate(&child);
    // Two of one kind may arrive as one.
    kill_process(Pid::from_child(&child), Signal::INT).expect("a child can be signalled");
    let output = child.wait_with_output().expect("a child can be waited for");
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert_eq!(logged(&home), counts([("began a", 1)]));
    assert_eq!(names_in(&queue(&home)).len(), 4, "both stay in the queue, and none has used up a try");

    let child = start();
    await_until("the first to begin again", || logged(&home).get("began a") == Some(&2));
    terminate(&child);
    fs::write(home.path().join("go"), "").expect("a file can be made");
    let output = child.wait_with_output().expect("a child can be waited for");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert_eq!(logged(&home), counts([("began a", 2), ("finished", 1)]));
    assert_eq!(names_in(&queue(&home)).len(), 2);
}

#[test]
fn content_that_was_renamed_or_replaced_is_found_in_the_queue() {
    let home = stored(&["renamed", "replaced", "removed"]);
    fs::rename(inbox(&home).join("renamed"), inbox(&home).join("elsewhere")).unwrap();
    fs::write(inbox(&home).join("other"), "other").unwrap();
    fs::rename(inbox(&home).join("other"), inbox(&home).join("replaced")).unwrap();
    fs::remove_file(inbox(&home).join("removed")).unwrap();
    assert_eq!(drain(&home, &[], "echo \"$(cat \"$INTAKE_PATH\")\" >> log").status.code(), Some(0));
    let expected = [("content of renamed", 1), ("content of replaced", 1), ("content of removed", 1)];
    assert_eq!(logged(&home), counts(expected));
}

#[test]
fn what_is_damaged_or_planted_is_never_lost_or_followed() {
    let home = stored(&["a", "b"]);
    let slips: Vec<_> = names_in(&queue(&home)).into_iter().filter(|name| name.ends_with(".json")).collect();
    fs::write(queue(&home).join(&slips[0]), "{\"id\": ").unwrap();
    let precious = home.path().join("precious");
    fs::write(&precious, "{}").unwrap();
    std::os::unix::fs::symlink(&precious, queue(&home).join("000000099999.json")).unwrap();
    fs::write(queue(&home).join("000000099999"), "planted").unwrap();
    let output = drain(&home, &[], LOG_NAME);
    assert_eq!((output.status.code(), logged(&home)), (Some(1), counts([("b", 1)])), "{}", words(&output));
    let failed = queue(&home).join("failed");
    assert_eq!(fs::read(failed.join(slips[0].trim_end_matches(".json"))).unwrap(), b"content of a");
    assert!(fs::read_to_string(failed.join(&slips[0])).unwrap().contains("is damaged"));
    assert_eq!(fs::read(precious).unwrap(), b"{}");
}

#[test]
fn what_cannot_be_consumed_is_said_in_words() {
    let home = stored(&["a"]);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intake"));
        let output = command.arg("consume").args(args).current_dir(home.path()).output().expect("it can be started");
        (output.status.code(), words(&output))
    };
    let (code, said) = run(&["inbox", "--once", "--", "./no-such-program"]);
    assert!(code == Some(1) && said.contains("./no-such-program cannot be started: No such file"), "{said}");
    assert_eq!(names_in(&queue(&home)).len(), 2, "that is not the fault of the file");
    let (code, said) = run(&[".", "--once", "--", "true"]);
    assert!(code == Some(1) && said.contains("it has no queue; start its server with --queue"), "{said}");
    assert_eq!(run(&["inbox"]).0, Some(2));
}

/// Each call that a consumer makes on the queue, and how often.
const STEPS: [(&str, usize); 9] = [
    ("flock", 2),
    ("clone,clone3,vfork", 1),
    ("pwrite64", 1),
    ("mkdirat", 1),
    ("linkat", 1),
    ("fdatasync", 1),
    ("fsync", 2),
    ("unlinkat", 3),
    ("renameat2", 1),
];

/// Kills a consumer before its `nth` call of a kind. Returns whether it came so far, or `None` without strace.
fn kill_at(home: &TempDir, calls: &str, nth: usize, options: &[&str], script: &str) -> Option<bool> {
    installed("strace")?;
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=KILL:when={nth}"));
    let strace = ["strace", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let output = consumer(home, &strace, options, script).output().expect("strace can be started");
    Some(output.status.code().is_none() || output.status.code() == Some(137))
}

/// After a kill at any step the next consumer does all that is left. Nothing is lost, and nothing runs more than once more.
#[test]
fn a_consumer_that_is_killed_at_any_step_loses_nothing() {
    let mut kills = 0;
    for (ending, script) in [
        ("done", LOG_NAME),
        ("failed", "echo \"$INTAKE_NAME\" >> log; exit 1"),
        ("put off", "echo \"$INTAKE_NAME\" >> log; exit 75"),
    ] {
        for (calls, nth) in STEPS.into_iter().flat_map(|(calls, count)| (1..=count).map(move |nth| (calls, nth))) {
            let home = stored(&["a", "b"]);
            let options = ["--once", "--jobs", "1", "--backoff", "1ms"];
            let Some(was_killed) = kill_at(&home, calls, nth, &options, script) else { return };
            kills += usize::from(was_killed);
            let case = format!("{ending}, killed before {calls} {nth}: {was_killed}");
            // A command that was just started may still run, with the lock.
            await_until(&case, || {
                drain(&home, &["--backoff", "1ms"], script);
                names_in(&queue(&home)).is_empty()
            });
            let runs = logged(&home);
            let most = if ending == "put off" { 6 } else { 2 };
            assert!(runs.len() == 2 && runs.values().all(|count| *count <= most), "{case}: {runs:?}");
            let failed = names_in(&queue(&home).join("failed")).len();
            assert_eq!(failed, if ending == "done" { 0 } else { 4 }, "{case}");
        }
    }
    assert!(kills >= 15, "only {kills} kills were tried");
}

/// The same for the way back.
#[test]
fn a_put_back_that_is_killed_at_any_step_loses_nothing() {
    for (calls, nth) in [
        ("flock", 1),
        ("linkat", 1),
        ("renameat2", 1),
        ("linkat", 2),
        ("renameat2", 2),
        ("fsync", 1),
        ("unlinkat", 1),
        ("unlinkat", 2),
    ] {
        let home = stored(&["a", "b"]);
        drain(&home, &[], "exit 1");
        let Some(strace) = installed("strace") else { return };
        let mut put_back = Command::new(strace);
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=KILL:when={nth}"));
        put_back.args(["-o", "/dev/null", "-e", &trace, "-e", &inject, env!("CARGO_BIN_EXE_intake")]);
        let put_back = put_back.args(["consume", "inbox", "--retry-failed"]).current_dir(home.path()).output().unwrap();
        assert_ne!(put_back.status.code(), Some(0), "{calls} {nth}: it was killed");
        let mut again = Command::new(env!("CARGO_BIN_EXE_intake"));
        let again = again.args(["consume", "inbox", "--retry-failed"]).current_dir(home.path()).output().unwrap();
        assert_eq!(again.status.code(), Some(0), "{calls} {nth}: {}", words(&again));
        assert_eq!(drain(&home, &[], LOG_NAME).status.code(), Some(0));
        assert_eq!(logged(&home), counts([("a", 1), ("b", 1)]), "{calls} {nth}");
        assert!(
            names_in(&queue(&home)).is_empty() && names_in(&queue(&home).join("failed")).is_empty(),
            "{calls} {nth}"
        );
    }
}

/// The scripts of docs/queue.md, as they stand there.
fn example(home: &TempDir, name: &str) -> String {
    let text = fs::read_to_string(root().join("docs/queue.md")).expect("the document is there");
    let (_, rest) = text.split_once(&format!("```sh\n# {name}\n")).unwrap_or_else(|| panic!("{name} is shown"));
    let script = rest.split_once("```").expect("the script ends").0;
    fs::write(home.path().join(name), script).expect("a file can be written");
    assert!(text.contains(&format!("-- sh {name}\n")), "the command is shown");
    format!("exec sh {name}")
}

/// A program in `home` that comes first in the path.
fn stand_in(home: &TempDir, name: &str, script: &str) -> String {
    let bin = home.path().join("bin");
    fs::create_dir_all(&bin).expect("a directory can be made");
    fs::write(bin.join(name), format!("#!/bin/sh\n{script}")).expect("a program can be written");
    fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    format!("PATH={}:$PATH; ", bin.display())
}

/// With a program that has the exit codes of clamdscan(1).
#[test]
fn the_example_of_a_virus_scan_works_as_shown() {
    let home = stored(&["clean", "infected", "unknown"]);
    let script =
        "for path; do :; done\ngrep -q infected \"$path\" && exit 1\ngrep -q unknown \"$path\" && exit 2\nexit 0\n";
    let script = stand_in(&home, "clamdscan", script) + &example(&home, "scan.sh");
    let output = drain(&home, &["--tries", "2", "--backoff", "1h"], &script);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(inbox(&home).join("clean").exists() && !inbox(&home).join("infected").exists());
    let quarantined = names_in(&home.path().join("infected"));
    assert_eq!(fs::read(home.path().join("infected").join(&quarantined[0])).unwrap(), b"content of infected");
    let left = names_in(&queue(&home));
    assert_eq!(left.len(), 3, "the one that could not be scanned is put off: {left:?}");
}

#[test]
fn the_example_of_a_bucket_works_as_shown() {
    if installed("rclone").is_none() {
        return;
    }
    let home = stored(&["a b", "c"]);
    let script = format!(
        "export RCLONE_CONFIG=/dev/null RCLONE_CONFIG_BUCKET_TYPE=alias RCLONE_CONFIG_BUCKET_REMOTE={}/remote; {}",
        home.path().display(),
        example(&home, "upload.sh")
    );
    let output = drain(&home, &[], &script);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let names = names_in(&home.path().join("remote/drop"));
    assert!(names.len() == 2 && names[0].ends_with("-a b") && names[1].ends_with("-c"), "{names:?}");
    assert_eq!(fs::read(home.path().join("remote/drop").join(&names[0])).unwrap(), b"content of a b");
    assert!(!inbox(&home).join("a b").exists() && !inbox(&home).join("c").exists());
}

#[test]
fn the_example_of_a_database_works_as_shown_and_may_run_twice() {
    let Some(sqlite3) = installed("sqlite3") else { return };
    let home = stored(&["it's", "b"]);
    let script = example(&home, "import.sh");
    let twice = format!(
        "slip=$(cat); echo \"$slip\" | sh import.sh && echo \"$slip\" | {}",
        script.trim_start_matches("exec ")
    );
    let output = drain(&home, &[], &twice);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let mut query = Command::new(sqlite3);
    query.args(["files.db", "SELECT name, size, digest IS NULL FROM files ORDER BY id"]).current_dir(home.path());
    let rows = query.output().expect("it can be started").stdout;
    assert_eq!(String::from_utf8_lossy(&rows), "it's|15|1\nb|12|1\n");
}

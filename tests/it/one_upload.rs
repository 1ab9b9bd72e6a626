//! `docs/one-upload.md`, compared with a new run: the trace, and the system calls where strace(1) is installed.
//!
//! The kernel may cut the same bytes in other ways, so the run is repeated a few times until it matches the document.
//! If it never does, the run that comes closest is written to `target/one-upload.txt` in the document's form.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use crate::documents::{read_all, root};
use crate::fixture::{Server, await_until};
use crate::tools::installed;

const ATTEMPTS: usize = 20;

/// A line of the record: its time in milliseconds after the accept, its kind, and its text.
type Line = (f64, &'static str, String);

#[test]
fn the_walk_through_one_upload_shows_what_happens() {
    let document = fs::read_to_string(root().join("docs/one-upload.md")).unwrap();
    let with_calls = installed("strace").is_some();
    let kinds: &[&str] = if with_calls { &["trace", "call", "sync"] } else { &["trace"] };
    let mut closest = (0, Vec::new(), String::new());
    for _ in 0..ATTEMPTS {
        let run = record(with_calls);
        let differences: Vec<_> = kinds.iter().filter_map(|kind| first_difference(kind, &document, &run)).collect();
        let Some((_, first)) = differences.first() else { return };
        let alike = differences.iter().map(|(at, _)| at).sum::<usize>() + (kinds.len() - differences.len()) * run.len();
        if alike >= closest.0 {
            closest = (alike, run, first.clone());
        }
    }
    let (_, run, difference) = closest;
    let fresh = root().join("target/one-upload.txt");
    let text: String = run.iter().map(|(at, kind, text)| format!("{at:10.3}  {kind:5}  {text}\n")).collect();
    fs::write(&fresh, text).unwrap();
    panic!(
        "docs/one-upload.md is no longer what happens: {difference}\nThe new record is in {fresh:?}. To write the document \
         again, follow its first paragraph, which adds the packets."
    );
}

/// The events of the examples below the record are too rare to happen in each run. Their words must occur in the code.
#[test]
fn the_other_lines_use_the_words_of_the_trace() {
    let document = fs::read_to_string(root().join("docs/one-upload.md")).unwrap();
    let (_, others) = document.split_once("## Other lines").expect("the section is there");
    let code = read_all(&root().join("src"));
    let lines = others
        .lines()
        .filter(|line| line.starts_with("    ") && !line.contains(['{', '[']) && !line.contains("os error"));
    let lines: Vec<_> = lines.map(|line| trace_line(line).2).collect();
    assert!(lines.len() > 20, "{lines:?}");
    for line in lines {
        let mut parts: Vec<_> = line.split('"').step_by(2).collect();
        for joint in [", ", ": ", "->", "waits for "] {
            parts = parts.into_iter().flat_map(|part| part.split(joint)).collect();
        }
        let words = parts.into_iter().flat_map(|part| part.split(|next: char| next.is_ascii_digit()));
        for words in words.map(|words| words.trim().trim_end_matches(':')) {
            assert!(code.contains(words), "the code has no {words:?}, which docs/one-upload.md shows: {line}");
        }
    }
}

/// The first line of `kind` that differs between the run and the document: its index, and a message.
fn first_difference(kind: &str, document: &str, run: &[Line]) -> Option<(usize, String)> {
    let told = told(document, kind);
    let happened: Vec<_> = run.iter().filter(|(_, each, _)| *each == kind).map(|(.., text)| text.as_str()).collect();
    assert!(!told.is_empty(), "the document shows no {kind}");
    let is_same = |told: &str, happened: &str| match kind {
        "trace" => masked(told) == masked(happened),
        _ => is_cut_of(told, happened),
    };
    let longest = told.len().max(happened.len());
    (0..longest).find_map(|at| match (told.get(at), happened.get(at)) {
        (Some(told), Some(happened)) if is_same(told, happened) => None,
        (told, happened) => Some((at, format!("{kind} {}: the document has {told:?}, the run {happened:?}", at + 1))),
    })
}

/// The lines of `kind` in the document's record. A line that begins far to the right continues the previous one.
fn told(document: &str, kind: &str) -> Vec<String> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let (record, _) = document.split_once("## Other lines").expect("the record ends there");
    for line in record.lines().filter(|line| line.starts_with("    ")) {
        let mut words = line.split_whitespace();
        match (words.next().and_then(|at| at.parse::<f64>().ok()), words.next()) {
            (Some(_), Some(kind @ ("trace" | "call" | "sync" | "wire"))) => {
                let (_, text) = line.split_once(kind).expect("the line has its kind");
                lines.push((kind, text.trim().to_owned()));
            }
            _ if line.starts_with("               ") => {
                let (_, text) = lines.last_mut().expect("a previous line exists");
                *text += " ";
                *text += line.trim();
            }
            _ => {}
        }
    }
    lines.into_iter().filter(|(each, _)| *each == kind).map(|(_, text)| text).collect()
}

/// A line of the trace without the parts that differ from run to run: the port and the window.
fn masked(text: &str) -> String {
    let words = text.split(' ').scan("", |before, word| {
        let is_window = std::mem::replace(before, word) == "window";
        Some(if is_window || word.starts_with("127.0.0.1:") { "…" } else { word })
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether the system call `told` is `happened` with some of it cut: the same call with the same end, whose flags and
/// strings come in the same order. Numbers are descriptors, sizes and ports, but -1 is an error or a wait without an end.
fn is_cut_of(told: &str, happened: &str) -> bool {
    let mut rest = words(happened).into_iter();
    let is_part = words(told).into_iter().all(|word| rest.any(|each| each == word));
    let minus_ones = |call: &str| words(call).into_iter().filter(|word| word == "-1").count();
    is_part && name(told) == name(happened) && minus_ones(told) == minus_ones(happened)
}

fn name(call: &str) -> &str {
    call.split('(').next().expect("there is a first part")
}

/// The flags, the strings and each -1 of a call.
fn words(call: &str) -> Vec<String> {
    let strings = call.split('"').skip(1).step_by(2).map(str::to_owned);
    let outside: Vec<_> = call.split('"').step_by(2).collect();
    let is_sign = |next: char| !next.is_alphanumeric() && next != '_' && next != '-';
    let flags = outside.iter().flat_map(|part| part.split(is_sign));
    let is_flag = |word: &&str| *word == "-1" || word.len() > 2 && word.starts_with(|first: char| first.is_uppercase());
    strings.chain(flags.filter(is_flag).map(str::to_owned)).collect()
}

/// Sends one file as the document does, and merges the trace and the calls.
fn record(with_calls: bool) -> Vec<Line> {
    let home = Server::home();
    let calls = home.path().join("calls");
    let strace = ["strace", "-D", "-f", "-ttt", "-s", "40", "-o", calls.to_str().unwrap()];
    let under: &[&str] = if with_calls { &strace } else { &[] };
    let server = Server::start_under(&[under, &["env", "RUST_LOG=off"]].concat(), &home, &["--trace"]);
    let file = home.path().join("notes.txt");
    fs::write(&file, "one two three\n").unwrap();
    let mut send = Command::new(env!("CARGO_BIN_EXE_intake"));
    send.arg("send").arg(file).args(["--dialect", "classic", "--to", &server.tcp().to_string()]);
    let output = send.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    await_until("the trace to end", || server.log().contains("kernel: CLOSED"));
    let mut lines: Vec<Line> = server.log().lines().map(trace_line).collect();
    drop(server);
    if with_calls {
        let text = || fs::read_to_string(&calls).unwrap();
        await_until("strace to write all of it", || text().contains("+++ killed by SIGKILL +++"));
        lines = call_lines(&text(), lines);
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    lines
}

/// `  0.000408 127.0.0.1:54140 event: readable`
fn trace_line(line: &str) -> Line {
    let (at, rest) = line.trim().split_once(' ').expect("a time comes first");
    let (_, text) = rest.split_once(' ').expect("a peer comes second");
    (at.parse::<f64>().expect("the time is a number") * 1e3, "trace", text.to_owned())
}

/// The calls from the accept of the connection on, and the trace at the moments when it was written. The calls that the
/// trace itself makes are left out. The other threads sync the file and name it.
fn call_lines(text: &str, trace: Vec<Line>) -> Vec<Line> {
    let calls = whole_calls(text);
    let start = calls.iter().position(|(.., call)| call.starts_with("accept4(") && !call.contains("= -1")).unwrap();
    let (server, accepted, _) = calls[start];
    let socket = calls[start].2.rsplit(' ').next().unwrap().to_owned();
    let is_ours = |call: &str| {
        let of_trace =
            ["write(2,", "ppoll(", "poll("].iter().any(|of| call.starts_with(of)) || call.contains("nlmsg_len");
        // The sleep of the other threads, and what only a debug build asks before it closes.
        !of_trace && !call.contains("FUTEX_WAIT") && !call.contains("F_GETFD")
    };
    let close = format!("close({socket})");
    let is_close = |(thread, _, call): &&(u32, f64, String)| *thread == server && call.starts_with(&close);
    let end = start + calls[start..].iter().position(|call| is_close(&call)).unwrap();
    let since_accept = |at: &f64| (at - accepted) * 1e3;
    // Before that, the other threads may still be starting.
    let is_first_sync = |call: &(u32, f64, String)| call.2.starts_with("fdatasync(");
    let handed_over = start + calls[start..].iter().position(is_first_sync).expect("the content is synced");
    let is_part = |at: usize, thread: u32, call: &str| is_ours(call) && (thread == server || at >= handed_over);
    let ours = calls.iter().enumerate().take(end + 1).skip(start);
    let ours = ours.filter(|(at, (thread, _, call))| is_part(*at, *thread, call)).map(|(_, call)| call);
    let ours = ours.map(|(thread, at, call)| {
        let kind = if *thread == server { "call" } else { "sync" };
        (since_accept(at), kind, cut(call))
    });
    let writes: Vec<_> = calls[start..].iter().filter(|(.., call)| call.starts_with("write(2,")).collect();
    assert_eq!(writes.len(), trace.len(), "each line of the trace is written by itself");
    let told = writes.iter().zip(trace).map(|((_, at, _), (_, kind, line))| (since_accept(at), kind, line));
    ours.chain(told).collect()
}

/// Each call at its beginning, with its result, from the lines of strace: `PID TIME CALL`. A call that another thread's
/// interrupts stands in two lines.
fn whole_calls(text: &str) -> Vec<(u32, f64, String)> {
    let mut calls: Vec<(u32, f64, String)> = Vec::new();
    let mut unfinished = HashMap::new();
    for line in text.lines() {
        let (thread, rest) = line.split_once(' ').expect("a thread comes first");
        let (at, call) = rest.trim_start().split_once(' ').expect("a time comes second");
        let (thread, at) = (thread.parse().expect("the thread is a number"), at.parse().expect("the time is a number"));
        if let Some((_, end)) = call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            if let Some(begun) = unfinished.remove(&thread) {
                let begun: usize = begun;
                calls[begun].2 += end;
            }
        } else if let Some(begin) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, calls.len());
            calls.push((thread, at, begin.trim_end().to_owned()));
        } else {
            calls.push((thread, at, call.to_owned()));
        }
    }
    calls
}

/// A call without the parts that tell a reader nothing: addresses, structures, the text of an error.
fn cut(call: &str) -> String {
    let mut call = call.split(" (").next().unwrap().to_owned();
    while let Some(start) = call.find(", data={") {
        let end = start + call[start..].find("}}").expect("a structure ends") + 1;
        call.replace_range(start..end, "");
    }
    if let Some((start, end)) = call.find("{sa_family").zip(call.find("inet_addr")) {
        let port = call[start..end].split(['(', ')']).nth(1).unwrap().to_owned();
        let close = end + call[end..].find('}').expect("a structure ends");
        call.replace_range(start..close, &format!("{{… {port} …"));
    }
    for (long, short) in [(", NULL, NULL)", ", …)"), (", SOCK_CLOEXEC|SOCK_NONBLOCK)", ")"), ("[128 => 16]", "…")] {
        call = call.replace(long, short);
    }
    call.split(' ')
        .map(|word| if word.starts_with("0x") && word.ends_with(',') { "…," } else { word })
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

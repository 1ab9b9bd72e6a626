//! The order of the system calls of one upload, recorded by strace(1). On a real disk, a receipt relies on it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::process::Signal;

use crate::fixture::*;
use crate::tools::{Strace, leave_out};

/// The calls that write, sync, name or send.
const WATCHED: &str = "trace=write,/fadvise,fsync,fdatasync,sync,syncfs,sync_file_range,msync,linkat,/^rename,unlinkat,\
                       close,sendto";

/// The calls about files and clients that the server makes for `upload`.
fn calls_of(server: &Server, upload: impl FnOnce()) -> Option<Vec<String>> {
    // All threads, and the path of each descriptor.
    let strace = Strace::attach(server.pid(), &["-f", "-y", "-e", WATCHED])?;
    upload();
    Some(in_order(&strace.calls()))
}

/// A summary of each call, once: a sync when it ended, any other call when it began.
fn in_order(lines: &[String]) -> Vec<String> {
    let mut interrupted = BTreeMap::new();
    let mut calls = Vec::new();
    for line in lines {
        let (thread, call) = line.split_once(' ').expect("each line begins with its thread");
        let call = call.trim_start();
        let is_sync = |call: &str| call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            interrupted.insert(thread, start);
            calls.extend(gist(start).filter(|_| !is_sync(start)));
        } else if call.starts_with("<... ") {
            let start = interrupted.remove(thread).expect("a call that resumes has begun");
            calls.extend(gist(start).filter(|_| is_sync(start)));
        } else {
            calls.extend(gist(call));
        }
    }
    calls
}

/// The name and the object of a call. `None`: it is neither about files nor about clients.
fn gist(call: &str) -> Option<String> {
    let (name, arguments) = call.split_once('(')?;
    let quoted = |nth| arguments.split('"').nth(nth).unwrap_or_default();
    let of = match name {
        "sendto" => quoted(1).split("\\n").next()?,
        "linkat" | "renameat" | "renameat2" => return Some(name.to_owned()),
        "unlinkat" => role(quoted(1))?,
        // `7</the/path>`, or for a file without a name `7</the/path>(deleted)`.
        _ => role(arguments.split_once('<')?.1.split_once('>')?.0)?,
    };
    Some(format!("{name} {of}"))
}

/// The role of one of the server's paths.
fn role(path: &str) -> Option<&'static str> {
    let (_, path) = path.split_once("inbox").unwrap_or(("", path));
    Some(match path {
        "" => "directory",
        "/.intake/kept" => "kept",
        "/.intake/queue" => "queue",
        _ if path.starts_with("/.intake/queue/") => "slip",
        _ if path.ends_with(".claim") => "claim",
        _ if path.starts_with("/.intake/") || path.starts_with("/#") => "partial",
        _ if path.starts_with('/') => "file",
        _ => return None,
    })
}

/// A client that sends requests, each of which must get its answer.
fn talk(server: &Server, turns: &[(&str, &str)]) -> TcpStream {
    let mut client = connect(server.tcp()).expect("the server listens");
    for (said, heard) in turns {
        client.write_all(said.as_bytes()).expect("a request can be sent");
        let mut reply = vec![0; heard.len()];
        client.read_exact(&mut reply).expect("the server answers");
        assert_eq!(String::from_utf8_lossy(&reply), *heard);
    }
    client
}

/// A server whose partial files have no names.
fn start_unnamed(args: &[&str]) -> Option<Server> {
    let server = Server::start(args);
    await_until("the log to say how files are made", || server.log().contains("files go to"));
    let is_unnamed = server.log().contains("unnamed files");
    if !is_unnamed {
        leave_out("this file system has no unnamed files");
    }
    is_unnamed.then_some(server)
}

const PUT: [(&str, &str); 1] = [("/put size=5 crc32c=9a71bb4c a\nhello", "done 5 crc32c:9a71bb4c a\n")];
const DONE: &str = "sendto done 5 crc32c:9a71bb4c a";

#[test]
fn a_file_without_a_name_is_synced_and_linked_and_the_directory_synced_before_the_receipt() {
    let Some(server) = start_unnamed(&[]) else { return };
    let Some(calls) = calls_of(&server, || drop(talk(&server, &PUT))) else { return };
    let expected = ["write partial", "fdatasync partial", "linkat", "close partial", "fsync directory", DONE];
    assert_eq!(calls, expected);
}

#[test]
fn a_file_with_a_name_is_synced_closed_and_renamed_and_the_directory_synced_before_the_receipt() {
    let server = Server::start(&["--on-exists", "replace"]);
    let Some(calls) = calls_of(&server, || drop(talk(&server, &PUT))) else { return };
    // Created without a name, so that it gets the permissions of the directory, and linked into the lock directory.
    let made = "linkat";
    let expected = [made, "write partial", "fdatasync partial", "close partial", "renameat", "fsync directory", DONE];
    assert_eq!(calls, expected);
}

/// What the file shares with its entry is synced first, then the entry, and only then does the file get its name. The slip is
/// still in the lock directory when it is synced.
#[test]
fn the_entry_of_a_file_is_synced_before_the_file_has_its_name() {
    let Some(server) = start_unnamed(&["--queue"]) else { return };
    let Some(calls) = calls_of(&server, || drop(talk(&server, &PUT))) else { return };
    let expected = [
        "write partial",
        // The slip.
        "write partial",
        "fadvise64 partial",
        "fdatasync partial",
        "fdatasync partial",
        "linkat",
        "renameat2",
        "fsync queue",
        "linkat",
        "close partial",
        "close slip",
        "fsync directory",
        DONE,
    ];
    assert_eq!(calls, expected);
    let named = Server::start(&["--queue", "--on-exists", "replace", "--sync", "none"]);
    let Some(calls) = calls_of(&named, || drop(talk(&named, &PUT))) else { return };
    let expected = [
        "linkat",
        "write partial",
        "write partial",
        "linkat",
        "renameat2",
        "close partial",
        "renameat",
        "close slip",
        DONE,
    ];
    assert_eq!(calls, expected);
}

#[test]
fn a_partial_file_is_synced_with_its_record_before_its_offset_is_sent() {
    let home = Server::home();
    let mut server = Server::start_in(&home, &[]);
    let ask = "/ask size=5 crc32c=trailer resume=id-1 a\n";
    let broken_off = talk(&server, &[(ask, "ok 0\n"), ("he", "")]);
    broken_off.shutdown(Shutdown::Write).expect("a stream can be half-closed");
    assert!(io::read_to_string(broken_off).expect("the server ends").starts_with("no 400 "));
    // The shutdown waits until the partial file is synced.
    server.signal(Signal::TERM);
    server.wait();
    let server = Server::start_in(&home, &[]);
    let turns = [(ask, "ok 2\n"), ("llocrc32c=9a71bb4c\n", "done 5 crc32c:9a71bb4c a\n")];
    let Some(calls) = calls_of(&server, || drop(talk(&server, &turns))) else { return };
    let expected = [
        "linkat",
        "close partial",
        "close claim",
        "fdatasync partial",
        "fdatasync claim",
        "close partial",
        "close claim",
        "fsync kept",
        "sendto ok 2",
        "write partial",
        "fdatasync partial",
        "close partial",
        "unlinkat claim",
        "renameat2",
        // The descriptor that holds the lock.
        "close file",
        "fsync directory",
        DONE,
    ];
    assert_eq!(calls, expected);
}

#[test]
fn without_sync_nothing_is_synced() {
    let Some(unnamed) = start_unnamed(&["--sync", "none"]) else { return };
    let Some(calls) = calls_of(&unnamed, || drop(talk(&unnamed, &PUT))) else { return };
    assert_eq!(calls, ["write partial", "linkat", "close partial", DONE]);
    let named = Server::start(&["--sync", "none", "--on-exists", "replace"]);
    let Some(calls) = calls_of(&named, || drop(talk(&named, &PUT))) else { return };
    assert_eq!(calls, ["linkat", "write partial", "close partial", "renameat", DONE]);
}

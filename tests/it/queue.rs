//! The queue of published files: an entry for each receipt, and none for a refusal.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::fixture::*;

fn path(server: &Server, name: &str) -> PathBuf {
    server.dir().join(name)
}

/// The entries of a server's queue: the slip and the content of each, in order.
fn entries(server: &Server) -> Vec<(Value, Vec<u8>)> {
    let queue = path(server, ".intake/queue");
    let mut names: Vec<_> = fs::read_dir(&queue)
        .expect("there is a queue")
        .map(|entry| entry.expect("it can be listed").file_name().into_string().expect("names are ASCII"))
        .collect();
    names.sort();
    let slips = names.iter().filter(|name| name.ends_with(".json"));
    let entries: Vec<_> = slips
        .map(|slip| {
            let text = fs::read_to_string(queue.join(slip)).expect("a slip can be read");
            let content = fs::read(queue.join(slip.trim_end_matches(".json"))).expect("each slip has its content");
            (serde_json::from_str(&text).expect("a slip is JSON"), content)
        })
        .collect();
    assert_eq!(names.len(), 2 * entries.len() + 1, "besides entries there is only the counter: {names:?}");
    entries
}

/// Sends requests on one connection, and returns the replies.
fn replies(server: &Server, requests: &str) -> String {
    let mut client = connect(server.tcp()).expect("the server listens");
    client.write_all(requests.as_bytes()).expect("requests can be sent");
    client.write_all(b"/bye\n").expect("a farewell can be sent");
    let mut said = String::new();
    client.read_to_string(&mut said).expect("the server answers and closes");
    said
}

fn word<'a>(slip: &'a Value, key: &str) -> &'a str {
    slip[key].as_str().unwrap_or_else(|| panic!("{key} of {slip}"))
}

#[test]
fn each_published_file_gets_its_entry_and_a_refused_one_gets_none() {
    for options in [&["--queue"][..], &["--queue", "--sync", "none"], &["--queue", "--on-exists", "replace"]] {
        let mut server = Server::start(options);
        let said = replies(
            &server,
            "/put size=5 crc32c=9a71bb4c a\nhello/put size=5 crc32c=00000000 b\nhello/put size=3 on-exists=rename \
             a\nabc/put size=3 on-exists=refuse a\nxyz/put size=2 c d\nhi",
        );
        let lines: Vec<_> = said.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, ["done 5", "no 422", "done 3", "no 409", "done 2"], "{options:?}: {said}");
        let entries = entries(&server);
        let told: Vec<_> =
            entries.iter().map(|(slip, content)| (word(slip, "name"), word(slip, "stored"), &**content)).collect();
        assert_eq!(told, [("a", "a", &b"hello"[..]), ("a", "a.1", b"abc"), ("c d", "c d", b"hi")], "{options:?}");
        let (first, last) = (&entries[0].0, &entries[2].0);
        assert_eq!((word(first, "digest"), first["size"].as_u64()), ("crc32c:9a71bb4c", Some(5)));
        assert!(word(first, "peer").starts_with("127.0.0.1:") && first["who"].is_null() && last["digest"].is_null());
        assert!(word(first, "id") < word(last, "id"), "{first} {last}");
        let link = fs::metadata(path(&server, ".intake/queue").join(word(last, "id"))).expect("the entry is there");
        assert_eq!(
            link.ino(),
            fs::metadata(path(&server, "c d")).expect("the file is stored").ino(),
            "it takes no space"
        );
        server.signal(rustix::process::Signal::TERM);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_classic_upload_and_one_over_http_are_queued_too() {
    let server = Server::start(&["--queue"]);
    classic(server.tcp(), "classic", b"content").expect("the upload is accepted");
    assert_eq!(line(server.tcp(), "line", b"content").expect("the server answers"), "done 7 - line\n");
    let mut client = connect(server.tcp()).expect("the server listens");
    let request = "PUT /http HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nConnection: close\r\n\r\ncontent";
    client.write_all(request.as_bytes()).expect("a request can be sent");
    let mut said = String::new();
    client.read_to_string(&mut said).expect("the server answers");
    assert!(said.starts_with("HTTP/1.1 201 "), "{said}");
    let names: Vec<_> = entries(&server).iter().map(|(slip, _)| word(slip, "stored").to_owned()).collect();
    assert_eq!(names, ["classic", "line", "http"]);
}

/// What was confirmed stays in the queue, whatever becomes of the stored file.
#[test]
fn a_file_that_is_replaced_stays_in_the_queue() {
    let server = Server::start(&["--queue", "--on-exists", "replace"]);
    for content in ["one", "two"] {
        assert_eq!(replies(&server, &format!("/put size=3 a\n{content}")), "done 3 - a\n");
    }
    fs::remove_file(path(&server, "a")).expect("the file is stored");
    let contents: Vec<_> = entries(&server).into_iter().map(|(_, content)| content).collect();
    assert_eq!(contents, [b"one", b"two"]);
}

#[test]
fn a_resumed_upload_is_queued_once() {
    let server = Server::start(&["--queue"]);
    let ask = |content: &str| {
        let mut client = connect(server.tcp()).expect("the server listens");
        client.write_all(b"/ask size=5 crc32c=9a71bb4c resume=id-1 a\n").expect("a request can be sent");
        let mut told = [0; 5];
        client.read_exact(&mut told).expect("the server tells an offset");
        client.write_all(content.as_bytes()).expect("content can be sent");
        client.shutdown(std::net::Shutdown::Write).expect("a stream can be half-closed");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("the server answers");
        (String::from_utf8_lossy(&told).into_owned(), said)
    };
    let (told, said) = ask("he");
    assert!(told == "ok 0\n" && said.starts_with("no 400 "), "{told}{said}");
    assert_eq!(ask("llo"), ("ok 2\n".into(), "done 5 crc32c:9a71bb4c a\n".into()));
    let entries = entries(&server);
    assert_eq!((entries.len(), &entries[0].1[..]), (1, &b"hello"[..]));
}

/// Servers that start again, or share the directory, use no number twice.
#[test]
fn numbers_grow_over_restarts_and_are_shared() {
    let home = Server::home();
    let mut last = String::new();
    for _ in 0..2 {
        let (first, second) = (Server::start_in(&home, &["--queue"]), Server::start_in(&home, &["--queue"]));
        for server in [&first, &second] {
            assert!(replies(server, "/put size=1 a\nx").starts_with("done 1 - a"));
            let newest = word(&entries(server).pop().expect("it is queued").0, "id").to_owned();
            assert!(newest > last, "{newest} after {last}");
            last = newest;
        }
    }
    assert_eq!(entries(&Server::start_in(&home, &["--queue"])).len(), 4);
}

/// Refused with 507: neither stored, nor queued, nor left behind.
#[test]
fn a_file_that_cannot_be_queued_is_refused_and_leaves_nothing() {
    for options in [&["--queue"][..], &["--queue", "--sync", "none"], &["--queue", "--on-exists", "replace"]] {
        let server = Server::start(options);
        let queue: PathBuf = path(&server, ".intake/queue");
        fs::rename(&queue, path(&server, "../moved")).expect("the queue can be moved away");
        fs::remove_dir_all(path(&server, "../moved")).expect("the queue can be removed");
        let said = replies(&server, "/put size=1 a\nx");
        assert!(said.starts_with("no 507 the file cannot be put into the queue, so it is not stored: "), "{said}");
        server.assert_holds_only(&Files::new());
        assert!(server.partials().is_empty(), "{:?}", server.partials());
    }
}

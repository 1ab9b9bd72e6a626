//! Resumable uploads over HTTP, by tus 1.0.0: the conversation at every split, and the whole program.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use intake::proto::{Code, Rules, Web};
use rustix::process::Signal;

use crate::conversation;
use crate::fixture::{Server, await_until, connect, content};

const PIECE: &str = "Content-Type: application/offset+octet-stream";
/// `filename` is `a b.txt`.
const NAMED: &str = "Upload-Metadata: filename YSBiLnR4dA==,filetype dGV4dA==";
/// SHA-256 of `abc` (FIPS 180-4).
const SUM_OF_ABC: &str = "Upload-Checksum: sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

pub const DIGEST_OF_ABC: &str = "Content-Digest: sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";

/// A request of tus.
fn tus(line: &str, fields: &[&str], content: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = if fields.contains("Transfer-Encoding") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", content.len())
    };
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\n{length}{fields}\r\n{content}")
}

/// The target of the upload that the conversation's tests begin as their `index`-th.
fn place(index: u128) -> String {
    format!("/.intake/uploads/{index:032x}")
}

fn create(size: &str, fields: &[&str], content: &str) -> String {
    tus("POST /", &[&[size, NAMED], fields].concat(), content)
}

fn patch(index: u128, offset: u64, fields: &[&str], content: &str) -> String {
    let offset = format!("Upload-Offset: {offset}");
    tus(&format!("PATCH {}", place(index)), &[&[PIECE, offset.as_str()], fields].concat(), content)
}

fn head(index: u128) -> String {
    tus(&format!("HEAD {}", place(index)), &[], "")
}

fn server() -> conversation::Server {
    let web = Web { origins: vec!["https://app.example".into()], ..Web::default() };
    conversation::Server::with(Rules { web, now: 784_111_777, max_file_size: Some(1000), ..Rules::default() })
}

fn converse(input: &str) -> conversation::Transcript {
    conversation::drive(server(), input.as_bytes(), &[], b"")
}

fn statuses(said: &str) -> Vec<u16> {
    said.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

#[test]
fn every_split_of_every_request_means_the_same() {
    let inputs = [
        [create("Upload-Length: 3", &[], ""), patch(0, 0, &[], "a"), head(0), patch(0, 1, &[], "bc")].concat(),
        [create("Upload-Length: 3", &[PIECE, SUM_OF_ABC], "abc"), head(0)].concat(),
        [create("Upload-Length: 0", &[], ""), create("Upload-Length: 3", &[PIECE, "Expect: 100-continue"], "a")]
            .concat(),
        [
            create("Upload-Defer-Length: 1", &[], ""),
            patch(0, 0, &[SUM_OF_ABC], "abd"),
            patch(0, 0, &[SUM_OF_ABC], "abc"),
        ]
        .concat(),
        [
            create("Upload-Length: 3", &[], ""),
            patch(0, 0, &["Transfer-Encoding: chunked"], "2\r\nab\r\n0\r\n\r\n"),
            head(0),
        ]
        .concat(),
        [
            create("Upload-Length: 3", &[], ""),
            patch(0, 1, &[], ""),
            tus(&format!("DELETE {}", place(0)), &[], ""),
            head(0),
        ]
        .concat(),
        create("Upload-Length: 3", &[PIECE], "abc").strip_suffix("bc").unwrap().to_owned(),
    ];
    for input in inputs {
        conversation::assert_no_cut_matters(server, &input, 67);
    }
}

#[test]
fn an_upload_is_begun_continued_and_told() {
    let input = [
        create("Upload-Length: 3", &[], ""),
        patch(0, 0, &[], "a"),
        head(0),
        patch(0, 0, &[], ""),
        patch(0, 1, &[], "bc"),
        head(0),
    ];
    let transcript = converse(&input[..3].concat());
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: no-store\r\n";
    let expires = "Upload-Expires: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let version = "Tus-Resumable: 1.0.0\r\n";
    let expected = [
        format!("HTTP/1.1 201 Created\r\nLocation: {}\r\nUpload-Offset: 0\r\n{expires}{version}{date}", place(0)),
        format!("Content-Length: 0\r\n\r\nHTTP/1.1 204 No Content\r\nUpload-Offset: 1\r\n{expires}{version}{date}\r\n"),
        format!("HTTP/1.1 200 OK\r\nUpload-Length: 3\r\n{NAMED}\r\nUpload-Offset: 1\r\n{expires}{version}{date}"),
        "Content-Length: 0\r\n\r\n".to_owned(),
    ];
    assert_eq!(transcript.said, expected.concat());
    let transcript = converse(&input.concat());
    assert_eq!(statuses(&transcript.said), [201, 204, 200, 409, 204, 200]);
    assert!(transcript.said.contains("HTTP/1.1 409 Conflict\r\nUpload-Offset: 1\r\n"), "{}", transcript.said);
    let last = format!("204 No Content\r\nUpload-Offset: 3\r\nContent-Location: /a%20b.txt\r\n{version}{date}\r\n");
    assert!(transcript.said.contains(&last), "{}", transcript.said);
    assert_eq!((transcript.content.as_slice(), transcript.ended), (&b"abc"[..], 1));
}

/// What is asked, what is said, and whether the next request is served.
#[test]
fn what_cannot_be_followed_is_refused_with_its_status() {
    let named = |pairs: &str| tus("POST /", &["Upload-Length: 3", &format!("Upload-Metadata: {pairs}")], "");
    let plain = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let own = place(0);
    for (case, status, words) in [
        (plain("POST /", "Tus-Resumable: 0.2.2\r\nUpload-Length: 3\r\n"), 412, "1.0.0"),
        (tus("POST /", &[NAMED], ""), 400, "Upload-Length"),
        (create("Upload-Length: 3\r\nUpload-Defer-Length: 1", &[], ""), 400, "Upload-Length"),
        (create("Upload-Defer-Length: 2", &[], ""), 400, "Defer"),
        (create("Upload-Length: -3", &[], ""), 400, "digits"),
        (create("Upload-Length: 3", &["Upload-Concat: partial"], ""), 400, "concatenated"),
        (create("Upload-Length: 1001", &[], ""), 413, "1000 bytes"),
        (create("Upload-Length: 3", &[PIECE], "abcd"), 413, "Upload-Length"),
        (create("Upload-Length: 3", &[], "abc"), 415, "offset+octet-stream"),
        (create("Upload-Length: 3", &[PIECE, "Content-Encoding: gzip"], "abc"), 415, "Content-Encoding"),
        (tus("POST /", &["Upload-Length: 3"], ""), 400, "filename"),
        (named("filename"), 403, "empty"),
        (named("filename !"), 400, "BASE64"),
        (named("filename YQ==,filename YQ=="), 400, "BASE64"),
        (named("filename Li4vYQ=="), 403, "/"),
        (named(&format!("x {}", "YWFh".repeat(1100))), 400, "4096"),
        (patch(1, 0, &[], "a"), 404, "begin it again"),
        (tus("HEAD /.intake/uploads/x", &[], ""), 404, ""),
        (tus("HEAD /.intake/uploads/../x", &[], ""), 404, ""),
        (tus(&format!("GET {own}"), &[], ""), 405, "\r\nAllow: HEAD, PATCH, DELETE, OPTIONS\r\n"),
        (tus(&format!("PATCH {own}"), &["Upload-Offset: 0"], "a"), 415, "offset+octet-stream"),
        (tus(&format!("PATCH {own}"), &[PIECE], "a"), 400, "Upload-Offset"),
        (patch(0, 0, &["Upload-Checksum: sha1 AAAA"], "a"), 400, "sha256"),
        (patch(0, 0, &["Upload-Checksum: sha256 AAAA"], "a"), 400, "sha256"),
        (patch(0, 0, &["Upload-Checksum: sha256"], "a"), 400, "sha256"),
        (patch(0, 0, &["Content-Digest: sha-256=:AAAA:"], "a"), 400, "32 bytes"),
        (patch(0, 0, &[SUM_OF_ABC, DIGEST_OF_ABC], "abc"), 400, "not both"),
        (patch(0, 0, &[SUM_OF_ABC], "abd"), 460, "promised"),
        (patch(0, 0, &["Transfer-Encoding: chunked"], "4\r\nabcd\r\n0\r\n\r\n"), 400, "more content"),
        (patch(0, 2, &[], "a"), 409, "byte 0, not at 2"),
    ] {
        let transcript = converse(&[create("Upload-Length: 3", &[], ""), case.clone()].concat());
        let (_, said) = transcript.said.split_once("Content-Length: 0\r\n\r\n").unwrap();
        assert!(statuses(said) == [status] && said.contains(words), "{case}: {said}");
        assert!(said.contains("\r\nTus-Resumable: 1.0.0\r\n"), "{case}: {said}");
        assert_eq!(said.contains("\r\nTus-Version: 1.0.0\r\n"), status == 412, "{case}: {said}");
    }
}

#[test]
fn a_refusal_without_content_behind_it_is_not_the_last_word() {
    let input = [create("Upload-Length: 3", &[], ""), head(7), patch(0, 2, &[], ""), patch(0, 0, &[SUM_OF_ABC], "abd")];
    let transcript = converse(&[input.concat(), head(0)].concat());
    assert_eq!(statuses(&transcript.said), [201, 404, 409, 460, 200]);
    assert_eq!(transcript.failed, [Code(460)], "what is logged is what is said");
    assert!(!transcript.said.contains("Connection:"), "{}", transcript.said);
    let transcript = converse(&[&create("Upload-Length: 3", &[], ""), &patch(0, 2, &[], "a"), &*head(0)].concat());
    assert_eq!(statuses(&transcript.said), [201, 409]);
    assert!(transcript.said.contains("\r\nConnection: close\r\n"), "{}", transcript.said);
}

#[test]
fn what_is_spoken_is_told_to_who_asks() {
    let transcript = converse("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for line in [
        "Tus-Version: 1.0.0",
        "Tus-Extension: creation,creation-with-upload,creation-defer-length,checksum,expiration,termination",
        "Tus-Checksum-Algorithm: sha256",
        "Tus-Max-Size: 1000",
    ] {
        assert!(transcript.said.contains(&format!("\r\n{line}\r\n")), "{}", transcript.said);
    }
}

#[test]
fn a_page_of_an_allowed_origin_may_send_and_read_it_all() {
    let origin = "Origin: https://app.example";
    let preflight = tus(&format!("OPTIONS {}", place(0)), &[origin, "Access-Control-Request-Method: PATCH"], "");
    let said = converse(&[preflight, create("Upload-Length: 3", &[origin], "")].concat()).said;
    assert!(said.contains("\r\nAccess-Control-Allow-Methods: HEAD, PATCH, DELETE, OPTIONS\r\n"), "{said}");
    assert_eq!(said.matches("\r\nAccess-Control-Allow-Origin: https://app.example\r\n").count(), 2, "{said}");
    let lists = |field: &str, name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split(", ").any(|listed| listed == name)
    };
    for name in
        ["Tus-Resumable", "Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Checksum", "Content-Type"]
    {
        assert!(lists("Access-Control-Allow-Headers: ", name), "{name}");
    }
    for name in ["Location", "Content-Location", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable"] {
        assert!(lists("Access-Control-Expose-Headers: ", name), "{name}");
    }
}

/// An answer of the program. Interim answers are passed over.
pub struct Answer {
    pub status: u16,
    pub fields: BTreeMap<String, String>,
    pub content: String,
}

impl Answer {
    /// Reads the one to a request with this first line.
    pub fn read(stream: &mut TcpStream, line: &str) -> Self {
        loop {
            let answer = Self::read_next(stream, line);
            if answer.status >= 200 {
                return answer;
            }
        }
    }

    /// Reads the next one, which may be an interim one.
    pub fn read_next(stream: &mut TcpStream, line: &str) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer comes");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        let fields: BTreeMap<_, _> = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let status = head[9..12].parse().unwrap();
        let length = fields.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut content = vec![0; if line.starts_with("HEAD ") { 0 } else { length }];
        stream.read_exact(&mut content).expect("its content comes");
        Self { status, fields, content: String::from_utf8(content).unwrap() }
    }

    pub fn offset(&self) -> usize {
        self.fields["upload-offset"].parse().unwrap()
    }
}

/// Sends the head of a request whose content has `length` bytes.
fn begin(address: SocketAddr, line: &str, fields: &[&str], length: usize) -> TcpStream {
    let mut stream = connect(address).unwrap();
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nContent-Length: {length}\r\n");
    stream.write_all(format!("{head}{fields}\r\n").as_bytes()).unwrap();
    stream
}

fn ask(address: SocketAddr, line: &str, fields: &[&str], content: &[u8]) -> Answer {
    let mut stream = begin(address, line, fields, content.len());
    stream.write_all(content).unwrap();
    Answer::read(&mut stream, line)
}

/// Begins an upload of `size` bytes. Returns its place.
fn begun(server: &Server, size: usize) -> String {
    let answer = ask(server.tcp(), "POST /", &[&format!("Upload-Length: {size}"), NAMED], b"");
    assert_eq!((answer.status, answer.offset()), (201, 0));
    answer.fields["location"].clone()
}

fn begin_patch(server: &Server, place: &str, offset: usize, length: usize) -> TcpStream {
    begin(server.tcp(), &format!("PATCH {place}"), &[PIECE, &format!("Upload-Offset: {offset}")], length)
}

fn patched(server: &Server, place: &str, offset: usize, content: &[u8]) -> Answer {
    let mut stream = begin_patch(server, place, offset, content.len());
    stream.write_all(content).unwrap();
    Answer::read(&mut stream, "PATCH")
}

fn offset(server: &Server, place: &str) -> usize {
    let answer = ask(server.tcp(), &format!("HEAD {place}"), &[], b"");
    assert_eq!(answer.status, 200);
    answer.offset()
}

/// Waits for a partial file of so many bytes. To ask for the offset would end the request that brings them.
pub fn await_length(server: &Server, bytes: u64) {
    let has = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.len() == bytes);
    await_until("the server to have what was sent", || server.partials().iter().any(has));
}

fn status(server: &Server, method: &str, place: &str) -> u16 {
    ask(server.tcp(), &format!("{method} {place}"), &[], b"").status
}

#[test]
fn an_upload_survives_broken_connections_and_a_killed_server() {
    for sync in ["full", "none"] {
        let home = Server::home();
        let file = content(24 << 20, 1);
        let mut server = Server::start_in(&home, &["--sync", sync]);
        let place = begun(&server, file.len());

        let mut stream = begin_patch(&server, &place, 0, file.len());
        stream.write_all(&file[..3 << 20]).unwrap();
        await_length(&server, 3 << 20);
        drop(stream);
        assert_eq!(offset(&server, &place), 3 << 20);

        let mut stream = begin_patch(&server, &place, 3 << 20, file.len() - (3 << 20));
        stream.write_all(&file[3 << 20..21 << 20]).unwrap();
        server.signal(Signal::KILL);
        server.wait();
        let server = Server::start_in(&home, &["--sync", sync]);
        let held = offset(&server, &place);
        assert!((3 << 20..=21 << 20).contains(&held), "an offset that was told is kept: {held}");

        let answer = patched(&server, &place, held, &file[held..]);
        assert_eq!((answer.status, answer.offset()), (204, file.len()));
        assert_eq!(answer.fields["content-location"], "/a%20b.txt");
        assert_eq!(fs::read(server.dir().join("a b.txt")).unwrap(), file, "--sync {sync}");
        assert_eq!(offset(&server, &place), file.len(), "a client that lost the answer hears that nothing is left");
        assert_eq!(patched(&server, &place, 5, b"x").status, 409);
        assert_eq!(status(&server, "DELETE", &place), 404);
    }
}

#[test]
fn the_newest_request_wins() {
    let server = Server::start(&[]);
    let place = begun(&server, 9);
    let mut older = begin_patch(&server, &place, 0, 9);
    older.write_all(b"abc").unwrap();
    await_length(&server, 3);
    assert_eq!(offset(&server, &place), 3);
    let refused = Answer::read(&mut older, "PATCH");
    assert_eq!((refused.status, refused.fields["connection"].as_str()), (409, "close"));
    assert!(refused.content.contains("another connection"), "{}", refused.content);

    let two: Vec<_> = (0..2).map(|_| begin_patch(&server, &place, 3, 6)).collect();
    let statuses: Vec<_> = two
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                let _ = stream.write_all(b"defghi");
                Answer::read(&mut stream, "PATCH").status
            })
        })
        .collect();
    let mut statuses: Vec<_> = statuses.into_iter().map(|thread| thread.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409], "one of the two has brought it");
    server.await_file("a b.txt", b"abcdefghi");
}

#[test]
fn a_wrong_checksum_takes_the_piece_back_and_no_more() {
    let server = Server::start(&[]);
    let place = begun(&server, 6);
    let send = |at: usize, piece: &[u8]| {
        let fields = [PIECE, &format!("Upload-Offset: {at}"), SUM_OF_ABC];
        ask(server.tcp(), &format!("PATCH {place}"), &fields, piece).status
    };
    assert_eq!((send(0, b"abc"), send(3, b"abd"), offset(&server, &place)), (204, 460, 3));
    assert_eq!(send(3, b"abc"), 204);
    server.await_file("a b.txt", b"abcabc");
}

#[test]
fn an_upload_whose_size_comes_later_is_whole_when_it_has_come() {
    let server = Server::start(&[]);
    let answer = ask(server.tcp(), "POST /", &["Upload-Defer-Length: 1", NAMED, PIECE], b"abc");
    let place = answer.fields["location"].clone();
    assert_eq!((answer.status, answer.offset()), (201, 3));
    let asked = ask(server.tcp(), &format!("HEAD {place}"), &[], b"");
    assert_eq!(asked.fields["upload-defer-length"], "1");
    assert_eq!(asked.fields["upload-metadata"], NAMED["Upload-Metadata: ".len()..]);
    let fields = [PIECE, "Upload-Offset: 3", "Upload-Length: 6"];
    let last = |fields: &[&str], piece: &[u8]| ask(server.tcp(), &format!("PATCH {place}"), fields, piece).status;
    assert_eq!(last(&fields, b""), 204);
    assert_eq!(last(&[PIECE, "Upload-Offset: 3", "Upload-Length: 7"], b"defg"), 400, "the size is 6");
    assert_eq!(last(&[PIECE, "Upload-Offset: 3"], b"defg"), 400);
    assert_eq!(last(&fields, b"def"), 204);
    server.await_file("a b.txt", b"abcdef");
    let whole = ask(server.tcp(), "POST /", &["Upload-Length: 0", NAMED], b"");
    assert_eq!((whole.status, whole.fields["content-location"].as_str()), (201, "/a%20b.txt.1"));
}

#[test]
fn an_upload_is_removed_by_its_client_or_when_it_has_expired() {
    let home = Server::home();
    let server = Server::start_in(&home, &["--partial-ttl", "1h"]);
    let (removed, expired) = (begun(&server, 9), begun(&server, 9));
    assert_eq!(patched(&server, &removed, 0, b"abc").status, 204);
    assert_eq!((status(&server, "DELETE", &removed), status(&server, "HEAD", &removed)), (204, 404));
    assert_eq!(patched(&server, &removed, 3, b"def").status, 404);
    assert_eq!(patched(&server, &expired, 0, b"abc").status, 204);
    let hours_ago = SystemTime::now() - Duration::from_secs(7200);
    for path in server.partials() {
        fs::File::open(path).unwrap().set_modified(hours_ago).unwrap();
    }
    drop(server);
    let server = Server::start_in(&home, &["--partial-ttl", "1h"]);
    assert_eq!(status(&server, "HEAD", &expired), 404);
    server.assert_holds_only(&BTreeMap::new());
}

#[test]
fn an_upload_that_nobody_knows_of_is_not_kept() {
    let server = Server::start(&[]);
    let mut stream = begin(server.tcp(), "POST /", &["Upload-Length: 9", NAMED, PIECE], 9);
    stream.write_all(b"abc").unwrap();
    await_until("the upload to begin", || !server.partials().is_empty());
    drop(stream);
    await_until("it to be removed", || server.partials().is_empty());
}

#[test]
fn many_uploads_at_once_do_not_mix() {
    let server = Arc::new(Server::start(&[]));
    let threads: Vec<_> = (0..20u64)
        .map(|seed| {
            let server = server.clone();
            thread::spawn(move || {
                let file = content(100_000, seed);
                let place = begun(&server, file.len());
                let mut at = 0;
                while at < file.len() {
                    let end = file.len().min(at + 9_001);
                    assert_eq!(patched(&server, &place, at, &file[at..end]).status, 204);
                    at = end;
                }
                file
            })
        })
        .collect();
    let mut expected: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let mut stored: Vec<_> = server.files().into_values().collect();
    expected.sort();
    stored.sort();
    assert!(stored == expected);
}

//! Resumable uploads over HTTP, by the draft of the IETF: the conversation at every split, and the whole program.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use intake::proto::{Algorithm, Hasher, Rules, Web};
use rustix::process::Signal;

use crate::conversation;
use crate::fixture::{Server, await_until, connect, content};
use crate::tus::{Answer, DIGEST_OF_ABC, await_length};

const PIECE: &str = "Content-Type: application/partial-upload";
const LAST: &str = "Upload-Complete: ?1";
const MORE: &str = "Upload-Complete: ?0";
const SIX: &str = "Upload-Draft-Interop-Version: 6";
const EIGHT: &str = "Upload-Draft-Interop-Version: 8";
const REPR_DIGEST_OF_ABC: &str = "Repr-Digest: sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: no-store\r\n";

/// The head of a request whose content has `length` bytes.
fn head(line: &str, fields: &[&str], length: usize) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let framing =
        if fields.contains("Transfer-Encoding") { String::new() } else { format!("Content-Length: {length}\r\n") };
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{framing}{fields}\r\n")
}

fn request(line: &str, fields: &[&str], content: &str) -> String {
    head(line, fields, content.len()) + content
}

/// The target of the upload that the conversation's tests begin as their `index`-th.
fn place(index: u128) -> String {
    format!("/.intake/uploads/{index:032x}")
}

fn patch(index: u128, offset: u64, fields: &[&str], content: &str) -> String {
    let offset = format!("Upload-Offset: {offset}");
    request(&format!("PATCH {}", place(index)), &[&[PIECE, offset.as_str()], fields].concat(), content)
}

fn ask(index: u128, fields: &[&str]) -> String {
    request(&format!("HEAD {}", place(index)), fields, "")
}

fn server() -> conversation::Server {
    let web = Web { origins: vec!["https://app.example".into()], ..Web::default() };
    let (now, max_file_size) = (784_111_777, Some(1000));
    conversation::Server::with(Rules { web, now, max_file_size, upload_ttl_seconds: 3600, ..Rules::default() })
}

fn converse(input: &str) -> conversation::Transcript {
    conversation::drive(server(), input.as_bytes(), &[], b"")
}

fn statuses(said: &str) -> Vec<u16> {
    said.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// The bodies of problems have no line feed, so an answer may stand behind one.
fn answers(said: &str) -> Vec<&str> {
    let starts: Vec<usize> = said.match_indices("HTTP/1.1 ").map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([said.len()]);
    starts.iter().zip(ends).map(|(start, end)| &said[*start..end]).collect()
}

#[test]
fn every_split_of_every_request_means_the_same() {
    let inputs = [
        [request("PUT /a", &[MORE, SIX], "a"), patch(0, 1, &[LAST, SIX], "bc"), ask(0, &[SIX])].concat(),
        [request("PUT /a", &[LAST, EIGHT, REPR_DIGEST_OF_ABC], "abc"), ask(0, &[])].concat(),
        [request("PUT /a", &[LAST, EIGHT, "Expect: 100-continue"], "abc"), patch(0, 3, &[LAST], "")].concat(),
        [
            request("POST /", &[MORE, "Content-Disposition: inline; filename=\"a\"", "Upload-Length: 3"], ""),
            patch(0, 0, &[MORE, DIGEST_OF_ABC], "abd"),
            patch(0, 0, &[LAST, DIGEST_OF_ABC], "abc"),
        ]
        .concat(),
        [request("PUT /a", &[MORE], ""), patch(0, 0, &[LAST, "Transfer-Encoding: chunked"], "2\r\nab\r\n0\r\n\r\n")]
            .concat(),
        [request("PUT /a", &[MORE], "ab"), request(&format!("DELETE {}", place(0)), &[], ""), ask(0, &[])].concat(),
        request("PUT /a", &[LAST, EIGHT], "abc").strip_suffix("bc").unwrap().to_owned(),
    ];
    for input in inputs {
        conversation::assert_no_cut_matters(server, &input, 67);
    }
}

#[test]
fn a_client_of_either_version_is_told_of_its_upload_before_the_answer() {
    let created = |version: &str, age: &str| {
        let transcript = converse(&request("PUT /a", &[LAST, version, REPR_DIGEST_OF_ABC], "abc"));
        let announced = format!(
            "HTTP/1.1 104 Upload Resumption Supported\r\n{version}\r\nLocation: {}\r\n\
             Upload-Limit: max-size=1000, {age}=3600\r\n\r\n",
            place(0)
        );
        transcript.said.strip_prefix(&announced).unwrap_or_else(|| panic!("{}", transcript.said)).to_owned()
    };
    let receipt = "Content-Type: text/plain; charset=utf-8\r\n";
    let line = "done 3 sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad a\n";
    let length = line.len();
    assert_eq!(
        created(EIGHT, "max-age"),
        format!(
            "HTTP/1.1 201 Created\r\nLocation: /a\r\n{REPR_DIGEST_OF_ABC}\r\n{receipt}Upload-Complete: ?1\r\n\
             Upload-Offset: 3\r\n{DATE}Content-Length: {length}\r\n\r\n{line}"
        )
    );
    assert_eq!(
        created(SIX, "expires"),
        format!(
            "HTTP/1.1 201 Created\r\nLocation: {}\r\nUpload-Complete: ?1\r\nUpload-Offset: 3\r\n\
             Content-Location: /a\r\n{REPR_DIGEST_OF_ABC}\r\n{DATE}Content-Length: 0\r\n\r\n",
            place(0)
        )
    );
}

/// A version that is not spoken, two of them, a client of HTTP/1.0, and a request that is refused.
#[test]
fn no_other_client_gets_an_interim_answer() {
    for version in [
        "X: y",
        "Upload-Draft-Interop-Version: 5",
        "Upload-Draft-Interop-Version: 7",
        "Upload-Draft-Interop-Version: ?1",
    ] {
        let said = converse(&request("PUT /a", &[LAST, version], "abc")).said;
        assert!(said.starts_with("HTTP/1.1 201 Created\r\nLocation: /a\r\n"), "{version}: {said}");
    }
    let old = request("PUT /a", &[LAST, EIGHT], "abc").replace("HTTP/1.1", "HTTP/1.0");
    for (input, status) in [
        (old, 201),
        (request("PUT /..", &[LAST, EIGHT], "abc"), 403),
        (request("PUT /a", &[LAST, EIGHT], &"x".repeat(1001)), 413),
    ] {
        assert_eq!(statuses(&converse(&input).said), [status], "{input}");
    }
    let expects = request("PUT /a", &[LAST, EIGHT, "Expect: 100-continue"], "abc");
    assert_eq!(statuses(&converse(&expects).said), [104, 100, 201], "104 does not replace 100");
}

#[test]
fn an_upload_is_begun_continued_and_told() {
    let input = [
        request("PUT /a%20b", &[MORE, EIGHT, "Upload-Length: 3"], "a"),
        ask(0, &[EIGHT]),
        patch(0, 1, &[MORE, EIGHT], "b"),
        patch(0, 2, &[LAST, EIGHT], "c"),
        ask(0, &[EIGHT]),
    ];
    let transcript = converse(&input.concat());
    let limit = "Upload-Limit: max-size=1000\r\n";
    let receipt = "Content-Type: text/plain; charset=utf-8\r\n";
    let last = format!("Upload-Complete: ?1\r\nUpload-Offset: 3\r\n{DATE}Content-Length: 15\r\n\r\ndone 3 - a b\n");
    let expected = [
        format!(
            "HTTP/1.1 201 Created\r\nLocation: {}\r\nUpload-Complete: ?0\r\nUpload-Offset: 1\r\n{limit}{DATE}\
             Content-Length: 0\r\n\r\n",
            place(0)
        ),
        format!(
            "HTTP/1.1 204 No Content\r\nUpload-Complete: ?0\r\nUpload-Offset: 1\r\nUpload-Length: 3\r\n{limit}{DATE}\r\n"
        ),
        format!("HTTP/1.1 204 No Content\r\nUpload-Complete: ?0\r\nUpload-Offset: 2\r\n{limit}{DATE}\r\n"),
        format!("HTTP/1.1 201 Created\r\nLocation: /a%20b\r\n{receipt}{}", last.replace("15", "13")),
        format!(
            "HTTP/1.1 204 No Content\r\nUpload-Complete: ?1\r\nUpload-Offset: 3\r\nUpload-Length: 3\r\n{limit}\
             Content-Location: /a%20b\r\n{DATE}\r\n"
        ),
    ];
    assert_eq!(answers(&transcript.said)[1..], expected);
    assert_eq!((transcript.content.as_slice(), transcript.ended), (&b"abc"[..], 1));
    let six = converse(&[request("PUT /a", &[MORE, SIX], ""), patch(0, 0, &[MORE, SIX], "a")].concat()).said;
    assert_eq!(statuses(&six), [104, 201, 201], "version 6 answers every piece with 201");
}

#[test]
fn the_name_of_a_post_is_in_its_fields() {
    for (fields, name) in [
        ("Content-Disposition: inline; filename=\"a b.txt\"", "a%20b.txt"),
        ("Content-Disposition: attachment; filename=a.txt", "a.txt"),
        ("Content-Disposition: attachment; filename=\"x\"; filename*=UTF-8''%e6%97%a5%20b", "%E6%97%A5%20b"),
        ("Content-Disposition: inline; filename*=utf-8'en'a", "a"),
        ("Upload-Metadata: filename YSBiLnR4dA==,filetype dGV4dA==", "a%20b.txt"),
        ("Content-Disposition: inline\r\nUpload-Metadata: filename YSBiLnR4dA==", "a%20b.txt"),
    ] {
        let said = converse(&request("POST /", &[LAST, fields], "abc")).said;
        assert!(said.starts_with(&format!("HTTP/1.1 201 Created\r\nLocation: /{name}\r\n")), "{fields}: {said}");
    }
}

/// What is asked, what is said, and words of it.
#[test]
fn what_cannot_be_followed_is_refused_with_its_problem() {
    let post = |fields: &[&str]| request("POST /", &[&[LAST], fields].concat(), "abc");
    let own = place(0);
    let chunked = "Transfer-Encoding: chunked";
    for (case, status, words) in [
        (post(&[]), 400, "filename="),
        (post(&["Content-Disposition: inline; filename*=latin1''a"]), 400, "UTF-8"),
        (post(&["Content-Disposition: inline; filename=\"../x\""]), 403, "/"),
        (request("POST /", &[MORE, "Content-Type: multipart/form-data; boundary=x"], ""), 400, "filename="),
        (request("PUT /a", &[LAST, "Upload-Length: 4"], "abc"), 400, "#inconsistent-upload-length"),
        (request("PUT /a", &[MORE, "Upload-Length: 2"], "abc"), 400, "#inconsistent-upload-length"),
        (
            request("PUT /a", &[MORE, "Upload-Length: 1001"], ""),
            413,
            "\r\nUpload-Limit: max-size=1000, max-age=3600\r\n",
        ),
        (request("PUT /a", &[LAST, "Upload-Offset: 0"], "abc"), 400, "first byte"),
        (request("PUT /a", &[LAST, "Content-Encoding: gzip"], "abc"), 415, "Content-Encoding"),
        (request("PUT /a", &[LAST, "Repr-Digest: md5=:AAAA:"], "abc"), 400, "sha-256"),
        (request("PUT /a", &[LAST, chunked, "Trailer: Repr-Digest"], "0\r\n\r\n"), 400, "when the upload begins"),
        (request("PUT /a", &[LAST], "").replace("Content-Length: 0\r\n", ""), 411, "Content-Length"),
        (patch(0, 2, &[MORE], ""), 409, "#mismatching-upload-offset"),
        (patch(0, 2, &[MORE], "a"), 409, r#""expected-offset":0,"provided-offset":2"#),
        (patch(0, 0, &[LAST], "ab"), 400, "#inconsistent-upload-length"),
        (patch(0, 0, &[MORE, chunked], "4\r\nabcd\r\n0\r\n\r\n"), 400, "#inconsistent-upload-length"),
        (patch(0, 0, &[MORE, DIGEST_OF_ABC], "abd"), 422, "#digest-mismatched-values"),
        (
            request(&format!("PATCH {own}"), &[LAST, "Upload-Offset: 0"], "a"),
            415,
            "\r\nAccept-Patch: application/partial-upload, ",
        ),
        (request(&format!("PATCH {own}"), &[LAST, PIECE], "a"), 400, "Upload-Offset"),
        (patch(0, 0, &[LAST], "a").replace("Upload-Offset: 0", "Upload-Offset: -0"), 400, "Upload-Offset"),
        (ask(0, &[SIX, "Upload-Offset: 0"]), 400, ""),
        (request(&format!("DELETE {own}"), &[SIX, MORE], ""), 400, "Upload-Complete"),
        (patch(1, 0, &[LAST], "a"), 404, "begin it again"),
        (ask(1, &[]), 404, ""),
        (request(&format!("GET {own}"), &[], ""), 405, "\r\nAllow: HEAD, PATCH, DELETE, OPTIONS\r\n"),
    ] {
        let begun = request("PUT /first", &[MORE, "Upload-Length: 3"], "");
        let transcript = converse(&(begun + &case));
        let said = answers(&transcript.said)[1];
        assert!(statuses(said) == [status] && said.contains(words), "{case}: {said}");
        assert!(said.contains("\r\nContent-Type: application/problem+json\r\n"), "{case}: {said}");
        assert!(!said.contains("Tus-"), "{case}: {said}");
        assert_eq!(transcript.ended, 0, "{case}");
    }
}

/// A field that is no structured field of its type counts as one that is not there.
#[test]
fn a_field_of_another_type_is_ignored() {
    for field in ["Upload-Complete: 1", "Upload-Complete: true", "Upload-Complete: ?2", "Upload-Complete: \"?1\""] {
        let said = converse(&request("PUT /a", &[field, EIGHT], "abc")).said;
        assert!(said.starts_with("HTTP/1.1 201 Created\r\nLocation: /a\r\n") && !said.contains("Upload-"), "{said}");
    }
    let said = converse(&request("PUT /a", &["Upload-Complete: ?0;x=y", "Upload-Length: 3.0"], "abc")).said;
    assert!(said.contains("Upload-Complete: ?0\r\nUpload-Offset: 3\r\n"), "the length was not told: {said}");
}

/// A program may upgrade any request; a form is taken as what it is.
#[test]
fn a_form_with_the_field_is_a_form() {
    let form = "--x\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\nabc\r\n--x--\r\n";
    let said = converse(&request("POST /", &[LAST, EIGHT, "Content-Type: multipart/form-data; boundary=x"], form)).said;
    assert!(statuses(&said) == [201] && said.ends_with("done 3 - a\n"), "{said}");
}

#[test]
fn what_is_added_to_a_completed_upload_is_refused_and_an_empty_end_is_answered_again() {
    let whole = request("PUT /a", &[LAST], "abc");
    let said = converse(&[whole, patch(0, 3, &[LAST], "d")].concat()).said;
    let refused = answers(&said)[1];
    assert!(statuses(refused) == [400] && refused.contains("#completed-upload"), "{refused}");
    assert!(refused.contains("\r\nUpload-Offset: 3\r\n"), "{refused}");
}

#[test]
fn what_is_spoken_and_its_limits_are_told_to_who_asks() {
    for (target, version, limit) in
        [("*", "X: y", "max-age"), ("/", SIX, "expires"), ("/a", EIGHT, "max-age"), (&place(0), EIGHT, "max-age")]
    {
        let said = converse(&request(&format!("OPTIONS {target}"), &[version], "")).said;
        assert!(said.contains(&format!("\r\nUpload-Limit: max-size=1000, {limit}=3600\r\n")), "{said}");
        assert_eq!(
            said.contains("\r\nAccept-Patch: application/partial-upload, "),
            target.contains("uploads"),
            "{said}"
        );
    }
    let none = conversation::Server::with(Rules::default());
    let said = conversation::drive(none, request("OPTIONS /", &[], "").as_bytes(), &[], b"").said;
    assert!(said.contains("\r\nUpload-Limit: min-size=0\r\n"), "{said}");
}

#[test]
fn a_page_of_an_allowed_origin_may_send_and_read_it_all() {
    let origin = "Origin: https://app.example";
    let preflight = request("OPTIONS /a", &[origin, "Access-Control-Request-Method: PUT"], "");
    let said = converse(&[preflight, request("PUT /a", &[MORE, origin], "")].concat()).said;
    let lists = |field: &str, name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split(", ").any(|listed| listed == name)
    };
    for name in
        ["Upload-Complete", "Upload-Offset", "Upload-Length", "Upload-Draft-Interop-Version", "Content-Disposition"]
    {
        assert!(lists("Access-Control-Allow-Headers: ", name), "{name}");
    }
    for name in ["Location", "Upload-Complete", "Upload-Offset", "Upload-Length", "Upload-Limit", "Repr-Digest"] {
        assert!(lists("Access-Control-Expose-Headers: ", name), "{name}");
    }
}

/// Sends the head of a request whose content has `length` bytes.
fn begin(address: SocketAddr, line: &str, fields: &[&str], length: usize) -> TcpStream {
    let mut stream = connect(address).unwrap();
    stream.write_all(head(line, fields, length).as_bytes()).unwrap();
    stream
}

fn send(server: &Server, line: &str, fields: &[&str], content: &[u8]) -> Answer {
    let mut stream = begin(server.tcp(), line, fields, content.len());
    stream.write_all(content).unwrap();
    Answer::read(&mut stream, line)
}

fn asked(server: &Server, place: &str) -> Answer {
    send(server, &format!("HEAD {place}"), &[], b"")
}

fn append(server: &Server, place: &str, offset: usize, fields: &[&str], content: &[u8]) -> Answer {
    let offset = format!("Upload-Offset: {offset}");
    send(server, &format!("PATCH {place}"), &[&[PIECE, offset.as_str()], fields].concat(), content)
}

fn digest_field(file: &[u8]) -> String {
    use base64::Engine;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(file);
    let hex = hasher.finish().to_hex();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The last answer may be lost, and the server may be killed before its client asks again.
#[test]
fn a_stored_upload_is_known_after_the_server_was_killed() {
    for sync in ["full", "none"] {
        let home = Server::home();
        let mut server = Server::start_in(&home, &["--sync", sync]);
        assert_eq!(send(&server, "PUT /a", &[], b"other").status, 201);
        let begun = send(&server, "PUT /a", &[MORE, REPR_DIGEST_OF_ABC], b"ab");
        let place = &begun.fields["location"];
        assert_eq!(append(&server, place, 2, &[LAST], b"c").status, 201);
        server.signal(Signal::KILL);
        server.wait();
        let server = Server::start_in(&home, &["--sync", sync]);
        let told = asked(&server, place);
        assert_eq!((told.status, told.offset(), &*told.fields["upload-complete"]), (204, 3, "?1"), "--sync {sync}");
        assert_eq!(told.fields["content-location"], "/a.1");
        assert_eq!(format!("Repr-Digest: {}", told.fields["repr-digest"]), REPR_DIGEST_OF_ABC);
        let again = append(&server, place, 3, &[LAST], b"");
        assert!(again.status == 201 && again.content.ends_with(" a.1\n"), "{}", again.content);
        assert_eq!(append(&server, place, 2, &[LAST], b"c").status, 409);
        assert_eq!(append(&server, place, 3, &[LAST], b"d").status, 400);
        assert_eq!(server.files().len(), 2);
    }
}

/// The file comes in one PUT that is cut off, then in a PATCH during which the server is killed.
#[test]
fn an_upload_survives_broken_connections_and_a_killed_server() {
    for (sync, has_digest) in [("full", false), ("full", true), ("none", true)] {
        let home = Server::home();
        let file = content(24 << 20, 1);
        let mut server = Server::start_in(&home, &["--sync", sync]);
        let digest = digest_field(&file);
        let told = format!("Repr-Digest: {digest}");
        let mut fields = vec![LAST, EIGHT];
        fields.extend(has_digest.then_some(told.as_str()));

        let mut stream = begin(server.tcp(), "PUT /file", &fields, file.len());
        stream.write_all(&file[..3 << 20]).unwrap();
        let announced = Answer::read_next(&mut stream, "PUT");
        assert_eq!((announced.status, &*announced.fields["upload-draft-interop-version"]), (104, "8"));
        let place = announced.fields["location"].clone();
        await_length(&server, 3 << 20);
        drop(stream);
        let first = asked(&server, &place);
        assert_eq!((first.status, first.offset(), &*first.fields["upload-complete"]), (204, 3 << 20, "?0"));
        assert_eq!(first.fields["upload-length"], file.len().to_string());
        assert!(first.fields["upload-limit"].contains("max-age=86"), "{:?}", first.fields);

        let offset = format!("Upload-Offset: {}", 3 << 20);
        let line = format!("PATCH {place}");
        let mut stream = begin(server.tcp(), &line, &[PIECE, LAST, &offset], file.len() - (3 << 20));
        stream.write_all(&file[3 << 20..21 << 20]).unwrap();
        server.signal(Signal::KILL);
        server.wait();
        let server = Server::start_in(&home, &["--sync", sync]);
        let held = asked(&server, &place).offset();
        assert!((3 << 20..=21 << 20).contains(&held), "an offset that was told is kept: {held}");

        let answer = append(&server, &place, held, &[LAST], &file[held..]);
        assert_eq!((answer.status, &*answer.fields["location"], answer.offset()), (201, "/file", file.len()));
        assert_eq!(answer.fields.get("repr-digest"), has_digest.then_some(&digest), "--sync {sync}");
        assert_eq!(fs::read(server.dir().join("file")).unwrap(), file, "--sync {sync}");
        let after = asked(&server, &place);
        assert_eq!((&*after.fields["upload-complete"], after.offset()), ("?1", file.len()));
        assert_eq!(after.fields.get("repr-digest"), has_digest.then_some(&digest));
        let again = append(&server, &place, file.len(), &[LAST], b"");
        assert_eq!((again.status, &*again.fields["location"]), (201, "/file"), "the answer was lost");
        assert_eq!(append(&server, &place, file.len(), &[LAST], b"x").status, 400);
    }
}

#[test]
fn a_wrong_digest_of_the_whole_removes_the_upload() {
    let server = Server::start(&[]);
    let begun = send(&server, "PUT /a", &[MORE, REPR_DIGEST_OF_ABC], b"ab");
    let place = &begun.fields["location"];
    let other = format!("Repr-Digest: {}", digest_field(b"other"));
    assert_eq!(append(&server, place, 2, &[LAST, &other], b"c").status, 400, "it is another one than was told");
    let refused = append(&server, place, 2, &[LAST, REPR_DIGEST_OF_ABC], b"d");
    assert!(refused.status == 422 && refused.content.contains("#digest-mismatched-values"), "{}", refused.content);
    assert_eq!(asked(&server, place).status, 404);
    assert!(server.files().is_empty() && server.partials().is_empty());

    let begun = send(&server, "PUT /a", &[MORE, REPR_DIGEST_OF_ABC], b"ab");
    let stored = append(&server, &begun.fields["location"], 2, &[LAST, DIGEST_OF_ABC], b"d");
    assert_eq!(stored.status, 422, "the digest of the piece is not that of the whole");
    let c = format!("Content-Digest: {}", digest_field(b"c"));
    let stored = append(&server, &begun.fields["location"], 2, &[LAST, &c], b"c");
    assert_eq!((stored.status, stored.content.starts_with("done 3 sha256:ba78")), (201, true), "{}", stored.content);
    server.await_file("a", b"abc");
}

/// Its last byte has come, but not the end of the request. A client that asks may forget its file, so it must be stored.
#[test]
fn an_upload_that_is_whole_is_stored_when_its_client_asks() {
    let home = Server::home();
    let mut server = Server::start_in(&home, &[]);
    let begun = send(&server, "PUT /a", &[MORE, "Upload-Length: 3", REPR_DIGEST_OF_ABC], b"");
    let place = &begun.fields["location"];
    let fields = [PIECE, LAST, "Upload-Offset: 0", "Transfer-Encoding: chunked"];
    let mut stream = begin(server.tcp(), &format!("PATCH {place}"), &fields, 0);
    stream.write_all(b"3\r\nabc\r\n").unwrap();
    await_length(&server, 3);
    drop(stream);
    server.signal(Signal::TERM);
    server.wait();
    let server = Server::start_in(&home, &[]);
    assert!(server.files().is_empty(), "nobody has completed it");
    let told = asked(&server, place);
    assert_eq!((told.status, told.offset(), &*told.fields["upload-complete"]), (204, 3, "?1"));
    assert_eq!(told.fields["content-location"], "/a");
    assert_eq!(fs::read(server.dir().join("a")).unwrap(), b"abc");
}

/// A taken name is refused at the beginning, or at the end if it is taken meanwhile. What the client hears is in the log.
#[test]
fn a_taken_name_is_refused_and_logged_with_the_code_that_the_client_hears() {
    let server = Server::start(&[]);
    let new = send(&server, "PUT /a", &[MORE, "If-None-Match: *"], b"");
    assert_eq!(send(&server, "PUT /a", &[LAST], b"abc").status, 201);
    for fields in [&[MORE, "If-None-Match: *"][..], &["If-None-Match: *"]] {
        assert_eq!(send(&server, "PUT /a", fields, b"").status, 412);
    }
    let late = append(&server, &new.fields["location"], 0, &[LAST], b"abd");
    assert_eq!((late.status, asked(&server, &new.fields["location"]).status), (409, 404));
    let second = send(&server, "PUT /a", &[LAST], b"abd");
    assert_eq!((second.status, &*second.fields["location"]), (201, "/a.1"));
    server.signal(Signal::USR1);
    await_until("the statistics", || server.log().contains("1 refused with 409, 2 refused with 412"));
}

#[test]
fn the_newest_request_wins_and_a_removed_upload_is_gone() {
    let server = Server::start(&[]);
    let mut older = begin(server.tcp(), "PUT /a", &[LAST, EIGHT], 9);
    older.write_all(b"abc").unwrap();
    let place = Answer::read_next(&mut older, "PUT").fields["location"].clone();
    await_length(&server, 3);
    assert_eq!(asked(&server, &place).offset(), 3);
    let refused = Answer::read(&mut older, "PUT");
    assert_eq!((refused.status, &*refused.fields["connection"]), (409, "close"));
    assert_eq!(append(&server, &place, 3, &[MORE], b"def").offset(), 6);
    assert_eq!(send(&server, &format!("DELETE {place}"), &[], b"").status, 204);
    assert_eq!((asked(&server, &place).status, server.partials().len()), (404, 0));
}

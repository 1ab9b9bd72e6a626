//! HTTP in the conversation: every split of every request, and content that must never be run as a request.

use intake::proto::{Dialect, Farewell, Page, Rules, Web};

use crate::conversation::{Server, Transcript, assert_no_cut_matters, drive};

/// SHA-256 of `abc`, as a field spells it (FIPS 180-4).
const SHA_OF_ABC: &str = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
/// SHA-256 of empty content.
const SHA_OF_NOTHING: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

/// A request that must not be run.
const EVIL: &str = "PUT /evil HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nevil";

fn rules() -> Rules {
    let page = Page { html: "<p>page".into(), policy: "default-src 'none'".into() };
    let web = Web { hosts: vec!["drop.example".into()], origins: vec!["https://app.example".into()], page: Some(page) };
    Rules { web, now: 784_111_777, max_file_size: Some(1000), ..Rules::default() }
}

/// A request: its first line without the version, its fields besides Host, and its content.
fn request(line: &str, fields: &[&str], content: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n{fields}\r\n{content}")
}

fn put(name: &str, fields: &[&str], content: &str) -> String {
    let length = format!("Content-Length: {}", content.len());
    request(&format!("PUT /{name}"), &[&[length.as_str()], fields].concat(), content)
}

fn chunked(name: &str, fields: &[&str], content: &str) -> String {
    request(&format!("PUT /{name}"), &[&["Transfer-Encoding: chunked"], fields].concat(), content)
}

/// A form of these files, under these names.
fn form(fields: &[&str], files: &[(&str, &str)]) -> String {
    let part = |(name, content): &(&str, &str)| {
        format!("--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n")
    };
    let content = files.iter().map(part).chain(["--xYz--\r\n".to_owned()]).collect::<String>();
    let (length, kind) =
        (format!("Content-Length: {}", content.len()), "Content-Type: multipart/form-data; boundary=xYz");
    request("POST /", &[&[length.as_str(), kind], fields].concat(), &content)
}

fn converse(input: &str) -> Transcript {
    drive(Server::with(rules()), input.as_bytes(), &[], b"")
}

/// The status of each answer, 100 included.
fn statuses(said: &str) -> Vec<u16> {
    said.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

fn stored(transcript: &Transcript) -> Vec<&str> {
    transcript.requests.iter().map(|(_, name)| name.as_str()).collect()
}

#[test]
fn every_split_of_every_request_means_the_same() {
    let trailer = format!("3\r\nabc\r\n0\r\nRepr-Digest: {SHA_OF_ABC}\r\n\r\n");
    let inputs = [
        put("a", &[], "abc"),
        put("a%20b", &["Expect: 100-continue"], "abc"),
        [put("a", &[], "abc"), put("b", &[], ""), chunked("c", &[], "2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n")].concat(),
        chunked("c", &["Trailer: Repr-Digest"], &trailer),
        put("a", &[&format!("Repr-Digest: {SHA_OF_ABC}")], "abc"),
        [put("a", &[&format!("Repr-Digest: {SHA_OF_NOTHING}")], "abc"), put("b", &[], "x")].concat(),
        [put("taken", &["If-None-Match: *"], "abc"), EVIL.into()].concat(),
        [put("..%2fx", &[], "abc"), EVIL.into()].concat(),
        [put("a", &["Connection: close"], "abc"), EVIL.into()].concat(),
        [request("GET /", &[], ""), request("GET /x", &[], ""), put("a", &[], "abc")].concat(),
        "GET / HTTP/1.1\nHost: localhost\n\n".into(),
        "GET / HTTP/2.0\r\n\r\n".into(),
        ["GET /\r\n\r\n".into(), EVIL.to_owned()].concat(),
        [chunked("c", &[], "3\r\nabcd\r\n0\r\n\r\n"), EVIL.into()].concat(),
        [put("a", &[], "abc"), "/put size=1 b\nx".into()].concat(),
        "/put size=1 a\nxGET / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        put("a", &[], "abc")[..60].into(),
        [form(&[], &[("a", "one"), ("taken", "two"), ("../b", "x"), ("c", "\r\n--xY")]), put("d", &[], "x")].concat(),
        form(&["Expect: 100-continue"], &[("a", "one"), ("", "")]),
        "PUT /a HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".into(),
    ];
    for input in inputs {
        assert_no_cut_matters(|| Server::with(rules()), &input, 7);
    }
}

#[test]
fn a_put_is_created_and_the_next_one_may_follow() {
    let transcript = converse(&[put("a%20b", &[], "abc"), chunked("c", &[], "1\r\nd\r\n0\r\n\r\n")].concat());
    let expected = "HTTP/1.1 201 Created\r\nLocation: /a%20b\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: no-store\r\nContent-Length: 13\r\n\r\ndone 3 - a b\n";
    assert!(transcript.said.starts_with(expected), "{}", transcript.said);
    assert!(transcript.said.ends_with("\r\n\r\ndone 1 - c\n"), "{}", transcript.said);
    assert_eq!(transcript.requests, [(Dialect::Http, "a b".into()), (Dialect::Http, "c".into())]);
    assert_eq!((transcript.content.as_slice(), transcript.ended), (&b"abcd"[..], 2));
}

#[test]
fn a_client_that_expects_it_is_told_to_continue_or_refused_before_any_content() {
    let head = |name| put(name, &["Expect: 100-continue"], "abc").strip_suffix("abc").unwrap().to_owned();
    let mut server = Server::with(rules());
    server.feed(head("a").as_bytes());
    assert_eq!(server.transcript.said, "HTTP/1.1 100 Continue\r\n\r\n");
    server.feed(b"abc");
    let transcript = server.finish();
    assert_eq!(statuses(&transcript.said), [100, 201]);
    assert_eq!(transcript.requests, [(Dialect::HttpExpect, "a".into())]);

    // The client may send the content all the same, so the connection cannot be used any more.
    let transcript = converse(&[head("taken"), EVIL.into()].concat());
    assert_eq!((statuses(&transcript.said), stored(&transcript)), (vec![409], vec!["taken"]));
    assert!(transcript.said.contains("\r\nConnection: close\r\n"), "{}", transcript.said);
    assert_eq!(transcript.discarded, EVIL.len());
}

#[test]
fn a_digest_is_compared_and_told() {
    let digest = format!("Content-Digest: {SHA_OF_ABC}");
    let good = converse(&put("a", &[&digest], "abc"));
    assert!(good.said.contains(&format!("\r\nRepr-Digest: {SHA_OF_ABC}\r\n")), "{}", good.said);
    assert!(good.said.contains("\r\n\r\ndone 3 sha256:ba7816bf"), "{}", good.said);
    let wrong = converse(&[put("a", &[&digest], "abd"), put("b", &[], "x")].concat());
    assert_eq!((statuses(&wrong.said), wrong.ended, wrong.failed.len()), (vec![422, 201], 1, 1));
    let trailer = |digest| format!("3\r\nabc\r\n0\r\ncontent-digest: {digest}\r\n\r\n");
    let announced = ["Trailer: Content-Digest"];
    let good = converse(&chunked("a", &announced, &trailer(SHA_OF_ABC)));
    assert!(good.said.contains(&format!("\r\nRepr-Digest: {SHA_OF_ABC}\r\n")), "{}", good.said);
    assert_eq!(statuses(&converse(&chunked("a", &announced, &trailer(SHA_OF_NOTHING))).said), [422]);
    assert_eq!(statuses(&converse(&chunked("a", &[], &trailer(SHA_OF_ABC))).said), [400], "it was not announced");
}

#[test]
fn a_taken_name_is_a_conflict_or_a_failed_precondition() {
    assert_eq!(statuses(&converse(&put("taken", &[], "abc")).said), [409]);
    let transcript = converse(&put("taken", &["If-None-Match: *"], "abc"));
    assert!(transcript.said.ends_with("\r\n\r\nno 412 the name is taken\n"), "{}", transcript.said);
    let transcript = converse(&put("taken", &["Accept: application/problem+json"], "abc"));
    assert!(transcript.said.ends_with(r#"{"detail":"the name is taken","status":409,"title":"Conflict"}"#));
}

#[test]
fn each_file_of_a_form_has_its_line_in_one_answer() {
    let transcript = converse(&[form(&[], &[("a", "one"), ("b c", "")]), put("d", &[], "x")].concat());
    assert_eq!((statuses(&transcript.said), stored(&transcript)), (vec![201, 201], vec!["a", "b c", "d"]));
    assert!(transcript.said.contains("\r\n\r\ndone 3 - a\ndone 0 - b c\nHTTP/1.1 201"), "{}", transcript.said);
    assert_eq!((transcript.content.as_slice(), transcript.ended), (&b"onex"[..], 3));

    let some =
        converse(&[form(&[], &[("a", "one"), ("taken", "t"), ("-rf", "x"), ("e", "2")]), put("d", &[], "x")].concat());
    assert_eq!((statuses(&some.said), some.ended), (vec![409, 201], 3));
    let lines = "done 3 - a\nno 409 the name is taken\nno 403 the name begins with a dash\ndone 1 - e\n";
    assert!(some.said.contains(lines), "{}", some.said);

    let asked = converse(&form(&["Expect: 100-continue"], &[("a", "one")]));
    assert_eq!(statuses(&asked.said), [100, 201]);
}

#[test]
fn the_answer_to_a_form_waits_for_all_its_files() {
    let mut server = Server { late: true, ..Server::with(rules()) };
    server.feed(form(&[], &[("a", "1"), ("b", "2")]).as_bytes());
    server.send();
    assert_eq!((server.transcript.said.as_str(), server.unsettled.len()), ("", 2));
    let transcript = server.finish();
    assert!(transcript.said.ends_with("\r\n\r\ndone 1 - a\ndone 1 - b\n"), "{}", transcript.said);
}

#[test]
fn a_form_of_a_thousand_files_never_owes_more_than_a_bounded_number() {
    let names: Vec<String> = (0..1000).map(|n| format!("f{n}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let input = form(&[], &files);
    let mut server = Server { late: true, ..Server::with(Rules { max_file_size: None, ..rules() }) };
    server.feed(input.as_bytes());
    assert!(server.unsettled.len() <= 64);
    let transcript = server.finish();
    assert_eq!((transcript.ended, statuses(&transcript.said)), (1000, vec![201]));
    let expected: String = names.iter().map(|name| format!("done 1 - {name}\n")).collect();
    assert!(transcript.said.ends_with(&format!("\r\n\r\n{expected}")));
}

#[test]
fn a_browser_is_answered_readably() {
    let said = converse(&form(&["Accept: text/html,*/*;q=0.8"], &[("a<b>&", "one"), ("taken", "x")])).said;
    assert!(
        said.starts_with("HTTP/1.1 409 ") && said.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"),
        "{said}"
    );
    assert!(said.contains("done 3 - a&lt;b>&amp;\nno 409 the name is taken\n</pre>"), "{said}");
}

/// A file without a boundary behind it is not whole, and what follows the form is not run.
#[test]
fn a_form_that_is_broken_ends_with_its_answer() {
    let cut = |form: &str, at: &str| {
        let (head, content) = form.split_once("\r\n\r\n").unwrap();
        let content = &content[..content.find(at).unwrap()];
        let length =
            |line: &str| line.starts_with("Content-Length").then(|| format!("Content-Length: {}", content.len()));
        let head: Vec<String> = head.lines().map(|line| length(line).unwrap_or_else(|| line.to_owned())).collect();
        format!("{}\r\n\r\n{content}", head.join("\r\n"))
    };
    let whole = form(&[], &[("a", "one"), ("b", "two")]);
    for (input, ended, lines) in [
        (cut(&whole, "two"), 1, "done 3 - a\nno 400 "),
        (cut(&whole, "\r\n--xYz--"), 1, "done 3 - a\nno 400 "),
        (cut(&whole, "--xYz--"), 1, "done 3 - a\nno 400 "),
        (cut(&whole, "--\r\n"), 2, "done 3 - a\ndone 3 - b\nno 400 "),
        (form(&[], &[]), 0, "no 400 the form holds no file"),
        (form(&[], &[("", "")]), 0, "no 400 the form holds no file"),
        (form(&[], &[("a", "one"), ("b", &"x".repeat(1001)), ("c", "x")]), 1, "done 3 - a\nno 413 "),
        (
            whole.replace("form-data; name=\"file\"; filename=\"b\"", "attachment; name=\"file\"; filename=\"b\""),
            1,
            "done 3 - a\nno 400 ",
        ),
    ] {
        let transcript = converse(&[&input, EVIL].concat());
        assert_eq!((transcript.ended, statuses(&transcript.said).len()), (ended, 1), "{input}: {}", transcript.said);
        assert!(transcript.said.contains(&format!("\r\n\r\n{lines}")), "{input}: {}", transcript.said);
        assert!(transcript.said.contains("\r\nConnection: close\r\n"), "{input}: {}", transcript.said);
        assert!(!stored(&transcript).contains(&"evil"), "{input}");
        assert_eq!(transcript.farewell, Some(Farewell::Close));
    }
}

#[test]
fn only_the_page_can_be_fetched() {
    let transcript =
        converse(&[request("GET /", &[], ""), request("HEAD /", &[], ""), request("GET /x", &[], "")].concat());
    assert_eq!((statuses(&transcript.said), transcript.answered), (vec![200, 200, 405], vec!["the page", "the page"]));
    assert_eq!(transcript.said.matches("<p>page").count(), 1, "a HEAD has no content");
    for field in [
        "Content-Type: text/html; charset=utf-8",
        "Content-Security-Policy: default-src 'none'",
        "X-Content-Type-Options: nosniff",
        "X-Frame-Options: DENY",
        "Allow: PUT, OPTIONS",
    ] {
        assert!(transcript.said.contains(&format!("\r\n{field}\r\n")), "{field}: {}", transcript.said);
    }
    let none = Rules { web: Web::default(), ..rules() };
    let transcript = drive(Server::with(none), request("GET /", &[], "").as_bytes(), &[], b"");
    assert_eq!(statuses(&transcript.said), [405]);
    let link = converse(&request("GET /", &["Sec-Fetch-Site: cross-site", "Referer: https://wiki.example/"], ""));
    assert_eq!(statuses(&link.said), [200], "a link may lead to the page");
}

#[test]
fn an_allowed_page_is_answered_and_no_other() {
    let preflight = |origin: &str| {
        let origin = format!("Origin: {origin}");
        converse(&request("OPTIONS /a", &[&origin, "Access-Control-Request-Method: PUT"], "")).said
    };
    let allowed = preflight("https://app.example");
    assert_eq!(statuses(&allowed), [204]);
    for field in ["Access-Control-Allow-Origin: https://app.example", "Access-Control-Allow-Methods: PUT, OPTIONS"] {
        assert!(allowed.contains(&format!("\r\n{field}\r\n")), "{allowed}");
    }
    let refused = preflight("https://evil.example");
    assert!(statuses(&refused) == [403] && !refused.contains("Access-Control"), "{refused}");
    let taken = converse(&put("taken", &["Origin: https://app.example"], "x")).said;
    assert!(taken.contains("Access-Control-Allow-Origin: https://app.example\r\n"), "it may read refusals: {taken}");
}

/// Requests that are refused whole: each is the last one of its connection.
#[test]
fn nothing_behind_a_refused_request_is_run() {
    let put_head = "PUT /a HTTP/1.1\r\nHost: localhost\r\n";
    let with = |fields: &str| format!("{put_head}{fields}\r\n");
    let many: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        // Framing (RFC 9112, 6).
        (with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Content-Length: 0\r\nContent-Length: 0\r\n"), 400),
        (with("Content-Length: +0\r\n"), 400),
        (with("Content-Length: 0 \r\n"), 400),
        (with("Content-Length: 0, 0\r\n"), 400),
        (with("Content-Length: 00000000000000000000\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: chunked, identity\r\n"), 400),
        (with("Transfer-Encoding: xchunked\r\n"), 501),
        (with("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (with("Connection: Content-Length\r\nContent-Length: 0\r\n"), 400),
        (with("Content-Length : 0\r\n"), 400),
        (with("Content-Length:\r\n 0\r\n"), 400),
        (with("X: y\r\n\tz\r\nContent-Length: 0\r\n"), 400),
        ("PUT /a HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        (with(""), 411),
        // Heads.
        ("GET /\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\nHost: localhost\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX\u{1}: a\r\n\r\n".into(), 400),
        ("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        ("GET / HTTP/1.2\r\nHost: localhost\r\n\r\n".into(), 505),
        (with(&format!("X: {}\r\n", "x".repeat(17_000))), 431),
        (with(&many), 431),
        // Host and visitors.
        ("PUT /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n".into(), 400),
        (with("Host: localhost\r\nContent-Length: 0\r\n"), 400),
        ("PUT /a HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n".into(), 421),
        ("PUT http://127.0.0.1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".into(), 400),
        (with("Origin: null\r\nContent-Length: 0\r\n"), 403),
        (with("Origin: http://evil.example\r\nContent-Length: 0\r\n"), 403),
        (with("Sec-Fetch-Site: same-site\r\nContent-Length: 0\r\n"), 403),
        // Names.
        (put("..%2fx", &[], "x"), 400),
        (put("a%00", &[], "x"), 400),
        (put("%ff", &[], "x"), 400),
        (put("%zz", &[], "x"), 400),
        (put("a/b", &[], "x"), 400),
        (put("", &[], "x"), 400),
        (put("a?b", &[], "x"), 400),
        (put("%2e", &[], "x"), 403),
        (put("%2e%2e", &[], "x"), 403),
        (put("-rf", &[], "x"), 403),
        (put("a%0Ab", &[], "x"), 403),
        // Fields of a PUT.
        (put("a", &["Content-Encoding: gzip"], "x"), 415),
        (put("a", &["Content-Range: bytes 500-999/1000"], "x"), 400),
        (put("a", &["Expect: 200-ok"], "x"), 417),
        (put("a", &["Repr-Digest: sha-512=:AAAA:"], "x"), 400),
        (put("a", &["If-Match: *"], "x"), 400),
        (put("a", &["Content-Length: 2000"], ""), 400),
        (with("Content-Length: 2000\r\n"), 413),
        // Other requests with content.
        (request("GET /", &["Content-Length: 4"], "evil"), 200),
        (request("POST /", &["Content-Length: 4"], "evil"), 415),
        (request("POST /", &["Content-Type: multipart/form-data; boundary=x"], ""), 411),
        (request("POST /", &["Content-Type: multipart/form-data", "Content-Length: 4"], "evil"), 400),
        (request("POST /a", &["Content-Length: 4"], "evil"), 405),
        (request("DELETE /a", &["Transfer-Encoding: chunked"], "0\r\n\r\n"), 405),
        // Content.
        (chunked("a", &[], "4\nevil\n0\n\n"), 400),
        (chunked("a", &[], "3\r\nevil\r\n0\r\n\r\n"), 400),
        (chunked("a", &[], "00000000000000004\r\nevil\r\n0\r\n\r\n"), 400),
        (chunked("a", &[], "0\r\nContent-Length: 4\r\n\r\n"), 400),
        (chunked("a", &[], "0\r\nX : y\r\n\r\n"), 400),
        (chunked("a", &[], "0\r\nX: y\n\r\n"), 400),
        (chunked("a", &[], &format!("4;{}\r\nevil\r\n0\r\n\r\n", "x".repeat(65_536))), 400),
        (put("taken", &["If-None-Match: *"], "x"), 412),
    ];
    for (case, status) in cases {
        let shown = &case[..case.len().min(200)];
        let transcript = converse(&[&case, EVIL].concat());
        assert_eq!(statuses(&transcript.said), [status], "{shown:?}: {}", transcript.said);
        assert!(!stored(&transcript).contains(&"evil"), "{shown:?}");
        assert!(transcript.said.contains("\r\nConnection: close\r\n"), "{shown:?}: {}", transcript.said);
        assert!(transcript.discarded >= EVIL.len() - 4, "{shown:?}");
    }
}

/// Another program may see one request here, whose content looks like a request.
#[test]
fn what_follows_a_chunk_line_that_is_too_long_is_not_run() {
    let content = format!("0\r\n\r\n{EVIL}");
    let (size, last) = (content.len(), "\r\n0\r\n\r\n");
    for length in 500..530 {
        let line = format!("{size:x};{}", "x".repeat(length - 3));
        let transcript = converse(&chunked("a", &[], &format!("{line}{}\r\n{content}{last}", "A".repeat(size))));
        assert!(!stored(&transcript).contains(&"evil"), "{length}: {}", transcript.said);
    }
}

#[test]
fn a_request_without_content_is_answered_and_the_next_one_served() {
    let inputs = ["GET /favicon.ico", "HEAD /a", "DELETE /a", "TRACE /", "OPTIONS *", "PROPFIND /"];
    let all: String = inputs.iter().map(|line| request(line, &[], "")).collect();
    let transcript = converse(&[all, put("a", &[], "x")].concat());
    assert_eq!(statuses(&transcript.said), [405, 405, 405, 405, 204, 405, 201]);
    assert!(!transcript.said.contains("Connection:"), "{}", transcript.said);
}

#[test]
fn a_connection_is_kept_as_long_as_its_client_wants() {
    let closes = converse(&[&put("a", &["Connection: x, Close"], "abc"), EVIL].concat());
    assert_eq!((stored(&closes), closes.discarded, closes.farewell), (vec!["a"], EVIL.len(), Some(Farewell::Close)));
    assert!(closes.said.contains("\r\nConnection: close\r\n"), "{}", closes.said);
    let old = |fields: &str| format!("PUT /a HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1\r\n{fields}\r\nx");
    assert_eq!(stored(&converse(&[&old(""), EVIL].concat())), ["a"]);
    let kept = converse(&[&old("Connection: keep-alive\r\n"), EVIL].concat());
    assert_eq!(stored(&kept), ["a", "evil"]);
    assert!(kept.said.contains("\r\nConnection: keep-alive\r\n"), "{}", kept.said);
}

#[test]
fn a_client_that_has_sent_its_last_request_is_lingered_for() {
    let mut server = Server::with(rules());
    server.feed(put("a", &["Connection: close"], "abc").as_bytes());
    assert_eq!(server.farewell(), Some(Farewell::Linger));
}

#[test]
fn one_connection_speaks_one_kind_of_dialect() {
    let transcript = converse(&[&put("a", &[], "abc"), "/put size=1 b\nx"].concat());
    assert_eq!((statuses(&transcript.said), stored(&transcript)), (vec![201, 400], vec!["a"]));
    let transcript = converse("/put size=1 a\nxGET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(stored(&transcript), ["a"]);
    assert!(transcript.said.ends_with("no 400 after a /put or /ask only /put, /ask or /bye may come\n"));
}

#[test]
fn content_of_http_is_spliced_as_that_of_put() {
    for (input, spliceable) in [
        (put("a", &[], "abcdefgh")[..put("a", &[], "abcdefgh").len() - 6].to_owned(), 6),
        (chunked("a", &[], "8\r\nabc"), 5),
        (chunked("a", &[], "3\r\nabc"), 0),
        (chunked("a", &["Trailer: Repr-Digest"], "8\r\nabc"), 0),
    ] {
        let mut server = Server::with(rules());
        server.feed(input.as_bytes());
        assert_eq!(server.receiver.spliceable(&server.rules), spliceable, "{input}");
    }
}

#[test]
fn replies_come_in_the_order_of_their_requests() {
    let mut server = Server { late: true, ..Server::with(rules()) };
    let input: String = ["a", "b", "c"].iter().map(|name| put(name, &[], name)).collect();
    server.feed(input.as_bytes());
    server.feed(request("GET /x", &[], "").as_bytes());
    server.end_of_stream();
    let said = server.finish().said;
    let at = |words: &str| said.find(words).unwrap_or_else(|| panic!("{words}: {said}"));
    assert!(at("/a\r\n") < at("/b\r\n") && at("/b\r\n") < at("/c\r\n") && at("/c\r\n") < at("405"), "{said}");
}

#[test]
fn a_server_that_shuts_down_answers_what_was_asked_and_says_nothing_to_who_asked_nothing() {
    let drained = |before: &str, input: &str| {
        let mut server = Server::with(rules());
        server.feed(before.as_bytes());
        server.transcript.said.clear();
        server.rules.is_draining = true;
        server.feed(input.as_bytes());
        let _ = server.receiver.end_of_requests(&server.rules);
        server.send();
        statuses(&server.transcript.said)
    };
    let request = put("a", &[], "abc");
    assert_eq!(drained("", &request), [503]);
    assert_eq!(drained("", &request[..30]), [503]);
    assert_eq!(drained(&request, ""), [0_u16; 0]);
    assert_eq!(drained(&request, &request), [503]);
    assert_eq!(drained(&request[..request.len() - 1], "c"), [201], "what has begun is finished");
}

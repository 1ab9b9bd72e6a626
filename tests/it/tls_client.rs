//! `intake send` and `intake load` over TLS: whom they believe, what they say of it, and which ends they believe.

use std::io::{Read, Write};

use crate::certificates::{Issuer, Secured, announce_end, end_like_killed, serve_tls};
use crate::fixture::Server;
use crate::load::Run;
use crate::send::{Sender, stderr};

/// Sends a file with `options`, and returns the exit code and what is said on standard error.
fn send(to: impl ToString, options: &[&str]) -> (Option<i32>, String) {
    let sender = Sender::new();
    sender.write("a.txt", b"hello");
    let output = sender.run(to, &[&["a.txt", "--retry", "0"], options].concat());
    (output.status.code(), stderr(&output).to_owned())
}

#[test]
fn an_expired_certificate_is_refused_with_its_date_unless_it_is_pinned() {
    let issuer = Issuer::new();
    let pair = issuer.sign_expired("server", &["127.0.0.1"]);
    let server = serve_tls(&pair, |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"no 403 enough\n");
        announce_end(stream);
    });
    let (code, words) = send(server, &["--tls-ca", issuer.path().to_str().unwrap()]);
    assert!(code == Some(3) && words.contains("has expired, on ") && words.contains(" GMT"), "{words}");
    let (code, words) = send(server, &["--tls-pin", &pair.fingerprint()]);
    assert!(code == Some(1) && words.contains("enough"), "{words}");
}

#[test]
fn tls_to_a_plain_port_and_plain_to_tls_are_told() {
    let server = Server::start(&[]);
    let (code, words) = send(server.tcp(), &["--tls"]);
    assert!(code == Some(3) && words.contains("is not TLS") && words.contains("it said \"no "), "{words}");
    let issuer = Issuer::new();
    // OpenSSL and rustls answer with an alert.
    let secure = serve_tls(&issuer.sign("server", &["127.0.0.1"]), |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        end_like_killed(stream);
    });
    let (code, words) = send(secure, &[]);
    assert!(code == Some(1) && words.contains("the server speaks TLS"), "{words}");
}

/// What a server does on a connection.
type Script = fn(Secured);

/// Reads until the content of the only upload has come.
fn read_to_hello(stream: &mut Secured) {
    let mut read = Vec::new();
    while !read.windows(5).any(|part| part == b"hello") {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).expect("the sender sends");
        read.extend_from_slice(&piece[..length]);
    }
}

/// Reads to the announced end, and returns whether there was one.
fn read_to_end(stream: &mut Secured) -> bool {
    stream.read_to_end(&mut Vec::new()).is_ok()
}

#[test]
fn an_end_that_the_server_has_not_announced_is_believed_only_where_the_framing_told_the_outcome() {
    let issuer = Issuer::new();
    let pair = issuer.sign("server", &["127.0.0.1"]);
    let pin = pair.fingerprint();
    let scripts: [(&str, Script, Option<&str>); 8] = [
        ("classic", |stream| classic_script(stream, announce_end), None),
        ("classic", |stream| classic_script(stream, end_like_killed), Some("may be stored or not")),
        ("line", |stream| line_script(stream, b"done 5 - a.txt\n"), None),
        ("line", |stream| line_script(stream, b"done 5 - a.tx"), Some("may be stored or not")),
        ("put", |stream| framed_script(stream, b"done 5 crc32c:9a71bb4c a.txt\n"), None),
        ("put", |stream| framed_script(stream, b"done 5 crc32c:9a71bb4c a"), Some("may be stored or not")),
        ("http", |stream| framed_script(stream, b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"), None),
        ("http", |stream| framed_script(stream, b"HTTP/1.1 201 Created\r\n\r\nok"), Some("may be stored or not")),
    ];
    for (dialect, script, doubt) in scripts {
        let (code, words) = send(serve_tls(&pair, script), &["--tls-pin", &pin, "--dialect", dialect]);
        match doubt {
            None => assert_eq!((code, words.as_str()), (Some(0), ""), "{dialect}"),
            Some(doubt) => assert!(code == Some(1) && words.contains(doubt), "{dialect}: {words}"),
        }
    }
}

fn classic_script(mut stream: Secured, end: fn(Secured)) {
    stream.read_exact(&mut [0; 5]).unwrap();
    stream.write_all(b"ok").unwrap();
    assert!(read_to_end(&mut stream), "the sender announces its end");
    end(stream);
}

fn line_script(mut stream: Secured, answer: &[u8]) {
    assert!(read_to_end(&mut stream), "the sender announces its end");
    stream.write_all(answer).unwrap();
    end_like_killed(stream);
}

fn framed_script(mut stream: Secured, answer: &[u8]) {
    read_to_hello(&mut stream);
    stream.write_all(answer).unwrap();
    end_like_killed(stream);
}

#[test]
fn a_load_on_a_server_that_is_not_believed_ends_at_once() {
    let issuer = Issuer::new();
    let pair = issuer.sign("server", &["127.0.0.1"]);
    let server = serve_tls(&pair, |mut stream| drop(stream.read(&mut [0; 100])));
    let run = Run::load(server, &format!("--files 100 --tls-pin sha256:{}", "0".repeat(64)));
    assert!(run.exit() == 3 && run.text().contains(&pair.fingerprint()), "{}", run.text());
    let run = Run::load(server, "--udp --tls");
    assert!(run.exit() == 2 && run.text().contains("not for datagrams"), "{}", run.text());
}

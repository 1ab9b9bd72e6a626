//! `intake send` and `intake load` over TLS: whom they believe, what they say of it, and which ends they believe.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use crate::certificates::{Issuer, Pair, Secured, announce_end, end_like_killed, serve_tls};
use crate::fixture::*;
use crate::http_client::Nginx;
use crate::load::{Run, figure};
use crate::send::{Cut, Proxy, Sender, assert_exit, stderr, stdout};

/// A server with TLS, and `more` options.
fn secure_server(pair: &Pair, more: &[&str]) -> Server {
    let options = pair.options("--tls");
    let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Server::start(&options)
}

fn at(host: &str, server: SocketAddr) -> String {
    format!("{host}:{}", server.port())
}

/// Sends a file with `options`, and returns the exit code and what is said on standard error.
fn send(to: impl ToString, options: &[&str]) -> (Option<i32>, String) {
    let sender = Sender::new();
    sender.write("a.txt", b"hello");
    let output = sender.run(to, &[&["a.txt", "--retry", "0"], options].concat());
    (output.status.code(), stderr(&output).to_owned())
}

#[test]
fn every_dialect_goes_over_tls_and_has_a_proven_end() {
    let issuer = Issuer::new();
    let server = secure_server(&issuer.sign("server", &["localhost", "127.0.0.1"]), &["--require-size"]);
    let ca = issuer.path();
    let ca = ca.to_str().unwrap();
    let sender = Sender::new();
    for dialect in ["classic", "line", "put", "ask", "http", "http-expect"] {
        for (size, kind) in [(0, "empty"), (5, "small"), (9 << 20, "large")] {
            let name = format!("{kind}-{dialect}.bin");
            sender.write(&name, &content(size, 7));
            let output = sender.run(at("localhost", server.tcp()), &[&name, "--tls-ca", ca, "--dialect", dialect]);
            assert_exit(&output, 0);
            server.await_file(&name, &content(size, 7));
        }
    }
    assert!(!server.log().contains("unverified"), "{}", server.log());
}

#[test]
fn a_url_with_https_speaks_tls() {
    let issuer = Issuer::new();
    let server = secure_server(&issuer.sign("server", &["127.0.0.1"]), &[]);
    let (ca, url) = (issuer.path(), format!("https://{}/", server.tcp()));
    let ca = ca.to_str().unwrap();
    assert_eq!(send(&url, &["--tls-ca", ca]), (Some(0), String::new()));
    server.await_file("a.txt", b"hello");
    let (code, words) = send(url.replace("https", "http"), &["--tls-ca", ca]);
    assert!(code == Some(2) && words.contains("write https://"), "{words}");
}

#[test]
fn a_server_is_believed_by_its_ca_or_its_fingerprint_and_otherwise_the_words_say_why() {
    let issuer = Issuer::new();
    let pair = issuer.sign("server", &["drop.example", "127.0.0.1"]);
    let server = secure_server(&pair, &[]);
    let (ca, pin) = (issuer.path(), pair.fingerprint());
    let (ca, other) = (ca.to_str().unwrap(), format!("sha256:{}", "0".repeat(64)));
    let (ip, name) = (at("127.0.0.1", server.tcp()), at("localhost", server.tcp()));
    for (to, options) in [(&ip, ["--tls-ca", ca]), (&ip, ["--tls-pin", &pin]), (&name, ["--tls-pin", &pin])] {
        assert_eq!(send(to, &options), (Some(0), String::new()), "{to} {options:?}");
    }
    for (to, options, expected) in [
        (&ip, &["--tls"][..], vec!["no trusted CA", &pin, "--tls-pin"]),
        (&ip, &["--tls-pin", &other], vec!["is not the pinned one", &pin]),
        (&name, &["--tls-ca", ca], vec!["not for localhost", "drop.example, 127.0.0.1"]),
    ] {
        let (code, words) = send(to, options);
        assert_eq!(code, Some(3), "{words}");
        assert!(expected.iter().all(|part| words.contains(part)), "{expected:?}: {words}");
        assert!(!words.contains("trying again"), "{words}");
    }
    assert_eq!(server.files().len(), 3);
}

/// The variable that OpenSSL knows, too, stands for the host's own list.
#[test]
fn the_cas_of_the_host_are_trusted_by_default() {
    let issuer = Issuer::new();
    let server = secure_server(&issuer.sign("server", &["127.0.0.1"]), &[]);
    let (sender, empty) = (Sender::new(), tempfile::NamedTempFile::new().unwrap());
    sender.write("a.txt", b"hello");
    let run = |list: &Path| {
        let mut command = sender.command(server.tcp(), &["a.txt", "--tls", "--retry", "0"]);
        command.env("SSL_CERT_FILE", list).env_remove("SSL_CERT_DIR").output().unwrap()
    };
    assert_exit(&run(&issuer.path()), 0);
    let none = run(empty.path());
    assert!(none.status.code() == Some(2) && stderr(&none).contains("has no CA certificates"), "{none:?}");
}

#[test]
fn a_certificate_of_intake_cert_is_known_by_pin_and_as_its_own_ca() {
    let home = tempfile::tempdir().unwrap();
    let mut cert = Command::new(env!("CARGO_BIN_EXE_intake"));
    assert!(cert.args(["cert", "127.0.0.1"]).current_dir(home.path()).output().unwrap().status.success());
    let pair = Pair { certificate: home.path().join("intake.crt"), key: home.path().join("intake.key") };
    let server = secure_server(&pair, &["--tls", "required"]);
    let certificate = pair.certificate.to_str().unwrap();
    assert_eq!(send(server.tcp(), &["--tls-pin", &pair.fingerprint()]), (Some(0), String::new()));
    assert_eq!(send(server.tcp(), &["--tls-ca", certificate]), (Some(0), String::new()));
    let (code, words) = send(server.tcp(), &[]);
    assert!(code == Some(1) && words.contains("(426)") && words.contains("send with --tls"), "{words}");
    let (code, words) = send(format!("http://{}/", server.tcp()), &[]);
    assert!(code == Some(1) && words.trim_end().ends_with("; write https://"), "{words}");
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
fn a_client_shows_its_certificate_where_the_server_requires_one() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let clients = issuer.path();
    let server = secure_server(&issuer.sign("server", &["127.0.0.1"]), &["--tls-client-ca", clients.to_str().unwrap()]);
    let ca = clients.to_str().unwrap();
    let with = |pair: &Pair| {
        let own = pair.options("--tls");
        send(server.tcp(), &[&["--tls-ca", ca][..], &own.each_ref().map(String::as_str)].concat())
    };
    assert_eq!(with(&issuer.sign("scanner", &["scanner"])), (Some(0), String::new()));
    let (code, words) = send(server.tcp(), &["--tls-ca", ca]);
    assert!(code == Some(3) && words.contains("requires a certificate of this client"), "{words}");
    let (code, words) = with(&stranger.sign("stranger", &["stranger"]));
    assert!(code == Some(3) && words.contains("does not accept this client's certificate"), "{words}");
    assert_eq!(server.files().len(), 1);
}

#[test]
fn tls_to_a_plain_port_and_plain_to_tls_are_told() {
    let server = Server::start(&[]);
    let (code, words) = send(server.tcp(), &["--tls"]);
    assert!(code == Some(3) && words.contains("is not TLS") && words.contains("it said \"no "), "{words}");
    assert!(words.trim_end().ends_with("start the server with --tls-cert\""), "the line is whole: {words}");
    // A receiver of the tutorials takes anything for a name, and waits for the content.
    let (told, ends) = mpsc::channel();
    let tutorial = serve_each(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"ok");
        let _ = told.send(stream.read(&mut [0; 4096]).is_err());
    });
    let (code, words) = send(tutorial, &["--tls"]);
    assert!(code == Some(3) && words.contains("it said \"ok\""), "{words}");
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(true), "a clean end would make it store a file");
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
fn a_broken_connection_is_resumed_over_tls() {
    let issuer = Issuer::new();
    let server = secure_server(&issuer.sign("server", &["127.0.0.1"]), &[]);
    let sender = Sender::new();
    sender.write("large.bin", &content(30 << 20, 5));
    let proxy = Proxy::new(server.tcp(), &[Cut::Sent(12 << 20), Cut::Sent(8 << 20)]);
    let output = sender.run(proxy.address, &["large.bin", "--tls-ca", issuer.path().to_str().unwrap(), "--retry", "1"]);
    assert_exit(&output, 0);
    assert_eq!(stdout(&output).len(), 1);
    server.assert_holds_only(&files_of([("large.bin", &content(30 << 20, 5))]));
    let passed = proxy.passed.load(Ordering::Relaxed);
    assert!(passed < 50 << 20, "{passed} bytes were sent for 30 MiB");
}

#[test]
fn a_killed_sender_leaves_nothing_in_any_dialect() {
    let issuer = Issuer::new();
    let server = secure_server(&issuer.sign("server", &["127.0.0.1"]), &[]);
    let ca = issuer.path();
    for dialect in ["classic", "line", "put", "http"] {
        let sender = Sender::new();
        let options = ["-", "--name", "half.bin", "--tls-ca", ca.to_str().unwrap(), "--dialect", dialect];
        let mut child = sender.command(server.tcp(), &options).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(&content(3 << 20, 1)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
    server.await_accepted();
    server.assert_holds_only(&Files::new());
}

#[test]
fn two_hundred_clients_with_tls_are_all_whole_and_verified() {
    let issuer = Issuer::new();
    let server = secure_server(&issuer.sign("server", &["127.0.0.1"]), &[]);
    let (verify, ca) = (server.dir(), issuer.path());
    let (verify, ca) = (verify.display(), ca.display());
    for dialect in ["classic", "line", "put", "ask", "http", "http-expect"] {
        server.remove_files();
        let args = "--files 400 --clients 200 --size 0..50k --json --dialect";
        let run = Run::load(server.tcp(), &format!("{args} {dialect} --tls-ca {ca} --verify {verify}"));
        assert_eq!(run.exit(), 0, "{dialect}: {}", run.text());
        let report = run.json();
        assert_eq!(report["tls"], true);
        for path in ["files.acknowledged", "verification.verified", "latency.handshake.count"] {
            assert_eq!(figure(&report, path), 400, "{dialect}: {path}");
        }
    }
}

#[test]
fn misbehaving_clients_with_tls_end_as_they_should() {
    let issuer = Issuer::new();
    let server = secure_server(&issuer.sign("server", &["127.0.0.1"]), &["--name-quiet", "1s"]);
    let (verify, ca) = (server.dir(), issuer.path());
    let (verify, ca) = (verify.display(), ca.display());
    let mix =
        "slow=5%:64k,stall=5%:50ms,abort=10%,reset=10%,half-close=10%:50ms,split-header=5%,never-read=5%,dup-name=5%";
    for dialect in ["classic", "line", "put", "ask", "http", "http-expect"] {
        server.remove_files();
        let args = "--files 200 --clients 50 --size 0..50k --json --dialect";
        let args = format!("{args} {dialect} --misbehave {mix} --tls-ca {ca} --verify {verify}");
        let run = Run::load(server.tcp(), &args);
        assert_eq!(run.exit(), 0, "{dialect}: {}", run.text());
    }
}

/// nginx sends session tickets, which are read and not used.
#[test]
fn nginx_takes_files_over_tls_in_either_version() {
    let issuer = Issuer::new();
    let (pair, ca) = (issuer.sign("server", &["127.0.0.1"]), issuer.path());
    let ca = ca.to_str().unwrap();
    let [_, certificate, _, key] = &pair.options("");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let Some(nginx) = Nginx::start_with(&[certificate, key, version]) else { return };
        let url = format!("https://{}/", nginx.address);
        let (sender, large) = (Sender::new(), content(9 << 20, 3));
        sender.write("large", &large);
        (0..70).for_each(|number| sender.write(&number.to_string(), number.to_string().as_bytes()));
        let names: Vec<String> = (0..70).map(|number: usize| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_exit(&sender.run(&url, &[&["large", "--tls-ca", ca], &names[..]].concat()), 0);
        assert!(std::fs::read(nginx.files().join("large")).unwrap() == large);
        assert!(names.iter().all(|name| std::fs::read(nginx.files().join(name)).unwrap() == name.as_bytes()));
        let args = "--files 200 --clients 20 --per-connection 10 --size 0..50k --json";
        let run = Run::load(&url, &format!("{args} --tls-ca {ca} --verify {}", nginx.files().display()));
        assert_eq!(run.exit(), 0, "{version}: {}", run.text());
        let report = run.json();
        let connections = figure(&report, "files.connected");
        assert_eq!(figure(&report, "latency.handshake.count"), connections, "{version}");
        assert_eq!(figure(&report, "verification.verified"), 200, "{version}");
    }
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

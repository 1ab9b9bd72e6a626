//! TLS on the same port: every dialect inside it, proven ends, hostile handshakes, certificates that are read again.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::process::Signal;
use rustls::ClientConfig;

use crate::fixture::*;
use crate::pki::{Client, Issuer, VERSIONS, hello};

/// A server with a certificate, and what its clients trust.
struct Secure {
    server: Server,
    issuer: Issuer,
    client: Arc<ClientConfig>,
}

const PAIR: [&str; 4] = ["--tls-cert", "server.crt", "--tls-key", "server.key"];

impl Secure {
    fn start(args: &[&str]) -> Self {
        let (home, issuer) = (Server::home(), Issuer::new());
        issuer.issue("localhost", 90).write(home.path(), "server");
        issuer.write(&home.path().join("ca.crt"));
        let server = Server::start_in(&home, &[&PAIR[..], args].concat());
        let client = issuer.client(&VERSIONS, None).into();
        Self { server, issuer, client }
    }

    fn connect(&self) -> Client {
        Client::connect(self.server.tcp(), &self.client).expect("the server speaks TLS")
    }

    /// The directory of its certificate.
    fn home(&self) -> std::path::PathBuf {
        self.server.dir().parent().expect("the inbox is in a directory").into()
    }

    fn client_of(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = self.issuer.client(&VERSIONS, None);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.into()
    }
}

/// A request of each dialect for a file with this content, and whether its framing tells the end.
fn requests(content: &[u8]) -> [(&'static str, Vec<u8>, bool); 4] {
    let size = content.len();
    let with = |head: String| [head.as_bytes(), content].concat();
    [
        ("line.bin", with("line.bin\n".into()), false),
        ("put.bin", with(format!("/put size={size} put.bin\n")), true),
        (
            "http.bin",
            with(format!("PUT /http.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n")),
            true,
        ),
        ("chunks.bin", [&with(format!("/put size=- chunks.bin\n{size}\n"))[..], b"0\n"].concat(), true),
    ]
}

fn classic_through(client: &mut Client, name: &str, content: &[u8]) -> io::Result<()> {
    client.0.write_all(name.as_bytes())?;
    let mut ok = [0; 2];
    client.0.read_exact(&mut ok)?;
    assert_eq!(&ok, b"ok");
    client.0.write_all(content)
}

#[test]
fn every_dialect_is_spoken_inside_and_none_needs_a_size() {
    let bytes = content(3 << 20, 1);
    for version in VERSIONS {
        let secure = Secure::start(&["--require-size"]);
        let config = Arc::new(secure.issuer.client(&[version], None));
        let connect = || Client::connect(secure.server.tcp(), &config).expect("the server speaks TLS");
        let mut expected = Files::new();
        for (name, request, _) in requests(&bytes) {
            let said = connect().say(&request).expect("it ends in order");
            assert!(said.contains(&format!(" {name}\n")) && said.contains("done 3145728 "), "{said}");
            expected.insert(name.into(), bytes.clone());
        }
        let mut client = connect();
        classic_through(&mut client, "classic.bin", &bytes).expect("it is taken");
        client.end().expect("the stream can end");
        assert_eq!(client.hear().expect("a clean end"), "");
        expected.insert("classic.bin".into(), bytes.clone());
        secure.server.assert_holds_only(&expected);
        assert!(secure.server.log().contains("whole: the client itself has ended the stream"));
        let plain = line(secure.server.tcp(), "plain.bin", b"abc").expect("an answer");
        assert!(plain.starts_with("no 403 "), "in clear a size is needed: {plain}");
    }
}

#[test]
fn a_fin_alone_ends_only_what_has_an_end_of_its_own() {
    let bytes = content(200_000, 2);
    let secure = Secure::start(&[]);
    secure.server.withstands(|| {
        let mut expected = Files::new();
        for (name, request, is_framed) in requests(&bytes) {
            let mut client = secure.connect();
            client.0.write_all(&request).and_then(|()| client.0.flush()).expect("it is read");
            client.0.sock.shutdown(Shutdown::Write).expect("a stream can be shut down");
            let said = client.hear().expect("the server's own end is announced");
            assert_eq!(said.contains("done 200000 "), is_framed, "{name}: {said}");
            if is_framed {
                expected.insert(name.into(), bytes.clone());
            } else {
                assert!(said.starts_with("no 400 TLS ended without close_notify"), "{said}");
            }
        }
        let mut client = secure.connect();
        classic_through(&mut client, "classic.bin", &bytes).expect("it is taken");
        client.0.sock.shutdown(Shutdown::Write).expect("a stream can be shut down");
        assert_eq!(client.hear().expect_err("it is reset").kind(), ErrorKind::ConnectionReset);
        expected
    });
}

/// What a kernel sends for a program that was killed: nothing more, a FIN in the middle of a record, or a reset.
#[test]
fn nothing_is_published_of_a_client_that_is_killed() {
    let bytes = content(100_000, 3);
    let secure = Secure::start(&[]);
    secure.server.withstands(|| {
        for resets in [true, false] {
            for (_, request, _) in requests(&bytes) {
                let mut client = secure.connect();
                client.0.conn.set_buffer_limit(None);
                client.0.conn.writer().write_all(&request[..request.len() - 10_000]).expect("it holds all");
                let mut wire = Vec::new();
                while client.0.conn.wants_write() {
                    client.0.conn.write_tls(&mut wire).expect("a vector takes all");
                }
                client.0.sock.write_all(&wire[..wire.len() - 7]).expect("it can be sent");
                if resets {
                    reset(client.0.sock);
                } else {
                    drop(client.0.sock);
                }
            }
        }
        Files::new()
    });
    assert!(!secure.server.log().contains("stored as \"line.bin\""));
}

#[test]
fn what_follows_a_close_notify_is_no_content() {
    let secure = Secure::start(&[]);
    secure.server.withstands(|| {
        let mut client = secure.connect();
        client.0.write_all(b"whole.bin\ncontent").expect("it can be sent");
        client.0.conn.send_close_notify();
        while client.0.conn.wants_write() {
            client.0.conn.write_tls(&mut client.0.sock).expect("it can be sent");
        }
        let _ = client.0.sock.write_all(&content(50_000, 4));
        files_of([("whole.bin", b"content")])
    });
}

#[test]
fn the_first_byte_decides_unless_tls_is_required() {
    let also = Secure::start(&[]);
    also.server.withstands(|| {
        assert_eq!(line(also.server.tcp(), "plain.bin", b"abc").expect("an answer"), "done 3 - plain.bin\n");
        files_of([("plain.bin", b"abc")])
    });
    let required = Secure::start(&["--tls", "required"]);
    for request in ["x.bin\nabc", "/put size=3 x.bin\nabc", "PUT /x.bin HTTP/1.1\r\n\r\n"] {
        let mut stream = connect(required.server.tcp()).expect("the server accepts");
        stream.write_all(request.as_bytes()).expect("it is read");
        let said = io::read_to_string(&mut stream).expect("a clean end");
        assert_eq!(said, "no 426 this port speaks TLS\n", "{request}");
    }
    assert_eq!(required.connect().say(b"y.bin\nabc").expect("TLS is spoken"), "done 3 - y.bin\n");
    required.server.assert_holds_only(&files_of([("y.bin", b"abc")]));
}

#[test]
fn tls_to_a_server_without_it_is_refused_in_clear() {
    let secure = Secure::start(&["--tls", "off"]);
    let mut stream = connect(secure.server.tcp()).expect("the server accepts");
    stream.write_all(&hello(&secure.client)).expect("it is read");
    let said = io::read_to_string(&mut stream).expect("a clean end");
    assert!(said.starts_with("no 400 TLS is not spoken here"), "{said}");
}

/// Cut at every byte, once to continue, once to end there.
#[test]
fn a_first_message_may_be_cut_anywhere() {
    let secure = Secure::start(&["--trace"]);
    let bytes = hello(&secure.client);
    secure.server.withstands(|| {
        for cut in 1..bytes.len() {
            let mut stream = connect(secure.server.tcp()).expect("the server accepts");
            stream.write_all(&bytes[..cut]).expect("it can be sent");
            stream.shutdown(Shutdown::Write).expect("a stream can be shut down");
            assert_eq!(io::read_to_string(&mut stream).expect("a clean end"), "", "cut after {cut} bytes");
        }
        Files::new()
    });
    let log = secure.server.log();
    assert!(!log.contains("TLS:") && !log.contains("refused"), "{log}");
    for cut in (1..bytes.len()).step_by(7) {
        let mut stream = connect(secure.server.tcp()).expect("the server accepts");
        stream.set_nodelay(true).expect("an option can be set");
        let whom = format!("{} read ", stream.local_addr().expect("it is connected"));
        stream.write_all(&bytes[..cut]).expect("it can be sent");
        await_until("the piece to be read", || secure.server.log().contains(&whom));
        stream.write_all(&bytes[cut..]).expect("it can be sent");
        let mut record = [0; 1];
        stream.read_exact(&mut record).expect("the server answers");
        assert_eq!(record, [22], "a handshake record, whatever the cut: {cut}");
    }
}

/// Half a first message costs the server nothing; a whole one whose answer is not read costs it a place for a moment.
#[test]
fn half_handshakes_keep_no_honest_client_out() {
    let secure = Secure::start(&["--max-handshakes", "4"]);
    let (address, whole) = (secure.server.tcp(), hello(&secure.client));
    secure.server.withstands(|| {
        let mut held = Vec::new();
        for number in 0..300 {
            let mut stream = connect(address).expect("the server accepts");
            let part = if number % 2 == 0 { &whole[..] } else { &whole[..whole.len() / 2] };
            stream.write_all(part).expect("it can be sent");
            held.push(stream);
        }
        let mut expected = Files::new();
        for number in 0..5 {
            let (name, bytes) = (format!("{number}.bin"), content(100_000, number));
            let request = [name.as_bytes(), b"\n", &bytes].concat();
            assert_eq!(secure.connect().say(&request).expect("it is served"), format!("done 100000 - {name}\n"));
            expected.insert(name, bytes);
        }
        expected
    });
    assert!(secure.server.log().contains("took too long for the TLS handshake, while others waited"));
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_ended_after_the_header_timeout() {
    let secure = Secure::start(&["--header-timeout", "1s"]);
    let whole = hello(&secure.client);
    for part in [&whole[..], &whole[..whole.len() / 2]] {
        let mut stream = connect(secure.server.tcp()).expect("the server accepts");
        stream.write_all(part).expect("it can be sent");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("a clean end");
        assert!(heard.is_empty() == (part.len() < whole.len()) && !heard.starts_with(b"no "), "{heard:?}");
    }
    await_until("both ends", || secure.server.log().matches("the TLS handshake did not end within 1s").count() == 2);
}

/// A client of the simplest kind writes and closes, and never reads. Any byte that the server sends it unasked makes its
/// close a reset, which throws its last bytes away.
#[test]
fn ten_clients_that_only_write_are_stored_whole() {
    let secure = Secure::start(&[]);
    let bytes = content(8 << 20, 5);
    secure.server.withstands(|| {
        let mut expected = Files::new();
        for number in 0..10 {
            let name = format!("{number}.bin");
            let mut client = secure.connect();
            client.0.write_all(&[name.as_bytes(), b"\n", &bytes].concat()).expect("it can be sent");
            client.0.conn.send_close_notify();
            while client.0.conn.wants_write() {
                client.0.conn.write_tls(&mut client.0.sock).expect("it can be sent");
            }
            drop(client);
            expected.insert(name, bytes.clone());
        }
        await_until("all to be stored", || secure.server.files().len() >= 10);
        expected
    });
}

/// A client with Nagle's algorithm sends its first small packet only when its last message is acknowledged. Without tickets
/// there is nothing to send with that, and the kernel would wait for 40 ms.
#[test]
fn the_last_message_of_a_handshake_is_acknowledged_at_once() {
    let secure = Secure::start(&[]);
    let Some(strace) = crate::tools::Strace::attach(secure.server.pid(), &["-e", "trace=setsockopt"]) else { return };
    assert_eq!(secure.connect().say(b"x.bin\nabc").expect("it is served"), "done 3 - x.bin\n");
    assert_eq!(line(secure.server.tcp(), "y.bin", b"abc").expect("an answer"), "done 3 - y.bin\n");
    let calls = strace.calls();
    assert_eq!(calls.iter().filter(|call| call.contains("TCP_QUICKACK")).count(), 1, "{calls:?}");
}

#[test]
fn after_http_is_agreed_on_nothing_else_is_spoken() {
    let secure = Secure::start(&[]);
    let connect = |protocols: &[&[u8]]| Client::connect(secure.server.tcp(), &secure.client_of(protocols));
    let put = "/put size=3 put.bin\nabc";
    let http = "PUT /http.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    for said in [put, "line.bin\nabc", "/bye\n"] {
        let heard = connect(&[b"h2", b"http/1.1"]).expect("http/1.1 is spoken").say(said.as_bytes()).expect("an end");
        assert!(heard.contains("400") && heard.contains("agreed to be HTTP"), "{said}: {heard}");
    }
    assert!(connect(&[b"http/1.1"]).unwrap().say(http.as_bytes()).unwrap().starts_with("HTTP/1.1 201 "));
    assert_eq!(connect(&[b"intake/1"]).unwrap().say(put.as_bytes()).unwrap(), "done 3 - put.bin\n");
    let refused = connect(&[b"h2"]).err().expect("no protocol is left").to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    await_until("the reason", || secure.server.log().contains("the client speaks neither http/1.1 nor intake/1"));
}

#[test]
fn damaged_records_are_answered_by_an_alert_and_nothing_is_published() {
    let secure = Secure::start(&[]);
    secure.server.withstands(|| {
        // Larger than a record may be, empty, forged, and of no kind.
        for record in [&[23, 3, 3, 0x48, 1][..], &[23, 3, 3, 0, 0], &[23, 3, 3, 0, 30], &[99, 3, 3, 0, 30]] {
            let mut client = secure.connect();
            client.0.write_all(b"/put size=9 name.bin\nabc").and_then(|()| client.0.flush()).expect("it is read");
            client.0.sock.write_all(&[record, &[7; 20_000]].concat()).expect("it can be sent");
            let error = client.hear().expect_err("the session has failed");
            assert!(
                error.kind() == ErrorKind::ConnectionReset || error.to_string().contains("fatal alert"),
                "{record:?}: {error}"
            );
        }
        Files::new()
    });
}

/// The issuer's certificate and its key are replaced while uploads run.
#[test]
fn sighup_reads_the_certificate_again_and_a_wrong_one_changes_nothing() {
    let secure = Secure::start(&[]);
    let reload = |word: &str| {
        let before = secure.server.log().matches(word).count();
        secure.server.signal(Signal::HUP);
        await_until("the signal to be heard", || secure.server.log().matches(word).count() > before);
    };
    let bytes = content(300_000, 6);
    secure.server.withstands(|| {
        let mut running: Vec<Client> = (0..20).map(|_| secure.connect()).collect();
        for client in &mut running {
            client.0.write_all(&[b"/put size=300000 x.bin\n", &bytes[..150_000]].concat()).expect("it is taken");
        }
        let other = Issuer::new();
        let pair = other.issue("localhost", 90);
        fs::write(secure.home().join("server.crt"), "half a certifi").expect("a file can be written");
        reload("what was read before stays in use: --tls-cert");
        let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
        pair.write(elsewhere.path(), "new");
        fs::copy(elsewhere.path().join("new.crt"), secure.home().join("server.crt")).expect("a file can be copied");
        reload("--tls-key: this is not the key of the certificate");
        secure.connect();
        pair.write(&secure.home(), "server");
        reload("all files were read again");
        assert!(Client::connect(secure.server.tcp(), &secure.client).is_err(), "the old issuer is unknown by now");
        Client::connect(secure.server.tcp(), &other.client(&VERSIONS, None).into()).expect("the new one is known");
        let mut expected = Files::new();
        for (number, mut client) in running.into_iter().enumerate() {
            client.0.write_all(&bytes[150_000..]).expect("it is taken");
            client.end().expect("the stream can end");
            assert!(client.hear().expect("a clean end").starts_with("done 300000 "));
            expected.insert(if number == 0 { "x.bin".into() } else { format!("x.bin.{number}") }, bytes.clone());
        }
        expected
    });
}

#[test]
fn a_client_proves_its_name_by_a_certificate() {
    let secure = Secure::start(&["--tls-client-ca", "ca.crt", "--trace"]);
    let says = |config: rustls::ClientConfig| Client::connect(secure.server.tcp(), &config.into())?.say(b"x.bin\nabc");
    let with = |issuer: &Issuer, days| secure.issuer.client(&VERSIONS, Some(&issuer.issue("alice", days)));
    assert_eq!(says(with(&secure.issuer, 9)).expect("alice is let in"), "done 3 - x.bin\n");
    for (config, reason) in [
        (with(&secure.issuer, -9), "the certificate of the other side has expired"),
        (with(&Issuer::new(), 9), "the certificate of the other side is from an issuer that is not trusted here"),
        (secure.issuer.client(&VERSIONS, None), "the client has sent no certificate, and this server requires one"),
    ] {
        let error = says(config).expect_err("it is not let in");
        assert!(error.to_string().contains("fatal alert"), "{error}");
        await_until(reason, || secure.server.log().contains(reason));
    }
    assert_eq!(line(secure.server.tcp(), "y.bin", b"abc").expect("an answer"), "no 426 this port speaks TLS\n");
    let log = secure.server.log();
    assert!(log.contains(" by alice: 3 bytes in ") && log.contains("TLS: TLSv1_3, TLS13_"), "{log}");
    secure.server.assert_holds_only(&files_of([("x.bin", b"abc")]));
}

#[test]
fn an_optional_certificate_names_the_client_and_its_lack_is_no_fault() {
    let secure = Secure::start(&["--tls-client-ca", "ca.crt", "--tls-client", "optional"]);
    let config = secure.issuer.client(&VERSIONS, Some(&secure.issuer.issue("bob", 9)));
    let named = Client::connect(secure.server.tcp(), &config.into()).expect("bob is let in");
    assert_eq!(named.say(b"/put size=0 b\n").expect("an answer"), "done 0 - b\n");
    assert_eq!(secure.connect().say(b"/put size=0 n\n").expect("an answer"), "done 0 - n\n");
    await_until("both lines", || secure.server.log().matches("1 stored").count() == 2);
    assert_eq!(secure.server.log().matches(" by bob: 1 stored").count(), 1);
}

#[test]
fn files_that_cannot_be_used_are_told_at_the_start() {
    let home = Server::home();
    let (issuer, path) = (Issuer::new(), |name: &str| home.path().join(name));
    issuer.issue("localhost", 90).write(home.path(), "server");
    issuer.issue("localhost", 90).write(home.path(), "other");
    fs::write(path("empty"), "").expect("a file can be written");
    let start = |cert: &str, key: &str, more: &[&str]| {
        let args = [&["--tls-cert", cert, "--tls-key", key], more].concat();
        let output = Server::fail_to_start(&home, &args);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("it prints UTF-8")
    };
    for (cert, key, more, words) in [
        ("missing", "server.key", &[][..], "--tls-cert: cannot read missing: No such file"),
        ("server.crt", "missing", &[], "--tls-key: cannot read missing: No such file"),
        (".", "server.key", &[], "--tls-cert: cannot read .: it is no regular file"),
        ("/dev/zero", "server.key", &[], "--tls-cert: cannot read /dev/zero: it is no regular file"),
        ("empty", "server.key", &[], "--tls-cert: there is no certificate (BEGIN CERTIFICATE) in the file"),
        ("server.key", "server.key", &[], "--tls-cert: there is no certificate (BEGIN CERTIFICATE) in the file"),
        ("server.crt", "server.crt", &[], "--tls-key: there is no key (BEGIN PRIVATE KEY) in the file"),
        ("server.crt", "other.key", &[], "--tls-key: this is not the key of the certificate in --tls-cert"),
        ("server.crt", "server.key", &["--tls-client-ca", "empty"], "--tls-client-ca: there is no certificate"),
    ] {
        let said = start(cert, key, more);
        assert!(said.contains(words), "{cert}, {key}: {said}");
    }
}

#[test]
fn a_certificate_that_ends_soon_is_told() {
    for (days, words) in [(13, "expires in 1"), (-1, "has expired, so clients will refuse it"), (20, "")] {
        let home = Server::home();
        Issuer::new().issue("localhost", days).write(home.path(), "server");
        let server = Server::start_in(&home, &PAIR);
        let log = server.log();
        assert_eq!(log.contains("WARN"), !words.is_empty(), "{log}");
        assert!(log.contains(words), "{days}: {log}");
    }
}

/// A program of another author, as a user types it, and whether its upload is stored.
fn typed(program: &str, command: &str, is_stored: bool) {
    if crate::tools::installed(program).is_none() {
        return;
    }
    let secure = Secure::start(&[]);
    let bytes = content(1 << 20, 7);
    // Programs that read commands from their input must find none.
    let bytes: Vec<u8> = bytes.into_iter().map(|byte| byte | 0x80).collect();
    let file = secure.server.dir().join(".content");
    fs::write(&file, &bytes).expect("a file can be written");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &format!("set -o pipefail; {command}")]).current_dir(secure.home());
    shell.env("FILE", Path::new(&file)).env("PORT", secure.server.tcp().port().to_string());
    let output = shell.output().expect("bash can be started");
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    fs::remove_file(&file).expect("it is there");
    await_until("the end of the connection", || {
        let log = secure.server.log();
        log.contains("stored as \"x.bin\"") || log.contains("finished") || log.contains("refused \"x.bin\"")
    });
    let expected = if is_stored { files_of([("x.bin", &bytes)]) } else { Files::new() };
    assert_eq!(secure.server.files().len(), expected.len(), "{command}: {said}\n{}", secure.server.log());
    assert!(secure.server.files() == expected, "{command}: {said}");
}

const LINE: &str = r#"(echo x.bin; cat "$FILE")"#;
const PUT: &str = r#"(printf '/put size=%d x.bin\n' $(stat -c%s "$FILE"); cat "$FILE"; echo /bye)"#;

#[test]
fn openssl_s_client() {
    let client = "timeout 30 openssl s_client -connect localhost:$PORT -CAfile ca.crt -verify_return_error -nocommands";
    typed("openssl", &format!("{LINE} | {client} -no_ign_eof"), true);
    typed("openssl", &format!("{PUT} | {client} -no_ign_eof | grep -a 'done 1048576'"), true);
    typed("openssl", &format!("{PUT} | {client} -quiet | grep -a 'done 1048576'"), true);
    typed("openssl", &format!("{LINE} | {client} -tls1_2 -no_ign_eof"), true);
}

#[test]
fn socat_with_tls() {
    let client = "timeout 30 socat -t 20 - OPENSSL:localhost:$PORT,cafile=ca.crt";
    typed("socat", &format!("{LINE} | {client} | grep 'done 1048576'"), true);
    typed("socat", &format!("{PUT} | {client} | grep 'done 1048576'"), true);
}

/// It ends without a close_notify, so it needs a size.
#[test]
fn ncat_with_tls() {
    let client = "timeout 30 ncat --ssl-verify --ssl-trustfile ca.crt localhost $PORT";
    typed("ncat", &format!("{LINE} | {client}"), false);
    typed("ncat", &format!("{PUT} | {client} | grep 'done 1048576'"), true);
}

#[test]
fn curl_with_tls() {
    let client = "curl -sS --fail --cacert ca.crt --max-time 30";
    typed("curl", &format!("{client} -T \"$FILE\" https://localhost:$PORT/x.bin"), true);
    typed(
        "curl",
        &format!("{client} --tls-max 1.2 -F 'file=@\"'$FILE'\";filename=x.bin' https://localhost:$PORT/"),
        true,
    );
    typed("curl", &format!("{client} -T - https://localhost:$PORT/x.bin < \"$FILE\""), true);
}

/// `unwrap` announces the end, `close` does not.
#[test]
fn ssl_of_python() {
    let client = |last: &str| {
        format!(
            r#"timeout 30 python3 -c '
import os, socket, ssl
context = ssl.create_default_context(cafile="ca.crt")
stream = context.wrap_socket(socket.create_connection(("localhost", int(os.environ["PORT"]))), server_hostname="localhost")
stream.sendall(b"x.bin")
assert stream.recv(2) == b"ok"
stream.sendall(open(os.environ["FILE"], "rb").read())
{last}'"#
        )
    };
    typed("python3", &client("stream.unwrap()"), true);
    typed("python3", &client("stream.close()"), false);
}

/// Uploads side by side: handshakes of some, content of others.
#[test]
fn many_clients_at_once_are_all_served() {
    let secure = Secure::start(&["--max-handshakes", "2"]);
    let bytes = content(50_000, 8);
    secure.server.withstands(|| {
        let mut expected = Files::new();
        thread::scope(|scope| {
            for thread in 0..8 {
                let (secure, bytes) = (&secure, &bytes);
                scope.spawn(move || {
                    for number in 0..8 {
                        let request = [format!("{thread}-{number}\n").as_bytes(), bytes].concat();
                        let said = secure.connect().say(&request).expect("it is served");
                        assert_eq!(said, format!("done 50000 - {thread}-{number}\n"));
                    }
                });
            }
        });
        for (thread, number) in (0..8).flat_map(|thread| (0..8).map(move |number| (thread, number))) {
            expected.insert(format!("{thread}-{number}"), bytes.clone());
        }
        expected
    });
}

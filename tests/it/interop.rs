//! Unmodified clients of other authors against the real server.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::NamedTempFile;

use crate::fixture::{Server, content};
use crate::tools::installed;

/// An empty file, one byte, more than one read takes, and more than fits into the socket buffers.
const SIZES: [usize; 4] = [0, 1, (64 << 10) + 1, 8 << 20];

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients");

/// What a client reads from the server before it ends.
#[derive(Clone, Copy)]
enum Hears {
    /// The receipt, which it prints.
    Receipt,
    /// The `ok`; it reads nothing after that.
    Ok,
    /// Nothing, because it never reads.
    Nothing,
}

// The commands as a user types them. Each program has its own option to end its side of the connection at the end of
// its input. Without -N or -q, two of them never do.

#[test]
fn nc_of_openbsd() {
    typed("nc.openbsd", r#"(echo "$NAME"; cat "$FILE") | nc.openbsd -N $HOST $PORT"#, Hears::Receipt);
}

#[test]
fn nc_of_openbsd_that_quits_by_timer() {
    typed("nc.openbsd", r#"(echo "$NAME"; cat "$FILE") | nc.openbsd -q 1 $HOST $PORT"#, Hears::Receipt);
}

#[test]
fn nc_traditional() {
    typed("nc.traditional", r#"(echo "$NAME"; cat "$FILE") | nc.traditional -q 30 $HOST $PORT"#, Hears::Receipt);
}

#[test]
fn nc_traditional_that_quits_at_once() {
    typed("nc.traditional", r#"(echo "$NAME"; cat "$FILE") | nc.traditional -q 0 $HOST $PORT"#, Hears::Nothing);
}

#[test]
fn ncat() {
    typed("ncat", r#"(echo "$NAME"; cat "$FILE") | ncat $HOST $PORT"#, Hears::Receipt);
}

#[test]
fn ncat_that_only_sends() {
    typed("ncat", r#"(echo "$NAME"; cat "$FILE") | ncat --send-only $HOST $PORT"#, Hears::Nothing);
}

#[test]
fn socat() {
    typed("socat", r#"(echo "$NAME"; cat "$FILE") | socat -t 30 - TCP:$HOST:$PORT"#, Hears::Receipt);
}

#[test]
fn socat_that_only_sends() {
    typed("socat", r#"(echo "$NAME"; cat "$FILE") | socat -u - TCP:$HOST:$PORT"#, Hears::Nothing);
}

#[test]
fn busybox_nc() {
    typed("busybox", r#"(echo "$NAME"; cat "$FILE") | busybox nc $HOST $PORT"#, Hears::Receipt);
}

#[test]
fn bash_that_only_writes() {
    typed("bash", r#"(echo "$NAME"; cat "$FILE") > /dev/tcp/$HOST/$PORT"#, Hears::Nothing);
}

#[test]
fn bash_that_waits_for_its_ok() {
    let line = r#"exec 3<> /dev/tcp/$HOST/$PORT; echo "$NAME" >&3; read -r ok <&3; [ "$ok" = ok ] && cat "$FILE" >&3"#;
    typed("bash", line, Hears::Ok);
}

#[test]
fn bash_as_a_classic_sender() {
    let line = r#"exec 3<> /dev/tcp/$HOST/$PORT; printf %s "$NAME" >&3; read -r -N 2 ok <&3; [ "$ok" = ok ] && cat "$FILE" >&3"#;
    typed("bash", line, Hears::Ok);
}

#[test]
fn python_as_the_tutorials_write_it() {
    let Some(python) = installed("python3") else { return };
    upload_each_size(&[], |file, server| {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let output = run(Command::new(&python).arg(format!("{CLIENTS}/send.py")).arg(file).args([host, port]));
        assert_eq!(output, "file sent\n");
    });
}

#[test]
fn go_as_the_tutorials_write_it() {
    let Some(sender) = built_by_go("send") else { return };
    upload_each_size(&[], |file, server| {
        assert_eq!(run(Command::new(&sender).arg(file).arg(server.to_string())), "file sent\n");
    });
}

#[test]
fn go_asks_the_echo_as_the_tutorials_write_it() {
    let Some(client) = built_by_go("udp") else { return };
    let server = Server::start(&[]);
    let output = run(Command::new(client).arg(server.udp().to_string()));
    assert_eq!(output, "the server says: are you ready?\n");
}

/// A curl that waits for `100 Continue` for as long as it takes: without one it fails by its time limit, and no second is
/// lost where the server says it at once.
const CURL: &str = "curl -sS --expect100-timeout 3600 --max-time 100";

#[test]
fn curl_that_uploads() {
    curl_stores(r#"-T "$FILE" http://$HOST:$PORT/"#);
}

#[test]
fn curl_that_uploads_without_asking_first() {
    curl_stores(r#"-H Expect: -T "$FILE" http://$HOST:$PORT/"#);
}

#[test]
fn curl_that_uploads_its_input() {
    curl_stores(r#"-T - "http://$HOST:$PORT/$(printf %s "$NAME" | sed 's/ /%20/g')" < "$FILE""#);
}

#[test]
fn curl_that_uploads_slowly() {
    curl_stores(r#"--limit-rate 20M -T "$FILE" http://$HOST:$PORT/"#);
}

#[test]
fn curl_that_knows_the_digest() {
    curl_stores(
        r#"-H "Repr-Digest: sha-256=:$(sha256sum "$FILE" | cut -c1-64 | xxd -r -p | base64):" -T "$FILE" http://$HOST:$PORT/"#,
    );
}

#[test]
fn curl_that_sends_a_form() {
    curl_stores(r#"-F "file=@$FILE" http://$HOST:$PORT/"#);
}

fn curl_stores(arguments: &str) {
    if installed("curl").is_none() || installed("xxd").is_none() {
        return;
    }
    upload_each_size(&[], |file, server| {
        let name = file.file_name().and_then(OsStr::to_str).expect("a file has a name");
        let size = fs::metadata(file).expect("the file is there").len();
        let output = bash(&format!(r#"{CURL} -w '%{{http_code}}' {arguments}"#), name, file, server);
        assert!(
            output.starts_with(&format!("done {size} ")) && output.ends_with(&format!(" {name}\n201")),
            "{output:?}"
        );
    });
}

/// The output of curl for requests that must not store a file.
#[test]
fn curl_hears_each_refusal() {
    if installed("curl").is_none() {
        return;
    }
    let server = Server::start(&["--max-file-size", "9M"]);
    let small = NamedTempFile::with_prefix("small").expect("a temporary file can be made");
    let large = NamedTempFile::with_prefix("large").expect("a temporary file can be made");
    fs::write(small.path(), "small").expect("the file can be written");
    large.as_file().set_len(64 << 20).expect("the file can be made longer");
    let wrong = "Repr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    for (file, arguments, expected) in [
        (&small, r#"-X PUT http://$HOST:$PORT/a"#.to_owned(), "no 411 "),
        (&small, r#"-C 2 -T "$FILE" http://$HOST:$PORT/a"#.to_owned(), "no 400 "),
        (&small, r#"-T "$FILE" http://$HOST:$PORT/..%2fa"#.to_owned(), "no 400 "),
        (&small, r#"-T "$FILE" http://$HOST:$PORT/a/b"#.to_owned(), "no 400 "),
        (&small, format!(r#"-H "{wrong}" -T "$FILE" http://$HOST:$PORT/a"#), "no 422 "),
        (&small, r#"-H "Content-Encoding: gzip" -T "$FILE" http://$HOST:$PORT/a"#.to_owned(), "no 415 "),
        (&small, r#"-H "Host: evil.example" -T "$FILE" http://$HOST:$PORT/a"#.to_owned(), "no 421 "),
        (&small, r#"-H "Origin: http://evil.example" -T "$FILE" http://$HOST:$PORT/a"#.to_owned(), "no 403 "),
        (&large, r#"-T "$FILE" http://$HOST:$PORT/a"#.to_owned(), "no 413 "),
        // The refusal arrives in the middle of the content.
        (&large, r#"-H Expect: -T "$FILE" http://$HOST:$PORT/a"#.to_owned(), "no 413 "),
        (&large, r#"-H Expect: -T - http://$HOST:$PORT/a < "$FILE""#.to_owned(), "no 413 "),
        (&small, r#"http://$HOST:$PORT/a"#.to_owned(), "no 405 "),
    ] {
        let output = bash(&format!("{CURL} {arguments}"), "a", file.path(), server.tcp());
        assert!(output.starts_with(expected), "{arguments}: {output:?}");
    }
    let form = r#"-F a=b -F "file=@$FILE;filename=one" -F "file=@$FILE;filename=../two" -F "file=@$FILE;filename=three" http://$HOST:$PORT/"#;
    let output = bash(&format!("{CURL} {form}"), "a", small.path(), server.tcp());
    assert_eq!(output, "done 5 - one\nno 403 a name carries no path; send the base name\ndone 5 - three\n");
    assert_eq!(server.files().len(), 2);
    let again = r#"-T "$FILE" -H "If-None-Match: *" http://$HOST:$PORT/a"#;
    let outputs = [(); 2].map(|()| bash(&format!("{CURL} {again}"), "a", small.path(), server.tcp()));
    assert_eq!(outputs, ["done 5 - a\n", "no 412 the name is taken\n"]);
}

#[test]
fn python_over_http() {
    let Some(python) = installed("python3") else { return };
    let server = Server::start(&[]);
    let file = tempfile::tempdir().expect("a temporary directory can be made");
    let (path, bytes) = (file.path().join("日本 1.bin"), content(1 << 20, 7));
    fs::write(&path, &bytes).expect("the file can be written");
    let address = [server.tcp().ip().to_string(), server.tcp().port().to_string()];
    let output = run(Command::new(&python).arg(format!("{CLIENTS}/http_put.py")).args(address).arg(&path));
    let name = "日本 1.bin";
    let said = |prefix: &str| format!("201 done 1048576 - {prefix}{name}\n");
    let expected = [said(""), said("chunked-"), said("urllib-"), "412 no 412 the name is taken\n".into()].concat();
    assert_eq!(output, expected);
    assert!(server.files().values().all(|stored| *stored == bytes) && server.files().len() == 3);
}

/// Runs `line` for an upload of each size and, if the client reads its receipt, for a refused upload.
fn typed(program: &str, line: &str, hears: Hears) {
    if installed(program).is_none() {
        return;
    }
    // A close with unread data resets the connection, and the end of the file may be lost. So a client that never reads
    // must not get an `ok`, even if a busy machine delays it after its name.
    let args: &[&str] = if matches!(hears, Hears::Nothing) { &["--ok-grace", "off"] } else { &[] };
    upload_each_size(args, |file, server| {
        let name = file.file_name().and_then(OsStr::to_str).expect("a file has a name");
        let size = fs::metadata(file).expect("the file exists").len();
        let output = bash(line, name, file, server);
        match hears {
            Hears::Receipt => assert!(output.ends_with(&format!("done {size} - {name}\n")), "{output:?}"),
            Hears::Ok | Hears::Nothing => assert_eq!(output, ""),
        }
    });
    if matches!(hears, Hears::Receipt) {
        // The client keeps sending long after the refusal.
        let file = NamedTempFile::new().expect("a temporary file can be made");
        file.as_file().set_len(8 << 20).expect("the file can be made longer");
        let output = bash(line, "../outside", file.path(), Server::start(&[]).tcp());
        assert_eq!(output, "no 403 a name carries no path; send the base name\n");
    }
}

fn bash(line: &str, name: &str, file: &Path, server: SocketAddr) -> String {
    let mut bash = Command::new("bash");
    bash.args(["-c", line]).env("NAME", name).env("FILE", file);
    run(bash.env("HOST", server.ip().to_string()).env("PORT", server.port().to_string()))
}

/// Lets `client` send a file of each size, and waits until each is stored unchanged.
fn upload_each_size(args: &[&str], client: impl Fn(&Path, SocketAddr)) {
    let outbox = tempfile::tempdir().expect("a temporary directory can be made");
    let server = Server::start(args);
    for size in SIZES {
        let (name, bytes) = (format!("of {size} bytes.bin"), content(size, size as u64));
        let file = outbox.path().join(&name);
        fs::write(&file, &bytes).expect("the file can be written");
        client(&file, server.tcp());
        server.await_file(&name, &bytes);
    }
    assert_eq!(server.files().len(), SIZES.len(), "each upload is one file");
}

/// The output of a command, which must succeed.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program can be started");
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("it prints UTF-8")
}

/// Builds `clients/NAME.go` with Go, without a module and without the network, with the cache in our target directory.
fn built_by_go(name: &str) -> Option<PathBuf> {
    let go = installed("go")?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (binary, source) = (directory.join(name), format!("{CLIENTS}/{name}.go"));
    let mut build = Command::new(go);
    build.arg("build").arg("-o").arg(&binary).arg(source);
    build.env("GOCACHE", directory.join("go-build")).env("GOTOOLCHAIN", "local").env("GO111MODULE", "off");
    run(&mut build);
    Some(binary)
}

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

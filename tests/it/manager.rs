//! What a service manager is told, and the sockets that it passes: uploads run through a restart.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::documents::root;
use crate::fixture::*;
use crate::tools::installed;

/// A service manager that listens at a path.
struct Manager {
    socket: UnixDatagram,
    home: TempDir,
}

impl Manager {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = UnixDatagram::bind(home.path().join("notify")).expect("a socket can be bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self { socket, home }
    }

    fn start(&self, variables: &[&str]) -> Server {
        let path = format!("NOTIFY_SOCKET={}", self.home.path().join("notify").display());
        Server::start_under(&[&["env", path.as_str()], variables].concat(), &Server::home(), &[])
    }

    /// The next datagram. `None`: none came in time.
    fn next(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..count].to_vec()).expect("it is text"))
    }

    /// The next datagram that is not only a status.
    fn next_change(&self) -> String {
        std::iter::from_fn(|| self.next()).find(|words| !words.starts_with("STATUS=")).expect("a datagram comes")
    }
}

#[test]
fn a_service_manager_hears_of_the_start_a_reload_and_the_end() {
    let manager = Manager::new();
    let mut server = manager.start(&[]);
    assert_eq!(manager.next().unwrap(), "READY=1\nSTATUS=serving: 0 connections, 0 uploads; 0 files stored, 0 refused");
    line(server.tcp(), "a", b"a").expect("it is stored");

    server.signal(Signal::HUP);
    assert!(manager.next_change().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    let ready = manager.next_change();
    assert!(
        ready.starts_with("READY=1\nSTATUS=serving: ") && ready.ends_with("; 1 files stored, 0 refused"),
        "{ready}"
    );

    let running = classic_begin(server.tcp(), "b").expect("the name is accepted");
    server.signal(Signal::TERM);
    let stopping = manager.next_change();
    let words = "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=shutting down: 1 connections, 1 uploads; ";
    assert!(stopping.starts_with(words), "{stopping}");
    classic_finish(running, b"b").expect("the upload is finished");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_watchdog_is_fed_by_an_idle_loop_and_not_by_one_that_stands_still() {
    let manager = Manager::new();
    let server = manager.start(&["WATCHDOG_USEC=200000"]);
    assert!(manager.next_change().starts_with("READY=1"));
    (0..3).for_each(|_| assert_eq!(manager.next_change(), "WATCHDOG=1"));

    server.stop();
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // What was sent before the stop.
    while manager.next().is_some() {}
    assert_eq!(manager.next(), None);
    server.resume();
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(manager.next_change(), "WATCHDOG=1");
}

/// The manager keeps the socket open. Clients that connect while no server runs wait for the next one.
#[test]
fn a_restart_loses_no_connection_to_a_passed_socket() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket can be bound");
    let address = socket.local_addr().unwrap();
    let start = |home| Server::start_with("tcp", socket.try_clone().unwrap(), home, &[]);
    let home = Server::home();

    let mut first = start(&home);
    assert_eq!(first.all_tcp(), [address], "it replaces --listen");
    let running = classic_begin(address, "running").expect("the name is accepted");
    first.signal(Signal::TERM);
    await_until("the shutdown", || first.log().contains("shutting down"));
    // Nobody accepts them until the next server runs.
    let waiting = [0, 1, 2].map(|number| {
        let mut stream = connect(address).expect("the socket listens");
        write!(stream, "/put size=1 waiting.{number}\nx/bye\n").expect("an upload can be sent");
        stream
    });
    classic_finish(running, b"content").expect("the upload is finished");
    assert_eq!(first.wait().code(), Some(0));

    let second = start(&home);
    for (number, mut stream) in waiting.into_iter().enumerate() {
        let mut receipt = String::new();
        stream.read_to_string(&mut receipt).expect("a clean end");
        assert_eq!(receipt, format!("done 1 - waiting.{number}\n"));
    }
    assert_eq!(second.files().len(), 4);
}

/// Becomes the server, with sockets that are bound to port 0 of an address: `tcp=ADDRESS`, `udp=ADDRESS`, …
const LAUNCHER: &str = r#"
import os, socket, sys
end = sys.argv.index("--")
names = []
for number, word in enumerate(sys.argv[1:end]):
    name, address = word.split("=")
    kind = socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM
    passed = socket.socket(socket.AF_INET, kind)
    passed.bind((address, 0))
    if name != "udp":
        passed.listen()
    os.dup2(passed.detach(), 10 + number)
    names.append(name)
for number in range(len(names)):
    os.dup2(10 + number, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
"#;

#[test]
fn sockets_are_used_by_their_names() {
    let Some(python) = installed("python3") else { return };
    let wrapper = [python.to_str().unwrap(), "-c", LAUNCHER, "metrics=127.0.0.1", "tcp=127.0.0.1", "udp=0.0.0.0"];
    let wrapper = [&wrapper[..], &["tcp=127.0.0.2", "--"]].concat();
    let server = Server::start_under(&wrapper, &Server::home(), &[]);
    let ips: Vec<_> = server.all_tcp().iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(ips, ["127.0.0.1", "127.0.0.2"]);
    for (number, address) in server.all_tcp().into_iter().enumerate() {
        assert!(line(address, format!("{number}"), b"x").unwrap().starts_with("done 1 "));
    }
    assert!(server.udp().ip().is_unspecified());
    let client = udp_client(([127, 0, 0, 1], server.udp().port()).into());
    client.send(b"anybody there?").unwrap();
    assert_eq!(client.recv(&mut [0; 100]).unwrap(), 14);
    let mut metrics = connect(server.metrics()).unwrap();
    metrics.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    metrics.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_socket_that_does_not_fit_is_refused_in_words() {
    let listening = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = listening();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let datagrams = || UdpSocket::bind("127.0.0.1:0").unwrap();
    for (output, words) in [
        (Server::fail_to_start_with("intake.socket", listening()), "has the name \"intake.socket\": name it tcp, udp"),
        (Server::fail_to_start_with("", listening()), "LISTEN_FDNAMES names 0"),
        (
            Server::fail_to_start_with("tcp", datagrams()),
            "passed socket 1 of the name \"tcp\": fd 3 is not a valid tcp",
        ),
        (
            Server::fail_to_start_with("udp", listening()),
            "passed socket 1 of the name \"udp\": fd 3 is not a valid udp",
        ),
        (Server::fail_to_start_with("tcp", stream), "it does not listen"),
    ] {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// As the variables are inherited, a program below the one that they are for must ignore them (sd_listen_fds(3)).
#[test]
fn sockets_for_another_process_are_ignored() {
    let variables = ["env", "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=tcp"];
    let server = Server::start_under(&variables, &Server::home(), &[]);
    line(server.tcp(), "a", b"a").expect("it is stored");
}

#[test]
fn the_units_are_clean_and_take_away_what_the_server_does_not_need() {
    let Some(analyze) = installed("systemd-analyze") else { return };
    let home = tempfile::tempdir().unwrap();
    let units = ["intake.service", "intake.socket"].map(|unit| {
        let text = fs::read_to_string(root().join("packaging/systemd").join(unit)).unwrap();
        let text = text.replace("/usr/local/bin/intake", env!("CARGO_BIN_EXE_intake"));
        let path = home.path().join(unit);
        fs::write(&path, text).unwrap();
        path
    });
    let verified = Command::new(&analyze).args(["verify", "--man=no"]).args(&units).output().unwrap();
    let words = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && words.is_empty(), "{words}");

    // The score is in tenths.
    let security = ["security", "--offline=yes", "--threshold=20"];
    let rated = Command::new(&analyze).args(security).arg(&units[0]).output().unwrap();
    assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
}

/// The system calls that the unit allows, as `systemd-analyze syscall-filter` expands its sets.
fn allowed_by_the_unit(sets: &str) -> BTreeSet<String> {
    fn expand(sets: &str, name: &str, into: &mut BTreeSet<String>) {
        let lines = sets.lines().skip_while(|line| *line != name).skip(1).take_while(|line| !line.starts_with('@'));
        for call in lines.map(str::trim).filter(|call| !call.is_empty() && !call.starts_with('#')) {
            if call.starts_with('@') {
                expand(sets, call, into);
            } else {
                into.insert(call.to_owned());
            }
        }
    }
    let unit = fs::read_to_string(root().join("packaging/systemd/intake.service")).unwrap();
    let mut allowed = BTreeSet::new();
    expand(sets, "@default", &mut allowed);
    for word in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).flat_map(str::split_whitespace) {
        let (mut calls, name) = (BTreeSet::new(), word.trim_start_matches('~'));
        if name.starts_with('@') {
            expand(sets, name, &mut calls);
        } else {
            calls.insert(name.to_owned());
        }
        assert!(!calls.is_empty(), "systemd does not know {name}");
        if word.starts_with('~') {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.append(&mut calls);
        }
    }
    allowed
}

/// Also what it needs for its own sandbox.
#[test]
fn the_unit_allows_every_system_call_that_the_server_makes() {
    let Some(analyze) = installed("systemd-analyze") else { return };
    let Some(strace) = installed("strace") else { return };
    let sets = Command::new(analyze).arg("syscall-filter").output().unwrap();
    let allowed = allowed_by_the_unit(&String::from_utf8(sets.stdout).unwrap());

    let record = tempfile::NamedTempFile::new().unwrap();
    let wrapper = [strace.to_str().unwrap(), "-D", "-f", "-qq", "-o", record.path().to_str().unwrap()];
    let mut server = Server::start_under(&wrapper, &Server::home(), &["--metrics", "127.0.0.1:0"]);
    line(server.tcp(), "small", b"x").expect("it is stored");
    line(server.tcp(), "large", &content(3 << 20, 1)).expect("it is stored");
    server.signal(Signal::HUP);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let is_call = |call: &&str| call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let recorded = || fs::read_to_string(record.path()).unwrap();
    await_until("the record", || recorded().contains("exit_group("));
    let recorded = recorded();
    let calls =
        recorded.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(call, _)| call));
    let made: BTreeSet<String> = calls.filter(is_call).map(str::to_owned).collect();
    assert!(made.contains("accept4"), "{made:?}");
    let refused: Vec<_> = made.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}

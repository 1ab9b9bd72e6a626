//! The admin socket of the real server: commands, frames, stories, and clients that do not read.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{PATIENCE, Server, await_until, connect};
use crate::tools::{Strace, installed};

/// A server with an admin socket.
struct Watched {
    server: Server,
    home: Arc<TempDir>,
}

/// A client of the admin socket.
struct Client(BufReader<UnixStream>);

impl Watched {
    fn start(args: &[&str]) -> Self {
        let home = Server::home();
        let admin = format!("unix:{}", home.path().join("admin.sock").display());
        let server = Server::start_in(&home, &[&["--admin", &admin], args].concat());
        Self { server, home }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("admin.sock")
    }

    fn client(&self) -> Client {
        Client::of(UnixStream::connect(self.path()).unwrap())
    }
}

impl Client {
    fn of(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer comes");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.hear()
    }
}

/// The first row of a frame whose peer is this client.
fn row_of<'a>(frame: &'a Value, client: &std::net::TcpStream) -> Option<&'a Value> {
    let peer = client.local_addr().unwrap().to_string();
    frame["sessions"].as_array().unwrap().iter().find(|row| row["peer"] == peer.as_str())
}

#[test]
fn commands_are_answered_and_mistakes_are_told() {
    let watched = Watched::start(&[]);
    let mut client = watched.client();
    let mut upload = connect(watched.server.tcp()).unwrap();
    upload.write_all(b"/put size=10 a\n12345").unwrap();
    let mut sessions = client.ask("sessions");
    await_until("the upload to be shown", || {
        sessions = client.ask("sessions");
        row_of(&sessions, &upload).is_some_and(|row| row["bytes"] == 5)
    });
    let row = row_of(&sessions, &upload).unwrap();
    assert_eq!(
        (&row["dialect"], &row["awaits"], &row["disk"]),
        (&"put".into(), &"content".into(), &Value::Null),
        "{row}"
    );
    assert_eq!(row["name"], "a", "{row}");
    assert_eq!(sessions["connections"], 1);
    assert_eq!(row["recv_q"], 0, "{row}");
    upload.write_all(b"67890/bye\n").unwrap();
    let mut receipt = String::new();
    upload.read_to_string(&mut receipt).unwrap();
    let stats = client.ask("stats");
    assert_eq!((&stats["bytes"], &stats["accepted"]), (&10.into(), &1.into()), "{stats} {receipt}");
    assert_eq!(client.ask("turns")["measured"], false, "nobody watches");
    assert!(client.ask("reboot")["error"].as_str().unwrap().contains("watch [HZ]"));
    assert!(client.ask("story 9.9")["error"].as_str().unwrap().contains("no such connection"));
    assert_eq!(client.ask("bye")["ok"], "bye");
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn a_watcher_sees_turns_and_connections() {
    let watched = Watched::start(&["--sync", "none"]);
    let mut client = watched.client();
    client.say("watch 10");
    let first = client.hear();
    assert_eq!((&first["frame"], &first["lost"]), (&1.into(), &0.into()));
    let mut upload = connect(watched.server.tcp()).unwrap();
    upload.write_all(&[&b"/put size=1000000 a\n"[..], &[b'x'; 500_000]].concat()).unwrap();
    let mut frame = client.hear();
    await_until("the content to be in a frame", || {
        frame = client.hear();
        row_of(&frame, &upload).is_some_and(|row| row["bytes"] == 500_000)
    });
    let turns = &frame["turns"];
    assert_eq!(turns["measured"], true);
    let counted: u64 = turns["histogram"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(turns["count"], counted);
    assert!(turns["bytes"].as_u64().unwrap() >= 500_000, "{turns}");
    assert!(turns["phases_us"]["serve"].as_u64().unwrap() > 0, "{turns}");
    let worst = &turns["worst"];
    let phases = worst["phases_us"].as_object().unwrap();
    let work_us: u64 = phases.iter().filter(|(name, _)| *name != "poll").map(|(_, us)| us.as_u64().unwrap()).sum();
    assert!(worst["work_us"].as_u64().unwrap().abs_diff(work_us) <= 10, "but for the rounding: {worst}");
    drop(client);
    let mut other = watched.client();
    await_until("the measuring to end", || other.ask("turns")["measured"] == false);
}

#[test]
fn a_watcher_that_does_not_read_loses_frames_and_is_told() {
    let watched = Watched::start(&[]);
    let idle: Vec<_> = (0..200).map(|_| connect(watched.server.tcp()).unwrap()).collect();
    let (mut deaf, mut other) = (watched.client(), watched.client());
    other.say("watch 10");
    await_until("all to be accepted", || other.hear()["connections"] == idle.len());
    deaf.say("watch 10");
    // A Unix socket holds some hundred kilobytes, and a frame has some tens.
    for _ in 0..40 {
        other.hear();
    }
    let mut lost = 0;
    await_until("lost frames to be told", || {
        lost = deaf.hear()["lost"].as_u64().unwrap();
        lost > 0
    });
    let frame = other.hear();
    assert_eq!(frame["lost"], 0, "the other one has lost none");
    assert_eq!(frame["sessions"].as_array().unwrap().len(), idle.len());
}

#[test]
fn a_story_is_told_from_then_on_to_its_end() {
    let watched = Watched::start(&["--sync", "none"]);
    let mut upload = connect(watched.server.tcp()).unwrap();
    upload.write_all(b"/put size=4 a\n12").unwrap();
    let mut client = watched.client();
    let mut id = String::new();
    await_until("the connection to be shown", || {
        let sessions = client.ask("sessions");
        let row = row_of(&sessions, &upload).filter(|row| row["bytes"] == 2);
        row.map(|row| id = row["id"].as_str().unwrap().to_owned()).is_some()
    });
    assert_eq!(client.ask(&format!("story {id}"))["peer"], upload.local_addr().unwrap().to_string());
    upload.write_all(b"34").unwrap();
    upload.shutdown(std::net::Shutdown::Write).unwrap();
    let mut scenes = Vec::new();
    loop {
        let line = client.hear();
        if line["over"] == true {
            break;
        }
        scenes.push(line["scene"].as_str().unwrap().to_owned());
    }
    assert_eq!(scenes.first().map(String::as_str), Some("event"), "what came before is not told: {scenes:?}");
    assert!(["read", "wrote", "closed"].iter().all(|scene| scenes.iter().any(|told| told == scene)), "{scenes:?}");
    assert!(client.ask("stats")["accepted"].as_u64().unwrap() > 0, "it is a client like before");
}

#[test]
fn the_level_of_the_log_changes_and_the_server_shuts_down() {
    let watched = Watched::start(&[]);
    let mut client = watched.client();
    assert_eq!(client.ask("log error")["ok"], "logs at error");
    assert_eq!(client.ask("log info")["ok"], "logs at info");
    assert_eq!(client.ask("drain")["ok"], "it shuts down");
    await_until("the end", || !watched.path().exists());
    await_until("the log", || watched.server.log().contains("the admin socket asks for the end"));
}

#[test]
fn the_socket_is_for_its_user_and_stale_ones_are_replaced() {
    let home = Server::home();
    let path = home.path().join("admin.sock");
    let admin = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::start_in(&home, &["--admin", &admin]);
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let other = Server::home();
    let refused = Server::fail_to_start(&other, &["--admin", &admin]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("another server answers there") && refused.status.code() == Some(1), "{words}");
    drop(server);
}

#[test]
fn a_socket_that_is_passed_is_used() {
    let home = Server::home();
    let path = home.path().join("passed.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let server = Server::start_with("admin", socket, &home, &[]);
    let mut client = Client::of(UnixStream::connect(&path).unwrap());
    assert_eq!(client.ask("stats")["accepted"], 0);
    drop(server);
    assert!(path.exists(), "it is not the server's");
}

#[test]
fn a_slow_turn_is_seen_and_named() {
    let Some(_) = installed("strace") else { return };
    let watched = Watched::start(&["--sync", "none"]);
    let mut client = watched.client();
    client.say("watch 10");
    client.hear();
    let inject = "inject=pwrite64,write,writev,splice:delay_enter=100000:when=1+".to_owned();
    let mut upload = connect(watched.server.tcp()).unwrap();
    upload.write_all(b"/put size=4000000 a\n").unwrap();
    upload.write_all(&vec![b'x'; 1_500_000]).unwrap();
    let Some(strace) = Strace::attach(watched.server.pid(), &["-e", "trace=pwrite64,splice", "-e", &inject]) else {
        return;
    };
    upload.write_all(&vec![b'x'; 1_000_000]).unwrap();
    let peer = upload.local_addr().unwrap().to_string();
    await_until("the slow turn to be shown", || {
        let worst = &client.hear()["turns"]["worst"];
        let serve_us = worst["phases_us"]["serve"].as_u64().unwrap_or_default();
        serve_us >= 100_000 && worst["longest_visit"]["peer"] == peer.as_str()
    });
    drop(strace);
}

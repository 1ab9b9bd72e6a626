//! What a sender can rely on: space, collisions and resuming, with the real binary.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use intake::proto::{Algorithm, Hasher};

use crate::fixture::{Server, await_until, connect, content};

/// A connection that speaks `/put` and `/ask`.
struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = connect(address).expect("the server listens");
        let replies = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Self { stream, replies }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// The next line that the server says, without its LF; empty at its end.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.replies.read_line(&mut line).expect("the server answers");
        line.trim_end_matches('\n').to_owned()
    }

    fn ask(&mut self, request: impl AsRef<[u8]>) -> String {
        self.send(request);
        self.hear()
    }
}

/// A file system in memory, for as long as it is held.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where this user mounts nothing.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).expect("a directory can be made");
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.into()));
        }
        eprintln!("left out: only root mounts a tmpfs");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, as the server may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_cannot_fit_is_refused_before_its_content_and_with_the_figures() {
    let home = Server::home();
    let Some(_tmpfs) = Tmpfs::mount(&home.path().join("inbox"), "8m") else { return };
    let server = Server::start_in(&home, &["--min-free", "1M"]);
    let mut first = Client::to(server.tcp());
    let refusal = first.ask(format!("/ask size={} large\n", 8 << 20));
    assert!(refusal.starts_with("no 507 "), "{refusal}");
    assert!(refusal.contains(&format!("needs {} bytes", 8 << 20)) && refusal.contains(" free "), "{refusal}");

    // What another upload has announced is not there for a second one, however little of it has come.
    let bytes = content(4 << 20, 1);
    assert_eq!(first.ask(format!("/ask size={} first\n", bytes.len())), "ok 0");
    first.send(&bytes[..1000]);
    let mut second = Client::to(server.tcp());
    assert!(second.ask(format!("/ask size={} second\n", bytes.len())).starts_with("no 507 "));
    second.send(format!("/put size={} second\n", bytes.len()));
    second.send(&bytes);
    assert!(second.hear().starts_with("no 507 "));
    assert_eq!(second.ask("/put size=5 small\nsmall"), "done 5 - small");
    first.send(&bytes[1000..]);
    assert_eq!(first.hear(), format!("done {} - first", bytes.len()));
    assert_eq!(server.files().keys().collect::<Vec<_>>(), ["first", "small"]);
}

/// The digest of `bytes` as an attribute, and as a receipt tells it.
fn crc32c(bytes: &[u8]) -> (String, String) {
    let mut hasher = Hasher::new(Algorithm::Crc32c);
    hasher.update(bytes);
    let digest = hasher.finish();
    (format!("crc32c={}", digest.to_hex()), digest.to_string())
}

#[test]
fn a_file_that_is_there_already_is_done_without_a_second_copy() {
    for sync in ["full", "none"] {
        let server = Server::start(&["--sync", sync]);
        let before = server.descriptors();
        let mut client = Client::to(server.tcp());
        // Larger than what is read in one turn, so that the comparison is cut into pieces.
        let bytes = content(20 << 20, 7);
        let (attribute, told) = crc32c(&bytes);
        let (size, done) = (bytes.len(), format!("done {} {told} a", bytes.len()));
        client.send(format!("/put size={size} {attribute} on-exists=same a\n"));
        client.send(&bytes);
        assert_eq!(client.hear(), done);

        assert_eq!(client.ask(format!("/ask size={size} {attribute} on-exists=same a\n")), done);
        client.send(format!("/put size={size} crc32c=trailer on-exists=same a\n"));
        client.send(&bytes);
        client.send(format!("{attribute}\n/put size=1 b\nx"));
        assert_eq!((client.hear(), client.hear()), (done, "done 1 - b".into()));

        // Another size, another content, and what is no file.
        let taken = |line: String| assert!(line.starts_with("no 409 ") && !line.contains("retry"), "{line}");
        taken(client.ask(format!("/ask size=1 {attribute} on-exists=same a\n")));
        taken(client.ask(format!("/ask size={size} crc32c=00000000 on-exists=same a\n")));
        taken(client.ask(format!("/put size=1 crc32c=trailer on-exists=same b\ny{}\n", crc32c(b"y").0)));
        fs::create_dir(server.dir().join("directory")).expect("a directory can be made");
        taken(client.ask("/ask size=1 crc32c=00000000 on-exists=same directory\n"));
        assert!(client.ask("/ask size=1 on-exists=same a\n").starts_with("no 400 "));
        assert_eq!(server.files(), [("a".to_owned(), bytes), ("b".to_owned(), b"x".to_vec())].into());
        drop(client);
        await_until("every descriptor to be closed", || server.descriptors() == before);
    }
}

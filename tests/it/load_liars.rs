//! The load tester against receivers that lie, in the line dialect and in put: each must be caught.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use crate::fixture::serve_each;
use crate::load::{Run, figure};

/// What a receiver does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// Nothing: the control.
    None,
    /// Stores all but one byte in the middle, and confirms all.
    DropsAByte,
    /// Stores all but the last byte, and says so.
    ConfirmsLess,
    /// Changes one bit.
    FlipsABit,
    /// Confirms files that it does not store.
    Forgets,
    /// Stores everything twice.
    StoresTwice,
    /// Stores the part that came before a reset.
    StoresOnReset,
    /// Reads everything and sends nothing.
    NeverAnswers,
    /// Confirms before any content has come.
    AnswersTooEarly,
}

/// Starts a receiver that stores in `directory`. It lives until the test ends.
fn receiver(lie: Lie, directory: &Path) -> SocketAddr {
    let directory = directory.to_owned();
    // A client may disconnect without failing the test.
    serve_each(move |stream| receive(stream, lie, &directory).unwrap_or_default())
}

fn receive(mut stream: TcpStream, lie: Lie, directory: &Path) -> Option<()> {
    let name = read_name(&mut stream)?;
    if lie == Lie::AnswersTooEarly {
        stream.write_all(format!("done 0 - {name}\n").as_bytes()).ok()?;
    }
    let mut content = Vec::new();
    if let Err(error) = stream.read_to_end(&mut content) {
        let stores = lie == Lie::StoresOnReset && error.kind() == ErrorKind::ConnectionReset;
        return stores.then(|| fs::write(directory.join(name), content).unwrap());
    }
    if lie == Lie::NeverAnswers {
        // The other side gives up first.
        return stream.read(&mut [0]).is_ok().then(thread::park);
    }
    let size = content.len();
    store(lie, &directory.join(&name), content);
    let confirmed = if lie == Lie::ConfirmsLess { size - 1 } else { size };
    stream.write_all(format!("done {confirmed} - {name}\n").as_bytes()).ok()
}

/// A receiver of one put that stores however much of it came, and confirms it with `digest`.
fn put_receiver(digest: &'static str, directory: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let directory = directory.to_owned();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let directory = directory.clone();
            thread::spawn(move || {
                let request = read_name(&mut stream)?;
                let size = request.split_once("size=")?.1.split(' ').next()?.parse().ok()?;
                let name = request.split_once("./")?.1;
                let mut content = Vec::new();
                Read::by_ref(&mut stream).take(size).read_to_end(&mut content).ok()?;
                fs::write(directory.join(name), &content).unwrap();
                let trailer = read_name(&mut stream)?;
                let digest = if digest.is_empty() { trailer.replace('=', ":") } else { digest.into() };
                stream.write_all(format!("done {size} {digest} {name}\n").as_bytes()).ok()
            });
        }
    });
    address
}

fn read_name(stream: &mut TcpStream) -> Option<String> {
    let mut name = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).ok()? == 1 && byte != *b"\n" {
        name.extend(byte);
    }
    String::from_utf8(name).ok()
}

fn store(lie: Lie, path: &Path, mut content: Vec<u8>) {
    match lie {
        Lie::DropsAByte => drop(content.remove(content.len() / 2)),
        Lie::ConfirmsLess => drop(content.pop()),
        Lie::FlipsABit => *content.last_mut().unwrap() ^= 1,
        Lie::Forgets => return,
        Lie::StoresTwice => fs::write(path.with_extension("1"), &content).unwrap(),
        _ => {}
    }
    fs::write(path, content).unwrap();
}

/// Runs a load of 20 files against a receiver that lies; returns its exit code and its report.
fn load(lie: Lie, args: &str) -> (i32, serde_json::Value) {
    let directory = TempDir::new().unwrap();
    let verify = format!("--verify {}", directory.path().display());
    let address = receiver(lie, directory.path());
    let run =
        Run::load(address, &format!("--files 20 --clients 5 --size 1k..200k --dialect line --json {verify} {args}"));
    (run.exit(), run.json())
}

#[test]
fn an_honest_receiver_is_not_accused() {
    let (exit, report) = load(Lie::None, "--misbehave reset=20%");
    assert_eq!((exit, figure(&report, "files.failed")), (0, 0), "{report}");
}

#[test]
fn wrong_content_is_found_whatever_the_receiver_says() {
    for (lie, found) in [
        (Lie::DropsAByte, "damaged"),
        (Lie::ConfirmsLess, "damaged"),
        (Lie::FlipsABit, "damaged"),
        (Lie::Forgets, "lost"),
        (Lie::StoresTwice, "duplicated"),
    ] {
        let (exit, report) = load(lie, "");
        assert_eq!(exit, 4, "{lie:?}: {report}");
        for each in ["damaged", "lost", "duplicated", "unexpected"] {
            let count = figure(&report, &format!("verification.{each}"));
            assert_eq!(count, if each == found { 20 } else { 0 }, "{lie:?}: {each}");
        }
        assert_eq!(figure(&report, "files.misconfirmed"), if lie == Lie::ConfirmsLess { 20 } else { 0 });
    }
}

#[test]
fn a_receiver_that_stores_after_a_reset_is_caught() {
    let (exit, report) = load(Lie::StoresOnReset, "--misbehave reset=100%");
    assert_eq!((exit, figure(&report, "verification.unexpected")), (4, 20), "{report}");
    assert_eq!((figure(&report, "files.reset"), figure(&report, "files.failed")), (20, 0));
}

#[test]
fn a_receiver_that_never_answers_is_not_waited_for() {
    let (exit, report) = load(Lie::NeverAnswers, "--timeout 300ms");
    assert_eq!((exit, figure(&report, "failures.the server was silent")), (1, 20), "{report}");
}

#[test]
fn a_receipt_before_the_end_is_no_receipt() {
    let (exit, report) = load(Lie::AnswersTooEarly, "");
    assert_eq!((figure(&report, "files.acknowledged"), figure(&report, "files.failed")), (0, 20), "{report}");
    // If it is read after the end of the content, it is a receipt for something else.
    assert!(exit == 1 || exit == 4, "{report}");
}

#[test]
fn a_receipt_with_another_digest_is_no_receipt() {
    for (digest, exit) in [("", 0), ("crc32c:01234567", 4), ("-", 4)] {
        let directory = TempDir::new().unwrap();
        let run = Run::load(put_receiver(digest, directory.path()), "--files 5 --closer client --json");
        let misconfirmed = figure(&run.json(), "files.misconfirmed");
        assert_eq!((run.exit(), misconfirmed), (exit, if exit == 0 { 0 } else { 5 }), "{digest}: {}", run.text());
    }
}

#[test]
fn a_receiver_that_stores_half_of_a_put_is_caught() {
    let directory = TempDir::new().unwrap();
    let verify = format!("--verify {}", directory.path().display());
    let address = put_receiver("", directory.path());
    let run = Run::load(address, &format!("--files 5 --misbehave abort=100% --closer client --json {verify}"));
    assert_eq!((run.exit(), figure(&run.json(), "verification.unexpected")), (4, 5), "{}", run.text());
}

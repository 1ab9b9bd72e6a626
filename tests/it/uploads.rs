//! Uploads from the smallest clients: each file is stored, byte for byte, when its client gets the answer.

use std::io::{self, Write};
use std::net::Shutdown;
use std::thread;

use crate::fixture::*;

const SIZES: [usize; 6] = [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 100 << 20];

#[test]
fn classic_uploads_of_every_size_are_stored_when_the_server_ends_the_connection() {
    let server = Server::start(&[]);
    for size in SIZES {
        let (name, bytes) = (format!("{size}.bin"), content(size, 1));
        classic(server.tcp(), &name, &bytes).expect("the upload is accepted");
        assert!(server.files()[&name] == bytes, "{name}");
    }
}

#[test]
fn line_uploads_of_every_size_are_stored_when_their_receipt_comes() {
    let server = Server::start(&[]);
    for size in SIZES {
        let (name, bytes) = (format!("{size}.bin"), content(size, 2));
        let receipt = line(server.tcp(), &name, &bytes).expect("the upload is accepted");
        assert_eq!(receipt, format!("done {size} - {name}\n"));
        assert!(server.files()[&name] == bytes, "{name}");
    }
}

#[test]
fn hundreds_of_uploads_at_once_are_all_stored_byte_for_byte() {
    let server = Server::start(&[]);
    let (address, before) = (server.tcp(), server.descriptors());
    let bytes = |number: usize| content(number * 997, number as u64);
    let upload = |number: usize| classic(address, format!("{number}.bin"), &bytes(number));
    thread::scope(|scope| {
        let uploads: Vec<_> = (0..300).map(|number| scope.spawn(move || upload(number))).collect();
        for upload in uploads {
            upload.join().expect("no client panics").expect("the upload is accepted");
        }
    });
    let files = server.files();
    assert_eq!(files.len(), 300);
    assert!((0..300).all(|number| files[&format!("{number}.bin")] == bytes(number)));
    await_until("every descriptor to be closed", || server.descriptors() == before);
}

#[test]
fn the_log_has_both_names_and_calls_only_unverified_uploads_so() {
    let server = Server::start(&[]);
    for _ in 0..2 {
        classic(server.tcp(), "report.pdf", b"content").expect("the upload is accepted");
    }
    let mut put = connect(server.tcp()).expect("the server accepts");
    put.write_all(b"/put size=7 put.pdf\ncontent/bye\n").expect("a request can be sent");
    put.shutdown(Shutdown::Write).expect("a stream can be shut down");
    assert_eq!(io::read_to_string(put).expect("a receipt comes"), "done 7 - put.pdf\n");
    await_until("all lines to be logged", || server.log().matches("7 bytes in").count() == 3);
    let log = server.log();
    assert!(log.contains(r#""report.pdf" stored as "report.pdf.1", unverified"#), "{log}");
    assert!(log.contains("1 stored, 0 refused, 7 bytes") && log.contains(" s, finished"), "{log}");
    assert_eq!(log.matches("unverified").count(), 2, "{log}");
}

#[test]
fn the_log_names_every_file_once_whatever_the_outcome() {
    let server = Server::start(&["--on-exists", "refuse"]);
    classic(server.tcp(), "classic.bin", b"1").expect("the upload is accepted");
    line(server.tcp(), "line.bin", b"22").expect("a receipt comes");
    line(server.tcp(), "classic.bin", b"333").expect("a refusal comes");
    let ask_for = |requests: &[String]| {
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(requests.concat().as_bytes()).expect("requests can be sent");
        stream.shutdown(Shutdown::Write).expect("a stream can be shut down");
        io::read_to_string(stream).expect("the answers arrive");
    };
    let crc = "crc32c=364b3fb7";
    ask_for(&[
        format!("/put size=3 {crc} put.bin\nabc"),
        "/put size=4 line.bin\n4444".into(),
        "/put size=1 ../outside\nx".into(),
        format!("/put size=3 {crc} wrong.bin\nabd/bye\n"),
    ]);
    ask_for(&[
        format!("/ask size=3 {crc} on-exists=same put.bin\n"),
        format!("/ask size=9 {crc} on-exists=same put.bin\n/bye\n"),
    ]);
    await_until("all lines to be logged", || server.log().matches(" s, finished").count() == 2);
    let log = server.log();
    for (told, times) in [
        (r#""classic.bin" stored as "classic.bin", unverified"#, 1),
        (r#""line.bin" stored as "line.bin", unverified"#, 1),
        (r#"refused "classic.bin", 409 "#, 1),
        (r#": "put.bin" stored as "put.bin", 3 bytes, crc32c:364b3fb7"#, 2),
        (r#": refused "line.bin", 409 "#, 1),
        (r#"/put size=1 ../outside"#, 1),
        (r#": refused "wrong.bin", 422 "#, 1),
        (r#": refused "put.bin", 409 "#, 1),
    ] {
        assert_eq!(log.matches(told).count(), times, "{told}: {log}");
    }
    // A line for each of the nine files, and one for each connection with several files.
    assert_eq!(log.lines().filter(|line| line.contains("intake::server] 127.0.0.1:")).count(), 11, "{log}");
}

//! Uploads from the smallest clients: each is there, byte for byte, when its client hears so.

use std::io::{self, Write};
use std::net::Shutdown;
use std::thread;

use crate::fixture::*;

const SIZES: [usize; 6] = [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 100 << 20];

#[test]
fn classic_uploads_of_every_size_are_there_when_the_server_ends_the_connection() {
    let server = Server::start(&[]);
    for size in SIZES {
        let (name, bytes) = (format!("{size}.bin"), content(size, 1));
        classic(server.tcp(), &name, &bytes).expect("the upload is taken");
        assert!(server.files()[&name] == bytes, "{name}");
    }
}

#[test]
fn line_uploads_of_every_size_are_there_when_their_receipt_comes() {
    let server = Server::start(&[]);
    for size in SIZES {
        let (name, bytes) = (format!("{size}.bin"), content(size, 2));
        let receipt = line(server.tcp(), &name, &bytes).expect("the upload is taken");
        assert_eq!(receipt, format!("done {size} - {name}\n"));
        assert!(server.files()[&name] == bytes, "{name}");
    }
}

#[test]
fn hundreds_at_once_are_all_stored_byte_for_byte() {
    let server = Server::start(&[]);
    let (address, before) = (server.tcp(), server.descriptors());
    let bytes = |number: usize| content(number * 997, number as u64);
    let upload = |number: usize| classic(address, format!("{number}.bin"), &bytes(number));
    thread::scope(|scope| {
        let uploads: Vec<_> = (0..300).map(|number| scope.spawn(move || upload(number))).collect();
        for upload in uploads {
            upload.join().expect("no client panics").expect("the upload is taken");
        }
    });
    let files = server.files();
    assert_eq!(files.len(), 300);
    assert!((0..300).all(|number| files[&format!("{number}.bin")] == bytes(number)));
    await_until("every descriptor to be closed", || server.descriptors() == before);
}

#[test]
fn the_log_tells_both_names_and_calls_unverified_only_what_is() {
    let server = Server::start(&[]);
    for _ in 0..2 {
        classic(server.tcp(), "report.pdf", b"content").expect("the upload is taken");
    }
    let mut put = connect(server.tcp()).expect("the server accepts");
    put.write_all(b"/put size=7 put.pdf\ncontent/bye\n").expect("a request can be sent");
    put.shutdown(Shutdown::Write).expect("a stream can be shut down");
    assert_eq!(io::read_to_string(put).expect("a receipt comes"), "done 7 - put.pdf\n");
    await_until("all to be told", || server.log().matches("7 bytes in").count() == 3);
    let log = server.log();
    assert!(log.contains(r#""report.pdf" stored as "report.pdf.1", unverified"#), "{log}");
    assert!(log.contains("1 stored, 0 refused, 7 bytes") && log.contains(" s, finished"), "{log}");
    assert_eq!(log.matches("unverified").count(), 2, "{log}");
}

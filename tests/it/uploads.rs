//! Uploads from the smallest clients: what is whole is published, what is not leaves nothing behind.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::thread;

use rustix::process::Signal;

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
fn one_name_from_many_at_once_is_as_many_files_of_one_sender_each() {
    let server = Server::start(&[]);
    let address = server.tcp();
    thread::scope(|scope| {
        for sender in 0..20 {
            scope.spawn(move || classic(address, "same.bin", &content(100_000, sender)).expect("the upload is taken"));
        }
    });
    let mut stored: Vec<_> = server.files().into_values().collect();
    let mut sent: Vec<_> = (0..20).map(|sender| content(100_000, sender)).collect();
    stored.sort();
    sent.sort();
    assert!(stored == sent, "no file is lost, and none is mixed from two");
}

#[test]
fn a_reset_leaves_nothing_and_disturbs_nobody() {
    let server = Server::start(&[]);
    let before = server.descriptors();
    let neighbour = classic_begin(server.tcp(), "whole.bin").expect("the name is taken");
    let mut cut = classic_begin(server.tcp(), "cut.bin").expect("the name is taken");
    cut.write_all(&content(1 << 20, 3)).expect("content can be sent");
    reset(cut);
    classic_finish(neighbour, b"whole").expect("the upload is taken");
    await_until("every descriptor to be closed", || server.descriptors() == before);
    assert_eq!(server.files(), [("whole.bin".to_owned(), b"whole".to_vec())].into());
}

#[test]
fn a_name_without_content_is_an_empty_file_only_after_its_ok() {
    let server = Server::start(&[]);
    let before = server.descriptors();
    server.stop();
    let mut hasty = connect(server.tcp()).expect("the kernel accepts");
    hasty.write_all(b"hasty.bin").and_then(|()| hasty.shutdown(Shutdown::Write)).expect("a name can be sent");
    drop(connect(server.tcp()).expect("the kernel accepts"));
    server.signal(Signal::CONT);
    classic(server.tcp(), "empty.bin", b"").expect("the upload is taken");
    drop(hasty);
    await_until("every descriptor to be closed", || server.descriptors() == before);
    assert_eq!(server.files(), [("empty.bin".to_owned(), vec![])].into());
}

#[test]
fn bad_names_are_refused_in_words_and_lead_nowhere() {
    let server = Server::start(&[]);
    let long = [b'n'; 256];
    let names: [&[u8]; 16] = [
        b"../x",
        b"a/../b",
        b"a/b",
        b"/etc/x",
        b".",
        b"..",
        b"..\\x",
        b"C:\\x",
        b"nul\0inside",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"right\xe2\x80\xaeto left",
        b".hidden",
        b"-rf",
        b"space ",
        &long,
    ];
    for name in names {
        let (shown, classic_error) =
            (name.escape_ascii(), classic(server.tcp(), name, b"content").expect_err("refused"));
        assert!(classic_error.to_string().starts_with("no 4"), "{shown}: {classic_error}");
        let reply = line(server.tcp(), name, b"content").expect("a refusal is said");
        assert!(reply.starts_with("no 4") && reply.ends_with('\n'), "{shown}: {reply}");
    }
    assert!(line(server.tcp(), "", b"content").expect("a refusal is said").starts_with("no 4"));
    assert!(server.files().is_empty());
    assert!(server.strays().is_empty());
}

#[test]
fn the_longest_names_are_taken() {
    let server = Server::start(&[]);
    for name in ["n".repeat(255), "語".repeat(85)] {
        classic(server.tcp(), &name, b"content").expect("the upload is taken");
        server.await_file(&name, b"content");
    }
}

#[test]
fn a_shutdown_lets_an_upload_finish_and_takes_no_other() {
    let mut server = Server::start(&[]);
    let running = classic_begin(server.tcp(), "running.bin").expect("the name is taken");
    server.signal(Signal::TERM);
    let refused = || TcpStream::connect(server.tcp()).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    await_until("the listener to be closed", refused);
    classic_finish(running, b"content").expect("the upload is taken");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    server.await_file("running.bin", b"content");
}

#[test]
fn a_second_signal_ends_what_runs_and_leaves_nothing_of_it() {
    let mut server = Server::start(&[]);
    let running = classic_begin(server.tcp(), "running.bin").expect("the name is taken");
    server.signal(Signal::TERM);
    let refused = || TcpStream::connect(server.tcp()).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    await_until("the listener to be closed", refused);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
    classic_finish(running, b"content").expect_err("a silent close would look like success");
    assert!(server.files().is_empty());
}

#[test]
fn what_was_running_when_the_server_was_killed_never_comes_up() {
    let home = Server::home();
    let mut server = Server::start_in(&home, &[]);
    classic(server.tcp(), "whole.bin", b"whole").expect("the upload is taken");
    let mut cut = classic_begin(server.tcp(), "cut.bin").expect("the name is taken");
    cut.write_all(&content(1 << 20, 4)).expect("content can be sent");
    server.signal(Signal::KILL);
    server.wait();
    let server = Server::start_in(&home, &[]);
    assert_eq!(server.files(), [("whole.bin".to_owned(), b"whole".to_vec())].into());
}

#[test]
fn more_clients_than_descriptors_are_all_served_in_the_end() {
    let server = Server::start_under(&["prlimit", "--nofile=64"], &Server::home(), &[]);
    let address = server.tcp();
    thread::scope(|scope| {
        for number in 0..200 {
            let upload = move || classic(address, format!("{number}.bin"), &content(10_000, number));
            scope.spawn(move || upload().expect("the upload is taken"));
        }
    });
    assert_eq!(server.files().len(), 200);
}

#[test]
fn datagrams_come_back_as_they_were() {
    let server = Server::start(&[]);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket can be bound");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    client.connect(server.udp()).expect("a socket can be connected");
    for size in [0, 1, 1472, 65_507] {
        let datagram = content(size, 5);
        client.send(&datagram).expect("a datagram can be sent");
        let mut buffer = vec![0; 65_536];
        let length = client.recv(&mut buffer).expect("it comes back");
        assert!(buffer[..length] == datagram, "{size} bytes");
    }
}

//! The UDP echo: which datagrams it answers, and that a flood does not stop uploads.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::fixture::*;

#[test]
fn datagrams_of_every_size_come_back_unchanged() {
    let server = Server::start(&[]);
    for size in [0, 1, 1472, 1473, 65_506, 65_507] {
        server.assert_echoes(&content(size, 5));
    }
}

#[test]
fn each_datagram_has_one_answer_in_order() {
    let server = Server::start(&[]);
    let client = udp_client(server.udp());
    let mut buffer = [0; 100];
    for number in 0..1000_u32 {
        client.send(&number.to_be_bytes()).expect("a datagram can be sent");
        assert_eq!(client.recv(&mut buffer).expect("the datagram comes back"), 4);
        assert_eq!(buffer[..4], number.to_be_bytes());
    }
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
    assert_eq!(client.recv(&mut buffer).expect_err("nothing more comes").kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_peer_that_has_closed_its_socket_does_no_harm() {
    let server = Server::start(&[]);
    server.withstands(|| {
        for _ in 0..200 {
            udp_client(server.udp()).send(b"and gone").expect("a datagram can be sent");
        }
        Files::new()
    });
}

#[test]
fn a_peer_over_its_rate_is_not_answered_and_others_are() {
    let server = Server::start(&["--udp-rate", "20"]);
    let greedy = UdpSocket::bind("127.0.0.2:0").expect("a socket can be bound");
    greedy.connect(server.udp()).expect("a socket can be connected");
    greedy.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout can be set");
    for _ in 0..1000 {
        greedy.send(b"again").expect("a datagram can be sent");
    }
    server.assert_echoes(b"anybody there?");
    let answered = (0..).take_while(|_| greedy.recv(&mut [0; 100]).is_ok()).count();
    assert!((20..200).contains(&answered), "{answered} of 1000");
}

#[test]
fn a_port_that_another_service_could_answer_from_is_not_answered() {
    let server = Server::start(&[]);
    let own = UdpSocket::bind(("127.0.0.2", server.udp().port())).expect("the number is free on another address");
    own.connect(server.udp()).expect("a socket can be connected");
    own.send(b"echo").expect("a datagram can be sent");
    server.assert_echoes(b"anybody there?");
    own.set_nonblocking(true).expect("an option can be set");
    let nothing = own.recv(&mut [0; 100]).expect_err("an echo must not be set on another");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_flood_leaves_the_uploads_most_of_the_time() {
    let server = Server::start(&["--udp-rate", "off"]);
    server.withstands(|| {
        let over = AtomicBool::new(false);
        let flood = || {
            let client = udp_client(server.udp());
            client.set_nonblocking(true).expect("an option can be set");
            while !over.load(Ordering::Relaxed) {
                // A flood fills the send buffer.
                let _ = client.send(b"flood");
            }
        };
        let bytes = content(20 << 20, 6);
        thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(flood)));
            let upload = classic(server.tcp(), "name.bin", &bytes);
            over.store(true, Ordering::Relaxed);
            upload.expect("the upload is accepted");
        });
        files_of([("name.bin", &bytes)])
    });
}

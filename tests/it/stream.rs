//! Clients that cut, break or misuse the stream: a part is never stored as a file, and the client gets the reason where it can be sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::fixture::*;

/// Sends each byte in a segment of its own.
fn send_bytewise(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_nodelay(true).expect("an option can be set");
    for byte in bytes {
        stream.write_all(&[*byte]).expect("a byte can be sent");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the start of `content` in small pieces, each of which the server reads by itself, until it raises the
/// low-water mark. Returns the rest.
fn trickle<'a>(server: &Server, stream: &mut TcpStream, content: &'a [u8]) -> &'a [u8] {
    stream.set_nodelay(true).expect("an option can be set");
    let (pieces, rest) = content.split_at(8 * 100);
    for (number, piece) in pieces.chunks(100).enumerate() {
        stream.write_all(piece).expect("a piece can be sent");
        await_until("the piece to be read", || server.log().matches("read 100 bytes").count() == number + 1);
    }
    await_until("the mark to go up", || server.log().contains("low-water mark: small reads"));
    rest
}

#[test]
fn small_reads_raise_the_low_water_mark_and_all_content_is_read() {
    let server = Server::start(&["--trace"]);
    let content = content(20_000, 5);
    let mut stream = connect(server.tcp()).expect("the server accepts");
    stream.write_all(b"/put size=20000 pieces.bin\n").expect("a request can be sent");
    await_until("the request to be read", || server.log().contains("waits for a name -> content"));
    let rest = trickle(&server, &mut stream, &content);
    for piece in rest.chunks(100) {
        stream.write_all(piece).expect("a piece can be sent");
    }
    // Nothing follows, not even a FIN.
    let mut receipt = [0; b"done 20000 - pieces.bin\n".len()];
    stream.read_exact(&mut receipt).expect("the last piece is read");
    assert_eq!(String::from_utf8_lossy(&receipt), "done 20000 - pieces.bin\n");
    let log = server.log();
    assert!(log.contains("low-water mark: the kernel wakes us at any byte again"), "{log}");
    let reads = log.matches("bytes of content").count();
    assert!(reads < 100, "{reads} reads of 200 pieces");
    server.assert_holds_only(&Files::from([("pieces.bin".to_owned(), content)]));
}

#[test]
fn content_below_the_low_water_mark_is_not_silence() {
    let server = Server::start(&["--trace", "--idle-timeout", "1s"]);
    let content = content(1300, 6);
    let mut stream = classic_begin(server.tcp(), "pieces.bin").expect("the name is accepted");
    let rest = trickle(&server, &mut stream, &content);
    for piece in rest.chunks(100) {
        thread::sleep(Duration::from_millis(400));
        stream.write_all(piece).expect("the server still accepts content");
    }
    classic_finish(stream, b"").expect("the upload is accepted");
    server.assert_holds_only(&Files::from([("pieces.bin".to_owned(), content)]));
}

#[test]
fn a_name_in_pieces_is_one_name_where_the_server_waits_for_more_of_it() {
    let server = Server::start(&["--name-quiet", "500ms"]);
    server.withstands(|| {
        let mut classic = connect(server.tcp()).expect("the server accepts");
        send_bytewise(&mut classic, b"classic name.bin");
        classic_finish(await_ok(classic).expect("the name is accepted"), b"content").expect("the upload is accepted");

        let mut line = connect(server.tcp()).expect("the server accepts");
        send_bytewise(&mut line, b"line name.bin\ncontent");
        line.shutdown(Shutdown::Write).expect("a stream can be shut down");
        let reply = io::read_to_string(line).expect("a receipt comes");
        assert!(reply.ends_with("done 7 - line name.bin\n"), "{reply}");
        files_of([("classic name.bin", b"content"), ("line name.bin", b"content")])
    });
}

#[test]
fn a_name_without_content_is_an_empty_file_only_after_its_ok() {
    let server = Server::start(&[]);
    server.withstands(|| {
        // The server sees the name and the end of the stream at once.
        server.stop();
        let mut hasty = connect(server.tcp()).expect("the kernel accepts");
        hasty.write_all(b"hasty.bin").and_then(|()| hasty.shutdown(Shutdown::Write)).expect("a name can be sent");
        drop(connect(server.tcp()).expect("the kernel accepts"));
        server.resume();
        let words = io::read_to_string(hasty).expect("a refusal arrives");
        assert!(words.starts_with("no 400 the stream ended before the line did"), "{words}");
        classic(server.tcp(), "empty.bin", b"").expect("the upload is accepted");
        files_of([("empty.bin", b"")])
    });
}

#[test]
fn a_client_that_dies_with_its_ok_unread_has_nothing_stored() {
    let server = Server::start(&[]);
    server.withstands(|| {
        for number in 0..10 {
            let mut dying = connect(server.tcp()).expect("the server accepts");
            dying.write_all(format!("dying {number}.bin").as_bytes()).expect("a name can be sent");
            await_until("ok to arrive", || dying.peek(&mut [0; 2]).is_ok_and(|length| length == 2));
            dying.write_all(&content(100_000, number)).expect("content can be sent");
        }
        Files::new()
    });
}

#[test]
fn a_reset_after_content_that_is_still_unread_stores_nothing() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let mut classic = classic_begin(server.tcp(), "classic.bin").expect("the name is accepted");
        let mut line = connect(server.tcp()).expect("the server accepts");
        line.write_all(b"line.bin\n").expect("a name can be sent");
        server.stop();
        classic.write_all(&content(30_000, 1)).expect("content can be sent");
        line.write_all(&content(30_000, 2)).expect("content can be sent");
        reset(classic);
        reset(line);
        server.resume();
        await_until("both to be lost", || server.log().matches(" lost: ").count() == 2);
        Files::new()
    });
}

#[test]
fn a_receipt_reaches_a_slow_reader_whole() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let name = "n".repeat(255);
        let mut stream = connect(server.tcp()).expect("the server accepts");
        SockRef::from(&stream).set_recv_buffer_size(1).expect("an option can be set");
        stream.write_all(format!("{name}\ncontent").as_bytes()).expect("an upload can be sent");
        stream.shutdown(Shutdown::Write).expect("a stream can be shut down");
        server.await_file(&name, b"content");
        let mut receipt = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).expect("a receipt comes, and a clean end") == 1 {
            receipt.push(byte[0]);
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(String::from_utf8(receipt).expect("text"), format!("done 7 - {name}\n"));
        files_of([(&name, b"content")])
    });
}

#[test]
fn an_upload_is_stored_even_if_its_client_closes_before_the_receipt() {
    let server = Server::start(&[]);
    server.withstands(|| {
        server.stop();
        for number in 0..10 {
            let mut stream = connect(server.tcp()).expect("the kernel accepts");
            stream.write_all(format!("{number}.bin\ncontent").as_bytes()).expect("an upload can be sent");
        }
        server.resume();
        await_until("all to be stored", || server.log().matches("stored as").count() == 10);
        (0..10).map(|number| (format!("{number}.bin"), b"content".to_vec())).collect()
    });
}

#[test]
fn a_client_that_keeps_sending_after_a_refusal_can_send_all_and_read_why() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let request = [b"../outside\n", &content(8 << 20, 3)[..]].concat();
        for _ in 0..20 {
            let mut stream = connect(server.tcp()).expect("the server accepts");
            stream.write_all(&request).expect("nothing is reset");
            stream.shutdown(Shutdown::Write).expect("nothing is reset");
            let words = io::read_to_string(stream).expect("a clean end");
            assert_eq!(words, "no 403 a name carries no path; send the base name\n");
        }
        Files::new()
    });
}

#[test]
fn a_bad_request_is_refused_at_once_and_escaped_in_the_log() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &content(500, 4)[..]].concat();
        let random = (0..100).map(|seed| content(64, seed));
        let others: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
            b"POST /a HTTP/1.1\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\x07\r\n",
            b"\x1b[2Jcleared\x1b]0;title\x07",
            b"name\r2000-01-01 00:00:00 INFO forged\n",
        ];
        for request in random.chain([hello]).chain(others.map(<[u8]>::to_vec)) {
            // The client waits for the answer without a FIN.
            let mut stream = connect(server.tcp()).expect("the server accepts");
            stream.write_all(&request).expect("a request can be sent");
            let words = io::read_to_string(&stream).expect("a refusal arrives");
            let is_refusal = words.starts_with("no 4") || words.starts_with("HTTP/1.1 4");
            assert!(is_refusal && words.ends_with('\n'), "{}: {words:?}", request.escape_ascii());
        }
        Files::new()
    });
    let log = server.log();
    assert!(log.contains(r"\x1b[2Jcleared\x1b]0;title\x07"), "the request is quoted in the log");
    assert_eq!(log.matches("refused, 4").count(), 106, "one line each");
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'));
}

//! A proxy in front: its header on the built server, cut at each byte, and a real HAProxy.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use intake::proto::PROXY_SIGNATURE;

use crate::fixture::*;

/// All connections of these tests are made by the proxy.
const FROM_LOOPBACK: [&str; 2] = ["--proxy-from", "127.0.0.0/8"];
/// The client that [`header`] tells of.
const CLIENT: &str = "192.0.2.7:12345";

/// A header of this command and kind, with this block.
fn header_of(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a block is short").to_be_bytes();
    [&PROXY_SIGNATURE[..], &[command, kind], &length, block].concat()
}

/// The header for [`CLIENT`].
fn header() -> Vec<u8> {
    header_for([192, 0, 2, 7])
}

/// The header for port 12345 of this client.
fn header_for(client: [u8; 4]) -> Vec<u8> {
    header_of(0x21, 0x11, &[&client[..], &[192, 0, 2, 1, 0x30, 0x39, 0x23, 0x28]].concat())
}

fn local() -> Vec<u8> {
    header_of(0x20, 0, b"")
}

/// Sends `bytes`, ends the stream, and returns what the server says.
fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address).expect("the server accepts");
    let sent = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let said = io::read_to_string(&mut stream).expect("a clean end");
    assert!(sent.is_ok() || !said.is_empty());
    said
}

/// A put of `content`, and the end of the conversation.
fn put(name: &str, content: &[u8]) -> Vec<u8> {
    [format!("/put size={} {name}\n", content.len()).as_bytes(), content, b"/bye\n"].concat()
}

fn proxied(bytes: &[u8]) -> Vec<u8> {
    [&header()[..], bytes].concat()
}

#[test]
fn the_log_names_the_client_and_not_the_proxy_however_the_stream_is_cut() {
    let server = Server::start(&FROM_LOOPBACK);
    let bytes = proxied(&put("cut", b"content"));
    for cut in 1..=bytes.len() {
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.set_nodelay(true).expect("a socket option can be set");
        stream.write_all(&bytes[..cut]).expect("it takes the beginning");
        // It has read that, and waits for more.
        talk(server.tcp(), &local());
        stream.write_all(&bytes[cut..]).expect("it takes the rest");
        stream.shutdown(Shutdown::Write).expect("a stream can be shut down");
        let said = io::read_to_string(&mut stream).expect("a clean end");
        assert!(said.starts_with("done 7 "), "cut at {cut}: {said}");
    }
    assert_eq!(server.files().len(), bytes.len());
    let stored = format!("{CLIENT}: \"cut\" stored as");
    await_until("each file to be logged", || server.log().matches(&stored).count() == bytes.len());
    let log = server.log();
    assert!(!log.contains("] 127.0.0.1"), "the proxy is not named: {log}");
}

#[test]
fn a_header_is_required_from_a_proxy_and_refused_from_elsewhere() {
    let damaged = |at: usize, byte: u8| {
        let mut bytes = proxied(&put("a", b"x"));
        bytes[at] = byte;
        bytes
    };
    let server = Server::start(&FROM_LOOPBACK);
    for (bytes, words) in [
        (put("a", b"x"), "no 400 your address is a proxy's"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "no 400 your address is a proxy's"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 9 80\r\na\nx".to_vec(), "no 400 the proxy speaks version 1"),
        (proxied(&proxied(&put("a", b"x"))), "no 403 a PROXY header is taken once"),
        (damaged(12, 0x11), "no 400 the PROXY header has an unknown version"),
        (damaged(13, 0x41), "no 400 the PROXY header has an unknown family"),
        (damaged(14, 0xff), "no 400 the PROXY header is longer"),
        (damaged(15, 11), "no 400 the PROXY header is too short"),
    ] {
        let said = talk(server.tcp(), &bytes);
        assert!(said.starts_with(words), "{}: {said}", bytes.escape_ascii());
    }
    for cut in 1..header().len() {
        let said = talk(server.tcp(), &header()[..cut]);
        assert_eq!(said, "no 400 the stream ended within the PROXY header\n", "cut at {cut}");
    }
    server.assert_holds_only(&Files::new());

    let server = Server::start(&["--proxy-from", "192.0.2.0/24"]);
    for bytes in [proxied(&put("a", b"x")), [local(), put("a", b"x")].concat()] {
        assert!(talk(server.tcp(), &bytes).starts_with("no 403 a PROXY header is taken once, and from proxies only"));
    }
    assert!(talk(server.tcp(), b"PROXY TCP4 192.0.2.7 192.0.2.1 9 80\r\na\nx").starts_with("no 403 the PROXY"));
    // However it is cut, nothing of it is taken for a request.
    let mut stream = connect(server.tcp()).expect("the server accepts");
    let mut said = String::new();
    for byte in proxied(&put("a", b"x")) {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        server.await_accepted();
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_string(&mut said);
    assert!(said.starts_with("no 4") || said.is_empty(), "{said}");
    server.assert_holds_only(&Files::new());
}

#[test]
fn checks_of_the_proxy_make_no_noise() {
    let server = Server::start(&FROM_LOOPBACK);
    let before = server.log().lines().count();
    let with_addresses = header_of(0x20, 0x11, &[1; 12]);
    for bytes in [&b""[..], &local(), &with_addresses] {
        assert_eq!(talk(server.tcp(), bytes), "");
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(bytes).expect("it takes them");
        server.await_accepted();
        reset(stream);
    }
    let get = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(talk(server.tcp(), &[local(), get.to_vec()].concat()).starts_with("HTTP/1.1 200 "));
    server.await_accepted();
    assert_eq!(server.log().lines().skip(before).collect::<Vec<_>>(), [""; 0]);
    // A file is not a check, and has the proxy's own address.
    assert!(talk(server.tcp(), &[with_addresses, put("a", b"x")].concat()).starts_with("done 1 "));
    await_until("the file to be logged", || server.log().contains("\"a\" stored as"));
    assert!(server.log().lines().any(|line| line.contains(" 127.0.0.1:") && line.contains("\"a\" stored as")));
}

#[test]
fn a_header_has_the_time_of_a_name() {
    let server = Server::start(&[&FROM_LOOPBACK[..], &["--header-timeout", "300ms"]].concat());
    for begun in [&header()[..9], &header()] {
        let mut stream = connect(server.tcp()).expect("the server accepts");
        stream.write_all(begun).expect("it takes them");
        let said = io::read_to_string(&mut stream).expect("a clean end");
        let words = if begun.len() < 28 { "no 408 no whole PROXY header came" } else { "no 408 no name came" };
        assert!(said.starts_with(words), "{said}");
    }
}

#[test]
fn the_limits_of_a_source_are_those_of_the_client() {
    let allowed = [&FROM_LOOPBACK[..], &["--allow", "192.0.2.0/24", "--per-source", "1"]].concat();
    let server = Server::start(&allowed);
    let said = talk(server.tcp(), &[header_for([198, 51, 100, 1]), put("a", b"x")].concat());
    assert!(said.starts_with("no 403 your address may not send here"), "{said}");
    // The proxy's own address is not allowed, and stands for a client that is not told.
    let unknown = header_of(0x21, 0, b"");
    assert!(talk(server.tcp(), &[unknown, put("a", b"x")].concat()).starts_with("no 403 your address may not"));
    assert!(talk(server.tcp(), &[local(), put("check", b"x")].concat()).starts_with("done 1 "));

    let mut first = connect(server.tcp()).expect("the server accepts");
    first.write_all(&proxied(b"/put size=1 first\n")).expect("it takes them");
    let second = await_some("the second to be refused", || {
        Some(talk(server.tcp(), &proxied(&put("second", b"x")))).filter(|said| !said.starts_with("done"))
    });
    assert!(second.starts_with("no 429 retry=5 your address has 1 connections already"), "{second}");
    // One that is refused gives no place back.
    server.await_accepted();
    assert!(talk(server.tcp(), &proxied(&put("again", b"x"))).starts_with("no 429 "));
    let other = talk(server.tcp(), &[header_for([192, 0, 2, 8]), put("other", b"x")].concat());
    assert!(other.starts_with("done 1 "), "{other}");
    first.write_all(b"x/bye\n").expect("it takes the rest");
    first.shutdown(Shutdown::Write).expect("a stream can be shut down");
    assert!(io::read_to_string(&mut first).expect("a clean end").starts_with("done 1 "));
    // Its place is free, and those that were refused have taken none.
    await_until("the place to be free", || talk(server.tcp(), &proxied(&put("third", b"x"))).starts_with("done 1 "));
}

#[test]
fn through_a_proxy_the_end_of_the_stream_proves_nothing() {
    let server = Server::start(&FROM_LOOPBACK);
    assert!(talk(server.tcp(), &proxied(b"line\ncontent")).starts_with("no 403 this server takes uploads of a known"));
    let mut stream = connect(server.tcp()).expect("the server accepts");
    stream.write_all(&proxied(b"classic")).expect("it takes the name");
    assert!(await_ok(stream).expect_err("it is refused").to_string().starts_with("no 403 this server takes uploads"));
    assert!(talk(server.tcp(), &proxied(&put("sized", b"content"))).starts_with("done 7 "));
    let chunks = b"PUT /chunks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let said = talk(server.tcp(), &proxied(&[&chunks[..], b"3\r\nabc\r\n0\r\n\r\n"].concat()));
    assert!(said.starts_with("HTTP/1.1 201 "), "{said}");
    assert!(!talk(server.tcp(), &proxied(&[&chunks[..], b"3\r\nabc\r\n"].concat())).starts_with("HTTP/1.1 201 "));
    server.assert_holds_only(&files_of([("sized", b"content"), ("chunks", b"abc")]));

    let server = Server::start(&[&FROM_LOOPBACK[..], &["--proxy-unsized"]].concat());
    let said = talk(server.tcp(), &proxied(b"line\ncontent"));
    assert!(said.contains("done 7 "), "{said}");
    let mut stream = connect(server.tcp()).expect("the server accepts");
    stream.write_all(&proxied(b"classic")).expect("it takes the name");
    classic_finish(await_ok(stream).expect("it is taken"), b"content").expect("it is stored");
    server.assert_holds_only(&files_of([("line", b"content"), ("classic", b"content")]));
}

#[test]
fn the_trace_tells_of_the_header_and_then_names_the_client() {
    let server = Server::start(&[&FROM_LOOPBACK[..], &["--trace"]].concat());
    assert!(talk(server.tcp(), &proxied(&put("a", b"x"))).starts_with("done 1 "));
    await_until("the end of the trace", || server.log().contains("closed: "));
    let log = server.log();
    let told = "PROXY header: the client is 192.0.2.7:12345, which has connected to 192.0.2.1:9000";
    assert!(log.lines().any(|line| line.contains(" 127.0.0.1:") && line.ends_with(told)), "{log}");
    assert!(log.lines().any(|line| line.contains(&format!("{CLIENT} request, put: \"a\""))), "{log}");
    assert!(log.lines().any(|line| line.contains(&format!("{CLIENT} kernel: "))), "the kernel still knows it: {log}");
}

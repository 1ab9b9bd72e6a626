//! What `intake serve --trace` prints about one upload, in each dialect and in both formats.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use serde_json::Value;

use crate::fixture::{Server, await_until, classic, classic_begin, connect, content, line, reset};

/// A server that writes only the trace to stderr.
fn traced(args: &[&str]) -> Server {
    Server::start_under(&["env", "RUST_LOG=off"], &Server::home(), args)
}

/// The trace objects of a server's only connection, up to the kernel's state after the close.
fn story(server: &Server) -> Vec<Value> {
    let objects = || server.log().lines().map(|line| serde_json::from_str(line).expect(line)).collect::<Vec<Value>>();
    let is_closed = |object: &Value| object["scene"] == "closed";
    await_until("the story to end", || objects().iter().skip_while(|object| !is_closed(object)).count() == 2);
    objects()
}

/// The part of an object that is compared: the event, and the one detail that identifies it.
fn gist(object: &Value) -> String {
    let detail = ["state", "to", "dialect", "text", "size", "stored_name", "first", "farewell"];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let detail = detail.iter().find_map(|key| object.get(*key)).map(|value| format!(" {}", text(value)));
    text(&object["scene"]) + &detail.unwrap_or_default()
}

/// Checks that these events come in this order. Others may come in between, since the kernel may cut the bytes anywhere.
fn assert_in_order(story: &[Value], expected: &[&str]) {
    let gists: Vec<String> = story.iter().map(gist).collect();
    let mut rest = gists.iter();
    for expected in expected {
        assert!(rest.any(|gist| gist == expected), "{expected} is missing, or too early:\n{}", gists.join("\n"));
    }
}

/// Sends `request`, shuts down, and returns the answer.
fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = connect(address)?;
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    io::read_to_string(&mut stream)
}

#[test]
fn a_classic_upload_is_traced_from_its_accept_to_its_close() {
    let server = traced(&["--trace=json"]);
    classic(server.tcp(), "a", &content(5000, 1)).unwrap();
    let story = story(&server);
    assert_in_order(
        &story,
        &[
            "accepted",
            "kernel ESTABLISHED",
            "read",
            "state RestOfName",
            "read_would_block",
            "request classic",
            "state Content",
            "wrote ok",
            "read",
            "content",
            "read_end",
            "kernel CLOSE_WAIT",
            "whole 5000",
            "state Answer",
            "settled a",
            "state EndOfStream",
            "parting Close",
            "closed client",
        ],
    );
    // The last acknowledgement may still be on its way.
    let afterwards = story.last().map(gist);
    assert!(matches!(afterwards.as_deref(), Some("kernel CLOSED" | "kernel LAST_ACK")), "{afterwards:?}");
    let read: u64 =
        story.iter().filter(|scene| scene["scene"] == "read").filter_map(|scene| scene["bytes"].as_u64()).sum();
    assert_eq!(read, 1 + 5000, "the name and the content");
    assert!(story.iter().all(|scene| scene["peer"] == story[0]["peer"]));
    assert!(story.is_sorted_by_key(|scene| scene["at_us"].as_u64()));
}

#[test]
fn a_line_upload_is_traced_with_its_receipt() {
    let server = traced(&["--trace=json", "--ok-grace", "off"]);
    line(server.tcp(), "a", &content(5000, 1)).unwrap();
    assert_in_order(
        &story(&server),
        &[
            "accepted",
            "request line",
            "state Content",
            "read_end",
            "whole 5000",
            "settled a",
            "wrote done 5000 - a\n",
            "parting Close",
            "closed client",
        ],
    );
}

#[test]
fn a_deadline_sends_ok_to_a_client_that_waits_for_it() {
    let server = traced(&["--trace=json"]);
    let mut stream = connect(server.tcp()).unwrap();
    stream.write_all(b"a\n").unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_in_order(&story(&server), &["state FirstContent", "lapsed", "state Content", "wrote ok\n", "read_end"]);
}

#[test]
fn a_put_is_traced_with_the_end_that_follows_it() {
    let server = traced(&["--trace=json"]);
    let mut stream = connect(server.tcp()).unwrap();
    stream.write_all(b"/put size=5 a\nhello").unwrap();
    stream.read_exact(&mut [0; "done 5 - a\n".len()]).unwrap();
    drop(stream);
    assert_in_order(
        &story(&server),
        &[
            "accepted",
            "request put",
            "content",
            "whole 5",
            "state Settlement",
            "settled a",
            "state NextRequest",
            "wrote done 5 - a\n",
            "event",
            "read_end",
            "kernel CLOSE_WAIT",
            "state EndOfStream",
            "closed client",
        ],
    );
}

#[test]
fn an_ask_is_traced_with_a_server_that_ends_first() {
    let server = traced(&["--trace=json"]);
    let mut stream = connect(server.tcp()).unwrap();
    stream.write_all(b"/ask size=5 a\n").unwrap();
    stream.read_exact(&mut [0; "ok 0\n".len()]).unwrap();
    stream.write_all(b"hello/bye\n").unwrap();
    assert_eq!(io::read_to_string(&mut stream).unwrap(), "done 5 - a\n");
    drop(stream);
    let story = story(&server);
    let closed = story.iter().find(|scene| scene["scene"] == "closed").unwrap();
    assert_eq!(closed["reason"], "finished", "its end was announced, so it is not unverified");
    assert_in_order(
        &story,
        &[
            "accepted",
            "request ask",
            "state Content",
            "wrote ok 0\n",
            "content",
            "whole 5",
            "settled a",
            "wrote done 5 - a\n",
            "parting Linger",
            "event",
            "read_end",
            "kernel TIME_WAIT",
            "closed server",
            "kernel TIME_WAIT",
        ],
    );
}

#[test]
fn a_reset_and_a_refusal_are_traced_with_their_reasons() {
    let server = traced(&["--trace=json"]);
    reset(classic_begin(server.tcp(), "a").unwrap());
    let lost = story(&server);
    assert_in_order(&lost, &["wrote ok", "failed", "kernel CLOSED", "closed client"]);
    assert!(lost.iter().any(|scene| scene["error"].as_str().is_some_and(|error| error.contains("reset by peer"))));

    let server = traced(&["--trace=json"]);
    let said = exchange(server.tcp(), b"/put size=x a\n").unwrap();
    let refused = story(&server);
    assert_in_order(&refused, &["refused", &format!("wrote {said}"), "parting Linger"]);
    let reason = refused[refused.len() - 2]["reason"].as_str().unwrap();
    assert!(said.starts_with("no 400 ") && reason.starts_with("refused, 400 "), "{reason}");
}

#[test]
fn each_line_of_the_text_format_begins_with_the_time_and_the_peer() {
    let server = traced(&["--trace"]);
    classic(server.tcp(), "a", b"hello").unwrap();
    let is_over = |log: &str| log.split_once(" closed: ").is_some_and(|(_, rest)| rest.contains(" kernel: "));
    await_until("the story to end", || is_over(&server.log()));
    let log = server.log();
    let (_, peer) = log.lines().next().and_then(|line| line.trim_start().split_once(' ')).unwrap();
    let (peer, accepted) = peer.split_once(' ').unwrap();
    assert_eq!(accepted, format!("accepted on {}", server.tcp()));
    for line in log.lines() {
        let (seconds, rest) = line.trim_start().split_once(' ').unwrap();
        assert!(seconds.parse::<f64>().is_ok_and(|seconds| seconds < 30.0) && rest.starts_with(peer), "{line}");
    }
    assert!(
        log.contains(r#"closed: "a" stored as "a", unverified"#) && log.contains("; the client ended first"),
        "{log}"
    );
}

#[test]
fn without_the_option_nothing_is_traced() {
    let server = traced(&[]);
    classic(server.tcp(), "a", b"hello").unwrap();
    server.await_file("a", b"hello");
    drop(exchange(server.tcp(), b"b\nhello").unwrap());
    assert_eq!(server.log(), "");
}

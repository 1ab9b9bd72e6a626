//! TCP beside UDP: a stream that loses its seams, and messages that get lost.
//!
//! ```text
//! cargo run --example tcp_and_udp
//! cargo run --example tcp_and_udp lossy      (how it runs itself, where every tenth packet is dropped)
//! ```
//!
//! The lossy link is a network namespace of its own. That needs root or unprivileged user namespaces, `unshare`, `ip` and
//! `nft`; where one of them is wanting, this part says so and is left out.

mod kernel;

use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, thread};

use kernel::{Ends, until};
use rustix::process::geteuid;
use socket2::SockRef;

const MESSAGES: u16 = 400;
const MESSAGE_BYTES: usize = 100;

fn main() -> io::Result<()> {
    if env::args().nth(1).is_some() {
        return on_a_lossy_link();
    }
    boundaries()?;
    overflow()?;
    cost()?;
    run_on_a_lossy_link()
}

fn boundaries() -> io::Result<()> {
    println!("-- three messages, sent by three calls");
    let messages = ["one", "two", "three"];
    let (mut client, mut server) = kernel::pair()?;
    for message in messages {
        client.write_all(message.as_bytes())?;
    }
    let ends = Ends::of_client(&client)?;
    until("the bytes to arrive", || Ok((ends.server()?.unread == 11).then_some(())))?;
    let mut buffer = [0; 64];
    let length = server.read(&mut buffer)?;
    println!("   TCP: one read has {:?}", text(&buffer[..length]));
    assert_eq!(&buffer[..length], b"onetwothree", "a stream has bytes; where a message ends it does not know");

    let (client, server) = udp_pair()?;
    for message in messages {
        client.send(message.as_bytes())?;
        let length = server.recv(&mut buffer)?;
        println!("   UDP: one read has {:?}", text(&buffer[..length]));
        assert_eq!(&buffer[..length], message.as_bytes(), "what is sent by one call is received by one call");
    }
    client.send(b"three")?;
    client.send(b"four")?;
    let mut small = [0; 2];
    server.recv(&mut small)?;
    let length = server.recv(&mut buffer)?;
    println!("   UDP, into two bytes: {:?}, and the next read has {:?}", text(&small), text(&buffer[..length]));
    assert_eq!((&small, &buffer[..length]), (b"th", &b"four"[..]), "what does not fit is lost");
    Ok(())
}

fn overflow() -> io::Result<()> {
    println!("\n-- {MESSAGES} messages to a receiver that does not read, with a small buffer");
    let (client, server) = udp_pair()?;
    SockRef::from(&server).set_recv_buffer_size(8 * 1024)?;
    for number in 0..MESSAGES {
        client.send(&message(number))?;
    }
    server.set_nonblocking(true)?;
    let (mut received, mut buffer) = (0, [0; MESSAGE_BYTES]);
    let dropped = until("each datagram to be received or dropped", || {
        while unless_blocked(server.recv(&mut buffer))?.is_some() {
            received += 1;
        }
        let dropped = kernel::udp_drops(server.local_addr()?.port())?;
        Ok((received + dropped == u32::from(MESSAGES)).then_some(dropped))
    })?;
    println!("   UDP: all were sent, says the sender; {received} were received, {dropped} dropped, says the kernel");
    assert!(dropped > 0, "the sender is never told");

    let (mut client, mut server) = kernel::pair()?;
    SockRef::from(&server).set_recv_buffer_size(8 * 1024)?;
    SockRef::from(&client).set_send_buffer_size(8 * 1024)?;
    client.set_nonblocking(true)?;
    let mut sent = 0;
    while let Some(length) = unless_blocked(client.write(&message(0)))? {
        sent += length;
    }
    drop(client);
    let received = io::copy(&mut server, &mut io::sink())? as usize;
    println!("   TCP: {sent} bytes were sent, then comes WouldBlock; {received} were received");
    assert_eq!(received, sent, "what was not taken is still the sender's, and it knows");
    Ok(())
}

fn cost() -> io::Result<()> {
    println!("\n-- what {MESSAGES} messages of {MESSAGE_BYTES} bytes cost");
    println!("   {:<28} {:>7} {:>7} {:>9} {:>7}", "", "sends", "reads", "segments", "time");
    let row = |what: &str, sends: usize, reads: usize, segments: usize, time: Duration| {
        println!("   {what:<28} {sends:>7} {reads:>7} {segments:>9} {:>4} us", time.as_micros());
        sends + reads
    };
    let messages: Vec<u8> = (0..MESSAGES).flat_map(message).collect();
    let mut calls = Vec::new();
    for (what, size) in [("TCP, a call for each", MESSAGE_BYTES), ("TCP, all in one buffer", messages.len())] {
        let (mut client, mut server) = kernel::pair()?;
        client.set_nodelay(true)?;
        let start = Instant::now();
        messages.chunks(size).try_for_each(|chunk| client.write_all(chunk))?;
        let (mut reads, mut rest, mut buffer) = (0, messages.len(), vec![0; 64 * 1024]);
        while rest > 0 {
            rest -= server.read(&mut buffer)?;
            reads += 1;
        }
        let time = start.elapsed();
        let sender = Ends::of_client(&client)?.client()?;
        let segments = sender.info.as_ref().map_or(0, |info| info.data_segs_out as usize);
        calls.push(row(what, messages.len().div_ceil(size), reads, segments, time));
    }
    let (client, server) = udp_pair()?;
    let start = Instant::now();
    // Received in between, or the receive buffer would overflow.
    for number in 0..MESSAGES {
        client.send(&message(number))?;
        server.recv(&mut [0; MESSAGE_BYTES])?;
    }
    let each = usize::from(MESSAGES);
    calls.push(row("UDP, a call for each", each, each, each, start.elapsed()));
    assert!(calls[1] < calls[0] && calls[0] < calls[2], "only a stream can be cut where it suits the caller");
    Ok(())
}

/// Runs this program again where every tenth packet is lost.
fn run_on_a_lossy_link() -> io::Result<()> {
    const LOSE: &str = r#"ip link set lo up && nft "add table ip lossy
        add chain ip lossy in { type filter hook input priority 0; }
        add rule ip lossy in numgen inc mod 10 0 drop" && exec "$0" "$@""#;
    println!("\n-- a link that loses every tenth packet");
    // Root needs no namespace of users, and has one of networks even where nobody else may.
    let namespaces: &[_] = if geteuid().is_root() { &["--net"] } else { &["--net", "--map-root-user"] };
    let there = |program: &str, argument: &str| {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", LOSE, program, argument]);
        command
    };
    let tried = there("true", "").output().and_then(|output| {
        let refused = || io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        if output.status.success() { Ok(()) } else { Err(refused()) }
    });
    if let Err(error) = tried {
        println!("   left out, as there is none to be had here: {error}");
        return Ok(());
    }
    let status = there(&env::current_exe()?.to_string_lossy(), "lossy").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("on the lossy link: {status}"))) }
}

fn on_a_lossy_link() -> io::Result<()> {
    let (client, server) = udp_pair()?;
    // Long enough for a datagram on loopback: what has not come by then is lost.
    server.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut missing: Vec<u16> = (0..MESSAGES).collect();
    let (mut arrived, mut rounds) = (Vec::new(), 0);
    while !missing.is_empty() {
        // A few at a time, so that it is the link that loses them and not the receive buffer.
        for numbers in missing.chunks(100) {
            numbers.iter().try_for_each(|&number| client.send(&message(number)).map(drop))?;
            let mut buffer = [0; MESSAGE_BYTES];
            while unless_blocked(server.recv(&mut buffer))?.is_some() {
                arrived.push(u16::from_be_bytes([buffer[0], buffer[1]]));
            }
        }
        missing.retain(|number| !arrived.contains(number));
        rounds += 1;
        println!("   UDP: {} sent, {} still missing", if rounds == 1 { "all" } else { "those again" }, missing.len());
    }
    assert!(rounds > 1, "what is lost stays lost, unless the program sends it again");
    println!(
        "   UDP: all are there, but no longer in order: the last to come was number {}",
        arrived[arrived.len() - 1]
    );
    assert!(!arrived.is_sorted(), "and what is sent again comes late");

    let start = Instant::now();
    let (mut client, mut server) = kernel::pair()?;
    let ends = Ends::of_client(&client)?;
    client.set_nodelay(true)?;
    let messages: Vec<u8> = (0..MESSAGES).flat_map(message).collect();
    let mut received = vec![0; messages.len()];
    thread::scope(|scope| {
        let reading = scope.spawn(|| server.read_exact(&mut received));
        messages.chunks(MESSAGE_BYTES).try_for_each(|message| client.write_all(message))?;
        reading.join().expect("a read does not panic")
    })?;
    assert!(received == messages, "all of it, in order");
    let again = ends.client()?.info.as_ref().map_or(0, |info| info.total_retrans);
    let early = ends.server()?.info.as_ref().map_or(0, |info| info.rcv_ooopack);
    let time = start.elapsed().as_millis();
    println!(
        "   TCP: all are there, in order, after {time} ms; {again} segments were sent again, {early} came too early"
    );
    assert!(again > 0, "the price of a stream is that everyone waits for what was lost");
    Ok(())
}

/// A numbered message.
fn message(number: u16) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[..2].copy_from_slice(&number.to_be_bytes());
    message
}

/// Two UDP sockets, the first of which sends to the second.
fn udp_pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let (client, server) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    client.connect(server.local_addr()?)?;
    Ok((client, server))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into()
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

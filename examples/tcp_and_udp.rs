//! TCP beside UDP: a stream without message boundaries, and messages that get lost.
//!
//! The example `lossy_link` shows both on a link that loses packets.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod loopback;

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use loopback::kernel::{Ends, arrived, udp};
use loopback::{fill, pair, udp_pair, unless_blocked, until};
use socket2::SockRef;

const MESSAGES: usize = 400;
const MESSAGE: [u8; 100] = [b'm'; 100];

fn main() -> io::Result<()> {
    boundaries()?;
    overflow()?;
    cost()
}

fn boundaries() -> io::Result<()> {
    println!("-- three messages, sent by three calls");
    let messages = ["one", "two", "three"];
    let (mut client, mut server) = pair()?;
    for message in messages {
        client.write_all(message.as_bytes())?;
    }
    arrived(&server, 11)?;
    let mut buffer = [0; 64];
    let length = server.read(&mut buffer)?;
    println!("   TCP: one read gets {:?}", text(&buffer[..length]));
    assert_eq!(&buffer[..length], b"onetwothree", "a stream does not know where a message ends");

    let (client, server) = udp_pair()?;
    for message in messages {
        client.send(message.as_bytes())?;
        let length = server.recv(&mut buffer)?;
        println!("   UDP: one read gets {:?}", text(&buffer[..length]));
        assert_eq!(&buffer[..length], message.as_bytes(), "what is sent by one call is received by one call");
    }
    client.send(b"three")?;
    client.send(b"four")?;
    let mut small = [0; 2];
    server.recv(&mut small)?;
    let length = server.recv(&mut buffer)?;
    println!("   UDP, into two bytes: {:?}, and the next read gets {:?}", text(&small), text(&buffer[..length]));
    assert_eq!((&small, &buffer[..length]), (b"th", &b"four"[..]), "what does not fit is lost");
    Ok(())
}

fn overflow() -> io::Result<()> {
    println!("\n-- {MESSAGES} messages to a receiver that does not read, with a small buffer");
    let (client, server) = udp_pair()?;
    SockRef::from(&server).set_recv_buffer_size(8 * 1024)?;
    for _ in 0..MESSAGES {
        client.send(&MESSAGE)?;
    }
    server.set_nonblocking(true)?;
    let (mut received, port) = (0, server.local_addr()?.port());
    let dropped = until("each datagram to be received or dropped", || {
        while unless_blocked(|| server.recv(&mut [0; MESSAGE.len()]))?.is_some() {
            received += 1;
        }
        let dropped = udp(port)?.dropped;
        Ok((received + dropped == MESSAGES).then_some(dropped))
    })?;
    println!("   UDP: all were sent, says the sender; {received} were received, {dropped} dropped, says the kernel");
    assert!(dropped > 0, "the sender never learns of it");

    let (client, mut server) = pair()?;
    SockRef::from(&server).set_recv_buffer_size(8 * 1024)?;
    // A large buffer would take all of it, and then need most of a minute to send it through that small window.
    SockRef::from(&client).set_send_buffer_size(8 * 1024)?;
    let sent = fill(&client)?;
    drop(client);
    let received = io::copy(&mut server, &mut io::sink())? as usize;
    println!("   TCP: {sent} bytes were sent, then came WouldBlock; {received} were received");
    assert_eq!(received, sent, "the sender knows which bytes were not taken, and still has them");
    Ok(())
}

/// The cost of the same messages: system calls on both sides, and packets on the network.
fn cost() -> io::Result<()> {
    println!("\n-- what {MESSAGES} messages of {} bytes cost", MESSAGE.len());
    println!("   {:<28} {:>7} {:>7} {:>9} {:>7}", "", "sends", "reads", "packets", "time");
    let each = tcp("TCP, a call for each", &MESSAGE)?;
    let at_once = tcp("TCP, all in one buffer", &MESSAGE.repeat(MESSAGES))?;
    let (client, server) = udp_pair()?;
    let start = Instant::now();
    // Receive in between, since the receive buffer would overflow.
    for _ in 0..MESSAGES {
        client.send(&MESSAGE)?;
        server.recv(&mut [0; MESSAGE.len()])?;
    }
    let datagrams = row("UDP, a call for each", [MESSAGES; 3], start.elapsed());
    assert!(at_once < each && each < datagrams, "only in a stream the caller chooses where to cut");
    Ok(())
}

/// Sends all messages in buffers of this size and receives them. Returns the system calls of both ends.
fn tcp(what: &str, buffer: &[u8]) -> io::Result<usize> {
    let (mut client, mut server) = pair()?;
    client.set_nodelay(true)?;
    let (start, sends) = (Instant::now(), MESSAGES * MESSAGE.len() / buffer.len());
    (0..sends).try_for_each(|_| client.write_all(buffer))?;
    let (mut reads, mut rest) = (0, MESSAGES * MESSAGE.len());
    while rest > 0 {
        rest -= server.read(&mut [0; 64 * 1024])?;
        reads += 1;
    }
    let time = start.elapsed();
    let packets = Ends::of_client(&client)?.client()?.info.map_or(0, |info| info.data_segs_out as usize);
    Ok(row(what, [sends, reads, packets], time))
}

fn row(what: &str, [sends, reads, packets]: [usize; 3], time: Duration) -> usize {
    println!("   {what:<28} {sends:>7} {reads:>7} {packets:>9} {:>4} us", time.as_micros());
    sends + reads
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into()
}

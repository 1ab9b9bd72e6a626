//! The sliding window: a receiver that does not read stops its sender.
//!
//! With every acknowledgement the receiver tells how many more bytes it has room for. That is the window. Bytes that do not
//! fit into it wait at the sender, and when its buffer is full as well, write says `WouldBlock`. A program
//! that then waits, instead of buffering, passes the pressure on to the source of its bytes.

mod loopback;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use loopback::kernel::{Ends, flags};
use loopback::{ANY, unless_blocked, until};
use rustix::event::PollFlags;
use socket2::{Domain, Socket, Type};

/// Small buffers, so that the table is short. The kernel doubles the size, and uses a part for its own bookkeeping.
const BUFFER_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;
/// What a sender sends if nothing stops it.
const ENDLESS_BYTES: usize = 8 << 20;

/// What a relay does while its bytes cannot go out.
#[derive(Clone, Copy, Debug)]
enum WhenBlocked {
    ReadOn,
    StopReading,
}

fn main() -> io::Result<()> {
    one_connection()?;
    println!("\n-- a relay between a quick sender and a receiver that does not read");
    assert!(relay(WhenBlocked::ReadOn)? > ENDLESS_BYTES / 2, "unsent bytes pile up in the program");
    assert!(relay(WhenBlocked::StopReading)? <= CHUNK_BYTES, "unsent bytes wait at their source");
    Ok(())
}

fn one_connection() -> io::Result<()> {
    let (mut sender, mut receiver) = pair()?;
    let ends = Ends::of_client(&sender)?;
    let show = |note: &str| -> io::Result<()> {
        let (sending, receiving) = (ends.client()?, ends.server()?);
        let (queued, window, unread) = (sending.unacknowledged, sending.window(), receiving.unread);
        println!("   {note:<36} {queued:>7} {window:>7} {unread:>7}");
        Ok(())
    };

    println!("-- a receiver that does not read");
    println!("   {:<36} {:>7} {:>7} {:>7}", "", "Send-Q", "window", "Recv-Q");
    let mut written = 0;
    while let Some(length) = unless_blocked(|| sender.write(&pattern(written, CHUNK_BYTES)))? {
        written += length;
        show(&format!("{written} bytes written"))?;
    }
    show("write says WouldBlock")?;
    until("the window to close", || Ok((ends.client()?.window() == 0).then_some(())))?;
    show("zero window")?;
    let held = ends.client()?.unacknowledged + ends.server()?.unread;
    assert_eq!(held as usize, written, "every byte is at one of the two ends");
    assert!(!flags(&sender)?.contains(PollFlags::OUT));
    let limited = ends.client()?.info.as_ref().map_or(0, |info| info.rwnd_limited);
    println!("   the receiver's window has held the sender up for {:?}", Duration::from_micros(limited));

    println!("-- it reads");
    let mut read = read_exactly(&mut receiver, 0, 1)?;
    show("1 byte read")?;
    assert_eq!(
        ends.client()?.window(),
        0,
        "a window of a few bytes would only make for silly little packets (RFC 9293, 3.8.6.2)"
    );
    while ends.client()?.window() == 0 {
        read = read_exactly(&mut receiver, read, 4096.min(written - read))?;
    }
    show(&format!("{read} bytes read: it opens"))?;
    while !flags(&sender)?.contains(PollFlags::OUT) {
        read = read_exactly(&mut receiver, read, 4096.min(written - read))?;
    }
    show(&format!("{read} bytes read: writable again"))?;
    read_exactly(&mut receiver, read, written - read)?;
    show("all read, each byte as it was written")?;
    Ok(())
}

/// Relays bytes until the sender is stopped or has sent all. Returns how many bytes the relay then holds.
fn relay(when_blocked: WhenBlocked) -> io::Result<usize> {
    let (mut sender, mut inlet) = pair()?;
    let (mut outlet, _receiver) = pair()?;
    let ends = Ends::of_client(&sender)?;
    let (mut sent, mut held, mut buffer) = (0, Vec::new(), vec![0; CHUNK_BYTES]);
    while sent < ENDLESS_BYTES {
        match unless_blocked(|| sender.write(&buffer))? {
            Some(length) => sent += length,
            None if ends.client()?.window() == 0 && matches!(when_blocked, WhenBlocked::StopReading) => break,
            None => {}
        }
        if held.is_empty() || matches!(when_blocked, WhenBlocked::ReadOn) {
            let length = unless_blocked(|| inlet.read(&mut buffer))?.unwrap_or(0);
            held.extend_from_slice(&buffer[..length]);
        }
        if !held.is_empty() {
            held.drain(..unless_blocked(|| outlet.write(&held))?.unwrap_or(0));
        }
    }
    println!("   {when_blocked:?}: the sender could send {sent} bytes, and the relay holds {}", held.len());
    ends.reach("ESTABLISHED", "ESTABLISHED")?;
    Ok(held.len())
}

/// A sender that does not block, and a receiver. The segments are as long as on Ethernet; loopback's own are 64 KiB.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let [sender, listener] = [(); 2].map(|()| Socket::new(Domain::IPV4, Type::STREAM, None));
    let (sender, listener) = (sender?, listener?);
    // Set before the handshake, which fixes the window's scale.
    listener.set_recv_buffer_size(BUFFER_BYTES)?;
    listener.bind(&ANY.into())?;
    listener.listen(1)?;
    sender.set_tcp_mss(1460)?;
    sender.set_send_buffer_size(BUFFER_BYTES)?;
    sender.connect(&listener.local_addr()?)?;
    sender.set_nonblocking(true)?;
    Ok((sender.into(), listener.accept()?.0.into()))
}

/// Reads this many bytes, and checks them. Returns how many were read since the beginning.
fn read_exactly(stream: &mut TcpStream, start: usize, length: usize) -> io::Result<usize> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    assert!(bytes == pattern(start, length));
    Ok(start + length)
}

/// Bytes that show their position in the stream.
fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|position| (position % 251) as u8).collect()
}

//! RST: an end that loses bytes, and is easily taken for a clean one.
//!
//! A FIN waits behind the bytes. A reset does not: it discards the bytes that are not sent yet, and the connection with
//! them. A program asks for it (`SO_LINGER` of zero seconds), or the kernel sends it when a socket is closed with unread
//! bytes (RFC 9293, 3.6; RFC 2525, 2.17).

#![allow(clippy::disallowed_methods, reason = "taking the error is the mistake that this shows")]

mod loopback;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use loopback::kernel::Ends;
use loopback::{fill, pair, until};
use socket2::SockRef;

/// More than the window of a peer that does not read, less than the kernel buffers for it.
const ANSWER_BYTES: usize = 256 * 1024;

/// What a receiver takes an upload for.
#[derive(Debug, PartialEq)]
enum Upload {
    Whole(usize),
    CutOff(usize),
}

fn main() -> io::Result<()> {
    what_it_throws_away()?;
    closing_too_early()?;
    read_twice()
}

fn what_it_throws_away() -> io::Result<()> {
    println!("-- a sender that closes, and one that resets; both have filled the pipe");
    for (reset, states) in [(false, ["FIN_WAIT1", "ESTABLISHED"]), (true, ["CLOSED", "CLOSED"])] {
        let (sender, receiver) = pair()?;
        let (ends, written) = (Ends::of_client(&sender)?, fill(&sender)?);
        ends.reach("ESTABLISHED", "ESTABLISHED")?;
        if reset {
            reset_on_close(&sender)?;
        }
        drop(sender);
        ends.reach(states[0], states[1])?;
        let upload = receive(receiver)?;
        println!("   {written} bytes written; reset: {reset}; the receiver gets {upload:?}\n");
        match upload {
            // The FIN waits behind the bytes, and the kernel keeps sending after the program has closed.
            Upload::Whole(length) => assert!(!reset && length == written),
            // The Send-Q is discarded at once. On Linux, bytes that had arrived can still be read; no standard promises that.
            Upload::CutOff(length) => assert!(reset && length < written),
        }
    }
    Ok(())
}

/// A close that leaves something unread is a reset, and the end of the answer is lost.
fn closing_too_early() -> io::Result<()> {
    println!("-- a server that answers, and closes with unread bytes of the client's");
    for linger in [false, true] {
        let (mut client, mut server) = pair()?;
        client.write_all(b"a question, and a word too many")?;
        server.read_exact(&mut [0; 10])?;
        server.write_all(&vec![b'a'; ANSWER_BYTES])?;
        if linger {
            // All is sent, but not all is read: end our direction, and close when the client has ended its own.
            server.shutdown(Shutdown::Write)?;
            thread::spawn(move || io::copy(&mut server, &mut io::sink()));
        } else {
            drop(server);
        }
        let answer = receive(client)?;
        println!("   read to the end before closing: {linger}; the client has {answer:?} of {ANSWER_BYTES}");
        assert_eq!(linger, answer == Upload::Whole(ANSWER_BYTES));
    }
    Ok(())
}

/// The kernel reports a reset once. The next read says that the stream has ended.
fn read_twice() -> io::Result<()> {
    println!("\n-- an upload that is reset");
    let mut receiver = reset_upload()?;
    let first = receiver.read(&mut [0; 1]).expect_err("the first read has the error");
    let second = receiver.read(&mut [0; 1])?;
    println!("   read: {first}, and once more: {second} bytes, the end");
    assert_eq!((first.kind(), second), (io::ErrorKind::ConnectionReset, 0));

    // Any other way to ask for the error uses it up as well.
    let receiver = reset_upload()?;
    println!("   a receiver asks the socket for errors, only to log them: {:?}", receiver.take_error()?);
    let upload = receive(receiver)?;
    println!("   and then reads, and gets {upload:?}");
    assert_eq!(upload, Upload::Whole(0), "a cut-off upload, taken for a whole one");
    let upload = receive(reset_upload()?)?;
    println!("   a receiver that only reads, and stops at the first error, gets {upload:?}");
    assert_eq!(upload, Upload::CutOff(0));
    Ok(())
}

/// Reads to the end, or to the first error, which decides.
fn receive(mut stream: TcpStream) -> io::Result<Upload> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(length) => Ok(Upload::Whole(length)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Upload::CutOff(bytes.len())),
        Err(error) => Err(error),
    }
}

/// A connection whose peer has reset it.
fn reset_upload() -> io::Result<TcpStream> {
    let (sender, receiver) = pair()?;
    let ends = Ends::of_client(&sender)?;
    reset_on_close(&sender)?;
    drop(sender);
    until("the reset to arrive", || Ok(ends.server()?.is_closed().then_some(())))?;
    Ok(receiver)
}

/// Makes the next close a reset (socket(7)).
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

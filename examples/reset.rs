//! RST: the end of a connection that loses bytes, and how easily it is taken for the other one.
//!
//! ```text
//! cargo run --example reset
//! cargo run --example reset send-half ADDRESS      (how it runs itself, to be killed)
//! ```

mod kernel;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use kernel::{Ends, Tcp, until};
use socket2::SockRef;

const FILE_BYTES: usize = 64 * 1024;
/// More than the window of a peer that does not read, less than what the kernel takes without it.
const ANSWER_BYTES: usize = 256 * 1024;

/// What a receiver takes an upload for.
#[derive(Debug, PartialEq)]
enum Upload {
    Whole(usize),
    CutOff(usize),
}

fn main() -> io::Result<()> {
    match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => {}
        [mode, address] if mode == "send-half" => return send_half(address),
        _ => return Err(io::Error::other("usage: reset")),
    }
    what_it_throws_away()?;
    closing_too_early()?;
    read_twice()?;
    a_kill_looks_like_success()
}

fn what_it_throws_away() -> io::Result<()> {
    println!("-- a sender that closes, and one that resets; both have filled the pipe");
    for reset in [false, true] {
        let (sender, receiver) = kernel::pair()?;
        let (ends, written) = (Ends::of_client(&sender)?, kernel::fill(&sender)?);
        ends.become_and_show("ESTABLISHED", "ESTABLISHED")?;
        if reset {
            reset_on_close(&sender)?;
        }
        drop(sender);
        let [client, server] = if reset { ["CLOSED", "CLOSED"] } else { ["FIN_WAIT1", "ESTABLISHED"] };
        ends.become_and_show(client, server)?;
        let upload = receive(receiver)?;
        println!("   {written} bytes written; reset: {reset}; the receiver has {upload:?}\n");
        match upload {
            // The FIN waits in line behind the bytes, and the kernel goes on sending for a program that has left.
            Upload::Whole(length) => assert!(!reset && length == written),
            // The Send-Q is gone, at once. What had arrived can still be read, on Linux; nobody promises it.
            Upload::CutOff(length) => assert!(reset && length < written),
        }
    }
    Ok(())
}

/// A close that leaves something unread is a reset (RFC 2525, 2.17), and the answer goes with it.
fn closing_too_early() -> io::Result<()> {
    println!("-- a server that answers, and closes while something that the client said is unread");
    for linger in [false, true] {
        let (mut client, mut server) = kernel::pair()?;
        client.write_all(b"a question, and a word too many")?;
        server.read_exact(&mut [0; 10])?;
        server.write_all(&vec![b'a'; ANSWER_BYTES])?;
        if linger {
            // Said all, but not heard all: end our direction, and close when the client has ended its own.
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

/// The kernel tells of a reset once. Whoever asks again hears that this is the end of the stream.
fn read_twice() -> io::Result<()> {
    println!("\n-- an upload that is reset");
    let mut receiver = reset_upload()?;
    let first = receiver.read(&mut [0; 1]).expect_err("the first read has the error");
    println!("   read: {first}, and once more: {:?}", receiver.read(&mut [0; 1]));
    assert_eq!(first.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(receiver.read(&mut [0; 1])?, 0);

    // Any other look at the error uses it up as well.
    let receiver = reset_upload()?;
    println!("   a receiver asks the socket for errors, only to log them: {:?}", receiver.take_error()?);
    let upload = receive(receiver)?;
    println!("   and then reads, and has {upload:?}");
    assert_eq!(upload, Upload::Whole(0), "a cut-off upload, taken for a whole one");
    let upload = receive(reset_upload()?)?;
    println!("   a receiver that only reads, and stops at the first error, has {upload:?}");
    assert_eq!(upload, Upload::CutOff(0));
    Ok(())
}

/// The kernel closes the sockets of a process that ends, however it ends.
fn a_kill_looks_like_success() -> io::Result<()> {
    println!("\n-- a sender of {FILE_BYTES} bytes that is killed half way");
    for says_ok in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let mut sender = Command::new(env::current_exe()?);
        sender.args(["send-half", &address]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut sender = sender.spawn()?;
        let (mut receiver, peer) = listener.accept()?;
        if says_ok {
            receiver.write_all(b"ok")?;
            let unread = || Ok((Tcp::find(peer, receiver.local_addr()?)?.unread == 2).then_some(()));
            until("the sender's kernel to have it", unread)?;
        }
        BufReader::new(sender.stdout.take().expect("it is piped")).read_line(&mut String::new())?;
        sender.kill()?;
        let status = sender.wait()?;
        let upload = receive(receiver)?;
        println!("   {status}; an `ok` that it had not read: {says_ok}; the receiver has {upload:?}");
        let half = FILE_BYTES / 2;
        assert_eq!(upload, if says_ok { Upload::CutOff(half) } else { Upload::Whole(half) });
    }
    println!("   an end proves nothing: only a size or a checksum that was told tells half a file from a whole one");
    Ok(())
}

/// Sends the first half of a file, says so, and would go on if it were not killed now.
fn send_half(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&[b'a'; FILE_BYTES / 2])?;
    println!("half of it is sent");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Reads to the end, or to the first error, which is the last word.
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
    let (sender, receiver) = kernel::pair()?;
    let ends = Ends::of_client(&sender)?;
    reset_on_close(&sender)?;
    drop(sender);
    until("the reset to arrive", || Ok((ends.server()?.state == "CLOSED").then_some(())))?;
    Ok(receiver)
}

/// Makes the close that follows a reset (`SO_LINGER` of zero seconds, socket(7)).
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

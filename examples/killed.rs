//! A kill looks like success: the kernel closes the sockets of a process that ends, however it ends.
//!
//! So the end of a stream does not mean that the sender was done, only that it is gone. Half a file and a whole one end
//! in the same way, unless a size or a checksum was announced.
//!
//! ```text
//! cargo run --example killed
//! cargo run --example killed send-half ADDRESS      (how it runs itself, to be killed)
//! ```

mod loopback;

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use loopback::kernel::Ends;
use loopback::{ANY, until};

const FILE_BYTES: usize = 64 * 1024;

/// What a receiver knows about the file.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// Wrong: nothing. The receiver must take the end of the stream for the end of the file.
    Nothing,
    /// Right: the size of the file.
    Size(usize),
}

fn main() -> io::Result<()> {
    if let [mode, address] = &env::args().skip(1).collect::<Vec<_>>()[..] {
        assert_eq!(mode, "send-half");
        return send_half(address);
    }
    println!("-- a sender of {FILE_BYTES} bytes is killed half way");
    assert!(takes_it_for_whole(Known::Nothing)?, "half a file, taken for a whole one");
    assert!(!takes_it_for_whole(Known::Size(FILE_BYTES))?);
    println!("-- the same, with an `ok` of the receiver's left unread");
    assert!(resets_with_something_unread()?, "a close with unread bytes is a reset, even by a kill");
    Ok(())
}

/// Whether a receiver takes the half that it got for the file.
fn takes_it_for_whole(known: Known) -> io::Result<bool> {
    let (mut receiver, sender) = Sender::start()?;
    sender.kill()?;
    let mut bytes = Vec::new();
    receiver.read_to_end(&mut bytes)?;
    assert_eq!(bytes.len(), FILE_BYTES / 2);
    let believes = match known {
        Known::Nothing => true,
        Known::Size(size) => bytes.len() == size,
    };
    println!("   known: {known:?}; a clean end after {} bytes; taken for whole: {believes}", bytes.len());
    Ok(believes)
}

/// Whether the receiver sees a reset from a sender that left an `ok` unread.
fn resets_with_something_unread() -> io::Result<bool> {
    let (mut receiver, sender) = Sender::start()?;
    receiver.write_all(b"ok")?;
    let ends = Ends { client: receiver.peer_addr()?, server: receiver.local_addr()? };
    until("the sender's kernel to have it", || Ok((ends.client()?.unread == 2).then_some(())))?;
    sender.kill()?;
    let ending = receiver.read_to_end(&mut Vec::new());
    println!("   {ending:?}");
    Ok(ending.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset))
}

/// This program, as a sender that has sent half of its file.
struct Sender(std::process::Child);

impl Sender {
    fn start() -> io::Result<(TcpStream, Self)> {
        let listener = TcpListener::bind(ANY)?;
        let mut sender = Command::new(env::current_exe()?);
        sender.args(["send-half", &listener.local_addr()?.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut sender = sender.spawn()?;
        let (receiver, _) = listener.accept()?;
        BufReader::new(sender.stdout.take().expect("it is piped")).read_line(&mut String::new())?;
        Ok((receiver, Self(sender)))
    }

    fn kill(mut self) -> io::Result<()> {
        self.0.kill()?;
        println!("   {}", self.0.wait()?);
        Ok(())
    }
}

/// Sends the first half of a file, prints a line, and waits to be killed.
fn send_half(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&[b'a'; FILE_BYTES / 2])?;
    println!("half of it is sent");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

//! The sender of the network tutorials, in blocking std: the other half of `tutorial_receiver`.
//!
//! It opens the file, connects, writes the base name, and reads once. Only if the answer is exactly `ok` does it stream
//! the content. It closes the connection to say that the file is complete.
//!
//! ```text
//! cargo run --example tutorial_sender                         demonstrates, on loopback, and ends
//! cargo run --example tutorial_sender FILE 127.0.0.1:9000     sends the file
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::{env, process, thread};

fn main() -> io::Result<()> {
    match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => demonstrate(),
        [path, address] => {
            match send(Path::new(path), address) {
                Ok(size) => println!("sent {size} bytes"),
                Err(error) => fail(1, &format!("{path} was not sent: {error}")),
            }
            Ok(())
        }
        _ => fail(2, "usage: tutorial_sender [FILE ADDRESS]"),
    }
}

fn fail(code: i32, words: &str) -> ! {
    eprintln!("{words}");
    process::exit(code)
}

/// Sends one file and returns its size in bytes. Dropping the stream closes it: the sender never learns whether its file
/// was stored.
fn send(path: &Path, address: impl ToSocketAddrs) -> io::Result<u64> {
    // Check everything that can be checked before anything is sent.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    let mut file = File::open(path)?;
    let name = path.file_name().expect("the path of a file ends with its name");

    let mut stream = TcpStream::connect(address)?;
    stream.write_all(name.as_encoded_bytes())?;
    // One read, as in the tutorials. The content is sent only after it, so that it is not taken for part of the name.
    let mut reply = [0; 1024];
    let length = stream.read(&mut reply)?;
    match &reply[..length] {
        b"ok" => io::copy(&mut file, &mut stream),
        other => Err(io::Error::other(format!("the receiver said {:?}", String::from_utf8_lossy(other)))),
    }
}

fn demonstrate() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("report.txt");
    fs::write(&path, "all of it")?;

    let (sent, received) = send_to_scripted_receiver(&path, b"ok")?;
    assert_eq!(sent?, 9);
    assert_eq!(received, ("report.txt".into(), "all of it".into()), "the name without its path, then the content");

    // Any other answer is a refusal, even one that a person would take for a yes.
    for reply in ["ok\n", "OK", "no 409 the name is taken"] {
        let (sent, received) = send_to_scripted_receiver(&path, reply.as_bytes())?;
        println!("stopped: {}", sent.expect_err("only `ok` is ok"));
        assert_eq!(received, ("report.txt".into(), "".into()), "a receiver that did not say ok gets no content");
    }

    assert!(send(directory.path(), "127.0.0.1:9").is_err(), "a directory is refused before the connect");
    Ok(())
}

/// How one upload ended for the sender, and the name and content that the receiver got.
type Upload = (io::Result<u64>, (String, String));

/// Sends `path` to a receiver that takes one upload and answers any name with `reply`.
fn send_to_scripted_receiver(path: &Path, reply: &'static [u8]) -> io::Result<Upload> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || -> io::Result<_> {
        let (mut stream, _) = listener.accept()?;
        let mut name = [0; 255];
        let length = stream.read(&mut name)?;
        stream.write_all(reply)?;
        Ok((String::from_utf8_lossy(&name[..length]).into(), io::read_to_string(stream)?))
    });
    let sent = send(path, address);
    Ok((sent, receiver.join().expect("the receiver's thread ended well")?))
}

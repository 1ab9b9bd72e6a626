//! The receiver of the network tutorials, in blocking std: one thread for each connection.
//!
//! A sender connects and writes a base name; the receiver answers with the two bytes `ok`; the content follows, and the
//! end of the stream is the end of the file.
//!
//! ```text
//! cargo run --example tutorial_receiver                       demonstrates, on loopback, and ends
//! cargo run --example tutorial_receiver 127.0.0.1:9000 DIR    receives until it is stopped
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::{env, process, thread};

fn main() -> io::Result<()> {
    match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => demonstrate(),
        [address, directory] => {
            serve(TcpListener::bind(address)?, directory.into());
            Ok(())
        }
        _ => {
            eprintln!("usage: tutorial_receiver [ADDRESS DIRECTORY]");
            process::exit(2);
        }
    }
}

/// Gives each connection a thread, which may block for as long as its sender is slow.
fn serve(listener: TcpListener, directory: PathBuf) {
    for stream in listener.incoming() {
        let directory = directory.clone();
        thread::spawn(move || match stream.and_then(|stream| receive(stream, &directory)) {
            Ok((name, size)) => println!("received {name}, {size} bytes"),
            Err(error) => eprintln!("not received: {error}"),
        });
    }
}

/// One upload: name, `ok`, content.
fn receive(mut stream: TcpStream, directory: &Path) -> io::Result<(String, u64)> {
    // The name is whatever one read returns. Nothing in the protocol says where it ends.
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer)?;
    let name = base_name(&buffer[..length])?;
    // Create the file first: `ok` promises that it can be written.
    let mut file = File::create(directory.join(&name))?;
    stream.write_all(b"ok")?;
    let size = io::copy(&mut stream, &mut file)?;
    Ok((name, size))
}

/// The one check that the tutorials leave out: `../../etc/passwd` is not a base name.
fn base_name(bytes: &[u8]) -> io::Result<String> {
    let name = String::from_utf8_lossy(bytes);
    let is_base_name = Path::new(&*name).file_name() == Some(name.as_ref().as_ref());
    is_base_name.then(|| name.to_string()).ok_or_else(|| io::Error::other(format!("{name:?} is not a base name")))
}

fn demonstrate() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let inbox = directory.path().to_owned();
    thread::spawn(move || serve(listener, inbox));

    // Each has a thread, so the second client need not wait for the first.
    let slow = offer(address, "slow.txt")?;
    let quick = offer(address, "quick.txt")?;
    finish(quick, b"overtook")?;
    assert_eq!(fs::read(directory.path().join("quick.txt"))?, b"overtook");
    assert_eq!(fs::read(directory.path().join("slow.txt"))?, b"", "a file can be seen before it is whole");
    finish(slow, b"arrived")?;
    assert_eq!(fs::read(directory.path().join("slow.txt"))?, b"arrived");

    let refused = offer(address, "../escaped.txt").expect_err("a path must not be taken for a name");
    println!("../escaped.txt was refused: {refused}");
    Ok(())
}

/// A sender's first half: it sends the name and waits for `ok`.
fn offer(address: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(name.as_bytes())?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply)?;
    assert_eq!(&reply, b"ok");
    Ok(stream)
}

/// A sender's second half: the content, then the end. The receiver ends its side when it has everything.
fn finish(mut stream: TcpStream, content: &[u8]) -> io::Result<()> {
    stream.write_all(content)?;
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(stream.read(&mut [0; 1])?, 0);
    Ok(())
}

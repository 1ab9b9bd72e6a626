//! A half-close: the peer has sent its last byte, and still waits for the answer.
//!
//! A FIN ends one direction. The kernel reports it as RDHUP ("the peer will send no more"), mio as
//! `is_read_closed`. HUP is something else: both directions are done, and all that is left is to close.

mod loopback;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use loopback::kernel::{Ends, flags};
use loopback::{pair, until};
use rustix::event::PollFlags;

const ANSWER_BYTES: usize = 4 << 20;

/// What a server does at RDHUP.
#[derive(Clone, Copy, Debug)]
enum OnRdhup {
    HangUp,
    ReadOn,
}

fn main() -> io::Result<()> {
    rdhup_is_not_hup()?;

    println!("\n-- a server that hangs up at RDHUP");
    let reset = ask(OnRdhup::HangUp).expect_err("the question was never read, and the answer never written");
    println!("   the client asked, and gets: {reset}");
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);

    println!("-- a server that reads until the end of the stream, and then answers");
    let answer = ask(OnRdhup::ReadOn)?;
    println!("   the client asked, and gets {} bytes", answer.len());
    assert_eq!(answer.len(), ANSWER_BYTES);

    half_or_whole()
}

fn rdhup_is_not_hup() -> io::Result<()> {
    println!("-- the client says one thing and shuts down its writing side");
    let (mut client, mut server) = pair()?;
    let ends = Ends::of_client(&client)?;
    client.write_all(b"question")?;
    client.shutdown(Shutdown::Write)?;
    ends.reach("FIN_WAIT2", "CLOSE_WAIT")?;

    // The flag is there before the last bytes are read. They must still be read.
    expect_flags("server", &server, PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP)?;
    let mut question = [0; 64];
    let reads = [server.read(&mut question)?, server.read(&mut question[8..])?];
    println!("   the server reads {} bytes, then {}", reads[0], reads[1]);
    assert_eq!((reads, &question[..8]), ([8, 0], &b"question"[..]));

    println!("   OUT is still set: the other direction is open. The server answers");
    server.write_all(b"answer")?;
    let mut answer = [0; 6];
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"answer");
    expect_flags("client", &client, PollFlags::OUT)?;

    println!("   the server shuts down its writing side as well: now both directions are done");
    server.shutdown(Shutdown::Write)?;
    let both = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP | PollFlags::HUP;
    expect_flags("server", &server, both)?;
    expect_flags("client", &client, both)?;
    ends.reach("TIME_WAIT", "CLOSED")
}

/// Asks a question, ends it with a half-close, and reads the answer to its end.
fn ask(on_rdhup: OnRdhup) -> io::Result<Vec<u8>> {
    let (mut client, server) = pair()?;
    client.write_all(b"question")?;
    client.shutdown(Shutdown::Write)?;
    let serving = thread::spawn(move || serve(server, on_rdhup));
    let mut answer = Vec::new();
    let asked = client.read_to_end(&mut answer);
    serving.join().expect("the server does not panic")?;
    asked.map(|_| answer)
}

fn serve(mut stream: TcpStream, on_rdhup: OnRdhup) -> io::Result<()> {
    // One event reports both the bytes and the end.
    until("the end of the question", || Ok(flags(&stream)?.contains(PollFlags::RDHUP).then_some(())))?;
    match on_rdhup {
        OnRdhup::HangUp => Ok(()),
        OnRdhup::ReadOn => {
            io::copy(&mut stream, &mut io::sink())?;
            stream.write_all(&vec![b'a'; ANSWER_BYTES])
        }
    }
}

/// A FIN does not tell whether its sender still reads. Only a write finds out.
fn half_or_whole() -> io::Result<()> {
    for closes in [false, true] {
        let what = if closes { "closes its socket" } else { "shuts down its writing side, and reads" };
        println!("\n-- a client that {what}");
        let (client, mut server) = pair()?;
        let ends = Ends::of_client(&client)?;
        client.shutdown(Shutdown::Write)?;
        let _listens = (!closes).then_some(client);
        ends.reach("FIN_WAIT2", "CLOSE_WAIT")?;
        expect_flags("server", &server, PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP)?;

        println!("   that looks the same. The server writes");
        server.write_all(b"answer")?;
        if closes {
            // The write itself succeeded. The peer answers it with a reset, which only the next write reports.
            ends.reach("CLOSED", "CLOSED")?;
            let error = server.write(b"more").expect_err("the connection has been reset");
            println!("   and writes again: {error}");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        } else {
            ends.reach("FIN_WAIT2", "CLOSE_WAIT")?;
            server.write_all(b"more")?;
        }
    }
    Ok(())
}

/// Waits until poll(2) says exactly this, and prints it.
fn expect_flags(who: &str, stream: &TcpStream, expected: PollFlags) -> io::Result<()> {
    until(&format!("{expected:?}"), || Ok((flags(stream)? == expected).then_some(())))?;
    println!("     {who}  {}", expected.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" | "));
    Ok(())
}

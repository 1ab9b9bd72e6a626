//! How a connection ends: each direction by itself, and who ends first pays with TIME_WAIT.
//!
//! ```text
//! who closes first            the other
//! FIN_WAIT1    -- FIN ------>  ESTABLISHED
//! FIN_WAIT2    <- ACK -------  CLOSE_WAIT, until it closes as well
//! TIME_WAIT    <- FIN -------  LAST_ACK
//!              -- ACK ------>  CLOSED
//! CLOSED, a minute later
//! ```
//!
//! FIN_WAIT1 and LAST_ACK last as long as a packet travels. Here they are held by a peer that does not read: a FIN comes
//! after the bytes, and while the window is closed it cannot be sent.

mod kernel;

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use kernel::Ends;
use socket2::{Domain, Socket, Type};

#[derive(Clone, Copy, Debug, PartialEq)]
enum First {
    Client,
    Server,
}

/// Whether a server asks for `SO_REUSEADDR` before it binds.
#[derive(Clone, Copy, Debug)]
enum Reuse {
    No,
    Yes,
}

fn main() -> io::Result<()> {
    four_packets()?;
    the_last_ack_is_lost()?;

    println!("\n-- a server starts again on the port that it had");
    let in_use = restart(First::Server, Reuse::No).expect_err("its TIME_WAIT still has the port");
    assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
    restart(First::Server, Reuse::Yes)?;
    restart(First::Client, Reuse::No)?;
    Ok(())
}

fn four_packets() -> io::Result<()> {
    let (mut client, mut server) = kernel::pair()?;
    let ends = Ends::of_client(&client)?;

    println!("-- the client sends more than the server takes, and closes: its FIN has to wait behind the bytes");
    kernel::fill(&client)?;
    client.shutdown(Shutdown::Write)?;
    ends.become_and_show("FIN_WAIT1", "ESTABLISHED")?;

    println!("   the server reads to the end. The FIN has come, and its kernel has acknowledged it");
    io::copy(&mut server, &mut io::sink())?;
    ends.become_and_show("FIN_WAIT2", "CLOSE_WAIT")?;
    println!("   it may take its time: a CLOSE_WAIT that never goes away is a server that forgot to close");

    println!("   the server answers more than the client takes, and closes as well");
    kernel::fill(&server)?;
    server.shutdown(Shutdown::Write)?;
    ends.become_and_show("FIN_WAIT2", "LAST_ACK")?;

    println!("   the client reads to the end: who closed last is done, who closed first has the TIME_WAIT");
    io::copy(&mut client, &mut io::sink())?;
    ends.become_and_show("TIME_WAIT", "CLOSED")?;
    drop((client, server));

    // Twice the longest life of a packet (2 MSL): one for the last ACK to get lost, one for the FIN that is sent again.
    // After that no packet of this connection can turn up in a new one between the same two ports, either.
    let left = time_wait_left(ends)?;
    println!("   both programs have closed everything; the kernel keeps this for another {left:.1?}");
    assert!(left.as_secs() >= 30 && left.as_secs() <= 60, "Linux takes 60 s for 2 MSL; RFC 9293 has four minutes");
    Ok(())
}

/// What the TIME_WAIT is for.
fn the_last_ack_is_lost() -> io::Result<()> {
    println!("\n-- the server does not hear the client's last ACK");
    let (client, server) = kernel::pair()?;
    let ends = Ends::of_client(&client)?;
    client.shutdown(Shutdown::Write)?;
    ends.become_and_show("FIN_WAIT2", "CLOSE_WAIT")?;
    if !kernel::deafen(&server)? {
        return Ok(());
    }
    server.shutdown(Shutdown::Write)?;
    ends.become_and_show("TIME_WAIT", "LAST_ACK")?;
    println!("   the client closes, its program is gone. The server hears again, and its FIN is sent again");
    drop(client);
    kernel::undeafen(&server)?;
    ends.become_and_show("TIME_WAIT", "CLOSED")?;
    println!("   the TIME_WAIT has answered; without it the answer would have been a reset");
    Ok(())
}

/// Serves one client, ends, and starts again at once.
fn restart(first: First, reuse: Reuse) -> io::Result<()> {
    println!("   the {first:?} closes first; SO_REUSEADDR: {reuse:?}");
    let listener = listen(0, reuse)?;
    let address = kernel::local_addr(&listener)?;
    let client = TcpStream::connect(address)?;
    let server = TcpStream::from(listener.accept()?.0);
    let ends = Ends::of_client(&client)?;
    match first {
        First::Server => {
            close_in_turn(server, client)?;
            ends.become_and_show("CLOSED", "TIME_WAIT")?;
        }
        First::Client => {
            close_in_turn(client, server)?;
            ends.become_and_show("TIME_WAIT", "CLOSED")?;
        }
    }
    drop(listener);

    let again = listen(address.port(), reuse).inspect_err(|error| println!("   bind: {error}"))?;
    println!("   bind: it listens again");
    // What the option does not allow is a second server beside a living one.
    let second = listen(address.port(), reuse).expect_err("the port has a listener");
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    drop(again);
    Ok(())
}

/// Closes both ends, the second when it has read the end of the first.
fn close_in_turn(first: TcpStream, mut second: TcpStream) -> io::Result<()> {
    drop(first);
    assert_eq!(second.read(&mut [0; 1])?, 0);
    Ok(())
}

fn listen(port: u16, reuse: Reuse) -> io::Result<Socket> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_address(matches!(reuse, Reuse::Yes))?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    listener.listen(16)?;
    Ok(listener)
}

/// How long the TIME_WAIT of a client has still to stand, from proc_pid_net(5), which has it in hundredths of a second.
fn time_wait_left(ends: Ends) -> io::Result<Duration> {
    let ports = [ends.client, ends.server].map(|address| format!(":{:04X}", address.port()));
    let table = fs::read_to_string("/proc/net/tcp")?;
    // sl, local address, remote address, state, queues, timer and when it ends.
    let left = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|fields| {
        let is_it = fields[1].ends_with(&ports[0]) && fields[2].ends_with(&ports[1]) && fields[3] == "06";
        is_it.then(|| u64::from_str_radix(fields[5].rsplit(':').next()?, 16).ok()).flatten()
    });
    left.map(|hundredths| Duration::from_millis(hundredths * 10)).ok_or(io::ErrorKind::NotFound.into())
}

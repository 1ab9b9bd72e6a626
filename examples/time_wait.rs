//! TIME_WAIT: the side that closes first keeps the connection for a minute, and why.
//!
//! The last ACK of a connection is not acknowledged. If it is lost, the other end sends its FIN again, and must get an
//! answer. And a stray packet must not turn up in a new connection between the same two ports. So the end that closed
//! first waits for twice the longest life of a packet, 2 MSL: one for the ACK to get lost,
//! one for the FIN that is sent again (RFC 9293, 3.3.2).

mod loopback;

use std::fs;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use loopback::kernel::{self, Ends};
use loopback::{ANY, pair};
use socket2::{Domain, Socket, Type};

/// The side that closes first.
#[derive(Clone, Copy, Debug)]
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
    it_outlives_the_programs()?;
    the_last_ack_is_lost()?;

    println!("\n-- a server starts again on its port");
    let in_use = restart(First::Server, Reuse::No).expect_err("its TIME_WAIT still occupies the port");
    assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
    restart(First::Server, Reuse::Yes)?;
    restart(First::Client, Reuse::No)
}

fn it_outlives_the_programs() -> io::Result<()> {
    println!("-- the client closes first, and both programs have closed");
    let (client, server) = pair()?;
    let ends = Ends::of_client(&client)?;
    close_in_turn(client, server)?;
    ends.reach("TIME_WAIT", "CLOSED")?;
    let left = time_wait_left(ends)?;
    println!("   the kernel keeps this for another {left:.1?}");
    assert!(left.as_secs() >= 30 && left.as_secs() <= 60, "Linux takes 60 s for 2 MSL; RFC 9293 has four minutes");
    Ok(())
}

fn the_last_ack_is_lost() -> io::Result<()> {
    println!("\n-- the server does not hear the client's last ACK");
    let (client, server) = pair()?;
    let ends = Ends::of_client(&client)?;
    client.shutdown(Shutdown::Write)?;
    ends.reach("FIN_WAIT2", "CLOSE_WAIT")?;
    if !kernel::deafen(&server)? {
        return Ok(());
    }
    server.shutdown(Shutdown::Write)?;
    ends.reach("TIME_WAIT", "LAST_ACK")?;
    println!("   the client's program has closed. The server hears again, and its FIN is sent again");
    drop(client);
    kernel::undeafen(&server)?;
    ends.reach("TIME_WAIT", "CLOSED")?;
    println!("   the TIME_WAIT has answered; without it the answer would have been a reset");
    Ok(())
}

/// Serves one client, ends, and starts again at once.
fn restart(first: First, reuse: Reuse) -> io::Result<()> {
    println!("   the {first:?} closes first; SO_REUSEADDR: {reuse:?}");
    let listener = listen(ANY, reuse)?;
    let address = kernel::local_addr(&listener)?;
    let client = TcpStream::connect(address)?;
    let server = TcpStream::from(listener.accept()?.0);
    let ends = Ends::of_client(&client)?;
    let (first, second, states) = match first {
        First::Client => (client, server, ["TIME_WAIT", "CLOSED"]),
        First::Server => (server, client, ["CLOSED", "TIME_WAIT"]),
    };
    close_in_turn(first, second)?;
    ends.reach(states[0], states[1])?;
    drop(listener);

    let _again = listen(address, reuse).inspect_err(|error| println!("   bind: {error}"))?;
    println!("   bind: it listens again");
    // The option does not allow a second server beside a running one.
    let second = listen(address, reuse).expect_err("the port has a listener");
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    Ok(())
}

/// Closes both ends, the second when it has read the end of the first.
fn close_in_turn(first: TcpStream, mut second: TcpStream) -> io::Result<()> {
    drop(first);
    assert_eq!(second.read(&mut [0; 1])?, 0);
    Ok(())
}

fn listen(address: SocketAddr, reuse: Reuse) -> io::Result<Socket> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_address(matches!(reuse, Reuse::Yes))?;
    listener.bind(&address.into())?;
    listener.listen(16)?;
    Ok(listener)
}

/// How much longer the TIME_WAIT of a client lasts, from proc_pid_net(5), in hundredths of a second there.
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

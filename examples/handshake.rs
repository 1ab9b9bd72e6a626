//! How a connection begins: three packets, and the states between them.
//!
//! ```text
//! client                      server
//! SYN_SENT     -- SYN ------>  LISTEN
//!              <- SYN, ACK --  SYN_RECV
//! ESTABLISHED  -- ACK ------>  ESTABLISHED, and in the backlog until it is accepted
//! ```
//!
//! On loopback the three take microseconds. To catch the states between them, the client is made deaf: it sends its
//! SYN and does not hear the answer, as on a network that has failed in one direction. (Where that is not allowed,
//! SYN_SENT is still seen, at a backlog that is full.)

#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod loopback;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use loopback::kernel::{self, Ends};
use loopback::{ANY, until};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

fn main() -> io::Result<()> {
    three_packets()?;
    println!("\n-- four clients connect while the server is busy, and its backlog is large enough");
    burst(128, ["ESTABLISHED"; 4])?;
    println!("\n-- the same, with a backlog of one: it holds one more than that, and the others get no answer");
    burst(1, ["ESTABLISHED", "ESTABLISHED", "SYN_SENT", "SYN_SENT"])?;
    nobody_there()
}

fn three_packets() -> io::Result<()> {
    println!("-- three packets");
    let (listener, address) = listen(128)?;
    let listening = kernel::listener(address)?;
    println!("   a listener; its Send-Q is the backlog, the room for clients that wait to be accepted");
    println!("     server  {listening} {address}");
    assert_eq!((listening.state, listening.unacknowledged), ("LISTEN", 128));

    let client = socket()?;
    let deaf = kernel::deafen(&client)?;
    client.set_nonblocking(true)?;
    let error = client.connect(&address.into()).expect_err("nothing is answered yet");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::INPROGRESS));
    let ends = Ends { client: kernel::local_addr(&client)?, server: address };
    if deaf {
        println!("   a deaf client: its SYN has arrived, the answer has not");
        ends.reach("SYN_SENT", "SYN_RECV")?;
        println!("   it hears again; the lost packets are sent again within a second");
        kernel::undeafen(&client)?;
    }
    ends.reach("ESTABLISHED", "ESTABLISHED")?;

    // The kernel has done all this by itself. accept(2) sends no packet; it only takes out a complete connection.
    println!("   it is not accepted yet, and can already send: the five bytes wait at the server");
    (&client).write_all(b"hello")?;
    until("the bytes to arrive", || Ok((ends.server()?.unread == 5).then_some(())))?;
    ends.reach("ESTABLISHED", "ESTABLISHED")?;
    assert_eq!(kernel::listener(address)?.unread, 1, "the listener's Recv-Q counts the clients that wait for accept");
    listener.accept()?;
    assert_eq!(kernel::listener(address)?.unread, 0);
    Ok(())
}

/// Four clients come while the server is busy, and reach these states. Then it accepts them all.
fn burst(backlog: i32, expected: [&str; 4]) -> io::Result<()> {
    let (listener, address) = listen(backlog)?;
    let mut clients = Vec::new();
    for _ in expected {
        let client = socket()?;
        // A full backlog does not refuse a client: the SYN is dropped, and the client takes it for lost.
        match client.connect_timeout(&address.into(), Duration::from_millis(200)) {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err(error),
            _ => clients.push((Ends { client: kernel::local_addr(&client)?, server: address }, client)),
        }
    }
    let states = || clients.iter().map(|(ends, _)| Ok(ends.client()?.state)).collect::<io::Result<Vec<_>>>();
    until("as many to connect as the backlog holds", || Ok((states()? == expected).then_some(())))?;
    println!("     server  {} {address}", kernel::listener(address)?);
    for (ends, _) in &clients {
        println!("     client  {} {} > {address}", ends.client()?, ends.client);
    }

    let start = Instant::now();
    let _accepted = clients.iter().map(|_| listener.accept()).collect::<io::Result<Vec<_>>>()?;
    println!("   the server accepts, and has all four after {} ms", start.elapsed().as_millis());
    assert_eq!(states()?, ["ESTABLISHED"; 4], "no client is lost; a dropped SYN is sent again after a second");
    Ok(())
}

/// A port without a listener answers a SYN with a reset, at once. Silence means that packets are dropped.
fn nobody_there() -> io::Result<()> {
    println!("\n-- no listener");
    let bound = socket()?;
    bound.bind(&ANY.into())?;
    let error = TcpStream::connect(kernel::local_addr(&bound)?).expect_err("nobody listens on the port");
    println!("   {error}");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    Ok(())
}

/// A listener with this backlog. std chooses the backlog itself.
fn listen(backlog: i32) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = socket()?;
    listener.bind(&ANY.into())?;
    listener.listen(backlog)?;
    let address = kernel::local_addr(&listener)?;
    Ok((listener.into(), address))
}

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

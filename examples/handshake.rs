//! How a connection begins: three packets, and what the kernel calls the time between them.
//!
//! ```text
//! client                      server
//! SYN_SENT     -- SYN ------>  LISTEN
//!              <- SYN, ACK --  SYN_RECV
//! ESTABLISHED  -- ACK ------>  ESTABLISHED, and in the backlog until it is accepted
//! ```
//!
//! On loopback the three pass within microseconds. To catch the states between them, the client is made deaf: it sends its
//! SYN and does not hear the answer, as on a network that has failed in one direction. (Where that is not allowed,
//! SYN_SENT is still seen, at a backlog that is full.)

mod kernel;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use kernel::{Ends, Tcp, until};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

fn main() -> io::Result<()> {
    three_packets()?;
    println!("\n-- a backlog that is large enough");
    assert_eq!(burst(128)?, Burst { connected: 4, waiting: 0 });
    println!("\n-- the same four clients, and a backlog of one");
    assert_eq!(
        burst(1)?,
        Burst { connected: 2, waiting: 2 },
        "one more than the backlog says, the rest is not answered"
    );
    nobody_there()
}

fn three_packets() -> io::Result<()> {
    println!("-- three packets");
    let (listener, address) = listen(128)?;
    let listening = Tcp::listener(&listener)?;
    println!(
        "   a listener; its Send-Q is the backlog, the room for those who wait to be accepted\n     server  {listening}"
    );
    assert_eq!((listening.state, listening.unacknowledged), ("LISTEN", 128));

    let client = socket()?;
    let deaf = kernel::deafen(&client)?;
    client.set_nonblocking(true)?;
    let error = client.connect(&address.into()).expect_err("nothing is answered yet");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::INPROGRESS));
    let ends = Ends { client: kernel::local_addr(&client)?, server: address };
    if deaf {
        println!("   a client that does not hear: its SYN has arrived, the answer has not");
        ends.become_and_show("SYN_SENT", "SYN_RECV")?;
        println!("   it hears again; what was lost is sent again within a second");
        kernel::undeafen(&client)?;
    }
    ends.become_and_show("ESTABLISHED", "ESTABLISHED")?;

    // The kernel has done all this by itself. accept(2) sends no packet, it only hands over what is complete.
    println!("   nobody has accepted it yet, and it can already send: the five bytes wait at the server");
    (&client).write_all(b"hello")?;
    until("the bytes to arrive", || Ok((ends.server()?.unread == 5).then_some(())))?;
    ends.become_and_show("ESTABLISHED", "ESTABLISHED")?;
    assert_eq!(Tcp::listener(&listener)?.unread, 1, "the listener's Recv-Q is who waits for accept");
    listener.accept()?;
    assert_eq!(Tcp::listener(&listener)?.unread, 0);
    Ok(())
}

/// What the clients of a server that does not accept for a while have come to.
#[derive(Debug, PartialEq)]
struct Burst {
    connected: usize,
    waiting: usize,
}

/// Four clients come while the server is busy elsewhere; then it accepts them all.
fn burst(backlog: u32) -> io::Result<Burst> {
    let (listener, address) = listen(backlog)?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = socket()?;
        // Whoever finds the backlog full is not refused: the SYN is dropped, and the client takes it for lost.
        match client.connect_timeout(&address.into(), Duration::from_millis(200)) {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err(error),
            _ => clients.push(client),
        }
    }
    let count = |wanted| -> io::Result<usize> {
        let ends = clients.iter().map(|client| Tcp::find(kernel::local_addr(client)?, address));
        Ok(ends.collect::<io::Result<Vec<_>>>()?.iter().filter(|end| end.state == wanted).count())
    };
    // As many as the backlog says and one more: accept(2) is what makes room, and the check is `more than`.
    let room = clients.len().min(backlog as usize + 1);
    until("all with room to be connected", || Ok((count("ESTABLISHED")? == room).then_some(())))?;
    let burst = Burst { connected: count("ESTABLISHED")?, waiting: count("SYN_SENT")? };
    println!("     server  {}", Tcp::listener(&listener)?);
    for client in &clients {
        println!("     client  {}", Tcp::find(kernel::local_addr(client)?, address)?);
    }

    let start = Instant::now();
    let _accepted = clients.iter().map(|_| listener.accept()).collect::<io::Result<Vec<_>>>()?;
    println!("   the server accepts, and has all four after {} ms", start.elapsed().as_millis());
    assert_eq!(count("ESTABLISHED")?, 4, "nobody is lost; a dropped SYN is sent again after a second");
    Ok(burst)
}

/// Where nobody listens, the answer to a SYN is a reset, and it comes at once. Silence means that packets are dropped.
fn nobody_there() -> io::Result<()> {
    println!("\n-- nobody listens");
    let bound = socket()?;
    let address = bind(&bound)?;
    let client = socket()?;
    let error = client.connect(&address.into()).expect_err("a bound port that does not listen is refused");
    println!("   {error}");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    Ok(())
}

fn listen(backlog: u32) -> io::Result<(Socket, SocketAddr)> {
    let listener = socket()?;
    let address = bind(&listener)?;
    listener.listen(backlog as i32)?;
    Ok((listener, address))
}

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

/// Binds to a free port of loopback.
fn bind(socket: &Socket) -> io::Result<SocketAddr> {
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    kernel::local_addr(socket)
}

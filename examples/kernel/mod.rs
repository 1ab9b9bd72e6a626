//! What the kernel knows of a socket: the figures that `ss` and `netstat` print.
//!
//! Shared by the examples that look at the wire. The asking itself is `src/net/diag.rs`. This asks after both ends of a
//! connection, and it has the two means to hold a state that would otherwise be gone before anyone could look: a full pipe,
//! and an end that is deaf.

// Each example is a program of its own and uses its own part of this.
#![allow(dead_code)]

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use intake::net::diag::{self, Diag};
use socket2::{SockFilter, SockRef};

/// How long a state is waited for: far beyond what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One TCP socket, as the kernel has it. One that it does not have is CLOSED.
pub struct Tcp {
    pub local: SocketAddr,
    /// Of a connection.
    pub remote: Option<SocketAddr>,
    seen: diag::Tcp,
}

impl Tcp {
    /// The listening socket of an address.
    pub fn listener(listener: &impl AsFd) -> io::Result<Self> {
        let local = local_addr(listener)?;
        Ok(Self { local, remote: None, seen: Diag::open()?.listener(local)? })
    }

    /// The socket of one end of a connection.
    pub fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        Ok(Self { local, remote: Some(remote), seen: Diag::open()?.connection(local, remote)? })
    }
}

impl Deref for Tcp {
    type Target = diag::Tcp;

    fn deref(&self) -> &diag::Tcp {
        &self.seen
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, remote, seen } = self;
        write!(f, "{seen} {local}")?;
        remote.map_or(Ok(()), |remote| write!(f, " > {remote}"))
    }
}

/// The two ends of a connection on this machine.
#[derive(Clone, Copy)]
pub struct Ends {
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl Ends {
    pub fn of_client(client: &TcpStream) -> io::Result<Self> {
        Ok(Self { client: client.local_addr()?, server: client.peer_addr()? })
    }

    pub fn client(self) -> io::Result<Tcp> {
        Tcp::find(self.client, self.server)
    }

    pub fn server(self) -> io::Result<Tcp> {
        Tcp::find(self.server, self.client)
    }

    /// Waits until the two ends have reached these states, and prints them.
    pub fn become_and_show(self, client: &str, server: &str) -> io::Result<()> {
        let seen = until(&format!("{client} and {server}"), || {
            let (at_client, at_server) = (self.client()?, self.server()?);
            Ok(((at_client.state, at_server.state) == (client, server)).then_some((at_client, at_server)))
        })?;
        println!("     client  {}\n     server  {}", seen.0, seen.1);
        Ok(())
    }
}

/// The datagrams that found the receive buffer of a UDP socket on 127.0.0.1 full: the last column of `/proc/net/udp`
/// (proc(5)).
pub fn udp_drops(port: u16) -> io::Result<u32> {
    let address = format!("{:08X}:{port:04X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let table = fs::read_to_string("/proc/net/udp")?;
    let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&address));
    let drops = row.and_then(|row| row.split_whitespace().last()?.parse().ok());
    drops.ok_or_else(|| io::Error::other(format!("the kernel has no UDP socket on port {port}")))
}

/// Makes a socket deaf: from now on every packet for it is lost at its door (a socket filter that lets nothing pass,
/// `SO_ATTACH_FILTER`, socket(7)). It can still send. To its peer that is a network which has failed in one direction.
///
/// Some kernels want a privilege for it. Without it, this says that something is left out, and returns false.
pub fn deafen(socket: &impl AsFd) -> io::Result<bool> {
    const RETURN: u16 = 0x06;
    match SockRef::from(socket).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("   left out: this kernel lets only root (CAP_NET_ADMIN) make a socket deaf: {error}");
            Ok(false)
        }
        result => result.map(|()| true),
    }
}

/// Lets it hear again.
pub fn undeafen(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).detach_filter()
}

/// Writes until nothing more goes in, so that whatever is sent next has to wait. Returns how many bytes went in.
pub fn fill(mut stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let mut written = 0;
    loop {
        match stream.write(&[b'a'; 64 * 1024]) {
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(written)
}

/// Looks until there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A connection over loopback, its client and its server.
pub fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

/// The address that a socket is bound to.
pub fn local_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).local_addr()?;
    address.as_socket().ok_or_else(|| io::Error::other("a socket of another family than IP"))
}

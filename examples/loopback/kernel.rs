//! The kernel's own figures: for a connection, those that `ss` and `netstat` print (`src/net/diag.rs` asks for them); for
//! anything else, those in `/proc`. It can also make a socket deaf, to prolong a state that would otherwise be too short to
//! see.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use intake::net::diag::{Diag, Tcp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockFilter, SockRef};

use super::until;

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
        Diag::open()?.connection(self.client, self.server)
    }

    pub fn server(self) -> io::Result<Tcp> {
        Diag::open()?.connection(self.server, self.client)
    }

    /// Waits until the two ends have reached these states, and prints them.
    pub fn reach(self, client: &str, server: &str) -> io::Result<()> {
        let seen = until(&format!("{client} and {server}"), || {
            let (at_client, at_server) = (self.client()?, self.server()?);
            Ok(((at_client.state, at_server.state) == (client, server)).then_some((at_client, at_server)))
        })?;
        println!("     client  {} {} > {}", seen.0, self.client, self.server);
        println!("     server  {} {} > {}", seen.1, self.server, self.client);
        Ok(())
    }
}

/// The listening socket of an address.
pub fn listener(address: SocketAddr) -> io::Result<Tcp> {
    Diag::open()?.listener(address)
}

/// The address that a socket is bound to.
pub fn local_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).local_addr()?;
    address.as_socket().ok_or_else(|| io::Error::other("a socket of another family than IP"))
}

/// The flags that poll(2) reports for a socket now.
pub fn flags(socket: &impl AsFd) -> io::Result<PollFlags> {
    let mut polled = [PollFd::new(socket, PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec::default()))?;
    Ok(polled[0].revents())
}

/// How many bytes wait to be read from a socket (FIONREAD, tcp(7)).
pub fn unread(socket: &impl AsFd) -> io::Result<usize> {
    Ok(rustix::io::ioctl_fionread(socket)? as usize)
}

/// Waits until at least `bytes` can be read from a socket.
pub fn arrived(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    until("bytes to arrive", || Ok((unread(socket)? >= bytes).then_some(())))
}

/// A UDP socket on 127.0.0.1, as `/proc/net/udp` has it (proc_pid_net(5)).
pub struct Udp {
    /// The memory that unread datagrams take, in bytes.
    pub unread_memory: usize,
    /// The number of datagrams that were dropped because the receive buffer was full.
    pub dropped: usize,
}

pub fn udp(port: u16) -> io::Result<Udp> {
    let address = format!("{:08X}:{port:04X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let table = fs::read_to_string("/proc/net/udp")?;
    let found = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|fields| {
        let (_, unread) = (fields[1] == address).then(|| fields[4].split_once(':')).flatten()?;
        Some(Udp { unread_memory: usize::from_str_radix(unread, 16).ok()?, dropped: fields.last()?.parse().ok()? })
    });
    found.ok_or_else(|| io::Error::other(format!("the kernel has no UDP socket on port {port}")))
}

/// The number after `NAME:` in a file such as `/proc/self/status` (proc(5)).
pub fn figure(file: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok();
    text.lines().find_map(number).ok_or_else(|| io::Error::other(format!("{file} has no {name}")))
}

/// Makes a socket deaf: from now on it drops every packet that arrives (a socket filter that lets nothing through,
/// `SO_ATTACH_FILTER`, socket(7)). It can still send. For its peer, the network has failed in one direction.
///
/// Some kernels require a privilege. Without it, this prints that a part is left out, and returns false.
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

/// Undoes [`deafen`].
pub fn undeafen(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).detach_filter()
}

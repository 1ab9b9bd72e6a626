//! The kernel's view of a TCP connection: the figures that `ss` and `netstat` print, from the same source as `ss`
//! (sock_diag(7)).
//!
//! Each request is for one connection, identified by its two addresses. So it costs the same however many connections there
//! are, and works after the socket is closed: a TIME_WAIT has no descriptor.
//!
//! ```
//! use std::net::{TcpListener, TcpStream};
//! use intake::net::diag::Diag;
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let client = TcpStream::connect(listener.local_addr()?)?;
//! let mut diag = Diag::open()?;
//! let seen = diag.connection(client.local_addr()?, client.peer_addr()?)?;
//! assert_eq!(seen.state, "ESTABLISHED", "although it was not accepted yet");
//! assert_eq!(diag.listener(listener.local_addr()?)?.unread, 1, "it waits in the backlog");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::{Nla, TcpInfo};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// The state names of `netstat`, by the kernel's numbers. (`ss` writes ESTAB and FIN-WAIT-1, RFC 9293 SYN-RECEIVED.)
const STATES: [&str; 12] = [
    "CLOSED",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

/// More than any answer: a header of 88 bytes, and a few hundred bytes of attributes.
const ANSWER_MAX_BYTES: usize = 8 << 10;

/// Asks the kernel about connections of this machine.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    /// The number of the last request, so that a late answer is not taken for the next one's.
    sequence: u32,
}

/// One TCP socket in the kernel's view. A socket that the kernel does not know is CLOSED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// The state, in the spelling of `netstat`.
    pub state: &'static str,
    /// `Recv-Q`: bytes that have arrived and were not read; for a listener, the connections that wait for accept. An
    /// unread FIN counts as a byte.
    pub unread: u32,
    /// `Send-Q`: bytes that were written and are not acknowledged, sent or not; for a listener, its backlog. An
    /// unacknowledged FIN counts as a byte.
    pub unacknowledged: u32,
    /// `TCP_INFO` of getsockopt(2): all further figures, such as the window. Only a live connection has it.
    pub info: Option<Box<TcpInfo>>,
}

impl Tcp {
    /// The receive window that the peer announced last, in bytes beyond those that it has acknowledged.
    pub fn window(&self) -> u32 {
        self.info.as_ref().map_or(0, |info| info.snd_wnd)
    }

    /// Whether the kernel knows no socket under the two addresses, either never or not any more.
    pub fn is_closed(&self) -> bool {
        self.state == STATES[0]
    }

    fn closed() -> Self {
        Self { state: STATES[0], unread: 0, unacknowledged: 0, info: None }
    }
}

impl From<InetResponse> for Tcp {
    fn from(InetResponse { header, nlas }: InetResponse) -> Self {
        let info = nlas.into_iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info.into()) } else { None });
        let state = STATES.get(usize::from(header.state)).copied().unwrap_or("UNKNOWN");
        Self { state, unread: header.recv_queue, unacknowledged: header.send_queue, info }
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, unread, unacknowledged, .. } = self;
        if self.is_closed() {
            return write!(f, "{state:<11}  the kernel knows nothing of it  ");
        }
        write!(f, "{state:<11}  Recv-Q {unread:<7} Send-Q {unacknowledged:<7}")
    }
}

impl Diag {
    /// Opens a netlink socket. That needs no privilege, but a sandbox may forbid it.
    ///
    /// # Errors
    /// The error of socket(2).
    pub fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The socket of one end of a connection.
    ///
    /// # Errors
    /// The error of the kernel. An unknown socket is not an error.
    pub fn connection(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Tcp> {
        let found = self.ask(local, remote)?;
        // If the kernel knows neither end, it answers with the listener that would accept the connection.
        let exact = found.filter(|found| found.header.socket_id.destination_port == remote.port());
        Ok(exact.map_or_else(Tcp::closed, Tcp::from))
    }

    /// The listening socket of an address.
    ///
    /// # Errors
    /// As [`Diag::connection`].
    pub fn listener(&mut self, local: SocketAddr) -> io::Result<Tcp> {
        let unspecified: IpAddr =
            if local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Ok(self.ask(local, (unspecified, 0).into())?.map_or_else(Tcp::closed, Tcp::from))
    }

    fn ask(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<InetResponse>> {
        self.sequence = self.sequence.wrapping_add(1);
        rustix::net::send(&self.socket, &question(local, remote, self.sequence), SendFlags::empty())?;
        let mut buffer = [0; ANSWER_MAX_BYTES];
        loop {
            // The kernel answers during the send, so there is nothing to wait for.
            let (_, length) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            let message = NetlinkMessage::deserialize(&buffer[..length]).map_err(io::Error::other)?;
            if message.header.sequence_number != self.sequence {
                continue;
            }
            return match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => Ok(Some(*found)),
                NetlinkPayload::Error(error) if error.to_io().kind() == io::ErrorKind::NotFound => Ok(None),
                NetlinkPayload::Error(error) => Err(error.to_io()),
                other => Err(io::Error::other(format!("an answer that makes no sense: {other:?}"))),
            };
        }
    }
}

fn question(local: SocketAddr, remote: SocketAddr, sequence: u32) -> Vec<u8> {
    let (family, interface_id) = match local {
        SocketAddr::V4(_) => (AF_INET, 0),
        SocketAddr::V6(local) => (AF_INET6, local.scope_id()),
    };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: local.port(),
            source_address: local.ip(),
            destination_port: remote.port(),
            destination_address: remote.ip(),
            interface_id,
            // Any socket with these addresses (INET_DIAG_NOCOOKIE, linux/inet_diag.h).
            cookie: [0xff; 8],
        },
    };
    let mut header = NetlinkHeader::default();
    (header.flags, header.sequence_number) = (NLM_F_REQUEST, sequence);
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests wait for the kernel, up to a deadline")]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::net::tests::{LOOPBACK, PATIENCE, has_ipv6};

    /// The two ends of a connection to `listen`, and a netlink socket.
    fn pair(listen: SocketAddr, connect: IpAddr) -> (TcpStream, TcpStream, Diag) {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect((connect, listener.local_addr().unwrap().port())).unwrap();
        (client, listener.accept().unwrap().0, Diag::open().unwrap())
    }

    fn ends(socket: &TcpStream) -> (SocketAddr, SocketAddr) {
        (socket.local_addr().unwrap(), socket.peer_addr().unwrap())
    }

    fn await_state(diag: &mut Diag, (local, remote): (SocketAddr, SocketAddr), state: &str) -> Tcp {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = diag.connection(local, remote).unwrap();
            if found.state == state {
                return found;
            }
            assert!(Instant::now() < deadline, "{} instead of {state}", found.state);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The states of a connection whose client closes first, with five bytes unread.
    fn check_the_way_of_a_connection(listen: SocketAddr, connect: IpAddr) {
        let (mut client, mut server, mut diag) = pair(listen, connect);
        let (at_client, at_server) = (ends(&client), ends(&server));
        client.write_all(b"hello").unwrap();
        server.peek(&mut [0; 5]).unwrap();
        let found = await_state(&mut diag, at_server, "ESTABLISHED");
        assert_eq!((found.unread, found.unacknowledged), (5, 0));
        assert!(found.window() > 0, "the client would take an answer");
        client.shutdown(Shutdown::Write).unwrap();
        server.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(await_state(&mut diag, at_server, "CLOSE_WAIT").unread, 0);
        await_state(&mut diag, at_client, "FIN_WAIT2");
        drop(server);
        await_state(&mut diag, at_server, "CLOSED");
        await_state(&mut diag, at_client, "TIME_WAIT");
    }

    #[test]
    fn a_connection_is_found_in_every_state_until_the_kernel_forgets_it() {
        check_the_way_of_a_connection(LOOPBACK, LOOPBACK.ip());
    }

    #[test]
    fn a_connection_over_ipv6_is_found_and_one_of_ipv4_behind_an_ipv6_listener() {
        if has_ipv6() {
            let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
            check_the_way_of_a_connection(all, Ipv6Addr::LOCALHOST.into());
            let (client, server, mut diag) = pair(all, LOOPBACK.ip());
            assert!(matches!(ends(&server), (SocketAddr::V6(local), _) if local.ip().to_ipv4_mapped().is_some()));
            for (local, remote) in [ends(&server), ends(&client)] {
                assert_eq!(diag.connection(local, remote).unwrap().state, "ESTABLISHED");
            }
        }
    }

    #[test]
    fn a_listener_is_not_taken_for_a_connection() {
        let (_client, server, mut diag) = pair(LOOPBACK, LOOPBACK.ip());
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let local = listener.local_addr().unwrap();
        assert_eq!(diag.listener(local).unwrap().state, "LISTEN");
        assert!(diag.connection(local, server.peer_addr().unwrap()).unwrap().is_closed());
        drop(listener);
        assert!(diag.listener(local).unwrap().is_closed());
    }

    #[test]
    fn unacknowledged_bytes_are_reported() {
        let (client, mut server, mut diag) = pair(LOOPBACK, LOOPBACK.ip());
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65_536]).is_ok() {}
        let (local, remote) = ends(&server);
        let deadline = Instant::now() + PATIENCE;
        let blocked = |found: &Tcp| found.unacknowledged > 0 && found.window() < found.unacknowledged;
        while !blocked(&diag.connection(local, remote).unwrap()) {
            assert!(Instant::now() < deadline, "{:?}", diag.connection(local, remote));
        }
        drop(client);
    }
}

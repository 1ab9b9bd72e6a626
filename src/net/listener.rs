//! The TCP listener, and the meaning of an error of accept(2).
//!
//! The kernel establishes a connection, and keeps it in the backlog until it is accepted. If the backlog is full, it drops
//! the client's SYN, and the client tries again after a second; neither side gets an error. So the backlog is as long as
//! the kernel allows: a connection that cannot be accepted yet costs nothing there.
//!
//! Some errors of accept(2) concern one connection, which failed while it waited; others may wait behind it. The rest mean
//! that descriptors or memory have run out. No event follows such an error: the connection is still in the backlog, its
//! edge has fired, and a descriptor that becomes free does not change the listener. So the caller must try again later.
//!
//! Knows neither how many connections there may be nor how long a pause of accepting lasts.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use socket2::{SockRef, Socket, Type};

use super::{Sharing, unbound_socket};

/// How many connections may wait for accept: as many as the kernel allows by default (`net.core.somaxconn`, listen(2)). A
/// full backlog drops handshakes, which costs a client a second. mio's own listener has 128.
const BACKLOG: i32 = 4096;

/// The send buffer of a connection, in bytes: enough for the longest answer, a page of 40 KiB. The kernel doubles it, for its
/// own bookkeeping (socket(7)).
const SEND_BUFFER_BYTES: usize = 48 << 10;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

/// The result of one accept.
#[derive(Debug)]
pub enum Accept {
    /// A connection, and the address of its client.
    Connection(TcpStream, SocketAddr),
    /// The backlog is empty; the next connection fires an event.
    Drained,
    /// One connection failed before it was accepted. Others may wait behind it.
    PeerGone(io::Error),
    /// Descriptors or memory have run out, or the error is unknown. Connections stay in the backlog, and no event reports
    /// when to try again: pause, then try.
    Exhausted(io::Error),
}

impl Listener {
    /// Listens on `addr`.
    ///
    /// # Errors
    /// The error of the system: the address is in use, is not one of this machine's, or its port is privileged.
    pub fn bind(addr: SocketAddr, sharing: Sharing) -> io::Result<Self> {
        let socket = unbound_socket(addr, sharing, Type::STREAM)?;
        // A restart must not wait for the connections of the last run to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        set_inherited_options(&socket)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket: TcpListener::from_std(socket.into()) })
    }

    /// Takes a socket that listens already. Its backlog stays as long as it is.
    ///
    /// # Errors
    /// It does not listen. Or the error of setsockopt(2).
    pub fn adopt(socket: std::net::TcpListener) -> io::Result<Self> {
        let options = SockRef::from(&socket);
        if !options.is_listener()? {
            return Err(io::Error::other("it does not listen (systemd: Accept= must be no)"));
        }
        set_inherited_options(&options)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: TcpListener::from_std(socket) })
    }

    /// The listening address. If it was bound with port 0, this has the actual port.
    ///
    /// # Errors
    /// The error of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes one connection from the backlog. It is non-blocking and sends without delay.
    pub fn accept(&mut self) -> Accept {
        loop {
            match self.socket.accept() {
                Ok((stream, peer)) => return Accept::Connection(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return classify(error),
            }
        }
    }
}

delegate_source!(Listener, socket);

/// Sets the options that accepted sockets inherit, which saves a call for each.
fn set_inherited_options(socket: &Socket) -> io::Result<()> {
    // Replies are single short writes.
    socket.set_tcp_nodelay(true)?;
    // The kernel then no longer grows the buffer, to megabytes for a client that asks on and never reads.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)
}

/// accept(2) on Linux also returns the network errors of the new connection, and asks to accept the next one after them.
/// These are no lack of resources: a client that resets at once must not make the listener pause.
fn classify(error: io::Error) -> Accept {
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN) => Accept::Drained,
        Some(
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::PROTO
            | Errno::PERM
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::TIMEDOUT,
        ) => Accept::PeerGone(error),
        _ => Accept::Exhausted(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net;

    use mio::{Interest, Poll, Token};

    use super::*;
    use crate::net::raise_descriptor_limit;
    use crate::net::tests::{LOOPBACK, PATIENCE, has_ipv6, next_readiness};

    fn registered(addr: SocketAddr, sharing: Sharing) -> (Poll, Listener, SocketAddr) {
        let mut listener = Listener::bind(addr, sharing).unwrap();
        let poll = Poll::new().unwrap();
        poll.registry().register(&mut listener, Token(0), Interest::READABLE).unwrap();
        let addr = listener.local_addr().unwrap();
        (poll, listener, addr)
    }

    /// Connects once. Returns both ends, and the peer address that accept reported.
    fn connect_one(
        poll: &mut Poll,
        listener: &mut Listener,
        to: SocketAddr,
    ) -> (net::TcpStream, TcpStream, SocketAddr) {
        let client = net::TcpStream::connect(to).unwrap();
        assert!(next_readiness(poll).readable);
        let Accept::Connection(stream, peer) = listener.accept() else { panic!("nothing was accepted") };
        assert!(matches!(listener.accept(), Accept::Drained));
        (client, stream, peer)
    }

    #[test]
    fn each_error_of_accept_has_its_meaning() {
        let kind = |errno: Errno| match classify(errno.into()) {
            Accept::Connection(..) => unreachable!(),
            Accept::Drained => "drained",
            Accept::PeerGone(_) => "peer gone",
            Accept::Exhausted(_) => "exhausted",
        };
        assert_eq!(kind(Errno::AGAIN), "drained");
        for errno in [
            Errno::CONNABORTED,
            Errno::CONNRESET,
            Errno::PROTO,
            Errno::PERM,
            Errno::NETDOWN,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::NONET,
            Errno::HOSTUNREACH,
            Errno::OPNOTSUPP,
            Errno::NETUNREACH,
            Errno::TIMEDOUT,
        ] {
            assert_eq!(kind(errno), "peer gone", "{errno:?}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ACCESS, Errno::INVAL] {
            assert_eq!(kind(errno), "exhausted", "{errno:?}");
        }
        assert!(matches!(classify(io::Error::other("no errno")), Accept::Exhausted(_)));
    }

    #[test]
    fn an_accepted_socket_sends_without_delay_and_never_blocks() {
        let (mut poll, mut listener, addr) = registered(LOOPBACK, Sharing::default());
        let (client, stream, peer) = connect_one(&mut poll, &mut listener, addr);
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        assert!(socket2::SockRef::from(&stream).nonblocking().unwrap());
    }

    #[test]
    fn a_client_that_never_reads_cannot_make_the_kernel_hold_megabytes_for_it() {
        let (mut poll, mut listener, addr) = registered(LOOPBACK, Sharing::default());
        let (client, mut stream, _) = connect_one(&mut poll, &mut listener, addr);
        // What the client's kernel holds is the client's.
        let mut written = 0;
        loop {
            match stream.write(&[0; 4096]) {
                Ok(count) => written += count,
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let ours = socket2::SockRef::from(&stream).send_buffer_size().unwrap();
        assert!(written > 0 && ours <= 4 * SEND_BUFFER_BYTES, "{ours} bytes, {written} written");
        drop(client);
    }

    #[test]
    fn the_backlog_holds_far_more_than_128() {
        raise_descriptor_limit().unwrap();
        let (mut poll, mut listener, addr) = registered(LOOPBACK, Sharing::default());
        // A client beyond a full backlog would wait for its handshake until the timeout.
        let clients: Vec<_> = (0..500).map(|_| net::TcpStream::connect_timeout(&addr, PATIENCE).unwrap()).collect();
        assert!(next_readiness(&mut poll).readable);
        let accepted = std::iter::from_fn(|| match listener.accept() {
            Accept::Connection(stream, _) => Some(stream),
            Accept::Drained => None,
            other => panic!("{other:?}"),
        });
        assert_eq!(accepted.count(), clients.len());
    }

    #[test]
    fn a_port_can_be_listened_on_again_at_once() {
        let (mut poll, mut listener, addr) = registered(LOOPBACK, Sharing::default());
        let (client, stream, _) = connect_one(&mut poll, &mut listener, addr);
        // Our end closes first, so its TIME_WAIT occupies our port.
        drop(stream);
        drop(client);
        drop(listener);
        Listener::bind(addr, Sharing::default()).unwrap();
    }

    #[test]
    fn ipv6_accepts_ipv4_only_if_asked_to() {
        if !has_ipv6() {
            return;
        }
        let any = SocketAddr::from((net::Ipv6Addr::UNSPECIFIED, 0));
        let (mut poll, mut both, addr) = registered(any, Sharing::default());
        let from_v4 = SocketAddr::from((net::Ipv4Addr::LOCALHOST, addr.port()));
        let (_, _, peer) = connect_one(&mut poll, &mut both, from_v4);
        assert_eq!(peer.ip().to_canonical(), net::Ipv4Addr::LOCALHOST);

        let (mut poll, mut only_v6, addr) = registered(any, Sharing { only_v6: true, ..Sharing::default() });
        let from_v6 = SocketAddr::from((net::Ipv6Addr::LOCALHOST, addr.port()));
        connect_one(&mut poll, &mut only_v6, from_v6);
        let from_v4 = SocketAddr::from((net::Ipv4Addr::LOCALHOST, addr.port()));
        assert_eq!(net::TcpStream::connect(from_v4).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}

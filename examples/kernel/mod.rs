//! What the kernel knows of a socket: the figures that `ss` and `netstat` print, from where `ss` has them (sock_diag(7)).
//!
//! Shared by the examples that look at the wire. It asks for one connection at a time, both ends of it, and it has the two
//! means to hold a state that would otherwise be gone before anyone could look: a full pipe, and an end that is deaf.

// Each example is a program of its own and uses its own part of this.
#![allow(dead_code)]

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::{MemInfo, Nla, TcpInfo};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink};
use socket2::{SockFilter, SockRef};

/// How long a state is waited for: far beyond what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `netstat` calls the states, by the kernel's numbers. (`ss` writes ESTAB and FIN-WAIT-1, RFC 9293 SYN-RECEIVED.)
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

/// One TCP socket, as the kernel has it. One that it does not have is CLOSED.
pub struct Tcp {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: &'static str,
    /// `Recv-Q`: bytes that have arrived and were not read; of a listener the connections that wait for accept. A FIN that
    /// was not read counts as a byte.
    pub unread: u32,
    /// `Send-Q`: bytes that were written and are not acknowledged, sent or not; of a listener its backlog. A FIN that was
    /// not acknowledged counts as a byte.
    pub unacknowledged: u32,
    /// Everything else, such as the window: what getsockopt(2) calls `TCP_INFO`. Only a live connection has it.
    pub info: Option<TcpInfo>,
}

impl Tcp {
    /// The listening socket of an address.
    pub fn listener(listener: &impl AsFd) -> io::Result<Self> {
        let local = local_addr(listener)?;
        let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self::find(local, unspecified)
    }

    /// The socket of one end of a connection.
    pub fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        let found = dump(IPPROTO_TCP, ExtensionFlags::INFO, local, remote.port())?.into_iter().find(|socket| {
            let id = &socket.header.socket_id;
            (id.source_address, id.destination_address) == (local.ip(), remote.ip())
        });
        let Some(InetResponse { header, nlas }) = found else {
            return Ok(Self { local, remote, state: STATES[0], unread: 0, unacknowledged: 0, info: None });
        };
        let info = nlas.into_iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info) } else { None });
        let state = STATES[usize::from(header.state)];
        Ok(Self { local, remote, state, unread: header.recv_queue, unacknowledged: header.send_queue, info })
    }

    /// The bytes that the peer has last said it would take beyond those that it has acknowledged.
    pub fn window(&self) -> u32 {
        self.info.as_ref().map_or(0, |info| info.snd_wnd)
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, remote, state, unread, unacknowledged, .. } = self;
        if *state == STATES[0] {
            return write!(f, "{state:<11}  the kernel knows nothing of it   {local} > {remote}");
        }
        write!(f, "{state:<11}  Recv-Q {unread:<7} Send-Q {unacknowledged:<7} {local} > {remote}")
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

/// A UDP socket's receive buffer, in bytes of the kernel's own accounting, and the datagrams that found it full.
pub fn udp_buffer(local: SocketAddr) -> io::Result<MemInfo> {
    let sockets = dump(IPPROTO_UDP, ExtensionFlags::SKMEMINFO, local, 0)?;
    let memory = |nla| if let Nla::MemInfo(memory) = nla { Some(memory) } else { None };
    let found = sockets.into_iter().flat_map(|socket| socket.nlas).find_map(memory);
    found.ok_or_else(|| io::Error::other(format!("the kernel has no UDP socket on {local}")))
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

/// Asks for all IPv4 sockets with these ports, in whatever state.
fn dump(protocol: u8, wanted: ExtensionFlags, local: SocketAddr, remote_port: u16) -> io::Result<Vec<InetResponse>> {
    let source_port = local.port();
    let request = SockDiagMessage::InetRequest(InetRequest {
        family: AF_INET,
        protocol,
        extensions: wanted,
        states: StateFlags::all(),
        socket_id: SocketId { source_port, destination_port: remote_port, ..SocketId::new_v4() },
    });
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG))?;
    rustix::net::send(&socket, &bytes, SendFlags::empty())?;
    let (mut found, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let (_, received) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..received];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            rest = &rest[message.header.length as usize..];
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => found.push(*socket),
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

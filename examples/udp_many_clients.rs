//! One UDP socket serves everybody: the address that a datagram comes from is all there is of a connection.
//!
//! 1. Fifty clients, one socket, one event: a server that answers one datagram for an event leaves 49 waiting.
//! 2. A datagram may be empty, and nothing ends with it.
//! 3. A client that connects its socket hears its server alone, and hears of it when nobody listens there.
//!
//! ```text
//! cargo run --example udp_many_clients
//! ```

mod loopback;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use mio::{Events, Interest, Poll, Token};

use intake::net::Readiness;
use loopback::{ANY, PATIENCE, SILENCE, look_up, settle, unless_blocked, wait};

const CLIENTS: usize = 50;
/// How many datagrams an event is answered with.
const WRONG: usize = 1;
const RIGHT: usize = usize::MAX;

fn main() -> io::Result<()> {
    one_socket_for_all()?;
    an_empty_datagram_is_no_end()?;
    a_connected_socket_hears_its_peer_alone()?;
    nobody_listens_there()
}

struct Server {
    poll: Poll,
    events: Events,
    socket: mio::net::UdpSocket,
    address: SocketAddr,
    peers: BTreeSet<SocketAddr>,
}

impl Server {
    fn bind() -> io::Result<Self> {
        let (poll, mut socket) = (Poll::new()?, mio::net::UdpSocket::bind(ANY)?);
        poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
        let address = socket.local_addr()?;
        Ok(Self { poll, events: Events::with_capacity(8), socket, address, peers: BTreeSet::new() })
    }

    /// Waits once, then answers up to `most` datagrams, each to whoever sent it. Returns the events and the answers.
    fn turn(&mut self, most: usize) -> io::Result<(usize, usize)> {
        let events = wait(&mut self.poll, &mut self.events, SILENCE)?;
        let (mut buffer, mut answers) = ([0; 1500], 0);
        while events > 0 && answers < most {
            let Some((size, peer)) = unless_blocked(|| self.socket.recv_from(&mut buffer))? else { break };
            self.socket.send_to(&buffer[..size], peer)?;
            self.peers.insert(peer);
            answers += 1;
        }
        Ok((events, answers))
    }
}

fn one_socket_for_all() -> io::Result<()> {
    println!("-- {CLIENTS} clients, one socket");
    let (mut server, clients) = (Server::bind()?, (0..CLIENTS).map(|_| socket()).collect::<io::Result<Vec<_>>>()?);
    let address = server.address;
    let send = |client: usize| clients[client].send_to(format!("I am {client}").as_bytes(), address);
    for client in 0..CLIENTS {
        send(client)?;
    }
    settle();
    assert_eq!(server.turn(WRONG)?, (1, 1), "fifty arrivals before one look are one edge");
    assert_eq!(server.turn(WRONG)?, (0, 0), "and nobody tells of the rest");
    let waiting = look_up(&mut File::open("/proc/net/udp")?, server.address.port(), 0)?.waiting;
    println!("wrong: one event, one answer, then silence; {waiting} bytes of memory hold what waits in the kernel");
    assert!(waiting > 0);
    send(0)?;
    assert_eq!(server.turn(WRONG)?, (1, 1), "a new datagram pulls an old one out: under load nobody notices");
    send(0)?;
    settle();
    assert_eq!(server.turn(RIGHT)?, (1, CLIENTS), "until recvfrom would block, one event is enough");
    println!("right: one event, {CLIENTS} answers to {} peers, one descriptor", server.peers.len());
    assert_eq!(server.peers.len(), CLIENTS);
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(receive(client)?.as_deref(), Some(format!("I am {number}").as_bytes()), "each hears its own");
    }
    Ok(())
}

fn an_empty_datagram_is_no_end() -> io::Result<()> {
    println!("-- an empty datagram");
    for (manner, is_end) in [("wrong", true), ("right", false)] {
        let (server, client) = (socket()?, socket()?);
        for text in ["first", "", "last"] {
            client.send_to(text.as_bytes(), server.local_addr()?)?;
        }
        settle();
        let mut heard = 0;
        while let Some(bytes) = receive(&server)? {
            // Whoever comes from TCP takes a read of nothing for the end of everything.
            if bytes.is_empty() && is_end {
                break;
            }
            heard += 1;
        }
        println!("{manner}: 0 bytes are {} end, so {heard} of 3 are heard", if is_end { "an" } else { "no" });
        assert_eq!(heard, if is_end { 1 } else { 3 });
    }
    Ok(())
}

fn a_connected_socket_hears_its_peer_alone() -> io::Result<()> {
    println!("-- a stranger");
    let (server, client, stranger) = (socket()?, socket()?, socket()?);
    stranger.send_to(b"trust me", client.local_addr()?)?;
    settle();
    assert_eq!(receive(&client)?.as_deref(), Some(&b"trust me"[..]), "an unconnected socket takes anything");
    // No packet goes out: the kernel only notes whom the socket talks to.
    client.connect(server.local_addr()?)?;
    stranger.send_to(b"trust me", client.local_addr()?)?;
    server.send_to(b"the answer", client.local_addr()?)?;
    settle();
    assert_eq!(receive(&client)?.as_deref(), Some(&b"the answer"[..]), "a connected one takes its peer's alone");
    println!("an unconnected client took a stranger's answer, a connected one never saw it");
    Ok(())
}

fn nobody_listens_there() -> io::Result<()> {
    println!("-- nobody listens there");
    let nobody = socket()?.local_addr()?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    let [mut connected, mut unconnected] = [mio::net::UdpSocket::bind(ANY)?, mio::net::UdpSocket::bind(ANY)?];
    poll.registry().register(&mut connected, Token(0), Interest::READABLE)?;
    poll.registry().register(&mut unconnected, Token(1), Interest::READABLE)?;
    unconnected.send_to(b"anyone?", nobody)?;
    assert_eq!(wait(&mut poll, &mut events, SILENCE)?, 0);
    println!("unconnected: sent, and then silence for good: only connected sockets are told of ICMP");

    connected.connect(nobody)?;
    connected.send(b"anyone?")?;
    assert_eq!(wait(&mut poll, &mut events, PATIENCE)?, 1);
    let event = events.iter().next().expect("there is one");
    assert!(event.is_error() && !event.is_readable(), "who looks for `readable` alone never hears of it");
    assert!(Readiness::from(event).readable, "so an error counts as worth a read");
    let error = connected.recv(&mut [0; 1]).expect_err("nobody listens");
    println!("connected: the event is neither readable nor writable, only an error; the read says: {error}");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(unless_blocked(|| connected.recv(&mut [0; 1]))?.is_none(), "it is told once, and the socket lives on");
    Ok(())
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(ANY)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The next datagram, if one has come.
fn receive(socket: &UdpSocket) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 1500];
    Ok(unless_blocked(|| socket.recv(&mut buffer))?.map(|size| buffer[..size].to_vec()))
}

//! One UDP socket serves all clients: the only trace of a connection is a datagram's source address.
//!
//! 1. Fifty clients, one socket, one event: a server that answers one datagram an event leaves 49 waiting.
//! 2. A datagram may be empty, and ends nothing.
//! 3. A client that connects its socket receives only from its server, and learns if nothing listens there.

mod loopback;

use std::io;
use std::net::UdpSocket;

use mio::{Interest, Poll, Token};

use intake::net::Readiness;
use loopback::kernel::udp;
use loopback::{ANY, PATIENCE, SILENCE, settle, unless_blocked, wait};

const CLIENTS: usize = 50;
/// How many datagrams a server answers at an event.
const WRONG: usize = 1;
const RIGHT: usize = usize::MAX;

fn main() -> io::Result<()> {
    one_socket_for_all()?;
    an_empty_datagram_is_no_end()?;
    a_connected_socket_hears_its_peer_alone()?;
    nobody_listens_there()
}

fn one_socket_for_all() -> io::Result<()> {
    println!("-- {CLIENTS} clients, one socket");
    let (mut poll, mut server) = (Poll::new()?, mio::net::UdpSocket::bind(ANY)?);
    poll.registry().register(&mut server, Token(0), Interest::READABLE)?;
    let (address, clients) = (server.local_addr()?, (0..CLIENTS).map(|_| socket()).collect::<io::Result<Vec<_>>>()?);
    let say = |client: &UdpSocket| client.send_to(client.local_addr()?.to_string().as_bytes(), address);
    clients.iter().try_for_each(|client| say(client).map(drop))?;
    settle();
    assert_eq!(turn(&mut poll, &server, WRONG)?, (1, 1), "fifty arrivals before one poll are one edge");
    assert_eq!(turn(&mut poll, &server, WRONG)?, (0, 0), "and no event reports the rest");
    let memory = udp(address.port())?.unread_memory;
    println!("wrong: one event, one answer, then silence; {memory} bytes of kernel memory hold the rest");
    assert!(memory > 0);
    say(&clients[0])?;
    assert_eq!(
        turn(&mut poll, &server, WRONG)?,
        (1, 1),
        "a new datagram pulls an old one out: under load the fault does not show"
    );
    say(&clients[0])?;
    assert_eq!(
        turn(&mut poll, &server, RIGHT)?,
        (1, CLIENTS),
        "one event is enough for a server that receives until it would block"
    );
    println!("right: one event, {CLIENTS} answers, one descriptor");
    for client in &clients {
        let heard = receive(client)?.expect("every client is answered");
        assert_eq!(
            heard,
            client.local_addr()?.to_string().as_bytes(),
            "each client gets the answer to its own datagram"
        );
    }
    Ok(())
}

/// Waits once, then answers up to `most` datagrams, each to its sender. Returns the events and the answers.
fn turn(poll: &mut Poll, server: &mio::net::UdpSocket, most: usize) -> io::Result<(usize, usize)> {
    let events = wait(poll, SILENCE)?.len();
    let (mut buffer, mut answers) = ([0; 1500], 0);
    while events > 0 && answers < most {
        let Some((length, peer)) = unless_blocked(|| server.recv_from(&mut buffer))? else { break };
        server.send_to(&buffer[..length], peer)?;
        answers += 1;
    }
    Ok((events, answers))
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
        // In TCP a read of zero bytes would be the end.
        while receive(&server)?.is_some_and(|bytes| !(bytes.is_empty() && is_end)) {
            heard += 1;
        }
        println!("{manner}: 0 bytes are {} end, so {heard} of 3 are received", if is_end { "an" } else { "no" });
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
    // No packet goes out: the kernel only notes the peer of the socket.
    client.connect(server.local_addr()?)?;
    stranger.send_to(b"trust me", client.local_addr()?)?;
    server.send_to(b"the answer", client.local_addr()?)?;
    settle();
    assert_eq!(receive(&client)?.as_deref(), Some(&b"the answer"[..]), "a connected one takes only its peer's");
    println!("an unconnected client took a stranger's answer, a connected one never saw it");
    Ok(())
}

/// The host answers with an ICMP message, which the kernel can report only to a socket that has a peer (RFC 1122, 4.1.3.3).
fn nobody_listens_there() -> io::Result<()> {
    println!("-- nothing listens there");
    let (nobody, mut poll) = (socket()?.local_addr()?, Poll::new()?);
    let mut client = mio::net::UdpSocket::bind(ANY)?;
    poll.registry().register(&mut client, Token(0), Interest::READABLE)?;
    client.send_to(b"anyone?", nobody)?;
    assert!(wait(&mut poll, SILENCE)?.is_empty());
    println!("unconnected: sent, and then silence forever");

    client.connect(nobody)?;
    client.send(b"anyone?")?;
    let [event] = &wait(&mut poll, PATIENCE)?[..] else { panic!("one event for one socket") };
    assert!(event.is_error() && !event.is_readable(), "a program that looks only for `readable` never learns of it");
    assert!(Readiness::from(event).readable, "so an error, too, is a reason to read");
    let error = client.recv(&mut [0; 1]).expect_err("nothing listens");
    println!("connected: the event is neither readable nor writable, only an error; the read says: {error}");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(
        unless_blocked(|| client.recv(&mut [0; 1]))?.is_none(),
        "the error is reported once, and the socket still works"
    );
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
    Ok(unless_blocked(|| socket.recv(&mut buffer))?.map(|length| buffer[..length].to_vec()))
}

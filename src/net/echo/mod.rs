//! The UDP echo: every datagram goes back to its sender, byte for byte, and nothing else is ever sent.
//!
//! It sends at most one datagram for each received one, and never more bytes, so it amplifies nothing. Knows neither TCP
//! nor the turn; the guard decides which datagrams are not answered.
//!
//! Each datagram takes one receive call. The first one of a call to `serve` is answered at once, alone; the others leave in
//! runs (`run`), each in one sendmsg(2), which passes through the stack as one packet that is cut late (udp(7),
//! `UDP_SEGMENT`). The receiver sees no difference.
//!
//! An answer comes from the address that the datagram was sent to. A socket on one address has no other; one on an
//! unspecified address asks the kernel for the destination of each datagram (`local`).

mod guard;
mod local;
mod run;

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};

use log::{debug, info, trace};
use mio::event::Source;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{SockRef, Type};

use self::guard::{Guard, Verdict};
use self::run::{Path, Run, Runs};
use super::{Sharing, unbound_socket};
use crate::reactor::Moment;

/// The receive buffer, which fills while the turn is busy with other work, in bytes: 10,000 small datagrams at the kernel's
/// cost for each.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// The echo, on one or several addresses. One guard watches all of them, so a peer gets no second budget by asking a second
/// address, and no socket answers another one of the same echo.
#[derive(Debug)]
pub struct Echo {
    sockets: Vec<Bound>,
    /// The socket that is served first in the next call.
    first: usize,
    guard: Guard,
    /// Datagrams received and not yet answered. Empty between two calls of `serve`.
    runs: Runs,
    /// The buffer for the control message with a datagram's destination.
    control: Vec<u8>,
    stats: EchoStats,
}

/// One socket of the echo.
#[derive(Debug)]
struct Bound {
    socket: UdpSocket,
    /// It receives datagrams to any address of this machine.
    is_wildcard: bool,
}

/// Counts of datagrams by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EchoStats {
    /// Datagrams sent back.
    pub echoed: u64,
    /// The bytes in them.
    pub bytes: u64,
    /// Dropped: came from the echo's own port number or from one under 1024.
    pub refused_source: u64,
    /// Dropped: the peer was over its rate.
    pub over_rate: u64,
    /// Dropped: the kernel would not send the answer.
    pub not_sent: u64,
}

impl fmt::Display for EchoStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { echoed, bytes, refused_source, over_rate, not_sent } = self;
        write!(f, "{echoed} datagrams answered ({bytes} bytes); dropped: {refused_source} for their source port, ")?;
        write!(f, "{over_rate} over the rate, {not_sent} that the system would not send")
    }
}

impl Echo {
    /// An echo without an address, which answers up to `rate` datagrams a second to each peer; `None` is no limit.
    pub fn new(rate: Option<u32>) -> Self {
        Self {
            sockets: Vec::new(),
            first: 0,
            guard: Guard::new(rate),
            runs: Runs::new(),
            control: local::control_buffer(),
            stats: EchoStats::default(),
        }
    }

    /// Echoes on `addr` as well.
    ///
    /// # Errors
    /// The error of the system: the address is in use, is not one of this machine's, or its port is privileged.
    pub fn bind(&mut self, addr: SocketAddr, sharing: Sharing) -> io::Result<()> {
        let socket = unbound_socket(addr, sharing, Type::DGRAM)?;
        socket.bind(&addr.into())?;
        self.adopt(socket.into())
    }

    /// Echoes what comes to a bound socket as well.
    ///
    /// # Errors
    /// The error of setsockopt(2) or getsockname(2).
    pub fn adopt(&mut self, socket: net::UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let buffer_bytes = enlarge_receive_buffer(SockRef::from(&socket))?;
        let local = socket.local_addr()?;
        let is_wildcard = local.ip().is_unspecified();
        if is_wildcard {
            local::tell_destinations(&socket, local)?;
        }
        let socket = UdpSocket::from_std(socket);
        info!("udp {local}: a receive buffer of {buffer_bytes} bytes, {RECEIVE_BUFFER_BYTES} were asked for");
        self.guard.refuse_port(local.port());
        self.sockets.push(Bound { socket, is_wildcard });
        Ok(())
    }

    /// The addresses of the sockets, with their actual ports.
    ///
    /// # Errors
    /// The error of getsockname(2).
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(|bound| bound.socket.local_addr()).collect()
    }

    /// Counts of datagrams by their outcome.
    pub fn stats(&self) -> EchoStats {
        self.stats
    }

    /// Receives up to `budget` datagrams, and answers those that the guard admits at `now`. Returns whether there may be
    /// more, which no event will report.
    pub fn serve(&mut self, now: Moment, budget: usize) -> bool {
        let mut left = budget;
        for _ in 0..self.sockets.len() {
            let index = self.first;
            // A flood on one address uses up the budget, and the next call begins with the next address.
            self.first = (index + 1) % self.sockets.len();
            left -= self.receive(index, now, left);
            self.answer(index);
            if left == 0 {
                return true;
            }
        }
        false
    }

    /// Returns how many receive calls it made that did not find the socket empty: less than `budget` if it is drained.
    fn receive(&mut self, index: usize, now: Moment, budget: usize) -> usize {
        for nth in 0..budget {
            // The first is often the only one, so answer it before the next call.
            if nth == 1 || self.runs.is_full() {
                self.answer(index);
            }
            match self.sockets[index].receive(self.runs.room(), &mut self.control) {
                Ok((size, path)) => self.judge(index, size as u16, path, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return nth,
                // An interruption, or the error of an earlier answer, which is reported once. Neither is a reason to stop.
                Err(error) => debug!("udp receive: {error}"),
            }
        }
        budget
    }

    /// A datagram that is not answered is overwritten by the next one.
    fn judge(&mut self, index: usize, size: u16, path: Path, now: Moment) {
        match self.guard.judge(path.peer, now) {
            Verdict::RefuseSource => self.stats.refused_source += 1,
            Verdict::OverRate => self.stats.over_rate += 1,
            Verdict::Admit => {
                if let Some(run) = self.runs.push(size, path) {
                    send_back(&self.sockets[index].socket, run, &mut self.stats);
                }
            }
        }
    }

    fn answer(&mut self, index: usize) {
        if let Some(run) = self.runs.end() {
            send_back(&self.sockets[index].socket, run, &mut self.stats);
        }
    }
}

impl Bound {
    fn receive(&self, room: &mut [u8], control: &mut [u8]) -> io::Result<(usize, Path)> {
        if self.is_wildcard {
            local::receive(&self.socket, room, control).map(|(size, peer, local)| (size, Path { peer, local }))
        } else {
            self.socket.recv_from(room).map(|(size, peer)| (size, Path { peer, local: None }))
        }
    }
}

/// All sockets have the same token. A read finds out which of them is readable.
impl Source for Echo {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.sockets.iter_mut().try_for_each(|bound| registry.register(&mut bound.socket, token, interest))
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.sockets.iter_mut().try_for_each(|bound| registry.reregister(&mut bound.socket, token, interest))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.sockets.iter_mut().try_for_each(|bound| registry.deregister(&mut bound.socket))
    }
}

/// An answer that cannot be sent is dropped: datagrams are unreliable, and the next one may be for another peer.
///
/// A run that cannot be sent as segments is sent datagram by datagram: the path may carry less, the kernel may be older than
/// 4.18, or the device may compute no checksums. An answer that cannot come from the destination of the datagram, such as
/// the broadcast address of a network, comes from an address that the kernel picks.
fn send_back(socket: &UdpSocket, run: Run<'_>, stats: &mut EchoStats) {
    match send(socket, run) {
        Ok(sent) => {
            stats.echoed += run.count as u64;
            stats.bytes += sent as u64;
        }
        Err(error) if run.count > 1 => {
            trace!("udp send of {} segments to {}, so each by itself: {error}", run.count, run.path.peer);
            run.singles().for_each(|single| send_back(socket, single, stats));
        }
        Err(error) if run.path.local.is_some() && error.kind() == io::ErrorKind::InvalidInput => {
            let path = Path { local: None, ..run.path };
            send_back(socket, Run { path, ..run }, stats);
        }
        Err(error) => {
            trace!("udp send to {}: {error}", run.path.peer);
            stats.not_sent += 1;
        }
    }
}

fn send(socket: &UdpSocket, Run { path, segment, count, bytes }: Run<'_>) -> io::Result<usize> {
    match path {
        Path { peer, local: None } if count == 1 => socket.send_to(bytes, peer),
        Path { peer, local } => local::send(socket, bytes, (count > 1).then_some(segment), peer, local),
    }
}

/// Asks for the buffer beyond `net.core.rmem_max`, which needs CAP_NET_ADMIN, then within it. Returns the granted bytes:
/// the kernel doubles the size for its own bookkeeping, and reports the double (socket(7)).
fn enlarge_receive_buffer(socket: SockRef) -> io::Result<usize> {
    set_socket_recv_buffer_size_force(&*socket, RECEIVE_BUFFER_BYTES)
        .or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES))?;
    Ok(socket.recv_buffer_size()? / 2)
}

#[cfg(test)]
mod tests {
    use mio::Poll;
    use rustix::net::sockopt::{Ipv6PathMtuDiscovery, set_ipv6_mtu_discover};

    use super::run::DATAGRAM_MAX_BYTES;
    use super::*;
    use crate::net::tests::{LOOPBACK, PATIENCE, has_ipv6, next_readiness};

    struct Served {
        poll: Poll,
        echo: Echo,
        addr: SocketAddr,
    }

    impl Served {
        fn bind(addr: SocketAddr, rate: Option<u32>) -> Self {
            let mut echo = Echo::new(rate);
            echo.bind(addr, Sharing::default()).unwrap();
            let poll = Poll::new().unwrap();
            poll.registry().register(&mut echo, Token(0), Interest::READABLE).unwrap();
            let addr = echo.local_addrs().unwrap()[0];
            Self { poll, echo, addr }
        }

        fn client(&self) -> net::UdpSocket {
            let client = net::UdpSocket::bind(SocketAddr::new(self.addr.ip(), 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.connect(self.addr).unwrap();
            client
        }

        /// Serves until `count` datagrams were dealt with.
        fn deal_with(&mut self, count: u64) -> EchoStats {
            while self.dealt_with() < count {
                assert!(next_readiness(&mut self.poll).readable);
                while self.echo.serve(Moment::default(), 64) {}
            }
            assert_eq!(self.dealt_with(), count);
            self.echo.stats()
        }

        fn dealt_with(&self) -> u64 {
            let stats = self.echo.stats();
            stats.echoed + stats.refused_source + stats.over_rate + stats.not_sent
        }
    }

    fn datagram(size: usize, seed: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 + seed) as u8).collect()
    }

    /// An address of each family, and all of them.
    fn everywhere() -> impl Iterator<Item = SocketAddr> {
        let v4 = [net::Ipv4Addr::LOCALHOST, net::Ipv4Addr::UNSPECIFIED];
        let v6 = [net::Ipv6Addr::LOCALHOST, net::Ipv6Addr::UNSPECIFIED];
        let v6 = v6.into_iter().filter(|_| has_ipv6());
        v4.into_iter().map(|ip| (ip, 0).into()).chain(v6.map(|ip| (ip, 0).into()))
    }

    fn path_to(client: &net::UdpSocket) -> Path {
        Path { peer: client.local_addr().unwrap(), local: None }
    }

    fn assert_hears(client: &net::UdpSocket, expected: &[u8]) {
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        let size = client.recv(&mut buffer).unwrap();
        assert!(buffer[..size] == *expected, "{size} bytes came back, not the {} that were sent", expected.len());
    }

    fn assert_hears_nothing_more(client: &net::UdpSocket) {
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.recv(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    fn echoes_every_size(addr: SocketAddr) {
        let mut served = Served::bind(addr, None);
        let client = served.client();
        let sizes = [0, 1, 1472, 65_507, 0];
        for (seed, size) in sizes.into_iter().enumerate() {
            client.send(&datagram(size, seed)).unwrap();
            served.deal_with(seed as u64 + 1);
            assert_hears(&client, &datagram(size, seed));
        }
        assert_hears_nothing_more(&client);
        let bytes = sizes.iter().sum::<usize>() as u64;
        assert_eq!(served.echo.stats(), EchoStats { echoed: 5, bytes, ..EchoStats::default() });
    }

    #[test]
    fn every_size_comes_back_byte_for_byte() {
        everywhere().for_each(echoes_every_size);
    }

    fn echoes_every_burst(addr: SocketAddr) {
        let mut served = Served::bind(addr, None);
        let (client, other) = (served.client(), served.client());
        let sizes =
            [1200, 1200, 1200, 1200, 700, 700, 0, 0, 3000, 3000, 3000, 64, 64, 64, 65, 65, 1, 40_000, 40_000, 5];
        for (seed, size) in sizes.into_iter().enumerate() {
            client.send(&datagram(size, seed)).unwrap();
            if seed % 7 == 3 {
                other.send(&datagram(size, seed)).unwrap();
            }
        }
        assert_eq!(served.deal_with(23).echoed, 23);
        for (seed, size) in sizes.into_iter().enumerate() {
            assert_hears(&client, &datagram(size, seed));
            if seed % 7 == 3 {
                assert_hears(&other, &datagram(size, seed));
            }
        }
        assert_hears_nothing_more(&client);
        assert_hears_nothing_more(&other);
    }

    #[test]
    fn a_burst_comes_back_as_it_was_cut_and_in_its_order() {
        everywhere().for_each(echoes_every_burst);
    }

    #[test]
    fn a_run_leaves_as_segments() {
        let served = Served::bind(LOOPBACK, None);
        let client = served.client();
        let run = Run { path: path_to(&client), segment: 2, count: 3, bytes: b"aabbc" };
        assert_eq!(send(&served.echo.sockets[0].socket, run).unwrap(), 5);
        for expected in [&b"aa"[..], b"bb", b"c"] {
            assert_hears(&client, expected);
        }
        assert_hears_nothing_more(&client);
    }

    #[test]
    fn a_run_that_the_kernel_refuses_leaves_one_by_one() {
        let served = Served::bind(LOOPBACK, None);
        let client = served.client();
        let bytes = datagram(300, 0);
        // More segments than any kernel takes.
        let run = Run { path: path_to(&client), segment: 2, count: 150, bytes: &bytes };
        assert!(send(&served.echo.sockets[0].socket, run).is_err());
        let mut stats = EchoStats::default();
        send_back(&served.echo.sockets[0].socket, run, &mut stats);
        assert_eq!(stats, EchoStats { echoed: 150, bytes: 300, ..EchoStats::default() });
        for expected in bytes.chunks(2) {
            assert_hears(&client, expected);
        }
        assert_hears_nothing_more(&client);
    }

    #[test]
    fn a_burst_from_many_is_answered_each_to_its_sender() {
        let mut served = Served::bind(LOOPBACK, Some(10_000));
        let clients: Vec<_> = (0..50).map(|_| served.client()).collect();
        for round in 0..20 {
            for (number, client) in clients.iter().enumerate() {
                client.send(&datagram(round + 1, number)).unwrap();
            }
        }
        assert_eq!(served.deal_with(1000).echoed, 1000);
        for (number, client) in clients.iter().enumerate() {
            for round in 0..20 {
                assert_hears(client, &datagram(round + 1, number));
            }
            assert_hears_nothing_more(client);
        }
    }

    #[test]
    fn the_budget_is_kept_and_unread_datagrams_are_reported() {
        let mut served = Served::bind(LOOPBACK, None);
        let client = served.client();
        for _ in 0..10 {
            client.send(b"x").unwrap();
        }
        while served.dealt_with() < 10 {
            assert!(next_readiness(&mut served.poll).readable);
            loop {
                let before = served.dealt_with();
                let more = served.echo.serve(Moment::default(), 4);
                let answered = served.dealt_with() - before;
                assert!(answered <= 4, "{answered}");
                assert_eq!(more, answered == 4);
                if !more {
                    break;
                }
            }
        }
    }

    #[test]
    fn an_echo_never_answers_an_echo() {
        let mut served = Served::bind(LOOPBACK, None);
        let other = net::UdpSocket::bind(("127.0.0.2", served.addr.port())).unwrap();
        other.send_to(b"hello, echo", served.addr).unwrap();
        assert_eq!(served.deal_with(1), EchoStats { refused_source: 1, ..EchoStats::default() });
        assert_hears_nothing_more(&other);
    }

    #[test]
    fn a_peer_over_its_rate_gets_no_answer() {
        let mut served = Served::bind(LOOPBACK, Some(5));
        let client = served.client();
        for _ in 0..8 {
            client.send(b"x").unwrap();
        }
        let now = Moment::default();
        while served.dealt_with() < 8 {
            assert!(next_readiness(&mut served.poll).readable);
            while served.echo.serve(now, 64) {}
        }
        assert_eq!(served.echo.stats(), EchoStats { echoed: 5, bytes: 5, over_rate: 3, ..EchoStats::default() });
    }

    #[test]
    fn an_answer_that_cannot_be_sent_does_not_affect_others() {
        if !has_ipv6() {
            return;
        }
        let mut served = Served::bind(SocketAddr::from((net::Ipv6Addr::LOCALHOST, 0)), None);
        // Larger than the loopback's MTU of 65,536 with its headers, so without fragments it cannot go back (EMSGSIZE).
        set_ipv6_mtu_discover(&served.echo.sockets[0].socket, Ipv6PathMtuDiscovery::DO).unwrap();
        let client = served.client();
        for size in [1, 65_527, 2] {
            client.send(&datagram(size, 0)).unwrap();
        }
        assert_eq!(served.deal_with(3), EchoStats { echoed: 2, bytes: 3, not_sent: 1, ..EchoStats::default() });
        assert_hears(&client, &datagram(1, 0));
        assert_hears(&client, &datagram(2, 0));
    }
}

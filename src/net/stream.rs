//! A connection's socket: the operations that the server needs beyond reading and writing.
//!
//! There are two ways to end it. A FIN is queued behind the bytes and ends one direction. A reset discards unsent bytes and
//! ends both. close(2) sends a FIN, but with unread bytes a reset (RFC 9293, 3.6; RFC 2525, 2.17). That is why the server
//! reads to the end before it closes a connection that it has refused.
//!
//! `take_error` and `try_clone` are missing on purpose. After a reset the kernel reports the error once and a clean end
//! from then on, so taking the error anywhere but in a read or a write turns a cut-off upload into a complete one. And with
//! a second descriptor, events continue after the first is closed (epoll(7)).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetUsize;
use socket2::SockRef;

use super::Pipe;

/// A stream of bytes in two directions. Each direction ends separately.
pub trait Stream: Read + Write {
    /// The local address.
    ///
    /// # Errors
    /// The error of getsockname(2).
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Reads at most `max` bytes to the front of `buffer`. The rest of `buffer` is scratch: TLS needs it.
    ///
    /// # Errors
    /// As of a read. `Interrupted`: bytes came, but all of them were the stream's own.
    fn receive(&mut self, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        self.read(&mut buffer[..max])
    }

    /// Moves up to `max` received bytes into `pipe`, without a copy. Only a count above zero is reliable: only a read tells
    /// whether the stream has ended or is drained, since before unread urgent data splice(2) reports either, and neither is
    /// true. A stream without splice moves nothing.
    ///
    /// # Errors
    /// The error of splice(2): `WouldBlock` (see above), or that the connection is lost, which is reported only once.
    fn splice(&mut self, _pipe: &Pipe, _max: usize) -> io::Result<usize> {
        Ok(0)
    }

    /// Whether the stream has bytes of its own to send, such as those of a handshake, or holds back written bytes. A flush
    /// sends them. A plain socket has none.
    fn owes(&self) -> bool {
        false
    }

    /// Whether nobody can read along, so that a client may show a token. On a plain socket anybody on the way can.
    fn is_secure(&self) -> bool {
        false
    }

    /// Whether the peer itself has announced the end that a read has found. The FIN of a plain socket proves nothing: the
    /// kernel of a killed program sends one, too.
    fn end_is_proven(&self) -> bool {
        false
    }

    /// Announces the end of our direction to the peer, if the stream has a word for it. Returns whether a flush has to send
    /// that before [`Stream::shutdown_write`] or a close.
    fn announce_end(&mut self) -> bool {
        false
    }

    /// From now on the kernel reports an edge only for at least `bytes` unread bytes, or the end (`SO_RCVLOWAT`,
    /// socket(7)). A read may still return less. This is a hint: without support, edges come as before.
    fn set_low_water(&mut self, bytes: usize);

    /// Acknowledges what has come without waiting for something to send with it (`TCP_QUICKACK`, tcp(7)). A peer that waits for
    /// that before it sends a small packet (Nagle's algorithm) would else lose 40 ms. This is a hint.
    fn acknowledge(&mut self) {}

    /// Ends our direction (a FIN after the written bytes). The peer may continue to send.
    ///
    /// # Errors
    /// The error of shutdown(2): `NotConnected` after a reset.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// From now on a close is a reset, so that the peer sees an error and not an end, or an end again. A reset discards
    /// unsent bytes (`SO_LINGER` of zero seconds, socket(7)). It applies to the kernel's own close of a killed process,
    /// too.
    ///
    /// # Errors
    /// The error of setsockopt(2).
    fn reset_on_close(&mut self, resets: bool) -> io::Result<()>;
}

/// A socket option that socket2 does not name.
#[derive(Clone, Copy)]
struct ReceiveLowWater;

nix::setsockopt_impl!(ReceiveLowWater, libc::SOL_SOCKET, libc::SO_RCVLOWAT, usize, SetUsize);

impl Stream for TcpStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    fn splice(&mut self, pipe: &Pipe, max: usize) -> io::Result<usize> {
        pipe.fill(&*self, max)
    }

    fn set_low_water(&mut self, bytes: usize) {
        let _ = setsockopt(self, ReceiveLowWater, &bytes);
    }

    fn acknowledge(&mut self) {
        let _ = SockRef::from(&*self).set_tcp_quickack(true);
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn reset_on_close(&mut self, resets: bool) -> io::Result<()> {
        SockRef::from(&*self).set_linger(resets.then_some(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use std::net;

    use mio::{Events, Interest, Poll, Token};

    use super::*;
    use crate::net::tests::{LOOPBACK, PATIENCE};

    fn pair() -> (TcpStream, net::TcpStream) {
        let listener = net::TcpListener::bind(LOOPBACK).unwrap();
        let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Blocking, so that the tests can wait in a read.
        (TcpStream::from_std(listener.accept().unwrap().0), peer)
    }

    #[test]
    fn bytes_below_the_low_water_mark_are_reported_only_with_an_end() {
        const MOMENT: Duration = Duration::from_millis(50);
        let mut poll = Poll::new().unwrap();
        let (mut ours, mut peer) = pair();
        poll.registry().register(&mut ours, Token(0), Interest::READABLE).unwrap();
        let mut is_told_within = |patience| {
            let mut events = Events::with_capacity(1);
            poll.poll(&mut events, Some(patience)).unwrap();
            !events.is_empty()
        };
        ours.set_low_water(10);
        peer.write_all(b"12345").unwrap();
        assert!(!is_told_within(MOMENT));
        peer.write_all(b"67890").unwrap();
        assert!(is_told_within(PATIENCE));
        assert_eq!(ours.read(&mut [0; 16]).unwrap(), 10);
        peer.write_all(b"again").unwrap();
        assert!(!is_told_within(MOMENT));
        ours.set_low_water(1);
        assert!(is_told_within(PATIENCE), "it is there already");
        ours.set_low_water(10);
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(is_told_within(PATIENCE));
    }

    #[test]
    fn the_peer_of_a_reset_sees_an_error() {
        let (mut ours, mut peer) = pair();
        ours.reset_on_close(true).unwrap();
        drop(ours);
        assert_eq!(peer.read(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_reset_on_close_can_be_undone() {
        let (mut ours, mut peer) = pair();
        ours.reset_on_close(true).unwrap();
        ours.reset_on_close(false).unwrap();
        drop(ours);
        assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
    }

    #[test]
    fn a_shut_down_write_side_is_an_end_and_the_peer_can_still_send() {
        let (mut ours, mut peer) = pair();
        ours.write_all(b"last word").unwrap();
        ours.shutdown_write().unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last word");
        peer.write_all(b"still here").unwrap();
        drop(peer);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"still here");
    }
}

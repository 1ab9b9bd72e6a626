//! The meaning of an event for a socket. This is the only reader of mio's event flags.
//!
//! Flags are hints, results decide: readable and writable both mean "try it". The result of the read or write shows whether
//! there were bytes, an end or an error. Then read or write until `WouldBlock`, because no event is repeated.
//!
//! | epoll_ctl(2) | what has happened | what it does not say |
//! |---|---|---|
//! | `EPOLLIN` | bytes, an end or an error can be read | how much, or that anything is still there |
//! | `EPOLLOUT` | there is room to write | that a connect has succeeded: a refused one is reported the same way |
//! | `EPOLLRDHUP` | the peer sends no more (FIN) | that everything before it has been read, or that the peer has stopped reading |
//! | `EPOLLHUP` | both directions have ended | that there is nothing left to read |
//! | `EPOLLERR` | an error is pending | which one; and it may come alone, so it must count as worth a try |

use crate::reactor::Readiness;

/// The flags of an event, in mio's words, for people to read. The server acts only on [`Readiness`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `EPOLLIN`, or `EPOLLPRI`.
    pub readable: bool,
    /// `EPOLLOUT`.
    pub writable: bool,
    /// `EPOLLRDHUP` with `EPOLLIN`, or `EPOLLHUP`.
    pub read_closed: bool,
    /// `EPOLLHUP`, or `EPOLLERR` with `EPOLLOUT` or alone.
    pub write_closed: bool,
    /// `EPOLLERR`.
    pub error: bool,
    /// `EPOLLPRI`.
    pub priority: bool,
}

impl Flags {
    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let Self { readable, writable, read_closed, write_closed, error, priority } = self;
        let all = [
            (readable, "readable"),
            (writable, "writable"),
            (read_closed, "read closed"),
            (write_closed, "write closed"),
            (error, "error"),
            (priority, "priority"),
        ];
        all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name)
    }
}

impl From<&mio::event::Event> for Flags {
    fn from(event: &mio::event::Event) -> Self {
        Self {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            write_closed: event.is_write_closed(),
            error: event.is_error(),
            priority: event.is_priority(),
        }
    }
}

impl From<&mio::event::Event> for Readiness {
    /// An end or an error is found by a try, so it counts as readiness. mio reports `EPOLLERR` alone as neither readable nor
    /// writable, so nothing would ever look at it (epoll_ctl(2)).
    fn from(event: &mio::event::Event) -> Self {
        let flags = Flags::from(event);
        Self {
            readable: flags.readable || flags.priority || flags.read_closed || flags.error,
            writable: flags.writable || flags.write_closed || flags.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use mio::{Interest, Poll, Token};
    use socket2::SockRef;

    use super::*;
    use crate::net::tests::{LOOPBACK, next_readiness};

    const BOTH: Readiness = Readiness { readable: true, writable: true };

    /// A connected pair, ours registered for both directions and its first event, "writable", taken.
    fn registered_pair() -> (Poll, mio::net::TcpStream, TcpStream) {
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        let mut ours = mio::net::TcpStream::from_std(accepted);
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut ours, Token(0), Interest::READABLE | Interest::WRITABLE).unwrap();
        assert_eq!(next_readiness(&mut poll), Readiness { readable: false, writable: true });
        (poll, ours, peer)
    }

    #[test]
    fn bytes_make_a_socket_readable() {
        let (mut poll, mut ours, mut peer) = registered_pair();
        peer.write_all(b"hello").unwrap();
        assert!(next_readiness(&mut poll).readable);
        let mut buffer = [0; 16];
        assert_eq!(ours.read(&mut buffer).unwrap(), 5);
        assert_eq!(ours.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_half_close_is_readable_and_the_other_direction_still_works() {
        let (mut poll, mut ours, mut peer) = registered_pair();
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(next_readiness(&mut poll).readable);
        assert_eq!(ours.read(&mut [0; 16]).unwrap(), 0);
        ours.write_all(b"goodbye").unwrap();
        drop(ours);
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"goodbye");
    }

    #[test]
    fn a_hang_up_in_both_directions_is_both() {
        let (mut poll, mut ours, peer) = registered_pair();
        ours.shutdown(Shutdown::Write).unwrap();
        drop(peer);
        // The acknowledgement of our end may fire an event of its own before the peer's end does.
        while next_readiness(&mut poll) != BOTH {}
        assert_eq!(ours.read(&mut [0; 16]).unwrap(), 0);
    }

    #[test]
    fn a_reset_is_both_and_the_read_reports_it() {
        let (mut poll, mut ours, peer) = registered_pair();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(next_readiness(&mut poll), BOTH);
        assert_eq!(ours.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn an_error_without_any_other_flag_is_both() {
        let nobody = UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
        let mut socket = mio::net::UdpSocket::bind(LOOPBACK).unwrap();
        socket.connect(nobody).unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut socket, Token(0), Interest::READABLE).unwrap();
        socket.send(b"anyone?").unwrap();
        assert_eq!(next_readiness(&mut poll), BOTH);
        assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

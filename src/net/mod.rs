//! Sockets and the other services of the kernel: a listener, a stream, the UDP echo, signals, readiness, the time, the
//! descriptor limit, and the state of a connection.
//!
//! Wraps system calls and interprets their results. Knows no conversation, no files and no turn. Only [`now`] reads the
//! clock; everything else gets the time as a value.
//!
//! Each module keeps its users out of a trap:
//!
//! | | the kernel | the trap |
//! |---|---|---|
//! | [`Listener`] | completes connections by itself; accept(2) only takes them out of the backlog | one client's error ends the server; or a lack of descriptors is retried at once, or never |
//! | [`Readiness`] | reports changes, with flags that overlap | the server trusts a flag, and does not read the bytes before an end |
//! | [`Stream`] | reports a reset once, and a clean end from then on | the error is taken elsewhere, and a part counts as the whole |
//! | [`Echo`] | reports the source of a datagram as its sender wrote it | a forged source makes two echoes answer each other without end |
//! | [`Signals`] | interrupts the program anywhere | a handler that does real work is undefined behaviour |
//! | `tls` | sends a FIN for a killed program, too | a part counts as the whole, or tickets that nobody reads become a reset |
//! | `manager` | passes sockets that other processes hold open, too | a socket that is closed here still makes events, unless it is deregistered first |
//! | [`diag`] | knows state, queues and window of every connection | the usual call needs a descriptor, which is closed when the state gets interesting |

/// Registers a wrapper with mio through the source that it holds.
macro_rules! delegate_source {
    ($wrapper:ty, $field:ident) => {
        impl mio::event::Source for $wrapper {
            fn register(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                registry.register(&mut self.$field, token, interest)
            }

            fn reregister(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                registry.reregister(&mut self.$field, token, interest)
            }

            fn deregister(&mut self, registry: &mio::Registry) -> std::io::Result<()> {
                registry.deregister(&mut self.$field)
            }
        }
    };
}

mod client_stream;
#[cfg(feature = "rustls")]
mod client_tls;
mod descriptors;
pub mod diag;
mod echo;
mod lines;
mod listener;
mod local;
mod manager;
#[cfg(not(feature = "rustls"))]
mod no_client_tls;
mod pipe;
mod readiness;
#[cfg(feature = "rustls")]
mod secure;
mod signals;
mod stream;
mod timer;
#[cfg(feature = "rustls")]
pub mod tls;
#[cfg(not(feature = "rustls"))]
#[path = "no_tls.rs"]
pub mod tls;
mod tls_terms;
mod trust;

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use rustix::io::Errno;
use rustix::system::uname;
use socket2::{Domain, Socket, Type};

pub use crate::reactor::Readiness;
pub use client_stream::ClientStream;
#[cfg(feature = "rustls")]
pub use client_tls::ClientTls;
pub use descriptors::{inherited_descriptors, raise_descriptor_limit};
pub use echo::{Echo, EchoStats};
pub use lines::LineSink;
pub use listener::{Accept, Listener};
pub use local::LocalListener;
pub use manager::{Manager, Notify, Passed};
#[cfg(not(feature = "rustls"))]
pub use no_client_tls::ClientTls;
pub use pipe::Pipe;
pub use readiness::Flags;
pub use signals::{Signal, Signals, unblock_signals};
pub use stream::Stream;
pub use timer::{Timer, now, processor_time, time_of_day};
pub use trust::{ClientCertificate, Fingerprint, TlsError, Trust};

/// How an address may be shared with other sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// An IPv6 socket leaves IPv4 to another socket. Otherwise it takes both.
    pub only_v6: bool,
    /// Other processes of this user may bind the same address if they set this too. The kernel then spreads connections
    /// and datagrams among them by the addresses of both ends (`SO_REUSEPORT`, socket(7)).
    pub reuse_port: bool,
}

/// A non-blocking socket that is about to be bound to `addr`.
fn unbound_socket(addr: SocketAddr, sharing: Sharing, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking(), None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(sharing.only_v6)?;
    }
    socket.set_reuse_port(sharing.reuse_port)?;
    Ok(socket)
}

/// Whether the IP address of `addr` is one of this machine's, of a family that its kernel has.
pub fn is_assignable(mut addr: SocketAddr) -> bool {
    addr.set_port(0);
    let bound = unbound_socket(addr, Sharing::default(), Type::DGRAM).and_then(|socket| socket.bind(&addr.into()));
    let errno = bound.err().and_then(|error| Errno::from_io_error(&error));
    !matches!(errno, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// The number of the network interface `name`, for the scope of an IPv6 address.
///
/// # Errors
/// The error of if_nametoindex(3): there is no such interface.
pub fn interface_index(name: &str) -> io::Result<u32> {
    Ok(if_nametoindex(name)?)
}

/// The name of this host (uname(2)).
pub fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// The IP addresses of this host's interfaces, loopback included. Link-local ones are left out: they need an interface, too.
/// Empty if the kernel does not tell (getifaddrs(3)).
pub fn host_addresses() -> Vec<IpAddr> {
    let found = getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
    let ips = found.filter_map(|address| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::from(v4.ip())).filter(|_| !v4.ip().is_link_local()),
        (_, Some(v6)) => Some(IpAddr::from(v6.ip())).filter(|_| !v6.ip().is_unicast_link_local()),
        _ => None,
    });
    ips.collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests wait for the kernel, up to a deadline")]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::time::{Duration, Instant};

    use mio::{Events, Poll};

    use super::*;

    /// Long enough for any machine: a test that waits this long has failed.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Whether this machine has `::1`. If not, reports that the test is left out.
    pub fn has_ipv6() -> bool {
        let found = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        if !found {
            crate::leave_out::leave_out("this machine has no ::1");
        }
        found
    }

    /// The next event, or the failure of the test.
    pub fn next_readiness(poll: &mut Poll) -> Readiness {
        let mut events = Events::with_capacity(8);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match poll.poll(&mut events, Some(deadline.saturating_duration_since(Instant::now()))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled.unwrap(),
            }
            if let Some(event) = events.iter().next() {
                return event.into();
            }
            assert!(Instant::now() < deadline, "no event came");
        }
    }
}

//! Who a client is: the name that it has proven, and the address that it connects from.
//!
//! Values only. Who proves a name, and how, is decided elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

/// The longest name that is told, in characters. The common name of a certificate has 64 at most (RFC 5280, appendix A.1).
const NAME_MAX_CHARS: usize = 100;

/// The name that a client has proven: that of its token or of its certificate.
///
/// Whoever made the certificate chose its name, so it is escaped wherever it is printed.
///
/// ```
/// use intake::server::story::Who;
///
/// assert_eq!(Who::new("alice\n").to_string(), "alice\\n");
/// ```
// A thin pointer: thousands of connections have none, and need the room for it all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who(Arc<Box<str>>);

impl Who {
    /// The client with this name. What is longer than 100 characters is cut off.
    pub fn new(name: &str) -> Self {
        Self(Arc::new(name.chars().take(NAME_MAX_CHARS).collect()))
    }

    /// The name as it is, without escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_debug().fmt(f)
    }
}

/// The address of a client, in 24 bytes instead of 32: without the flow label of IPv6, which accept(2) does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    ip: Ipv6Addr,
    scope_id: u32,
    port: u16,
    is_v4: bool,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let (ip, scope_id) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self { ip, scope_id, port: address.port(), is_v4: address.is_ipv4() }
    }
}

impl From<Peer> for SocketAddr {
    fn from(Peer { ip, scope_id, port, is_v4 }: Peer) -> Self {
        if is_v4 {
            let v4 = ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            return Self::new(IpAddr::V4(v4), port);
        }
        SocketAddrV6::new(ip, port, 0, scope_id).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was() {
        for address in ["192.0.2.1:9", "[2001:db8::1]:65535", "[fe80::1%7]:9000", "[::ffff:192.0.2.1]:80", "0.0.0.0:0"]
        {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(SocketAddr::from(Peer::from(address)), address);
        }
        assert!(size_of::<Peer>() <= 24);
    }

    #[test]
    fn a_name_is_thin_bounded_and_escaped() {
        assert_eq!(size_of::<Option<Who>>(), size_of::<usize>());
        assert_eq!(Who::new(&"x".repeat(500)).as_str().len(), NAME_MAX_CHARS);
        assert_eq!(Who::new("a \"b\" \u{1b}[31m\u{202e}é").to_string(), "a \\\"b\\\" \\u{1b}[31m\\u{202e}é");
    }
}

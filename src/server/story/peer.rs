//! The address that a client connects from, as its story keeps it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The address of a client, in 24 bytes instead of 32: without the flow label of IPv6, which accept(2) does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    ip: Ipv6Addr,
    scope_id: u32,
    port: u16,
    is_v4: bool,
    /// It is a proxy that checks the server's health. Stands here because there is room for it.
    pub(super) is_check: bool,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let (ip, scope_id) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self { ip, scope_id, port: address.port(), is_v4: address.is_ipv4(), is_check: false }
    }
}

impl From<Peer> for SocketAddr {
    fn from(Peer { ip, scope_id, port, is_v4, .. }: Peer) -> Self {
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
}

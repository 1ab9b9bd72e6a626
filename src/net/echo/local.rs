//! Finds the address that a datagram was sent to, and sends the answer from the same one.
//!
//! A socket on an unspecified address receives datagrams to any address, and the kernel picks the source of its answers by
//! the route: with several addresses in one network, always the first. A client that has asked another one does not accept
//! that answer. So such a socket gets the destination of each datagram in a control message (`IP_PKTINFO` in ip(7),
//! `IPV6_RECVPKTINFO` in ipv6(7)), and sets the source of the answer in another one. Knows neither runs nor rates.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};

/// One of this machine's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// An IPv4 address on an IPv6 socket is written as one (`::ffff:192.0.2.1`).
    pub ip: IpAddr,
    /// The number of its interface, if the address alone does not determine it; else 0.
    pub interface: u32,
}

/// Room for the larger of the two control messages.
pub fn control_buffer() -> Vec<u8> {
    cmsg_space!(in6_pktinfo)
}

/// Makes the kernel report the destination of each datagram.
///
/// # Errors
/// The error of setsockopt(2).
pub fn tell_destinations(socket: &impl AsFd, addr: SocketAddr) -> io::Result<()> {
    Ok(match addr {
        SocketAddr::V4(_) => setsockopt(socket, Ipv4PacketInfo, &true),
        SocketAddr::V6(_) => setsockopt(socket, Ipv6RecvPacketInfo, &true),
    }?)
}

/// Receives a datagram: its size, its sender, and the address that it was sent to.
///
/// # Errors
/// The error of recvmsg(2).
pub fn receive(
    socket: &impl AsRawFd,
    room: &mut [u8],
    control: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<Local>)> {
    let mut slices = [IoSliceMut::new(room)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(control), MsgFlags::empty())?;
    let peer = message.address.as_ref().and_then(socket_addr);
    let peer = peer.ok_or_else(|| io::Error::other("a datagram came without the address of its sender"))?;
    Ok((message.bytes, peer, message.cmsgs()?.find_map(|message| Local::told_in(&message))))
}

/// Sends `bytes` to `peer`, in segments if there is a size for them, and from `local` if it is known.
///
/// # Errors
/// The error of sendmsg(2).
pub fn send(
    socket: &impl AsRawFd,
    bytes: &[u8],
    segment: Option<u16>,
    peer: SocketAddr,
    local: Option<Local>,
) -> io::Result<usize> {
    let source = local.map(Local::packet_info);
    let source = source.as_ref().map(PacketInfo::message);
    let segments = segment.as_ref().map(ControlMessage::UdpGsoSegments);
    let transmit = |messages: &[ControlMessage<'_>]| {
        let to = SockaddrStorage::from(peer);
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], messages, MsgFlags::empty(), Some(&to))
    };
    Ok(match (source, segments) {
        (Some(source), Some(segments)) => transmit(&[source, segments]),
        (Some(message), None) | (None, Some(message)) => transmit(&[message]),
        (None, None) => transmit(&[]),
    }?)
}

/// The control message to send, whose memory `ControlMessage` only borrows.
enum PacketInfo {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl PacketInfo {
    fn message(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

impl Local {
    /// The address for an answer. `None` for a multicast address, which cannot be a source.
    fn told_in(message: &ControlMessageOwned) -> Option<Self> {
        match message {
            // Not `ipi_addr`: for a broadcast, this field has the address of the receiving interface.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let ip = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                Some(Self { ip: ip.into(), interface: 0 })
            }
            ControlMessageOwned::Ipv6PacketInfo(info) if info.ipi6_addr.s6_addr[0] != 0xff => {
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // For other addresses the route finds the interface, which need not be the receiving one.
                let interface = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                Some(Self { ip: ip.into(), interface })
            }
            _ => None,
        }
    }

    fn packet_info(self) -> PacketInfo {
        match self.ip {
            IpAddr::V4(ip) => PacketInfo::V4(in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: in_addr { s_addr: 0 },
            }),
            IpAddr::V6(ip) => PacketInfo::V6(in6_pktinfo {
                ipi6_addr: in6_addr { s6_addr: ip.octets() },
                ipi6_ifindex: self.interface,
            }),
        }
    }
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

//! The networks that clients may come from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A network: `192.0.2.0/24`, `2001:db8::/32`, or a single address.
///
/// An IPv4 network may be written as an IPv6 one (`::ffff:192.0.2.0/120`): it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        const ALLOWED: &str =
            "a network is an address and the length of its prefix, such as 192.0.2.0/24 or 2001:db8::/32";
        let network = match typed.contains('/') {
            true => typed.parse::<IpNet>().map_err(|_| ALLOWED.to_owned())?,
            false => typed.parse::<IpAddr>().map_err(|_| ALLOWED.to_owned())?.into(),
        };
        if network.addr() != network.network() {
            return Err(format!("{typed} is an address with the prefix of its network, which is {}", network.trunc()));
        }
        Ok(Self(canonical(network)))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IPv4 network that is written as one of IPv6 (RFC 4291, 2.5.5.2) as one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let mapped: Option<Ipv4Addr> = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped(),
        _ => None,
    };
    let v4 = mapped.and_then(|address| Ipv4Net::new(address, network.prefix_len() - 96).ok());
    v4.map_or(network, IpNet::V4)
}

/// The networks that clients may come from. None: from everywhere.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Clients may come from these, or from everywhere if there are none.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Whether a client may come from `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.0.is_empty() || self.contain(address)
    }

    /// Whether `address` is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(networks: &[&str], address: &str) -> bool {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Networks::new(networks).allows(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_allowed_by_any_of_the_networks() {
        for (networks, address, expected) in [
            (&[][..], "192.0.2.7", true),
            (&["192.0.2.0/24"], "192.0.2.255", true),
            (&["192.0.2.0/24"], "192.0.3.0", false),
            (&["192.0.2.0/24"], "::ffff:192.0.2.7", true),
            (&["::ffff:192.0.2.0/120"], "192.0.2.7", true),
            (&["::ffff:192.0.2.0/120"], "192.0.3.7", false),
            (&["192.0.2.7"], "192.0.2.7", true),
            (&["192.0.2.7"], "192.0.2.8", false),
            (&["10.0.0.0/8", "2001:db8::/32"], "2001:db8:ffff::1", true),
            (&["2001:db8::/32"], "2001:db9::1", false),
            (&["2001:db8::1"], "2001:db8::1", true),
            (&["0.0.0.0/0"], "198.51.100.1", true),
            (&["0.0.0.0/0"], "2001:db8::1", false),
            // All of IPv6. An IPv4 client is none, however its address is written.
            (&["::/0"], "2001:db8::1", true),
            (&["::/0"], "198.51.100.1", false),
        ] {
            assert_eq!(allows(networks, address), expected, "{networks:?} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_is_one() {
        for (typed, words) in [
            ("", "a network is"),
            ("192.0.2.0/33", "a network is"),
            ("2001:db8::/129", "a network is"),
            ("192.0.2/24", "a network is"),
            ("localhost", "a network is"),
            ("192.0.2.7/24", "which is 192.0.2.0/24"),
            ("2001:db8::1/64", "which is 2001:db8::/64"),
        ] {
            let said = typed.parse::<Network>().unwrap_err();
            assert!(said.contains(words), "{typed}: {said}");
        }
    }

    /// The first `length` bits of `bits`, which has so many in all.
    fn prefix(bits: u128, length: u8, all: u8) -> u128 {
        bits.checked_shr(u32::from(all - length)).unwrap_or(0)
    }

    proptest! {
        #[test]
        fn a_network_has_the_addresses_with_its_prefix(bits: u128, other: u128, flip in 0..128u8, length in 0..=128u8) {
            let network = IpNet::new(IpAddr::V6(bits.into()), length).unwrap().trunc();
            let network: Network = network.to_string().parse().unwrap();
            for address in [other, bits ^ 1 << flip] {
                let ip = IpAddr::V6(address.into());
                prop_assume!(ip.to_canonical().is_ipv6());
                let expected = prefix(address, length, 128) == prefix(bits, length, 128);
                prop_assert_eq!(Networks(vec![network]).allows(ip), expected);
            }
        }

        #[test]
        fn ipv4_is_the_same_in_either_spelling(bits: u32, flip in 0..32u8, length in 0..=32u8) {
            let v4 = IpNet::new(IpAddr::V4(bits.into()), length).unwrap().trunc();
            let IpAddr::V4(first) = v4.addr() else { unreachable!() };
            let mapped: Network = format!("{}/{}", first.to_ipv6_mapped(), length + 96).parse().unwrap();
            let network: Network = v4.to_string().parse().unwrap();
            prop_assert_eq!(network, mapped);
            let address = Ipv4Addr::from_bits(bits ^ 1 << flip);
            let expected = prefix(address.to_bits().into(), length, 32) == prefix(bits.into(), length, 32);
            prop_assert_eq!(Networks(vec![mapped]).allows(address.into()), expected);
            prop_assert_eq!(Networks(vec![network]).allows(address.to_ipv6_mapped().into()), expected);
        }

        #[test]
        fn nothing_typed_panics(typed in "[0-9a-f:./]{0,40}") {
            let _ = typed.parse::<Network>();
        }
    }
}

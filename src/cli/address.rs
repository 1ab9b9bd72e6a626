//! Addresses on the command line: `HOST:PORT`, where the host is a name or an IP address, and for senders
//! `http://HOST:PORT/FOLDER/` or `https://…`.
//!
//! A name may have several addresses. A client tries them in turn. A server listens on all of them that belong to this
//! machine.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::str::FromStr;

use intake::net::{interface_index, is_assignable};
use intake::proto::{Dialect, Site, SiteError};
use intake::server::config::Config;

/// The error for a link-local IPv6 address without an interface.
const INTERFACE_MISSING: &str =
    "a link-local address is reached through one interface: name it, such as [fe80::1%eth0]:9000";

/// A host and a port. The host is looked up when it is used, not when it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The addresses of the host, without duplicates: at least one.
    ///
    /// # Errors
    /// A message, if the host is not found.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = match self.zoned() {
            Some((ip, interface, port)) => vec![scoped(ip, interface, port)?],
            None => match self.0.to_socket_addrs() {
                Ok(found) => found.collect(),
                Err(error) => return Err(format!("cannot find {self}: {error}")),
            },
        };
        if addresses.is_empty() {
            return Err(format!("cannot find {self}: the host has no address"));
        }
        addresses.retain(|address| !lacks_interface(address));
        if addresses.is_empty() {
            return Err(format!("cannot use {self}: {INTERFACE_MISSING}"));
        }
        Ok(without_doubles(addresses))
    }

    /// The name or the IP address, without the port and the interface.
    fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(self.0.as_str(), |(host, _)| host);
        let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        ip.split_once('%').map_or(ip, |(ip, _)| ip)
    }

    /// The parts of `[fe80::1%eth0]:9000`. The standard library parses only numbers of interfaces.
    fn zoned(&self) -> Option<(Ipv6Addr, &str, u16)> {
        let (host, port) = self.0.rsplit_once(':')?;
        let (ip, interface) = host.strip_prefix('[')?.strip_suffix(']')?.split_once('%')?;
        Some((ip.parse().ok()?, interface, port.parse().ok()?))
    }
}

/// The addresses that a server listens on for the options `all`. If this machine has only some of a name's addresses, the
/// others are left out: a container without IPv6 may still have `::1` in its hosts file.
///
/// # Errors
/// A message, if a host is not found.
pub fn listening(all: &[Address]) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for address in all {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            address.resolve()?.into_iter().partition(|found| is_assignable(*found));
        if here.is_empty() {
            // Keep them, so that bind reports the error.
            addresses.extend(elsewhere);
            continue;
        }
        for left_out in elsewhere {
            log::info!("{address}: {} is left out: it is not an address of this machine", left_out.ip());
        }
        addresses.extend(here);
    }
    let wildcards: Vec<SocketAddr> =
        addresses.iter().copied().filter(|address| address.ip().is_unspecified()).collect();
    addresses.retain(|address| !wildcards.iter().any(|wildcard| covers(wildcard, address)));
    Ok(without_doubles(addresses))
}

/// The addresses in the same order, without duplicates.
fn without_doubles(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut once: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !once.contains(&address) {
            once.push(address);
        }
    }
    once
}

/// Whether a socket on the wildcard address receives what is sent to `address`. `[::]` does not receive IPv4 if the
/// server also listens on an IPv4 address.
fn covers(wildcard: &SocketAddr, address: &SocketAddr) -> bool {
    wildcard.ip().is_unspecified()
        && !address.ip().is_unspecified()
        && wildcard.is_ipv4() == address.is_ipv4()
        && wildcard.port() == address.port()
        && address.port() != 0
}

fn scoped(ip: Ipv6Addr, interface: &str, port: u16) -> Result<SocketAddr, String> {
    let index = match interface.parse() {
        Ok(index) => index,
        Err(_) => {
            interface_index(interface).map_err(|error| format!("there is no interface {interface:?}: {error}"))?
        }
    };
    Ok(SocketAddrV6::new(ip, port, 0, index).into())
}

/// Whether the address is link-local and has no interface: every system call with it fails with EINVAL.
fn lacks_interface(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0)
}

impl Default for Address {
    /// The default address of a server.
    fn default() -> Self {
        Self(Config::default().listen[0].to_string())
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        if typed.contains("://") {
            return Err("write HOST:PORT; only send and load take a URL");
        }
        let (host, port) =
            typed.rsplit_once(':').ok_or("the port is missing: write HOST:PORT, such as 127.0.0.1:9000")?;
        let port = port.parse::<u16>().map_err(|_| "the port is not a number from 0 to 65535")?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip: Option<IpAddr> = in_brackets.and_then(|ip| ip.parse().ok());
        match host {
            "" => Err("the host is missing: write HOST:PORT, such as 0.0.0.0:9000 for every interface"),
            _ if host.contains(':') && in_brackets.is_none() => {
                Err("write an IPv6 address in brackets, such as [::1]:9000")
            }
            _ if ip.is_some_and(|ip| lacks_interface(&SocketAddr::new(ip, port))) => Err(INTERFACE_MISSING),
            _ => Ok(Self(typed.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The destination of files: a receiver, or with `http://` or `https://` a folder at an HTTP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    address: Address,
    site: Option<(Scheme, Site)>,
}

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL without one (RFC 9110, 4.2).
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Target {
    /// The addresses of the host, as [`Address::resolve`] finds them.
    ///
    /// # Errors
    /// A message, if the host is not found.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        self.address.resolve()
    }

    /// The name or the IP address of the host.
    pub fn host(&self) -> &str {
        self.address.host()
    }

    /// Whether it is a URL.
    pub fn is_url(&self) -> bool {
        self.site.is_some()
    }

    /// Whether it is a URL without TLS.
    pub fn is_plain_http(&self) -> bool {
        matches!(self.site, Some((Scheme::Http, _)))
    }

    /// Whether it is a URL with TLS.
    pub fn is_https(&self) -> bool {
        matches!(self.site, Some((Scheme::Https, _)))
    }

    /// The site for requests in `dialect`, if that is HTTP. A `dialect` of `None` was not given.
    ///
    /// # Errors
    /// A message, if the dialect and the address contradict one another.
    pub fn site(&self, dialect: Option<Dialect>, has_tls: bool) -> Result<Option<Site>, String> {
        match (dialect, &self.site) {
            (Some(dialect), Some((scheme, _))) if !dialect.speaks_http() => Err(format!(
                "an {}:// address is sent to in HTTP: leave out --dialect {}, or write HOST:PORT",
                scheme.word(),
                dialect.word()
            )),
            (Some(dialect), None) if dialect.speaks_http() => {
                let scheme = if has_tls { Scheme::Https } else { Scheme::Http };
                site_at(&self.address.0, "/", scheme).map(Some).map_err(|error| error.to_string())
            }
            (_, site) => Ok(site.as_ref().map(|(_, site)| site.clone())),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        let Some((scheme, rest)) = typed.split_once("://") else {
            return Ok(Self { address: typed.parse()?, site: None });
        };
        let scheme = [Scheme::Http, Scheme::Https].into_iter().find(|known| scheme.eq_ignore_ascii_case(known.word()));
        let scheme = scheme.ok_or("write HOST:PORT, http://HOST:PORT/FOLDER/ or https://HOST:PORT/FOLDER/")?;
        let (host, folder) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.contains('@') {
            return Err(SiteError::Host.to_string());
        }
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let address = if has_port { host.parse()? } else { format!("{host}:{}", scheme.port()).parse()? };
        let site = site_at(host, if folder.is_empty() { "/" } else { folder }, scheme);
        Ok(Self { address, site: Some((scheme, site.map_err(|error| error.to_string())?)) })
    }
}

/// The site at `host`, which may have a port. The interface of a link-local address is not the server's business.
fn site_at(host: &str, folder: &str, scheme: Scheme) -> Result<Site, SiteError> {
    let host = match (host.find('%'), host.find(']')) {
        (Some(zone), Some(end)) if zone < end => format!("{}{}", &host[..zone], &host[end..]),
        _ => host.to_owned(),
    };
    Site::new(host.strip_suffix(&format!(":{}", scheme.port())).unwrap_or(&host), folder)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.site {
            Some((scheme, site)) => write!(f, "{}://{site}", scheme.word()),
            None => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(typed: &str) -> Result<(String, String), String> {
        let target = typed.parse::<Target>()?;
        Ok((target.address.to_string(), if target.is_url() { target.to_string() } else { String::new() }))
    }

    #[test]
    fn a_url_names_an_address_and_a_site() {
        for (typed, address, site) in [
            ("127.0.0.1:9000", "127.0.0.1:9000", ""),
            ("http://127.0.0.1:9000", "127.0.0.1:9000", "http://127.0.0.1:9000/"),
            ("HTTP://host:9000/", "host:9000", "http://host:9000/"),
            ("http://host/", "host:80", "http://host/"),
            ("http://host:80/", "host:80", "http://host/"),
            ("http://host:9000/a/b%20c/", "host:9000", "http://host:9000/a/b%20c/"),
            ("http://[::1]:9000/", "[::1]:9000", "http://[::1]:9000/"),
            ("http://[::1]/", "[::1]:80", "http://[::1]/"),
            ("http://[fe80::1%lo]:9000/x/", "[fe80::1%lo]:9000", "http://[fe80::1]:9000/x/"),
            ("https://host/", "host:443", "https://host/"),
            ("https://host:443/", "host:443", "https://host/"),
            ("HTTPS://host:80/a/", "host:80", "https://host:80/a/"),
        ] {
            assert_eq!(target(typed), Ok((address.into(), site.into())), "{typed}");
        }
    }

    #[test]
    fn an_impossible_destination_is_an_error_with_its_reason() {
        for (typed, words) in [
            ("ftp://host/", "https://"),
            ("http://", "host is missing"),
            ("http://host:9000/file.txt", "slash"),
            ("http://host:9000/?x=/", "no ?"),
            ("http://user:secret@host:9000/", "no user"),
            ("http://host:x/", "port"),
            ("http://::1/", "brackets"),
        ] {
            let error = target(typed).unwrap_err();
            assert!(error.contains(words), "{typed}: {error}");
        }
        assert!("http://host:9000/".parse::<Address>().unwrap_err().contains("send and load"));
    }

    #[test]
    fn a_dialect_that_contradicts_the_address_is_refused() {
        let site = |typed: &str, dialect| {
            let site = typed.parse::<Target>().unwrap().site(dialect, false)?;
            Ok::<_, String>(site.map(|site| site.to_string()))
        };
        let of_url = Ok(Some("host:9000/a/".into()));
        for dialect in [None, Some(Dialect::Http), Some(Dialect::HttpExpect)] {
            assert_eq!(site("http://host:9000/a/", dialect), of_url);
        }
        assert_eq!(site("host:9000", Some(Dialect::Http)), Ok(Some("host:9000/".into())));
        for (has_tls, host) in [(false, "host:443/"), (true, "host/")] {
            let site = "host:443".parse::<Target>().unwrap().site(Some(Dialect::Http), has_tls);
            assert_eq!(site.unwrap().unwrap().to_string(), host);
        }
        assert_eq!((site("host:9000", None), site("host:9000", Some(Dialect::Put))), (Ok(None), Ok(None)));
        assert!(site("http://host:9000/a/", Some(Dialect::Put)).unwrap_err().contains("--dialect put"));
    }

    #[test]
    fn the_host_of_an_address_has_no_port_and_no_interface() {
        for (typed, host) in [("host:9000", "host"), ("[::1]:9000", "::1"), ("https://[fe80::1%lo]/", "fe80::1")] {
            assert_eq!(typed.parse::<Target>().unwrap().host(), host);
        }
    }

    fn address(typed: &str) -> Address {
        typed.parse().unwrap()
    }

    #[test]
    fn numbers_resolve_to_themselves() {
        for typed in ["127.0.0.1:9000", "[::1]:0", "0.0.0.0:65535", "[fe80::1%1]:9000"] {
            assert_eq!(address(typed).resolve(), Ok(vec![typed.parse().unwrap()]));
        }
    }

    #[test]
    fn a_name_is_looked_up() {
        let found = address("localhost:9000").resolve().unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 9000), "{found:?}");
    }

    #[test]
    fn an_interface_is_known_by_its_name() {
        // `lo` is the first interface of every network namespace.
        let lo = SocketAddrV6::new("fe80::1".parse().unwrap(), 9000, 0, 1);
        assert_eq!(address("[fe80::1%lo]:9000").resolve(), Ok(vec![lo.into()]));
        let words = address("[fe80::1%nowhere0]:9000").resolve().unwrap_err();
        assert!(words.contains(r#"no interface "nowhere0""#), "{words}");
    }

    #[test]
    fn an_address_that_is_given_twice_is_listened_on_once() {
        let typed = ["127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9000", "localhost:9001"].map(address);
        let mut found = listening(&typed).unwrap();
        found.retain(SocketAddr::is_ipv4);
        assert_eq!(found, ["127.0.0.1:9000".parse().unwrap(), "127.0.0.1:9001".parse().unwrap()]);
    }

    #[test]
    fn an_address_that_a_wildcard_covers_is_left_out() {
        let typed = ["127.0.0.1:9000", "127.0.0.1:9001", "0.0.0.0:9000", "[::]:9001", "127.0.0.1:0", "0.0.0.0:0"];
        let expected = ["127.0.0.1:9001", "0.0.0.0:9000", "[::]:9001", "127.0.0.1:0", "0.0.0.0:0"];
        assert_eq!(listening(&typed.map(address)), Ok(expected.map(|address| address.parse().unwrap()).to_vec()));
    }

    #[test]
    fn an_ip_address_of_another_machine_is_left_for_bind_to_refuse() {
        // RFC 5737: an address for documentation, which no machine has.
        assert_eq!(listening(&[address("192.0.2.1:9")]), Ok(vec!["192.0.2.1:9".parse().unwrap()]));
    }

    #[test]
    fn a_bad_address_is_an_error_with_its_reason() {
        for (typed, word) in [
            ("localhost", "port"),
            ("127.0.0.1", "port"),
            ("host:", "port"),
            ("host:65536", "port"),
            ("host:-1", "port"),
            (":9000", "host"),
            ("::1:9000", "brackets"),
            ("[fe80::1]:9000", "%eth0"),
        ] {
            let words = typed.parse::<Address>().unwrap_err();
            assert!(words.contains(word), "{typed}: {words}");
        }
    }
}

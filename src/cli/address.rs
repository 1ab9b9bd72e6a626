//! Addresses as they are typed: `HOST:PORT`, the host a name or a number.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use intake::server::config::Config;

/// A host and a port. The host is looked up when it is used, not when it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The addresses that it stands for, at least one.
    ///
    /// # Errors
    /// In words, when the host is not found.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        match self.0.to_socket_addrs().map(Vec::from_iter) {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(format!("cannot find {self}: the host has no address")),
            Err(error) => Err(format!("cannot find {self}: {error}")),
        }
    }
}

impl Default for Address {
    /// Where a server listens that was told nothing else.
    fn default() -> Self {
        Self(Config::default().listen[0].to_string())
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        let (host, port) =
            typed.rsplit_once(':').ok_or("a port is missing: write HOST:PORT, such as 127.0.0.1:9000")?;
        port.parse::<u16>().map_err(|_| "the port is not a number from 0 to 65535")?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        match host {
            "" => Err("a host is missing: write HOST:PORT, such as 0.0.0.0:9000 for every interface"),
            _ if host.contains(':') && !bracketed => Err("write an IPv6 address in brackets, such as [::1]:9000"),
            _ => Ok(Self(typed.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_resolve_to_themselves() {
        for typed in ["127.0.0.1:9000", "[::1]:0", "0.0.0.0:65535"] {
            assert_eq!(typed.parse::<Address>().unwrap().resolve(), Ok(vec![typed.parse().unwrap()]));
        }
    }

    #[test]
    fn a_name_is_looked_up() {
        let found = "localhost:9000".parse::<Address>().unwrap().resolve().unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 9000), "{found:?}");
    }

    #[test]
    fn what_is_no_address_is_told_in_words() {
        for (typed, word) in [
            ("localhost", "port"),
            ("127.0.0.1", "port"),
            ("host:", "port"),
            ("host:65536", "port"),
            ("host:-1", "port"),
            (":9000", "host"),
            ("::1:9000", "brackets"),
        ] {
            let words = typed.parse::<Address>().unwrap_err();
            assert!(words.contains(word), "{typed}: {words}");
        }
    }
}

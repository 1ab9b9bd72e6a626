//! What a client needs of its server besides the address: the site of HTTP, and TLS.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use intake::net::{ClientCertificate, ClientTls, Fingerprint, Trust};
use intake::proto::{Dialect, Site};

use super::address::Target;

/// The options of TLS. Each of them asks for it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct Access {
    /// Speak TLS, as with https://
    ///
    /// A CA of this host must have signed the server's certificate, for the name or the IP address that is connected to.
    #[arg(long)]
    tls: bool,
    /// Trust the CAs in this PEM file instead of the host's; a self-signed certificate is its own CA
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Trust exactly the certificate with this fingerprint, whatever its names, dates and CA
    #[arg(long, value_name = "sha256:HEX", conflicts_with = "tls_ca")]
    tls_pin: Option<Fingerprint>,
    /// The certificate of this client, with its chain, in a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, in a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// How to speak to a server.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The site that is sent to, if the dialect is HTTP.
    pub site: Option<Arc<Site>>,
    /// TLS, unless the connection is plain.
    pub tls: Option<ClientTls>,
}

impl Access {
    /// How to speak to `target`. A `dialect` of `None` was not given.
    ///
    /// # Errors
    /// A message, if the options contradict one another, or a file cannot be used.
    pub fn connect(&self, target: &Target, dialect: Option<Dialect>) -> Result<Connect, String> {
        if self.wants_tls() && target.is_plain_http() {
            return Err("http:// has no TLS: write https://, or leave out the options of TLS".into());
        }
        let has_tls = self.wants_tls() || target.is_https();
        let site = target.site(dialect, has_tls)?.map(Arc::new);
        let tls =
            has_tls.then(|| ClientTls::new(target.host(), site.is_some(), &self.trust(), self.identity().as_ref()));
        Ok(Connect { tls: tls.transpose()?, site })
    }

    /// Whether an option of TLS was given.
    pub fn wants_tls(&self) -> bool {
        self.tls || self.tls_ca.is_some() || self.tls_pin.is_some() || self.tls_cert.is_some()
    }

    fn trust(&self) -> Trust {
        match (&self.tls_ca, self.tls_pin) {
            (_, Some(fingerprint)) => Trust::Pin(fingerprint),
            (Some(path), None) => Trust::Ca(path.clone()),
            (None, None) => Trust::System,
        }
    }

    fn identity(&self) -> Option<ClientCertificate> {
        Some(ClientCertificate { certificate: self.tls_cert.clone()?, key: self.tls_key.clone()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(access: &Access, target: &str) -> String {
        access.connect(&target.parse().unwrap(), None).map(drop).unwrap_err()
    }

    #[test]
    fn a_plain_url_with_tls_is_a_contradiction() {
        let access = Access { tls: true, ..Access::default() };
        assert!(error(&access, "http://host/").contains("https://"));
        let access = Access { tls_ca: Some("/missing".into()), ..Access::default() };
        assert!(error(&access, "http://host/").contains("https://"));
    }

    #[test]
    fn without_tls_nothing_is_read() {
        let connect = Access::default().connect(&Target::default(), None).unwrap();
        assert!(connect.site.is_none() && connect.tls.is_none());
    }

    #[cfg(feature = "rustls")]
    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let access = Access { tls_ca: Some("/missing.pem".into()), ..Access::default() };
        assert!(error(&access, "https://host/").contains("\"/missing.pem\""));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let access = Access { tls_ca: Some(empty.path().into()), ..Access::default() };
        assert!(error(&access, "host:9000").contains("no certificate"));
    }

    #[cfg(feature = "rustls")]
    #[test]
    fn every_option_asks_for_tls() {
        let pin = Fingerprint::of(b"a certificate");
        for (target, is_http) in [("host:9000", false), ("https://host/", true), ("[fe80::1%lo]:9000", false)] {
            let access = Access { tls_pin: Some(pin), ..Access::default() };
            let connect = access.connect(&target.parse().unwrap(), None).unwrap();
            assert_eq!((connect.tls.is_some(), connect.site.is_some()), (true, is_http), "{target}");
        }
    }
}

//! What a client needs of its server besides the address: the site of HTTP, TLS, and a token.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use intake::net::{ClientCertificate, ClientTls, Fingerprint, Trust};
use intake::proto::{Dialect, Secret, Site};

use super::address::Target;

/// The environment variable with the token.
const VARIABLE: &str = "INTAKE_TOKEN";

/// The options of TLS, each of which asks for it, and of the token.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct Access {
    /// Speak TLS, as with https://
    ///
    /// A CA of this host must have signed the server's certificate, for the name or the IP address that is connected to.
    #[arg(long)]
    tls: bool,
    /// Speak TLS, and trust the CAs in this PEM file instead of the host's; a self-signed certificate is its own CA
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Speak TLS, and trust exactly the certificate with this fingerprint, whatever its names, dates and CA
    #[arg(long, value_name = "sha256:HEX", conflicts_with = "tls_ca")]
    tls_pin: Option<Fingerprint>,
    /// Speak TLS, and show the certificate of this client, with its chain, from this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, in a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// File with the token that the server asks for [default: the token in the environment variable INTAKE_TOKEN]
    ///
    /// There is no option for the token itself: other users of this machine can see the command line.
    #[arg(long, value_name = "FILE", help_heading = TOKEN)]
    token_file: Option<PathBuf>,
    /// Show the token to another machine also on a connection that is not encrypted
    #[arg(long, help_heading = TOKEN)]
    plain_tokens: bool,
}

const TOKEN: &str = "Token";

/// How to speak to a server.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The site that is sent to, if the dialect is HTTP.
    pub site: Option<Arc<Site>>,
    /// TLS, unless the connection is plain.
    pub tls: Option<ClientTls>,
    /// The token to be shown.
    pub token: Option<Secret>,
    /// It may be shown in clear.
    is_plain_allowed: bool,
}

impl Connect {
    /// Whether the token may be shown to the server at `to`.
    ///
    /// # Errors
    /// A message, if others could read it.
    pub fn check_token(&self, to: &[SocketAddr]) -> Result<(), String> {
        let is_near = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
        if self.token.is_none() || self.tls.is_some() || self.is_plain_allowed || to.iter().all(is_near) {
            return Ok(());
        }
        Err("a token is not shown to another machine in clear: use TLS (--tls, https://), or --plain-tokens on a network \
             that is encrypted already"
            .into())
    }
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
        let token = self.token(dialect)?;
        Ok(Connect { tls: tls.transpose()?, site, token, is_plain_allowed: self.plain_tokens })
    }

    /// Whether an option of TLS was given.
    pub fn wants_tls(&self) -> bool {
        self.tls || self.tls_ca.is_some() || self.tls_pin.is_some() || self.tls_cert.is_some()
    }

    /// The token of the file, or else of the environment.
    fn token(&self, dialect: Option<Dialect>) -> Result<Option<Secret>, String> {
        let can_show = dialect.is_none_or(Dialect::is_framed);
        if let Some(file) = &self.token_file {
            if !can_show {
                return Err("the classic and line dialects cannot show a token; leave out --dialect".into());
            }
            let text = fs::read_to_string(file).map_err(|error| format!("the token file {file:?}: {error}"))?;
            return Secret::parse(&text).map(Some).map_err(|words| format!("the token file {file:?}: {words}"));
        }
        match env::var(VARIABLE) {
            Ok(text) if can_show && !text.is_empty() => {
                Secret::parse(&text).map(Some).map_err(|words| format!("{VARIABLE}: {words}"))
            }
            Err(env::VarError::NotUnicode(_)) if can_show => Err(format!("{VARIABLE} is not text")),
            _ => Ok(None),
        }
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
    fn a_token_is_read_from_its_file_and_not_shown_in_clear_to_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let access = Access { token_file: Some(file.path().into()), ..Access::default() };
        assert!(error(&access, "host:9000").contains("a token is one word"));
        fs::write(file.path(), "abc\n").unwrap();
        let connect = access.connect(&Target::default(), None).unwrap();
        assert_eq!(connect.token.as_ref().map(Secret::as_str), Some("abc"));
        let check = |connect: &Connect, to: &str| connect.check_token(&[to.parse().unwrap()]);
        assert!(check(&connect, "127.0.0.2:1").is_ok() && check(&connect, "[::1]:1").is_ok());
        assert!(check(&connect, "192.0.2.1:1").unwrap_err().contains("--plain-tokens"));
        let plain = Access { plain_tokens: true, ..access.clone() }.connect(&Target::default(), None).unwrap();
        assert!(check(&plain, "192.0.2.1:1").is_ok());
        let words = access.connect(&Target::default(), Some(Dialect::Classic)).map(drop).unwrap_err();
        assert!(words.contains("cannot show a token"), "{words}");
        let missing = Access { token_file: Some("/missing".into()), ..Access::default() };
        assert!(error(&missing, "host:9000").contains("\"/missing\""));
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

//! What a server shows to its clients, its certificate, and what it asks of theirs.
//!
//! Made whole or not at all, so that a server can read its files anew while it runs. Knows no files, only what is in them.

use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::failure::{VERSION_1, is_version_1};
use super::session::{PROTOCOLS, Session};
use super::{certificate, provider};
use crate::net::tls_terms::{Asks, Pem};

/// A server towards its clients.
#[derive(Clone, Debug)]
pub struct Identity {
    config: Arc<ServerConfig>,
    not_after: u64,
}

impl Identity {
    /// Checks that the files are whole and fit one another.
    ///
    /// # Errors
    /// What is wrong, in words that follow the name of the option of the file.
    pub fn new(pem: &Pem) -> Result<Self, String> {
        let chain = certificates(pem.certificates, "--tls-cert")?;
        let not_after = certificate::not_after(&chain[0]).ok_or("--tls-cert: the certificate cannot be read")?;
        let key = PrivateKeyDer::from_pem_slice(pem.key)
            .map_err(|error| format!("--tls-key: {}", broken(&error, "a key (BEGIN PRIVATE KEY)")))?;
        let provider = provider();
        let clients = match pem.client_issuers {
            Some((issuers, asks)) => verifier(issuers, asks)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config =
            builder.with_client_cert_verifier(clients).with_single_cert(chain, key).map_err(|error| unfit(&error))?;
        config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
        // Nobody reads them who only writes: see the module above.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: config.into(), not_after })
    }

    /// When the certificate ends, in seconds since the epoch.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The server's end of TLS with one client.
    pub fn session(&self) -> Session {
        Session::server()
    }

    /// Answers the first message of a client ([`Session::is_greeted`]).
    pub fn answer(&self, session: &mut Session) {
        session.begin(&self.config);
    }
}

fn certificates(pem: &[u8], option: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = read.map_err(|error| format!("{option}: {}", broken(&error, "a certificate")))?;
    if found.is_empty() {
        return Err(format!("{option}: there is no certificate (BEGIN CERTIFICATE) in the file"));
    }
    Ok(found)
}

fn broken(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {} in the file", wanted.trim_start_matches("a ")),
        error => format!("the file does not hold {wanted} in whole PEM: {error}"),
    }
}

/// Trusts clients whose certificate one of `issuers` has signed.
fn verifier(issuers: &[u8], asks: Asks) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for issuer in certificates(issuers, "--tls-client-ca")? {
        roots.add(issuer).map_err(|error| format!("--tls-client-ca: {error}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
    let builder = if asks == Asks::Takes { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| format!("--tls-client-ca: {error}"))
}

fn unfit(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "--tls-key: this is not the key of the certificate in --tls-cert".into()
        }
        Error::InvalidCertificate(error) if is_version_1(error) => format!("--tls-cert: the certificate {VERSION_1}"),
        error => format!("--tls-cert, --tls-key: {error}"),
    }
}

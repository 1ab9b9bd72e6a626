//! Certificates for tests, and the smallest client that speaks TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use intake::net::tls::provider;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::fixture::connect;

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// An issuer of certificates.
pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Pair {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    pem: String,
}

impl Issuer {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no name is wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("issuer {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("an issuer signs itself"))
    }

    /// A certificate for `name` that ends in `days`, which may be negative.
    pub fn issue(&self, name: &str, days: i64) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).expect("the name is one");
        params.distinguished_name.push(DnType::CommonName, name);
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        let (now, span) = (std::time::SystemTime::now(), day * days.unsigned_abs() as u32);
        params.not_before = (now - day * 100).into();
        params.not_after = if days < 0 { now - span } else { now + span }.into();
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.0).expect("the issuer can sign");
        Pair { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// Its own certificate, as a file.
    pub fn write(&self, path: &Path) {
        fs::write(path, self.0.as_ref().pem()).expect("a file can be written");
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).expect("the issuer is one");
        roots
    }

    /// A client that trusts this issuer, and has a certificate if `pair` is given.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], pair: Option<&Pair>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let builder = builder.expect("the versions are known").with_root_certificates(self.roots());
        match pair {
            None => builder.with_no_client_auth(),
            Some(Pair { certificate, key, .. }) => {
                let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
                builder.with_client_auth_cert(vec![certificate.clone()], key).expect("they fit")
            }
        }
    }
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key` in `directory`.
    pub fn write(&self, directory: &Path, name: &str) {
        fs::write(directory.join(format!("{name}.crt")), &self.pem).expect("a file can be written");
        fs::write(directory.join(format!("{name}.key")), self.key.serialize_pem()).expect("a file can be written");
    }
}

/// A connection with TLS.
pub struct Client(pub StreamOwned<ClientConnection, TcpStream>);

impl Client {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// Of the kernel, or of TLS.
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut client = Self::begin(address, config)?;
        let StreamOwned { conn, sock } = &mut client.0;
        while conn.is_handshaking() {
            conn.complete_io(sock)?;
        }
        Ok(client)
    }

    /// Connects, and sends nothing yet.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn begin(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("it is a name");
        let session = ClientConnection::new(config.clone(), name).expect("the configuration is whole");
        Ok(Self(StreamOwned::new(session, connect(address)?)))
    }

    /// Announces the end of what it sends, with a FIN behind it.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn end(&mut self) -> io::Result<()> {
        self.0.conn.send_close_notify();
        while self.0.conn.wants_write() {
            self.0.conn.write_tls(&mut self.0.sock)?;
        }
        self.0.sock.shutdown(Shutdown::Write)
    }

    /// Reads to the announced end.
    ///
    /// # Errors
    /// Of the kernel, or that the end was not announced.
    pub fn hear(&mut self) -> io::Result<String> {
        let mut words = String::new();
        self.0.read_to_string(&mut words)?;
        Ok(words)
    }

    /// Sends `bytes` and announces the end. Returns all that it hears.
    ///
    /// # Errors
    /// Of the kernel, or of TLS.
    pub fn say(mut self, bytes: &[u8]) -> io::Result<String> {
        self.0.write_all(bytes)?;
        self.0.flush()?;
        self.end()?;
        self.hear()
    }
}

/// The first message of a client.
pub fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("it is a name");
    let mut session = ClientConnection::new(config.clone(), name).expect("the configuration is whole");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a vector takes all");
    hello
}

//! Certificates for tests: an issuer, the pairs that it signs, and servers of a few lines that speak TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use intake::net::Fingerprint;
use intake::net::tls::provider;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::fixture::serve_each;

/// A certificate authority, and a directory for what it signs.
pub struct Issuer {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Issuer {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are right");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the issuer of the tests");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(directory.path().join("ca.crt"), issuer.pem()).expect("a file can be written");
        Self { directory, issuer }
    }

    /// Its certificate.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// A certificate for `names`, in the files `stem.crt` and `stem.key`.
    pub fn sign(&self, stem: &str, names: &[&str]) -> Pair {
        self.sign_with(stem, names, |_| {})
    }

    /// A certificate that has ended yesterday.
    pub fn sign_expired(&self, stem: &str, names: &[&str]) -> Pair {
        self.sign_with(stem, names, |params| {
            params.not_after = (SystemTime::now() - Duration::from_secs(24 * 60 * 60)).into();
        })
    }

    fn sign_with(&self, stem: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are right");
        params.distinguished_name.push(DnType::CommonName, stem);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let path = |extension: &str| self.directory.path().join(format!("{stem}.{extension}"));
        let pair = Pair { certificate: path("crt"), key: path("key") };
        fs::write(&pair.certificate, certificate.pem()).expect("a file can be written");
        fs::write(&pair.key, key.serialize_pem()).expect("a file can be written");
        pair
    }
}

impl Pair {
    /// The options that begin with `prefix`: `--tls` for `--tls-cert FILE --tls-key FILE`.
    pub fn options(&self, prefix: &str) -> [String; 4] {
        let text = |path: &Path| path.to_str().expect("a path of the tests").to_owned();
        [format!("{prefix}-cert"), text(&self.certificate), format!("{prefix}-key"), text(&self.key)]
    }

    /// The fingerprint of the certificate.
    pub fn fingerprint(&self) -> String {
        Fingerprint::of(&CertificateDer::from_pem_file(&self.certificate).expect("a certificate")).to_string()
    }

    fn config(&self) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key");
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has ciphers").with_no_client_auth();
        builder.with_single_cert(chain, key).expect("they belong together").into()
    }
}

/// A connection of a server with TLS.
pub type Secured = StreamOwned<ServerConnection, TcpStream>;

/// A server that plays `script` on each connection.
pub fn serve_tls(pair: &Pair, script: fn(Secured)) -> SocketAddr {
    let config = pair.config();
    serve_each(move |stream| {
        let session = ServerConnection::new(config.clone()).expect("the configuration is right");
        script(StreamOwned::new(session, stream));
    })
}

/// Ends the connection as TLS asks: an announcement, then a FIN.
pub fn announce_end(mut stream: Secured) {
    stream.conn.send_close_notify();
    stream.flush().expect("the announcement can be sent");
    let _ = stream.sock.shutdown(std::net::Shutdown::Write);
    let _ = stream.sock.read_to_end(&mut Vec::new());
}

/// Ends the connection as the kernel does for a killed program, with nothing unread.
pub fn end_like_killed(mut stream: Secured) {
    let _ = stream.sock.shutdown(std::net::Shutdown::Write);
    let _ = stream.sock.read_to_end(&mut Vec::new());
}

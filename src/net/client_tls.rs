//! The client's side of TLS: which server it believes, what it shows of itself, and what an error means to a person.
//!
//! The certificate must be signed by a CA that the client trusts, for the name or the address that it connects to, or be the
//! very certificate whose fingerprint was pinned. The CAs are those of the host, read when they are needed, and not a list
//! that is compiled in: a company's own CA is among them, and a program that runs for years does not believe in a CA that the
//! host has dropped. Sessions are not resumed, so a client certificate that was taken away is not accepted any more.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, OtherError,
    RootCertStore, SignatureScheme,
};

use super::tls::{PROTOCOLS, Session, VERSION_1, is_version_1, provider};
use super::{ClientCertificate, Fingerprint, TlsError, Trust};

/// How a client speaks TLS to one server.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl ClientTls {
    /// TLS to the server that has the name or the IP address `host`. `is_http`: what will be spoken inside, HTTP or another
    /// dialect (ALPN, RFC 7301).
    ///
    /// # Errors
    /// A message, if a file cannot be used, this host has no CAs, or `host` is not a name.
    pub fn new(host: &str, is_http: bool, trust: &Trust, identity: Option<&ClientCertificate>) -> Result<Self, String> {
        let provider = provider();
        let server =
            ServerName::try_from(host).map_err(|_| format!("{host:?} is not a name that a certificate has"))?;
        let verifier = Verifier::new(trust, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has ciphers for each version");
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(ClientCertificate { certificate, key }) => {
                let (chain, secret) = (certificates_in(certificate)?, key_in(key)?);
                builder.with_client_auth_cert(chain, secret).map_err(|error| unfit(certificate, key, &error))?
            }
        };
        config.alpn_protocols = vec![PROTOCOLS[usize::from(!is_http)].into()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), server: server.to_owned() })
    }

    /// A session, before the handshake.
    pub(super) fn session(&self) -> Session {
        Session::client(self.config.clone(), self.server.clone()).expect("the configuration has versions and ciphers")
    }
}

/// Why a certificate of this client cannot be used.
fn unfit(certificate: &Path, key: &Path, error: &Error) -> String {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!("{key:?} is not the key of {certificate:?}"),
        Error::InvalidCertificate(error) if is_version_1(error) => {
            format!("{certificate:?}: the certificate {VERSION_1}")
        }
        error => format!("{certificate:?} and {key:?} cannot be used: {error}"),
    }
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(format!("{path:?} holds no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("cannot read a certificate from {path:?}: {error}")),
    }
}

fn key_in(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("cannot read a key from {path:?}: {error}"))
}

/// Decides whether a server is believed.
#[derive(Debug)]
struct Verifier {
    known: Known,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Known {
    Signed(Arc<WebPkiServerVerifier>),
    Pinned(Fingerprint),
}

impl Verifier {
    fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let signed = |roots| {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Known::Signed(verifier.expect("there is a root, and no revocation list"))
        };
        let known = match trust {
            Trust::System => signed(roots_of_host()?),
            Trust::Ca(path) => signed(roots_in(path)?),
            Trust::Pin(fingerprint) => Known::Pinned(*fingerprint),
        };
        Ok(Self { known, algorithms: provider.signature_verification_algorithms })
    }
}

fn roots_of_host() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "this host has no CA certificates{reason}: name the server's CA by --tls-ca, or its certificate by --tls-pin"
        ));
    }
    Ok(roots)
}

fn roots_in(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(path)? {
        roots.add(certificate).map_err(|error| format!("{path:?} holds a certificate that cannot be used: {error}"))?;
    }
    Ok(roots)
}

/// Whether no CA has signed a certificate. A CA of the same name may have another key: Debian adds a self-signed certificate
/// under the host's own name to the host's CAs.
fn is_of_no_ca(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Fingerprint::of(end_entity);
        let stranger = |reason| Stranger { found, reason };
        match &self.known {
            Known::Pinned(pin) if found == *pin => Ok(ServerCertVerified::assertion()),
            Known::Pinned(_) => Err(stranger(Reason::OtherPin).into()),
            Known::Signed(verifier) => verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| match error {
                    Error::InvalidCertificate(error) if is_of_no_ca(&error) => stranger(Reason::NoCa).into(),
                    Error::InvalidCertificate(error) if is_version_1(&error) => {
                        stranger(Reason::Other(format!("it {VERSION_1}"))).into()
                    }
                    Error::InvalidCertificate(CertificateError::Other(error)) => {
                        stranger(Reason::Other(error.to_string())).into()
                    }
                    error => error,
                }),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A server that is not believed, with the fingerprint by which it could be.
#[derive(Debug)]
struct Stranger {
    found: Fingerprint,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    NoCa,
    OtherPin,
    Other(String),
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found;
        match &self.reason {
            Reason::NoCa => write!(
                f,
                "no trusted CA has signed the server's certificate. Its fingerprint is {found}: compare it with that of the \
                 server's own file, and if they are equal, add --tls-pin {found}; or name the server's CA by --tls-ca"
            ),
            Reason::OtherPin => write!(
                f,
                "the server's certificate is not the pinned one. Its fingerprint is {found}: either the server has a new \
                 certificate, or somebody else answers in its place. Pin the new one only after you have compared it with \
                 the server's own file"
            ),
            Reason::Other(reason) => write!(
                f,
                "the server's certificate cannot be verified: {reason}. Its fingerprint is {found}: compare it with that of \
                 the server's own file, and if they are equal, use --tls-pin {found} instead of a CA"
            ),
        }
    }
}

impl std::error::Error for Stranger {}

impl From<Stranger> for Error {
    fn from(stranger: Stranger) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(stranger))))
    }
}

/// The error for a server whose first answer begins with `said`.
pub(super) fn not_tls(said: &str) -> TlsError {
    let words = format!("{NOT_TLS}; it said {said:?}");
    TlsError { words, is_refusal: true }
}

/// What an error of TLS means, and what to do about it. `is_open`: the handshake was over.
pub(super) fn explain(error: &Error, is_open: bool) -> TlsError {
    // The server may refuse this client's certificate after this side's handshake is over (RFC 8446, 4.4.2.4).
    let is_refusal = !is_open || matches!(error, Error::AlertReceived(alert) if is_about_certificates(*alert));
    TlsError { words: words(error, is_open), is_refusal }
}

const NOT_TLS: &str = "the server's answer is not TLS: if this port has none, connect without --tls, or by http://";

fn words(error: &Error, is_open: bool) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate_words(error),
        Error::AlertReceived(alert) => alert_words(*alert),
        Error::InvalidMessage(_) if !is_open => NOT_TLS.to_owned(),
        Error::PeerIncompatible(reason) => {
            format!("the server and this program have no version or cipher of TLS in common ({reason:?})")
        }
        error => format!("TLS failed: {error}"),
    }
}

fn certificate_words(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(OtherError(stranger)) => stranger.to_string(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {}; it is for {}: connect to one of these, or pin the certificate by \
             --tls-pin",
            expected.to_str(),
            presented_names(presented)
        ),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the server's certificate has expired, on {}: it needs a new one", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate is valid only from {} on: is the clock of this host right?",
            date(*not_before)
        ),
        CertificateError::BadSignature => {
            "the server does not have the key of its certificate, or the certificate is forged".to_owned()
        }
        error => format!("the server's certificate cannot be used: {error}"),
    }
}

/// The names as people write them: the library gives `DnsName("drop.example")` and `IpAddress(0::1)`.
fn presented_names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        let inner = inner.trim_matches('"');
        inner.parse().map_or_else(|_| inner.to_owned(), |ip: IpAddr| ip.to_string())
    };
    if presented.is_empty() {
        "no name at all".to_owned()
    } else {
        presented.iter().map(bare).collect::<Vec<_>>().join(", ")
    }
}

fn date(time: UnixTime) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            // Its signature is not right: a CA of the same name has another key.
            | Alert::DecryptError
    )
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server requires a certificate of this client: give one by --tls-cert and --tls-key".to_owned()
        }
        alert if is_about_certificates(alert) => format!(
            "the server does not accept this client's certificate ({alert:?}): give one that its CA has signed, by \
             --tls-cert and --tls-key"
        ),
        AlertDescription::HandshakeFailure => "the server refused the handshake: it may require a certificate of this \
                                               client (--tls-cert and --tls-key), or have no cipher in common"
            .to_owned(),
        AlertDescription::NoApplicationProtocol => "the server speaks another protocol inside TLS (ALPN): is this the \
                                                    right port? To a web server send with --to https://HOST:PORT/"
            .to_owned(),
        alert => format!("the server ended TLS with the alert {alert:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::net::tls::failure::tests::OF_VERSION_1;

    #[test]
    fn a_certificate_of_version_1_is_not_taken_for_one_with_another_key() {
        let home = tempfile::tempdir().unwrap();
        let pair = ClientCertificate { certificate: home.path().join("al.crt"), key: home.path().join("al.key") };
        let words = |certificate: &str| {
            fs::write(&pair.certificate, certificate).unwrap();
            fs::write(&pair.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
            let pin = Trust::Pin(Fingerprint::of(b""));
            ClientTls::new("localhost", false, &pin, Some(&pair)).map(drop).unwrap_err()
        };
        let old = words(OF_VERSION_1);
        assert!(old.contains("al.crt\": the certificate has version 1: make one of version 3"), "{old}");
        let other = rcgen::generate_simple_self_signed(["al".to_owned()]).unwrap();
        let mismatched = words(&other.cert.pem());
        assert!(mismatched.contains("al.key\" is not the key of ") && mismatched.ends_with("al.crt\""), "{mismatched}");
    }

    #[test]
    fn names_are_shown_as_people_write_them() {
        let presented = ["DnsName(\"drop.example\")".to_owned(), "IpAddress(0::1)".to_owned(), "x".to_owned()];
        assert_eq!(presented_names(&presented), "drop.example, ::1, x");
        assert_eq!(presented_names(&[]), "no name at all");
    }
}

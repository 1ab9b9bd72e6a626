//! Why a TLS session has failed, in words that say what to do.

use std::error;
use std::fmt;
use std::io;

use rustls::{AlertDescription as Alert, CertificateError, Error, PeerIncompatible};

/// What is wrong with a certificate of version 1, after "the certificate".
pub const VERSION_1: &str = "has version 1: make one of version 3 (openssl x509 -req -extfile FILE, where FILE has \
                             extendedKeyUsage=clientAuth for a client, subjectAltName=DNS:NAME for a server)";

/// Why a TLS session has failed. As an [`io::Error`] its kind is `InvalidData`.
#[derive(Clone, Debug)]
pub struct Failure(pub Error);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::AlertReceived(alert) => write!(f, "TLS: the other side said {alert:?}: {}", said(*alert)),
            Error::NoCertificatesPresented => {
                f.write_str("TLS: the client has sent no certificate, and this server requires one (curl --cert)")
            }
            Error::InvalidCertificate(error) => write!(f, "TLS: the certificate of the other side {}", fault(error)),
            Error::NoApplicationProtocol => f.write_str(
                "TLS: the client speaks neither http/1.1 nor intake/1 (ALPN); it may offer no protocol, too",
            ),
            Error::PeerIncompatible(why) => write!(f, "TLS: {}", incompatible(why)),
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
                write!(f, "TLS: what the other side sends is not TLS, or damaged: {}", self.0)
            }
            Error::DecryptError => f.write_str("TLS: a record was damaged on its way, or forged"),
            other => write!(f, "TLS: {other}"),
        }
    }
}

impl error::Error for Failure {}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::new(io::ErrorKind::InvalidData, failure)
    }
}

/// What an alert of the other side means here.
fn said(alert: Alert) -> &'static str {
    match alert {
        Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate => {
            "it does not trust this certificate; it needs the certificate's issuer (curl --cacert FILE)"
        }
        Alert::CertificateExpired => "this certificate has expired; renew it",
        Alert::CertificateRequired => "it requires a certificate",
        Alert::UnrecognisedName => "it does not have this name",
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => {
            "there is no version or cipher that both sides know; TLS 1.2 and 1.3 are spoken here"
        }
        Alert::NoApplicationProtocol => "it speaks none of the protocols that were offered (ALPN)",
        Alert::UserCanceled => "it gave up",
        _ => "it ended the session",
    }
}

fn fault(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet; compare the clocks".into()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is from an issuer that is not trusted here".into()
        }
        CertificateError::Revoked => "was revoked".into(),
        error if is_version_1(error) => VERSION_1.into(),
        other => format!("is refused: {other}"),
    }
}

/// Whether a certificate has version 1 (RFC 5280, 4.1.2.1). rustls has no variant for it, only the name of webpki's.
pub fn is_version_1(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other) if other.0.to_string() == "UnsupportedCertVersion")
}

fn incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
            "the other side speaks neither TLS 1.2 nor 1.3, and older versions are broken".into()
        }
        why => format!("there is nothing that both sides know: {why:?}"),
    }
}

#[cfg(test)]
pub mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::server::ParsedCertificate;

    use super::*;

    /// A certificate of version 1, valid until 2126. It was made by `openssl x509 -req` without `-extfile`.
    pub const OF_VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFjCBvQIUCY9t0UqL+qQjhF8PFkh+CtrOVoswCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCYWwwIBcNMjYxMTI4MDEwNzM5WhgPMjEyNjExMDQwMTA3MzlaMA0xCzAJ
BgNVBAMMAmFsMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJtLgO4KlXC1i1/UE
Oqxh2JbH4AjHYKaosew6eeuC9k4P6zFH6aPvX/mBfeZdDFf7WqoGZQYkwvu/08BH
5WNXIzAKBggqhkjOPQQDAgNIADBFAiAsNCejwhTEQEZMWbiSMg7f5Z11Kp9roLh1
6jablS1jVwIhAKS21ezmYSaWS16SZoUAvcOas/oOFCjtjPyeRVYaxCB6
-----END CERTIFICATE-----
";

    #[test]
    fn a_certificate_of_version_1_is_named_with_the_remedy() {
        let der = CertificateDer::from_pem_slice(OF_VERSION_1.as_bytes()).unwrap();
        let words = Failure(ParsedCertificate::try_from(&der).map(drop).unwrap_err()).to_string();
        assert!(words.starts_with("TLS: the certificate of the other side has version 1: make one"), "{words}");
        assert!(!is_version_1(&CertificateError::BadEncoding));
    }
}

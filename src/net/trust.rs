//! What a client believes of a server with TLS, what it shows of itself, and why it has failed. Values only; [`super::ClientTls`] applies them.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use crate::proto::{Algorithm, Digest, Hasher};

/// By what a client knows its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// A CA of this host has signed the certificate, for the name that was connected to.
    #[default]
    System,
    /// A CA in this PEM file has signed it, for the name that was connected to. A certificate that signs itself is its own
    /// CA.
    Ca(PathBuf),
    /// It is this very certificate, whatever it says of names, dates and CAs.
    Pin(Fingerprint),
}

/// A certificate of the client, with its chain, and the key: paths of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The SHA-256 of a certificate in DER. As text: `sha256:` and hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(Digest);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(certificate);
        Self(hasher.finish())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The hex may be in either case, and have colons between the bytes, as openssl prints it.
impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        let hex = typed.strip_prefix("sha256:").ok_or("write sha256:HEX, as `intake cert` prints it")?;
        let digest = Digest::parse(Algorithm::Sha256, &hex.replace(':', ""));
        digest.map(Self).ok_or("a SHA-256 has 64 hexadecimal digits")
    }
}

/// Why TLS has failed, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The words.
    pub words: String,
    /// One side did not accept the other, so nothing was sent inside. Another attempt would end the same way.
    pub is_refusal: bool,
}

impl TlsError {
    /// The error of TLS inside an error of a read or write, if it is one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Error for TlsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_intake_and_openssl_print_it() {
        let fingerprint = Fingerprint::of(b"a certificate");
        let text = fingerprint.to_string();
        assert_eq!(text.parse(), Ok(fingerprint));
        let hex: Vec<String> = text["sha256:".len()..]
            .to_uppercase()
            .as_bytes()
            .chunks(2)
            .map(|byte| String::from_utf8_lossy(byte).into_owned())
            .collect();
        assert_eq!(format!("sha256:{}", hex.join(":")).parse(), Ok(fingerprint));
        for typed in ["", "00", "sha256:", "sha256:00", "md5:00"] {
            assert!(typed.parse::<Fingerprint>().is_err(), "{typed}");
        }
    }
}

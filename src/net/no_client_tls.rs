//! Stands in for TLS in a build without it.

use super::{ClientCertificate, Trust};

/// TLS cannot be had.
#[derive(Clone, Debug)]
pub enum ClientTls {}

impl ClientTls {
    /// Always an error.
    ///
    /// # Errors
    /// A message.
    pub fn new(
        _host: &str,
        _is_http: bool,
        _trust: &Trust,
        _identity: Option<&ClientCertificate>,
    ) -> Result<Self, String> {
        Err("this program was built without TLS (cargo build --features tls)".to_owned())
    }
}

//! What the server reads from files of its operator: at the start, and again at SIGHUP.
//!
//! Everything is read and checked before anything is used, so a mistake in one file changes nothing. Files are never watched:
//! a pair that is just being replaced would not fit. Knows neither connections nor the turn.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::config::{Config, Tls};
use crate::access::{TOKEN_FILE_MAX_BYTES, TokenFileError, Tokens};
use crate::net::tls::{Asks, Identity, Pem};

/// The largest file of certificates that is read: far more than any chain has.
const PEM_MAX_BYTES: u64 = 1 << 20;
/// How long before its end a certificate is worth a warning: enough time to renew it.
const WARN_SECONDS: u64 = 14 * DAY_SECONDS;
/// A day.
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Where a server gets its configuration from at SIGHUP.
pub trait Reread {
    /// Reads it again. Waits for no network, and looks nothing up.
    ///
    /// # Errors
    /// What is wrong with it, for the operator. Nothing has changed.
    fn read(&mut self) -> Result<Config, String>;

    /// The configuration that was read last counts from now on.
    fn taken(&mut self);
}

/// Reads the files that the configuration names, and forgets them.
///
/// # Errors
/// What is wrong with which file, for the operator.
pub fn check(config: &Config) -> Result<(), String> {
    read(config, crate::net::time_of_day()).map(drop)
}

/// What the files say.
pub struct Files {
    /// The tokens, one of which clients need. `None`: they need none.
    pub tokens: Option<Tokens>,
    /// The certificate.
    pub security: Security,
}

/// How the server proves who it is.
#[derive(Debug, Default)]
pub struct Security {
    /// `None`: TLS is not spoken.
    pub identity: Option<Identity>,
    /// Connections in clear are refused.
    pub is_required: bool,
}

/// Reads the files that the configuration names.
///
/// # Errors
/// What is wrong with which file, for the operator.
pub fn read(config: &Config, now: u64) -> Result<Files, String> {
    let tokens = config.token_file.as_deref().map(read_tokens).transpose()?;
    let security = read_security(config, now)?;
    if let (Some(file), Some(tokens)) = (&config.token_file, &tokens) {
        log::info!("clients need a token: {} in {}", tokens.iter().count(), file.display());
    }
    Ok(Files { tokens, security })
}

fn read_tokens(file: &Path) -> Result<Tokens, String> {
    let failed = |words: &dyn fmt::Display| format!("cannot use the token file {}: {words}", file.display());
    let bytes = try_read(file, TOKEN_FILE_MAX_BYTES).map_err(|error| failed(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8"))?;
    text.parse().map_err(|error: TokenFileError| failed(&error))
}

fn read_security(config: &Config, now: u64) -> Result<Security, String> {
    let Some(tls) = &config.tls else { return Ok(Security::default()) };
    let identity = identity(tls)?;
    let left = identity.not_after().saturating_sub(now);
    let file = tls.certificate.display();
    match left / DAY_SECONDS {
        _ if left == 0 => log::warn!("the certificate in {file} has expired, so clients will refuse it: renew it"),
        days if left < WARN_SECONDS => log::warn!("the certificate in {file} expires in {days} days: renew it"),
        days => log::info!("the certificate in {file} expires in {days} days"),
    }
    let use_of_tls = if tls.is_required { "required" } else { "spoken, beside connections in clear" };
    let from_clients = match &tls.clients {
        Some((file, Asks::Requires)) => format!("; clients need a certificate of an issuer in {}", file.display()),
        Some((file, Asks::Takes)) => format!("; clients may have a certificate of an issuer in {}", file.display()),
        None => String::new(),
    };
    log::info!("TLS is {use_of_tls}{from_clients}");
    Ok(Security { identity: Some(identity), is_required: tls.is_required })
}

fn identity(tls: &Tls) -> Result<Identity, String> {
    let certificates = read_file(&tls.certificate, "--tls-cert")?;
    let key = read_file(&tls.key, "--tls-key")?;
    let clients =
        tls.clients.as_ref().map(|(file, asks)| Ok::<_, String>((read_file(file, "--tls-client-ca")?, *asks)));
    let clients = clients.transpose()?;
    let client_issuers = clients.as_ref().map(|(pem, asks)| (pem.as_slice(), *asks));
    Identity::new(&Pem { certificates: &certificates, key: &key, client_issuers })
}

fn read_file(file: &Path, option: &str) -> Result<Vec<u8>, String> {
    try_read(file, PEM_MAX_BYTES).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "; the user that the server runs as must be able to read it",
            _ => "",
        };
        format!("{option}: cannot read {}: {error}{hint}", file.display())
    })
}

/// Opened without waiting: a pipe would stop the server until someone writes to it.
fn try_read(file: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK.bits().try_into().expect("a flag of open(2) fits");
    let opened: File = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    opened.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

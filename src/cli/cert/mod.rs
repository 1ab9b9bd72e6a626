//! `intake cert`: makes a certificate and its key, for a first server with TLS.
//!
//! The certificate signs itself, so clients trust it by its fingerprint, or as their CA. A server that others know should have
//! one of a CA.

mod pair;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use intake::net::{Fingerprint, host_addresses, host_name, time_of_day};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::ServerName;

use self::pair::{Pair, write};
use crate::cli::exit::Exit;
use crate::cli::output::{Output, complain};

/// Make a self-signed certificate and its key, to try TLS
///
/// Writes intake.crt and intake.key (ECDSA P-256), and prints the fingerprint, by which `intake send --tls-pin` knows the
/// server.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  both files are written
  1  a file could not be written
  2  usage error")]
pub struct Cert {
    /// Names and IP addresses of the server [default: the host's name, localhost, and the host's addresses]
    #[arg(value_name = "NAME", value_parser = parse_name)]
    names: Vec<String>,
    /// The directory to write to
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// How long the certificate is valid, in days
    #[arg(long, value_name = "N", default_value_t = 365)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
    /// Replace an earlier certificate and its key
    #[arg(long)]
    force: bool,
}

/// A hundred years.
const DAYS_MAX: i64 = 36_500;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The certificate is valid from a little before now, for clients whose clock is slow.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60 * 60);
/// The longest common name (RFC 5280, appendix A.1).
const COMMON_NAME_MAX: usize = 64;

impl Cert {
    /// Writes the pair, and prints what to do with it.
    pub fn run(self) -> Exit {
        let names = if self.names.is_empty() { default_names() } else { self.names.clone() };
        let made = make(names.clone(), self.days).map_err(|error| format!("cannot make a certificate: {error}"));
        let (pair, fingerprint, ends) = match made {
            Ok(made) => made,
            Err(words) => return fail(&words),
        };
        let (certificate, key) = match write(&self.out, &pair, self.force) {
            Ok(paths) => paths,
            Err(words) => return fail(&words),
        };
        let (certificate, key) = (certificate.display(), key.display());
        let mut output = Output::default();
        output.say(format_args!("{certificate}: for {}; until {ends}", names.join(", ")));
        output.say(format_args!("{key}: its key; keep it secret"));
        output.say(format_args!("fingerprint {fingerprint}"));
        output.say(format_args!("to receive: intake serve --tls-cert {certificate} --tls-key {key}"));
        output.say(format_args!("to send:    intake send FILE --to HOST:9000 --tls-pin {fingerprint}"));
        output.exit(Exit::Done)
    }
}

fn fail(words: &str) -> Exit {
    complain(words);
    Exit::Failed
}

/// A pair for `names`, its fingerprint, and its last day.
fn make(names: Vec<String>, days: u32) -> Result<(Pair, Fingerprint, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let now = UNIX_EPOCH + Duration::from_secs(time_of_day());
    let common_name =
        names.iter().find(|name| name.len() <= COMMON_NAME_MAX).cloned().unwrap_or_else(|| "intake".to_owned());
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = distinguished_name;
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = (now + DAY * days).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?;
    let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
    Ok((pair, Fingerprint::of(certificate.der()), params.not_after.date().to_string()))
}

/// A certificate can be valid for a host name, an IP address, and all names in a domain (`*.example.org`).
fn parse_name(typed: &str) -> Result<String, String> {
    let name = typed.strip_prefix("*.").unwrap_or(typed);
    match ServerName::try_from(name) {
        Ok(ServerName::IpAddress(_)) if name != typed => Err("a * stands for a name, not in an IP address".into()),
        Ok(_) => Ok(typed.to_owned()),
        Err(_) => Err("this is neither a host name nor an IP address; leave the port out".into()),
    }
}

fn default_names() -> Vec<String> {
    let mut names = vec![host_name(), "localhost".to_owned()];
    names.extend(host_addresses().iter().map(IpAddr::to_string));
    names.retain(|name| parse_name(name).is_ok());
    let mut once: Vec<String> = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_domains_or_addresses() {
        for name in ["drop.example", "localhost", "*.example.org", "192.0.2.7", "::1", "host_1"] {
            assert_eq!(parse_name(name), Ok(name.to_owned()));
        }
        for name in ["", "drop.example:9000", "https://drop.example/", "*", "*.192.0.2.7", "a b", "[::1]"] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_default_names_are_those_of_this_host() {
        let names = default_names();
        assert!(["localhost", "127.0.0.1"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
        assert!(names.iter().all(|name| !name.starts_with("fe80")), "{names:?}");
    }
}

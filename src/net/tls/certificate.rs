//! What a certificate says: until when it is valid, and whose it is.
//!
//! rustls has checked it by then, or will. Knows no files.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// When the certificate ends, in seconds since the epoch. `None` if it cannot be read.
pub fn not_after(der: &[u8]) -> Option<u64> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

/// The common name of its subject, or else its first alternative name. `None` if it has neither.
pub fn name(der: &[u8]) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    if let Some(name) = common.filter(|name| !name.is_empty()) {
        return Some(name.into());
    }
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(spelled)
}

fn spelled(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).into()),
        GeneralName::IPAddress(ip) => match ip.len() {
            4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(*ip).ok()?).to_string()),
            16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(*ip).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

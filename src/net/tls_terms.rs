//! What a server says about TLS, and hears about it: the same with TLS and in a build without it.
//!
//! Values only.

/// The first byte of a ClientHello (RFC 8446, 5.1). It begins no name and no request.
pub const FIRST_BYTE: u8 = 0x16;

/// The contents of the files of a server, in PEM.
#[derive(Clone, Copy, Debug)]
pub struct Pem<'a> {
    /// Its certificate, and those that lead to the issuer that its clients know.
    pub certificates: &'a [u8],
    /// The key of the certificate.
    pub key: &'a [u8],
    /// Who issues the certificates of clients, if they are asked for any.
    pub client_issuers: Option<(&'a [u8], Asks)>,
}

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asks {
    /// A certificate.
    #[default]
    Requires,
    /// A certificate, if they have one.
    Takes,
}

/// What the two sides have agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version of TLS: `TLSv1_3`.
    pub version: String,
    /// The cipher suite: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The protocol inside, if the client named any.
    pub protocol: Option<String>,
}

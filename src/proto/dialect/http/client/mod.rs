//! The client's half of HTTP: how a request for an upload is spelled, its chunks, and its end.
//!
//! A CRC-32C has no spelling in HTTP (RFC 9530 knows it only as deprecated), so a request that promises one goes without.
//! Nor can an upload be resumed here, and "the same file is no conflict" has no word: it is asked for as "no file of this
//! name" is.

mod answer;
mod chunked;

use std::fmt::{self, Write as _};

use super::date;
pub(in crate::proto) use super::target::decode;
use super::target::encode;
use crate::proto::dialect::Dialect;
use crate::proto::{Algorithm, Digest, OnExists, Promise, Request, Secret, digest_field};

pub(in crate::proto) use answer::{Answer, Answers, Heard};

/// Where a client's requests go in HTTP: a host, and a folder at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    host: Box<str>,
    folder: Box<str>,
}

/// Why a text names no site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteError {
    /// The host holds something that no host has.
    Host,
    /// The folder does not begin or does not end with a slash.
    Slash,
    /// The folder holds something that an address must not, or a `%` that begins no byte.
    Folder,
}

impl Site {
    /// `host` as the `Host` field tells it, with the port unless that is the scheme's own; `folder` begins and ends with a slash. What
    /// must be percent-encoded in it and is not, is encoded here.
    ///
    /// # Errors
    /// [`SiteError`].
    pub fn new(host: &str, folder: &str) -> Result<Self, SiteError> {
        let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_of_host) {
            return Err(SiteError::Host);
        }
        if !(folder.starts_with('/') && folder.ends_with('/')) {
            return Err(SiteError::Slash);
        }
        let folder = encode_folder(folder).ok_or(SiteError::Folder)?;
        Ok(Self { host: host.into(), folder: folder.into() })
    }
}

/// As a URL, without its scheme: the site does not know whether TLS is below.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.folder)
    }
}

impl fmt::Display for SiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host of a URL is a name or an IP address, and no user is named before it",
            Self::Slash => "end the folder with a slash, such as http://HOST:PORT/folder/; --name sets the name in it",
            Self::Folder => "a URL has no ?, no #, and no % without two hexadecimal digits behind it",
        })
    }
}

impl std::error::Error for SiteError {}

/// Encodes what an address cannot hold, and leaves alone what is encoded already.
fn encode_folder(folder: &str) -> Option<String> {
    let mut encoded = String::new();
    for (at, byte) in folder.bytes().enumerate() {
        match byte {
            b'%' if !folder.as_bytes().get(at + 1..at + 3)?.iter().all(u8::is_ascii_hexdigit) => return None,
            b'?' | b'#' => return None,
            _ if is_unreserved(byte) || b"/%!$&'()*+,;=:@".contains(&byte) => encoded.push(byte.into()),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    Some(encoded)
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether the content of `request` goes in chunks: its size is not known, or a digest follows it.
pub(in crate::proto) fn is_chunked(request: &Request) -> bool {
    request.size.is_none() || matches!(request.digest, Some(Promise::Trailer(Algorithm::Sha256)))
}

/// Whether the server is asked before the content is sent. Without content nothing may be expected (RFC 9110, 10.1.1).
pub(in crate::proto) fn is_asked(request: &Request) -> bool {
    request.dialect == Dialect::HttpExpect && request.size != Some(0)
}

/// `is_last`: no other request follows on this connection.
pub(in crate::proto::dialect) fn spell_request(
    request: &Request,
    site: &Site,
    token: Option<&Secret>,
    is_last: bool,
    out: &mut Vec<u8>,
) {
    let mut head = format!("PUT {}{} HTTP/1.1\r\n", site.folder, encode(request.name.as_str()));
    let mut field = |name: &str, value: &dyn fmt::Display| {
        write!(head, "{name}: {value}\r\n").expect("writing to a String cannot fail");
    };
    field("Host", &site.host);
    field("User-Agent", &concat!("intake/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        field("Authorization", &format_args!("Bearer {}", token.as_str()));
    }
    match request.size {
        Some(size) if !is_chunked(request) => field("Content-Length", &size),
        _ => field("Transfer-Encoding", &"chunked"),
    }
    match request.digest {
        Some(Promise::Trailer(Algorithm::Sha256)) => field("Trailer", &"Repr-Digest"),
        _ => {
            request.known_digest().iter().filter_map(digest_field::spell).for_each(|value| field("Repr-Digest", &value))
        }
    }
    if let Some(OnExists::Refuse | OnExists::Same) = request.on_exists {
        field("If-None-Match", &"*");
    }
    if let Some(seconds) = request.mtime.filter(|seconds| date::can_spell(seconds.get())) {
        field("Last-Modified", &date::spell(seconds.get()));
    }
    if is_asked(request) {
        field("Expect", &"100-continue");
    }
    if is_last {
        field("Connection", &"close");
    }
    head.push_str("\r\n");
    out.extend_from_slice(head.as_bytes());
}

/// The line before a chunk of `size` bytes. Size 0 is the last chunk, which [`spell_end`] ends.
pub(in crate::proto::dialect) fn spell_chunk(size: u64, is_first: bool, out: &mut Vec<u8>) {
    let end_of_the_one_before = if is_first { "" } else { "\r\n" };
    out.extend_from_slice(format!("{end_of_the_one_before}{size:x}\r\n").as_bytes());
}

/// What follows the last chunk: the digest where it was promised, and an empty line.
pub(in crate::proto::dialect) fn spell_end(digest: Option<Digest>, out: &mut Vec<u8>) {
    if let Some(value) = digest.as_ref().and_then(digest_field::spell) {
        out.extend_from_slice(format!("Repr-Digest: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::proto::{Hasher, Name, NamePolicy};

    fn put(name: &str) -> Request {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        Request { size: Some(5), ..Request::until_end_of_stream(Dialect::Http, name) }
    }

    fn sha256(content: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(content);
        hasher.finish()
    }

    fn spelled(request: &Request, folder: &str) -> String {
        let mut out = Vec::new();
        spell_request(request, &Site::new("host:9000", folder).unwrap(), None, false, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What stands between the first fields, which all heads share, and the end.
    fn fields(request: &Request) -> String {
        let head = spelled(request, "/");
        let common = concat!("Host: host:9000\r\nUser-Agent: intake/", env!("CARGO_PKG_VERSION"), "\r\n");
        head.split_once(common).unwrap().1.strip_suffix("\r\n\r\n").unwrap().to_owned()
    }

    #[test]
    fn a_name_is_encoded_byte_by_byte() {
        for (name, folder, line) in [
            ("a.txt", "/", "PUT /a.txt HTTP/1.1"),
            ("a b%2F?#.txt", "/", "PUT /a%20b%252F%3F%23.txt HTTP/1.1"),
            ("ä~-_.", "/", "PUT /%C3%A4~-_. HTTP/1.1"),
            ("k=v&x+y", "/some/dir/", "PUT /some/dir/k%3Dv%26x%2By HTTP/1.1"),
            ("a", "/with space/%41/ä/(x)/", "PUT /with%20space/%41/%C3%A4/(x)/a HTTP/1.1"),
        ] {
            assert_eq!(spelled(&put(name), folder).lines().next(), Some(line));
        }
    }

    #[test]
    fn what_names_no_site_is_refused() {
        for (host, folder, error) in [
            ("", "/", SiteError::Host),
            ("user@host", "/", SiteError::Host),
            ("host\r\nX: y", "/", SiteError::Host),
            ("host", "/file", SiteError::Slash),
            ("host", "", SiteError::Slash),
            ("host", "/a?b/", SiteError::Folder),
            ("host", "/a#/", SiteError::Folder),
            ("host", "/%2/", SiteError::Folder),
            ("host", "/%/", SiteError::Folder),
        ] {
            assert_eq!(Site::new(host, folder), Err(error), "{host} {folder}");
        }
        assert_eq!(Site::new("[::1]:80", "/a\r\nb/").unwrap().to_string(), "[::1]:80/a%0D%0Ab/");
    }

    #[test]
    fn a_request_says_what_is_known_of_the_content() {
        let known = Request { digest: Some(Promise::Known(sha256(b"hello"))), ..put("a") };
        let trailer = Request { digest: Some(Promise::Trailer(Algorithm::Sha256)), ..put("a") };
        let crc32c = Request { digest: Some(Promise::Trailer(Algorithm::Crc32c)), ..put("a") };
        // `printf hello | openssl dgst -sha256 -binary | base64`.
        let digest = "Repr-Digest: sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
        assert_eq!(fields(&put("a")), "Content-Length: 5");
        assert_eq!(fields(&crc32c), "Content-Length: 5");
        assert_eq!(fields(&known), format!("Content-Length: 5\r\n{digest}"));
        assert_eq!(fields(&trailer), "Transfer-Encoding: chunked\r\nTrailer: Repr-Digest");
        assert_eq!(fields(&Request { size: None, ..put("a") }), "Transfer-Encoding: chunked");
        let mut end = Vec::new();
        spell_end(Some(sha256(b"hello")), &mut end);
        assert_eq!(String::from_utf8(end).unwrap(), format!("{digest}\r\n\r\n"));
    }

    #[test]
    fn conditions_have_their_fields() {
        for (request, field) in [
            (Request { on_exists: Some(OnExists::Refuse), ..put("a") }, "If-None-Match: *"),
            (Request { on_exists: Some(OnExists::Same), ..put("a") }, "If-None-Match: *"),
            (
                Request { mtime: NonZeroU64::new(784_111_777), ..put("a") },
                "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (Request { dialect: Dialect::HttpExpect, ..put("a") }, "Expect: 100-continue"),
        ] {
            assert_eq!(fields(&request), format!("Content-Length: 5\r\n{field}"));
        }
        let empty = Request { dialect: Dialect::HttpExpect, size: Some(0), ..put("a") };
        assert_eq!(fields(&empty), "Content-Length: 0");
        for on_exists in [None, Some(OnExists::Rename), Some(OnExists::Replace)] {
            assert_eq!(fields(&Request { on_exists, ..put("a") }), "Content-Length: 5");
        }
        // No date has five digits for its year.
        assert_eq!(fields(&Request { mtime: NonZeroU64::new(u64::MAX), ..put("a") }), "Content-Length: 5");
    }
}

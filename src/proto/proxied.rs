//! The header that a proxy sends before the bytes of its client: the PROXY protocol, version 2.
//!
//! The server sees the proxy's address as that of every client. The header tells the client's own. A client that may send one
//! can name any address, so it is read only from the networks that the operator names, and there it is required: a server that
//! guessed whether one comes would take a client's word for its address.
//!
//! The format is that of `proxy-protocol.txt`, section 2.2, which HAProxy publishes:
//!
//! ```text
//!   0          12        13       14       16
//!   +----------+---------+--------+--------+-----------+---------+
//!   | signature| version,| family,| length | addresses | more    |
//!   |          | command | kind   |        | and ports | (TLVs)  |
//!   +----------+---------+--------+--------+-----------+---------+
//! ```
//!
//! Bytes in, one value out. Knows neither the conversation that follows nor who may send a header.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Code, Refusal};

/// What a header begins with: bytes that begin no request of any dialect.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with.
const VERSION_1: &[u8; 6] = b"PROXY ";
/// The bytes before the addresses.
const FIXED_BYTES: usize = 16;
/// The most bytes behind those. A proxy sends its header in one segment, and 536 bytes fit into any (RFC 9293, 3.7.1).
const LENGTH_MAX: usize = 536;

/// The kind of value that has the sum of the header (2.2.3).
const CRC32C: u8 = 0x03;
/// The kind of value that tells of TLS (2.2.6).
const SSL: u8 = 0x20;
/// In that, the kind of value that has the name in the certificate.
const SSL_COMMON_NAME: u8 = 0x22;
/// The client has shown a certificate, on this connection or on an earlier one of its session.
const SSL_HAS_CERTIFICATE: u8 = 0x02 | 0x04;

/// Where the bytes behind a header come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the proxy itself, for a check of the server's health.
    Proxy,
    /// From a client whose address the proxy does not tell.
    Unknown,
    /// From this client.
    Client {
        /// Its address.
        source: SocketAddr,
        /// Where it has connected.
        destination: SocketAddr,
        /// The common name in its certificate, if the proxy has asked for one and verified it.
        name: Option<Box<str>>,
    },
}

/// A header while it comes in.
///
/// ```
/// use intake::proto::{Origin, ProxyHeader};
///
/// let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x30\x39\x23\x28";
/// let mut input = &[header, &b"notes.txt\n"[..]].concat()[..];
/// let Some(Ok(Origin::Client { source, .. })) = ProxyHeader::default().take(&mut input) else { panic!() };
/// assert_eq!(source, "192.0.2.7:12345".parse().unwrap());
/// assert_eq!(input, b"notes.txt\n", "the client's own bytes are left");
/// ```
#[derive(Debug, Default)]
pub struct ProxyHeader(Vec<u8>);

impl ProxyHeader {
    /// Takes the bytes of the header from the front of `input`. `None`: all of `input` is taken, and there is more to come.
    ///
    /// A refusal comes with the first byte that shows it, however the stream is split.
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Result<Origin, Refusal>> {
        loop {
            let missing = match least_bytes(&self.0) {
                Ok(least) => least - self.0.len(),
                Err(words) => return Some(Err(refusal(words))),
            };
            if missing == 0 {
                return Some(read(&self.0).map_err(refusal));
            }
            if input.is_empty() {
                return None;
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.0.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// Whether no byte of it has come.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal if the stream ends within it.
    pub fn cut_off() -> Refusal {
        refusal("the stream ended within the PROXY header")
    }
}

fn refusal(words: &'static str) -> Refusal {
    Refusal::new(Code::BAD_REQUEST, words)
}

/// How many bytes a header has at least that begins with these. So many: it is whole.
fn least_bytes(begun: &[u8]) -> Result<usize, &'static str> {
    let signature = &begun[..begun.len().min(SIGNATURE.len())];
    if !SIGNATURE.starts_with(signature) {
        return match begun {
            _ if VERSION_1.starts_with(begun) && begun.len() < VERSION_1.len() => Ok(VERSION_1.len()),
            _ if begun.starts_with(VERSION_1) => {
                Err("the proxy speaks version 1 of the PROXY protocol; set it to version 2 (HAProxy: send-proxy-v2)")
            }
            _ => Err("your address is a proxy's, which has to send a PROXY v2 header first (HAProxy: send-proxy-v2)"),
        };
    }
    let is_local = match begun.get(12) {
        Some(0x20) => true,
        Some(0x21) | None => false,
        Some(_) => return Err("the PROXY header has an unknown version or command; version 2 is spoken here"),
    };
    let is_known = |kind: &u8| kind >> 4 <= 3 && kind & 0xf <= 2;
    if !is_local && !begun.get(13).is_none_or(is_known) {
        return Err("the PROXY header has an unknown family of addresses");
    }
    match begun {
        [.., high, low] if begun.len() == FIXED_BYTES => length(*high, *low),
        [_, ..] if begun.len() > FIXED_BYTES => length(begun[14], begun[15]),
        // So many tell whether it is of version 1.
        [] => Ok(VERSION_1.len()),
        _ => Ok(FIXED_BYTES),
    }
}

fn length(high: u8, low: u8) -> Result<usize, &'static str> {
    match usize::from(u16::from_be_bytes([high, low])) {
        length @ ..=LENGTH_MAX => Ok(FIXED_BYTES + length),
        _ => Err("the PROXY header is longer than the 536 bytes that fit into any packet"),
    }
}

/// Reads a whole header.
fn read(header: &[u8]) -> Result<Origin, &'static str> {
    let (is_local, kind, block) = (header[12] == 0x20, header[13], &header[FIXED_BYTES..]);
    let addresses = match kind {
        _ if is_local => return Ok(Origin::Proxy),
        // A receiver that does not know the addresses ignores what comes with them.
        _ if kind >> 4 == 0 || kind & 0xf == 0 => return Ok(Origin::Unknown),
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        _ => 216,
    };
    let (block, values) = block.split_at_checked(addresses).ok_or("the PROXY header is too short for its addresses")?;
    let name = read_values(header, values)?;
    let (source, destination) = match kind {
        0x11 => (v4(block, 0, 8), v4(block, 4, 10)),
        0x21 => (v6(block, 0, 32), v6(block, 16, 34)),
        _ => return Ok(Origin::Unknown),
    };
    Ok(Origin::Client { source, destination, name })
}

/// The address of IPv4 at `ip`, with the port at `port`.
fn v4(block: &[u8], ip: usize, port: usize) -> SocketAddr {
    let ip: [u8; 4] = block[ip..ip + 4].try_into().expect("four bytes");
    (Ipv4Addr::from(ip), u16::from_be_bytes([block[port], block[port + 1]])).into()
}

fn v6(block: &[u8], ip: usize, port: usize) -> SocketAddr {
    let ip: [u8; 16] = block[ip..ip + 16].try_into().expect("sixteen bytes");
    (Ipv6Addr::from(ip), u16::from_be_bytes([block[port], block[port + 1]])).into()
}

/// Checks the values behind the addresses, which end the header. Returns the client's name, if one was verified.
fn read_values(header: &[u8], mut values: &[u8]) -> Result<Option<Box<str>>, &'static str> {
    let mut name = None;
    while !values.is_empty() {
        let (kind, value) = next_value(&mut values)?;
        match kind {
            CRC32C => check_sum(header, header.len() - values.len() - value.len(), value)?,
            SSL => name = verified_name(value)?,
            _ => {}
        }
    }
    Ok(name)
}

/// Takes one value: its kind, its length in two bytes, and itself.
fn next_value<'a>(values: &mut &'a [u8]) -> Result<(u8, &'a [u8]), &'static str> {
    const BEYOND: &str = "a value in the PROXY header is longer than the header";
    let Some((&[kind, high, low], rest)) = values.split_first_chunk() else { return Err(BEYOND) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, rest) = rest.split_at_checked(length).ok_or(BEYOND)?;
    *values = rest;
    Ok((kind, value))
}

/// Checks the sum over the whole header, whose own four bytes at `at` count as zeros.
fn check_sum(header: &[u8], at: usize, value: &[u8]) -> Result<(), &'static str> {
    const WRONG: &str = "the checksum of the PROXY header is wrong";
    let told = u32::from_be_bytes(value.try_into().map_err(|_| WRONG)?);
    let before = crc32c::crc32c(&header[..at]);
    let with_zeros = crc32c::crc32c_append(before, &[0; 4]);
    let sum = crc32c::crc32c_append(with_zeros, &header[at + 4..]);
    if sum == told { Ok(()) } else { Err(WRONG) }
}

/// The common name in the certificate of a client whose proxy has ended its TLS.
fn verified_name(value: &[u8]) -> Result<Option<Box<str>>, &'static str> {
    let Some((&[client, verify @ ..], mut values)) = value.split_first_chunk::<5>() else {
        return Err("the PROXY header tells too little of TLS");
    };
    let mut name = None;
    while !values.is_empty() {
        let (kind, value) = next_value(&mut values)?;
        if kind == SSL_COMMON_NAME {
            name = Some(String::from_utf8_lossy(value).into());
        }
    }
    // Zero: the certificate is valid.
    let is_verified = client & SSL_HAS_CERTIFICATE != 0 && verify == [0; 4];
    Ok(name.filter(|_| is_verified))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of this command and kind, with this block.
    fn header(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, kind], &length, block].concat()
    }

    const FROM_V4: &[u8] = b"\xc0\0\x02\x07\xc0\0\x02\x01\x30\x39\x23\x28";

    fn client(name: Option<&str>) -> Origin {
        let (source, destination) = ("192.0.2.7:12345".parse().unwrap(), "192.0.2.1:9000".parse().unwrap());
        Origin::Client { source, destination, name: name.map(Into::into) }
    }

    fn value(kind: u8, bytes: &[u8]) -> Vec<u8> {
        [&[kind], &u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn with_values(values: &[u8]) -> Vec<u8> {
        header(0x21, 0x11, &[FROM_V4, values].concat())
    }

    /// As [`with_values`], and then the sum of it all.
    fn with_sum(values: &[u8]) -> Vec<u8> {
        let mut header = with_values(&[values, &value(CRC32C, &[0; 4])].concat());
        let sum = crc32c::crc32c(&header).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum);
        header
    }

    fn tls(client: u8, verify: u8, name: &str) -> Vec<u8> {
        let version = value(0x21, b"TLSv1.3");
        value(SSL, &[&[client, 0, 0, 0, verify], &version[..], &value(SSL_COMMON_NAME, name.as_bytes())].concat())
    }

    /// What comes of `bytes` and then `end` of them, in pieces that begin at `cuts`; and what is left.
    fn taken(bytes: &[u8], cuts: &[usize]) -> (Option<Result<Origin, String>>, Vec<u8>) {
        let mut header = ProxyHeader::default();
        let edges: Vec<usize> = [0].iter().chain(cuts).chain([&bytes.len()]).copied().collect();
        for piece in edges.windows(2) {
            let mut input = &bytes[piece[0]..piece[1]];
            if let Some(taken) = header.take(&mut input) {
                return (
                    Some(taken.map_err(|refusal| refusal.words.to_string())),
                    [input, &bytes[piece[1]..]].concat(),
                );
            }
            assert_eq!(input, b"", "all of it is taken");
        }
        (None, Vec::new())
    }

    /// The same, and that no cut matters.
    fn taken_anyhow(bytes: &[u8]) -> (Option<Result<Origin, String>>, Vec<u8>) {
        let whole = taken(bytes, &[]);
        let by_bytes: Vec<usize> = (1..bytes.len()).collect();
        for cuts in (1..bytes.len()).map(|cut| vec![cut]).chain([by_bytes]) {
            let (outcome, left) = taken(bytes, &cuts);
            assert_eq!(outcome, whole.0, "cut at {cuts:?}");
            assert!(!matches!(outcome, Some(Ok(_))) || left == whole.1, "cut at {cuts:?}");
        }
        whole
    }

    #[test]
    fn the_origin_of_a_connection_is_read_and_what_follows_is_left() {
        let v6: Vec<u8> = [&[0x20, 1, 0x0d, 0xb8], &[0; 11][..], &[7], &[0; 15], &[1], &[0, 9, 0, 80]].concat();
        let from_v6 = Origin::Client {
            source: "[2001:db8::7]:9".parse().unwrap(),
            destination: "[::1]:80".parse().unwrap(),
            name: None,
        };
        for (bytes, origin) in [
            (header(0x21, 0x11, FROM_V4), client(None)),
            (header(0x21, 0x21, &v6), from_v6),
            (header(0x20, 0, b""), Origin::Proxy),
            (header(0x20, 0x11, FROM_V4), Origin::Proxy),
            (header(0x20, 0xff, b"whatever comes"), Origin::Proxy),
            (header(0x20, 0, &[b'x'; LENGTH_MAX]), Origin::Proxy),
            (header(0x21, 0, b""), Origin::Unknown),
            (header(0x21, 0, b"ignored"), Origin::Unknown),
            (header(0x21, 0x10, b""), Origin::Unknown),
            (header(0x21, 0x31, &[b'/'; 216]), Origin::Unknown),
            (header(0x21, 0x12, FROM_V4), Origin::Unknown),
            (with_values(&value(0x04, b"padding")), client(None)),
            (with_sum(&value(0x05, b"an id")), client(None)),
            (with_values(&tls(7, 0, "alice")), client(Some("alice"))),
            (with_sum(&tls(5, 0, "alice")), client(Some("alice"))),
            (with_values(&tls(1, 0, "nobody")), client(None)),
            (with_values(&tls(7, 1, "mallory")), client(None)),
        ] {
            for rest in [&b""[..], b"name\n", SIGNATURE] {
                let (outcome, left) = taken_anyhow(&[&bytes, rest].concat());
                assert_eq!((outcome, &left[..]), (Some(Ok(origin.clone())), rest), "{}", bytes.escape_ascii());
            }
            for cut in 0..bytes.len() {
                assert_eq!(taken(&bytes[..cut], &[]).0, None, "{cut} bytes of {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_and_says_why() {
        let damaged = |at: usize| {
            let mut bytes = with_sum(&value(0x04, b"padding"));
            bytes[at] ^= 1;
            bytes
        };
        for (bytes, words) in [
            (b"notes.txt\n".to_vec(), "PROXY v2 header first"),
            (b"\r\nx".to_vec(), "PROXY v2 header first"),
            (b"PROXYx".to_vec(), "PROXY v2 header first"),
            (b"\x16\x03\x01".to_vec(), "PROXY v2 header first"),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 9 80\r\n".to_vec(), "version 1"),
            (header(0x11, 0x11, FROM_V4), "unknown version"),
            (header(0x22, 0x11, FROM_V4), "unknown version"),
            (header(0x31, 0xff, FROM_V4), "unknown version"),
            (header(0x21, 0x41, FROM_V4), "unknown family"),
            (header(0x21, 0x13, FROM_V4), "unknown family"),
            (header(0x21, 0x11, &[0; LENGTH_MAX + 1]), "longer than the 536"),
            (header(0x20, 0x11, &[0; 65_535]), "longer than the 536"),
            (header(0x21, 0x11, &FROM_V4[1..]), "too short"),
            (header(0x21, 0x21, FROM_V4), "too short"),
            (header(0x21, 0x31, FROM_V4), "too short"),
            (with_values(b"\x04\0"), "longer than the header"),
            (with_values(b"\x04\0\x01"), "longer than the header"),
            (with_values(&value(SSL, &[1, 0, 0, 0])), "too little of TLS"),
            (with_values(&value(SSL, b"\x01\0\0\0\0\x22\0\x09name")), "longer than the header"),
            (with_values(&value(CRC32C, b"abc")), "checksum"),
            (damaged(16), "checksum"),
            (damaged(31), "checksum"),
            (damaged(with_sum(&value(0x04, b"padding")).len() - 1), "checksum"),
        ] {
            let bytes = &bytes[..bytes.len().min(600)];
            let Some(Err(said)) = taken_anyhow(bytes).0 else { panic!("{} is taken", bytes.escape_ascii()) };
            assert!(said.contains(words), "{}: {said}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_cut_of_anything_matters(
            command in prop_oneof![Just(0x20), Just(0x21), any::<u8>()],
            kind in prop_oneof![Just(0x11), Just(0x21), any::<u8>()],
            block in prop::collection::vec(any::<u8>(), 0..80),
            more in 0..4_u8,
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            // Sometimes longer than it says, or shorter.
            let mut bytes = [header(command, kind, &block), rest].concat();
            bytes[15] = bytes[15].saturating_add(more);
            taken_anyhow(&bytes);
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            taken_anyhow(&bytes);
            taken_anyhow(&[&SIGNATURE[..], &bytes].concat());
            taken_anyhow(&with_values(&bytes));
        }
    }
}

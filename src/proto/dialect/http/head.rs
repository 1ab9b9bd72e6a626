//! The head of a request: where it ends, and its parts.
//!
//! Proxies stand in front of a server. If the two find the ends of requests in different places, one client can have a
//! request of its own taken for another's (RFC 9112, 11.2). So the head is read strictly: each line ends with CR LF, no
//! line is folded, no space stands before a colon, and the bytes that other programs mend are refused. [`scan`] sees to
//! the first two, looking at each byte once; `httparse` reads what has passed it.
//!
//! Knows the grammar of a head, and not what its fields mean.

use super::status;
use crate::proto::dialect::scan::Scan;
use crate::proto::{Code, Refusal};

/// The longest head, in bytes. Browsers send one or two KiB, proxies add some; what is longer is cookies, or no use.
const MAX_BYTES: usize = 16 << 10;
/// The most fields. Browsers send twenty.
const MAX_FIELDS: usize = 100;

/// What `head` is, whose last byte was looked at now for the first time.
pub(super) fn scan(head: &[u8]) -> Scan {
    let words = match head {
        _ if head.len() > MAX_BYTES => return too_large("the head of a request is at most 16 KiB"),
        [b'\r' | b'\n', ..] => "an empty line is no request",
        [.., b'\r', b'\n', b'\r', b'\n'] => return Scan::Whole,
        [.., b'\r', b'\n'] => return Scan::More,
        [.., b'\n'] => "a line of the head ends with CR LF, not with LF alone",
        [.., b'\r', _] => "a CR in the head is followed by LF",
        [.., b'\n', b' ' | b'\t'] => "a field is one line; folded ones are not taken",
        [.., 0..=8 | 11 | 12 | 14..=31 | 127] => "the head holds a control character",
        _ => return Scan::More,
    };
    Scan::Bad(bad(words))
}

/// How many bytes at the front of `input` follow `head` without a need to [`scan`] after each of them.
pub(super) fn plain(head: &[u8], input: &[u8]) -> usize {
    if matches!(head.last(), Some(b'\r' | b'\n')) {
        return 0;
    }
    let room = MAX_BYTES.saturating_sub(head.len()).min(input.len());
    let is_plain = |byte: &u8| (*byte >= b' ' && *byte != 127) || *byte == b'\t';
    input[..room].iter().position(|byte| !is_plain(byte)).unwrap_or(room)
}

/// A broken grammar.
pub(super) fn bad(words: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::BAD_REQUEST, words)
}

fn too_large(words: &'static str) -> Scan {
    Scan::Bad(Refusal::new(status::HEAD_TOO_LARGE, words))
}

/// A head that keeps the grammar.
pub(super) struct Parsed<'h> {
    pub(super) method: &'h str,
    pub(super) target: &'h str,
    /// HTTP/1.0, and not 1.1.
    pub(super) is_1_0: bool,
    pub(super) fields: Fields<'h>,
}

impl<'h> Parsed<'h> {
    /// Reads a whole head.
    ///
    /// # Errors
    /// 505 for another version, 431 for too many fields, 400 for a broken grammar.
    pub(super) fn read(head: &'h [u8]) -> Result<Self, Refusal> {
        let is_1_0 = version(head)?;
        let mut lines = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut lines);
        match request.parse(head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err(bad("the head ends before its end")),
            Err(error) => return Err(refused(error)),
        }
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(bad("a request begins with METHOD TARGET HTTP/1.1"));
        };
        let fields = Fields { head, lines: request.headers.to_vec() };
        Ok(Self { method, target, is_1_0, fields })
    }
}

/// Whether `head` is one of HTTP/1.0.
fn version(head: &[u8]) -> Result<bool, Refusal> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(_), Some(b"HTTP/1.1"), None) => Ok(false),
        (Some(_), Some(_), Some(b"HTTP/1.0"), None) => Ok(true),
        (Some(_), Some(_), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::new(status::VERSION, "HTTP/1.1 and HTTP/1.0 are spoken here"))
        }
        _ => Err(bad("a request begins with METHOD TARGET HTTP/1.1, and one space between them")),
    }
}

fn refused(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(status::HEAD_TOO_LARGE, "a request has at most 100 fields"),
        httparse::Error::HeaderName => bad("a field is NAME: VALUE, and no space stands before its colon"),
        httparse::Error::Token => bad("the method or the target holds a character that none of them may hold"),
        error => bad(format!("the head cannot be read: {error}")),
    }
}

/// The fields of a head. Their names are compared without regard to case (RFC 9110, 5.1).
pub(super) struct Fields<'h> {
    head: &'h [u8],
    lines: Vec<httparse::Header<'h>>,
}

impl<'h> Fields<'h> {
    /// The values of all lines with this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'h [u8]> + 'a {
        self.lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
    }

    /// The value of a field that may be there once at most.
    ///
    /// # Errors
    /// 400 where it is there twice, even with one value.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&'h [u8]>, Refusal> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(bad(format!("there is one {name} at most"))),
        }
    }

    /// As [`Fields::one`], as text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'h str>, Refusal> {
        let words = || bad(format!("{name} is not ASCII"));
        let value = self.one(name)?.map(|value| std::str::from_utf8(value).ok().filter(|value| value.is_ascii()));
        value.map(|value| value.ok_or_else(words)).transpose()
    }

    /// The members of a list, which may be spread over several lines (RFC 9110, 5.6.1).
    pub(super) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'h [u8]> + 'a {
        let members = self.all(name).flat_map(|value| value.split(|byte| *byte == b','));
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    /// Whether a list has this member, in any case.
    pub(super) fn lists(&self, name: &str, member: &str) -> bool {
        self.list(name).any(|listed| listed.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Whether white space follows `value` in its line. The grammar allows it, and programs differ in what they make of
    /// it in a length.
    pub(super) fn is_padded(&self, value: &[u8]) -> bool {
        let end = value.as_ptr().addr() + value.len() - self.head.as_ptr().addr();
        self.head.get(end) != Some(&b'\r')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(head: &str) -> Result<(), u16> {
        Parsed::read(head.as_bytes()).map(|_| ()).map_err(|refusal| refusal.code.0)
    }

    /// How many bytes are looked at until the scan knows, and what it knows then.
    fn scanned(input: &[u8]) -> (usize, Option<u16>) {
        for end in 1..=input.len() {
            match scan(&input[..end]) {
                Scan::More => {}
                Scan::Whole => return (end, None),
                Scan::Bad(refusal) => return (end, Some(refusal.code.0)),
            }
        }
        panic!("it does not end: {}", input.escape_ascii());
    }

    #[test]
    fn a_head_ends_with_its_empty_line_and_is_refused_at_the_byte_that_tells() {
        for (input, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nmore"[..], (27, None)),
            (b"GET / HTTP/1.1\n", (15, Some(400))),
            (b"GET / HTTP/1.1\r\nA: b\n", (21, Some(400))),
            (b"GET / HTTP/1.1\rX", (16, Some(400))),
            (b"GET / HTTP/1.1\r\r", (16, Some(400))),
            (b"GET / HTTP/1.1\r\nA: b\r\n c", (23, Some(400))),
            (b"GET / HTTP/1.1\r\n\tA: b", (17, Some(400))),
            (b"GET / HTTP/1.1\r\nA: b\0c", (21, Some(400))),
            (b"GET /\x7f", (6, Some(400))),
            (b"\r\nGET /", (1, Some(400))),
        ] {
            assert_eq!(scanned(input), expected, "{}", input.escape_ascii());
        }
        let long = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'x'; 20_000]].concat();
        assert_eq!(scanned(&long), (MAX_BYTES + 1, Some(431)));
    }

    #[test]
    fn what_is_plain_never_has_to_be_scanned() {
        let mut input = Vec::from(*b"GET / HTTP/1.1\r\nA: b\tc \xc3\xa9\r\n x\0\x1f\x7f");
        input.resize(MAX_BYTES + 10, b'x');
        for start in 1..input.len() {
            let (head, rest) = input.split_at(start);
            for end in start + 1..=start + plain(head, rest) {
                assert!(matches!(scan(&input[..end]), Scan::More), "{start} {end}");
            }
        }
    }

    #[test]
    fn only_two_versions_are_spoken() {
        for (line, expected) in [
            ("GET / HTTP/1.1", Ok(())),
            ("GET / HTTP/1.0", Ok(())),
            ("GET / HTTP/2.0", Err(505)),
            ("PRI * HTTP/2.0", Err(505)),
            ("GET / HTTP/1.2", Err(505)),
            ("GET / HTTP/0.9", Err(505)),
            ("GET /", Err(400)),
            ("GET / ", Err(400)),
            ("GET / http/1.1", Err(400)),
            ("GET / HTTP/1.1 ", Err(400)),
            ("GET  / HTTP/1.1", Err(400)),
            ("GET / x HTTP/1.1", Err(400)),
            ("GET / HTTP/11", Err(400)),
            ("G\u{e9}T / HTTP/1.1", Err(400)),
            ("GET /\u{e9} HTTP/1.1", Ok(())),
        ] {
            assert_eq!(code(&format!("{line}\r\n\r\n")), expected, "{line}");
        }
    }

    #[test]
    fn a_field_is_a_name_a_colon_and_a_value() {
        for (field, expected) in [
            ("A: b", Ok(())),
            ("A:b", Ok(())),
            ("A:", Ok(())),
            ("A : b", Err(400)),
            ("A\t: b", Err(400)),
            ("A b: c", Err(400)),
            (": b", Err(400)),
            ("A", Err(400)),
            ("A(: b", Err(400)),
        ] {
            assert_eq!(code(&format!("GET / HTTP/1.1\r\n{field}\r\n\r\n")), expected, "{field}");
        }
        let fields = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!((code(&fields(100)), code(&fields(101))), (Ok(()), Err(431)));
    }

    #[test]
    fn fields_are_found_in_any_case_and_lists_over_several_lines() {
        let head = b"GET / HTTP/1.1\r\nConnection: a, B ,,\r\nx: 1\r\nconnection: c\r\nX: 1\r\nY: 2 \r\nZ:  3\r\n\r\n";
        let Ok(Parsed { fields, .. }) = Parsed::read(head) else { panic!("it keeps the grammar") };
        let listed: Vec<_> = fields.list("CONNECTION").collect();
        assert_eq!(listed, [&b"a"[..], b"B", b"c"]);
        assert!(fields.lists("connection", "b") && !fields.lists("connection", "d"));
        assert!(fields.one("X").is_err());
        let padded = |name| fields.is_padded(fields.one(name).unwrap().unwrap());
        assert_eq!((padded("Y"), padded("Z")), (true, false));
        assert_eq!(fields.one("W").unwrap(), None);
    }
}

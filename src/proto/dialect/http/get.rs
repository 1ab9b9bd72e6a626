//! Requests to read something, for a listener that takes no uploads.
//!
//! The same strict head and the same answers as for uploads, and less that may be asked for: GET and HEAD. Knows neither what
//! can be read nor what a path means.

use super::answer::{Answer, Saying, refused};
use super::asked::Asked;
use super::framing::Framing;
use super::head::{self, Parsed, bad};
use super::status::NOT_ALLOWED;
use crate::proto::dialect::scan::Scan;
use crate::proto::{Code, Refusal};

/// A request to read something.
///
/// ```
/// use intake::proto::{Code, Get};
///
/// assert!(Get::read(b"GET /healthz HTTP/1.1\r\nHost: a\r\n").is_none(), "its head is not whole");
/// let (get, length) = Get::read(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /").unwrap();
/// assert_eq!((get.path(), length), (Ok("/healthz"), 34));
/// let answer = String::from_utf8(get.answer(Code(200), "text/plain", b"ok\n", 0)).unwrap();
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"));
/// ```
#[derive(Debug)]
pub struct Get {
    asked: Asked,
    path: Result<String, Refusal>,
}

impl Get {
    /// Reads the first request of `input`, and returns the length of its head too. `None`: it is not whole. A request that
    /// cannot be answered as it wishes is one that is refused, and maybe the last one.
    pub fn read(input: &[u8]) -> Option<(Self, usize)> {
        let mut length = 0;
        while length < input.len() {
            length += head::plain(&input[..length], &input[length..]).max(1);
            match head::scan(&input[..length]) {
                Scan::More => {}
                Scan::Whole => {
                    let mut asked = Asked::default();
                    let path = read(&input[..length], &mut asked);
                    return Some((Self { asked, path }, length));
                }
                Scan::Bad(refusal) => {
                    let asked = Asked { is_last: true, ..Asked::default() };
                    return Some((Self { asked, path: Err(refusal) }, length));
                }
            }
        }
        None
    }

    /// The path that is asked for, without a query.
    ///
    /// # Errors
    /// The reason why the request is refused.
    pub fn path(&self) -> Result<&str, &Refusal> {
        self.path.as_deref()
    }

    /// Whether no further request may follow on the connection.
    pub fn is_last(&self) -> bool {
        self.asked.is_last
    }

    /// The answer with this status and this content of a media type. `now`: in seconds since the epoch.
    pub fn answer(&self, status: Code, kind: &str, content: &[u8], now: u64) -> Vec<u8> {
        self.spell(Answer::new(status).content(kind, content), now)
    }

    /// The answer that says why it is refused.
    pub fn refuse(&self, refusal: &Refusal, now: u64) -> Vec<u8> {
        let answer = refused(refusal, &self.asked);
        let answer = if refusal.code == NOT_ALLOWED { answer.field("Allow", "GET, HEAD") } else { answer };
        self.spell(answer, now)
    }

    fn spell(&self, answer: Answer, now: u64) -> Vec<u8> {
        let mut spelled = Vec::new();
        answer.spell(&self.asked, Saying { now, is_last: false }, &mut spelled);
        spelled
    }
}

/// # Errors
/// As [`Get::path`].
fn read(head: &[u8], asked: &mut Asked) -> Result<String, Refusal> {
    // Where a head that is refused ends is in doubt.
    asked.is_last = true;
    let parsed = Parsed::read(head)?;
    let framing = Framing::read(&parsed)?;
    if !parsed.is_1_0 {
        parsed.fields.one("Host")?.ok_or_else(|| bad("a request has one Host"))?;
    }
    *asked = Asked::of(&parsed);
    asked.is_last |= framing.has_content();
    if !matches!(parsed.method, "GET" | "HEAD") {
        return Err(Refusal::new(NOT_ALLOWED, "this is only read: GET or HEAD"));
    }
    let path = match parsed.target.strip_prefix("http://") {
        Some(rest) => &rest[rest.find('/').unwrap_or(rest.len())..],
        None => parsed.target,
    };
    Ok(path.split('?').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> (Result<String, u16>, usize, bool) {
        let (get, length) = Get::read(input.as_bytes()).unwrap_or_else(|| panic!("it is whole: {input}"));
        (get.path().map(str::to_owned).map_err(|refusal| refusal.code.0), length, get.is_last())
    }

    #[test]
    fn only_reading_is_asked_for() {
        for (line, expected) in [
            ("GET /metrics HTTP/1.1", Ok("/metrics")),
            ("HEAD /metrics HTTP/1.1", Ok("/metrics")),
            ("GET /metrics?a=b HTTP/1.1", Ok("/metrics")),
            ("GET http://h/metrics HTTP/1.1", Ok("/metrics")),
            ("GET /a%20b HTTP/1.1", Ok("/a%20b")),
            ("PUT /metrics HTTP/1.1", Err(405)),
            ("POST / HTTP/1.1", Err(405)),
            ("OPTIONS * HTTP/1.1", Err(405)),
            ("GET /metrics HTTP/2.0", Err(505)),
            ("GET  /metrics HTTP/1.1", Err(400)),
        ] {
            let head = format!("{line}\r\nHost: h\r\n\r\n");
            let (path, length, _) = read(&head);
            assert_eq!((path, length), (expected.map(str::to_owned), head.len()), "{line}");
        }
        assert_eq!(read("GET / HTTP/1.1\r\n\r\n").0, Err(400), "it has no Host");
    }

    #[test]
    fn every_split_of_a_request_is_read_alike() {
        let head = b"GET /metrics HTTP/1.1\r\nHost: h\r\nAccept: a/b\r\n\r\n";
        for end in 0..head.len() {
            assert!(Get::read(&head[..end]).is_none(), "{end}");
        }
        let more = [&head[..], b"GET /"].concat();
        assert_eq!(Get::read(&more).unwrap().1, head.len());
    }

    #[test]
    fn a_request_after_which_the_next_is_not_found_is_the_last() {
        for (head, is_last) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", false),
            ("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", false),
            ("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true),
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", true),
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", true),
        ] {
            assert_eq!(read(head).2, is_last, "{head}");
        }
    }

    #[test]
    fn an_answer_tells_what_may_be_asked_and_a_head_has_no_content() {
        let answer = |head: &str| {
            let (get, _) = Get::read(head.as_bytes()).unwrap();
            let answer = match get.path() {
                Ok(_) => get.answer(Code(200), "text/plain", b"12345", 0),
                Err(refusal) => get.refuse(refusal, 0),
            };
            String::from_utf8(answer).unwrap()
        };
        let refused = answer("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
        let head = answer("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(head.ends_with("\r\n\r\n") && head.contains("\r\nContent-Length: 5\r\n"), "{head}");
    }
}

//! The answers of a server, byte by byte: their status, their first words, and where they end (RFC 9112, 6.3).
//!
//! Interim answers (1xx) other than `100 Continue` are skipped. Only the beginning of a body is kept, and a long body is not
//! read to its end: the connection is then good for nothing more.
//!
//! Knows no request. Whether an answer is possible now is the conversation's.

use std::mem;
use std::str;

use httparse::{EMPTY_HEADER, Header, Response};

use super::chunked::{Chunked, Piece};

/// The largest head in bytes, as large as that of a request may be. Servers write a few hundred.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// As many fields as a request may have.
const FIELDS_MAX: usize = 100;
/// One request has one or two interim answers. Many are a server that will never answer.
const INTERIM_MAX: u32 = 16;
/// What is kept of a body, in bytes: more than any line that a server of this protocol writes.
const WORDS_MAX_BYTES: usize = 4096;
/// To read a longer body, in bytes, costs more than another connection.
const BODY_MAX_BYTES: u64 = 64 << 10;

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Heard {
    /// 100: the server waits for the content.
    Continue,
    /// The final answer to one request.
    Answer(Answer),
    /// It is not HTTP, or is framed in a way that can be read in two ways.
    Foreign,
}

/// The final answer to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proto) struct Answer {
    /// From 200 to 599.
    pub(in crate::proto) status: u16,
    /// The reason phrase. It may be empty.
    pub(in crate::proto) reason: String,
    /// `Retry-After`, where it is a number of seconds.
    pub(in crate::proto) retry_seconds: Option<u32>,
    /// `Location`.
    pub(in crate::proto) location: Option<String>,
    /// The beginning of the body.
    pub(in crate::proto) words: Vec<u8>,
    /// Nothing follows it on this connection.
    pub(in crate::proto) is_last: bool,
}

/// Reads the answers of one connection.
#[derive(Debug, Default)]
pub(in crate::proto) struct Answers {
    /// The head as far as it has come.
    head: Vec<u8>,
    /// How many interim answers came before the final one.
    interim: u32,
    /// The answer whose body is being read.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    answer: Answer,
    framing: Framing,
    /// How much of the body has come, in bytes.
    body_bytes: u64,
}

/// What ends a body.
#[derive(Debug)]
enum Framing {
    /// This many more bytes.
    Sized(u64),
    Chunked(Chunked),
    EndOfStream,
}

impl Answers {
    /// Takes bytes from the front of `input` until there is something to tell. `None`: all of it is taken.
    pub(in crate::proto) fn take(&mut self, input: &mut &[u8]) -> Option<Heard> {
        loop {
            if let Some(begun) = &mut self.begun {
                let is_whole = match begun.take(input) {
                    Ok(is_whole) => is_whole,
                    Err(Broken) => return Some(Heard::Foreign),
                };
                if !is_whole {
                    return None;
                }
                return self.begun.take().map(|begun| Heard::Answer(begun.answer));
            }
            match self.take_head(input)? {
                Ok(None) => {}
                Ok(Some(heard)) => return Some(heard),
                Err(Broken) => return Some(Heard::Foreign),
            }
        }
    }

    /// The stream has ended, by a reset unless it `is_clean`. Returns the answer that had begun: a success if it is whole,
    /// and anything else even if its words are cut off.
    pub(in crate::proto) fn end_of_stream(&mut self, is_clean: bool) -> Option<Answer> {
        let Begun { answer, framing, .. } = self.begun.take()?;
        let is_whole = is_clean && matches!(framing, Framing::EndOfStream);
        (is_whole || answer.status >= 300).then_some(Answer { is_last: true, ..answer })
    }

    /// Takes bytes until a head is whole. `None`: there is more to come. An interim answer may have nothing to tell.
    fn take_head(&mut self, input: &mut &[u8]) -> Option<Result<Option<Heard>, Broken>> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if !may_follow(&self.head, byte) || self.head.len() == HEAD_MAX_BYTES {
                return Some(Err(Broken));
            }
            self.head.push(byte);
            if self.head.ends_with(b"\r\n\r\n") {
                let head = mem::take(&mut self.head);
                return Some(read(&head).and_then(|head| self.begin(head)));
            }
        }
        None
    }

    fn begin(&mut self, head: Head) -> Result<Option<Heard>, Broken> {
        match head {
            Head::Interim(100..=199) if self.interim == INTERIM_MAX => Err(Broken),
            // The connection would be another protocol's from here on.
            Head::Interim(101) => Err(Broken),
            Head::Interim(status) => {
                self.interim += 1;
                Ok((status == 100).then_some(Heard::Continue))
            }
            Head::Final(answer, framing) => {
                self.interim = 0;
                self.begun = Some(Begun { answer, framing, body_bytes: 0 });
                Ok(None)
            }
        }
    }
}

impl Begun {
    /// Takes what belongs to the body. Returns whether it is whole, or long enough.
    fn take(&mut self, input: &mut &[u8]) -> Result<bool, Broken> {
        loop {
            let piece = match &mut self.framing {
                Framing::Sized(0) => return Ok(true),
                Framing::Sized(left) => {
                    let (piece, rest) = input.split_at((*left).min(input.len() as u64) as usize);
                    *input = rest;
                    *left -= piece.len() as u64;
                    piece
                }
                Framing::Chunked(chunks) => match chunks.take(input).map_err(|_| Broken)? {
                    Some(Piece::End) => return Ok(true),
                    Some(Piece::Content(piece)) => piece,
                    None => return Ok(false),
                },
                Framing::EndOfStream => mem::take(input),
            };
            if piece.is_empty() {
                return Ok(matches!(self.framing, Framing::Sized(0)));
            }
            let room = WORDS_MAX_BYTES.saturating_sub(self.answer.words.len());
            self.answer.words.extend_from_slice(&piece[..piece.len().min(room)]);
            self.body_bytes += piece.len() as u64;
            if self.body_bytes > BODY_MAX_BYTES {
                self.answer.is_last = true;
                return Ok(true);
            }
        }
    }
}

/// What is received is no answer.
#[derive(Debug)]
struct Broken;

/// A head that is whole.
enum Head {
    Interim(u16),
    Final(Answer, Framing),
}

/// Whether `byte` may come after `head`. What is not HTTP is told from it at the first byte that differs. A line ends with
/// CR LF, and neither stands anywhere else.
fn may_follow(head: &[u8], byte: u8) -> bool {
    const START: &[u8] = b"HTTP/1.";
    match (START.get(head.len()), head.last()) {
        (Some(expected), _) => byte == *expected,
        (None, Some(b'\r')) => byte == b'\n',
        (None, _) => byte != b'\n' && byte != 0,
    }
}

fn read(head: &[u8]) -> Result<Head, Broken> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut response = Response::new(&mut fields);
    // The end of the head was found, so it is whole.
    response.parse(head).map_err(|_| Broken)?;
    let (Some(status), Some(version)) = (response.code, response.version) else { return Err(Broken) };
    let fields = &*response.headers;
    match status {
        100..=199 => return Ok(Head::Interim(status)),
        200..=599 => {}
        _ => return Err(Broken),
    }
    let framing = framing(status, version, fields)?;
    // HTTP/1.0 closes after every answer, unless it was asked not to, and it is not.
    let is_last = version == 0 || matches!(framing, Framing::EndOfStream) || has_token(fields, "Connection", "close");
    let answer = Answer {
        status,
        reason: response.reason.unwrap_or_default().to_owned(),
        retry_seconds: only(fields, "Retry-After")?.and_then(|value| value.parse().ok()),
        location: only(fields, "Location")?.map(str::to_owned),
        words: Vec::new(),
        is_last,
    };
    Ok(Head::Final(answer, framing))
}

/// RFC 9112, 6.3. Two ways to say where a body ends are an error, whichever of them would be taken.
fn framing(status: u16, version: u8, fields: &[Header<'_>]) -> Result<Framing, Broken> {
    let (length, coding) = (only(fields, "Content-Length")?, only(fields, "Transfer-Encoding")?);
    match (length, coding) {
        (Some(_), Some(_)) => Err(Broken),
        _ if matches!(status, 204 | 304) => Ok(Framing::Sized(0)),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && version == 1 => {
            Ok(Framing::Chunked(Chunked::default()))
        }
        (None, Some(_)) => Err(Broken),
        (Some(digits), None) => parse_length(digits).map(Framing::Sized).ok_or(Broken),
        (None, None) => Ok(Framing::EndOfStream),
    }
}

fn parse_length(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The value of a field that may be there once.
fn only<'a>(fields: &[Header<'a>], name: &str) -> Result<Option<&'a str>, Broken> {
    let mut values = values(fields, name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => str::from_utf8(value).map(Some).map_err(|_| Broken),
        (Some(_), Some(_)) => Err(Broken),
    }
}

fn values<'a>(fields: &[Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii())
}

fn has_token(fields: &[Header<'_>], name: &str, token: &str) -> bool {
    values(fields, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|each| each.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, reason: &str, words: &[u8]) -> Answer {
        Answer { status, reason: reason.into(), words: words.into(), ..Answer::default() }
    }

    /// What is heard of `stream`, in pieces that end at `cuts`, and how much of it is taken.
    fn hear(stream: &[u8], cuts: &[usize]) -> (Vec<Heard>, usize) {
        let (mut answers, mut heard, mut taken) = (Answers::default(), Vec::new(), 0);
        let ends = cuts.iter().copied().chain([stream.len()]);
        let mut start = 0;
        for end in ends {
            let mut input = &stream[start..end];
            start = end;
            while let Some(each) = answers.take(&mut input) {
                let is_foreign = each == Heard::Foreign;
                heard.push(each);
                if is_foreign {
                    return (heard, end - input.len());
                }
            }
            taken = end - input.len();
        }
        heard.extend(answers.end_of_stream(true).map(Heard::Answer));
        (heard, taken)
    }

    fn scripts() -> Vec<(&'static [u8], Vec<Heard>)> {
        let said = |answer| vec![Heard::Answer(answer)];
        let last = |answer| Answer { is_last: true, ..answer };
        let created = || answer(201, "Created", b"hello");
        vec![
            (b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello", said(created())),
            (b"HTTP/1.1 201 Created\r\ncontent-length:5\t\r\n\r\nhello", said(created())),
            (b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhel", vec![]),
            (b"HTTP/1.1 201 Created\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\nhello", said(last(created()))),
            (b"HTTP/1.0 201 Created\r\nContent-Length: 5\r\n\r\nhello", said(last(created()))),
            (b"HTTP/1.1 201 Created\r\n\r\nhello", said(last(created()))),
            (
                b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nT: u\r\n\r\n",
                said(created()),
            ),
            (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", vec![]),
            (b"HTTP/1.1 204 \r\n\r\n", said(answer(204, "", b""))),
            (b"HTTP/1.1 204\r\nContent-Length: 9\r\n\r\n", said(answer(204, "", b""))),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 104 Upload\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
                vec![Heard::Continue, Heard::Answer(answer(204, "No Content", b""))],
            ),
            (
                b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
                said(Answer { retry_seconds: Some(7), ..answer(503, "Busy", b"") }),
            ),
            (
                b"HTTP/1.1 301 Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
                said(Answer { location: Some("/there".into()), ..answer(301, "Moved", b"") }),
            ),
            // The status is there, and a refusal is not made untrue by half of its words.
            (b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\nno 4", said(last(answer(413, "Too Large", b"no 4")))),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno",
                vec![Heard::Answer(answer(200, "OK", b"")), Heard::Answer(answer(409, "Conflict", b"no"))],
            ),
        ]
    }

    #[test]
    fn answers_end_where_they_say_wherever_they_are_cut() {
        for (stream, expected) in scripts() {
            let shown = stream.escape_ascii();
            assert_eq!(hear(stream, &[]).0, expected, "{shown}");
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    assert_eq!(hear(stream, &[first, second]).0, expected, "{first} {second} {shown}");
                }
            }
            assert_eq!(hear(stream, &(0..stream.len()).collect::<Vec<_>>()).0, expected, "{shown}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_at_the_same_byte_wherever_it_is_cut() {
        let long = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'x'; HEAD_MAX_BYTES]].concat();
        let many = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"A: b\r\n".repeat(FIELDS_MAX + 1), b"\r\n"].concat();
        let streams: [&[u8]; 22] = [
            b"ok",
            b"no 403 HTTP is not spoken here\n",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"http/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200 OK\r\nA: b\rc: d\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
            b"HTTP/1.1 101 Switching\r\n\r\n",
            b"HTTP/1.1 099 Low\r\n\r\n",
            b"HTTP/1.1 600 High\r\n\r\n",
            &long,
            &many,
        ];
        for stream in streams {
            let shown = String::from_utf8_lossy(&stream[..stream.len().min(60)]).into_owned();
            let whole = hear(stream, &[]);
            assert_eq!(whole.0, [Heard::Foreign], "{shown}");
            for cut in (0..=stream.len()).step_by(1 + stream.len() / 500) {
                assert_eq!(hear(stream, &[cut]), whole, "{cut} {shown}");
            }
        }
    }

    #[test]
    fn interim_answers_have_an_end() {
        let interim = b"HTTP/1.1 102 Processing\r\n\r\n";
        let enough = [interim.repeat(INTERIM_MAX as usize), b"HTTP/1.1 204 N\r\n\r\n".to_vec()].concat();
        assert_eq!(hear(&enough, &[]).0, [Heard::Answer(answer(204, "N", b""))]);
        assert_eq!(hear(&enough.repeat(3), &[]).0.len(), 3, "each answer may have as many");
        assert_eq!(hear(&interim.repeat(INTERIM_MAX as usize + 1), &[]).0, [Heard::Foreign]);
    }

    #[test]
    fn a_long_body_is_not_read_to_its_end_and_only_its_beginning_is_kept() {
        let body = vec![b'x'; BODY_MAX_BYTES as usize + 1];
        let sized = [b"HTTP/1.1 404 N\r\nContent-Length: 999999999\r\n\r\n".as_slice(), &body].concat();
        let endless = [b"HTTP/1.1 404 N\r\n\r\n".as_slice(), &body].concat();
        let chunked = [b"HTTP/1.1 404 N\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n".as_slice(), &body].concat();
        for stream in [sized, endless, chunked] {
            let mut answers = Answers::default();
            let Some(Heard::Answer(heard)) = answers.take(&mut &*stream) else { panic!("it is long enough") };
            assert!(heard.is_last && answers.begun.is_none());
            assert_eq!(heard.words.len(), WORDS_MAX_BYTES);
        }
    }
}

//! The dialects: how each request is read, what its client may be told, and how a reply is spelled.
//!
//! A dialect is a row in two tables. [`GRAMMARS`] says which bytes begin a head and how it is read; put and ask share
//! one, classic and line share another, and HTTP has its own. [`Dialect::manners`] says how the content ends and what the
//! client may hear.
//! The conversation ([`super::Receiver`], [`super::Sender`]) follows these rows, and asks for no dialect by name where a
//! row can answer.
//!
//! To add one: a file with its grammar and its spelling, a row in each table, and an arm in each function here that spells.
//!
//! Knows one head and one reply at a time. What may come next is the conversation's.

mod bare;
mod grammar;
mod http;
mod manners;
mod scan;
mod verbs;
mod voice;

use std::mem;

use super::credential::mask_tokens;
use super::{Code, Digest, Refusal, Reply, Request, Rules, Secret, Standing};
pub(super) use grammar::Head;
use grammar::{Grammar, Shape};
pub(super) use http::answer::Saying;
use http::asked::Asked;
pub(super) use http::client::{Answer, Answers, Heard, decode, is_asked, is_chunked};
pub use http::client::{Site, SiteError};
pub use http::get::Get;
pub(super) use http::multipart::{Found, Splitter};
pub use manners::Dialect;
pub(super) use manners::{Chunks, Ok};
use scan::Scan;
pub(super) use voice::Voice;

impl Dialect {
    /// Appends `request` to `out` as a client sends it, whose place is `from`. `is_last`: it is the last one on this connection.
    pub(super) fn spell_request(self, request: &Request, from: Place<'_>, is_last: bool, out: &mut Vec<u8>) {
        let Place { site, token } = from;
        match (self, site) {
            (Self::Classic | Self::Line, _) => bare::spell_request(self, request, out),
            (Self::Put | Self::Ask, _) => verbs::spell_request(self, request, token, out),
            (Self::Http | Self::HttpExpect, Some(site)) => {
                http::client::spell_request(request, site, token, is_last, out)
            }
            (Self::Http | Self::HttpExpect, None) => panic!("a request in HTTP is made to a site"),
            (Self::HttpForm, _) => panic!("no client here sends forms"),
        }
    }

    /// Appends what comes before a chunk of `size` bytes. Size 0 ends the content.
    pub(super) fn spell_chunk(self, size: u64, is_first: bool, out: &mut Vec<u8>) {
        match self {
            Self::Classic | Self::Line => {}
            Self::Put | Self::Ask => verbs::spell_chunk(size, out),
            Self::Http | Self::HttpExpect | Self::HttpForm => http::client::spell_chunk(size, is_first, out),
        }
    }

    /// Appends what follows the content, with the promised digest.
    pub(super) fn spell_end(self, is_chunked: bool, digest: Option<Digest>, out: &mut Vec<u8>) {
        match self {
            Self::Http | Self::HttpExpect if is_chunked => http::client::spell_end(digest, out),
            _ => digest.iter().for_each(|digest| verbs::spell_trailer(digest, out)),
        }
    }
}

impl Voice {
    /// Appends `reply` to `out` as the server sends it.
    pub(super) fn spell(&self, reply: &Reply, saying: Saying, out: &mut Vec<u8>) {
        match (self.dialect, reply) {
            (Dialect::Classic | Dialect::Line, Reply::Ok(_)) => bare::spell_ok(self.dialect, out),
            (dialect, _) if dialect.speaks_http() => match self.asked() {
                Some(asked) => match reply {
                    Reply::Done(receipt) if asked.resumable.is_some() => {
                        http::by_id::spell_stored(receipt, asked, saying, out);
                    }
                    _ => http::answer::spell(reply, asked, saying, out),
                },
                None => http::answer::spell(reply, &Asked::default(), saying, out),
            },
            _ => reply.spell_line(out),
        }
    }

    /// Appends what the server has of a resumable upload to `out`.
    pub(super) fn spell_standing(&self, standing: &Standing, saying: Saying, out: &mut Vec<u8>) {
        if let Some(asked) = self.asked() {
            http::by_id::spell(standing, asked, saying, out);
        }
    }

    /// Appends what tells the client of its resumable upload before the answer to `out`, if it has to be told.
    pub(super) fn spell_announcement(&self, out: &mut Vec<u8>) {
        if let Some(asked) = self.asked() {
            http::by_id::announce(asked, out);
        }
    }

    /// Appends the one answer for all files of a form to `out`.
    pub(super) fn spell_form(&self, replies: &[Reply], saying: Saying, out: &mut Vec<u8>) {
        if let Some(asked) = self.asked() {
            http::answer::spell_form(replies, asked, saying, out);
        }
    }
}

/// What a client's requests have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place<'a> {
    /// The site that is sent to. Only HTTP names it.
    pub(super) site: Option<&'a Site>,
    /// The token that is shown. Classic and line cannot.
    pub(super) token: Option<&'a Secret>,
}

/// The first grammar that reads the beginning of a head reads all of it.
static GRAMMARS: [Grammar; 3] = [verbs::GRAMMAR, http::GRAMMAR, bare::GRAMMAR];

/// A head while it comes in.
///
/// A head that cannot become valid is refused at the first byte that shows it, however the stream is split. So no client
/// sends megabytes behind a line whose first word is wrong.
///
/// The parameter `after` is the dialect of the request before this one, if there was one.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer(Vec<u8>);

impl HeadBuffer {
    /// Takes bytes from the front of `input` until the head is whole. `None`: all of `input` is taken, and there is more to
    /// come.
    pub(super) fn take(&mut self, input: &mut &[u8], after: Option<Dialect>, rules: &Rules) -> Option<Head> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.0.push(byte);
            let grammar = self.grammar(after);
            match self.scan(grammar, after) {
                Scan::More => self.take_plain(grammar, input),
                Scan::Whole => return Some((grammar.read)(&self.0, false, rules)),
                Scan::Bad(refusal) => return Some(Head::Bad(refusal, grammar.speaks.into())),
            }
        }
        None
    }

    /// The client paused. Returns the head if that ends it.
    pub(super) fn end_of_burst(&self, after: Option<Dialect>, rules: &Rules) -> Option<Head> {
        self.ends_with_burst(after).then(|| (self.grammar(after).read)(&self.0, true, rules))
    }

    /// Whether a pause of the client ends the head.
    pub(super) fn ends_with_burst(&self, after: Option<Dialect>) -> bool {
        !self.is_empty() && matches!(self.grammar(after).shape, Shape::Line { ends_with_burst: true, .. })
    }

    /// Whether no byte of it has come.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The dialect of the server's replies until the head is whole.
    pub(super) fn speaks(&self, after: Option<Dialect>) -> Dialect {
        self.grammar(after).speaks
    }

    /// The words of the refusal if the stream ends within the head.
    pub(super) fn cut_off(&self, after: Option<Dialect>) -> &'static str {
        self.grammar(after).cut_off
    }

    /// Its first line, as far as it has come, for the log, without tokens. The lines behind it may be long, or secret.
    pub(super) fn take_line(&mut self, after: Option<Dialect>) -> Vec<u8> {
        let has_lines = matches!(self.grammar(after).shape, Shape::Lines { .. });
        let mut line = mem::take(&mut self.0);
        if has_lines {
            line.truncate(memchr::memchr(b'\r', &line).unwrap_or(line.len()));
        }
        mask_tokens(&mut line);
        line
    }

    fn grammar(&self, after: Option<Dialect>) -> &'static Grammar {
        let reads = |grammar: &&Grammar| (grammar.reads)(&self.0, after);
        GRAMMARS.iter().find(reads).expect("the last grammar reads everything")
    }

    /// What it is at its last byte. Removes the end of a line.
    fn scan(&mut self, grammar: &Grammar, after: Option<Dialect>) -> Scan {
        if let (Err(words), Some(_)) = (grammar.may_follow, after) {
            return Scan::Bad(Refusal::new(Code::BAD_REQUEST, words));
        }
        match grammar.shape {
            Shape::Lines { scan, .. } => scan(&self.0),
            Shape::Line { .. } if self.0.pop_if(|last| *last == b'\n').is_some() => {
                self.0.pop_if(|last| *last == b'\r');
                Scan::Whole
            }
            Shape::Line { refuse_early, .. } => refuse_early(&self.0).map_or(Scan::More, Scan::Bad),
        }
    }

    /// Takes the bytes that need no scan.
    fn take_plain(&mut self, grammar: &Grammar, input: &mut &[u8]) {
        if let Shape::Lines { plain, .. } = grammar.shape {
            let (taken, rest) = input.split_at(plain(&self.0, input));
            self.0.extend_from_slice(taken);
            *input = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Code, Name};

    /// What is taken of `input`, how many bytes are left, and the code of the refusal.
    fn take(input: &[u8], is_first: bool) -> (Vec<u8>, usize, Option<Code>) {
        let (mut head, mut rest) = (HeadBuffer::default(), input);
        let after = (!is_first).then_some(Dialect::Put);
        let refused = match head.take(&mut rest, after, &Rules::default()) {
            Some(Head::Bad(refusal, _)) => Some(refusal.code),
            _ => None,
        };
        (head.take_line(after), rest.len(), refused)
    }

    #[test]
    fn a_head_ends_with_its_line_feed_and_what_follows_is_left() {
        assert_eq!(take(b"name", true), (b"name".to_vec(), 0, None));
        assert_eq!(take(b"name\ncontent", true), (b"name".to_vec(), 7, None));
        assert_eq!(take(b"/bye\r\nmore", false), (b"/bye".to_vec(), 4, None));
    }

    #[test]
    fn it_is_refused_at_the_first_byte_that_tells() {
        let refused = |input: &[u8], taken: usize, code| (input[..taken].to_vec(), input.len() - taken, Some(code));
        assert_eq!(take(b"/pub size=1 a\n", true), refused(b"/pub size=1 a\n", 4, Code::BAD_REQUEST));
        assert_eq!(take(b"name\n", false), refused(b"name\n", 1, Code::BAD_REQUEST));
        let long = [b'x'; 300];
        assert_eq!(take(&long, true), refused(&long, Name::MAX_BYTES + 1, Code::FORBIDDEN));
        let endless = [b"/put ".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(take(&endless, true), refused(&endless, Request::MAX_BYTES, Code::BAD_REQUEST));
    }

    #[test]
    fn only_a_bare_name_ends_with_the_burst() {
        for (head, ends) in [
            ("", false),
            ("a", true),
            ("/", false),
            ("/put size=1 a", false),
            ("/bye", false),
            ("PUT ", true),
            ("PUT /a", false),
        ] {
            assert_eq!(HeadBuffer(head.into()).ends_with_burst(None), ends, "{head}");
        }
    }
}

//! The dialects: how each request is read, what its client may be told, and how a reply is spelled.
//!
//! A dialect is a row in two tables. [`GRAMMARS`] says which bytes begin a head and how it is read; put and ask share
//! one, classic and line share the other. [`Dialect::manners`] says how the content ends and what the client may hear.
//! The conversation ([`super::Receiver`], [`super::Sender`]) follows these rows, and asks for no dialect by name where a
//! row can answer.
//!
//! To add one: a file with its grammar and its spelling, a row in each table.
//!
//! Knows one head and one reply at a time. What may come next is the conversation's.

mod bare;
mod grammar;
mod http;
mod manners;
mod verbs;

use std::mem;

use super::{Digest, NamePolicy, Refusal, Reply, Request};
use grammar::Grammar;
pub(super) use grammar::Head;
pub(super) use http::client::{Answer, Answers, Heard, decode_name, is_chunked};
pub use http::client::{Site, SiteError};
pub use manners::Dialect;
pub(super) use manners::Ok;

impl Dialect {
    /// Appends `request` to `out` as a client sends it to `site`, which only HTTP names. `is_last`: it is the last one on
    /// this connection.
    pub(super) fn spell_request(self, request: &Request, site: Option<&Site>, is_last: bool, out: &mut Vec<u8>) {
        match (self, site) {
            (Self::Classic | Self::Line, _) => bare::spell_request(self, request, out),
            (Self::Put | Self::Ask, _) => verbs::spell_request(self, request, out),
            (Self::Http | Self::HttpExpect, Some(site)) => http::client::spell_request(request, site, is_last, out),
            (Self::Http | Self::HttpExpect, None) => panic!("a request in HTTP is made to a site"),
        }
    }

    /// Appends what stands before `size` bytes of content whose size was not told before. Size 0 ends the content.
    pub(super) fn spell_chunk(self, size: u64, is_first: bool, out: &mut Vec<u8>) {
        match self {
            Self::Classic | Self::Line => {}
            Self::Put | Self::Ask => verbs::spell_chunk(size, out),
            Self::Http | Self::HttpExpect => http::client::spell_chunk(size, is_first, out),
        }
    }

    /// Appends what follows the content: the digest that was promised.
    pub(super) fn spell_end(self, is_chunked: bool, digest: Option<Digest>, out: &mut Vec<u8>) {
        match self {
            Self::Http | Self::HttpExpect if is_chunked => http::client::spell_end(digest, out),
            _ => digest.iter().for_each(|digest| verbs::spell_trailer(digest, out)),
        }
    }

    /// Appends `reply` to `out` as a server sends it.
    pub(super) fn spell(self, reply: &Reply, out: &mut Vec<u8>) {
        match (self, reply) {
            (Self::Classic | Self::Line, Reply::Ok(_)) => bare::spell_ok(self, out),
            _ => reply.spell_line(out),
        }
    }
}

/// In the order in which they are asked.
static GRAMMARS: [Grammar; 2] = [verbs::GRAMMAR, bare::GRAMMAR];

fn grammar_of(head: &[u8]) -> Option<&'static Grammar> {
    GRAMMARS.iter().find(|grammar| !head.is_empty() && (grammar.reads)(head))
}

/// A head while it comes in.
///
/// What can be no head is refused at the byte that tells, and so at the same one however the stream was cut: nobody
/// sends megabytes behind a line that was wrong in its first word.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer(Vec<u8>);

impl HeadBuffer {
    /// Takes bytes from the front of `input` until the head is whole. `None`: all of `input` is taken, and there is more to
    /// come. After the first request of a conversation `is_first` is false.
    pub(super) fn take(&mut self, input: &mut &[u8], is_first: bool, names: NamePolicy) -> Option<Head> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' {
                self.0.pop_if(|last| *last == b'\r');
                return Some(self.read(false, names));
            }
            self.0.push(byte);
            if let Some(refusal) = self.refuse_early(is_first) {
                return Some(Head::Bad(refusal));
            }
        }
        None
    }

    /// The client paused. Returns the head where that ends it.
    pub(super) fn end_of_burst(&self, names: NamePolicy) -> Option<Head> {
        self.ends_with_burst().then(|| self.read(true, names))
    }

    /// Whether a pause of the client ends it.
    pub(super) fn ends_with_burst(&self) -> bool {
        grammar_of(&self.0).is_some_and(|grammar| grammar.ends_with_burst)
    }

    /// Whether nothing has come of it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What has come of it, to be quoted.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        mem::take(&mut self.0)
    }

    fn read(&self, by_burst: bool, names: NamePolicy) -> Head {
        let grammar = grammar_of(&self.0).unwrap_or(&bare::GRAMMAR);
        (grammar.read)(&self.0, by_burst, names)
    }

    fn refuse_early(&self, is_first: bool) -> Option<Refusal> {
        let grammar = grammar_of(&self.0)?;
        match grammar.may_follow {
            Err(words) if !is_first => Some(Refusal::new(super::Code::BAD_REQUEST, words)),
            _ => (grammar.refuse_early)(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Code, Name};

    /// What is taken of `input`, how much is left of it, and why it is refused.
    fn take(input: &[u8], is_first: bool) -> (Vec<u8>, usize, Option<Code>) {
        let (mut head, mut rest) = (HeadBuffer::default(), input);
        let refused = match head.take(&mut rest, is_first, NamePolicy::default()) {
            Some(Head::Bad(refusal)) => Some(refusal.code),
            _ => None,
        };
        (head.take_bytes(), rest.len(), refused)
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
        for (head, ends) in [("", false), ("a", true), ("/", false), ("/put size=1 a", false), ("/bye", false)] {
            assert_eq!(HeadBuffer(head.into()).ends_with_burst(), ends, "{head}");
        }
    }
}

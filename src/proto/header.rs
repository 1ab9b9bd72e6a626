//! The line that begins a conversation or a request, while it comes in.
//!
//! What can be no name and no request is refused at the byte that tells, and so at the same one however the line was
//! cut: nobody sends megabytes behind a line that was wrong in its first word. Does not know what the whole line says.

use super::{Code, Name, NameError, Refusal, Request};

/// The part of a line that is here.
#[derive(Debug, Default)]
pub(super) struct Header(Vec<u8>);

impl Header {
    const VERBS: [&[u8]; 3] = [b"/put ", b"/ask ", b"/bye\r"];

    /// Takes bytes from the front of `input` until the line is whole, its LF and a CR before it taken off. `None`: all of
    /// `input` is taken, and there is more to come. `only_verbs`: a bare name may not come any more.
    pub(super) fn take(&mut self, input: &mut &[u8], only_verbs: bool) -> Option<Result<(), Refusal>> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' {
                self.0.pop_if(|last| *last == b'\r');
                return Some(Ok(()));
            }
            self.0.push(byte);
            if let Some(refusal) = self.refusal(only_verbs) {
                return Some(Err(refusal));
            }
        }
        None
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Why nothing good can come of it any more.
    fn refusal(&self, only_verbs: bool) -> Option<Refusal> {
        let header = self.bytes();
        if header[0] == b'/' {
            let is_or_becomes_verb =
                Self::VERBS.iter().any(|verb| verb.starts_with(header) || header.starts_with(verb));
            let words = if !is_or_becomes_verb {
                "a name carries no path; send the base name, or /put size=BYTES NAME"
            } else if header.len() >= Request::MAX_BYTES {
                "a request is at most 4096 bytes"
            } else {
                return None;
            };
            return Some(Refusal::new(Code::BAD_REQUEST, words));
        }
        if only_verbs {
            return Some(Refusal::new(Code::BAD_REQUEST, "after a /put or /ask only /put, /ask or /bye may come"));
        }
        // The CR of a CR LF is not part of the name.
        let name = header.strip_suffix(b"\r").unwrap_or(header);
        (name.len() > Name::MAX_BYTES).then(|| Refusal::new(Code::FORBIDDEN, NameError::TooLong.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken of `input`, and what becomes of it.
    fn take(mut input: &[u8], only_verbs: bool) -> (Vec<u8>, usize, Option<Result<(), Code>>) {
        let (mut header, length) = (Header::default(), input.len());
        let end = header.take(&mut input, only_verbs);
        (header.into_bytes(), length - input.len(), end.map(|end| end.map_err(|refusal| refusal.code)))
    }

    #[test]
    fn a_line_ends_with_its_line_feed_and_what_follows_is_left() {
        assert_eq!(take(b"name", false), (b"name".to_vec(), 4, None));
        assert_eq!(take(b"name\ncontent", false), (b"name".to_vec(), 5, Some(Ok(()))));
        assert_eq!(take(b"/bye\r\nmore", true), (b"/bye".to_vec(), 6, Some(Ok(()))));
    }

    #[test]
    fn it_is_refused_at_the_first_byte_that_tells() {
        let refused = |taken: &[u8], code| (taken.to_vec(), taken.len(), Some(Err(code)));
        assert_eq!(take(b"/pub size=1 a\n", false), refused(b"/pub", Code::BAD_REQUEST));
        assert_eq!(take(b"name\n", true), refused(b"n", Code::BAD_REQUEST));
        let long = [b'x'; 300];
        assert_eq!(take(&long, false), refused(&long[..Name::MAX_BYTES + 1], Code::FORBIDDEN));
        let endless = [b"/put ".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(take(&endless, false), refused(&endless[..Request::MAX_BYTES], Code::BAD_REQUEST));
    }
}

//! The content of one upload on the wire: where it ends, and whether it is what was promised.
//!
//! It ends in one of three ways: with the stream, after the number of bytes in the request, or after a chunk of length
//! 0, for a client that does not know the size in advance (as in HTTP, RFC 9112, 7.1). Only the last two tell a whole
//! file from a part. A digest may be promised before the content or follow it in a trailer, so that a client reads its
//! file only once.
//!
//! Any split of the same bytes gives the same pieces, and no byte is copied. Does not know what the content is for.

use super::number::parse_number;
use super::request::Promise;
use super::{Algorithm, Code, Digest, Hasher, Refusal};

/// The content of one upload, as it comes in.
#[derive(Debug)]
pub(super) struct Body {
    received: u64,
    /// `None`: it ends with the stream.
    framed: Option<Box<Framed>>,
}

/// Content that tells its own end.
#[derive(Debug)]
struct Framed {
    framing: Framing,
    check: Option<Box<Check>>,
}

/// What comes next.
#[derive(Debug)]
enum Framing {
    /// This many bytes of content, and no more.
    Sized(u64),
    /// This many bytes of a chunk, and then another chunk.
    Chunk(u64),
    /// A chunk's size.
    ChunkSize(Line),
    /// The promised digest.
    Trailer(Line),
    /// Nothing.
    Ended,
}

/// A digest that is being computed, and the promised one.
#[derive(Debug)]
struct Check {
    hasher: Hasher,
    promise: Promise,
}

/// What the input holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes of the file.
    Content(&'a [u8]),
    /// No more bytes belong to it.
    End(End),
}

/// How content ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is whole, and has the digest that was promised.
    Whole(Option<Digest>),
    /// It is whole, and is not what was promised.
    Mismatch(Refusal),
    /// Its framing is broken, or it was cut off.
    Broken(Refusal),
}

impl Body {
    /// Content of `size` bytes, or in chunks.
    pub(super) fn framed(size: Option<u64>, promise: Option<Promise>) -> Self {
        let framing = size.map_or_else(|| Framing::ChunkSize(Line::default()), Framing::Sized);
        let check = promise.map(|promise| Check { hasher: Hasher::new(promise.algorithm()), promise });
        Self { received: 0, framed: Some(Box::new(Framed { framing, check: check.map(Box::new) })) }
    }

    /// Content that ends with the stream.
    pub(super) fn until_end_of_stream() -> Self {
        Self { received: 0, framed: None }
    }

    /// Resumes after `offset` bytes that an earlier connection brought. `hasher` has taken them in.
    pub(super) fn resume(&mut self, offset: u64, hasher: Hasher) {
        let Some(Framed { framing: Framing::Sized(left), check: Some(check) }) = self.framed.as_deref_mut() else {
            unreachable!("only content with a size and a digest can be resumed")
        };
        *left -= offset;
        self.received = offset;
        check.hasher = hasher;
    }

    /// Has taken in all of the content so far, where a digest was promised and is still to be compared.
    pub(super) fn hasher(&self) -> Option<&Hasher> {
        self.framed.as_ref()?.check.as_ref().map(|check| &check.hasher)
    }

    /// The bytes of content that have come, on this connection and earlier ones.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The size that was told before the content.
    pub(super) fn size(&self) -> Option<u64> {
        match self.framed.as_ref()?.framing {
            Framing::Sized(left) => Some(self.received + left),
            _ => None,
        }
    }

    /// The digest that was told before the content.
    pub(super) fn promised(&self) -> Option<Digest> {
        match self.framed.as_ref()?.check.as_ref()?.promise {
            Promise::Known(digest) => Some(digest),
            Promise::Trailer(_) => None,
        }
    }

    /// The bytes of content that are still to come, as far as that is known.
    pub(super) fn left(&self) -> u64 {
        self.framed.as_ref().map_or(u64::MAX, |framed| framed.left())
    }

    /// The bytes of content still to come that may be spliced: no digest is computed over them, and nothing but content
    /// comes before their end.
    pub(super) fn spliceable(&self) -> u64 {
        if self.framed.as_ref().is_some_and(|framed| framed.check.is_some()) { 0 } else { self.left() }
    }

    /// `count` bytes of [`Body::spliceable`] were spliced into the file.
    pub(super) fn spliced(&mut self, count: u64) {
        if let Some(framed) = &mut self.framed {
            framed.spliced(count);
        }
        self.received += count;
    }

    /// Takes the next piece from the front of `input`. `None`: all of `input` is taken, and more is to come.
    pub(super) fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let piece = match &mut self.framed {
            None => content(input, u64::MAX).map(Piece::Content),
            Some(framed) => framed.receive(input),
        };
        if let Some(Piece::Content(bytes)) = piece {
            self.received += bytes.len() as u64;
        }
        piece
    }

    /// The stream has ended.
    pub(super) fn end_of_stream(&mut self) -> End {
        match self.framed {
            None => End::Whole(None),
            Some(_) => broken("the stream ended before the content did; nothing of it is stored"),
        }
    }
}

impl Framed {
    fn left(&self) -> u64 {
        match self.framing {
            Framing::Sized(left) | Framing::Chunk(left) => left,
            Framing::ChunkSize(_) | Framing::Trailer(_) | Framing::Ended => 0,
        }
    }

    fn spliced(&mut self, count: u64) {
        if let Framing::Sized(left) | Framing::Chunk(left) = &mut self.framing {
            *left -= count;
        }
    }

    fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        loop {
            match &mut self.framing {
                Framing::Sized(0) => {
                    if let Some(end) = self.end_of_content() {
                        return Some(Piece::End(end));
                    }
                }
                Framing::Chunk(0) => self.framing = Framing::ChunkSize(Line::default()),
                Framing::Sized(left) | Framing::Chunk(left) => {
                    let bytes = content(input, *left)?;
                    *left -= bytes.len() as u64;
                    self.check.iter_mut().for_each(|check| check.hasher.update(bytes));
                    return Some(Piece::Content(bytes));
                }
                Framing::ChunkSize(line) => match parse_number(line.take(input)?) {
                    Some(0) => self.framing = Framing::Sized(0),
                    Some(size) => self.framing = Framing::Chunk(size),
                    None => {
                        return Some(Piece::End(broken(
                            "a chunk begins with its size in bytes, 1 to 19 decimal digits",
                        )));
                    }
                },
                Framing::Trailer(line) => {
                    let line = std::mem::take(line.take(input)?);
                    return Some(Piece::End(self.trailer(&line)));
                }
                Framing::Ended => return None,
            }
        }
    }

    /// The last byte of content has come. A trailer may follow.
    fn end_of_content(&mut self) -> Option<End> {
        match self.check.as_ref().map(|check| check.promise) {
            Some(Promise::Trailer(_)) => {
                self.framing = Framing::Trailer(Line::default());
                None
            }
            Some(Promise::Known(promised)) => Some(self.compare(promised)),
            None => {
                self.framing = Framing::Ended;
                Some(End::Whole(None))
            }
        }
    }

    fn trailer(&mut self, line: &str) -> End {
        let promised = line.split_once('=').and_then(|(key, hex)| Digest::parse(Algorithm::parse(key)?, hex));
        let expected = self.check.as_ref().map(|check| check.promise.algorithm());
        match promised.filter(|promised| Some(promised.algorithm()) == expected) {
            Some(promised) => self.compare(promised),
            None => broken("the promised digest must follow the content: crc32c=HEX or sha256=HEX, and a line feed"),
        }
    }

    fn compare(&mut self, promised: Digest) -> End {
        self.framing = Framing::Ended;
        let computed = self.check.take().expect("a digest was promised").hasher.finish();
        if computed == promised {
            return End::Whole(Some(computed));
        }
        let words = format!("the content has {computed}, not {promised} as promised; send it again");
        End::Mismatch(Refusal::new(Code::MISMATCH, words))
    }
}

/// Up to `left` bytes from the front of `input`, or `None` if it is empty.
fn content<'a>(input: &mut &'a [u8], left: u64) -> Option<&'a [u8]> {
    let (content, rest) = input.split_at(input.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
    *input = rest;
    (!content.is_empty()).then_some(content)
}

fn broken(words: &'static str) -> End {
    End::Broken(Refusal::new(Code::BAD_REQUEST, words))
}

/// A short line of ASCII that is being collected.
#[derive(Debug, Default)]
struct Line(String);

impl Line {
    /// The longest line, in bytes: `sha256=` and 64 digits. A longer one breaks the grammar.
    const MAX_BYTES: usize = 80;

    /// Takes bytes from the front of `input` until the line is whole, and removes its LF and a CR before it. A line that
    /// becomes too long counts as whole there; it is not a valid one.
    fn take(&mut self, input: &mut &[u8]) -> Option<&mut String> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' {
                if self.0.ends_with('\r') {
                    self.0.pop();
                }
                return Some(&mut self.0);
            }
            // A byte that is not ASCII becomes a character that no valid line holds.
            self.0.push(char::from(byte));
            if self.0.len() > Self::MAX_BYTES {
                return Some(&mut self.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `input`, cut at `cut`, gives: the content, how it ended, and what is left over.
    fn decode(mut body: Body, input: &[u8], cut: usize) -> (Vec<u8>, Option<End>, Vec<u8>) {
        let mut content = Vec::new();
        let (first, second) = input.split_at(cut);
        for (mut input, rest) in [(first, second), (second, &[][..])] {
            while let Some(piece) = body.receive(&mut input) {
                match piece {
                    Piece::Content(bytes) => content.extend_from_slice(bytes),
                    Piece::End(end) => return (content, Some(end), [input, rest].concat()),
                }
            }
            assert!(input.is_empty());
        }
        (content, None, Vec::new())
    }

    fn each_cut(body: impl Fn() -> Body, input: &[u8], content: &[u8], left: &[u8]) -> Option<End> {
        let whole = decode(body(), input, 0);
        for cut in 0..=input.len() {
            assert_eq!(decode(body(), input, cut), whole, "{:?} cut at {cut}", String::from_utf8_lossy(input));
        }
        assert_eq!((whole.0.as_slice(), whole.2.as_slice()), (content, left));
        whole.1
    }

    const CRC_OF_ABC: Digest = Digest::Crc32c(0x364b_3fb7);

    #[test]
    fn a_sized_body_ends_at_its_size() {
        let whole = Some(End::Whole(None));
        assert_eq!(each_cut(|| Body::framed(Some(3), None), b"abc/put", b"abc", b"/put"), whole);
        assert_eq!(each_cut(|| Body::framed(Some(0), None), b"abc", b"", b"abc"), whole);
        assert_eq!(each_cut(|| Body::framed(Some(4), None), b"abc", b"abc", b""), None);
    }

    #[test]
    fn chunks_end_with_the_empty_one() {
        let whole = Some(End::Whole(None));
        let chunks = b"2\nab\n1\r\nc0\nrest";
        assert_eq!(each_cut(|| Body::framed(None, None), b"2\nab1\r\nc0\nrest", b"abc", b"rest"), whole);
        assert!(matches!(each_cut(|| Body::framed(None, None), chunks, b"ab", b"1\r\nc0\nrest"), Some(End::Broken(_))));
        assert_eq!(each_cut(|| Body::framed(None, None), b"0\n", b"", b""), whole);
    }

    #[test]
    fn a_digest_is_compared_before_or_after() {
        let known = |digest| move || Body::framed(Some(3), Some(Promise::Known(digest)));
        let trailer = || Body::framed(None, Some(Promise::Trailer(Algorithm::Crc32c)));
        let whole = Some(End::Whole(Some(CRC_OF_ABC)));
        assert_eq!(each_cut(known(CRC_OF_ABC), b"abcx", b"abc", b"x"), whole);
        assert_eq!(each_cut(trailer, b"3\nabc0\ncrc32c=364B3FB7\r\nx", b"abc", b"x"), whole);
        let mismatch = each_cut(known(Digest::Crc32c(1)), b"abc", b"abc", b"");
        assert!(matches!(mismatch, Some(End::Mismatch(refusal)) if refusal.code == Code::MISMATCH));
        let mismatch = each_cut(trailer, b"3\nabc0\ncrc32c=00000000\n", b"abc", b"");
        assert!(matches!(mismatch, Some(End::Mismatch(_))));
    }

    #[test]
    fn a_trailer_that_is_none_breaks_the_framing() {
        let trailer = || Body::framed(Some(0), Some(Promise::Trailer(Algorithm::Crc32c)));
        for line in ["\n", "crc32c\n", "crc32c=\n", "crc32c=xyz\n", &format!("sha256={}\n", "0".repeat(64)), "\u{e9}\n"]
        {
            assert!(matches!(each_cut(trailer, line.as_bytes(), b"", b""), Some(End::Broken(_))), "{line:?}");
        }
    }

    #[test]
    fn what_never_ends_its_line_is_cut_off() {
        let line = [b'1'; 1000];
        let (_, end, left) = decode(Body::framed(None, None), &line, 0);
        assert!(matches!(end, Some(End::Broken(_))));
        assert_eq!(left.len(), 1000 - 81);
    }

    #[test]
    fn a_stream_that_ends_is_an_end_only_where_nothing_else_is() {
        assert_eq!(Body::until_end_of_stream().end_of_stream(), End::Whole(None));
        for mut body in [Body::framed(Some(1), None), Body::framed(None, None)] {
            assert!(matches!(body.end_of_stream(), End::Broken(_)));
        }
    }
}

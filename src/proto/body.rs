//! The content of one upload on the wire: where it ends, and whether it is what was promised.
//!
//! It ends in one of four ways: with the stream; after the number of bytes in the request; after a chunk of length 0, for a
//! client that does not know the size in advance; or, for a file of a form, at the next boundary. Only the stream's end does
//! not tell a whole file from a part. A digest may come before the content or follow it in a trailer, so that a client reads
//! its file only once.
//!
//! Chunks have two spellings, the project's own and HTTP's ([`Chunks`]), and are counted in the same way.
//!
//! Any split of the same bytes gives the same content. Nothing is copied but the few bytes of a form that may have begun a
//! boundary. Does not know what the content is for.

pub(super) mod chunked;

use std::borrow::Cow;

use chunked::Trailers;

use super::dialect::{Chunks, Found, Splitter};
use super::number::parse_number;
use super::request::Promise;
use super::{Algorithm, Code, Digest, Hasher, Refusal};

/// The content of one upload, as it comes in. By default it ends with the stream.
#[derive(Debug, Default)]
pub(super) struct Body {
    received: u64,
    /// `None`: it ends with the stream.
    framed: Option<Box<Framed>>,
}

/// Content whose end differs from the end of the stream.
#[derive(Debug)]
struct Framed {
    framing: Framing,
    chunks: Chunks,
    /// The content is a form, and this finds its files.
    form: Option<Splitter>,
    /// The most bytes that there may be, those of earlier connections included.
    max_bytes: u64,
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
    /// In HTTP: the CR LF after a chunk.
    ChunkEnd(Line),
    /// In HTTP: a trailer field, or the empty line after the last one.
    Trailers(Line, Trailers),
    /// In put and ask: the line with the promised digest.
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
    Content(Cow<'a, [u8]>),
    /// In a form: a file begins, under this name, which is not checked yet.
    File(Vec<u8>),
    /// In a form: the file has ended.
    EndOfFile,
    /// All of it has come, or no more will be read.
    End(End),
}

/// How content ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is whole, and has the promised digest, if there is one.
    Whole(Option<Digest>),
    /// It is whole, and does not have the promised digest.
    Mismatch(Refusal),
    /// Its framing is broken, or it was cut off.
    Broken(Refusal),
}

impl Body {
    /// Content of `size` bytes, or in `chunks`.
    pub(super) fn framed(size: Option<u64>, promise: Option<Promise>, chunks: Chunks) -> Self {
        let framing = size.map_or_else(|| Framing::ChunkSize(Line::default()), Framing::Sized);
        let check = promise.map(|promise| Check { hasher: Hasher::new(promise.algorithm()), promise });
        Self {
            received: 0,
            framed: Some(Box::new(Framed {
                framing,
                chunks,
                form: None,
                max_bytes: u64::MAX,
                check: check.map(Box::new),
            })),
        }
    }

    /// A form of `size` bytes, or in chunks.
    pub(super) fn form(size: Option<u64>, splitter: Splitter) -> Self {
        let mut body = Self::framed(size, None, Chunks::Http);
        body.framed.as_mut().expect("it is framed").form = Some(splitter);
        body
    }

    /// Content that ends with the stream.
    pub(super) fn until_end_of_stream() -> Self {
        Self::default()
    }

    /// Resumes after `offset` bytes that an earlier connection brought. `hasher` has taken them in.
    pub(super) fn resume(&mut self, offset: u64, hasher: Hasher) {
        let Some(Framed { framing: Framing::Sized(left), check: Some(check), .. }) = self.framed.as_deref_mut() else {
            unreachable!("only content with a size and a digest can be resumed")
        };
        *left -= offset;
        self.received = offset;
        check.hasher = hasher;
    }

    /// It is a piece, which begins after `offset` bytes of an upload of at most `max_bytes`.
    pub(super) fn begin_at(&mut self, offset: u64, max_bytes: u64) {
        self.received = offset;
        if let Some(framed) = &mut self.framed {
            framed.max_bytes = max_bytes;
        }
    }

    /// Whether more has come than there may be, or will: the size of a chunk tells.
    pub(super) fn is_too_long(&self) -> bool {
        self.framed.as_ref().is_some_and(|framed| self.received.saturating_add(framed.left()) > framed.max_bytes)
    }

    /// Whether it is told to be empty.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.framed.as_deref(), Some(Framed { framing: Framing::Sized(0), .. }))
    }

    /// The state of the digest of all content so far, if a digest is to be compared.
    pub(super) fn hasher(&self) -> Option<&Hasher> {
        self.framed.as_ref()?.check.as_ref().map(|check| &check.hasher)
    }

    /// The bytes of content that have come, on this connection and earlier ones.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The size, if the request gave it.
    pub(super) fn size(&self) -> Option<u64> {
        match self.framed.as_ref()?.framing {
            Framing::Sized(left) => Some(self.received + left),
            _ => None,
        }
    }

    /// The digest, if the request gave it.
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
        let is_looked_at = |framed: &Framed| framed.check.is_some() || framed.form.is_some();
        match self.framed.as_deref() {
            Some(framed) if is_looked_at(framed) || self.is_too_long() => 0,
            Some(framed) => framed.left(),
            None => u64::MAX,
        }
    }

    /// Whether a file of the form has begun.
    pub(super) fn has_files(&self) -> bool {
        self.framed.as_ref().and_then(|framed| framed.form.as_ref()).is_some_and(Splitter::has_files)
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
            None => content(input, u64::MAX).map(|bytes| Piece::Content(bytes.into())),
            Some(framed) => framed.receive(input),
        };
        match &piece {
            Some(Piece::Content(bytes)) => self.received += bytes.len() as u64,
            Some(Piece::File(_)) => self.received = 0,
            _ => {}
        }
        piece
    }

    /// The stream has ended.
    pub(super) fn end_of_stream(&mut self) -> End {
        match self.framed {
            None => End::Whole(None),
            Some(_) => broken("the stream ended before the content did; the file is not stored"),
        }
    }
}

impl Framed {
    fn left(&self) -> u64 {
        match self.framing {
            Framing::Sized(left) | Framing::Chunk(left) => left,
            _ => 0,
        }
    }

    fn spliced(&mut self, count: u64) {
        if let Framing::Sized(left) | Framing::Chunk(left) = &mut self.framing {
            *left -= count;
        }
    }

    fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        if self.form.is_none() {
            return self.receive_content(input).map(|piece| match piece {
                Ok(bytes) => Piece::Content(bytes.into()),
                Err(end) => Piece::End(end),
            });
        }
        loop {
            let before = *input;
            match self.receive_content(input)? {
                Ok(bytes) => {
                    let mut rest = bytes;
                    let piece = self.split(&mut rest);
                    *input = &before[before.len() - input.len() - rest.len()..];
                    if piece.is_some() {
                        return piece;
                    }
                }
                Err(End::Whole(_)) if !self.form.as_ref().is_some_and(Splitter::is_whole) => {
                    return Some(Piece::End(broken(
                        "the form ends before its last boundary; its last file is not stored",
                    )));
                }
                Err(end) => return Some(Piece::End(end)),
            }
        }
    }

    /// The next piece of a form, from the front of `bytes`. The bytes that remain count as not yet received.
    fn split<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        let found = self.form.as_mut()?.receive(bytes);
        if let Framing::Sized(left) | Framing::Chunk(left) = &mut self.framing {
            *left += bytes.len() as u64;
        }
        found.map(|found| match found {
            Found::File(name) => Piece::File(name),
            Found::Content(bytes) => Piece::Content(bytes),
            Found::EndOfFile => Piece::EndOfFile,
            Found::Broken(refusal) => Piece::End(End::Broken(refusal)),
        })
    }

    /// The next bytes of content, or its end.
    fn receive_content<'a>(&mut self, input: &mut &'a [u8]) -> Option<Result<&'a [u8], End>> {
        loop {
            match &mut self.framing {
                Framing::Sized(0) => {
                    if let Some(end) = self.end_of_content() {
                        return Some(Err(end));
                    }
                }
                Framing::Chunk(0) => self.framing = self.chunks.after_chunk(),
                Framing::Sized(left) | Framing::Chunk(left) => {
                    let bytes = content(input, *left)?;
                    *left -= bytes.len() as u64;
                    self.check.iter_mut().for_each(|check| check.hasher.update(bytes));
                    return Some(Ok(bytes));
                }
                Framing::ChunkSize(line) => match self.chunks.framing(line.take(input, self.chunks)?) {
                    Ok(framing) => self.framing = framing,
                    Err(words) => return Some(Err(broken(words))),
                },
                Framing::ChunkEnd(line) => match line.take(input, self.chunks)?.as_str() {
                    "" => self.framing = Framing::ChunkSize(Line::default()),
                    _ => return Some(Err(broken("a chunk is as long as its size says, and ends with CR LF"))),
                },
                Framing::Trailers(line, trailers) => {
                    let line = std::mem::take(line.take(input, self.chunks)?);
                    let told = trailers.told;
                    match line.as_str() {
                        "" => return Some(Err(self.end_of_trailers(told))),
                        line => {
                            if let Err(words) = trailers.add(line) {
                                return Some(Err(broken(words)));
                            }
                        }
                    }
                }
                Framing::Trailer(line) => {
                    let line = std::mem::take(line.take(input, self.chunks)?);
                    return Some(Err(self.trailer(&line)));
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

    /// The empty line after the trailers of HTTP has come. `told`: the digest in the trailers.
    fn end_of_trailers(&mut self, told: Option<Digest>) -> End {
        let promised = self.check.as_ref().map(|check| check.promise);
        match (promised, told) {
            (None, None) => {
                self.framing = Framing::Ended;
                End::Whole(None)
            }
            (None, Some(_)) => broken("a digest that follows the content is announced before it: Trailer: Repr-Digest"),
            (Some(Promise::Trailer(_)), None) => {
                broken("the promised digest must follow: Repr-Digest: sha-256=:BASE64:")
            }
            (Some(Promise::Known(known)), Some(told)) if known != told => {
                broken("the digests before and behind the content differ")
            }
            (Some(Promise::Known(digest)), _) | (Some(Promise::Trailer(_)), Some(digest)) => self.compare(digest),
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

impl Chunks {
    /// What comes after a chunk.
    fn after_chunk(self) -> Framing {
        match self {
            Self::Lines => Framing::ChunkSize(Line::default()),
            Self::Http => Framing::ChunkEnd(Line::default()),
        }
    }

    /// What comes after the line with a chunk's size.
    fn framing(self, line: &str) -> Result<Framing, &'static str> {
        match (self, self.size(line)) {
            (Self::Lines, Some(0)) => Ok(Framing::Sized(0)),
            (Self::Http, Some(0)) => Ok(Framing::Trailers(Line::default(), Trailers::default())),
            (_, Some(size)) => Ok(Framing::Chunk(size)),
            (Self::Lines, None) => Err("a chunk begins with its size in bytes, 1 to 19 decimal digits"),
            (Self::Http, None) => Err("a chunk begins with a line of at most 512 bytes: its size in hex, and CR LF"),
        }
    }

    fn size(self, line: &str) -> Option<u64> {
        match self {
            Self::Lines => parse_number(line),
            Self::Http => chunked::size(line),
        }
    }

    /// The longest line, in bytes: `sha256=` and 64 digits; a trailer, or extensions, which are ignored. A longer one
    /// breaks the framing: nothing that follows it is read.
    fn max_line_bytes(self) -> usize {
        match self {
            Self::Lines => 80,
            Self::Http => 512,
        }
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
    /// Removes a CR at the end. Returns whether there was one.
    fn drop_cr(&mut self) -> bool {
        let ends_with_cr = self.0.ends_with('\r');
        self.0.truncate(self.0.len() - usize::from(ends_with_cr));
        ends_with_cr
    }

    /// Takes bytes from the front of `input` until the line is whole, and removes its LF and a CR before it. An invalid line
    /// keeps an LF, which no valid line holds: if in HTTP the CR is missing, and in place of the first byte beyond the
    /// longest line.
    fn take(&mut self, input: &mut &[u8], chunks: Chunks) -> Option<&mut String> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' && (self.drop_cr() || chunks == Chunks::Lines) {
                return Some(&mut self.0);
            }
            let is_too_long = self.0.len() >= chunks.max_line_bytes();
            // A byte that is not ASCII becomes a character that no valid line holds.
            self.0.push(if is_too_long { '\n' } else { char::from(byte) });
            if byte == b'\n' || is_too_long {
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
                    Piece::Content(bytes) => content.extend_from_slice(&bytes),
                    Piece::File(_) | Piece::EndOfFile => {}
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
        assert_eq!(each_cut(|| Body::framed(Some(3), None, Chunks::Lines), b"abc/put", b"abc", b"/put"), whole);
        assert_eq!(each_cut(|| Body::framed(Some(0), None, Chunks::Lines), b"abc", b"", b"abc"), whole);
        assert_eq!(each_cut(|| Body::framed(Some(4), None, Chunks::Lines), b"abc", b"abc", b""), None);
    }

    #[test]
    fn chunks_end_with_the_empty_one() {
        let whole = Some(End::Whole(None));
        let chunks = b"2\nab\n1\r\nc0\nrest";
        assert_eq!(each_cut(|| Body::framed(None, None, Chunks::Lines), b"2\nab1\r\nc0\nrest", b"abc", b"rest"), whole);
        assert!(matches!(
            each_cut(|| Body::framed(None, None, Chunks::Lines), chunks, b"ab", b"1\r\nc0\nrest"),
            Some(End::Broken(_))
        ));
        assert_eq!(each_cut(|| Body::framed(None, None, Chunks::Lines), b"0\n", b"", b""), whole);
    }

    /// SHA-256 of `abc`, of FIPS 180-4, as HTTP tells it.
    const SHA_OF_ABC: &str = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";

    fn http(promise: Option<Promise>) -> impl Fn() -> Body {
        move || Body::framed(None, promise, Chunks::Http)
    }

    #[test]
    fn chunks_of_http_end_with_their_trailers() {
        let whole = Some(End::Whole(None));
        for (input, content, left) in [
            (&b"0\r\n\r\nGET"[..], &b""[..], &b"GET"[..]),
            (b"2\r\nab\r\n01\r\nc\r\n0\r\n\r\n", b"abc", b""),
            (b"00A;x=\"y\"\r\n0123456789\r\n000\r\nX: y\r\n\r\nrest", b"0123456789", b"rest"),
            (b"3\r\n\r\n0\r\n0\r\n\r\n", b"\r\n0", b""),
        ] {
            assert_eq!(each_cut(http(None), input, content, left), whole);
        }
        let (input, content) = (&b"3\r\nabc\r\n0\r\nX: y\r\n"[..], &b"abc"[..]);
        assert_eq!(each_cut(http(None), input, content, b""), None, "the empty line is missing");
    }

    #[test]
    fn a_chunk_of_http_that_is_not_strict_breaks_the_framing() {
        for input in [
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\n",
            "3\r\nabc\r\n0\n\r\n",
            "3\r\nabc\r\n0\r\nx: y\n\r\n",
            "3\r\nabc\r\n0\r\n x: y\r\n\r\n",
            "3\r\nabc\r\n\r\n",
            "3;x\ry\r\nabc\r\n0\r\n\r\n",
            "3;\nx\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "00000000000000003\r\nabc\r\n0\r\n\r\n",
            "-3\r\nabc\r\n0\r\n\r\n",
            "\r\nabc",
        ] {
            let whole = decode(http(None)(), input.as_bytes(), 0);
            assert!(matches!(whole.1, Some(End::Broken(_))), "{input:?}: {whole:?}");
            for cut in 0..input.len() {
                assert_eq!(decode(http(None)(), input.as_bytes(), cut), whole, "{input:?} cut at {cut}");
            }
        }
    }

    /// If the rest of such a line counted as content, it could hold a request that a proxy takes for content.
    #[test]
    fn a_line_of_http_that_is_too_long_breaks_the_framing_at_once() {
        let max = Chunks::Http.max_line_bytes();
        let chunks = |line: &str| format!("{line}\r\nabc\r\n0\r\n\r\n");
        let extended = |length: usize| chunks(&format!("3;{}", "x".repeat(length - 2)));
        let padded = |length: usize| chunks(&format!("{}3", "0".repeat(length - 1)));
        let trailer = |length: usize| format!("0\r\nX:{}\r\nY: z\r\n\r\n", "x".repeat(length - 2));
        // The CR before the LF counts.
        for input in [extended(max - 1), trailer(max - 1)] {
            assert_eq!(decode(http(None)(), input.as_bytes(), 0).1, Some(End::Whole(None)), "{input:?}");
        }
        for length in [max, max + 1, max + 2, max + 10, 65_536] {
            for input in [extended(length), padded(length), trailer(length)] {
                for cut in [0, 1, max, max + 1, max + 2] {
                    let (content, end, _) = decode(http(None)(), input.as_bytes(), cut);
                    assert!(
                        matches!(end, Some(End::Broken(_))) && content.is_empty(),
                        "{length}, cut at {cut}: {end:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_digest_may_be_a_trailer_of_http() {
        let trailer = || http(Some(Promise::Trailer(Algorithm::Sha256)));
        let input = |trailers: &str| format!("3\r\nabc\r\n0\r\n{trailers}\r\n");
        let sha = format!("repr-digest: {SHA_OF_ABC}\r\n");
        let good = input(&sha);
        assert!(matches!(each_cut(trailer(), good.as_bytes(), b"abc", b""), Some(End::Whole(Some(_)))));
        let wrong = input("Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n");
        assert!(matches!(each_cut(trailer(), wrong.as_bytes(), b"abc", b""), Some(End::Mismatch(_))));
        let missing = input("X: y\r\n");
        assert!(matches!(each_cut(trailer(), missing.as_bytes(), b"abc", b""), Some(End::Broken(_))));
        assert!(
            matches!(each_cut(http(None), good.as_bytes(), b"abc", b""), Some(End::Broken(_))),
            "nobody computed it"
        );
        let known = || http(Some(Promise::Known(Digest::Sha256([7; 32]))));
        assert!(matches!(each_cut(known(), good.as_bytes(), b"abc", b""), Some(End::Broken(_))), "they differ");
    }

    #[test]
    fn a_digest_is_compared_before_or_after() {
        let known = |digest| move || Body::framed(Some(3), Some(Promise::Known(digest)), Chunks::Lines);
        let trailer = || Body::framed(None, Some(Promise::Trailer(Algorithm::Crc32c)), Chunks::Lines);
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
        let trailer = || Body::framed(Some(0), Some(Promise::Trailer(Algorithm::Crc32c)), Chunks::Lines);
        for line in ["\n", "crc32c\n", "crc32c=\n", "crc32c=xyz\n", &format!("sha256={}\n", "0".repeat(64)), "\u{e9}\n"]
        {
            assert!(matches!(each_cut(trailer, line.as_bytes(), b"", b""), Some(End::Broken(_))), "{line:?}");
        }
    }

    #[test]
    fn what_never_ends_its_line_is_cut_off() {
        let line = [b'1'; 1000];
        let (_, end, left) = decode(Body::framed(None, None, Chunks::Lines), &line, 0);
        assert!(matches!(end, Some(End::Broken(_))));
        assert_eq!(left.len(), 1000 - 81);
    }

    #[test]
    fn a_stream_that_ends_is_an_end_only_where_nothing_else_is() {
        assert_eq!(Body::until_end_of_stream().end_of_stream(), End::Whole(None));
        for mut body in [Body::framed(Some(1), None, Chunks::Lines), Body::framed(None, None, Chunks::Lines)] {
            assert!(matches!(body.end_of_stream(), End::Broken(_)));
        }
    }
}

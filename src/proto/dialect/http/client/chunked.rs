//! The body of an answer in chunks (RFC 9112, 7.1). Extensions and trailer fields are skipped.

use crate::proto::body::chunked::size;

/// The longest line of a size with its extensions, or of a trailer field, in bytes: nobody writes as much.
const LINE_MAX_BYTES: usize = 4096;
/// As many fields as a head may have.
const TRAILER_MAX_FIELDS: u32 = 100;

/// Reads one chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// The line as far as it has come.
    line: Vec<u8>,
    trailer_fields: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Size,
    /// The number of bytes of the chunk that are still to come.
    Content(u64),
    /// The line end behind a chunk.
    ContentEnd,
    Trailer,
}

/// What comes of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// At least one byte.
    Content(&'a [u8]),
    End,
}

/// It is not the chunked coding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotChunked;

impl Chunked {
    /// Takes bytes from the front of `input` until there is something to tell. `None`: all of it is taken.
    pub(super) fn take<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, NotChunked> {
        while !input.is_empty() {
            if let State::Content(left) = self.state {
                let (piece, rest) = input.split_at(left.min(input.len() as u64) as usize);
                *input = rest;
                self.state = match left - piece.len() as u64 {
                    0 => State::ContentEnd,
                    left => State::Content(left),
                };
                return Ok(Some(Piece::Content(piece)));
            }
            if self.take_line(input)? {
                let line = std::mem::take(&mut self.line);
                if self.read(&line)? {
                    return Ok(Some(Piece::End));
                }
            }
        }
        Ok(None)
    }

    /// Returns whether the line is whole.
    fn take_line(&mut self, input: &mut &[u8]) -> Result<bool, NotChunked> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            match (self.line.last(), byte) {
                (Some(b'\r'), b'\n') => {
                    self.line.pop();
                    return Ok(true);
                }
                (Some(b'\r'), _) | (_, b'\n' | 0) => return Err(NotChunked),
                _ if self.line.len() == LINE_MAX_BYTES => return Err(NotChunked),
                _ => self.line.push(byte),
            }
        }
        Ok(false)
    }

    /// Returns whether `line` ends the body.
    fn read(&mut self, line: &[u8]) -> Result<bool, NotChunked> {
        match self.state {
            State::Size => match str::from_utf8(line).ok().and_then(size).ok_or(NotChunked)? {
                0 => self.state = State::Trailer,
                size => self.state = State::Content(size),
            },
            State::ContentEnd if line.is_empty() => self.state = State::Size,
            State::Trailer if line.is_empty() => return Ok(true),
            State::Trailer if self.trailer_fields < TRAILER_MAX_FIELDS => self.trailer_fields += 1,
            _ => return Err(NotChunked),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of `stream`, how much is left behind its end, or an error.
    fn read(stream: &[u8], cut: usize) -> Result<(Vec<u8>, Option<usize>), NotChunked> {
        let (mut chunked, mut content) = (Chunked::default(), Vec::new());
        for (mut input, behind) in [(&stream[..cut], stream.len() - cut), (&stream[cut..], 0)] {
            while let Some(piece) = chunked.take(&mut input)? {
                match piece {
                    Piece::Content(bytes) => content.extend_from_slice(bytes),
                    Piece::End => return Ok((content, Some(input.len() + behind))),
                }
            }
        }
        Ok((content, None))
    }

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        let fields = b"a: b\r\n".repeat(TRAILER_MAX_FIELDS as usize);
        let long = [b"1\r\nx\r\n0\r\n".as_slice(), &fields, b"\r\n"].concat();
        for (stream, content, left) in [
            (&b"0\r\n\r\n"[..], &b""[..], Some(0)),
            (b"5\r\nhello\r\n00\r\n\r\nmore", b"hello", Some(4)),
            (b"2;a=b\r\nhe\r\n000000000000003\r\nllo\r\n0;x\r\nA: b\r\n\r\n", b"hello", Some(0)),
            (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", Some(0)),
            (b"5\r\nhello\r\n0\r\n", b"hello", None),
            (&long, b"x", Some(0)),
        ] {
            for cut in 0..=stream.len() {
                assert_eq!(read(stream, cut), Ok((content.to_vec(), left)), "{cut} {}", stream.escape_ascii());
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let long = [b"1;".as_slice(), &[b'x'; LINE_MAX_BYTES]].concat();
        let fields = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(TRAILER_MAX_FIELDS as usize + 1)].concat();
        for stream in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\rX\nhello",
            b"\r\n",
            b" 5\r\nhello",
            b"5 \r\nhello",
            b"+5\r\nhello",
            b"0x5\r\nhello",
            b"g\r\n",
            b"00000000000000005\r\nhello",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\0\r\n",
            &long,
            &fields,
        ] {
            for cut in (0..=stream.len()).step_by(1 + stream.len() / 200) {
                assert_eq!(read(stream, cut), Err(NotChunked), "{}", stream[..stream.len().min(40)].escape_ascii());
            }
        }
    }
}

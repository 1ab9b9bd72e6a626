//! `multipart/form-data` (RFC 7578, over RFC 2046, 5.1): the files of a form, one part each.
//!
//! ```text
//!   --boundary CRLF  fields of the part CRLF CRLF  its content  CRLF --boundary CRLF  …  CRLF --boundary--  epilogue
//! ```
//!
//! A part ends where the next boundary begins, so its size is not known before, and each byte has to be looked at. The
//! content is handed on as it lies in the input; what may be the beginning of a boundary is held back until the next
//! bytes tell. Any split of the same bytes gives the same parts.
//!
//! A part without a boundary behind it is cut off, however it looks. Knows neither the framing around the form nor what
//! becomes of a part.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::head::{self, bad};
use super::parameters::Parameters;
use super::status;
use crate::proto::Refusal;
use crate::proto::dialect::scan::Scan;

/// The longest boundary, in bytes (RFC 2046, 5.1.1).
const BOUNDARY_MAX_BYTES: usize = 70;
/// The longest head of a part, in bytes: a name of 255 bytes and what browsers say of its type take a fraction.
const HEAD_MAX_BYTES: usize = 8 << 10;
/// The most parts of a form. Who sends more files than that can send two forms.
const MAX_PARTS: u32 = 1000;
/// The length of the line end in front of each boundary.
const CRLF: usize = 2;
/// The most bytes of a form that are of no file. Nobody looks at them, so that there need not be many.
const IGNORED_MAX_BYTES: usize = 64 << 10;

/// What the bytes of a form are.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proto) enum Found<'a> {
    /// A file begins, under this name, which is not looked at yet.
    File(Vec<u8>),
    /// Bytes of the file.
    Content(Cow<'a, [u8]>),
    /// The file is whole.
    EndOfFile,
    /// This is no form.
    Broken(Refusal),
}

/// Finds the files in the bytes of a form.
#[derive(Debug)]
pub(in crate::proto) struct Splitter {
    /// CR LF, two dashes, and the boundary.
    delimiter: Finder<'static>,
    stage: Stage,
    /// The last bytes of the input match this many bytes of the delimiter, and are held back.
    matched: usize,
    /// This many of these came before the content: at its beginning, the CR LF before it may be that of a delimiter.
    before: usize,
    parts: u32,
    files: u32,
    ignored_bytes: usize,
}

#[derive(Debug)]
enum Stage {
    /// Before the first boundary. Nobody looks at it.
    Preamble,
    /// Behind a boundary: CR LF, or two dashes after the last one.
    Boundary(Vec<u8>),
    /// The fields of a part.
    Head(Vec<u8>),
    File,
    /// The content of a part that is no file.
    Field,
    /// After the last boundary. Nobody looks at it.
    Epilogue,
}

impl Splitter {
    /// For the value of a Content-Type.
    ///
    /// # Errors
    /// 415 in words where it is no form, 400 where it has no boundary that may be one.
    pub(super) fn new(content_type: &[u8]) -> Result<Self, Refusal> {
        let (kind, parameters) = Parameters::after(content_type);
        if !kind.eq_ignore_ascii_case(b"multipart/form-data") {
            let words = "a POST is a form, multipart/form-data (curl: -F file=@FILE); PUT /NAME stores one file";
            return Err(Refusal::new(status::UNSUPPORTED_CONTENT, words));
        }
        let boundary = parameters.find(b"boundary")?;
        let boundary = boundary.ok_or_else(|| bad("multipart/form-data has a boundary"))?;
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
        let is_one = (1..=BOUNDARY_MAX_BYTES).contains(&boundary.len()) && boundary.iter().all(is_allowed);
        if !is_one || boundary.ends_with(b" ") {
            return Err(bad("a boundary is 1 to 70 of the characters of RFC 2046, and does not end with a space"));
        }
        let delimiter = [b"\r\n--", boundary.as_slice()].concat();
        Ok(Self {
            delimiter: Finder::new(&delimiter).into_owned(),
            stage: Stage::Preamble,
            // The first boundary may stand at the very beginning.
            matched: CRLF,
            before: CRLF,
            parts: 0,
            files: 0,
            ignored_bytes: 0,
        })
    }

    /// Whether the last boundary has come, so that the form is whole.
    pub(in crate::proto) fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Epilogue)
    }

    /// Whether a file has begun.
    pub(in crate::proto) fn has_files(&self) -> bool {
        self.files > 0
    }

    /// Takes bytes from the front of `input` and says what they are. `None`: all of `input` is taken.
    pub(in crate::proto) fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Option<Found<'a>> {
        while !input.is_empty() {
            let found = match &mut self.stage {
                Stage::Preamble | Stage::Field => self.skip(input),
                Stage::Boundary(_) => self.boundary(input),
                Stage::Head(_) => self.head(input),
                Stage::File => self.file(input),
                Stage::Epilogue => self.ignore(std::mem::take(input).len()),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn skip<'a>(&mut self, input: &mut &'a [u8]) -> Option<Found<'a>> {
        match self.span(input) {
            Span::Content(bytes) => self.ignore(bytes.len()),
            Span::AtOnce if !matches!(self.stage, Stage::Preamble) => Some(Found::Broken(no_content())),
            Span::AtOnce | Span::Delimiter => {
                self.stage = Stage::Boundary(Vec::new());
                None
            }
        }
    }

    fn ignore(&mut self, bytes: usize) -> Option<Found<'static>> {
        self.ignored_bytes += bytes;
        let is_too_much = self.ignored_bytes > IGNORED_MAX_BYTES;
        is_too_much.then(|| Found::Broken(bad("what of a form is no file is at most 64 KiB")))
    }

    fn file<'a>(&mut self, input: &mut &'a [u8]) -> Option<Found<'a>> {
        match self.span(input) {
            Span::Content(bytes) if bytes.is_empty() => None,
            Span::Content(bytes) => Some(Found::Content(bytes)),
            Span::AtOnce => Some(Found::Broken(no_content())),
            Span::Delimiter => {
                self.stage = Stage::Boundary(Vec::new());
                Some(Found::EndOfFile)
            }
        }
    }

    fn boundary<'a>(&mut self, input: &mut &'a [u8]) -> Option<Found<'a>> {
        let Stage::Boundary(bytes) = &mut self.stage else { return None };
        bytes.extend(take_first(input));
        match bytes.as_slice() {
            b"\r" | b"-" => {}
            b"\r\n" if self.parts == MAX_PARTS => return Some(Found::Broken(bad("a form has at most 1000 parts"))),
            b"\r\n" => {
                self.parts += 1;
                self.stage = Stage::Head(Vec::new());
            }
            b"--" => self.stage = Stage::Epilogue,
            _ => return Some(Found::Broken(bad("a boundary is followed by CR LF, or by -- where it is the last one"))),
        }
        None
    }

    fn head<'a>(&mut self, input: &mut &'a [u8]) -> Option<Found<'a>> {
        let Stage::Head(bytes) = &mut self.stage else { return None };
        let (plain, rest) = input.split_at(head::plain(bytes, input));
        bytes.extend_from_slice(plain);
        *input = rest;
        bytes.extend(take_first(input));
        if bytes.len() > HEAD_MAX_BYTES {
            return Some(Found::Broken(bad("the head of a part is at most 8 KiB")));
        }
        match head::scan(bytes) {
            Scan::More => None,
            Scan::Bad(refusal) => Some(Found::Broken(refusal)),
            Scan::Whole => {
                let file_name = file_name(bytes);
                (self.matched, self.before) = (CRLF, CRLF);
                self.stage = if matches!(file_name, Ok(None)) { Stage::Field } else { Stage::File };
                self.files += u32::from(matches!(file_name, Ok(Some(_))));
                file_name.map(|name| name.map(Found::File)).unwrap_or_else(|refusal| Some(Found::Broken(refusal)))
            }
        }
    }

    /// Takes content, or the delimiter after it. A CR stands nowhere in the delimiter but at its beginning, so that bytes
    /// that are held back and turn out to be content hold no beginning of another one.
    fn span<'a>(&mut self, input: &mut &'a [u8]) -> Span<'a> {
        let delimiter = self.delimiter.needle();
        if self.matched == 0 {
            let content = match self.delimiter.find(input) {
                Some(at) => at,
                None => input.len() - held_back(input, delimiter),
            };
            let (content, rest) = input.split_at(content);
            *input = rest;
            if !content.is_empty() {
                return Span::Content(content.into());
            }
        }
        let wanted = &delimiter[self.matched..];
        let same = wanted.iter().zip(*input).take_while(|(a, b)| a == b).count();
        if same == wanted.len() {
            *input = &input[same..];
            self.matched = 0;
            return if std::mem::take(&mut self.before) > 0 { Span::AtOnce } else { Span::Delimiter };
        }
        if same == input.len() {
            self.matched += same;
            *input = &[];
            return Span::Content(Cow::Borrowed(&[]));
        }
        let held_back = delimiter[self.before..self.matched].to_vec();
        (self.matched, self.before) = (0, 0);
        Span::Content(held_back.into())
    }
}

/// Bytes of content, which may be none, or the delimiter.
enum Span<'a> {
    Content(Cow<'a, [u8]>),
    Delimiter,
    /// The delimiter where content would begin, without a CR LF of its own.
    AtOnce,
}

/// RFC 2046 allows a part without content; many programs take the boundary for content instead.
fn no_content() -> Refusal {
    bad("a part has an empty line, its content, and CR LF before the next boundary")
}

/// How many bytes at the end of `input`, which does not hold the delimiter, may be the beginning of it.
fn held_back(input: &[u8], delimiter: &[u8]) -> usize {
    let tail = &input[input.len().saturating_sub(delimiter.len() - 1)..];
    let last = memchr::memrchr(b'\r', tail).map_or(&[][..], |at| &tail[at..]);
    if delimiter.starts_with(last) { last.len() } else { 0 }
}

fn take_first(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

/// The name of the file of a part with this head. `None`: it is no file, or none was chosen.
fn file_name(head: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let mut lines = [httparse::EMPTY_HEADER; 16];
    let words = "the head of a part cannot be read: it is a few lines NAME: VALUE";
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(head, &mut lines) else {
        return Err(bad(words));
    };
    let value = |name: &str| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
    let disposition = value("Content-Disposition").ok_or_else(|| bad("a part has a Content-Disposition"))?;
    let (kind, parameters) = Parameters::after(disposition);
    if !kind.eq_ignore_ascii_case(b"form-data") {
        return Err(bad("the Content-Disposition of a part is form-data"));
    }
    let coding = value("Content-Transfer-Encoding").unwrap_or(b"binary");
    if ![&b"binary"[..], b"8bit", b"7bit"].iter().any(|known| coding.eq_ignore_ascii_case(known)) {
        return Err(bad("files are stored as they come, and not decoded: no Content-Transfer-Encoding"));
    }
    let name = parameters.find(b"filename")?;
    if name.is_none() && parameters.find(b"filename*")?.is_some() {
        return Err(bad("a form has filename=, in UTF-8, and no filename* (RFC 7578, 4.2)"));
    }
    Ok(name.map(unescape).filter(|name| !name.is_empty()))
}

/// `%22`, `%0D` and `%0A` stand for the bytes that would end a quoted string or a line ("multipart/form-data" in the HTML
/// standard). Nothing else is encoded.
fn unescape(name: Vec<u8>) -> Vec<u8> {
    let mut unescaped = Vec::with_capacity(name.len());
    let mut rest = name.as_slice();
    loop {
        let escape = rest.first_chunk::<3>().and_then(|escape| match escape.to_ascii_uppercase().as_slice() {
            b"%22" => Some(b'"'),
            b"%0D" => Some(b'\r'),
            b"%0A" => Some(b'\n'),
            _ => None,
        });
        match (escape, rest) {
            (Some(byte), [_, _, _, after @ ..]) => {
                unescaped.push(byte);
                rest = after;
            }
            (_, [byte, after @ ..]) => {
                unescaped.push(*byte);
                rest = after;
            }
            (_, []) => return unescaped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xYz";

    /// Its name, its content, and whether it is whole.
    type File = (String, Vec<u8>, bool);

    /// The files in a form whose pieces are these, and whether it is whole; or why it is none.
    fn split(pieces: &[&[u8]]) -> Result<(Vec<File>, bool), String> {
        let mut splitter = Splitter::new(TYPE.as_bytes()).map_err(|refusal| refusal.words.into_owned())?;
        let mut files: Vec<File> = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(found) = splitter.receive(&mut input) {
                match found {
                    Found::File(name) => files.push((String::from_utf8(name).unwrap(), Vec::new(), false)),
                    Found::Content(bytes) => files.last_mut().unwrap().1.extend_from_slice(&bytes),
                    Found::EndOfFile => files.last_mut().unwrap().2 = true,
                    Found::Broken(refusal) => return Err(refusal.words.into_owned()),
                }
            }
            assert!(input.is_empty());
        }
        Ok((files, splitter.is_whole()))
    }

    fn part(disposition: &str, content: &str) -> String {
        format!("--xYz\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
    }

    fn files(form: &str) -> Vec<(String, String)> {
        let (files, is_whole) = split(&[form.as_bytes()]).unwrap_or_else(|words| panic!("{form:?}: {words}"));
        assert!(is_whole && files.iter().all(|file| file.2), "{form:?}");
        files.into_iter().map(|(name, content, _)| (name, String::from_utf8(content).unwrap())).collect()
    }

    #[test]
    fn every_split_gives_the_same_files() {
        let near = "--xY\r\n--xY\r\n--xy\r\r\n-\r\n--x\r\n";
        let form = [
            "preamble\r\n".to_owned(),
            part("name=\"a\"", "a field"),
            part("name=file; filename=\"a b.txt\"", near),
            part("name=file; filename=\"c\"", ""),
            "--xYz--\r\nepilogue".into(),
        ]
        .concat();
        let whole = split(&[form.as_bytes()]).unwrap();
        let expected = [("a b.txt".to_owned(), near.into(), true), ("c".to_owned(), Vec::new(), true)];
        assert_eq!((whole.0.as_slice(), whole.1), (&expected[..], true));
        for first in 0..=form.len() {
            for second in first..=form.len() {
                let bytes = form.as_bytes();
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(split(&pieces).as_ref(), Ok(&whole), "cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = form.as_bytes().chunks(1).collect();
        assert_eq!(split(&bytes), Ok(whole));
    }

    #[test]
    fn a_form_that_is_cut_off_is_not_whole_nor_is_its_last_file() {
        let form = [part("filename=a", "one"), part("filename=b", "two"), "--xYz--".into()].concat();
        let last = form.rfind("\r\n--xYz--").unwrap();
        for end in 0..form.len() {
            let (files, is_whole) = split(&[&form.as_bytes()[..end]]).unwrap();
            assert!(!is_whole, "{end}");
            let is_last_whole = files.get(1).is_some_and(|file| file.2);
            assert_eq!(is_last_whole, end >= last + "\r\n--xYz".len(), "{end}");
        }
    }

    #[test]
    fn names_are_as_browsers_and_curl_send_them() {
        for (disposition, name) in [
            ("name=\"f\"; filename=\"a.txt\"", "a.txt"),
            ("name=\"f\"; filename=a.txt", "a.txt"),
            ("filename=\"日本 1.txt\"; name=f", "日本 1.txt"),
            ("name=\"f\"; filename=\"a%22b%0Dc%0ad%41\"", "a\"b\rc\nd%41"),
            ("name=\"f\"; filename=\"a\\\"b\\\\c\\d\"", "a\"b\\c\\d"),
            ("name=\"f;x\"; FileName=\"a;b=c\" ", "a;b=c"),
            ("name=\"f\"; filename=\"../x\"", "../x"),
            ("name=\"f\"; filename=\"a\"; filename*=UTF-8''b", "a"),
        ] {
            let form = format!("{}--xYz--\r\n", part(disposition, "x"));
            assert_eq!(files(&form), [(name.into(), "x".into())], "{disposition}");
        }
        let none = [part("name=\"f\"; filename=\"\"", ""), part("name=f", "x"), "--xYz--".into()].concat();
        assert_eq!(files(&none), [], "a field, and a file that nobody chose");
    }

    #[test]
    fn what_is_no_form_is_told_why() {
        let many = part("name=f", "").repeat(1001);
        let head = |field: &str| format!("--xYz\r\n{field}\r\n\r\nx\r\n--xYz--");
        for (form, words) in [
            ("--xYz \r\n".to_owned(), "CR LF"),
            ("--xYzz\r\n".into(), "CR LF"),
            ("--xYz\n".into(), "CR LF"),
            ("--xYz-\r\n".into(), "CR LF"),
            ("--xYz\r\n\r\nx\r\n".into(), "empty line"),
            (head("A: b"), "Content-Disposition"),
            (head("Content-Disposition: attachment; filename=a"), "form-data"),
            (head("Content-Disposition: form-data; filename"), "NAME=VALUE"),
            (head("Content-Disposition: form-data; filename=\"a"), "NAME=VALUE"),
            (head("Content-Disposition: form-data; filename=\"a\"b"), "NAME=VALUE"),
            (head("Content-Disposition: form-data; filename=a; filename=b"), "once"),
            (head("Content-Disposition: form-data; filename*=UTF-8''a"), "filename*"),
            (head("Content-Disposition: form-data; filename=a\r\nContent-Transfer-Encoding: base64"), "decoded"),
            (head("Content-Disposition: form-data; filename=a\nX: y"), "LF"),
            (head("Content-Disposition: form-data;\r\n filename=a"), "folded"),
            (head(&format!("X: {}", "y".repeat(8200))), "8 KiB"),
            (part("name=f", &"x".repeat(65_537)), "64 KiB"),
            ("x".repeat(65_537), "64 KiB"),
            (format!("--xYz--{}", "x".repeat(65_537)), "64 KiB"),
            (many, "1000 parts"),
            ("--xYz\r\nContent-Disposition: form-data; filename=a\r\n\r\n--xYz--".into(), "CR LF before the next"),
            ("--xYz\r\nContent-Disposition: form-data; name=f\r\n\r\n--xYz\r\n".into(), "CR LF before the next"),
        ] {
            let said = split(&[form.as_bytes()]).expect_err(&form[..form.len().min(100)]);
            assert!(said.contains(words), "{}: {said}", &form[..form.len().min(100)]);
        }
    }

    #[test]
    fn a_boundary_is_short_and_plain() {
        for boundary in ["x", "\"x y\"", &"b".repeat(70), "----WebKitFormBoundaryAbC", "\"a:b\""] {
            assert!(
                Splitter::new(format!("Multipart/Form-Data ; charset=utf-8; boundary={boundary}").as_bytes()).is_ok()
            );
        }
        for boundary in ["", "\"\"", "\"x \"", &"b".repeat(71), "\"a@b\"", "\"a", "\u{e9}"] {
            let refused = Splitter::new(format!("multipart/form-data; boundary={boundary}").as_bytes());
            assert_eq!(refused.err().map(|refusal| refusal.code.0), Some(400), "{boundary}");
        }
        for kind in ["", "text/plain", "multipart/mixed; boundary=x", "application/x-www-form-urlencoded"] {
            assert_eq!(Splitter::new(kind.as_bytes()).err().map(|refusal| refusal.code.0), Some(415), "{kind}");
        }
        assert!(Splitter::new(b"multipart/form-data").is_err());
        assert!(Splitter::new(b"multipart/form-data; boundary=a; boundary=a").is_err());
    }
}

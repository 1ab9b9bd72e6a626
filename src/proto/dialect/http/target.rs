//! The target of a request: what stands between the method and the version.
//!
//! A name is one segment, percent-encoded (RFC 3986, 2.1). It is decoded once; what would then be a path, or no text,
//! is refused and never mended.

use std::borrow::Cow;
use std::fmt::Write;

use super::head::bad;
use crate::proto::{Refusal, ResumeId};

/// Where uploads are that have begun. An id begins with `/`.
pub(super) const UPLOADS: &str = "/.intake/uploads";

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// `/`: the directory, and the page.
    Root,
    /// `/NAME`, decoded. Whether it can be a name is for others to say.
    Name(Cow<'a, [u8]>),
    /// `/.intake/uploads/ID`: an upload that has begun. `None`: what stands there is no id.
    Upload(Option<ResumeId>),
    /// `*`: the server.
    Server,
}

impl<'a> Target<'a> {
    /// Reads the origin form and the absolute form (RFC 9112, 3.2). Returns the authority of the latter too.
    ///
    /// # Errors
    /// 400, in words.
    pub(super) fn read(target: &'a str) -> Result<(Self, Option<&'a str>), Refusal> {
        if target == "*" {
            return Ok((Self::Server, None));
        }
        let (authority, path) = match target.strip_prefix("http://") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(authority), if path.is_empty() { "/" } else { path })
            }
            None => (None, target),
        };
        let segment = path.strip_prefix('/').ok_or_else(|| bad("the target is /NAME"))?;
        if segment.is_empty() {
            return Ok((Self::Root, authority));
        }
        if let Some(id) = path.strip_prefix(UPLOADS).and_then(|rest| rest.strip_prefix('/')) {
            return Ok((Self::Upload(ResumeId::parse_made(id)), authority));
        }
        Ok((Self::Name(decode_name(segment)?), authority))
    }
}

fn decode_name(segment: &str) -> Result<Cow<'_, [u8]>, Refusal> {
    if segment.contains('/') {
        return Err(bad("a name carries no path: PUT /NAME, one segment"));
    }
    if segment.contains(['?', '#']) {
        return Err(bad("a name is not followed by a query; %3F and %23 stand for ? and # in it"));
    }
    let name = decode(segment.as_bytes()).ok_or_else(|| bad("a % in the target is followed by two hex digits"))?;
    if name.contains(&b'/') {
        return Err(bad("a name holds no %2F: it carries no path"));
    }
    if name.contains(&0) {
        return Err(bad("a name holds no %00"));
    }
    if std::str::from_utf8(&name).is_err() {
        return Err(bad("the name is not UTF-8"));
    }
    Ok(name)
}

/// `text` with each `%` and two hex digits as the byte that they stand for.
pub(in crate::proto) fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.contains(&b'%') {
        return Some(text.into());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [] => return Some(decoded.into()),
            [b'%', after @ ..] => {
                let (digits, after) = after.split_at_checked(2)?;
                let digit = |index: usize| char::from(digits[index]).to_digit(16);
                decoded.push((digit(0)? << 4 | digit(1)?) as u8);
                rest = after;
            }
            [byte, after @ ..] => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
}

/// `name` as a segment of a target: all but the unreserved characters encoded (RFC 3986, 2.3).
pub(super) fn encode(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(target: &str) -> Result<String, String> {
        match Target::read(target) {
            Ok((Target::Name(name), _)) => Ok(String::from_utf8(name.into_owned()).unwrap()),
            Ok(other) => panic!("{target}: {other:?}"),
            Err(refusal) => Err(refusal.words.into_owned()),
        }
    }

    #[test]
    fn a_name_is_one_segment_and_decoded_once() {
        for (target, expected) in [
            ("/a", "a"),
            ("/a%20b", "a b"),
            ("/%252F", "%2F"),
            ("/%e6%97%a5", "日"),
            ("/日", "日"),
            ("/a+b", "a+b"),
            ("/..", ".."),
            ("/%2e%2E", ".."),
            ("/a%3Fb%23", "a?b#"),
            ("http://host:1/a", "a"),
        ] {
            assert_eq!(name(target), Ok(expected.to_owned()), "{target}");
        }
    }

    #[test]
    fn what_would_be_a_path_or_no_text_is_refused() {
        for (target, words) in [
            ("/a/b", "one segment"),
            ("/a/", "one segment"),
            ("//a", "one segment"),
            ("/..%2fx", "%2F"),
            ("/a%00", "%00"),
            ("/%ff", "UTF-8"),
            ("/%", "two hex digits"),
            ("/%4", "two hex digits"),
            ("/%4g", "two hex digits"),
            ("/%+4", "two hex digits"),
            ("/a?b", "query"),
            ("/a#b", "query"),
            ("a", "/NAME"),
            ("https://host/a", "/NAME"),
            ("host:443", "/NAME"),
            ("?", "/NAME"),
        ] {
            let said = name(target).expect_err(target);
            assert!(said.contains(words), "{target}: {said}");
        }
    }

    #[test]
    fn there_are_targets_that_name_no_file() {
        assert_eq!(Target::read("/"), Ok((Target::Root, None)));
        assert_eq!(Target::read("*"), Ok((Target::Server, None)));
        assert_eq!(Target::read("http://a:1"), Ok((Target::Root, Some("a:1"))));
        assert_eq!(Target::read("http://a:1/"), Ok((Target::Root, Some("a:1"))));
    }

    #[test]
    fn what_is_encoded_reads_back() {
        for text in ["a b%/?#.txt", "日本語", "a;b&c=d+e", "\u{1f680}~-_."] {
            let encoded = encode(text);
            assert_eq!(decode(encoded.as_bytes()).unwrap(), text.as_bytes(), "{encoded}");
            assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%-._~".contains(&byte)));
        }
    }
}

//! Parameters in the fields of HTTP and of the parts of forms: `text/plain; charset=utf-8`.
//!
//! Knows one field's value at a time, and not what its parameters mean.

use super::head::bad;
use crate::proto::Refusal;

/// `; name=value; name="value"`, as it follows a media type or a disposition.
pub(super) struct Parameters<'a>(&'a [u8]);

impl<'a> Parameters<'a> {
    /// What comes before the first `;`, and the parameters.
    pub(super) fn after(value: &'a [u8]) -> (&'a [u8], Self) {
        let (main, parameters) = value.split_at(memchr::memchr(b';', value).unwrap_or(value.len()));
        (main.trim_ascii(), Self(parameters))
    }

    /// The value of a parameter, without the quotes around it.
    ///
    /// # Errors
    /// 400 where the list is broken, or has the parameter twice.
    pub(super) fn find(&self, wanted: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let (mut rest, mut found) = (self.0, None);
        loop {
            rest = rest.trim_ascii_start();
            rest = rest.strip_prefix(b";").unwrap_or(rest).trim_ascii_start();
            if rest.is_empty() {
                return Ok(found);
            }
            let (name, value, after) = parameter(rest)
                .ok_or_else(|| bad("a parameter is NAME=VALUE or NAME=\"VALUE\", and ; before the next"))?;
            if name.eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
                return Err(bad("each parameter stands there once"));
            }
            rest = after;
        }
    }
}

/// The first parameter: its name, its value, and what comes after it, which begins with a `;` or is empty.
fn parameter(text: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, text) = text.split_at(memchr::memchr(b'=', text)?);
    let (value, rest) = match &text[1..] {
        [b'"', quoted @ ..] => unquote(quoted)?,
        text => {
            let (value, rest) = text.split_at(memchr::memchr(b';', text).unwrap_or(text.len()));
            (value.trim_ascii_end().to_vec(), rest)
        }
    };
    let rest = rest.trim_ascii_start();
    (!name.is_empty() && (rest.is_empty() || rest.starts_with(b";"))).then_some((name, value, rest))
}

/// Up to the closing quote. A backslash before a quote or another backslash is dropped.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut value, mut rest) = (Vec::new(), text);
    loop {
        match rest {
            [b'"', after @ ..] => return Some((value, after)),
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] | [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

//! File names in the protocol. They are validated here, once, and from then on have a type of their own.
//!
//! A bad name is refused, never repaired: a silently changed name is how two senders overwrite one another. Three kinds
//! are refused: names that lead elsewhere (`/`, `..`), names that are not what they look like (invisible characters, and
//! those that change the direction of writing, Unicode TR 36), and names that a shell or a later reader takes for
//! something else (a leading `-` or `.`, control characters). Names are compared byte for byte, as Linux does
//! (path_resolution(7)). This module does not know whether a name is free, or where it leads.

use std::fmt;

/// A base name that is safe to create in a directory.
///
/// Compared byte for byte: no case folding, no normalisation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Box<str>);

/// Names to refuse in addition to those that no receiver should accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamePolicy {
    /// Also refuse names that Windows cannot store, so that the directory can be copied anywhere.
    pub portable: bool,
}

impl Name {
    /// The longest name, in bytes: `NAME_MAX` of Linux file systems (limits.h).
    pub const MAX_BYTES: usize = 255;

    /// Validates `bytes` as a base name.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn parse(bytes: &[u8], policy: NamePolicy) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(NameError::TooLong);
        }
        let name = std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
        if let Some(error) = name.chars().find_map(refused_char) {
            return Err(error);
        }
        refused_edge(name).map_or(Ok(()), Err)?;
        if policy.portable {
            refused_by_windows(name).map_or(Ok(()), Err)?;
        }
        Ok(Self(name.into()))
    }

    /// The name with `.number` appended, or `None` if that is too long for a name.
    ///
    /// The new name keeps every other rule that the old one kept, portable or not: only its end changes, to a digit.
    pub fn numbered(&self, number: u16) -> Option<Self> {
        let name = format!("{self}.{number}");
        (name.len() <= Self::MAX_BYTES).then(|| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for Name {
    fn as_ref(&self) -> &std::path::Path {
        self.as_str().as_ref()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Why a name is refused. The message quotes no received byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// No bytes at all.
    Empty,
    /// More than [`Name::MAX_BYTES`].
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// Holds `/` or `\`.
    Path,
    /// Holds a C0 or C1 control character, DEL or NUL.
    Control,
    /// Holds an invisible or direction-changing character.
    Invisible,
    /// Begins with `.`, like hidden files and the server's own.
    LeadingDot,
    /// Begins with `-`: a shell would take it for an option.
    LeadingDash,
    /// Begins or ends with a space.
    EdgeSpace,
    /// Windows cannot store it (checked only with [`NamePolicy::portable`]).
    NotPortable,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the name is empty",
            Self::TooLong => "the name is longer than 255 bytes",
            Self::NotUtf8 => "the name is not UTF-8",
            Self::Path => "a name carries no path; send the base name",
            Self::Control => "the name holds a control character",
            Self::Invisible => "the name holds an invisible or direction-changing character",
            Self::LeadingDot => "the name begins with a dot",
            Self::LeadingDash => "the name begins with a dash",
            Self::EdgeSpace => "the name begins or ends with a space",
            Self::NotPortable => "the name cannot be stored on Windows, and this server takes portable names only",
        })
    }
}

impl std::error::Error for NameError {}

fn refused_char(c: char) -> Option<NameError> {
    match c {
        '/' | '\\' => Some(NameError::Path),
        '\0'..='\x1f' | '\x7f'..='\u{9f}' => Some(NameError::Control),
        // U+200C and U+200D stay allowed: scripts and emoji need them.
        '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => {
            Some(NameError::Invisible)
        }
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => Some(NameError::Invisible),
        '\u{e0000}'..='\u{e007f}' => Some(NameError::Invisible),
        _ => None,
    }
}

fn refused_edge(name: &str) -> Option<NameError> {
    match name.as_bytes() {
        [b'.', ..] => Some(NameError::LeadingDot),
        [b'-', ..] => Some(NameError::LeadingDash),
        [b' ', ..] | [.., b' '] => Some(NameError::EdgeSpace),
        _ => None,
    }
}

/// The characters, device names and endings of "Naming Files, Paths, and Namespaces" (Microsoft Learn, Win32).
fn refused_by_windows(name: &str) -> Option<NameError> {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let refused = name.contains(['<', '>', ':', '"', '|', '?', '*']) || name.ends_with('.') || is_windows_device(stem);
    refused.then_some(NameError::NotPortable)
}

fn is_windows_device(stem: &str) -> bool {
    let stem = stem.to_ascii_uppercase();
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str()) {
        return true;
    }
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    let mut digits = port.unwrap_or_default().chars();
    matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<Name, NameError> {
        Name::parse(name.as_bytes(), NamePolicy::default())
    }

    #[test]
    fn ordinary_names_pass_unchanged() {
        for name in
            ["a", "report.pdf", "with space.txt", "a..b", "héllo", "日本語", "👩‍🚀.png", "می‌خواهم", "k=v", "C:x", "a."]
        {
            assert_eq!(parse(name).as_ref().map(Name::as_str), Ok(name));
        }
    }

    #[test]
    fn each_rule_refuses_in_its_own_words() {
        let cases = [
            ("", NameError::Empty),
            ("../x", NameError::Path),
            ("a/b", NameError::Path),
            ("..\\x", NameError::Path),
            (".", NameError::LeadingDot),
            ("..", NameError::LeadingDot),
            (".hidden", NameError::LeadingDot),
            ("-rf", NameError::LeadingDash),
            (" a", NameError::EdgeSpace),
            ("a ", NameError::EdgeSpace),
            ("a\0b", NameError::Control),
            ("a\tb", NameError::Control),
            ("a\x7fb", NameError::Control),
            ("a\u{80}b", NameError::Control),
            ("a\u{9f}b", NameError::Control),
            ("a\u{ad}b", NameError::Invisible),
            ("a\u{202e}b", NameError::Invisible),
            ("a\u{200b}b", NameError::Invisible),
            ("\u{feff}a", NameError::Invisible),
            ("a\u{e0041}", NameError::Invisible),
        ];
        for (name, error) in cases {
            assert_eq!(parse(name), Err(error), "{name:?}");
        }
    }

    #[test]
    fn the_limit_counts_bytes_not_characters() {
        assert!(parse(&"n".repeat(255)).is_ok());
        assert!(parse(&"語".repeat(85)).is_ok());
        assert_eq!(parse(&"n".repeat(256)), Err(NameError::TooLong));
        assert_eq!(parse(&"語".repeat(86)), Err(NameError::TooLong));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        for bytes in [&b"a\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x80"] {
            assert_eq!(Name::parse(bytes, NamePolicy::default()), Err(NameError::NotUtf8));
        }
    }

    #[test]
    fn a_number_keeps_every_rule_and_the_limit() {
        let portable = NamePolicy { portable: true };
        for name in ["a", "report.pdf", "COM", "LPT", "日本語", "with space.txt"] {
            let numbered = Name::parse(name.as_bytes(), portable).unwrap().numbered(65_535).unwrap();
            assert_eq!(numbered.as_str(), format!("{name}.65535"));
            assert_eq!(Name::parse(numbered.as_str().as_bytes(), portable), Ok(numbered));
        }
        let longest = parse(&"n".repeat(253)).unwrap();
        assert_eq!(longest.numbered(9).map(|name| name.as_str().len()), Some(255));
        assert_eq!(longest.numbered(10), None);
    }

    #[test]
    fn portable_names_refuse_what_windows_cannot_store() {
        let portable = NamePolicy { portable: true };
        for name in [
            "CON",
            "nul.txt",
            "COM1",
            "lpt¹",
            "Nul .txt",
            "a.",
            "a:b",
            "what?",
            "a*",
            "<a>",
            "a|b",
            "say \"hi\"",
            "CONIN$",
        ] {
            assert_eq!(Name::parse(name.as_bytes(), portable), Err(NameError::NotPortable), "{name}");
        }
        for name in ["CONsole", "COM10", "COM", "null", "a.b", "auxiliary.txt"] {
            assert!(Name::parse(name.as_bytes(), portable).is_ok(), "{name}");
        }
    }
}

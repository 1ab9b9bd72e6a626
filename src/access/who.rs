//! The name that a client has proven.

use std::fmt;
use std::sync::Arc;

/// The longest name that is told, in characters. The common name of a certificate has 64 at most (RFC 5280, appendix A.1).
const NAME_MAX_CHARS: usize = 100;

/// The name that a client has proven: that of its token or of its certificate.
///
/// The issuer of a certificate chose its name, so it is escaped wherever it is printed.
///
/// ```
/// use intake::access::Who;
///
/// assert_eq!(Who::new("alice\n").to_string(), "alice\\n");
/// ```
// A thin pointer: thousands of connections have none, and need the room for it all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who(Arc<Box<str>>);

impl Who {
    /// The client with this name. What is longer than 100 characters is cut off.
    pub fn new(name: &str) -> Self {
        Self(Arc::new(name.chars().take(NAME_MAX_CHARS).collect()))
    }

    /// The name as it is, without escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_debug().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_thin_bounded_and_escaped() {
        assert_eq!(size_of::<Option<Who>>(), size_of::<usize>());
        assert_eq!(Who::new(&"x".repeat(500)).as_str().len(), NAME_MAX_CHARS);
        assert_eq!(Who::new("a \"b\" \u{1b}[31m\u{202e}é").to_string(), "a \\\"b\\\" \\u{1b}[31m\\u{202e}é");
    }
}

//! The token file: `NAME SHA256-HEX [max-file-size=SIZE] [per-day=SIZE] [uploads-per-day=N]`, one token a line.
//!
//! The file has no token, only its digest: who reads the file cannot write. A token has 256 random bits, so that nobody
//! finds it by its digest, and a fast digest does.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::quota::Quota;
use super::who::Who;
use crate::proto::Credential;
use crate::units::{Count, Size};

/// The most tokens. A token that is shown is compared with each of them.
const TOKENS_MAX: usize = 4096;
/// The longest token file, in bytes: so many of the longest lines fit.
pub const TOKEN_FILE_MAX_BYTES: u64 = 1 << 20;
/// The longest name of a token, in bytes. It stands in each log line.
const NAME_MAX_BYTES: usize = 64;

const LINE: &str = "a line is NAME SHA256-HEX, and then max-file-size=SIZE, per-day=SIZE or uploads-per-day=N";

/// A token of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    who: Who,
    max_file_size: Option<u64>,
    quota: Quota,
}

/// The tokens of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// In the order of `tokens`.
    digests: Box<[Credential]>,
    tokens: Box<[Arc<Token>]>,
}

/// What is wrong with a token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFileError {
    /// The line, counted from 1. `None`: the file as a whole.
    pub line: Option<usize>,
    /// What is wrong, and what would be right. Quotes no digest.
    pub words: String,
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.words)
    }
}

impl std::error::Error for TokenFileError {}

impl Token {
    /// The name of the client that has it.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// The largest file that is taken with it, in bytes.
    pub fn max_file_size(&self) -> Option<u64> {
        self.max_file_size
    }

    /// Whether it allows less than the server does.
    pub fn is_limited(&self) -> bool {
        self.max_file_size.is_some() || !self.quota.is_unlimited()
    }

    /// What may be sent with it in a day.
    pub fn quota(&self) -> Quota {
        self.quota
    }
}

impl Tokens {
    /// The token that was shown, if it is one of these. Takes the same time whichever it is, or none.
    pub fn find(&self, shown: &Credential) -> Option<&Arc<Token>> {
        Some(&self.tokens[position(self.digests.iter(), shown)?])
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().map(|token| &**token)
    }
}

/// The position of `shown` among `digests`. Compares all of them, whatever is equal.
fn position<'d>(digests: impl Iterator<Item = &'d Credential>, shown: &Credential) -> Option<usize> {
    const NOWHERE: u32 = u32::MAX;
    let mut found = NOWHERE;
    for (index, digest) in digests.enumerate() {
        found.conditional_assign(&(index as u32), digest.digest().ct_eq(shown.digest()));
    }
    (found != NOWHERE).then_some(found as usize)
}

impl FromStr for Tokens {
    type Err = TokenFileError;

    /// Reads a token file. Empty lines and lines that begin with `#` are comments.
    fn from_str(text: &str) -> Result<Self, TokenFileError> {
        let (mut digests, mut tokens, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |words: String| TokenFileError { line: Some(index + 1), words };
            let (digest, token) = parse_line(line).map_err(at)?;
            if !known.insert(token.who.clone()) {
                return Err(at(format!("{} is there already; a name has one token", token.who)));
            }
            if digests.contains(&digest) {
                return Err(at(format!("{} has the token of another name; each needs its own", token.who)));
            }
            digests.push(digest);
            tokens.push(Arc::new(token));
        }
        let whole = |words: &str| Err(TokenFileError { line: None, words: words.into() });
        match tokens.len() {
            0 => whole("there is no token in it, so that nobody could send anything; `intake token NAME` makes one"),
            1..=TOKENS_MAX => Ok(Self { digests: digests.into(), tokens: tokens.into() }),
            _ => whole("there are more than 4096 tokens in it"),
        }
    }
}

/// Whether a token can have this name.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=NAME_MAX_BYTES).contains(&name.len()) || !name.bytes().all(is_allowed) {
        return Err(format!("{name:?} is no name for a token: that is 1 to {NAME_MAX_BYTES} of A-Z a-z 0-9 . _ -"));
    }
    Ok(())
}

fn parse_line(line: &str) -> Result<(Credential, Token), String> {
    let mut words = line.split_ascii_whitespace();
    let (Some(name), Some(hex)) = (words.next(), words.next()) else { return Err(LINE.into()) };
    check_name(name)?;
    let words_of_hex =
        "the second word is the SHA-256 of the token, 64 hexadecimal digits; `intake token NAME` prints such a line";
    let digest = Credential::from_hex(hex).ok_or(words_of_hex)?;
    let mut token = Token { who: Who::new(name), max_file_size: None, quota: Quota::default() };
    for word in words {
        let (key, value) = word.split_once('=').ok_or(LINE)?;
        let told = |words: String| format!("{key}: {words}");
        match key {
            "max-file-size" => {
                set(&mut token.max_file_size, key, value.parse().map(|Size(bytes)| bytes).map_err(told)?)?
            }
            "per-day" => set(&mut token.quota.bytes, key, value.parse().map(|Size(bytes)| bytes).map_err(told)?)?,
            "uploads-per-day" => {
                set(&mut token.quota.uploads, key, value.parse().map(|Count(count)| count).map_err(told)?)?;
            }
            _ => return Err(format!("{key:?} is not known; {LINE}")),
        }
    }
    Ok((digest, token))
}

fn set<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{key} is there twice")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    /// The digest of the token "secret N", in hex.
    fn hex(number: usize) -> String {
        Credential::of(format!("secret {number}").as_bytes()).to_hex()
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        text.parse().map_err(|error: TokenFileError| error.to_string())
    }

    #[test]
    fn a_token_is_found_by_what_was_shown() {
        let text = format!(
            "# who may send\r\n\n  alice {}\n\tbob\t{}  max-file-size=1M uploads-per-day=7 per-day=2G\r\n",
            hex(1),
            hex(2).to_uppercase()
        );
        let tokens = parse(&text).unwrap();
        let find =
            |shown: &str| tokens.find(&Credential::of(shown.as_bytes())).map(|token| token.who().as_str().to_owned());
        assert_eq!(find("secret 1").as_deref(), Some("alice"));
        assert_eq!((find("secret 2").as_deref(), find("secret 3"), find("")), (Some("bob"), None, None));
        let bob = tokens.iter().nth(1).unwrap();
        assert_eq!(bob.max_file_size(), Some(1 << 20));
        assert_eq!(bob.quota(), Quota { bytes: Some(2 << 30), uploads: Some(7) });
    }

    /// Time is not measured: what is compared is counted.
    #[test]
    fn every_token_is_compared_whichever_is_shown() {
        let digests: Vec<Credential> = (0..100).map(|number| Credential::from_hex(&hex(number)).unwrap()).collect();
        for shown in [0, 1, 50, 99, 100] {
            let compared = Cell::new(0);
            let count = |_: &&Credential| compared.set(compared.get() + 1);
            let found = position(digests.iter().inspect(count), &Credential::from_hex(&hex(shown)).unwrap());
            assert_eq!((found, compared.get()), ((shown < 100).then_some(shown), 100));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_a_digest() {
        let (one, two) = (hex(1), hex(2));
        for (text, words) in [
            (String::new(), "there is no token in it"),
            ("# nothing\n".into(), "there is no token in it"),
            ("alice".into(), "line 1: a line is NAME"),
            (format!("\n\n# x\nalice {}", &one[1..]), "line 4: the second word is the SHA-256"),
            (format!("alice {one}0"), "line 1: the second word"),
            (format!("alice {}g", &one[1..]), "line 1: the second word"),
            (format!("{one} alice"), "line 1: the second word"),
            (format!("a/b {one}"), "line 1: \"a/b\" is no name"),
            (format!("{} {one}", "x".repeat(65)), "is no name"),
            (format!("alice {one}\nalice {two}"), "line 2: alice is there already"),
            (format!("alice {one}\nbob {one}"), "line 2: bob has the token of another name"),
            (format!("alice {one} quota=1"), "line 1: \"quota\" is not known"),
            (format!("alice {one} per-day"), "line 1: a line is NAME"),
            (format!("alice {one} per-day=1x"), "line 1: per-day: \"x\" is no unit"),
            (format!("alice {one} per-day=1 per-day=1"), "line 1: per-day is there twice"),
            (format!("alice {one} uploads-per-day=1k"), "line 1: uploads-per-day: "),
        ] {
            let said = parse(&text).unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
            assert!(!said.contains(&one) && !said.contains(&two), "{said}");
        }
        let many = |count: usize| (0..count).map(|number| format!("n{number} {}\n", hex(number))).collect::<String>();
        assert!(many(TOKENS_MAX).len() < TOKEN_FILE_MAX_BYTES as usize);
        assert!(parse(&many(TOKENS_MAX)).is_ok());
        assert!(parse(&many(TOKENS_MAX + 1)).unwrap_err().contains("more than 4096"));
    }

    proptest! {
        #[test]
        fn a_file_reads_back_as_it_was_written(limits in proptest::collection::vec(any::<[Option<u32>; 3]>(), 1..20)) {
            let line = |(number, [max, bytes, uploads]): (usize, &[Option<u32>; 3])| {
                let field = |key: &str, value: &Option<u32>| value.map_or(String::new(), |value| format!(" {key}={value}"));
                format!(
                    "n{number} {}{}{}{}\n",
                    hex(number),
                    field("per-day", bytes),
                    field("uploads-per-day", uploads),
                    field("max-file-size", max)
                )
            };
            let tokens = parse(&limits.iter().enumerate().map(line).collect::<String>()).unwrap();
            for (number, [max, bytes, uploads]) in limits.iter().enumerate() {
                let token = tokens.find(&Credential::from_hex(&hex(number)).unwrap()).unwrap();
                prop_assert_eq!(token.who().as_str(), format!("n{number}"));
                prop_assert_eq!(token.max_file_size(), max.map(u64::from));
                prop_assert_eq!(token.quota(), Quota { bytes: bytes.map(u64::from), uploads: *uploads });
            }
        }

        #[test]
        fn no_file_panics(text: String, lines in "([a-z#]{0,3} [0-9a-f]{62,66} [a-z-]{0,14}=?[0-9kM]{0,3}\n?){0,5}") {
            let _ = (parse(&text), parse(&lines));
        }
    }
}

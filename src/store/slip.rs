//! The slip of an entry in the queue, and the names of both.
//!
//! The server writes slips, consumers read them, so what they share is here. Knows no queue.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};

use serde_json::{Value, json};

/// The directory of the queue, in `.intake`.
pub const QUEUE: &CStr = c"queue";
/// The directory of entries that have failed, in the queue. A consumer makes it.
pub const FAILED: &str = "failed";

/// The name of a slip is that of its entry, and this.
const SLIP: &str = ".json";
/// The longest slip that is read, in bytes: two names of 255 bytes, with six bytes for each that is escaped, and the rest.
const SLIP_MAX_BYTES: u64 = 16 << 10;

/// What is known of a queued file. The server fills in what it knows of the client, the store the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slip {
    /// The number of the entry, as its name spells it.
    pub id: String,
    /// The name that the client asked for.
    pub name: String,
    /// The name that the file is stored under.
    pub stored: String,
    /// In bytes.
    pub size: u64,
    /// As in a receipt, if it is known.
    pub digest: Option<String>,
    /// The address of the client.
    pub peer: String,
    /// The name that the client had proven.
    pub who: Option<String>,
    /// When the content was whole, in seconds since the epoch.
    pub time: u64,
}

impl Slip {
    /// As one line of JSON.
    pub fn to_json(&self) -> String {
        let Self { id, name, stored, size, digest, peer, who, time } = self;
        let object = json!({
            "id": id, "name": name, "stored": stored, "size": size, "digest": digest, "peer": peer, "who": who, "time": time,
        });
        format!("{object}\n")
    }

    /// Reads back [`Slip::to_json`]. `None`: it is no such object.
    pub fn from_json(text: &str) -> Option<Self> {
        let object: Value = serde_json::from_str(text).ok()?;
        let word = |key: &str| object.get(key)?.as_str().map(str::to_owned);
        let number = |key: &str| object.get(key)?.as_u64();
        Some(Self {
            id: word("id")?,
            name: word("name")?,
            stored: word("stored")?,
            size: number("size")?,
            digest: word("digest"),
            peer: word("peer")?,
            who: word("who"),
            time: number("time")?,
        })
    }

    /// Reads the slip in `file` from its beginning. `None`: it is damaged.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn read(file: &File) -> io::Result<Option<Self>> {
        let mut text = Vec::new();
        let mut file = file;
        file.by_ref().take(SLIP_MAX_BYTES).read_to_end(&mut text)?;
        Ok(std::str::from_utf8(&text).ok().and_then(Self::from_json))
    }
}

/// The name of the entry `number`. All are of one length, so that a listing shows them in order.
pub fn entry_name(number: u64) -> String {
    format!("{number:012}")
}

/// The name of its slip.
pub fn slip_name(number: u64) -> String {
    entry_name(number) + SLIP
}

/// The number of the entry whose slip has this name.
pub fn number_of_slip(name: &str) -> Option<u64> {
    number_of(name.strip_suffix(SLIP)?)
}

/// The number of the entry of this name.
pub fn number_of(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (entry_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_read_back_as_it_was_written() {
        let slip = Slip {
            id: entry_name(7),
            name: "a \"b\"\\ é".into(),
            stored: "a \"b\"\\ é.1".into(),
            size: u64::MAX,
            digest: Some("crc32c:9a71bb4c".into()),
            peer: "[::1]:9".into(),
            who: Some("alice".into()),
            time: 1_800_000_000,
        };
        assert_eq!(Slip::from_json(&slip.to_json()), Some(slip.clone()));
        let plain = Slip { digest: None, who: None, ..slip };
        assert_eq!(Slip::from_json(&plain.to_json()), Some(plain.clone()));
        let text = plain.to_json();
        assert!(
            (0..text.len() - 1)
                .filter(|end| text.is_char_boundary(*end))
                .all(|end| Slip::from_json(&text[..end]).is_none())
        );
    }

    #[test]
    fn a_name_is_that_of_an_entry_or_of_a_slip_or_of_neither() {
        for number in [0, 7, 999_999_999_999, 1_000_000_000_000, u64::MAX] {
            assert_eq!(number_of(&entry_name(number)), Some(number));
            assert_eq!(number_of_slip(&slip_name(number)), Some(number));
            assert_eq!((number_of(&slip_name(number)), number_of_slip(&entry_name(number))), (None, None));
        }
        for name in ["", "7", "next", "failed", "+00000000007", "0000000000007", ".json"] {
            assert_eq!((number_of(name), number_of_slip(name)), (None, None), "{name}");
        }
    }
}

//! How each upload ended: for people, for programs, and as a list for `sha256sum -c`.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use intake::client::send::{SendError, Sent};
use intake::proto::{Algorithm, Digest, Failure, Receipt, Stored};
use serde_json::{Value, json};

/// How an upload went, for people. The stored name is the peer's word: quoted and escaped.
pub struct Words<'a>(pub &'a Sent);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { size, elapsed, stored } = self.0;
        match stored {
            Stored::Closed => f.write_str("stored (the server closed cleanly, there is no receipt)")?,
            Stored::Receipt(receipt) => write!(f, "stored as {:?}", receipt.stored_name)?,
        }
        write!(f, ", {size} bytes in {:.3} s", elapsed.as_secs_f64())?;
        match receipt(stored).and_then(|receipt| receipt.digest) {
            Some(digest) => write!(f, ", {digest}"),
            None => Ok(()),
        }
    }
}

/// How an upload went, for programs; without a result it was not tried. A path that is not UTF-8 is shown as near as can
/// be.
pub fn json(file: &Path, result: Option<&Result<Sent, SendError>>) -> Value {
    let file = file.to_string_lossy();
    match result {
        Some(Ok(Sent { size, elapsed, stored })) => {
            let receipt = receipt(stored);
            json!({
                "file": file,
                "status": "done",
                "size_bytes": size,
                "elapsed_seconds": elapsed.as_secs_f64(),
                "stored_name": receipt.map(|receipt| &receipt.stored_name),
                "digest": receipt.and_then(|receipt| receipt.digest).map(|digest| digest.to_string()),
            })
        }
        Some(Err(error)) => {
            json!({ "file": file, "status": "failed", "code": code(error), "error": error.to_string() })
        }
        None => json!({ "file": file, "status": "untried" }),
    }
}

fn receipt(stored: &Stored) -> Option<&Receipt> {
    match stored {
        Stored::Closed => None,
        Stored::Receipt(receipt) => Some(receipt),
    }
}

fn code(error: &SendError) -> Option<u16> {
    match error {
        SendError::Failed(Failure::Refused(refusal)) => Some(refusal.code.0),
        _ => None,
    }
}

/// The digests of what is stored, under the names that it is stored by, as sha256sum(1) checks them in the directory of
/// the server.
pub struct Manifest(File);

impl Manifest {
    /// The digest that it lists.
    pub const ALGORITHM: Algorithm = Algorithm::Sha256;

    /// Makes an empty one.
    ///
    /// # Errors
    /// In words.
    pub fn create(path: &Path) -> Result<Self, String> {
        File::create(path).map(Self).map_err(|error| format!("{path:?} cannot be written: {error}"))
    }

    /// Lists a file.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn add(&mut self, sent: &Sent) -> io::Result<()> {
        match receipt(&sent.stored) {
            Some(Receipt { digest: Some(digest), stored_name, .. }) => {
                self.0.write_all(manifest_line(digest, stored_name).as_bytes())
            }
            _ => Ok(()),
        }
    }
}

/// A backslash in front says that the name has some escaped, as coreutils does it.
fn manifest_line(digest: &Digest, name: &str) -> String {
    let escaped = name.replace('\\', r"\\").replace('\r', r"\r");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{}  {escaped}\n", digest.to_hex())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use intake::proto::{Code, Refusal};

    use super::*;

    fn sent(digest: Option<Digest>, stored_name: &str) -> Sent {
        let receipt = Receipt { size: 5, digest, stored_name: stored_name.into() };
        Sent { size: 5, elapsed: Duration::from_millis(1500), stored: Stored::Receipt(receipt) }
    }

    #[test]
    fn words_say_what_is_known_and_escape_what_is_told() {
        let closed = Sent { stored: Stored::Closed, ..sent(None, "") };
        assert!(Words(&closed).to_string().contains("no receipt), 5 bytes in 1.500 s"));
        let stored = sent(Some(Digest::Crc32c(0xbeef)), "a\u{1b}.1");
        let words = r#"stored as "a\u{1b}.1", 5 bytes in 1.500 s, crc32c:0000beef"#;
        assert_eq!(Words(&stored).to_string(), words);
    }

    #[test]
    fn objects_have_a_status() {
        let file = Path::new("dir/a \"b\"");
        let done = json(file, Some(&Ok(sent(None, "a.1"))));
        assert_eq!(
            (&done["status"], &done["stored_name"], &done["digest"]),
            (&json!("done"), &json!("a.1"), &Value::Null)
        );
        assert_eq!(done["file"], json!("dir/a \"b\""));
        let refused = SendError::Failed(Failure::Refused(Refusal::new(Code::CONFLICT, "taken")));
        assert_eq!(json(file, Some(&Err(refused)))["code"], json!(409));
        let failed = json(file, Some(&Err(SendError::Connect(ErrorKind::ConnectionRefused))));
        assert_eq!((&failed["status"], &failed["code"]), (&json!("failed"), &Value::Null));
        assert_eq!(json(file, None)["status"], json!("untried"));
    }

    #[test]
    fn manifests_escape_as_coreutils_does() {
        let digest = Digest::Crc32c(1);
        assert_eq!(manifest_line(&digest, "a b"), "00000001  a b\n");
        assert_eq!(manifest_line(&digest, r"a\b"), "\\00000001  a\\\\b\n");
    }
}

//! How each upload ended: for people, for programs, and as a list for `sha256sum -c`.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use intake::client::send::{SendError, Sent, Source, Upload};
use intake::proto::{Algorithm, Digest, Failure, Receipt, Stored};
use serde_json::{Value, json};

use super::super::{Exit, complain, say};
use super::STDIN;

/// Tells how each file ended, and remembers how that makes the whole end.
pub struct Teller<'a> {
    uploads: &'a [Upload],
    json: bool,
    manifest: Option<Manifest>,
    /// Which files have ended.
    told: Vec<bool>,
    /// It has not been shown yet that the server knows the dialect.
    may_be_classic: bool,
    exit: Exit,
}

impl<'a> Teller<'a> {
    /// `may_be_classic`: the server is spoken to in a dialect that not all know.
    pub fn new(uploads: &'a [Upload], json: bool, may_be_classic: bool, manifest: Option<Manifest>) -> Self {
        Self { uploads, json, manifest, told: vec![false; uploads.len()], may_be_classic, exit: Exit::Done }
    }

    /// Tells how one of them ended.
    pub fn tell(&mut self, upload: usize, result: &Result<Sent, SendError>) {
        let file = typed(&self.uploads[upload].source);
        self.told[upload] = true;
        if let Ok(_) | Err(SendError::Failed(Failure::Refused(_))) = result {
            self.may_be_classic = false;
        }
        match result {
            _ if self.json => say(json(file, Some(result))),
            Ok(sent) => say(format_args!("{file:?}: {}", Words(sent))),
            Err(error) => complain(format_args!("{file:?}: {error}{}", self.advice(error))),
        }
        match result {
            Ok(sent) => {
                if let Some(Err(error)) = self.manifest.as_mut().map(|manifest| manifest.add(sent)) {
                    complain(format_args!("the manifest cannot be written: {error}"));
                    self.exit = Exit::Failed;
                }
            }
            Err(error) if error.is_unreachable() => self.exit = Exit::Unreachable,
            Err(_) if self.exit == Exit::Done => self.exit = Exit::Failed,
            Err(_) => {}
        }
    }

    /// What to do about it, where that is an option of this program.
    fn advice(&self, error: &SendError) -> &'static str {
        match error {
            SendError::Failed(Failure::OnlyClassic) => "; send with --dialect classic",
            SendError::Failed(Failure::Unanswered | Failure::Unknown) if self.may_be_classic => {
                "; a receiver that knows only the tutorials' protocol needs --dialect classic"
            }
            _ => "",
        }
    }

    /// Tells of what was not tried, and how the whole ended.
    pub fn finish(self) -> Exit {
        let untried: Vec<_> = self.uploads.iter().zip(&self.told).filter(|(_, told)| !**told).collect();
        if self.json {
            untried.iter().for_each(|(upload, _)| say(json(typed(&upload.source), None)));
        } else if !untried.is_empty() {
            complain(format_args!("{} more files were not tried", untried.len()));
        }
        self.exit
    }
}

/// The path as it was typed.
fn typed(source: &Source) -> &Path {
    match source {
        Source::File(path) => path,
        Source::Stdin => Path::new(STDIN),
    }
}

/// How an upload went, for people. The stored name is the peer's word: quoted and escaped.
struct Words<'a>(&'a Sent);

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
fn json(file: &Path, result: Option<&Result<Sent, SendError>>) -> Value {
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

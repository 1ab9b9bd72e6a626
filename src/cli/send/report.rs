//! Reports how each upload ended, for people or for programs, and derives the exit code of the run.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use intake::client::send::{SendError, Sent, Source, Upload};
use intake::proto::{Answered, Code, Failure, Receipt, Refusal, Stored};
use serde_json::{Value, json};

use super::list::STDIN;
use super::manifest::Manifest;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, complain};

/// Reports how each file ended, and keeps track of the exit code.
pub struct Teller<'a> {
    uploads: &'a [Upload],
    json: bool,
    output: Output,
    manifest: Option<Manifest>,
    /// The manifest could not be written.
    is_manifest_broken: bool,
    /// For each file, whether its end was reported.
    told: Vec<bool>,
    /// The server may not know the dialect, since no reply has shown that it does.
    may_be_classic: bool,
    /// The run shows a token.
    has_token: bool,
    exit: Exit,
}

impl<'a> Teller<'a> {
    /// `may_be_classic`: not every server knows the dialect. `has_token`: the run shows a token.
    pub fn new(uploads: &'a [Upload], json: bool, may_be_classic: bool, has_token: bool) -> Self {
        Self {
            uploads,
            json,
            output: Output::default(),
            manifest: None,
            is_manifest_broken: false,
            told: vec![false; uploads.len()],
            may_be_classic,
            has_token,
            exit: Exit::Done,
        }
    }

    /// From now on stored files are listed in `manifest`.
    pub fn list_in(&mut self, manifest: Option<Manifest>) {
        self.manifest = manifest;
    }

    /// Reports a file that cannot be sent.
    pub fn reject(&mut self, file: &Path, words: &str) {
        self.exit = Exit::Failed;
        match self.json {
            true => self.output.say(failed(file, None, words)),
            false => complain(format_args!("{file:?}: {words}")),
        }
    }

    /// Reports how an upload ended.
    pub fn tell(&mut self, upload: usize, result: &Result<Sent, SendError>) {
        let file = typed(&self.uploads[upload].source);
        self.told[upload] = true;
        if let Ok(_) | Err(SendError::Failed(Failure::Refused(_))) = result {
            self.may_be_classic = false;
        }
        match result {
            _ if self.json => self.output.say(json(file, Some(result))),
            Ok(sent) => self.output.say(format_args!("{file:?}: {}", Words(sent))),
            Err(error) => complain(format_args!("{file:?}: {error}{}", self.advice(error))),
        }
        match result {
            Ok(sent) => {
                let listed = self.manifest.as_mut().map_or(Ok(()), |manifest| manifest.add(sent));
                self.note_manifest(listed);
            }
            Err(error) if error.is_unreachable() => self.exit = Exit::Unreachable,
            Err(_) => self.fail(),
        }
    }

    fn fail(&mut self) {
        if self.exit == Exit::Done {
            self.exit = Exit::Failed;
        }
    }

    /// Reports the first failure to write the manifest.
    fn note_manifest(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.is_manifest_broken, true)
        {
            complain(format_args!("the manifest cannot be written: {error}; it is left as it was"));
            self.fail();
        }
    }

    /// Advice about the error, if an option of this program helps.
    fn advice(&self, error: &SendError) -> &'static str {
        match error {
            SendError::Foreign(said) if said.starts_with("HTTP/") => {
                "; to a web server send with --to http://HOST:PORT/"
            }
            // A server of this project that requires TLS says so in its own protocol, also to HTTP.
            SendError::Foreign(said) if said.starts_with("no 426 ") => "; write https://",
            SendError::Connect { kind: ErrorKind::ConnectionRefused, .. } => {
                "; is the server running there, and is the port right?"
            }
            SendError::Failed(Failure::Refused(Refusal { code: Code::UNAUTHORIZED, .. })) if !self.has_token => {
                "; give it by --token-file or INTAKE_TOKEN"
            }
            SendError::Failed(Failure::Refused(Refusal { code: Code::TLS_REQUIRED, .. })) => "; send with --tls",
            SendError::Failed(Failure::OnlyClassic) => "; send with --dialect classic",
            SendError::Failed(Failure::Unanswered | Failure::Unknown) if self.may_be_classic => {
                "; a receiver that knows only the tutorials' protocol needs --dialect classic"
            }
            _ => "",
        }
    }

    /// Reports files that were not tried, renames the manifest to its final path, and returns the exit code.
    pub fn finish(mut self) -> Exit {
        let untried: Vec<_> = self.uploads.iter().zip(&self.told).filter(|(_, told)| !**told).collect();
        if self.json {
            untried.iter().for_each(|(upload, _)| self.output.say(json(typed(&upload.source), None)));
        } else if !untried.is_empty() && self.told.contains(&true) {
            complain(format_args!("{} more files were not tried", untried.len()));
        }
        if let Some(manifest) = self.manifest.take() {
            match manifest.finish(self.is_manifest_broken) {
                Ok(false) if !self.is_manifest_broken => {
                    complain("nothing is stored, so the manifest is left as it was")
                }
                result => self.note_manifest(result.map(drop)),
            }
        }
        self.output.exit(self.exit)
    }
}

/// The error, before words that say when the next attempt is made: those of the server about that are left out.
pub fn before_pause(error: &SendError) -> String {
    match error {
        SendError::Failed(Failure::Refused(refusal)) => {
            Failure::Refused(Refusal { retry_seconds: None, ..refusal.clone() }).to_string()
        }
        error => error.to_string(),
    }
}

/// The path as it was given.
fn typed(source: &Source) -> &Path {
    match source {
        Source::File(path) => path,
        Source::Stdin => Path::new(STDIN),
    }
}

/// How an upload ended, for people. The stored name comes from the server, so it is quoted and escaped.
struct Words<'a>(&'a Sent);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { size, elapsed, stored } = self.0;
        match stored {
            Stored::Closed => f.write_str("stored (the server closed cleanly, there is no receipt)")?,
            Stored::Receipt(receipt) => write!(f, "stored as {:?}", receipt.stored_name)?,
            Stored::Answered(Answered { status, name, .. }) => write!(
                f,
                "stored as {:?} (the server answered {status}; it gave no receipt, so neither size nor digest is confirmed)",
                name.as_str()
            )?,
        }
        write!(f, ", {size} bytes in {:.3} s", elapsed.as_secs_f64())?;
        match stored {
            Stored::Receipt(Receipt { digest: Some(digest), .. }) => write!(f, ", {digest}"),
            _ => Ok(()),
        }
    }
}

/// How an upload ended, for programs. Without a result it was not tried. Bytes of a path that are not UTF-8 are replaced.
fn json(path: &Path, result: Option<&Result<Sent, SendError>>) -> Value {
    let file = path.to_string_lossy();
    match result {
        Some(Ok(Sent { size, elapsed, stored })) => {
            let (stored_name, digest, http_status) = match stored {
                Stored::Closed => (None, None, None),
                Stored::Receipt(Receipt { stored_name, digest, .. }) => (Some(stored_name.as_str()), *digest, None),
                Stored::Answered(Answered { name, status, .. }) => (Some(name.as_str()), None, Some(*status)),
            };
            let mut object = json!({
                "file": file,
                "status": "done",
                "size_bytes": size,
                "elapsed_seconds": elapsed.as_secs_f64(),
                "stored_name": stored_name,
                "digest": digest.map(|digest| digest.to_string()),
            });
            if let Some(status) = http_status {
                object["http_status"] = status.into();
            }
            object
        }
        Some(Err(error)) => failed(path, code(error), &error.to_string()),
        None => json!({ "file": file, "status": "untried" }),
    }
}

fn failed(path: &Path, code: Option<u16>, words: &str) -> Value {
    json!({ "file": path.to_string_lossy(), "status": "failed", "code": code, "error": words })
}

fn code(error: &SendError) -> Option<u16> {
    match error {
        SendError::Failed(Failure::Refused(Refusal { code, .. }))
        | SendError::TakenMeanwhile(Refusal { code, .. })
        | SendError::SlowSource(Refusal { code, .. }) => Some(code.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use intake::proto::{Code, Digest, Name, NamePolicy};

    use super::*;

    fn sent(digest: Option<Digest>, stored_name: &str) -> Sent {
        let receipt = Receipt { size: 5, digest, stored_name: stored_name.into() };
        Sent { size: 5, elapsed: Duration::from_millis(1500), stored: Stored::Receipt(receipt) }
    }

    #[test]
    fn lines_tell_only_what_is_known_and_escape_the_servers_words() {
        let closed = Sent { stored: Stored::Closed, ..sent(None, "") };
        assert!(Words(&closed).to_string().contains("no receipt), 5 bytes in 1.500 s"));
        let name = Name::parse(b"b", NamePolicy::default()).unwrap();
        let answered = Answered { status: 204, size: 5, digest: Some(Digest::Crc32c(1)), name };
        let answered = Sent { stored: Stored::Answered(answered), ..sent(None, "") };
        let words = Words(&answered).to_string();
        assert!(words.starts_with(r#"stored as "b" (the server answered 204; "#), "{words}");
        assert!(words.ends_with("confirmed), 5 bytes in 1.500 s"), "it confirmed no digest: {words}");
        let object = json(Path::new("b"), Some(&Ok(answered)));
        assert_eq!(
            (&object["http_status"], &object["stored_name"], &object["digest"]),
            (&json!(204), &json!("b"), &Value::Null)
        );
        let stored = sent(Some(Digest::Crc32c(0xbeef)), "a\u{1b}.1");
        let words = r#"stored as "a\u{1b}.1", 5 bytes in 1.500 s, crc32c:0000beef"#;
        assert_eq!(Words(&stored).to_string(), words);
    }

    #[test]
    fn advice_names_what_would_help() {
        let refused =
            || SendError::Failed(Failure::Refused(Refusal::new(Code::UNAUTHORIZED, "this server needs a token")));
        let teller = |has_token| Teller::new(&[], false, false, has_token);
        assert!(teller(false).advice(&refused()).contains("--token-file or INTAKE_TOKEN"));
        assert_eq!(teller(true).advice(&refused()), "", "it is another fault of the token");
        let gone = SendError::Connect { kind: ErrorKind::ConnectionRefused, worked_before: false };
        assert!(teller(false).advice(&gone).contains("is the port right?"));
    }

    #[test]
    fn the_time_of_the_next_attempt_is_told_once() {
        let busy = Refusal { retry_seconds: Some(5), ..Refusal::new(Code::CONFLICT, "busy") };
        let error = SendError::Failed(Failure::Refused(busy));
        assert!(error.to_string().ends_with("\"busy\"; try again in 5 s"), "{error}");
        assert!(before_pause(&error).ends_with("\"busy\""), "{}", before_pause(&error));
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
        let gone = SendError::Connect { kind: ErrorKind::ConnectionRefused, worked_before: false };
        let failed = json(file, Some(&Err(gone)));
        assert_eq!((&failed["status"], &failed["code"]), (&json!("failed"), &Value::Null));
        assert_eq!(json(file, None)["status"], json!("untried"));
    }
}

//! `intake send`: files, one after the other, each over a connection of its own.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use intake::client::send::{Content, SendError, Sent, send};
use intake::proto::{Dialect, Name, NamePolicy, Sender, Stored};
use signal_hook::consts::SIGINT;
use signal_hook::flag::register_conditional_shutdown;

use super::address::Address;
use super::{Exit, Words, complain, one_of, say, usage_error, word_of};

/// Sends files to a receiver
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    every file is stored
  1    a file failed or was refused
  2    wrong usage
  3    cannot connect, or the server fell silent
  130  interrupted by Ctrl-C")]
pub struct Send {
    /// What to send; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The receiver
    #[arg(long, value_name = "HOST:PORT", default_value_t)]
    to: Address,
    /// How to speak to it: `classic` is understood by every receiver of the tutorials, `line` is answered by a receipt
    #[arg(long, value_parser = one_of(DIALECTS), default_value = word_of(DIALECTS, Dialect::default()))]
    dialect: Dialect,
    /// The name to store a single file under, instead of its own
    #[arg(long, value_parser = parse_name, required_if_eq("files", STDIN))]
    name: Option<Name>,
}

const STDIN: &str = "-";
const DIALECTS: &Words<Dialect> = &[("classic", Dialect::Classic), ("line", Dialect::Line)];

struct Upload {
    /// `-` is standard input.
    file: PathBuf,
    name: Name,
}

impl Send {
    /// Checks every file, and only then connects.
    pub fn run(self) -> Exit {
        if self.name.is_some() && self.files.len() > 1 {
            return usage_error("send", "--name names one file, and several are given");
        }
        exit_on_interrupt();
        let checked = self.files.iter().filter_map(|file| self.check(file).map_err(complain).ok());
        let uploads: Vec<Upload> = checked.collect();
        if uploads.len() < self.files.len() {
            return Exit::Failed;
        }
        match self.to.resolve() {
            Ok(to) => send_each(&uploads, &to, self.dialect),
            Err(words) => {
                complain(words);
                Exit::Unreachable
            }
        }
    }

    fn check(&self, file: &Path) -> Result<Upload, String> {
        if file != Path::new(STDIN) {
            Content::open(file).map_err(|error| format!("{file:?}: {error}"))?;
        }
        let name = self.name.clone().map_or_else(|| name_of(file), Ok)?;
        Ok(Upload { file: file.to_owned(), name })
    }
}

fn name_of(file: &Path) -> Result<Name, String> {
    let base_name = file.file_name().unwrap_or_default().as_bytes();
    Name::parse(base_name, NamePolicy::default())
        .map_err(|error| format!("{file:?}: {error}; give it another by --name"))
}

fn parse_name(typed: &str) -> Result<Name, String> {
    Name::parse(typed.as_bytes(), NamePolicy::default()).map_err(|error| error.to_string())
}

/// The exit closes the connection, and an unfinished one then ends with RST: half a file is not taken for a whole one.
fn exit_on_interrupt() {
    // Should it fail, the signal itself ends the process, which shells report by the same number.
    let _ = register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, Arc::new(AtomicBool::new(true)));
}

/// A refused file does not keep the next from being tried; a server that is not there does.
fn send_each(uploads: &[Upload], to: &[SocketAddr], dialect: Dialect) -> Exit {
    let mut exit = Exit::Done;
    for Upload { file, name } in uploads {
        match send_one(file, Sender::new(dialect, name.clone()), to) {
            Ok(sent) => say(format_args!("{name}: {}", Report(&sent))),
            Err(error) => {
                complain(format_args!("{file:?}: {error}"));
                exit = Exit::Failed;
                if matches!(error, SendError::Connect(_) | SendError::TimedOut) {
                    return Exit::Unreachable;
                }
            }
        }
    }
    exit
}

fn send_one(file: &Path, sender: Sender, to: &[SocketAddr]) -> Result<Sent, SendError> {
    if file == Path::new(STDIN) {
        send_with_progress(Content { reader: io::stdin().lock(), size: None }, sender, to)
    } else {
        send_with_progress(Content::open(file)?, sender, to)
    }
}

fn send_with_progress<R: Read>(content: Content<R>, sender: Sender, to: &[SocketAddr]) -> Result<Sent, SendError> {
    let bar = progress_bar(content.size);
    let sent = send(to, sender, content, |sent| bar.set_position(sent));
    bar.finish_and_clear();
    sent
}

/// Hidden where standard error is no terminal.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let template = match size {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {bytes} {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr()).with_style(style)
}

/// How an upload went, for people. The stored name is the peer's word: quoted and escaped.
struct Report<'a>(&'a Sent);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { size, elapsed, stored } = self.0;
        match stored {
            Stored::Closed => f.write_str("stored (the server closed cleanly, there is no receipt)")?,
            Stored::Receipt(receipt) => write!(f, "stored as {:?}", receipt.stored_name)?,
        }
        write!(f, ", {size} bytes in {:.3} s", elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::FromArgMatches;
    use clap::error::ErrorKind;
    use intake::proto::Receipt;

    use super::*;

    fn parse(typed: &[&str]) -> Result<Send, clap::Error> {
        let mut command = Send::augment_args(clap::Command::new("send").no_binary_name(true));
        Send::from_arg_matches(&command.try_get_matches_from_mut(typed)?)
    }

    #[test]
    fn standard_input_needs_a_name() {
        assert_eq!(parse(&["-"]).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse(&["a", "-"]).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        assert!(parse(&["-", "--name", "a.txt"]).is_ok());
        assert!(parse(&["a"]).is_ok());
    }

    #[test]
    fn one_name_cannot_name_two_files() {
        assert_eq!(parse(&["a", "b", "--name", "c"]).unwrap().run(), Exit::Usage);
    }

    #[test]
    fn names_are_checked_before_anything_else() {
        assert_eq!(parse(&["a", "--name", "../a"]).unwrap_err().kind(), ErrorKind::ValueValidation);
        assert_eq!(name_of(Path::new("/tmp/a b.txt")).unwrap().as_str(), "a b.txt");
        let words = name_of(Path::new("/tmp/.hidden")).unwrap_err();
        assert!(words.contains("begins with a dot") && words.contains("--name"), "{words}");
    }

    #[test]
    fn a_bad_file_fails_before_the_connect() {
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good");
        std::fs::write(&good, b"hello").unwrap();
        // Nothing listens there: had it connected, this would be another exit.
        let files = [directory.path(), &directory.path().join("missing")];
        for bad in files {
            let typed = [good.to_str().unwrap(), bad.to_str().unwrap(), "--to", "127.0.0.1:1"];
            assert_eq!(parse(&typed).unwrap().run(), Exit::Failed);
        }
        assert_eq!(parse(&[good.to_str().unwrap(), "--to", "127.0.0.1:1"]).unwrap().run(), Exit::Unreachable);
    }

    #[test]
    fn reports_say_what_is_known_and_escape_what_is_told() {
        let elapsed = Duration::from_millis(1500);
        let closed = Sent { size: 5, elapsed, stored: Stored::Closed };
        assert!(Report(&closed).to_string().contains("no receipt), 5 bytes in 1.500 s"));
        let receipt = Receipt { size: 5, digest: None, stored_name: "a\u{1b}.1".into() };
        let stored = Sent { stored: Stored::Receipt(receipt), ..closed };
        assert_eq!(Report(&stored).to_string(), r#"stored as "a\u{1b}.1", 5 bytes in 1.500 s"#);
    }
}

//! `intake send`: files, over a few connections, each with its receipt.

mod progress;
mod report;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use clap::Args;
use intake::client::send::{Event, Plan, Source, Upload, send};
use intake::proto::{Dialect, Name, NamePolicy};
use signal_hook::consts::SIGINT;
use signal_hook::flag::register_conditional_shutdown;

use self::progress::{Progress, Shown};
use self::report::{Manifest, Teller};
use super::address::Address;
use super::{Exit, Words, complain, one_of, usage_error};

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
    #[arg(value_name = "FILE", required_unless_present = "files_from", conflicts_with = "files_from")]
    files: Vec<PathBuf>,
    /// A list of what to send, one path a line, or each ended by NUL (`find -print0`); `-` is standard input
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
    /// The receiver
    #[arg(long, value_name = "HOST:PORT", default_value_t)]
    to: Address,
    /// How to speak to it [default: put, and ask for files of 8 MiB and more, which can be resumed]. `classic` is
    /// understood by every receiver of the tutorials, `line` by every intake
    #[arg(long, value_parser = one_of(DIALECTS))]
    dialect: Option<Dialect>,
    /// The name to store a single file under, instead of its own
    #[arg(long, value_parser = parse_name, required_if_eq("files", STDIN))]
    name: Option<Name>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = Plan::default().jobs as u16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=JOBS_MAX))]
    jobs: u16,
    /// How often in a row a file is tried again, after a growing pause, when the connection breaks, the server falls
    /// silent, or it says when to come back
    #[arg(long, value_name = "N", default_value_t = Plan::default().retries)]
    retry: u32,
    /// Print one JSON object for each file
    #[arg(long)]
    json: bool,
    /// Write what is stored to a list for `sha256sum -c`, to be run in the receiver's directory. The receiver then checks
    /// SHA-256 instead of CRC-32C
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

const STDIN: &str = "-";
const DIALECTS: &Words<Dialect> =
    &[("classic", Dialect::Classic), ("line", Dialect::Line), ("put", Dialect::Put), ("ask", Dialect::Ask)];
/// More would be no faster, and takes the server's connections from others.
const JOBS_MAX: i64 = 64;

impl Send {
    /// Checks every file, and only then connects.
    pub fn run(mut self) -> Exit {
        if self.manifest.is_some() && self.dialect.is_some_and(|dialect| !dialect.is_framed()) {
            return usage_error("send", "--manifest lists digests, which the classic and line dialects do not have");
        }
        if let Some(list) = &self.files_from {
            match read_list(list) {
                Ok(files) => self.files = files,
                Err(error) => return fail(format_args!("{list:?} cannot be read: {error}")),
            }
        }
        if self.name.is_some() && self.files.len() != 1 {
            return usage_error("send", "--name names one file, and several are given");
        }
        exit_on_interrupt();
        let checked = self.files.iter().filter_map(|file| self.check(file).map_err(complain).ok());
        let (uploads, sizes): (Vec<Upload>, Vec<Option<u64>>) = checked.unzip();
        if uploads.len() < self.files.len() {
            return Exit::Failed;
        }
        match (self.manifest.as_deref().map(Manifest::create).transpose(), self.to.resolve()) {
            (Err(words), _) => fail(words),
            (_, Err(words)) => {
                complain(words);
                Exit::Unreachable
            }
            (Ok(manifest), Ok(to)) => self.send(&uploads, &sizes, to, manifest),
        }
    }

    /// What is to be sent, and its size in bytes where that is known.
    fn check(&self, file: &Path) -> Result<(Upload, Option<u64>), String> {
        let is_stdin = self.files_from.is_none() && file == Path::new(STDIN);
        let source = if is_stdin { Source::Stdin } else { Source::File(file.to_owned()) };
        let size = source.open().map_err(|error| format!("{file:?}: {error}"))?.size();
        let name = self.name.clone().map_or_else(|| name_of(file), Ok)?;
        Ok((Upload { source, name }, size))
    }

    fn send(&self, uploads: &[Upload], sizes: &[Option<u64>], to: Vec<SocketAddr>, manifest: Option<Manifest>) -> Exit {
        let plan = Plan {
            to,
            dialect: self.dialect,
            algorithm: manifest.as_ref().map_or(Plan::default().algorithm, |_| Manifest::ALGORITHM),
            jobs: self.jobs.into(),
            retries: self.retry,
            ..Plan::default()
        };
        let progress = Progress::new(sizes, plan.jobs);
        let speaks_classic = self.dialect.is_some_and(|dialect| !dialect.is_framed());
        let teller = Mutex::new(Teller::new(uploads, self.json, !speaks_classic, manifest));
        send(&plan, uploads, |event| match event {
            Event::Progress { job, upload, position } => {
                let shown = Shown { upload, name: uploads[upload].name.as_str(), size: sizes[upload] };
                progress.set(job, &shown, position);
            }
            Event::Again { uploads, error, pause } => progress.suspended(|| {
                let pause = pause.as_secs_f64();
                complain(format_args!("{error}; trying again in {pause:.1} s (files: {uploads})"));
            }),
            Event::Settled { upload, result } => {
                let mut teller = teller.lock().expect("no holder panics");
                progress.suspended(|| teller.tell(upload, result));
            }
        });
        progress.clear();
        teller.into_inner().expect("no holder panicked").finish()
    }
}

fn fail(words: impl fmt::Display) -> Exit {
    complain(words);
    Exit::Failed
}

fn read_list(list: &Path) -> io::Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    if list == Path::new(STDIN) {
        io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        bytes = fs::read(list)?;
    }
    Ok(paths_in(&bytes))
}

/// No path holds a NUL: where there is one, it is what ends each of them.
fn paths_in(bytes: &[u8]) -> Vec<PathBuf> {
    let end = if bytes.contains(&0) { 0 } else { b'\n' };
    let paths = bytes.split(|byte| *byte == end).filter(|path| !path.is_empty());
    paths.map(|path| OsString::from_vec(path.to_owned()).into()).collect()
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

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;
    use clap::error::ErrorKind;

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
    fn files_are_typed_or_listed() {
        assert_eq!(parse(&[]).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse(&["a", "--files-from", "list"]).unwrap_err().kind(), ErrorKind::ArgumentConflict);
        assert!(parse(&["--files-from", "list"]).is_ok());
    }

    #[test]
    fn a_list_has_an_end_for_each_path() {
        let paths = |bytes: &[u8]| paths_in(bytes).into_iter().map(|path| path.into_os_string()).collect::<Vec<_>>();
        assert_eq!(paths(b"a b\nc\n\nd"), ["a b", "c", "d"]);
        assert_eq!(paths(b"a\nb\0c\0"), ["a\nb", "c"]);
        assert!(paths(b"").is_empty());
    }

    #[test]
    fn what_contradicts_itself_is_wrong_usage() {
        assert_eq!(parse(&["a", "b", "--name", "c"]).unwrap().run(), Exit::Usage);
        assert_eq!(parse(&["a", "--manifest", "m", "--dialect", "line"]).unwrap().run(), Exit::Usage);
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
        fs::write(&good, b"hello").unwrap();
        // Nothing listens there: had it connected, this would be another exit.
        let nowhere = ["--to", "127.0.0.1:1", "--retry", "0"];
        for bad in [directory.path(), &directory.path().join("missing")] {
            let typed = [&[good.to_str().unwrap(), bad.to_str().unwrap()], &nowhere[..]].concat();
            assert_eq!(parse(&typed).unwrap().run(), Exit::Failed);
        }
        assert_eq!(parse(&[&[good.to_str().unwrap()], &nowhere[..]].concat()).unwrap().run(), Exit::Unreachable);
    }
}

//! `intake send`: sends files over a few connections, and reports the receipt of each.
//!
//! Turns the options into a plan and a list of uploads. Does not know how they are sent.

mod list;
mod manifest;
mod progress;
mod report;

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::Args;
use intake::client::send::{Event, Plan, Source, Upload, send};
use intake::proto::{Dialect, Name, NamePolicy};

use self::list::STDIN;
use self::manifest::Manifest;
use self::progress::{Progress, Shown};
use self::report::{Teller, before_pause};
use crate::cli::access::{Access, Connect};
use crate::cli::address::Target;
use crate::cli::exit::Exit;
use crate::cli::interrupt::exit_on_interrupt;
use crate::cli::output::complain;
use crate::cli::usage::usage_error;
use crate::cli::words::one_of;

/// Sends files to a receiver
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    every file is stored
  1    a file failed or was refused, or the results could not be written
  2    wrong usage
  3    cannot connect, or the server fell silent
  130  interrupted by Ctrl-C")]
pub struct Send {
    /// What to send; `-` is standard input
    ///
    /// A file that cannot be sent does not stop the others. Standard input cannot be sent again after a failure, and a
    /// server cuts it off if it pauses for longer than --idle-timeout or is slower than --min-rate of `intake serve`: let
    /// a slow program write a file first, and send that.
    #[arg(value_name = "FILE", required_unless_present = "files_from", conflicts_with = "files_from")]
    files: Vec<PathBuf>,
    /// A file with the paths to send, one a line, or each ended by NUL (`find -print0`); `-` is standard input
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
    /// The receiver, or a folder at any HTTP server that takes PUT: `http://HOST:PORT/FOLDER/`, or https://
    #[arg(long, value_name = "HOST:PORT|URL", default_value_t)]
    to: Target,
    /// The dialect to use [default: put, and ask for files of 8 MiB and more, which can be resumed; for http:// http, and
    /// http-expect from that size on]. Every receiver of the tutorials understands `classic`
    #[arg(long, value_parser = one_of(Dialect::WORDS))]
    dialect: Option<Dialect>,
    /// The name to store a single file under, instead of its own
    #[arg(long, value_parser = parse_name, required_if_eq("files", STDIN))]
    name: Option<Name>,
    /// The most connections at once
    #[arg(long, value_name = "N", default_value_t = Plan::default().jobs as u16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=JOBS_MAX))]
    jobs: u16,
    /// How often in a row to try a file again after a failure that may pass; 0: never
    ///
    /// The connection breaks, the server falls silent, or the content arrives damaged. The pause grows with each failure,
    /// and progress starts the count again. Two waits are not counted: up to 10 minutes for a server that says when to
    /// come back or that it is shutting down, and up to 30 s for one that refuses connections after it accepted one.
    #[arg(long, value_name = "N", default_value_t = Plan::default().retries)]
    retry: u32,
    /// Print one JSON object for each file, whether it was stored or not
    #[arg(long)]
    json: bool,
    /// Write a list of the stored files for `sha256sum -c`, to be run in the receiver's directory
    ///
    /// The receiver then checks SHA-256 instead of CRC-32C. The list has the files that this run stored, also if others
    /// failed. It replaces FILE at the end of the run; until then it is FILE.PID.part. A run that stores nothing leaves
    /// FILE as it was. FILE must not be one of the files to send.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// More connections would be no faster, and the server would have fewer left for others.
const JOBS_MAX: i64 = 64;

/// The files to send.
#[derive(Default)]
struct Checked {
    uploads: Vec<Upload>,
    /// The size of each upload in bytes, if it is known.
    sizes: Vec<Option<u64>>,
    /// The files that cannot be sent, and why.
    rejected: Vec<(PathBuf, String)>,
}

impl Send {
    /// Checks every file, then sends those that can be sent.
    pub fn run(mut self) -> Exit {
        let connect = match self.access.connect(&self.to, self.dialect) {
            Ok(connect) => connect,
            Err(words) => return usage_error::<Self>("send", words),
        };
        if self.manifest.is_some() && self.dialect.is_some_and(|dialect| !dialect.is_framed()) {
            return usage_error::<Self>(
                "send",
                "--manifest lists digests, which the classic and line dialects do not have",
            );
        }
        if let Some(list) = &self.files_from {
            match read_list(list) {
                Ok(files) if files.is_empty() => {
                    complain(format_args!("the list {list:?} is empty: there is nothing to send"));
                    return Exit::Done;
                }
                Ok(files) => self.files = files,
                Err(words) => return fail(format_args!("the list {list:?} {words}")),
            }
        }
        if self.name.is_some() && self.files.len() != 1 {
            return usage_error::<Self>("send", "--name names one file, and several are given");
        }
        if let Some(path) = self.manifest.as_deref().filter(|path| self.is_input(path)) {
            complain(format_args!("the manifest {path:?} is one of the files to read: it would be overwritten"));
            return Exit::Usage;
        }
        exit_on_interrupt();
        self.send(connect, self.check_all())
    }

    /// Whether `path` leads to a file to send, or to the list of files.
    fn is_input(&self, path: &Path) -> bool {
        let Ok(output) = fs::metadata(path) else { return false };
        let sources = self.files.iter().map(|file| self.source(file));
        let list = self.files_from.iter().map(|list| match list.as_os_str() == STDIN {
            true => Source::Stdin,
            false => Source::File(list.clone()),
        });
        sources.chain(list).any(|source| source.metadata().is_ok_and(|input| is_same_file(&input, &output)))
    }

    fn source(&self, file: &Path) -> Source {
        let is_stdin = self.files_from.is_none() && file == Path::new(STDIN);
        if is_stdin { Source::Stdin } else { Source::File(file.to_owned()) }
    }

    fn check_all(&self) -> Checked {
        let results = results_file();
        let mut checked = Checked::default();
        for file in &self.files {
            match self.check(file, results.as_ref()) {
                Ok((upload, size)) => {
                    checked.uploads.push(upload);
                    checked.sizes.push(size);
                }
                Err(words) => {
                    let advice = if self.files_from.is_some() { list::advice(file) } else { "" };
                    checked.rejected.push((file.clone(), format!("{words}{advice}")));
                }
            }
        }
        checked
    }

    /// The upload of `file`, and its size in bytes if it is known.
    fn check(&self, file: &Path, results: Option<&Metadata>) -> Result<(Upload, Option<u64>), String> {
        let source = self.source(file);
        let size = source.check().map_err(|error| error.to_string())?;
        if let (Some(results), Ok(input)) = (results, source.metadata())
            && is_same_file(&input, results)
        {
            return Err("is where standard output goes; it is not sent".to_owned());
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => name_of(file).map_err(|words| match self.files.len() {
                1 => format!("{words}; give it another by --name"),
                _ => words,
            })?,
        };
        Ok((Upload { source, name }, size))
    }

    fn send(&self, connect: Connect, Checked { uploads, sizes, rejected }: Checked) -> Exit {
        let may_be_classic = connect.site.is_none() && self.dialect.is_none_or(Dialect::is_framed);
        let mut teller = Teller::new(&uploads, self.json, may_be_classic, connect.token.is_some());
        for (file, words) in &rejected {
            teller.reject(file, words);
        }
        if uploads.is_empty() {
            return teller.finish();
        }
        match self.manifest.as_deref().map(Manifest::create).transpose() {
            Ok(manifest) => teller.list_in(manifest),
            Err(words) => return fail(words),
        }
        let to = match self.to.resolve() {
            Ok(to) => to,
            Err(words) => {
                complain(words);
                teller.finish();
                return Exit::Unreachable;
            }
        };
        if let Err(words) = connect.check_token(&to) {
            complain(words);
            teller.finish();
            return Exit::Usage;
        }
        let default = Plan::default();
        let plan = Plan {
            to,
            dialect: self.dialect,
            site: connect.site,
            tls: connect.tls,
            token: connect.token,
            algorithm: self.manifest.as_ref().map_or(default.algorithm, |_| Manifest::ALGORITHM),
            jobs: self.jobs.into(),
            retries: self.retry,
            ..default
        };
        carry_out(&plan, &uploads, &sizes, teller)
    }
}

/// Sends, shows the progress, and reports each outcome.
fn carry_out(plan: &Plan, uploads: &[Upload], sizes: &[Option<u64>], teller: Teller<'_>) -> Exit {
    let progress = Progress::new(sizes, plan.jobs);
    let teller = Mutex::new(teller);
    send(plan, uploads, |event| match event {
        Event::Progress { job, upload, position } => {
            let shown = Shown { upload, name: uploads[upload].name.as_str(), size: sizes[upload] };
            progress.set(job, &shown, position);
        }
        Event::Again { uploads, error, pause } => progress.suspended(|| {
            let pause = pause.as_secs_f64();
            complain(format_args!("{}; trying again in {pause:.1} s (files: {uploads})", before_pause(error)));
        }),
        Event::Settled { upload, result } => {
            let mut teller = teller.lock().expect("no holder panics");
            progress.suspended(|| teller.tell(upload, result));
        }
    });
    progress.clear();
    teller.into_inner().expect("no holder panicked").finish()
}

fn fail(words: impl fmt::Display) -> Exit {
    complain(words);
    Exit::Failed
}

fn read_list(list: &Path) -> Result<Vec<PathBuf>, String> {
    if list == Path::new(STDIN) {
        Source::Stdin.check().map_err(|error| error.to_string())?;
    }
    list::read(list).map_err(|error| format!("cannot be read: {error}"))
}

/// The file that standard output goes to, if it is one. Sending it would send the run's own output.
fn results_file() -> Option<Metadata> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().ok()?;
    fs::File::from(stdout).metadata().ok().filter(Metadata::is_file)
}

fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn name_of(file: &Path) -> Result<Name, String> {
    let base_name = file.file_name().unwrap_or_default().as_bytes();
    Name::parse(base_name, NamePolicy::default()).map_err(|error| error.to_string())
}

fn parse_name(typed: &str) -> Result<Name, String> {
    Name::parse(typed.as_bytes(), NamePolicy::default()).map_err(|error| error.to_string())
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
    fn contradictory_options_are_a_usage_error() {
        assert_eq!(parse(&["a", "b", "--name", "c"]).unwrap().run(), Exit::Usage);
        assert_eq!(parse(&["a", "--manifest", "m", "--dialect", "line"]).unwrap().run(), Exit::Usage);
    }

    #[test]
    fn names_are_checked_before_the_connect() {
        assert_eq!(parse(&["a", "--name", "../a"]).unwrap_err().kind(), ErrorKind::ValueValidation);
        assert_eq!(name_of(Path::new("/tmp/a b.txt")).unwrap().as_str(), "a b.txt");
        assert!(name_of(Path::new("/tmp/.hidden")).unwrap_err().contains("begins with a dot"));
    }

    #[test]
    fn a_single_file_may_be_given_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let hidden = directory.path().join(".hidden");
        fs::write(&hidden, b"hello").unwrap();
        let hidden = hidden.to_str().unwrap();
        for (typed, is_advised) in [(&[hidden][..], true), (&[hidden, hidden], false)] {
            let checked = parse(typed).unwrap().check_all();
            assert_eq!(checked.rejected[0].1.contains("--name"), is_advised, "{:?}", checked.rejected);
        }
    }

    #[test]
    fn bad_files_alone_fail_without_a_connection() {
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good");
        fs::write(&good, b"hello").unwrap();
        let (good, missing) = (good.to_str().unwrap(), directory.path().join("missing"));
        // Nothing listens there, so a run that connects has another exit code.
        let nowhere = ["--to", "127.0.0.1:1", "--retry", "0"];
        for bad in [directory.path(), &missing] {
            let bad = bad.to_str().unwrap();
            assert_eq!(parse(&[&[bad], &nowhere[..]].concat()).unwrap().run(), Exit::Failed);
            assert_eq!(parse(&[&[bad, good], &nowhere[..]].concat()).unwrap().run(), Exit::Unreachable);
        }
    }
}

//! The command line: what was typed -> what is meant, and how it went -> an exit code.
//!
//! One file a subcommand. Results go to standard output, everything else to standard error.

mod address;
mod doctor;
mod load;
mod logger;
mod ping;
mod send;
mod serve;
mod units;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use intake::net::unblock_signals;
use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// Receive files over TCP from many clients at once, and send them
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Send(send::Send),
    Ping(ping::Ping),
    Load(load::Load),
    Doctor(doctor::Doctor),
}

/// How a run ended, as scripts see it. Each subcommand's help lists its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// Something failed or was refused.
    Failed = 1,
    /// What was typed makes no sense. clap's own number for it.
    Usage = 2,
    /// There was nobody to talk to.
    Unreachable = 3,
    /// What was stored is not what was sent.
    Broken = 4,
    /// What was named as a bad outcome has come about.
    BadOutcome = 5,
    /// Ctrl-C; 128 and the number of the signal, as shells report it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Does what was typed.
pub fn run() -> Exit {
    let command = Cli::parse().command;
    if let Err(error) = unblock_signals() {
        complain(format_args!("signals that were blocked stay so: {error}"));
    }
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Send(send) => send.run(),
        Command::Ping(ping) => ping.run(),
        Command::Load(load) => load.run(),
        Command::Doctor(doctor) => doctor.run(),
    }
}

/// One line of results. Nobody reading it is no reason to stop working.
fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Standard output of a command whose results must arrive: the first error in writing them is told, and makes the run a
/// failure. A reader that has gone (EPIPE) has had what it wanted.
#[derive(Debug, Default)]
struct Output {
    has_failed: bool,
}

impl Output {
    /// One line of results.
    fn say(&mut self, line: impl fmt::Display) {
        let written = writeln!(io::stdout().lock(), "{line}");
        if let Err(error) = written.or_else(unless_unread)
            && !std::mem::replace(&mut self.has_failed, true)
        {
            complain(format_args!("cannot write the results to standard output: {error}"));
        }
    }

    /// How the run ended: what failed otherwise is told first.
    fn exit(&self, exit: Exit) -> Exit {
        if self.has_failed && exit == Exit::Done { Exit::Failed } else { exit }
    }
}

fn unless_unread(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// One line of what went wrong.
fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "intake: {line}");
}

/// Makes the names and contents of different runs differ. 32 bits, which every reader of JSON takes.
fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// The first Ctrl-C ends the run, which then reports what it has; a second one ends the program.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    // Should one fail, the signal itself ends the process, which shells report by the same number.
    let _ = flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, stop.clone());
    let _ = flag::register(SIGINT, stop.clone());
    stop
}

/// What the derived rules of clap cannot say, said as clap does.
fn usage_error(subcommand: &str, words: &str) -> Exit {
    let mut root = Cli::command();
    root.build();
    let command = root.find_subcommand_mut(subcommand).expect("it was just parsed");
    let _ = command.error(ErrorKind::ArgumentConflict, words).print();
    Exit::Usage
}

/// Words that stand for values.
type Words<T> = [(&'static str, T)];

/// Takes one of `words`.
fn one_of<T: Copy + Send + Sync + 'static>(words: &'static Words<T>) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word))
        .map(|typed| words.iter().find(|(word, _)| *word == typed).expect("clap takes no other").1)
}

/// The word that stands for `value`.
fn word_of<T: PartialEq>(words: &'static Words<T>, value: T) -> &'static str {
    words.iter().find(|(_, each)| *each == value).expect("every value has a word").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_lists_its_exit_codes() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Exit codes:"), "{}", command.get_name());
        }
    }
}

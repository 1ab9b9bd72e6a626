//! Lines on standard output, for results, and on standard error, for everything else.

use std::fmt;
use std::io::{self, Write};

use super::exit::Exit;

/// One line of results. Nobody reading it is no reason to stop working.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Standard output of a command whose results must arrive: the first error in writing them is told, and makes the run a
/// failure. A reader that has gone (EPIPE) has had what it wanted.
#[derive(Debug, Default)]
pub struct Output {
    has_failed: bool,
}

impl Output {
    /// One line of results.
    pub fn say(&mut self, line: impl fmt::Display) {
        let written = writeln!(io::stdout().lock(), "{line}");
        if let Err(error) = written.or_else(unless_unread)
            && !std::mem::replace(&mut self.has_failed, true)
        {
            complain(format_args!("cannot write the results to standard output: {error}"));
        }
    }

    /// How the run ended: what failed otherwise is told first.
    pub fn exit(&self, exit: Exit) -> Exit {
        if self.has_failed && exit == Exit::Done { Exit::Failed } else { exit }
    }
}

fn unless_unread(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// One line of what went wrong.
pub fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "intake: {line}");
}

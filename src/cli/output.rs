//! Lines on standard output, for results, and on standard error, for everything else.

use std::fmt;
use std::io::{self, Write};

use super::exit::Exit;

/// Prints a line of results, and ignores errors: the program continues without a reader.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Standard output of a command whose results must arrive. The first write error is reported and makes the run a
/// failure. EPIPE is not an error: the reader has read as much as it wanted.
#[derive(Debug, Default)]
pub struct Output {
    has_failed: bool,
}

impl Output {
    /// Prints a line of results.
    pub fn say(&mut self, line: impl fmt::Display) {
        self.write(|stdout| writeln!(stdout, "{line}"));
    }

    /// Writes results.
    pub fn write(&mut self, write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) {
        let written = write(&mut io::stdout().lock());
        if let Err(error) = written.or_else(unless_unread)
            && !std::mem::replace(&mut self.has_failed, true)
        {
            complain(format_args!("cannot write the results to standard output: {error}"));
        }
    }

    /// The exit code of the run. A failure of the run itself comes before a failure to print.
    pub fn exit(&self, exit: Exit) -> Exit {
        if self.has_failed && exit == Exit::Done { Exit::Failed } else { exit }
    }
}

fn unless_unread(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Prints a line to standard error.
pub fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "intake: {line}");
}

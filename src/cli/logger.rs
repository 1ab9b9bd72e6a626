//! The way out of the log and of the trace: standard error, without ever waiting for whoever reads it.
//!
//! The event loop logs. A reader that stalls (a full pipe, a terminal on hold) must not stop it, so a line that cannot
//! be written at once is dropped and counted. Making standard error non-blocking instead would do so to every process
//! that shares it.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::fd::AsFd;

use env_logger::{Builder, Env, Target};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a pipe that polls as writable takes without blocking: PIPE_BUF (pipe(7)).
const LINE_MAX_BYTES: usize = 4096;

/// Starts logging to standard error: as `RUST_LOG` says, or from `info` up.
pub fn init() {
    Builder::from_env(Env::default().default_filter_or("info")).target(Target::Pipe(Box::new(sink("log")))).init();
}

/// A way to standard error, for whole lines, each in one write; `what` they are is said where some had to be dropped.
pub fn sink(what: &'static str) -> impl Write {
    Sink { out: io::stderr(), what, dropped: 0 }
}

/// Takes one whole line a write, and never fails.
struct Sink<W> {
    out: W,
    what: &'static str,
    /// Lines since the last one that was written.
    dropped: u64,
}

impl<W: AsFd + Write> Sink<W> {
    /// Whether it was written.
    fn try_line(&mut self, line: &[u8]) -> bool {
        is_ready(&self.out, PollFlags::OUT) && self.out.write(line).is_ok_and(|written| written == line.len())
    }

    fn report_dropped(&mut self) -> bool {
        let report = format!("{} {} lines were dropped: nobody read them in time\n", self.dropped, self.what);
        let reported = self.try_line(report.as_bytes());
        if reported {
            self.dropped = 0;
        }
        reported
    }
}

impl<W: AsFd + Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let in_order = self.dropped == 0 || self.report_dropped();
        if !in_order || !self.try_line(&cut(line)) {
            self.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_ready(file: &impl AsFd, wanted: PollFlags) -> bool {
    matches!(poll(&mut [PollFd::new(file, wanted)], Some(&Timespec::default())), Ok(1..))
}

/// The line, or as much of it as never blocks, up to a whole character.
fn cut(line: &[u8]) -> Cow<'_, [u8]> {
    let Some(start) = line.get(..LINE_MAX_BYTES - 1).filter(|_| line.len() > LINE_MAX_BYTES) else {
        return line.into();
    };
    let whole = std::str::from_utf8(start).map_or_else(|error| error.valid_up_to(), str::len);
    [&start[..whole], b"\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, pipe};

    use super::*;

    fn sink() -> (Sink<PipeWriter>, PipeReader) {
        let (reader, out) = pipe().unwrap();
        (Sink { out, what: "log", dropped: 0 }, reader)
    }

    /// Reads until the pipe is empty, and returns the lines.
    fn drain(mut reader: &PipeReader) -> Vec<String> {
        let mut read = Vec::new();
        while is_ready(&reader, PollFlags::IN) {
            let mut chunk = [0; 65_536];
            let length = reader.read(&mut chunk).unwrap();
            read.extend_from_slice(&chunk[..length]);
        }
        String::from_utf8(read).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_full_pipe_drops_lines_and_tells_how_many() {
        for length in [1, 100, 4095, 4096] {
            let (mut sink, reader) = sink();
            let line = [vec![b'x'; length - 1], vec![b'\n']].concat();
            // A pipe holds 65,536 bytes (pipe(7)); a write that blocks hangs here.
            let count = 2 * 65_536 / length + 100;
            (0..count).for_each(|_| sink.write_all(&line).unwrap());
            let kept = drain(&reader).len();
            assert!(kept > 0 && sink.dropped > 0, "{length}: {kept} kept");
            assert_eq!(kept as u64 + sink.dropped, count as u64);

            let report = format!("{} log lines were dropped: nobody read them in time", sink.dropped);
            sink.write_all(b"next\n").unwrap();
            assert_eq!(drain(&reader), [report.as_str(), "next"]);
            sink.write_all(b"after\n").unwrap();
            assert_eq!(drain(&reader), ["after"]);
        }
    }

    #[test]
    fn a_reader_that_is_gone_is_survived() {
        let (mut sink, reader) = sink();
        drop(reader);
        (0..100).for_each(|_| sink.write_all(b"line\n").unwrap());
        assert_eq!(sink.dropped, 100);
    }

    #[test]
    fn long_lines_are_cut_to_what_cannot_block() {
        for character in ["x", "é", "語", "👩"] {
            let (mut sink, reader) = sink();
            sink.write_all(format!("{}\n", character.repeat(5000)).as_bytes()).unwrap();
            let lines = drain(&reader);
            assert_eq!(lines.len(), 1);
            assert!((LINE_MAX_BYTES - 5..LINE_MAX_BYTES).contains(&lines[0].len()), "{}", lines[0].len());
            assert!(lines[0].ends_with(character));
        }
        assert_eq!(cut(&[b'x'; LINE_MAX_BYTES]).len(), LINE_MAX_BYTES);
    }
}

//! Writes lines to a descriptor, and never blocks.
//!
//! The event loop writes them. A reader that stalls (a full pipe, a paused terminal) must not stop it, so lines that cannot be
//! written at once are dropped and counted. `O_NONBLOCK` is not used: it would change the descriptor for every process that
//! shares it. Does not know what the lines say.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A write of up to this size to a pipe that polls as writable does not block: PIPE_BUF (pipe(7)).
const WRITE_MAX_BYTES: usize = 4096;

/// Collects whole lines up to the size of one write. It never fails: it drops and counts lines instead.
#[derive(Debug)]
pub struct LineSink<W> {
    out: W,
    /// The line that is written in place of dropped ones, made from their number.
    report: Option<fn(u64) -> String>,
    gathered: Vec<u8>,
    /// The number of collected lines.
    lines: u64,
    /// The number of lines that were dropped since the last successful write.
    dropped: u64,
    /// The number of all lines that were dropped.
    all_dropped: Arc<AtomicU64>,
    /// The last line that was written is not whole: the disk was full.
    is_torn: bool,
}

impl<W: AsFd + Write> LineSink<W> {
    /// Writes to `out`. `report` makes the line that is written in place of dropped ones, from their number.
    pub fn new(out: W, report: Option<fn(u64) -> String>) -> Self {
        let (gathered, all_dropped) = (Vec::new(), Arc::default());
        Self { out, report, gathered, lines: 0, dropped: 0, all_dropped, is_torn: false }
    }

    /// The number of lines that were dropped since the start, as it grows.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.all_dropped.clone()
    }

    /// Writes if that does not block. Returns how many lines are lost.
    fn try_write(&mut self, lines: &[u8]) -> u64 {
        if !is_ready(&self.out, PollFlags::OUT) || self.is_torn && !self.mend() {
            return count_lines(lines);
        }
        let written = self.out.write(lines).unwrap_or(0);
        self.is_torn = written > 0 && lines[written - 1] != b'\n';
        count_lines(lines) - count_lines(&lines[..written])
    }

    /// Ends the torn line, so that the next one is whole.
    fn mend(&mut self) -> bool {
        matches!(self.out.write(b"\n"), Ok(1))
    }

    /// Returns whether nothing is left to report.
    fn report_dropped(&mut self) -> bool {
        let Some(report) = self.report.filter(|_| self.dropped > 0) else { return true };
        let is_reported = self.try_write(report(self.dropped).as_bytes()) == 0;
        if is_reported {
            self.dropped = 0;
        }
        is_reported
    }
}

impl<W: AsFd + Write> Write for LineSink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let whole = cut(line);
        if self.gathered.len() + whole.len() > WRITE_MAX_BYTES {
            self.flush()?;
        }
        self.gathered.extend_from_slice(&whole);
        self.lines += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.lines == 0 {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        let lost = if self.report_dropped() { self.try_write(&gathered) } else { self.lines };
        self.dropped += lost;
        self.all_dropped.fetch_add(lost, Ordering::Relaxed);
        (self.gathered, self.lines) = (gathered, 0);
        self.gathered.clear();
        Ok(())
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn is_ready(file: &impl AsFd, wanted: PollFlags) -> bool {
    matches!(poll(&mut [PollFd::new(file, wanted)], Some(&Timespec::default())), Ok(1..))
}

/// The line, cut to the size of one write at a character boundary.
fn cut(line: &[u8]) -> Cow<'_, [u8]> {
    let Some(start) = line.get(..WRITE_MAX_BYTES - 1).filter(|_| line.len() > WRITE_MAX_BYTES) else {
        return line.into();
    };
    let whole = std::str::from_utf8(start).map_or_else(|error| error.valid_up_to(), str::len);
    [&start[..whole], b"\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, pipe};

    use super::*;

    fn sink() -> (LineSink<PipeWriter>, PipeReader) {
        let (reader, out) = pipe().unwrap();
        (LineSink::new(out, Some(report)), reader)
    }

    fn report(dropped: u64) -> String {
        format!("{dropped} were dropped\n")
    }

    fn write_line(sink: &mut LineSink<PipeWriter>, line: &[u8]) {
        sink.write_all(line).unwrap();
        sink.flush().unwrap();
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
    fn lines_for_a_full_pipe_are_dropped_and_counted() {
        for length in [1, 100, 4095, 4096] {
            let (mut sink, reader) = sink();
            let line = [vec![b'x'; length - 1], vec![b'\n']].concat();
            // A pipe holds 65,536 bytes (pipe(7)). A write that blocks hangs the test here.
            let count = 2 * 65_536 / length + 100;
            (0..count).for_each(|_| write_line(&mut sink, &line));
            let kept = drain(&reader).len();
            assert!(kept > 0 && sink.dropped > 0, "{length}: {kept} kept");
            assert_eq!(kept as u64 + sink.dropped, count as u64);

            let report = format!("{} were dropped", sink.dropped);
            assert_eq!(sink.all_dropped.load(Ordering::Relaxed), sink.dropped);
            write_line(&mut sink, b"next\n");
            assert_eq!(drain(&reader), [report.as_str(), "next"]);
            write_line(&mut sink, b"after\n");
            assert_eq!(drain(&reader), ["after"]);
        }
    }

    #[test]
    fn lines_are_written_in_order_at_a_flush_or_when_the_next_one_does_not_fit() {
        let (mut sink, reader) = sink();
        let lines: Vec<String> = (0..100).map(|number| format!("{number:099}")).collect();
        lines.iter().for_each(|line| sink.write_all(format!("{line}\n").as_bytes()).unwrap());
        assert_eq!(drain(&reader), lines[..80], "two writes of 40 lines");
        sink.flush().unwrap();
        assert_eq!(drain(&reader), lines[80..]);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let (mut sink, reader) = sink();
        drop(reader);
        (0..100).for_each(|_| write_line(&mut sink, b"line\n"));
        assert_eq!(sink.dropped, 100);
    }

    /// A disk with room for so many more bytes.
    struct Disk {
        file: std::fs::File,
        room: usize,
    }

    impl AsFd for Disk {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.file.as_fd()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = self.file.write(&bytes[..bytes.len().min(self.room)])?;
            self.room -= written;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_has_torn_does_not_tear_the_next() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut sink = LineSink::new(Disk { file: file.reopen().unwrap(), room: 12 }, None);
        sink.write_all(b"first\n").unwrap();
        sink.write_all(b"second, torn\n").unwrap();
        sink.flush().unwrap();
        sink.write_all(b"lost\n").unwrap();
        sink.flush().unwrap();
        sink.out.room = 100;
        sink.write_all(b"next\n").unwrap();
        sink.flush().unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "first\nsecond\nnext\n");
        assert_eq!(sink.dropped().load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_long_line_is_cut_to_the_size_of_one_write() {
        for character in ["x", "é", "語", "👩"] {
            let (mut sink, reader) = sink();
            write_line(&mut sink, format!("{}\n", character.repeat(5000)).as_bytes());
            let lines = drain(&reader);
            assert_eq!(lines.len(), 1);
            assert!((WRITE_MAX_BYTES - 5..WRITE_MAX_BYTES).contains(&lines[0].len()), "{}", lines[0].len());
            assert!(lines[0].ends_with(character));
        }
        assert_eq!(cut(&[b'x'; WRITE_MAX_BYTES]).len(), WRITE_MAX_BYTES);
    }
}

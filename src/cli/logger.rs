//! Writes the log and the trace to standard error, and never blocks.
//!
//! The event loop logs. A reader that stalls (a full pipe, a paused terminal) must not stop it, so lines that cannot be
//! written at once are dropped and counted. `O_NONBLOCK` is not used: it would change standard error for every process
//! that shares it. The lines of one turn are written together: one write a line would be a tenth of a small upload's
//! system calls.

use std::borrow::Cow;
use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::fmt::Formatter;
use env_logger::{Builder, Env, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A write of up to this size to a pipe that polls as writable does not block: PIPE_BUF (pipe(7)).
const WRITE_MAX_BYTES: usize = 4096;

/// The logger of the process.
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts logging to standard error at `level`, or else as `RUST_LOG` says, or else at `info`. Returns the writer, for
/// other lines: they keep their order among the lines of the log.
pub fn init(level: Option<LevelFilter>) -> Lines {
    let sink = Sink::new(io::stderr());
    let lines = Lines { dropped: sink.all_dropped.clone(), sink: Arc::new(Mutex::new(sink)) };
    let format = format(level, &lines);
    log::set_max_level(format.filter());
    let logger = LOGGER.get_or_init(|| Logger { format: RwLock::new(format), lines: lines.clone() });
    log::set_logger(logger).expect("nobody else logs");
    lines
}

/// Logs at another level from now on, as [`init`] has it.
pub fn set_level(level: Option<LevelFilter>) {
    let Some(logger) = LOGGER.get() else { return };
    let format = format(level, &logger.lines);
    log::set_max_level(format.filter());
    *logger.format.write().unwrap_or_else(PoisonError::into_inner) = format;
}

fn format(level: Option<LevelFilter>, lines: &Lines) -> env_logger::Logger {
    let mut builder = Builder::new();
    match level {
        Some(level) => builder.filter_level(level),
        None => builder.parse_env(Env::default().default_filter_or("info")),
    };
    let clock = Mutex::new((Duration::MAX.as_secs(), String::new()));
    builder.format(move |line, record| {
        let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (level, target, words) = (record.level(), record.target(), record.args());
        writeln!(line, "[{} {level:5} {target}] {words}", second(&mut clock, line))
    });
    builder.target(Target::Pipe(Box::new(Gathered(lines.clone())))).build()
}

/// The time in the format of the log. It is formatted once a second: doing so for each line would be a tenth of the cost of
/// a small pipelined upload.
#[expect(clippy::disallowed_methods, reason = "a line of the log has the time of the wall clock")]
fn second<'a>((last, spelled): &'a mut (u64, String), line: &Formatter) -> &'a str {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now != *last {
        (*last, *spelled) = (now, line.timestamp_seconds().to_string());
    }
    spelled
}

/// A buffered writer to standard error. Each `write` must be one whole line.
#[derive(Clone)]
pub struct Lines {
    sink: Arc<Mutex<Sink<Stderr>>>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn sink(&self) -> MutexGuard<'_, Sink<Stderr>> {
        // A thread that panicked has left whole lines.
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of lines that were dropped since the start, as it grows.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.sink().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink().flush()
    }
}

/// [`Lines`] for env_logger, which flushes after each line: those flushes are ignored.
struct Gathered(Lines);

impl Write for Gathered {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes warnings and errors at once, and other lines at the next flush.
struct Logger {
    format: RwLock<env_logger::Logger>,
    lines: Lines,
}

impl Logger {
    fn format(&self) -> RwLockReadGuard<'_, env_logger::Logger> {
        self.format.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.format().enabled(metadata)
    }

    fn log(&self, record: &Record) {
        self.format().log(record);
        if record.level() <= Level::Warn {
            self.flush();
        }
    }

    fn flush(&self) {
        // A flush never fails.
        let _ = self.lines.sink().flush();
    }
}

/// Collects whole lines up to the size of one write. It never fails: it drops and counts lines instead.
struct Sink<W> {
    out: W,
    gathered: Vec<u8>,
    /// The number of collected lines.
    lines: u64,
    /// The number of lines that were dropped since the last successful write.
    dropped: u64,
    /// The number of all lines that were dropped.
    all_dropped: Arc<AtomicU64>,
}

impl<W: AsFd + Write> Sink<W> {
    fn new(out: W) -> Self {
        Self { out, gathered: Vec::new(), lines: 0, dropped: 0, all_dropped: Arc::default() }
    }

    /// Writes if that does not block. Returns whether it did.
    fn try_write(&mut self, lines: &[u8]) -> bool {
        is_ready(&self.out, PollFlags::OUT) && self.out.write(lines).is_ok_and(|written| written == lines.len())
    }

    fn report_dropped(&mut self) -> bool {
        let report = format!("{} lines were dropped: nobody read them in time\n", self.dropped);
        let reported = self.try_write(report.as_bytes());
        if reported {
            self.dropped = 0;
        }
        reported
    }
}

impl<W: AsFd + Write> Write for Sink<W> {
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
        let in_order = self.dropped == 0 || self.report_dropped();
        if !in_order || !self.try_write(&gathered) {
            self.dropped += self.lines;
            self.all_dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        (self.gathered, self.lines) = (gathered, 0);
        self.gathered.clear();
        Ok(())
    }
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

    fn sink() -> (Sink<PipeWriter>, PipeReader) {
        let (reader, out) = pipe().unwrap();
        (Sink::new(out), reader)
    }

    fn write_line(sink: &mut Sink<PipeWriter>, line: &[u8]) {
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

            let report = format!("{} lines were dropped: nobody read them in time", sink.dropped);
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

//! Writes the log and the trace to standard error, and never blocks.
//!
//! The event loop logs. A reader that stalls (a full pipe, a paused terminal) must not stop it, so lines that cannot be
//! written at once are dropped and counted ([`LineSink`]). The lines of one turn are written together: one write a line would
//! be a tenth of a small upload's system calls.

use std::io::{self, Stderr, Write};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::fmt::Formatter;
use env_logger::{Builder, Env, Target};
use intake::net::LineSink;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// The logger of the process.
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts logging to standard error at `level`, or else as `RUST_LOG` says, or else at `info`. Returns the writer, for
/// other lines: they keep their order among the lines of the log.
pub fn init(level: Option<LevelFilter>) -> Lines {
    let sink = LineSink::new(io::stderr(), Some(report));
    let lines = Lines { dropped: sink.dropped(), sink: Arc::new(Mutex::new(sink)) };
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

/// Told in place of lines that were dropped.
fn report(dropped: u64) -> String {
    format!("{dropped} lines were dropped: nobody read them in time\n")
}

/// A buffered writer to standard error. Each `write` must be one whole line.
#[derive(Clone)]
pub struct Lines {
    sink: Arc<Mutex<LineSink<Stderr>>>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn sink(&self) -> MutexGuard<'_, LineSink<Stderr>> {
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

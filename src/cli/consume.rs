//! `intake consume`: runs a command for each file in the queue of a server.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use intake::consume::{self, Options};

use super::count;
use super::exit::Exit;
use super::logger;
use super::output::{complain, say};
use super::units::Span;

/// Run a command for each file that a server with --queue has stored
///
/// At least once for each: if this process or the machine ends at the wrong moment, the command runs again, with the same
/// INTAKE_ID. No shell reads CMD. It gets a JSON object on standard input, and INTAKE_ID, INTAKE_NAME, INTAKE_PATH,
/// INTAKE_SIZE, INTAKE_DIGEST and INTAKE_PEER in its environment. Several consumers may share a queue.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    shut down, or nothing was left to do (--once)
  1    could not start, cut commands short, or has files that failed or wait (--once)
  2    usage error

When CMD ends with 0, the file is done. When it ends with 75, or by a signal, it is run again later. With any other code
the file is moved to .intake/queue/failed. SIGTERM and SIGINT let running commands finish, a second one ends them.")]
pub struct Consume {
    /// Directory of the server
    dir: PathBuf,
    /// Commands that run at once
    #[arg(long, value_parser = count::some::<NonZeroUsize>, value_name = "N", default_value = "4")]
    jobs: NonZeroUsize,
    /// How long a command may run; then it is terminated, and killed 10 seconds later
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(600)))]
    timeout: Span,
    /// How often a command is run for a file, at most
    #[arg(long, value_parser = count::some::<NonZeroU32>, value_name = "N", default_value = "5")]
    tries: NonZeroU32,
    /// Wait before the second try; each further one is twice as long, up to 10 minutes
    #[arg(long, value_name = "TIME", hide_short_help = true, default_value_t = Span(Duration::from_secs(10)))]
    backoff: Span,
    /// End when nothing is left to do, instead of waiting for more files
    #[arg(long)]
    once: bool,
    /// Put the files that have failed back into the queue, and end
    #[arg(long, conflicts_with_all = ["command", "once"])]
    retry_failed: bool,
    /// The program and its arguments
    #[arg(last = true, required_unless_present = "retry_failed", value_name = "CMD")]
    command: Vec<OsString>,
}

impl Consume {
    /// Consumes until a signal ends it.
    pub fn run(self) -> Exit {
        logger::init(None);
        let exit = self.consume();
        log::logger().flush();
        exit.unwrap_or_else(|error| {
            complain(error);
            Exit::Failed
        })
    }

    fn consume(self) -> std::io::Result<Exit> {
        if self.retry_failed {
            let count = consume::retry_failed(&self.dir)?;
            say(format_args!("{count} files are back in the queue"));
            return Ok(Exit::Done);
        }
        let once = self.once;
        let outcome = consume::run(Options {
            directory: self.dir,
            command: self.command,
            jobs: self.jobs.get(),
            timeout: self.timeout.0,
            tries: self.tries.get(),
            backoff: self.backoff.0,
            once,
        })?;
        log::info!("{outcome}");
        let is_clean = outcome.failed == 0 && outcome.waiting == 0;
        Ok(if outcome.cut_short == 0 && (is_clean || !once) { Exit::Done } else { Exit::Failed })
    }
}

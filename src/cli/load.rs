//! `intake load`: the options of a load -> its [`Plan`], and its report -> an exit code.

mod typed;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use intake::load::ending::{Claim, presumed_claim};
use intake::load::misbehave::Mix;
use intake::load::report::{Report, Verdict};
use intake::load::schedule::{Arrivals, Extent, Loop};
use intake::load::verify::{Verification, await_quiet, verify};
use intake::load::workload::{Sizes, Workload};
use intake::load::{Closer, Finished, LoadError, Plan, json, run};
use intake::proto::Dialect;
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use super::address::Address;
use super::units::Span;
use super::{Exit, Words, complain, one_of, say, usage_error, word_of};
use typed::{parse_mix, parse_rate, parse_sizes};

/// Puts a receiver under load: many clients, honest numbers, misbehaviour on demand
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    every upload ended as it should
  1    an upload failed
  2    wrong usage, or this host has not what it takes
  3    cannot connect
  4    a file is lost, damaged, doubled, or there against expectation
  130  interrupted by Ctrl-C, and otherwise clean

Misbehaviour, with the default of its parameter where it has one:
  slow=10%:16k         sends so many bytes a second
  stall=5%:1s          is silent for so long after half of the content, and goes on
  abort=5%             ends its stream after half of the content; these dialects cannot tell, and store the half
  reset=5%             resets the connection after half of the content; nothing may be stored
  half-close=5%:500ms  sends all, half-closes, and looks at the answer so much later
  split-header=5%      sends the name byte by byte; needs a receiver that waits for the rest (serve --name-quiet 50ms)
  never-read=1%        reads nothing, and leaves a second after its end
  dup-name=2%          takes the name of the file before it
An ending that is right for its misbehaviour is no failure. Latencies are those of the honest clients.")]
pub struct Load {
    /// The receiver
    #[arg(value_name = "ADDR", default_value_t)]
    address: Address,
    /// The most uploads at a time
    #[arg(long, value_name = "N", default_value = "64")]
    clients: NonZeroUsize,
    /// How many files to send in all
    #[arg(long, value_name = "N")]
    files: Option<u64>,
    /// Start no file after so long [default: 10s, without --files]
    #[arg(long, value_name = "TIME")]
    duration: Option<Span>,
    /// How large the files are: `64k`, from `1k..1M`, or half of them below and half above in `lognormal:64k,2`
    #[arg(long, value_parser = parse_sizes, default_value = "64k")]
    size: Sizes,
    /// How to speak to it
    #[arg(long, value_parser = one_of(DIALECTS), default_value = word_of(DIALECTS, Dialect::default()))]
    dialect: Dialect,
    /// Start so many files a second, whatever the receiver does; latencies then count from the moment a file was due
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How the files of --rate are spread in time
    #[arg(long, value_parser = one_of(ARRIVALS), default_value = word_of(ARRIVALS, Arrivals::default()), requires = "rate")]
    arrivals: Arrivals,
    /// Let the clients come in, or the rate climb, over this span
    #[arg(long, value_name = "TIME", default_value_t = Span::default())]
    ramp: Span,
    /// Who closes first: a `client` that does is never told what became of its file
    #[arg(long, value_parser = one_of(CLOSERS), default_value = word_of(CLOSERS, Closer::default()))]
    closer: Closer,
    /// Which share of the clients misbehaves, and how; see below
    #[arg(long, value_name = "KIND=SHARE%,…", value_parser = parse_mix)]
    misbehave: Option<Mix>,
    /// How long the receiver may be silent
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(60)))]
    timeout: Span,
    /// What names and contents are drawn from [default: another one in each run]
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Compare every byte in the receiver's directory afterwards
    #[arg(long, value_name = "DIR", conflicts_with = "verify_only")]
    verify: Option<PathBuf>,
    /// Send nothing, compare what a run with the same seed, sizes and --files has left
    #[arg(long, value_name = "DIR", requires = "seed", requires = "files")]
    verify_only: Option<PathBuf>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

const DIALECTS: &Words<Dialect> = &[("classic", Dialect::Classic), ("line", Dialect::Line)];
const ARRIVALS: &Words<Arrivals> = &[("constant", Arrivals::Constant), ("poisson", Arrivals::Poisson)];
const CLOSERS: &Words<Closer> = &[("server", Closer::Server), ("client", Closer::Client)];

/// A run without an end needs one.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

impl Load {
    /// Sends, verifies and reports.
    pub fn run(self) -> Exit {
        if let Some(directory) = self.verify.iter().chain(&self.verify_only).find(|path| !path.is_dir()) {
            return usage_error("load", &format!("{directory:?} is no directory that can be verified"));
        }
        let plan = match self.plan() {
            Ok(plan) => plan,
            Err(words) => {
                complain(words);
                return Exit::Unreachable;
            }
        };
        if let Some(directory) = &self.verify_only {
            return self.only_verify(&plan.workload, directory);
        }
        match run(&plan, &stop_on_interrupt(), &mut |_| {}) {
            Ok(finished) => self.conclude(&plan, &finished),
            Err(error) => fail(&plan, &error),
        }
    }

    fn plan(&self) -> Result<Plan, String> {
        let duration = match (self.files, self.duration) {
            (None, None) => Some(DEFAULT_DURATION),
            (_, duration) => duration.map(|Span(duration)| duration),
        };
        Ok(Plan {
            target: self.address.resolve()?[0],
            dialect: self.dialect,
            clients: self.clients.get(),
            pace: self.rate.map_or(Loop::Closed, |rate| Loop::Open { rate, arrivals: self.arrivals }),
            extent: Extent { files: self.files, duration },
            ramp: self.ramp.0,
            workload: Workload {
                seed: self.seed.map_or_else(any_seed, u64::from),
                sizes: self.size,
                mix: self.misbehave.clone().unwrap_or_default(),
            },
            closer: self.closer,
            patience: self.timeout.0,
        })
    }

    fn conclude(&self, plan: &Plan, finished: &Finished) -> Exit {
        let compared = self.verify.as_ref().map(|directory| {
            // A directory that cannot be read is found out when it is compared.
            let _ = await_quiet(directory);
            compare(&plan.workload, &finished.tally.claims, directory)
        });
        let verification = match compared.transpose() {
            Ok(verification) => verification,
            Err(exit) => return exit,
        };
        let report = Report { plan, finished, verification: verification.as_ref() };
        if self.json {
            say(json::report(&report));
        } else {
            say(&report);
        }
        exit_of(&report)
    }

    fn only_verify(&self, workload: &Workload, directory: &Path) -> Exit {
        let files = 0..self.files.unwrap_or_default();
        let claims: Vec<Claim> = files.map(|number| presumed_claim(&workload.file(number))).collect();
        match compare(workload, &claims, directory) {
            Err(exit) => exit,
            Ok(found) => {
                if self.json {
                    say(json::only_verification(&found));
                } else {
                    say(&found);
                }
                if found.is_clean() { Exit::Done } else { Exit::Broken }
            }
        }
    }
}

fn compare(workload: &Workload, claims: &[Claim], directory: &Path) -> Result<Verification, Exit> {
    verify(workload, claims, directory).map_err(|error| {
        complain(format_args!("cannot verify {directory:?}: {error}"));
        Exit::Failed
    })
}

fn exit_of(report: &Report<'_>) -> Exit {
    match report.verdict() {
        Verdict::Broken => Exit::Broken,
        Verdict::Failed => Exit::Failed,
        Verdict::Clean if report.finished.interrupted => Exit::Interrupted,
        Verdict::Clean => Exit::Done,
    }
}

fn fail(plan: &Plan, error: &LoadError) -> Exit {
    match error {
        LoadError::Shortage(_) => {
            complain(error);
            Exit::Usage
        }
        LoadError::Unreachable(_) => {
            complain(format_args!("{}: {error}", plan.target));
            Exit::Unreachable
        }
        LoadError::EventLoop(_) => {
            complain(error);
            Exit::Failed
        }
    }
}

/// So that names of different runs differ; short enough for every reader of JSON.
fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// The first Ctrl-C ends the run, and what is then to be told is told; a second one ends the program.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    // Should one fail, the signal itself ends the process, which shells report by the same number.
    let _ = flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, stop.clone());
    let _ = flag::register(SIGINT, stop.clone());
    stop
}

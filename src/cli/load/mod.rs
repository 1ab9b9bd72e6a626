//! `intake load`: the options of a load -> its [`Plan`], and its report -> an exit code.

mod live;
mod typed;
mod udp;

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use intake::load::judge::{Expected, Verdict, Verification, await_quiet, presumed, verdict, verify};
use intake::load::plan::{Arrivals, Closer, Extent, Loop, Mix, Plan, Sizes, Workload};
use intake::load::run::{Finished, LoadError, send_files};
use intake::load::tell::{Condition, Report, figures, json_of, json_of_verification};
use intake::proto::Dialect;
use serde_json::Value;

use super::address::Address;
use super::units::Span;
use super::{Exit, Output, Words, any_seed, complain, one_of, stop_on_interrupt, usage_error, word_of};
use live::View;
use typed::{parse_mix, parse_rate, parse_sizes, parse_some_time};

/// Puts a receiver under load: many clients, honest numbers, misbehaviour on demand
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    every upload ended as it should
  1    an upload failed, or the report could not be written
  2    wrong usage, or this host has not what it takes
  3    cannot connect
  4    a file is lost, damaged, doubled, or there against expectation
  5    a --fail-if has come about, or cannot be decided
  130  interrupted by Ctrl-C, and otherwise clean

Misbehaviour, with the default of its parameter where it has one:
  slow=10%:16k         sends so many bytes a second
  stall=5%:1s          is silent for so long after half of the content, and goes on
  abort=5%             ends its stream after half of the content; classic and line cannot tell, and store the half
  reset=5%             resets the connection after half of the content; nothing may be stored
  half-close=5%:500ms  sends all, half-closes, and looks at the answer so much later
  split-header=5%      sends its header byte by byte; in classic and line this needs serve --name-quiet 50ms
  never-read=1%        reads nothing, and leaves a second after its end
  dup-name=2%          takes the name of the file before it
An ending that is right for its misbehaviour is no failure. Latencies are those of the honest clients.")]
pub struct Load {
    /// The receiver
    #[arg(value_name = "ADDR", default_value_t)]
    address: Address,
    /// The most connections at a time
    #[arg(long, value_name = "N", default_value = "64")]
    clients: NonZeroUsize,
    /// How many files to send in all
    #[arg(long, value_name = "N")]
    files: Option<u64>,
    /// Start no file after so long [default: 10s, without --files]
    #[arg(long, value_name = "TIME", value_parser = parse_some_time)]
    duration: Option<Span>,
    /// How large the files are: `64k`, from `1k..1M`, or half of them below and half above in `lognormal:64k,2`
    /// [default: 64k, or 64 bytes with --udp]
    #[arg(long, value_parser = parse_sizes)]
    size: Option<Sizes>,
    /// How to speak to it
    #[arg(long, value_parser = one_of(Dialect::WORDS), default_value = word_of(Dialect::WORDS, Dialect::Put))]
    dialect: Dialect,
    /// How many files each connection carries, one request after the other without waiting for receipts (put and ask)
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "rate")]
    per_connection: NonZeroUsize,
    /// Start so many files a second, whatever the receiver does; latencies then count from the moment a file was due
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How the files of --rate are spread in time
    #[arg(long, value_parser = one_of(ARRIVALS), default_value = word_of(ARRIVALS, Arrivals::default()), requires = "rate")]
    arrivals: Arrivals,
    /// Let the clients come in, or the rate climb, over this span
    #[arg(long, value_name = "TIME", default_value_t = Span::default())]
    ramp: Span,
    /// Who closes first. A `client` does in put and ask when it has its receipts, in classic and line as soon as all is
    /// sent, so that it is never told what became of it; `reset` is for put and ask
    #[arg(long, value_parser = one_of(CLOSERS), default_value = word_of(CLOSERS, Closer::default()))]
    closer: Closer,
    /// Which share of the clients misbehaves, and how; see below
    #[arg(long, value_name = "KIND=SHARE%,…", value_parser = parse_mix)]
    misbehave: Option<Mix>,
    /// Send datagrams to the receiver's echo, instead of files
    #[arg(long, conflicts_with_all = ["clients", "files", "per_connection", "dialect", "arrivals", "ramp", "closer", "misbehave", "verify", "verify_only"])]
    udp: bool,
    /// With --udp: how many sockets
    #[arg(long, value_name = "N", default_value = "16", requires = "udp")]
    sockets: NonZeroUsize,
    /// With --udp, without --rate: how many datagrams are in flight on each socket
    #[arg(long, value_name = "N", default_value = "64", requires = "udp", conflicts_with = "rate")]
    window: NonZeroU64,
    /// How long the receiver may be silent, or an answer under way [default: 60s, or 1s with --udp]
    #[arg(long, value_name = "TIME", value_parser = parse_some_time)]
    timeout: Option<Span>,
    /// What names and contents are drawn from [default: another one in each run]
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Compare every byte in the receiver's directory afterwards
    #[arg(long, value_name = "DIR", conflicts_with = "verify_only")]
    verify: Option<PathBuf>,
    /// Send nothing, compare what a run with the same seed, files, sizes, dialect and misbehaviour has left
    #[arg(long, value_name = "DIR", requires = "seed", requires = "files", conflicts_with = "fail_if")]
    verify_only: Option<PathBuf>,
    /// A bad outcome: any figure of the report above or below a limit, or without a value; may be given several times
    #[arg(long, value_name = "FIGURE>LIMIT")]
    fail_if: Vec<Condition>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

const ARRIVALS: &Words<Arrivals> = &[("constant", Arrivals::Constant), ("poisson", Arrivals::Poisson)];
const CLOSERS: &Words<Closer> = &[("server", Closer::Server), ("client", Closer::Client), ("reset", Closer::Reset)];

const DEFAULT_SIZE: u64 = 64 << 10;
/// What `send` grants a server, and a server its clients.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// A run without an end needs one.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

impl Load {
    /// Sends, verifies and reports.
    pub fn run(self) -> Exit {
        if let Some(directory) = self.verify.iter().chain(&self.verify_only).find(|path| !path.is_dir()) {
            return usage_error("load", &format!("{directory:?} is no directory that can be verified"));
        }
        if let Err(words) = self.check_dialect() {
            return usage_error("load", words);
        }
        if let Some(directory) = &self.verify_only {
            return self.only_verify(&self.workload(), directory);
        }
        match self.address.resolve() {
            Ok(found) if self.udp => match udp::plan(&self, found[0]) {
                Ok(plan) => udp::send(&plan, &found, &stop_on_interrupt(), &self),
                Err(words) => usage_error("load", &words),
            },
            Ok(found) => self.send(&found),
            Err(words) => {
                complain(words);
                Exit::Unreachable
            }
        }
    }

    fn check_dialect(&self) -> Result<(), &'static str> {
        if self.dialect.is_framed() {
            return Ok(());
        }
        match self.closer {
            _ if self.per_connection.get() > 1 => {
                Err("in classic and line a connection carries one file; --per-connection is for put and ask")
            }
            Closer::Reset => Err("in classic and line a reset undoes the upload; --closer reset is for put and ask"),
            Closer::Server | Closer::Client => Ok(()),
        }
    }

    /// Puts the first of `targets` that accepts a connection under load.
    fn send(&self, targets: &[SocketAddr]) -> Exit {
        let plans: Vec<Plan> = targets.iter().map(|target| self.plan(*target)).collect();
        let verification = self.verify.as_ref().map(|_| Verification::default());
        let nothing = Report { plan: &plans[0], finished: &Finished::default(), verification: verification.as_ref() };
        if let Err(words) = self.check_conditions(&json_of(&nothing)) {
            return usage_error("load", &words);
        }
        let stop = stop_on_interrupt();
        let mut refused = Vec::new();
        for plan in &plans {
            let mut view = View::new();
            let finished = send_files(plan, &stop, &mut |live| view.tell(live));
            view.end();
            match finished {
                Ok(finished) => return self.conclude(plan, &finished),
                Err(LoadError::Unreachable(reason)) => refused.push(format!("{}: {reason}", plan.target)),
                Err(error) => return fail(plan.target, &error),
            }
        }
        refused.iter().for_each(complain);
        Exit::Unreachable
    }

    /// Whether every `--fail-if` names a figure that a report like this one has.
    fn check_conditions(&self, report: &Value) -> Result<(), String> {
        let figures = figures(report);
        self.fail_if.iter().try_for_each(|condition| condition.find(&figures).map(|_| ()))
    }

    /// Prints the report, in words or as JSON. A bad outcome is worse than a failure, and not as bad as a broken file.
    fn tell(&self, text: impl Display, report: &Value, exit: Exit) -> Exit {
        let mut output = Output::default();
        if self.json {
            output.say(report);
        } else {
            output.say(text);
        }
        let bad = self.bad_outcomes(report);
        bad.iter().for_each(complain);
        output.exit(if bad.is_empty() || exit == Exit::Broken { exit } else { Exit::BadOutcome })
    }

    /// In words, every `--fail-if` that came about, or of which nobody knows: a limit was to be kept, and nothing shows that
    /// it was.
    fn bad_outcomes(&self, report: &Value) -> Vec<String> {
        let figures = figures(report);
        let bad = |condition: &Condition| match condition.is_true_of(condition.find(&figures).ok()?) {
            Some(true) => Some(format!("{condition} has come about")),
            Some(false) => None,
            None => Some(format!("{condition} cannot be decided: there was nothing to measure")),
        };
        self.fail_if.iter().filter_map(bad).collect()
    }

    fn seed(&self) -> u64 {
        self.seed.map_or_else(any_seed, u64::from)
    }

    fn workload(&self) -> Workload {
        Workload {
            seed: self.seed(),
            sizes: self.size.unwrap_or(Sizes::Range(DEFAULT_SIZE, DEFAULT_SIZE)),
            mix: self.misbehave.clone().unwrap_or_default(),
        }
    }

    fn plan(&self, target: SocketAddr) -> Plan {
        let duration = match (self.files, self.duration) {
            (None, None) => Some(DEFAULT_DURATION),
            (_, duration) => duration.map(|Span(duration)| duration),
        };
        Plan {
            target,
            dialect: self.dialect,
            clients: self.clients.get(),
            per_connection: self.per_connection.get(),
            pace: self.rate.map_or(Loop::Closed, |rate| Loop::Open { rate, arrivals: self.arrivals }),
            extent: Extent { files: self.files, duration },
            ramp: self.ramp.0,
            workload: self.workload(),
            closer: self.closer,
            patience: self.timeout.map_or(DEFAULT_TIMEOUT, |Span(timeout)| timeout),
        }
    }

    fn conclude(&self, plan: &Plan, finished: &Finished) -> Exit {
        let compared = self.verify.as_ref().map(|directory| {
            // A directory that cannot be read is found out when it is compared.
            let _ = await_quiet(directory);
            compare(&plan.workload, &finished.tally.expected, directory)
        });
        let verification = match compared.transpose() {
            Ok(verification) => verification,
            Err(exit) => return exit,
        };
        let report = Report { plan, finished, verification: verification.as_ref() };
        self.tell(&report, &json_of(&report), exit_of(&report))
    }

    fn only_verify(&self, workload: &Workload, directory: &Path) -> Exit {
        let files = 0..self.files.unwrap_or_default();
        let expected: Vec<Expected> = files.map(|number| presumed(&workload.file(number), self.dialect)).collect();
        match compare(workload, &expected, directory) {
            Err(exit) => exit,
            Ok(found) => {
                let exit = if found.is_clean() { Exit::Done } else { Exit::Broken };
                self.tell(&found, &json_of_verification(&found), exit)
            }
        }
    }
}

fn compare(workload: &Workload, expected: &[Expected], directory: &Path) -> Result<Verification, Exit> {
    verify(workload, expected, directory).map_err(|error| {
        complain(format_args!("cannot verify {directory:?}: {error}"));
        Exit::Failed
    })
}

fn exit_of(report: &Report<'_>) -> Exit {
    match verdict(&report.finished.tally, report.verification) {
        Verdict::Broken => Exit::Broken,
        Verdict::Failed => Exit::Failed,
        Verdict::Clean if report.finished.interrupted => Exit::Interrupted,
        Verdict::Clean => Exit::Done,
    }
}

fn fail(target: SocketAddr, error: &LoadError) -> Exit {
    complain(format_args!("{target}: {error}"));
    match error {
        LoadError::Shortage(_) => Exit::Usage,
        LoadError::Unreachable(_) => Exit::Unreachable,
        LoadError::EventLoop(_) => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(typed: &str) -> Result<Load, clap::Error> {
        let mut command = Load::augment_args(clap::Command::new("load").no_binary_name(true));
        Load::from_arg_matches(&command.try_get_matches_from_mut(typed.split_whitespace())?)
    }

    fn plan(typed: &str) -> Plan {
        parse(typed).unwrap().plan("192.0.2.1:9".parse().unwrap())
    }

    #[test]
    fn a_run_has_an_end_even_if_none_is_asked_for() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (typed, files, duration) in [
            ("", None, seconds(10)),
            ("--files 5", Some(5), None),
            ("--duration 3s", None, seconds(3)),
            ("--files 5 --duration 3s", Some(5), seconds(3)),
        ] {
            assert_eq!(plan(typed).extent, Extent { files, duration }, "{typed}");
        }
    }

    #[test]
    fn every_option_reaches_the_plan() {
        let typed = "--clients 7 --size 1k..2k --dialect ask --rate 5/s --arrivals constant --ramp 3s --closer reset \
                     --misbehave abort=100% --timeout 4s --seed 11";
        let Plan { dialect, clients, pace, ramp, workload, closer, patience, .. } = plan(typed);
        assert_eq!((dialect, clients, closer), (Dialect::Ask, 7, Closer::Reset));
        assert_eq!(pace, Loop::Open { rate: 5.0, arrivals: Arrivals::Constant });
        assert_eq!((ramp, patience), (Duration::from_secs(3), Duration::from_secs(4)));
        assert_eq!((workload.seed, workload.sizes, workload.mix.conducts().count()), (11, Sizes::Range(1024, 2048), 1));
        assert_eq!(plan("--per-connection 8").per_connection, 8);
    }

    #[test]
    fn what_does_not_go_together_is_a_usage_error() {
        for typed in
            ["--udp --files 5", "--udp --verify /", "--window 5 --udp --rate 1/s", "--verify / --verify-only /"]
        {
            assert_eq!(parse(typed).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{typed}");
        }
        for typed in ["--sockets 5", "--verify-only /", "--arrivals constant"] {
            assert_eq!(parse(typed).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{typed}");
        }
        assert_eq!(parse("--verify /dev/null").unwrap().run(), Exit::Usage);
    }

    #[test]
    fn seeds_differ_unless_they_are_given() {
        assert_ne!(plan("").workload.seed, plan("").workload.seed);
        assert!(plan("").workload.seed <= u64::from(u32::MAX));
    }
}

//! The options of `intake load`, and the [`Plan`] that they describe.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use intake::load::plan::{Arrivals, Closer, Extent, Loop, Mix, Plan, Sizes, Workload};
use intake::load::tell::Condition;
use intake::proto::Dialect;

use super::typed::{parse_mix, parse_rate, parse_sizes, parse_some_time};
use crate::cli::access::{Access, Connect};
use crate::cli::address::Target;
use crate::cli::count;
use crate::cli::seed::any_seed;
use crate::cli::units::Span;
use crate::cli::words::{Words, one_of, word_of};

/// Put a receiver under load with many clients, and check what it stored
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    every upload ended as it should
  1    an upload failed, or the report could not be written
  2    usage error, or this host lacks descriptors or ports (see intake doctor)
  3    cannot connect
  4    a file is lost, damaged or stored twice, or was stored and must not be
  5    a --fail-if condition was met, or there was nothing to measure for it
  130  interrupted by Ctrl-C, with nothing else wrong

Misbehaviour, each with the default of its parameter:
  slow=10%:16k         sends 16 KiB a second
  stall=5%:1s          pauses for a second after half of the content
  abort=5%             ends its stream after half of the content; classic and line store the half, as they know no size
  reset=5%             resets the connection after half of the content; nothing may be stored
  half-close=5%:500ms  sends everything, shuts down its write side, and reads the answer 500 ms later
  split-header=5%      sends its header byte by byte; in classic, line and HTTP this needs serve --name-quiet 50ms
  never-read=1%        reads nothing, and closes a second after it has sent everything
  dup-name=2%          uses the name of the file before it
A misbehaving upload that ends as its kind should is not a failure. Latencies are those of the well-behaved clients.")]
pub struct Load {
    /// Address of the receiver, or a folder at any HTTP server that takes PUT: `http://HOST:PORT/FOLDER/`, or
    /// https://
    #[arg(value_name = "ADDR|URL", default_value_t)]
    pub address: Target,
    /// Connections open at once, at most
    #[arg(value_parser = count::some::<NonZeroUsize>, long, value_name = "N", default_value = "64")]
    pub clients: NonZeroUsize,
    /// How many files to send in total
    #[arg(long, value_name = "N")]
    pub files: Option<u64>,
    /// How long to start new files or datagrams [default: 10s, without --files]
    #[arg(long, value_name = "TIME", value_parser = parse_some_time)]
    pub duration: Option<Span>,
    /// Size of the files: `64k`, a range `1k..1M`, or `lognormal:64k,2` with a median and a deviation [default: 64k, or
    /// 64 bytes with --udp]
    #[arg(long, value_parser = parse_sizes)]
    pub size: Option<Sizes>,
    /// Dialect to send in [default: put; for http:// http]. `http` is PUT, `http-expect` waits for `100 Continue` before
    /// each file
    #[arg(long, value_parser = one_of(Dialect::WORDS))]
    pub dialect: Option<Dialect>,
    /// Files that each connection carries: pipelined without waiting for receipts in put and ask, one after the other in
    /// HTTP (keep-alive)
    #[arg(value_parser = count::some::<NonZeroUsize>, long, value_name = "N", default_value = "1", conflicts_with = "rate")]
    pub per_connection: NonZeroUsize,
    /// Open loop: start N files a second, however slow the receiver is; latencies count from the moment a file was due
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// How --rate spreads the files in time
    #[arg(long, value_parser = one_of(ARRIVALS), default_value = word_of(ARRIVALS, Arrivals::default()), requires = "rate")]
    pub arrivals: Arrivals,
    /// Bring in the clients, or raise the rate, over this time
    #[arg(long, value_name = "TIME", default_value_t = Span::default())]
    pub ramp: Span,
    /// Which side closes first. With `client`, put, ask and HTTP close after their receipts; classic and line close as soon
    /// as everything is sent, and do not learn the outcome. `reset` is for put, ask and HTTP
    #[arg(long, value_parser = one_of(CLOSERS), default_value = word_of(CLOSERS, Closer::default()))]
    pub closer: Closer,
    /// Share of the clients that misbehave, by kind; see below
    #[arg(long, value_name = "KIND=SHARE%,…", value_parser = parse_mix)]
    pub misbehave: Option<Mix>,
    /// Send datagrams to the receiver's echo, instead of files
    #[arg(long, conflicts_with_all = ["clients", "files", "per_connection", "dialect", "arrivals", "ramp", "closer", "misbehave", "verify", "verify_only"])]
    pub udp: bool,
    /// With --udp: number of sockets
    #[arg(value_parser = count::some::<NonZeroUsize>, long, value_name = "N", default_value = "16", requires = "udp")]
    pub sockets: NonZeroUsize,
    /// With --udp, without --rate: datagrams in flight on each socket
    #[arg(value_parser = count::some::<NonZeroU64>, long, value_name = "N", default_value = "64", requires = "udp", conflicts_with = "rate")]
    pub window: NonZeroU64,
    /// How long to wait for a silent receiver, or for the answer to a datagram [default: 60s, or 1s with --udp]
    #[arg(long, value_name = "TIME", value_parser = parse_some_time)]
    pub timeout: Option<Span>,
    /// Number that names and contents are derived from [default: a random one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// Compare every byte in the receiver's directory after the run
    #[arg(long, value_name = "DIR", conflicts_with = "verify_only")]
    pub verify: Option<PathBuf>,
    /// Send nothing: compare what an earlier run with the same seed, files, sizes, dialect and misbehaviour stored
    #[arg(long, value_name = "DIR", requires = "seed", requires = "files", conflicts_with = "fail_if")]
    pub verify_only: Option<PathBuf>,
    /// Exit with 5 if a figure of the report is above or below a limit, or was not measured; can be given several times
    #[arg(long, value_name = "FIGURE>LIMIT")]
    pub fail_if: Vec<Condition>,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write the report as a page with plots, too
    #[arg(long, value_name = "FILE", conflicts_with_all = ["udp", "verify_only"])]
    pub html: Option<PathBuf>,
    /// Send nothing: add up the --json reports of testers that ran at the same time
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = SENDING)]
    pub merge: Vec<PathBuf>,
    /// Send nothing: show earlier --json reports beside one another
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = SENDING, conflicts_with_all = ["merge", "json", "fail_if"])]
    pub compare: Vec<PathBuf>,
    #[command(flatten)]
    pub access: Access,
}

/// What only a run that sends something needs.
const SENDING: [&str; 7] = ["address", "files", "duration", "udp", "rate", "verify", "verify_only"];

const ARRIVALS: &Words<Arrivals> = &[("constant", Arrivals::Constant), ("poisson", Arrivals::Poisson)];
const CLOSERS: &Words<Closer> = &[("server", Closer::Server), ("client", Closer::Client), ("reset", Closer::Reset)];

const DEFAULT_SIZE: u64 = 64 << 10;
/// The same as the timeout of `send` for a server, and of a server for its clients.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The duration of a run without --files.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(10);

impl Load {
    /// How to speak to the receiver. Refuses options that the dialect does not have.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn connect(&self) -> Result<Connect, String> {
        if self.udp && self.address.is_url() {
            return Err("datagrams are sent to HOST:PORT, not to a URL".into());
        }
        if self.udp && self.access.wants_tls() {
            return Err("TLS is for files, not for datagrams".into());
        }
        self.check_dialect()?;
        self.access.connect(&self.address, self.dialect)
    }

    fn check_dialect(&self) -> Result<(), String> {
        if self.dialect().is_framed() {
            return Ok(());
        }
        match self.closer {
            _ if self.per_connection.get() > 1 => {
                Err("in classic and line a connection carries one file; --per-connection is for put, ask and HTTP"
                    .into())
            }
            Closer::Reset => {
                Err("in classic and line a reset undoes the upload; --closer reset is for put, ask and HTTP".into())
            }
            Closer::Server | Closer::Client => Ok(()),
        }
    }

    /// The dialect that was given, or else the default for the address.
    pub fn dialect(&self) -> Dialect {
        self.dialect.unwrap_or(if self.address.is_url() { Dialect::Http } else { Dialect::Put })
    }

    /// The seed that was given, or else a random one, which differs at each call.
    pub fn seed(&self) -> u64 {
        self.seed.map_or_else(any_seed, u64::from)
    }

    /// The files to send.
    pub fn workload(&self) -> Workload {
        Workload {
            seed: self.seed(),
            sizes: self.size.unwrap_or(Sizes::Range(DEFAULT_SIZE, DEFAULT_SIZE)),
            mix: self.misbehave.clone().unwrap_or_default(),
        }
    }

    /// The plan for a run against `target`.
    pub fn plan(&self, target: SocketAddr, connect: &Connect) -> Plan {
        let duration = match (self.files, self.duration) {
            (None, None) => Some(DEFAULT_DURATION),
            (_, duration) => duration.map(|Span(duration)| duration),
        };
        Plan {
            target,
            dialect: self.dialect(),
            site: connect.site.clone(),
            tls: connect.tls.clone(),
            token: connect.token.clone(),
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
        let load = parse(typed).unwrap();
        load.plan("192.0.2.1:9".parse().unwrap(), &load.connect().unwrap())
    }

    #[test]
    fn a_run_without_options_ends() {
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
    fn options_that_exclude_each_other_are_a_usage_error() {
        for typed in
            ["--udp --files 5", "--udp --verify /", "--window 5 --udp --rate 1/s", "--verify / --verify-only /"]
        {
            assert_eq!(parse(typed).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{typed}");
        }
        for typed in ["--sockets 5", "--verify-only /", "--arrivals constant"] {
            assert_eq!(parse(typed).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{typed}");
        }
    }

    #[test]
    fn seeds_differ_unless_they_are_given() {
        assert_ne!(plan("").workload.seed, plan("").workload.seed);
        assert!(plan("").workload.seed <= u64::from(u32::MAX));
    }
}

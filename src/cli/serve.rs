//! `intake serve`: the options of the receiver -> its [`Config`].

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use intake::proto::{NamePolicy, OnExists, Rules};
use intake::server::config::{Config, Durability, Limits, Udp};
use intake::server::trace::{Format, Tracer};
use intake::server::{Outcome, Server, StartError};

use super::address::{Address, listening};
use super::logger::{self, Lines};
use super::units::{Count, Limit, Size, Span};
use super::{Exit, Words, complain, one_of, say, word_of};

/// Receives files over TCP into a directory, and echoes UDP
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    shut down, and every running upload was finished
  1    could not start, or uploads were cut short at the shutdown
  2    wrong usage

SIGTERM, SIGINT and SIGQUIT shut down, a second one aborts. SIGUSR1 prints statistics.")]
pub struct Serve {
    /// Where TCP listens: every address of the host that this machine has; may be given several times
    #[arg(long, value_name = "HOST:PORT", default_values_t = [Address::default()])]
    listen: Vec<Address>,
    /// Where UDP is echoed [default: on every address of --listen]
    #[arg(long, value_name = "HOST:PORT|off", value_parser = parse_udp)]
    udp: Option<Echo>,
    /// Where files are stored; created where it is missing
    #[arg(long, default_value_os_t = Config::default().directory)]
    dir: PathBuf,
    /// What a receipt promises: full, that the file survives a power cut; none, that the system has it
    #[arg(long, value_parser = one_of(SYNC), default_value = word_of(SYNC, Durability::default()))]
    sync: Durability,
    /// What to do when a name is taken
    #[arg(long, value_parser = one_of(ON_EXISTS), default_value = word_of(ON_EXISTS, OnExists::default()))]
    on_exists: OnExists,
    /// Connections held at once [default: half of the descriptor limit]
    #[arg(long, value_name = "N")]
    max_connections: Option<NonZeroUsize>,
    /// The largest file
    #[arg(long, value_name = "SIZE|off", default_value_t = Limit(Config::default().rules.max_file_size.map(Size)))]
    max_file_size: Limit<Size>,
    /// What uploads must leave free of the disk [default: 256M or 5 %, whichever is less]
    #[arg(long, value_name = "SIZE")]
    min_free: Option<Size>,
    /// How long an upload that broke off is kept to be gone on with
    #[arg(long, value_name = "TIME", default_value_t = Span(Config::default().partial_ttl))]
    partial_ttl: Span,
    /// From the connect to the end of the name
    #[arg(long, value_name = "TIME|off", default_value_t = Limit(Limits::default().header_timeout.map(Span)))]
    header_timeout: Limit<Span>,
    /// The longest silence of a client
    #[arg(long, value_name = "TIME|off", default_value_t = Limit(Limits::default().idle_timeout.map(Span)))]
    idle_timeout: Limit<Span>,
    /// The least bytes a second, over each minute
    #[arg(long, value_name = "SIZE|off", default_value_t = Limit(Limits::default().min_rate.map(Size)))]
    min_rate: Limit<Size>,
    /// How long a client that was refused may go on sending
    #[arg(long, value_name = "TIME", default_value_t = Span(Limits::default().linger_timeout))]
    linger_timeout: Span,
    /// How long a shutdown waits for running uploads
    #[arg(long, value_name = "TIME", default_value_t = Span(Config::default().shutdown_timeout))]
    shutdown_timeout: Span,
    /// The silence after which a client of the line dialect is told `ok`
    #[arg(long, value_name = "TIME|off", default_value_t = Limit(Limits::default().ok_grace.map(Span)))]
    ok_grace: Limit<Span>,
    /// How long more of a classic name may follow
    #[arg(long, value_name = "TIME", default_value_t = Span(Limits::default().name_quiet))]
    name_quiet: Span,
    /// Datagrams a second that are echoed to one peer
    #[arg(long, value_name = "N|off", default_value_t = Limit(Config::default().udp_rate.map(Count)))]
    udp_rate: Limit<Count>,
    /// Share the addresses with other servers of the same user that say so too
    #[arg(long)]
    reuse_port: bool,
    /// Refuse uploads that do not tell their size
    #[arg(long)]
    require_size: bool,
    /// Refuse names that Windows cannot store
    #[arg(long)]
    portable_names: bool,
    /// Tell the story of each connection as it happens, on stderr: in words, or as one JSON object a line
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, value_parser = one_of(TRACE),
          default_missing_value = "words")]
    trace: Option<Format>,
}

const SYNC: &Words<Durability> = &[("full", Durability::Full), ("none", Durability::None)];

const ON_EXISTS: &Words<OnExists> =
    &[("refuse", OnExists::Refuse), ("rename", OnExists::Rename), ("replace", OnExists::Replace)];

const TRACE: &Words<Format> = &[("words", Format::Words), ("json", Format::Json)];

/// What is typed for `--udp`.
#[derive(Clone, Debug)]
enum Echo {
    Off,
    At(Address),
}

fn parse_udp(typed: &str) -> Result<Echo, &'static str> {
    match typed {
        "off" => Ok(Echo::Off),
        _ => typed.parse().map(Echo::At),
    }
}

impl Serve {
    /// Serves until it is shut down.
    pub fn run(self) -> Exit {
        let lines = logger::init();
        let exit = self.serve(lines);
        log::logger().flush();
        exit.unwrap_or_else(|words| {
            complain(words);
            Exit::Failed
        })
    }

    fn serve(self, lines: Lines) -> Result<Exit, String> {
        let trace = self.trace;
        let mut server = match Server::bind(&self.config()?) {
            Ok(server) => server,
            Err(error @ StartError::Descriptors { .. }) => {
                complain(error);
                return Ok(Exit::Usage);
            }
            Err(error) => return Err(error.to_string()),
        };
        if let Some(format) = trace {
            server.trace_to(Tracer::new(format, Box::new(lines)));
        }
        // Scripts that start it on port 0 wait for these lines, and then look at the log.
        log::logger().flush();
        for endpoint in server.endpoints() {
            say(endpoint);
        }
        match server.run() {
            Ok(Outcome::Clean) => Ok(Exit::Done),
            Ok(Outcome::Aborted) => Ok(Exit::Failed),
            Err(error) => Err(format!("the server failed: {error}")),
        }
    }

    fn config(self) -> Result<Config, String> {
        let udp = match self.udp {
            None => Udp::FollowTcp,
            Some(Echo::Off) => Udp::Off,
            Some(Echo::At(address)) => Udp::At(listening(&[address])?),
        };
        let limits = Limits {
            header_timeout: self.header_timeout.0.map(|Span(time)| time),
            idle_timeout: self.idle_timeout.0.map(|Span(time)| time),
            min_rate: self.min_rate.0.map(|Size(bytes)| bytes),
            linger_timeout: self.linger_timeout.0,
            ok_grace: self.ok_grace.0.map(|Span(time)| time),
            name_quiet: self.name_quiet.0,
        };
        Ok(Config {
            listen: listening(&self.listen)?,
            udp,
            directory: self.dir,
            sync: self.sync,
            partial_ttl: self.partial_ttl.0,
            min_free: self.min_free.map(|Size(bytes)| bytes),
            rules: Rules {
                names: NamePolicy { portable: self.portable_names },
                on_exists: self.on_exists,
                require_size: self.require_size,
                max_file_size: self.max_file_size.0.map(|Size(bytes)| bytes),
                ..Rules::default()
            },
            limits,
            max_connections: self.max_connections.map(NonZeroUsize::get),
            shutdown_timeout: self.shutdown_timeout.0,
            reuse_port: self.reuse_port,
            udp_rate: self.udp_rate.0.map(|Count(rate)| rate),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::FromArgMatches;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(typed: &str) -> Result<Serve, clap::Error> {
        let mut command = Serve::augment_args(clap::Command::new("serve").no_binary_name(true));
        Serve::from_arg_matches(&command.try_get_matches_from_mut(typed.split_whitespace())?)
    }

    fn config(typed: &str) -> Config {
        parse(typed).unwrap().config().unwrap()
    }

    #[test]
    fn nothing_typed_is_the_default_configuration() {
        assert_eq!(format!("{:?}", config("")), format!("{:?}", Config::default()));
    }

    #[test]
    fn every_option_reaches_the_configuration() {
        let Config {
            listen,
            udp,
            directory,
            sync,
            min_free,
            partial_ttl,
            rules,
            limits,
            max_connections,
            shutdown_timeout,
            reuse_port,
            udp_rate,
        } = config(
            "--listen 127.0.0.1:1 --listen [::1]:2 --udp 127.0.0.2:3 --dir /d --on-exists replace --max-connections 7 \
             --max-file-size 8M --header-timeout 9s --idle-timeout 10m --min-rate 11k --linger-timeout 12s \
             --shutdown-timeout 13s --ok-grace 14ms --name-quiet 15ms --udp-rate 16 --portable-names --require-size --sync none \
             --min-free 17k --partial-ttl 18h --reuse-port",
        );
        assert_eq!(listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        assert_eq!(udp, Udp::At(vec!["127.0.0.2:3".parse().unwrap()]));
        assert_eq!((directory, rules.on_exists), (PathBuf::from("/d"), OnExists::Replace));
        assert_eq!((min_free, partial_ttl), (Some(17 << 10), Duration::from_secs(18 * 3600)));
        assert!(rules.names.portable && rules.require_size && reuse_port && sync == Durability::None);
        assert_eq!((max_connections, udp_rate, shutdown_timeout), (Some(7), Some(16), Duration::from_secs(13)));
        assert_eq!((rules.max_file_size, limits.min_rate), (Some(8 << 20), Some(11 << 10)));
        assert_eq!(limits.header_timeout, Some(Duration::from_secs(9)));
        assert_eq!(limits.idle_timeout, Some(Duration::from_secs(600)));
        assert_eq!(limits.linger_timeout, Duration::from_secs(12));
        assert_eq!((limits.ok_grace, limits.name_quiet), (Some(Duration::from_millis(14)), Duration::from_millis(15)));
    }

    #[test]
    fn a_trace_is_in_words_unless_json_is_asked_for() {
        let trace = |typed| parse(typed).unwrap().trace;
        assert_eq!((trace(""), trace("--trace")), (None, Some(Format::Words)));
        assert_eq!((trace("--trace=words"), trace("--trace=json")), (Some(Format::Words), Some(Format::Json)));
        assert_eq!(trace("--trace --portable-names"), Some(Format::Words));
    }

    #[test]
    fn off_switches_off_whatever_has_an_off() {
        let Config { udp, rules, limits, udp_rate, .. } = config(
            "--udp off --max-file-size off --header-timeout off --idle-timeout off --min-rate off --ok-grace off \
             --udp-rate off",
        );
        assert_eq!((udp, udp_rate, rules.max_file_size, limits.min_rate), (Udp::Off, None, None, None));
        assert_eq!((limits.header_timeout, limits.idle_timeout, limits.ok_grace), (None, None, None));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for typed in [
            "--max-connections 0",
            "--max-file-size 0",
            "--idle-timeout 0s",
            "--idle-timeout 10",
            "--linger-timeout off",
            "--udp-rate -1",
            "--udp nowhere",
            "--listen 127.0.0.1",
            "--min-rate 99999999999999999999",
        ] {
            let kind = parse(typed).unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::ValueValidation | ErrorKind::UnknownArgument), "{typed}: {kind:?}");
        }
        assert_eq!(parse("--trace=xml").unwrap_err().kind(), ErrorKind::InvalidValue);
        assert_eq!(parse("--on-exists keep").unwrap_err().kind(), ErrorKind::InvalidValue);
    }
}

//! The options of `intake serve`, and what may be typed for each.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};
use intake::access::Network;
use intake::net::tls::Asks;
use intake::proto::OnExists;
use intake::sandbox::Mode;
use intake::server::config::{Config, Durability, Limits};
use intake::server::story::EventsTo;
use intake::server::story::trace::Format;

use crate::cli::address::Address;
use crate::cli::count;
use crate::cli::options_file::{self, in_a_line};
use crate::cli::units::{Count, Limit, Size, Span};
use crate::cli::words::{Words, one_of, word_of};

/// Receive files over TCP into a directory, and echo UDP datagrams
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    shut down; every running upload was finished
  1    could not start, or cut uploads short at the shutdown
  2    usage error, or this host lacks descriptors

Signals:
  SIGTERM, SIGINT, SIGQUIT  shut down; a second one aborts
  SIGHUP                    read the options file, certificates, keys and tokens again
  SIGUSR1                   log statistics")]
pub struct Serve {
    /// Address to take uploads on; can be given several times
    ///
    /// A name stands for all its addresses that this machine has. With port 0 the system chooses a port, which is
    /// printed on standard output.
    #[arg(short, long, help_heading = LISTENING, value_name = "HOST:PORT", default_values_t = [Address::default()])]
    pub listen: Vec<Address>,
    /// Address to echo datagrams on [default: those of --listen]
    #[arg(long, help_heading = LISTENING, value_name = "HOST:PORT|off", value_parser = parse_udp)]
    pub udp: Option<Echo>,
    /// Datagrams a second that are echoed to one peer
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    #[arg(value_name = "N|off", default_value_t = Limit(Config::default().udp_rate.map(Count)))]
    pub udp_rate: Limit<Count>,
    /// Share the addresses with other servers
    ///
    /// All of them must belong to the same user and have this option. The kernel spreads connections and datagrams over
    /// them. A server is one thread, so this is how to use several cores.
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    pub reuse_port: bool,
    /// Serve no upload page at `GET /`
    #[arg(long, help_heading = LISTENING)]
    pub no_page: bool,
    /// Name of this host that HTTP clients use; can be given several times
    ///
    /// Its addresses and `localhost` need not be named. Any other name is refused, because its owner could point it to
    /// this server's address, and upload through the browser of a visitor.
    #[arg(long, help_heading = LISTENING, hide_short_help = true, value_name = "NAME", value_parser = parse_http_host)]
    pub http_host: Vec<String>,
    /// Origin of web pages that may send files here; can be given several times
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    #[arg(value_name = "https://HOST[:PORT]", value_parser = parse_origin)]
    pub allow_origin: Vec<String>,

    /// Speak TLS too, with the certificate in this file (PEM); needs --tls-key
    ///
    /// The first byte of a connection tells TLS from a connection in clear. SIGHUP reads both files again. `intake cert`
    /// makes a pair for a first try.
    #[arg(long, help_heading = TLS, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, help_heading = TLS, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Take connections in clear too (also), TLS only (required), or no TLS (off) [default: also, or required if clients need
    /// a certificate]
    #[arg(long = "tls", help_heading = TLS, requires = "tls_cert", value_parser = one_of(TLS_USE))]
    #[arg(value_name = "WHEN")]
    pub tls_use: Option<TlsUse>,
    /// Take clients with a certificate of an issuer in this file only (PEM)
    ///
    /// The name in the certificate is in the log.
    #[arg(long, help_heading = TLS, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Whether a client needs a certificate (require), or is named if it has one (optional)
    #[arg(long, help_heading = TLS, hide_short_help = true, requires = "tls_client_ca", value_parser = one_of(TLS_CLIENT))]
    #[arg(value_name = "WHETHER", default_value = word_of(TLS_CLIENT, Asks::default()))]
    pub tls_client: Asks,
    /// TLS handshakes that wait for their clients at once; with more, those that are silent for a second make room
    #[arg(long, help_heading = TLS, hide_short_help = true)]
    #[arg(value_parser = count::some::<NonZeroUsize>, value_name = "N", default_value = "256")]
    pub max_handshakes: NonZeroUsize,

    /// Directory to store files in; created if it is missing
    #[arg(short, long, help_heading = FILES, default_value_os_t = Config::default().directory)]
    pub dir: PathBuf,
    /// What to do when a name is taken
    ///
    /// `rename` stores report.pdf as report.pdf.1, report.pdf.2, ...
    #[arg(long, help_heading = FILES, value_parser = one_of(ON_EXISTS))]
    #[arg(default_value = word_of(ON_EXISTS, OnExists::default()))]
    pub on_exists: OnExists,
    /// When to confirm a file: once it survives a power cut (full), or at once (none)
    ///
    /// `full` syncs each file and its directory before the client gets its receipt. `none` leaves that to the system:
    /// it is faster, and a power cut may lose files that were confirmed.
    #[arg(long, help_heading = FILES, value_parser = one_of(SYNC), default_value = word_of(SYNC, Durability::default()))]
    pub sync: Durability,
    /// Put each stored file into a queue too, for a program that comes next
    ///
    /// `intake consume DIR -- CMD` runs a command for each. A file gets its receipt only when it is in the queue, which is
    /// `.intake/queue` in the directory.
    #[arg(long, help_heading = FILES)]
    pub queue: bool,
    /// Refuse uploads that do not declare their size
    ///
    /// Without a size, a client that was killed looks like one that has finished.
    #[arg(long, help_heading = FILES)]
    pub require_size: bool,
    /// Refuse names that Windows cannot store
    #[arg(long, help_heading = FILES)]
    pub portable_names: bool,
    /// How long to keep an interrupted upload so that it can be resumed
    #[arg(long, help_heading = FILES, hide_short_help = true)]
    #[arg(value_name = "TIME", default_value_t = Span(Config::default().partial_ttl))]
    pub partial_ttl: Span,

    /// File with the tokens of which a client has to show one
    ///
    /// A line is NAME SHA256-HEX, and then max-file-size=SIZE, per-day=SIZE or uploads-per-day=N. `intake token NAME`
    /// makes a token and its line. SIGHUP reads the file again.
    #[arg(long, help_heading = ACCESS, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Take tokens also on connections from elsewhere that are not encrypted
    #[arg(long, help_heading = ACCESS, hide_short_help = true, requires = "token_file")]
    pub plain_tokens: bool,
    /// Network that clients may come from; can be given several times [default: all]
    #[arg(long, help_heading = ACCESS, value_name = "CIDR")]
    pub allow: Vec<Network>,
    /// Network of proxies, which send a PROXY v2 header with the address of each client; can be given several times
    ///
    /// From there the header is required, and believed; from elsewhere it is refused. HAProxy: `send-proxy-v2`. A proxy may
    /// end the stream cleanly where its client did not, so through it a file needs a size, chunks, or TLS up to this server.
    #[arg(long, help_heading = ACCESS, hide_short_help = true, value_name = "CIDR")]
    pub proxy_from: Vec<Network>,
    /// Take files through a proxy also if only the end of the stream ends them; they may be cut off
    #[arg(long, help_heading = ACCESS, hide_short_help = true, requires = "proxy_from")]
    pub proxy_unsized: bool,
    /// Connections of one source at once: of an IPv4 address, or of a /64 of IPv6
    #[arg(value_parser = count::some::<NonZeroU32>, long, help_heading = ACCESS, value_name = "N")]
    pub per_source: Option<NonZeroU32>,
    /// Bytes of files that one source may store in a day
    #[arg(long, help_heading = ACCESS, hide_short_help = true, value_name = "SIZE")]
    pub per_source_day: Option<Size>,
    /// Files that one source may store in a day
    #[arg(value_parser = count::some::<NonZeroU32>, long, help_heading = ACCESS, hide_short_help = true, value_name = "N")]
    pub per_source_uploads: Option<NonZeroU32>,

    /// Connections at once; further ones wait in the kernel [default: as many as the descriptor limit allows]
    #[arg(value_parser = count::some::<NonZeroUsize>, long, help_heading = LIMITS, value_name = "N")]
    pub max_connections: Option<NonZeroUsize>,
    /// Size of the largest file
    #[arg(long, help_heading = LIMITS, value_name = "SIZE|off")]
    #[arg(default_value_t = Limit(Config::default().rules.max_file_size.map(Size)))]
    pub max_file_size: Limit<Size>,
    /// Disk space that uploads must leave free [default: 256M or 5 %, whichever is less]
    #[arg(long, help_heading = LIMITS, value_name = "SIZE")]
    pub min_free: Option<Size>,
    /// How long a client may be silent
    #[arg(long, help_heading = LIMITS)]
    #[arg(value_name = "TIME|off", default_value_t = Limit(Limits::default().idle_timeout.map(Span)))]
    pub idle_timeout: Limit<Span>,
    /// How long a shutdown waits for running uploads
    #[arg(long, help_heading = LIMITS)]
    #[arg(value_name = "TIME", default_value_t = Span(Config::default().shutdown_timeout))]
    pub shutdown_timeout: Span,
    /// How long a client may take to send the name, from the connect on
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME|off", default_value_t = Limit(Limits::default().header_timeout.map(Span)))]
    pub header_timeout: Limit<Span>,
    /// Bytes a second that a client must send, as a mean over each minute
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "SIZE|off", default_value_t = Limit(Limits::default().min_rate.map(Size)))]
    pub min_rate: Limit<Size>,
    /// How long a refused client may keep sending before its connection is closed
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME", default_value_t = Span(Limits::default().linger_timeout))]
    pub linger_timeout: Span,
    /// Silence after the name before the server sends `ok` to a client of the line dialect
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME|off", default_value_t = Limit(Limits::default().ok_grace.map(Span)))]
    pub ok_grace: Limit<Span>,
    /// How long to wait for more of a name that has no end of its own
    ///
    /// On a slow path TCP may deliver a name of the classic dialect in two pieces. Each classic upload then takes this
    /// much longer.
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME", default_value_t = Span(Limits::default().name_quiet))]
    pub name_quiet: Span,

    /// Address to answer questions about the server on: /metrics for Prometheus, /healthz, /readyz
    ///
    /// Anyone who can connect there may ask. No files are taken there.
    #[arg(long, help_heading = OPERATING, value_name = "HOST:PORT")]
    pub metrics: Option<Address>,
    /// Write the outcome of each file as a JSON object: to the end of a file, to a Unix socket (a datagram each), or to
    /// standard output (-)
    ///
    /// Once the client has been told, and never before. Nobody waits for the reader: what it does not take is dropped and
    /// counted. SIGHUP opens the file again, which may have been renamed; the sandbox then allows writing in its directory.
    #[arg(long, help_heading = OPERATING, value_name = "FILE|unix:PATH|-", value_parser = parse_events)]
    pub events: Option<EventsTo>,
    /// Unix socket for the operator to look at the running server: unix:PATH
    ///
    /// Only the user of the server and root may connect. It takes commands, one a line, and answers in JSON: `help` lists
    /// them. The path of a server that was killed is used again.
    #[arg(long, help_heading = OPERATING, value_name = "unix:PATH", value_parser = parse_admin)]
    pub admin: Option<PathBuf>,
    /// File with options: one a line, without the dashes; the command line wins
    ///
    /// `max-file-size 4G` is a line, and so is `# a comment`. SIGHUP reads the file again. Options that cannot change while
    /// the server runs are refused then, and nothing of the file is taken. `intake check FILE` tells what is wrong with it.
    #[arg(long, help_heading = OPERATING, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Become this user, if started as root: a name, or a number
    ///
    /// Groups and privileges of root are given up for good. A port below 1024 still works. The directory must belong to
    /// the user, or be one that the user can make, and the user must be able to read the key and the token file.
    #[arg(long, help_heading = PROCESS, value_name = "NAME")]
    pub user: Option<String>,
    /// Forbid the server itself what it does not need: other files, other programs, new connections
    ///
    /// `auto` takes what the kernel offers, and logs what is missing. `require` does not start if anything is missing.
    #[arg(long, help_heading = PROCESS, value_parser = one_of(SANDBOX), default_value = word_of(SANDBOX, Mode::Auto))]
    pub sandbox: Mode,

    /// Log only warnings and errors; overrides RUST_LOG
    #[arg(short, long, help_heading = OUTPUT, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log debug messages too; overrides RUST_LOG
    #[arg(short, long, help_heading = OUTPUT)]
    pub verbose: bool,
    /// Print what happens on each connection to standard error, in words or as JSON
    #[arg(long, help_heading = OUTPUT, value_name = "FORMAT", num_args = 0..=1, require_equals = true)]
    #[arg(value_parser = one_of(TRACE), default_missing_value = "words")]
    pub trace: Option<Format>,
}

const LISTENING: &str = "Listening";
const TLS: &str = "TLS";
const FILES: &str = "Files";
const ACCESS: &str = "Who may write";
const LIMITS: &str = "Limits";
const OPERATING: &str = "Operating";
const PROCESS: &str = "Process";
const OUTPUT: &str = "Output";

const SANDBOX: &Words<Mode> = &[("auto", Mode::Auto), ("require", Mode::Require), ("off", Mode::Off)];

const SYNC: &Words<Durability> = &[("full", Durability::Full), ("none", Durability::None)];

const TLS_USE: &Words<TlsUse> = &[("also", TlsUse::Also), ("required", TlsUse::Required), ("off", TlsUse::Off)];

const TLS_CLIENT: &Words<Asks> = &[("require", Asks::Requires), ("optional", Asks::Takes)];

/// The value of `--tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsUse {
    Also,
    Required,
    Off,
}

const ON_EXISTS: &Words<OnExists> =
    &[("refuse", OnExists::Refuse), ("rename", OnExists::Rename), ("replace", OnExists::Replace)];

const TRACE: &Words<Format> = &[("words", Format::Words), ("json", Format::Json)];

/// The value of `--udp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Echo {
    Off,
    At(Address),
}

fn parse_udp(typed: &str) -> Result<Echo, &'static str> {
    match typed {
        "off" => Ok(Echo::Off),
        _ => typed.parse().map(Echo::At),
    }
}

fn parse_events(typed: &str) -> Result<EventsTo, &'static str> {
    match (typed, typed.strip_prefix("unix:")) {
        ("" | "unix:", _) => Err("name a file, unix:PATH, or - for standard output"),
        ("-", _) => Ok(EventsTo::Stdout),
        (_, Some(path)) => Ok(EventsTo::Unix(path.into())),
        (file, None) => Ok(EventsTo::File(file.into())),
    }
}

fn parse_admin(typed: &str) -> Result<PathBuf, &'static str> {
    match typed.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("it is a Unix socket: unix:/run/intake/admin.sock"),
    }
}

fn parse_http_host(typed: &str) -> Result<String, &'static str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if typed.is_empty() || !typed.bytes().all(is_name) {
        return Err("a name is letters, digits, dots and dashes, without a port: drop.example");
    }
    Ok(typed.into())
}

fn parse_origin(typed: &str) -> Result<String, &'static str> {
    let host = typed.strip_prefix("https://").or_else(|| typed.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || !host.is_ascii() || host.contains(['/', '?', '#', '@', ' '])) {
        return Err("an origin is a scheme, a host, and a port if it is not the usual one: https://app.example");
    }
    Ok(typed.into())
}

impl Serve {
    /// The options of the command line `typed` of the program `cli`, with those of the file that it names.
    ///
    /// # Errors
    /// What is wrong, one fault a line.
    pub fn parse(cli: &Command, typed: Vec<OsString>) -> Result<Self, String> {
        let all = options_file::expand(cli, typed).map_err(|faults| faults.to_string())?;
        let matches = cli.clone().try_get_matches_from(all).map_err(|error| in_a_line(&error))?;
        let serve = matches.subcommand_matches("serve").ok_or("the command is not serve")?;
        Self::from_arg_matches(serve).map_err(|error| in_a_line(&error))
    }
}

#[cfg(test)]
pub mod tests {
    use clap::error::ErrorKind;
    use log::LevelFilter;

    use super::*;

    /// The options of a command line behind `intake serve`.
    pub fn parse(typed: &str) -> Result<Serve, clap::Error> {
        let mut command = Serve::augment_args(clap::Command::new("serve").no_binary_name(true));
        Serve::from_arg_matches(&command.try_get_matches_from_mut(typed.split_whitespace())?)
    }

    #[test]
    fn a_trace_is_in_words_unless_json_is_asked_for() {
        let trace = |typed| parse(typed).unwrap().trace;
        assert_eq!((trace(""), trace("--trace")), (None, Some(Format::Words)));
        assert_eq!((trace("--trace=words"), trace("--trace=json")), (Some(Format::Words), Some(Format::Json)));
        assert_eq!(trace("--trace --portable-names"), Some(Format::Words));
    }

    #[test]
    fn quiet_and_verbose_set_the_log_level() {
        let level = |typed| parse(typed).unwrap().log_level();
        assert_eq!((level(""), level("-q"), level("-v")), (None, Some(LevelFilter::Warn), Some(LevelFilter::Debug)));
        assert_eq!(parse("-q -v").unwrap_err().kind(), ErrorKind::ArgumentConflict);
    }

    /// `-h` lists the common options, `--help` all of them. Each option is in a section.
    #[test]
    fn the_help_is_in_sections_and_short_help_is_short() {
        let mut command = Serve::augment_args(clap::Command::new("serve").disable_help_flag(true));
        let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
        for section in ["Listening:", "TLS:", "Files:", "Limits:", "Operating:", "Process:", "Output:"] {
            assert!(short.contains(section) && long.contains(section), "{section}\n{short}");
        }
        assert!(!short.contains("Options:") && !long.contains("Options:"), "{long}");
        assert!(long.contains("--name-quiet") && !short.contains("--name-quiet"), "{short}");
    }

    #[test]
    fn a_bad_value_is_a_usage_error() {
        for typed in [
            "--http-host drop.example:9000",
            "--http-host http://drop.example",
            "--allow-origin app.example",
            "--allow-origin https://app.example/",
            "--allow-origin *",
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

//! `intake serve`: turns the options into the [`Config`] of a server, and runs it.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};
use intake::access::{Network, Networks, Policy, Quota};
use intake::net::Manager;
use intake::net::tls::Asks;
use intake::proto::{NamePolicy, OnExists, Rules, Web};
use intake::sandbox::{Mode, Sandbox, User};
use intake::server::config::{Config, Durability, Limits, Tls, Udp};
use intake::server::story::EventsTo;
use intake::server::story::trace::{Format, Tracer};
use intake::server::{Outcome, Reread, Server, StartError, page};
use log::LevelFilter;

use super::address::{Address, listening};
use super::count;
use super::exit::Exit;
use super::logger::{self, Lines};
use super::options_file::{self, in_a_line};
use super::output::{complain, say};
use super::units::{Count, Limit, Size, Span};
use super::usage::usage_error;
use super::words::{Words, one_of, word_of};

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
    listen: Vec<Address>,
    /// Address to echo datagrams on [default: those of --listen]
    #[arg(long, help_heading = LISTENING, value_name = "HOST:PORT|off", value_parser = parse_udp)]
    udp: Option<Echo>,
    /// Datagrams a second that are echoed to one peer
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    #[arg(value_name = "N|off", default_value_t = Limit(Config::default().udp_rate.map(Count)))]
    udp_rate: Limit<Count>,
    /// Share the addresses with other servers
    ///
    /// All of them must belong to the same user and have this option. The kernel spreads connections and datagrams over
    /// them. A server is one thread, so this is how to use several cores.
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    reuse_port: bool,
    /// Serve no upload page at `GET /`
    #[arg(long, help_heading = LISTENING)]
    no_page: bool,
    /// Name of this host that HTTP clients use; can be given several times
    ///
    /// Its addresses and `localhost` need not be named. Any other name is refused, because its owner could point it to
    /// this server's address, and upload through the browser of a visitor.
    #[arg(long, help_heading = LISTENING, hide_short_help = true, value_name = "NAME", value_parser = parse_http_host)]
    http_host: Vec<String>,
    /// Origin of web pages that may send files here; can be given several times
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    #[arg(value_name = "https://HOST[:PORT]", value_parser = parse_origin)]
    allow_origin: Vec<String>,

    /// Speak TLS too, with the certificate in this file (PEM); needs --tls-key
    ///
    /// The first byte of a connection tells TLS from a connection in clear. SIGHUP reads both files again. `intake cert`
    /// makes a pair for a first try.
    #[arg(long, help_heading = TLS, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, help_heading = TLS, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Take connections in clear too (also), TLS only (required), or no TLS (off) [default: also, or required if clients need
    /// a certificate]
    #[arg(long = "tls", help_heading = TLS, requires = "tls_cert", value_parser = one_of(TLS_USE))]
    #[arg(value_name = "WHEN")]
    tls_use: Option<TlsUse>,
    /// Take clients with a certificate of an issuer in this file only (PEM)
    ///
    /// The name in the certificate is in the log.
    #[arg(long, help_heading = TLS, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Whether a client needs a certificate (require), or is named if it has one (optional)
    #[arg(long, help_heading = TLS, hide_short_help = true, requires = "tls_client_ca", value_parser = one_of(TLS_CLIENT))]
    #[arg(value_name = "WHETHER", default_value = word_of(TLS_CLIENT, Asks::default()))]
    tls_client: Asks,
    /// TLS handshakes that wait for their clients at once; with more, those that are silent for a second make room
    #[arg(long, help_heading = TLS, hide_short_help = true)]
    #[arg(value_parser = count::some::<NonZeroUsize>, value_name = "N", default_value = "256")]
    max_handshakes: NonZeroUsize,

    /// Directory to store files in; created if it is missing
    #[arg(short, long, help_heading = FILES, default_value_os_t = Config::default().directory)]
    dir: PathBuf,
    /// What to do when a name is taken
    ///
    /// `rename` stores report.pdf as report.pdf.1, report.pdf.2, ...
    #[arg(long, help_heading = FILES, value_parser = one_of(ON_EXISTS))]
    #[arg(default_value = word_of(ON_EXISTS, OnExists::default()))]
    on_exists: OnExists,
    /// When to confirm a file: once it survives a power cut (full), or at once (none)
    ///
    /// `full` syncs each file and its directory before the client gets its receipt. `none` leaves that to the system:
    /// it is faster, and a power cut may lose files that were confirmed.
    #[arg(long, help_heading = FILES, value_parser = one_of(SYNC), default_value = word_of(SYNC, Durability::default()))]
    sync: Durability,
    /// Put each stored file into a queue too, for a program that comes next
    ///
    /// `intake consume DIR -- CMD` runs a command for each. A file gets its receipt only when it is in the queue, which is
    /// `.intake/queue` in the directory.
    #[arg(long, help_heading = FILES)]
    queue: bool,
    /// Refuse uploads that do not declare their size
    ///
    /// Without a size, a client that was killed looks like one that has finished.
    #[arg(long, help_heading = FILES)]
    require_size: bool,
    /// Refuse names that Windows cannot store
    #[arg(long, help_heading = FILES)]
    portable_names: bool,
    /// How long to keep an interrupted upload so that it can be resumed
    #[arg(long, help_heading = FILES, hide_short_help = true)]
    #[arg(value_name = "TIME", default_value_t = Span(Config::default().partial_ttl))]
    partial_ttl: Span,

    /// File with the tokens of which a client has to show one
    ///
    /// A line is NAME SHA256-HEX, and then max-file-size=SIZE, per-day=SIZE or uploads-per-day=N. `intake token NAME`
    /// makes a token and its line. SIGHUP reads the file again.
    #[arg(long, help_heading = ACCESS, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Take tokens also on connections from elsewhere that are not encrypted
    #[arg(long, help_heading = ACCESS, hide_short_help = true, requires = "token_file")]
    plain_tokens: bool,
    /// Network that clients may come from; can be given several times [default: all]
    #[arg(long, help_heading = ACCESS, value_name = "CIDR")]
    allow: Vec<Network>,
    /// Network of proxies, which send a PROXY v2 header with the address of each client; can be given several times
    ///
    /// From there the header is required, and believed; from elsewhere it is refused. HAProxy: `send-proxy-v2`. A proxy may
    /// end the stream cleanly where its client did not, so through it a file needs a size, chunks, or TLS up to this server.
    #[arg(long, help_heading = ACCESS, hide_short_help = true, value_name = "CIDR")]
    proxy_from: Vec<Network>,
    /// Take files through a proxy also if only the end of the stream ends them; they may be cut off
    #[arg(long, help_heading = ACCESS, hide_short_help = true, requires = "proxy_from")]
    proxy_unsized: bool,
    /// Connections of one source at once: of an IPv4 address, or of a /64 of IPv6
    #[arg(value_parser = count::some::<NonZeroU32>, long, help_heading = ACCESS, value_name = "N")]
    per_source: Option<NonZeroU32>,
    /// Bytes of files that one source may store in a day
    #[arg(long, help_heading = ACCESS, hide_short_help = true, value_name = "SIZE")]
    per_source_day: Option<Size>,
    /// Files that one source may store in a day
    #[arg(value_parser = count::some::<NonZeroU32>, long, help_heading = ACCESS, hide_short_help = true, value_name = "N")]
    per_source_uploads: Option<NonZeroU32>,

    /// Connections at once; further ones wait in the kernel [default: as many as the descriptor limit allows]
    #[arg(value_parser = count::some::<NonZeroUsize>, long, help_heading = LIMITS, value_name = "N")]
    max_connections: Option<NonZeroUsize>,
    /// Size of the largest file
    #[arg(long, help_heading = LIMITS, value_name = "SIZE|off")]
    #[arg(default_value_t = Limit(Config::default().rules.max_file_size.map(Size)))]
    max_file_size: Limit<Size>,
    /// Disk space that uploads must leave free [default: 256M or 5 %, whichever is less]
    #[arg(long, help_heading = LIMITS, value_name = "SIZE")]
    min_free: Option<Size>,
    /// How long a client may be silent
    #[arg(long, help_heading = LIMITS)]
    #[arg(value_name = "TIME|off", default_value_t = Limit(Limits::default().idle_timeout.map(Span)))]
    idle_timeout: Limit<Span>,
    /// How long a shutdown waits for running uploads
    #[arg(long, help_heading = LIMITS)]
    #[arg(value_name = "TIME", default_value_t = Span(Config::default().shutdown_timeout))]
    shutdown_timeout: Span,
    /// How long a client may take to send the name, from the connect on
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME|off", default_value_t = Limit(Limits::default().header_timeout.map(Span)))]
    header_timeout: Limit<Span>,
    /// Bytes a second that a client must send, as a mean over each minute
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "SIZE|off", default_value_t = Limit(Limits::default().min_rate.map(Size)))]
    min_rate: Limit<Size>,
    /// How long a refused client may keep sending before its connection is closed
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME", default_value_t = Span(Limits::default().linger_timeout))]
    linger_timeout: Span,
    /// Silence after the name before the server sends `ok` to a client of the line dialect
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME|off", default_value_t = Limit(Limits::default().ok_grace.map(Span)))]
    ok_grace: Limit<Span>,
    /// How long to wait for more of a name that has no end of its own
    ///
    /// On a slow path TCP may deliver a name of the classic dialect in two pieces. Each classic upload then takes this
    /// much longer.
    #[arg(long, help_heading = LIMITS, hide_short_help = true)]
    #[arg(value_name = "TIME", default_value_t = Span(Limits::default().name_quiet))]
    name_quiet: Span,

    /// Address to answer questions about the server on: /metrics for Prometheus, /healthz, /readyz
    ///
    /// Anyone who can connect there may ask. No files are taken there.
    #[arg(long, help_heading = OPERATING, value_name = "HOST:PORT")]
    metrics: Option<Address>,
    /// Write the outcome of each file as a JSON object: to the end of a file, to a Unix socket (a datagram each), or to
    /// standard output (-)
    ///
    /// Once the client has been told, and never before. Nobody waits for the reader: what it does not take is dropped and
    /// counted. SIGHUP opens the file again, which may have been renamed; the sandbox then allows writing in its directory.
    #[arg(long, help_heading = OPERATING, value_name = "FILE|unix:PATH|-", value_parser = parse_events)]
    events: Option<EventsTo>,
    /// Unix socket for the operator to look at the running server: unix:PATH
    ///
    /// Only the user of the server and root may connect. It takes commands, one a line, and answers in JSON: `help` lists
    /// them. The path of a server that was killed is used again.
    #[arg(long, help_heading = OPERATING, value_name = "unix:PATH", value_parser = parse_admin)]
    admin: Option<PathBuf>,
    /// File with options: one a line, without the dashes; the command line wins
    ///
    /// `max-file-size 4G` is a line, and so is `# a comment`. SIGHUP reads the file again. Options that cannot change while
    /// the server runs are refused then, and nothing of the file is taken. `intake check FILE` tells what is wrong with it.
    #[arg(long, help_heading = OPERATING, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Become this user, if started as root: a name, or a number
    ///
    /// Groups and privileges of root are given up for good. A port below 1024 still works. The directory must belong to
    /// the user, or be one that the user can make, and the user must be able to read the key and the token file.
    #[arg(long, help_heading = PROCESS, value_name = "NAME")]
    user: Option<String>,
    /// Forbid the server itself what it does not need: other files, other programs, new connections
    ///
    /// `auto` takes what the kernel offers, and logs what is missing. `require` does not start if anything is missing.
    #[arg(long, help_heading = PROCESS, value_parser = one_of(SANDBOX), default_value = word_of(SANDBOX, Mode::Auto))]
    sandbox: Mode,

    /// Log only warnings and errors; overrides RUST_LOG
    #[arg(short, long, help_heading = OUTPUT, conflicts_with = "verbose")]
    quiet: bool,
    /// Log debug messages too; overrides RUST_LOG
    #[arg(short, long, help_heading = OUTPUT)]
    verbose: bool,
    /// Print what happens on each connection to standard error, in words or as JSON
    #[arg(long, help_heading = OUTPUT, value_name = "FORMAT", num_args = 0..=1, require_equals = true)]
    #[arg(value_parser = one_of(TRACE), default_missing_value = "words")]
    trace: Option<Format>,
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
enum TlsUse {
    Also,
    Required,
    Off,
}

const ON_EXISTS: &Words<OnExists> =
    &[("refuse", OnExists::Refuse), ("rename", OnExists::Rename), ("replace", OnExists::Replace)];

const TRACE: &Words<Format> = &[("words", Format::Words), ("json", Format::Json)];

/// The value of `--udp`.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What is looked up once, at the start: it cannot change later, and the sandbox forbids to look it up again.
#[derive(Clone, Debug)]
struct Places {
    listen: Vec<SocketAddr>,
    udp: Udp,
    metrics: Option<SocketAddr>,
    user: Option<User>,
}

/// The options, read again at SIGHUP.
struct Again {
    /// The command line of the whole program.
    cli: Command,
    /// As it was at the start.
    first: Serve,
    places: Places,
    level: Option<LevelFilter>,
}

impl Reread for Again {
    fn read(&mut self) -> Result<Config, String> {
        let serve = Serve::parse(&self.cli, env::args_os().collect())?;
        let first = &self.first;
        let same = [
            ("--listen", serve.listen == first.listen),
            ("--udp", serve.udp == first.udp),
            ("--metrics", serve.metrics == first.metrics),
            ("--user", serve.user == first.user),
            ("--trace", serve.trace == first.trace),
        ];
        let changed: Vec<_> = same.iter().filter(|(_, same)| !same).map(|(option, _)| *option).collect();
        if !changed.is_empty() {
            return Err(format!("{} cannot change while the server runs: restart it", changed.join(", ")));
        }
        self.level = serve.log_level();
        serve.config_at(self.places.clone())
    }

    fn taken(&mut self) {
        logger::set_level(self.level);
    }
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

    /// Serves until it is shut down. `cli` is the command line of the whole program.
    pub fn run(self, cli: Command) -> Exit {
        let lines = logger::init(self.log_level());
        let exit = self.serve(cli, lines);
        log::logger().flush();
        exit.unwrap_or_else(|words| {
            complain(words);
            Exit::Failed
        })
    }

    /// The log level of `--quiet` or `--verbose`, if one is given.
    fn log_level(&self) -> Option<LevelFilter> {
        match (self.quiet, self.verbose) {
            (true, _) => Some(LevelFilter::Warn),
            (_, true) => Some(LevelFilter::Debug),
            _ => None,
        }
    }

    fn serve(self, cli: Command, lines: Lines) -> Result<Exit, String> {
        let manager = Manager::of_the_environment()?;
        let log_dropped = lines.dropped();
        // It opens a socket, which the sandbox forbids.
        let tracer = self.trace.map(|format| Tracer::new(format, Box::new(lines)));
        if let Err(words) = self.user() {
            return Ok(usage_error::<Self>("serve", words));
        }
        let places = self.places()?;
        let again = Again { cli, first: self.clone(), places: places.clone(), level: None };
        let has_file = self.config.is_some();
        let mut server = match Server::bind_under(manager, &self.config_at(places)?) {
            Ok(server) => server,
            Err(error @ StartError::Descriptors { .. }) => {
                complain(error);
                return Ok(Exit::Usage);
            }
            Err(error) => return Err(error.to_string()),
        };
        if let Some(tracer) = tracer {
            server.trace_to(tracer);
        }
        if has_file {
            server.reread_by(Box::new(again));
        }
        server.log_level_by(Box::new(|level| logger::set_level(Some(level))));
        server.report_dropped_lines(log_dropped);
        // Scripts that use port 0 wait for these lines, and then read the log.
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

    /// How to speak TLS, if a certificate is given.
    fn tls(&self) -> Result<Option<Tls>, String> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let clients = self.tls_client_ca.clone().map(|file| (file, self.tls_client));
        let need_certificate = matches!(clients, Some((_, Asks::Requires)));
        if need_certificate && self.tls_use == Some(TlsUse::Also) {
            let words =
                "--tls also lets clients in that have no certificate: choose --tls required or --tls-client optional";
            return Err(words.into());
        }
        let is_required = need_certificate || self.tls_use == Some(TlsUse::Required);
        let (certificate, key, max_handshakes) = (certificate.clone(), key.clone(), self.max_handshakes.get());
        let tls = Tls { certificate, key, clients, is_required, max_handshakes };
        Ok((self.tls_use != Some(TlsUse::Off)).then_some(tls))
    }

    fn places(&self) -> Result<Places, String> {
        let udp = match &self.udp {
            None => Udp::FollowTcp,
            Some(Echo::Off) => Udp::Off,
            Some(Echo::At(address)) => Udp::At(listening(std::slice::from_ref(address))?),
        };
        // A name may stand for several addresses, and one is enough.
        let metrics = self.metrics.as_ref().map(|address| listening(std::slice::from_ref(address))).transpose()?;
        Ok(Places {
            listen: listening(&self.listen)?,
            udp,
            metrics: metrics.and_then(|all| all.first().copied()),
            user: self.user()?,
        })
    }

    fn user(&self) -> Result<Option<User>, String> {
        let look_up = |name: &String| name.parse().map_err(|words| format!("--user {name}: {words}"));
        self.user.as_ref().map(look_up).transpose()
    }

    /// The configuration.
    ///
    /// # Errors
    /// What is wrong with the options, in words.
    pub fn config(self) -> Result<Config, String> {
        let places = self.places()?;
        self.config_at(places)
    }

    fn config_at(self, Places { listen, udp, metrics, user }: Places) -> Result<Config, String> {
        let tls = self.tls()?;
        let tls_files = tls.iter().flat_map(Tls::files);
        let reread = self.token_file.iter().chain(&self.config).cloned().chain(tls_files).collect();
        let rewrite = match &self.events {
            Some(EventsTo::File(file)) => vec![file.clone()],
            _ => Vec::new(),
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
            listen,
            udp,
            metrics,
            events: self.events,
            directory: self.dir,
            sync: self.sync,
            queue: self.queue,
            partial_ttl: self.partial_ttl.0,
            min_free: self.min_free.map(|Size(bytes)| bytes),
            rules: Rules {
                names: NamePolicy { portable: self.portable_names },
                on_exists: self.on_exists,
                require_size: self.require_size,
                max_file_size: self.max_file_size.0.map(|Size(bytes)| bytes),
                web: Web { hosts: self.http_host, origins: self.allow_origin, page: (!self.no_page).then(page) },
                ..Rules::default()
            },
            policy: Policy {
                allow: Networks::new(self.allow),
                per_source: self.per_source.map(NonZeroU32::get),
                source_quota: Quota {
                    bytes: self.per_source_day.map(|Size(bytes)| bytes),
                    uploads: self.per_source_uploads.map(NonZeroU32::get),
                },
                plain_tokens: self.plain_tokens,
                proxies: Networks::new(self.proxy_from),
            },
            proxy_unsized: self.proxy_unsized,
            token_file: self.token_file.clone(),
            limits,
            max_connections: self.max_connections.map(NonZeroUsize::get),
            shutdown_timeout: self.shutdown_timeout.0,
            reuse_port: self.reuse_port,
            user,
            sandbox: Sandbox { mode: self.sandbox, reread, rewrite, removed: self.admin.iter().cloned().collect() },
            admin: self.admin,
            tls,
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
    fn without_options_the_configuration_is_the_default() {
        let sandbox = Sandbox { mode: Mode::Auto, ..Sandbox::default() };
        assert_eq!(format!("{:?}", config("")), format!("{:?}", Config { sandbox, ..Config::default() }));
    }

    #[test]
    fn every_option_reaches_the_configuration() {
        let Config {
            listen,
            udp,
            metrics,
            events,
            admin,
            directory,
            sync,
            queue,
            min_free,
            partial_ttl,
            tls,
            rules,
            policy,
            proxy_unsized,
            token_file,
            limits,
            max_connections,
            shutdown_timeout,
            reuse_port,
            user,
            sandbox,
            udp_rate,
        } = config(
            "--listen 127.0.0.1:1 --listen [::1]:2 --udp 127.0.0.2:3 --dir /d --on-exists replace --max-connections 7 \
             --max-file-size 8M --header-timeout 9s --idle-timeout 10m --min-rate 11k --linger-timeout 12s \
             --shutdown-timeout 13s --ok-grace 14ms --name-quiet 15ms --udp-rate 16 --portable-names --require-size --sync none \
             --min-free 17k --partial-ttl 18h --reuse-port --no-page --http-host drop.example --http-host b \
             --allow-origin https://app.example:19 --token-file /t --plain-tokens --allow 192.0.2.0/24 --allow ::1 \
             --per-source 20 --per-source-day 21k --per-source-uploads 22 --user 20 --sandbox require --tls-cert /c \
             --events unix:/e --metrics 127.0.0.1:23 --tls-key /k --tls required --tls-client-ca /ca --tls-client optional \
             --max-handshakes 20 --queue --proxy-from 198.51.100.24 --proxy-unsized --admin unix:/a",
        );
        assert_eq!(events, Some(EventsTo::Unix("/e".into())));
        assert_eq!((user, sandbox.mode), (Some("20".parse().unwrap()), Mode::Require));
        assert_eq!((token_file, policy.plain_tokens), (Some(PathBuf::from("/t")), true));
        assert!(policy.proxies.contain("198.51.100.24".parse().unwrap()) && proxy_unsized);
        assert_eq!((policy.per_source, policy.source_quota.uploads), (Some(20), Some(22)));
        assert_eq!(policy.source_quota.bytes, Some(21 << 10));
        let allows = |ip: &str| policy.allow.allows(ip.parse().unwrap());
        assert_eq!(["192.0.2.9", "::1", "127.0.0.1"].map(allows), [true, true, false]);
        let clients = Some(("/ca".into(), Asks::Takes));
        let (certificate, key) = ("/c".into(), "/k".into());
        assert_eq!(tls, Some(Tls { certificate, key, clients, is_required: true, max_handshakes: 20 }));
        let Web { hosts, origins, page } = rules.web;
        assert_eq!((hosts, origins), (vec!["drop.example".into(), "b".into()], vec!["https://app.example:19".into()]));
        assert!(page.is_none());
        assert_eq!(listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        assert_eq!(udp, Udp::At(vec!["127.0.0.2:3".parse().unwrap()]));
        assert_eq!(metrics, Some("127.0.0.1:23".parse().unwrap()));
        assert_eq!((admin, sandbox.removed), (Some("/a".into()), vec![PathBuf::from("/a")]));
        assert_eq!((directory, rules.on_exists), (PathBuf::from("/d"), OnExists::Replace));
        assert_eq!((min_free, partial_ttl), (Some(17 << 10), Duration::from_secs(18 * 3600)));
        assert!(rules.names.portable && rules.require_size && reuse_port && queue && sync == Durability::None);
        assert_eq!((max_connections, udp_rate, shutdown_timeout), (Some(7), Some(16), Duration::from_secs(13)));
        assert_eq!((rules.max_file_size, limits.min_rate), (Some(8 << 20), Some(11 << 10)));
        assert_eq!(limits.header_timeout, Some(Duration::from_secs(9)));
        assert_eq!(limits.idle_timeout, Some(Duration::from_secs(600)));
        assert_eq!(limits.linger_timeout, Duration::from_secs(12));
        assert_eq!((limits.ok_grace, limits.name_quiet), (Some(Duration::from_millis(14)), Duration::from_millis(15)));
    }

    #[test]
    fn tls_is_spoken_where_there_is_a_certificate_and_needed_where_clients_need_one() {
        let tls = |typed: &str| config(&format!("--tls-cert c --tls-key k {typed}")).tls;
        assert_eq!(tls("--tls off"), None);
        let required = |typed| tls(typed).map(|tls| (tls.is_required, tls.clients.map(|(_, asks)| asks)));
        assert_eq!(required(""), Some((false, None)));
        assert_eq!(required("--tls required"), Some((true, None)));
        assert_eq!(required("--tls-client-ca ca"), Some((true, Some(Asks::Requires))));
        assert_eq!(required("--tls-client-ca ca --tls-client optional"), Some((false, Some(Asks::Takes))));
        let words = parse("--tls-cert c --tls-key k --tls also --tls-client-ca ca").unwrap().config().unwrap_err();
        assert!(words.contains("--tls required"), "{words}");
        for typed in ["--tls-cert c", "--tls-key k", "--tls required", "--tls-client-ca ca"] {
            assert_eq!(parse(typed).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{typed}");
        }
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
    fn off_switches_a_limit_off() {
        let Config { udp, rules, limits, udp_rate, .. } = config(
            "--udp off --max-file-size off --header-timeout off --idle-timeout off --min-rate off --ok-grace off \
             --udp-rate off",
        );
        assert_eq!((udp, udp_rate, rules.max_file_size, limits.min_rate), (Udp::Off, None, None, None));
        assert_eq!((limits.header_timeout, limits.idle_timeout, limits.ok_grace), (None, None, None));
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

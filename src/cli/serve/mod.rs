//! `intake serve`: runs a server as the options say.

mod config;
mod options;

use std::env;

use clap::Command;
use intake::net::Manager;
use intake::server::config::Config;
use intake::server::story::trace::Tracer;
use intake::server::{Outcome, Reread, Server, StartError};
use log::LevelFilter;

use self::config::Places;
pub use self::options::Serve;
use super::exit::Exit;
use super::logger::{self, Lines};
use super::output::{complain, say};
use super::usage::usage_error;

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
}

//! The command line: parses the options, runs the subcommand, and turns its outcome into an exit code.
//!
//! Each subcommand has a file of its own, and what they share is in files beside them. Results go to standard output,
//! everything else to standard error.

mod access;
mod address;
#[cfg(feature = "rustls")]
mod cert;
mod check;
mod completions;
mod consume;
mod count;
mod doctor;
mod exit;
mod interrupt;
mod load;
mod logger;
mod man;
mod options_file;
mod output;
mod ping;
mod seed;
mod send;
mod serve;
mod token;
mod usage;
mod words;

use std::env;

use clap::{CommandFactory, Parser, Subcommand};
use intake::net::unblock_signals;
use intake::units;

use exit::Exit;
use output::complain;

/// Receive files over TCP from many clients at once, and send them
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Consume(consume::Consume),
    Send(send::Send),
    Ping(ping::Ping),
    Load(load::Load),
    Doctor(doctor::Doctor),
    Token(token::Token),
    #[cfg(feature = "rustls")]
    Cert(cert::Cert),
    Check(check::Check),
    Man(man::Man),
    Completions(completions::Completions),
}

/// Runs the subcommand that was typed.
pub fn run() -> Exit {
    let all = match options_file::expand(&Cli::command(), env::args_os().collect()) {
        Ok(all) => all,
        Err(faults) => {
            complain(faults);
            return Exit::Usage;
        }
    };
    let command = Cli::parse_from(all).command;
    if let Err(error) = unblock_signals() {
        complain(format_args!("cannot unblock signals: {error}"));
    }
    match command {
        Command::Serve(serve) => serve.run(Cli::command()),
        Command::Consume(consume) => consume.run(),
        Command::Send(send) => send.run(),
        Command::Ping(ping) => ping.run(),
        Command::Load(load) => load.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Token(token) => token.run(),
        #[cfg(feature = "rustls")]
        Command::Cert(cert) => cert.run(),
        Command::Check(check) => check.run(&Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
        Command::Completions(completions) => completions.run(Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_lists_its_exit_codes() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Exit codes:"), "{}", command.get_name());
        }
    }
}

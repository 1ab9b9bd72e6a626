//! `intake doctor`: checks whether this host can run a number of clients, and prints what it lacks.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::thread;

use clap::Args;
use intake::load::run::{Requirement, requirements_with_server};
use intake::net::{inherited_descriptors, raise_descriptor_limit};
use intake::sandbox::{Mode, Sandbox};
use intake::server::config::{Durability, descriptors_for};

use super::count;
use super::exit::Exit;
use super::output::{Output, complain};

/// A server listens on one socket for TCP and one for UDP.
const SERVER_SOCKETS: u64 = 2;

/// Check whether this host can run a number of clients and a server for them
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  the host has enough of everything
  1  something falls short; its line says what to do; or the results could not be written
  2  usage error")]
pub struct Doctor {
    /// Clients at once
    #[arg(value_parser = count::some::<NonZeroUsize>, long, value_name = "N", default_value = "1000")]
    clients: NonZeroUsize,
}

impl Doctor {
    /// Prints the table.
    pub fn run(self) -> Exit {
        let inherited = inherited_descriptors();
        let descriptors = match raise_descriptor_limit() {
            Ok(descriptors) => descriptors,
            Err(error) => {
                complain(format_args!("cannot raise the descriptor limit: {error}"));
                return Exit::Failed;
            }
        };
        let clients = self.clients.get();
        // A server that is started from the same shell inherits the same descriptors.
        let of_server = inherited + descriptors_for(clients as u64, SERVER_SOCKETS, Durability::Full, false);
        let requirements = requirements_with_server(clients, of_server, descriptors);
        let mut output = Output::default();
        output.say(format_args!("{:26} {:>12} {:>20}", "for clients on this host", "needed", "there"));
        requirements.iter().for_each(|requirement| output.say(row(requirement)));
        sandbox().iter().for_each(|line| output.say(line));
        output.exit(if requirements.iter().all(Requirement::is_met) { Exit::Done } else { Exit::Failed })
    }
}

/// The parts of a server's sandbox that hold here, and those that do not. A server runs without them, so they are not
/// requirements.
fn sandbox() -> Vec<String> {
    let sandbox = Sandbox { mode: Mode::Auto, ..Sandbox::default() };
    // Only the thread that enters it is confined.
    let entered = thread::spawn(move || {
        let directory = File::open(".").map_err(|error| format!("cannot open this directory: {error}"))?;
        sandbox.enter(directory.as_fd())
    });
    match entered.join().expect("it does not panic") {
        Ok(confinement) => {
            let holds = format!("the sandbox of a server: {confinement}");
            let lacks = confinement.lacks().iter().map(|lack| format!("the sandbox of a server lacks a part. {lack}"));
            [holds].into_iter().chain(lacks).collect()
        }
        Err(words) => vec![format!("the sandbox of a server: {words}")],
    }
}

fn row(requirement: &Requirement) -> String {
    let Requirement { what, needs, has, remedy } = requirement;
    let verdict = if requirement.is_met() { "enough".into() } else { format!("short: {remedy}") };
    format!("{what:26} {needs:>12} {has:>20}  {verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_comes_with_its_remedy() {
        let enough = Requirement { what: "ports", needs: 5, has: 5, remedy: "add some".into() };
        assert!(row(&enough).ends_with("enough"));
        assert!(row(&Requirement { needs: 6, ..enough }).ends_with("short: add some"));
    }

    #[test]
    fn a_number_that_no_host_can_run_falls_short() {
        let doctor = |clients| Doctor { clients: NonZeroUsize::new(clients).unwrap() };
        assert_eq!(doctor(1).run(), Exit::Done);
        assert_eq!(doctor(1_000_000_000).run(), Exit::Failed);
    }
}

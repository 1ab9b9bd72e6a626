//! `intake check`: what is wrong with a file of options, before a server is started with it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Command};
use intake::server::check;

use super::exit::Exit;
use super::output::complain;
use super::serve::Serve;

/// Check a file of options for `serve --config`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  no fault was found
  1  something is wrong; each fault is told, with its line if it is in one line
  2  usage error

The certificates, keys and tokens that it names are read too. The directory and the sockets are not tried.")]
pub struct Check {
    /// The file
    file: PathBuf,
}

impl Check {
    /// Tells what is wrong. `cli` is the whole command line.
    pub fn run(self, cli: &Command) -> Exit {
        match self.check(cli) {
            Ok(()) => Exit::Done,
            Err(words) => {
                words.lines().for_each(complain);
                Exit::Failed
            }
        }
    }

    fn check(&self, cli: &Command) -> Result<(), String> {
        let typed = ["intake", "serve", "--config"].map(OsString::from).into_iter().chain([self.file.clone().into()]);
        let name = self.file.display().to_string();
        let of_file = |words: String| if words.contains(&name) { words } else { format!("{name}: {words}") };
        let serve = Serve::parse(cli, typed.collect()).map_err(of_file)?;
        check(&serve.config().map_err(of_file)?).map_err(of_file)
    }
}

//! `intake completions`: prints what a shell needs to complete this command line. It comes from the same definition as the
//! help.

use std::io::Write;

use clap::Args;
use clap_complete::{Shell, generate};

use super::exit::Exit;
use super::output::Output;

/// Print the completions of this program for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  the completions are printed
  1  they could not be written
  2  usage error

Examples:
  intake completions bash > ~/.local/share/bash-completion/completions/intake
  intake completions zsh > ~/.zfunc/_intake    (a directory of $fpath)
  intake completions fish > ~/.config/fish/completions/intake.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them. `command` is the whole command line.
    pub fn run(self, mut command: clap::Command) -> Exit {
        let mut script = Vec::new();
        generate(self.shell, &mut command, "intake", &mut script);
        let mut output = Output::default();
        output.write(|stdout| stdout.write_all(&script));
        output.exit(Exit::Done)
    }
}

//! Usage errors that clap's derived rules cannot express.

use std::fmt::Display;

use clap::error::ErrorKind;
use clap::{Args, Command};

use super::exit::Exit;

/// Reports a usage error of the subcommand whose options are `A`, as clap does.
pub fn usage_error<A: Args>(subcommand: &'static str, words: impl Display) -> Exit {
    let mut command = A::augment_args(Command::new(subcommand).bin_name(format!("intake {subcommand}")));
    let _ = command.error(ErrorKind::ArgumentConflict, words).print();
    Exit::Usage
}

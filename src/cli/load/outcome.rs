//! Prints the report of a load, and derives its exit code.

use std::fmt::Display;
use std::net::SocketAddr;

use intake::load::run::LoadError;
use intake::load::tell::{Condition, figures};
use serde_json::Value;

use super::options::Load;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, complain};

impl Load {
    /// Checks that every `--fail-if` names a figure of a report like this one.
    pub fn check_conditions(&self, report: &Value) -> Result<(), String> {
        let figures = figures(report);
        self.fail_if.iter().try_for_each(|condition| condition.find(&figures).map(|_| ()))
    }

    /// Prints the report as text or as JSON. The exit code of a `--fail-if` condition replaces that of a failed upload,
    /// but not that of a broken file.
    pub fn tell(&self, text: impl Display, report: &Value, exit: Exit) -> Exit {
        let mut output = Output::default();
        if self.json {
            output.say(report);
        } else {
            output.say(text);
        }
        let bad = self.bad_outcomes(report);
        bad.iter().for_each(complain);
        output.exit(if bad.is_empty() || exit == Exit::Broken { exit } else { Exit::BadOutcome })
    }

    /// A message for every `--fail-if` condition that is met or cannot be checked.
    fn bad_outcomes(&self, report: &Value) -> Vec<String> {
        let figures = figures(report);
        let bad = |condition: &Condition| match condition.is_true_of(condition.find(&figures).ok()?) {
            Some(true) => Some(format!("the condition {condition} is met")),
            Some(false) => None,
            None => Some(format!("the condition {condition} cannot be checked: there was nothing to measure")),
        };
        self.fail_if.iter().filter_map(bad).collect()
    }
}

/// Reports why a load could not run.
pub fn fail(target: SocketAddr, error: &LoadError) -> Exit {
    complain(format_args!("{target}: {error}"));
    match error {
        LoadError::Shortage(_) => Exit::Usage,
        LoadError::Unreachable(_) => Exit::Unreachable,
        LoadError::EventLoop(_) => Exit::Failed,
    }
}

//! `intake load`: runs a load, compares what was stored, and prints the report.

mod earlier;
mod live;
mod options;
mod outcome;
mod typed;
mod udp;

use std::net::SocketAddr;
use std::path::Path;

use intake::load::judge::{Expected, Verdict, Verification, await_quiet, presumed, verdict, verify};
use intake::load::plan::{Plan, Workload};
use intake::load::run::{Finished, LoadError, send_files};
use intake::load::tell::{Report, Run, json_of, json_of_verification};

use self::live::View;
pub use self::options::Load;
use self::outcome::fail;
use crate::cli::access::Connect;
use crate::cli::exit::Exit;
use crate::cli::interrupt::stop_on_interrupt;
use crate::cli::output::complain;
use crate::cli::usage::usage_error;

impl Load {
    /// Sends, verifies and reports.
    pub fn run(self) -> Exit {
        if let Some(directory) = self.verify.iter().chain(&self.verify_only).find(|path| !path.is_dir()) {
            return usage_error::<Self>("load", format_args!("{directory:?} is not a directory"));
        }
        if !self.merge.is_empty() || !self.compare.is_empty() {
            return self.tell_earlier();
        }
        let connect = match self.connect() {
            Ok(connect) => connect,
            Err(words) => return usage_error::<Self>("load", words),
        };
        if let Some(directory) = &self.verify_only {
            return self.only_verify(&self.workload(), directory);
        }
        match self.address.resolve() {
            Ok(found) if self.udp => match udp::plan(&self, found[0]) {
                Ok(plan) => udp::send(&plan, &found, &stop_on_interrupt(), &self),
                Err(words) => usage_error::<Self>("load", words),
            },
            Ok(found) => match connect.check_token(&found) {
                Ok(()) => self.send(&found, &connect),
                Err(words) => usage_error::<Self>("load", words),
            },
            Err(words) => {
                complain(words);
                Exit::Unreachable
            }
        }
    }

    /// Puts the first of `targets` that accepts a connection under load.
    fn send(&self, targets: &[SocketAddr], connect: &Connect) -> Exit {
        let plans: Vec<Plan> = targets.iter().map(|target| self.plan(*target, connect)).collect();
        let verification = self.verify.as_ref().map(|_| Verification::default());
        let nothing = Report { plan: &plans[0], finished: &Finished::default(), verification: verification.as_ref() };
        if let Err(words) = self.check_conditions(&json_of(&nothing)) {
            return usage_error::<Self>("load", words);
        }
        let stop = stop_on_interrupt();
        let mut refused = Vec::new();
        for plan in &plans {
            let mut view = View::new();
            let finished = send_files(plan, &stop, &mut |live| view.tell(live));
            view.end();
            match finished {
                Ok(finished) => return self.conclude(plan, &finished),
                Err(LoadError::Unreachable(reason)) => refused.push(format!("{}: {reason}", plan.target)),
                Err(error) => return fail(plan.target, &error),
            }
        }
        refused.iter().for_each(complain);
        Exit::Unreachable
    }

    fn conclude(&self, plan: &Plan, finished: &Finished) -> Exit {
        let compared = self.verify.as_ref().map(|directory| {
            // If the directory cannot be read, the comparison reports it.
            let _ = await_quiet(directory);
            compare(&plan.workload, &finished.tally.expected, directory)
        });
        let verification = match compared.transpose() {
            Ok(verification) => verification,
            Err(exit) => return exit,
        };
        let report = Report { plan, finished, verification: verification.as_ref() };
        let json = json_of(&report);
        let exit = self.tell(&report, &json, exit_of(&report));
        self.write_page(&[Run { name: plan.target.to_string(), report: json }], exit)
    }

    fn only_verify(&self, workload: &Workload, directory: &Path) -> Exit {
        let files = 0..self.files.unwrap_or_default();
        let expected: Vec<Expected> = files.map(|number| presumed(&workload.file(number), self.dialect())).collect();
        match compare(workload, &expected, directory) {
            Err(exit) => exit,
            Ok(found) => {
                let exit = if found.is_clean() { Exit::Done } else { Exit::Broken };
                self.tell(&found, &json_of_verification(&found), exit)
            }
        }
    }
}

fn compare(workload: &Workload, expected: &[Expected], directory: &Path) -> Result<Verification, Exit> {
    verify(workload, expected, directory).map_err(|error| {
        complain(format_args!("cannot verify {directory:?}: {error}"));
        Exit::Failed
    })
}

fn exit_of(report: &Report<'_>) -> Exit {
    match verdict(&report.finished.tally, report.verification) {
        Verdict::Broken => Exit::Broken,
        Verdict::Failed => Exit::Failed,
        Verdict::Clean if report.finished.interrupted => Exit::Interrupted,
        Verdict::Clean => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn a_file_cannot_be_verified_as_a_directory() {
        let mut command = Load::augment_args(clap::Command::new("load").no_binary_name(true));
        let typed = command.try_get_matches_from_mut(["--verify", "/dev/null"]).unwrap();
        assert_eq!(Load::from_arg_matches(&typed).unwrap().run(), Exit::Usage);
    }
}

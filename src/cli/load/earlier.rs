//! `intake load --merge` and `--compare`: reports of earlier runs. And the page of `--html`, for any reports.

use std::fs;
use std::path::PathBuf;

use intake::load::tell::{Run, merge, page, table};

use super::options::Load;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, complain};

impl Load {
    /// Tells what earlier runs have reported.
    pub fn tell_earlier(&self) -> Exit {
        self.earlier().unwrap_or_else(|words| {
            complain(words);
            Exit::Failed
        })
    }

    fn earlier(&self) -> Result<Exit, String> {
        if self.merge.is_empty() {
            let runs = read(&self.compare)?;
            let mut output = Output::default();
            output.say(table(&runs).trim_end());
            return Ok(self.write_page(&runs, output.exit(Exit::Done)));
        }
        let report = merge(&read(&self.merge)?)?;
        self.check_conditions(&report)?;
        let merged = Run { name: format!("{} testers", self.merge.len()), report };
        let runs = [merged];
        let exit = self.tell(table(&runs).trim_end(), &runs[0].report, Exit::Done);
        Ok(self.write_page(&runs, exit))
    }

    /// Writes the page of `--html`, if it was asked for. Returns the exit code of a run that would end with `exit`.
    pub fn write_page(&self, runs: &[Run], exit: Exit) -> Exit {
        let Some(file) = &self.html else { return exit };
        let written = page(runs).and_then(|html| {
            fs::write(file, html).map_err(|error| format!("the page cannot be written to {}: {error}", file.display()))
        });
        match written {
            Ok(()) => exit,
            Err(words) => {
                complain(words);
                if exit == Exit::Done { Exit::Failed } else { exit }
            }
        }
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<Run>, String> {
    let read = |file: &PathBuf| {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
        Run::parse(&name, &text)
    };
    files.iter().map(read).collect()
}

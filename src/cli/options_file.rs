//! The file of `serve --config`: the options of the command line, one a line.
//!
//! ```text
//! # Where to listen.
//! listen 0.0.0.0:9000
//! max-file-size 4G        # the value may be in "quotes"
//! require-size
//! ```
//!
//! There is no second list of options: each line becomes an argument, and the parser of the command line judges it. What is on
//! the command line itself wins over the file.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// Options that have no sense in a file.
const NEVER: [&str; 2] = ["config", "help"];

/// What is wrong with a file, each with its line.
#[derive(Debug)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// An option in a file.
struct Line {
    /// The id of the option in the definition of the command line.
    id: String,
    /// As it would be on the command line.
    argument: OsString,
}

/// The arguments `typed`, and behind the name of the subcommand those of the file that they name with `--config`. `cli` is the
/// whole command line.
///
/// # Errors
/// The file cannot be read, or lines of it are wrong.
pub fn expand(cli: &Command, typed: Vec<OsString>) -> Result<Vec<OsString>, Faults> {
    // Most command lines name no file, and need not be parsed twice.
    if !typed.iter().any(|argument| argument.as_bytes().starts_with(b"--config")) {
        return Ok(typed);
    }
    // What is wrong on the command line is told when it is parsed.
    let lenient = cli.clone().ignore_errors(true);
    let Ok(matches) = lenient.try_get_matches_from(&typed) else { return Ok(typed) };
    let Some(("serve", given)) = matches.subcommand() else { return Ok(typed) };
    let Some(file) = given.get_one::<PathBuf>("config") else { return Ok(typed) };
    let serve = cli.find_subcommand("serve").expect("there is this subcommand");
    let lines = read(file, serve)?;
    let from_file = lines.into_iter().filter(|line| !is_overruled(&line.id, serve, given)).map(|line| line.argument);
    let at = typed.iter().position(|argument| argument == "serve").map_or(typed.len(), |at| at + 1);
    Ok(typed[..at].iter().cloned().chain(from_file).chain(typed[at..].iter().cloned()).collect())
}

/// Whether the command line has the option itself, or one that cannot be used with it.
fn is_overruled(id: &str, serve: &Command, given: &ArgMatches) -> bool {
    let is_given = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
    let option = serve.get_arguments().find(|option| option.get_id() == id).expect("its line was understood");
    let rivals = serve.get_arg_conflicts_with(option);
    is_given(id) || rivals.iter().any(|rival| is_given(rival.get_id().as_str()))
}

fn read(file: &Path, serve: &Command) -> Result<Vec<Line>, Faults> {
    let text = read_text(file)
        .map_err(|error| Faults(vec![format!("cannot read the options in {}: {error}", file.display())]))?;
    let mut lines = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match parse(line, serve) {
            Ok(parsed) => lines.extend(parsed),
            Err(words) => faults.push(format!("{}:{}: {words}", file.display(), number + 1)),
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(Faults(faults)) }
}

/// A pipe or a device would never end.
fn read_text(file: &Path) -> io::Result<String> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    fs::read_to_string(file)
}

/// `None`: the line is empty or a comment.
fn parse(line: &str, serve: &Command) -> Result<Option<Line>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let name = name.strip_prefix("--").unwrap_or(name);
    let value = value(rest.trim_start())?;
    if let Some((name, value)) = name.split_once('=') {
        return Err(format!("a space stands between an option and its value: {name} {value}"));
    }
    if NEVER.contains(&name) {
        return Err(format!("{name} has no sense in a file"));
    }
    let argument: OsString = match &value {
        Some(value) => format!("--{name}={value}"),
        None => format!("--{name}"),
    }
    .into();
    judge(&argument, serve)?;
    let option = serve.get_arguments().find(|option| option.get_long() == Some(name));
    let id = option.expect("it was understood").get_id().to_string();
    Ok(Some(Line { id, argument }))
}

/// The value in the rest of a line. A comment may follow it.
fn value(rest: &str) -> Result<Option<String>, String> {
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(" #").or_else(|| rest.find("\t#")).unwrap_or(rest.len());
        let end = if rest.starts_with('#') { 0 } else { end };
        let value = rest[..end].trim_end();
        if value.starts_with('\'') || value.contains('"') {
            return Err("a value may stand in double quotes, all of it: \"a b\"".into());
        }
        return Ok((!value.is_empty()).then(|| value.into()));
    };
    let mut value = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next() {
            Some('"') => break,
            Some('\\') => value.extend(rest.next()),
            Some(next) => value.push(next),
            None => return Err("the second quotation mark is missing".into()),
        }
    }
    let behind = rest.as_str().trim_start();
    if !behind.is_empty() && !behind.starts_with('#') {
        return Err(format!("nothing may follow the value: {behind}"));
    }
    Ok(Some(value))
}

/// Whether the parser of the command line takes the argument, apart from other options that it needs.
fn judge(argument: &OsString, serve: &Command) -> Result<(), String> {
    use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument};
    match serve.clone().no_binary_name(true).try_get_matches_from([argument]) {
        Err(error) if !matches!(error.kind(), MissingRequiredArgument | ArgumentConflict) => Err(in_a_line(&error)),
        _ => Ok(()),
    }
}

/// The words of clap, without those about the usage.
pub fn in_a_line(error: &clap::Error) -> String {
    let words = error.to_string();
    let words = words.split("\n\nUsage:").next().unwrap_or_default();
    let words = words.split("\n\nFor more information").next().unwrap_or_default();
    let lines = words.lines().map(str::trim).filter(|line| !line.is_empty());
    let words = lines.collect::<Vec<_>>().join(" ");
    words.strip_prefix("error: ").unwrap_or(&words).into()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    fn faults(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        let serve = Cli::command().find_subcommand("serve").unwrap().clone();
        let words = read(file.path(), &serve).map_err(|faults| faults.to_string()).err().unwrap_or_default();
        words.replace(&format!("{}:", file.path().display()), "")
    }

    /// The arguments after `intake serve`.
    fn expanded(text: &str, typed: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        let typed = format!("intake serve --config {} {typed}", file.path().display());
        let all = expand(&Cli::command(), typed.split_whitespace().map(OsString::from).collect()).unwrap();
        Cli::command().try_get_matches_from(&all).unwrap();
        all[2..]
            .iter()
            .map(|argument| argument.to_str().unwrap().to_owned())
            .filter(|word| word.contains('='))
            .collect()
    }

    #[test]
    fn a_line_is_an_option_and_its_value() {
        let text =
            "# all\n\n  max-file-size 4G   # a comment\n--idle-timeout\t10s\nrequire-size # none\nhttp-host \"a\"\n";
        assert_eq!(expanded(text, ""), ["--max-file-size=4G", "--idle-timeout=10s", "--http-host=a"]);
        assert_eq!(value("\"a \\\"b\\\" \\\\ # c\" # d"), Ok(Some("a \"b\" \\ # c".into())));
        assert_eq!(value("a#b"), Ok(Some("a#b".into())));
        assert!(["'a'", "a\"b\""].iter().all(|typed| value(typed).is_err()));
    }

    #[test]
    fn the_command_line_wins() {
        let text = "listen 127.0.0.1:1\nlisten 127.0.0.1:2\nmax-file-size 4G\nquiet";
        assert_eq!(expanded(text, "-l 127.0.0.1:3 --verbose"), ["--max-file-size=4G"]);
        assert_eq!(expanded(text, ""), ["--listen=127.0.0.1:1", "--listen=127.0.0.1:2", "--max-file-size=4G"]);
    }

    #[test]
    fn each_fault_is_told_with_its_line() {
        let words = faults(
            "max-fil-size 4G\nmax-file-size 4X\n\nrequire-size yes\nmax-file-size\nmin-free=3M\nhttp-host \"a\nconfig b\n\
             http-host \"a\" b\n",
        );
        let expected = [
            "1: unexpected argument '--max-fil-size' found",
            "2: invalid value '4X' for '--max-file-size <SIZE|off>'",
            "4: unexpected value 'yes' for '--require-size' found",
            "5: a value is required for '--max-file-size <SIZE|off>'",
            "6: a space stands between an option and its value: min-free 3M",
            "7: the second quotation mark is missing",
            "8: config has no sense in a file",
            "9: nothing may follow the value: b",
        ];
        let lines: Vec<_> = words.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{words}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}: {expected}");
        }
        assert!(lines[0].contains("--max-file-size"), "a similar option is named: {}", lines[0]);
    }

    /// Options that need one another may stand in any order.
    #[test]
    fn a_file_without_faults_is_accepted() {
        assert_eq!(faults("tls-key k\ntls-cert c\nquiet\nallow 192.0.2.0/24\nallow ::1\n"), "");
    }

    #[test]
    fn without_a_file_nothing_changes() {
        for typed in ["intake", "intake serve --quiet", "intake serve --nonsense", "intake send --to a:1 b"] {
            let typed: Vec<OsString> = typed.split_whitespace().map(OsString::from).collect();
            assert_eq!(expand(&Cli::command(), typed.clone()).unwrap(), typed);
        }
        assert!(Cli::try_parse_from(["intake", "serve"]).is_ok());
    }
}

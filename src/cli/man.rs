//! `intake man`: the manual pages. They come from the same definition as the help, so they cannot differ from it.
//!
//! A manual page has sections that no help has, such as files and signals: those are in [`EXTRA`]. The protocol has a page of
//! its own, `intake.7`, beside this file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::roff::{Roff, bold, roman};

use super::exit::Exit;
use super::output::{Output, complain};

/// Write the manual pages into a directory, or print the one of the program
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  the pages are written
  1  a page could not be written
  2  usage error

Examples:
  intake man | man -l -
  intake man ~/.local/share/man")]
pub struct Man {
    /// Directory for the pages, which go to man1 and man7 in it
    dir: Option<PathBuf>,
}

/// The page of the protocol.
const PROTOCOL: &str = include_str!("intake.7");

/// What the page of a command has beyond its help: the command, the heading, and the text. An indented line is shown as it
/// is, an empty one ends a paragraph.
const EXTRA: &[(&str, &str, &str)] = &[
    (
        "intake-serve",
        "FILES",
        "\
Each uploaded file is in the directory of --dir, under its own name, once it is whole. The hidden directory .intake in there
belongs to the server: it holds uploads that can be resumed, and what servers on the directory need to know of each other.
Nothing in it needs a backup, and it may be removed while no server runs.",
    ),
    (
        "intake-serve",
        "EXAMPLES",
        "\
Take files from this machine only, into ./inbox:

    intake serve

Take files from a network, with TLS and tokens:

    intake cert drop.example
    intake token alice | tee /dev/tty | tail -n 1 >> tokens
    intake serve --listen 0.0.0.0:9000 --http-host drop.example --dir /srv/inbox \\
        --tls-cert intake.crt --tls-key intake.key --token-file tokens",
    ),
    (
        "intake-send",
        "EXAMPLES",
        "\
Send a file, and what a program writes:

    intake send --to 127.0.0.1:9000 crash.log
    tar c photos | intake send --to 127.0.0.1:9000 --name photos.tar -",
    ),
    (
        "intake-load",
        "EXAMPLES",
        "\
Upload 10,000 files with 100 clients, and measure the echo:

    intake load 127.0.0.1:9000 --clients 100 --files 10000 --size 4k
    intake load 127.0.0.1:9000 --udp --duration 10s",
    ),
];

/// The lists in a help, and what their section is called in a manual page.
const LISTS: &[(&str, &str)] = &[("Exit codes:\n", "EXIT STATUS"), ("Signals:\n", "SIGNALS")];

impl Man {
    /// Writes the pages of `command`, which is the whole command line.
    pub fn run(self, command: Command) -> Exit {
        // A page has what the long help has.
        let unhide = |command: Command| command.mut_args(|arg| arg.hide_short_help(false));
        let mut command = command.disable_help_subcommand(true).mut_subcommands(unhide);
        command.build();
        let names: Vec<String> = command.get_subcommands().map(name).collect();
        let Some(dir) = self.dir else {
            let mut output = Output::default();
            output.write(|stdout| write_page(stdout, &command, &names));
            return output.exit(Exit::Done);
        };
        match write_all(&dir, &command, &names) {
            Ok(()) => Exit::Done,
            Err(error) => {
                complain(format_args!("the manual pages cannot be written to {}: {error}", dir.display()));
                Exit::Failed
            }
        }
    }
}

fn write_all(dir: &Path, command: &Command, names: &[String]) -> io::Result<()> {
    let (commands, protocol) = (dir.join("man1"), dir.join("man7"));
    fs::create_dir_all(&commands)?;
    fs::create_dir_all(&protocol)?;
    for command in command.get_subcommands().chain([command]) {
        let mut page = Vec::new();
        write_page(&mut page, command, names)?;
        fs::write(commands.join(name(command) + ".1"), page)?;
    }
    fs::write(protocol.join("intake.7"), PROTOCOL)
}

/// `intake-serve`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).into()
}

/// Writes the page of `command`, which names the pages of `others`.
fn write_page(out: &mut dyn Write, command: &Command, others: &[String]) -> io::Result<()> {
    let name = name(command);
    let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command.clone()).source(format!("intake {version}")).manual("intake");
    man.render_title(out)?;
    man.render_name_section(out)?;
    synopsis(command).to_writer(out)?;
    man.render_description_section(out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    man.render_options_section(out)?;
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    after_help(&help).to_writer(out)?;
    for (_, heading, text) in EXTRA.iter().filter(|(of, ..)| *of == name) {
        let mut roff = Roff::new();
        roff.control("SH", [*heading]);
        add_text(&mut roff, text);
        roff.to_writer(out)?;
    }
    see_also(&name, others).to_writer(out)
}

fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for line in usage.lines() {
        roff.text([bold(line.trim())]);
        roff.control("br", []);
    }
    roff
}

/// The text behind the options. A paragraph that begins with a word of [`LISTS`] is a list.
fn after_help(help: &str) -> Roff {
    let mut roff = Roff::new();
    let mut notes = String::new();
    for paragraph in help.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let list = LISTS.iter().find_map(|(word, heading)| Some((heading, paragraph.strip_prefix(word)?)));
        let Some((heading, lines)) = list else {
            notes.extend([paragraph, "\n\n"]);
            continue;
        };
        roff.control("SH", [*heading]);
        for line in lines.lines() {
            let (item, meaning) = line.trim().split_once("  ").unwrap_or((line, ""));
            roff.control("TP", []);
            roff.text([bold(item)]);
            roff.text([roman(meaning.trim())]);
        }
    }
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
        add_text(&mut roff, notes.trim_end());
    }
    roff
}

fn add_text(roff: &mut Roff, text: &str) {
    let mut is_shown_as_is = false;
    for line in text.lines() {
        let is_indented = line.starts_with(' ');
        match (is_shown_as_is, is_indented) {
            (false, true) => _ = roff.control("PP", []).control("RS", ["4"]).control("nf", []),
            (true, false) => _ = roff.control("fi", []).control("RE", []).control("PP", []),
            _ => {}
        }
        is_shown_as_is = is_indented;
        match line.trim() {
            "" => _ = roff.control("PP", []),
            line => _ = roff.text([roman(line)]),
        }
    }
    if is_shown_as_is {
        roff.control("fi", []).control("RE", []);
    }
}

fn see_also(name: &str, others: &[String]) -> Roff {
    let pages = others.iter().map(String::as_str).chain(["intake"]).filter(|other| *other != name);
    let pages = pages.map(|page| format!("{page}(1)")).chain(["intake(7)".into()]);
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.collect::<Vec<_>>().join(", "))]);
    roff
}

//! The manual pages and the completions: they are whole, and the programs that read them understand them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::tools;

fn intake(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_intake")).args(args).output().expect("intake can be started");
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

fn help(args: &[&str]) -> String {
    String::from_utf8(intake(args).stdout).expect("help is text")
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = help(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").expect("the help lists commands");
    let names = list.lines().map_while(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

/// The long options in a help or a page.
fn options(text: &str) -> Vec<&str> {
    let words = text.split(|next: char| !(next.is_ascii_alphanumeric() || next == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

fn pages() -> (TempDir, Vec<PathBuf>) {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    intake(&["man", home.path().to_str().unwrap()]);
    let files = |section: &str| fs::read_dir(home.path().join(section)).unwrap().map(|entry| entry.unwrap().path());
    let all = files("man1").chain(files("man7")).collect();
    (home, all)
}

/// As man(1) shows it, in lines that are long enough for everything.
fn shown(page: &Path) -> Option<Output> {
    tools::installed("man")?;
    tools::installed("groff")?;
    let mut man = Command::new("man");
    man.args(["--warnings", "--local-file"]).arg(page);
    Some(man.env("MANWIDTH", "500").env("LC_ALL", "C.UTF-8").output().expect("man can be started"))
}

#[test]
fn each_command_has_a_page_and_man_has_nothing_against_it() {
    let (home, pages) = pages();
    let expected = commands().into_iter().map(|command| home.path().join(format!("man1/intake-{command}.1")));
    let mut expected: Vec<_> = expected.collect();
    expected.extend([home.path().join("man1/intake.1"), home.path().join("man7/intake.7")]);
    let mut found = pages.clone();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for page in &pages {
        let Some(shown) = shown(page) else { return };
        assert!(shown.status.success() && shown.stderr.is_empty(), "{page:?}: {shown:?}");
    }
}

#[test]
fn a_page_has_each_option_with_its_help_and_each_exit_code() {
    let (home, _) = pages();
    for command in commands() {
        let Some(shown) = shown(&home.path().join(format!("man1/intake-{command}.1"))) else { return };
        let page = String::from_utf8(shown.stdout).unwrap();
        let help = help(&[&command, "--help"]);
        let (help, exit_codes) = help.split_once("Exit codes:\n").expect("the help lists exit codes");
        let listed = options(&page);
        for option in options(help) {
            assert!(listed.contains(&option), "{option} is not in the page of {command}:\n{page}");
        }
        let lines: Vec<_> = page.lines().collect();
        let is_item = |line: &str| line.trim_start().starts_with('-');
        for pair in lines.windows(2).filter(|pair| is_item(pair[0]) && pair[0].starts_with("       -")) {
            // Behind a short option the help begins on the same line.
            let is_told = pair[0].split_whitespace().count() > 3 || !pair[1].trim().is_empty() && !is_item(pair[1]);
            assert!(is_told, "{command}: {} has no help", pair[0]);
        }
        let (_, status) = page.split_once("EXIT STATUS").expect("the page lists exit codes");
        for line in exit_codes.lines().map_while(|line| line.strip_prefix("  ")) {
            let (code, _) = line.split_once(' ').expect("a code has a meaning");
            assert!(status.contains(&format!("       {code} ")), "{command}: {code} is missing: {status}");
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let Some(bash) = tools::installed("bash") else { return };
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("intake");
    fs::write(&script, intake(&["completions", "bash"]).stdout).unwrap();
    let complete = |words: &str| {
        let line = format!(
            "source {}; COMP_WORDS=(intake {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _intake intake \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo ${{COMPREPLY[@]}}",
            script.display()
        );
        let output = Command::new(&bash).args(["-c", &line]).output().expect("bash can be started");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("ser"), "serve");
    assert_eq!(complete("serve --shut"), "--shutdown-timeout");
    assert_eq!(complete("serve --on-exists re"), "refuse rename replace");
}

#[test]
fn every_shell_gets_each_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(intake(&["completions", shell]).stdout).unwrap();
        for command in commands() {
            assert!(script.contains(&command), "{shell} does not complete {command}");
        }
    }
}

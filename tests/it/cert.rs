//! `intake cert`: what it writes, what it prints, and what it never overwrites.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::tools;

/// Runs `intake cert ARGS` in `directory`.
fn cert(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_intake"));
    command.arg("cert").args(args).current_dir(directory).output().expect("intake can be started")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

#[test]
fn a_pair_is_written_and_its_use_is_told() {
    let home = home();
    let output = cert(home.path(), &["drop.example", "192.0.2.7", "--days", "30"]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let mode = |name: &str| fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("intake.crt") & 0o444, mode("intake.key")), (0o444, 0o600));
    let words = printed(&output);
    let fingerprint = words.split("sha256:").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(fingerprint.len(), 64, "{words}");
    for line in [
        "intake.crt: for drop.example, 192.0.2.7; until ".to_owned(),
        "intake serve --tls-cert intake.crt --tls-key intake.key".to_owned(),
        format!("--tls-pin sha256:{fingerprint}"),
    ] {
        assert!(words.contains(&line), "{line}: {words}");
    }
    if tools::installed("openssl").is_none() {
        return;
    }
    let options = ["x509", "-in", "intake.crt", "-noout", "-fingerprint", "-sha256", "-ext", "subjectAltName"];
    let read = Command::new("openssl").args(options).current_dir(home.path()).output().unwrap();
    let read = printed(&read);
    assert!(read.to_lowercase().replace(':', "").contains(fingerprint), "{read}");
    assert!(read.contains("DNS:drop.example, IP Address:192.0.2.7"), "{read}");
}

#[test]
fn an_earlier_pair_is_replaced_only_on_demand() {
    let home = home();
    assert!(cert(home.path(), &[]).status.success());
    let read = || ["intake.crt", "intake.key"].map(|name| fs::read(home.path().join(name)).unwrap());
    let before = read();
    let refused = cert(home.path(), &["--out", "."]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(printed(&refused).contains("\"intake.crt\" is there already"), "{}", printed(&refused));
    assert!(read() == before);
    assert!(cert(home.path(), &["--force"]).status.success());
    let after = read();
    assert!(after[0] != before[0] && after[1] != before[1]);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "no temporary file is left");
    fs::remove_file(home.path().join("intake.crt")).unwrap();
    assert_eq!(cert(home.path(), &[]).status.code(), Some(1), "a key alone is not overwritten either");
}

#[test]
fn what_cannot_be_done_is_said() {
    let home = home();
    for (args, words) in [
        (&["--out", "missing"][..], "\"missing/intake.key\""),
        (&["drop.example:9000"], "leave the port out"),
        (&["--days", "0"], "--days"),
    ] {
        let output = cert(home.path(), args);
        assert!(!output.status.success() && printed(&output).contains(words), "{}", printed(&output));
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

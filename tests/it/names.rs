//! Valid and invalid names of files, and names that are taken.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::fixture::*;
use crate::tools::leave_out;

const POLICIES: [&str; 3] = ["refuse", "rename", "replace"];

/// Uploads under `name` in both dialects, and checks that each is refused with this code.
fn assert_refused(server: &Server, code: u16, name: &[u8]) {
    let (shown, start) = (name.escape_ascii(), format!("no {code} "));
    let error = classic(server.tcp(), name, b"content").expect_err("a classic upload is refused");
    assert!(error.to_string().starts_with(&start), "{shown}: {error}");
    let reply = line(server.tcp(), name, b"content").expect("a refusal is said");
    assert!(reply.starts_with(&start) && reply.ends_with('\n'), "{shown}: {reply}");
}

#[test]
fn bad_names_are_refused_and_lead_nowhere() {
    let server = Server::start(&[]);
    let names: [&[u8]; 21] = [
        b"../x",
        b"a/../b",
        b"a/b",
        b".",
        b"..",
        b"..\\x",
        b"C:\\x",
        b"\\\\srv\\x",
        b"nul\0inside",
        b"invalid \xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"right\xe2\x80\xaeto left",
        b"zero\xe2\x80\x8bwidth",
        b"\xef\xbb\xbfmarked",
        b"bell\x07",
        b".hidden",
        b".intake",
        b"-rf",
        b" space",
        b"space ",
    ];
    server.withstands(|| {
        names.iter().for_each(|name| assert_refused(&server, 403, name));
        assert_refused(&server, 400, b"/etc/x");
        assert!(line(server.tcp(), "", b"content").expect("a refusal is said").starts_with("no 403 "));
        Files::new()
    });
}

#[test]
fn names_that_windows_cannot_store_are_refused_with_portable_names() {
    let names = ["CON", "nul.txt", "COM1", "LPT¹", "a.", "C:x", "a:b", "what?"];
    let server = Server::start(&["--portable-names"]);
    server.withstands(|| {
        names.iter().for_each(|name| assert_refused(&server, 403, name.as_bytes()));
        Files::new()
    });
    let server = Server::start(&[]);
    server.withstands(|| {
        names.iter().for_each(|name| classic(server.tcp(), name, b"content").expect("the upload is accepted"));
        names.into_iter().map(|name| (name.to_owned(), b"content".to_vec())).collect()
    });
}

#[test]
fn the_longest_names_are_accepted_and_longer_ones_refused_at_the_first_byte_too_many() {
    let server = Server::start(&[]);
    server.withstands(|| {
        assert_refused(&server, 403, &[b'n'; 256]);
        assert_refused(&server, 403, &[b'n'; 1 << 20]);
        let names = ["n".repeat(255), "語".repeat(85)];
        names.iter().for_each(|name| classic(server.tcp(), name, b"content").expect("the upload is accepted"));
        names.into_iter().map(|name| (name, b"content".to_vec())).collect()
    });
}

#[test]
fn uploads_of_one_name_at_once_are_as_many_files() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let bytes = |sender| content(100_000, sender);
        let upload = |sender| classic(server.tcp(), "same.bin", &bytes(sender)).expect("the upload is accepted");
        thread::scope(|scope| (0..20).for_each(|sender| drop(scope.spawn(move || upload(sender)))));
        let mut stored = server.files();
        stored.retain(|name, _| name.starts_with("same.bin"));
        assert!(stored.contains_key("same.bin") && stored.contains_key("same.bin.19"));
        assert!((0..20).all(|sender| stored.values().any(|stored| *stored == bytes(sender))), "none is lost or mixed");
        stored
    });
}

#[test]
fn of_two_clients_with_one_name_each_stores_all_or_nothing() {
    const ROUNDS: u64 = 200;
    for policy in POLICIES {
        // No syncs, so that the rounds are short.
        let server = Server::start(&["--on-exists", policy, "--sync", "none"]);
        server.withstands(|| {
            let upload = |round: u64, client: u64| {
                classic(server.tcp(), format!("{round}.bin"), &content(3000, 2 * round + client)).is_ok()
            };
            let at_once = |round: u64| {
                thread::scope(|scope| {
                    let second = scope.spawn(move || upload(round, 1));
                    [upload(round, 0), second.join().expect("no client panics")]
                })
            };
            let told: Vec<[bool; 2]> = (0..ROUNDS).map(at_once).collect();
            let mut stored = server.files();
            stored.retain(|name, _| !name.starts_with("honest"));
            (0..).zip(told).for_each(|(round, told)| assert_each_is_one_upload(&stored, policy, round, told));
            stored
        });
    }
}

/// `told`: whether each of the two clients got a receipt.
fn assert_each_is_one_upload(stored: &Files, policy: &str, round: u64, told: [bool; 2]) {
    let sent = [content(3000, 2 * round), content(3000, 2 * round + 1)];
    let by = |name: String| Some(sent.iter().position(|sent| *sent == stored[&name]).expect("a file is not mixed"));
    let first = by(format!("{round}.bin"));
    let second = Some(format!("{round}.bin.1")).filter(|name| stored.contains_key(name)).and_then(by);
    match policy {
        "refuse" => assert_eq!((told, second), ([first == Some(0), first == Some(1)], None)),
        "rename" => assert!(told == [true; 2] && second.is_some_and(|second| Some(second) != first)),
        _ => assert_eq!((told, second), ([true; 2], None)),
    }
}

/// Creates one kind of file at a path. A link leads to the victim.
struct Obstacle {
    kind: &'static str,
    plant: fn(&Path, &Path) -> std::io::Result<()>,
}

impl Obstacle {
    /// Creates it with its kind as the name, which is returned. `None`: this user may not.
    fn plant_in(&self, directory: &Path, victim: &Path) -> Option<&'static str> {
        match (self.plant)(&directory.join(self.kind), victim) {
            Err(error) if self.kind == "device" => {
                leave_out(&format!("this user cannot make a device: {error}"));
                None
            }
            planted => Some(planted.map(|()| self.kind).expect("it can be planted")),
        }
    }
}

const OBSTACLES: [Obstacle; 8] = [
    Obstacle { kind: "file", plant: |path, _| fs::write(path, "old") },
    Obstacle { kind: "hard link", plant: |path, victim| fs::hard_link(victim, path) },
    Obstacle { kind: "directory", plant: |path, _| fs::create_dir(path) },
    Obstacle { kind: "link", plant: |path, victim| symlink(victim, path) },
    Obstacle { kind: "dangling link", plant: |path, _| symlink("nowhere", path) },
    Obstacle { kind: "pipe", plant: |path, _| Ok(mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0)?) },
    Obstacle { kind: "socket", plant: |path, _| UnixListener::bind(path).map(drop) },
    Obstacle {
        kind: "device",
        plant: |path, _| Ok(mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, makedev(1, 3))?),
    },
];

/// The identity, the kind and the time of the last change of a file: no upload may change them.
fn identity(path: &Path) -> (u64, u32, u64, i64, i64) {
    let meta = fs::symlink_metadata(path).expect("the file still exists");
    (meta.ino(), meta.mode(), meta.size(), meta.mtime(), meta.mtime_nsec())
}

/// A file beside the inbox that links lead to.
fn victim(home: &Path) -> PathBuf {
    let victim = home.join("victim");
    fs::write(&victim, "precious").expect("a file can be written");
    victim
}

#[test]
fn a_file_that_has_the_name_is_kept_or_replaced_as_the_policy_says() {
    for policy in POLICIES {
        let home = Server::home();
        let victim = victim(home.path());
        let server = Server::start_in(&home, &["--on-exists", policy]);
        let planted: Vec<&str> =
            OBSTACLES.iter().filter_map(|obstacle| obstacle.plant_in(&server.dir(), &victim)).collect();
        let precious = identity(&victim);
        server.withstands(|| planted.into_iter().flat_map(|kind| upload_over(&server, kind, policy)).collect());
        assert_eq!((identity(&victim), fs::read_to_string(&victim).expect("text")), (precious, "precious".to_owned()));
    }
}

/// Uploads in both dialects under a name that a file of this kind has, and returns the files that must then be stored.
fn upload_over(server: &Server, kind: &'static str, policy: &str) -> Files {
    let path = server.dir().join(kind);
    let before = identity(&path);
    let told =
        [classic(server.tcp(), kind, b"classic").map(|()| "done 7".to_owned()), line(server.tcp(), kind, b"line")];
    let told = told.map(|told| told.unwrap_or_else(|error| error.to_string()));
    if policy == "replace" && ["file", "hard link"].contains(&kind) {
        assert!(told.iter().all(|told| told.starts_with("done ")), "{kind}: {told:?}");
        return files_of([(kind, b"line")]);
    }
    assert_eq!(identity(&path), before, "{kind}");
    if policy == "rename" {
        assert!(told.iter().all(|told| told.starts_with("done ")), "{kind}: {told:?}");
        return files_of([(&format!("{kind}.1"), b"classic"), (&format!("{kind}.2"), b"line")]);
    }
    assert!(told.iter().all(|told| told.starts_with("no 409 ")), "{kind}: {told:?}");
    Files::new()
}

#[test]
fn a_name_that_flips_to_a_link_and_back_during_uploads_never_leads_to_the_victim() {
    const FLIPS: usize = 500;
    for policy in POLICIES {
        let home = Server::home();
        let victim = victim(home.path());
        let server = Server::start_in(&home, &["--on-exists", policy, "--sync", "none"]);
        let precious = identity(&victim);
        server.withstands(|| {
            let (over, flips, mut uploads) = (AtomicBool::new(false), AtomicUsize::new(0), 0);
            let (spare, name) = (home.path().join("spare"), server.dir().join("name"));
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        symlink(&victim, &spare).and_then(|()| fs::rename(&spare, &name)).expect("it can be planted");
                        // An upload may have replaced the link meanwhile, or have been given this name.
                        fs::remove_file(&name).expect("the file can be removed");
                        flips.fetch_add(1, Ordering::Relaxed);
                    }
                });
                // Some uploads are refused, and some are stored and overwritten.
                while uploads < 100 || flips.load(Ordering::Relaxed) < FLIPS {
                    drop(classic(server.tcp(), "name", &content(2000, uploads)));
                    uploads += 1;
                }
                over.store(true, Ordering::Relaxed);
            });
            let mut stored = server.files();
            stored.retain(|name, _| name.starts_with("name"));
            assert!(stored.values().all(|stored| (0..uploads).any(|seed| *stored == content(2000, seed))));
            stored
        });
        assert_eq!((identity(&victim), fs::read_to_string(&victim).expect("text")), (precious, "precious".to_owned()));
    }
}

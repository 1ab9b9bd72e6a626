//! Tests of the store: every method of storing a file, on disk and in memory.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_setfl, mknodat};
use rustix::io::Errno;

use super::*;
use crate::leave_out::leave_out;
use crate::proto::{Name, NamePolicy, OnExists};

/// What may have an upload's name already. Two kinds lead to a victim.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Obstacle {
    File,
    HardLink,
    Symlink,
    DanglingSymlink,
    Directory,
    FullDirectory,
    Fifo,
    Socket,
}

impl Obstacle {
    const ALL: [Self; 8] = [
        Self::File,
        Self::HardLink,
        Self::Symlink,
        Self::DanglingSymlink,
        Self::Directory,
        Self::FullDirectory,
        Self::Fifo,
        Self::Socket,
    ];

    fn is_regular(self) -> bool {
        matches!(self, Self::File | Self::HardLink)
    }

    fn plant(self, path: &Path, victim: &Path) {
        match self {
            Self::File => fs::write(path, "old").unwrap(),
            Self::HardLink => fs::hard_link(victim, path).unwrap(),
            Self::Symlink => symlink(victim, path).unwrap(),
            Self::DanglingSymlink => symlink(path.with_extension("nowhere"), path).unwrap(),
            Self::Directory => fs::create_dir(path).unwrap(),
            Self::FullDirectory => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("inside"), "old").unwrap();
            }
            Self::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            Self::Socket => drop(UnixListener::bind(path).unwrap()),
        }
    }
}

/// Runs `test` in an empty directory for each method, on disk and in memory.
fn everywhere(test: impl Fn(&Path, &Directory)) {
    for base in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        for method in Method::ALL {
            let path = match tempfile::tempdir_in(&base) {
                Ok(path) => path,
                Err(error) => {
                    leave_out(&format!("no directory can be made in {}: {error}", base.display()));
                    continue;
                }
            };
            match Directory::open_with(path.path(), &[method]) {
                Ok(directory) => test(path.path(), &directory),
                Err(error) => {
                    let unsupported = [io::ErrorKind::NotFound, io::ErrorKind::Unsupported];
                    assert!(method != Method::Named && unsupported.contains(&error.kind()), "{method}: {error}");
                    leave_out(&format!("{} knows no {method}: {error}", base.display()));
                }
            }
        }
    }
}

fn name(name: &str) -> Name {
    Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
}

fn upload(directory: &Directory, as_name: &str, on_exists: OnExists, bytes: &[u8]) -> Result<String, StoreError> {
    let mut partial = directory.begin(&Target::new(&name(as_name), on_exists))?;
    partial.append(bytes)?;
    Ok(partial.publish()?.to_string())
}

/// Publishes as the server does.
fn submit(directory: &mut Directory, partial: PartialFile) -> Result<Name, StoreError> {
    let settled = directory.submit(Token(7), Job::Publish(partial)).expect("nothing is synced");
    assert_eq!(settled.token, Token(7));
    match settled.done {
        Done::Stored(result) => result,
        Done::Held(_) => unreachable!("nothing is held"),
    }
}

/// Appends the pieces of `bytes`, in every way in turn.
fn append_in_every_way(partial: &mut impl Partial, bytes: &[u8]) {
    let (reader, mut writer) = io::pipe().unwrap();
    for (number, piece) in bytes.chunks(20_000).enumerate() {
        match number % 3 {
            0 => partial.append(piece).unwrap(),
            way => {
                writer.write_all(piece).unwrap();
                let append = if way == 1 { Partial::append_from } else { Partial::copy_from };
                append(partial, reader.as_fd(), piece.len()).unwrap();
            }
        }
    }
}

fn is_taken<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Taken(_)))
}

/// What a server must not change: the file itself, and the time of its last change.
fn identity(path: &Path) -> (u64, u32, u64, i64, i64) {
    let of = |meta: Metadata| (meta.ino(), meta.mode(), meta.size(), meta.mtime(), meta.mtime_nsec());
    of(fs::symlink_metadata(path).unwrap())
}

/// The names in a directory, without the server's own.
fn listing(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != ".intake").collect();
    names.sort();
    names
}

/// The partial files in all lock directories.
fn partials(path: &Path) -> Vec<PathBuf> {
    let list = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    list(path.join(".intake")).flat_map(list).filter(|path| !path.ends_with("lock")).collect()
}

/// The lock directory of the only server on the directory.
fn lock_directory(path: &Path) -> PathBuf {
    let mut entries = fs::read_dir(path.join(".intake")).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| !path.ends_with("kept")).unwrap()
}

#[test]
fn where_nothing_can_be_spliced_into_a_file_it_is_copied() {
    everywhere(|path, directory| {
        let mut partial = directory.begin(&Target::new(&name("a"), OnExists::Refuse)).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        // No file system splices into a file that is open for appending (splice(2), EINVAL).
        fcntl_setfl(partial.file(), OFlags::APPEND).unwrap();
        writer.write_all(b"content").unwrap();
        partial.append_from(reader.as_fd(), 7).unwrap();
        partial.publish().unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"content");
    });
}

#[test]
fn a_published_file_is_byte_equal_and_like_any_other() {
    everywhere(|path, directory| {
        let like = File::create(path.join("like any other")).unwrap().metadata().unwrap();
        for size in [0, 1, 4096, 200_001] {
            let bytes: Vec<u8> = (0..size).map(|i: u32| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
            let as_name = name(&size.to_string());
            for on_exists in [OnExists::Refuse, OnExists::Rename, OnExists::Replace] {
                let mut partial = directory.begin(&Target::new(&as_name, on_exists)).unwrap();
                append_in_every_way(&mut partial, &bytes);
                let file = path.join(partial.publish().unwrap());
                assert_eq!(fs::read(&file).unwrap(), bytes);
                let meta = fs::metadata(&file).unwrap();
                assert_eq!((meta.mode(), meta.nlink(), meta.uid()), (like.mode(), 1, like.uid()));
                fs::remove_file(&file).unwrap();
            }
        }
        assert!(partials(path).is_empty());
    });
}

#[test]
fn a_long_file_of_unknown_size_has_the_blocks_that_it_needs_and_the_time_that_was_told() {
    let base = tempfile::tempdir().unwrap();
    let mut directory = Directory::open(base.path()).unwrap();
    for on_exists in [OnExists::Rename, OnExists::Replace] {
        let mut partial = directory.begin(&Target::new(&name("a"), on_exists)).unwrap();
        (0..5).for_each(|_| partial.append(&[7; 1 << 20]).unwrap());
        partial.set_mtime(1_000_000_000).unwrap();
        let stored = submit(&mut directory, partial).unwrap();
        let meta = fs::metadata(base.path().join(stored)).unwrap();
        assert_eq!((meta.size(), meta.mtime()), (5 << 20, 1_000_000_000));
        assert!(meta.blocks() * 512 < (5 << 20) + (1 << 20), "{} blocks", meta.blocks());
    }
}

#[test]
fn a_file_that_was_shortened_while_it_was_written_is_not_published() {
    let base = tempfile::tempdir().unwrap();
    let mut directory = Directory::open(base.path()).unwrap();
    let mut partial = directory.begin(&Target::new(&name("a"), OnExists::Replace)).unwrap();
    (0..5).for_each(|_| partial.append(&[7; 1 << 20]).unwrap());
    OpenOptions::new().write(true).open(&partials(base.path())[0]).unwrap().set_len(1000).unwrap();
    assert!(submit(&mut directory, partial).is_err());
}

#[test]
fn a_pipe_that_ends_early_is_an_error() {
    everywhere(|_, directory| {
        for append in [Partial::append_from, Partial::copy_from] {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(b"one").unwrap();
            drop(writer);
            let mut partial = directory.begin(&Target::new(&name("a"), OnExists::Refuse)).unwrap();
            let error = append(&mut partial, reader.as_fd(), 4).unwrap_err();
            assert!(matches!(&error, StoreError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof), "{error:?}");
        }
    });
}

#[test]
fn a_partial_is_invisible_and_dropping_it_leaves_nothing() {
    everywhere(|path, directory| {
        for on_exists in [OnExists::Refuse, OnExists::Rename, OnExists::Replace, OnExists::Same] {
            let mut partial = directory.begin(&Target::new(&name("a"), on_exists)).unwrap();
            partial.append(b"never whole").unwrap();
            assert!(listing(path).is_empty());
            drop(partial);
            assert!(listing(path).is_empty());
            assert!(partials(path).is_empty());
        }
    });
}

#[test]
fn what_has_the_name_at_the_start_keeps_it() {
    everywhere(|path, directory| {
        for obstacle in Obstacle::ALL {
            let label = format!("{obstacle:?}");
            plant_and_compare(path, obstacle, &label, || {
                assert!(is_taken(&upload(directory, &label, OnExists::Refuse, b"new")), "{label}");
                assert_eq!(upload(directory, &label, OnExists::Rename, b"new").unwrap(), format!("{label}.1"));
                if !obstacle.is_regular() {
                    assert!(is_taken(&directory.begin(&Target::new(&name(&label), OnExists::Replace))), "{label}");
                }
            });
            assert_eq!(fs::read(path.join(label + ".1")).unwrap(), b"new");
        }
        assert!(partials(path).is_empty());
    });
}

#[test]
fn what_takes_the_name_during_the_upload_keeps_it() {
    everywhere(|path, directory| {
        for obstacle in Obstacle::ALL {
            for on_exists in [OnExists::Refuse, OnExists::Rename, OnExists::Replace] {
                if on_exists == OnExists::Replace && obstacle.is_regular() {
                    continue;
                }
                let label = format!("{obstacle:?} {on_exists:?}");
                let mut partial = directory.begin(&Target::new(&name(&label), on_exists)).unwrap();
                partial.append(b"new").unwrap();
                plant_and_compare(path, obstacle, &label, || match partial.publish() {
                    Ok(stored) => {
                        assert_eq!((stored, on_exists), (name(&(label.clone() + ".1")), OnExists::Rename))
                    }
                    Err(error) => assert!(matches!(error, StoreError::Taken(_)), "{label}: {error}"),
                });
            }
        }
        assert!(partials(path).is_empty());
    });
}

/// Plants `obstacle` under `label` and a victim beside it, and checks that `change` leaves both as they are.
fn plant_and_compare(path: &Path, obstacle: Obstacle, label: &str, change: impl FnOnce()) {
    let (planted, victim) = (path.join(label), path.join("victim"));
    fs::write(&victim, "precious").unwrap();
    obstacle.plant(&planted, &victim);
    let before = (identity(&planted), identity(&victim));
    change();
    assert_eq!((identity(&planted), identity(&victim)), before, "{label}");
    assert_eq!(fs::read(&victim).unwrap(), b"precious", "{label}");
}

#[test]
fn replacing_takes_the_place_of_a_file_and_spares_its_other_links() {
    everywhere(|path, directory| {
        let victim = path.join("victim");
        fs::write(&victim, "precious").unwrap();
        for obstacle in [Obstacle::File, Obstacle::HardLink] {
            obstacle.plant(&path.join("a"), &victim);
            let before = identity(&victim);
            assert_eq!(upload(directory, "a", OnExists::Replace, b"new").unwrap(), "a");
            assert_eq!(fs::read(path.join("a")).unwrap(), b"new");
            assert_eq!((identity(&victim), fs::read(&victim).unwrap()), (before, b"precious".to_vec()));
            fs::remove_file(path.join("a")).unwrap();
        }
        assert!(partials(path).is_empty());
    });
}

#[test]
fn a_thousand_of_one_name_are_numbered_without_gaps() {
    everywhere(|path, directory| {
        for number in 0..1000_u32 {
            let stored = upload(directory, "a", OnExists::Rename, &number.to_le_bytes()).unwrap();
            let expected = if number == 0 { "a".into() } else { format!("a.{number}") };
            assert_eq!(stored, expected);
        }
        for number in 1..1000_u32 {
            assert_eq!(fs::read(path.join(format!("a.{number}"))).unwrap(), number.to_le_bytes());
        }
        fs::remove_file(path.join("a.500")).unwrap();
        assert_eq!(upload(directory, "a", OnExists::Rename, b"").unwrap(), "a.1000");
        fs::remove_file(path.join("a.1")).unwrap();
        assert_eq!(upload(directory, "a", OnExists::Rename, b"").unwrap(), "a.1");
    });
}

#[test]
fn the_longest_names_are_stored_and_numbered_as_far_as_they_go() {
    everywhere(|path, directory| {
        for longest in ["n".repeat(255), "語".repeat(85), "n".repeat(254)] {
            assert_eq!(upload(directory, &longest, OnExists::Rename, b"").unwrap(), longest);
            assert!(is_taken(&upload(directory, &longest, OnExists::Rename, b"")));
        }
        let long = "m".repeat(253);
        assert_eq!(upload(directory, &long, OnExists::Rename, b"").unwrap(), long);
        for number in 1..=9 {
            let stored = upload(directory, &long, OnExists::Rename, b"").unwrap();
            assert_eq!(stored, format!("{long}.{number}"));
        }
        assert!(is_taken(&upload(directory, &long, OnExists::Rename, b"")));
        assert!(partials(path).is_empty());
    });
}

#[test]
fn uploads_go_to_the_directory_that_was_opened_wherever_it_is() {
    everywhere(|path, directory| {
        let (moved, elsewhere) = (path.with_extension("moved"), path.with_extension("elsewhere"));
        let mut before = directory.begin(&Target::new(&name("before"), OnExists::Replace)).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(path, &moved).unwrap();
        symlink(&elsewhere, path).unwrap();

        before.append(b"x").unwrap();
        before.publish().unwrap();
        upload(directory, "after", OnExists::Rename, b"y").unwrap();
        assert_eq!(listing(&moved), ["after", "before"]);
        assert!(listing(&elsewhere).is_empty());

        fs::remove_file(path).unwrap();
        fs::rename(&moved, path).unwrap();
        fs::remove_dir(&elsewhere).unwrap();
    });
}

#[test]
fn of_many_at_once_one_is_refused_or_renamed_never_mixed() {
    const UPLOADS: u8 = 16;
    let at_once = |directory: &Directory, on_exists| {
        let barrier = Barrier::new(usize::from(UPLOADS));
        let one = |id: u8, mut partial: PartialFile| {
            partial.append(&[id; 10_000]).unwrap();
            barrier.wait();
            partial.publish()
        };
        std::thread::scope(|scope| {
            let begin = |id| (id, directory.begin(&Target::new(&name("a"), on_exists)).unwrap());
            let begun: Vec<_> = (0..UPLOADS).map(begin).collect();
            let uploads = begun.into_iter().map(|(id, partial)| scope.spawn(move || one(id, partial)));
            let uploads: Vec<_> = uploads.collect();
            uploads.into_iter().map(|upload| upload.join().unwrap()).collect::<Vec<_>>()
        })
    };
    everywhere(|path, directory| {
        let whole = |file: &str| {
            let bytes = fs::read(path.join(file)).unwrap();
            assert_eq!(bytes, vec![bytes[0]; 10_000]);
            bytes[0]
        };
        let refused = at_once(directory, OnExists::Refuse);
        assert_eq!(refused.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(refused.iter().filter(|result| is_taken(result)).count(), usize::from(UPLOADS) - 1);
        let winner = refused.iter().position(Result::is_ok).unwrap();
        assert_eq!((listing(path), usize::from(whole("a"))), (vec!["a".to_owned()], winner));

        at_once(directory, OnExists::Replace).into_iter().for_each(|result| assert_eq!(result.unwrap(), name("a")));
        whole("a");
        assert_eq!(listing(path), ["a"]);
        fs::remove_file(path.join("a")).unwrap();

        for (id, result) in at_once(directory, OnExists::Rename).into_iter().enumerate() {
            assert_eq!(usize::from(whole(result.unwrap().as_str())), id);
        }
        assert_eq!(listing(path).len(), usize::from(UPLOADS));
        assert!(partials(path).is_empty());
    });
}

#[test]
fn a_named_partial_that_others_changed_is_not_published() {
    everywhere(|path, directory| {
        let changes: [fn(&Path); 5] = [
            |file| File::options().write(true).open(file).unwrap().set_len(2).unwrap(),
            |file| OpenOptions::new().append(true).open(file).unwrap().write_all(b"more").unwrap(),
            |file| fs::remove_file(file).unwrap(),
            |file| {
                fs::remove_file(file).unwrap();
                fs::write(file, "planted").unwrap();
            },
            |file| fs::rename(file, file.with_extension("away")).unwrap(),
        ];
        for change in changes {
            let mut partial = directory.begin(&Target::new(&name("a"), OnExists::Replace)).unwrap();
            partial.append(b"content").unwrap();
            change(&partials(path)[0]);
            let error = partial.publish().unwrap_err();
            assert!(matches!(error, StoreError::Io(_)), "{error}");
            assert!(listing(path).is_empty());
        }
        let left = partials(path);
        assert!(left.iter().all(|file| file.extension().is_some()), "{left:?}");
    });
}

#[test]
fn planted_files_in_the_lock_directory_are_passed_over() {
    everywhere(|path, directory| {
        let lockdir = lock_directory(path);
        for number in 0..10 {
            fs::write(lockdir.join(number.to_string()), "planted").unwrap();
        }
        assert_eq!(upload(directory, "a", OnExists::Replace, b"content").unwrap(), "a");
        assert_eq!(fs::read(path.join("a")).unwrap(), b"content");
        assert_eq!(partials(path).len(), 10);
        fs::remove_dir_all(lockdir).unwrap();
    });
}

#[test]
fn errors_name_what_ran_out() {
    let error = |errno: Errno| StoreError::from(errno);
    assert!(matches!(error(Errno::NOSPC), StoreError::Full(_)));
    assert!(matches!(error(Errno::DQUOT), StoreError::Full(_)));
    assert!(matches!(error(Errno::IO), StoreError::Io(_)));
    assert!(error(Errno::FBIG).to_string().contains("ulimit -f"));
    assert!(error(Errno::NAMETOOLONG).to_string().contains("no name as long"));
}

#[test]
fn a_partial_is_small_and_can_go_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<PartialFile>();
    assert!(size_of::<PartialFile>() <= 64, "{}", size_of::<PartialFile>());
}

//! Uploads that are found by an id of the server's making, in a real directory.

use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::proto::{Algorithm, Digest, Hasher, Name, NamePolicy, OnExists, Promise, Receipt, ResumeId};

fn name(name: &str) -> Name {
    Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
}

/// Begins an upload of `a` and returns its id.
fn begin(store: &Directory, promise: Option<Promise>, size: Option<u64>) -> (ResumeId, PartialFile) {
    let (name, id) = (name("a"), store.make_id().unwrap());
    let target = Target { promise, size, resume: Some(&id), ..Target::new(&name, OnExists::Rename) };
    let partial = store.begin(&target).unwrap();
    (id, partial)
}

fn reopen(store: &Directory, id: &ResumeId) -> Reopened<PartialFile> {
    store.reopen(id).unwrap().expect("it is kept")
}

/// Appends `bytes`, which count.
fn append(partial: &mut PartialFile, bytes: &[u8], hasher: Option<&mut Hasher>) {
    partial.append(bytes).unwrap();
    let hasher = hasher.map(|hasher| {
        hasher.update(bytes);
        &*hasher
    });
    partial.checkpoint(hasher);
}

/// A store that syncs, and what it sends when something is settled.
fn open_synced(path: &Path) -> (Directory, mpsc::Receiver<()>) {
    let mut store = Directory::open(path).unwrap();
    let (sender, woken) = mpsc::channel();
    store.sync_before_receipts(100, move || sender.send(()).unwrap_or_default()).unwrap();
    (store, woken)
}

fn hold(store: &mut Directory, woken: &mpsc::Receiver<()>, partial: &mut PartialFile) {
    assert!(store.submit(Token(1), Job::Hold(partial)).is_none(), "it takes its time");
    while store.settled().is_empty() {
        woken.recv().unwrap();
    }
}

/// The names of what is kept, sorted.
fn kept(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.join(".intake/kept")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// This many seconds ago.
#[expect(clippy::disallowed_methods, reason = "a file's own time is of the wall clock")]
fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

const SHA256: Promise = Promise::Trailer(Algorithm::Sha256);

#[test]
fn an_upload_without_content_is_found_with_all_that_was_told_of_it() {
    let base = tempfile::tempdir().unwrap();
    let known = Promise::Known(Digest::Sha256([7; 32]));
    for (promise, size, mtime, note) in [
        (None, None, None, ""),
        (Some(SHA256), Some(0), NonZeroU64::new(1), "filename YQ==,filetype dGV4dA=="),
        (Some(known), Some(u64::MAX), NonZeroU64::new(u64::MAX), &*"n".repeat(Record::NOTE_MAX_BYTES)),
    ] {
        let (long, store) = (name(&"n".repeat(Name::MAX_BYTES)), Directory::open(base.path()).unwrap());
        store.keep_free(0);
        let id = store.make_id().unwrap();
        let on_exists = OnExists::Refuse;
        let target = Target { name: &long, on_exists, size: None, promise, resume: Some(&id), mtime, note };
        let mut partial = store.begin(&target).unwrap();
        if let Some(size) = size {
            partial.set_size(size).unwrap();
            assert!(partial.set_size(size).is_err(), "it is known");
        }
        partial.keep();
        drop(store);
        let terms = Terms { name: long.clone(), on_exists, size, promise, mtime, note: note.into() };
        for _ in 0..2 {
            let store = Directory::open(base.path()).unwrap();
            let found = reopen(&store, &id);
            assert_eq!((found.partial.held(), &found.terms), (0, &terms));
            found.partial.keep();
        }
    }
}

#[test]
fn it_continues_from_its_last_mark_with_and_without_a_digest() {
    for promise in [None, Some(SHA256)] {
        let base = tempfile::tempdir().unwrap();
        let mut store = Directory::open(base.path()).unwrap();
        let (id, mut partial) = begin(&store, promise, None);
        let mut hasher = promise.map(|promise| Hasher::new(promise.algorithm()));
        append(&mut partial, b"one ", hasher.as_mut());
        partial.append(b"with a wrong checksum").unwrap();
        partial.keep();

        let mut partial = reopen(&store, &id).partial;
        assert_eq!(partial.held(), 4);
        let found = partial.state().map(|held| (held.offset, held.hasher.state()));
        assert_eq!(found, hasher.as_ref().map(|hasher| (4, hasher.state())));
        partial.reserve(None).unwrap();
        append(&mut partial, b"two", hasher.as_mut());
        let settled = store.submit(Token(1), Job::Hold(&mut partial)).unwrap();
        assert!(matches!(settled.done, Done::Held(Ok(()))));
        partial.keep();

        let Reopened { mut partial, terms } = reopen(&store, &id);
        assert_eq!((partial.held(), terms.size), (7, None));
        partial.set_size(7).unwrap();
        partial.keep();
        let Reopened { partial, terms } = reopen(&store, &id);
        assert_eq!((partial.held(), terms.size), (7, Some(7)));
        let settled = store.submit(Token(2), Job::Publish(partial)).unwrap();
        assert!(matches!(settled.done, Done::Stored(Ok(stored)) if stored == name("a")));
        assert_eq!(fs::read(base.path().join("a")).unwrap(), b"one two");
        assert!(store.reopen(&id).unwrap().is_none());
    }
}

#[test]
fn what_was_held_is_found_by_the_next_server_if_this_one_is_killed() {
    let base = tempfile::tempdir().unwrap();
    let (mut store, woken) = open_synced(base.path());
    let hold = |store: &mut Directory, partial: &mut PartialFile| hold(store, &woken, partial);
    let (id, mut partial) = begin(&store, None, Some(9));
    hold(&mut store, &mut partial);
    append(&mut partial, b"one", None);
    hold(&mut store, &mut partial);
    append(&mut partial, b"two", None);
    // As the kernel closes files.
    let next = Directory::open(base.path()).unwrap();
    assert!(matches!(next.reopen(&id), Err(StoreError::Busy(_))), "this one lives");
    partial.forget();
    let Reopened { partial, terms } = reopen(&next, &id);
    assert_eq!((partial.held(), terms.size), (3, Some(9)));
}

#[test]
fn what_was_held_is_kept_without_another_sync() {
    let base = tempfile::tempdir().unwrap();
    let (mut store, woken) = open_synced(base.path());
    let (id, mut partial) = begin(&store, None, Some(9));
    append(&mut partial, b"one", None);
    hold(&mut store, &woken, &mut partial);
    partial.keep();
    assert!(store.is_idle(), "its state is in the record");
    let mut partial = reopen(&store, &id).partial;
    assert_eq!(partial.held(), 3);
    append(&mut partial, b"two", None);
    partial.keep();
    assert!(!store.is_idle(), "this state is not");
}

#[test]
fn one_request_has_it_at_a_time_and_dropping_it_removes_it() {
    let base = tempfile::tempdir().unwrap();
    let (store, other) = (Directory::open(base.path()).unwrap(), Directory::open(base.path()).unwrap());
    let (id, partial) = begin(&store, None, None);
    for server in [&store, &other] {
        assert!(matches!(server.reopen(&id), Err(StoreError::Busy(_))));
    }
    assert!(store.is_busy_with(&id) && !other.is_busy_with(&id));
    partial.keep();
    assert_eq!(kept(base.path()).len(), 2);
    drop(reopen(&other, &id));
    assert!(kept(base.path()).is_empty());
    assert!(store.reopen(&id).unwrap().is_none());
    assert!(kept(base.path()).is_empty(), "nothing is made for an unknown id");
}

#[test]
fn no_word_of_a_clients_leads_to_it_and_its_id_to_no_upload_of_a_word() {
    let base = tempfile::tempdir().unwrap();
    let store = Directory::open(base.path()).unwrap();
    let (id, mut partial) = begin(&store, Some(SHA256), Some(9));
    append(&mut partial, b"secret", Some(&mut Hasher::new(Algorithm::Sha256)));
    partial.keep();
    let word = ResumeId::parse(&id.as_str()[1..]).unwrap();
    assert!(store.reopen(&word).unwrap().is_none());
    let name = name("a");
    let promise = Some(SHA256);
    let target = Target { promise, size: Some(9), resume: Some(&word), ..Target::new(&name, OnExists::Rename) };
    let mut partial = store.begin(&target).unwrap();
    assert_eq!(partial.held(), 0);
    append(&mut partial, b"x", Some(&mut Hasher::new(Algorithm::Sha256)));
    partial.keep();
    assert!(store.reopen(&word).unwrap().is_none(), "the record of a client's word has no terms");
    assert_eq!(reopen(&store, &id).partial.held(), 6);
    assert_ne!(store.make_id().unwrap(), store.make_id().unwrap());
}

#[test]
fn a_file_that_is_shorter_than_its_offset_is_not_continued() {
    let base = tempfile::tempdir().unwrap();
    let store = Directory::open(base.path()).unwrap();
    let (id, mut partial) = begin(&store, None, None);
    append(&mut partial, b"one", None);
    partial.keep();
    let file = kept(base.path()).remove(0);
    fs::OpenOptions::new().write(true).open(base.path().join(".intake/kept").join(file)).unwrap().set_len(2).unwrap();
    // It has an older state, of no content; when the file has grown again, the later one would count for what is there.
    assert!(store.reopen(&id).unwrap().is_none());
}

#[test]
fn without_space_it_stays_as_it_is() {
    let base = tempfile::tempdir().unwrap();
    let store = Directory::open(base.path()).unwrap();
    let (id, mut partial) = begin(&store, None, None);
    append(&mut partial, b"one", None);
    partial.keep();
    let full = Directory::open(base.path()).unwrap();
    full.keep_free(u64::MAX);
    let (name, new) = (name("b"), full.make_id().unwrap());
    let target = Target { size: Some(9), resume: Some(&new), ..Target::new(&name, OnExists::Rename) };
    assert!(matches!(full.begin(&target), Err(StoreError::Full(_))));
    assert_eq!(kept(base.path()).len(), 2, "and none is begun");
    let mut partial = reopen(&full, &id).partial;
    for size in [None, Some(9)] {
        assert!(matches!(partial.reserve(size), Err(StoreError::Full(_))), "{size:?}");
    }
    partial.keep();
    assert_eq!(reopen(&store, &id).partial.held(), 3);
}

#[test]
fn it_expires_when_nobody_has_written_to_it_and_what_was_published_leaves_nothing() {
    let base = tempfile::tempdir().unwrap();
    let mut store = Directory::open(base.path()).unwrap();
    let hour = Duration::from_secs(3600);
    for content in [&b""[..], b"one"] {
        let (id, mut partial) = begin(&store, None, None);
        append(&mut partial, content, None);
        let now = ago(0).duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((now - 60..=now + 60).contains(&partial.changed_at().unwrap()));
        partial.file().set_modified(ago(3000)).unwrap();
        partial.keep();
        store.tend(hour);
        let partial = reopen(&store, &id).partial;
        assert!(partial.changed_at().unwrap() < now - 2000, "looking at it does not change it");
        partial.file().set_modified(ago(4000)).unwrap();
        partial.keep();
        store.tend(hour);
        assert!(store.reopen(&id).unwrap().is_none());
    }
    let (_, partial) = begin(&store, None, None);
    store.submit(Token(1), Job::Publish(partial)).unwrap();
    let [record] = &kept(base.path())[..] else { panic!("the record outlives the file, in case of a crash") };
    let record = base.path().join(".intake/kept").join(record);
    store.tend(hour);
    assert!(record.exists());
    fs::File::open(&record).unwrap().set_modified(ago(4000)).unwrap();
    store.tend(hour);
    assert!(kept(base.path()).is_empty());
}

#[test]
fn a_published_upload_has_its_receipt_until_it_expires_whichever_server_is_asked() {
    let base = tempfile::tempdir().unwrap();
    let digest = Digest::Sha256([7; 32]);
    let mut store = Directory::open(base.path()).unwrap();
    for (promise, stored_name) in [(Some(Promise::Known(digest)), "a"), (None, "a.1")] {
        let (id, mut partial) = begin(&store, promise, None);
        let mut hasher = promise.map(|promise| Hasher::new(promise.algorithm()));
        append(&mut partial, b"one", hasher.as_mut());
        assert_eq!(store.receipt(&id), None);
        store.submit(Token(1), Job::Publish(partial)).unwrap();
        let receipt = Receipt { size: 3, digest: promise.map(|_| digest), stored_name: stored_name.into() };
        for server in [&store, &Directory::open(base.path()).unwrap()] {
            assert_eq!(server.receipt(&id), Some(receipt.clone()));
            assert!(server.reopen(&id).unwrap().is_none());
        }
        let record = base.path().join(".intake/kept").join(&kept(base.path())[0]);
        fs::File::open(&record).unwrap().set_modified(ago(4000)).unwrap();
        store.tend(Duration::from_secs(3600));
        assert_eq!(store.receipt(&id), None);
    }
}

#[test]
fn an_upload_that_gets_no_name_has_no_receipt() {
    let base = tempfile::tempdir().unwrap();
    let mut store = Directory::open(base.path()).unwrap();
    let (name, id) = (name("a"), store.make_id().unwrap());
    let partial = store.begin(&Target { resume: Some(&id), ..Target::new(&name, OnExists::Refuse) }).unwrap();
    fs::write(base.path().join("a"), "another").unwrap();
    let settled = store.submit(Token(1), Job::Publish(partial)).unwrap();
    assert!(matches!(settled.done, Done::Stored(Err(StoreError::Taken(_)))));
    assert_eq!((store.receipt(&id), kept(base.path()).len()), (None, 0));
}

/// A server that is killed between the two leaves the end in the record and the file without its name.
#[test]
fn an_end_counts_only_when_the_file_has_gone() {
    let base = tempfile::tempdir().unwrap();
    let store = Directory::open(base.path()).unwrap();
    let (id, mut partial) = begin(&store, None, None);
    append(&mut partial, b"one", None);
    partial.keep();
    let record = kept(base.path()).into_iter().find(|name| name.ends_with(".claim")).unwrap();
    let record = fs::File::options().write(true).open(base.path().join(".intake/kept").join(record)).unwrap();
    let end = Record::end(&Receipt { size: 3, digest: None, stored_name: "a".into() });
    record.write_all_at(&end.bytes, end.at).unwrap();
    assert_eq!(store.receipt(&id), None);
    let Reopened { partial, terms } = reopen(&store, &id);
    assert_eq!((partial.held(), terms.size), (3, Some(3)), "the size is known from then on");
}

#[test]
fn of_many_receipts_the_oldest_are_removed() {
    let base = tempfile::tempdir().unwrap();
    let mut store = Directory::open(base.path()).unwrap();
    let path = |number: u64| base.path().join(".intake/kept").join(format!("{number:064x}.claim"));
    for number in 0..4100 {
        fs::File::create(path(number)).unwrap().set_modified(ago(3000 - number / 2)).unwrap();
    }
    store.tend(Duration::from_secs(3600));
    assert_eq!(kept(base.path()).len(), 4096);
    assert!(!path(0).exists() && !path(1).exists() && path(4).exists() && path(4099).exists());
}

#[test]
fn a_note_is_one_line_of_some_length() {
    let base = tempfile::tempdir().unwrap();
    let store = Directory::open(base.path()).unwrap();
    let name = name("a");
    for note in ["a\nb", "a\0b", &"n".repeat(Record::NOTE_MAX_BYTES + 1)] {
        let id = store.make_id().unwrap();
        let target = Target { resume: Some(&id), note, ..Target::new(&name, OnExists::Rename) };
        assert!(matches!(store.begin(&target), Err(StoreError::Io(_))));
    }
    assert!(kept(base.path()).is_empty());
}

//! What a sender can rely on: disk space, collisions and resuming, with the real binary.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use intake::proto::{Algorithm, Hasher};
use rustix::fs::{Advice, fadvise, statfs, statvfs};
use rustix::process::Signal;

use crate::fixture::{
    Server, await_until, classic, classic_begin, classic_finish, connect, content, files_of, is_reset, line, reset,
};
use crate::tools::{Strace, leave_out, unshare_loop_mounts};

/// A connection that speaks `/put` and `/ask`.
struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = connect(address).expect("the server listens");
        let replies = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Self { stream, replies }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// The next line from the server, without its LF. Empty at the end of the stream.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.replies.read_line(&mut line).expect("the server answers");
        line.trim_end_matches('\n').to_owned()
    }

    fn ask(&mut self, request: impl AsRef<[u8]>) -> String {
        self.send(request);
        self.hear()
    }
}

/// A file system in memory, until it is dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` if this user may not mount.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).expect("a directory can be made");
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.into()));
        }
        leave_out("this user may not mount a tmpfs");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, as the server may still use it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn an_upload_that_cannot_fit_is_refused_with_figures_before_its_content() {
    let home = Server::home();
    let Some(_tmpfs) = Tmpfs::mount(&home.path().join("inbox"), "8m") else { return };
    let server = Server::start_in(&home, &["--min-free", "1M"]);
    let mut first = Client::to(server.tcp());
    let refusal = first.ask(format!("/ask size={} large\n", 8 << 20));
    assert!(refusal.starts_with("no 507 "), "{refusal}");
    assert!(refusal.contains(&format!("needs {} bytes", 8 << 20)) && refusal.contains(" free "), "{refusal}");

    // The space that one upload has announced is not free for another, however little of it has arrived.
    let bytes = content(4 << 20, 1);
    assert_eq!(first.ask(format!("/ask size={} first\n", bytes.len())), "ok 0");
    first.send(&bytes[..1000]);
    let mut second = Client::to(server.tcp());
    assert!(second.ask(format!("/ask size={} second\n", bytes.len())).starts_with("no 507 "));
    second.send(format!("/put size={} second\n", bytes.len()));
    second.send(&bytes);
    assert!(second.hear().starts_with("no 507 "));
    assert_eq!(second.ask("/put size=5 small\nsmall"), "done 5 - small");
    first.send(&bytes[1000..]);
    assert_eq!(first.hear(), format!("done {} - first", bytes.len()));
    assert_eq!(server.files().keys().collect::<Vec<_>>(), ["first", "small"]);
}

#[test]
fn an_upload_that_cannot_be_allocated_is_refused_before_its_content() {
    const BTRFS_AND_TMPFS: [u64; 2] = [0x9123_683e, 0x0102_1994];
    let server = Server::start(&[]);
    let magic = statfs(server.dir()).expect("the inbox is a directory").f_type as u64;
    if BTRFS_AND_TMPFS.contains(&magic) {
        return leave_out("blocks are not allocated in advance on btrfs and tmpfs");
    }
    let bytes = content(2 << 20, 1);
    for (error, is_full) in [("ENOSPC", true), ("EDQUOT", true), ("EOPNOTSUPP", false), ("EINTR", false)] {
        let inject = format!("inject=fallocate:error={error}:when=1");
        let Some(_strace) = Strace::attach(server.pid(), &["-e", &inject]) else { return };
        let mut client = Client::to(server.tcp());
        let request = format!("/ask size={} {error}\n", bytes.len());
        if is_full {
            let refusal = client.ask(&request);
            assert!(refusal.starts_with("no 507 "), "{error}: {refusal}");
        }
        assert_eq!(client.ask(&request), "ok 0", "{error}");
        assert_eq!(client.ask(&bytes), format!("done {} - {error}", bytes.len()));
    }
    let stored = ["ENOSPC", "EDQUOT", "EOPNOTSUPP", "EINTR"].map(|name| (name, &bytes[..]));
    server.assert_holds_only(&files_of(stored));
}

/// The digest of `bytes` as an attribute, and as a receipt spells it.
fn crc32c(bytes: &[u8]) -> (String, String) {
    let mut hasher = Hasher::new(Algorithm::Crc32c);
    hasher.update(bytes);
    let digest = hasher.finish();
    (format!("crc32c={}", digest.to_hex()), digest.to_string())
}

#[test]
fn a_file_that_is_stored_already_is_not_stored_twice() {
    for sync in ["full", "none"] {
        let server = Server::start(&["--sync", sync]);
        let before = server.descriptors();
        let mut client = Client::to(server.tcp());
        // Larger than the server reads in one turn, so that it compares in pieces.
        let bytes = content(20 << 20, 7);
        let (attribute, told) = crc32c(&bytes);
        let (size, done) = (bytes.len(), format!("done {} {told} a", bytes.len()));
        client.send(format!("/put size={size} {attribute} on-exists=same a\n"));
        client.send(&bytes);
        assert_eq!(client.hear(), done);

        assert_eq!(client.ask(format!("/ask size={size} {attribute} on-exists=same a\n")), done);
        client.send(format!("/put size={size} crc32c=trailer on-exists=same a\n"));
        client.send(&bytes);
        client.send(format!("{attribute}\n/put size=1 b\nx"));
        assert_eq!((client.hear(), client.hear()), (done, "done 1 - b".into()));

        // Another size, another content, and a name that is no file.
        let taken = |line: String| assert!(line.starts_with("no 409 ") && !line.contains("retry"), "{line}");
        taken(client.ask(format!("/ask size=1 {attribute} on-exists=same a\n")));
        taken(client.ask(format!("/ask size={size} crc32c=00000000 on-exists=same a\n")));
        taken(client.ask(format!("/put size=1 crc32c=trailer on-exists=same b\ny{}\n", crc32c(b"y").0)));
        fs::create_dir(server.dir().join("directory")).expect("a directory can be made");
        taken(client.ask("/ask size=1 crc32c=00000000 on-exists=same directory\n"));
        assert!(client.ask("/ask size=1 on-exists=same a\n").starts_with("no 400 "));
        assert_eq!(server.files(), [("a".to_owned(), bytes), ("b".to_owned(), b"x".to_vec())].into());
        drop(client);
        await_until("every descriptor to be closed", || server.descriptors() == before);
    }
}

#[test]
fn a_file_that_the_disk_has_to_read_is_compared_without_waiting_for_the_disk() {
    let server = Server::start(&[]);
    let bytes = content(20 << 20, 7);
    let (attribute, told) = crc32c(&bytes);
    let path = server.dir().join("a");
    fs::write(&path, &bytes).expect("it can be written");
    let file = fs::File::open(&path).expect("it exists");
    file.sync_all().expect("it can be synced");
    fadvise(&file, 0, None, Advice::DontNeed).expect("it is a file");
    let args = ["-P", path.to_str().expect("it is text"), "-e", "trace=read,readv,pread64,preadv,preadv2"];
    let Some(strace) = Strace::attach(server.pid(), &args) else { return };
    let request = format!("/ask size={} {attribute} on-exists=same a\n", bytes.len());
    assert_eq!(Client::to(server.tcp()).ask(request), format!("done {} {told} a", bytes.len()));
    let calls = strace.calls();
    assert!(calls.iter().any(|call| call.contains("preadv2")), "{calls:?}");
    let (waiting, others): (Vec<_>, Vec<_>) = calls.iter().partition(|call| !call.contains("RWF_NOWAIT"));
    // Some file systems know only reads that wait.
    let are_unknown = others.iter().any(|call| call.contains("EOPNOTSUPP"));
    assert!(waiting.is_empty() || are_unknown, "{waiting:?}");
}

/// How many files are kept: partial files and records.
fn kept(server: &Server) -> usize {
    fs::read_dir(server.dir().join(".intake/kept")).expect("the directory always exists").count()
}

/// A resumable upload, with the same content each time, and its request.
struct Resumable {
    bytes: Vec<u8>,
    request: String,
    trailer: String,
    done: String,
}

impl Resumable {
    fn new(size: usize, name: &str) -> Self {
        let bytes = content(size, 11);
        let (trailer, told) = crc32c(&bytes);
        let request = format!("/ask size={size} crc32c=trailer resume=id-1 {name}\n");
        Self { bytes, request, trailer: trailer + "\n", done: format!("done {size} {told} {name}") }
    }

    /// Asks, and sends from the offset of the answer up to `end`. Returns that offset.
    fn send_until(&self, client: &mut Client, end: usize) -> usize {
        let reply = client.ask(&self.request);
        let offset = reply.strip_prefix("ok ").and_then(|offset| offset.parse().ok());
        let offset = offset.unwrap_or_else(|| panic!("{reply:?} to {:?}", self.request));
        client.send(&self.bytes[offset..end.max(offset)]);
        offset
    }

    /// Asks, and sends the missing bytes. Returns the offset of the answer.
    fn finish(&self, server: &Server) -> usize {
        let mut client = Client::to(server.tcp());
        let offset = self.send_until(&mut client, self.bytes.len());
        client.send(&self.trailer);
        assert_eq!(client.hear(), self.done);
        offset
    }

    /// Sends up to `end`, waits until the server has stored that, and resets the connection.
    fn break_off(&self, server: &Server, end: usize) -> usize {
        let mut client = Client::to(server.tcp());
        let offset = self.send_until(&mut client, end);
        await_held(server, end);
        reset(client.stream);
        offset
    }
}

/// Waits until the disk has done every job that was queued before.
fn await_idle_disk(server: &Server) {
    assert_eq!(Client::to(server.tcp()).ask("/put size=1 after\nx"), "done 1 - after");
    fs::remove_file(server.dir().join("after")).expect("it exists");
}

/// Waits until `bytes` bytes of an upload are written.
fn await_held(server: &Server, bytes: usize) {
    await_until("the content to be written", || {
        let files = fs::read_dir(server.dir().join(".intake/kept")).expect("the directory always exists");
        let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
        sizes.max() == Some(bytes as u64)
    });
}

const MIB: usize = 1 << 20;

/// The disk space of the kept files, in MiB.
fn kept_mib(server: &Server) -> u64 {
    let files = fs::read_dir(server.dir().join(".intake/kept")).expect("the directory always exists");
    let blocks =
        files.map(|file| file.expect("an entry can be read").metadata().expect("a file has metadata").blocks());
    blocks.sum::<u64>() * 512 / MIB as u64
}

#[test]
fn a_kept_upload_takes_no_more_disk_space_than_its_content() {
    let home = Server::home();
    let mut server = Server::start_in(&home, &[]);
    let upload = Resumable::new(30 * MIB, "a");
    upload.break_off(&server, 3 * MIB);
    await_until("the unused blocks to be freed", || kept_mib(&server) == 3);

    let mut client = Client::to(server.tcp());
    upload.send_until(&mut client, 5 * MIB);
    await_held(&server, 5 * MIB);
    server.signal(Signal::KILL);
    server.wait();
    let kept_at = || {
        let files = fs::read_dir(home.path().join("inbox/.intake/kept")).expect("the directory always exists");
        let times = files.map(|file| file.and_then(|file| file.metadata()?.modified()).expect("a file has metadata"));
        times.collect::<Vec<_>>()
    };
    let before = kept_at();
    let server = Server::start_in(&home, &[]);
    assert_eq!((kept_mib(&server), kept_at()), (5, before));
    // The last digest state was written at this offset.
    assert_eq!(upload.finish(&server), 3 * MIB);
    assert!(server.files()["a"] == upload.bytes);
}

#[test]
fn an_upload_of_unknown_size_ends_where_the_free_space_does() {
    let home = Server::home();
    let Some(tmpfs) = Tmpfs::mount(&home.path().join("inbox"), "16m") else { return };
    let server = Server::start_in(&home, &["--min-free", "8M"]);
    server.withstands(|| {
        let bytes = content(12 * MIB, 1);
        let refusal = line(server.tcp(), "large.bin", &bytes).expect("the answer arrives");
        assert!(refusal.starts_with("no 507 ") && refusal.contains(" 8388608 that stay free"), "{refusal}");
        assert!(is_reset(&classic(server.tcp(), "classic.bin", &bytes)));
        line(server.tcp(), "fits.bin", &bytes[..4 * MIB]).expect("the answer arrives");
        // Another program may use the space that is to stay free.
        let other = tmpfs.0.join("other program");
        fs::write(&other, &bytes[..4 * MIB]).expect("there is space");
        for refusal in [
            // A known amount of free space covers at most 1 MiB.
            line(server.tcp(), "more.bin", &bytes[..MIB + 1]).expect("the answer arrives"),
            line(server.tcp(), "small.bin", b"x").expect("the answer arrives"),
            classic_begin(server.tcp(), "classic.bin").expect_err("there is no space").to_string(),
        ] {
            assert!(refusal.starts_with("no 507 "), "{refusal}");
        }
        fs::remove_file(other).expect("it can be removed");
        files_of([("fits.bin", &bytes[..4 * MIB])])
    });
}

/// What the file system of a directory has left, in bytes.
fn free_bytes(directory: &Path) -> u64 {
    let file_system = statvfs(directory).expect("it is a directory");
    file_system.f_bavail * file_system.f_frsize
}

/// Uploads of unknown size arrive at the same time, each in this many pieces. Together they are half as large again as the
/// space. The file system has 64 MiB, of which 45 must stay free.
fn assert_leave_free(server: &Server, pieces: usize) {
    const CLIENTS: usize = 20;
    const MIN_FREE: u64 = 45 << 20;
    // An allowance for the metadata of ext4.
    const SLACK_BYTES: u64 = 256 << 10;
    let free = free_bytes(&server.dir());
    let room = free - MIN_FREE;
    let bytes = content(room as usize * 3 / 2 / CLIENTS / pieces, 1);
    let begin = |number| classic_begin(server.tcp(), format!("{number}.bin")).expect("there is space when it begins");
    let mut clients: Vec<_> = (0..CLIENTS).map(begin).collect();
    for piece in 1..pieces {
        for client in &mut clients {
            // Refused uploads are reset.
            let _ = client.write_all(&bytes);
        }
        let written = (bytes.len() * CLIENTS * piece) as u64;
        await_until("nearly all of that, or nearly all that may be, to be written", || {
            free - free_bytes(&server.dir()) >= written.min(room) - 2 * bytes.len() as u64
        });
    }
    let outcomes: Vec<_> = clients.into_iter().map(|client| classic_finish(client, &bytes)).collect();
    assert!(outcomes.iter().all(|outcome| outcome.is_ok() || is_reset(outcome)), "{outcomes:?}");
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let left = free_bytes(&server.dir());
    assert!(left + SLACK_BYTES >= MIN_FREE, "{pieces} pieces: {left} bytes are left after {stored} uploads");
    assert!(stored >= 5, "{pieces} pieces: only {stored} are stored, and {left} bytes are left");
    assert_eq!(server.files().len(), stored);
}

#[test]
fn uploads_of_unknown_size_that_come_together_leave_free_what_is_to_stay_free() {
    for pieces in [1, 3] {
        let mount = "mount -t tmpfs -o size=64m tmpfs inbox";
        let Some(server) = Server::start_after(mount, &["--min-free", "45M"]) else { return };
        assert_leave_free(&server, pieces);
    }
    let Some(unshare) = unshare_loop_mounts("mkfs.ext4") else { return };
    for pieces in [1, 3] {
        let mount = "truncate -s 64m disk && mkfs.ext4 -q -m 0 disk && mount -o loop disk inbox";
        assert_leave_free(&Server::start_secluded(&unshare, mount, &["--min-free", "45M"]), pieces);
    }
}

#[test]
fn on_a_file_system_without_a_size_the_write_decides() {
    for mount in ["mount -t ramfs ramfs inbox", "mount -t tmpfs -o size=0 tmpfs inbox"] {
        let Some(server) = Server::start_after(mount, &["--min-free", "1G"]) else { return };
        let bytes = content(3 * MIB, 1);
        let mut client = Client::to(server.tcp());
        client.send(format!("/put size={} a\n", bytes.len()));
        assert_eq!(client.ask(&bytes), format!("done {} - a", bytes.len()), "{mount}");
        line(server.tcp(), "b", &bytes).expect("the answer arrives");
        server.assert_holds_only(&files_of([("a", &bytes), ("b", &bytes)]));
    }
}

#[test]
fn an_upload_is_resumed_after_a_broken_connection_a_restart_and_a_kill() {
    for sync in ["full", "none"] {
        let home = Server::home();
        let mut server = Server::start_in(&home, &["--sync", sync]);
        let upload = Resumable::new(20 * MIB + 1, "a");
        assert_eq!(upload.break_off(&server, 3 * MIB), 0);

        let mut client = Client::to(server.tcp());
        assert_eq!(upload.send_until(&mut client, 7 * MIB), 3 * MIB);
        client.stream.shutdown(Shutdown::Write).expect("a stream can be half-closed");
        assert!(client.hear().starts_with("no 400 "));

        // A server that is killed loses the bytes after the last state of the digest.
        for (ending, from, until) in [(Signal::KILL, 7 * MIB, 11 * MIB), (Signal::TERM, 7 * MIB, 15 * MIB)] {
            let mut client = Client::to(server.tcp());
            assert_eq!(upload.send_until(&mut client, until), from);
            await_held(&server, until);
            server.signal(ending);
            if ending == Signal::TERM {
                await_until("the server to begin its shutdown", || server.log().contains("shutting down"));
                server.signal(ending);
            }
            server.wait();
            server = Server::start_in(&home, &["--sync", sync]);
        }
        assert!(server.files().is_empty());
        assert_eq!(upload.finish(&server), 15 * MIB);
        assert!(server.files() == [("a".to_owned(), upload.bytes)].into());
        assert_eq!(kept(&server), 0);
    }
}

#[test]
fn a_kept_upload_that_is_complete_needs_only_its_digest() {
    let server = Server::start(&[]);
    let upload = Resumable::new(2 * MIB, "a");
    upload.break_off(&server, 2 * MIB);
    let mut client = Client::to(server.tcp());
    let request = format!("/ask size={} {} on-exists=same resume=id-1 a\n", 2 * MIB, upload.trailer.trim());
    assert_eq!((client.ask(&request), client.hear()), (format!("ok {}", 2 * MIB), upload.done.clone()));
    assert_eq!((client.ask(&request), kept(&server)), (upload.done, 0));
}

#[test]
fn the_newest_request_wins_and_the_older_one_is_refused() {
    let server = Server::start(&[]);
    let before = server.descriptors();
    let upload = Resumable::new(8 * MIB, "a");
    let mut older = Client::to(server.tcp());
    upload.send_until(&mut older, 3 * MIB);
    await_held(&server, 3 * MIB);
    let mut newer = Client::to(server.tcp());
    assert_eq!(upload.send_until(&mut newer, 5 * MIB), 3 * MIB);
    let words = older.hear();
    assert!(words.starts_with("no 409 ") && !words.contains("retry"), "{words}");
    assert_eq!(older.hear(), "", "no answer follows the refusal");
    await_held(&server, 5 * MIB);
    assert_eq!(upload.finish(&server), 5 * MIB);
    assert!(newer.hear().starts_with("no 409 "));
    drop((older, newer));
    assert!(server.files() == [("a".to_owned(), upload.bytes)].into());
    await_until("every descriptor to be closed", || server.descriptors() == before);
}

/// A server that holds the first half of `upload` and has synced nothing since its start.
fn start_after_break_off(upload: &Resumable) -> Server {
    let home = Server::home();
    let mut server = Server::start_in(&home, &[]);
    upload.break_off(&server, MIB);
    server.signal(Signal::TERM);
    server.wait();
    Server::start_in(&home, &[])
}

#[test]
fn an_upload_that_a_newer_request_took_over_is_not_counted_as_stored() {
    let upload = Resumable::new(2 * MIB, "a");
    let server = start_after_break_off(&upload);
    let inject = "inject=fdatasync:delay_enter=1s:when=1";
    let Some(_strace) = Strace::attach(server.syncing_thread(), &["-e", inject]) else { return };
    let mut older = Client::to(server.tcp());
    older.send(&upload.request);
    server.await_accepted();
    // The older one is waiting for the disk. The pending sync still owns the lock.
    let mut newer = Client::to(server.tcp());
    assert_eq!(newer.ask(&upload.request), format!("ok {MIB}"));
    let words = older.hear();
    assert!(words.starts_with("no 409 ") && !words.contains("retry"), "{words}");
    // The newer one was answered after the sync that the older one waits for, so the older one's outcome is here too.
    assert_eq!(older.hear(), "");
    drop((older, newer));
    server.signal(Signal::USR1);
    await_until("the statistics", || server.log().contains("statistics: "));
    assert!(server.log().contains(" accepted, 0 stored, 1 resumed, "), "{}", server.log());
}

#[test]
fn content_whose_sync_has_failed_is_not_resumed() {
    let upload = Resumable::new(2 * MIB, "a");
    let server = start_after_break_off(&upload);
    let inject = "inject=fdatasync:error=ENOSPC:delay_enter=1s:when=1";
    let Some(strace) = Strace::attach(server.syncing_thread(), &["-e", inject]) else { return };
    let mut older = Client::to(server.tcp());
    older.send(&upload.request);
    server.await_accepted();
    // The older one is waiting for the disk, so no client is told that the sync failed.
    assert_eq!(Client::to(server.tcp()).ask(&upload.request), "ok 0");
    assert!(older.hear().starts_with("no 409 "));
    assert_eq!(Client::to(server.tcp()).ask("/put size=1 b\nx"), "done 1 - b");
    await_until("the sync to fail", || Client::to(server.tcp()).ask(&upload.request) == "ok 0");
    drop(strace);
    assert_eq!(upload.finish(&server), 0);
    assert!(server.files()["a"] == upload.bytes);
}

#[test]
fn resuming_reads_none_of_the_stored_content() {
    for sync in ["full", "none"] {
        let home = Server::home();
        let start = || Server::start_in(&home, &["--sync", sync]);
        let upload = Resumable::new(20 * MIB, "a");
        let mut server = start();
        upload.break_off(&server, 19 * MIB);
        server.signal(Signal::TERM);
        server.wait();
        let server = start();
        let kept = fs::read_dir(server.dir().join(".intake/kept")).expect("the directory always exists");
        let mut files = kept.map(|file| file.expect("an entry can be read").path());
        let content = files.find(|path| path.extension().is_none()).expect("it is kept");
        let reads = "trace=read,readv,pread64,preadv,preadv2,mmap";
        let only = content.to_str().expect("it is text");
        let Some(strace) = Strace::attach(server.pid(), &["-P", only, "-e", reads]) else { return };
        assert_eq!(upload.finish(&server), 19 * MIB);
        assert_eq!(strace.calls(), [""; 0]);
        assert!(server.files()["a"] == upload.bytes);
    }
}

#[test]
fn after_a_kill_an_upload_is_resumed_from_the_last_state_of_its_digest() {
    for sync in ["full", "none"] {
        let home = Server::home();
        let start = || Server::start_in(&home, &["--sync", sync]);
        let upload = Resumable::new(80 * MIB, "a");
        let mut state = 0;
        for end in [40 * MIB, 70 * MIB] {
            let mut server = start();
            let mut client = Client::to(server.tcp());
            assert_eq!(upload.send_until(&mut client, end), state, "{sync}");
            await_until("a later state", || last_state(&server) > state);
            server.signal(Signal::KILL);
            server.wait();
            state = last_state(&server);
            assert!((16 * MIB..=end).contains(&state), "{sync}: {state}");
        }
        let server = start();
        assert_eq!(upload.finish(&server), state, "{sync}");
        assert!(server.files()["a"] == upload.bytes);
    }
}

/// The offset of the last written digest state, of the only kept upload.
fn last_state(server: &Server) -> usize {
    let files = fs::read_dir(server.dir().join(".intake/kept")).expect("the directory always exists");
    let mut paths = files.map(|file| file.expect("an entry can be read").path());
    let record = paths.find(|path| path.extension().is_some()).and_then(|path| fs::read(path).ok()).unwrap_or_default();
    let offsets = record.chunks(512).skip(2).map(|slot| String::from_utf8_lossy(slot).into_owned());
    offsets.filter_map(|slot| slot.split(' ').next()?.parse().ok()).max().unwrap_or(0)
}

#[test]
fn an_upload_that_promises_another_digest_begins_anew() {
    let server = Server::start(&[]);
    let upload = Resumable::new(2 * MIB, "a");
    upload.break_off(&server, MIB);
    let request = upload.request.replace("crc32c", "sha256");
    assert_eq!(Client::to(server.tcp()).ask(request), "ok 0");
    assert_eq!(upload.finish(&server), 0, "the first one begins anew, too");
    assert!(server.files()["a"] == upload.bytes);
}

/// Sends all of `upload`, and disconnects while `inject` delays its sync.
fn leave_in_its_sync(server: &Server, upload: &Resumable, inject: &str) -> Option<Strace> {
    let mut client = Client::to(server.tcp());
    upload.send_until(&mut client, upload.bytes.len());
    await_held(server, upload.bytes.len());
    await_idle_disk(server);
    let strace = Strace::attach(server.pid(), &["-f", "-e", "trace=fdatasync", "-e", inject])?;
    client.send(&upload.trailer);
    await_until("all content to arrive", || server.log().contains("the content is whole: 9437184"));
    reset(client.stream);
    Some(strace)
}

#[test]
fn a_client_that_asks_again_during_the_sync_gets_the_outcome() {
    let known = |upload: &Resumable| upload.request.replace("crc32c=trailer", upload.trailer.trim());
    for kind in ["known", "same", "trailer"] {
        let server = Server::start(&["--trace"]);
        let before = server.descriptors();
        let upload = Resumable::new(9 * MIB, "a");
        // The name is in use, so the file gets another one.
        fs::write(server.dir().join("a"), "old").expect("it can be written");
        let inject = "inject=fdatasync:delay_enter=3s:when=1";
        let Some(_strace) = leave_in_its_sync(&server, &upload, inject) else { return };
        let mut client = Client::to(server.tcp());
        match kind {
            "known" => client.send(known(&upload)),
            "same" => client.send(known(&upload).replace(" resume", " on-exists=same resume")),
            _ => {
                assert_eq!(client.ask(&upload.request), format!("ok {}", upload.bytes.len()));
                client.send(&upload.trailer);
            }
        }
        assert_eq!(client.hear(), format!("{}.1", upload.done), "{kind}");
        assert_eq!(kept(&server), 0);
        // A client that missed this answer too asks again.
        assert_eq!(client.ask(known(&upload)), format!("{}.1", upload.done));
        assert_eq!(server.files().len(), 2, "{kind}: there is no second copy");
        assert!(server.files()["a.1"] == upload.bytes);
        // A published file that was removed since is uploaded like any other.
        fs::remove_file(server.dir().join("a.1")).expect("it exists");
        assert_eq!(client.ask(known(&upload)), "ok 0");
        drop(client);
        await_until("every descriptor to be closed", || server.descriptors() == before);
    }
}

#[test]
fn a_receipt_is_told_again_only_while_the_very_file_is_there_as_it_was_stored() {
    let server = Server::start(&["--on-exists", "replace"]);
    let (upload, other) = (Resumable::new(1000, "a"), content(1000, 12));
    let known = upload.request.replace("crc32c=trailer", upload.trailer.trim());
    let path = server.dir().join("a");
    let edit = |at: u64| {
        let file = fs::File::options().write(true).open(&path).expect("it exists");
        file.write_all_at(b"!", at).expect("it can be written");
        file
    };
    let changes: [(&str, &dyn Fn()); 6] = [
        ("another upload has taken its place", &|| {
            let mut client = Client::to(server.tcp());
            client.send("/put size=1000 a\n");
            assert_eq!(client.ask(&other), "done 1000 - a");
        }),
        ("another resumable upload has taken its place", &|| {
            let (attribute, told) = crc32c(&other);
            let mut client = Client::to(server.tcp());
            assert_eq!(client.ask(format!("/ask size=1000 {attribute} resume=id-1 a\n")), "ok 0");
            assert_eq!(client.ask(&other), format!("done 1000 {told} a"));
        }),
        ("another file was moved to its place", &|| {
            let modified = fs::metadata(&path).and_then(|meta| meta.modified()).expect("it exists");
            let beside = server.dir().join("beside");
            fs::write(&beside, &other).expect("it can be written");
            let file = fs::File::options().write(true).open(&beside).expect("it exists");
            file.set_modified(modified).expect("it is ours");
            fs::rename(beside, &path).expect("it can be moved");
        }),
        ("it was edited", &|| drop(edit(500))),
        ("it was made longer", &|| drop(edit(1000))),
        ("it was removed", &|| fs::remove_file(&path).expect("it exists")),
    ];
    for (change, make) in changes {
        assert_eq!(upload.finish(&server), 0, "before: {change}");
        let mut client = Client::to(server.tcp());
        assert_eq!(client.ask(&known), upload.done, "before: {change}");
        make();
        assert_eq!(client.ask(&known), "ok 0", "{change}");
        assert_eq!(client.ask(&upload.bytes), upload.done, "{change}");
        assert!(server.files() == [("a".to_owned(), upload.bytes.clone())].into(), "{change}");
    }
    // What others do with it without touching its content is no change.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert_eq!(Client::to(server.tcp()).ask(&known), upload.done);
}

#[test]
fn a_client_that_asks_again_during_a_sync_that_fails_uploads_again() {
    let server = Server::start(&["--trace"]);
    let upload = Resumable::new(9 * MIB, "a");
    let inject = "inject=fdatasync:error=ENOSPC:delay_enter=3s:when=1";
    let Some(_strace) = leave_in_its_sync(&server, &upload, inject) else { return };
    assert_eq!(upload.finish(&server), 0);
    assert!(server.files() == [("a".to_owned(), upload.bytes)].into());
}

#[test]
fn a_trailer_that_differs_from_the_published_digest_is_refused() {
    let server = Server::start(&["--trace"]);
    let upload = Resumable::new(9 * MIB, "a");
    let inject = "inject=fdatasync:delay_enter=3s:when=1";
    let Some(_strace) = leave_in_its_sync(&server, &upload, inject) else { return };
    let mut client = Client::to(server.tcp());
    assert_eq!(client.ask(&upload.request), format!("ok {}", upload.bytes.len()));
    client.send("crc32c=00000000\n");
    assert!(client.hear().starts_with("no 422 "));
    assert_eq!(client.ask("/put size=1 b\nx"), "done 1 - b");
    assert!(server.files()["a"] == upload.bytes);
}

#[test]
fn an_upload_that_another_living_server_owns_is_left_alone() {
    let home = Server::home();
    let (mut first, second) = (Server::start_in(&home, &[]), Server::start_in(&home, &[]));
    let upload = Resumable::new(2 * MIB, "a");
    let mut client = Client::to(first.tcp());
    upload.send_until(&mut client, MIB);
    await_held(&first, MIB);
    let refusal = Client::to(second.tcp()).ask(&upload.request);
    assert!(refusal.starts_with("no 409 retry=5 "), "{refusal}");
    first.signal(Signal::KILL);
    first.wait();
    assert_eq!(upload.finish(&second), 0, "the state of its digest was not yet written");
    assert!(second.files() == [("a".to_owned(), upload.bytes)].into());
}

#[test]
fn another_upload_or_a_wrong_digest_starts_anew() {
    let server = Server::start(&[]);
    let upload = Resumable::new(2 * MIB, "a");
    upload.break_off(&server, MIB);
    let mut client = Client::to(server.tcp());
    assert_eq!(client.ask(format!("/ask size={} crc32c=trailer resume=id-1 b\n", 2 * MIB)), "ok 0");
    assert_eq!(upload.break_off(&server, MIB), 0);

    // After a wrong digest the partial file is of no use, and the connection continues.
    let mut client = Client::to(server.tcp());
    assert_eq!(upload.send_until(&mut client, 2 * MIB), MIB);
    client.send("crc32c=00000000\n");
    assert!(client.hear().starts_with("no 422 "));
    assert_eq!((client.ask("/put size=1 c\nx"), kept(&server)), ("done 1 - c".into(), 0));
    assert_eq!(upload.finish(&server), 0);
}

#[test]
fn a_kept_upload_that_nobody_resumes_expires() {
    let home = Server::home();
    let server = Server::start_in(&home, &[]);
    let upload = Resumable::new(2 * MIB, "a");
    let mut client = Client::to(server.tcp());
    upload.send_until(&mut client, MIB);
    await_held(&server, MIB);
    for (ttl, left) in [("0ms", 2), ("1h", 2)] {
        drop(Server::start_in(&home, &["--partial-ttl", ttl]));
        assert_eq!(kept(&server), left, "the upload is in use");
    }
    reset(client.stream);
    drop(server);
    for (ttl, left) in [("1h", 2), ("0ms", 0)] {
        let server = Server::start_in(&home, &["--partial-ttl", ttl]);
        assert_eq!(kept(&server), left, "{ttl}");
    }
}

#[test]
fn a_server_whose_own_files_were_removed_makes_them_again_and_says_so_once() {
    for sync in ["full", "none"] {
        let server = Server::start(&["--on-exists", "replace", "--sync", sync]);
        let intake = server.dir().join(".intake");
        let lock_directory = || {
            let entries = fs::read_dir(&intake).expect("it exists");
            let mut paths = entries.map(|entry| entry.expect("an entry can be read").path());
            paths.find(|path| !path.ends_with("kept")).expect("the server has one")
        };
        for (number, removed) in
            (1..).zip([&lock_directory as &dyn Fn() -> _, &|| intake.clone(), &|| intake.join("kept")])
        {
            let cut_off = classic_begin(server.tcp(), "cut-off").expect("the name is accepted");
            fs::remove_dir_all(removed()).expect("it can be removed");
            for name in ["a", "b"] {
                classic(server.tcp(), "classic", b"content").expect("the upload is accepted");
                assert_eq!(Resumable::new(7, name).finish(&server), 0);
            }
            let lost = is_reset(&classic_finish(cut_off, b"content"));
            assert_eq!(lost, number < 3, "removal {number}: only the partial files in it are lost");
            let warnings = server.log().matches("somebody removed the server's own files").count();
            assert_eq!(warnings, number, "{}", server.log());
        }
    }
}

#[test]
fn an_upload_on_another_living_server_is_not_resumed_here() {
    let home = Server::home();
    let (mut first, second) = (Server::start_in(&home, &[]), Server::start_in(&home, &[]));
    let upload = Resumable::new(3 * MIB, "a");
    let mut client = Client::to(first.tcp());
    assert_eq!(upload.send_until(&mut client, MIB), 0);
    await_held(&first, MIB);
    let reply = Client::to(second.tcp()).ask(&upload.request);
    assert!(reply.starts_with("no 409 retry=5 "), "{reply}");
    first.signal(Signal::KILL);
    first.wait();
    assert_eq!(upload.finish(&second), 0, "the state of its digest was not yet written");
    assert_eq!(second.files(), [("a".to_owned(), upload.bytes)].into());
}

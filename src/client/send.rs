//! Sends files: a few connections, each with as many uploads as it takes, until every file has its outcome.
//!
//! ```text
//! uploads -- one by one --> job -- over one connection after the other --> conversation
//!                            ^                                                 |
//!                            +---- how each ended; what to try again ----------+
//! ```

mod content;
mod conversation;
mod job;

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

pub use content::{Content, Source, SourceError};
use job::{Job, Shared};

use crate::proto::{Algorithm, Code, Dialect, Failure, Name, Refusal, Stored};

/// How to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The addresses of the server, in the order in which they are tried.
    pub to: Vec<SocketAddr>,
    /// How to speak to it. `None`: put, and from [`Plan::LARGE_BYTES`] on ask, which can be resumed.
    pub dialect: Option<Dialect>,
    /// By which digest the server checks what it got, in put and ask.
    pub algorithm: Algorithm,
    /// The most connections at once.
    pub jobs: usize,
    /// How often in a row a file may fail for a passing reason and is tried again, unless it got further in between.
    pub retries: u32,
    /// The longest wait for the server to say something or to take more.
    pub patience: Duration,
}

/// A file, and what it is to be called.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where its content comes from.
    pub source: Source,
    /// Its name at the server.
    pub name: Name,
}

/// What happens while files are sent. Uploads are told by their place in the list.
#[derive(Debug)]
pub enum Event<'a> {
    /// Content was read, for sending or because the server holds it already.
    Progress {
        /// Which connection, from 0.
        job: usize,
        /// Which upload.
        upload: usize,
        /// How much of it is dealt with, in bytes.
        position: u64,
    },
    /// Uploads failed, and are tried again after a pause.
    Again {
        /// How many.
        uploads: usize,
        /// Why the first of them failed.
        error: &'a SendError,
        /// How long the pause is.
        pause: Duration,
    },
    /// An upload has ended.
    Settled {
        /// Which upload.
        upload: usize,
        /// How.
        result: &'a Result<Sent, SendError>,
    },
}

/// An upload that ended well.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The content's size in bytes.
    pub size: u64,
    /// From its request until its receipt.
    pub elapsed: Duration,
    /// How the server confirmed it.
    pub stored: Stored,
}

/// Why an upload failed.
#[derive(Debug)]
pub enum SendError {
    /// No address accepted the connection; the last one's error.
    Connect(ErrorKind),
    /// The server neither said anything nor took more.
    Silence {
        /// For how long.
        patience: Duration,
        /// Whether all was sent.
        may_be_stored: bool,
    },
    /// The network failed.
    Network {
        /// How.
        kind: ErrorKind,
        /// Whether all was sent.
        may_be_stored: bool,
    },
    /// The conversation ended in a failure.
    Failed(Failure),
    /// The server is none of this protocol; the start of what it said.
    Foreign(String),
    /// The content cannot be read, or not to its end.
    Source(SourceError),
}

/// Sends `uploads`, and tells `on_event`, which is called from several threads. Uploads of which it never hears that they
/// are settled were not tried, because there is no server to talk to.
pub fn send(plan: &Plan, uploads: &[Upload], on_event: impl Fn(Event<'_>) + Sync) {
    let shared = Shared::new(plan, uploads, &on_event);
    thread::scope(|scope| {
        for number in 0..plan.jobs.min(uploads.len()) {
            let job = Job::new(number, &shared);
            scope.spawn(|| job.run());
        }
    });
}

impl Plan {
    /// From this size on, in bytes, a file is worth a round trip to learn how much of it the server holds.
    pub const LARGE_BYTES: u64 = 8 << 20;

    /// Whether the server can tell the end of an upload from a broken connection.
    fn is_framed(&self) -> bool {
        self.dialect.is_none_or(Dialect::is_framed)
    }

    fn dialect_for(size: Option<u64>) -> Dialect {
        match size {
            Some(Self::LARGE_BYTES..) => Dialect::Ask,
            _ => Dialect::Put,
        }
    }
}

/// To nowhere. Two connections keep the server busy while one of them waits for a reply. CRC-32C finds what networks and
/// disks do to a file at next to no cost to either side. 60 s is what the server grants its clients.
impl Default for Plan {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            dialect: None,
            algorithm: Algorithm::Crc32c,
            jobs: 2,
            retries: 3,
            patience: Duration::from_secs(60),
        }
    }
}

impl SendError {
    /// Whether there is nobody to talk to, as far as is known.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Silence { .. })
    }

    /// Whether the server may have stored the file all the same.
    pub fn may_be_stored(&self) -> bool {
        match self {
            Self::Silence { may_be_stored, .. } | Self::Network { may_be_stored, .. } => *may_be_stored,
            Self::Failed(failure) => failure.may_be_stored(),
            Self::Connect(_) | Self::Foreign(_) | Self::Source(_) => false,
        }
    }

    /// Whether no other upload will fare better.
    fn is_hopeless(&self) -> bool {
        self.is_unreachable() || matches!(self, Self::Foreign(_) | Self::Failed(Failure::OnlyClassic))
    }

    /// Whether it was another upload that failed.
    fn is_bystanders(&self) -> bool {
        matches!(self, Self::Failed(Failure::Unserved))
    }

    /// Whether it may be otherwise the next time.
    fn is_temporary(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Silence { .. } | Self::Network { .. } => true,
            // The server has dropped what came damaged, or was damaged there by a power cut: it is sent again from the start.
            Self::Failed(Failure::Refused(Refusal { code: Code::TIMEOUT | Code::MISMATCH, .. })) => true,
            Self::Failed(Failure::Refused(refusal)) => refusal.retry_seconds.is_some(),
            Self::Failed(Failure::OnlyClassic | Failure::Foreign | Failure::WrongReceipt(_)) => false,
            Self::Failed(_) => true,
            Self::Foreign(_) | Self::Source(_) => false,
        }
    }

    /// How long the server wants to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(Failure::Refused(Refusal { retry_seconds, .. })) => {
                retry_seconds.map(|seconds| Duration::from_secs(seconds.into()))
            }
            _ => None,
        }
    }
}

impl From<SourceError> for SendError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(kind) => write!(f, "cannot connect: {kind}"),
            Self::Silence { patience, .. } => {
                write!(f, "the server was silent for {} s; {}", patience.as_secs_f64(), self.fate())
            }
            Self::Network { kind, .. } => write!(f, "the connection failed: {kind}; {}", self.fate()),
            Self::Failed(failure) => failure.fmt(f),
            Self::Foreign(said) => write!(f, "{}; it said {said:?}", Failure::Foreign),
            Self::Source(error) => error.fmt(f),
        }
    }
}

impl SendError {
    fn fate(&self) -> &'static str {
        if self.may_be_stored() { "the file may be stored or not" } else { "the file is not stored" }
    }
}

impl std::error::Error for SendError {}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::sync::Mutex;

    use socket2::SockRef;
    use tempfile::TempDir;

    use super::*;
    use crate::proto::{NamePolicy, Receipt};

    const MANY: usize = 20;
    /// More than the socket buffers of both sides hold.
    const HUGE_BYTES: u64 = 1 << 30;

    /// Files to send, the way they are sent, and what came of it.
    struct Bench {
        directory: TempDir,
        uploads: Vec<Upload>,
        plan: Plan,
    }

    type Ending = Result<(u64, Stored), String>;

    /// How each upload ended, and for what each other attempt was made.
    #[derive(Debug, Default)]
    struct Log {
        settled: Vec<(usize, Ending)>,
        again: Vec<String>,
        position: u64,
    }

    impl Bench {
        fn new(dialect: impl Into<Option<Dialect>>) -> Self {
            let plan = Plan { dialect: dialect.into(), jobs: 1, retries: 0, ..Plan::default() };
            Self { directory: tempfile::tempdir().unwrap(), uploads: Vec::new(), plan }
        }

        /// Another file, of zeros.
        fn file(mut self, size: u64) -> Self {
            let name = format!("{}.txt", self.uploads.len());
            let path = self.directory.path().join(&name);
            File::create(&path).unwrap().set_len(size).unwrap();
            let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
            self.uploads.push(Upload { source: Source::File(path), name });
            self
        }

        fn path(&self, upload: usize) -> PathBuf {
            self.directory.path().join(self.uploads[upload].name.as_str())
        }

        fn retries(mut self, retries: u32) -> Self {
            self.plan.retries = retries;
            self
        }

        /// Sends to a server that plays `scripts`, one a connection, and after them refuses connections.
        fn send<T: Send + 'static>(&mut self, scripts: Vec<fn(TcpStream) -> T>) -> (Log, Vec<T>) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            self.plan.to = vec![listener.local_addr().unwrap()];
            let server =
                thread::spawn(move || scripts.into_iter().map(|script| script(listener.accept().unwrap().0)).collect());
            let log = self.log();
            (log, server.join().unwrap())
        }

        fn log(&self) -> Log {
            let log = Mutex::new(Log::default());
            send(&self.plan, &self.uploads, |event| {
                let mut log = log.lock().unwrap();
                match event {
                    Event::Progress { position, .. } => log.position = position,
                    Event::Again { error, .. } => log.again.push(error.to_string()),
                    Event::Settled { upload, result } => {
                        let result = result.as_ref().map(|sent| (sent.size, sent.stored.clone()));
                        log.settled.push((upload, result.map_err(ToString::to_string)));
                    }
                }
            });
            log.into_inner().unwrap()
        }
    }

    impl Log {
        /// How the only upload failed.
        fn error(&self) -> &str {
            match self.settled.as_slice() {
                [(0, Err(error))] => error,
                other => panic!("{other:?}"),
            }
        }

        fn stored(&self) -> Vec<usize> {
            self.settled.iter().filter(|(_, result)| result.is_ok()).map(|(upload, _)| *upload).collect()
        }
    }

    fn read_line(stream: &mut impl BufRead) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    }

    fn read_to_end(mut stream: &TcpStream) -> io::Result<usize> {
        let mut read = Vec::new();
        stream.read_to_end(&mut read)
    }

    fn say(mut stream: &TcpStream, words: &str) {
        stream.write_all(words.as_bytes()).unwrap();
    }

    fn reset(stream: TcpStream) {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// What a receiver of the tutorials does. Returns how much came, and whether the end was a clean one.
    fn tutorial(mut stream: TcpStream) -> (usize, bool) {
        let length = stream.read(&mut [0; 4096]).unwrap();
        say(&stream, "ok");
        match read_to_end(&stream) {
            Ok(rest) => (length + rest, true),
            Err(_) => (length, false),
        }
    }

    #[test]
    fn a_tutorial_server_gets_every_byte() {
        for size in [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3_000_000] {
            let mut bench = Bench::new(Dialect::Classic).file(size);
            let (log, server) = bench.send(vec![tutorial]);
            assert_eq!(log.settled, [(0, Ok((size, Stored::Closed)))]);
            assert_eq!((log.position, server.as_slice()), (size, &[(size as usize + "0.txt".len(), true)][..]));
        }
    }

    #[test]
    fn ok_in_two_segments_is_ok() {
        let (log, _) = Bench::new(Dialect::Classic).file(5).send(vec![|stream| {
            stream.set_nodelay(true).unwrap();
            say(&stream, "o");
            say(&stream, "k");
            read_to_end(&stream).unwrap()
        }]);
        assert_eq!(log.stored(), [0]);
    }

    #[test]
    fn a_refusal_instead_of_ok_is_told_and_nothing_is_sent() {
        let (log, read) = Bench::new(Dialect::Classic).file(HUGE_BYTES).send(vec![|stream| {
            say(&stream, "no 409 the name is taken\n");
            read_to_end(&stream).unwrap_or_default()
        }]);
        assert!(log.error().contains("the name is taken"), "{log:?}");
        assert!(read[0] <= "0.txt".len());
    }

    #[test]
    fn a_reset_in_mid_file_or_after_it_is_a_failure() {
        let in_mid_file: fn(TcpStream) = |mut stream| {
            stream.read_exact(&mut [0; 5]).unwrap();
            say(&stream, "ok");
            stream.read_exact(&mut [0; 1000]).unwrap();
            reset(stream);
        };
        let after_it: fn(TcpStream) = |mut stream| {
            stream.read_exact(&mut [0; 5]).unwrap();
            say(&stream, "ok");
            read_to_end(&stream).unwrap();
            reset(stream);
        };
        for (size, script) in [(HUGE_BYTES, in_mid_file), (5, after_it)] {
            let (log, _) = Bench::new(Dialect::Classic).file(size).send(vec![script]);
            assert_eq!(log.error(), Failure::Reset.to_string());
        }
    }

    #[test]
    fn a_server_that_closes_at_once_has_stored_nothing() {
        for dialect in [Dialect::Classic, Dialect::Ask] {
            let (log, _) = Bench::new(dialect).file(5).send(vec![|mut stream| stream.read(&mut [0; 4096]).unwrap()]);
            assert_eq!(log.error(), Failure::Unanswered.to_string());
        }
    }

    #[test]
    fn another_kind_of_server_is_told_by_what_it_says() {
        for dialect in [Dialect::Classic, Dialect::Line, Dialect::Put, Dialect::Ask] {
            let mut bench = Bench::new(dialect).file(HUGE_BYTES).file(5).retries(3);
            let (log, _) = bench.send(vec![|stream| {
                say(&stream, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
                let _ = read_to_end(&stream);
            }]);
            assert!(log.error().ends_with("it said \"HTTP/1.1 400 Bad Request\""), "{log:?}");
        }
    }

    #[test]
    fn a_classic_server_is_recognised_and_gets_no_clean_end() {
        for (dialect, size) in [(Dialect::Put, 5), (Dialect::Put, HUGE_BYTES), (Dialect::Ask, 5)] {
            let (log, ended) = Bench::new(dialect).file(size).file(5).retries(3).send(vec![tutorial]);
            assert_eq!(log.settled[0], (0, Err(Failure::OnlyClassic.to_string())));
            assert!(!ended[0].1, "it would take half a file for a whole one");
        }
    }

    #[test]
    fn a_receipt_confirms_a_line_upload() {
        let (log, _) = Bench::new(Dialect::Line).file(5).send(vec![|stream| {
            say(&stream, "ok\n");
            assert_eq!(read_to_end(&stream).unwrap(), "0.txt\n".len() + 5);
            say(&stream, "done 5 - 0.txt.1\n");
        }]);
        let receipt = Receipt { size: 5, digest: None, stored_name: "0.txt.1".into() };
        assert_eq!(log.settled, [(0, Ok((5, Stored::Receipt(receipt))))]);
    }

    #[test]
    fn a_refusal_in_mid_file_stops_the_content() {
        for dialect in [Dialect::Line, Dialect::Put] {
            let (log, _) = Bench::new(dialect).file(HUGE_BYTES).send(vec![|mut stream| {
                say(&stream, "no 413 too large\n");
                // Returns only because the sender stops.
                let _ = io::copy(&mut stream, &mut io::sink());
            }]);
            assert!(log.error().contains("too large"), "{log:?}");
        }
    }

    #[test]
    fn a_reason_given_before_a_reset_is_read() {
        for dialect in [Dialect::Line, Dialect::Put] {
            let (log, _) = Bench::new(dialect).file(HUGE_BYTES).send(vec![|mut stream| {
                stream.read_exact(&mut [0; 100_000]).unwrap();
                say(&stream, "no 500 the disk is broken\n");
                // The bytes left unread turn the close into an RST (RFC 1122 4.2.2.13), behind what was said.
            }]);
            assert!(log.error().contains("the disk is broken"), "{log:?}");
        }
    }

    #[test]
    fn a_silent_server_is_not_waited_for_for_ever() {
        for dialect in [Dialect::Classic, Dialect::Line, Dialect::Put, Dialect::Ask] {
            let mut bench = Bench::new(dialect).file(HUGE_BYTES);
            bench.plan.patience = Duration::from_millis(20);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            bench.plan.to = vec![listener.local_addr().unwrap()];
            assert!(bench.log().error().starts_with("the server was silent"), "{dialect:?}");
        }
    }

    #[test]
    fn the_next_address_is_tried_and_nobody_there_is_an_error() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(conversation::connect(&[gone, listener.local_addr().unwrap()]).is_ok());
        assert!(conversation::connect(&[]).is_err());
        let mut bench = Bench::new(None).file(5).file(5);
        bench.plan.to = vec![gone];
        let log = bench.log();
        assert!(log.error().starts_with("cannot connect"), "the second file is not tried: {log:?}");
    }

    #[test]
    fn many_small_files_are_sent_without_waiting() {
        let mut bench = Bench::new(None);
        for _ in 0..MANY {
            bench = bench.file(3);
        }
        let (log, _) = bench.send(vec![|stream| {
            let mut reader = BufReader::new(&stream);
            for number in 0..MANY {
                assert_eq!(read_line(&mut reader), format!("/put size=3 crc32c=trailer ./{number}.txt\n"));
                reader.read_exact(&mut [0; 3]).unwrap();
                assert_eq!(read_line(&mut reader), "crc32c=6064a37a\n");
            }
            for number in 0..MANY {
                match number {
                    7 => say(&stream, "no 409 the name is taken\n"),
                    _ => say(&stream, &format!("done 3 crc32c:6064a37a {number}.txt\n")),
                }
            }
            assert_eq!(read_to_end(&stream).unwrap(), 0);
        }]);
        assert_eq!(log.stored(), (0..MANY).filter(|number| *number != 7).collect::<Vec<_>>());
        assert_eq!(log.settled.len(), MANY);
    }

    #[test]
    fn what_the_server_holds_is_not_sent_again() {
        let (log, _) = Bench::new(None).file(Plan::LARGE_BYTES).send(vec![|stream| {
            let mut reader = BufReader::new(&stream);
            let line = read_line(&mut reader);
            assert!(line.starts_with("/ask size=8388608 crc32c=trailer resume="), "{line}");
            say(&stream, "ok 8388000\n");
            reader.read_exact(&mut [0; 608]).unwrap();
            let digest = read_line(&mut reader);
            say(&stream, &format!("done 8388608 {} 0.txt\n", digest.trim().replace('=', ":")));
        }]);
        assert_eq!((log.stored(), log.position), (vec![0], Plan::LARGE_BYTES));
    }

    #[test]
    fn an_unknown_outcome_is_asked_for_again_by_its_digest() {
        let first: fn(TcpStream) = |stream| {
            read_line(&mut BufReader::new(&stream));
            say(&stream, "done 3 crc32c:6064a37a 0.txt\n");
            reset(stream);
        };
        let second: fn(TcpStream) = |stream| {
            let mut reader = BufReader::new(&stream);
            let line = read_line(&mut reader);
            assert_eq!(line, "/put size=3 crc32c=6064a37a on-exists=same ./1.txt\n");
            say(&stream, "done 3 crc32c:6064a37a 1.txt\n");
            let _ = read_to_end(&stream);
        };
        let mut bench = Bench::new(None).file(3).file(3).retries(1);
        let (log, _) = bench.send(vec![first, second]);
        assert_eq!(log.stored(), [0, 1]);
        assert_eq!(log.again, [Failure::Unknown.to_string()]);
    }

    #[test]
    fn a_passing_refusal_is_tried_again_as_often_as_allowed_and_costs_the_others_nothing() {
        let busy: fn(TcpStream) = |stream| {
            read_line(&mut BufReader::new(&stream));
            say(&stream, "no 503 retry=0 busy\n");
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = read_to_end(&stream);
        };
        let (log, _) = Bench::new(None).file(3).retries(1).send(vec![busy, busy]);
        assert!(log.error().contains("busy") && log.again.len() == 1, "{log:?}");
        let rest: fn(TcpStream) = |stream| {
            let mut reader = BufReader::new(&stream);
            assert_eq!(read_line(&mut reader), "/put size=3 crc32c=trailer ./1.txt\n");
            say(&stream, "done 3 crc32c:6064a37a 1.txt\n");
            let _ = read_to_end(&stream);
        };
        let (log, _) = Bench::new(None).file(3).file(3).send(vec![busy, rest]);
        assert_eq!((log.settled.len(), log.stored(), log.again.len()), (2, vec![1], 0));
    }

    #[test]
    fn content_that_came_damaged_is_sent_again_as_often_as_allowed() {
        let damaged: fn(TcpStream) = |stream| {
            read_line(&mut BufReader::new(&stream));
            say(&stream, "no 422 the content has another digest\n");
            let _ = read_to_end(&stream);
        };
        let right: fn(TcpStream) = |stream| {
            assert_eq!(read_line(&mut BufReader::new(&stream)), "/put size=3 crc32c=6064a37a ./0.txt\n");
            say(&stream, "done 3 crc32c:6064a37a 0.txt\n");
            let _ = read_to_end(&stream);
        };
        let (log, _) = Bench::new(None).file(3).retries(1).send(vec![damaged, right]);
        assert_eq!((log.stored(), log.again.len()), (vec![0], 1));
        let (log, _) = Bench::new(None).file(3).retries(1).send(vec![damaged, damaged]);
        assert!(log.error().contains("another digest") && log.again.len() == 1, "{log:?}");
    }

    #[test]
    fn a_file_that_shrinks_ends_in_a_reset_after_the_outcomes_before_it() {
        let mut bench = Bench::new(None).file(3).file(HUGE_BYTES);
        bench.plan.dialect = Some(Dialect::Put);
        let path = bench.path(1);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bench.plan.to = vec![listener.local_addr().unwrap()];
        let server = thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            while !read_line(&mut reader).ends_with("./1.txt\n") {}
            fs::write(path, b"").unwrap();
            say(reader.get_ref(), "done 3 crc32c:6064a37a 0.txt\n");
            io::copy(&mut reader, &mut io::sink()).unwrap_err().kind()
        });
        let log = bench.log();
        assert_eq!((log.stored(), log.settled.len()), (vec![0], 2));
        assert!(matches!(&log.settled[1], (1, Err(error)) if error.contains("has shrunk")), "{log:?}");
        assert_eq!(server.join().unwrap(), ErrorKind::ConnectionReset);
    }
}

//! The outcome of each file as one JSON object a line, for the operator's programs (`--events`).
//!
//! An outcome is written when its client could know it, and never before: once the reply is written to the socket, or once the
//! connection has ended. Until then it waits here, so a connection has no more of them than it has replies.
//!
//! A reader that is too slow does not stop the loop: events are dropped and counted. So they are for people who look and for
//! programs that count, not for work that must not be lost.
//!
//! `docs/operations.md` has the fields. Knows facts, and neither connections nor the turn.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use rustix::fs::OFlags;
use serde_json::json;

use super::ending::{CloseReason, Filed};
use super::files::Fate;
use super::{Fact, Whom};
use crate::net::LineSink;
use crate::proto::{Dialect, Digest, Name, Refusal, Ticket};
use crate::reactor::{Id, Moment};

/// The most characters of a text that others have written: with all of them, an event fits into one write.
const TEXT_MAX_CHARS: usize = 300;

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventsTo {
    /// To the end of a file, or to a named pipe.
    File(PathBuf),
    /// To a Unix socket, one datagram each.
    Unix(PathBuf),
    /// To standard output.
    Stdout,
}

/// Writes the outcomes of all files.
#[derive(Debug)]
pub struct Events {
    out: Out,
    /// Events that were dropped, besides those that `out` has counted.
    dropped: u64,
    /// Connections that have had an outcome.
    open: HashMap<Id, Open>,
    /// The time of the turn.
    now: Moment,
    /// The same in seconds since the epoch.
    time_of_day: u64,
}

/// An open destination.
#[derive(Debug)]
pub enum Out {
    /// A file, a pipe or standard output.
    Lines(LineSink<File>),
    /// A socket that does not block, and the address, so that a reader that was restarted is found again.
    Datagrams(UnixDatagram, SocketAddr),
}

/// A connection that has had an outcome.
#[derive(Debug)]
struct Open {
    /// Outcomes that its client may not know yet.
    untold: Vec<Untold>,
    /// When the last outcome was.
    since: Moment,
}

#[derive(Debug)]
struct Untold {
    /// The request that the reply answers. `None`: the end of the connection is the answer.
    ticket: Option<Ticket>,
    line: String,
}

/// What has become of a file.
struct Outcome<'a> {
    fate: Fate,
    asked: &'a Name,
    stored: Option<&'a Name>,
    size: Option<u64>,
    digest: Option<Digest>,
    dialect: Dialect,
    code: Option<u16>,
    reason: Option<String>,
    told: Told,
}

/// When the client can know an outcome.
enum Told {
    /// It never will.
    Never,
    By(Ticket),
    ByTheEnd,
}

impl fmt::Display for EventsTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

impl Out {
    /// Opens the destination. A socket need not exist yet.
    ///
    /// # Errors
    /// In words, for the operator.
    pub fn open(to: &EventsTo) -> Result<Self, String> {
        let opened = match to {
            EventsTo::File(path) => open_file(path.clone()),
            EventsTo::Stdout => io::stdout().as_fd().try_clone_to_owned().map(|fd| Self::lines(fd.into())),
            EventsTo::Unix(path) => SocketAddr::from_pathname(path).and_then(|address| {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                Ok(Self::Datagrams(socket, address))
            }),
        };
        opened.map_err(|error| format!("--events: cannot open {to}: {error}"))
    }

    fn lines(file: File) -> Self {
        Self::Lines(LineSink::new(file, None))
    }
}

/// Opened without waiting: a pipe would stop the server until somebody reads it.
fn open_file(path: PathBuf) -> io::Result<Out> {
    let flags = OFlags::NONBLOCK.bits().try_into().expect("a flag of open(2) fits");
    // Addresses and names are for the operator and his group.
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path);
    opened.map(Out::lines).map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => {
            io::Error::other("nobody reads this pipe: start its reader first")
        }
        _ => error,
    })
}

impl Events {
    /// Writes to `out`.
    pub fn new(out: Out) -> Self {
        Self { out, dropped: 0, open: HashMap::new(), now: Moment::default(), time_of_day: 0 }
    }

    /// Writes to `out` from now on.
    pub fn redirect(&mut self, out: Out) {
        self.flush();
        self.dropped = self.dropped();
        self.out = out;
    }

    /// The number of events that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        match &self.out {
            Out::Lines(sink) => self.dropped + sink.dropped().load(Ordering::Relaxed),
            Out::Datagrams(..) => self.dropped,
        }
    }

    /// A turn begins at `now`, which is `time_of_day` in seconds since the epoch.
    pub fn begin_turn(&mut self, now: Moment, time_of_day: u64) {
        (self.now, self.time_of_day) = (now, time_of_day);
    }

    /// Hears a fact about the connection `id`, which `whom` is at the other end of.
    pub fn hear(&mut self, id: Id, whom: &Whom, fact: &Fact) {
        let Some(outcome) = outcome(fact) else { return };
        let now = self.now;
        if matches!(outcome.told, Told::Never) {
            let line = self.line(id, whom, &outcome, None);
            return self.write(&line);
        }
        let since = self.open.get(&id).map_or(whom.accepted, |open| open.since);
        let line = self.line(id, whom, &outcome, Some(now.since(since).as_secs_f64()));
        let ticket = if let Told::By(ticket) = outcome.told { Some(ticket) } else { None };
        let open = self.open.entry(id).or_insert_with(|| Open { untold: Vec::new(), since });
        open.since = now;
        open.untold.push(Untold { ticket, line });
    }

    /// Whether a connection has outcomes that its client may not know yet.
    pub fn has_untold(&self, id: Id) -> bool {
        self.open.get(&id).is_some_and(|open| !open.untold.is_empty())
    }

    /// All replies of the connection to requests before `ticket` are written.
    pub fn told(&mut self, id: Id, ticket: Ticket) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let is_told = |untold: &mut Untold| untold.ticket.is_some_and(|of| of < ticket);
        let told: Vec<Untold> = open.untold.extract_if(.., is_told).collect();
        told.iter().for_each(|told| self.write(&told.line));
    }

    /// The connection has ended.
    pub fn closed(&mut self, id: Id) {
        let untold = self.open.remove(&id).map(|open| open.untold);
        untold.into_iter().flatten().for_each(|untold| self.write(&untold.line));
    }

    /// Writes what has been collected.
    pub fn flush(&mut self) {
        if let Out::Lines(sink) = &mut self.out {
            // It never fails.
            let _ = sink.flush();
        }
    }

    fn write(&mut self, line: &str) {
        match &mut self.out {
            Out::Lines(sink) => {
                // It never fails.
                let _ = sink.write(format!("{line}\n").as_bytes());
            }
            Out::Datagrams(socket, address) => {
                if socket.send_to_addr(line.as_bytes(), address).is_err() {
                    self.dropped += 1;
                }
            }
        }
    }

    fn line(&self, id: Id, whom: &Whom, outcome: &Outcome, seconds: Option<f64>) -> String {
        let result = Fate::WORDS.iter().find(|(_, fate)| *fate == outcome.fate).map(|(word, _)| *word);
        let event = json!({
            "at": self.time_of_day,
            "id": id.to_bits(),
            "who": whom.who().map(|who| cut(who.as_str())),
            "peer": whom.peer().to_string(),
            "dialect": outcome.dialect.word(),
            "name": outcome.asked.as_str(),
            "stored": outcome.stored.map(Name::as_str),
            "size": outcome.size,
            "digest": outcome.digest.as_ref().map(ToString::to_string),
            // Rounded: a turn reads the clock once.
            "seconds": seconds.map(|seconds| (seconds * 1e6).round() / 1e6),
            "result": result,
            "code": outcome.code,
            "reason": outcome.reason.as_deref().map(cut),
        });
        event.to_string()
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX_CHARS).collect()
}

/// The outcome of a file, if the fact is one.
fn outcome<'a>(fact: &Fact<'a>) -> Option<Outcome<'a>> {
    match *fact {
        Fact::Stored { filed, stored } => {
            let told = if filed.dialect.has_receipt() { Told::By(filed.whole.ticket) } else { Told::ByTheEnd };
            Some(Outcome { stored: Some(stored), told, ..of(filed, Fate::Stored) })
        }
        Fact::StoredForNobody { filed, stored } => {
            let reason = Some("the connection had ended before the file was stored".into());
            Some(Outcome { stored: Some(stored), reason, ..of(filed, Fate::Stored) })
        }
        Fact::LostForNobody { filed, error } => {
            Some(Outcome { reason: Some(error.to_string()), ..of(filed, Fate::Lost) })
        }
        Fact::Refused { refusal, name: Some(name), dialect, ticket } => {
            Some(refused(refusal, name, dialect, Told::By(ticket)))
        }
        Fact::Closed { reason: CloseReason::Refused(refusal, Some(name)), dialect, .. } => {
            Some(refused(refusal, name, dialect, Told::ByTheEnd))
        }
        Fact::Closed { reason: CloseReason::Lost(error), uploading: Some(name), dialect, .. } => Some(Outcome {
            fate: Fate::Lost,
            asked: name,
            stored: None,
            size: None,
            digest: None,
            dialect,
            code: None,
            reason: Some(error.to_string()),
            told: Told::ByTheEnd,
        }),
        _ => None,
    }
}

fn of(filed: &Filed, fate: Fate) -> Outcome<'_> {
    Outcome {
        fate,
        asked: &filed.asked,
        stored: None,
        size: Some(filed.whole.size),
        digest: filed.whole.digest,
        dialect: filed.dialect,
        code: None,
        reason: None,
        told: Told::Never,
    }
}

fn refused<'a>(refusal: &Refusal, name: &'a Name, dialect: Dialect, told: Told) -> Outcome<'a> {
    Outcome {
        fate: Fate::Refused,
        asked: name,
        stored: None,
        size: None,
        digest: None,
        dialect,
        code: Some(refusal.code.0),
        reason: Some(refusal.words.to_string()),
        told,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::proto::{Code, NamePolicy, Whole};
    use crate::reactor::Slots;

    fn name(name: &str) -> Name {
        Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
    }

    fn filed(dialect: Dialect, ticket: u64) -> Filed {
        let whole = Whole { ticket: Ticket(ticket), size: 7, digest: None, code_if_taken: Code::CONFLICT };
        let peer = ([192, 0, 2, 1], 9).into();
        Filed { peer, who: None, whole, charge: None, asked: name("a"), dialect, is_alone: false, is_proven: false }
    }

    /// Events of one connection, and what is written.
    struct Stage {
        events: Events,
        file: tempfile::NamedTempFile,
        id: Id,
        whom: Whom,
    }

    impl Stage {
        fn new() -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            let events = Events::new(Out::open(&EventsTo::File(file.path().into())).unwrap());
            let whom = Whom::new(([192, 0, 2, 1], 9).into(), Moment::default());
            Self { events, file, id: Slots::default().insert(()), whom }
        }

        fn hear(&mut self, fact: &Fact) {
            self.events.hear(self.id, &self.whom, fact);
        }

        /// The names of the stored files, and the codes of the others.
        fn written(&mut self) -> Vec<String> {
            self.events.flush();
            let text = fs::read_to_string(self.file.path()).unwrap();
            let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            events.map(|event| event["stored"].as_str().map_or(event["code"].to_string(), str::to_owned)).collect()
        }
    }

    #[test]
    fn an_event_waits_for_the_reply_to_its_request() {
        let mut stage = Stage::new();
        stage.hear(&Fact::Stored { filed: &filed(Dialect::Put, 2), stored: &name("second") });
        let refusal = Refusal::new(Code::CONFLICT, "taken");
        let refused = name("x");
        let (name_of, dialect) = (Some(&refused), Dialect::Put);
        stage.hear(&Fact::Refused { refusal: &refusal, name: name_of, dialect, ticket: Ticket(3) });
        assert!(stage.written().is_empty() && stage.events.has_untold(stage.id));
        stage.events.told(stage.id, Ticket(2));
        assert!(stage.written().is_empty(), "the reply to the first request is written");
        stage.events.told(stage.id, Ticket(3));
        assert_eq!(stage.written(), ["second"]);
        stage.events.told(stage.id, Ticket(u64::MAX));
        assert_eq!(stage.written(), ["second", "409"]);
        assert!(!stage.events.has_untold(stage.id));
    }

    #[test]
    fn without_a_receipt_the_end_of_the_connection_tells_it() {
        let mut stage = Stage::new();
        stage.hear(&Fact::Stored { filed: &filed(Dialect::Classic, 1), stored: &name("a") });
        stage.events.told(stage.id, Ticket(u64::MAX));
        assert!(stage.written().is_empty());
        stage.events.closed(stage.id);
        assert_eq!(stage.written(), ["a"]);
        stage.hear(&Fact::StoredForNobody { filed: &filed(Dialect::Classic, 1), stored: &name("b") });
        assert_eq!(stage.written(), ["a", "b"], "its client is gone already");
    }

    #[test]
    fn the_longest_event_fits_into_one_write() {
        let mut stage = Stage::new();
        stage.whom = Whom::new("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap(), Moment::default())
            .with_name(Some(crate::access::Who::new(&"\"".repeat(5000))));
        let (long, refusal) = (name(&"\"".repeat(255)), Refusal::new(Code::CONFLICT, "\"".repeat(5000)));
        stage.hear(&Fact::Refused {
            refusal: &refusal,
            name: Some(&long),
            dialect: Dialect::HttpExpect,
            ticket: Ticket(1),
        });
        stage.events.closed(stage.id);
        assert_eq!(stage.written(), ["409"]);
    }
}

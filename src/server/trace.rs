//! The story of each connection as it happens, line by line: for people in words, for tools as one JSON object a line.
//!
//! The turn and the connections tell scenes; a [`Tracer`] adds what it can find out beside them (the time, the state
//! before, the kernel's own view, who closed first) and writes each as one line. Where there is no tracer a scene is
//! not even made: [`Trace::tell`] is one branch. Nothing here has a say in what happens.
//!
//! Who closed first is not remembered by a socket, but its TCP state says so while it lasts (RFC 9293, 3.3.2): the
//! kernel is asked where the state may have changed, when the peer's end is read and when ours is said, and never for a
//! read.

mod json;
mod words;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::ending::CloseReason;
use super::pace::Lapse;
use crate::net::Flags;
use crate::net::diag::{Diag, Tcp};
use crate::proto::{Awaits, Event, Farewell, Name};
use crate::reactor::Id;
use crate::store::StoreError;

/// How much is quoted of what was said, in bytes, so that no line is too long for whoever writes it.
const EXCERPT_BYTES: usize = 200;

/// How the story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Words,
    /// For tools.
    Json,
}

/// Something that happened on one connection.
#[derive(Debug)]
pub enum Scene<'a> {
    /// It was taken from the backlog.
    Accepted {
        /// Our address on it.
        local: Option<SocketAddr>,
    },
    /// The poll told of it.
    Event(Flags),
    /// A read found bytes.
    Read {
        /// So many.
        bytes: usize,
        /// As many as could have been read.
        room: usize,
    },
    /// So many bytes went from the socket to the file, unseen.
    Spliced {
        /// So many.
        bytes: usize,
    },
    /// A read found the end: the client sends no more.
    ReadEnd,
    /// A read found nothing: the socket is drained.
    ReadWouldBlock,
    /// From now on the kernel tells of content when so many bytes have come.
    LowWater {
        /// How many.
        bytes: usize,
    },
    /// This was written.
    Wrote(&'a [u8]),
    /// A write found no room: the client does not take what we say.
    WriteWouldBlock,
    /// A read or a write failed, for good.
    Failed(&'a io::Error),
    /// What the conversation makes of what was read.
    Heard(&'a Event<'a>),
    /// What the conversation waits for has changed.
    State {
        /// What it waited for.
        from: Awaits,
        /// What it waits for.
        to: Awaits,
    },
    /// Whether the disk has what is held of an upload that is to be gone on with.
    Held {
        /// How much that is, in bytes.
        offset: u64,
        /// What the disk says, under the name that the file will have.
        result: &'a Result<Name, StoreError>,
    },
    /// What became of a file.
    Settled(&'a Result<Name, StoreError>),
    /// A deadline has passed.
    Lapsed(Lapse),
    /// It goes back into the ready queue, others first.
    Yielded {
        /// What it has read of its budget.
        spent_bytes: usize,
    },
    /// The last word is sent, and this is how to part.
    Parting(Farewell),
    /// What the kernel has under the two addresses, or why it is not asked any more.
    Kernel(&'a io::Result<Tcp>),
    /// The socket is closed.
    Closed {
        /// Why.
        reason: &'a CloseReason,
        /// Who ended its side first.
        first: Side,
    },
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who sends files.
    Client,
    /// Who takes them.
    Server,
}

/// Where the story of one connection is told, or nowhere.
#[derive(Debug)]
pub struct Trace<'a>(Option<(&'a mut Tracer, Id)>);

impl<'a> Trace<'a> {
    /// For the connection that is known under `id`.
    pub fn of(tracer: &'a mut Option<Tracer>, id: Id) -> Self {
        Self(tracer.as_mut().map(|tracer| (tracer, id)))
    }

    /// Tells what `scene` makes, which is not even called where nobody listens.
    #[inline]
    pub fn tell<'s>(&mut self, scene: impl FnOnce() -> Scene<'s>) {
        if let Some((tracer, id)) = &mut self.0 {
            tracer.tell(*id, &scene());
        }
    }

    /// Tells what the conversation waits for, where that is news.
    #[inline]
    pub fn tell_state(&mut self, awaits: impl FnOnce() -> Awaits) {
        if let Some((tracer, id)) = &mut self.0 {
            tracer.tell_state(*id, awaits());
        }
    }
}

/// Tells the stories of all connections.
pub struct Tracer {
    format: Format,
    /// Takes one whole line a write.
    out: Box<dyn Write + Send>,
    /// `None` once it has failed and that has been told.
    kernel: Option<io::Result<Diag>>,
    stories: HashMap<Id, Story>,
}

/// What is kept of one connection.
#[derive(Clone, Copy, Debug)]
struct Story {
    local: Option<SocketAddr>,
    peer: SocketAddr,
    accepted: Instant,
    awaits: Awaits,
    /// Who ended its side first, where that is known.
    first: Option<Side>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("format", &self.format).field("stories", &self.stories).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Tells everything to `out`, one whole line a write. What `out` makes of it is its own affair.
    pub fn new(format: Format, out: Box<dyn Write + Send>) -> Self {
        Self { format, out, kernel: Some(Diag::open()), stories: HashMap::new() }
    }

    /// Begins the story of a connection.
    pub(super) fn accepted(&mut self, id: Id, local: Option<SocketAddr>, peer: SocketAddr) {
        #[expect(clippy::disallowed_methods, reason = "a trace tells when things happened, not when the turn began")]
        let story = Story { local, peer, accepted: Instant::now(), awaits: Awaits::Header, first: None };
        self.stories.insert(id, story);
        self.write(&story, &Scene::Accepted { local });
        self.ask_kernel(id);
    }

    /// The socket will be closed. Who is first has to be found out before.
    pub(super) fn closing(&mut self, id: Id) {
        if self.stories.get(&id).is_some_and(|story| story.first.is_none()) {
            self.ask_kernel(id);
        }
    }

    /// Ends the story: the socket is closed.
    pub(super) fn closed(&mut self, id: Id, reason: &CloseReason) {
        let first = self.first_is(id, Side::Server);
        self.tell(id, &Scene::Closed { reason, first });
        self.ask_kernel(id);
        self.stories.remove(&id);
    }

    fn tell(&mut self, id: Id, scene: &Scene) {
        let Some(&story) = self.stories.get(&id) else { return };
        self.write(&story, scene);
        match scene {
            Scene::ReadEnd => {
                self.ask_kernel(id);
                self.first_is(id, Side::Client);
            }
            Scene::Failed(error) => {
                self.ask_kernel(id);
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
                    self.first_is(id, Side::Client);
                }
            }
            Scene::Parting(Farewell::Linger) => {
                self.ask_kernel(id);
                self.first_is(id, Side::Server);
            }
            _ => {}
        }
    }

    fn tell_state(&mut self, id: Id, to: Awaits) {
        let Some(story) = self.stories.get_mut(&id) else { return };
        let from = std::mem::replace(&mut story.awaits, to);
        if from != to {
            self.tell(id, &Scene::State { from, to });
        }
    }

    /// Notes who ended its side first, unless that is known; returns who it was.
    fn first_is(&mut self, id: Id, side: Side) -> Side {
        self.stories.get_mut(&id).map_or(side, |story| *story.first.get_or_insert(side))
    }

    /// Tells the kernel's view where the TCP state may have changed.
    fn ask_kernel(&mut self, id: Id) {
        let Some(&story) = self.stories.get(&id) else { return };
        let (Some(local), Some(kernel)) = (story.local, self.kernel.take()) else { return };
        let answer = kernel.and_then(|mut diag| Ok((diag.connection(local, story.peer)?, diag)));
        let found = answer.map(|(found, diag)| {
            self.kernel = Some(Ok(diag));
            found
        });
        if let Some(side) = found.as_ref().ok().and_then(|found| first_to_close(found.state)) {
            self.first_is(id, side);
        }
        self.write(&story, &Scene::Kernel(&found));
    }

    fn write(&mut self, story: &Story, scene: &Scene) {
        let mut line = self.format.line(story.accepted.elapsed(), story.peer, scene);
        line.push('\n');
        // A line that cannot be written is no reason to stop working.
        let _ = self.out.write(line.as_bytes()).and_then(|_| self.out.flush());
    }
}

/// Who ended its side first, where a TCP state says so (RFC 9293, 3.3.2). Whoever is first has a TIME_WAIT in the end, so
/// as long as we have not reset it, CLOSED says that it was the client: its FIN came before ours, or a reset.
fn first_to_close(state: &str) -> Option<Side> {
    match state {
        "CLOSE_WAIT" | "LAST_ACK" | "CLOSED" => Some(Side::Client),
        "FIN_WAIT1" | "FIN_WAIT2" | "CLOSING" | "TIME_WAIT" => Some(Side::Server),
        _ => None,
    }
}

impl Format {
    /// A scene so long after the accept, without the line feed.
    fn line(self, at: Duration, peer: SocketAddr, scene: &Scene) -> String {
        match self {
            Self::Words => format!("{:10.6} {peer} {scene}", at.as_secs_f64()),
            Self::Json => {
                let mut line = json::object(scene);
                line["at_us"] = json!(at.as_micros() as u64);
                line["peer"] = json!(peer.to_string());
                line.to_string()
            }
        }
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(EXCERPT_BYTES)];
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(start))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::proto::{Code, Dialect, NamePolicy, Refusal, Request, Ticket, Whole};
    use crate::reactor::Slots;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

    /// A tracer, what it has written, and a connection.
    struct Stage {
        tracer: Option<Tracer>,
        written: Written,
        id: Id,
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            assert!(line.ends_with(b"\n"), "a write is a whole line");
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stage {
        /// With a connection between two addresses that no kernel has: it is CLOSED whenever it is asked.
        fn new(format: Format) -> Self {
            Self::with_local_addr(format, Some(SocketAddr::new(PEER.ip(), 1)))
        }

        /// Without our address the kernel cannot be asked.
        fn with_local_addr(format: Format, local: Option<SocketAddr>) -> Self {
            let (written, id) = (Written::default(), Slots::default().insert(()));
            let mut tracer = Tracer::new(format, Box::new(written.clone()));
            tracer.accepted(id, local, PEER);
            Self { tracer: Some(tracer), written, id }
        }

        fn tell(&mut self, scene: Scene) {
            Trace::of(&mut self.tracer, self.id).tell(|| scene);
        }

        fn close(&mut self) {
            let tracer = self.tracer.as_mut().unwrap();
            tracer.closing(self.id);
            tracer.closed(self.id, &CloseReason::Finished);
        }

        fn text(&self) -> String {
            String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap()
        }

        /// Of each line, what comes after the time and the peer.
        fn scenes(&self) -> Vec<String> {
            let scene = |line: &str| line.split_once(&format!(" {PEER} ")).unwrap().1.to_owned();
            self.text().lines().map(scene).collect()
        }
    }

    fn name(name: &str) -> Name {
        Name::parse(name.as_bytes(), NamePolicy::default()).unwrap()
    }

    /// One of each.
    fn with_all_scenes(mut look: impl FnMut(Scene)) {
        let error = io::Error::from(io::ErrorKind::ConnectionReset);
        let refusal = || Refusal::new(Code::CONFLICT, "the name is taken");
        let request = Request::until_end_of_stream(Dialect::Line, name("a \"b\""));
        let whole = Whole { ticket: Ticket(1), size: 7, digest: None };
        let events = [
            Event::Request(request),
            Event::Content(b"content"),
            Event::End(whole),
            Event::Failed(refusal()),
            Event::NotARequest(refusal(), (*b"/no").into()),
            Event::Discarded(3),
        ];
        events.iter().for_each(|event| look(Scene::Heard(event)));
        let tcp = |state, info| Ok(Tcp { state, unread: 1, unacknowledged: 2, info });
        for kernel in [tcp("CLOSED", None), tcp("TIME_WAIT", None), Err(io::ErrorKind::PermissionDenied.into())] {
            look(Scene::Kernel(&kernel));
        }
        look(Scene::Held { offset: 5, result: &Ok(name("a")) });
        look(Scene::Held { offset: 5, result: &Err(StoreError::Failed) });
        look(Scene::Settled(&Ok(name("a"))));
        look(Scene::Settled(&Err(StoreError::Taken("the name is taken"))));
        look(Scene::Closed { reason: &CloseReason::Refused(refusal(), Some(name("a"))), first: Side::Server });
        look(Scene::Wrote(&[b'x'; 5000]));
        look(Scene::Failed(&error));
        look(Scene::Event(Flags { readable: true, read_closed: true, ..Flags::default() }));
        look(Scene::State { from: Awaits::Header, to: Awaits::Content });
        for scene in [
            Scene::Accepted { local: Some(PEER) },
            Scene::Accepted { local: None },
            Scene::Read { bytes: 3, room: 9 },
            Scene::Spliced { bytes: 3 },
            Scene::ReadEnd,
            Scene::ReadWouldBlock,
            Scene::LowWater { bytes: 3 },
            Scene::WriteWouldBlock,
            Scene::Lapsed(Lapse::Grace),
            Scene::Yielded { spent_bytes: 1 << 20 },
            Scene::Parting(Farewell::Close),
            Scene::Parting(Farewell::Reset),
            Scene::Parting(Farewell::Linger),
        ] {
            look(scene);
        }
    }

    #[test]
    fn every_scene_is_a_line_of_its_own_in_either_format() {
        let at = Duration::from_micros(1_234_567);
        with_all_scenes(|scene| {
            let words = Format::Words.line(at, PEER, &scene);
            assert!(words.starts_with("  1.234567 127.0.0.1:9 "), "{words}");
            let json = Format::Json.line(at, PEER, &scene);
            let object: Value = serde_json::from_str(&json).unwrap();
            assert_eq!((&object["at_us"], &object["peer"]), (&json!(1_234_567), &json!("127.0.0.1:9")), "{json}");
            assert!(object["scene"].is_string(), "{json}");
            for line in [words, json] {
                assert!(!line.contains('\n') && line.len() < 1000, "{line}");
            }
        });
    }

    #[test]
    fn names_are_quoted_so_that_nobody_can_forge_a_line() {
        let event = Event::Request(Request::until_end_of_stream(Dialect::Line, name("a \"b\"")));
        assert_eq!(Scene::Heard(&event).to_string(), r#"request, line: "a \"b\"""#);
        assert_eq!(json::object(&Scene::Heard(&event))["name"], json!("a \"b\""));
        assert_eq!(Scene::Wrote(b"ok\n").to_string(), r#"wrote 3 bytes: "ok\n""#);
    }

    #[test]
    fn without_a_tracer_no_scene_is_made() {
        let id = Slots::default().insert(());
        Trace::of(&mut None, id).tell(|| unreachable!("nobody listens"));
        Trace::of(&mut None, id).tell_state(|| unreachable!("nobody listens"));
    }

    #[test]
    fn a_state_is_told_when_it_changes() {
        let mut stage = Stage::new(Format::Words);
        for awaits in [Awaits::Header, Awaits::Content, Awaits::Content, Awaits::EndOfStream] {
            Trace::of(&mut stage.tracer, stage.id).tell_state(|| awaits);
        }
        let scenes = stage.scenes();
        assert_eq!(scenes[2..], ["waits for a name -> content", "waits for content -> the end"]);
    }

    #[test]
    fn the_kernel_is_asked_where_the_tcp_state_may_have_changed_and_never_for_a_read() {
        let mut stage = Stage::new(Format::Words);
        stage.tell(Scene::Read { bytes: 3, room: 9 });
        stage.tell(Scene::ReadWouldBlock);
        stage.tell(Scene::ReadEnd);
        stage.close();
        let scenes = stage.scenes();
        let asked: Vec<bool> = scenes.iter().map(|scene| scene.starts_with("kernel: CLOSED")).collect();
        assert_eq!(asked, [false, true, false, false, false, true, false, true], "{scenes:?}");
        assert_eq!(scenes[6], "closed: finished; the client ended first");
    }

    #[test]
    fn whoever_ends_first_is_named() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let first = |scenes: Vec<Scene>| {
            let mut stage = Stage::with_local_addr(Format::Json, None);
            scenes.into_iter().for_each(|scene| stage.tell(scene));
            stage.close();
            let text = stage.text();
            let closed = text.lines().find(|line| line.contains(r#""closed""#)).unwrap();
            serde_json::from_str::<Value>(closed).unwrap()["first"].as_str().unwrap().to_owned()
        };
        assert_eq!(first(vec![]), "server");
        assert_eq!(first(vec![Scene::ReadEnd, Scene::Parting(Farewell::Linger)]), "client");
        assert_eq!(first(vec![Scene::Parting(Farewell::Linger), Scene::ReadEnd]), "server");
        assert_eq!(first(vec![Scene::Failed(&reset)]), "client");
    }

    #[test]
    fn a_connection_that_the_kernel_has_forgotten_before_we_closed_it_was_ended_by_the_client() {
        let mut stage = Stage::new(Format::Words);
        // Its end came before ours and was not read yet: LAST_ACK, and then nothing.
        stage.tell(Scene::Parting(Farewell::Linger));
        stage.close();
        assert_eq!(stage.scenes()[4], "closed: finished; the client ended first");
    }

    #[test]
    fn a_kernel_that_does_not_answer_is_told_of_once() {
        let mut stage = Stage::new(Format::Words);
        stage.tracer.as_mut().unwrap().kernel = Some(Err(io::ErrorKind::PermissionDenied.into()));
        stage.tell(Scene::ReadEnd);
        stage.close();
        let scenes = stage.scenes();
        assert_eq!(scenes[3], "kernel: left out from now on, as it does not answer: permission denied");
        assert_eq!(scenes[4..], ["closed: finished; the client ended first"]);
    }

    #[test]
    fn a_story_that_is_over_is_not_gone_on_with() {
        let mut stage = Stage::new(Format::Words);
        stage.close();
        let length = stage.text().len();
        stage.tell(Scene::Event(Flags::default()));
        assert_eq!((stage.text().len(), stage.tracer.unwrap().stories.len()), (length, 0));
    }
}

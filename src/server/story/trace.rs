//! The trace: every step of every connection, one line each, in words for people or as JSON for programs.
//!
//! A [`Tracer`] listens to scenes. It adds the time, the state before, the kernel's view, and which side closed first, and
//! writes each scene as one line.
//!
//! A socket does not remember which side closed first, but its TCP state shows it while it lasts (RFC 9293, 3.3.2). The
//! kernel is asked where that state may have changed: when the end of the peer's stream is read and when ours is sent.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::ending::CloseReason;
use super::json;
use super::scene::{Scene, Side};
use crate::net::diag::Diag;
use crate::proto::{Awaits, Farewell, Origin};
use crate::reactor::Id;

/// The form of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Words for people.
    Words,
    /// JSON for programs.
    Json,
}

/// Writes the trace of all connections.
pub struct Tracer {
    format: Format,
    out: Out,
    /// `None` once it has failed, and the trace has said so.
    kernel: Option<io::Result<Diag>>,
    traces: HashMap<Id, Traced>,
}

/// Where lines go.
enum Out {
    /// Those of all connections. It receives one whole line with each write.
    Writer(Box<dyn Write + Send>),
    /// Those of chosen connections, each to a place of its own.
    Chosen(HashMap<Id, Lines>),
}

/// Lines that wait to be taken.
#[derive(Debug, Default)]
pub struct Lines {
    /// Whole lines.
    pub bytes: Vec<u8>,
    /// Lines that were dropped, because too many waited.
    pub dropped: u64,
    /// The connection has ended: no line follows.
    pub is_over: bool,
}

/// The most bytes of a connection's lines that wait: those of some hundred steps, which are more than a turn has.
const LINES_MAX_BYTES: usize = 64 << 10;

/// What the tracer remembers of one connection.
#[derive(Clone, Copy, Debug)]
struct Traced {
    local: Option<SocketAddr>,
    peer: SocketAddr,
    /// The peer, or the client behind it if that is a proxy.
    client: SocketAddr,
    accepted: Instant,
    awaits: Awaits,
    /// Which side ended first, if that is known.
    first: Option<Side>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("format", &self.format).field("traces", &self.traces).finish_non_exhaustive()
    }
}

impl Tracer {
    /// A tracer that writes to `out`, one whole line with each write. Errors of `out` are ignored.
    pub fn new(format: Format, out: Box<dyn Write + Send>) -> Self {
        Self { format, out: Out::Writer(out), kernel: Some(Diag::open()), traces: HashMap::new() }
    }

    /// A tracer of those connections that [`Tracer::follow`] names, in JSON, which knows the kernel's view from `diag`.
    pub(super) fn of_chosen(diag: io::Result<Diag>) -> Self {
        Self { format: Format::Json, out: Out::Chosen(HashMap::new()), kernel: Some(diag), traces: HashMap::new() }
    }

    /// Whether it has anything to do.
    pub(super) fn is_needed(&self) -> bool {
        match &self.out {
            Out::Writer(_) => true,
            Out::Chosen(chosen) => !chosen.is_empty(),
        }
    }

    /// Traces this connection from now on. `age`: how long ago it was accepted.
    pub(super) fn follow(
        &mut self,
        id: Id,
        peer: SocketAddr,
        local: Option<SocketAddr>,
        age: Duration,
        awaits: Awaits,
    ) {
        let Out::Chosen(chosen) = &mut self.out else { return };
        chosen.entry(id).or_default();
        #[expect(clippy::disallowed_methods, reason = "a trace tells when things happened, not when the turn began")]
        let now = Instant::now();
        let accepted = now.checked_sub(age).unwrap_or(now);
        self.traces.entry(id).or_insert(Traced { local, peer, client: peer, accepted, awaits, first: None });
    }

    /// Takes the lines of all chosen connections. Those that have ended are not chosen any more.
    pub(super) fn take_lines(&mut self) -> HashMap<Id, Lines> {
        let Out::Chosen(chosen) = &mut self.out else { return HashMap::new() };
        let taken: HashMap<Id, Lines> = chosen
            .iter_mut()
            .map(|(id, lines)| (*id, Lines { is_over: !self.traces.contains_key(id), ..std::mem::take(lines) }))
            .collect();
        chosen.retain(|id, _| self.traces.contains_key(id));
        taken
    }

    /// Traces only those connections any longer for which `keep` is true.
    pub(super) fn follow_only(&mut self, keep: impl Fn(Id) -> bool) {
        if let Out::Chosen(chosen) = &mut self.out {
            chosen.retain(|id, _| keep(*id));
            self.traces.retain(|id, _| keep(*id));
        }
    }

    /// Begins the trace of a connection.
    pub(super) fn accepted(&mut self, id: Id, local: Option<SocketAddr>, peer: SocketAddr) {
        if matches!(self.out, Out::Chosen(_)) {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a trace tells when things happened, not when the turn began")]
        let traced =
            Traced { local, peer, client: peer, accepted: Instant::now(), awaits: Awaits::Header, first: None };
        self.traces.insert(id, traced);
        self.write(id, &traced, &Scene::Accepted { local });
        self.ask_kernel(id);
    }

    /// The socket is about to be closed: finds out which side ended first.
    pub(super) fn closing(&mut self, id: Id) {
        if self.traces.get(&id).is_some_and(|traced| traced.first.is_none()) {
            self.ask_kernel(id);
        }
    }

    /// Ends the trace of a connection: its socket is closed.
    pub(super) fn closed(&mut self, id: Id, reason: &CloseReason) {
        let first = self.first_is(id, Side::Server);
        self.hear(id, &Scene::Closed { reason, first });
        self.ask_kernel(id);
        self.traces.remove(&id);
    }

    /// Writes a scene, and the kernel's view where that may have changed.
    pub(super) fn hear(&mut self, id: Id, scene: &Scene) {
        let Some(&traced) = self.traces.get(&id) else { return };
        self.write(id, &traced, scene);
        match scene {
            Scene::Proxied(Origin::Client { source, .. }) => {
                self.traces.entry(id).and_modify(|traced| traced.client = *source);
            }
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

    /// Writes what the conversation waits for, if that has changed.
    pub(super) fn hear_state(&mut self, id: Id, to: Awaits) {
        let Some(traced) = self.traces.get_mut(&id) else { return };
        let from = std::mem::replace(&mut traced.awaits, to);
        if from != to {
            self.hear(id, &Scene::State { from, to });
        }
    }

    /// Notes which side ended first, unless that is known. Returns it.
    fn first_is(&mut self, id: Id, side: Side) -> Side {
        self.traces.get_mut(&id).map_or(side, |traced| *traced.first.get_or_insert(side))
    }

    /// Writes the kernel's view.
    fn ask_kernel(&mut self, id: Id) {
        let Some(&traced) = self.traces.get(&id) else { return };
        let (Some(local), Some(kernel)) = (traced.local, self.kernel.take()) else { return };
        let answer = kernel.and_then(|mut diag| Ok((diag.connection(local, traced.peer)?, diag)));
        let found = answer.map(|(found, diag)| {
            self.kernel = Some(Ok(diag));
            found
        });
        if let Some(side) = found.as_ref().ok().and_then(|found| first_to_close(found.state)) {
            self.first_is(id, side);
        }
        self.write(id, &traced, &Scene::Kernel(&found));
    }

    fn write(&mut self, id: Id, traced: &Traced, scene: &Scene) {
        let mut line = self.format.line(traced.accepted.elapsed(), traced.client, scene);
        line.push('\n');
        match &mut self.out {
            // A line that cannot be written must not stop the server.
            Out::Writer(out) => drop(out.write(line.as_bytes()).and_then(|_| out.flush())),
            Out::Chosen(chosen) => {
                let Some(lines) = chosen.get_mut(&id) else { return };
                if lines.bytes.len() + line.len() > LINES_MAX_BYTES {
                    lines.dropped += 1;
                } else {
                    lines.bytes.extend_from_slice(line.as_bytes());
                }
            }
        }
    }
}

/// Which side ended first, if a TCP state shows it (RFC 9293, 3.3.2). The side that ends first ends in TIME_WAIT. So CLOSED
/// means that the client was first, with a FIN or a reset, unless the server has reset the connection.
fn first_to_close(state: &str) -> Option<Side> {
    match state {
        "CLOSE_WAIT" | "LAST_ACK" | "CLOSED" => Some(Side::Client),
        "FIN_WAIT1" | "FIN_WAIT2" | "CLOSING" | "TIME_WAIT" => Some(Side::Server),
        _ => None,
    }
}

impl Format {
    /// The line of a scene, `at` after the accept, without the line feed.
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::net::Flags;
    use crate::net::diag::Tcp;
    use crate::net::tls::Agreed;
    use crate::proto::{Code, Credential, Dialect, Event, Name, NamePolicy, Refusal, Request, Ticket, Whole};
    use crate::reactor::Slots;
    use crate::server::pace::Lapse;
    use crate::server::story::Who;
    use crate::store::StoreError;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

    /// A tracer, what it has written, and a connection.
    struct Stage {
        tracer: Tracer,
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
            Self { tracer, written, id }
        }

        fn tell(&mut self, scene: Scene) {
            self.tracer.hear(self.id, &scene);
        }

        fn close(&mut self) {
            self.tracer.closing(self.id);
            self.tracer.closed(self.id, &CloseReason::Finished);
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
        let whole = Whole { ticket: Ticket(1), size: 7, digest: None, code_if_taken: Code::CONFLICT };
        let events = [
            Event::Request(request),
            Event::Content(b"content".into()),
            Event::End(whole),
            Event::Judge(None),
            Event::Judge(Some(Credential::of(b"secret"))),
            Event::Failed(refusal()),
            Event::NotARequest(refusal(), (*b"/no").into()),
            Event::Discarded(3),
        ];
        events.iter().for_each(|event| look(Scene::Heard(event)));
        let tcp = |state, info| Ok(Tcp { state, unread: 1, unacknowledged: 2, info });
        for kernel in [tcp("CLOSED", None), tcp("TIME_WAIT", None), Err(io::ErrorKind::PermissionDenied.into())] {
            look(Scene::Kernel(&kernel));
        }
        look(Scene::Named(&Who::new("alice\n")));
        for origin in [
            Origin::Proxy,
            Origin::Unknown,
            Origin::Client { source: PEER, destination: PEER, name: Some("alice\n".into()) },
        ] {
            look(Scene::Proxied(&origin));
        }
        look(Scene::Held { offset: 5, result: &Ok(()) });
        look(Scene::Held { offset: 5, result: &Err(StoreError::Failed) });
        look(Scene::Settled(&Ok(name("a"))));
        look(Scene::Settled(&Err(StoreError::Taken("the name is taken"))));
        look(Scene::Closed { reason: &CloseReason::Refused(refusal(), Some(name("a"))), first: Side::Server });
        look(Scene::Wrote(&[b'x'; 5000]));
        look(Scene::Failed(&error));
        look(Scene::Event(Flags { readable: true, read_closed: true, ..Flags::default() }));
        look(Scene::State { from: Awaits::Header, to: Awaits::Content });
        let (version, cipher, protocol) =
            ("TLSv1_3".into(), "TLS13_AES_256_GCM_SHA384".into(), Some("intake/1".into()));
        look(Scene::Secured(&Agreed { version, cipher, protocol }));
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
    fn chosen_connections_are_traced_from_then_on_to_a_limit_and_to_their_end() {
        let mut slots = Slots::default();
        let (one, other) = (slots.insert(()), slots.insert(()));
        let mut tracer = Tracer::of_chosen(Err(io::ErrorKind::PermissionDenied.into()));
        tracer.accepted(one, None, PEER);
        tracer.hear(one, &Scene::ReadWouldBlock);
        assert!(!tracer.is_needed());
        tracer.follow(one, PEER, None, Duration::from_secs(5), Awaits::Content);
        tracer.hear(other, &Scene::ReadWouldBlock);
        tracer.hear(one, &Scene::Read { bytes: 3, room: 9 });
        let taken = tracer.take_lines();
        let line: Value = serde_json::from_slice(&taken[&one].bytes).unwrap();
        assert!(taken.len() == 1 && line["at_us"].as_u64() >= Some(5_000_000), "{line}");
        (0..10_000).for_each(|_| tracer.hear(one, &Scene::ReadWouldBlock));
        let taken = tracer.take_lines();
        assert!(taken[&one].bytes.len() <= LINES_MAX_BYTES && taken[&one].dropped > 0 && !taken[&one].is_over);
        tracer.closed(one, &CloseReason::Finished);
        assert!(tracer.take_lines()[&one].is_over && !tracer.is_needed());
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
    fn a_state_is_told_when_it_changes() {
        let mut stage = Stage::new(Format::Words);
        for awaits in [Awaits::Header, Awaits::Content, Awaits::Content, Awaits::EndOfStream] {
            stage.tracer.hear_state(stage.id, awaits);
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
    fn the_side_that_ends_first_is_named() {
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
        // The client's FIN came before ours and was not read yet: LAST_ACK, and then CLOSED.
        stage.tell(Scene::Parting(Farewell::Linger));
        stage.close();
        assert_eq!(stage.scenes()[4], "closed: finished; the client ended first");
    }

    #[test]
    fn a_kernel_that_does_not_answer_is_told_of_once() {
        let mut stage = Stage::new(Format::Words);
        stage.tracer.kernel = Some(Err(io::ErrorKind::PermissionDenied.into()));
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
        assert_eq!((stage.text().len(), stage.tracer.traces.len()), (length, 0));
    }
}

//! Side connections: what the operator's own programs ask the server, beside the uploads.
//!
//! One listener, a few connections, short questions and their answers, in the same loop. Uploads must not notice any of it,
//! whatever is done to the listener, so everything here has a small limit: connections, bytes of a question, visits in a span
//! of time. When the table is full, a new client takes the place of one that had an answer already, else of the one that
//! has been silent the longest. So clients that never read, or never ask, or ask without end, cannot keep others out.
//!
//! ```text
//!   accept --> asks (read) --> answered (write) --+--> asks again
//!                                                 +--> ends: shut down, what comes is discarded, closed
//! ```
//!
//! Knows neither what is asked nor what is answered: [`Side::serve`] is given a function that does. Events are
//! edge-triggered, as everywhere: a client that could make progress is in the ready queue of the [`Table`].

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::pace::Clock;
use crate::net::{Accept, Listener, LocalListener};
use crate::reactor::{Guest, Id, Moment, Readiness, Table};

/// The most clients at once. An operator has one or two collectors, and looks from a shell or two.
pub const CLIENTS_MAX: usize = 32;
/// The longest question, in bytes: several times the head that a collector of metrics sends.
const QUESTION_MAX_BYTES: usize = 8 << 10;
/// The most bytes of one read.
const READ_BYTES: usize = 4 << 10;
/// How many visits there are in each [`SPAN`]: one for each client. So each question is answered within a span, and no
/// flood of questions takes more than a few percent of a core.
const VISITS_PER_SPAN: usize = CLIENTS_MAX;
/// How many clients are accepted in each [`SPAN`]: fewer than there is room for, so that each has a visit before it has to
/// make room.
const ACCEPTS_PER_SPAN: usize = CLIENTS_MAX / 2;
/// The span that these numbers are for: short for somebody who waits for an answer.
const SPAN: Duration = Duration::from_millis(20);
/// How long a question, the reading of its answer, or the end may take. A collector has given up by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may be silent between two questions. Collectors ask every minute or more often.
const KEEP_ALIVE: Duration = Duration::from_secs(150);

/// A listener of the operator's.
pub trait Door: Source {
    /// A connection to it.
    type Stream: Read + Write + Source;

    /// Takes one connection from the backlog, non-blocking.
    ///
    /// # Errors
    /// `WouldBlock`: there is none. Others: the system lacks descriptors or memory.
    fn accept(&mut self) -> io::Result<Self::Stream>;

    /// Ends our direction of a connection.
    ///
    /// # Errors
    /// The error of shutdown(2).
    fn shut_down(stream: &Self::Stream) -> io::Result<()>;
}

impl Door for Listener {
    type Stream = TcpStream;

    fn accept(&mut self) -> io::Result<TcpStream> {
        loop {
            match self.accept() {
                Accept::Connection(stream, _) => return Ok(stream),
                Accept::Drained => return Err(io::ErrorKind::WouldBlock.into()),
                Accept::PeerGone(_) => {}
                Accept::Exhausted(error) => return Err(error),
            }
        }
    }

    fn shut_down(stream: &TcpStream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }
}

impl Door for LocalListener {
    type Stream = UnixStream;

    fn accept(&mut self) -> io::Result<UnixStream> {
        LocalListener::accept(self)
    }

    fn shut_down(stream: &UnixStream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }
}

/// What is made of the bytes that a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// They are no whole question yet.
    More,
    /// Their first `taken` bytes were a question, which is answered.
    Answer {
        /// The length of the question. 0 only if this is the last answer.
        taken: usize,
        /// The bytes of the answer.
        answer: Vec<u8>,
        /// No question follows: the connection ends.
        is_last: bool,
    },
    /// Their first `taken` bytes asked for lines from now on ([`Side::push`]), and are answered. Such a client may be silent
    /// for as long as it likes.
    Follow {
        /// The length of the question.
        taken: usize,
        /// The bytes of the answer.
        answer: Vec<u8>,
    },
}

/// A listener of the operator's and its connections. `T` is what is remembered of each.
pub struct Side<L: Door, T> {
    door: L,
    door_is_ready: bool,
    /// The token of the listener. The tokens that follow are those of the connections.
    first: usize,
    clients: Table<Client<L::Stream, T>>,
    /// Visits and accepts that are left in the present span.
    visits_left: usize,
    accepts_left: usize,
    span_ends: Moment,
}

struct Client<S, T> {
    stream: S,
    readiness: Readiness,
    /// What was read and is not answered.
    question: Vec<u8>,
    /// The question was heard, and is not whole.
    needs_more: bool,
    /// What is to be written.
    answer: Vec<u8>,
    /// It had an answer.
    was_answered: bool,
    /// The last answer is given.
    ending: Option<Ending>,
    /// When a byte was read or written last.
    active: Moment,
    /// When the question or its answer began.
    began: Moment,
    /// It is sent lines without a further question.
    follows: bool,
    memory: T,
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    /// Our direction is still open.
    Answering,
    /// What comes is discarded.
    Discarding,
}

/// What a visit has led to.
enum Visited {
    Waits,
    HasMore,
    IsOver,
}

impl<S, T> Guest for Client<S, T> {
    fn absorb(&mut self, readiness: Readiness) -> bool {
        self.readiness.add(readiness);
        self.has_work()
    }

    fn is_ready(&self, _: Moment) -> bool {
        self.has_work()
    }
}

impl<S, T> Client<S, T> {
    fn has_work(&self) -> bool {
        if self.answer.is_empty() {
            self.readiness.readable || self.ending.is_none() && !self.question.is_empty() && !self.needs_more
        } else {
            self.readiness.writable
        }
    }

    /// When it has taken too long. One that follows holds no more than one batch of lines, however long it reads nothing.
    fn deadline(&self) -> Moment {
        if self.follows && self.ending.is_none() {
            return Moment::NEVER;
        }
        let is_idle = self.question.is_empty() && self.answer.is_empty() && self.ending.is_none();
        if is_idle { self.active + KEEP_ALIVE } else { self.began + PATIENCE }
    }
}

impl<S: Read + Write, T> Client<S, T> {
    /// Writes, reads and answers one question at most.
    fn visit<L: Door<Stream = S>>(&mut self, now: Moment, hear: impl FnOnce(&mut T, &[u8]) -> Heard) -> Visited {
        match self.converse::<L>(now, hear) {
            Ok(()) if self.has_work() => Visited::HasMore,
            Ok(()) => Visited::Waits,
            Err(_) => Visited::IsOver,
        }
    }

    /// # Errors
    /// The connection has ended, in whatever way.
    fn converse<L: Door<Stream = S>>(
        &mut self,
        now: Moment,
        hear: impl FnOnce(&mut T, &[u8]) -> Heard,
    ) -> io::Result<()> {
        self.write(now)?;
        if self.answer.is_empty() && self.ending.is_none() {
            self.read(now)?;
            self.answer_question(now, hear)?;
            self.write(now)?;
        }
        if self.answer.is_empty() && self.ending == Some(Ending::Answering) {
            L::shut_down(&self.stream)?;
            self.ending = Some(Ending::Discarding);
        }
        if self.ending == Some(Ending::Discarding) {
            self.discard()?;
        }
        Ok(())
    }

    fn answer_question(&mut self, now: Moment, hear: impl FnOnce(&mut T, &[u8]) -> Heard) -> io::Result<()> {
        if self.question.is_empty() || self.needs_more {
            return Ok(());
        }
        match hear(&mut self.memory, &self.question) {
            Heard::More if self.question.len() >= QUESTION_MAX_BYTES => return Err(io::ErrorKind::InvalidData.into()),
            Heard::More => self.needs_more = true,
            Heard::Answer { taken, answer, is_last } => {
                self.question.drain(..taken);
                (self.answer, self.began, self.was_answered) = (answer, now, true);
                self.ending = is_last.then_some(Ending::Answering);
            }
            Heard::Follow { taken, answer } => {
                self.question.drain(..taken);
                (self.answer, self.began) = (answer, now);
                (self.was_answered, self.follows) = (true, true);
            }
        }
        Ok(())
    }

    /// Reads once. An end of the stream ends the connection, unless a question is left to be answered.
    fn read(&mut self, now: Moment) -> io::Result<()> {
        let room = (QUESTION_MAX_BYTES - self.question.len()).min(READ_BYTES);
        if !self.readiness.readable || room == 0 {
            return Ok(());
        }
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes[..room]) {
            Ok(0) if self.question.is_empty() || self.needs_more => Err(io::ErrorKind::UnexpectedEof.into()),
            // The next read finds it again.
            Ok(0) => Ok(()),
            Ok(count) => {
                if self.question.is_empty() {
                    self.began = now;
                }
                self.question.extend_from_slice(&bytes[..count]);
                (self.needs_more, self.active) = (false, now);
                Ok(())
            }
            Err(error) => still_open(error, &mut self.readiness.readable),
        }
    }

    fn write(&mut self, now: Moment) -> io::Result<()> {
        if self.answer.is_empty() || !self.readiness.writable {
            return Ok(());
        }
        match self.stream.write(&self.answer) {
            Ok(count) => {
                self.answer.drain(..count);
                self.active = now;
                Ok(())
            }
            Err(error) => still_open(error, &mut self.readiness.writable),
        }
    }

    fn discard(&mut self) -> io::Result<()> {
        if !self.readiness.readable {
            return Ok(());
        }
        match self.stream.read(&mut [0; READ_BYTES]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) => still_open(error, &mut self.readiness.readable),
        }
    }
}

/// Whether an error only says to wait for the next event.
fn still_open(error: io::Error, is_ready: &mut bool) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => *is_ready = false,
        io::ErrorKind::Interrupted => {}
        _ => return Err(error),
    }
    Ok(())
}

impl<L: Door, T: Default> Side<L, T> {
    /// Registers the listener under the token `first`. The [`CLIENTS_MAX`] tokens that follow must be free.
    ///
    /// # Errors
    /// The error of the poll.
    pub fn register(mut door: L, first: Token, registry: &Registry) -> io::Result<Self> {
        registry.register(&mut door, first, Interest::READABLE)?;
        Ok(Self {
            door,
            door_is_ready: false,
            first: first.0,
            clients: Table::default(),
            visits_left: VISITS_PER_SPAN,
            accepts_left: ACCEPTS_PER_SPAN,
            span_ends: Moment::default(),
        })
    }

    /// Notes an event, if it is one of this listener or its connections.
    pub fn absorb(&mut self, token: usize, readiness: Readiness) {
        match token.checked_sub(self.first) {
            Some(0) => self.door_is_ready = true,
            Some(place) => {
                if let Some(id) = self.clients.id_at(place - 1) {
                    self.clients.absorb(id, readiness);
                }
            }
            None => {}
        }
    }

    /// Whether there is something to do now.
    pub fn is_ready(&self, now: Moment) -> bool {
        let (visits, accepts) = if self.span_ends <= now { (1, 1) } else { (self.visits_left, self.accepts_left) };
        self.clients.ready() > 0 && visits > 0 || self.door_is_ready && accepts > 0
    }

    /// When there is something to do without an event.
    pub fn deadline(&self) -> Option<Moment> {
        let is_held_up = self.clients.ready() > 0 || self.door_is_ready;
        let deadlines = [self.clients.first_deadline(), is_held_up.then_some(self.span_ends)];
        deadlines.into_iter().flatten().min()
    }

    /// Visits a bounded number of clients, closes those that are late, and accepts a bounded number. `hear` answers.
    pub fn serve(&mut self, clock: Clock, registry: &Registry, mut hear: impl FnMut(&mut T, &[u8]) -> Heard) {
        if self.span_ends <= clock.now {
            (self.visits_left, self.accepts_left) = (VISITS_PER_SPAN, ACCEPTS_PER_SPAN);
            self.span_ends = clock.now + SPAN;
        }
        for _ in 0..self.clients.ready() {
            let Some(id) = (self.visits_left > 0).then(|| self.clients.pop_ready()).flatten() else { break };
            // It may be gone.
            let Some(client) = self.clients.get_mut(id) else { continue };
            self.visits_left -= 1;
            match client.visit::<L>(clock.now, &mut hear) {
                Visited::Waits => self.wait(id, clock.now),
                Visited::HasMore => self.clients.queue(id),
                Visited::IsOver => drop(self.clients.remove(id)),
            }
        }
        while let Some(id) = self.clients.pop_due(clock.asked) {
            if self.clients.get(id).is_some_and(|client| client.deadline() <= clock.asked) {
                self.clients.remove(id);
            } else {
                self.wait(id, clock.now);
            }
        }
        self.accept(clock.now, registry);
    }

    /// Offers lines to each client that follows. `lines` is given the number of bytes that the client has not taken, and
    /// returns what to send after them.
    pub fn push(&mut self, now: Moment, mut lines: impl FnMut(&mut T, usize) -> Vec<u8>) {
        for id in self.clients.ids() {
            let Some(client) = self.clients.get_mut(id).filter(|client| client.follows) else { continue };
            let more = lines(&mut client.memory, client.answer.len());
            if more.is_empty() {
                continue;
            }
            client.answer.extend(more);
            client.began = now;
            if client.has_work() {
                self.clients.queue(id);
            }
        }
    }

    /// What is remembered of each client that follows.
    pub fn followers(&self) -> impl Iterator<Item = &T> {
        self.clients.iter().filter(|(_, client)| client.follows).map(|(_, client)| &client.memory)
    }

    fn wait(&mut self, id: Id, now: Moment) {
        if let Some(client) = self.clients.get(id) {
            let deadline = client.deadline();
            self.clients.wait(id, deadline, now);
        }
    }

    fn accept(&mut self, now: Moment, registry: &Registry) {
        while self.door_is_ready && self.accepts_left > 0 {
            match self.door.accept() {
                Ok(stream) => {
                    self.accepts_left -= 1;
                    if let Err(error) = self.admit(stream, now, registry) {
                        log::debug!("a connection of the operator's is closed: it cannot be watched: {error}");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.door_is_ready = false,
                Err(error) => {
                    // No event says when there is room again: the next span tries.
                    self.accepts_left = 0;
                    log::debug!("no connection of the operator's is accepted for now: {error}");
                }
            }
        }
    }

    fn admit(&mut self, mut stream: L::Stream, now: Moment, registry: &Registry) -> io::Result<()> {
        if self.clients.len() >= CLIENTS_MAX {
            let next = self.clients.iter().min_by_key(|(_, client)| (!client.was_answered, client.active));
            next.map(|(id, _)| id).map(|id| self.clients.remove(id));
        }
        let token = Token(self.first + 1 + self.clients.next_id().index());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.clients.admit(Client {
            stream,
            // To be tried: what came before the registration makes no event of its own.
            readiness: Readiness { readable: true, writable: true },
            question: Vec::new(),
            needs_more: false,
            answer: Vec::new(),
            was_answered: false,
            ending: None,
            active: now,
            began: now,
            follows: false,
            memory: T::default(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};
    use tempfile::TempDir;

    use super::*;

    const FIRST: Token = Token(100);

    /// A side over a Unix socket, whose time is a value. A question is a line, and its answer the same line; `bye` is the last.
    struct Desk {
        poll: Poll,
        side: Side<LocalListener, ()>,
        clock: Clock,
        home: TempDir,
        /// The length of an answer.
        answer_bytes: usize,
    }

    impl Desk {
        fn new() -> Self {
            let (poll, home) = (Poll::new().unwrap(), tempfile::tempdir().unwrap());
            let door = LocalListener::bind(&home.path().join("socket")).unwrap();
            let side = Side::register(door, FIRST, poll.registry()).unwrap();
            let now = Moment::default() + Duration::from_secs(1);
            Self { poll, side, clock: Clock { asked: now, now }, home, answer_bytes: 0 }
        }

        fn connect(&self) -> std::os::unix::net::UnixStream {
            let stream = std::os::unix::net::UnixStream::connect(self.home.path().join("socket")).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        }

        /// One turn. The poll does not sleep: a client of the same thread has done all it will.
        fn turn(&mut self) {
            let mut events = Events::with_capacity(100);
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            for event in &events {
                self.side.absorb(event.token().0, event.into());
            }
            let answer_bytes = self.answer_bytes;
            self.side.serve(self.clock, self.poll.registry(), |(), input| hear(input, answer_bytes));
        }

        /// Turns until nothing is left to do, as time passes.
        fn settle(&mut self) {
            let before = self.clock.now;
            self.turn();
            while self.side.is_ready(self.clock.now) || self.side.clients.ready() > 0 || self.side.door_is_ready {
                self.pass(SPAN);
                self.turn();
                assert!(self.clock.now.since(before) < Duration::from_secs(60), "it never rests");
            }
        }

        fn pass(&mut self, span: Duration) {
            let now = self.clock.now + span;
            self.clock = Clock { asked: now, now };
        }

        fn clients(&self) -> usize {
            self.side.clients.len()
        }
    }

    fn hear(input: &[u8], answer_bytes: usize) -> Heard {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Heard::More };
        let line = &input[..=end];
        let answer = [line, &vec![b'.'; answer_bytes]].concat();
        Heard::Answer { taken: line.len(), answer, is_last: line == b"bye\n" }
    }

    /// What has come, and whether the end has.
    fn heard(mut stream: &std::os::unix::net::UnixStream) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => (bytes, true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (bytes, false),
            // A closed socket with unread bytes.
            Err(_) => (bytes, true),
        }
    }

    #[test]
    fn questions_are_answered_in_their_order_however_they_come() {
        let mut desk = Desk::new();
        let mut client = desk.connect();
        for piece in ["a", "b\n", "c\nd\n", "e", "", "\nf"] {
            client.write_all(piece.as_bytes()).unwrap();
            desk.settle();
        }
        assert_eq!(heard(&client), (b"ab\nc\nd\ne\n".to_vec(), false));
    }

    #[test]
    fn after_the_last_answer_the_end_follows_and_what_comes_is_discarded() {
        let mut desk = Desk::new();
        let mut client = desk.connect();
        client.write_all(&[&b"bye\n"[..], &[b'x'; 50_000]].concat()).unwrap();
        desk.settle();
        assert_eq!((heard(&client), desk.clients()), ((b"bye\n".to_vec(), true), 1));
        drop(client);
        desk.settle();
        assert_eq!(desk.clients(), 0);
    }

    #[test]
    fn a_client_that_ends_its_direction_still_gets_its_answers() {
        let mut desk = Desk::new();
        let mut client = desk.connect();
        client.write_all(b"a\nb\nrest").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        desk.settle();
        assert_eq!((heard(&client), desk.clients()), ((b"a\nb\n".to_vec(), true), 0));
    }

    #[test]
    fn a_question_that_does_not_end_is_not_kept() {
        let mut desk = Desk::new();
        let mut client = desk.connect();
        client.write_all(&[b'x'; QUESTION_MAX_BYTES - 1]).unwrap();
        desk.settle();
        assert_eq!(desk.clients(), 1);
        client.write_all(b"x").unwrap();
        desk.settle();
        assert_eq!(desk.clients(), 0);
    }

    #[test]
    fn the_clients_that_were_silent_longest_make_room() {
        let mut desk = Desk::new();
        let mut old: Vec<_> = (0..CLIENTS_MAX).map(|_| desk.connect()).collect();
        desk.settle();
        assert_eq!(desk.clients(), CLIENTS_MAX);
        desk.pass(Duration::from_secs(1));
        for client in &mut old[1..] {
            client.write_all(b"a").unwrap();
        }
        desk.settle();
        let mut young = desk.connect();
        young.write_all(b"hello\n").unwrap();
        desk.settle();
        assert_eq!(heard(&young), (b"hello\n".to_vec(), false));
        assert_eq!((desk.clients(), heard(&old[0]).1, heard(&old[1]).1), (CLIENTS_MAX, true, false));
    }

    /// However fast others come and ask, a client that has asked gets its answer.
    #[test]
    fn nobody_has_to_make_room_before_it_is_answered_while_others_were() {
        let mut desk = Desk { answer_bytes: 1000, ..Desk::new() };
        let mut greedy = Vec::new();
        for round in 0..20 {
            for _ in 0..ACCEPTS_PER_SPAN - 1 {
                let mut client = desk.connect();
                client.write_all(&b"more\n".repeat(100)).unwrap();
                greedy.push(client);
            }
            let mut client = desk.connect();
            desk.turn();
            client.write_all(b"once\n").unwrap();
            desk.pass(SPAN);
            desk.turn();
            assert!(heard(&client).0.starts_with(b"once\n"), "in round {round}");
        }
        assert_eq!(desk.clients(), CLIENTS_MAX);
    }

    #[test]
    fn a_span_has_a_bounded_number_of_visits_and_accepts() {
        let mut desk = Desk::new();
        let clients: Vec<_> = (0..3 * CLIENTS_MAX).map(|_| desk.connect()).collect();
        for _ in 0..10 {
            desk.turn();
        }
        assert_eq!(desk.clients(), ACCEPTS_PER_SPAN, "no time has passed");
        assert!(!desk.side.is_ready(desk.clock.now), "so the poll sleeps");
        assert_eq!(desk.side.deadline(), Some(desk.side.span_ends), "until then");
        desk.pass(SPAN);
        assert!(desk.side.is_ready(desk.clock.now));
        desk.settle();
        assert_eq!((desk.clients(), clients.len()), (CLIENTS_MAX, 3 * CLIENTS_MAX));
    }

    #[test]
    fn each_state_has_its_deadline() {
        // Idle after an answer; half a question, which does not gain time by more bytes; an answer that is not read; an end
        // that is not answered.
        for (say, answer_bytes, patience) in
            [("a\n", 0, KEEP_ALIVE), ("a", 0, PATIENCE), ("a\n", 10 << 20, PATIENCE), ("bye\n", 0, PATIENCE)]
        {
            let mut desk = Desk { answer_bytes, ..Desk::new() };
            let mut client = desk.connect();
            client.write_all(say.as_bytes()).unwrap();
            desk.settle();
            desk.pass(patience - Duration::from_secs(1));
            if say == "a" {
                client.write_all(b"a").unwrap();
            }
            desk.settle();
            assert_eq!(desk.clients(), 1, "{say:?} {answer_bytes}");
            desk.pass(Duration::from_secs(1));
            desk.settle();
            assert_eq!(desk.clients(), 0, "{say:?} {answer_bytes}");
        }
    }
}

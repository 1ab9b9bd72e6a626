//! A driver of the server's half of the conversation, without a socket or a file, that records what an observer can tell.
//! The tests use it, and so do the fuzz targets (`fuzz/`).
//!
//! It checks what must hold of every conversation: an upload gets as many bytes as were declared, and nothing is run after
//! the last word.

use intake::proto::{
    Algorithm, Append, Awaits, ById, Code, Credential, Denial, Dialect, Event, Farewell, Hasher, Held, Name, Peer,
    Promise, Receipt, Receiver, Refusal, Request, ResumeId, Rules, ServerStep, Standing, Ticket, Whole,
};

/// Everything that an observer can tell of a conversation.
#[derive(Debug, Default, PartialEq)]
pub struct Transcript {
    /// What each request has shown, if the server judges them.
    pub shown: Vec<Option<Credential>>,
    pub requests: Vec<(Dialect, String)>,
    /// The content of all uploads, one after the other.
    pub content: Vec<u8>,
    pub ended: usize,
    pub failed: Vec<Code>,
    pub refused: Vec<Code>,
    /// What was asked for besides uploads.
    pub answered: Vec<&'static str>,
    pub discarded: usize,
    pub said: String,
    pub farewell: Option<Farewell>,
}

/// A resumable upload of HTTP.
pub struct ByIdUpload {
    pub standing: Standing,
    /// What it was begun with.
    pub request: Request,
    pub is_removed: bool,
}

/// A server that accepts and publishes every file, except that the name `taken` is in use and `same` is stored already.
pub struct Server {
    pub receiver: Receiver,
    pub rules: Rules,
    pub transcript: Transcript,
    /// The files that wait to be published.
    pub unsettled: Vec<(Ticket, Name)>,
    /// Of all uploads so far.
    pub names: Vec<Name>,
    /// The declared size of the upload in progress, and how much of it has come.
    pub progress: (Option<u64>, u64),
    pub late: bool,
    /// Content that needs no look is moved past the conversation.
    pub splices: bool,
    /// Resumable uploads of HTTP. The number in an id is the place here.
    pub uploads: Vec<ByIdUpload>,
    /// Where the piece belongs that comes in, how much content came before it, and whether it is the last one.
    pub piece: (usize, usize, bool),
}

impl Server {
    pub fn new() -> Self {
        Self::with(Rules::default())
    }

    pub fn with(rules: Rules) -> Self {
        Self {
            receiver: Receiver::default(),
            rules,
            transcript: Transcript::default(),
            unsettled: Vec::new(),
            names: Vec::new(),
            progress: (None, 0),
            late: false,
            splices: false,
            uploads: Vec::new(),
            piece: (0, 0, false),
        }
    }

    pub fn feed(&mut self, piece: &[u8]) {
        let mut input = piece;
        loop {
            if self.splices {
                self.splice(&mut input);
            }
            loop {
                let was_over = self.receiver.is_over();
                let Some(event) = self.receiver.receive(&mut input, &self.rules) else { break };
                assert!(!was_over || matches!(event, Event::Discarded(_)), "after the last word: {event:?}");
                self.act(event);
                if self.splices {
                    self.splice(&mut input);
                }
            }
            if input.is_empty() {
                return;
            }
            assert_eq!(self.receiver.awaits(), Awaits::Answer, "a receiver that leaves input waits for an answer");
            self.settle();
        }
    }

    /// Moves content past the conversation, as a splice does: each time half of what may be.
    fn splice(&mut self, input: &mut &[u8]) {
        let spliceable = usize::try_from(self.receiver.spliceable(&self.rules)).unwrap_or(usize::MAX).min(input.len());
        let (content, rest) = input.split_at(spliceable.div_ceil(2));
        if !content.is_empty() {
            self.transcript.content.extend_from_slice(content);
            self.receiver.spliced(content.len() as u64);
            self.progress(content.len());
            *input = rest;
        }
    }

    /// `bytes` of the upload in progress have come.
    fn progress(&mut self, bytes: usize) {
        let (declared, came) = &mut self.progress;
        *came += bytes as u64;
        assert!(declared.is_none_or(|declared| *came <= declared), "{came} bytes of {declared:?}");
    }

    /// Answers [`Event::Request`].
    fn answer(&mut self, request: Request) {
        assert_eq!(self.receiver.awaits(), Awaits::Answer);
        self.transcript.requests.push((request.dialect, request.name.to_string()));
        self.names.push(request.name.clone());
        if request.name.as_str() == "taken" {
            let refusal = Refusal::new(self.receiver.code_if_taken(), "the name is taken");
            self.receiver.refuse(&refusal, Peer::Sending, &self.rules);
        } else if request.name.as_str() == "same"
            && let Some(whole) = self.receiver.needs_no_content()
        {
            assert_eq!((Some(whole.size), whole.digest.map(Promise::Known)), (request.size, request.digest));
            self.unsettled.push((whole.ticket, request.name));
        } else {
            let held = held_of(&request);
            self.progress = (request.size, held.as_ref().map_or(0, |held| held.offset));
            self.receiver.accept(held);
        }
    }

    pub fn act(&mut self, event: Event) {
        if let Event::Content(bytes) = &event {
            self.progress(bytes.len());
        }
        let transcript = &mut self.transcript;
        match event {
            Event::Judge(shown) => {
                transcript.shown.push(shown);
                if let Some(event) = self.receiver.admit(&self.rules) {
                    return self.act(event);
                }
            }
            Event::Request(request) => self.answer(request),
            Event::ById(what) => {
                transcript.answered.push(what.what());
                self.by_id(what);
            }
            Event::EndOfPiece => self.end_piece(),
            Event::Content(bytes) => transcript.content.extend_from_slice(&bytes),
            Event::End(Whole { ticket, size, .. }) => {
                let (declared, came) = self.progress;
                assert_eq!((declared.unwrap_or(size), came), (size, size), "what came is what is published");
                transcript.ended += 1;
                self.unsettled.push((ticket, self.names.last().expect("content follows a request").clone()));
            }
            Event::Failed(refusal) => transcript.failed.push(refusal.code),
            Event::Refused(refusal, _) | Event::NotARequest(refusal, _) => transcript.refused.push(refusal.code),
            Event::Discarded(count) => transcript.discarded += count,
            Event::Answered(what) => transcript.answered.push(what),
        }
        if !self.late {
            self.settle();
        }
        self.send();
    }

    /// Answers what is asked about a resumable upload.
    fn by_id(&mut self, what: ById) {
        let id_of = |index: usize| ResumeId::made(index as u128);
        let found = (0..self.uploads.len()).find(|index| Some(&id_of(*index)) == what.id());
        let found = found.filter(|index| !self.uploads[*index].is_removed);
        match (what, found) {
            (ById::Create(creation), _) => {
                let (index, size, note) = (self.uploads.len(), creation.request.size, creation.note.clone());
                let standing = Standing { offset: 0, size, expires: Some(784_111_777), note, stored: None };
                self.piece = (index, self.transcript.content.len(), creation.is_last);
                self.uploads.push(ByIdUpload { standing, request: creation.request, is_removed: false });
                self.receiver.accept_piece(id_of(index), 0, size.unwrap_or(u64::MAX));
            }
            (ById::Append(append), Some(index)) => self.append(&append, index),
            (ById::Ask(_), Some(index)) => self.receiver.tell(&self.uploads[index].standing, &self.rules),
            (ById::Remove(_), Some(index)) => {
                // Its place stays, as ids are places.
                self.uploads[index].is_removed = true;
                self.receiver.tell(&Standing::default(), &self.rules);
            }
            (_, None) => self.receiver.deny(&Denial::unknown(), &self.rules),
        }
    }

    fn append(&mut self, append: &Append, index: usize) {
        let ByIdUpload { standing, request, .. } = &mut self.uploads[index];
        if append.offset != standing.offset {
            let denial = Denial::wrong_offset(append.offset, standing.offset);
            return self.receiver.deny(&denial, &self.rules);
        }
        if standing.stored.is_some() {
            return self.receiver.deny(&Denial::completed(standing.offset), &self.rules);
        }
        if let Err(denial) = append.check(standing.size, request.digest) {
            return self.receiver.deny(&denial, &self.rules);
        }
        standing.size = standing.size.or(append.size);
        self.piece = (index, self.transcript.content.len(), append.is_last);
        self.receiver.accept_piece(append.id.clone(), standing.offset, standing.size.unwrap_or(u64::MAX));
    }

    fn end_piece(&mut self) {
        let (index, before, is_last) = self.piece;
        let ByIdUpload { standing, request, .. } = &mut self.uploads[index];
        standing.offset += (self.transcript.content.len() - before) as u64;
        if standing.size != Some(standing.offset) && !is_last {
            return self.receiver.tell(standing, &self.rules);
        }
        let (size, digest) = (standing.offset, request.known_digest());
        standing.stored = Some(Receipt { size, digest, stored_name: request.name.to_string() });
        let whole = self.receiver.promise_file(size, digest).expect("a piece has ended");
        self.transcript.ended += 1;
        self.unsettled.push((whole.ticket, request.name.clone()));
    }

    /// Publishes the waiting files, the newest first. Outcomes must come in order all the same.
    pub fn settle(&mut self) {
        for (ticket, name) in self.unsettled.drain(..).rev() {
            self.receiver.settle(ticket, Ok(&name), &self.rules);
        }
        self.send();
    }

    /// Sends the reply a byte at a time: how it leaves must not matter either.
    pub fn send(&mut self) {
        while let ServerStep::Say(unsent) = self.receiver.step(false) {
            self.transcript.said.push(unsent[0].into());
            self.receiver.transmitted(1);
        }
    }

    /// How to part, if everything is said.
    pub fn farewell(&self) -> Option<Farewell> {
        match self.receiver.step(false) {
            ServerStep::Part(farewell) => Some(farewell),
            _ => None,
        }
    }

    pub fn end_of_burst(&mut self) {
        if let Some(event) = self.receiver.end_of_burst(&self.rules) {
            self.act(event);
        }
    }

    pub fn end_of_stream(&mut self) {
        if let Some(event) = self.receiver.end_of_stream(&self.rules) {
            self.act(event);
        }
    }

    pub fn finish(mut self) -> Transcript {
        self.settle();
        self.transcript.farewell = self.farewell();
        self.transcript
    }
}

/// An upload with a resume id has as many bytes of `abc` stored as the id says, if it is as large.
fn held_of(request: &Request) -> Option<Held> {
    let offset: usize = request.resume.as_ref()?.as_str().parse().ok()?;
    let held = b"abc".get(..offset).filter(|held| request.size.is_some_and(|size| size >= held.len() as u64))?;
    let mut hasher = Hasher::new(request.digest.map_or(Algorithm::Crc32c, |promise| promise.algorithm()));
    hasher.update(held);
    Some(Held { offset: offset as u64, hasher })
}

/// Checks that `input` means the same however it is cut into two or three pieces, or into single bytes, and whether content is
/// spliced or seen. The second cut is at every `step`th byte behind the first.
pub fn assert_no_cut_matters(server: impl Fn() -> Server, input: &str, step: usize) {
    let input = input.as_bytes();
    let whole = drive(server(), input, &[], b"");
    let check = |cuts: &[usize]| {
        for splices in [false, true] {
            let transcript = drive(Server { splices, ..server() }, input, cuts, b"");
            assert_eq!(transcript, whole, "{} cut at {cuts:?}, spliced: {splices}", input.escape_ascii());
        }
    };
    for first in 0..=input.len() {
        for second in (first..=input.len()).step_by(step).chain([input.len()]) {
            check(&[first, second]);
        }
    }
    check(&Vec::from_iter(0..input.len()));
}

/// A conversation of a first burst, cut at `cuts`, then `later`, then FIN.
pub fn drive(mut server: Server, burst: &[u8], cuts: &[usize], later: &[u8]) -> Transcript {
    let mut from = 0;
    for &cut in cuts.iter().chain([&burst.len()]) {
        server.feed(&burst[from..cut]);
        from = cut;
    }
    server.end_of_burst();
    server.feed(later);
    server.end_of_stream();
    server.finish()
}

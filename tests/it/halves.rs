//! The two halves of the conversation against one another, in every dialect that marks the end of its content: each side
//! reads the other side's bytes, in pieces of every size.

use intake::proto::{
    Algorithm, Code, Dialect, Digest, Event, Failure, Hasher, Name, NamePolicy, Peer, Promise, Receiver, Refusal,
    Request, Rules, Sender, ServerStep, Site, Step, Stored,
};

use crate::fixture::content;

fn request(dialect: Dialect, name: &str, size: Option<u64>, digest: Option<Promise>) -> Request {
    let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
    Request { size, digest, ..Request::until_end_of_stream(dialect, name) }
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    hasher.finish()
}

/// Both halves, and the bytes on their way between them.
struct Wire<'a> {
    client: Sender,
    server: Receiver,
    rules: Rules,
    content: &'a [u8],
    /// Content that was supplied, in bytes.
    supplied: usize,
    /// The server refuses the upload before its content.
    refuses: Option<Refusal>,
    received: Vec<u8>,
    stored_name: Option<Name>,
    piece: usize,
}

impl<'a> Wire<'a> {
    fn new(dialect: Dialect, content: &'a [u8], piece: usize) -> Self {
        let site = || Sender::over_http(Site::new("localhost", "/").unwrap().into());
        let client = if dialect.speaks_http() { site() } else { Sender::new() };
        let (server, rules) = (Receiver::default(), Rules::default());
        let (refuses, received, stored_name) = (None, Vec::new(), None);
        Self { client, server, rules, content, supplied: 0, refuses, received, stored_name, piece }
    }

    /// Plays until nothing moves. The bytes of either side arrive in pieces.
    fn play(&mut self) {
        loop {
            let said = self.client_says();
            said.chunks(self.piece).for_each(|piece| self.server_hears(piece));
            let answered = self.server_says();
            answered.chunks(self.piece).for_each(|piece| self.client.receive(piece));
            if said.is_empty() && answered.is_empty() {
                return;
            }
        }
    }

    fn client_says(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        loop {
            match self.client.step() {
                Step::Transmit(bytes) => {
                    wire.extend_from_slice(bytes);
                    let length = bytes.len();
                    self.client.transmitted(length);
                }
                Step::Send(range) => {
                    let bytes = &self.content[range.start as usize..range.end as usize];
                    wire.extend_from_slice(bytes);
                    self.client.content(bytes);
                }
                Step::Supply => {
                    let size = self.piece.min(self.content.len() - self.supplied);
                    self.supplied += size;
                    self.client.supply(size as u64);
                }
                _ => return wire,
            }
        }
    }

    fn server_hears(&mut self, mut input: &[u8]) {
        while let Some(event) = self.server.receive(&mut input, &self.rules) {
            match event {
                Event::Request(request) => {
                    self.stored_name = Some(request.name);
                    match &self.refuses {
                        Some(refusal) => self.server.refuse(refusal, Peer::Silent, &self.rules),
                        None => self.server.accept(None),
                    }
                }
                Event::Content(bytes) => self.received.extend_from_slice(&bytes),
                Event::End(whole) => {
                    let name = self.stored_name.as_ref().unwrap();
                    assert!(self.server.settle(whole.ticket, Ok(name), &self.rules));
                }
                Event::Discarded(_) | Event::Failed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn server_says(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while let ServerStep::Say(bytes) = self.server.step(false) {
            said.extend_from_slice(bytes);
            let length = bytes.len();
            self.server.transmitted(length);
        }
        said
    }
}

const DIALECTS: [Dialect; 4] = [Dialect::Put, Dialect::Ask, Dialect::Http, Dialect::HttpExpect];

#[test]
fn the_server_stores_and_confirms_uploads_of_the_client() {
    for (dialect, size) in DIALECTS.into_iter().flat_map(|dialect| [0, 1, 300].map(|size| (dialect, size))) {
        let content = content(size, 1);
        let digest = sha256(&content);
        let known = [None, Some(Promise::Known(digest)), Some(Promise::Trailer(Algorithm::Sha256))];
        for (piece, digest) in (1..=40).chain([1000]).flat_map(|piece| known.map(|digest| (piece, digest))) {
            for declared in [Some(size as u64), None] {
                let shown = format!("{dialect:?} {size} {declared:?} {digest:?} by {piece}");
                let mut wire = Wire::new(dialect, &content, piece);
                // One conversation carries them all.
                for name in ["a", "b c%2Fä"] {
                    wire.client.begin(&request(dialect, name, declared, digest));
                    wire.play();
                    let Some(Ok(Stored::Receipt(receipt))) = wire.client.outcome() else { panic!("{shown}") };
                    assert_eq!((receipt.stored_name.as_str(), receipt.size), (name, size as u64), "{shown}");
                    assert_eq!(receipt.digest.is_some(), digest.is_some(), "{shown}");
                    assert!(std::mem::take(&mut wire.received) == content, "{shown}");
                    wire.supplied = 0;
                    assert!(wire.client.may_begin(), "{shown}");
                }
            }
        }
    }
}

#[test]
fn the_client_reads_every_part_of_a_refusal() {
    let content = content(300, 1);
    for (dialect, piece) in DIALECTS.into_iter().flat_map(|dialect| (1..=40).map(move |piece| (dialect, piece))) {
        let refusal = Refusal { retry_seconds: Some(7), ..Refusal::new(Code::NO_SPACE, "the disk is full") };
        let mut wire = Wire { refuses: Some(refusal.clone()), ..Wire::new(dialect, &content, piece) };
        wire.client.begin(&request(dialect, "a", Some(300), None));
        wire.play();
        assert_eq!(wire.client.outcome(), Some(Err(Failure::Refused(refusal))), "{dialect:?} by {piece}");
        assert!(wire.received.is_empty());
    }
}

#[test]
fn content_that_is_damaged_on_its_way_is_refused_by_its_digest() {
    for dialect in DIALECTS {
        let (sent, digest) = (content(300, 1), sha256(&content(300, 2)));
        let mut wire = Wire::new(dialect, &sent, 1000);
        wire.client.begin(&request(dialect, "a", Some(300), Some(Promise::Known(digest))));
        wire.play();
        let Some(Err(Failure::Refused(refusal))) = wire.client.outcome() else { panic!("{dialect:?}") };
        assert_eq!(refusal.code, Code::MISMATCH);
    }
}

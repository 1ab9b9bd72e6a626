//! The server's half of the conversation, fed whole and in every split.

use intake::proto::{Awaits, Code, Dialect, Event, Farewell, Name, NamePolicy, Peer, Receipt, Receiver, Refusal};
use proptest::prelude::*;

/// All that can be told of a conversation from outside.
#[derive(Debug, Default, PartialEq)]
struct Transcript {
    request: Option<(Dialect, String)>,
    content: Vec<u8>,
    ended: bool,
    refused: Option<Code>,
    discarded: usize,
    said: Vec<u8>,
    farewell: Option<Farewell>,
}

/// A server that accepts and publishes everything.
struct Server {
    receiver: Receiver,
    transcript: Transcript,
}

impl Server {
    fn new() -> Self {
        Self { receiver: Receiver::new(NamePolicy::default()), transcript: Transcript::default() }
    }

    fn feed(&mut self, piece: &[u8]) {
        let mut input = piece;
        while let Some(event) = self.receiver.receive(&mut input) {
            self.act(event);
        }
        assert!(input.is_empty(), "what is not taken is lost");
    }

    fn act(&mut self, event: Event) {
        let transcript = &mut self.transcript;
        match event {
            Event::Request(request) => {
                assert_eq!(self.receiver.awaits(), Awaits::Verdict);
                transcript.request = Some((request.dialect, request.name.to_string()));
                self.receiver.accept();
            }
            Event::Content(bytes) => transcript.content.extend_from_slice(bytes),
            Event::End => {
                transcript.ended = true;
                let size = transcript.content.len() as u64;
                let receipt = Receipt { size, digest: "-".into(), stored_name: "stored.1".into() };
                self.receiver.published(&receipt);
            }
            Event::Refused(refusal, _) => transcript.refused = Some(refusal.code),
            Event::Discarded(count) => transcript.discarded += count,
        }
        self.send();
    }

    /// Sends what is owed, a byte at a time: how it leaves must not matter either.
    fn send(&mut self) {
        while let Some(&byte) = self.receiver.transmit().first() {
            assert_eq!(self.receiver.farewell(), None, "no farewell before the last word is sent");
            self.transcript.said.push(byte);
            self.receiver.transmitted(1);
        }
    }

    fn end_of_burst(&mut self) {
        if let Some(event) = self.receiver.end_of_burst() {
            self.act(event);
        }
    }

    fn end_of_stream(&mut self) {
        if let Some(event) = self.receiver.end_of_stream() {
            self.act(event);
        }
    }

    fn finish(mut self) -> Transcript {
        self.send();
        self.transcript.farewell = self.receiver.farewell();
        self.transcript
    }
}

/// A first burst cut at `cuts`, then `later`, then FIN.
fn converse(burst: &[u8], cuts: &[usize], later: &[u8]) -> Transcript {
    let mut server = Server::new();
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

fn stored(dialect: Dialect, name: &str, content: &[u8], said: &str) -> Transcript {
    Transcript {
        request: Some((dialect, name.into())),
        content: content.into(),
        ended: true,
        said: said.into(),
        farewell: Some(Farewell::Close),
        ..Transcript::default()
    }
}

#[test]
fn a_classic_upload_is_told_ok_and_nothing_else() {
    let expected = stored(Dialect::Classic, "report.pdf", b"content", "ok");
    assert_eq!(converse(b"report.pdf", &[], b"content"), expected);
}

#[test]
fn a_line_upload_is_told_its_receipt_only() {
    let expected = stored(Dialect::Line, "report.pdf", b"content", "done 7 - stored.1\n");
    assert_eq!(converse(b"report.pdf\ncontent", &[], b""), expected);
    assert_eq!(converse(b"report.pdf\r\n", &[], b"content"), expected);
}

#[test]
fn an_empty_file_is_a_file() {
    assert_eq!(converse(b"empty", &[], b""), stored(Dialect::Classic, "empty", b"", "ok"));
    assert_eq!(converse(b"empty\n", &[], b""), stored(Dialect::Line, "empty", b"", "done 0 - stored.1\n"));
}

#[test]
fn content_may_hold_anything() {
    let content = b"/put\n\0\xff\r\n/bye\nok";
    assert_eq!(converse(b"x", &[], content), stored(Dialect::Classic, "x", content, "ok"));
}

#[test]
fn every_split_of_a_first_burst_means_the_same() {
    let bursts: [&[u8]; 12] = [
        b"name",
        b"name\ncontent\nmore",
        b"name\r\n\r\ncontent",
        "日本語.txt\n…".as_bytes(),
        b"\n",
        b"../name\ncontent",
        b"/etc/passwd and more",
        b"/put size=4 name\nabcd",
        b"/puts",
        b"/bye\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for burst in bursts {
        let whole = converse(burst, &[], b"");
        for first in 0..=burst.len() {
            for second in first..=burst.len() {
                assert_eq!(converse(burst, &[first, second], b""), whole, "{burst:?} cut at {first} and {second}");
            }
        }
        let everywhere: Vec<usize> = (0..burst.len()).collect();
        assert_eq!(converse(burst, &everywhere, b""), whole, "{burst:?} byte by byte");
    }
}

proptest! {
    #[test]
    fn every_split_of_any_bytes_means_the_same(
        burst in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'/'), Just(b'a')], 1..600),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        later in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(burst.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(converse(&burst, &cuts, &later), converse(&burst, &[], &later));
    }
}

/// What is said to a first burst that is no request, and that the server then lingers.
fn refusal(burst: &[u8]) -> String {
    let mut server = Server::new();
    server.feed(burst);
    server.end_of_burst();
    let transcript = server.finish();
    assert_eq!((transcript.request, transcript.farewell), (None, Some(Farewell::Linger)));
    String::from_utf8(transcript.said).unwrap()
}

#[test]
fn a_slash_is_refused_at_the_byte_that_can_be_no_verb() {
    let mut server = Server::new();
    server.feed(b"/pu");
    server.end_of_burst();
    assert_eq!(server.receiver.awaits(), Awaits::RestOfHeader, "a verb is never misread, however it is cut");
    server.feed(b"x");
    assert_eq!(server.transcript.refused, Some(Code::BAD_REQUEST));
    assert_eq!(refusal(b"/etc/passwd"), "no 400 a name carries no path; send the base name, or /put size=BYTES NAME\n");
}

#[test]
fn verbs_that_are_not_spoken_are_refused_in_words() {
    for verb in [&b"/put size=1 x\nx"[..], b"/ask size=1 x\n", b"/bye\n"] {
        assert!(refusal(verb).starts_with("no 400 "), "{verb:?}");
    }
}

#[test]
fn refusals_quote_nothing_that_was_received() {
    assert_eq!(refusal(b"a\x1b[2Jb"), "no 403 the name holds a control character\n");
    assert_eq!(refusal(b"GET /x HTTP/1.1\r\n"), "no 403 HTTP is not spoken here; send the base name\n");
}

#[test]
fn a_name_without_an_end_is_refused_at_its_256th_byte() {
    let name = [b'n'; 255];
    assert_eq!(converse(&name, &[], b"").refused, None);
    assert_eq!(converse(&[&name[..], b"\r\n"].concat(), &[], b"").refused, None);
    let mut server = Server::new();
    server.feed(&[b'n'; 256]);
    assert_eq!(server.transcript.refused, Some(Code::FORBIDDEN));
    server.feed(&[b'n'; 1 << 20]);
    assert_eq!(server.transcript.discarded, 1 << 20);
}

#[test]
fn a_stream_that_ends_in_its_first_burst_stores_nothing() {
    let mut server = Server::new();
    server.feed(b"name");
    server.end_of_stream();
    let transcript = server.finish();
    assert_eq!((transcript.request, transcript.refused), (None, Some(Code::BAD_REQUEST)));
    assert_eq!(transcript.farewell, Some(Farewell::Close), "a peer that has ended needs no linger");
}

#[test]
fn a_peer_that_goes_without_a_word_hears_none() {
    let mut server = Server::new();
    server.end_of_burst();
    server.end_of_stream();
    assert_eq!(server.finish(), Transcript { farewell: Some(Farewell::Close), ..Transcript::default() });
}

#[test]
fn a_silent_line_client_is_told_ok_once_and_before_content_only() {
    let mut server = Server::new();
    server.feed(b"name\n");
    assert_eq!(server.receiver.awaits(), Awaits::FirstContent);
    server.receiver.grace_elapsed();
    server.receiver.grace_elapsed();
    server.send();
    assert_eq!((server.transcript.said.as_slice(), server.receiver.awaits()), (&b"ok\n"[..], Awaits::Content));

    let mut server = Server::new();
    server.feed(b"name\nc");
    server.receiver.grace_elapsed();
    server.send();
    assert_eq!(server.transcript.said, b"", "one extra word while content flows costs its tail");
}

/// A conversation in the middle of its content, refused then.
fn refused_in_content(burst: &[u8], peer: Peer) -> Transcript {
    let mut server = Server::new();
    server.feed(burst);
    server.end_of_burst();
    server.transcript.said.clear();
    server.receiver.refuse(&Refusal::new(Code::DISK, "the disk failed"), peer);
    server.feed(b"and more content");
    server.finish()
}

#[test]
fn a_classic_upload_that_fails_ends_with_a_reset_and_no_word() {
    let transcript = refused_in_content(b"name", Peer::Sending);
    assert_eq!((transcript.said.as_slice(), transcript.farewell), (&b""[..], Some(Farewell::Reset)));
}

#[test]
fn a_line_upload_that_fails_is_told_and_lingers_while_it_may_be_sending() {
    let transcript = refused_in_content(b"name\ncontent", Peer::Sending);
    assert_eq!(transcript.said, b"no 500 the disk failed\n");
    assert_eq!((transcript.farewell, transcript.discarded), (Some(Farewell::Linger), 16));
    assert_eq!(refused_in_content(b"name\ncontent", Peer::Silent).farewell, Some(Farewell::Close));
}

#[test]
fn a_linger_ends_with_the_stream() {
    let mut server = Server::new();
    server.feed(b"/x");
    server.send();
    assert_eq!(server.receiver.farewell(), Some(Farewell::Linger));
    server.end_of_stream();
    assert_eq!(server.receiver.farewell(), Some(Farewell::Close));
}

#[test]
fn a_name_is_validated_by_the_policy_of_the_server() {
    let mut receiver = Receiver::new(NamePolicy { portable: true });
    assert!(
        matches!(receiver.receive(&mut &b"nul.txt\n"[..]), Some(Event::Refused(refusal, _)) if refusal.code == Code::FORBIDDEN)
    );
    assert!(Name::parse(b"nul.txt", NamePolicy::default()).is_ok());
}

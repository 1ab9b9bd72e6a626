//! The server's half of the conversation, fed whole and in every split.

use intake::proto::{
    Awaits, Code, Dialect, Event, Farewell, Name, NamePolicy, OnExists, Peer, Receiver, Refusal, Rules, ServerStep,
};
use proptest::prelude::*;

use crate::conversation::{Server, Transcript, drive};

/// A conversation of a first burst, cut at `cuts`, then `later`, then FIN.
fn converse(burst: &[u8], cuts: &[usize], later: &[u8]) -> Transcript {
    drive(Server::new(), burst, cuts, later)
}

/// [`converse`] with a server that splices all it may.
fn converse_unseen(burst: &[u8], cuts: &[usize], later: &[u8]) -> Transcript {
    drive(Server { splices: true, ..Server::new() }, burst, cuts, later)
}

fn stored(dialect: Dialect, name: &str, content: &[u8], said: &str) -> Transcript {
    Transcript {
        requests: vec![(dialect, name.into())],
        content: content.into(),
        ended: 1,
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
    let expected = stored(Dialect::Line, "report.pdf", b"content", "done 7 - report.pdf\n");
    assert_eq!(converse(b"report.pdf\ncontent", &[], b""), expected);
    assert_eq!(converse(b"report.pdf\r\n", &[], b"content"), expected);
}

#[test]
fn an_empty_file_is_a_file() {
    assert_eq!(converse(b"empty", &[], b""), stored(Dialect::Classic, "empty", b"", "ok"));
    assert_eq!(converse(b"empty\n", &[], b""), stored(Dialect::Line, "empty", b"", "done 0 - empty\n"));
}

#[test]
fn content_may_hold_anything() {
    let content = b"/put\n\0\xff\r\n/bye\nok";
    assert_eq!(converse(b"x", &[], content), stored(Dialect::Classic, "x", content, "ok"));
}

#[test]
fn every_split_of_a_first_burst_means_the_same() {
    let bursts: [&[u8]; 24] = [
        b"name",
        b"name\ncontent\nmore",
        b"name\r\n\r\ncontent",
        "日本語.txt\n…".as_bytes(),
        b"\n",
        b"../name\ncontent",
        b"/etc/passwd and more",
        b"/put size=4 name\nabcd",
        b"/put size=4 taken\nabcd/put size=1 x\nx/bye\n",
        b"/put size=3 crc32c=364b3fb7 a\nabc/put size=3 crc32c=00000000 b\nabc",
        b"/put size=- crc32c=trailer a\n2\nab1\nc0\ncrc32c=364b3fb7\n/bye\nignored",
        b"/ask size=2 a\nab/ask size=1 taken\n/ask size=0 c\n",
        b"/ask size=3 crc32c=364b3fb7 on-exists=same same\n/ask size=3 crc32c=trailer same\nabccrc32c=364b3fb7\n/bye\n",
        b"/ask size=3 crc32c=364b3fb7 resume=1 a\nbc/ask size=3 crc32c=trailer resume=2 b\nccrc32c=364b3fb7\n",
        b"/ask size=3 crc32c=364b3fb7 resume=3 a\n/ask size=3 crc32c=trailer resume=3 b\ncrc32c=364b3fb7\n/bye\n",
        b"/ask size=3 crc32c=364b3fb7 resume=2 a\nx/ask size=3 crc32c=364b3fb7 resume=1 a\nb",
        b"/put size=1 ../a\nx/put size=1 b\r\ny",
        b"/put size=9 a\nabc",
        b"/put size=1 on-exists=replace a\nx/put size=1 b\nz",
        b"/put size=1 a\nxname",
        b"/puts",
        b"/bye\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for burst in bursts {
        let whole = converse(burst, &[], b"");
        for first in 0..=burst.len() {
            for second in first..=burst.len() {
                let cuts = [first, second];
                assert_eq!(converse(burst, &cuts, b""), whole, "{burst:?} cut at {first} and {second}");
                assert_eq!(converse_unseen(burst, &cuts, b""), whole, "{burst:?} unseen, cut at {first} and {second}");
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
        let whole = converse(&burst, &[], &later);
        prop_assert_eq!(&converse(&burst, &cuts, &later), &whole);
        prop_assert_eq!(&converse_unseen(&burst, &cuts, &later), &whole);
    }
}

/// The answer to a first burst that is no request. The server must linger after it.
fn refusal(burst: &[u8]) -> String {
    let mut server = Server::new();
    server.feed(burst);
    server.end_of_burst();
    let transcript = server.finish();
    assert_eq!((transcript.requests, transcript.farewell), (vec![], Some(Farewell::Linger)));
    transcript.said
}

#[test]
fn a_slash_is_refused_at_the_first_byte_that_fits_no_verb() {
    let mut server = Server::new();
    server.feed(b"/pu");
    server.end_of_burst();
    assert_eq!(server.receiver.awaits(), Awaits::RestOfHeader, "a verb is never misread, however it is cut");
    server.feed(b"x");
    assert_eq!(server.transcript.refused, [Code::BAD_REQUEST]);
    assert_eq!(refusal(b"/etc/passwd"), "no 400 a name carries no path; send the base name, or /put size=BYTES NAME\n");
}

#[test]
fn refusals_quote_nothing_that_was_received() {
    assert_eq!(refusal(b"a\x1b[2Jb"), "no 403 the name holds a control character\n");
    assert_eq!(refusal(b"EHLO x\r\n"), "no 403 SMTP is not spoken here; send the base name\n");
}

#[test]
fn a_name_without_an_end_is_refused_at_its_256th_byte() {
    let name = [b'n'; 255];
    assert_eq!(converse(&name, &[], b"").refused, []);
    assert_eq!(converse(&[&name[..], b"\r\n"].concat(), &[], b"").refused, []);
    let mut server = Server::new();
    server.feed(&[b'n'; 256]);
    assert_eq!(server.transcript.refused, [Code::FORBIDDEN]);
    server.feed(&[b'n'; 1 << 20]);
    assert_eq!(server.transcript.discarded, 1 << 20);
}

#[test]
fn a_stream_that_ends_in_its_first_burst_stores_nothing() {
    let mut server = Server::new();
    server.feed(b"name");
    server.end_of_stream();
    let transcript = server.finish();
    assert_eq!((transcript.requests, transcript.refused), (vec![], vec![Code::BAD_REQUEST]));
    assert_eq!(transcript.farewell, Some(Farewell::Close), "a peer that has ended needs no linger");
}

#[test]
fn a_client_that_sends_nothing_gets_no_answer() {
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
    assert_eq!((server.transcript.said.as_str(), server.receiver.awaits()), ("ok\n", Awaits::Content));

    let mut server = Server::new();
    server.feed(b"name\nc");
    server.receiver.grace_elapsed();
    server.send();
    assert_eq!(server.transcript.said, "", "an unexpected answer while content flows would cost its tail");
}

/// A conversation that is refused in the middle of its content.
fn refused_in_content(burst: &[u8], peer: Peer) -> Transcript {
    let mut server = Server::new();
    server.feed(burst);
    server.end_of_burst();
    server.transcript.said.clear();
    server.receiver.refuse(&Refusal::new(Code::DISK, "the disk failed"), peer, &server.rules);
    server.feed(b"and more content");
    server.finish()
}

#[test]
fn a_classic_upload_that_fails_ends_with_a_reset_and_no_answer() {
    let transcript = refused_in_content(b"name", Peer::Sending);
    assert_eq!((transcript.said.as_str(), transcript.farewell), ("", Some(Farewell::Reset)));
}

#[test]
fn a_line_upload_that_fails_is_refused_and_lingers_while_the_client_may_send() {
    let transcript = refused_in_content(b"name\ncontent", Peer::Sending);
    assert_eq!(transcript.said, "no 500 the disk failed\n");
    assert_eq!((transcript.farewell, transcript.discarded), (Some(Farewell::Linger), 16));
    assert_eq!(refused_in_content(b"name\ncontent", Peer::Silent).farewell, Some(Farewell::Close));
}

#[test]
fn a_linger_ends_with_the_stream() {
    let mut server = Server::new();
    server.feed(b"/x");
    server.send();
    assert_eq!(server.farewell(), Some(Farewell::Linger));
    server.receiver.half_closed();
    assert_eq!((server.farewell(), server.receiver.awaits()), (None, Awaits::EndOfStream));
    server.feed(b"more");
    assert_eq!(server.transcript.discarded, 4, "it reads on, so that nothing unread turns the close into a reset");
    server.end_of_stream();
    assert_eq!(server.farewell(), Some(Farewell::Close));
}

/// The next step of a conversation that has read `input` and not sent anything, with more input at hand and without.
fn steps(input: &[u8]) -> [String; 2] {
    let (mut receiver, rules, mut rest) = (Receiver::default(), Rules::default(), input);
    while let Some(event) = receiver.receive(&mut rest, &rules) {
        match event {
            Event::Request(request) if request.name.as_str() != "late" => receiver.accept(None),
            Event::End(whole) => {
                receiver.settle(whole.ticket, Err(&Refusal::new(Code::CONFLICT, "no")), &rules);
            }
            _ => {}
        }
    }
    [true, false].map(|reads_on| match receiver.step(reads_on) {
        ServerStep::Say(unsent) => String::from_utf8_lossy(unsent).into_owned(),
        ServerStep::Read(reading) => format!("read {}", reading.content_bytes),
        step => format!("{step:?}"),
    })
}

#[test]
fn a_reply_waits_for_input_that_may_add_to_it_and_for_nothing_else() {
    let refused = "no 409 no\n";
    assert_eq!(steps(b"/put size=1 a\nx"), ["read 0", refused]);
    assert_eq!(steps(b"/put size=1 a\nx/put size=5 b\nyy"), ["read 3", refused]);
    assert_eq!(steps(b"/put size=1 a\nx/put size=5 late\n"), [refused, refused], "nothing is read before the answer");
    assert_eq!(steps(b"/put size=1 a\nx/bye\n"), [refused, refused], "the last word");
    assert_eq!(steps(b"/put size=5 a\nx"), ["read 4", "read 4"]);
    assert_eq!(steps(b"/put size=5 late\n"), ["Answer", "Answer"]);
    let much = b"/put size=1 a\nx".repeat((16 << 10) / refused.len() + 1);
    assert!(steps(&much)[0].len() >= 16 << 10, "a client that does not read is not read from");
}

#[test]
fn a_name_is_validated_by_the_policy_of_the_server() {
    let rules = Rules { names: NamePolicy { portable: true }, ..Rules::default() };
    let mut receiver = Receiver::default();
    assert!(
        matches!(receiver.receive(&mut &b"nul.txt\n"[..], &rules), Some(Event::NotARequest(refusal, _)) if refusal.code == Code::FORBIDDEN)
    );
    assert!(Name::parse(b"nul.txt", NamePolicy::default()).is_ok());
}

/// A conversation whose input comes at once and whose outcomes come late, the newest first. It ends with FIN if not
/// before.
fn pipelined(input: &[u8]) -> Transcript {
    let mut server = Server::new();
    server.late = true;
    server.feed(input);
    server.end_of_stream();
    server.finish()
}

#[test]
fn every_request_gets_its_outcome_in_order() {
    let transcript =
        pipelined(b"/put size=1 a\nA/put size=2 taken\nBB/put size=0 c\n/put size=1 ../d\nD/put size=1 e\nE");
    let said = "done 1 - a\nno 409 the name is taken\ndone 0 - c\nno 403 a name carries no path; send the base name\ndone 1 - e\n";
    assert_eq!((transcript.said.as_str(), transcript.content.as_slice()), (said, &b"AE"[..]));
    assert_eq!((transcript.discarded, transcript.farewell), (3, Some(Farewell::Close)));
}

#[test]
fn a_thousand_pipelined_requests_are_answered_and_never_owe_more_than_a_bounded_number() {
    let input: Vec<u8> = (0..1000).flat_map(|n| format!("/put size=1 f{n}\nx").into_bytes()).collect();
    let mut server = Server::new();
    server.late = true;
    let mut rest = input.as_slice();
    while let Some(event) = server.receiver.receive(&mut rest, &server.rules) {
        server.act(event);
    }
    assert_eq!((server.unsettled.len(), server.receiver.awaits()), (64, Awaits::Answer));
    server.feed(rest);
    let said = server.finish().said;
    let expected: String = (0..1000).map(|n| format!("done 1 - f{n}\n")).collect();
    assert!(said == expected);
}

#[test]
fn a_wrong_digest_costs_only_its_own_file() {
    let transcript = pipelined(b"/put size=3 crc32c=00000000 a\nabc/put size=3 crc32c=364B3FB7 b\nabc/bye\n");
    let said = "no 422 the content has crc32c:364b3fb7, not crc32c:00000000 as promised; send it again\n\
                done 3 crc32c:364b3fb7 b\n";
    assert_eq!((transcript.said.as_str(), transcript.failed, transcript.ended), (said, vec![Code::MISMATCH], 1));
}

#[test]
fn ask_hears_ok_before_its_content_and_no_content_follows_a_refusal() {
    let mut server = Server::new();
    server.feed(b"/ask size=2 a\n");
    assert_eq!(server.transcript.said, "ok 0\n");
    server.feed(b"xy/ask size=5 taken\n/ask size=0 c\n/bye\n");
    let said = "ok 0\ndone 2 - a\nno 409 the name is taken\nok 0\ndone 0 - c\n";
    let transcript = server.finish();
    assert_eq!((transcript.said.as_str(), transcript.farewell), (said, Some(Farewell::Linger)));
}

#[test]
fn a_file_that_is_stored_already_gets_its_receipt_in_order_and_without_content() {
    let transcript = pipelined(
        b"/put size=1 a\nx/ask size=3 crc32c=364b3fb7 on-exists=same same\n/put size=1 b\ny\
          /put size=3 crc32c=364b3fb7 on-exists=same same\nabc",
    );
    let said = "done 1 - a\ndone 3 crc32c:364b3fb7 same\ndone 1 - b\ndone 3 crc32c:364b3fb7 same\n";
    assert_eq!((transcript.said.as_str(), transcript.content.as_slice()), (said, &b"xyabc"[..]));
}

#[test]
fn bytes_that_the_server_holds_are_never_sent_again() {
    let transcript = pipelined(
        b"/ask size=3 crc32c=364b3fb7 resume=1 a\nbc/ask size=3 crc32c=trailer resume=3 b\ncrc32c=364b3fb7\n\
          /ask size=3 crc32c=364b3fb7 resume=3 c\n/ask size=3 crc32c=364b3fb7 resume=2 d\nx/put size=1 e\ny",
    );
    let expected = [
        "ok 1",
        "done 3 crc32c:364b3fb7 a",
        "ok 3",
        "done 3 crc32c:364b3fb7 b",
        "ok 3",
        "done 3 crc32c:364b3fb7 c",
        "ok 2",
        "no 422 the content has crc32c:",
        "done 1 - e",
    ];
    let said: Vec<&str> = transcript.said.lines().collect();
    assert!(said.len() == expected.len() && said.iter().zip(expected).all(|(a, b)| a.starts_with(b)), "{said:#?}");
    assert_eq!((transcript.content.as_slice(), transcript.failed), (&b"bcxy"[..], vec![Code::MISMATCH]));
}

#[test]
fn a_dismissal_is_the_last_word_wherever_it_comes() {
    for input in [&b"/ask size=3 crc32c=trailer a\na"[..], b"/put size=3 a\na", b"/put size=1 a\nx", b"/ask si"] {
        let mut server = Server::new();
        server.feed(input);
        server.receiver.dismiss(&Refusal::new(Code::CONFLICT, "claimed elsewhere"), &server.rules);
        server.feed(b"more");
        let transcript = server.finish();
        assert!(transcript.said.ends_with("no 409 claimed elsewhere\n"), "{}", transcript.said);
        assert_eq!((transcript.discarded, transcript.farewell), (4, Some(Farewell::Linger)));
    }
}

/// What a server that shuts down answers to `input`, how it closes after reading all of it, and how many uploads end.
fn drained(before: &[u8], input: &[u8]) -> (String, Option<Farewell>, usize) {
    let mut server = Server::new();
    server.feed(before);
    server.rules.is_draining = true;
    server.feed(input);
    if let Some(event) = server.receiver.end_of_requests(&server.rules) {
        server.act(event);
    }
    server.settle();
    server.send();
    let farewell = server.farewell();
    (server.transcript.said, farewell, server.transcript.requests.len())
}

#[test]
fn a_shutdown_refuses_requests_and_closes_silently_where_there_is_none() {
    const REFUSED: &str = "no 503 the server is shutting down\n";
    for input in [&b"/put si"[..], b"/put size=1 a\nx", b"/ask size=1 a\n", b"nam", b"name\ncontent", b"/"] {
        assert_eq!(drained(b"", input), (REFUSED.into(), Some(Farewell::Linger), 0), "{}", input.escape_ascii());
    }
    assert_eq!(drained(b"nam", b""), (REFUSED.into(), Some(Farewell::Linger), 0));
    assert_eq!(drained(b"", b""), (String::new(), Some(Farewell::Close), 0));
    for input in [&b"/bye\n"[..], b"/by"] {
        assert_eq!(drained(b"", input), (String::new(), Some(Farewell::Linger), 0));
    }
    let after = |input| drained(b"/put size=2 a\nx", input);
    assert_eq!(after(b""), (String::new(), None, 1), "the upload may finish");
    assert_eq!(after(b"y"), ("done 2 - a\n".into(), Some(Farewell::Linger), 1));
    assert_eq!(after(b"y/put size=1 b\nx"), (format!("done 2 - a\n{REFUSED}"), Some(Farewell::Linger), 1));
}

#[test]
fn a_connection_whose_outcome_stays_unknown_ends_with_a_reset() {
    for (input, said) in [
        (&b"name"[..], "ok"),
        (b"name\ncontent", ""),
        (b"/put size=1 ../a\nx/put size=1 b\nx/put size=1 ../c\nx/put size=3 d\nx", "no 403 "),
    ] {
        let mut server = Server { late: true, ..Server::new() };
        server.feed(input);
        server.end_of_burst();
        server.end_of_stream();
        assert!(server.receiver.owes());
        server.receiver.abandon();
        server.send();
        assert!(server.transcript.said.starts_with(said), "{}", server.transcript.said);
        assert_eq!(server.transcript.said.lines().count(), usize::from(!said.is_empty()));
        assert_eq!(server.farewell(), Some(Farewell::Reset));
        let (ticket, name) = server.unsettled.remove(0);
        assert!(!server.receiver.settle(ticket, Ok(&name), &server.rules), "the outcome comes too late");
    }
}

#[test]
fn chunks_carry_content_of_unknown_size_and_a_trailer_brings_the_digest() {
    let transcript = pipelined(b"/put size=- crc32c=trailer a\n2\nab1\nc0\ncrc32c=364b3fb7\n/put size=- b\n0\n");
    assert_eq!(transcript.said, "done 3 crc32c:364b3fb7 a\ndone 0 - b\n");
    assert_eq!(transcript.content, b"abc");
}

#[test]
fn content_cut_short_is_never_an_end() {
    for input in [&b"/put size=9 a\nabc"[..], b"/put size=- a\n3\nabc", b"/put size=3 crc32c=trailer a\nabc"] {
        let transcript = pipelined(input);
        assert_eq!((transcript.ended, transcript.failed), (0, vec![Code::BAD_REQUEST]));
        assert!(transcript.said.starts_with("no 400 "), "{}", transcript.said);
        assert_eq!(transcript.farewell, Some(Farewell::Close));
    }
}

#[test]
fn after_a_put_a_bare_name_is_no_request() {
    let transcript = pipelined(b"/put size=1 a\nxname");
    assert_eq!(transcript.said, "done 1 - a\nno 400 after a /put or /ask only /put, /ask or /bye may come\n");
    assert_eq!(transcript.discarded, 3);
}

#[test]
fn bye_is_answered_by_the_end_and_silences_what_follows() {
    let mut server = Server::new();
    server.feed(b"/put size=0 a\n/bye\r\n/put size=0 b\n");
    assert_eq!(server.farewell(), Some(Farewell::Linger));
    let transcript = server.finish();
    assert_eq!((transcript.said.as_str(), transcript.discarded), ("done 0 - a\n", 14));
}

#[test]
fn only_a_server_that_replaces_lets_a_request_replace() {
    let input = b"/put size=1 on-exists=replace a\nx/put size=1 on-exists=refuse b\ny";
    assert!(pipelined(input).said.starts_with("no 403 this server replaces no files"));
    assert!(pipelined(input).said.ends_with("done 1 - b\n"));
    let mut server = Server::with(Rules { on_exists: OnExists::Replace, ..Rules::default() });
    server.feed(input);
    assert_eq!(server.transcript.said, "done 1 - a\ndone 1 - b\n");
}

#[test]
fn a_file_that_is_too_large_ends_the_conversation_at_once() {
    let rules = Rules { max_file_size: Some(3), ..Rules::default() };
    for (input, farewell) in [
        (&b"/put size=4 a\n"[..], Farewell::Linger),
        (b"/ask size=4 a\n", Farewell::Linger),
        (b"/put size=- a\n4\nabcd", Farewell::Linger),
        (b"a\nabcd", Farewell::Linger),
    ] {
        let mut server = Server::with(rules.clone());
        server.feed(input);
        let transcript = server.finish();
        assert!(transcript.said.starts_with("no 413 "), "{input:?}: {}", transcript.said);
        assert_eq!((transcript.ended, transcript.farewell), (0, Some(farewell)));
    }
    let mut server = Server::with(rules);
    server.feed(b"a");
    server.end_of_burst();
    server.feed(b"abcd");
    assert_eq!(server.finish().farewell, Some(Farewell::Reset));
}

#[test]
fn content_is_spliced_where_nothing_is_computed_or_bounded() {
    for (input, spliceable) in [
        (&b"/put size=9 a\nab"[..], 7),
        (b"/put size=9 crc32c=364b3fb7 a\nab", 0),
        (b"/put size=- a\n5\nab", 3),
        (b"/put size=- a\n2\nab", 0),
        (b"a\n", 0),
        (b"a\nab", 10),
        (b"a\n0123456789ab", 0),
        (b"/put size=9 taken\nab", 0),
        (b"/put size=2 a\nab", 0),
    ] {
        let mut server = Server::with(Rules { max_file_size: Some(12), ..Rules::default() });
        server.feed(input);
        assert_eq!(server.receiver.spliceable(&server.rules), spliceable, "{input:?}");
    }
}

#[test]
fn a_server_that_requires_sizes_refuses_bare_names() {
    for input in [&b"name\ncontent"[..], b"name"] {
        let mut server = Server::with(Rules { require_size: true, ..Rules::default() });
        server.feed(input);
        server.end_of_burst();
        assert!(server.finish().said.starts_with("no 403 this server takes uploads of a known size only"));
    }
}

#[test]
fn a_disk_that_fails_after_the_content_is_the_last_word() {
    let mut server = Server::new();
    server.late = true;
    server.feed(b"/put size=1 a\nx/put size=9 b\ny");
    let (ticket, _) = server.unsettled.remove(0);
    server.receiver.settle(ticket, Err(&Refusal::new(Code::DISK, "the disk failed")), &server.rules);
    let transcript = server.finish();
    assert_eq!((transcript.said.as_str(), transcript.farewell), ("no 500 the disk failed\n", Some(Farewell::Linger)));
}

#[test]
fn a_classic_upload_that_cannot_be_published_ends_with_a_reset() {
    let mut server = Server::new();
    server.late = true;
    server.feed(b"name");
    server.end_of_burst();
    server.end_of_stream();
    assert_eq!((server.receiver.awaits(), server.farewell()), (Awaits::Answer, None));
    let (ticket, _) = server.unsettled.remove(0);
    server.receiver.settle(ticket, Err(&Refusal::new(Code::CONFLICT, "the name is taken")), &server.rules);
    assert_eq!(server.finish().farewell, Some(Farewell::Reset));
}

#[test]
fn an_upload_that_needs_no_more_bytes_ends_however_much_is_owed() {
    for asks in 1..100 {
        let input: Vec<u8> = (0..asks).flat_map(|n| format!("/ask size=0 f{n}\n").into_bytes()).collect();
        let transcript = pipelined(&input);
        assert_eq!((transcript.ended, transcript.failed.len()), (asks, 0), "{asks} asks");
    }
}

//! The answers of an HTTP server, and the outcome of an upload for each.
//!
//! A server of this project sends the receipt, or the refusal, as the first line of the body. Other servers send only a
//! status. RFC 9110 defines the statuses, RFC 9112 when the connection can carry another request.

use super::{Answered, Failure, Outcome, Phase, Sender, Stored, Upload};
use crate::proto::dialect::{Answer, Heard, decode};
use crate::proto::{Code, Name, NamePolicy, Refusal, Reply};

impl Sender {
    pub(super) fn hear_http(&mut self, mut bytes: &[u8]) {
        while self.phase != Phase::Over
            && let Some(heard) = self.answers.take(&mut bytes)
        {
            match heard {
                Heard::Continue => self.hear_continue(),
                Heard::Answer(answer) => self.hear_answer(&answer),
                Heard::Foreign => self.end_with(Failure::Foreign),
            }
        }
    }

    /// A `100 Continue` that was not asked for, or comes late, has no effect.
    pub(super) fn hear_continue(&mut self) {
        if self.uploads.front().is_some_and(Upload::waits_for_ok) {
            self.hear_ok(0);
        }
    }

    /// Ends an answer that has begun at the end of the stream.
    pub(super) fn end_answers(&mut self, is_clean: bool) {
        if let Some(answer) = self.answers.end_of_stream(is_clean) {
            self.hear_answer(&answer);
        }
    }

    /// An answer without a request means that the server gives up the connection, such as 408 on an idle one.
    fn hear_answer(&mut self, answer: &Answer) {
        let upload = self.uploads.pop_front();
        self.outcomes.extend(upload.as_ref().map(|upload| upload.judge(answer)));
        match upload {
            // The server closes, and does not wait for this side's end.
            Some(Upload { is_whole: true, .. }) if self.is_last_begun => self.phase = Phase::HalfClosed,
            Some(Upload { is_whole: true, .. }) if !answer.is_last => {}
            // Without the announced content, the server cannot know where the next request begins.
            _ => self.end_with(Failure::Unserved),
        }
    }
}

impl Upload {
    fn judge(&self, answer: &Answer) -> Outcome {
        match answer.status {
            200 | 201 | 204 if !self.is_whole => Err(Failure::Foreign),
            200 | 201 | 204 => match reply(answer) {
                Some(Reply::Done(receipt)) => self.check(receipt),
                _ => Ok(Stored::Answered(self.answered(answer))),
            },
            _ => Err(Failure::Refused(refusal(answer))),
        }
    }

    fn answered(&self, answer: &Answer) -> Answered {
        let asked = self.name.clone().expect("an upload in HTTP keeps its name");
        let told = answer.location.as_deref().and_then(name_in);
        Answered { status: answer.status, size: self.position, digest: self.digest, name: told.unwrap_or(asked) }
    }
}

/// The reply line of a server of this project.
fn reply(answer: &Answer) -> Option<Reply> {
    let line = answer.words.split(|byte| *byte == b'\n').next()?;
    Reply::parse(line).ok()
}

fn refusal(answer: &Answer) -> Refusal {
    let Answer { status, reason, retry_seconds, location, .. } = answer;
    if let Some(Reply::No(refusal)) = reply(answer) {
        return Refusal { retry_seconds: refusal.retry_seconds.or(*retry_seconds), ..refusal };
    }
    let mut words = if reason.is_empty() { "no reason is given".to_owned() } else { reason.clone() };
    match (status, location) {
        (300..=399, Some(location)) => words += &format!("; send to {location}"),
        (202, _) => words += "; that does not say that it is stored",
        _ => {}
    }
    Refusal { retry_seconds: *retry_seconds, ..Refusal::new(Code(*status), words) }
}

/// The name at the end of a URL, if it is valid.
fn name_in(location: &str) -> Option<Name> {
    let path = location.split(['?', '#']).next()?;
    let (_, last) = path.rsplit_once('/')?;
    Name::parse(&decode(last.as_bytes())?, NamePolicy::default()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::tests::{CONTENT, End, SIZE, hear, run};
    use super::super::{Step, Stored};
    use super::*;
    use crate::proto::{Algorithm, Dialect, Digest, Hasher, OnExists, Promise, Receipt, Request, Site};

    /// The fields that every request has.
    const HOST: &str = concat!("Host: host:9000\r\nUser-Agent: intake/", env!("CARGO_PKG_VERSION"), "\r\n");

    fn request(dialect: Dialect) -> Request {
        let name = Name::parse(b"a b.txt", NamePolicy::default()).unwrap();
        Request { size: Some(SIZE), ..Request::until_end_of_stream(dialect, name) }
    }

    fn sha256() -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(CONTENT);
        hasher.finish()
    }

    fn trailer(dialect: Dialect) -> Request {
        Request { digest: Some(Promise::Trailer(Algorithm::Sha256)), ..request(dialect) }
    }

    fn known(dialect: Dialect) -> Request {
        Request { digest: Some(Promise::Known(sha256())), ..request(dialect) }
    }

    fn sender() -> Sender {
        Sender::over_http(Arc::new(Site::new("host:9000", "/in/").unwrap()))
    }

    fn begun(request: &Request) -> Sender {
        let mut sender = sender();
        sender.begin(request);
        sender
    }

    /// An upload: the server's answers before and after the content, the end, and whether another upload may begin.
    struct Script {
        request: Request,
        before: &'static str,
        after: String,
        end: End,
        outcome: Option<Outcome>,
        may_begin: bool,
    }

    /// Plays `script`, with the server's bytes cut at `cuts`.
    fn play(script: &Script, cuts: &[usize]) -> (Option<Outcome>, bool) {
        let mut sender = begun(&script.request);
        run(&mut sender, 100);
        hear(&mut sender, [script.before, &script.after], script.end, cuts);
        let outcome = sender.outcome();
        assert_eq!(sender.outcome(), None, "there is one outcome");
        (outcome, sender.may_begin())
    }

    fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn stored(digest: Option<Digest>) -> Option<Outcome> {
        Some(Ok(Stored::Receipt(Receipt { size: SIZE, digest, stored_name: "a.1".into() })))
    }

    fn answered(status: u16, name: &str, digest: Option<Digest>) -> Option<Outcome> {
        let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
        Some(Ok(Stored::Answered(Answered { status, size: SIZE, digest, name })))
    }

    fn refused(code: u16, retry_seconds: Option<u32>, words: &'static str) -> Option<Outcome> {
        Some(Err(Failure::Refused(Refusal { retry_seconds, ..Refusal::new(Code(code), words) })))
    }

    fn failed(failure: Failure) -> Option<Outcome> {
        Some(Err(failure))
    }

    /// Uploads whose content is sent at once.
    fn put_scripts() -> Vec<Script> {
        let script = |request, after: String, end, outcome, may_begin| Script {
            request,
            before: "",
            after,
            end,
            outcome,
            may_begin,
        };
        let one = |after, outcome| script(request(Dialect::Http), after, End::Open, outcome, true);
        let last = |after, end, outcome| script(request(Dialect::Http), after, end, outcome, false);
        let checked = format!("done 12 {} a.1\n", sha256());
        let nginx = "<html>\r\n<head><title>413";
        vec![
            one(answer("201 Created", "done 12 - a.1\n"), stored(None)),
            one(answer("201 Created", "done 12 - a.1\r\nand more\n"), stored(None)),
            one(answer("201 Created", &checked), stored(Some(sha256()))),
            script(trailer(Dialect::Http), answer("201 Created", &checked), End::Open, stored(Some(sha256())), true),
            script(known(Dialect::Http), answer("201 Created", &checked), End::Open, stored(Some(sha256())), true),
            last(answer("201 Created\r\nConnection: close", "done 12 - a.1\n"), End::Stream, stored(None)),
            last("HTTP/1.1 200 OK\r\n\r\ndone 12 - a.1\n".into(), End::Stream, stored(None)),
            // The end of the stream ends this answer, so a reset may have cut it.
            last("HTTP/1.1 200 OK\r\n\r\ndone 12 - a.1\n".into(), End::Reset, failed(Failure::Unknown)),
            one(answer("201 Created", "done 11 - a\n"), failed(wrong_receipt(11))),
            script(
                trailer(Dialect::Http),
                answer("201 Created", "done 12 - a\n"),
                End::Open,
                failed(wrong_receipt(12)),
                true,
            ),
            // Servers without receipts.
            one("HTTP/1.1 204 No Content\r\n\r\n".into(), answered(204, "a b.txt", None)),
            one(answer("200 OK", "<html>"), answered(200, "a b.txt", None)),
            one(answer("201 Created\r\nLocation: http://h/in/b%20c?x#y", ""), answered(201, "b c", None)),
            one(answer("201 Created\r\nLocation: /in/b%2Fc", ""), answered(201, "a b.txt", None)),
            one(answer("201 Created\r\nLocation: /in/%0A", ""), answered(201, "a b.txt", None)),
            one(answer("201 Created\r\nLocation: /in/%", ""), answered(201, "a b.txt", None)),
            one(answer("201 Created\r\nLocation: here", ""), answered(201, "a b.txt", None)),
            script(
                trailer(Dialect::Http),
                answer("201 Created", ""),
                End::Open,
                answered(201, "a b.txt", Some(sha256())),
                true,
            ),
            // Refusals.
            one(answer("409 Conflict", "no 409 taken\n"), refused(409, None, "taken")),
            one(answer("409 Conflict", "no 409 retry=5 taken\n"), refused(409, Some(5), "taken")),
            one(answer("503 Busy\r\nRetry-After: 7", "no 503 busy\n"), refused(503, Some(7), "busy")),
            one(answer("503 Busy\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT", ""), refused(503, None, "Busy")),
            one(answer("413 Too Large", nginx), refused(413, None, "Too Large")),
            one(answer("500 ", ""), refused(500, None, "no reason is given")),
            one(answer("202 Accepted", ""), refused(202, None, "Accepted; that does not say that it is stored")),
            one(answer("301 Moved\r\nLocation: /there/", ""), refused(301, None, "Moved; send to /there/")),
            last(answer("400 Bad\r\nConnection: close", "no 400 bad\n"), End::Stream, refused(400, None, "bad")),
            last(
                "HTTP/1.1 413 Large\r\nContent-Length: 90\r\n\r\n<html>".into(),
                End::Reset,
                refused(413, None, "Large"),
            ),
            // No answer.
            last(String::new(), End::Stream, failed(Failure::Unknown)),
            last("HTTP/1.1 201 Created\r\n".into(), End::Stream, failed(Failure::Unknown)),
            last("HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\ndone".into(), End::Stream, failed(Failure::Unknown)),
            last(String::new(), End::Reset, failed(Failure::Unknown)),
            last("ok".into(), End::Open, failed(Failure::Foreign)),
            last("no 403 HTTP is not spoken here\n".into(), End::Open, failed(Failure::Foreign)),
            last("SSH-2.0-x\r\n".into(), End::Open, failed(Failure::Foreign)),
            // `100 Continue` that nobody waits for.
            one(["HTTP/1.1 100 Continue\r\n\r\n", &answer("200 OK", "done 12 - a.1\n")].concat(), stored(None)),
        ]
    }

    /// Uploads that wait for `100 Continue`.
    fn expect_scripts() -> Vec<Script> {
        let script = |request, before, after, end, outcome, may_begin| Script {
            request,
            before,
            after,
            end,
            outcome,
            may_begin,
        };
        let one = |before, after, end, outcome, may_begin| {
            script(request(Dialect::HttpExpect), before, after, end, outcome, may_begin)
        };
        let done = || answer("201 Created", "done 12 - a.1\n");
        let leave = "HTTP/1.1 100 Continue\r\nDate: x\r\n\r\n";
        let checked = answer("201 Created", &format!("done 12 {} a.1\n", sha256()));
        vec![
            one(leave, done(), End::Open, stored(None), true),
            one("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 \r\n\r\n", done(), End::Open, stored(None), true),
            script(trailer(Dialect::HttpExpect), leave, checked, End::Open, stored(Some(sha256())), true),
            // The server may now wait for the content, or not.
            one("", answer("413 Large", "no 413 large\n"), End::Open, refused(413, None, "large"), false),
            one("", answer("417 Expectation Failed", ""), End::Open, refused(417, None, "Expectation Failed"), false),
            one("", done(), End::Open, failed(Failure::Foreign), false),
            one("", String::new(), End::Stream, failed(Failure::Unanswered), false),
            one("", String::new(), End::Reset, failed(Failure::Reset), false),
            one(leave, String::new(), End::Stream, failed(Failure::Unknown), false),
        ]
    }

    fn scripts() -> Vec<Script> {
        put_scripts().into_iter().chain(expect_scripts()).collect()
    }

    fn wrong_receipt(size: u64) -> Failure {
        Failure::WrongReceipt(Receipt { size, digest: None, stored_name: "a".into() })
    }

    #[test]
    fn every_answer_has_its_outcome_wherever_it_is_cut() {
        for script in scripts() {
            let expected = (script.outcome.clone(), script.may_begin);
            let shown = (script.before, &script.after);
            assert_eq!(play(&script, &[]), expected, "{shown:?}");
            let length = script.before.len().max(script.after.len());
            for first in 0..=length {
                for second in first..=length {
                    assert_eq!(play(&script, &[first, second]), expected, "{first} {second} {shown:?}");
                }
            }
            assert_eq!(play(&script, &(0..length).collect::<Vec<_>>()), expected, "{shown:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_is_never_stored(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            start in 0..3usize,
            cut in 0..200usize,
        ) {
            let start = ["", "HTTP/1.1 ", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"][start];
            let stream = [start.as_bytes(), &bytes].concat();
            let hear = |cut: usize| {
                let mut sender = begun(&request(Dialect::Http));
                run(&mut sender, 100);
                sender.receive(&stream[..cut]);
                sender.receive(&stream[cut..]);
                sender.end_of_stream();
                assert_eq!(sender.step(), Step::Over);
                sender.outcome().expect("the end of the stream ends it")
            };
            prop_assert!(hear(0).is_err());
            prop_assert_eq!(hear(cut.min(stream.len())), hear(0));
        }
    }

    #[test]
    fn the_sent_bytes_are_the_same_in_every_piece() {
        let put = format!("PUT /in/a%20b.txt HTTP/1.1\r\n{HOST}");
        // `printf 'twelve bytes' | openssl dgst -sha256 -binary | base64`.
        let digest = "Repr-Digest: sha-256=:1M4sUnr+Z0x6CGvXTiVgGePV3Nsx7rbqre9a2oxDg7k=:\r\n";
        let crc32c = Request { digest: Some(Promise::Trailer(Algorithm::Crc32c)), ..request(Dialect::Http) };
        for (request, rest) in [
            (request(Dialect::Http), "Content-Length: 12\r\n\r\ntwelve bytes".to_owned()),
            (crc32c, "Content-Length: 12\r\n\r\ntwelve bytes".to_owned()),
            (known(Dialect::Http), format!("Content-Length: 12\r\n{digest}\r\ntwelve bytes")),
            (
                trailer(Dialect::Http),
                format!(
                    "Transfer-Encoding: chunked\r\nTrailer: Repr-Digest\r\n\r\nc\r\ntwelve bytes\r\n0\r\n{digest}\r\n"
                ),
            ),
        ] {
            for piece in 1..=13 {
                assert_eq!(run(&mut begun(&request), piece), format!("{put}{rest}"));
            }
        }
        let stream = Request { size: None, ..request(Dialect::Http) };
        let chunks = "5\r\ntwelv\r\n5\r\ne byt\r\n2\r\nes\r\n0\r\n";
        assert_eq!(run(&mut begun(&stream), 5), format!("{put}Transfer-Encoding: chunked\r\n\r\n{chunks}\r\n"));
        let stream = Request { size: None, ..trailer(Dialect::Http) };
        assert_eq!(
            run(&mut begun(&stream), 5),
            format!("{put}Transfer-Encoding: chunked\r\nTrailer: Repr-Digest\r\n\r\n{chunks}{digest}\r\n")
        );
    }

    #[test]
    fn an_empty_file_is_whole_with_its_head_and_its_last_chunk() {
        let empty = Request { size: Some(0), ..request(Dialect::Http) };
        assert!(run(&mut begun(&empty), 5).ends_with("Content-Length: 0\r\n\r\n"));
        let empty = Request { size: Some(0), ..trailer(Dialect::Http) };
        let wire = run(&mut begun(&empty), 5);
        // The digest of nothing, FIPS 180-4.
        let digest = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let end = format!("Trailer: Repr-Digest\r\n\r\n0\r\nRepr-Digest: sha-256=:{digest}:\r\n\r\n");
        assert!(wire.ends_with(&end), "{wire}");
    }

    #[test]
    fn an_empty_file_waits_for_nothing() {
        let mut sender = begun(&Request { size: Some(0), ..request(Dialect::HttpExpect) });
        assert!(!run(&mut sender, 5).contains("Expect"));
        sender.receive(answer("201 Created", "done 0 - a\n").as_bytes());
        assert!(matches!(sender.outcome(), Some(Ok(Stored::Receipt(_)))));
    }

    #[test]
    fn content_waits_for_100_for_a_while() {
        for ask in [request(Dialect::HttpExpect), trailer(Dialect::HttpExpect)] {
            let mut sender = begun(&ask);
            assert!(!sender.awaits_continue(), "the head is not sent yet");
            assert!(run(&mut sender, 5).contains("\r\nExpect: 100-continue\r\n"));
            assert!(sender.awaits_continue());
            assert_eq!(sender.step(), Step::Listen);
            sender.receive(b"HTTP/1.1 10");
            assert!(sender.awaits_continue());
            sender.end_of_burst();
            assert!(!sender.awaits_continue());
            assert!(run(&mut sender, 5).contains("twelve bytes"));
            // A late `100 Continue`.
            sender.receive(b"0 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
            assert!(matches!(sender.outcome(), Some(Ok(Stored::Answered(_)))));
        }
    }

    #[test]
    fn a_refusal_in_mid_content_ends_the_conversation() {
        let mut sender = begun(&request(Dialect::Http));
        let Step::Transmit(head) = sender.step() else { panic!("a head comes first") };
        let length = head.len();
        sender.transmitted(length);
        sender.content(&CONTENT[..5]);
        sender.receive(answer("413 Large", "no 413 large\n").as_bytes());
        assert_eq!((sender.outcome(), sender.step()), (refused(413, None, "large"), Step::Over));
        // Content that was read in the meantime.
        sender.content(&CONTENT[5..]);
        assert_eq!(sender.step(), Step::Over);
    }

    #[test]
    fn one_upload_follows_the_other_on_a_connection() {
        let mut sender = sender();
        for name in ["a", "b"] {
            assert!(sender.may_begin());
            let name = Name::parse(name.as_bytes(), NamePolicy::default()).unwrap();
            sender.begin(&Request { name, ..request(Dialect::Http) });
            run(&mut sender, 100);
            assert_eq!((sender.step(), sender.may_begin()), (Step::Idle, false), "HTTP is not pipelined");
            sender.receive(answer("201 Created", "done 12 - a.1\n").as_bytes());
            assert_eq!(sender.outcome(), stored(None));
        }
        // The answer of many servers on an idle connection.
        sender.receive(answer("408 Request Timeout\r\nConnection: close", "").as_bytes());
        assert_eq!((sender.outcome(), sender.step()), (None, Step::Over));
    }

    #[test]
    fn a_server_that_is_told_of_the_last_request_closes_first() {
        for end in ["", "\r\nConnection: close"] {
            let mut sender = sender();
            sender.begin_last(&request(Dialect::Http));
            assert!(run(&mut sender, 100).contains("\r\nConnection: close\r\n\r\n"));
            sender.receive(answer(&format!("201 Created{end}"), "done 12 - a.1\n").as_bytes());
            assert_eq!((sender.outcome(), sender.step(), sender.may_begin()), (stored(None), Step::Listen, false));
            sender.end_of_stream();
            assert_eq!((sender.outcome(), sender.step()), (None, Step::Over));
        }
    }

    #[test]
    fn a_retry_has_its_condition() {
        let again = Request { on_exists: Some(OnExists::Same), ..known(Dialect::Http) };
        assert!(run(&mut begun(&again), 100).contains("\r\nIf-None-Match: *\r\n"));
    }
}

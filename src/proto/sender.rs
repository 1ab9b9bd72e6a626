//! The client's half of one upload: what to transmit, when content may flow, and how it ended.
//!
//! A driver transmits [`Sender::header`], then does what [`Sender::step`] says and hands in whatever happens on the
//! connection, until the upload has ended. The driver may block or be an event loop: nothing here knows a socket, a
//! file or a clock, and any split of the same bytes ends in the same outcome.

use std::fmt;

use super::reply::REPLY_MAX_BYTES;
use super::{Dialect, Name, Receipt, Refusal, Reply};

/// One upload, seen from the client.
#[derive(Debug)]
pub struct Sender {
    dialect: Dialect,
    name: Name,
    /// The received bytes that are not yet a reply.
    line: Vec<u8>,
    ok_heard: bool,
    /// The content's size in bytes, once all of it was sent and the stream half-closed.
    sent: Option<u64>,
    outcome: Option<Outcome>,
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Send nothing, wait for the server.
    Listen,
    /// Send content. The server may speak at any time: hand in what it says as it comes.
    Send,
    /// The upload has ended: send no more.
    Ended(&'a Outcome),
}

/// How an upload ended.
pub type Outcome = Result<Stored, Failure>;

/// How the server confirmed that the file is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// By a clean close after the end of the content, which is all that the classic dialect has.
    Closed,
    /// By a receipt for as many bytes as were sent.
    Receipt(Receipt),
}

/// Why an upload failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server said so.
    Refused(Refusal),
    /// What came is nothing that a server of this protocol says, or not when it says it.
    Foreign,
    /// The stream ended before `ok`.
    Unanswered,
    /// The stream ended while content was still to be sent.
    ClosedEarly,
    /// The connection was reset: a server of this protocol then stores nothing.
    Reset,
    /// The receipt is for another number of bytes than were sent.
    WrongSize {
        /// In bytes, as the receipt says.
        stored: u64,
        /// In bytes.
        sent: u64,
    },
    /// All was sent, and the connection ended without the receipt: the file may be stored or not.
    Unknown,
}

impl Sender {
    /// An upload that is to be stored as `name`.
    pub fn new(dialect: Dialect, name: Name) -> Self {
        Self { dialect, name, line: Vec::new(), ok_heard: false, sent: None, outcome: None }
    }

    /// What is transmitted first, in one write: the end of a classic name is the end of what arrives together.
    pub fn header(&self) -> Vec<u8> {
        let end = match self.dialect {
            Dialect::Classic => "",
            _ => "\n",
        };
        format!("{}{end}", self.name).into_bytes()
    }

    /// What to do next.
    pub fn step(&self) -> Step<'_> {
        match &self.outcome {
            Some(outcome) => Step::Ended(outcome),
            None if self.sent.is_some() => Step::Listen,
            None if self.dialect == Dialect::Classic && !self.ok_heard => Step::Listen,
            None => Step::Send,
        }
    }

    /// All of the content was sent, `size` bytes of it, and the stream is half-closed.
    pub fn content_ended(&mut self, size: u64) {
        self.sent = Some(size);
    }

    /// The server said `bytes`.
    pub fn receive(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.outcome.is_some() {
                return;
            }
            self.line.push(byte);
            self.outcome = match self.dialect {
                Dialect::Classic => self.hear_classic(),
                _ => self.hear_line(),
            };
        }
    }

    /// The server's side of the stream has ended.
    pub fn end_of_stream(&mut self) {
        let outcome = match (self.dialect, self.sent) {
            (Dialect::Classic, None) if !self.ok_heard => Err(Failure::Unanswered),
            (_, None) => Err(Failure::ClosedEarly),
            (Dialect::Classic, Some(_)) => Ok(Stored::Closed),
            (_, Some(_)) => Err(Failure::Unknown),
        };
        self.outcome.get_or_insert(outcome);
    }

    /// The connection was reset.
    pub fn reset(&mut self) {
        let failure = match (self.dialect, self.sent) {
            (Dialect::Line, Some(_)) => Failure::Unknown,
            _ => Failure::Reset,
        };
        self.outcome.get_or_insert(Err(failure));
    }

    /// `ok` is whole without an LF, and nothing follows it; in its place there may be a line.
    fn hear_classic(&mut self) -> Option<Outcome> {
        if self.ok_heard {
            return Some(Err(Failure::Foreign));
        }
        match self.line.as_slice() {
            b"ok" => {
                self.ok_heard = true;
                None
            }
            b"o" | b"n" | b"no" => None,
            [b'n', b'o', b' ', ..] => self.hear_line(),
            _ => Some(Err(Failure::Foreign)),
        }
    }

    fn hear_line(&mut self) -> Option<Outcome> {
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return (self.line.len() >= REPLY_MAX_BYTES).then_some(Err(Failure::Foreign));
        };
        let reply = Reply::parse(line);
        self.line.clear();
        match (reply, self.sent) {
            (Ok(Reply::Ok(0)), _) if !self.ok_heard => {
                self.ok_heard = true;
                None
            }
            (Ok(Reply::No(refusal)), _) => Some(Err(Failure::Refused(refusal))),
            (Ok(Reply::Done(receipt)), Some(sent)) => Some(check_size(receipt, sent)),
            _ => Some(Err(Failure::Foreign)),
        }
    }
}

fn check_size(receipt: Receipt, sent: u64) -> Outcome {
    match receipt.size {
        stored if stored == sent => Ok(Stored::Receipt(receipt)),
        stored => Err(Failure::WrongSize { stored, sent }),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The words are the peer's: quoted and escaped, so that they cannot reach into a terminal.
            Self::Refused(Refusal { code, retry_seconds, words }) => {
                write!(f, "the server refuses it ({}): {words:?}", code.0)?;
                retry_seconds.map_or(Ok(()), |seconds| write!(f, "; try again in {seconds} s"))
            }
            Self::Foreign => f.write_str("the answer is not one of this protocol; is it the right server and port?"),
            Self::Unanswered => f.write_str("the server closed the connection without an answer; nothing is stored"),
            Self::ClosedEarly => {
                f.write_str("the server closed the connection before all was sent; the file is not stored")
            }
            Self::Reset => f.write_str("the server reset the connection; the file is not stored"),
            Self::WrongSize { stored, sent } => {
                write!(f, "the server stored {stored} bytes, and {sent} were sent; look at the stored file")
            }
            Self::Unknown => {
                f.write_str("all was sent, and the server closed without a receipt; the file may be stored or not")
            }
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{Code, NamePolicy};

    #[derive(Clone, Copy, Debug)]
    enum End {
        Stream,
        Reset,
        /// The server keeps the connection open.
        Open,
    }

    /// What the server says before and after the end of the content, and how it ends.
    struct Script {
        dialect: Dialect,
        before: &'static [u8],
        after: &'static [u8],
        end: End,
    }

    const SIZE: u64 = 12;

    fn sender(dialect: Dialect) -> Sender {
        Sender::new(dialect, Name::parse(b"a.txt", NamePolicy::default()).unwrap())
    }

    /// Plays `script` in pieces that end at `cuts`, and returns the outcome, if there is one.
    fn play(script: &Script, cuts: &[usize]) -> Option<Outcome> {
        let mut sender = sender(script.dialect);
        pieces(script.before, cuts).for_each(|piece| sender.receive(piece));
        if sender.step() == Step::Send {
            sender.content_ended(SIZE);
        }
        pieces(script.after, cuts).for_each(|piece| sender.receive(piece));
        match script.end {
            End::Stream => sender.end_of_stream(),
            End::Reset => sender.reset(),
            End::Open => {}
        }
        match sender.step() {
            Step::Ended(outcome) => Some(outcome.clone()),
            _ => None,
        }
    }

    fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        ends.into_iter().scan(0, |start, end| Some(&bytes[std::mem::replace(start, end)..end]))
    }

    fn scripts() -> Vec<(Script, Option<Outcome>)> {
        use Dialect::{Classic, Line};
        let refused = |code, words: &'static str| Some(Err(Failure::Refused(Refusal::new(Code(code), words))));
        let receipt = Receipt { size: SIZE, digest: None, stored_name: "a.txt.1".into() };
        let busy = Refusal { retry_seconds: Some(5), ..Refusal::new(Code::SHUTTING_DOWN, "busy") };
        let failed = |failure| Some(Err(failure));
        let case = |dialect, before: &'static str, after: &'static str, end, outcome| {
            (Script { dialect, before: before.as_bytes(), after: after.as_bytes(), end }, outcome)
        };
        vec![
            case(Classic, "ok", "", End::Stream, Some(Ok(Stored::Closed))),
            case(Classic, "ok", "", End::Reset, failed(Failure::Reset)),
            case(Classic, "ok", "", End::Open, None),
            case(Classic, "ok\n", "", End::Stream, failed(Failure::Foreign)),
            case(Classic, "ok 0", "", End::Stream, failed(Failure::Foreign)),
            case(Classic, "ok", "ok", End::Stream, failed(Failure::Foreign)),
            case(Classic, "OK", "", End::Open, failed(Failure::Foreign)),
            case(Classic, "nothing", "", End::Open, failed(Failure::Foreign)),
            case(Classic, "HTTP/1.1 400 Bad Request\r\n", "", End::Open, failed(Failure::Foreign)),
            case(Classic, "done 12 - a.txt\n", "", End::Stream, failed(Failure::Foreign)),
            case(Classic, "no way\n", "", End::Stream, failed(Failure::Foreign)),
            case(Classic, "no 409 taken\n", "", End::Stream, refused(409, "taken")),
            case(Classic, "no 409 taken\r\nand more", "", End::Reset, refused(409, "taken")),
            case(Classic, "no 503 retry=5 busy\n", "", End::Open, failed(Failure::Refused(busy))),
            case(Classic, "no 409 tak", "", End::Stream, failed(Failure::Unanswered)),
            case(Classic, "o", "", End::Stream, failed(Failure::Unanswered)),
            case(Classic, "", "", End::Stream, failed(Failure::Unanswered)),
            case(Classic, "", "", End::Reset, failed(Failure::Reset)),
            case(Line, "", "done 12 - a.txt.1\n", End::Open, Some(Ok(Stored::Receipt(receipt.clone())))),
            case(Line, "ok\n", "done 12 - a.txt.1\n", End::Stream, Some(Ok(Stored::Receipt(receipt.clone())))),
            case(Line, "", "ok\ndone 12 - a.txt.1\r\nx", End::Reset, Some(Ok(Stored::Receipt(receipt)))),
            case(Line, "", "done 11 - a\n", End::Stream, failed(Failure::WrongSize { stored: 11, sent: SIZE })),
            case(Line, "done 12 - a\n", "", End::Stream, failed(Failure::Foreign)),
            case(Line, "no 507 full\n", "", End::Open, refused(507, "full")),
            case(Line, "ok\n", "no 507 full\n", End::Stream, refused(507, "full")),
            case(Line, "ok\nok\n", "", End::Open, failed(Failure::Foreign)),
            case(Line, "ok 7\n", "", End::Open, failed(Failure::Foreign)),
            case(Line, "", "done 12 - a.txt", End::Stream, failed(Failure::Unknown)),
            case(Line, "ok", "", End::Stream, failed(Failure::Unknown)),
            case(Line, "", "", End::Stream, failed(Failure::Unknown)),
            case(Line, "ok\n", "", End::Reset, failed(Failure::Unknown)),
            case(Line, "HTTP/1.1 400 Bad Request\r\n", "", End::Open, failed(Failure::Foreign)),
            case(Line, "\u{0}\u{1}\n", "", End::Open, failed(Failure::Foreign)),
        ]
    }

    #[test]
    fn every_reply_ends_in_its_outcome() {
        for (script, outcome) in scripts() {
            let name = format!("{:?} {:?}", script.dialect, script.before.escape_ascii().to_string());
            assert_eq!(play(&script, &[]), outcome, "{name}");
        }
    }

    #[test]
    fn every_cut_and_single_bytes_end_the_same() {
        for (script, outcome) in scripts() {
            let length = script.before.len().max(script.after.len());
            for first in 0..=length {
                for second in first..=length {
                    assert_eq!(play(&script, &[first, second]), outcome);
                }
            }
            assert_eq!(play(&script, &(0..length).collect::<Vec<_>>()), outcome);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_is_never_stored(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            line in any::<bool>(),
            cut in 0..200usize,
        ) {
            let whole = play_garbage(&bytes, line, bytes.len());
            prop_assert!(whole.is_err());
            prop_assert_eq!(play_garbage(&bytes, line, cut.min(bytes.len())), whole);
        }
    }

    fn play_garbage(bytes: &[u8], line: bool, cut: usize) -> Outcome {
        let mut sender = sender(if line { Dialect::Line } else { Dialect::Classic });
        sender.receive(&bytes[..cut]);
        sender.receive(&bytes[cut..]);
        sender.end_of_stream();
        match sender.step() {
            Step::Ended(outcome) => outcome.clone(),
            step => panic!("{step:?} after the end of the stream"),
        }
    }

    #[test]
    fn the_header_is_the_name_and_in_the_line_dialect_its_end() {
        assert_eq!(sender(Dialect::Classic).header(), b"a.txt");
        assert_eq!(sender(Dialect::Line).header(), b"a.txt\n");
    }

    #[test]
    fn classic_content_waits_for_ok_and_line_content_does_not() {
        let mut classic = sender(Dialect::Classic);
        assert_eq!(classic.step(), Step::Listen);
        classic.receive(b"o");
        assert_eq!(classic.step(), Step::Listen);
        classic.receive(b"k");
        assert_eq!(classic.step(), Step::Send);
        classic.content_ended(SIZE);
        assert_eq!(classic.step(), Step::Listen);
        assert_eq!(sender(Dialect::Line).step(), Step::Send);
    }

    #[test]
    fn what_comes_while_content_flows_stops_it() {
        for (said, dialect) in [("no 413 too large\n", Dialect::Line), ("ok", Dialect::Classic)] {
            let mut sender = sender(dialect);
            sender.receive(said.as_bytes());
            sender.end_of_stream();
            assert!(matches!(sender.step(), Step::Ended(Err(Failure::Refused(_) | Failure::ClosedEarly))));
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_collected_for_ever() {
        for dialect in [Dialect::Classic, Dialect::Line] {
            let mut sender = sender(dialect);
            sender.receive(b"no 500 ");
            sender.receive(&[b'x'; REPLY_MAX_BYTES]);
            assert_eq!(sender.step(), Step::Ended(&Err(Failure::Foreign)));
            assert!(sender.line.len() <= REPLY_MAX_BYTES);
        }
    }

    #[test]
    fn words_of_the_peer_are_escaped() {
        let failure = Failure::Refused(Refusal::new(Code(403), "\u{1b}[2J"));
        assert_eq!(failure.to_string(), r#"the server refuses it (403): "\u{1b}[2J""#);
    }
}

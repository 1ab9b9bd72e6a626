//! How an upload ended for its client, whether that ending is right, and what must now be stored under its name.
//!
//! Pure: the client reports what happened, and this module judges it.

use std::fmt;
use std::io;

use crate::load::plan::{Conduct, File};
use crate::proto::{Code, Dialect, Failure};
use crate::reactor::Moment;

/// An upload that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The file.
    pub file: File,
    /// How it ended.
    pub ending: Ending,
    /// What must now be stored of it.
    pub expected: Expected,
    /// Whether the client sent everything that it meant to send.
    pub is_whole: bool,
    /// The times of its steps.
    pub moments: Moments,
}

/// The times from which latencies are computed.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// When the upload was meant to start.
    pub intended: Moment,
    /// When the connection was established; `None` for uploads on an open connection.
    pub connected: Option<Moment>,
    /// When TLS was established; `None` without TLS, and for uploads on an open connection.
    pub secured: Option<Moment>,
    /// When the server's first reply came.
    pub replied: Option<Moment>,
}

/// How one upload ended, as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server confirmed it.
    Stored,
    /// The client closed without an answer after everything was sent, as its conduct or the plan asks.
    Unheard,
    /// The client reset the connection, as its conduct asks.
    Reset,
    /// It failed.
    Failed(Trouble),
}

/// Why an upload failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There was no connection.
    Connect(io::ErrorKind),
    /// TLS failed, for this reason.
    Tls(String),
    /// The conversation ended in a failure.
    Upload(Failure),
    /// The server neither read nor answered until the timeout.
    Silence,
    /// The connection failed.
    Network(io::ErrorKind),
    /// The run ended first.
    Interrupted,
}

/// What must be stored under the name of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: the file was never sent, or its upload has certainly failed.
    #[default]
    Absent,
    /// Everything that was sent, because the server confirmed it.
    Present,
    /// Everything that was sent, or nothing, because the outcome is not known.
    Either,
}

impl Ending {
    /// Whether this is a right ending for `file`.
    pub fn is_expected_of(&self, file: &File, dialect: Dialect) -> bool {
        let conduct = file.conduct;
        match self {
            // A server that does not know the size takes a stream that ends early for a whole file.
            Self::Stored if conduct == Conduct::Abort => !dialect.is_framed(),
            Self::Stored => !matches!(conduct, Conduct::Reset | Conduct::NeverRead),
            Self::Unheard => true,
            Self::Reset => conduct == Conduct::Reset,
            // A server may time out a client that stalls.
            Self::Failed(trouble) => {
                matches!(conduct, Conduct::Stall { .. }) && trouble.is_cut_off()
                    || conduct == Conduct::Abort && dialect.is_framed() && trouble.is_about_an_end()
                    || file.is_contested && trouble.is_refused_with(Code::CONFLICT)
            }
        }
    }

    /// The words of the server's refusal.
    pub fn said(&self) -> Option<&str> {
        match self {
            Self::Failed(Trouble::Upload(Failure::Refused(refusal))) => Some(&refusal.words),
            _ => None,
        }
    }

    /// What must be stored after this ending. `is_whole`: the server got the whole upload.
    pub fn expected(&self, is_whole: bool) -> Expected {
        match self {
            Self::Stored => Expected::Present,
            Self::Unheard => Expected::Either,
            Self::Reset => Expected::Absent,
            // A wrong confirmation does not show whether the file is stored.
            Self::Failed(Trouble::Upload(Failure::WrongReceipt(_))) => Expected::Either,
            Self::Failed(Trouble::Upload(failure)) if !failure.may_be_stored() && *failure != Failure::Foreign => {
                Expected::Absent
            }
            // The tester then resets the connection.
            Self::Failed(_) if !is_whole => Expected::Absent,
            Self::Failed(_) => Expected::Either,
        }
    }
}

/// What a correct server stores of `file`.
pub fn presumed(file: &File, dialect: Dialect) -> Expected {
    match file.conduct {
        Conduct::Reset => Expected::Absent,
        Conduct::Abort if dialect.is_framed() => Expected::Absent,
        _ if file.is_contested => Expected::Either,
        Conduct::NeverRead | Conduct::Stall { .. } => Expected::Either,
        _ => Expected::Present,
    }
}

/// The right ending for a conduct, in words.
pub fn expectation(conduct: Conduct, dialect: Dialect) -> &'static str {
    match conduct {
        Conduct::Abort if dialect.is_framed() => "refused, nothing stored",
        Conduct::Honest | Conduct::Slow { .. } | Conduct::HalfClose { .. } | Conduct::SplitHeader => "stored",
        Conduct::Stall { .. } => "stored, or cut off by the server's patience",
        Conduct::Abort => "stored, shorter and unverified: this dialect cannot tell",
        Conduct::Reset => "nothing stored",
        Conduct::NeverRead => "stored, unheard",
        Conduct::DupName => "stored beside the other, or refused with 409",
    }
}

impl Trouble {
    /// Whether the receiver confirmed anything else than was sent.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Upload(Failure::WrongReceipt(_)))
    }

    fn is_refused_with(&self, code: Code) -> bool {
        matches!(self, Self::Upload(Failure::Refused(refusal)) if refusal.code == code)
    }

    fn is_cut_off(&self) -> bool {
        self.is_refused_with(Code::TIMEOUT) || self.is_hung_up()
    }

    fn is_about_an_end(&self) -> bool {
        self.is_refused_with(Code::BAD_REQUEST) || self.is_hung_up()
    }

    fn is_hung_up(&self) -> bool {
        matches!(self, Self::Upload(Failure::Reset | Failure::ClosedEarly | Failure::Unknown))
    }
}

impl fmt::Display for Trouble {
    /// A category: failures with equal words are counted together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(io::ErrorKind::AddrNotAvailable) => f.write_str("no source port was free on this host"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Tls(words) => f.write_str(words),
            Self::Silence => f.write_str("the server was silent"),
            Self::Network(error) => write!(f, "the connection failed: {error}"),
            Self::Interrupted => f.write_str("the run was ended"),
            Self::Upload(failure) => f.write_str(match failure {
                Failure::Refused(refusal) => return write!(f, "refused with {}", refusal.code.0),
                Failure::Foreign => "an answer that is not of this protocol, or not at this time",
                Failure::Unanswered => "closed without an answer",
                Failure::ClosedEarly => "closed before all was sent",
                Failure::Reset => "reset by the server",
                Failure::OnlyClassic => "the receiver speaks only classic (--dialect classic)",
                Failure::Unserved => "the conversation ended before it came to this file",
                Failure::WrongReceipt(_) => "confirmed with another size or digest than was sent",
                Failure::Unknown => "closed without a receipt",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Refusal;

    fn refused(code: Code) -> Ending {
        Ending::Failed(Trouble::Upload(Failure::Refused(Refusal::new(code, "words"))))
    }

    #[test]
    fn each_conduct_has_its_ending() {
        let reset = Ending::Failed(Trouble::Upload(Failure::Reset));
        let stall = Conduct::KINDS[1].1;
        for (conduct, ending, expected) in [
            (Conduct::Honest, Ending::Stored, true),
            (Conduct::Honest, reset.clone(), false),
            (Conduct::Honest, refused(Code::CONFLICT), false),
            (Conduct::Abort, Ending::Stored, true),
            (Conduct::Abort, reset.clone(), false),
            (Conduct::Reset, Ending::Reset, true),
            (Conduct::Reset, Ending::Stored, false),
            (stall, Ending::Stored, true),
            (stall, reset, true),
            (stall, refused(Code::TIMEOUT), true),
            (stall, refused(Code::DISK), false),
            (stall, Ending::Failed(Trouble::Silence), false),
            (Conduct::NeverRead, Ending::Unheard, true),
            (Conduct::DupName, refused(Code::CONFLICT), true),
            (Conduct::DupName, refused(Code::DISK), false),
        ] {
            let is_contested = conduct == Conduct::DupName;
            let file = File { number: 1, named: 1, size: 1, conduct, is_contested };
            assert_eq!(ending.is_expected_of(&file, Dialect::Line), expected, "{conduct:?} {ending:?}");
        }
        let original = File { number: 1, named: 1, size: 1, conduct: Conduct::Honest, is_contested: true };
        assert!(refused(Code::CONFLICT).is_expected_of(&original, Dialect::Line), "its duplicate may have come first");
    }

    #[test]
    fn a_size_distinguishes_an_aborted_upload_from_a_whole_one() {
        let file = File { number: 1, named: 1, size: 2, conduct: Conduct::Abort, is_contested: false };
        for dialect in [Dialect::Put, Dialect::Ask] {
            assert!(refused(Code::BAD_REQUEST).is_expected_of(&file, dialect));
            assert!(!Ending::Stored.is_expected_of(&file, dialect));
            assert_eq!(presumed(&file, dialect), Expected::Absent);
        }
        assert!(!refused(Code::BAD_REQUEST).is_expected_of(&file, Dialect::Line));
        assert_eq!(presumed(&file, Dialect::Line), Expected::Present);
    }

    #[test]
    fn a_certain_outcome_is_expected_and_an_uncertain_one_is_left_open() {
        let silence = Ending::Failed(Trouble::Silence);
        assert_eq!(Ending::Stored.expected(true), Expected::Present);
        assert_eq!(Ending::Reset.expected(false), Expected::Absent);
        assert_eq!((silence.expected(false), silence.expected(true)), (Expected::Absent, Expected::Either));
        assert_eq!(refused(Code::DISK).expected(true), Expected::Absent);
        assert_eq!(Ending::Unheard.expected(true), Expected::Either);
    }
}

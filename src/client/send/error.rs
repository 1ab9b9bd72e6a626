//! Why an upload failed, and whether another attempt can help. Does not know how attempts are made.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use super::content::SourceError;
use crate::net::TlsError;
use crate::proto::{Code, Failure, Refusal};

/// Why an upload failed.
#[derive(Debug)]
pub enum SendError {
    /// No address accepted the connection.
    Connect {
        /// The error of the last address.
        kind: ErrorKind,
        /// An earlier connection of the same run was accepted.
        worked_before: bool,
    },
    /// The server neither sent nor read anything.
    Silence {
        /// How long that lasted.
        patience: Duration,
        /// Whether everything was sent.
        may_be_stored: bool,
    },
    /// The network failed.
    Network {
        /// The kind of error.
        kind: ErrorKind,
        /// Whether everything was sent.
        may_be_stored: bool,
    },
    /// TLS failed.
    Tls {
        /// Why.
        error: TlsError,
        /// Whether everything was sent, and the server may have understood it.
        may_be_stored: bool,
    },
    /// The conversation ended in a failure.
    Failed(Failure),
    /// The name is taken, perhaps by this very file: an earlier attempt, whose outcome is not known, may have stored it.
    /// HTTP does not tell.
    TakenMeanwhile(Refusal),
    /// The server refused the upload as too slow, while this side waited for the source and not for the network.
    SlowSource(Refusal),
    /// The server does not speak this protocol. The start of its answer.
    Foreign(String),
    /// The server speaks TLS, and the connection is plain.
    OnlyTls,
    /// The content cannot be read, or not to its end.
    Source(SourceError),
}

/// The cost of another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Another attempt cannot help.
    Never,
    /// One of the allowed retries.
    Counted,
    /// Time: the server said when to come back, or that it is shutting down.
    Busy,
    /// Time: a server that worked before is gone, and may be restarting.
    Restart,
    /// Nothing: another upload failed, and this one was on the same connection.
    Free,
}

impl SendError {
    /// Whether, as far as is known, there is no server.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Silence { .. } => true,
            Self::Tls { error, .. } => error.is_refusal,
            _ => false,
        }
    }

    /// Whether the server may have stored the file all the same.
    pub fn may_be_stored(&self) -> bool {
        match self {
            Self::Silence { may_be_stored, .. }
            | Self::Network { may_be_stored, .. }
            | Self::Tls { may_be_stored, .. } => *may_be_stored,
            // Another connection has the same upload open, and may finish it.
            Self::Failed(Failure::Refused(Refusal { code: Code::CONFLICT, retry_seconds, .. })) => {
                retry_seconds.is_some()
            }
            Self::Failed(Failure::Refused(refusal)) => is_of_proxy(refusal.code),
            Self::Failed(failure) => failure.may_be_stored(),
            Self::TakenMeanwhile(_) => true,
            Self::Connect { .. } | Self::SlowSource(_) | Self::Foreign(_) | Self::OnlyTls | Self::Source(_) => false,
        }
    }

    /// Whether every other upload would fail like this one.
    pub(super) fn is_hopeless(&self) -> bool {
        let is_told = matches!(
            self,
            Self::Failed(Failure::Refused(Refusal { code: Code::UNAUTHORIZED | Code::TLS_REQUIRED, .. }))
        );
        let is_foreign = matches!(self, Self::Foreign(_) | Self::OnlyTls | Self::Failed(Failure::OnlyClassic));
        self.is_unreachable() || is_told || is_foreign
    }

    /// Whether another attempt can help, and what it costs.
    pub(super) fn retry(&self) -> Retry {
        match self {
            // EINVAL: no connection to this address is possible.
            Self::Connect { kind: ErrorKind::InvalidInput, .. } => Retry::Never,
            Self::Connect { worked_before: true, .. } => Retry::Restart,
            Self::Tls { error: TlsError { is_refusal: true, .. }, .. } => Retry::Never,
            Self::Connect { .. } | Self::Silence { .. } | Self::Network { .. } | Self::Tls { .. } => Retry::Counted,
            Self::Failed(Failure::Unserved) => Retry::Free,
            Self::Failed(Failure::Refused(refusal)) => match refusal.code {
                _ if refusal.retry_seconds.is_some() => Retry::Busy,
                Code::SHUTTING_DOWN => Retry::Busy,
                // The server has dropped content that arrived damaged, or that a power cut damaged there. Send it from the
                // start.
                Code::TIMEOUT | Code::MISMATCH => Retry::Counted,
                code if is_of_proxy(code) => Retry::Counted,
                _ => Retry::Never,
            },
            Self::Failed(Failure::OnlyClassic | Failure::Foreign | Failure::WrongReceipt(_)) => Retry::Never,
            Self::Failed(_) => Retry::Counted,
            Self::TakenMeanwhile(_) | Self::SlowSource(_) | Self::Foreign(_) | Self::OnlyTls | Self::Source(_) => {
                Retry::Never
            }
        }
    }

    /// The shortest pause that the server asks for.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Failed(Failure::Refused(Refusal { retry_seconds, .. })) => {
                Duration::from_secs(retry_seconds.unwrap_or(0).into())
            }
            _ => Duration::ZERO,
        }
    }

    fn fate(&self) -> &'static str {
        if self.may_be_stored() { "the file may be stored or not" } else { "the file is not stored" }
    }
}

/// Whether a proxy says so because it lost the server: 502 or 504 of HTTP. What the server has done is not known.
fn is_of_proxy(code: Code) -> bool {
    matches!(code, Code(502 | 504))
}

impl From<SourceError> for SendError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { kind: kind @ ErrorKind::InvalidInput, .. } => write!(
                f,
                "cannot connect: {kind}; a link-local IPv6 address needs its interface: [fe80::1%INTERFACE]:PORT"
            ),
            Self::Connect { kind, .. } => write!(f, "cannot connect: {kind}"),
            Self::Silence { patience, .. } => {
                write!(f, "the server was silent for {} s; {}", patience.as_secs_f64(), self.fate())
            }
            Self::Network { kind, .. } => write!(f, "the connection failed: {kind}; {}", self.fate()),
            Self::Tls { error: TlsError { words, is_refusal: true }, .. } => write!(f, "cannot connect: {words}"),
            Self::Tls { error, .. } => write!(f, "the connection failed: {error}; {}", self.fate()),
            Self::Failed(failure) => failure.fmt(f),
            Self::TakenMeanwhile(refusal) => write!(
                f,
                "{}; an earlier attempt was sent whole, and its answer was lost: the file with that name may be \
                 this one; look at it",
                Failure::Refused(refusal.clone())
            ),
            Self::SlowSource(refusal) => write!(
                f,
                "{}; the input came more slowly than the server waits (its --idle-timeout and --min-rate), not the \
                 network: nothing is stored. Write the input to a file first, and send that",
                Failure::Refused(refusal.clone())
            ),
            Self::Foreign(said) => write!(f, "{}; it said {said:?}", Failure::Foreign),
            Self::OnlyTls => f.write_str(
                "the server speaks TLS, and this connection is plain: the file is not stored; connect with --tls, or by \
                 https://",
            ),
            Self::Source(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, retry_seconds: Option<u32>) -> SendError {
        SendError::Failed(Failure::Refused(Refusal { retry_seconds, ..Refusal::new(code, "words") }))
    }

    #[test]
    fn a_wait_that_the_server_asks_for_costs_time_and_not_attempts() {
        for error in [
            refused(Code::CONFLICT, Some(5)),
            refused(Code::SHUTTING_DOWN, Some(1)),
            refused(Code::SHUTTING_DOWN, None),
            refused(Code::NO_SPACE, Some(60)),
        ] {
            assert_eq!(error.retry(), Retry::Busy, "{error}");
        }
        assert_eq!(refused(Code::CONFLICT, None).retry(), Retry::Never);
        assert_eq!(refused(Code::TIMEOUT, None).retry(), Retry::Counted);
    }

    #[test]
    fn only_a_server_that_worked_before_is_waited_for() {
        let connect = |kind, worked_before| SendError::Connect { kind, worked_before };
        assert_eq!(connect(ErrorKind::ConnectionRefused, true).retry(), Retry::Restart);
        assert_eq!(connect(ErrorKind::ConnectionRefused, false).retry(), Retry::Counted);
    }

    #[test]
    fn an_address_that_cannot_be_connected_to_is_not_tried_again() {
        for worked_before in [false, true] {
            let error = SendError::Connect { kind: ErrorKind::InvalidInput, worked_before };
            assert_eq!(error.retry(), Retry::Never);
            assert!(error.to_string().contains("%INTERFACE"), "{error}");
        }
    }

    #[test]
    fn a_token_that_is_refused_is_refused_for_every_file() {
        let error = refused(Code::UNAUTHORIZED, None);
        assert!(error.is_hopeless() && error.retry() == Retry::Never);
        assert!(!refused(Code::FORBIDDEN, None).is_hopeless(), "that may be the name");
    }

    #[test]
    fn what_a_proxy_says_of_a_server_that_it_lost_is_a_passing_failure_with_an_unknown_outcome() {
        for code in [502, 504] {
            let error = refused(Code(code), None);
            assert_eq!((error.retry(), error.may_be_stored()), (Retry::Counted, true), "{code}");
        }
        assert_eq!((refused(Code(501), None).retry(), refused(Code(501), None).may_be_stored()), (Retry::Never, false));
    }

    #[test]
    fn an_upload_that_another_connection_has_open_may_be_stored() {
        assert!(refused(Code::CONFLICT, Some(5)).may_be_stored());
        assert!(!refused(Code::CONFLICT, None).may_be_stored());
    }
}

//! Signals as events of the loop.
//!
//! A signal handler may do next to nothing (signal-safety(7)), because it can interrupt anything, even an allocation. So a
//! handler only notes the signal and makes a socket readable (the self-pipe trick). This module defines the meaning of each
//! signal; the server acts on it in its turn. A signal also interrupts the poll (EINTR), which is an empty batch of events,
//! not an error.

use std::io;

use nix::sys::signal::SigSet;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXFSZ};

/// The signals that are caught. SIGXFSZ is caught so that a write beyond the file size limit fails with EFBIG instead of
/// ending the process (setrlimit(2)). SIGPIPE is missing because Rust's runtime ignores it already.
const CAUGHT: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGHUP, SIGXFSZ];

/// Unblocks signals that the parent of the process has blocked: a mask is inherited, and a blocked signal is neither caught
/// nor does it kill. Call it before any thread is started, because each has a mask of its own.
///
/// # Errors
/// The error of sigprocmask(2).
pub fn unblock_signals() -> io::Result<()> {
    Ok(SigSet::all().thread_unblock()?)
}

/// The meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT or SIGQUIT: shut down.
    Stop,
    /// SIGUSR1: log the statistics.
    Statistics,
    /// SIGHUP: the terminal is gone, or an operator means "reload".
    Hangup,
}

/// The caught signals. Readable when one has arrived.
///
/// Once one exists, the signals no longer kill the process, even after it is dropped.
pub struct Signals {
    delivery: signal_hook_mio::v1_0::Signals,
}

impl Signals {
    /// Starts to catch the signals.
    ///
    /// # Errors
    /// The error of sigaction(2) or socketpair(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self { delivery: signal_hook_mio::v1_0::Signals::new(CAUGHT)? })
    }

    /// The signals since the last call, each once and in no particular order. A signal that arrives twice before it is
    /// looked at counts once (signal(7)).
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> {
        self.delivery.pending().filter_map(meaning)
    }
}

delegate_source!(Signals, delivery);

fn meaning(signal: i32) -> Option<Signal> {
    match signal {
        SIGTERM | SIGINT | SIGQUIT => Some(Signal::Stop),
        SIGUSR1 => Some(Signal::Statistics),
        SIGHUP => Some(Signal::Hangup),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mio::{Interest, Poll, Token};
    use rustix::process::{Signal as Kernel, getpid, kill_process};

    use super::*;
    use crate::net::tests::next_readiness;

    #[test]
    fn every_caught_signal_has_its_meaning_but_the_file_size_limit_has_none() {
        let meanings = CAUGHT.map(meaning);
        let stop = Some(Signal::Stop);
        assert_eq!(meanings, [stop, stop, stop, Some(Signal::Statistics), Some(Signal::Hangup), None]);
    }

    #[test]
    fn signals_arrive_as_events_and_kill_nothing() {
        let mut signals = Signals::new().unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut signals, Token(0), Interest::READABLE).unwrap();
        // The same one test sends both, as every instance in the process hears every signal.
        for (sent, heard) in [(Kernel::USR1, vec![Signal::Statistics]), (Kernel::XFSZ, vec![])] {
            kill_process(getpid(), sent).unwrap();
            assert!(next_readiness(&mut poll).readable);
            assert_eq!(signals.pending().collect::<Vec<_>>(), heard);
        }
    }
}

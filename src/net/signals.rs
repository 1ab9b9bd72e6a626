//! Signals as events of the loop.
//!
//! A handler may do next to nothing (signal-safety(7)): it interrupts anything, an allocation too. So each signal is
//! only noted and makes a socket readable (the self-pipe trick); what it means is decided here, what is done about it
//! by the server, in its own time. A signal also interrupts the poll (EINTR), which is an empty batch of events and no
//! error.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXFSZ};

/// Those that are caught. SIGXFSZ is for what catching it prevents: a write beyond the file size limit then fails with
/// EFBIG instead of ending the process (setrlimit(2)). SIGPIPE is missing because Rust's runtime ignores it already.
const CAUGHT: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGHUP, SIGXFSZ];

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT or SIGQUIT: shut down.
    Stop,
    /// SIGUSR1: tell the statistics.
    Statistics,
    /// SIGHUP: the terminal has gone, or somebody means "reload".
    Hangup,
}

/// The caught signals; readable when one has come.
///
/// From the first of these on the signals do not kill the process any more, even after it is dropped.
pub struct Signals {
    delivery: signal_hook_mio::v1_0::Signals,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// What sigaction(2) or socketpair(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self { delivery: signal_hook_mio::v1_0::Signals::new(CAUGHT)? })
    }

    /// What has come since the last look, each once and in no particular order: one of a kind that comes again before
    /// it is looked at is the same one (signal(7)).
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

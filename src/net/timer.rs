//! The moment at which the poll is to return, whatever else happens: a timer of the kernel's that is one more source of
//! events (timerfd_create(2)).
//!
//! A timeout handed to each poll would do the same, but the kernel sets up and takes down a timer for it whenever it
//! sleeps, and rounds it to milliseconds. This one is touched when the first deadline moves closer, or when it has come.
//! Knows nothing of what is due.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer that is armed or not.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    armed: Option<Instant>,
}

impl Timer {
    /// Makes the poll of `registry` return, and tell `token`, when it runs out.
    ///
    /// # Errors
    /// What timerfd_create(2) or epoll_ctl(2) says.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, armed: None })
    }

    /// Makes sure that it runs out at `at` or before. Where it is armed for an earlier moment that is left alone: to wake up
    /// once for nothing costs less than to move it each time.
    ///
    /// # Errors
    /// What timerfd_settime(2) says.
    pub fn arm(&mut self, at: Instant, now: Instant) -> io::Result<()> {
        if self.armed.is_some_and(|armed| armed <= at) {
            return Ok(());
        }
        // Nothing at all would switch it off.
        let span = at.saturating_duration_since(now).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(span).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        self.armed = Some(at);
        Ok(())
    }

    /// It has run out: the poll has told so. It need not be read, as arming it again takes its readiness back.
    pub fn ran_out(&mut self) {
        self.armed = None;
    }
}

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::*;
    use crate::net::tests::next_readiness;

    #[test]
    fn it_makes_the_poll_return_at_its_moment_each_time_it_is_armed() {
        let mut poll = Poll::new().unwrap();
        let mut timer = Timer::new(poll.registry(), Token(0)).unwrap();
        for span in [Duration::ZERO, Duration::from_micros(1500), Duration::from_millis(20)] {
            let now = Instant::now();
            timer.arm(now + span, now).unwrap();
            assert!(next_readiness(&mut poll).readable);
            assert!(now.elapsed() >= span);
            timer.ran_out();
        }
    }

    #[test]
    fn an_earlier_moment_moves_it_and_a_later_one_does_not() {
        let mut poll = Poll::new().unwrap();
        let mut timer = Timer::new(poll.registry(), Token(0)).unwrap();
        let now = Instant::now();
        timer.arm(now + Duration::from_secs(86_400), now).unwrap();
        timer.arm(now + Duration::from_millis(1), now).unwrap();
        timer.arm(now + Duration::from_secs(86_400), now).unwrap();
        assert!(next_readiness(&mut poll).readable, "in a millisecond, not in a day");
    }

    #[test]
    fn the_end_of_time_can_be_waited_for() {
        let poll = Poll::new().unwrap();
        let mut timer = Timer::new(poll.registry(), Token(0)).unwrap();
        let now = Instant::now();
        let never = std::iter::successors(Some(now), |at| at.checked_add(Duration::from_secs(1 << 56))).last().unwrap();
        timer.arm(never, now).unwrap();
    }
}

//! A kernel timer that makes the poll return at a given moment: one more source of events (timerfd_create(2)).
//!
//! A timeout passed to each poll would do the same, but the kernel sets up and removes a timer for it on every sleep, and
//! rounds it to milliseconds. This timer is set only when the first deadline moves closer, or has passed. Does not know
//! what is due.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

use crate::reactor::Moment;

/// The time on the clock that timers use. It never goes back and has nothing to do with the date (`CLOCK_MONOTONIC`,
/// clock_gettime(2)).
pub fn now() -> Moment {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    Moment::after(Duration::new(tv_sec as u64, tv_nsec as u32))
}

/// The time of day, in seconds since the epoch. It may jump (`CLOCK_REALTIME`), so it is for display, never for deadlines.
pub fn time_of_day() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// The processor time that this process has used, all threads together (`CLOCK_PROCESS_CPUTIME_ID`).
pub fn processor_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(tv_sec as u64, tv_nsec as u32)
}

/// A timer that is armed or not.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    /// When it runs out; [`Moment::NEVER`] if it is not armed.
    armed: Moment,
}

impl Timer {
    /// Makes the poll of `registry` report `token` when it runs out.
    ///
    /// # Errors
    /// The error of timerfd_create(2) or epoll_ctl(2).
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, armed: Moment::NEVER })
    }

    /// Makes sure that the timer runs out at `at` or earlier. If it is armed for an earlier moment, it stays: one needless
    /// wakeup costs less than moving it each time.
    ///
    /// # Errors
    /// The error of timerfd_settime(2).
    pub fn arm(&mut self, at: Moment) -> io::Result<()> {
        if self.armed <= at {
            return Ok(());
        }
        let it_value = Timespec::try_from(at.since(Moment::default())).expect("a moment is no more than 584 years");
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed = at;
        Ok(())
    }

    /// Call this when the poll has reported the timer. It need not be read: arming it again clears its readiness.
    pub fn ran_out(&mut self) {
        self.armed = Moment::NEVER;
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
            let start = now();
            timer.arm(start + span).unwrap();
            assert!(next_readiness(&mut poll).readable);
            assert!(now().since(start) >= span);
            timer.ran_out();
        }
    }

    #[test]
    fn an_earlier_moment_moves_it_and_a_later_one_does_not() {
        let mut poll = Poll::new().unwrap();
        let mut timer = Timer::new(poll.registry(), Token(0)).unwrap();
        let start = now();
        timer.arm(start + Duration::from_secs(86_400)).unwrap();
        timer.arm(start + Duration::from_millis(1)).unwrap();
        timer.arm(start + Duration::from_secs(86_400)).unwrap();
        assert!(next_readiness(&mut poll).readable, "in a millisecond, not in a day");
    }

    #[test]
    fn a_past_moment_fires_at_once_and_the_last_moment_can_be_armed() {
        let mut poll = Poll::new().unwrap();
        let mut timer = Timer::new(poll.registry(), Token(0)).unwrap();
        // The last moment before NEVER, which would not be waited for.
        timer.arm(Moment::after(Duration::from_nanos(u64::MAX - 1))).unwrap();
        timer.arm(Moment::after(Duration::from_nanos(1))).unwrap();
        assert!(next_readiness(&mut poll).readable);
    }
}

//! An upload that has not ended, with the knowledge from earlier attempts.

use std::time::Duration;

use super::error::{Retry, SendError};
use super::plan::Plan;
use crate::proto::{Digest, ResumeId};

/// An upload that has not ended.
#[derive(Debug)]
pub(super) struct Pending {
    /// Its index in the list.
    pub(super) upload: usize,
    /// The counted failures since the last progress.
    pub(super) failures: u32,
    /// How long it has waited for a busy server.
    busy: Duration,
    /// How long it has waited for a server that is gone, since the last connection.
    gone: Duration,
    /// An earlier attempt may have been stored.
    pub(super) may_be_stored: bool,
    /// How much of it the server is known to have, in bytes.
    held: u64,
    /// Some of its content was read, and cannot be read again.
    pub(super) is_consumed: bool,
    /// An earlier attempt has sent its request.
    pub(super) was_asked: bool,
    /// The digest, computed before another attempt from the file that had this id.
    pub(super) digest: Option<(ResumeId, Digest)>,
}

impl Pending {
    pub(super) fn new(upload: usize) -> Self {
        Self {
            upload,
            failures: 0,
            busy: Duration::ZERO,
            gone: Duration::ZERO,
            may_be_stored: false,
            held: 0,
            is_consumed: false,
            was_asked: false,
            digest: None,
        }
    }

    /// Notes that the server wants the content from `offset` on. If that is progress, the count of failures is reset.
    pub(super) fn resumed_at(&mut self, offset: u64) {
        if offset > self.held {
            self.held = offset;
            self.failures = 0;
            self.busy = Duration::ZERO;
        }
    }

    /// Notes that content is read which cannot be read again.
    pub(super) fn consume(&mut self) {
        self.is_consumed = true;
    }

    /// Whether `plan` allows another attempt after `error` and a pause.
    pub(super) fn may_try_again(&self, plan: &Plan, error: &SendError) -> bool {
        // Without framing, a request cannot demand that the file is not stored yet.
        let might_be_doubled = self.may_be_stored && !plan.is_framed();
        if self.is_consumed || might_be_doubled {
            return false;
        }
        match error.retry() {
            Retry::Never => false,
            Retry::Free => true,
            Retry::Counted => self.failures < plan.retries,
            Retry::Busy => {
                let pause = error.retry_after();
                plan.retries > 0 && self.busy < plan.busy_limit && self.busy + pause <= plan.busy_limit
            }
            Retry::Restart => plan.retries > 0 && self.gone < plan.restart_limit,
        }
    }

    /// Notes the failure, and returns the pause before the next attempt. `share`, from 0 to 1, makes pauses differ.
    pub(super) fn failed(&mut self, error: &SendError, share: f64) -> Duration {
        if error.retry() == Retry::Free {
            return Duration::ZERO;
        }
        if !matches!(error, SendError::Connect { .. }) {
            self.was_asked = true;
            self.gone = Duration::ZERO;
        }
        match error.retry() {
            Retry::Never | Retry::Free => Duration::ZERO,
            Retry::Counted => {
                self.failures += 1;
                pause(self.failures, share)
            }
            Retry::Busy => {
                let pause = pause(1, share).max(error.retry_after());
                self.busy += pause;
                pause
            }
            Retry::Restart => {
                let pause = pause(2, share);
                self.gone += pause;
                pause
            }
        }
    }
}

/// The first pause before another attempt. It doubles with each failure in a row.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause, unless the server asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A pause between half and all of its full length, so that clients which failed together do not come back together.
fn pause(failures: u32, share: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX);
    full.mul_f64((1.0 + share) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::proto::{Code, Failure, Refusal};

    fn busy(retry_seconds: u32) -> SendError {
        let refusal = Refusal::new(Code::CONFLICT, "claimed elsewhere");
        SendError::Failed(Failure::Refused(Refusal { retry_seconds: Some(retry_seconds), ..refusal }))
    }

    fn gone() -> SendError {
        SendError::Connect { kind: ErrorKind::ConnectionRefused, worked_before: true }
    }

    /// Tries again while that is allowed. Returns how often, and the sum of the pauses.
    fn try_on(pending: &mut Pending, plan: &Plan, error: &SendError) -> (u32, Duration) {
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        while pending.may_try_again(plan, error) {
            waited += pending.failed(error, 1.0);
            attempts += 1;
        }
        (attempts, waited)
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let full = |failures| pause(failures, 1.0);
        assert_eq!([full(1), full(2), full(3)], [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MIN * 4]);
        assert_eq!([full(30), full(u32::MAX)], [PAUSE_MAX; 2]);
        assert_eq!(pause(1, 0.0), PAUSE_MIN / 2);
    }

    #[test]
    fn failures_count_from_the_last_progress() {
        let mut pending = Pending { failures: 2, ..Pending::new(0) };
        pending.resumed_at(0);
        assert_eq!(pending.failures, 2);
        pending.resumed_at(100);
        assert_eq!(pending.failures, 0);
        pending.failures = 1;
        pending.resumed_at(100);
        assert_eq!(pending.failures, 1);
    }

    #[test]
    fn waiting_for_a_busy_server_is_limited_by_time_and_costs_no_attempt() {
        let (mut pending, plan) = (Pending::new(0), Plan { retries: 1, ..Plan::default() });
        assert_eq!(try_on(&mut pending, &plan, &busy(5)), (120, plan.busy_limit));
        assert_eq!(pending.failures, 0);
        assert!(pending.may_try_again(&plan, &SendError::Failed(Failure::Reset)));
    }

    #[test]
    fn a_server_that_asks_to_come_back_tomorrow_is_not_waited_for() {
        let (pending, plan) = (Pending::new(0), Plan::default());
        assert!(pending.may_try_again(&plan, &busy(600)));
        assert!(!pending.may_try_again(&plan, &busy(601)));
    }

    #[test]
    fn the_wait_for_a_server_that_is_gone_starts_anew_after_each_connection() {
        let (mut pending, plan) = (Pending::new(0), Plan::default());
        for _ in 0..2 {
            assert_eq!(try_on(&mut pending, &plan, &gone()), (30, plan.restart_limit));
            assert!(pending.may_try_again(&plan, &SendError::Failed(Failure::Reset)));
            pending.failed(&SendError::Failed(Failure::Reset), 0.0);
        }
        assert_eq!(pending.failures, 2);
    }

    #[test]
    fn without_retries_there_is_no_wait() {
        let plan = Plan { retries: 0, ..Plan::default() };
        for error in [busy(1), gone(), SendError::Failed(Failure::Reset)] {
            assert!(!Pending::new(0).may_try_again(&plan, &error), "{error}");
        }
    }
}

//! One of the connections' worth of work: takes uploads from the queue, has them sent, and tries again what may be.
//!
//! Decides which upload comes next, how it is asked for, and when it is given up. What goes over the wire is the
//! conversation's.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::content::Content;
use super::conversation::{Conversation, connect};
use super::{Event, Plan, SendError, Sent, Upload};
use crate::proto::{Dialect, Digest, OnExists, Promise, Request, ResumeId};

/// The first pause before another attempt. It doubles with each attempt that gets nowhere.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause, unless the server asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What all jobs share.
pub(super) struct Shared<'a> {
    pub(super) plan: &'a Plan,
    pub(super) uploads: &'a [Upload],
    pub(super) on_event: &'a (dyn Fn(Event<'_>) + Sync),
    /// The uploads that no job has taken yet.
    queue: Mutex<std::ops::Range<usize>>,
    /// There is no server to talk to: no more are taken.
    is_hopeless: AtomicBool,
}

/// One connection after the other, until there is nothing left to send.
pub(super) struct Job<'a> {
    number: usize,
    shared: &'a Shared<'a>,
    /// To be sent next.
    mine: VecDeque<Pending>,
    /// To be sent over another connection, after a pause.
    again: VecDeque<Pending>,
    pause: Duration,
    /// Why there is a pause.
    failed: Option<SendError>,
}

/// An upload that is not settled.
#[derive(Debug)]
pub(super) struct Pending {
    /// Which one it is.
    upload: usize,
    /// The failures since the last one that got anywhere.
    failures: u32,
    /// An earlier attempt may have been stored.
    may_be_stored: bool,
    /// How much of it the server has been found to hold, in bytes.
    held: u64,
    /// Some of its content was read, and it cannot be read again.
    is_consumed: bool,
    /// The server has been asked to take it.
    was_asked: bool,
    /// Computed before it is asked again, of the file that had this id.
    digest: Option<(ResumeId, Digest)>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(plan: &'a Plan, uploads: &'a [Upload], on_event: &'a (dyn Fn(Event<'_>) + Sync)) -> Self {
        let queue = Mutex::new(0..uploads.len());
        Self { plan, uploads, on_event, queue, is_hopeless: AtomicBool::new(false) }
    }

    fn take(&self) -> Option<Pending> {
        if self.is_hopeless.load(Ordering::Relaxed) {
            return None;
        }
        self.queue.lock().expect("no holder panics").next().map(Pending::new)
    }
}

impl Pending {
    fn new(upload: usize) -> Self {
        Self { upload, failures: 0, may_be_stored: false, held: 0, is_consumed: false, was_asked: false, digest: None }
    }

    /// The server has said from where on it wants the content.
    pub(super) fn went_on_from(&mut self, offset: u64) {
        if offset > self.held {
            self.held = offset;
            self.failures = 0;
        }
    }

    /// Content is being read that cannot be read again.
    pub(super) fn consume(&mut self) {
        self.is_consumed = true;
    }
}

impl<'a> Job<'a> {
    pub(super) fn new(number: usize, shared: &'a Shared<'a>) -> Self {
        Self { number, shared, mine: VecDeque::new(), again: VecDeque::new(), pause: Duration::ZERO, failed: None }
    }

    /// Sends until nothing is left that it can do.
    pub(super) fn run(mut self) {
        while self.has_work() {
            self.mine.iter_mut().filter(|pending| pending.was_asked).for_each(|pending| self.shared.sum_up(pending));
            match connect(&self.shared.plan.to) {
                Ok(stream) => Conversation::new(stream).run(&mut self),
                Err(error) => {
                    for pending in std::mem::take(&mut self.mine) {
                        self.settle(pending, Err(SendError::Connect(error.kind())));
                    }
                }
            }
            self.start_over();
        }
    }

    fn start_over(&mut self) {
        let pause = std::mem::take(&mut self.pause);
        if let Some(error) = self.failed.take() {
            (self.shared.on_event)(Event::Again { uploads: self.again.len(), error: &error, pause });
            thread::sleep(pause);
        }
        let untouched = std::mem::replace(&mut self.mine, std::mem::take(&mut self.again));
        self.mine.extend(untouched);
    }

    fn has_work(&mut self) -> bool {
        if self.mine.is_empty() {
            self.mine.extend(self.shared.take());
        }
        !self.mine.is_empty()
    }

    /// How long a server may be silent.
    pub(super) fn patience(&self) -> Duration {
        self.shared.plan.patience
    }

    /// The next one that can be opened.
    pub(super) fn next(&mut self) -> Option<(Pending, Content)> {
        loop {
            let pending = self.mine.pop_front().or_else(|| self.shared.take())?;
            match self.shared.uploads[pending.upload].source.open() {
                Ok(content) => return Some((pending, content)),
                Err(error) => self.settle(pending, Err(error.into())),
            }
        }
    }

    /// How `pending` is asked for.
    pub(super) fn request(&self, pending: &Pending, content: &Content) -> Request {
        let plan = self.shared.plan;
        let dialect = plan.dialect.unwrap_or_else(|| Plan::dialect_for(content.size()));
        let Upload { source, name } = &self.shared.uploads[pending.upload];
        let request = Request { size: content.size(), ..Request::until_end_of_stream(dialect, name.clone()) };
        if !dialect.is_framed() {
            return request;
        }
        // Without an id the upload begins anew, which is all that is lost.
        let id = source.resume_id(content).ok().flatten();
        let known = pending.digest.as_ref().filter(|(of, _)| Some(of) == id.as_ref());
        Request {
            digest: Some(known.map_or(Promise::Trailer(plan.algorithm), |(_, digest)| Promise::Known(*digest))),
            on_exists: pending.may_be_stored.then_some(OnExists::Same),
            resume: id.filter(|_| dialect == Dialect::Ask),
            ..request
        }
    }

    pub(super) fn report_progress(&self, pending: &Pending, position: u64) {
        (self.shared.on_event)(Event::Progress { job: self.number, upload: pending.upload, position });
    }

    /// Keeps `pending` for another attempt where that can help, else tells how it ended.
    pub(super) fn settle(&mut self, mut pending: Pending, result: Result<Sent, SendError>) {
        let result = match result {
            Err(error) => {
                pending.may_be_stored |= error.may_be_stored();
                if self.may_try_again(&pending, &error) {
                    return self.try_again(pending, error);
                }
                self.shared.is_hopeless.fetch_or(error.is_hopeless(), Ordering::Relaxed);
                Err(error)
            }
            sent => sent,
        };
        (self.shared.on_event)(Event::Settled { upload: pending.upload, result: &result });
    }

    fn may_try_again(&self, pending: &Pending, error: &SendError) -> bool {
        let plan = self.shared.plan;
        // Without a framing there is no way to ask for a file unless it is there already.
        let might_be_doubled = pending.may_be_stored && !plan.is_framed();
        let is_allowed = error.is_bystanders() || pending.failures < plan.retries;
        is_allowed && error.is_temporary() && !pending.is_consumed && !might_be_doubled
    }

    fn try_again(&mut self, mut pending: Pending, error: SendError) {
        if !error.is_bystanders() {
            pending.failures += 1;
            pending.was_asked |= !matches!(error, SendError::Connect(_));
            let pause = error.retry_after().unwrap_or_default().max(pause(pending.failures, random_share()));
            self.pause = self.pause.max(pause);
            self.failed.get_or_insert(error);
        }
        self.again.push_back(pending);
    }
}

impl Shared<'_> {
    /// Computes the digest of what is to be asked for again, so that the server can tell at once what it has of it. If that
    /// fails, so will the sending, which then tells why.
    fn sum_up(&self, pending: &mut Pending) {
        let source = &self.uploads[pending.upload].source;
        if let (true, Ok(content)) = (self.plan.is_framed(), source.open())
            && let Ok(Some(id)) = source.resume_id(&content)
            && pending.digest.as_ref().is_none_or(|(of, _)| *of != id)
        {
            pending.digest = content.digest(self.plan.algorithm).ok().flatten().map(|digest| (id, digest));
        }
    }
}

/// Between half of the full pause and all of it, so that clients which failed together do not come back together.
fn pause(failures: u32, share: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX);
    full.mul_f64((1.0 + share) / 2.0)
}

/// From 0 up to 1; each call another.
fn random_share() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_differ() {
        let full = |failures| pause(failures, 1.0);
        assert_eq!([full(1), full(2), full(3)], [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MIN * 4]);
        assert_eq!([full(30), full(u32::MAX)], [PAUSE_MAX; 2]);
        assert_eq!(pause(1, 0.0), PAUSE_MIN / 2);
        let shares: Vec<f64> = std::iter::repeat_with(random_share).take(10).collect();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn failures_count_from_where_the_server_went_on() {
        let mut pending = Pending { failures: 2, ..Pending::new(0) };
        pending.went_on_from(0);
        assert_eq!(pending.failures, 2);
        pending.went_on_from(100);
        assert_eq!(pending.failures, 0);
        pending.failures = 1;
        pending.went_on_from(100);
        assert_eq!(pending.failures, 1);
    }
}

//! The work of one connection at a time: takes uploads from the queue, has them sent, and tries failed ones again.
//!
//! Decides which upload comes next, what its request is, and when to give up. The bytes on the wire are the conversation's.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::content::Content;
use super::conversation::{Conversation, Work, connect};
use super::error::{Retry, SendError};
use super::pending::Pending;
use super::plan::{Event, Plan, Sent, Upload};
use crate::proto::{Code, Dialect, Failure, OnExists, Promise, Request};

/// The state that all jobs share.
pub(super) struct Shared<'a> {
    plan: &'a Plan,
    uploads: &'a [Upload],
    on_event: &'a (dyn Fn(Event<'_>) + Sync),
    /// The uploads that no job has taken yet.
    queue: Mutex<std::ops::Range<usize>>,
    /// There is no server, so jobs take no more uploads.
    is_hopeless: AtomicBool,
    /// A connection was accepted. If a later one is refused, the server may be restarting.
    has_connected: AtomicBool,
}

/// Opens one connection after the other, until nothing is left to send.
pub(super) struct Job<'a> {
    number: usize,
    shared: &'a Shared<'a>,
    /// Uploads to send next.
    mine: VecDeque<Pending>,
    /// Uploads to send over another connection, after a pause.
    again: VecDeque<Pending>,
    pause: Duration,
    /// A random share from 0 to 1. All uploads that fail before the next pause use the same, so that they count the same
    /// time.
    share: f64,
    /// Why there is a pause.
    failed: Option<SendError>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(plan: &'a Plan, uploads: &'a [Upload], on_event: &'a (dyn Fn(Event<'_>) + Sync)) -> Self {
        Self {
            plan,
            uploads,
            on_event,
            queue: Mutex::new(0..uploads.len()),
            is_hopeless: AtomicBool::new(false),
            has_connected: AtomicBool::new(false),
        }
    }

    fn take(&self) -> Option<Pending> {
        if self.is_hopeless.load(Ordering::Relaxed) {
            return None;
        }
        self.queue.lock().expect("no holder panics").next().map(Pending::new)
    }

    /// Computes the digest of an upload before another attempt, so that the server can compare it with a stored file. If
    /// reading fails here, it fails again when the content is sent, and is reported then.
    fn digest(&self, pending: &mut Pending) {
        let source = &self.uploads[pending.upload].source;
        if let (true, Ok(content)) = (self.plan.tells_digest(), source.open())
            && let Ok(Some(id)) = source.resume_id(&content)
            && pending.digest.as_ref().is_none_or(|(of, _)| *of != id)
        {
            pending.digest = content.digest(self.plan.algorithm).ok().flatten().map(|digest| (id, digest));
        }
    }
}

impl<'a> Job<'a> {
    pub(super) fn new(number: usize, shared: &'a Shared<'a>) -> Self {
        Self {
            number,
            shared,
            mine: VecDeque::new(),
            again: VecDeque::new(),
            pause: Duration::ZERO,
            share: random_share(),
            failed: None,
        }
    }

    /// Sends until nothing is left to do.
    pub(super) fn run(mut self) {
        while self.has_work() {
            self.mine.iter_mut().filter(|pending| pending.was_asked).for_each(|pending| self.shared.digest(pending));
            match connect(&self.shared.plan.to) {
                Ok(stream) => {
                    self.shared.has_connected.store(true, Ordering::Relaxed);
                    Conversation::new(stream, self.shared.plan).run(&mut self);
                }
                Err(error) => self.not_connected(&error),
            }
            self.pause_and_retry();
        }
    }

    fn not_connected(&mut self, error: &io::Error) {
        let worked_before = self.shared.has_connected.load(Ordering::Relaxed);
        for pending in std::mem::take(&mut self.mine) {
            self.settle(pending, Err(SendError::Connect { kind: error.kind(), worked_before }));
        }
    }

    fn pause_and_retry(&mut self) {
        let pause = std::mem::take(&mut self.pause);
        self.share = random_share();
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
}

impl Work for Job<'_> {
    fn next(&mut self) -> Option<(Pending, Content)> {
        loop {
            let pending = self.mine.pop_front().or_else(|| self.shared.take())?;
            match self.shared.uploads[pending.upload].source.open() {
                Ok(content) => return Some((pending, content)),
                Err(error) => self.settle(pending, Err(error.into())),
            }
        }
    }

    fn request(&self, pending: &Pending, content: &Content) -> Request {
        let plan = self.shared.plan;
        let dialect = plan.dialect_for(content.size());
        let Upload { source, name } = &self.shared.uploads[pending.upload];
        let request = Request { size: content.size(), ..Request::until_end_of_stream(dialect, name.clone()) };
        if !dialect.is_framed() {
            return request;
        }
        // Without an id the upload cannot be resumed; nothing else is lost.
        let id = source.resume_id(content).ok().flatten();
        let known = pending.digest.as_ref().filter(|(of, _)| Some(of) == id.as_ref());
        Request {
            digest: Some(known.map_or(Promise::Trailer(plan.algorithm), |(_, digest)| Promise::Known(*digest))),
            on_exists: pending.may_be_stored.then_some(OnExists::Same),
            resume: id.filter(|_| dialect == Dialect::Ask),
            ..request
        }
    }

    fn report_progress(&self, pending: &Pending, position: u64) {
        (self.shared.on_event)(Event::Progress { job: self.number, upload: pending.upload, position });
    }

    fn settle(&mut self, mut pending: Pending, result: Result<Sent, SendError>) {
        let result = match result {
            Err(error) => {
                let error = self.told_apart(&pending, error);
                pending.may_be_stored |= error.may_be_stored();
                if pending.may_try_again(self.shared.plan, &error) {
                    self.pause = self.pause.max(pending.failed(&error, self.share));
                    self.again.push_back(pending);
                    if error.retry() != Retry::Free {
                        self.failed.get_or_insert(error);
                    }
                    return;
                }
                self.shared.is_hopeless.fetch_or(error.is_hopeless(), Ordering::Relaxed);
                Err(error)
            }
            sent => sent,
        };
        (self.shared.on_event)(Event::Settled { upload: pending.upload, result: &result });
    }
}

impl Job<'_> {
    /// Over HTTP, an upload that may be stored already is sent again on the condition that its name is not taken. If the
    /// name is taken, the server does not tell by which file.
    fn told_apart(&self, pending: &Pending, error: SendError) -> SendError {
        match error {
            SendError::Failed(Failure::Refused(refusal))
                if self.shared.plan.site.is_some() && pending.may_be_stored && refusal.retry_seconds.is_none() =>
            {
                match refusal.code {
                    Code::CONFLICT | Code::PRECONDITION => SendError::TakenMeanwhile(refusal),
                    _ => SendError::Failed(Failure::Refused(refusal)),
                }
            }
            error => error,
        }
    }
}

/// A random number from 0 to 1.
fn random_share() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_differ() {
        let shares: Vec<f64> = std::iter::repeat_with(random_share).take(10).collect();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares.windows(2).any(|pair| pair[0] != pair[1]));
    }
}

//! The deadlines of a connection: when the next one is, and what happens then.

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::time::Duration;

use super::Connection;
use crate::net::Stream;
use crate::net::tls::Session;
use crate::proto::{Awaits, Code, Farewell, Peer, Refusal, ServerStep as Step};
use crate::reactor::Moment;
use crate::server::config::Limits;
use crate::server::pace::Lapse;
use crate::server::story::CloseReason;
use crate::server::visit::Context;
use crate::store::Store;

impl<S: Stream, D: Store> Connection<S, D> {
    pub(super) fn next_lapse(&self, limits: &Limits) -> Option<(Moment, Lapse)> {
        if let Some(at) = self.work.reads_again_at() {
            return Some((at, Lapse::Disk));
        }
        self.pace.next(self.receiver.awaits(), self.has_unsent(), limits)
    }

    pub(super) fn lapse(&mut self, lapse: Lapse, cx: &mut Context<D>) -> ControlFlow<()> {
        let awaits = self.receiver.awaits();
        match lapse {
            Lapse::Burst => {
                let event = self.receiver.end_of_burst(cx.rules);
                self.act_on(event, cx);
            }
            Lapse::Grace => self.receiver.grace_elapsed(),
            Lapse::Disk => self.work.read_again(),
            Lapse::Linger => return Break(()),
            // The client does not take the announcement of our end. Its files are stored all the same, so this is no reset.
            Lapse::Idle if matches!(self.receiver.step(false), Step::Part(Farewell::Close | Farewell::Linger)) => {
                let _ = self.reset_on_close(false);
                return Break(());
            }
            // The client does not read its replies, or it is owed none.
            Lapse::Idle if self.has_unsent() || awaits == Awaits::NextRequest => return Break(()),
            Lapse::Header if self.session().is_some_and(Session::is_handshaking) => {
                let words =
                    format!("the TLS handshake did not end within {:?}", cx.limits.header_timeout.unwrap_or_default());
                self.end(CloseReason::Lost(io::Error::new(io::ErrorKind::TimedOut, words)));
                return Break(());
            }
            Lapse::Idle => self.too_slow("nothing came", cx.limits.idle_timeout, Peer::Silent, cx),
            Lapse::Header if self.awaits_proxy_header() => {
                self.too_slow("no whole PROXY header came", cx.limits.header_timeout, Peer::Silent, cx);
            }
            Lapse::Header if awaits == Awaits::Header => {
                self.too_slow("no name came", cx.limits.header_timeout, Peer::Silent, cx);
            }
            Lapse::Header if awaits == Awaits::RestOfName => {
                self.too_slow("the name did not end", cx.limits.header_timeout, Peer::Sending, cx);
            }
            Lapse::Header => self.too_slow("the request did not end", cx.limits.header_timeout, Peer::Sending, cx),
            Lapse::RateWindow => {
                let min_rate = cx.limits.min_rate.unwrap_or(0);
                if self.pace.close_window(min_rate, cx.clock.now) {
                    let words = format!("slower than {min_rate} bytes a second for {:?}", Limits::RATE_WINDOW);
                    self.refuse(Refusal::new(Code::TIMEOUT, words), Peer::Sending, cx.rules, &mut cx.story);
                }
            }
        }
        Continue(())
    }

    pub(super) fn too_slow(&mut self, what: &str, span: Option<Duration>, peer: Peer, cx: &mut Context<D>) {
        let words = format!("{what} within {:?}", span.unwrap_or_default());
        self.refuse(Refusal::new(Code::TIMEOUT, words), peer, cx.rules, &mut cx.story);
    }
}

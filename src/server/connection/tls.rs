//! TLS on a connection: found by the first byte, answered when it is its turn, and ended in order.
//!
//! Knows neither records nor certificates, which are the session's.

use std::io;

use super::Connection;
use crate::net::Stream;
use crate::net::tls::{FIRST_BYTE, Session};
use crate::proto::{Code, Peer, Refusal};
use crate::reactor::Budget;
use crate::server::pace::Pace;
use crate::server::rulebook::Kind;
use crate::server::story::{CloseReason, Fact, Scene, Who};
use crate::server::visit::{Context, Verdict};
use crate::store::Store;

impl<S: Stream, D: Store> Connection<S, D> {
    /// Begins the TLS handshake that it has waited for.
    pub fn shake_hands(&mut self, cx: &mut Context<D>, budget: &mut Budget) -> Verdict {
        if let (Some(session), Some(identity)) = (self.session_mut(), &cx.security.identity) {
            identity.answer(session);
        }
        self.serve(cx, budget)
    }

    /// Gives up a TLS handshake: its client does not answer, and others wait.
    pub fn make_room(&mut self, _: &mut Context<D>, _: &mut Budget) -> Verdict {
        let words = "the client took too long for the TLS handshake, while others waited";
        self.ended(CloseReason::Lost(io::Error::new(io::ErrorKind::TimedOut, words)))
    }

    /// How it is carried, which decides on the rules for it.
    pub fn kind(&self) -> Kind {
        match self.session() {
            None if self.is_proxied() => Kind::Proxied,
            None => Kind::Plain,
            Some(session) if session.is_http() => Kind::TlsHttp,
            Some(_) => Kind::Tls,
        }
    }

    /// Whether the client has to answer for the TLS handshake to end.
    pub fn is_shaking_hands(&self) -> bool {
        self.session().is_some_and(|session| session.is_handshaking() && session.has_begun())
    }

    /// Whether TLS was begun, and never came into being.
    pub fn has_failed_handshake(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.session.is_some() && !rare.is_secured)
    }

    pub(super) fn end_is_proven(&self) -> bool {
        self.session().map_or_else(|| self.stream.end_is_proven(), Session::end_is_proven)
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.rare.as_ref()?.session.as_ref()
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        self.rare.as_mut()?.session.as_mut()
    }

    /// Announces our end. Returns whether that has to be sent first; the client gets its time to take it.
    pub(super) fn announces_end(&mut self, cx: &Context<D>) -> bool {
        let is_new = self.wire().announce_end();
        if is_new {
            self.pace = Pace::begin(cx.clock.now);
        }
        is_new
    }

    /// Whether the first message of its TLS handshake is whole, and waits for the answer.
    pub(super) fn awaits_handshake(&self) -> bool {
        self.session().is_some_and(Session::is_greeted) && !self.receiver.is_over()
    }

    /// Whether the first bytes of the connection are not for the conversation: they begin TLS, or lack it.
    pub(super) fn is_not_plain(&mut self, first: &[u8], cx: &mut Context<D>) -> bool {
        if self.session().is_some() {
            return false;
        }
        match &cx.security.identity {
            Some(identity) if first[0] == FIRST_BYTE => {
                let mut session = identity.session();
                session.begin_with(first);
                self.rare.get_or_insert_default().session = Some(session);
                cx.becomes(self.kind());
                true
            }
            Some(_) if cx.security.is_required => {
                let refusal = Refusal::new(Code::TLS_REQUIRED, "this port speaks TLS");
                self.refuse(refusal, Peer::Sending, cx.rules, &mut cx.story);
                true
            }
            _ => false,
        }
    }

    /// Tells who the client is and what was agreed on, if the handshake is over.
    pub(super) fn secured(&mut self, cx: &mut Context<D>) {
        let Some(agreed) = self.session().and_then(Session::agreed) else { return };
        self.rare.get_or_insert_default().is_secured = true;
        cx.story.tell(&Fact::Secured);
        cx.story.scene(|| Scene::Secured(&agreed));
        // A server that sends tickets acknowledges the client's last message with them.
        self.stream.acknowledge();
        if let Some(name) = self.session().and_then(Session::peer_name) {
            cx.story.name(&Who::new(&name));
        }
        cx.becomes(self.kind());
    }

    /// The stream has ended, and the client has not announced that. A size or chunks may still say whether the file is
    /// whole.
    pub(super) fn end_unproven(&mut self, cx: &mut Context<D>) {
        cx.story.scene(|| Scene::ReadEnd);
        if self.receiver.trusts_the_end() {
            let words =
                "TLS ended without close_notify, so the file may be cut off; end TLS in order, or send the size first";
            return self.refuse(Refusal::new(Code::BAD_REQUEST, words), Peer::Silent, cx.rules, &mut cx.story);
        }
        let event = self.receiver.end_of_stream(cx.rules);
        self.act_on(event, cx);
    }

    /// The session has failed. If that was in the handshake, the client gets time to read the alert that says why.
    pub(super) fn fail_session(&mut self, error: io::Error, cx: &mut Context<D>) -> io::Result<()> {
        if self.receiver.has_been_asked() {
            // Best effort: the upload is lost anyway.
            let _ = self.wire().flush();
            return Err(error);
        }
        cx.story.scene(|| Scene::Failed(&error));
        self.end(CloseReason::Lost(error));
        self.receiver.hang_up();
        Ok(())
    }
}

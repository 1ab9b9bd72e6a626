//! Who may write on a connection, and what its uploads are charged for.
//!
//! The decisions are made in [`crate::access`]; here they are asked for, and charges are kept until the outcome is known.

use std::sync::Arc;

use super::Connection;
use crate::access::{Caller, Charge, Token};
use crate::net::Stream;
use crate::proto::{ById, Credential, Peer, Refusal, Request};
use crate::server::story::{CloseReason, Fact};
use crate::server::visit::Context;
use crate::server::work::Ask;
use crate::store::Store;

impl<S: Stream, D: Store> Connection<S, D> {
    /// A request would write: asks whether its client may.
    pub(super) fn judge(&mut self, shown: Option<Credential>, cx: &mut Context<D>) {
        let caller = Caller {
            address: cx.story.whom.peer().ip(),
            is_hidden: self.is_hidden(),
            is_secure: self.session().is_some() || self.stream.is_secure(),
            can_show: self.receiver.dialect().is_framed(),
        };
        match cx.access.judge(&caller, shown.as_ref(), cx.clock.now) {
            Ok(token) => {
                if let Some(token) = &token {
                    cx.story.name(token.who());
                }
                self.rare.get_or_insert_default().token = token;
                let event = self.receiver.admit(cx.rules);
                self.act_on(event, cx);
            }
            Err(refusal) => {
                self.receiver.turn_away(&refusal, cx.rules);
                // Without the name: it may be the token in a wrong place.
                self.refused(refusal, None, &mut cx.story);
            }
        }
    }

    /// What a client sent that has to show a token, and has not, is not logged: it may be the token in a wrong place.
    pub(super) fn not_a_request(&mut self, refusal: Refusal, head: Box<[u8]>, cx: &mut Context<D>) {
        let is_secret = cx.access.needs_token() && self.token().is_none();
        let dialect = self.dialect();
        match (self.receiver.is_over(), is_secret) {
            (true, true) => self.end(CloseReason::Refused(refusal, None)),
            (true, false) => self.end(CloseReason::NotARequest(refusal, head)),
            (false, true) => {
                cx.story.tell(&Fact::Refused { refusal: &refusal, name: None, dialect, ticket: self.receiver.ticket() })
            }
            (false, false) => cx.story.tell(&Fact::NotARequest { refusal: &refusal, head: &head }),
        }
    }

    /// Charges an upload, and begins it. It belongs to the token that was shown.
    pub(super) fn begin_upload(&mut self, mut request: Request, cx: &mut Context<D>) {
        let (token, address) = (self.token(), cx.story.whom.peer().ip());
        match cx.access.begin(token.as_ref(), address, request.size, cx.clock.now) {
            Ok(charge) => self.charge(charge),
            Err(refusal) => {
                self.receiver.refuse(&refusal, Peer::Sending, cx.rules);
                return self.refused(refusal, Some(request.name), &mut cx.story);
            }
        }
        if let Some(token) = token {
            request.resume = request.resume.map(|id| id.owned_by(token.who().as_str()));
        }
        self.ask(Ask::Upload(request), cx);
    }

    /// As [`Connection::begin_upload`], for a resumable upload of HTTP.
    pub(super) fn begin_by_id(&mut self, what: ById, cx: &mut Context<D>) {
        let (token, address) = (self.token(), cx.story.whom.peer().ip());
        let charge = match &what {
            ById::Create(creation) => {
                cx.access.begin_pieces(token.as_ref(), address, creation.request.size, cx.clock.now)
            }
            ById::Append(_) => Ok(cx.access.begin_piece(token.as_ref(), address)),
            ById::Ask(_) | ById::Remove(_) => Ok(None),
        };
        match charge {
            Ok(charge) => self.charge(charge),
            Err(refusal) => return self.refuse(refusal, Peer::Sending, cx.rules, &mut cx.story),
        }
        let what = match token {
            Some(token) => what.owned_by(token.who().as_str()),
            None => what,
        };
        self.ask(Ask::ById(what), cx);
    }

    /// What uploads were charged for that have failed since the last call.
    pub fn failed_charges(&mut self) -> Vec<Charge> {
        self.rare.as_mut().map_or_else(Vec::new, |rare| std::mem::take(&mut rare.failed))
    }

    pub(super) fn token(&self) -> Option<Arc<Token>> {
        self.rare.as_ref()?.token.clone()
    }

    pub(super) fn charge(&mut self, charge: Option<Box<Charge>>) {
        if charge.is_some() {
            self.rare.get_or_insert_default().charge = charge;
        }
    }

    pub(super) fn take_charge(&mut self) -> Option<Box<Charge>> {
        self.rare.as_mut()?.charge.take()
    }

    /// The upload in progress has failed, or was not needed: what it was charged for is given back. Not so a resumable upload
    /// of HTTP that stays, and what came of it, unless the piece `is_damaged`.
    pub(super) fn fail_charge(&mut self, is_damaged: bool) {
        let Some(mut charge) = self.take_charge() else { return };
        if self.work.keeps_content() {
            if !is_damaged {
                return;
            }
            charge.keep_upload();
        }
        self.give_back(*charge);
    }

    pub(super) fn give_back(&mut self, charge: Charge) {
        self.rare.get_or_insert_default().failed.push(charge);
    }

    /// Charges `count` bytes of content, if its size was not known before.
    pub(super) fn charge_content(&mut self, count: usize, cx: &mut Context<D>) -> Result<(), Refusal> {
        let charge = self.rare.as_mut().and_then(|rare| rare.charge.as_mut()).filter(|charge| charge.grows());
        charge.map_or(Ok(()), |charge| cx.access.grow(charge, count as u64, cx.clock.now))
    }
}

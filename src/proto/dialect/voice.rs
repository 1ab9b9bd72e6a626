//! How one request is answered.
//!
//! In most dialects the dialect says it all. HTTP has more to remember of a request: in a box, so that a connection that
//! speaks another dialect, or waits for its next request, does not grow.

use super::http::asked::Asked;
use super::manners::{Dialect, Manners};
use crate::proto::Refusal;

/// How one request is answered.
#[derive(Debug)]
pub(in crate::proto) struct Voice {
    pub(in crate::proto) dialect: Dialect,
    /// No content has come, and the client has not heard `ok`: it may be waiting for that.
    pub(in crate::proto) may_wait_for_ok: bool,
    rest: Option<Box<Rest>>,
}

/// What few requests have.
#[derive(Debug, Default)]
struct Rest {
    asked: Asked,
    refused: Option<Refusal>,
}

impl From<Dialect> for Voice {
    fn from(dialect: Dialect) -> Self {
        Self { dialect, may_wait_for_ok: false, rest: None }
    }
}

impl Voice {
    /// Of a request in HTTP.
    pub(super) fn http(dialect: Dialect, asked: Asked) -> Self {
        Self { rest: Some(Box::new(Rest { asked, refused: None })), ..dialect.into() }
    }

    /// The upload is refused: its content is read to get to the next request, and then this is said.
    pub(in crate::proto) fn refuse(&mut self, refusal: Refusal) {
        self.rest.get_or_insert_default().refused = Some(refusal);
    }

    /// What it is refused for, if it is.
    pub(in crate::proto) fn refused(&self) -> Option<&Refusal> {
        self.rest.as_ref()?.refused.as_ref()
    }

    /// Whether it is that of a form whose one answer is still to be said.
    pub(in crate::proto) fn is_of_form(&self) -> bool {
        self.dialect == Dialect::HttpForm && self.rest.is_some()
    }

    /// Forgets that it is refused, and what for.
    pub(in crate::proto) fn take_refused(&mut self) -> Option<Refusal> {
        self.rest.as_mut()?.refused.take()
    }

    /// What both sides may expect.
    pub(in crate::proto) fn manners(&self) -> &'static Manners {
        self.dialect.manners()
    }

    /// Whether no request follows this one.
    pub(in crate::proto) fn is_last(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.asked.is_last)
    }

    /// What HTTP has to know of the request.
    pub(super) fn asked(&self) -> Option<&Asked> {
        self.rest.as_ref().map(|rest| &rest.asked)
    }
}

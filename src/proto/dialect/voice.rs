//! How the reply to one request is spelled.
//!
//! For most requests the dialect is enough. HTTP has to remember more of a request. That is in a box, so that connections in
//! other dialects, and those that wait for their next request, stay small.

use super::http::asked::{Asked, Resumable};
use super::http::status::CHECKSUM;
use super::manners::{Dialect, Manners};
use crate::proto::{Code, Credential, Problem, Refusal, ResumeId};

/// How the reply to one request is spelled.
#[derive(Debug)]
pub(in crate::proto) struct Voice {
    pub(in crate::proto) dialect: Dialect,
    /// No content has come and no `ok` has been sent, so the client may be waiting for it.
    pub(in crate::proto) may_wait_for_ok: bool,
    rest: Option<Box<Rest>>,
}

/// What few requests have.
#[derive(Debug, Default)]
struct Rest {
    asked: Asked,
    refused: Option<Refusal>,
    credential: Option<Credential>,
}

impl From<Dialect> for Voice {
    fn from(dialect: Dialect) -> Self {
        Self { dialect, may_wait_for_ok: false, rest: None }
    }
}

impl Voice {
    /// For a request in HTTP.
    pub(super) fn http(dialect: Dialect, mut asked: Asked) -> Self {
        let credential = asked.credential.take();
        Self { rest: Some(Box::new(Rest { asked, refused: None, credential })), ..dialect.into() }
    }

    /// The client has shown this token.
    pub(super) fn show(mut self, credential: Option<Credential>) -> Self {
        if credential.is_some() {
            self.rest.get_or_insert_default().credential = credential;
        }
        self
    }

    /// Takes out the token that the client has shown.
    pub(in crate::proto) fn take_credential(&mut self) -> Option<Credential> {
        self.rest.as_mut()?.credential.take()
    }

    /// The upload is refused. Its content is discarded, and then the refusal is sent.
    pub(in crate::proto) fn refuse(&mut self, refusal: Refusal) {
        self.rest.get_or_insert_default().refused = Some(refusal);
    }

    /// The refusal, if the upload is refused.
    pub(in crate::proto) fn refused(&self) -> Option<&Refusal> {
        self.rest.as_ref()?.refused.as_ref()
    }

    /// Whether the request is a form whose one answer is still to be sent.
    pub(in crate::proto) fn is_of_form(&self) -> bool {
        self.dialect == Dialect::HttpForm && self.rest.is_some()
    }

    /// Takes the refusal out, if the upload is refused.
    pub(in crate::proto) fn take_refused(&mut self) -> Option<Refusal> {
        self.rest.as_mut()?.refused.take()
    }

    /// The row of the dialect.
    pub(in crate::proto) fn manners(&self) -> &'static Manners {
        self.dialect.manners()
    }

    /// The code of the refusal if the name of the file is taken.
    pub(in crate::proto) fn code_if_taken(&self) -> Code {
        if self.asked().is_some_and(|asked| asked.must_be_new) { Code::PRECONDITION } else { Code::CONFLICT }
    }

    /// The code of the refusal if the content does not have its digest. tus has one of its own.
    pub(in crate::proto) fn code_if_mismatched(&self) -> Code {
        if self.asked().is_some_and(Asked::is_tus) { CHECKSUM } else { Code::MISMATCH }
    }

    /// Whether no request follows this one.
    pub(in crate::proto) fn is_last(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.asked.is_last)
    }

    /// Whether the request is about a resumable upload.
    pub(in crate::proto) fn is_by_id(&self) -> bool {
        self.asked().is_some_and(|asked| asked.resumable.is_some())
    }

    /// The request is about the upload `id`: the answer may tell it.
    pub(in crate::proto) fn note_upload(&mut self, id: ResumeId) {
        if let Some(resumable) = self.resumable() {
            resumable.id = Some(id);
        }
    }

    /// What is wrong with the request: the refusal tells it.
    pub(in crate::proto) fn note_problem(&mut self, problem: Option<Problem>) {
        if let Some(resumable) = self.resumable() {
            resumable.problem = problem;
        }
    }

    fn resumable(&mut self) -> Option<&mut Resumable> {
        self.rest.as_mut()?.asked.resumable.as_mut()
    }

    /// What an HTTP answer has to know of its request.
    pub(super) fn asked(&self) -> Option<&Asked> {
        self.rest.as_ref().map(|rest| &rest.asked)
    }
}

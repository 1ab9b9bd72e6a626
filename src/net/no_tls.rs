//! A build without TLS: there is no session, and no certificate can be used.
//!
//! The same names as in `tls/`, as far as the server uses them. No value of these types exists, so their code is gone.

use std::convert::Infallible;
use std::io::{self, Read, Write};

pub use super::tls_terms::{Agreed, Asks, FIRST_BYTE, Pem};

/// A server towards its clients. There is none.
#[derive(Clone, Copy, Debug)]
pub struct Identity(Infallible);

impl Identity {
    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: &Pem) -> Result<Self, String> {
        Err("--tls-cert: this intake was built without TLS".into())
    }

    /// When the certificate ends, in seconds since the epoch.
    pub fn not_after(&self) -> u64 {
        match self.0 {}
    }

    /// Answers the first message of a client.
    pub fn answer(&self, _: &mut Session) {
        match self.0 {}
    }

    /// The server's end of TLS with one client.
    pub fn session(&self) -> Session {
        match self.0 {}
    }
}

/// One end of TLS. There is none.
#[derive(Clone, Copy, Debug)]
pub struct Session(Infallible);

#[allow(missing_docs, reason = "they are never called")]
#[allow(clippy::missing_errors_doc, reason = "they are never called")]
impl Session {
    pub fn begin_with(&mut self, _: &[u8]) {
        match self.0 {}
    }

    pub fn is_greeted(&self) -> bool {
        match self.0 {}
    }

    pub fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub fn has_begun(&self) -> bool {
        match self.0 {}
    }

    pub fn is_broken(&self) -> bool {
        match self.0 {}
    }

    pub fn agreed(&self) -> Option<Agreed> {
        match self.0 {}
    }

    pub fn is_http(&self) -> bool {
        match self.0 {}
    }

    pub fn peer_name(&self) -> Option<String> {
        match self.0 {}
    }

    pub fn receive(&mut self, _: &mut dyn Read, _: &mut [u8], _: usize) -> io::Result<usize> {
        match self.0 {}
    }

    pub fn send(&mut self, _: &mut dyn Write, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub fn flush(&mut self, _: &mut dyn Write) -> io::Result<()> {
        match self.0 {}
    }

    pub fn owes(&self) -> bool {
        match self.0 {}
    }

    pub fn end_is_proven(&self) -> bool {
        match self.0 {}
    }

    pub fn announce_end(&mut self) -> bool {
        match self.0 {}
    }

    pub fn shut_down(&mut self) {
        match self.0 {}
    }
}

//! TLS on a stream, by rustls: handshake, records and alerts.
//!
//! A [`Session`] is one end of TLS. Each call passes the stream to it. [`Tls`] is a stream with its session, for a client, which
//! speaks TLS from the start.
//!
//! What differs from a plain socket:
//!
//! | | | |
//! |---|---|---|
//! | a read | may find nothing for its caller: handshakes and alerts are the session's own | it says `Interrupted`, and is repeated |
//! | a write | may be held back by the session | [`Stream::owes`], and a flush sends it |
//! | readiness | no event tells of plaintext that the session holds | a read says `WouldBlock` only if the session holds none and the socket is drained |
//! | the end | a `close_notify` ends the stream; a FIN alone may come from the kernel of a killed program | the end is proven, or the read fails with `UnexpectedEof` |
//!
//! Nothing is resumed. A server of TLS 1.3 would send tickets for that unasked, and a client that only writes never reads them:
//! its close becomes a reset, which discards what it has sent last (RFC 1122, 4.2.2.13).
//!
//! Knows no conversation, no files and no limits on handshakes.

mod certificate;
pub(super) mod failure;
mod identity;
mod session;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use failure::Failure;
pub(super) use failure::{VERSION_1, is_version_1};
pub use identity::Identity;
pub use session::{PROTOCOLS, Session};

use super::Stream;
pub use super::tls_terms::{Agreed, Asks, FIRST_BYTE, Pem};

/// The cryptography that this program was built with.
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls")]
    return rustls::crypto::aws_lc_rs::default_provider().into();
    #[cfg(not(feature = "tls"))]
    return rustls::crypto::ring::default_provider().into();
}

/// A stream that speaks TLS.
pub struct Tls<S> {
    stream: S,
    session: Session,
}

impl<S: Stream> Tls<S> {
    /// `session` on `stream`.
    pub fn new(stream: S, session: Session) -> Self {
        Self { stream, session }
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream below.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl<S: Stream> Read for Tls<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.session.receive(&mut self.stream, buffer, buffer.len())
    }
}

impl<S: Stream> Write for Tls<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.session.send(&mut self.stream, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.flush(&mut self.stream)
    }
}

impl<S: Stream> Stream for Tls<S> {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn receive(&mut self, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        self.session.receive(&mut self.stream, buffer, max)
    }

    fn owes(&self) -> bool {
        self.session.owes()
    }

    fn is_secure(&self) -> bool {
        true
    }

    fn end_is_proven(&self) -> bool {
        self.session.end_is_proven()
    }

    fn announce_end(&mut self) -> bool {
        self.session.announce_end()
    }

    /// Nothing: a mark within a record would hold back the record.
    fn set_low_water(&mut self, _: usize) {}

    /// A FIN after a `close_notify`, if both can be sent at once. [`Stream::announce_end`] and a flush come before, if not.
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.session.announce_end();
        self.session.flush(&mut self.stream)?;
        self.session.shut_down();
        self.stream.shutdown_write()
    }

    fn reset_on_close(&mut self, resets: bool) -> io::Result<()> {
        self.stream.reset_on_close(resets)
    }
}

impl<S: mio::event::Source> mio::event::Source for Tls<S> {
    fn register(&mut self, registry: &mio::Registry, token: mio::Token, interest: mio::Interest) -> io::Result<()> {
        self.stream.register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &mio::Registry, token: mio::Token, interest: mio::Interest) -> io::Result<()> {
        self.stream.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        self.stream.deregister(registry)
    }
}

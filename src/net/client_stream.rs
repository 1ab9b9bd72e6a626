//! A client's connection to its server, with TLS or without.
//!
//! Over TLS an end is believed only if the server has announced it; otherwise a read fails with `UnexpectedEof`. An error of
//! TLS itself is a [`super::TlsError`] inside the `io::Error`.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use rustix::net::{SendFlags, send};

#[cfg(feature = "rustls")]
use super::secure::Secure;
use super::{ClientTls, Stream};

/// A connection to a server.
#[derive(Debug)]
pub struct ClientStream(Wire);

#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    #[cfg(feature = "rustls")]
    Tls(Box<Secure>),
}

impl ClientStream {
    /// A connection over `stream`, which does not block. With TLS a flush begins the handshake.
    pub fn new(stream: TcpStream, tls: Option<&ClientTls>) -> Self {
        match tls {
            None => Self(Wire::Plain(stream)),
            #[cfg(feature = "rustls")]
            Some(tls) => Self(Wire::Tls(Box::new(Secure::new(stream, tls)))),
            #[cfg(not(feature = "rustls"))]
            Some(tls) => match *tls {},
        }
    }

    /// The socket, to be polled and asked for its state.
    pub fn socket(&self) -> &TcpStream {
        match &self.0 {
            Wire::Plain(stream) => stream,
            #[cfg(feature = "rustls")]
            Wire::Tls(secure) => secure.socket(),
        }
    }

    /// Whether TLS is still in its handshake.
    pub fn is_handshaking(&self) -> bool {
        match &self.0 {
            Wire::Plain(_) => false,
            #[cfg(feature = "rustls")]
            Wire::Tls(secure) => !secure.is_open(),
        }
    }

    /// Sends some of `bytes`, and returns how many. `more` says that more follows at once, so that a short end is not sent
    /// as a segment or a record of its own (`MSG_MORE`, send(2)).
    ///
    /// # Errors
    /// As of a write.
    pub fn send(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match &mut self.0 {
            Wire::Plain(stream) => {
                let flags = if more { SendFlags::MORE } else { SendFlags::empty() };
                Ok(send(stream, bytes, flags | SendFlags::NOSIGNAL)?)
            }
            #[cfg(feature = "rustls")]
            Wire::Tls(secure) => secure.send(bytes, more),
        }
    }

    fn inner(&self) -> &dyn Stream {
        match &self.0 {
            Wire::Plain(stream) => stream,
            #[cfg(feature = "rustls")]
            Wire::Tls(secure) => secure.as_ref(),
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Stream {
        match &mut self.0 {
            Wire::Plain(stream) => stream,
            #[cfg(feature = "rustls")]
            Wire::Tls(secure) => secure.as_mut(),
        }
    }
}

impl Read for ClientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner_mut().read(buffer)
    }
}

impl Write for ClientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes, false)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner_mut().flush()
    }
}

impl Stream for ClientStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
    }

    fn receive(&mut self, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        self.inner_mut().receive(buffer, max)
    }

    fn owes(&self) -> bool {
        self.inner().owes()
    }

    fn end_is_proven(&self) -> bool {
        self.inner().end_is_proven()
    }

    fn set_low_water(&mut self, bytes: usize) {
        self.inner_mut().set_low_water(bytes);
    }

    /// With TLS, after all written bytes and an announcement of the end. `WouldBlock`: the socket takes no more now; repeat
    /// it.
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.inner_mut().shutdown_write()
    }

    fn reset_on_close(&mut self, resets: bool) -> io::Result<()> {
        self.inner_mut().reset_on_close(resets)
    }
}

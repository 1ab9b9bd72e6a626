//! A client's connection with TLS: small writes become few records, and an error of TLS becomes a message.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::client_tls::{explain, not_tls};
use super::tls::{FIRST_BYTE, Failure, Tls};
use super::{ClientTls, Stream};

/// The most bytes that wait for more to follow: a record's worth (RFC 8446, 5.1).
const HELD_MAX_BYTES: usize = 16 << 10;
/// How much of an answer that is not TLS is shown, in bytes.
const SHOWN_MAX_BYTES: usize = 200;
/// The first byte of an alert, such as a server may answer a ClientHello with (RFC 8446, 5.1).
const ALERT: u8 = 0x15;

/// A connection with TLS.
pub struct Secure {
    tls: Tls<TcpStream>,
    /// Bytes to send that wait for more.
    held: Vec<u8>,
    /// The handshake is over.
    is_open: bool,
    /// The server's first answer is TLS.
    is_answered: bool,
}

impl Secure {
    pub fn new(stream: TcpStream, tls: &ClientTls) -> Self {
        let tls = Tls::new(stream, tls.session());
        Self { tls, held: Vec::new(), is_open: false, is_answered: false }
    }

    pub fn socket(&self) -> &TcpStream {
        self.tls.stream()
    }

    pub fn is_open(&self) -> bool {
        self.is_open
    }

    pub fn send(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        if more && self.held.len() + bytes.len() <= HELD_MAX_BYTES {
            self.held.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        if self.held.is_empty() {
            return self.tls.write(bytes);
        }
        let fitting = bytes.len().min(HELD_MAX_BYTES.saturating_sub(self.held.len()));
        self.held.extend_from_slice(&bytes[..fitting]);
        match self.send_held() {
            Err(error) if fitting == 0 || error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(fitting),
        }
    }

    fn send_held(&mut self) -> io::Result<()> {
        while !self.held.is_empty() {
            let sent = self.tls.write(&self.held)?;
            self.held.drain(..sent);
        }
        Ok(())
    }

    /// Looks at the first answer, to show one that is not TLS. TLS itself would wait for a whole record.
    fn look_at_first_answer(&mut self) -> io::Result<()> {
        let mut said = [0; SHOWN_MAX_BYTES];
        let length = self.tls.stream().peek(&mut said)?;
        if let Some(first) = said[..length].first()
            && ![FIRST_BYTE, ALERT].contains(first)
        {
            let said = String::from_utf8_lossy(&said[..length]);
            return Err(io::Error::new(ErrorKind::InvalidData, not_tls(said.lines().next().unwrap_or_default())));
        }
        self.is_answered = true;
        Ok(())
    }

    fn note(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        let session = self.tls.session();
        self.is_open |= !session.is_handshaking() && !session.is_broken();
        result.map_err(|error| {
            let Some(Failure(failure)) = error.get_ref().and_then(|inner| inner.downcast_ref()) else { return error };
            io::Error::new(error.kind(), explain(failure, self.is_open))
        })
    }
}

impl Read for Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer, buffer.len())
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes, false)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_held()?;
        self.tls.flush()
    }
}

impl Stream for Secure {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tls.local_addr()
    }

    fn receive(&mut self, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        if !self.is_answered {
            self.look_at_first_answer()?;
        }
        let received = self.tls.receive(buffer, max);
        self.note(received)
    }

    fn owes(&self) -> bool {
        !self.held.is_empty() || self.tls.owes()
    }

    fn end_is_proven(&self) -> bool {
        self.tls.end_is_proven()
    }

    fn announce_end(&mut self) -> bool {
        self.tls.announce_end()
    }

    fn set_low_water(&mut self, _: usize) {}

    fn shutdown_write(&mut self) -> io::Result<()> {
        if !self.is_open {
            // An announcement now would come before the bytes that wait for the end of the handshake.
            return Err(ErrorKind::WouldBlock.into());
        }
        self.send_held()?;
        self.tls.shutdown_write()
    }

    fn reset_on_close(&mut self, resets: bool) -> io::Result<()> {
        self.tls.reset_on_close(resets)
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("socket", self.socket()).finish_non_exhaustive()
    }
}

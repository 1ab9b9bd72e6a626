//! One end of TLS: what the peer sends goes in, what it said comes out.
//!
//! rustls decrypts from a buffer of its own, a few kilobytes at a time. To read the socket in large pieces anyway, the caller's
//! buffer holds both: received records lie behind a gap of one record, and the plaintext is written over them from the
//! front. Plaintext is shorter than its records, so it never reaches a record that was not taken yet.
//!
//! A server's session begins with the ClientHello. When it is whole, the costly part waits until the server allows it
//! ([`Session::begin`]).

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{ClientConfig, ClientConnection, Connection, Error, ServerConfig};

use super::certificate;
use super::failure::Failure;
use crate::net::tls_terms::Agreed;

/// What the two sides may agree to speak (ALPN, RFC 7301): HTTP, or any dialect.
pub const PROTOCOLS: [&[u8]; 2] = [HTTP, b"intake/1"];
/// After this the client speaks HTTP only, so that nothing that was meant for a web server is taken for anything else.
const HTTP: &[u8] = b"http/1.1";

/// The largest record with its header (RFC 8446, 5.2; of TLS 1.2, with 2048 more than its content), in bytes.
const RECORD_MAX_BYTES: usize = 5 + 16_384 + 2048;
/// A smaller buffer has no room for a record and a piece of the next one.
const BUFFER_MIN_BYTES: usize = 2 * RECORD_MAX_BYTES;
/// How many reads of the socket may bring nothing for the caller before the others have their turn. A handshake takes two.
const READS_MAX: usize = 4;

/// One end of TLS.
pub struct Session {
    state: State,
    /// Received bytes that rustls has not taken.
    unread: Vec<u8>,
    /// Why the session is broken.
    broken: Option<Broken>,
    /// The peer's `close_notify` was read.
    has_ended: bool,
    /// Our direction of the stream is shut down.
    is_shut: bool,
}

enum State {
    /// The client's first message is coming in.
    Hello(Box<Acceptor>),
    /// It is whole.
    Greeted(Box<Accepted>),
    /// It was refused, and this may be left to say.
    Refused(Option<AcceptedAlert>),
    Open(Box<Connection>),
    /// In between two of these.
    Void,
}

struct Broken {
    error: Error,
    is_told: bool,
}

impl Session {
    /// The server's end, before the first byte.
    pub fn server() -> Self {
        Self::of(State::Hello(Box::default()))
    }

    /// The client's end. A flush sends its first message.
    ///
    /// # Errors
    /// The configuration allows no handshake.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Failure> {
        let connection = ClientConnection::new(config, name).map_err(Failure)?;
        Ok(Self::of(State::Open(Box::new(connection.into()))))
    }

    fn of(state: State) -> Self {
        Self { state, unread: Vec::new(), broken: None, has_ended: false, is_shut: false }
    }

    /// Takes bytes that were read from the stream before it was known to speak TLS.
    pub fn begin_with(&mut self, received: &[u8]) {
        self.unread.extend_from_slice(received);
    }

    /// Whether the client's first message is whole, and [`Session::begin`] is to be called. Until then reads find nothing.
    pub fn is_greeted(&self) -> bool {
        matches!(self.state, State::Greeted(_))
    }

    /// Answers the client's first message. Signing that costs more than anything else that a client can ask for.
    pub fn begin(&mut self, config: &Arc<ServerConfig>) {
        match std::mem::replace(&mut self.state, State::Void) {
            State::Greeted(accepted) => match accepted.into_connection(config.clone()) {
                Ok(connection) => {
                    self.state = State::Open(Box::new(connection.into()));
                    self.process();
                }
                Err((error, alert)) => self.refuse(error, alert),
            },
            state => self.state = state,
        }
    }

    /// Whether the handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Open(connection) => connection.is_handshaking() && self.broken.is_none(),
            State::Hello(_) | State::Greeted(_) => true,
            State::Refused(_) | State::Void => false,
        }
    }

    /// Whether it has answered the client's first message.
    pub fn has_begun(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether it has failed. Nothing more is read or written but the alert that says why.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// What was agreed on, once the handshake is over.
    pub fn agreed(&self) -> Option<Agreed> {
        let State::Open(connection) = &self.state else { return None };
        if self.is_broken() || connection.is_handshaking() {
            return None;
        }
        Some(Agreed {
            version: format!("{:?}", connection.protocol_version()?),
            cipher: format!("{:?}", connection.negotiated_cipher_suite()?.suite()),
            protocol: connection.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into()),
        })
    }

    /// Whether the two sides agreed on HTTP, so that nothing else may follow.
    pub fn is_http(&self) -> bool {
        matches!(&self.state, State::Open(connection) if connection.alpn_protocol() == Some(HTTP))
    }

    /// The name of the client, if it has proven one by a certificate.
    pub fn peer_name(&self) -> Option<String> {
        self.peer_certificate().and_then(|certificate| certificate::name(certificate))
    }

    /// The peer's certificate, if it has sent one. It has been checked.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match &self.state {
            State::Open(connection) => connection.peer_certificates()?.first(),
            _ => None,
        }
    }

    /// Reads at most `max` bytes of plaintext to the front of `buffer`; the rest of it is scratch. Zero is the end, which the
    /// peer has announced.
    ///
    /// # Errors
    /// `WouldBlock` if the stream is drained and the session holds nothing. `Interrupted` if only the session's own bytes
    /// came, or its client waits for [`Session::begin`]. `UnexpectedEof` if the stream ended without an announcement. A
    /// [`Failure`] once; afterwards all that comes is discarded. Or the error of the stream.
    pub fn receive(&mut self, stream: &mut dyn Read, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        if buffer.len() < BUFFER_MIN_BYTES {
            if let Some(held) = self.held(&mut buffer[..max]) {
                return held;
            }
            let mut scratch = [0; BUFFER_MIN_BYTES];
            let count = self.receive(stream, &mut scratch, max.min(buffer.len()))?;
            buffer[..count].copy_from_slice(&scratch[..count]);
            return Ok(count);
        }
        for _ in 0..READS_MAX {
            if let Some(held) = self.held(&mut buffer[..max]) {
                return held;
            }
            if self.is_broken() {
                return self.discard(stream, buffer);
            }
            let wire = self.fetch(stream, &mut buffer[RECORD_MAX_BYTES..], max)?;
            if wire == 0 && !matches!(self.state, State::Open(_)) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let count = self.take(buffer, wire, max);
            if count > 0 {
                return Ok(count);
            }
        }
        Err(ErrorKind::Interrupted.into())
    }

    /// Plaintext that the session holds, its end, or why there will be none. `None`: only the stream can tell.
    fn held(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let held = match &mut self.state {
            State::Greeted(_) => Err(ErrorKind::Interrupted.into()),
            State::Open(connection) => connection.reader().read(buffer),
            _ => Err(ErrorKind::WouldBlock.into()),
        };
        match held {
            Ok(0) => self.has_ended = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let broken = self.broken.as_mut().filter(|broken| !broken.is_told)?;
                broken.is_told = true;
                return Some(Err(Failure(broken.error.clone()).into()));
            }
            _ => {}
        }
        Some(held)
    }

    /// Reads and discards. Nothing that comes after a failure can be understood.
    fn discard(&mut self, stream: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
        self.unread = Vec::new();
        match stream.read(buffer)? {
            0 => Ok(0),
            _ => Err(ErrorKind::Interrupted.into()),
        }
    }

    /// Gets what the peer has sent: how many bytes, zero at the end of the stream.
    fn fetch(&mut self, stream: &mut dyn Read, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        // No more than what there is room for as plaintext, so that little has to be kept.
        let room = max.clamp(1, buffer.len());
        if self.unread.is_empty() {
            return stream.read(&mut buffer[..room]);
        }
        let count = self.unread.len().min(room);
        buffer[..count].copy_from_slice(&self.unread[..count]);
        if count == self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..count);
        }
        Ok(count)
    }

    /// Takes `wire` received bytes that lie behind the gap, and writes up to `max` bytes of plaintext to the front. Returns
    /// how many.
    fn take(&mut self, buffer: &mut [u8], wire: usize, max: usize) -> usize {
        let (mut taken, mut count) = (0, 0);
        loop {
            let (front, received) = buffer.split_at_mut(RECORD_MAX_BYTES + taken);
            let room = max.min(front.len());
            let mut received = &received[..wire - taken];
            let before = received.len();
            if !self.feed(&mut received, count == max) {
                self.unread.extend_from_slice(received);
                return count;
            }
            taken += before - received.len();
            while count < room
                && let State::Open(connection) = &mut self.state
                && let Ok(more @ 1..) = connection.reader().read(&mut front[count..room])
            {
                count += more;
            }
            if taken == wire {
                return count;
            }
        }
    }

    /// Feeds a few kilobytes of `received`, or its end, to rustls. Returns whether it may take more.
    fn feed(&mut self, received: &mut &[u8], is_full: bool) -> bool {
        let fed = match &mut self.state {
            State::Hello(acceptor) => acceptor.read_tls(received),
            State::Open(connection) => connection.read_tls(received),
            State::Greeted(_) | State::Refused(_) | State::Void => return false,
        };
        match fed {
            // After a close_notify it takes nothing more, and what follows does not matter.
            Ok(0) => *received = &[],
            Ok(_) => self.process(),
            Err(_) if is_full => return false,
            Err(error) => self.fail(Error::General(error.to_string())),
        }
        !self.is_broken()
    }

    /// Acts on what rustls has been fed.
    fn process(&mut self) {
        match std::mem::replace(&mut self.state, State::Void) {
            State::Hello(mut acceptor) => match acceptor.accept() {
                Ok(Some(accepted)) => self.state = State::Greeted(Box::new(accepted)),
                Ok(None) => self.state = State::Hello(acceptor),
                Err((error, alert)) => self.refuse(error, alert),
            },
            State::Open(mut connection) => {
                let processed = connection.process_new_packets();
                self.state = State::Open(connection);
                if let Err(error) = processed {
                    self.fail(error);
                }
            }
            state => self.state = state,
        }
    }

    fn refuse(&mut self, error: Error, alert: AcceptedAlert) {
        self.state = State::Refused(Some(alert));
        self.fail(error);
    }

    fn fail(&mut self, error: Error) {
        self.broken.get_or_insert(Broken { error, is_told: false });
    }

    /// Takes some of `bytes` to send them, and sends what the stream takes.
    ///
    /// # Errors
    /// `WouldBlock` if the session can hold no more. Or the error of the stream.
    pub fn send(&mut self, stream: &mut dyn Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(stream)?;
        let State::Open(connection) = &mut self.state else { return Err(ErrorKind::WouldBlock.into()) };
        let count = connection.writer().write(bytes)?;
        match self.flush(stream) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ if count == 0 && !bytes.is_empty() => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(count),
        }
    }

    /// Sends what the session holds.
    ///
    /// # Errors
    /// `WouldBlock` if the stream takes no more. Or its error.
    pub fn flush(&mut self, stream: &mut dyn Write) -> io::Result<()> {
        match &mut self.state {
            State::Open(connection) => {
                while connection.wants_write() {
                    if connection.write_tls(stream)? == 0 {
                        return Err(ErrorKind::WriteZero.into());
                    }
                }
            }
            State::Refused(alert) => {
                if let Some(rest) = alert {
                    while rest.write(stream)? > 0 {}
                }
                *alert = None;
            }
            State::Hello(_) | State::Greeted(_) | State::Void => {}
        }
        Ok(())
    }

    /// Whether the session holds bytes that [`Session::flush`] sends.
    pub fn owes(&self) -> bool {
        match &self.state {
            _ if self.is_shut => false,
            State::Open(connection) => connection.wants_write(),
            State::Refused(alert) => alert.is_some(),
            State::Hello(_) | State::Greeted(_) | State::Void => false,
        }
    }

    /// Whether the peer has announced the end that a read has found.
    pub fn end_is_proven(&self) -> bool {
        self.has_ended
    }

    /// Announces that we send no more (`close_notify`). Returns whether that is to be flushed.
    pub fn announce_end(&mut self) -> bool {
        match &mut self.state {
            State::Open(connection) if !self.is_shut => {
                connection.send_close_notify();
                connection.wants_write()
            }
            _ => self.owes(),
        }
    }

    /// Our direction of the stream is shut down: nothing is owed any more.
    pub fn shut_down(&mut self) {
        self.is_shut = true;
    }
}

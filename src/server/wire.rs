//! The socket of a connection with the TLS session on it, if there is one.
//!
//! Knows neither the conversation nor when TLS begins. It is made for each call: a connection in clear holds nothing for it.

use std::io;

use crate::net::tls::Session;
use crate::net::{Pipe, Stream};

/// A socket, in clear or with TLS on it.
pub struct Wire<'a, S> {
    /// The socket.
    pub stream: &'a mut S,
    /// TLS on it.
    pub session: Option<&'a mut Session>,
}

impl<S: Stream> Wire<'_, S> {
    /// As [`Stream::receive`].
    pub fn receive(self, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        match self.session {
            Some(session) => session.receive(self.stream, buffer, max),
            None => self.stream.receive(buffer, max),
        }
    }

    /// As write(2).
    pub fn send(self, bytes: &[u8]) -> io::Result<usize> {
        match self.session {
            Some(session) => session.send(self.stream, bytes),
            None => self.stream.write(bytes),
        }
    }

    /// Sends what the stream has of its own, or holds back.
    pub fn flush(self) -> io::Result<()> {
        match self.session {
            Some(session) => session.flush(self.stream),
            None => self.stream.flush(),
        }
    }

    /// As [`Stream::splice`]. Through TLS nothing is moved unseen.
    pub fn splice(self, pipe: &Pipe, max: usize) -> io::Result<usize> {
        match self.session {
            Some(_) => Ok(0),
            None => self.stream.splice(pipe, max),
        }
    }

    /// As [`Stream::announce_end`].
    pub fn announce_end(self) -> bool {
        match self.session {
            Some(session) => session.announce_end(),
            None => self.stream.announce_end(),
        }
    }

    /// As [`Stream::shutdown_write`]. The end has been announced.
    pub fn shutdown_write(self) -> io::Result<()> {
        if let Some(session) = self.session {
            session.shut_down();
        }
        self.stream.shutdown_write()
    }
}

//! The rules for each kind of connection. They differ in little, and each visit gets those of its connection.
//!
//! Values only.

use crate::proto::Rules;

/// How a connection is carried, and what may be said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In clear.
    Plain,
    /// In clear, through a proxy.
    Proxied,
    /// By TLS.
    Tls,
    /// By TLS, and both sides have agreed on HTTP.
    TlsHttp,
}

/// The rules of a server, by the kind of connection.
pub struct RuleBook([Rules; 4]);

impl RuleBook {
    /// The rules that follow from those for connections in clear. `proxied_unsized`: through a proxy, too, a file may end
    /// with the stream.
    pub fn new(plain: Rules, proxied_unsized: bool) -> Self {
        // A proxy may end the stream cleanly where its client did not: at a timeout of its own, or at its own end.
        let proxied = Rules { require_size: plain.require_size || !proxied_unsized, ..plain.clone() };
        // The end of a stream proves itself in TLS, so a file needs no size.
        let tls = Rules { require_size: false, ..plain.clone() };
        let http = Rules { only_http: true, ..tls.clone() };
        Self([plain, proxied, tls, http])
    }

    /// Other rules count from now on, but what has happened to the server meanwhile still holds.
    pub fn replace(&mut self, plain: Rules, proxied_unsized: bool) {
        let Rules { now, needs_token, is_draining, .. } = self.0[0];
        *self = Self::new(Rules { now, needs_token, is_draining, ..plain }, proxied_unsized);
    }

    /// The rules for connections of this kind.
    pub fn of(&self, kind: Kind) -> &Rules {
        &self.0[kind as usize]
    }

    /// Sets the time of day, in seconds since the epoch.
    pub fn tell_time(&mut self, now: u64) {
        self.0.iter_mut().for_each(|rules| rules.now = now);
    }

    /// From now on clients need a token.
    pub fn need_token(&mut self) {
        self.0.iter_mut().for_each(|rules| rules.needs_token = true);
    }

    /// The server begins to shut down.
    pub fn drain(&mut self) {
        self.0.iter_mut().for_each(|rules| rules.is_draining = true);
    }
}

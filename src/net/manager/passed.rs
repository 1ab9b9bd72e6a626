//! Sockets that are open already when the process starts (sd_listen_fds(3)).
//!
//! The service manager keeps them open while the service restarts. Clients that connect meanwhile wait in the backlog, so a
//! restart refuses and resets none of them.
//!
//! The name of a socket says what it is for (`FileDescriptorName=`, systemd.socket(5)). A socket whose name or kind is wrong
//! is an error: if it were ignored, its clients would wait for ever.

use std::env;
use std::io;
use std::net::UdpSocket;

use listenfd::ListenFd;
use rustix::process::getpid;

use crate::net::{Listener, LocalListener};

/// The sockets that were passed, by their names.
#[derive(Debug, Default)]
pub struct Passed {
    /// Take uploads.
    pub tcp: Vec<Listener>,
    /// Echo datagrams.
    pub udp: Vec<UdpSocket>,
    /// Answers questions about the server.
    pub metrics: Option<Listener>,
    /// Serves the operator's own programs.
    pub admin: Option<LocalListener>,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Tcp,
    Udp,
    Metrics,
    Admin,
}

impl Use {
    const WORDS: [(&str, Self); 4] =
        [("tcp", Self::Tcp), ("udp", Self::Udp), ("metrics", Self::Metrics), ("admin", Self::Admin)];
}

impl Passed {
    /// Takes the sockets that were passed to this process. To be called once, before any thread is started: it removes
    /// variables from the environment.
    ///
    /// # Errors
    /// In words: a socket has no name, an unknown one, or is of another kind than its name says.
    pub fn take() -> Result<Self, String> {
        let variable = |name| env::var(name).ok();
        let own = getpid().as_raw_pid().to_string();
        let Some(count) = variable("LISTEN_FDS").filter(|_| variable("LISTEN_PID") == Some(own)) else {
            return Ok(Self::default());
        };
        let uses = uses(&count, &variable("LISTEN_FDNAMES").unwrap_or_default())?;
        let mut descriptors = ListenFd::from_env();
        let mut passed = Self::default();
        for (index, the_use) in uses.into_iter().enumerate() {
            passed.adopt(&mut descriptors, index, the_use)?;
        }
        Ok(passed)
    }

    fn adopt(&mut self, descriptors: &mut ListenFd, index: usize, the_use: Use) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", described(index, the_use));
        let missing = || failed(io::ErrorKind::NotFound.into());
        let mut listener = || {
            let found = descriptors.take_tcp_listener(index).map_err(failed)?.ok_or_else(missing)?;
            Listener::adopt(found).map_err(failed)
        };
        match the_use {
            Use::Tcp => self.tcp.push(listener()?),
            Use::Admin if self.admin.is_none() => {
                let found = descriptors.take_unix_listener(index).map_err(failed)?.ok_or_else(missing)?;
                self.admin = Some(LocalListener::adopt(found).map_err(failed)?);
            }
            Use::Metrics if self.metrics.is_none() => self.metrics = Some(listener()?),
            Use::Metrics | Use::Admin => {
                return Err(format!("{}: there may be only one", described(index, the_use)));
            }
            Use::Udp => self.udp.push(descriptors.take_udp_socket(index).map_err(failed)?.ok_or_else(missing)?),
        }
        Ok(())
    }
}

fn described(index: usize, the_use: Use) -> String {
    let name = Use::WORDS.iter().find(|(_, known)| *known == the_use).map_or("", |(word, _)| word);
    format!("cannot use passed socket {} of the name {name:?}", index + 1)
}

/// The uses of `count` sockets, whose names are in `names`, separated by colons.
fn uses(count: &str, names: &str) -> Result<Vec<Use>, String> {
    let known = "tcp, udp, metrics or admin (systemd: FileDescriptorName= in the .socket unit)";
    let named: Vec<&str> = names.split(':').filter(|name| !name.is_empty()).collect();
    if count != named.len().to_string() {
        let words = format!("were passed, and LISTEN_FDNAMES names {}: name each {known}", named.len());
        return Err(format!("{count} sockets (LISTEN_FDS) {words}"));
    }
    let the_use = |(index, name): (usize, &&str)| {
        let found = Use::WORDS.iter().find(|(word, _)| word == name).map(|(_, the_use)| *the_use);
        found.ok_or_else(|| format!("passed socket {} has the name {name:?}: name it {known}", index + 1))
    };
    named.iter().enumerate().map(the_use).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_a_known_name() {
        assert_eq!(uses("3", "tcp:udp:tcp"), Ok(vec![Use::Tcp, Use::Udp, Use::Tcp]));
        assert_eq!(uses("0", ""), Ok(vec![]));
        for (count, names, words) in [
            ("1", "intake.socket", "passed socket 1 has the name \"intake.socket\""),
            ("2", "tcp:Metrics", "passed socket 2 has the name \"Metrics\""),
            ("2", "tcp", "2 sockets (LISTEN_FDS) were passed, and LISTEN_FDNAMES names 1"),
            ("1", "", "names 0"),
            ("x", "tcp", "x sockets"),
            ("99999999999999999999", "tcp", "names 1"),
        ] {
            let error = uses(count, names).unwrap_err();
            assert!(error.contains(words) && error.contains("FileDescriptorName="), "{count} {names}: {error}");
        }
    }
}

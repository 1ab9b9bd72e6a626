//! What is known of the server at the moment of a question.

use std::cell::OnceCell;

use mio::net::TcpStream;

use crate::net::EchoStats;
use crate::server::Connections;
use crate::server::acceptor::Acceptor;
use crate::server::meter::Meter;
use crate::store::{Directory, Room};

/// The server at the moment of a question.
pub struct View<'a> {
    pub connections: &'a Connections<TcpStream, Directory>,
    pub acceptor: &'a Acceptor,
    /// The turns before this one.
    pub meter: &'a Meter,
    /// `None`: there is no echo.
    pub echo: Option<EchoStats>,
    /// Lines of the log that nobody has read in time.
    pub log_dropped: u64,
    /// The server is shutting down.
    pub is_draining: bool,
    /// When the server started, in seconds since the epoch.
    pub started: u64,
    /// In seconds since the epoch.
    pub time_of_day: u64,
    /// All metrics, once somebody has asked in this turn: the next ones get the same.
    pub metrics: OnceCell<String>,
}

impl View<'_> {
    /// Why uploads are not taken now, if they are not.
    pub fn obstacle(&self) -> Option<String> {
        if self.is_draining {
            return Some("the server is shutting down".into());
        }
        let store = self.connections.store();
        if let Err(error) = store.check_usable() {
            return Some(error.to_string());
        }
        match store.room() {
            Err(error) => Some(format!("the file system does not tell its free space: {error}")),
            Ok(Some(Room { free_bytes, min_free_bytes })) if free_bytes <= min_free_bytes => Some(format!(
                "{free_bytes} bytes are free on the disk, and uploads must leave {min_free_bytes} (--min-free)"
            )),
            Ok(_) => None,
        }
    }
}

//! Drives: the turn, the connection table, one upload's glue, every limit.

pub mod config;

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Stand-in for the server, so that the command line compiles and runs: to be dropped.
#[derive(Debug)]
pub struct Server(TcpListener);

/// Stand-in.
#[derive(Debug)]
pub enum Outcome {
    /// Stand-in.
    Clean,
    /// Stand-in.
    Aborted,
}

impl Server {
    /// Stand-in.
    ///
    /// # Errors
    /// Stand-in.
    pub fn bind(config: &config::Config) -> io::Result<Self> {
        TcpListener::bind(config.listen.as_slice()).map(Self)
    }

    /// Stand-in.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.0.local_addr().map(|address| ("tcp", address)).into_iter().collect()
    }

    /// Stand-in.
    ///
    /// # Errors
    /// Stand-in.
    pub fn run(self) -> io::Result<Outcome> {
        log::info!("a stand-in takes one connection");
        self.0.accept().map(|_| Outcome::Clean)
    }
}

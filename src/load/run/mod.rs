//! The clients that send files and the sockets that send datagrams: everything that uses the network and the clock.
//!
//! ```text
//! swarm -- serves --> client -- drives --> proto::Sender        udp -- one track for each socket
//!            both check first what this host has (host)
//! ```
//!
//! Carries out the plan, and passes the results on to be judged. Knows no report.

mod client;
mod host;
mod outcome;
mod swarm;
mod udp;

pub use host::{Requirement, Spent, requirements_with_server};
pub use outcome::{Finished, LoadError};
pub use swarm::{Live, send_files};
pub use udp::{Echoed, Event, choose_address, send_datagrams};

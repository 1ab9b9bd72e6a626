//! The service manager that has started this process, such as systemd: the sockets that it has passed, and what it is told.
//!
//! Both are protocols of environment variables, which any program can speak: sd_listen_fds(3) and sd_notify(3). Does not know
//! what the sockets are used for, nor when the server is ready.

mod notify;
mod passed;

pub use notify::Notify;
pub use passed::Passed;

/// The service manager. The default is none.
#[derive(Debug, Default)]
pub struct Manager {
    /// The sockets that it has passed.
    pub passed: Passed,
    /// What it is told.
    pub notify: Notify,
}

impl Manager {
    /// The manager that the environment names. To be called once, before any thread is started: the variables that name the
    /// passed sockets are removed.
    ///
    /// # Errors
    /// In words: what is wrong with a passed socket.
    pub fn of_the_environment() -> Result<Self, String> {
        Ok(Self { passed: Passed::take()?, notify: Notify::of_the_environment() })
    }
}

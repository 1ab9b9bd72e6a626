//! Root becomes another user, for good.
//!
//! The user is changed before the directory is opened, so that everything in it is made and checked with the rights of that
//! user. Only the right to bind a port below 1024 is kept until the sockets are bound.

use std::fmt;
use std::str::FromStr;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities};

/// The user that a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    uid: Uid,
    gid: Gid,
}

/// Why a process cannot become another user.
#[derive(Debug)]
pub enum UserError {
    /// It is not root.
    NotRoot,
    /// The system refuses it.
    System(Errno),
    /// It could still become root.
    NotForGood,
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => {
                f.write_str("only root can become another user: start the server as root, or as that user")
            }
            Self::System(errno) => write!(f, "cannot become another user: {errno}"),
            Self::NotForGood => f.write_str("cannot become another user: this process could become root again"),
        }
    }
}

impl std::error::Error for UserError {}

impl From<Errno> for UserError {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl From<nix::Error> for UserError {
    fn from(errno: nix::Error) -> Self {
        Self::System(Errno::from_raw_os_error(errno as i32))
    }
}

/// A name, or a number if the system need not know the user. The group is the user's own; if the system does not know the
/// user, the one of the same number.
impl FromStr for User {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let failed = |errno| format!("cannot be looked up: {errno}");
        let number = typed.parse().ok().map(Uid::from_raw);
        let found = match number {
            Some(uid) => nix::unistd::User::from_uid(uid),
            None => nix::unistd::User::from_name(typed),
        };
        let user = match (found.map_err(failed)?, number) {
            (Some(user), _) => Self { uid: user.uid, gid: user.gid },
            (None, Some(uid)) => Self { uid, gid: Gid::from_raw(uid.as_raw()) },
            (None, None) => return Err("this system has no such user".into()),
        };
        if user.uid.is_root() || user.gid == Gid::from_raw(0) {
            return Err("the user must not be root, nor in root's group".into());
        }
        Ok(user)
    }
}

impl User {
    /// Becomes this user in its own group, without supplementary groups and without privileges, except that to bind ports
    /// below 1024 ([`User::give_up_ports`]). A process of this user already has nothing to do. No other thread may run yet.
    ///
    /// # Errors
    /// [`UserError`]. The process may then have lost a part of its rights.
    pub fn become_it(&self) -> Result<(), UserError> {
        if geteuid().as_raw() == self.uid.as_raw() {
            return Ok(());
        }
        if !geteuid().is_root() {
            return Err(UserError::NotRoot);
        }
        let ports = capabilities(None)?.permitted & CapabilitySet::NET_BIND_SERVICE;
        set_keep_capabilities(true)?;
        setgroups(&[])?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        set_keep_capabilities(false)?;
        keep(ports)?;
        let regained = setresuid(self.uid, Uid::from_raw(0), self.uid).is_ok();
        if regained { Err(UserError::NotForGood) } else { Ok(()) }
    }

    /// Gives up the privilege to bind ports below 1024.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn give_up_ports(&self) -> Result<(), UserError> {
        keep(CapabilitySet::empty())
    }
}

fn keep(kept: CapabilitySet) -> Result<(), UserError> {
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_a_number_but_not_root() {
        let user = |typed: &str| typed.parse::<User>();
        let known = user("nobody").unwrap();
        assert_eq!(user(&known.uid.to_string()).unwrap(), known);
        let (uid, gid) = (Uid::from_raw(54_321), Gid::from_raw(54_321));
        assert_eq!(user("54321").unwrap(), User { uid, gid });
        assert_eq!(user("no such user").unwrap_err(), "this system has no such user");
        for root in ["root", "0"] {
            assert_eq!(user(root).unwrap_err(), "the user must not be root, nor in root's group");
        }
    }
}

//! A Unix socket on which the operator's own programs reach the server: only those of the same user, or of root.
//!
//! The file of a socket outlives its process. So a file at the path may be the socket of a server that lives, or of one that
//! was killed. A connect tells: nobody answers for the dead.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use mio::net::{UnixListener, UnixStream};
use rustix::fs::{AtFlags, CWD, Mode, fchmod, unlinkat};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that wait to be accepted: more than there may be at once, so that no program waits in its connect.
const BACKLOG: i32 = 128;

/// Listens on a Unix socket. Drop removes the file that it has made.
#[derive(Debug)]
pub struct LocalListener {
    socket: UnixListener,
    /// `None`: the socket was passed, and is not ours to remove.
    path: Option<PathBuf>,
}

delegate_source!(LocalListener, socket);

impl LocalListener {
    /// Makes the socket, for this user only (mode 0600), in the place of one whose server is gone.
    ///
    /// # Errors
    /// `AddrInUse`: another server answers there. `AlreadyExists`: the file is no socket. Others: the error of socket(2),
    /// bind(2) or unlink(2).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        remove_stale(&path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        // The file gets the mode that the socket has when it is bound, so there is no moment in which others may connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&SockAddr::unix(&path)?)?;
        socket.listen(BACKLOG)?;
        let socket = UnixListener::from_std(StdListener::from(std::os::fd::OwnedFd::from(socket)));
        Ok(Self { socket, path: Some(path) })
    }

    /// Takes a socket that listens already.
    ///
    /// # Errors
    /// The error of fcntl(2).
    pub fn adopt(socket: StdListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixListener::from_std(socket), path: None })
    }

    /// The path of the socket.
    ///
    /// # Errors
    /// The error of getsockname(2).
    pub fn path(&self) -> io::Result<PathBuf> {
        let address = self.socket.local_addr()?;
        Ok(address.as_pathname().map(Path::to_owned).unwrap_or_default())
    }

    /// Takes one connection from the backlog. Those of other users are closed at once.
    ///
    /// # Errors
    /// The error of accept(2). `WouldBlock`: there is none.
    pub fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.socket.accept()?;
            let user = socket_peercred(&stream)?.uid;
            if user.is_root() || user == geteuid() {
                return Ok(stream);
            }
            log::warn!("a program of user {} is turned away from the admin socket", user.as_raw());
        }
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The sandbox allows unlinkat(2), and not the older unlink(2).
            let removed = unlinkat(CWD, path, AtFlags::empty()).map_err(io::Error::from);
            if let Err(error) = removed.or_else(unless_missing) {
                log::warn!("cannot remove the socket {}: {error}", path.display());
            }
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) => return unless_missing(error),
        Ok(found) if !found.file_type().is_socket() => {
            let words = "there is a file of this name that is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).or_else(unless_missing),
        Err(error) => Err(error),
    }
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_this_user_may_connect_and_the_file_is_removed_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("admin.sock");
        let listener = LocalListener::bind(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_of_a_dead_server_is_replaced_and_that_of_a_living_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("admin.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists(), "it was left behind");
        let living = LocalListener::bind(&path).unwrap();
        assert_eq!(LocalListener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(living);
        fs::write(&path, "precious").unwrap();
        assert_eq!(LocalListener::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}

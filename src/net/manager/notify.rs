//! What the service manager is told: that the server is ready, reads its files again, is alive, or stops (sd_notify(3)).
//!
//! A datagram for which the manager has no room is dropped: the loop never waits. The watchdog is fed by the turn only, so its
//! silence means that the loop stands still.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::getpid;

use crate::net::now;
use crate::reactor::Moment;

/// How often the status is told: often enough for somebody who looks, and a wakeup that costs nothing.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// How long the manager is asked to wait for the end, again with each status: three times as long as a status takes, so a loop
/// that stands still is killed soon.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// The way to tell the service manager. The default tells nobody.
#[derive(Debug, Default)]
pub struct Notify {
    line: Option<Line>,
    /// How often the watchdog is fed. `None`: there is none.
    watchdog_every: Option<Duration>,
    status_at: Moment,
    watchdog_at: Moment,
    is_stopping: bool,
}

/// A socket that does not block, and where its datagrams go.
#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    /// `None`: the socket is connected.
    address: Option<SocketAddr>,
}

impl Notify {
    /// Whom `NOTIFY_SOCKET` names, with the watchdog of `WATCHDOG_USEC` if `WATCHDOG_PID` is this process.
    pub fn of_the_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self::default() };
        let line = Line::open(&name).map_err(|error| {
            log::warn!("the service manager cannot be told anything, NOTIFY_SOCKET is {name:?}: {error}");
        });
        let variable = |name| env::var(name).ok();
        let watchdog_every = watchdog_every(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        Self { line: line.ok(), watchdog_every, ..Self::default() }
    }

    /// The server is ready, for the first time or again.
    pub fn ready(&self, status: &str) {
        self.send(format_args!("READY=1\nSTATUS={status}"));
    }

    /// The server begins to read its files again. [`Notify::ready`] must follow.
    pub fn reloading(&self) {
        // Not the time of the turn: that may be earlier than the signal, and the manager would think of an earlier reload.
        let micros = now().since(Moment::default()).as_micros();
        self.send(format_args!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The server begins to shut down.
    pub fn stopping(&mut self, status: &str) {
        self.is_stopping = true;
        self.send(format_args!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS={status}", STOP_PATIENCE.as_micros()));
    }

    /// A turn has been made at `now`: feeds the watchdog and tells the status, if it is time to.
    pub fn turned(&mut self, now: Moment, status: impl FnOnce() -> String) {
        if let Some(every) = self.watchdog_every.filter(|_| self.watchdog_at <= now) {
            self.watchdog_at = now + every;
            self.send(format_args!("WATCHDOG=1"));
        }
        if self.line.is_some() && self.status_at <= now {
            self.status_at = now + STATUS_EVERY;
            let status = status();
            if self.is_stopping {
                self.send(format_args!("EXTEND_TIMEOUT_USEC={}\nSTATUS={status}", STOP_PATIENCE.as_micros()));
            } else {
                self.send(format_args!("STATUS={status}"));
            }
        }
    }

    /// When [`Notify::turned`] has something to do.
    pub fn deadline(&self) -> Option<Moment> {
        self.line.as_ref()?;
        Some(if self.watchdog_every.is_some() { self.status_at.min(self.watchdog_at) } else { self.status_at })
    }

    fn send(&self, words: fmt::Arguments) {
        if let Some(Err(error)) = self.line.as_ref().map(|line| line.send(words.to_string().as_bytes())) {
            log::debug!("the service manager was not told something: {error}");
        }
    }
}

impl Line {
    /// `name` is a path, or `@` and an abstract name (unix(7)).
    fn open(name: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let address = match name.as_bytes() {
            [b'/', ..] => Some(SocketAddr::from_pathname(name)?),
            // The sandbox does not forbid a connection that exists.
            [b'@', name @ ..] => {
                socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
                None
            }
            _ => return Err(io::Error::other("it is neither an absolute path nor an abstract name")),
        };
        Ok(Self { socket, address })
    }

    /// By its path, so that a manager that was restarted is found again.
    fn send(&self, words: &[u8]) -> io::Result<usize> {
        match &self.address {
            Some(address) => self.socket.send_to_addr(words, address),
            None => self.socket.send(words),
        }
    }
}

/// Half of the time after which the manager loses patience. `None`: this process has no watchdog.
fn watchdog_every(micros: Option<String>, process: Option<String>) -> Option<Duration> {
    let own = getpid().as_raw_pid().to_string();
    let micros: u64 = micros?.parse().ok().filter(|_| process.is_none_or(|process| process == own))?;
    (micros > 0).then(|| Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What was told, datagram by datagram.
    fn told(manager: &UnixDatagram) -> Vec<String> {
        manager.set_nonblocking(true).unwrap();
        let next = || {
            let mut bytes = [0; 500];
            manager.recv(&mut bytes).ok().map(|count| String::from_utf8_lossy(&bytes[..count]).into_owned())
        };
        std::iter::from_fn(next).collect()
    }

    fn notify(watchdog_every: Option<Duration>) -> (Notify, UnixDatagram, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let line = Some(Line::open(path.as_os_str()).unwrap());
        (Notify { line, watchdog_every, ..Notify::default() }, manager, home)
    }

    #[test]
    fn the_watchdog_is_fed_by_turns_at_most_in_half_of_its_time() {
        let (mut notify, manager, _home) = notify(Some(2 * SECOND));
        let start = Moment::after(SECOND);
        let mut count = |after| {
            notify.turned(start + after, || "well".into());
            told(&manager).iter().filter(|words| *words == "WATCHDOG=1").count()
        };
        let spans = [0.0, 0.1, 1.9, 2.0, 3.0, 4.0, 100.0].map(Duration::from_secs_f64);
        assert_eq!(spans.map(&mut count), [1, 0, 0, 1, 0, 1, 1]);
        assert_eq!(notify.deadline(), Some(start + 102 * SECOND));
    }

    #[test]
    fn the_status_is_told_every_ten_seconds_and_asks_for_time_while_the_server_stops() {
        let (mut notify, manager, _home) = notify(None);
        let start = Moment::after(SECOND);
        notify.turned(start, || "a".into());
        notify.turned(start + 9 * SECOND, || unreachable!("it is not asked for"));
        notify.stopping("b");
        assert_eq!(notify.deadline(), Some(start + 10 * SECOND));
        notify.turned(start + 10 * SECOND, || "c".into());
        let asks = "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=";
        assert_eq!(told(&manager), ["STATUS=a".into(), format!("STOPPING=1\n{asks}b"), format!("{asks}c")]);
    }

    #[test]
    fn a_manager_that_never_reads_is_not_waited_for_and_one_that_is_restarted_is_found() {
        let (notify, manager, home) = notify(None);
        // A datagram socket holds some (net.unix.max_dgram_qlen, unix(7)). A send that blocks hangs the test here.
        (0..10_000).for_each(|_| notify.ready(""));
        assert!(!told(&manager).is_empty());
        drop(manager);
        notify.ready("nobody is there");
        std::fs::remove_file(home.path().join("notify")).unwrap();
        let manager = UnixDatagram::bind(home.path().join("notify")).unwrap();
        notify.ready("back");
        assert_eq!(told(&manager), ["READY=1\nSTATUS=back"]);
    }

    #[test]
    fn a_reload_tells_its_time_in_the_same_datagram() {
        let (notify, manager, _home) = notify(None);
        let before = now().since(Moment::default()).as_micros();
        notify.reloading();
        let words = told(&manager).concat();
        let micros: u128 = words.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=now().since(Moment::default()).as_micros()).contains(&micros));
    }

    #[test]
    fn without_a_manager_nothing_wakes_the_loop() {
        let mut notify = Notify::default();
        notify.turned(Moment::default(), || unreachable!("nobody listens"));
        assert_eq!(notify.deadline(), None);
    }

    #[test]
    fn an_abstract_name_is_one() {
        let name = format!("intake-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let line = Some(Line::open(OsStr::new(&format!("@{name}"))).unwrap());
        Notify { line, ..Notify::default() }.ready("");
        assert_eq!(told(&manager), ["READY=1\nSTATUS="]);
        assert!(Line::open(OsStr::new("vsock:2:1234")).is_err());
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_fed() {
        let own = Some(getpid().as_raw_pid().to_string());
        let every = |micros: &str, process: Option<String>| watchdog_every(Some(micros.into()), process);
        assert_eq!(every("3000000", own.clone()), Some(Duration::from_millis(1500)));
        assert_eq!(every("3000000", None), Some(Duration::from_millis(1500)));
        assert_eq!((every("3000000", Some("1".into())), every("0", own.clone()), every("x", own)), (None, None, None));
        assert_eq!(watchdog_every(None, None), None);
    }
}

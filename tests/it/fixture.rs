//! The real server on port 0 in a directory of its own, and the smallest clients for it.
//!
//! Every wait here has an end, so that a test fails instead of hanging, and the server's log is printed with the failure.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::SockRef;
use tempfile::TempDir;

/// How long a test waits for what must happen: far beyond what it takes on a busy machine, where it is not itself the
/// subject.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `intake serve`. Dropping it kills it.
pub struct Server {
    process: Child,
    home: Rc<TempDir>,
    stdout: Lines,
    stderr: Lines,
}

impl Server {
    /// Starts a server with a new directory and `args` after those that every test needs.
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(&Self::home(), args)
    }

    /// A place for a server to live in. Its inbox is not made yet, and nothing else may ever come up beside it.
    pub fn home() -> Rc<TempDir> {
        Rc::new(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    /// Starts a server in a home that another one has lived in, or still does.
    pub fn start_in(home: &Rc<TempDir>, args: &[&str]) -> Self {
        Self::start_under(&[], home, args)
    }

    /// Starts a server by way of a program that runs it as the same process (`prlimit --nofile=64`, `env RUST_LOG=debug`,
    /// `strace -D -o …`).
    pub fn start_under(wrapper: &[&str], home: &Rc<TempDir>, args: &[&str]) -> Self {
        let intake = [env!("CARGO_BIN_EXE_intake"), "serve", "--listen", "127.0.0.1:0", "--dir", "inbox"];
        let words: Vec<&str> = wrapper.iter().chain(&intake).chain(args).copied().collect();
        let mut process = Command::new(words[0])
            .args(&words[1..])
            .current_dir(home.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?} cannot be started: {error}"));
        let stdout = Lines::collect(process.stdout.take().expect("stdout is piped"));
        let stderr = Lines::collect(process.stderr.take().expect("stderr is piped"));
        let server = Self { process, home: home.clone(), stdout, stderr };
        server.tcp();
        server
    }

    /// Where it takes uploads: the first address that it printed.
    pub fn tcp(&self) -> SocketAddr {
        self.printed("tcp ")
    }

    /// Where it echoes datagrams.
    pub fn udp(&self) -> SocketAddr {
        self.printed("udp ")
    }

    fn printed(&self, protocol: &str) -> SocketAddr {
        let address = |line: &str| line.strip_prefix(protocol)?.parse().ok();
        await_some("the server to print where it listens", || self.stdout.first(address))
    }

    /// Where its files come up.
    pub fn dir(&self) -> PathBuf {
        self.home.path().join("inbox")
    }

    /// The published files, by name. What is not a regular file was planted by the test, and is left out.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.dir()).expect("the inbox can be listed").map(|entry| entry.expect("and read"));
        let files = entries.filter(|entry| entry.file_type().expect("an entry has a type").is_file());
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().expect("names are UTF-8");
        files.map(|entry| (name(&entry), fs::read(entry.path()).expect("a published file can be read"))).collect()
    }

    /// What stands beside the inbox, where no name may ever lead.
    pub fn strays(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.path()).expect("the home can be listed");
        entries.map(|entry| entry.expect("and read").path()).filter(|path| *path != self.dir()).collect()
    }

    /// Waits until `name` is published with exactly this content.
    pub fn await_file(&self, name: &str, content: &[u8]) {
        await_until("the file to be published", || self.dir().join(name).exists());
        let stored = fs::read(self.dir().join(name)).expect("a published file can be read");
        assert!(stored == content, "{name} has {} bytes, which are not the {} sent", stored.len(), content.len());
    }

    /// The descriptors that the process holds open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("the server runs").count()
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.stderr.0.lock().expect("no reader panics").join("\n")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("a child can be signalled");
    }

    /// Stops it, as a debugger or a frozen machine does, until it is sent `CONT`: what clients do meanwhile it finds all at
    /// once.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        // proc_pid_stat(5): the state is the first field after the command's parentheses.
        let stat = || fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("the server runs");
        await_until("the server to stop", || stat().rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")));
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        await_some("the server to end", || self.process.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither fails for a process that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- the server's log\n{}\n---", self.log());
        }
    }
}

/// What a process has printed, collected as it comes, so that no pipe is ever full.
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collected = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                collected.lock().expect("no reader panics").push(line);
            }
        });
        Self(lines)
    }

    fn first<T>(&self, matching: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.0.lock().expect("no reader panics").iter().find_map(|line| matching(line))
    }
}

/// Looks until there is a value. The one place that sleeps between two looks.
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Looks until it is so.
pub fn await_until(what: &str, mut look: impl FnMut() -> bool) {
    await_some(what, || look().then_some(()));
}

/// A connection that gives up instead of hanging.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A classic upload up to its `ok`.
///
/// # Errors
/// What the server said instead, or what the kernel says.
pub fn classic_begin(address: SocketAddr, name: impl AsRef<[u8]>) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(name.as_ref())?;
    let mut reply = [0; 2];
    let length = stream.read(&mut reply)?;
    match &reply[..length] {
        b"ok" => Ok(stream),
        start => {
            let start = String::from_utf8_lossy(start);
            Err(io::Error::other(format!("{start}{}", io::read_to_string(&mut stream)?)))
        }
    }
}

/// The rest of a classic upload: the content, the half-close, and the server's end, which must come without a word.
///
/// # Errors
/// A reset is the server's way to say that the upload failed.
pub fn classic_finish(mut stream: TcpStream, content: &[u8]) -> io::Result<()> {
    stream.write_all(content)?;
    stream.shutdown(Shutdown::Write)?;
    let words = io::read_to_string(&mut stream)?;
    assert_eq!(words, "", "a classic sender is told nothing after ok");
    Ok(())
}

/// A classic upload; see [`classic_begin`] and [`classic_finish`].
pub fn classic(address: SocketAddr, name: impl AsRef<[u8]>, content: &[u8]) -> io::Result<()> {
    classic_finish(classic_begin(address, name)?, content)
}

/// A line upload. Returns the server's last line, its LF included.
///
/// # Errors
/// Whatever the kernel says, if the server said nothing.
pub fn line(address: SocketAddr, name: impl AsRef<[u8]>, content: &[u8]) -> io::Result<String> {
    let mut stream = connect(address)?;
    let request = [name.as_ref(), b"\n", content].concat();
    let sent = stream.write_all(&request).and_then(|()| stream.shutdown(Shutdown::Write));
    let reply = io::read_to_string(&mut stream)?;
    if reply.is_empty() {
        sent?;
    }
    // Comes before the receipt where this client was held up for longer than the server's patience.
    Ok(reply.strip_prefix("ok\n").map(Into::into).unwrap_or(reply))
}

/// Ends a connection with a reset, as a crashed machine or an abandoned transfer does.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket can be told to linger");
}

/// `size` bytes that look random and are the same in every run; each seed has its own.
pub fn content(size: usize, seed: u64) -> Vec<u8> {
    // Marsaglia, "Xorshift RNGs", 2003; the triple 13, 7, 17.
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend(next());
    }
    bytes.truncate(size);
    bytes
}

//! The real server on port 0 in a directory of its own, the smallest clients for it, and the promises that hold after
//! any fault ([`Server::withstands`]).
//!
//! Every wait has a timeout, so that a test fails instead of hanging. A failure prints the server's log.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::SockRef;
use tempfile::TempDir;

use crate::tools;

/// How long a test waits for an event: far longer than it takes on a busy machine. Tests whose subject is time have
/// their own timeouts.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A running `intake serve`. Dropping it kills it.
pub struct Server {
    process: Child,
    home: Arc<TempDir>,
    /// The directory of its files, as a path of this process.
    dir: PathBuf,
    stdout: Lines,
    stderr: Lines,
}

impl Server {
    /// Starts a server with a new directory. `args` follow the arguments that every test needs.
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(&Self::home(), args)
    }

    /// A directory for a server. Its inbox does not exist yet, and no upload may create anything else in it.
    pub fn home() -> Arc<TempDir> {
        Arc::new(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    /// Starts a server in the directory of another one, which may still run.
    pub fn start_in(home: &Arc<TempDir>, args: &[&str]) -> Self {
        Self::start_under(&[], home, args)
    }

    /// Starts a server by a program that executes it in the same process (`prlimit --nofile=64`, `env RUST_LOG=debug`,
    /// `strace -D -o …`).
    pub fn start_under(wrapper: &[&str], home: &Arc<TempDir>, args: &[&str]) -> Self {
        Self::start_as(&mut serve(wrapper, home, args), home)
    }

    /// Starts a server with a socket that it is passed under the name `name`, as service managers do (sd_listen_fds(3)).
    pub fn start_with(name: &str, socket: impl Into<OwnedFd>, home: &Arc<TempDir>, args: &[&str]) -> Self {
        Self::start_as(&mut serve_with(name, socket, home, args), home)
    }

    /// The output of a server that cannot start with a socket that it is passed.
    pub fn fail_to_start_with(name: &str, socket: impl Into<OwnedFd>) -> Output {
        serve_with(name, socket, &Self::home(), &[]).output().expect("the server can be started")
    }

    fn start_as(command: &mut Command, home: &Arc<TempDir>) -> Self {
        let mut process = command.spawn().expect("the server can be started");
        let stdout = Lines::collect(process.stdout.take().expect("stdout is piped"));
        let stderr = Lines::collect(process.stderr.take().expect("stderr is piped"));
        let server = Self { process, home: home.clone(), dir: home.path().join("inbox"), stdout, stderr };
        server.tcp();
        server
    }

    /// Starts a server after a shell script, which runs in the directory of the inbox. The script may mount file
    /// systems: only the server sees them, and they disappear with it. `None`: the test is left out.
    pub fn start_after(mount: &str, args: &[&str]) -> Option<Self> {
        Some(Self::start_secluded(&tools::unshare_mounts()?, mount, args))
    }

    /// As [`Server::start_after`], where `unshare` is the command that makes the mount namespace.
    pub fn start_secluded(unshare: &[&str], mount: &str, args: &[&str]) -> Self {
        let script = format!("mkdir inbox && {mount} && exec \"$@\"");
        let wrapper = [unshare, &["sh", "-c", &script, "sh"]].concat();
        let mut server = Self::start_under(&wrapper, &Self::home(), args);
        let home = server.home.path().strip_prefix("/").expect("a temporary directory has an absolute path");
        // proc_pid_root(5): the file tree of the process.
        server.dir = PathBuf::from(format!("/proc/{}/root", server.pid())).join(home).join("inbox");
        server
    }

    /// The output of a server that cannot start, and therefore exits.
    pub fn fail_to_start(home: &Arc<TempDir>, args: &[&str]) -> Output {
        Self::fail_to_start_under(&[], home, args)
    }

    /// As [`Server::fail_to_start`], under another program; see [`Server::start_under`].
    pub fn fail_to_start_under(wrapper: &[&str], home: &Arc<TempDir>, args: &[&str]) -> Output {
        serve(wrapper, home, args).output().expect("the server can be started")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The first TCP address that it printed.
    pub fn tcp(&self) -> SocketAddr {
        self.all_tcp()[0]
    }

    /// All its TCP addresses.
    pub fn all_tcp(&self) -> Vec<SocketAddr> {
        self.printed("tcp ")
    }

    /// Where it answers questions about itself.
    pub fn metrics(&self) -> SocketAddr {
        self.printed("metrics ")[0]
    }

    /// The rest of each line on standard output that begins with `start`.
    pub fn said(&self, start: &str) -> Vec<String> {
        self.stdout.matching(start)
    }

    /// Its UDP address.
    pub fn udp(&self) -> SocketAddr {
        self.printed("udp ")[0]
    }

    /// The UDP address is printed last: after it, all addresses are known.
    fn printed(&self, protocol: &str) -> Vec<SocketAddr> {
        await_until("the server to print where it listens", || !self.stdout.matching("udp ").is_empty());
        let addresses = self.stdout.matching(protocol);
        addresses.iter().map(|address| address.parse().expect("an address is printed")).collect()
    }

    /// The directory of its files.
    pub fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// The published files. Anything but a regular file was made by the test, and is left out.
    pub fn files(&self) -> Files {
        let entries = fs::read_dir(self.dir()).expect("the inbox can be listed").map(|entry| entry.expect("and read"));
        let files = entries.filter(|entry| entry.file_type().expect("an entry has a type").is_file());
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().expect("names are UTF-8");
        files.map(|entry| (name(&entry), fs::read(entry.path()).expect("a published file can be read"))).collect()
    }

    /// Removes the published files.
    pub fn remove_files(&self) {
        self.files().keys().for_each(|name| fs::remove_file(self.dir().join(name)).expect("a file can be removed"));
    }

    /// The named partial files of all servers on the directory.
    pub fn partials(&self) -> Vec<PathBuf> {
        let list =
            |path: PathBuf| fs::read_dir(path).into_iter().flatten().map(|entry| entry.expect("and read").path());
        let files = list(self.dir().join(".intake")).flat_map(list);
        files.filter(|path| !path.ends_with("lock")).collect()
    }

    /// The entries beside the inbox, where no upload may create anything.
    pub fn strays(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.path()).expect("the home can be listed");
        entries.map(|entry| entry.expect("and read").path()).filter(|path| !path.ends_with("inbox")).collect()
    }

    /// Runs `fault`, and checks the promises that hold after any fault. An honest upload beside it is stored. The inbox
    /// holds, byte for byte, the earlier files and those that `fault` returns, and nothing else. No partial file is
    /// left, and nothing beside the inbox. Every descriptor is closed. The echo answers. Nothing has panicked.
    pub fn withstands(&self, fault: impl FnOnce() -> Files) {
        let (descriptors, strays) = (self.descriptors(), self.strays());
        let mut expected = self.files();
        let honest = Honest::begin(self.tcp());
        expected.extend(fault());
        expected.extend(honest.finish());
        self.await_accepted();
        await_until("every descriptor to be closed", || self.descriptors() == descriptors);
        self.assert_holds_only(&expected);
        assert_eq!(self.strays(), strays);
        self.assert_echoes(b"anybody there?");
        assert!(!self.log().contains("panicked"));
    }

    /// Waits until all clients that have connected so far are accepted. The kernel hands connections out in order, so
    /// it is enough to wait for one more to be closed.
    pub fn await_accepted(&self) {
        let last = connect(self.tcp()).expect("the server accepts");
        last.shutdown(Shutdown::Write).expect("a stream can be shut down");
        assert_eq!(io::read_to_string(last).expect("a clean end"), "", "a client that sends nothing gets no answer");
    }

    /// Checks that the inbox holds `expected`, byte for byte, and no other file, not even a partial one.
    pub fn assert_holds_only(&self, expected: &Files) {
        let sizes = |files: &Files| files.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect::<Vec<_>>();
        let files = self.files();
        assert_eq!(sizes(&files), sizes(expected));
        assert!(files == *expected, "a file has its size, and other bytes");
        assert_eq!(self.partials(), Vec::<PathBuf>::new());
    }

    /// Checks that a datagram comes back unchanged.
    pub fn assert_echoes(&self, datagram: &[u8]) {
        let client = udp_client(self.udp());
        // A datagram is lost if the kernel's buffer is full.
        let echo = await_some("the echo", || {
            client.send(datagram).expect("a datagram can be sent");
            let mut buffer = vec![0; 65_536];
            client.recv(&mut buffer).ok().map(|size| buffer[..size].to_vec())
        });
        assert!(echo == datagram, "{} bytes were sent, others came back", datagram.len());
    }

    /// Waits until `name` is published with exactly this content.
    pub fn await_file(&self, name: &str, content: &[u8]) {
        await_until("the file to be published", || self.dir().join(name).exists());
        let stored = fs::read(self.dir().join(name)).expect("a published file can be read");
        assert!(stored == content, "{name} has {} bytes, which are not the {} sent", stored.len(), content.len());
    }

    /// The descriptors that the process holds open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the server runs").count()
    }

    /// The thread that gives files their names: the committer's, or the loop's if nothing is synced.
    pub fn naming_thread(&self) -> u32 {
        if self.threads().len() == 1 { self.pid() } else { self.thread("committer") }
    }

    /// The first of the threads that sync files.
    pub fn syncing_thread(&self) -> u32 {
        self.thread("syncing")
    }

    /// The thread with this name. A thread sets its name a moment after it starts.
    fn thread(&self, name: &str) -> u32 {
        let comm = |thread: &u32| fs::read_to_string(format!("/proc/{}/task/{thread}/comm", self.pid()));
        let is_named = |thread: &u32| comm(thread).is_ok_and(|comm| comm.trim_end() == name);
        await_until(name, || self.threads().iter().any(is_named));
        self.threads().into_iter().find(is_named).expect("it was just seen")
    }

    /// The ids of its threads. The event loop's is the first: it is the id of the process.
    pub fn threads(&self) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the server runs");
        let id = |task: fs::DirEntry| task.file_name().into_string().expect("text").parse().expect("a number");
        let mut threads: Vec<u32> = tasks.map(|task| id(task.expect("a task is listed"))).collect();
        threads.sort_by_key(|thread| *thread != self.pid());
        threads
    }

    /// The processor time that it has used so far.
    pub fn processor_time(&self) -> Duration {
        // proc_pid_stat(5): utime and stime are the 12th and 13th field after the command, in hundredths of a second.
        let stat = self.stat();
        let ticks = stat.split(' ').skip(12).take(2).map(|field| field.parse::<u32>().expect("a number"));
        Duration::from_millis(10) * ticks.sum()
    }

    /// Its private memory in bytes: heap and stack.
    pub fn memory_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("proc_pid_status(5)");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.stderr.0.lock().expect("no reader panics").join("\n")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("a child can be signalled");
    }

    /// Stops the process until [`Server::resume`], as a debugger does. It then finds everything that clients did
    /// meanwhile at once.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        await_until("the server to stop", || self.stat().starts_with(" T "));
    }

    /// Continues the process after [`Server::stop`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// proc_pid_stat(5) after the command, which may contain anything: a space, the state, and so on.
    pub fn stat(&self) -> String {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the server runs");
        stat.rsplit(')').next().expect("the command is in parentheses").to_owned()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        await_some("the server to end", || self.process.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither fails for a process that has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- the server's log\n{}\n---", self.log());
        }
    }
}

fn serve(wrapper: &[&str], home: &TempDir, args: &[&str]) -> Command {
    let default: &[&str] = if args.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
    let intake = [env!("CARGO_BIN_EXE_intake"), "serve", "--dir", "inbox"];
    let words = [wrapper, &intake, default, tools::sandbox(args), args].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(home.path()).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The command of [`Server::start_with`]. The shell, which becomes the server, knows its process id and moves the socket.
fn serve_with(name: &str, socket: impl Into<OwnedFd>, home: &TempDir, args: &[&str]) -> Command {
    let shell = ["sh", "-c", "exec 3<&0 < /dev/null; LISTEN_PID=$$ exec \"$@\"", "sh"];
    let mut command = serve(&shell, home, args);
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name).stdin(socket.into());
    command
}

/// A classic upload that runs as long as the fault: it sends a byte now and then, so that no timeout expires.
struct Honest {
    /// Dropped when the test fails, which also ends the upload.
    finish: mpsc::Sender<()>,
    upload: JoinHandle<()>,
    file: (String, Vec<u8>),
}

impl Honest {
    const BYTES: usize = 50_000;
    const PAUSE: Duration = Duration::from_millis(50);

    fn begin(address: SocketAddr) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (name, bytes) = (format!("honest {number}.bin"), content(Self::BYTES, number as u64));
        let stream = classic_begin(address, &name).expect("an honest upload is taken");
        let (finish, finishing) = mpsc::channel();
        let to_send = bytes.clone();
        let upload = thread::spawn(move || Self::run(stream, &to_send, &finishing));
        Self { finish, upload, file: (name, bytes) }
    }

    fn run(mut stream: TcpStream, bytes: &[u8], finishing: &mpsc::Receiver<()>) {
        let mut sent = 0;
        while finishing.recv_timeout(Self::PAUSE) == Err(RecvTimeoutError::Timeout) {
            stream.write_all(&bytes[sent..=sent]).expect("an honest upload goes on");
            sent += 1;
        }
        classic_finish(stream, &bytes[sent..]).expect("an honest upload is stored");
    }

    fn finish(self) -> Files {
        drop(self.finish);
        self.upload.join().expect("an honest upload is stored");
        [self.file].into()
    }
}

/// The output of a process, read as it is written, so that the pipe is never full.
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

    /// The rest of each line that begins with `start`.
    fn matching(&self, start: &str) -> Vec<String> {
        let lines = self.0.lock().expect("no reader panics");
        lines.iter().filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect()
    }
}

/// Polls until `look` returns a value. The only function that sleeps between two polls.
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

/// Polls until the condition is true.
pub fn await_until(what: &str, mut look: impl FnMut() -> bool) {
    await_some(what, || look().then_some(()));
}

/// A connection whose reads and writes time out.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A classic upload up to its `ok`.
///
/// # Errors
/// The server's other answer, or the error of the kernel.
pub fn classic_begin(address: SocketAddr, name: impl AsRef<[u8]>) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(name.as_ref())?;
    await_ok(stream)
}

/// Reads the answer to the name of a classic upload.
///
/// # Errors
/// An answer other than `ok`, or the error of the kernel.
pub fn await_ok(mut stream: TcpStream) -> io::Result<TcpStream> {
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

/// The rest of a classic upload: the content, the half-close, and the server's end of stream, before which it sends
/// nothing.
///
/// # Errors
/// A reset is the server's way to say that the upload failed.
pub fn classic_finish(mut stream: TcpStream, content: &[u8]) -> io::Result<()> {
    stream.write_all(content)?;
    stream.shutdown(Shutdown::Write)?;
    let words = io::read_to_string(&mut stream)?;
    assert_eq!(words, "", "a classic sender gets nothing after ok");
    Ok(())
}

/// A classic upload; see [`classic_begin`] and [`classic_finish`].
pub fn classic(address: SocketAddr, name: impl AsRef<[u8]>, content: &[u8]) -> io::Result<()> {
    classic_finish(classic_begin(address, name)?, content)
}

/// Whether the server has aborted a classic upload. The error is that of the first write, shutdown or read that met it.
pub fn is_reset(upload: &io::Result<()>) -> bool {
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::NotConnected];
    upload.as_ref().is_err_and(|error| kinds.contains(&error.kind()))
}

/// A line upload. Returns the server's last line with its LF.
///
/// # Errors
/// The error of the kernel, if the server sent nothing.
pub fn line(address: SocketAddr, name: impl AsRef<[u8]>, content: &[u8]) -> io::Result<String> {
    let mut stream = connect(address)?;
    let request = [name.as_ref(), b"\n", content].concat();
    let sent = stream.write_all(&request).and_then(|()| stream.shutdown(Shutdown::Write));
    let reply = io::read_to_string(&mut stream)?;
    if reply.is_empty() {
        sent?;
    }
    // An `ok` comes before the receipt if this client was delayed for longer than `--ok-grace`.
    Ok(reply.strip_prefix("ok\n").map(Into::into).unwrap_or(reply))
}

/// A server that calls `serve` for each connection, in a thread of its own. It lives until the test ends.
pub fn serve_each(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Resets a connection, as an aborted transfer does.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket can be told to linger");
}

/// A socket that is connected to the echo at `address`, with a timeout.
pub fn udp_client(address: SocketAddr) -> UdpSocket {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let client = UdpSocket::bind((any, 0)).expect("a socket can be bound");
    client.connect(address).expect("a socket can be connected");
    client.set_read_timeout(Some(PATIENCE / 10)).expect("a timeout can be set");
    client
}

/// The states of the IPv4 connections whose local address is `address`, as in proc_net_tcp(5): 06 is TIME_WAIT, 08 is
/// CLOSE_WAIT.
pub fn tcp_states(address: SocketAddr) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/tcp").expect("this is Linux");
    let port = format!(":{:04X}", address.port());
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[1].ends_with(&port)).map(|fields| fields[3].to_owned()).collect()
}

/// A map of files by name.
pub fn files_of<const N: usize>(files: [(&str, &[u8]); N]) -> Files {
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect()
}

/// `size` pseudo-random bytes, which depend on the seed only.
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

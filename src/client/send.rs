//! Sends one file over a connection of its own: the socket and the file that drive a [`Sender`].
//!
//! The connection is set to end with RST until every byte is sent and counted. A sender that is killed, interrupted or
//! at a loss in mid-file thus never looks like one that has finished: in the classic and line dialects a clean end is
//! all that tells a whole file from half of one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use crate::proto::{Failure, Sender, Step, Stored};

/// How long each address is given to accept: a lost SYN is repeated after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for the server to answer or to take more. 60 s is what the server grants its clients.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read and sent at a time: large enough that system calls cost nothing beside the copying.
const CHUNK_BYTES: usize = 256 << 10;

/// What is sent.
#[derive(Debug)]
pub struct Content<R> {
    /// Where the bytes come from.
    pub reader: R,
    /// How many there must be; `None` where only their end tells.
    pub size: Option<u64>,
}

/// An upload that ended well.
#[derive(Debug)]
pub struct Sent {
    /// The content's size in bytes.
    pub size: u64,
    /// From before the connect until the server's last word.
    pub elapsed: Duration,
    /// How the server confirmed it.
    pub stored: Stored,
}

/// Why content cannot be read.
#[derive(Debug)]
pub enum SourceError {
    /// It is a directory.
    Directory,
    /// It is a FIFO, a device or a socket.
    NotRegular,
    /// It is missing, may not be read, or reading fails.
    Io(io::Error),
}

/// Why an upload failed.
#[derive(Debug)]
pub enum SendError {
    /// No address accepted the connection; the last one's error.
    Connect(io::Error),
    /// The server neither answered nor took more for 60 s.
    TimedOut,
    /// The conversation ended in a failure.
    Failed(Failure),
    /// The server is none of this protocol; the start of what it said.
    Foreign(String),
    /// The content cannot be read, or not to its end.
    Source(SourceError),
    /// The content is not as long as it was when it was opened.
    Changed {
        /// In bytes, when it was opened.
        size: u64,
        /// In bytes, as far as it was read.
        read: u64,
    },
    /// The network failed.
    Network(io::Error),
}

impl Content<File> {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`SourceError`], before a byte is read.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        // Looked at before it is opened: opening a FIFO waits for somebody to write to it.
        let file_type = fs::metadata(path).map_err(SourceError::Io)?.file_type();
        if file_type.is_dir() {
            return Err(SourceError::Directory);
        }
        if !file_type.is_file() {
            return Err(SourceError::NotRegular);
        }
        let reader = File::open(path).map_err(SourceError::Io)?;
        let size = reader.metadata().map_err(SourceError::Io)?.len();
        Ok(Self { reader, size: Some(size) })
    }
}

/// Sends `content` to the first of the addresses `to` that accepts, and reads the conversation to its end. `on_sent`
/// hears how many bytes of the content were sent so far.
///
/// # Errors
/// [`SendError`]; unless it says otherwise, the server stores nothing.
pub fn send<R: Read>(
    to: &[SocketAddr],
    sender: Sender,
    content: Content<R>,
    on_sent: impl FnMut(u64),
) -> Result<Sent, SendError> {
    let start = Instant::now();
    let stream = connect(to).map_err(SendError::Connect)?;
    let mut upload = Upload { stream, sender, content, sent: 0, chunk: vec![0; CHUNK_BYTES] };
    let stored = upload.run(on_sent)?;
    Ok(Sent { size: upload.sent, elapsed: start.elapsed(), stored })
}

fn connect(to: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in to {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(stream) => return configure(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn configure(stream: TcpStream) -> io::Result<TcpStream> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(SILENCE_TIMEOUT))?;
    stream.set_write_timeout(Some(SILENCE_TIMEOUT))?;
    Ok(stream)
}

struct Upload<R> {
    stream: TcpStream,
    sender: Sender,
    content: Content<R>,
    /// Bytes of the content.
    sent: u64,
    chunk: Vec<u8>,
}

impl<R: Read> Upload<R> {
    fn run(&mut self, mut on_sent: impl FnMut(u64)) -> Result<Stored, SendError> {
        let header = self.sender.header();
        let written = self.stream.write_all(&header);
        self.or_last_words(written)?;
        loop {
            match self.sender.step() {
                Step::Ended(outcome) => return outcome.clone().map_err(SendError::Failed),
                Step::Listen => self.listen(Sender::end_of_stream)?,
                Step::Send if self.server_speaks() => self.listen(Sender::end_of_stream)?,
                Step::Send => {
                    self.send_chunk()?;
                    on_sent(self.sent);
                }
            }
        }
    }

    fn send_chunk(&mut self) -> Result<(), SendError> {
        let length = match self.content.reader.read(&mut self.chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            read => read.map_err(SourceError::Io)?,
        };
        self.check_size(length)?;
        let sent = match length {
            0 => self.end_content(),
            _ => self.stream.write_all(&self.chunk[..length]),
        };
        self.sent += length as u64;
        self.or_last_words(sent)
    }

    /// A file that grows or shrinks meanwhile is not the one that was meant, and a shorter one would look whole.
    fn check_size(&self, length: usize) -> Result<(), SendError> {
        let read = self.sent + length as u64;
        match self.content.size {
            Some(size) if read > size || (length == 0 && read < size) => Err(SendError::Changed { size, read }),
            _ => Ok(()),
        }
    }

    fn end_content(&mut self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(None)?;
        self.stream.shutdown(Shutdown::Write)?;
        self.sender.content_ended(self.sent);
        Ok(())
    }

    /// After a failed send the server's reason may still wait to be read; the end that follows it is no clean one, since
    /// the kernel reports a reset only once.
    fn or_last_words(&mut self, sent: io::Result<()>) -> Result<(), SendError> {
        let Err(error) = sent else { return Ok(()) };
        while !matches!(self.sender.step(), Step::Ended(_)) {
            if !self.server_speaks() {
                return Err(error.into());
            }
            self.listen(Sender::reset)?;
        }
        Ok(())
    }

    /// Whether a read would return at once.
    fn server_speaks(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }

    /// Hands in what one read brings; `at_end` where it is the end.
    fn listen(&mut self, at_end: fn(&mut Sender)) -> Result<(), SendError> {
        let mut said = [0; 4096];
        match self.stream.read(&mut said) {
            Ok(0) => at_end(&mut self.sender),
            Ok(length) => return self.hear(&said[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.sender.reset(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn hear(&mut self, said: &[u8]) -> Result<(), SendError> {
        self.sender.receive(said);
        match self.sender.step() {
            Step::Ended(Err(Failure::Foreign)) => Err(SendError::Foreign(first_line(said))),
            _ => Ok(()),
        }
    }
}

/// The first line, as much of it as a person needs to recognise the server.
fn first_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said).lines().next().unwrap_or_default().chars().take(60).collect()
}

impl From<SourceError> for SendError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A socket timeout is reported as EAGAIN (socket(7)).
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Network(error),
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("is a directory; send its files one by one"),
            Self::NotRegular => f.write_str("is not a regular file; pipe its content into `send - --name NAME`"),
            Self::Io(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl std::error::Error for SourceError {}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::TimedOut => {
                write!(f, "the server was silent for {} s; the file may be stored or not", SILENCE_TIMEOUT.as_secs())
            }
            Self::Failed(failure) => failure.fmt(f),
            Self::Foreign(said) => write!(f, "{}; it said {said:?}", Failure::Foreign),
            Self::Source(error) => error.fmt(f),
            Self::Changed { size, read } => {
                write!(f, "changed while it was sent: {size} bytes at the start, {read} found; nothing is stored")
            }
            Self::Network(error) => write!(f, "the connection failed: {error}; the file may be stored or not"),
        }
    }
}

impl std::error::Error for SendError {}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::proto::{Code, Dialect, Name, NamePolicy, Receipt, Refusal};

    const NAME: &str = "a.txt";

    /// Uploads to a server that plays `script` on its one connection; returns what both sides saw.
    fn upload<R: Read, T: Send + 'static>(
        dialect: Dialect,
        content: Content<R>,
        script: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> (Result<Sent, SendError>, T) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || script(listener.accept().unwrap().0));
        let result = send(&[address], sender(dialect), content, |_| {});
        (result, server.join().unwrap())
    }

    fn sender(dialect: Dialect) -> Sender {
        Sender::new(dialect, Name::parse(NAME.as_bytes(), NamePolicy::default()).unwrap())
    }

    fn content(bytes: &[u8]) -> Content<&[u8]> {
        Content { reader: bytes, size: Some(bytes.len() as u64) }
    }

    /// More than the socket buffers of both sides hold.
    fn endless() -> Content<io::Repeat> {
        Content { reader: io::repeat(b'x'), size: None }
    }

    fn read_header(mut stream: &TcpStream, header: &str) {
        let mut read = vec![0; header.len()];
        stream.read_exact(&mut read).unwrap();
        assert_eq!(read, header.as_bytes());
    }

    fn read_to_end(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).map(|_| read)
    }

    fn reset(stream: TcpStream) {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// What a receiver of the tutorials does, the way it ends apart.
    fn tutorial(mut stream: TcpStream) -> (TcpStream, io::Result<Vec<u8>>) {
        read_header(&stream, NAME);
        stream.write_all(b"ok").unwrap();
        let read = read_to_end(&stream);
        (stream, read)
    }

    fn failure(result: Result<Sent, SendError>) -> Failure {
        match result {
            Err(SendError::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tutorial_server_gets_every_byte() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let (sent, read) = upload(Dialect::Classic, content(&bytes), |stream| tutorial(stream).1.unwrap());
            let sent = sent.unwrap();
            assert_eq!((sent.size, sent.stored), (size as u64, Stored::Closed));
            assert!(read == bytes, "{size} bytes arrived changed");
        }
    }

    #[test]
    fn progress_reaches_the_size() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || tutorial(listener.accept().unwrap().0).1);
        let mut steps = Vec::new();
        let bytes = vec![7; CHUNK_BYTES + 1];
        send(&[address], sender(Dialect::Classic), content(&bytes), |sent| steps.push(sent)).unwrap();
        server.join().unwrap().unwrap();
        assert!(steps.is_sorted());
        assert_eq!(steps.last(), Some(&(bytes.len() as u64)));
    }

    #[test]
    fn ok_in_two_segments_is_ok() {
        let (sent, read) = upload(Dialect::Classic, content(b"hello"), |mut stream| {
            stream.set_nodelay(true).unwrap();
            read_header(&stream, NAME);
            stream.write_all(b"o").unwrap();
            stream.write_all(b"k").unwrap();
            read_to_end(&stream).unwrap()
        });
        assert_eq!((sent.unwrap().stored, read.as_slice()), (Stored::Closed, &b"hello"[..]));
    }

    #[test]
    fn a_refusal_instead_of_ok_is_told_and_nothing_is_sent() {
        let (sent, read) = upload(Dialect::Classic, endless(), |mut stream| {
            read_header(&stream, NAME);
            stream.write_all(b"no 409 the name is taken\n").unwrap();
            read_to_end(&stream)
        });
        assert_eq!(failure(sent), Failure::Refused(Refusal::new(Code::CONFLICT, "the name is taken")));
        assert_eq!(read.unwrap_or_default(), b"");
    }

    #[test]
    fn a_reset_in_mid_file_or_after_it_is_a_failure() {
        let (sent, ()) = upload(Dialect::Classic, endless(), |mut stream| {
            read_header(&stream, NAME);
            stream.write_all(b"ok").unwrap();
            stream.read_exact(&mut [0; 1000]).unwrap();
            reset(stream);
        });
        assert_eq!(failure(sent), Failure::Reset);
        let (sent, ()) = upload(Dialect::Classic, content(b"hello"), |stream| reset(tutorial(stream).0));
        assert_eq!(failure(sent), Failure::Reset);
    }

    #[test]
    fn a_server_that_closes_at_once_has_stored_nothing() {
        let (sent, ()) = upload(Dialect::Classic, content(b"hello"), |stream| read_header(&stream, NAME));
        assert_eq!(failure(sent), Failure::Unanswered);
    }

    #[test]
    fn another_kind_of_server_is_told_by_what_it_says() {
        for dialect in [Dialect::Classic, Dialect::Line] {
            let (sent, ()) = upload(dialect, endless(), |mut stream| {
                read_header(&stream, NAME);
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
                let _ = read_to_end(&stream);
            });
            let words = sent.unwrap_err().to_string();
            assert!(words.ends_with("it said \"HTTP/1.1 400 Bad Request\""), "{words}");
        }
    }

    #[test]
    fn a_receipt_confirms_a_line_upload() {
        let (sent, read) = upload(Dialect::Line, content(b"hello"), |mut stream| {
            read_header(&stream, "a.txt\n");
            stream.write_all(b"ok\n").unwrap();
            let read = read_to_end(&stream).unwrap();
            stream.write_all(b"done 5 - a.txt.1\n").unwrap();
            read
        });
        let receipt = Receipt { size: 5, digest: None, stored_name: "a.txt.1".into() };
        assert_eq!((sent.unwrap().stored, read.as_slice()), (Stored::Receipt(receipt), &b"hello"[..]));
    }

    #[test]
    fn a_refusal_in_mid_file_stops_the_content() {
        let (sent, ()) = upload(Dialect::Line, endless(), |mut stream| {
            read_header(&stream, "a.txt\n");
            stream.write_all(b"no 413 too large\n").unwrap();
            // Returns only because the sender stops.
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        assert_eq!(failure(sent), Failure::Refused(Refusal::new(Code::TOO_LARGE, "too large")));
    }

    #[test]
    fn a_reason_given_before_a_reset_is_read() {
        let (sent, ()) = upload(Dialect::Line, endless(), |mut stream| {
            stream.read_exact(&mut [0; 100_000]).unwrap();
            stream.write_all(b"no 507 no space is left\n").unwrap();
            // The bytes left unread turn the close into an RST (RFC 1122 4.2.2.13), behind what was said.
        });
        assert_eq!(failure(sent), Failure::Refused(Refusal::new(Code::NO_SPACE, "no space is left")));
    }

    #[test]
    fn a_file_that_changes_its_size_ends_in_a_reset() {
        for size in [4, 6] {
            let changed = Content { reader: &b"hello"[..], size: Some(size) };
            let (sent, read) = upload(Dialect::Classic, changed, |stream| tutorial(stream).1);
            assert!(matches!(sent, Err(SendError::Changed { read: 5, .. })), "{sent:?}");
            assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_to_its_end_ends_in_a_reset() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let broken = Content { reader: b"hello".chain(Broken), size: None };
        let (sent, read) = upload(Dialect::Classic, broken, |stream| tutorial(stream).1);
        assert!(matches!(sent, Err(SendError::Source(_))), "{sent:?}");
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_silent_server_is_not_waited_for_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        for dialect in [Dialect::Classic, Dialect::Line] {
            let stream = stream.try_clone().unwrap();
            let mut upload =
                Upload { stream, sender: sender(dialect), content: endless(), sent: 0, chunk: vec![0; CHUNK_BYTES] };
            assert!(matches!(upload.run(|_| {}), Err(SendError::TimedOut)), "{dialect:?}");
        }
    }

    #[test]
    fn the_next_address_is_tried_and_no_listener_is_an_error() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(connect(&[gone, listener.local_addr().unwrap()]).is_ok());
        assert_eq!(connect(&[gone]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(connect(&[]).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_told_before_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(Content::open(&fifo), Err(SourceError::NotRegular)));
        assert!(matches!(Content::open(directory.path()), Err(SourceError::Directory)));
        assert!(matches!(Content::open(&directory.path().join("missing")), Err(SourceError::Io(_))));
        let file = directory.path().join("file");
        fs::write(&file, b"hello").unwrap();
        assert_eq!(Content::open(&file).unwrap().size, Some(5));
    }
}

//! Two sessions in one process, over pipes that cut what they carry anywhere.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::*;

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    has_ended: bool,
}

/// One end of two pipes. A read or a write moves at most `piece` bytes.
struct End {
    reads: Rc<RefCell<Pipe>>,
    writes: Rc<RefCell<Pipe>>,
    piece: usize,
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.reads.borrow_mut();
        if pipe.bytes.is_empty() {
            return if pipe.has_ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let count = self.piece.min(buffer.len());
        pipe.bytes.read(&mut buffer[..count])
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.piece);
        self.writes.borrow_mut().bytes.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client and a server that trust each other, connected.
struct Couple {
    client: (Session, End),
    server: (Session, End),
    config: Arc<ServerConfig>,
}

impl Couple {
    fn new(version: &'static SupportedProtocolVersion, piece: usize) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let mut server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        server.send_tls13_tickets = 0;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = Session::client(client.into(), name).unwrap();
        let pipes = [Rc::<RefCell<Pipe>>::default(), Rc::default()];
        let end = |reads: &Rc<RefCell<Pipe>>, writes: &Rc<RefCell<Pipe>>| End {
            reads: reads.clone(),
            writes: writes.clone(),
            piece,
        };
        Self {
            client: (client, end(&pipes[0], &pipes[1])),
            server: (Session::server(), end(&pipes[1], &pipes[0])),
            config: server.into(),
        }
    }

    /// What the server reads next, by reads of at most `max` bytes. `None`: nothing for now.
    fn server_reads(&mut self, buffer: &mut [u8], max: usize) -> Option<io::Result<Vec<u8>>> {
        loop {
            let (session, end) = &mut self.server;
            if session.is_greeted() {
                session.begin(&self.config);
            }
            match session.receive(end, buffer, max) {
                Ok(count) => return Some(Ok(buffer[..count].to_vec())),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !session.owes() {
                        return None;
                    }
                    session.flush(end).unwrap();
                    self.client_turns();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The client reads what there is of its handshake, and answers it.
    fn client_turns(&mut self) {
        let (session, end) = &mut self.client;
        let mut buffer = [0; 64];
        loop {
            match session.receive(end, &mut buffer, 64) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                other => panic!("the server has said nothing: {other:?}"),
            }
        }
        session.flush(end).unwrap();
    }

    fn client_sends(&mut self, mut bytes: &[u8]) {
        let (session, end) = &mut self.client;
        while !bytes.is_empty() {
            let count = session.send(end, bytes).unwrap();
            bytes = &bytes[count..];
        }
    }

    fn shake_hands(&mut self) {
        self.client.0.flush(&mut self.client.1).unwrap();
        assert!(self.server_reads(&mut [0; 64 << 10], 1).is_none());
        assert!(!self.server.0.is_handshaking() && !self.client.0.is_handshaking());
    }

    fn fin(&self) {
        self.client.1.writes.borrow_mut().has_ended = true;
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Every size of a piece on the wire, of the buffer and of a read, for contents about the size of a record.
#[test]
fn what_is_sent_is_read_however_it_is_cut() {
    for version in VERSIONS {
        for piece in [7, 4096, 20_000, 1 << 20] {
            let mut couple = Couple::new(version, piece);
            couple.shake_hands();
            for (buffer, max) in [(1, 1), (5000, 5000), (60_000, 60_000), (1 << 20, 16 << 10), (1 << 20, 1 << 20)] {
                let sent: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
                couple.client_sends(&sent[..1]);
                couple.client_sends(&sent[1..]);
                let (mut buffer, mut read) = (vec![0; buffer], Vec::new());
                while let Some(more) = couple.server_reads(&mut buffer, max) {
                    let more = more.unwrap();
                    assert!((1..=max).contains(&more.len()));
                    read.extend(more);
                }
                assert!(read == sent, "{version:?}, pieces of {piece}, reads of {max}: {} bytes", read.len());
            }
        }
    }
}

#[test]
fn only_an_announced_end_is_one() {
    for version in VERSIONS {
        for announces in [true, false] {
            let mut couple = Couple::new(version, 1000);
            couple.shake_hands();
            couple.client_sends(b"content");
            if announces {
                assert!(couple.client.0.announce_end());
                couple.client.0.flush(&mut couple.client.1).unwrap();
                // What follows it is no content.
                couple.client.1.write_all(b"more").unwrap();
            }
            couple.fin();
            let mut buffer = vec![0; 64 << 10];
            assert_eq!(couple.server_reads(&mut buffer, 99).unwrap().unwrap(), b"content");
            for _ in 0..2 {
                match couple.server_reads(&mut buffer, 99).unwrap() {
                    Ok(end) => assert!(announces && end.is_empty() && couple.server.0.end_is_proven()),
                    Err(error) => assert!(!announces && error.kind() == ErrorKind::UnexpectedEof, "{error}"),
                }
            }
            assert_eq!(couple.server.0.end_is_proven(), announces);
        }
    }
}

#[test]
fn a_stream_that_ends_within_its_first_message_has_an_unexpected_end() {
    let mut couple = Couple::new(VERSIONS[1], 1000);
    couple.client.1.write_all(&[FIRST_BYTE, 3]).unwrap();
    couple.fin();
    let error = couple.server_reads(&mut [0; 64 << 10], 99).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(couple.server.0.is_handshaking() && !couple.server.0.owes());
}

#[test]
fn damage_is_told_once_with_an_alert_and_then_everything_is_discarded() {
    let mut couple = Couple::new(VERSIONS[1], 1000);
    couple.shake_hands();
    couple.client_sends(b"good");
    couple.client.1.write_all(&[23, 3, 3, 0, 40]).unwrap();
    couple.client.1.write_all(&[7; 4040]).unwrap();
    let mut buffer = vec![0; 64 << 10];
    assert_eq!(couple.server_reads(&mut buffer, 99).unwrap().unwrap(), b"good");
    let error = couple.server_reads(&mut buffer, 99).unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidData && error.to_string().contains("damaged"), "{error}");
    let (session, end) = &mut couple.server;
    assert!(session.owes() && session.is_broken());
    session.flush(end).unwrap();
    assert!(couple.server_reads(&mut buffer, 99).is_none());
    couple.fin();
    assert_eq!(couple.server_reads(&mut buffer, 99).unwrap().unwrap(), b"");
    assert!(!couple.server.0.end_is_proven());
    let (session, end) = &mut couple.client;
    let error = session.receive(end, &mut buffer, 99).unwrap_err();
    assert!(error.to_string().contains("the other side said"), "{error}");
}

#[test]
fn what_is_no_hello_is_refused_with_an_alert() {
    let mut couple = Couple::new(VERSIONS[1], 1000);
    couple.client.1.write_all(&[FIRST_BYTE, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
    let error = couple.server_reads(&mut [0; 64 << 10], 99).unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidData, "{error}");
    let (session, end) = &mut couple.server;
    assert!(session.owes());
    session.flush(end).unwrap();
    assert!(!session.owes() && !end.writes.borrow().bytes.is_empty());
}

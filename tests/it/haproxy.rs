//! A real HAProxy in front of the server, with the PROXY protocol, version 2.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::fixture::*;
use crate::pki::{Client, Issuer, VERSIONS};
use crate::tools;

/// An HAProxy in front of a server. Dropping it kills both.
struct Proxied {
    server: Server,
    haproxy: Child,
    issuer: Issuer,
    /// Passes bytes on.
    passing: SocketAddr,
    /// Passes bytes on, and gives up clients that are silent for a fifth of a second.
    hasty: SocketAddr,
    /// Ends TLS, and asks for certificates.
    ending_tls: SocketAddr,
}

impl Proxied {
    /// `None`: the test is left out. The server gets `args`.
    fn start(args: &[&str]) -> Option<Self> {
        let program = tools::installed("haproxy")?;
        let (home, issuer) = (Server::home(), Issuer::new());
        let pair = issuer.issue("localhost", 90);
        let at = |name: &str| home.path().join(name);
        pair.write(home.path(), "server");
        issuer.write(&at("ca.crt"));
        let (certificate, key) = (fs::read(at("server.crt")), fs::read(at("server.key")));
        let pem = [certificate.expect("it was written"), key.expect("it was written")].concat();
        fs::write(at("server.pem"), pem).expect("a file can be written");
        let args =
            [&["--proxy-from", "127.0.0.0/8", "--tls-cert", "server.crt", "--tls-key", "server.key"], args].concat();
        let server = Server::start_in(&home, &args);
        let [passing, hasty, ending_tls] = [(); 3].map(|()| free_address());
        let config = format!(
            "defaults
                mode tcp
                timeout connect 30s
                timeout client 30s
                timeout server 30s
            listen passing
                bind {passing}
                server one {behind} send-proxy-v2 check inter 50ms check-send-proxy
            listen hasty
                bind {hasty}
                timeout client 200ms
                server one {behind} send-proxy-v2
            listen ending-tls
                bind {ending_tls} ssl crt server.pem ca-file ca.crt verify optional
                server one {behind} send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id
",
            behind = server.tcp()
        );
        fs::write(at("haproxy.cfg"), config).expect("a file can be written");
        let mut command = Command::new(program);
        command.args(["-db", "-f", "haproxy.cfg"]).current_dir(home.path());
        let haproxy = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let haproxy = haproxy.expect("haproxy can be started");
        let proxied = Self { server, haproxy, issuer, passing, hasty, ending_tls };
        await_until("haproxy to listen", || [passing, hasty, ending_tls].iter().all(|at| connect(*at).is_ok()));
        Some(proxied)
    }

    /// Waits for a line of the log with all of this in it.
    fn await_line(&self, words: &[&str]) {
        let has_it = |line: &str| words.iter().all(|words| line.contains(words));
        await_until(&format!("a line with {words:?}"), || self.server.log().lines().any(has_it));
    }

    fn client(&self, name: Option<&str>) -> std::sync::Arc<rustls::ClientConfig> {
        let pair = name.map(|name| self.issuer.issue(name, 90));
        self.issuer.client(&VERSIONS, pair.as_ref()).into()
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

/// HAProxy cannot say which port the system has chosen for it.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free")
}

/// Sends `bytes` and a FIN. Returns the client's address, and what it hears.
fn talk(address: SocketAddr, bytes: &[u8]) -> (String, String) {
    let mut stream = connect(address).expect("haproxy accepts");
    stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)).expect("haproxy takes all");
    let own = stream.local_addr().expect("a socket has an address").to_string();
    (own, io::read_to_string(&mut stream).expect("a clean end"))
}

#[test]
fn a_client_behind_it_has_its_own_address_and_checks_are_silent() {
    let Some(proxied) = Proxied::start(&["-v"]) else { return };
    let (own, said) = talk(proxied.passing, b"/put size=3 a\nabc/bye\n");
    assert!(said.starts_with("done 3 "), "{said}");
    proxied.await_line(&[&own, "\"a\" stored as \"a\""]);
    let server = &proxied.server;
    let checks = || server.log().matches("closed before a name came").count();
    await_until("some checks", || checks() >= 5);
    let loud = |line: &&str| line.contains(" INFO ") && line.contains("] 127.0.0.1:") && !line.contains(&own);
    assert_eq!(server.log().lines().filter(loud).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_file_whose_end_the_proxy_made_up_is_not_stored() {
    let Some(proxied) = Proxied::start(&[]) else { return };
    let (_, said) = talk(proxied.passing, b"unsized\ncontent");
    assert!(said.starts_with("no 403 this server takes uploads of a known size"), "{said}");

    let mut killed = connect(proxied.passing).expect("haproxy accepts");
    killed.write_all(b"/put size=9 killed\nhalf").expect("haproxy takes it");
    // HAProxy has passed it on.
    await_until("the upload to begin", || has_begun(&proxied.server));
    reset(killed);
    proxied.await_line(&["\"killed\"", "4 bytes"]);

    let mut silent = connect(proxied.hasty).expect("haproxy accepts");
    silent.write_all(b"/put size=9 silent\nhalf").expect("haproxy takes it");
    let mut said = String::new();
    let _ = silent.read_to_string(&mut said);
    proxied.await_line(&["\"silent\"", "not stored"]);
    proxied.server.assert_holds_only(&Files::new());
}

/// Whether an upload has an open file.
fn has_begun(server: &Server) -> bool {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the server runs");
    let target = |entry: io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    open.filter_map(target).any(|path| path.to_string_lossy().contains("(deleted)"))
}

#[test]
fn tls_that_it_passes_on_proves_its_end() {
    let Some(proxied) = Proxied::start(&[]) else { return };
    let client = Client::connect(proxied.passing, &proxied.client(None)).expect("the server speaks TLS behind it");
    let own = client.0.sock.local_addr().expect("a socket has an address").to_string();
    let said = client.say(b"unsized\ncontent").expect("a proven end");
    assert!(said.contains("done 7 "), "{said}");
    proxied.await_line(&[&own, "\"unsized\"", "whole: the client itself has ended the stream"]);
    proxied.server.assert_holds_only(&files_of([("unsized", b"content")]));
}

#[test]
fn tls_that_it_ends_tells_the_name_in_the_certificate() {
    let Some(proxied) = Proxied::start(&[]) else { return };
    for (name, logged) in [(Some("alice"), " by alice: \"alice\" stored as"), (None, ": \"nobody\" stored as")] {
        let client = Client::connect(proxied.ending_tls, &proxied.client(name)).expect("haproxy speaks TLS");
        let own = client.0.sock.local_addr().expect("a socket has an address").to_string();
        let request = format!("/put size=1 {}\nx/bye\n", name.unwrap_or("nobody"));
        let said = client.say(request.as_bytes()).expect("haproxy announces the end");
        assert!(said.starts_with("done 1 "), "{said}");
        proxied.await_line(&[&format!("{own}{logged}")]);
    }
}

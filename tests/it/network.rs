//! The network: address families, urgent data, ports in TIME_WAIT.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use socket2::SockRef;

use crate::fixture::*;
use crate::tools::{leave_out, unshare_network};

fn has_ipv6() -> bool {
    let found = TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
    found.inspect_err(|error| leave_out(&format!("no ::1 on this machine: {error}"))).is_ok()
}

fn assert_stored_from_each(server: &Server, addresses: &[SocketAddr]) {
    server.withstands(|| {
        let bytes = content(100_000, 1);
        for address in addresses {
            let receipt = line(*address, "name.bin", &bytes).expect("the upload is accepted");
            assert!(receipt.starts_with("done 100000 "), "{receipt}");
            assert!(line(*address, "../outside", &bytes).expect("a refusal arrives").starts_with("no 403 "));
        }
        files_of([("name.bin", &bytes), ("name.bin.1", &bytes)])
    });
}

#[test]
fn each_listening_address_accepts_uploads() {
    if !has_ipv6() {
        return;
    }
    let server = Server::start(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let [v4, v6] = server.all_tcp()[..] else { panic!("two listeners print two lines") };
    assert_eq!((v4.ip(), v6.ip()), (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)));
    assert_stored_from_each(&server, &[v4, v6]);
}

#[test]
fn a_listener_on_every_address_accepts_ipv4_too() {
    if !has_ipv6() {
        return;
    }
    let server = Server::start(&["--listen", "[::]:0"]);
    let port = server.tcp().port();
    let from_v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_stored_from_each(&server, &[from_v4, SocketAddr::from((Ipv6Addr::LOCALHOST, port))]);
    for address in [from_v4, SocketAddr::from((Ipv6Addr::LOCALHOST, server.udp().port()))] {
        let client = udp_client(address);
        client.send(b"anybody there?").expect("a datagram can be sent");
        assert_eq!(client.recv(&mut [0; 100]).expect("the datagram comes back"), 14);
    }
}

#[test]
fn an_urgent_byte_is_not_content_and_does_no_harm() {
    let server = Server::start(&[]);
    server.withstands(|| {
        let (short, long) = (content(300_000, 2), content(5_000_000, 3));
        for (name, bytes) in [("short.bin", &short), ("long.bin", &long)] {
            let mut stream = classic_begin(server.tcp(), name).expect("the name is accepted");
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            stream.write_all(first).expect("content can be sent");
            // Only one: if a second urgent byte follows, the first becomes content (tcp(7)).
            SockRef::from(&stream).send_out_of_band(b"!").expect("an urgent byte can be sent");
            classic_finish(stream, rest).expect("the upload is accepted");
        }
        files_of([("short.bin", &short), ("long.bin", &long)])
    });
}

#[test]
fn a_restarted_server_has_its_port_again_at_once() {
    let home = Server::home();
    let mut server = Server::start_in(&home, &["--header-timeout", "300ms"]);
    let address = server.tcp();
    // The server closes first here, so that its side stays in TIME_WAIT.
    let silent = connect(address).expect("the server accepts");
    io::read_to_string(&silent).expect("the server ends the stream");
    silent.shutdown(Shutdown::Write).expect("a stream can be shut down");
    let half_done = classic_begin(address, "half done.bin").expect("the name is accepted");
    let is_time_wait = || tcp_states(address).contains(&"06".to_owned());
    await_until("the port to be in TIME_WAIT", is_time_wait);
    server.signal(Signal::KILL);
    server.wait();
    let server = Server::start_in(&home, &["--listen", &address.to_string()]);
    assert!(is_time_wait(), "the port was in TIME_WAIT when it was bound again");
    drop(half_done);
    server.withstands(|| {
        classic(address, "name.bin", b"content").expect("the upload is accepted");
        files_of([("name.bin", b"content")])
    });
}

/// A server in a network namespace of its own, which the shell script `setup` prepares. `None`: the test is left out.
fn start_in_network(setup: &str, args: &[&str]) -> Option<Server> {
    let setup = format!("ip link set lo up && {setup}");
    Some(Server::start_secluded(&unshare_network()?, &setup, args))
}

/// Runs `intake ARGS` in the network namespace of `server`, with the arguments separated by spaces.
fn intake_beside(server: &Server, args: &str) -> Output {
    let mut command = Command::new("nsenter");
    command.args(["--target", &server.pid().to_string(), "--user", "--mount", "--net", env!("CARGO_BIN_EXE_intake")]);
    command.args(args.split(' ')).output().expect("nsenter can be started")
}

fn assert_succeeds(output: &Output) {
    let printed = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&printed));
}

/// `localhost`, as in most hosts files.
const LOCALHOST: &str = "printf '::1 localhost\\n127.0.0.1 localhost\\n' >hosts && mount --bind hosts /etc/hosts";

#[test]
fn every_command_tries_each_address_of_a_name() {
    let Some(server) = start_in_network(LOCALHOST, &["--listen", "127.0.0.1:9000"]) else { return };
    assert_succeeds(&intake_beside(&server, "send /proc/self/exe --to localhost:9000 --name sent"));
    assert_succeeds(&intake_beside(&server, "load localhost:9000 --files 2"));
    for udp in ["ping localhost:9000 --count 1", "load localhost:9000 --udp --duration 50ms"] {
        assert_succeeds(&intake_beside(&server, udp));
    }
    assert_eq!(server.files().len(), 3);
}

#[test]
fn if_no_address_of_a_name_answers_the_error_lists_each() {
    let Some(server) = start_in_network(LOCALHOST, &["--listen", "127.0.0.1:9000"]) else { return };
    let output = intake_beside(&server, "load localhost:9001 --files 2");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(words.contains("[::1]:9001: cannot connect") && words.contains("127.0.0.1:9001: cannot"), "{words}");
}

#[test]
fn the_server_listens_once_on_each_address_of_a_name() {
    let args = ["--listen", "localhost:9000", "--listen", "127.0.0.1:9000"];
    let Some(server) = start_in_network(LOCALHOST, &args) else { return };
    assert_eq!(server.all_tcp(), ["[::1]:9000".parse().unwrap(), "127.0.0.1:9000".parse().unwrap()]);
    for address in ["[::1]:9000", "127.0.0.1:9000"] {
        assert_succeeds(&intake_beside(&server, &format!("load {address} --files 2")));
        assert_succeeds(&intake_beside(&server, &format!("ping {address} --count 1")));
    }
}

#[test]
fn an_address_of_a_name_that_the_machine_lacks_is_not_listened_on() {
    let without_v6 = format!("{LOCALHOST} && ip address del ::1/128 dev lo");
    let args = ["--listen", "localhost:9000", "--udp", "localhost:9001"];
    let Some(server) = start_in_network(&without_v6, &args) else { return };
    assert_eq!(server.all_tcp(), ["127.0.0.1:9000".parse().unwrap()]);
    assert_succeeds(&intake_beside(&server, "ping localhost:9001 --count 1"));
}

#[test]
fn a_link_local_address_is_reached_through_its_interface() {
    let link = "ip address add fe80::1/64 dev lo nodad";
    let Some(server) = start_in_network(link, &["--listen", "[fe80::1%lo]:9000"]) else { return };
    for command in
        ["send /proc/self/exe --name sent --to", "load --files 2", "ping --count 1", "load --udp --duration 50ms"]
    {
        assert_succeeds(&intake_beside(&server, &format!("{command} [fe80::1%lo]:9000")));
        let output = intake_beside(&server, &format!("{command} [fe80::1]:9000"));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && words.contains("[fe80::1%eth0]:9000"), "{command}: {words}");
    }
}

/// Three addresses of each family, which are asked from a fourth one. By default the kernel would answer with the
/// fourth address as the source.
const SEVERAL_ADDRESSES: &str = "for last in 100 101 102 103; do \
     ip address add 10.9.0.$last/32 dev lo && ip address add fd09::$last/128 dev lo nodad && \
     ip route replace local 10.9.0.$last dev lo src 10.9.0.100 table local && \
     ip route replace local fd09::$last dev lo src fd09::100 table local || exit; done";

#[test]
fn the_echo_answers_from_the_address_that_was_asked() {
    let v4 = ["10.9.0.101", "10.9.0.102", "10.9.0.103"];
    let v6 = ["[fd09::101]", "[fd09::102]", "[fd09::103]"];
    let both = [v4, v6].concat();
    for (wildcard, addresses) in [("0.0.0.0:9000", &v4[..]), ("[::]:9000", &both)] {
        let args = ["--listen", wildcard, "--udp-rate", "off"];
        let Some(server) = start_in_network(SEVERAL_ADDRESSES, &args) else { return };
        for address in addresses {
            assert_succeeds(&intake_beside(&server, &format!("ping {address}:9000 --count 1")));
            // Several datagrams that are answered in one call, too.
            let burst = intake_beside(&server, &format!("load {address}:9000 --udp --duration 50ms --json"));
            let report: Value = serde_json::from_slice(&burst.stdout).expect("a report is printed");
            assert_eq!(report["datagrams"]["lost"], 0, "{address}: {report}");
        }
    }
}

//! A link that loses every tenth packet: TCP delivers everything, in order but late; UDP delivers whatever was not lost.
//!
//! ```text
//! cargo run --example lossy_link
//! cargo run --example lossy_link here      (how it runs itself, on the link)
//! ```
//!
//! The link is the loopback of a network namespace of its own. That needs root or unprivileged user namespaces, `unshare`,
//! `ip` and `nft`. If one of them is missing, the example says so and shows nothing.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod loopback;

use std::io::{self, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, thread};

use loopback::kernel::Ends;
use loopback::{pair, udp_pair, unless_blocked};
use rustix::process::geteuid;

const MESSAGES: u16 = 400;
const MESSAGE_BYTES: usize = 100;
const LOSE: &str = r#"ip link set lo up && nft "add table ip lossy
    add chain ip lossy in { type filter hook input priority 0; }
    add rule ip lossy in numgen inc mod 10 0 drop" && exec "$0" "$@""#;

fn main() -> io::Result<()> {
    if env::args().nth(1).is_some() {
        over_udp()?;
        return over_tcp();
    }
    println!("-- a link that loses every tenth packet");
    let tried = there("true", "").output().and_then(|output| {
        let refused = || io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        if output.status.success() { Ok(()) } else { Err(refused()) }
    });
    if let Err(error) = tried {
        println!("   left out, no such link is possible here: {error}");
        return Ok(());
    }
    let status = there(&env::current_exe()?.to_string_lossy(), "here").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("on the lossy link: {status}"))) }
}

/// A program to run in the network namespace that loses every tenth packet.
fn there(program: &str, argument: &str) -> Command {
    // Root needs no user namespace, and may have a network namespace where others may not.
    let namespaces: &[_] = if geteuid().is_root() { &["--net"] } else { &["--net", "--map-root-user"] };
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-c", LOSE, program, argument]);
    command
}

/// Sends the messages again and again until all have arrived. Over UDP that is the program's task.
fn over_udp() -> io::Result<()> {
    let (client, server) = udp_pair()?;
    // Long enough on loopback: a datagram that has not come by then is lost.
    server.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut missing: Vec<u16> = (0..MESSAGES).collect();
    let (mut arrived, mut rounds) = (Vec::new(), 0);
    while !missing.is_empty() {
        // A few at a time, so that only the link loses messages, and not the receive buffer.
        for numbers in missing.chunks(100) {
            numbers.iter().try_for_each(|&number| client.send(&message(number)).map(drop))?;
            let mut buffer = [0; MESSAGE_BYTES];
            while unless_blocked(|| server.recv(&mut buffer))?.is_some() {
                arrived.push(u16::from_be_bytes([buffer[0], buffer[1]]));
            }
        }
        missing.retain(|number| !arrived.contains(number));
        rounds += 1;
        println!("   UDP: {} sent, {} still missing", if rounds == 1 { "all" } else { "those again" }, missing.len());
    }
    let last = arrived[arrived.len() - 1];
    println!("   UDP: all have come after {rounds} rounds, the last of them number {last}");
    assert!(rounds > 1, "a lost message stays lost, unless the program sends it again");
    assert!(!arrived.is_sorted(), "a message that is sent again comes late");
    Ok(())
}

/// Sends the same messages as a stream: the kernel does the rest.
fn over_tcp() -> io::Result<()> {
    let (start, (mut client, mut server)) = (Instant::now(), pair()?);
    let ends = Ends::of_client(&client)?;
    client.set_nodelay(true)?;
    let messages: Vec<u8> = (0..MESSAGES).flat_map(message).collect();
    let mut received = vec![0; messages.len()];
    thread::scope(|scope| {
        let reading = scope.spawn(|| server.read_exact(&mut received));
        messages.chunks(MESSAGE_BYTES).try_for_each(|message| client.write_all(message))?;
        reading.join().expect("a read does not panic")
    })?;
    assert!(received == messages, "every byte arrives, in order");
    let again = ends.client()?.info.map_or(0, |info| info.total_retrans);
    let early = ends.server()?.info.map_or(0, |info| info.rcv_ooopack);
    println!("   TCP: all have come, in order, after {} ms;", start.elapsed().as_millis());
    println!("        {again} segments were sent again, {early} came too early and waited for an earlier one");
    assert!(again > 0, "in a stream all bytes wait for the lost ones");
    Ok(())
}

/// A numbered message.
fn message(number: u16) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[..2].copy_from_slice(&number.to_be_bytes());
    message
}

//! How a connection ends: each direction separately, each with a FIN.
//!
//! ```text
//! who closes first            the other
//! FIN_WAIT1    -- FIN ------>  ESTABLISHED
//! FIN_WAIT2    <- ACK -------  CLOSE_WAIT, until it closes as well
//! TIME_WAIT    <- FIN -------  LAST_ACK
//!              -- ACK ------>  CLOSED
//! CLOSED, a minute later
//! ```
//!
//! If both close at once, each receives a FIN while its own is on the way. That state is CLOSING, and both end in
//! TIME_WAIT (RFC 9293, 3.6). The example `time_wait` shows what TIME_WAIT is good for.
//!
//! FIN_WAIT1, CLOSING and LAST_ACK last only as long as a packet travels. Here a peer that does not read prolongs them: a FIN
//! comes after the bytes, and cannot be sent while the window is closed.

mod loopback;

use std::io;
use std::net::{Shutdown, TcpStream};

use loopback::kernel::Ends;
use loopback::{fill, pair};

fn main() -> io::Result<()> {
    one_after_the_other()?;
    both_at_once()
}

fn one_after_the_other() -> io::Result<()> {
    let (client, server) = pair()?;
    let ends = Ends::of_client(&client)?;

    println!("-- the client sends more than the server takes, and closes: its FIN has to wait behind the bytes");
    let sent = fill(&client)?;
    client.shutdown(Shutdown::Write)?;
    ends.reach("FIN_WAIT1", "ESTABLISHED")?;

    println!("   the server reads to the end. The FIN has come, and its kernel has acknowledged it");
    assert_eq!(read_to_end(&server)?, sent, "a close loses nothing");
    ends.reach("FIN_WAIT2", "CLOSE_WAIT")?;
    println!("   a CLOSE_WAIT that never goes away is a server that forgot to close");

    println!("   the server answers more than the client takes, and closes as well");
    let answered = fill(&server)?;
    server.shutdown(Shutdown::Write)?;
    ends.reach("FIN_WAIT2", "LAST_ACK")?;

    println!(
        "   the client reads to the end: the side that closed last is done, the side that closed first has the TIME_WAIT"
    );
    assert_eq!(read_to_end(&client)?, answered, "one direction had ended, the other still worked");
    ends.reach("TIME_WAIT", "CLOSED")
}

fn both_at_once() -> io::Result<()> {
    println!("\n-- both send more than the other takes, and close: two FINs are on the way");
    let (client, server) = pair()?;
    let ends = Ends::of_client(&client)?;
    for end in [&client, &server] {
        fill(end)?;
        end.shutdown(Shutdown::Write)?;
    }
    ends.reach("FIN_WAIT1", "FIN_WAIT1")?;

    println!("   the client reads to the end: it has received a FIN, and waits until its own is acknowledged");
    read_to_end(&client)?;
    ends.reach("CLOSING", "FIN_WAIT2")?;

    println!("   the server reads to the end: neither was first, and both have the TIME_WAIT");
    read_to_end(&server)?;
    ends.reach("TIME_WAIT", "TIME_WAIT")
}

fn read_to_end(mut stream: &TcpStream) -> io::Result<usize> {
    Ok(io::copy(&mut stream, &mut io::sink())? as usize)
}

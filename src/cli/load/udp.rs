//! `intake load --udp`: turns the options into a plan, runs it, and prints the report.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use intake::load::plan::{EchoPlan, Pace, SIZE_MAX_BYTES, SIZE_MIN_BYTES, Sizes};
use intake::load::run::{Echoed, choose_address, send_datagrams};
use intake::load::tell::json_of_echo;

use super::options::{DEFAULT_DURATION, Load};
use super::outcome::fail;
use crate::cli::exit::Exit;
use crate::cli::usage::usage_error;

const DEFAULT_SIZE: u64 = 64;
/// Longer than any round trip on earth.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// The plan that the options describe.
///
/// # Errors
/// A message, if no datagram can have this size.
pub fn plan(load: &Load, target: SocketAddr) -> Result<EchoPlan, String> {
    let allowed = SIZE_MIN_BYTES as u64..=SIZE_MAX_BYTES as u64;
    let size = match load.size.unwrap_or(Sizes::Range(DEFAULT_SIZE, DEFAULT_SIZE)) {
        Sizes::Range(least, most) if least == most && allowed.contains(&least) => least,
        _ => return Err(format!("datagrams have one size, of {SIZE_MIN_BYTES} to {SIZE_MAX_BYTES} bytes")),
    };
    Ok(EchoPlan {
        target,
        sockets: load.sockets.get(),
        size: size as usize,
        pace: load.rate.map_or(Pace::Window(load.window.get()), Pace::Rate),
        count: None,
        duration: Some(load.duration.map_or(DEFAULT_DURATION, |span| span.0)),
        timeout: load.timeout.map_or(DEFAULT_TIMEOUT, |span| span.0),
        seed: load.seed(),
    })
}

/// Sends and reports.
pub fn send(plan: &EchoPlan, targets: &[SocketAddr], stop: &AtomicBool, load: &Load) -> Exit {
    if let Err(words) = load.check_conditions(&json_of_echo(plan, &Echoed::default())) {
        return usage_error::<Load>("load", words);
    }
    let plan = EchoPlan { target: choose_address(targets, stop), ..*plan };
    match send_datagrams(&plan, stop, &mut |_| {}) {
        Ok(finished) => load.tell(&finished, &json_of_echo(&plan, &finished), exit_of(&finished)),
        Err(error) => fail(plan.target, &error),
    }
}

fn exit_of(finished: &Echoed) -> Exit {
    let counts = &finished.counts;
    match finished.interrupted {
        _ if counts.corrupted > 0 => Exit::Broken,
        true => Exit::Interrupted,
        false if counts.answered + counts.late == 0 => Exit::Unreachable,
        false => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use intake::load::tell::DEFAULT_UDP_RATE;
    use intake::server::config::Config;

    #[test]
    fn the_limit_in_a_report_is_the_servers_default() {
        assert_eq!(Some(DEFAULT_UDP_RATE), Config::default().udp_rate);
    }
}

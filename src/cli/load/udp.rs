//! `intake load --udp`: its options -> its plan, and its report -> an exit code.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use intake::load::json;
use intake::load::udp::{Finished, Pace, Plan, SIZE_MAX_BYTES, SIZE_MIN_BYTES, choose, run};
use intake::load::workload::Sizes;

use super::{Load, fail};
use crate::cli::{Exit, usage_error};

const DEFAULT_SIZE: u64 = 64;
/// Beyond any round trip on earth.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// What is to be done.
///
/// # Errors
/// In words, when the sizes are not those of datagrams.
pub fn plan(load: &Load, target: SocketAddr) -> Result<Plan, String> {
    let allowed = SIZE_MIN_BYTES as u64..=SIZE_MAX_BYTES as u64;
    let size = match load.size.unwrap_or(Sizes::Range(DEFAULT_SIZE, DEFAULT_SIZE)) {
        Sizes::Range(least, most) if least == most && allowed.contains(&least) => least,
        _ => return Err(format!("datagrams have one size, of {SIZE_MIN_BYTES} to {SIZE_MAX_BYTES} bytes")),
    };
    Ok(Plan {
        target,
        sockets: load.sockets.get(),
        size: size as usize,
        pace: load.rate.map_or(Pace::Window(load.window.get()), Pace::Rate),
        count: None,
        duration: Some(load.duration.map_or(super::DEFAULT_DURATION, |span| span.0)),
        timeout: load.timeout.map_or(DEFAULT_TIMEOUT, |span| span.0),
        seed: load.seed(),
    })
}

/// Sends and reports.
pub fn send(plan: &Plan, targets: &[SocketAddr], stop: &AtomicBool, load: &Load) -> Exit {
    if let Err(words) = load.check_conditions(&json::udp(plan, &Finished::default())) {
        return usage_error("load", &words);
    }
    let plan = Plan { target: choose(targets, stop), ..*plan };
    match run(&plan, stop, &mut |_| {}) {
        Ok(finished) => load.tell(&finished, &json::udp(&plan, &finished), exit_of(&finished)),
        Err(error) => fail(plan.target, &error),
    }
}

fn exit_of(finished: &Finished) -> Exit {
    let counts = &finished.counts;
    match finished.interrupted {
        _ if counts.corrupted > 0 => Exit::Broken,
        true => Exit::Interrupted,
        false if counts.answered + counts.late == 0 => Exit::Unreachable,
        false => Exit::Done,
    }
}

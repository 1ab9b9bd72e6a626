//! `intake ping`: UDP round trips to a receiver's echo.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;

use clap::{Args, value_parser};
use intake::client::ping::{COUNT_MAX, Event, Plan, SIZE_MAX_BYTES, SIZE_MIN_BYTES, Summary, ping};
use intake::load::udp::choose;
use signal_hook::consts::SIGINT;
use signal_hook::low_level::pipe;

use super::address::Address;
use super::units::{Size, Span};
use super::{Exit, complain, say};

/// Measures UDP round trips to a receiver's echo: time, loss, duplicates
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    answers came back
  1    an answer came back changed
  2    wrong usage
  3    no answer came back
  130  interrupted by Ctrl-C")]
pub struct Ping {
    /// The echo
    #[arg(value_name = "ADDR", default_value_t)]
    address: Address,
    /// How many datagrams to send
    #[arg(long, value_name = "N", default_value_t = Plan::default().count)]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    count: u32,
    /// The size of each, 16 to 65507 bytes
    #[arg(long, value_parser = parse_size, default_value_t = Size(Plan::default().size as u64))]
    size: Size,
    /// The pause between two, whether or not an answer has come
    #[arg(long, default_value_t = Span(Plan::default().interval))]
    interval: Span,
}

fn parse_size(typed: &str) -> Result<Size, String> {
    let size: Size = typed.parse()?;
    if (SIZE_MIN_BYTES as u64..=SIZE_MAX_BYTES as u64).contains(&size.0) {
        return Ok(size);
    }
    Err(format!(
        "a datagram takes {SIZE_MIN_BYTES} (its number, and a check that it is unchanged) to {SIZE_MAX_BYTES} bytes"
    ))
}

impl Ping {
    /// Pings the first address of the host that is not refused.
    pub fn run(self) -> Exit {
        let outcome = self.address.resolve().and_then(|found| {
            let address = choose(&found, &AtomicBool::new(false));
            self.ping(address).map_err(|error| format!("cannot ping {address}: {error}"))
        });
        match outcome {
            Ok(summary) => {
                say(&summary);
                exit_of(&summary)
            }
            Err(words) => {
                complain(words);
                Exit::Unreachable
            }
        }
    }

    fn ping(&self, address: SocketAddr) -> io::Result<Summary> {
        let plan = Plan { count: self.count, size: self.size.0 as usize, interval: self.interval.0, ..Plan::default() };
        let (stop, interrupt) = UnixStream::pair()?;
        pipe::register(SIGINT, interrupt)?;
        ping(address, plan, stop, |event| match event {
            Event::Failed(_) => complain(format_args!("{address}: {event}")),
            _ => say(format_args!("{address}: {event}")),
        })
    }
}

fn exit_of(summary: &Summary) -> Exit {
    match summary {
        Summary { stopped: true, .. } => Exit::Interrupted,
        Summary { corrupt: 1.., .. } => Exit::Failed,
        Summary { late: 0, round_trips, .. } if round_trips.is_empty() => Exit::Unreachable,
        _ => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_that_no_datagram_has_are_told_why() {
        assert_eq!(parse_size("16"), Ok(Size(16)));
        assert_eq!(parse_size("65507"), Ok(Size(65_507)));
        for typed in ["0", "15", "65508", "64k"] {
            assert!(parse_size(typed).unwrap_err().contains("16 (its number"), "{typed}");
        }
    }

    #[test]
    fn exits_tell_how_it_went() {
        let answered = || Summary { sent: 2, round_trips: vec![Duration::ZERO], ..Summary::default() };
        assert_eq!(exit_of(&answered()), Exit::Done);
        assert_eq!(exit_of(&Summary { late: 1, ..Summary::default() }), Exit::Done);
        assert_eq!(exit_of(&Summary { corrupt: 1, ..answered() }), Exit::Failed);
        assert_eq!(exit_of(&Summary { sent: 2, ..Summary::default() }), Exit::Unreachable);
        assert_eq!(exit_of(&Summary { stopped: true, ..answered() }), Exit::Interrupted);
    }
}

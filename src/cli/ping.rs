//! `intake ping`: UDP round trips to a receiver's echo. It runs the load tester's UDP load on one socket, and prints
//! each answer.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, value_parser};
use intake::load::judge::Counts;
use intake::load::plan::{EchoPlan, Pace, SIZE_MAX_BYTES, SIZE_MIN_BYTES};
use intake::load::run::{Event, choose_address, send_datagrams};

use super::address::Address;
use super::exit::Exit;
use super::interrupt::stop_on_interrupt;
use super::output::{Output, complain};
use super::seed::any_seed;
use super::units::{Size, Span};

/// Measure UDP round trips to a receiver's echo: time, loss, duplicates
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    answers came back
  1    an answer came back changed, or the results could not be written
  2    usage error
  3    no answer came back
  130  interrupted by Ctrl-C")]
pub struct Ping {
    /// Address of the echo
    #[arg(value_name = "ADDR", default_value_t)]
    address: Address,
    /// Number of datagrams to send
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    count: u32,
    /// Size of each datagram, 16 to 65507 bytes
    #[arg(long, value_parser = parse_size, default_value_t = Size(64))]
    size: Size,
    /// Time between two datagrams, whether or not an answer has come
    #[arg(long, default_value_t = Span(Duration::from_secs(1)))]
    interval: Span,
}

/// The most datagrams: the summary needs every round trip time, so all are kept in memory.
const COUNT_MAX: u32 = 1_000_000;
/// An answer that takes longer than this is late. No usual round trip takes as long.
const TIMEOUT: Duration = Duration::from_secs(2);

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
    /// Pings one address of the host: the first that answers, or else the first that does not refuse.
    pub fn run(self) -> Exit {
        let found = match self.address.resolve() {
            Ok(found) => found,
            Err(words) => {
                complain(words);
                return Exit::Unreachable;
            }
        };
        let stop = stop_on_interrupt();
        let plan = self.plan(choose_address(&found, &stop));
        let (mut output, mut round_trips) = (Output::default(), Vec::new());
        let finished = send_datagrams(&plan, &stop, &mut |event| {
            match event {
                Event::Failed(_) => complain(format_args!("{}: {}", plan.target, Told(event))),
                _ => output.say(format_args!("{}: {}", plan.target, Told(event))),
            }
            if let Event::Answer(_, round_trip) = event {
                round_trips.push(*round_trip);
            }
        });
        match finished {
            Ok(finished) => {
                let summary = Summary { counts: finished.counts, round_trips, interrupted: finished.interrupted };
                output.say(&summary);
                output.exit(summary.exit())
            }
            Err(error) => {
                complain(format_args!("cannot ping {}: {error}", plan.target));
                Exit::Unreachable
            }
        }
    }

    fn plan(&self, target: SocketAddr) -> EchoPlan {
        EchoPlan {
            target,
            sockets: 1,
            size: self.size.0 as usize,
            pace: Pace::Interval(self.interval.0),
            count: Some(self.count.into()),
            duration: None,
            timeout: TIMEOUT,
            seed: any_seed(),
        }
    }
}

/// The counts and times of all datagrams.
struct Summary {
    counts: Counts,
    /// The round trip times of the answers that were not late.
    round_trips: Vec<Duration>,
    interrupted: bool,
}

impl Summary {
    fn exit(&self) -> Exit {
        match self.counts {
            _ if self.interrupted => Exit::Interrupted,
            Counts { corrupted: 1.., .. } => Exit::Failed,
            Counts { answered: 0, late: 0, .. } => Exit::Unreachable,
            _ => Exit::Done,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A datagram that the system refused to send also counts as lost.
        let Counts { tried, answered, late, duplicated, corrupted, .. } = self.counts;
        let lost = tried - answered - late;
        let lost_percent = 100.0 * lost as f64 / tried.max(1) as f64;
        write!(f, "{tried} sent, {answered} answered, {late} late, {lost} lost ({lost_percent:.0} %), ")?;
        write!(f, "{duplicated} duplicate, {corrupted} corrupt")?;
        if answered == 0 {
            return Ok(());
        }
        let times = || self.round_trips.iter().map(|time| millis(*time));
        let mean = times().sum::<f64>() / answered as f64;
        let deviation = (times().map(|time| (time - mean).powi(2)).sum::<f64>() / answered as f64).sqrt();
        let (min, max) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
        write!(f, "\nround trip min/avg/max/mdev = {min:.3}/{mean:.3}/{max:.3}/{deviation:.3} ms")
    }
}

/// An event, printed for people: datagrams are numbered from 1.
struct Told<'a>(&'a Event);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Answer(number, time) => write!(f, "seq={} time={:.3} ms", number + 1, millis(*time)),
            Event::Late(number, Some(time)) => write!(f, "seq={} time={:.3} ms, late", number + 1, millis(*time)),
            Event::Late(number, None) => write!(f, "seq={} late", number + 1),
            Event::Duplicate(number) => write!(f, "seq={} duplicate", number + 1),
            Event::Corrupt(size) => write!(f, "{size} bytes that were not sent like this"),
            Event::Failed(error) if error.kind() == ErrorKind::ConnectionRefused => {
                f.write_str("nothing listens there")
            }
            Event::Failed(error) => error.fmt(f),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_size_that_no_datagram_can_have_is_refused_with_the_reason() {
        assert_eq!(parse_size("16"), Ok(Size(16)));
        assert_eq!(parse_size("65507"), Ok(Size(65_507)));
        for typed in ["0", "15", "65508", "64k"] {
            assert!(parse_size(typed).unwrap_err().contains("16 (its number"), "{typed}");
        }
    }

    fn summary(counts: Counts) -> Summary {
        Summary { counts, round_trips: vec![MS, 2 * MS, 3 * MS], interrupted: false }
    }

    #[test]
    fn the_exit_code_depends_on_the_answers() {
        let answered = || Counts { tried: 2, answered: 1, ..Counts::default() };
        assert_eq!(summary(answered()).exit(), Exit::Done);
        assert_eq!(summary(Counts { tried: 1, late: 1, ..Counts::default() }).exit(), Exit::Done);
        assert_eq!(summary(Counts { corrupted: 1, ..answered() }).exit(), Exit::Failed);
        assert_eq!(summary(Counts { tried: 2, ..Counts::default() }).exit(), Exit::Unreachable);
        let interrupted = Summary { interrupted: true, ..summary(answered()) };
        assert_eq!(interrupted.exit(), Exit::Interrupted);
    }

    #[test]
    fn the_summary_has_the_numbers_of_ping() {
        let lines = "4 sent, 3 answered, 0 late, 1 lost (25 %), 0 duplicate, 0 corrupt\n\
                     round trip min/avg/max/mdev = 1.000/2.000/3.000/0.816 ms";
        assert_eq!(summary(Counts { tried: 4, answered: 3, ..Counts::default() }).to_string(), lines);
        let nothing = "0 sent, 0 answered, 0 late, 0 lost (0 %), 0 duplicate, 0 corrupt";
        assert_eq!(summary(Counts::default()).to_string(), nothing);
    }

    #[test]
    fn every_event_has_its_words() {
        for (event, words) in [
            (Event::Answer(0, MS), "seq=1 time=1.000 ms"),
            (Event::Late(1, Some(2 * MS)), "seq=2 time=2.000 ms, late"),
            (Event::Late(1, None), "seq=2 late"),
            (Event::Duplicate(2), "seq=3 duplicate"),
            (Event::Corrupt(5), "5 bytes that were not sent like this"),
            (Event::Failed(ErrorKind::ConnectionRefused.into()), "nothing listens there"),
        ] {
            assert_eq!(Told(&event).to_string(), words);
        }
    }
}

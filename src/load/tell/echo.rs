//! The report of a run over UDP, for people.

use std::fmt;

use crate::load::judge::{Counts, Micros, QUANTILES};
use crate::load::run::{Echoed, Spent};

/// Above this loss, the report suspects the echo's own limit and not the network.
const SUSPECT_LOSS_PERCENT: f64 = 1.0;
/// How many datagrams an echo of this project answers to one peer at once, and in each second, by default.
pub const DEFAULT_UDP_RATE: u32 = 10_000;

impl fmt::Display for Echoed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sent, answered, late, duplicated, reordered, corrupted, errors, round_trip, .. } = &self.counts;
        let lost = self.counts.lost();
        let (seconds, rate) = (self.answering.as_secs_f64(), self.answers_per_second());
        writeln!(f, "{sent} datagrams in {seconds:.3} s, {rate:.0} answers/s")?;
        writeln!(f, "{answered} answered, {lost} lost ({:.2} %), {late} late", lost_percent(&self.counts))?;
        writeln!(f, "{duplicated} duplicated, {reordered} reordered, {corrupted} corrupted, {errors} errors")?;
        if may_be_limited(&self.counts) {
            writeln!(
                f,
                "this may have measured the receiver's limit: intake serve answers {DEFAULT_UDP_RATE} datagrams a second \
                 to one host, unless it is started with another --udp-rate"
            )?;
        }
        write!(f, "\nround trip")?;
        for (name, quantile) in QUANTILES {
            write!(f, "  {name} {}", Micros(round_trip.quantile_us(quantile)))?;
        }
        let jitter = self.jitter.map(|jitter| jitter.as_micros() as u64);
        writeln!(f, "  max {}  jitter {}", Micros(round_trip.max_us()), Micros(jitter))?;
        writeln!(f, "{}", round_trip.bars())?;
        self.spent.fmt(f)?;
        if self.spent.was_bottleneck() && *answered > 0 { write!(f, "\n{}", Spent::BOTTLENECK) } else { Ok(()) }
    }
}

fn lost_percent(counts: &Counts) -> f64 {
    100.0 * counts.lost() as f64 / counts.sent.max(1) as f64
}

/// Whether the echo's own limit would explain the loss.
fn may_be_limited(counts: &Counts) -> bool {
    counts.sent > DEFAULT_UDP_RATE.into() && lost_percent(counts) >= SUSPECT_LOSS_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_receiver_is_named_where_it_may_explain_the_loss() {
        let told = |sent, answered| {
            let counts = Counts { sent, answered, ..Counts::default() };
            Echoed { counts, ..Echoed::default() }.to_string().contains("--udp-rate")
        };
        assert!(told(20_000, 10_100) && told(10_001, 0));
        assert!(!told(20_000, 19_990) && !told(10_000, 5_000));
    }
}

//! The progress of a load: a few lines that are redrawn on a terminal, or else a line every few seconds.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use intake::load::judge::Micros;
use intake::load::run::Live;

use crate::cli::output::complain;

/// The shortest time that a rate is measured over.
const RATE_SPAN: Duration = Duration::from_secs(1);
/// How often a line is printed if standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// The most reasons for failures that are shown.
const REASONS_TOLD: usize = 3;

/// The progress display, on standard error.
pub struct View {
    bar: ProgressBar,
    /// The start of the current measurement of the rates.
    from: Mark,
    rates: Rates,
    next_line: Duration,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    at: Duration,
    files: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Default)]
struct Rates {
    files: f64,
    mebibytes: f64,
}

impl View {
    /// A display for a run that has not started.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{msg}").expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        Self { bar, from: Mark::default(), rates: Rates::default(), next_line: LINE_INTERVAL }
    }

    /// Shows the state of the run.
    pub fn tell(&mut self, live: &Live<'_>) {
        self.measure(live);
        if !self.bar.is_hidden() {
            self.bar.set_message(lines(live, self.rates).join("\n"));
            self.bar.tick();
        } else if live.elapsed >= self.next_line {
            self.next_line = live.elapsed + LINE_INTERVAL;
            complain(lines(live, self.rates).join("; "));
        }
    }

    /// Clears the lines to make room for the report.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn measure(&mut self, live: &Live<'_>) {
        let now = Mark { at: live.elapsed, files: live.tally.acknowledged, bytes: live.tally.sent_bytes };
        let span = (now.at - self.from.at).as_secs_f64();
        if now.at >= self.from.at + RATE_SPAN {
            self.rates = Rates {
                files: (now.files - self.from.files) as f64 / span,
                mebibytes: (now.bytes - self.from.bytes) as f64 / span / f64::from(1 << 20),
            };
            self.from = now;
        }
    }
}

fn lines(live: &Live<'_>, rates: Rates) -> Vec<String> {
    let Live { elapsed, tally, connecting, sending, waiting } = live;
    let quantile = |quantile| Micros(tally.stored.quantile_us(quantile));
    let mut lines = vec![
        format!("{:.1} s: {connecting} connecting, {sending} sending, {waiting} waiting", elapsed.as_secs_f64()),
        format!("{} files acknowledged, {:.0} files/s, {:.1} MiB/s", tally.acknowledged, rates.files, rates.mebibytes),
        format!("stored p50 {}, p99 {}, {} failed", quantile(0.5), quantile(0.99), tally.failed),
    ];
    lines
        .extend(tally.reasons.iter().take(REASONS_TOLD).map(|(reason, failed)| format!("{} x {reason}", failed.count)));
    lines
}

#[cfg(test)]
mod tests {
    use intake::load::judge::{Failed, Tally};

    use super::*;

    #[test]
    fn rates_are_those_of_the_last_second() {
        let mut view = View::new();
        let mut tally = Tally { acknowledged: 100, sent_bytes: 1 << 20, ..Tally::default() };
        let mut tell = |tally: &Tally, millis| {
            let elapsed = Duration::from_millis(millis);
            view.tell(&Live { elapsed, tally, connecting: 1, sending: 2, waiting: 3 });
            (view.rates.files, view.rates.mebibytes)
        };
        assert_eq!(tell(&tally, 500), (0.0, 0.0));
        assert_eq!(tell(&tally, 1000), (100.0, 1.0));
        tally.acknowledged += 50;
        assert_eq!(tell(&tally, 1500), (100.0, 1.0));
        assert_eq!(tell(&tally, 3000), (25.0, 0.0));
    }

    #[test]
    fn states_counts_and_reasons_are_shown() {
        let reasons = [("reset by the server".to_owned(), Failed { count: 7, first: 3, said: None })].into();
        let tally = Tally { acknowledged: 100, failed: 7, reasons, ..Tally::default() };
        let live = Live { elapsed: Duration::from_millis(1500), tally: &tally, connecting: 1, sending: 2, waiting: 3 };
        let lines = lines(&live, Rates { files: 5.0, mebibytes: 0.5 });
        assert_eq!(lines[0], "1.5 s: 1 connecting, 2 sending, 3 waiting");
        assert_eq!(lines[1], "100 files acknowledged, 5 files/s, 0.5 MiB/s");
        assert_eq!(lines[3], "7 x reset by the server");
    }
}

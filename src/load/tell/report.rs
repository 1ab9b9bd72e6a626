//! The report of a run over TCP, for people.

use std::fmt;

use crate::load::judge::{Latency, Micros, QUANTILES, Verification, expectation};
use crate::load::plan::{Conduct, Loop, Plan};
use crate::load::run::{Finished, Spent};

/// A run and its findings.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The plan of the run.
    pub plan: &'a Plan,
    /// Its outcome.
    pub finished: &'a Finished,
    /// The findings in the receiver's directory, if it was verified.
    pub verification: Option<&'a Verification>,
}

impl Report<'_> {
    /// The files that the receiver confirmed, per second.
    pub fn files_per_second(&self) -> f64 {
        self.finished.tally.acknowledged as f64 / self.seconds()
    }

    /// The bytes of content that were sent, per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.finished.tally.sent_bytes as f64 / self.seconds()
    }

    /// The latencies by name: three, and with TLS that of its handshake.
    pub fn latencies(&self) -> Vec<(&'static str, &Latency)> {
        let tally = &self.finished.tally;
        let handshake = self.plan.tls.as_ref().map(|_| ("handshake", &tally.handshake));
        let others = [("first_reply", &tally.first_reply), ("stored", &tally.stored)];
        [("connect", &tally.connect)].into_iter().chain(handshake).chain(others).collect()
    }

    fn seconds(&self) -> f64 {
        self.finished.elapsed.as_secs_f64().max(1e-6)
    }

    fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { target, dialect, tls, clients, pace, workload, .. } = self.plan;
        let tally = &self.finished.tally;
        write!(f, "{} files to {target} in {:.3} s", tally.started, self.finished.elapsed.as_secs_f64())?;
        write!(f, ", {}{}, ", dialect.word(), if tls.is_some() { " over TLS" } else { "" })?;
        match pace {
            Loop::Closed => write!(f, "closed loop of {clients} clients")?,
            Loop::Open { rate, .. } => write!(f, "open loop, {rate}/s by at most {clients} clients")?,
        }
        writeln!(f, ", seed {}", workload.seed)?;
        let (files, mebibytes) = (self.files_per_second(), self.bytes_per_second() / f64::from(1 << 20));
        writeln!(f, "{files:.1} files/s, {mebibytes:.1} MiB/s")
    }

    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.finished.tally;
        writeln!(f, "\nsent          {:>9}  {} bytes", tally.sent, tally.sent_bytes)?;
        for (word, count, meaning) in [
            ("acknowledged", tally.acknowledged, ""),
            ("unheard", tally.unheard, "sent whole by clients that did not wait for the answer"),
            ("reset", tally.reset, "by clients that reset on purpose"),
            ("refused", tally.refused_as_expected, "as their misbehaviour should be"),
            ("interrupted", tally.interrupted, "by the end of the run"),
            ("never started", self.finished.never_started, "due, but not begun when the run ended"),
            ("failed", tally.failed, ""),
        ] {
            if count > 0 || meaning.is_empty() {
                writeln!(f, "{}", format!("{word:13} {count:>9}  {meaning}").trim_end())?;
            }
        }
        tally.reasons.iter().try_for_each(|(reason, failed)| {
            let first = self.plan.workload.name(self.plan.workload.file(failed.first).named);
            write!(f, "  {:>9} x {reason}, the first was {first}", failed.count)?;
            // The words come from the server: quoted and escaped, they do not control a terminal.
            failed.said.iter().try_for_each(|said| write!(f, ": {said:?}"))?;
            writeln!(f)
        })
    }

    fn write_misbehaved(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.finished.tally;
        if tally.misbehaved.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nmisbehaviour  as expected  otherwise  expected")?;
        for (kind, conduct) in Conduct::KINDS {
            if let Some((as_expected, otherwise)) = tally.misbehaved.get(kind) {
                writeln!(
                    f,
                    "{kind:13} {as_expected:>11} {otherwise:>10}  {}",
                    expectation(conduct, self.plan.dialect)
                )?;
            }
        }
        Ok(())
    }

    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.finished.tally.connect.count() == 0 {
            return Ok(());
        }
        write!(f, "\nlatency       ")?;
        QUANTILES.iter().try_for_each(|(name, _)| write!(f, "{name:>11}"))?;
        writeln!(f, "{:>11}{:>9}", "max", "count")?;
        for (name, latency) in self.latencies() {
            write!(f, "{:14}", name.replace('_', " "))?;
            for (_, quantile) in QUANTILES {
                write!(f, "{:>11}", Micros(latency.quantile_us(quantile)).to_string())?;
            }
            writeln!(f, "{:>11}{:>9}", Micros(latency.max_us()).to_string(), latency.count())?;
        }
        match &self.finished.tally.stored {
            stored if stored.count() > 0 => write!(f, "\nstored\n{}", stored.bars()),
            _ => Ok(()),
        }
    }

    fn write_self(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finished { spent, tally, .. } = self.finished;
        writeln!(f, "\n{spent}")?;
        if spent.was_bottleneck() && tally.acknowledged + tally.unheard > 0 {
            writeln!(f, "{}", Spent::BOTTLENECK)?;
        }
        let (seed, started) = (self.plan.workload.seed, self.finished.tally.started);
        write!(
            f,
            "to compare later: --verify-only DIR --seed {seed} --files {started}, and the same sizes, dialect and misbehaviour"
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_head(f)?;
        self.write_counts(f)?;
        self.write_misbehaved(f)?;
        self.write_latencies(f)?;
        self.verification.map_or(Ok(()), |found| write!(f, "\n{found}"))?;
        self.write_self(f)
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verified, compared_bytes, lost, duplicated, damaged, unexpected, open, foreign, findings } = self;
        writeln!(f, "verified      {verified:>9}  {compared_bytes} bytes compared")?;
        writeln!(f, "{lost} lost, {damaged} damaged, {duplicated} duplicated, {unexpected} unexpected")?;
        if *open > 0 {
            writeln!(f, "{open} without a known outcome are not there")?;
        }
        if *foreign > 0 {
            writeln!(f, "{foreign} names in the directory are not of this run")?;
        }
        findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::judge::{Failed, Tally};
    use crate::load::plan::{Closer, Extent, Mix, Sizes, Workload};
    use crate::proto::Dialect;

    fn plan() -> Plan {
        Plan {
            target: "127.0.0.1:9000".parse().unwrap(),
            dialect: Dialect::Line,
            site: None,
            tls: None,
            token: None,
            clients: 4,
            per_connection: 1,
            pace: Loop::Closed,
            extent: Extent::default(),
            ramp: Duration::ZERO,
            workload: Workload { seed: 9, sizes: Sizes::Range(1, 1), mix: Mix::default() },
            closer: Closer::Server,
            patience: Duration::ZERO,
        }
    }

    fn finished(tally: Tally) -> Finished {
        Finished { tally, elapsed: Duration::from_secs(2), ..Finished::default() }
    }

    #[test]
    fn the_text_shows_events_that_happened_and_no_others() {
        let mut tally =
            Tally { started: 9, sent: 8, acknowledged: 6, failed: 2, sent_bytes: 4 << 20, ..Tally::default() };
        tally.reasons.insert("reset by the server".into(), Failed { count: 2, first: 5, said: None });
        let refused = Failed { count: 1, first: 2, said: Some("TLS is required\u{1b}".into()) };
        tally.reasons.insert("refused with 426".into(), refused);
        tally.misbehaved.insert("abort", (1, 0));
        tally.stored.record(Duration::from_millis(3));
        tally.connect.record(Duration::from_millis(1));
        let spent = Spent { busy_share: 0.95, ..Spent::default() };
        let finished = Finished { spent, ..finished(tally) };
        let text = Report { plan: &plan(), finished: &finished, verification: None }.to_string();
        for words in [
            "9 files to 127.0.0.1:9000 in 2.000 s, line, closed loop of 4 clients, seed 9",
            "3.0 files/s, 2.0 MiB/s",
            "2 x reset by the server, the first was load-9-00000005\n",
            "1 x refused with 426, the first was load-9-00000002: \"TLS is required\\u{1b}\"\n",
            "abort                   1          0  stored, shorter and unverified",
            "the tester was the bottleneck",
            "--seed 9 --files 9",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let nothing = Finished { spent, ..Finished::default() };
        let text_of_nothing = Report { plan: &plan(), finished: &nothing, verification: None }.to_string();
        assert!(!text_of_nothing.contains("bottleneck"), "nothing was stored: {text_of_nothing}");
        for words in ["unheard", "never started", "verified", "slow"] {
            assert!(!text.replace("unverified", "").contains(words), "{words}: {text}");
        }
    }
}

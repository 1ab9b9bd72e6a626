//! The verdict on a run.

use super::tally::Tally;
use super::verify::Verification;

/// The verdict on a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every upload had a right ending.
    Clean,
    /// An upload failed, and the receiver did not claim otherwise.
    Failed,
    /// A confirmed file is lost, damaged or stored twice, or a file is stored that must not be.
    Broken,
}

/// The worst that happened. `found`: the findings in the receiver's directory, if it was verified.
pub fn verdict(tally: &Tally, found: Option<&Verification>) -> Verdict {
    if tally.misconfirmed > 0 || found.is_some_and(|found| !found.is_clean()) {
        Verdict::Broken
    } else if tally.failed > 0 {
        Verdict::Failed
    } else {
        Verdict::Clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_worse_than_any_failure() {
        let failed = || Tally { failed: 3, ..Tally::default() };
        let found = Verification::default;
        assert_eq!(judged(Tally { acknowledged: 5, ..Tally::default() }, Some(found())), Verdict::Clean);
        assert_eq!(judged(failed(), Some(found())), Verdict::Failed);
        assert_eq!(judged(Tally { misconfirmed: 1, ..failed() }, None), Verdict::Broken);
        for broken in [
            Verification { lost: 1, ..found() },
            Verification { damaged: 1, ..found() },
            Verification { duplicated: 1, ..found() },
            Verification { unexpected: 1, ..found() },
        ] {
            assert_eq!(judged(failed(), Some(broken)), Verdict::Broken);
        }
        let harmless = Verification { open: 1, foreign: 1, ..found() };
        assert_eq!(judged(Tally::default(), Some(harmless)), Verdict::Clean);
    }

    fn judged(tally: Tally, found: Option<Verification>) -> Verdict {
        verdict(&tally, found.as_ref())
    }
}

//! What became of files and datagrams, whether that is as it should be, and what must now be in the receiver's directory.
//!
//! Knows what was planned, and neither how it is done nor how it is reported. Only [`verify()`] reads files.

mod ending;
mod latency;
mod tally;
mod track;
mod verdict;
mod verify;

pub use ending::{Ended, Ending, Expected, Moments, Trouble, expectation, presumed};
pub use latency::{Latency, Micros, QUANTILES};
pub use tally::{Failed, Tally};
pub use track::{Counts, Returned, Track};
pub use verdict::{Verdict, verdict};
pub use verify::{Verification, await_quiet, verify};

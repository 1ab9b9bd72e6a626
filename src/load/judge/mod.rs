//! How files and datagrams ended, whether that is right, and what must now be in the receiver's directory.
//!
//! Knows the plan, but neither how it is carried out nor how it is reported. Only [`verify()`] reads files.

mod ending;
mod latency;
mod tally;
mod timeline;
mod track;
mod verdict;
mod verify;

pub use ending::{Ended, Ending, Expected, Moments, Trouble, expectation, presumed};
pub use latency::{Latency, Micros, QUANTILES};
pub use tally::{Failed, Tally};
pub use timeline::{STEP, Step, Timeline, Totals};
pub use track::{Counts, Returned, Track};
pub use verdict::{Verdict, verdict};
pub use verify::{Verification, await_quiet, verify};

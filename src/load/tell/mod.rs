//! The report of a run: in words for people, as one JSON object for programs, and as figures for conditions.
//!
//! Uses all other rooms, and judges nothing.

mod echo;
mod figures;
mod json;
mod merged;
mod page;
mod report;
mod runs;

pub use echo::DEFAULT_UDP_RATE;
pub use figures::{Condition, Figure, figures};
pub use json::{json_of, json_of_echo, json_of_verification};
pub use merged::merge;
pub use page::page;
pub use report::Report;
pub use runs::{Run, table};

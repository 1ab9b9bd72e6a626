//! Whether a head is whole, while it comes in.

use crate::proto::Refusal;

/// What a head is at its last byte.
#[derive(Debug)]
pub(super) enum Scan {
    /// Not whole yet.
    More,
    /// Whole.
    Whole,
    /// It cannot become a valid head.
    Bad(Refusal),
}

//! What a head is while it comes in.

use crate::proto::Refusal;

/// What a head is, at the byte that came last.
#[derive(Debug)]
pub(super) enum Scan {
    /// A part of one.
    More,
    /// Whole.
    Whole,
    /// Nothing that begins so can be one.
    Bad(Refusal),
}

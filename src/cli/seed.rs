//! The seed of a run that is not given one.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Makes the names and contents of different runs differ. 32 bits, which every reader of JSON takes.
pub fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

//! The seed of a run that is not given one.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A random seed, so that the names and contents of two runs differ. It has 32 bits, so that every JSON reader can read
/// it.
pub fn any_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

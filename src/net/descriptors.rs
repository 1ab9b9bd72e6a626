//! The limit on open descriptors, which run out first in a server of many connections: each connection takes one, and each
//! file another. Does not know what they are used for.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open descriptors to the hard one (`RLIMIT_NOFILE`, getrlimit(2)), and returns the new limit.
/// The soft limit is often 1024 because of select(2), which nothing here uses.
///
/// # Errors
/// The error of setrlimit(2), for example that `fs.nr_open` was lowered below the inherited hard limit.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    Ok(hard.unwrap_or(u64::MAX))
}

/// The descriptors that the process was started with, besides the standard streams. Call it before anything is opened.
/// 0 if proc(5) is not mounted.
pub fn inherited_descriptors() -> u64 {
    /// Standard input, output and error, which the server counts itself.
    const STANDARD_STREAMS: usize = 3;
    // One entry is the descriptor of the directory itself.
    let listed = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    listed.saturating_sub(1 + STANDARD_STREAMS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap();
        // Lowered by one only: other tests run in this process.
        setrlimit(Resource::Nofile, Rlimit { current: Some(hard - 1), maximum: Some(hard) }).unwrap();
        assert_eq!(raise_descriptor_limit().unwrap(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, Some(hard));
    }

    #[test]
    fn open_descriptors_are_counted() {
        // Other tests of this process open and close theirs meanwhile.
        let files: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(inherited_descriptors() >= files.len() as u64);
    }
}

//! The limit on open descriptors. It is what runs out first in a server of many connections: each takes one, and each
//! file another. Knows nothing of what they are used for.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open descriptors to the hard one (`RLIMIT_NOFILE`, getrlimit(2)) and returns the number that
/// is then in force. The soft limit is often 1024 because of select(2), which nothing here uses.
///
/// # Errors
/// What setrlimit(2) says, for example that `fs.nr_open` was lowered below the inherited hard limit.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    Ok(hard.unwrap_or(u64::MAX))
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
}

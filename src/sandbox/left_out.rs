//! The parts of the sandbox in a build without the Cargo feature `sandbox`: none holds.

/// In place of Landlock.
pub(super) mod files {
    use std::os::fd::BorrowedFd;
    use std::path::PathBuf;

    pub(in super::super) fn confine(
        _: BorrowedFd<'_>,
        _: &[PathBuf],
        _: &[PathBuf],
        _: &[PathBuf],
    ) -> Result<String, String> {
        Err("Landlock: this program was built without it".into())
    }
}

/// In place of seccomp.
pub(super) mod calls {
    pub(in super::super) fn confine() -> Result<String, String> {
        Err("seccomp: this program was built without it".into())
    }
}

//! Which files may be used (Landlock, landlock(7)).
//!
//! The kernel binds a right to a directory itself, not to its path: a directory that is moved keeps its rights, and one
//! that takes its place has none. Files that are open already stay usable.
//!
//! A right holds for everything beneath a directory. None is taken back further down, and there is only one set of rights:
//! a second one would forbid renames between directories, whatever it says.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

/// The newest Landlock that this module was tried with. What a newer one can forbid besides is not asked for.
const TRIED: ABI = ABI::V6;

/// What the store does beneath its directory. `Refer` allows renames and links from `.intake` into it.
const OF_THE_STORE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});

/// Takes all other rights to files away, and TCP and signals to other processes where the kernel can do that. Returns what
/// holds.
///
/// # Errors
/// In words: nothing holds.
pub(super) fn confine(
    directory: BorrowedFd<'_>,
    reread: &[PathBuf],
    rewrite: &[PathBuf],
    removed: &[PathBuf],
) -> Result<String, String> {
    check_kernel()?;
    let (places, written) = (directories_of(reread), directories_of(rewrite));
    let status = restrict(directory, &places, &written, &directories_of(removed))
        .map_err(|error| format!("Landlock: {error}"))?;
    let LandlockStatus::Available { effective_abi, kernel_abi } = status.landlock else {
        return Err(NO_LANDLOCK.into());
    };
    let mut words = format!("Landlock ABI {}", kernel_abi.unwrap_or(effective_abi as i32));
    for (what, places) in [("read", places), ("write", written)] {
        if !places.is_empty() {
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            words += &format!(" (may also {what} in {})", places.join(", "));
        }
    }
    Ok(words)
}

const NO_LANDLOCK: &str = "Landlock: the kernel does not have it, or its `lsm=` or a container keeps it off";

/// # Errors
/// In words: the kernel has no Landlock that the store can work in.
fn check_kernel() -> Result<(), String> {
    let has = |access: AccessFs| {
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(access).is_ok()
    };
    if !has(AccessFs::ReadFile) {
        return Err(NO_LANDLOCK.into());
    }
    // Before ABI 2 it forbids every rename between directories, and the store needs those.
    if !has(AccessFs::Refer) {
        return Err("Landlock: before Linux 5.19 it forbids renames between directories, which the store needs".into());
    }
    Ok(())
}

fn restrict(
    directory: BorrowedFd<'_>,
    read: &BTreeSet<PathBuf>,
    written: &BTreeSet<PathBuf>,
    removal: &BTreeSet<PathBuf>,
) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rule(PathBeneath::new(directory, OF_THE_STORE))?;
    for place in read {
        ruleset = allow(ruleset, place, AccessFs::ReadFile.into())?;
    }
    for place in written {
        ruleset = allow(ruleset, place, AccessFs::WriteFile | AccessFs::MakeReg)?;
    }
    for place in removal {
        ruleset = allow(ruleset, place, AccessFs::RemoveFile.into())?;
    }
    ruleset.restrict_self()
}

fn allow(ruleset: RulesetCreated, place: &Path, what: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(place) {
        Ok(place) => ruleset.add_rule(PathBeneath::new(place, what)),
        // There is no such place.
        Err(_) => Ok(ruleset),
    }
}

/// The directories of the files, and those of the files that they are links to.
fn directories_of(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let both = files.iter().flat_map(|file| [std::path::absolute(file), file.canonicalize()]);
    both.flatten().filter_map(|file| file.parent().map(Path::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::leave_out::leave_out;

    #[test]
    fn a_link_may_be_replaced_and_so_may_its_target() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let (live, archive) = (base.join("live"), base.join("archive"));
        fs::create_dir(&live).unwrap();
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join("cert1.pem"), "").unwrap();
        symlink("../archive/cert1.pem", live.join("cert.pem")).unwrap();
        let found = directories_of(&[live.join("cert.pem"), base.join("missing/file")]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [archive, live, base.join("missing")]);
    }

    /// In a thread of its own, because that thread can never read anything else any more.
    #[test]
    fn files_that_are_read_again_may_be_replaced_but_not_written() {
        let base = tempfile::tempdir().unwrap();
        let (inbox, etc) = (base.path().join("inbox"), base.path().join("etc"));
        fs::create_dir(&inbox).unwrap();
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("tokens"), "old").unwrap();
        fs::write(base.path().join("secret"), "").unwrap();
        let directory = fs::File::open(&inbox).unwrap();
        let (confined, is_confined) = std::sync::mpsc::channel();
        let (replaced, is_replaced) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let words = confine(directory.as_fd(), &[etc.join("tokens")], &[], &[]);
            confined.send(words.clone()).unwrap();
            if words.is_err() {
                return;
            }
            is_replaced.recv().unwrap();
            let denied = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::PermissionDenied;
            assert_eq!(fs::read_to_string(etc.join("tokens")).unwrap(), "new");
            assert!(denied(fs::write(etc.join("tokens"), "forged")));
            assert!(denied(fs::read_dir(&etc).map(drop)));
            assert!(denied(fs::read(etc.join("../secret")).map(drop)));
            fs::write(inbox.join("file"), "").unwrap();
            fs::create_dir(inbox.join("more")).unwrap();
            fs::rename(inbox.join("file"), inbox.join("more/file")).unwrap();
        });
        match is_confined.recv().unwrap() {
            Ok(words) => assert!(words.ends_with("/etc)"), "{words}"),
            Err(lack) => return leave_out(&lack),
        }
        fs::write(base.path().join("etc/next"), "new").unwrap();
        fs::rename(base.path().join("etc/next"), base.path().join("etc/tokens")).unwrap();
        replaced.send(()).unwrap();
        thread.join().unwrap();
    }
}

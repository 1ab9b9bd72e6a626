//! The kept files that this process owns: those of its uploads, and those that the disk is still busy with.
//!
//! The lock on a kept file excludes others, but does not tell who holds it. A request that finds the file owned by this
//! process can wait, as that ends soon. Knows names only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The names of the kept files that this process owns.
#[derive(Clone, Debug, Default)]
pub struct Owners(Arc<Mutex<BTreeMap<Box<str>, usize>>>);

/// A kept file that this process owns. The upload and the jobs of the disk share it; it is owned until the last of them
/// drops it.
#[derive(Debug)]
pub struct Owned {
    owners: Owners,
    name: Box<str>,
    has_lost: AtomicBool,
}

impl Owners {
    /// Notes that this process owns the file `name`, which the caller has locked.
    pub fn own(&self, name: &str) -> Arc<Owned> {
        // A job of an upload that was just published may still own the name.
        *self.0.lock().expect("no holder panics").entry(name.into()).or_default() += 1;
        Arc::new(Owned { owners: self.clone(), name: name.into(), has_lost: AtomicBool::new(false) })
    }

    /// Whether this process owns no kept file.
    pub fn is_empty(&self) -> bool {
        self.0.lock().expect("no holder panics").is_empty()
    }

    /// Whether this process owns the file `name`.
    pub fn has(&self, name: &str) -> bool {
        self.0.lock().expect("no holder panics").contains_key(name)
    }
}

impl Owned {
    /// Whether the disk is not busy with it.
    pub fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    /// The disk could not take some of its content: the upload is lost.
    pub fn lose(&self) {
        self.has_lost.store(true, Ordering::Relaxed);
    }

    /// Whether the disk could not take some of its content.
    pub fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::Relaxed)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut owners = self.owners.0.lock().expect("no holder panics");
        if let Some(count) = owners.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                owners.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_ours_until_the_last_one_drops_it() {
        let owners = Owners::default();
        let upload = owners.own("a");
        assert!(upload.is_idle() && owners.has("a") && !owners.has("b"));
        let job = upload.clone();
        assert!(!upload.is_idle());
        drop(upload);
        let next = owners.own("a");
        drop(job);
        assert!(owners.has("a"), "another has the name by now");
        drop(next);
        assert!(!owners.has("a"));
    }
}

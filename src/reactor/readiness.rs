//! What is worth a try: plain data, whatever reports it.

/// Which operations are worth a try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read finds bytes, the end or an error.
    pub readable: bool,
    /// A write finds room or an error.
    pub writable: bool,
}

impl Readiness {
    /// Adds what another event said. An edge is reported once, so nothing that was said before is forgotten.
    pub fn add(&mut self, other: Self) {
        self.readable |= other.readable;
        self.writable |= other.writable;
    }
}

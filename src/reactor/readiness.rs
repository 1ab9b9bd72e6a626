//! Readiness as plain data, whatever reports it.

/// The operations that are worth a try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read finds bytes, the end or an error.
    pub readable: bool,
    /// A write finds room or an error.
    pub writable: bool,
}

impl Readiness {
    /// Adds the readiness of another event. An edge is reported once, so the earlier readiness stays.
    pub fn add(&mut self, other: Self) {
        self.readable |= other.readable;
        self.writable |= other.writable;
    }
}

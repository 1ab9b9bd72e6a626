//! How much one connection may do before the next one is served.
//!
//! Reading until `WouldBlock` ends only if the peer pauses. A peer that sends as fast as it is read never does: without
//! a budget it would keep the thread to itself.

/// A number of bytes that may be spent. The last read may overdraw it, because its size is known only afterwards.
///
/// ```
/// use intake::reactor::Budget;
///
/// let (mut budget, mut flood) = (Budget::new(64 << 10), std::iter::repeat(48 << 10));
/// while !budget.is_spent() {
///     budget.spend(flood.next().unwrap());
/// }
/// assert_eq!(budget.spent_bytes(), 96 << 10);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    limit_bytes: usize,
    spent_bytes: usize,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { limit_bytes: bytes, spent_bytes: 0 }
    }

    /// Spends `bytes` of it.
    pub fn spend(&mut self, bytes: usize) {
        self.spent_bytes = self.spent_bytes.saturating_add(bytes);
    }

    /// The bytes spent so far.
    pub fn spent_bytes(self) -> usize {
        self.spent_bytes
    }

    /// Whether nothing is left.
    pub fn is_spent(self) -> bool {
        self.spent_bytes >= self.limit_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spent_once_and_may_be_overdrawn() {
        let mut budget = Budget::new(10);
        budget.spend(9);
        assert!(!budget.is_spent());
        budget.spend(5);
        assert!(budget.is_spent());
        assert_eq!(budget.spent_bytes(), 14);
    }
}

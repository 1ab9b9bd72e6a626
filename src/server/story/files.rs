//! The counts of files since the start, by what became of them and by how they were sent.

use super::ending::CloseReason;
use super::{Ear, Fact, Whom};
use crate::proto::Dialect;

/// What has become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored, or was stored already.
    Stored,
    /// The server has refused it, or cut it off.
    Refused,
    /// Its connection was lost before it was stored. The client may resume it.
    Lost,
}

impl Fate {
    /// All fates, by their names.
    pub const WORDS: [(&str, Self); 3] = [("stored", Self::Stored), ("refused", Self::Refused), ("lost", Self::Lost)];
}

/// How many files had which fate.
#[derive(Clone, Debug, Default)]
pub struct Files([[u64; Dialect::ALL.len()]; Fate::WORDS.len()]);

impl Files {
    /// How many files that were sent in `dialect` had this fate.
    pub fn count(&self, fate: Fate, dialect: Dialect) -> u64 {
        self.0[fate as usize][dialect as usize]
    }

    fn count_one(&mut self, fate: Fate, dialect: Dialect) {
        self.0[fate as usize][dialect as usize] += 1;
    }
}

impl Ear for Files {
    fn hear(&mut self, _: &Whom, fact: &Fact) {
        match *fact {
            Fact::Stored { filed, .. } | Fact::StoredForNobody { filed, .. } => {
                self.count_one(Fate::Stored, filed.dialect);
            }
            Fact::LostForNobody { filed, .. } => self.count_one(Fate::Lost, filed.dialect),
            Fact::Refused { name: Some(_), dialect, .. }
            | Fact::Closed { reason: CloseReason::Refused(_, Some(_)), dialect, .. } => {
                self.count_one(Fate::Refused, dialect);
            }
            Fact::Closed { reason: CloseReason::Lost(_), uploading: Some(_), dialect, .. } => {
                self.count_one(Fate::Lost, dialect);
            }
            _ => {}
        }
    }
}

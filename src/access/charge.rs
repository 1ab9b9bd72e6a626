//! What one upload was charged for.

use std::sync::Arc;

use super::quota::Day;
use super::tokens::Token;
use crate::proto::{Code, Refusal};
use crate::reactor::Source;

/// What an upload was charged for. If the upload fails, give it back ([`super::Access::give_back`]).
#[derive(Clone, Debug)]
pub struct Charge {
    pub(super) token: Option<Arc<Token>>,
    pub(super) source: Source,
    /// What of the day of the token is for this upload.
    pub(super) of_name: Day,
    /// What of the day of the source is for this upload.
    pub(super) of_source: Day,
    /// The size of the file as far as it is known, in bytes.
    pub(super) file_bytes: u64,
    /// The size was told, and all of it is charged.
    pub(super) is_whole: bool,
}

impl Charge {
    /// Nothing is charged yet.
    pub(super) fn new(token: Option<Arc<Token>>, source: Source) -> Self {
        let (of_name, of_source) = (Day::default(), Day::default());
        Self { token, source, of_name, of_source, file_bytes: 0, is_whole: false }
    }

    /// The file has so many bytes, or will have.
    ///
    /// # Errors
    /// 413 if the token allows no file of this size.
    pub(super) fn grow_to(&mut self, file_bytes: u64) -> Result<(), Refusal> {
        let max = self.token.as_ref().and_then(|token| token.max_file_size());
        if let Some(max) = max.filter(|max| file_bytes > *max) {
            let words = format!("the file is larger than {max} bytes, the most that is allowed with this token");
            return Err(Refusal::new(Code::TOO_LARGE, words));
        }
        self.file_bytes = file_bytes;
        Ok(())
    }

    /// The file has `offset` bytes from earlier requests, which are charged already.
    pub fn continue_at(&mut self, offset: u64) {
        self.file_bytes = offset;
    }

    /// The upload continues, although its first piece has failed: only the bytes are to be given back.
    pub fn keep_upload(&mut self) {
        self.of_name.keep_uploads();
        self.of_source.keep_uploads();
    }

    /// Whether content is charged as it comes, because its size was not known.
    pub fn grows(&self) -> bool {
        !self.is_whole
    }
}

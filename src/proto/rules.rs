//! The rules of a server for requests.
//!
//! Values, and refusals with their reasons. Does not know the conversation.

use super::{Code, NamePolicy, OnExists, Refusal, Request, Web};

/// The rules of all conversations of a server. They are passed to each call, so that no conversation holds a copy.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The policy for names.
    pub names: NamePolicy,
    /// What to do if a name is taken and the request does not say.
    pub on_exists: OnExists,
    /// Accept only uploads whose end differs from a broken connection.
    pub require_size: bool,
    /// Each request that would write is judged before anything else is done about it ([`super::Event::Judge`]).
    pub needs_token: bool,
    /// The largest file, in bytes.
    pub max_file_size: Option<u64>,
    /// How long an upload is kept that nobody resumes, in seconds. 0: clients are not told.
    pub upload_ttl_seconds: u64,
    /// The visitors that HTTP serves, and the page.
    pub web: Web,
    /// The two sides have agreed on HTTP (ALPN), so nothing else may be said.
    pub only_http: bool,
    /// The time of day for HTTP answers, in seconds since the epoch.
    pub now: u64,
    /// The server is shutting down: running uploads finish, and further requests are refused.
    pub is_draining: bool,
}

impl Rules {
    /// The refusal of `request`, if it is forbidden.
    pub(super) fn forbid(&self, request: &Request) -> Option<Refusal> {
        let replaces = request.on_exists == Some(OnExists::Replace) && self.on_exists != OnExists::Replace;
        if self.require_size && !request.dialect.is_framed() {
            let words =
                "this server takes uploads of a known size only: /put size=BYTES NAME, a line feed, the content";
            Some(Refusal::new(Code::FORBIDDEN, words))
        } else if self.is_too_large(request.size.unwrap_or(0)) {
            Some(self.too_large())
        } else if replaces {
            Some(Refusal::new(Code::FORBIDDEN, "this server replaces no files; ask for rename or refuse"))
        } else {
            None
        }
    }

    /// Whether a file of `size` bytes is larger than the server accepts.
    pub(super) fn is_too_large(&self, size: u64) -> bool {
        self.max_file_size.is_some_and(|max| size > max)
    }

    /// How much larger a file of `size` bytes may become, in bytes.
    pub(super) fn size_left(&self, size: u64) -> u64 {
        self.max_file_size.map_or(u64::MAX, |max| max.saturating_sub(size))
    }

    /// The refusal of a file that is too large.
    pub(super) fn too_large(&self) -> Refusal {
        let max = self.max_file_size.unwrap_or(u64::MAX);
        Refusal::new(Code::TOO_LARGE, format!("the file is larger than {max} bytes, the most that this server takes"))
    }
}

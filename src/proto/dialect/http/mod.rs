//! HTTP/1.1 (RFC 9110, RFC 9112), as another spelling of the same uploads.

pub(super) mod client;

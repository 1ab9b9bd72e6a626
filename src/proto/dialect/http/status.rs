//! The statuses of answers: the codes of refusals, and some that only HTTP has.
//!
//! The codes are HTTP's already, so a code is its own status. Knows the phrases, not when they are said.

use crate::proto::Code;

/// Nothing but the upload page can be fetched here.
pub(super) const NOT_ALLOWED: Code = Code(405);
/// The checksum of a piece does not match (tus).
pub(in crate::proto::dialect) const CHECKSUM: Code = Code::CHECKSUM;
/// Neither a length nor chunks: where the content would end is not known.
pub(super) const LENGTH_REQUIRED: Code = Code(411);
/// Content that would have to be decoded.
pub(super) const UNSUPPORTED_CONTENT: Code = Code(415);
/// An expectation that is not `100-continue`.
pub(super) const EXPECTATION_FAILED: Code = Code(417);
/// A host name that is not this server's.
pub(super) const MISDIRECTED: Code = Code(421);
/// The head is too long.
pub(super) const HEAD_TOO_LARGE: Code = Code(431);
/// A transfer coding other than chunked.
pub(super) const NOT_IMPLEMENTED: Code = Code(501);
/// Neither HTTP/1.1 nor HTTP/1.0.
pub(super) const VERSION: Code = Code(505);

/// The phrases of RFC 9110, 15, and RFC 6585 (431) and RFC 4918 (507).
pub(super) fn phrase(status: Code) -> &'static str {
    match status.0 {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        460 => "Checksum Mismatch",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

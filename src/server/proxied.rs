//! What is known of the client of a connection that a proxy has made.
//!
//! Values only.

use crate::proto::ProxyHeader;

/// What is known of the client behind a proxy.
#[derive(Debug)]
pub enum Proxied {
    /// The header has not come, or not all of it.
    Awaited(ProxyHeader),
    /// There is no client, or none that may send.
    Nobody,
    /// The client has this connection's address.
    Known,
    /// The proxy has not told the client's address, so the connection has the proxy's own.
    Hidden,
}

//! What HTTP has to know about its server: its names, the web pages that may upload to it, and its own page.
//!
//! Values only.

use std::borrow::Cow;

/// The hosts and origins that HTTP serves, and the upload page.
#[derive(Clone, Debug, Default)]
pub struct Web {
    /// Names of this host, without a port, besides its addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Origins of web pages that may upload here: `https://app.example`, with the port unless it is the scheme's own.
    pub origins: Vec<String>,
    /// What `GET /` shows.
    pub page: Option<Page>,
}

/// The upload page.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTML, in UTF-8.
    pub html: Cow<'static, str>,
    /// What it may load and run: the value of Content-Security-Policy.
    pub policy: String,
}

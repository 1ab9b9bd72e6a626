//! What HTTP needs to know of its server: its names, whose pages may write to it, and its own page.
//!
//! Values only.

use std::borrow::Cow;

/// Whom HTTP serves, and with which page.
#[derive(Clone, Debug, Default)]
pub struct Web {
    /// Names of this host, without a port. It answers to its addresses and to `localhost` besides.
    pub hosts: Vec<String>,
    /// Origins of pages that may write here: `https://app.example`, with the port unless it is the scheme's own.
    pub origins: Vec<String>,
    /// What `GET /` shows.
    pub page: Option<Page>,
}

/// The page on which files are dropped.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTML, in UTF-8.
    pub html: Cow<'static, str>,
    /// What it may load and run: the value of Content-Security-Policy.
    pub policy: String,
}

//! The upload page, and its policy.
//!
//! The page is one file, and runs only its own script: its policy (Content Security Policy Level 3) has the digest of that
//! script, so that no injected one runs. Does not know who requests it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::proto::Page;

const HTML: &str = include_str!("page.html");

/// The page of this version.
pub fn page() -> Page {
    Page { html: HTML.into(), policy: policy(HTML) }
}

/// The policy allows the script and the style in the page, requests to its own origin, and images in the page itself. No
/// other page may show it in a frame.
fn policy(html: &str) -> String {
    let (script, style) = (sources(html, "script"), sources(html, "style"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
}

/// The digests of all elements `name`, as a list of sources.
fn sources(html: &str, name: &str) -> String {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    let elements = html.split(&begin).skip(1).filter_map(|rest| rest.split(&end).next());
    let digests: Vec<String> =
        elements.map(|element| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(element)))).collect();
    if digests.is_empty() { "'none'".into() } else { digests.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_by_its_digest() {
        // The example of CSP Level 3, 8.4, "usage of hash".
        let policy = policy("<script>alert('Hello, world.');</script><p>");
        assert!(policy.contains("script-src 'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='; style-src 'none';"));
    }

    #[test]
    fn the_page_needs_nothing_that_its_policy_forbids() {
        for element in ["script", "style"] {
            let begun = HTML.matches(&format!("<{element}")).count();
            let plain = HTML.matches(&format!("<{element}>")).count();
            assert_eq!((begun, plain), (1, 1), "a {element} with attributes has no digest");
        }
        for forbidden in
            [" style=\"", " onclick=", " onload=", "src=\"http", "href=\"http", "@import", "name=\"referrer\""]
        {
            assert!(!HTML.contains(forbidden), "{forbidden}");
        }
        assert!(HTML.contains("multipart/form-data"), "without script a form works");
    }
}

//! Which web pages may upload here through the browser of a visitor.
//!
//! Any web page can have the browser send a form to any address, without asking the visitor. And if the owner of a name lets
//! it resolve to this server's address (DNS rebinding), the browser takes the owner's pages for pages of this server. So the
//! host of a request must be an address or `localhost`, which need not be resolved, or a name that the operator has given.
//! And the origin that the browser reports for the page is checked.
//!
//! Other programs report no page, and their host is the one that they connect to.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::head::{Fields, bad};
use super::status;
use crate::proto::{Code, Refusal, Web};

/// Checks that the request is for this server. `authority`: of a target in absolute form. Returns the host, port included.
///
/// # Errors
/// 400 where it is missing, there twice or malformed, 421 where it is another's.
pub(super) fn host<'h>(fields: &Fields<'h>, authority: Option<&str>, web: &Web) -> Result<&'h str, Refusal> {
    let host = fields.text("Host")?.ok_or_else(|| bad("a request has one Host"))?;
    let name = host_name(host).ok_or_else(|| bad("Host is HOST or HOST:PORT"))?;
    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
        return Err(bad("the target and Host name different hosts"));
    }
    let is_known = |known: &String| known.eq_ignore_ascii_case(name);
    if is_address(name) || name.eq_ignore_ascii_case("localhost") || web.hosts.iter().any(is_known) {
        return Ok(host);
    }
    let words = "this server answers to its address and to localhost; --http-host NAME of `intake serve` adds a name";
    Err(Refusal::new(status::MISDIRECTED, words))
}

/// `host` without its port, if it is well formed.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            (&host[..end + 2], &rest[end + 1..])
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_well_formed = if name.starts_with('[') { is_address(name) } else { name.bytes().all(is_name) };
    let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    (!name.is_empty() && is_well_formed && has_port).then_some(name)
}

/// Whether it is an address, which needs no resolving. A zone may follow an IPv6 address.
fn is_address(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => name.parse::<Ipv4Addr>().is_ok(),
    }
}

/// What a browser says of the page that asks. Returns the page's origin, if the operator allows it.
///
/// `is_safe`: the request changes nothing, so that a link from elsewhere may lead to it.
///
/// # Errors
/// 403 for a page of another origin.
pub(super) fn origin<'h>(
    fields: &Fields<'h>,
    host: &str,
    is_safe: bool,
    web: &Web,
) -> Result<Option<&'h str>, Refusal> {
    let origin = fields.text("Origin")?;
    let is_allowed = |origin: &&str| web.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    if let Some(allowed) = origin.filter(is_allowed) {
        return Ok(Some(allowed));
    }
    let is_own = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    let site = fields.text("Sec-Fetch-Site")?.unwrap_or("none");
    let is_elsewhere = site.eq_ignore_ascii_case("cross-site") || site.eq_ignore_ascii_case("same-site");
    if is_safe || origin.is_none_or(is_own) && !is_elsewhere {
        return Ok(None);
    }
    let words = "a page of another origin may not write here; --allow-origin ORIGIN of `intake serve` lets it";
    Err(Refusal::new(Code::FORBIDDEN, words))
}

#[cfg(test)]
mod tests {
    use super::super::head::Parsed;
    use super::*;

    fn web() -> Web {
        Web { hosts: vec!["Drop.example".into()], origins: vec!["https://app.example".into()], ..Web::default() }
    }

    fn host_of(fields: &str, authority: Option<&str>) -> Result<String, u16> {
        let head = format!("PUT /a HTTP/1.1\r\n{fields}\r\n");
        let parsed = Parsed::read(head.as_bytes()).unwrap_or_else(|refusal| panic!("{fields}: {refusal:?}"));
        host(&parsed.fields, authority, &web()).map(str::to_owned).map_err(|refusal| refusal.code.0)
    }

    #[test]
    fn a_host_is_an_address_localhost_or_a_name_that_was_given() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9000",
            "127.0.0.1:",
            "[::1]",
            "[::1]:9000",
            "[fe80::1%25eth0]:9000",
            "localhost",
            "LocalHost:80",
            "drop.EXAMPLE:9000",
        ] {
            assert_eq!(host_of(&format!("Host: {host}\r\n"), None), Ok(host.to_owned()));
        }
        for host in ["evil.example", "localhost.", "127.1", "0x7f000001", "1.2.3.4.evil.example", "127.0.0.1.", "drop"]
        {
            assert_eq!(host_of(&format!("Host: {host}\r\n"), None), Err(421), "{host}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_a_broken_request() {
        for fields in [
            "",
            "Host:\r\n",
            "Host: a\r\nHost: a\r\n",
            "Host: a b\r\n",
            "Host: a,b\r\n",
            "Host: user@127.0.0.1\r\n",
            "Host: 127.0.0.1:x\r\n",
            "Host: 127.0.0.1:123456\r\n",
            "Host: 127.0.0.1:80:80\r\n",
            "Host: ::1\r\n",
            "Host: [::1\r\n",
            "Host: [::1]x\r\n",
            "Host: [evil]\r\n",
            "Host: :80\r\n",
            "Host: 127.0.0.1/\r\n",
            "Host: http://127.0.0.1\r\n",
            "Host: \u{e9}\r\n",
        ] {
            assert_eq!(host_of(fields, None), Err(400), "{fields}");
        }
        let fields = "Host: 127.0.0.1:9000\r\n";
        assert!(host_of(fields, Some("127.0.0.1:9000")).is_ok());
        for other in ["127.0.0.1", "evil.example", "user@127.0.0.1:9000", ""] {
            assert_eq!(host_of(fields, Some(other)), Err(400), "{other}");
        }
    }

    fn origin_of(fields: &str, is_safe: bool) -> Result<Option<String>, u16> {
        let head = format!("PUT /a HTTP/1.1\r\n{fields}\r\n");
        let parsed = Parsed::read(head.as_bytes()).unwrap_or_else(|refusal| panic!("{fields}: {refusal:?}"));
        let origin = origin(&parsed.fields, "127.0.0.1:9000", is_safe, &web());
        origin.map(|origin| origin.map(str::to_owned)).map_err(|refusal| refusal.code.0)
    }

    #[test]
    fn a_page_of_another_origin_may_not_write_here() {
        for (fields, expected) in [
            ("", Ok(None)),
            ("Origin: http://127.0.0.1:9000\r\n", Ok(None)),
            ("Origin: https://127.0.0.1:9000\r\nSec-Fetch-Site: same-origin\r\n", Ok(None)),
            ("Sec-Fetch-Site: none\r\n", Ok(None)),
            ("Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n", Ok(Some("https://app.example".into()))),
            ("Origin: https://app.example.evil\r\n", Err(403)),
            ("Origin: http://127.0.0.1\r\n", Err(403)),
            ("Origin: http://127.0.0.1:9001\r\n", Err(403)),
            ("Origin: null\r\n", Err(403)),
            ("Origin:\r\n", Err(403)),
            ("Sec-Fetch-Site: cross-site\r\n", Err(403)),
            ("Sec-Fetch-Site: same-site\r\n", Err(403)),
            ("Origin: http://127.0.0.1:9000\r\nSec-Fetch-Site: Cross-Site\r\n", Err(403)),
            ("Origin: http://127.0.0.1:9000\r\nOrigin: http://127.0.0.1:9000\r\n", Err(400)),
        ] {
            assert_eq!(origin_of(fields, false), expected, "{fields}");
        }
        assert_eq!(origin_of("Sec-Fetch-Site: cross-site\r\n", true), Ok(None), "a link may lead to the page");
    }
}

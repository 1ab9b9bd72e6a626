//! The token of a request: `Authorization: Bearer TOKEN` (RFC 6750), or as the password of Basic (RFC 7617), for which
//! browsers ask. The user of Basic does not matter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::head::Fields;
use crate::proto::Credential;

/// What a refused client is told: how to show a token.
pub(super) const CHALLENGES: &str = "Basic realm=\"intake\", charset=\"UTF-8\", Bearer realm=\"intake\"";

/// The token that is shown. Whatever cannot be read is a wrong one. `None`: none is shown, or in a way that is not asked for.
pub(super) fn read(fields: &Fields) -> Option<Credential> {
    let mut values = fields.all("Authorization");
    let value = values.next()?.trim_ascii();
    if values.next().is_some() {
        return Some(wrong());
    }
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = (&value[..end], value[end..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Some(Credential::of(rest));
    }
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return None;
    }
    let pair = STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':');
    Some(colon.map_or_else(wrong, |colon| Credential::of(&pair[colon + 1..])))
}

/// No token is empty.
fn wrong() -> Credential {
    Credential::of(b"")
}

#[cfg(test)]
mod tests {
    use super::super::head::Parsed;
    use super::*;

    fn shown(fields: &str) -> Option<Credential> {
        let head = format!("PUT /a HTTP/1.1\r\n{fields}\r\n");
        read(&Parsed::read(head.as_bytes()).unwrap_or_else(|refusal| panic!("{fields}: {refusal:?}")).fields)
    }

    #[test]
    fn a_token_is_a_bearer_or_a_password() {
        let of = |token: &str| Some(Credential::of(token.as_bytes()));
        let basic = |pair: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(pair));
        for (fields, expected) in [
            (String::new(), None),
            ("Authorization: Bearer abc\r\n".into(), of("abc")),
            ("authorization: bearer  abc\r\n".into(), of("abc")),
            ("Authorization: Bearer\r\n".into(), of("")),
            (basic("user:abc"), of("abc")),
            (basic(":abc"), of("abc")),
            (basic("user:a:b"), of("a:b")),
            (basic("abc"), of("")),
            ("Authorization: Digest x\r\n".into(), None),
            ("Authorization: Bearer abc\r\nAuthorization: Bearer abc\r\n".into(), of("")),
        ] {
            assert_eq!(shown(&fields), expected, "{fields}");
        }
    }
}

//! The grammar of classic and line: a bare name is the whole head.
//!
//! The request has no attributes. With a line feed after the name it is the line dialect. If the burst ends without one, it is
//! the classic dialect of the tutorials, which does not mark the end of the name.

use super::grammar::{Grammar, Head, Shape};
use super::manners::Dialect;
use crate::proto::{Code, Name, NameError, Refusal, Request, Rules};

pub(super) const GRAMMAR: Grammar = Grammar {
    reads: |_, _| true,
    may_follow: Err("after a /put or /ask only /put, /ask or /bye may come"),
    speaks: Dialect::Line,
    cut_off: "the stream ended before the line did; end it with a line feed, or wait for ok after a bare name",
    shape: Shape::Line { ends_with_burst: true, refuse_early },
    read,
};

/// The refusal of a head that cannot become a name.
fn refuse_early(head: &[u8]) -> Option<Refusal> {
    if head.starts_with(TLS_HANDSHAKE) {
        return Some(Refusal::new(
            Code::BAD_REQUEST,
            "TLS is not spoken here; send in clear, or start the server with --tls-cert",
        ));
    }
    // The CR of a CR LF is not part of the name.
    let name = head.strip_suffix(b"\r").unwrap_or(head);
    (name.len() > Name::MAX_BYTES).then(|| Refusal::new(Code::FORBIDDEN, NameError::TooLong.to_string()))
}

fn read(head: &[u8], by_burst: bool, rules: &Rules) -> Head {
    let dialect = if by_burst { Dialect::Classic } else { Dialect::Line };
    let bad = |words: String| Head::Bad(Refusal::new(Code::FORBIDDEN, words), Dialect::Line.into());
    if let Some(protocol) = other_protocol(head) {
        return bad(format!("{protocol} is not spoken here; send the base name"));
    }
    match Name::parse(head, rules.names) {
        Ok(name) => Head::Upload(Request::until_end_of_stream(dialect, name), dialect.into()),
        Err(error) => bad(error.to_string()),
    }
}

/// The first byte of a TLS ClientHello (RFC 8446, 5.1), which is in no name.
const TLS_HANDSHAKE: &[u8] = b"\x16";

/// What clients of other protocols send first, if they do not wait for the server. None of it is a likely file name.
const GREETINGS: [(&[u8], &str); 11] = [
    (b"PROXY TCP4 ", "the PROXY protocol"),
    (b"PROXY TCP6 ", "the PROXY protocol"),
    (b"PROXY UNKNOWN", "the PROXY protocol"),
    (b"SSH-2.0-", "SSH"),
    (b"SSH-1.", "SSH"),
    (b"EHLO ", "SMTP"),
    (b"HELO ", "SMTP"),
    (b"LHLO ", "SMTP"),
    (b"CONNECT {", "NATS"),
    (b"AMQP\0", "AMQP"),
    (b"\x13BitTorrent protocol", "BitTorrent"),
];

/// Whole lines of other protocols.
const COMMANDS: [(&[u8], &str); 3] = [(b"PING", "Redis"), (b"EHLO", "SMTP"), (b"HELO", "SMTP")];

/// The protocol whose greeting `head` is, if it is one.
fn other_protocol(head: &[u8]) -> Option<&'static str> {
    let greeting = GREETINGS.iter().find(|(greeting, _)| head.starts_with(greeting));
    let command = COMMANDS.iter().find(|(command, _)| head == *command);
    match greeting.or(command) {
        Some((_, protocol)) => Some(protocol),
        None if is_redis_array(head) => Some("Redis"),
        None if is_syslog(head) => Some("syslog"),
        None => None,
    }
}

/// `*1`, as Redis clients begin a command.
fn is_redis_array(head: &[u8]) -> bool {
    head.strip_prefix(b"*").is_some_and(|count| !count.is_empty() && count.iter().all(u8::is_ascii_digit))
}

/// `<34>Oct 11 …`, a syslog message with its priority (RFC 3164, RFC 6587).
fn is_syslog(head: &[u8]) -> bool {
    let digits = head.strip_prefix(b"<").map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
    (1..=3).contains(&digits) && head.get(1 + digits) == Some(&b'>') && head.len() > digits + 2
}

pub(super) fn spell_request(dialect: Dialect, request: &Request, out: &mut Vec<u8>) {
    out.extend_from_slice(request.name.as_str().as_bytes());
    end_line(dialect, out);
}

/// A classic client compares what it reads with these two bytes, and stops at anything else.
pub(super) fn spell_ok(dialect: Dialect, out: &mut Vec<u8>) {
    out.extend_from_slice(b"ok");
    end_line(dialect, out);
}

fn end_line(dialect: Dialect, out: &mut Vec<u8>) {
    if dialect != Dialect::Classic {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(head: &[u8]) -> Option<String> {
        match read(head, false, &Rules::default()) {
            Head::Bad(refusal, _) => Some(refusal.words.into_owned()),
            _ => None,
        }
    }

    #[test]
    fn the_greetings_of_other_protocols_are_refused_by_their_name() {
        for (head, protocol) in [
            (&b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 9000"[..], "the PROXY protocol"),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 9000", "the PROXY protocol"),
            (b"PROXY UNKNOWN", "the PROXY protocol"),
            (b"SSH-2.0-OpenSSH_9.2p1", "SSH"),
            (b"EHLO mail.example", "SMTP"),
            (b"HELO", "SMTP"),
            (b"PING", "Redis"),
            (b"*1", "Redis"),
            (b"<34>Oct 11 22:14:15 host su: x", "syslog"),
            (b"CONNECT {\"verbose\":false}", "NATS"),
        ] {
            let expected = format!("{protocol} is not spoken here; send the base name");
            assert_eq!(refusal(head), Some(expected), "{}", head.escape_ascii());
        }
        let hello = refuse_early(b"\x16\x03").expect("it is refused at its first byte");
        assert!(hello.words.starts_with("TLS "), "{}", hello.words);
    }

    #[test]
    fn names_that_only_look_a_little_like_them_are_taken() {
        for name in
            ["PING.txt", "ping", "PROXY", "PROXY.log", "SSH-keys", "HELO.wav", "EHLOs", "*.txt", "*", "<3>", "<b>x"]
        {
            assert_eq!(refusal(name.as_bytes()), None, "{name}");
        }
        for name in ["HTTP-1.1.pdf", "a HTTP note", "<34", "<1234>x", "SSH-2"] {
            assert_eq!(refusal(name.as_bytes()), None, "{name}");
        }
    }
}

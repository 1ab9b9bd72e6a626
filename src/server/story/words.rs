//! A scene in words, for people. What a peer sent is quoted and escaped, so that it cannot forge a line.

use std::fmt;

use super::scene::{Scene, Side, excerpt};
use crate::net::diag::Tcp;
use crate::net::tls::Agreed;
use crate::proto::{Awaits, Event, Farewell, Origin, Refusal, Request};
use crate::server::pace::Lapse;

impl fmt::Display for Scene<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { local: Some(local) } => write!(f, "accepted on {local}"),
            Self::Accepted { local: None } => write!(f, "accepted"),
            Self::Proxied(Origin::Proxy) => write!(f, "PROXY header: a check of the proxy itself"),
            Self::Proxied(Origin::Unknown) => write!(f, "PROXY header: a client that the proxy does not name"),
            Self::Proxied(Origin::Client { source, destination, .. }) => {
                write!(f, "PROXY header: the client is {source}, which has connected to {destination}")
            }
            Self::Named(who) => write!(f, "the client is {who}"),
            Self::Secured(Agreed { version, cipher, protocol }) => {
                write!(f, "TLS: {version}, {cipher}")?;
                protocol.as_ref().map_or(Ok(()), |protocol| write!(f, ", for {protocol}"))
            }
            Self::Event(flags) => write!(f, "event: {}", flags.names().collect::<Vec<_>>().join(", ")),
            Self::Read { bytes, room } => write!(f, "read {bytes} bytes, with room for {room}"),
            Self::Spliced { bytes } => write!(f, "spliced {bytes} bytes of content, unseen"),
            Self::ReadEnd => write!(f, "read the end: the client sends no more"),
            Self::ReadWouldBlock => write!(f, "read: WouldBlock, there is no more for now"),
            Self::LowWater { bytes: 1 } => write!(f, "low-water mark: the kernel wakes us at any byte again"),
            Self::LowWater { bytes } => {
                write!(f, "low-water mark: small reads, so the kernel now wakes us only from {bytes} bytes on")
            }
            Self::Wrote(bytes) => write!(f, "wrote {} bytes: {:?}", bytes.len(), excerpt(bytes)),
            Self::WriteWouldBlock => write!(f, "write: WouldBlock, the client has to read first"),
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::Heard(event) => heard(event, f),
            Self::State { from, to } => write!(f, "waits for {} -> {}", awaited(*from), awaited(*to)),
            Self::Held { offset, result: Ok(()) } => {
                write!(f, "the disk has the first {offset} bytes, to be resumed")
            }
            Self::Held { result: Err(error), .. } => write!(f, "the disk does not have what is held: {error}"),
            Self::Settled(Ok(name)) => write!(f, "the disk has it, as {name:?}"),
            Self::Settled(Err(error)) => write!(f, "the disk does not have it: {error}"),
            Self::Lapsed(lapse) => write!(f, "deadline: {}", lapsed(*lapse)),
            Self::Yielded { spent_bytes } => write!(f, "back in the queue after {spent_bytes} bytes, others first"),
            Self::Parting(Farewell::Close) => write!(f, "all is said: to be closed"),
            Self::Parting(Farewell::Reset) => write!(f, "to be closed with a reset"),
            Self::Parting(Farewell::Linger) => write!(f, "all is said: our side is shut down, what comes is discarded"),
            Self::Kernel(Ok(tcp)) if tcp.is_closed() => write!(f, "kernel: CLOSED, it knows of no such connection"),
            Self::Kernel(Ok(tcp)) => {
                let Tcp { state, unread, unacknowledged, .. } = tcp;
                write!(f, "kernel: {state}, {unread} unread, {unacknowledged} unacknowledged")?;
                if tcp.info.is_some() { write!(f, ", window {}", tcp.window()) } else { Ok(()) }
            }
            Self::Kernel(Err(error)) => write!(f, "kernel: left out from now on, as it does not answer: {error}"),
            Self::Closed { reason, first } => {
                let first = if *first == Side::Client { "the client ended" } else { "we ended" };
                write!(f, "closed: {}; {first} first", excerpt(reason.to_string().as_bytes()))
            }
        }
    }
}

fn heard(event: &Event, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        Event::Request(Request { dialect, name, size, .. }) => {
            write!(f, "request, {}: {name:?}", dialect.word())?;
            size.map_or(Ok(()), |size| write!(f, ", {size} bytes"))
        }
        Event::Judge(Some(_)) => write!(f, "a request, and a token"),
        Event::Judge(None) => write!(f, "a request, and no token"),
        Event::Content(bytes) => write!(f, "{} bytes of content", bytes.len()),
        Event::ById(what) => write!(f, "asked to {}", what.what()),
        Event::EndOfPiece => write!(f, "the piece has come"),
        Event::End(whole) => write!(f, "the content is whole: {} bytes", whole.size),
        Event::Failed(Refusal { code, words, .. }) => write!(f, "the upload has failed: {} {words}", code.0),
        Event::Refused(Refusal { code, words, .. }, _) | Event::NotARequest(Refusal { code, words, .. }, _) => {
            write!(f, "refused: {} {words}", code.0)
        }
        Event::Answered(what) => write!(f, "asked for {what}"),
        Event::Discarded(count) => write!(f, "{count} bytes discarded"),
    }
}

/// What a connection waits for, in words.
pub fn awaited(awaits: Awaits) -> &'static str {
    match awaits {
        Awaits::Header => "a name",
        Awaits::RestOfHeader => "the rest of the request",
        Awaits::RestOfName => "the rest of the name",
        Awaits::FirstContent => "the first of the content",
        Awaits::Content => "content",
        Awaits::NextRequest => "the next request",
        Awaits::Answer => "our answer, reading nothing",
        Awaits::Settlement => "our answer, reading on",
        Awaits::EndOfStream => "the end",
    }
}

fn lapsed(lapse: Lapse) -> &'static str {
    match lapse {
        Lapse::Header => "the name or the line did not come in time",
        Lapse::Burst => "nothing more has come, so the name is whole",
        Lapse::Grace => "a client that says nothing may be waiting for ok",
        Lapse::Idle => "the client was silent for too long",
        Lapse::RateWindow => "the rate of the last minute is looked at",
        Lapse::Disk => "the disk may have read what was not there yet",
        Lapse::Linger => "a client that was told the last word did not go",
    }
}

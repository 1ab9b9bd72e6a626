//! A scene as a JSON object, for programs. `scene` names it; states are spelled as in the code.

use serde_json::{Value, json};

use super::scene::{Scene, Side, excerpt};
use crate::net::tls::Agreed;
use crate::proto::{Event, Origin, Refusal, Request};

/// The scene as an object.
pub fn object(scene: &Scene) -> Value {
    match scene {
        Scene::Accepted { local } => json!({ "scene": "accepted", "local": local.map(|local| local.to_string()) }),
        Scene::Proxied(Origin::Proxy) => json!({ "scene": "proxied", "origin": "proxy" }),
        Scene::Proxied(Origin::Unknown) => json!({ "scene": "proxied", "origin": "unknown" }),
        Scene::Proxied(Origin::Client { source, destination, .. }) => json!({
            "scene": "proxied",
            "origin": "client",
            "source": source.to_string(),
            "destination": destination.to_string(),
        }),
        Scene::Named(who) => json!({ "scene": "named", "who": who.as_str() }),
        Scene::Secured(Agreed { version, cipher, protocol }) => {
            json!({ "scene": "secured", "version": version, "cipher": cipher, "protocol": protocol })
        }
        Scene::Event(flags) => json!({ "scene": "event", "flags": flags.names().collect::<Vec<_>>() }),
        Scene::Read { bytes, room } => json!({ "scene": "read", "bytes": bytes, "room": room }),
        Scene::Spliced { bytes } => json!({ "scene": "spliced", "bytes": bytes }),
        Scene::ReadEnd => json!({ "scene": "read_end" }),
        Scene::ReadWouldBlock => json!({ "scene": "read_would_block" }),
        Scene::LowWater { bytes } => json!({ "scene": "low_water", "bytes": bytes }),
        Scene::Wrote(bytes) => json!({ "scene": "wrote", "bytes": bytes.len(), "text": excerpt(bytes) }),
        Scene::WriteWouldBlock => json!({ "scene": "write_would_block" }),
        Scene::Failed(error) => json!({ "scene": "failed", "error": error.to_string() }),
        Scene::Heard(event) => heard(event),
        Scene::State { from, to } => {
            json!({ "scene": "state", "from": format!("{from:?}"), "to": format!("{to:?}") })
        }
        Scene::Held { offset, result } => {
            json!({ "scene": "held", "offset": offset, "error": result.as_ref().err().map(ToString::to_string) })
        }
        Scene::Settled(Ok(name)) => json!({ "scene": "settled", "stored_name": name.as_str() }),
        Scene::Settled(Err(error)) => json!({ "scene": "settled", "error": error.to_string() }),
        Scene::Lapsed(lapse) => json!({ "scene": "lapsed", "lapse": format!("{lapse:?}") }),
        Scene::Yielded { spent_bytes } => json!({ "scene": "yielded", "spent_bytes": spent_bytes }),
        Scene::Parting(farewell) => json!({ "scene": "parting", "farewell": format!("{farewell:?}") }),
        Scene::Kernel(Ok(tcp)) => json!({
            "scene": "kernel",
            "state": tcp.state,
            "unread": tcp.unread,
            "unacknowledged": tcp.unacknowledged,
            "window": tcp.info.as_ref().map(|_| tcp.window()),
        }),
        Scene::Kernel(Err(error)) => json!({ "scene": "kernel", "error": error.to_string() }),
        Scene::Closed { reason, first } => json!({
            "scene": "closed",
            "reason": excerpt(reason.to_string().as_bytes()),
            "first": if *first == Side::Client { "client" } else { "server" },
        }),
    }
}

fn heard(event: &Event) -> Value {
    match event {
        Event::Request(Request { dialect, name, size, .. }) => {
            json!({ "scene": "request", "dialect": dialect.word(), "name": name.as_str(), "size": size })
        }
        Event::Judge(shown) => json!({ "scene": "judge", "has_token": shown.is_some() }),
        Event::Content(bytes) => json!({ "scene": "content", "bytes": bytes.len() }),
        Event::ById(what) => json!({ "scene": "by_id", "what": what.what() }),
        Event::EndOfPiece => json!({ "scene": "end_of_piece" }),
        Event::End(whole) => json!({ "scene": "whole", "size": whole.size }),
        Event::Failed(Refusal { code, words, .. }) => {
            json!({ "scene": "upload_failed", "code": code.0, "words": words })
        }
        Event::Refused(Refusal { code, words, .. }, _) | Event::NotARequest(Refusal { code, words, .. }, _) => {
            json!({ "scene": "refused", "code": code.0, "words": words })
        }
        Event::Answered(what) => json!({ "scene": "answered", "what": what }),
        Event::Discarded(count) => json!({ "scene": "discarded", "bytes": count }),
    }
}

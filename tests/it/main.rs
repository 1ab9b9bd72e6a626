//! One test crate: the conversation at every split, the connections over a simulated network, store and clock, and the
//! binary over real sockets and real files, with clients that others wrote.

#![allow(clippy::disallowed_methods, reason = "tests watch the program from outside: they may block, and measure")]

mod access;
mod admin;
#[cfg(feature = "rustls")]
mod cert;
#[cfg(feature = "rustls")]
mod certificates;
mod consume;
mod conversation;
mod corpus;
mod crash;
mod crash_by_id;
mod disk;
mod documents;
mod events;
mod fixture;
mod forgetful;
mod halves;
#[cfg(feature = "rustls")]
mod haproxy;
mod house;
mod http;
mod http_client;
mod ietf;
mod interop;
mod leave_out;
mod lifecycle;
mod limits;
mod load;
mod load_liars;
mod man;
mod manager;
mod metrics;
mod names;
mod network;
mod one_upload;
mod options;
mod order;
mod overload;
mod permissions;
#[cfg(feature = "rustls")]
mod pki;
mod properties;
mod proxied;
mod queue;
mod receiver;
#[cfg(feature = "sandbox")]
mod sandbox;
mod send;
mod simulation;
mod stream;
mod syllabus;
#[cfg(feature = "rustls")]
mod tls;
#[cfg(feature = "rustls")]
mod tls_client;
mod tools;
mod trace;
mod trust;
mod tus;
mod udp;
mod uploads;
mod vectors;
mod wire;

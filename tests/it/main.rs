//! One test crate: the conversation at every split, the connections over a simulated network, store and clock, and the
//! binary over real sockets and real files, with clients that others wrote.

mod fixture;
mod interop;
mod load;
mod load_liars;
mod receiver;
mod send;
mod simulation;
mod uploads;

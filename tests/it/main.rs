//! One test crate: the protocol, the simulation, the real binary.

mod receiver;
mod simulation;

//! intake: a file receiver on raw mio.
//!
//! The code is a house of floors. Imports go down, never up.
//!
//! | floor | room | what is in it |
//! |---|---|---|
//! | 2 | [`server`] | the turn, the connection table, one upload's glue, every limit |
//! | 2 | [`client`] | `send` and `ping` |
//! | 2 | [`load`] | the load tester: many clients, honest numbers |
//! | 1 | [`net`] | sockets: listener, stream, echo, signals, readiness |
//! | 1 | [`store`] | files: a directory handle, a partial file, publish |
//! | 0 | [`proto`] | the wire as values: bytes in, events and bytes out |
//! | 0 | [`reactor`] | what a turn is made of: slots, ready queue, deadlines, budget |

pub mod client;
pub mod load;
pub mod net;
pub mod proto;
pub mod reactor;
pub mod server;
pub mod store;

//! Drives: the turn, the connection table, one upload's glue, every limit.

pub mod config;

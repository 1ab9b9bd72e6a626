//! The `intake` program: parse, run, exit code.

fn main() {}

//! How a test says that it cannot run here. The unit tests in `src/` include this file as well.

use std::env;
use std::io::{self, Write};

/// Says that a test, or a part of one, is left out. Written past the test runner, which hides the output of a test that
/// passes. Fails the test if `INTAKE_REQUIRE_INTEROP` is set.
pub fn leave_out(why: &str) {
    assert!(env::var_os("INTAKE_REQUIRE_INTEROP").is_none(), "{why}, and no test may be left out here");
    writeln!(io::stderr(), "left out: {why}").expect("stderr can be written");
}

#![no_main]

use intake_fuzz::properties::Target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| Target::Proxied.check(input));

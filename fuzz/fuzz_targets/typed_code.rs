//! Codes as people type them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lockstep_hub::parsers::typed_code(data));

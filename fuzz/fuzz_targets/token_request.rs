//! Bodies of `/oauth/*`, form and JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lockstep_hub::parsers::token_request(data));

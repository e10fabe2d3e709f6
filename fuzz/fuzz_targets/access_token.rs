//! Access tokens: nothing made up is believed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lockstep_hub::parsers::access_token(data));

//! `Authorization`, `Forwarded` and `X-Forwarded-For`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lockstep_hub::parsers::headers(data));

//! What a hub sends is read or refused, never a crash; what is read comes back as it went.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_protocol::{decode_hub, encode, limits::MAX_FRAME};

fuzz_target!(|text: &str| {
    if let Ok(frame) = decode_hub(text) {
        let text = encode(&frame);
        if text.len() <= MAX_FRAME {
            assert_eq!(decode_hub(&text), Ok(frame));
        }
    }
});

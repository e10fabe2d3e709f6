//! What a client sends is read or refused, never a crash; what is read comes back as it went; and the short way to an
//! `ack` agrees with the long one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_protocol::{decode_client, encode, limits::MAX_FRAME};

fuzz_target!(|text: &str| {
    let decoded = decode_client(text);
    if let Ok(frame) = &decoded {
        // Escapes may make the text longer than a frame may be; then it is refused, as it should.
        let text = encode(frame);
        if text.len() <= MAX_FRAME {
            assert_eq!(decode_client(&text).as_ref(), Ok(frame));
        }
    }
    if text.len() < MAX_FRAME {
        // White space in front makes no difference to JSON, and takes a text off the short way.
        assert_eq!(decoded.ok(), decode_client(&format!(" {text}")).ok());
    }
});

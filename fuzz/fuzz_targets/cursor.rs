//! A cursor comes from a URL: any text is read or refused, and what is read has one canonical form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_protocol::{Cursor, Epoch, number::NUMBER_BOUND};

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert!(cursor.seq.0 < NUMBER_BOUND);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
    if let Ok(epoch) = text.parse::<Epoch>() {
        assert_eq!(epoch.to_string(), text.to_ascii_lowercase());
    }
});

//! Limits that both sides know.

use std::time::Duration;

use crate::Secret;

/// The largest frame, in bytes of its JSON text. A larger one ends the session with close code 1009.
pub const MAX_FRAME: usize = 64 * 1024;
/// The longest access or refresh token together with its scope, in bytes of their JSON texts: it leaves 4 KiB for the rest of
/// a frame.
pub const MAX_TOKEN: usize = MAX_FRAME - 4 * 1024;
/// How long after the connection opens `hello` must have arrived.
pub const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long a session may owe an ack for something it was sent before it is closed with 4408.
pub const ACK_WITHIN: Duration = Duration::from_secs(30);
/// How many bad frames a session may send before it is closed with 4400.
pub const MAX_BAD_FRAMES: u32 = 20;
/// The longest `wait` of a long-poll, in seconds; larger ones are clamped to it.
pub const MAX_POLL_WAIT: u64 = 55;
/// How long after its last long-poll a device still counts as connected.
pub const POLLER_CONNECTED: Duration = Duration::from_secs(60);
/// A `refreshing` status is sent only when a redeem takes longer than this.
pub const REFRESHING_AFTER: Duration = Duration::from_millis(250);
/// How long an elected device has to answer `accept`.
pub const ACCEPT_WITHIN: Duration = Duration::from_secs(5);
/// How long after its claim a holder may still send the refresh token.
pub const SEND_WITHIN: Duration = Duration::from_secs(5);

/// Whether a token and its scope leave enough room in a frame for the rest of it ([`MAX_TOKEN`]).
pub fn fits(token: &Secret, scope: Option<&str>) -> bool {
    in_json(token.expose()) + scope.map_or(0, in_json) <= MAX_TOKEN
}

/// How long a text is in JSON, quotes included (RFC 8259 section 7, as `serde_json` writes it). Counted, not written: no copy
/// of a secret is left behind.
fn in_json(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(length).sum::<usize>() + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    #[test]
    fn the_length_in_json_is_what_is_written() {
        let controls: String = (0..0x20).map(char::from).collect();
        for text in [
            "",
            "plain",
            "\"quoted\" \\ and\nbroken",
            "größer – 漢字",
            "\u{7f}",
            &controls,
        ] {
            assert_eq!(in_json(text), encode(&text).len(), "{text:?}");
        }
    }

    #[test]
    fn what_fits_leaves_room_for_the_rest() {
        let most = "x".repeat(MAX_TOKEN - 2);
        assert!(fits(&Secret::new(most.as_str()), None));
        assert!(!fits(&Secret::new(most.as_str()), Some("")));
        assert!(!fits(&Secret::new("\"".repeat(MAX_TOKEN / 2)), None));
    }
}

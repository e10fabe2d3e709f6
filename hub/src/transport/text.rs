//! Text messages as a server writes them (RFC 6455 section 5.2): one unmasked frame, made once, sent to many.

use bytes::{BufMut, Bytes, BytesMut};

const FINAL_TEXT: u8 = 0x81;

/// `json` as one WebSocket text message.
pub fn framed(json: &str) -> Bytes {
    let mut frame = BytesMut::with_capacity(json.len() + 10);
    frame.put_u8(FINAL_TEXT);
    match json.len() {
        short @ 0..126 => frame.put_u8(u8::try_from(short).unwrap_or(125)),
        middle @ 126..65_536 => {
            frame.put_u8(126);
            frame.put_u16(u16::try_from(middle).unwrap_or(u16::MAX));
        }
        long => {
            frame.put_u8(127);
            frame.put_u64(long as u64);
        }
    }
    frame.put_slice(json.as_bytes());
    frame.freeze()
}

/// The JSON inside a message made by [`framed`].
pub fn payload(frame: &[u8]) -> &str {
    let head = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame
        .get(head..)
        .and_then(|json| std::str::from_utf8(json).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_the_shortest_form() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let json = "x".repeat(length);
            let frame = framed(&json);
            assert_eq!(frame.len(), length + head);
            assert_eq!(payload(&frame), json);
        }
    }
}

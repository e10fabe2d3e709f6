//! Just enough of RFC 6455 for a client that must cost almost nothing: frames in place, no copy, no allocation.

/// Text.
pub(crate) const TEXT: u8 = 1;
/// Close.
pub(crate) const CLOSE: u8 = 8;
/// Ping.
pub(crate) const PING: u8 = 9;
/// Pong.
pub(crate) const PONG: u8 = 10;

/// What stands at the head of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head<'a> {
    /// A whole frame.
    Frame {
        opcode: u8,
        payload: &'a [u8],
        /// Bytes that it takes in the buffer.
        size: usize,
    },
    /// Not yet a whole frame.
    Partial,
    /// Something that a server may not send: fragmented, masked, or too large.
    Bad,
}

/// The largest frame that is taken, in bytes.
const LARGEST: usize = 64 * 1024;

/// Reads the frame at the head of `buffer`, as a server sends it: unmasked (RFC 6455 section 5.1).
pub(crate) fn head(buffer: &[u8]) -> Head<'_> {
    let &[first, second, ..] = buffer else {
        return Head::Partial;
    };
    let (at, length) = match second {
        0..=125 => (2, usize::from(second)),
        126 => match buffer.get(2..4) {
            Some(&[high, low]) => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Head::Partial,
        },
        _ => return Head::Bad,
    };
    if first & 0xf0 != 0x80 || length > LARGEST {
        return Head::Bad;
    }
    match buffer.get(at..at + length) {
        Some(payload) => Head::Frame {
            opcode: first & 0x0f,
            payload,
            size: at + length,
        },
        None => Head::Partial,
    }
}

/// Appends a frame as a client sends it. The masking key is zero, so that the payload goes as it is: unpredictable
/// keys protect proxies on the way (RFC 6455 section 10.3), and here there is no way.
pub(crate) fn put(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match u8::try_from(payload.len()) {
        Ok(short @ 0..=125) => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_are_read_where_they_stand() {
        assert_eq!(
            head(b"\x81\x02hirest"),
            Head::Frame {
                opcode: TEXT,
                payload: b"hi",
                size: 4
            }
        );
        let mut long = vec![0x81, 126, 0x01, 0x00];
        long.extend([b'x'; 256]);
        assert!(matches!(head(&long), Head::Frame { size: 260, .. }));
        for end in 0..long.len() {
            assert_eq!(head(&long[..end]), Head::Partial, "cut at {end}");
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_bad() {
        assert_eq!(head(b"\x01\x01a"), Head::Bad, "a fragment");
        assert_eq!(head(b"\x81\x81\0\0\0\0a"), Head::Bad, "masked");
        assert_eq!(head(b"\x81\x7f\0\0\0\0\0\x01\0\0"), Head::Bad, "a length of 64 bits");
    }

    #[test]
    fn a_client_masks_with_zero() {
        let mut out = Vec::new();
        put(TEXT, b"ack", &mut out);
        assert_eq!(out, b"\x81\x83\0\0\0\0ack");
        out.clear();
        put(TEXT, &[b'x'; 300], &mut out);
        assert_eq!(&out[..8], b"\x81\xfe\x01\x2c\0\0\0\0");
        assert_eq!(out.len(), 308);
    }
}

//! One device of the fleet: a socket, where it is in the handshake, and what it holds.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use super::ws::{self, Head};

/// What one read of a device brought.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The times, in nanoseconds of the fleet's clock, at which the updates that arrived were caused.
    pub(crate) caused_at: Option<u64>,
    /// Updates that arrived; more than one when the reader was late.
    pub(crate) updates: u32,
    /// The device has become live: it is authenticated and holds everything.
    pub(crate) live: bool,
    /// A request of this device was answered `done`.
    pub(crate) done: bool,
    /// A request of this device, or the device itself, was refused.
    pub(crate) refused: Option<String>,
    /// The connection is over.
    pub(crate) closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for `101 Switching Protocols`.
    Upgrading,
    /// Has said `hello`, waits for `synced`.
    Greeting,
    Live,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Device {
    stream: TcpStream,
    /// The number of the user that it belongs to.
    pub(crate) user: u32,
    phase: Phase,
    /// The `hello` frame, until it is sent.
    hello: Box<[u8]>,
    /// What is left of a read that ended within a frame. Almost always empty.
    partial: Vec<u8>,
    version: u64,
}

impl Device {
    /// A connected, non-blocking socket becomes a device: the upgrade is asked for, and `hello` waits for the answer.
    pub(crate) fn open(mut stream: TcpStream, user: u32, upgrade: &[u8], hello: &[u8]) -> io::Result<Self> {
        stream.write_all(upgrade)?;
        Ok(Self {
            stream,
            user,
            phase: Phase::Upgrading,
            hello: hello.into(),
            partial: Vec::new(),
            version: 0,
        })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Says that the version it holds is no good.
    pub(crate) fn ask_for_refresh(&mut self) -> io::Result<()> {
        let text = format!(
            r#"{{"type":"refresh","id":"1","grant":"demo/main","rejected_version":{},"reason":"expired"}}"#,
            self.version
        );
        let mut frame = Vec::with_capacity(text.len() + 8);
        ws::put(ws::TEXT, text.as_bytes(), &mut frame);
        self.stream.write_all(&frame)
    }

    /// Reads once, acks what came.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> Heard {
        let mut heard = Heard::default();
        match self.stream.read(scratch) {
            Ok(0) => heard.closed = true,
            Ok(length) => self.take(&scratch[..length], &mut heard),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => heard.closed = true,
        }
        heard
    }

    fn take(&mut self, fresh: &[u8], heard: &mut Heard) {
        if self.partial.is_empty() {
            let used = self.consume(fresh, heard);
            self.partial.extend_from_slice(&fresh[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(fresh);
            let used = self.consume(&whole, heard);
            whole.drain(..used);
            if !whole.is_empty() {
                self.partial = whole;
            }
        }
    }

    /// Handles all that is complete in `buffer` and tells how much that was.
    fn consume(&mut self, buffer: &[u8], heard: &mut Heard) -> usize {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = find(buffer, b"\r\n\r\n") else {
                return 0;
            };
            used = end + 4;
            if !buffer.starts_with(b"HTTP/1.1 101") {
                heard.refused = Some(String::from_utf8_lossy(buffer).into_owned());
                heard.closed = true;
                return used;
            }
            self.phase = Phase::Greeting;
            let hello = std::mem::take(&mut self.hello);
            heard.closed |= self.stream.write_all(&hello).is_err();
        }
        let mut ack = None;
        loop {
            match ws::head(&buffer[used..]) {
                Head::Frame { opcode, payload, size } => {
                    self.frame(opcode, payload, &mut ack, heard);
                    used += size;
                }
                Head::Partial => break,
                Head::Bad => {
                    heard.closed = true;
                    break;
                }
            }
        }
        if let Some(seq) = ack {
            heard.closed |= self.stream.write_all(&ack_frame(seq)).is_err();
        }
        used
    }

    fn frame(&mut self, opcode: u8, payload: &[u8], ack: &mut Option<u64>, heard: &mut Heard) {
        match opcode {
            ws::TEXT => self.text(payload, ack, heard),
            ws::PING => {
                let mut pong = Vec::with_capacity(payload.len() + 6);
                ws::put(ws::PONG, payload, &mut pong);
                heard.closed |= self.stream.write_all(&pong).is_err();
            }
            ws::CLOSE => {
                let reason = payload.get(2..).unwrap_or_default();
                heard.refused = Some(format!("closed: {}", String::from_utf8_lossy(reason)));
                heard.closed = true;
            }
            _ => {}
        }
    }

    fn text(&mut self, payload: &[u8], ack: &mut Option<u64>, heard: &mut Heard) {
        let Some(rest) = payload.strip_prefix(br#"{"type":""#) else {
            return;
        };
        if rest.starts_with(b"token") {
            self.version = number_after(rest, br#""version":"#).unwrap_or(self.version);
            *ack = number_after(rest, br#""seq":"#).or(*ack);
            if self.phase == Phase::Live {
                heard.updates += 1;
                heard.caused_at = stamp(rest).or(heard.caused_at);
            }
        } else if rest.starts_with(b"status") {
            // `refreshing` carries a seq that is acked already: acking it again is harmless.
            *ack = number_after(rest, br#""seq":"#).or(*ack);
        } else if rest.starts_with(b"synced") {
            heard.live = self.phase != Phase::Live;
            self.phase = Phase::Live;
        } else if rest.starts_with(b"done") {
            heard.done = true;
        } else if rest.starts_with(b"error") {
            heard.refused = Some(String::from_utf8_lossy(payload).into_owned());
        }
    }
}

fn ack_frame(seq: u64) -> Vec<u8> {
    let text = format!(r#"{{"type":"ack","seq":{seq}}}"#);
    let mut frame = Vec::with_capacity(text.len() + 6);
    ws::put(ws::TEXT, text.as_bytes(), &mut frame);
    frame
}

/// When the update was caused: access tokens of the bench begin with `T` and 16 hex digits of nanoseconds.
fn stamp(text: &[u8]) -> Option<u64> {
    let at = find(text, br#""access_token":"T"#)? + br#""access_token":"T"#.len();
    let digits = std::str::from_utf8(text.get(at..at + 16)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

fn number_after(text: &[u8], key: &[u8]) -> Option<u64> {
    let at = find(text, key)? + key.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number: u64, digit| {
        number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    }))
}

/// Where `needle` begins in the first part of `text`; everything that is looked for stands there.
pub(crate) fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    const FIRST_PART: usize = 4096;
    let first = *needle.first()?;
    let text = &text[..text.len().min(FIRST_PART)];
    let mut from = 0;
    while let Some(step) = text[from..].iter().position(|byte| *byte == first) {
        let at = from + step;
        if text[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &[u8] = br#"{"type":"token","grant":"demo/main","version":12,"seq":345,"cursor":"0.345","access_token":"T00000000000000ffxx"}"#;

    #[test]
    fn the_numbers_of_a_token_frame_are_found() {
        assert_eq!(number_after(TOKEN, br#""seq":"#), Some(345));
        assert_eq!(number_after(TOKEN, br#""version":"#), Some(12));
        assert_eq!(stamp(TOKEN), Some(255));
        assert_eq!(stamp(br#"{"access_token":"real"}"#), None);
    }

    #[test]
    fn an_ack_is_one_masked_text_frame() {
        let frame = ack_frame(345);
        assert_eq!(&frame[..2], b"\x81\x98");
        assert_eq!(&frame[6..], br#"{"type":"ack","seq":345}"#);
    }
}

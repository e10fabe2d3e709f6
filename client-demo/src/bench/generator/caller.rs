//! One keep-alive HTTP connection that causes updates.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use super::device::find;

/// An answer to a call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What the caller named the call.
    pub(crate) tag: u32,
    /// The HTTP status; 0 when the connection broke.
    pub(crate) status: u16,
    /// The body, if bodies are kept.
    pub(crate) body: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Caller {
    stream: TcpStream,
    tag: u32,
    partial: Vec<u8>,
}

impl Caller {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            tag: 0,
            partial: Vec::new(),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request. There must be none under way.
    pub(crate) fn call(&mut self, tag: u32, request: &[u8]) -> io::Result<()> {
        self.tag = tag;
        self.stream.write_all(request)
    }

    /// Reads once; the answer, once it is whole.
    pub(crate) fn read(&mut self, scratch: &mut [u8], keep_body: bool) -> Option<Answer> {
        match self.stream.read(scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(length @ 1..) => self.partial.extend_from_slice(&scratch[..length]),
            Ok(_) | Err(_) => return Some(self.broken()),
        }
        let head = find(&self.partial, b"\r\n\r\n")? + 4;
        let Some((status, length)) = read_head(&self.partial[..head]) else {
            return Some(self.broken());
        };
        let body = self.partial.get(head..head + length)?;
        let body = if keep_body { body.to_vec() } else { Vec::new() };
        self.partial.clear();
        Some(Answer {
            tag: self.tag,
            status,
            body,
        })
    }

    fn broken(&self) -> Answer {
        Answer {
            tag: self.tag,
            status: 0,
            body: Vec::new(),
        }
    }
}

/// Status and content length; `None` when it is not such an answer.
fn read_head(head: &[u8]) -> Option<(u16, usize)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Some(0), |(_, value)| value.trim().parse().ok())?;
    Some((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(read_head(head), Some((201, 12)));
        assert_eq!(read_head(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, 0)));
        assert_eq!(read_head(b"SSH-2.0\r\n\r\n"), None);
    }
}

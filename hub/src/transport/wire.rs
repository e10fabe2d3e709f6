//! A connection's socket, written by whoever has something to say.
//!
//! A push goes straight from the fan-out into the socket: no task is woken and nothing is copied for a device that keeps
//! up. What the socket does not take at once waits here until the session's own task has drained it; until then the
//! device is only *behind*, and gets the newest state when it is writable again.

use std::{
    io::{self, Read, Write},
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConnection;

/// A socket, plain or with TLS.
pub struct Wire {
    tcp: TcpStream,
    tls: Option<Mutex<ServerConnection>>,
}

/// Bytes that the socket did not take yet. Whole messages enter; what is left of one leaves first.
#[derive(Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    /// Others wait inside of TLS: they are not counted here, and nobody but whoever drains sends them.
    inside_tls: bool,
}

impl Backlog {
    /// Nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.inside_tls
    }

    /// How many bytes wait, beside those inside of TLS.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// The synchronous face of a `TcpStream`: `WouldBlock` instead of waiting.
struct Tcp<'a>(&'a TcpStream);

impl Read for Tcp<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Tcp<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Wire {
    /// Takes over an upgraded connection.
    pub fn new(tcp: TcpStream, tls: Option<ServerConnection>) -> Self {
        Self {
            tcp,
            tls: tls.map(Mutex::new),
        }
    }

    /// Sends whole messages, after what waits. What the socket does not take waits in `backlog`.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&self, backlog: &mut Backlog, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if backlog.is_empty() {
            sent = self.push(bytes)?;
            backlog.inside_tls = !self.flush_tls()?;
        }
        backlog.bytes.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Sends what waits. True when nothing waits any more.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn drain(&self, backlog: &mut Backlog) -> io::Result<bool> {
        if !backlog.bytes.is_empty() {
            let sent = self.push(&backlog.bytes)?;
            backlog.bytes.drain(..sent);
            if backlog.bytes.is_empty() {
                // A slow device was a flag, and leaves no memory behind.
                backlog.bytes = Vec::new();
            }
        }
        backlog.inside_tls = !self.flush_tls()?;
        Ok(backlog.is_empty())
    }

    /// Writes as much as the socket takes.
    fn push(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            let mut sent = 0;
            while sent < bytes.len() {
                match self.tcp.try_write(&bytes[sent..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(more) => sent += more,
                    Err(error) if would_block(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            return Ok(sent);
        };
        let mut tls = tls.lock();
        let mut sent = 0;
        // rustls bounds its own buffer (64 KiB): a write that takes nothing means that the socket must take some first.
        while sent < bytes.len() {
            let more = tls.writer().write(&bytes[sent..])?;
            sent += more;
            if !flush(&mut tls, &self.tcp)? && more == 0 {
                break;
            }
        }
        Ok(sent)
    }

    fn flush_tls(&self) -> io::Result<bool> {
        match &self.tls {
            None => Ok(true),
            Some(tls) => flush(&mut tls.lock(), &self.tcp),
        }
    }

    /// Reads what is there; `WouldBlock` when nothing is.
    ///
    /// # Errors
    /// When the connection is broken, or nothing is there.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.tcp.try_read(into);
        };
        let mut tls = tls.lock();
        loop {
            match tls.reader().read(into) {
                Err(error) if would_block(&error) => {}
                done => return done,
            }
            if tls.read_tls(&mut Tcp(&self.tcp))? == 0 {
                return Ok(0);
            }
            tls.process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            flush(&mut tls, &self.tcp)?;
        }
    }

    /// Ready when there may be something to read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// Ready when the socket may take more.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }
}

/// True when rustls has nothing left to send.
fn flush(tls: &mut ServerConnection, tcp: &TcpStream) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(&mut Tcp(tcp)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if would_block(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

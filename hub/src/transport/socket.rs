//! A WebSocket over a [`Link`]: what the two phases of a session read from.

use std::{
    io::{self, Read},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use lockstep_protocol::{Close, limits::MAX_FRAME};
use tokio::task::coop;
use tokio_tungstenite::tungstenite::{
    Error, Message, Utf8Bytes, WebSocket,
    error::{CapacityError, ProtocolError},
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
};

use super::link::{Io, Link};

/// Read buffers are most of a connection's memory, and stay after first use.
const READ_BUFFER: usize = 1024;

/// A WebSocket over a link.
pub struct Socket {
    link: Arc<Link>,
    ws: WebSocket<Io>,
    /// What comes in is no WebSocket any more and is only read away, so that the close frame is not lost to a reset.
    garbled: bool,
}

/// What came in.
#[derive(Debug)]
pub enum Received {
    /// A text message.
    Text(Utf8Bytes),
    /// A pong: somebody is there.
    Pong,
    /// A ping, answered already.
    Ping,
    /// The socket was full and is writable again: offer it the newest.
    Drained,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The other side closed it, or it broke.
    Gone,
    /// We are to close it.
    Close(Close),
}

impl Ended {
    /// The close frame to be sent, if one is.
    pub const fn close(self) -> Option<Close> {
        match self {
            Self::Gone => None,
            Self::Close(close) => Some(close),
        }
    }
}

impl Socket {
    /// Speaks WebSocket as the server over an upgraded connection; `read` is what came with the upgrade.
    pub fn new(link: Arc<Link>, read: &Bytes) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let io = Io::new(Arc::clone(&link));
        let ws = if read.is_empty() {
            WebSocket::from_raw_socket(io, Role::Server, Some(config))
        } else {
            WebSocket::from_partially_read(io, read.to_vec(), Role::Server, Some(config))
        };
        Self {
            link,
            ws,
            garbled: false,
        }
    }

    /// The link underneath.
    pub const fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The next message. While something waits for the socket nothing is read: a device that does not read is not
    /// served more work. One read may bring hundreds of little messages, each with an answer: others have their turn
    /// between them too.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Ended>> {
        let turn = ready!(coop::poll_proceed(cx));
        let next = self.poll_message(cx);
        if next.is_ready() {
            turn.made_progress();
        }
        next
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Ended>> {
        self.link.register(cx.waker());
        if let Some(close) = self.link.closing() {
            return Poll::Ready(Err(Ended::Close(close)));
        }
        if self.link.is_blocked() {
            return match ready!(self.link.poll_drain(cx)) {
                Ok(()) => Poll::Ready(Ok(Received::Drained)),
                Err(_) => Poll::Ready(Err(Ended::Gone)),
            };
        }
        loop {
            match self.ws.read() {
                Ok(Message::Text(text)) => return Poll::Ready(Ok(Received::Text(text))),
                Ok(Message::Pong(_)) => return Poll::Ready(Ok(Received::Pong)),
                Ok(Message::Ping(_)) => return Poll::Ready(Ok(Received::Ping)),
                Ok(Message::Binary(_)) => return Poll::Ready(Err(Ended::Close(Close::Protocol))),
                Ok(Message::Close(_) | Message::Frame(_)) => {
                    let _ = self.ws.flush();
                    return Poll::Ready(Err(Ended::Gone));
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(self.ws.get_mut().poll_readable(cx)).is_err() {
                        return Poll::Ready(Err(Ended::Gone));
                    }
                }
                Err(error) => {
                    // Reading on would end the connection with bytes unread: a reset, which may overtake the close frame.
                    self.garbled = is_garbled(&error);
                    return Poll::Ready(Err(ended_by(&error)));
                }
            }
        }
    }

    /// Sends a ping.
    pub fn ping(&mut self) {
        // A broken connection shows itself at the next read.
        let _ = self.ws.send(Message::Ping(Bytes::new()));
    }

    /// Sends a close frame and lets the other side answer; the caller bounds the time.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, close: Close) -> Poll<()> {
        // Idempotent: after the first call tungstenite only waits for the answer.
        let _ = self.ws.close(Some(CloseFrame {
            code: CloseCode::from(close.code()),
            reason: Utf8Bytes::from_static(close.reason()),
        }));
        if ready!(self.link.poll_drain(cx)).is_err() {
            return Poll::Ready(());
        }
        loop {
            match self.read_away() {
                Ok(()) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(self.ws.get_mut().poll_readable(cx)).is_err() {
                        return Poll::Ready(());
                    }
                }
                Err(error) if !self.garbled && is_garbled(&error) => self.garbled = true,
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    fn read_away(&mut self) -> Result<(), Error> {
        if !self.garbled {
            return self.ws.read().map(drop);
        }
        match self.ws.get_mut().read(&mut [0; READ_BUFFER])? {
            0 => Err(Error::ConnectionClosed),
            _ => Ok(()),
        }
    }
}

const fn is_garbled(error: &Error) -> bool {
    matches!(error, Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_))
}

fn ended_by(error: &Error) -> Ended {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Ended::Close(Close::TooBig),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => Ended::Gone,
        Error::Protocol(_) | Error::Utf8(_) => Ended::Close(Close::Protocol),
        _ => Ended::Gone,
    }
}

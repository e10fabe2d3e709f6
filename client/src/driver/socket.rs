//! An open WebSocket as the driver uses it: frames out, words in, never waiting for one while the other could go on.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use lockstep_protocol::{ClientFrame, HubFrame, decode_hub, encode};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::dial::WsStream;
use crate::machine::LinkId;

/// The most frames that wait to be written. Requests are coalesced per grant, so only a hub that reads nothing at all
/// lets them pile up.
const MOST_WAITING: usize = 1024;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What came.
#[derive(Debug)]
pub(crate) enum Word {
    Frame(Box<HubFrame>),
    /// A ping, or a frame that this version does not know.
    Other,
    /// The end, with a close code if there was one.
    End(Option<u16>),
}

pub(crate) struct Socket {
    pub(crate) link: LinkId,
    ws: WsStream,
    out: VecDeque<Message>,
    overflown: bool,
}

impl Socket {
    pub(crate) const fn new(link: LinkId, ws: WsStream) -> Self {
        Self {
            link,
            ws,
            out: VecDeque::new(),
            overflown: false,
        }
    }

    /// Queues a frame; [`Socket::step`] writes it.
    pub(crate) fn send(&mut self, frame: &ClientFrame) {
        if self.out.len() >= MOST_WAITING {
            self.overflown = true;
            return;
        }
        self.out.push_back(Message::text(encode(frame)));
    }

    /// Writes what waits and gives the next word of the hub. May be dropped at any point without losing anything.
    pub(crate) async fn step(&mut self) -> Word {
        std::future::poll_fn(|cx| self.poll_step(cx)).await
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Word> {
        if self.overflown || self.poll_write(cx).is_err() {
            return Poll::Ready(Word::End(None));
        }
        let word = match self.ws.poll_next_unpin(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => word(&message),
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "WebSocket ended");
                Word::End(None)
            }
            Poll::Ready(None) => Word::End(None),
        };
        // Pongs and the answer to a close are written by tungstenite itself, if it is let.
        let _ = self.ws.poll_flush_unpin(cx);
        Poll::Ready(word)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), ()> {
        while !self.out.is_empty() {
            match self.ws.poll_ready_unpin(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Ready(Ok(())) => {}
            }
            if let Some(message) = self.out.pop_front() {
                self.ws.start_send_unpin(message).map_err(drop)?;
            }
        }
        match self.ws.poll_flush_unpin(cx) {
            Poll::Ready(Err(_)) => Err(()),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Says goodbye, for as long as somebody listens.
    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: "".into(),
        };
        let farewell = async {
            while let Some(message) = self.out.pop_front() {
                self.ws.send(message).await?;
            }
            self.ws.close(Some(frame)).await
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

fn word(message: &Message) -> Word {
    match message {
        Message::Text(text) => match decode_hub(text) {
            Ok(frame) => Word::Frame(Box::new(frame)),
            Err(error) => {
                // A newer hub may say more than this version understands.
                tracing::warn!(%error, "a frame of the hub was not understood");
                Word::Other
            }
        },
        Message::Close(frame) => Word::End(frame.as_ref().map(|frame| frame.code.into())),
        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Word::Other,
    }
}

//! One connection as the rest of the hub sees it: a thing to write to, to wake, and to close.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::task::AtomicWaker;
use lockstep_engine::time::Mono;
use lockstep_protocol::{Close, Seq};
use parking_lot::{Mutex, MutexGuard};

use super::wire::{Backlog, Wire};
use crate::{telemetry::metrics, user::Board};

/// The most outside of the state that may wait for a socket, in bytes. Pushes never wait (newest-only); this bounds answers
/// to requests.
const MOST_BACKLOG: usize = 256 * 1024;
/// No close asked for.
const OPEN: u16 = 0;

/// One connection.
pub struct Link {
    wire: Wire,
    out: Mutex<Out>,
    closing: AtomicU16,
    waker: AtomicWaker,
}

/// What was sent, and what is owed for it.
#[derive(Default)]
struct Out {
    backlog: Backlog,
    /// How many bytes outside of the state had to wait since nothing waited last.
    said: usize,
    /// Whether `welcome` and what follows it were sent: before that, pushes have no place.
    live: bool,
    /// The user's seq up to which everything was sent.
    sent: Seq,
    /// Since when the device owes an ack.
    owing: Option<Mono>,
}

/// What an ack settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// When the first push that it settles was sent, if it settled all.
    pub owed_since: Option<Mono>,
}

impl Link {
    /// A link over a fresh connection.
    pub fn new(wire: Wire) -> Self {
        Self {
            wire,
            out: Mutex::default(),
            closing: AtomicU16::new(OPEN),
            waker: AtomicWaker::new(),
        }
    }

    /// Sends the first state of a session and opens it for pushes. `first` is whole messages; `seq` what they bring the
    /// device to.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn open(&self, first: &[u8], seq: Seq, owes: bool, now: Mono) -> io::Result<()> {
        let mut out = self.out.lock();
        let Out { backlog, .. } = &mut *out;
        self.wire.send(backlog, first)?;
        out.live = true;
        out.sent = seq;
        out.owing = owes.then_some(now);
        Ok(())
    }

    /// Sends what the board has above what was sent. A device whose socket is full is left behind; its own task offers
    /// the newest board again once the socket is writable.
    pub fn offer(&self, board: &Board, now: Mono) {
        let mut out = self.out.lock();
        if !out.live || board.seq <= out.sent || self.is_closing() {
            return;
        }
        if !out.backlog.is_empty() {
            return;
        }
        let Out {
            backlog, sent, owing, ..
        } = &mut *out;
        let mut result = Ok(());
        let news = board.since(*sent);
        metrics::pushed(news.len() as u64);
        for entry in news {
            result = result.and_then(|()| self.wire.send(backlog, entry.frames()));
        }
        *sent = board.seq;
        owing.get_or_insert(now);
        let blocked = !backlog.is_empty();
        drop(out);
        if result.is_err() {
            self.close(Close::Internal);
        } else if blocked {
            self.waker.wake();
        }
    }

    /// Sends one message, made by [`super::text::framed`], outside of the state: an answer, a passing word. One that is
    /// being closed is told nothing more: its device may have been revoked.
    pub fn say(&self, message: &[u8]) {
        self.send(self.out.lock(), message);
    }

    /// Sends the answer to a request, after all of the board that it may speak of: what moved the board may not have come
    /// to offer it yet.
    pub fn answer(&self, board: &Board, message: &[u8], now: Mono) {
        self.offer(board, now);
        self.say(message);
    }

    fn send(&self, mut out: MutexGuard<'_, Out>, message: &[u8]) {
        if self.is_closing() {
            return;
        }
        let Out { backlog, said, .. } = &mut *out;
        if backlog.is_empty() {
            *said = 0;
        }
        let result = self.wire.send(backlog, message);
        let blocked = !backlog.is_empty();
        if blocked {
            // The state does not count: it may be large, and a slow device is still to get it.
            *said += message.len();
        }
        let flooded = *said > MOST_BACKLOG;
        drop(out);
        if flooded {
            self.close(Close::TooMany);
        } else if result.is_err() {
            self.close(Close::Internal);
        } else if blocked {
            self.waker.wake();
        }
    }

    /// Sends a passing word about what stood at `seq`, unless something newer was sent since: then it is of yesterday.
    pub fn mention(&self, message: &[u8], seq: Seq) {
        let out = self.out.lock();
        if out.live && out.sent <= seq {
            self.send(out, message);
        }
    }

    /// The device says that it holds everything up to `seq`, after `before`; more than it was sent is not believed.
    /// Returns the seq that counts.
    pub fn ack(&self, seq: Seq, before: Seq, now: impl FnOnce() -> Mono) -> (Seq, Acked) {
        let mut out = self.out.lock();
        let seq = seq.min(out.sent);
        if seq == out.sent {
            let owed_since = out.owing.take();
            return (seq, Acked { owed_since });
        }
        if seq > before && out.owing.is_some() {
            // It is behind, and getting on: with much going on it may always be a step behind.
            out.owing = Some(now());
        }
        (seq, Acked { owed_since: None })
    }

    /// Whether it was welcomed: only then it is pushed to, elected, and told passing words.
    pub fn is_live(&self) -> bool {
        self.out.lock().live
    }

    /// Since when the device owes an ack.
    pub fn owing(&self) -> Option<Mono> {
        self.out.lock().owing
    }

    /// Asks the connection's task to close. The first reason stands.
    pub fn close(&self, close: Close) {
        let _ = self
            .closing
            .compare_exchange(OPEN, close.code(), Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// The close that was asked for.
    pub fn closing(&self) -> Option<Close> {
        let code = self.closing.load(Ordering::Acquire);
        Close::ALL.into_iter().find(|close| close.code() == code)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) != OPEN
    }

    /// Registers the connection's task to be woken by [`Self::close`] or when a write is blocked.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Sends what waits. Ready when nothing waits any more.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.wire.drain(&mut self.out.lock().backlog)? {
                return Poll::Ready(Ok(()));
            }
            match self.wire.poll_writable(cx)? {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether something waits for the socket.
    pub fn is_blocked(&self) -> bool {
        !self.out.lock().backlog.is_empty()
    }
}

/// A link as tungstenite wants it: synchronous, non-blocking, and taking every write whole, so that its control frames
/// and the pushes of others never mix.
pub struct Io {
    link: Arc<Link>,
    /// How often it may be read in this turn.
    reads: u32,
}

/// How often a connection is read before others have their turn. What is read may be no message yet, and be followed by
/// more of the same without end: neither tungstenite nor a time-out would notice.
const READS_IN_A_TURN: u32 = 16;

impl Io {
    /// The socket of a link, at the beginning of a turn.
    pub const fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            reads: READS_IN_A_TURN,
        }
    }

    /// After a `WouldBlock`: ready when there may be something to read. A turn that is over has the task woken again, behind
    /// the others.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.reads, READS_IN_A_TURN) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.link.wire.poll_readable(cx)
    }
}

impl Read for Io {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.reads == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.reads -= 1;
        self.link.wire.read(into)
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = self.link.out.lock();
        self.link.wire.send(&mut out.backlog, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! A request body that leaves at most once, and that knows whether it left.
//!
//! What an HTTP library says about an error tells only roughly whether a request was sent. The body tells exactly: the
//! library asks for it when the connection stands, TLS included, and right before it is written. Until then it can be
//! withdrawn; from then on the request counts as sent. It cannot be cloned, so no layer below can send it again.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use lockstep_engine::time::Mono;
use zeroize::Zeroizing;

use crate::clock;

const SEALED: u8 = 0;
const GONE: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The body.
pub(super) struct Envelope {
    body: Option<Bytes>,
    /// It must not leave after this.
    leave_by: Mono,
    seal: Seal,
}

/// Whether the body left.
#[derive(Clone)]
pub(super) struct Seal(Arc<AtomicU8>);

/// It was too late to send, or somebody had given up.
#[derive(Debug, thiserror::Error)]
#[error("withdrawn before it was sent")]
pub(super) struct Withdrawn;

impl Seal {
    /// Makes sure that the body does not leave any more. False: it has left.
    pub(super) fn withdraw(&self) -> bool {
        self.change(WITHDRAWN) != Err(GONE)
    }

    fn open(&self) -> bool {
        self.change(GONE).is_ok()
    }

    fn change(&self, to: u8) -> Result<u8, u8> {
        self.0.compare_exchange(SEALED, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// Wipes the bytes once the last reader is done with them.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Envelope {
    /// Puts `body` into an envelope that does not leave after `leave_by`.
    pub(super) fn seal(body: Zeroizing<String>, leave_by: Mono) -> (reqwest::Body, Seal) {
        let seal = Seal(Arc::new(AtomicU8::new(SEALED)));
        let envelope = Self {
            body: Some(Bytes::from_owner(Wiped(body))),
            leave_by,
            seal: seal.clone(),
        };
        (reqwest::Body::wrap(envelope), seal)
    }
}

impl Body for Envelope {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let Some(body) = self.body.take() else {
            return Poll::Ready(None);
        };
        // Time may have passed, even asleep, since the connection was asked for.
        if clock::mono() > self.leave_by {
            self.seal.withdraw();
        }
        Poll::Ready(Some(if self.seal.open() {
            Ok(Frame::data(body))
        } else {
            Err(Withdrawn)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}

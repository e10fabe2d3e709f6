//! What may go wrong with one token call.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// One thing that goes wrong with one token call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Processed after this long.
    Slow(Duration),
    /// Processed at once, answered after this long.
    SlowAnswer(Duration),
    /// Processed when the gate opens.
    HoldBefore(Gate),
    /// Processed at once, answered when the gate opens.
    HoldAfter(Gate),
    /// Not processed; the connection is closed without an answer.
    CutBefore,
    /// Processed; the connection is closed without an answer.
    CutAfter,
    /// Not processed; this is the answer.
    Refuse(Reply),
    /// Processed; this is the answer all the same.
    Garble(Reply),
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// An OAuth error (RFC 6749 section 5.2).
    pub fn oauth(status: u16, error: &str) -> Self {
        Self::empty(status)
            .header("content-type", "application/json")
            .body(&format!(r#"{{"error":"{error}"}}"#))
    }

    /// One more header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }
}

impl Fault {
    /// Not processed; an answer with this status and no body.
    pub fn status(status: u16) -> Self {
        Self::Refuse(Reply::empty(status))
    }
}

/// Closed until the test opens it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everyone through who waits or comes later.
    pub fn open(&self) {
        self.0.close();
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // Nobody ever adds a permit: this waits for `close`, whose error is the opening.
        self.0.acquire().await.ok();
    }
}

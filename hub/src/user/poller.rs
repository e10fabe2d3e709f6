//! A device that long-polls, as the hub remembers it between two polls.

use std::time::Duration;

use lockstep_engine::time::Mono;
use lockstep_protocol::{Seq, limits::POLLER_CONNECTED};

/// A device that long-polls.
#[derive(Debug, Clone, Copy)]
pub struct Poller {
    /// When it polled last.
    pub polled_at: Mono,
    /// Which of its polls is the newest: an older one that still waits ends.
    pub turn: u64,
    /// The highest seq that its cursors acked.
    pub acked: Seq,
    /// The seq that the last answer brought.
    pub sent: Seq,
}

impl Poller {
    /// Whether it counts as connected: it polled within a minute, or its poll still waits.
    pub fn is_connected(&self, now: Mono) -> bool {
        now.since(self.polled_at) < POLLER_CONNECTED
    }

    /// How long ago it polled.
    pub fn silent_for(&self, now: Mono) -> Duration {
        now.since(self.polled_at)
    }
}

//! A device's live connection: what others of the hub need to know of it.
//!
//! Two phases, two types: [`hello::greet`] has a socket and no user, [`live::Live`] has both. Code before
//! authentication cannot touch a user's state.

pub mod hello;
pub mod live;
mod requests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use lockstep_engine::time::{Mono, Unix};
use lockstep_protocol::{DeviceId, HubFrame, Seq, SessionId, encode, frame::PresenceState};

use crate::{
    clock,
    transport::{
        link::{Acked, Link},
        text,
    },
};

/// How many requests of one session may wait for their answers.
const MOST_ASKED: u32 = 128;

/// A device's live connection.
pub struct Session {
    /// Unique per connection.
    pub id: SessionId,
    /// Whose connection.
    pub device: DeviceId,
    /// When it began, by the store's clock.
    pub began: Unix,
    /// Whether it may redeem.
    pub redeemer: bool,
    /// Its weight in elections.
    pub priority: u8,
    /// Where to write.
    pub link: Arc<Link>,
    acked: AtomicU64,
    active: AtomicBool,
    active_at: AtomicU64,
    asked: AtomicU32,
}

impl Session {
    /// The highest seq that the device acked.
    pub fn acked(&self) -> Seq {
        Seq(self.acked.load(Ordering::Relaxed))
    }

    /// The device holds everything up to `seq`.
    pub fn ack(&self, seq: Seq) -> Acked {
        let (seq, settled) = self.link.ack(seq, self.acked(), clock::mono);
        self.acked.fetch_max(seq.0, Ordering::Relaxed);
        settled
    }

    /// Somebody is (not) using the device.
    pub fn set_presence(&self, state: PresenceState, now: Mono) {
        let was = self.active.swap(state == PresenceState::Active, Ordering::Relaxed);
        if was || state == PresenceState::Active {
            self.active_at.store(now.0, Ordering::Relaxed);
        }
    }

    /// When somebody last used the device, if ever in this session.
    pub fn last_active(&self, now: Mono) -> Option<Mono> {
        if self.active.load(Ordering::Relaxed) {
            return Some(now);
        }
        let at = self.active_at.load(Ordering::Relaxed);
        (at > 0).then_some(Mono(at))
    }

    /// Sends one frame outside of the state.
    pub fn say(&self, frame: &HubFrame) {
        self.link.say(&text::framed(&encode(frame)));
    }

    /// Counts a request that waits for its answer. False: too many do.
    fn ask(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked >= MOST_ASKED {
            self.answered();
        }
        asked < MOST_ASKED
    }

    /// A request got its answer: that was said before.
    pub fn answered(&self) {
        self.asked.fetch_sub(1, Ordering::Release);
    }

    /// Whether a request waits for its answer.
    pub fn is_waiting(&self) -> bool {
        self.asked.load(Ordering::Acquire) > 0
    }
}

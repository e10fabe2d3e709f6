//! One WebSocket: its phase, its deadlines, what it owes.

use std::time::Duration;

use lockstep_protocol::{Seq, SessionId};

use super::io::{Command, LinkId};
use crate::{
    clock::{Mono, Now},
    timing::Timing,
};

/// The hub's pings stay out for this many halves of a heartbeat before the session counts as dead.
const SILENCE_HALVES: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Down,
    /// TCP, TLS, proxy, upgrade. The shell has time-outs of its own; this one catches what they miss.
    Opening {
        until: Mono,
    },
    /// `hello` is sent.
    Greeting {
        until: Mono,
    },
    /// `welcome` came.
    Syncing {
        until: Mono,
    },
    /// `synced` came.
    Live {
        since: Mono,
        stable: bool,
    },
}

/// Why the machine itself ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    Opening,
    Greeting,
    Syncing,
    /// Nothing heard for two and a half heartbeats.
    Silent,
    /// The time that `goaway` gave this client is over.
    Leave,
}

#[derive(Debug)]
pub(crate) struct Ws {
    pub(crate) link: LinkId,
    pub(crate) phase: Phase,
    pub(crate) session: Option<SessionId>,
    /// The seq that the hub knows us to hold.
    pub(crate) acked: Seq,
    heartbeat: Duration,
    heard: Mono,
    /// When to leave, by `goaway`.
    pub(crate) leave_at: Option<Mono>,
}

impl Ws {
    pub(crate) const fn new() -> Self {
        Self {
            link: LinkId(0),
            phase: Phase::Down,
            session: None,
            acked: Seq(0),
            heartbeat: Duration::from_secs(30),
            heard: Mono(0),
            leave_at: None,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    pub(crate) fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    pub(crate) fn open(&mut self, timing: &Timing, now: Now, out: &mut Vec<Command>) {
        self.link = LinkId(self.link.0 + 1);
        self.phase = Phase::Opening {
            until: now.mono + timing.connect * 2,
        };
        self.session = None;
        self.leave_at = None;
        out.push(Command::Open(self.link));
    }

    pub(crate) fn greeted(&mut self, acked: Seq, timing: &Timing, now: Now) {
        self.phase = Phase::Greeting {
            until: now.mono + timing.greet,
        };
        self.acked = acked;
        self.heard = now.mono;
    }

    pub(crate) fn welcomed(&mut self, session: SessionId, heartbeat: u64, timing: &Timing, now: Now) {
        self.session = Some(session);
        self.heartbeat = Duration::from_secs(heartbeat.clamp(1, 600));
        self.phase = Phase::Syncing {
            until: now.mono + timing.sync,
        };
    }

    pub(crate) fn synced(&mut self, now: Now) {
        if matches!(self.phase, Phase::Syncing { .. }) {
            self.phase = Phase::Live {
                since: now.mono,
                stable: false,
            };
        }
    }

    pub(crate) const fn heard(&mut self, now: Now) {
        self.heard = now.mono;
    }

    pub(crate) const fn down(&mut self) {
        self.phase = Phase::Down;
    }

    fn silent_at(&self) -> Mono {
        self.heard + self.heartbeat * SILENCE_HALVES / 2
    }

    /// Whether the session has just become stable; said once.
    pub(crate) fn became_stable(&mut self, timing: &Timing, now: Now) -> bool {
        match &mut self.phase {
            Phase::Live { since, stable } if !*stable && *since + timing.stable <= now.mono => {
                *stable = true;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn overdue(&self, now: Now) -> Option<Overdue> {
        let due = |at: Mono| at <= now.mono;
        match self.phase {
            Phase::Down => None,
            Phase::Opening { until } => due(until).then_some(Overdue::Opening),
            Phase::Greeting { until } => due(until).then_some(Overdue::Greeting),
            Phase::Syncing { until } => due(until).then_some(Overdue::Syncing),
            Phase::Live { .. } if self.leave_at.is_some_and(due) => Some(Overdue::Leave),
            Phase::Live { .. } => due(self.silent_at()).then_some(Overdue::Silent),
        }
    }

    pub(crate) fn next_timeout(&self, timing: &Timing) -> Option<Mono> {
        match self.phase {
            Phase::Down => None,
            Phase::Opening { until } | Phase::Greeting { until } | Phase::Syncing { until } => Some(until),
            Phase::Live { since, stable } => [
                Some(self.silent_at()),
                self.leave_at,
                (!stable).then(|| since + timing.stable),
            ]
            .into_iter()
            .flatten()
            .min(),
        }
    }
}

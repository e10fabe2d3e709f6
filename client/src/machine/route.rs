//! Which transport carries the updates.
//!
//! A WebSocket is believed in only after it has carried the protocol for some seconds. One that is refused, cut or
//! silent before that raises a suspicion; the suspicion is proven when long-poll then works where the WebSocket did
//! not (else the hub is simply down). The verdict has a time limit, and is tested in the background.

use std::time::Duration;

use super::{Entropy, backoff::between, io::NotOpened, ws::Overdue};
use crate::{
    clock::{Mono, Now, Unix},
    event::{Transport, TransportChoice},
    timing::Timing,
};

/// Refusals that a busy hub or the proxy in front of a dead one also gives: only so many in a row mean anything.
const SOFT_REFUSALS: u32 = 3;

/// How a WebSocket ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    NotOpened(NotOpened),
    Overdue(Overdue),
    /// A close code of the hub (none: the connection was cut), and how far the session had come.
    Ended {
        code: Option<u16>,
        was: Was,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// No `synced` yet.
    Fresh,
    /// Synced, but not for long.
    Young,
    /// A working session.
    Stable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    None,
    Soft,
    Hard,
}

impl End {
    fn strike(&self) -> Strike {
        match self {
            Self::NotOpened(NotOpened::Unreachable(_)) => Strike::None,
            Self::NotOpened(NotOpened::Status {
                status: 429 | 502 | 503 | 504,
                ..
            }) => Strike::Soft,
            Self::NotOpened(_) => Strike::Hard,
            Self::Overdue(Overdue::Opening | Overdue::Greeting) => Strike::Hard,
            Self::Overdue(Overdue::Syncing) => Strike::Soft,
            Self::Overdue(Overdue::Silent | Overdue::Leave) => Strike::None,
            Self::Ended { was: Was::Stable, .. } => Strike::None,
            // The private codes are the hub's own words.
            Self::Ended { code: Some(code), .. } if *code >= 4000 => Strike::None,
            // A hub that stops, most likely; but whoever does that every time does not like WebSockets.
            Self::Ended { code: Some(1001), .. } => Strike::Soft,
            Self::Ended { .. } => Strike::Hard,
        }
    }

    /// When the other side asked to be left alone for a while.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotOpened(NotOpened::Status { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn words(&self) -> String {
        match self {
            Self::NotOpened(NotOpened::Unreachable(why) | NotOpened::Broken(why)) => why.clone(),
            Self::NotOpened(NotOpened::Status { status, .. }) => format!("upgrade answered with HTTP {status}"),
            Self::Overdue(Overdue::Opening) => "no connection in time".into(),
            Self::Overdue(Overdue::Greeting) => "no welcome in time".into(),
            Self::Overdue(Overdue::Syncing) => "not brought up to date in time".into(),
            Self::Overdue(Overdue::Silent) => "nothing heard for two and a half heartbeats".into(),
            Self::Overdue(Overdue::Leave) => "the hub is going away".into(),
            Self::Ended { code: Some(code), .. } => format!("closed with {code}"),
            Self::Ended {
                code: None,
                was: Was::Stable,
            } => "connection lost".into(),
            Self::Ended { code: None, .. } => "connection cut right after it opened".into(),
        }
    }
}

#[derive(Debug)]
struct Blocked {
    until: Unix,
    probe_at: Mono,
    probes: u32,
}

#[derive(Debug)]
pub(crate) struct Route {
    choice: TransportChoice,
    carrier: Transport,
    soft: u32,
    /// Why long-poll is being tried, until it has worked.
    suspicion: Option<String>,
    blocked: Option<Blocked>,
}

impl Route {
    /// `blocked_until`: what an earlier run found out.
    pub(crate) fn new(
        choice: TransportChoice,
        blocked_until: Option<Unix>,
        timing: &Timing,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let mut route = Self {
            choice,
            carrier: Transport::Ws,
            soft: 0,
            suspicion: None,
            blocked: None,
        };
        if choice == TransportChoice::Poll {
            route.carrier = Transport::Poll;
        }
        // A limit further away than any that is ever set comes from a clock that was wrong.
        let latest = now.unix.plus(timing.blocked_for);
        if choice == TransportChoice::Auto
            && let Some(until) = blocked_until.filter(|until| *until > now.unix && *until <= latest)
        {
            route.carrier = Transport::Poll;
            route.blocked = Some(Blocked {
                until,
                probe_at: probe_at(0, timing, now, entropy),
                probes: 0,
            });
        }
        route
    }

    pub(crate) const fn carrier(&self) -> Transport {
        self.carrier
    }

    /// To be remembered across restarts.
    pub(crate) fn blocked_until(&self) -> Option<Unix> {
        self.blocked.as_ref().map(|blocked| blocked.until)
    }

    /// The carrier's WebSocket ended. True: try long-poll now.
    pub(crate) fn ws_ended(&mut self, end: &End) -> bool {
        let strike = end.strike();
        if strike == Strike::Soft {
            self.soft += 1;
        }
        let suspicious = strike == Strike::Hard || self.soft >= SOFT_REFUSALS;
        if self.choice != TransportChoice::Auto || !suspicious {
            return false;
        }
        self.soft = 0;
        self.suspicion = Some(end.words());
        self.carrier = Transport::Poll;
        true
    }

    /// A long-poll was answered. The reason, if this proves that WebSockets are blocked.
    pub(crate) fn poll_worked(&mut self, timing: &Timing, now: Now, entropy: &mut dyn Entropy) -> Option<String> {
        let reason = self.suspicion.take()?;
        self.blocked = Some(Blocked {
            until: now.unix.plus(timing.blocked_for),
            probe_at: probe_at(0, timing, now, entropy),
            probes: 0,
        });
        Some(reason)
    }

    /// A long-poll failed. True: that was no worse than the WebSocket, which is to be tried again.
    pub(crate) fn poll_failed(&mut self, now: Now) -> bool {
        let lapsed = self.blocked.as_ref().is_some_and(|blocked| blocked.until <= now.unix);
        if lapsed {
            self.blocked = None;
        }
        if self.suspicion.take().is_some() || lapsed {
            self.carrier = Transport::Ws;
            return true;
        }
        false
    }

    /// The network may be another one: what was found out about the old one is put to the test now.
    pub(crate) fn reconsider(&mut self, now: Now) {
        if let Some(blocked) = &mut self.blocked {
            blocked.probe_at = now.mono;
            blocked.probes = 0;
        }
    }

    /// Whether a WebSocket should be tried beside the long-poll now.
    pub(crate) fn probe_due(&self, now: Now) -> bool {
        self.carrier == Transport::Poll && self.blocked.as_ref().is_some_and(|b| b.probe_at <= now.mono)
    }

    /// The probe failed: still blocked.
    pub(crate) fn probe_failed(&mut self, timing: &Timing, now: Now, entropy: &mut dyn Entropy) {
        if let Some(blocked) = &mut self.blocked {
            blocked.probes += 1;
            blocked.probe_at = probe_at(blocked.probes, timing, now, entropy);
            blocked.until = now.unix.plus(timing.blocked_for);
        }
    }

    /// A WebSocket has carried the protocol for long enough. True: it takes over from the long-poll.
    pub(crate) fn ws_stable(&mut self) -> bool {
        self.soft = 0;
        self.suspicion = None;
        self.blocked = None;
        let upgrade = self.carrier == Transport::Poll;
        self.carrier = Transport::Ws;
        upgrade
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.blocked.as_ref().map(|blocked| blocked.probe_at)
    }
}

/// Doubling, with the upper half jittered: devices behind one proxy do not all probe at once.
fn probe_at(probes: u32, timing: &Timing, now: Now, entropy: &mut dyn Entropy) -> Mono {
    let wait = timing
        .probe_first
        .saturating_mul(1 << probes.min(16))
        .min(timing.probe_most);
    now.mono + between(wait / 2, wait, entropy)
}

//! Named timers: every deadline of a grant has a name in one table.

use std::time::Duration;

use crate::time::Mono;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// Read again after the store could not.
    Load,
    /// Ask for a permit again.
    Permit,
    /// The next try of a round.
    Rest,
    /// Renew the lease.
    Renew,
    /// The hard deadline of a redeem: from here on its outcome is unknown.
    Deadline,
    /// Tell the sessions that a redeem takes long.
    Announce,
    /// An elected device has not answered.
    Accept,
    /// No other node took up an election.
    Wanted,
    /// Another's claim should have lapsed.
    Lapse,
    /// The wait for a late result is over.
    Doubt,
    /// Write a verdict again.
    Settle,
    /// Commit a result again that the store refused.
    Land,
    /// The earliest waiter has waited long enough.
    Waiters,
    /// Look again at what to do.
    Again,
}

impl Timer {
    const ALL: [Self; 14] = [
        Self::Load,
        Self::Permit,
        Self::Rest,
        Self::Renew,
        Self::Deadline,
        Self::Announce,
        Self::Accept,
        Self::Wanted,
        Self::Lapse,
        Self::Doubt,
        Self::Settle,
        Self::Land,
        Self::Waiters,
        Self::Again,
    ];
    /// Those that belong to a flight and end with it.
    const OF_FLIGHT: [Self; 8] = [
        Self::Permit,
        Self::Rest,
        Self::Renew,
        Self::Deadline,
        Self::Announce,
        Self::Accept,
        Self::Wanted,
        Self::Settle,
    ];
}

/// The table.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Timers([Option<Mono>; Timer::ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Mono) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// How long until it is due; nothing, if it is not set.
    pub(super) fn left(&self, timer: Timer, now: Mono) -> Duration {
        self.0[timer as usize].map_or(Duration::ZERO, |at| at.since(now))
    }

    pub(super) fn stop_flight(&mut self) {
        for timer in Timer::OF_FLIGHT {
            self.stop(timer);
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one timer that is due, in the order of the table.
    pub(super) fn take_due(&mut self, now: Mono) -> Option<Timer> {
        let due = Timer::ALL
            .into_iter()
            .find(|timer| self.0[*timer as usize].is_some_and(|at| at <= now))?;
        self.stop(due);
        Some(due)
    }
}

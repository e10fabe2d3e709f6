//! Who waits for a newer version, in order, bounded in number and time.

use lockstep_protocol::Version;

use super::{Asker, WaiterId};
use crate::time::Mono;

/// One who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) id: WaiterId,
    pub(super) by: Asker,
    /// Satisfied by any version above this one.
    pub(super) beyond: Version,
    /// When it has waited long enough.
    pub(super) until: Mono,
}

/// All who wait, in order of arrival.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// How many may wait for one grant.
    pub(super) const MOST: usize = 16_384;

    /// Takes one in; gives it back when there is no room.
    pub(super) fn add(&mut self, waiter: Waiter) -> Result<(), WaiterId> {
        if self.0.len() >= Self::MOST {
            return Err(waiter.id);
        }
        self.0.push(waiter);
        Ok(())
    }

    /// Takes one out. False: it did not wait.
    pub(super) fn remove(&mut self, id: WaiterId) -> bool {
        let before = self.0.len();
        self.0.retain(|waiter| waiter.id != id);
        self.0.len() < before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has_operator(&self) -> bool {
        self.0.iter().any(|waiter| waiter.by == Asker::Operator)
    }

    /// Takes out those who are satisfied by `version`.
    pub(super) fn satisfied(&mut self, version: Version) -> Vec<WaiterId> {
        self.take(|waiter| waiter.beyond < version)
    }

    /// Takes out those who have waited long enough.
    pub(super) fn overdue(&mut self, now: Mono) -> Vec<WaiterId> {
        self.take(|waiter| waiter.until <= now)
    }

    /// Takes out all.
    pub(super) fn all(&mut self) -> Vec<WaiterId> {
        self.take(|_| true)
    }

    /// When the first of them has waited long enough.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.iter().map(|waiter| waiter.until).min()
    }

    fn take(&mut self, which: impl Fn(&Waiter) -> bool) -> Vec<WaiterId> {
        if !self.0.iter().any(&which) {
            return Vec::new();
        }
        let (out, rest) = std::mem::take(&mut self.0).into_iter().partition(which);
        self.0 = rest;
        out.into_iter().map(|waiter: Waiter| waiter.id).collect()
    }
}

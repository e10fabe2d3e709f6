//! How often a device asks whether its user has said a word (RFC 8628 section 3.5).
//!
//! In memory, on each node by itself: a device that asks too often costs a little more on a second node, and no truth.

use std::time::Duration;

use dashmap::DashMap;
use lockstep_engine::time::Mono;

use crate::store::Hash;

/// How much one that was told to slow down has to add, each time.
const SLOWER_BY: Duration = Duration::from_secs(5);
/// How much too early an answer is still in time: networks jitter.
const LEEWAY: Duration = Duration::from_millis(500);
/// The most codes remembered; above it nobody new is told to slow down.
const MOST: usize = 10_000;

#[derive(Clone, Copy)]
struct Pace {
    last: Mono,
    interval: Duration,
}

/// The paces of those who ask.
#[derive(Default)]
pub(super) struct Paces(DashMap<Hash, Pace>);

impl Paces {
    /// Counts an ask with this code; whether it came in time.
    pub(super) fn in_time(&self, code: Hash, interval: Duration, now: Mono) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&code) {
            return true;
        }
        let mut in_time = true;
        self.0
            .entry(code)
            .and_modify(|pace| {
                in_time = now.since(pace.last) + LEEWAY >= pace.interval;
                if !in_time {
                    pace.interval += SLOWER_BY;
                }
                pace.last = now;
            })
            .or_insert(Pace { last: now, interval });
        in_time
    }

    /// Forgets a code that is done with.
    pub(super) fn forget(&self, code: Hash) {
        self.0.remove(&code);
    }

    /// Forgets who has not asked for `life`.
    pub(super) fn tidy(&self, life: Duration, now: Mono) {
        self.0.retain(|_, pace| now.since(pace.last) < life);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_has_to_wait_longer() {
        let paces = Paces::default();
        let (code, five) = (Hash([1; 32]), Duration::from_secs(5));
        let at = |seconds: u64| Mono(1_000_000 + seconds * 1000);
        assert!(paces.in_time(code, five, at(0)));
        assert!(paces.in_time(code, five, at(5)));
        assert!(!paces.in_time(code, five, at(8)));
        assert!(!paces.in_time(code, five, at(14)), "ten seconds now");
        assert!(paces.in_time(code, five, at(29)), "and fifteen now");
        assert!(paces.in_time(Hash([2; 32]), five, at(29)), "another's pace is its own");
        paces.tidy(Duration::from_secs(60), at(90));
        assert!(paces.0.is_empty());
    }
}

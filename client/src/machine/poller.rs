//! The loop of long-polls: one at a time, each of which acks what the last one brought.

use std::time::Duration;

use lockstep_protocol::Cursor;

use super::io::PollId;
use crate::{
    clock::{Mono, Now},
    timing::Timing,
};

/// A poll that was cut after at least this long was cut by somebody who does not like long requests.
const CUT_FOR_LENGTH: Duration = Duration::from_secs(3);
/// No poll is made shorter than this: whatever cuts those too is not to be outwitted.
const SHORTEST: Duration = Duration::from_secs(2);
/// After so many good polls a shortened wait is doubled again.
const LENGTHEN_AFTER: u32 = 32;
/// A poll that brings nothing new sooner than this is followed by a pause, so that nothing spins.
const TOO_QUICK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Off,
    /// The next poll goes out then.
    Due(Mono),
    /// The next poll acks; it goes out when the cache has what it acks.
    AfterPersist(u64),
    Running {
        poll: PollId,
        since: Mono,
        after: Option<Cursor>,
        wait: Duration,
    },
}

#[derive(Debug)]
pub(crate) struct Poller {
    phase: Phase,
    last: PollId,
    wait: Duration,
    good: u32,
    /// The hub has answered since the loop was started: what is held is the newest.
    pub(crate) synced: bool,
}

impl Poller {
    pub(crate) const fn new(timing: &Timing) -> Self {
        Self {
            phase: Phase::Off,
            last: PollId(0),
            wait: timing.poll_wait,
            good: 0,
            synced: false,
        }
    }

    pub(crate) const fn stop(&mut self) -> bool {
        let running = matches!(self.phase, Phase::Running { .. });
        self.phase = Phase::Off;
        self.synced = false;
        running
    }

    pub(crate) const fn is_off(&self) -> bool {
        matches!(self.phase, Phase::Off)
    }

    /// Polls from `at` on.
    pub(crate) const fn poll_at(&mut self, at: Mono) {
        self.phase = Phase::Due(at);
    }

    pub(crate) const fn poll_after_persist(&mut self, mark: u64) {
        self.phase = Phase::AfterPersist(mark);
    }

    pub(crate) fn persisted(&mut self, mark: u64, now: Now) {
        if matches!(self.phase, Phase::AfterPersist(awaited) if awaited <= mark) {
            self.phase = Phase::Due(now.mono);
        }
    }

    pub(crate) fn is_due(&self, now: Now) -> bool {
        matches!(self.phase, Phase::Due(at) if at <= now.mono)
    }

    /// A poll goes out: its id, and how long the hub may hold it. The first is not held: it is there to be answered.
    pub(crate) fn start(&mut self, after: Option<Cursor>, now: Now) -> (PollId, Duration) {
        self.last = PollId(self.last.0 + 1);
        let wait = if self.synced { self.wait } else { Duration::ZERO };
        self.phase = Phase::Running {
            poll: self.last,
            since: now.mono,
            after,
            wait,
        };
        (self.last, wait)
    }

    /// An answer came. None: to a poll that nobody waits for any more. Else whether it came at once and brought
    /// nothing beyond `cursor`, so that another one at once would spin.
    pub(crate) fn answered(&mut self, poll: PollId, cursor: Option<Cursor>, timing: &Timing, now: Now) -> Option<bool> {
        let Phase::Running {
            poll: running,
            since,
            after,
            wait,
        } = self.phase
        else {
            return None;
        };
        if running != poll {
            return None;
        }
        self.synced = true;
        self.good += 1;
        if self.good >= LENGTHEN_AFTER {
            self.good = 0;
            self.wait = (self.wait * 2).min(timing.poll_wait);
        }
        self.phase = Phase::Due(now.mono);
        let quick = !wait.is_zero() && now.mono.since(since) < TOO_QUICK.min(wait / 2);
        Some(quick && cursor.is_none_or(|cursor| Some(cursor) == after))
    }

    pub(crate) fn is_running(&self, poll: PollId) -> bool {
        matches!(self.phase, Phase::Running { poll: running, .. } if running == poll)
    }

    /// The poll was cut, or its answer never came. True: because it was long, most likely; shorter ones may pass.
    pub(crate) fn shorten(&mut self, now: Now) -> bool {
        let Phase::Running { since, .. } = self.phase else {
            return false;
        };
        let lasted = now.mono.since(since);
        self.good = 0;
        if !self.synced || lasted < CUT_FOR_LENGTH || self.wait <= SHORTEST {
            return false;
        }
        // A NAT that forgets what is idle cuts in silence, some time within what was waited for.
        self.wait = (self.wait.min(lasted) * 7 / 10).max(SHORTEST);
        self.phase = Phase::Due(now.mono);
        true
    }

    pub(crate) const fn next_timeout(&self) -> Option<Mono> {
        match self.phase {
            Phase::Due(at) => Some(at),
            Phase::Off | Phase::AfterPersist(_) | Phase::Running { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::DEFAULT;

    fn at(seconds: u64) -> Now {
        Now {
            mono: Mono(seconds * 1000),
            ..Now::default()
        }
    }

    /// A poller that was answered once.
    fn poller() -> Poller {
        let mut poller = Poller::new(&DEFAULT);
        let (poll, wait) = poller.start(None, at(0));
        assert_eq!(wait, Duration::ZERO, "the first is there to be answered");
        assert_eq!(poller.answered(poll, None, &DEFAULT, at(0)), Some(false));
        poller
    }

    fn wait_after(lasted: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut poller = poller();
        let mut waits = Vec::new();
        for lasted in lasted {
            poller.start(None, at(0));
            if !poller.shorten(at(lasted)) {
                break;
            }
            waits.push(poller.start(None, at(0)).1.as_secs());
        }
        waits
    }

    #[test]
    fn a_poll_that_is_cut_becomes_shorter_than_what_cut_it() {
        assert_eq!(wait_after([10]), [7]);
        assert_eq!(
            wait_after([60]),
            [17],
            "nobody knows when: shorter than what was asked for"
        );
        assert_eq!(wait_after([1]), [] as [u64; 0], "not for its length");
    }

    #[test]
    fn silence_after_silence_makes_them_ever_shorter_to_a_bound() {
        assert_eq!(wait_after([50; 20]), [17, 12, 8, 6, 4, 2, 2, 2]);
    }

    #[test]
    fn good_polls_make_them_longer_again() {
        let mut poller = poller();
        poller.start(None, at(0));
        assert!(poller.shorten(at(10)));
        for _ in 0..LENGTHEN_AFTER {
            let (poll, _) = poller.start(None, at(0));
            poller.answered(poll, None, &DEFAULT, at(5));
        }
        assert_eq!(poller.start(None, at(0)).1, Duration::from_secs(14));
    }
}

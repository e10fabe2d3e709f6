//! Notices that the device slept, that the process was frozen, or that the wall clock was set.

use std::time::Duration;

use super::{Command, Entropy, Machine, ws::Phase};
use crate::{
    clock::{Mono, Now},
    event::Event,
    timing::Timing,
};

/// Clocks that drift apart by less than this between two looks are left alone.
const TOLERANCE: Duration = Duration::from_secs(2);
/// A look that comes this much later than asked for means that the process did not run.
const FROZEN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Wake {
    last: Now,
    every: Duration,
}

impl Wake {
    pub(crate) const fn new(timing: &Timing, now: Now) -> Self {
        Self {
            last: now,
            every: timing.watch,
        }
    }

    /// When to look again at the latest: a timer of the runtime stops in suspend and must not be waited out.
    pub(crate) fn next(&self) -> Mono {
        self.last.mono + self.every
    }

    /// How much time is missing since the last look, if it is too much.
    pub(crate) fn gap(&mut self, now: Now) -> Option<Duration> {
        let last = std::mem::replace(&mut self.last, now);
        let passed = now.mono.since(last.mono);
        let awake = Duration::from_millis(now.awake.saturating_sub(last.awake));
        let wall = i128::from(now.unix.0) - i128::from(last.unix.0);
        let jump = u64::try_from((wall - i128::try_from(passed.as_millis()).unwrap_or(0)).unsigned_abs());
        let slept = passed.saturating_sub(awake);
        let jump = Duration::from_millis(jump.unwrap_or(u64::MAX));
        let frozen = passed.saturating_sub(self.every);
        [(slept, TOLERANCE), (jump, TOLERANCE), (frozen, FROZEN)]
            .into_iter()
            .filter_map(|(gap, most)| (gap > most).then_some(gap))
            .max()
    }
}

impl Machine {
    /// Whatever was connected may be gone without a word: connect anew, with the cursor, at once.
    pub(super) fn woke(&mut self, gap: Duration, now: Now, out: &mut Vec<Command>) {
        out.push(Command::Event(Event::Woke { gap }));
        self.resync(now, out);
    }

    /// Starts over from the cursor, without waiting for anything.
    pub(super) fn resync(&mut self, now: Now, out: &mut Vec<Command>) {
        self.let_go(out);
        self.backoff.reset();
        self.access.rested();
        self.route.reconsider(now);
        self.connect_at = Some(now.mono);
    }

    /// The hub speaks of another epoch: what is true now only a new `hello` can tell. At once, unless the last one was just
    /// said: the hub may not know either.
    pub(super) fn ask_anew(&mut self, now: Now, entropy: &mut dyn Entropy, out: &mut Vec<Command>) {
        if matches!(self.ws.phase, Phase::Live { stable: true, .. }) {
            return self.resync(now, out);
        }
        self.let_go(out);
        let wait = self.backoff.next(entropy);
        self.try_again_in(wait, "the hub speaks of two epochs".into(), now, out);
    }

    /// Ends whatever is connected.
    fn let_go(&mut self, out: &mut Vec<Command>) {
        if !self.ws.is_down() {
            out.push(Command::Shut(self.ws.link, 1000));
            self.ws.down();
        }
        if self.poller.stop() {
            out.push(Command::StopPoll);
        }
        self.held.broke_off();
        self.asks.all_lost();
    }
}

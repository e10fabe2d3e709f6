//! How much one provider is asked of: redeems at once, and redeems per second. First come, first served.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};

use crate::cluster::Place;

/// How long to stay away when all permits are in use: some redeem ends sooner than its deadline, most likely.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// The right to redeem once. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    /// None only while it is dropped.
    slot: Option<OwnedSemaphorePermit>,
    slots: Arc<Slots>,
    /// What it took of the rate, if there is one.
    start: Option<Start>,
}

/// A start that was reserved.
#[derive(Debug)]
struct Start {
    pace: Arc<Pace>,
    at: Instant,
    interval: Duration,
}

impl Permit {
    /// Nothing was redeemed with it: whoever comes next need not wait for what did not happen.
    pub fn unused(self) {
        if let Some(start) = &self.start {
            // What time has given back already is not given back again.
            let left = start.interval.saturating_sub(start.at.elapsed());
            start.pace.take_back(left);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.slots.give_back(slot);
        }
    }
}

/// Concurrency and rate of one provider: this node's share of them.
#[derive(Debug)]
pub(super) struct Limiter {
    at_once: usize,
    slots: Arc<Slots>,
    pace: Option<Arc<Pace>>,
}

impl Limiter {
    /// At most `at_once` redeems at once, and `per_second` of them start each second (0: no limit).
    pub(super) fn new(at_once: usize, per_second: f64) -> Self {
        let at_once = at_once.min(Semaphore::MAX_PERMITS);
        Self {
            at_once,
            slots: Arc::new(Slots::new(at_once)),
            pace: (per_second > 0.0).then(|| Arc::new(Pace::new(per_second))),
        }
    }

    /// Keeps to this node's share from now on.
    pub(super) fn share(&self, place: Place) {
        self.slots.resize(place.share(self.at_once));
        if let Some(pace) = &self.pace {
            pace.share(place);
        }
    }

    /// Waits in line, no longer than `wait`.
    ///
    /// # Errors
    /// How long from now to come again.
    pub(super) async fn permit(&self, wait: Duration) -> Result<Permit, Duration> {
        let until = Instant::now() + wait;
        // The semaphore is never closed; if it were, the answer "later" would do no harm.
        let Ok(Ok(slot)) = timeout_at(until, Arc::clone(&self.slots.free).acquire_owned()).await else {
            return Err(COME_AGAIN);
        };
        let permit = self.slots.permit(slot);
        if let Some(pace) = &self.pace {
            let (start, _) = pace.reserve(Instant::now(), until)?;
            sleep_until(start).await;
        }
        Ok(permit)
    }

    /// As many as can be had now, at most `n`.
    pub(super) fn try_permits(&self, n: usize) -> Vec<Permit> {
        let now = Instant::now();
        let free = || {
            let slot = Arc::clone(&self.slots.free).try_acquire_owned().ok()?;
            let mut permit = self.slots.permit(slot);
            if let Some(pace) = &self.pace {
                permit.start = Some(pace.start(now)?);
            }
            Some(permit)
        };
        std::iter::from_fn(free).take(n).collect()
    }
}

/// So many at once; the number may change while they are in use.
#[derive(Debug)]
struct Slots {
    free: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    allowed: usize,
    /// How many in use are to vanish when they are given back.
    excess: usize,
}

impl Slots {
    fn new(allowed: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(allowed)),
            size: Mutex::new(Size { allowed, excess: 0 }),
        }
    }

    fn permit(self: &Arc<Self>, slot: OwnedSemaphorePermit) -> Permit {
        Permit {
            slot: Some(slot),
            slots: Arc::clone(self),
            start: None,
        }
    }

    fn resize(&self, to: usize) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if to > size.allowed {
            let more = to - size.allowed;
            let kept = more.min(size.excess);
            size.excess -= kept;
            self.free.add_permits(more - kept);
        } else {
            let fewer = size.allowed - to;
            size.excess += fewer - self.free.forget_permits(fewer);
        }
        size.allowed = to;
    }

    fn give_back(&self, slot: OwnedSemaphorePermit) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if size.excess > 0 {
            size.excess -= 1;
            slot.forget();
        }
    }
}

/// A token bucket, kept as the time when it was last empty would be full again (GCRA, ITU-T I.371): one second's worth
/// may start at once after a pause.
#[derive(Debug)]
struct Pace {
    /// Of all nodes together.
    per_second: f64,
    state: Mutex<Step>,
}

#[derive(Debug)]
struct Step {
    interval: Duration,
    next: Option<Instant>,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        Self {
            per_second,
            state: Mutex::new(Step {
                interval: interval(per_second, Place::ALONE),
                next: None,
            }),
        }
    }

    fn share(&self, place: Place) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.interval = interval(self.per_second, place);
    }

    /// Reserves the next start, if it is not after `until`: when it is, and what it took.
    ///
    /// # Errors
    /// How long from now to come again.
    fn reserve(&self, now: Instant, until: Instant) -> Result<(Instant, Duration), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = Duration::from_secs(1).saturating_sub(state.interval);
        let planned = state.next.unwrap_or(now).max(now);
        let start = planned.checked_sub(burst).unwrap_or(now).max(now);
        if start > until {
            return Err(start - now);
        }
        state.next = Some(planned + state.interval);
        Ok((start, state.interval))
    }

    /// A start now, if one can be had now.
    fn start(self: &Arc<Self>, now: Instant) -> Option<Start> {
        let (at, interval) = self.reserve(now, now).ok()?;
        Some(Start {
            pace: Arc::clone(self),
            at,
            interval,
        })
    }

    /// Gives back a part of what was reserved.
    fn take_back(&self, span: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next = state.next.and_then(|next| next.checked_sub(span));
    }
}

/// Slower than once a day is a misunderstanding, and would overflow.
#[expect(clippy::cast_precision_loss, reason = "counts of nodes are far below 2^52")]
fn interval(per_second: f64, place: Place) -> Duration {
    Duration::from_secs_f64((place.of as f64 / per_second).min(86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIRD: Place = Place { nth: 2, of: 3 };

    fn free(limiter: &Limiter) -> usize {
        limiter.try_permits(usize::MAX).len()
    }

    #[tokio::test]
    async fn a_share_that_shrinks_waits_for_those_in_use() {
        let limiter = Limiter::new(12, 0.0);
        let mut in_use = limiter.try_permits(10);
        limiter.share(THIRD);
        assert_eq!(free(&limiter), 0, "ten are in use, four are allowed");
        in_use.truncate(4);
        assert_eq!(free(&limiter), 0);
        in_use.truncate(3);
        assert_eq!(free(&limiter), 1);
        drop(in_use);
        assert_eq!(free(&limiter), 4);
        limiter.share(Place::ALONE);
        assert_eq!(free(&limiter), 12);
    }

    #[tokio::test]
    async fn a_share_that_grows_forgives_first() {
        let limiter = Limiter::new(12, 0.0);
        let in_use = limiter.try_permits(12);
        limiter.share(THIRD);
        limiter.share(Place { nth: 0, of: 2 });
        assert_eq!(free(&limiter), 0, "twelve are in use, six are allowed");
        drop(in_use);
        assert_eq!(free(&limiter), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_there_for_the_next() {
        let limiter = Limiter::new(1_000, 4.0);
        for _ in 0..10 {
            let had = limiter.try_permits(64);
            assert_eq!(had.len(), 4, "a second's worth");
            had.into_iter().for_each(Permit::unused);
        }
        let used = limiter.try_permits(3);
        assert_eq!((used.len(), free(&limiter)), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_not_there_twice() {
        let limiter = Limiter::new(1_000, 4.0);
        let unused = limiter.try_permits(4);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(free(&limiter), 4, "time has given back what was not used");
        unused.into_iter().for_each(Permit::unused);
        assert_eq!(free(&limiter), 0, "and nobody else does");

        let limiter = Limiter::new(1_000, 4.0);
        let unused = limiter.try_permits(4);
        limiter.share(THIRD);
        unused.into_iter().for_each(Permit::unused);
        assert_eq!(free(&limiter), 1, "as much as was taken, and not of the smaller share");
    }

    #[tokio::test(start_paused = true)]
    async fn three_nodes_together_are_no_faster_than_one() {
        let started = |nodes: Vec<Limiter>| async move {
            let began = Instant::now();
            let mut count = 0;
            while began.elapsed() < Duration::from_secs(60) {
                count += nodes.iter().map(|node| node.try_permits(64).len()).sum::<usize>();
                tokio::time::advance(Duration::from_millis(50)).await;
            }
            count
        };
        let three = (0..3).map(|nth| {
            let node = Limiter::new(1_000, 6.0);
            node.share(Place { nth, of: 3 });
            node
        });
        let together = started(three.collect()).await;
        // A minute at six a second, and the second's worth that may come at once.
        assert!((350..=366).contains(&together), "{together}");
        assert!((350..=366).contains(&started(vec![Limiter::new(1_000, 6.0)]).await));
    }
}

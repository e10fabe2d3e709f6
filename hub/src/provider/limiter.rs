//! How much one provider is asked of: redeems at once, and redeems per second. First come, first served.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};

/// How long to stay away when all permits are in use: some redeem ends sooner than its deadline, most likely.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// The right to redeem once. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
}

/// Concurrency and rate of one provider.
#[derive(Debug)]
pub(super) struct Limiter {
    slots: Arc<Semaphore>,
    pace: Option<Pace>,
}

impl Limiter {
    /// At most `at_once` redeems at once, and `per_second` of them start each second (0: no limit).
    pub(super) fn new(at_once: usize, per_second: f64) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS))),
            pace: (per_second > 0.0).then(|| Pace::new(per_second)),
        }
    }

    /// Waits in line, no longer than `wait`.
    ///
    /// # Errors
    /// How long from now to come again.
    pub(super) async fn permit(&self, wait: Duration) -> Result<Permit, Duration> {
        let until = Instant::now() + wait;
        // The semaphore is never closed; if it were, the answer "later" would do no harm.
        let Ok(Ok(slot)) = timeout_at(until, Arc::clone(&self.slots).acquire_owned()).await else {
            return Err(COME_AGAIN);
        };
        if let Some(pace) = &self.pace {
            let start = pace.reserve(Instant::now(), until)?;
            sleep_until(start).await;
        }
        Ok(Permit { _slot: slot })
    }

    /// As many as can be had now, at most `n`.
    pub(super) fn try_permits(&self, n: usize) -> Vec<Permit> {
        let now = Instant::now();
        let free = || {
            let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
            if let Some(pace) = &self.pace {
                pace.reserve(now, now).ok()?;
            }
            Some(Permit { _slot: slot })
        };
        std::iter::from_fn(free).take(n).collect()
    }
}

/// A token bucket, kept as the time when it was last empty would be full again (GCRA, ITU-T I.371): one second's worth
/// may start at once after a pause.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    burst: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        // Slower than once a day is a misunderstanding, and would overflow.
        let interval = Duration::from_secs_f64((1.0 / per_second).min(86_400.0));
        Self {
            interval,
            burst: Duration::from_secs(1).saturating_sub(interval),
            next: Mutex::new(None),
        }
    }

    /// Reserves the next start, if it is not after `until`.
    fn reserve(&self, now: Instant, until: Instant) -> Result<Instant, Duration> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = next.unwrap_or(now).max(now);
        let start = planned.checked_sub(self.burst).unwrap_or(now).max(now);
        if start > until {
            return Err(start - now);
        }
        *next = Some(planned + self.interval);
        Ok(start)
    }
}

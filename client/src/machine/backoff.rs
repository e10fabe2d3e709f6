//! How long to wait before the next attempt.

use std::time::Duration;

use super::Entropy;

/// Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"): evenly between zero and a bound that doubles.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failures: 0,
        }
    }

    /// The wait before the next attempt.
    pub(crate) fn next(&mut self, entropy: &mut dyn Entropy) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        between(Duration::ZERO, bound, entropy)
    }

    /// Called when a connection has been good for some time; an opened connection alone proves nothing.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A duration drawn evenly from `least` to `most`, in milliseconds.
pub(crate) fn between(least: Duration, most: Duration, entropy: &mut dyn Entropy) -> Duration {
    let span = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX - 1);
    least + Duration::from_millis(entropy.bits() % (span + 1))
}

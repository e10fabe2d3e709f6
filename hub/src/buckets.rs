//! Token buckets in memory, on each node by itself: what they are to prevent is a flood, not a miscount.

use std::{hash::Hash, time::Duration};

use dashmap::DashMap;
use lockstep_engine::time::Mono;

/// The most keys remembered; full buckets are forgotten first, and above it nobody new is limited.
const MOST_KEYS: usize = 100_000;

/// Token buckets, one a key.
pub(crate) struct Buckets<K> {
    /// What a bucket holds when full; zero: no limit.
    size: u32,
    /// How long an empty one takes to fill.
    fills_in: Duration,
    /// When each bucket will be full again. One that is not here is full.
    full_at: DashMap<K, Mono>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Buckets of `size`; zero: no limit.
    pub(crate) fn new(size: u32, fills_in: Duration) -> Self {
        Self {
            size,
            fills_in,
            full_at: DashMap::new(),
        }
    }

    /// Takes one out.
    ///
    /// # Errors
    /// When to come again.
    pub(crate) fn take(&self, key: K, now: Mono) -> Result<(), Duration> {
        if self.size == 0 || (self.full_at.len() >= MOST_KEYS && !self.full_at.contains_key(&key)) {
            return Ok(());
        }
        let one = self.fills_in / self.size;
        let mut full_at = self.full_at.entry(key).or_insert(now);
        let then = (*full_at).max(now) + one;
        let short = then.since(now).saturating_sub(self.fills_in);
        if short > Duration::ZERO {
            return Err(short);
        }
        *full_at = then;
        Ok(())
    }

    /// Whether there is one to take.
    ///
    /// # Errors
    /// When to come again.
    pub(crate) fn look(&self, key: &K, now: Mono) -> Result<(), Duration> {
        let Some(full_at) = self.full_at.get(key) else {
            return Ok(());
        };
        let one = self.fills_in / self.size.max(1);
        let short = (*full_at + one).since(now).saturating_sub(self.fills_in);
        if short > Duration::ZERO { Err(short) } else { Ok(()) }
    }

    /// Forgets the full ones.
    pub(crate) fn tidy(&self, now: Mono) {
        self.full_at.retain(|_, full_at| *full_at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(1_000_000);

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let buckets = Buckets::new(10, Duration::from_secs(1));
        for _ in 0..10 {
            assert_eq!(buckets.take("a", START), Ok(()));
        }
        assert_eq!(buckets.take("a", START), Err(Duration::from_millis(100)));
        assert_eq!(buckets.look(&"a", START), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take("b", START), Ok(()), "another's bucket is its own");
        let later = START + Duration::from_millis(100);
        assert_eq!(buckets.look(&"a", later), Ok(()));
        assert_eq!(buckets.take("a", later), Ok(()));
        assert!(buckets.take("a", later).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let buckets = Buckets::new(0, Duration::from_secs(1));
        assert!((0..10_000).all(|_| buckets.take((), START).is_ok()));
    }

    #[test]
    fn the_quiet_are_forgotten() {
        let buckets = Buckets::new(10, Duration::from_secs(1));
        assert!(buckets.take("a", START).is_ok());
        buckets.tidy(START + Duration::from_secs(1));
        assert!(buckets.full_at.is_empty());
    }
}

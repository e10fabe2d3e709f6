//! The hub's clocks, read in one place.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lockstep_engine::time::{Mono, Now, Unix};
use rustix::time::{ClockId, clock_gettime};

/// How far the store's clock is ahead of this machine's, in milliseconds. Zero with a local store.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Both clocks. The monotonic one runs through suspend, so a lease lapses while the machine sleeps.
pub fn now() -> Now {
    Now {
        mono: mono(),
        unix: unix(),
    }
}

/// `CLOCK_BOOTTIME`.
pub fn mono() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Mono(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

/// The store's clock, as nearly as it is known.
pub fn unix() -> Unix {
    Unix(machine().saturating_add_signed(AHEAD.load(Ordering::Relaxed)))
}

fn machine() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Follows the store's clock, which read `theirs` at some moment between `before` and `after`.
pub fn follow(theirs: Unix, before: Now, after: Now) {
    AHEAD.store(
        ahead(theirs, after.mono.since(before.mono), machine()),
        Ordering::Relaxed,
    );
}

/// How far a clock is ahead of a machine's that reads `ours` when the answer comes, `took` after it was asked.
fn ahead(theirs: Unix, took: Duration, ours: u64) -> i64 {
    let half = u64::try_from(took.as_millis() / 2).unwrap_or(0);
    let theirs = i64::try_from(theirs.0.saturating_add(half)).unwrap_or(i64::MAX);
    theirs.saturating_sub(i64::try_from(ours).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_machine_follows_whichever_way_it_is_wrong() {
        let took = Duration::from_millis(40);
        for (ours, skew) in [(1_000_000, 60_020), (1_120_000, -59_980)] {
            let skewed = ahead(Unix(1_060_000), took, ours);
            assert_eq!(skewed, skew);
            assert_eq!(
                ours.saturating_add_signed(skewed),
                1_060_020,
                "half the way back is counted"
            );
        }
    }
}

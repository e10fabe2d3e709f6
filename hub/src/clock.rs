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
    let half = u64::try_from(after.mono.since(before.mono).as_millis() / 2).unwrap_or(0);
    let ahead = i64::try_from(theirs.0.saturating_add(half)).unwrap_or(i64::MAX);
    let machine = i64::try_from(machine()).unwrap_or(i64::MAX);
    AHEAD.store(ahead.saturating_sub(machine), Ordering::Relaxed);
}

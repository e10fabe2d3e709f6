//! The hub's clocks, read in one place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_engine::time::{Mono, Now, Unix};
use rustix::time::{ClockId, clock_gettime};

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

/// The wall clock.
pub fn unix() -> Unix {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Unix(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

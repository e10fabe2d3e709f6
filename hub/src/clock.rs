//! The hub's clocks, read in one place.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lockstep_engine::time::{Mono, Now, Unix};
use rustix::time::{ClockId, clock_gettime};

/// The store's clock, less [`mono`], in milliseconds: so nobody who sets this machine's clock moves it.
static STORE: AtomicI64 = AtomicI64::new(UNKNOWN);
/// This machine's clock, less [`mono`], when the store's was last read.
static MACHINE: AtomicI64 = AtomicI64::new(UNKNOWN);
/// With a local store, this machine's clock is the store's.
const UNKNOWN: i64 = i64::MIN;
/// How far the two clocks of a machine drift apart, at the most, from one reading of the store's clock to the next.
const DRIFT: u64 = 1_000;

/// Both clocks. The monotonic one runs through suspend, so a lease lapses while the machine sleeps.
pub fn now() -> Now {
    let mono = mono();
    Now {
        mono,
        unix: unix_at(mono, STORE.load(Ordering::Relaxed)),
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
    unix_at(mono(), STORE.load(Ordering::Relaxed))
}

fn unix_at(mono: Mono, offset: i64) -> Unix {
    match offset {
        UNKNOWN => Unix(machine()),
        offset => Unix(mono.0.saturating_add_signed(offset)),
    }
}

fn machine() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Follows the store's clock, which read `theirs` at some moment between `before` and `after`.
pub fn follow(theirs: Unix, before: Mono, after: Mono) {
    STORE.store(offset(theirs, before, after), Ordering::Relaxed);
    MACHINE.store(less(machine(), after.0), Ordering::Relaxed);
}

/// Whether this machine's clock was set since the store's was last read. Most often somebody put it right, and the other
/// clock is as good as before; but a virtual machine that was stopped has lost time on both.
pub fn was_set() -> bool {
    let then = MACHINE.load(Ordering::Relaxed);
    then != UNKNOWN && less(machine(), mono().0).abs_diff(then) > DRIFT
}

/// A clock less the monotonic one, when it read `theirs` half-way between `before` and `after`.
fn offset(theirs: Unix, before: Mono, after: Mono) -> i64 {
    let half = u64::try_from(after.since(before).as_millis() / 2).unwrap_or(0);
    less(theirs.0, before.0.saturating_add(half))
}

fn less(clock: u64, mono: u64) -> i64 {
    let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    signed(clock).saturating_sub(signed(mono))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_followed_on_the_monotonic_clock() {
        let (before, after) = (Mono(5_000), Mono(5_040));
        let offset = offset(Unix(1_060_000), before, after);
        assert_eq!(unix_at(after, offset), Unix(1_060_020), "half the way back is counted");
        assert_eq!(unix_at(after + Duration::from_secs(60), offset), Unix(1_120_020));
    }

    #[test]
    fn a_monotonic_clock_ahead_of_the_store_is_no_trouble() {
        let offset = offset(Unix(1_000), Mono(5_000), Mono(5_000));
        assert_eq!(unix_at(Mono(5_010), offset), Unix(1_010));
    }
}

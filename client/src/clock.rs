//! The three clocks of a device, and the hub's.
//!
//! Deadlines are counted on a clock that runs through suspend; expiry is counted on the hub's clock, because the hub
//! wrote it. The machine never reads a clock: it is given a [`Now`].

use std::{
    ops::Add,
    time::{Duration, SystemTime},
};

use lockstep_protocol::UnixSeconds;
use serde::{Deserialize, Serialize};

/// Milliseconds on a clock that never jumps and runs through suspend (`CLOCK_BOOTTIME`). Comparable only within one
/// boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mono(pub u64);

/// Milliseconds since 1970-01-01T00:00:00Z. May jump.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Unix(pub u64);

/// One reading of all clocks of the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// For deadlines.
    pub mono: Mono,
    /// Milliseconds on a clock that stops in suspend (`CLOCK_MONOTONIC`): what the two differ by was slept away.
    pub awake: u64,
    /// The wall clock.
    pub unix: Unix,
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Mono {
    /// How long after `earlier` this is; zero when it is not after.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Unix {
    pub(crate) const fn from_wire(seconds: UnixSeconds) -> Self {
        Self(seconds.0.saturating_mul(1000))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

/// The hub's clock as seen from this device: fixed to the clock that does not jump, so that setting the wall clock
/// makes no token look fresher than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HubClock {
    seen: Mono,
    read: Unix,
}

/// A difference up to this is the hub's whole seconds and the way of the answer, not skew.
const NOISE: Duration = Duration::from_secs(2);

impl HubClock {
    /// Before the hub was heard: the wall clock, put right by the skew that was found earlier (hub minus device, ms).
    pub(crate) const fn guess(now: Now, skew_ms: i64) -> Self {
        Self {
            seen: now.mono,
            read: Unix(now.unix.0.saturating_add_signed(skew_ms)),
        }
    }

    /// The hub says that it is `time`. The wall clock is kept when it agrees, because it has finer steps.
    pub(crate) const fn told(now: Now, time: UnixSeconds) -> Self {
        let read = Unix::from_wire(time);
        let off = read.0.abs_diff(now.unix.0);
        if off <= NOISE.as_millis() as u64 {
            Self::guess(now, 0)
        } else {
            Self { seen: now.mono, read }
        }
    }

    /// What the hub's clock shows now.
    pub(crate) const fn at(self, now: Now) -> Unix {
        Unix(self.read.0.saturating_add(now.mono.0.saturating_sub(self.seen.0)))
    }

    /// Hub minus device, in milliseconds.
    pub(crate) const fn skew_ms(self, now: Now) -> i64 {
        self.at(now).0.cast_signed().saturating_sub(now.unix.0.cast_signed())
    }

    /// Whether the other clock shows nearly the same.
    pub(crate) const fn agrees(self, other: Self, now: Now) -> bool {
        self.at(now).0.abs_diff(other.at(now).0) <= NOISE.as_millis() as u64
    }

    /// A time on the hub's clock as this device's wall clock shows it.
    pub(crate) fn local(self, now: Now, time: Unix) -> SystemTime {
        let unix = time.0.saturating_add_signed(self.skew_ms(now).saturating_neg());
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(unix))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Reads the clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, millis);
    let (boot, awake) = read::both();
    Now {
        mono: Mono(boot),
        awake,
        unix: Unix(unix),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod read {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    fn millis(time: Timespec) -> u64 {
        let millis = time
            .tv_sec
            .saturating_mul(1000)
            .saturating_add(time.tv_nsec / 1_000_000);
        u64::try_from(millis).unwrap_or(0)
    }

    pub(super) fn both() -> (u64, u64) {
        (
            millis(clock_gettime(ClockId::Boottime)),
            millis(clock_gettime(ClockId::Monotonic)),
        )
    }
}

/// Elsewhere there is one such clock; sleep is then noticed by a tick that comes late.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod read {
    use std::{sync::OnceLock, time::Instant};

    static START: OnceLock<Instant> = OnceLock::new();

    pub(super) fn both() -> (u64, u64) {
        let millis = super::millis(START.get_or_init(Instant::now).elapsed());
        (millis, millis)
    }
}

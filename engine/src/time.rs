//! Time as the engine knows it: an input.

use std::{ops::Add, time::Duration};

use lockstep_protocol::UnixSeconds;
use serde::{Deserialize, Serialize};

/// Milliseconds on a clock that never jumps and runs through suspend (`CLOCK_BOOTTIME`). Comparable only within one
/// process. What deadlines are counted on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Milliseconds since 1970-01-01T00:00:00Z. May jump. What is stored and what expiry is counted on.
///
/// One clock for the whole cluster: the store's. With a local store that is the node's own wall clock; with a shared one
/// the shell adds the offset that it measured. So a skewed node neither misjudges an expiry nor a provider's grace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unix(pub u64);

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub mono: Mono,
    /// For what is stored: the store's clock, as nearly as the shell knows it.
    pub unix: Unix,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Add<Duration> for Unix {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Mono {
    /// How long after `earlier` this is; zero when it is not after.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Unix {
    /// How long after `earlier` this is; zero when it is not after.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `span` earlier, not before 1970.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// As the wire writes it, rounded down: an expiry is never promised later than it is.
    pub const fn seconds(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1000)
    }

    /// As the wire writes it, rounded up: a `retry_at` is never promised earlier than it is.
    pub const fn seconds_up(self) -> UnixSeconds {
        UnixSeconds(self.0.div_ceil(1000))
    }
}

//! Built-in alerts.

/// A redeem ended.
pub fn redeemed(_outcome: &str) {}

/// A wait for a lease timed out.
pub fn lease_wait_timeout() {}

/// A provider refused the hub itself.
pub fn misconfigured() {}

/// Whether the store does what it is told.
pub fn store_available(_available: bool) {}

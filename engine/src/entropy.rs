//! Randomness as the engine knows it: an input.

use std::time::Duration;

use lockstep_protocol::LeaseId;
use uuid::Uuid;

/// Where random numbers come from: the operating system in the hub, a seed in tests.
pub trait Entropy {
    /// Sixty-four random bits. Must be unpredictable in production: lease ids are made of them.
    fn bits(&mut self) -> u64;
}

/// A duration drawn evenly from zero to `most` (full jitter; see the AWS Architecture Blog, "Exponential Backoff And
/// Jitter").
pub fn up_to(entropy: &mut dyn Entropy, most: Duration) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
    Duration::from_millis(entropy.bits() % (most + 1))
}

/// A fresh lease id.
pub fn lease_id(entropy: &mut dyn Entropy) -> LeaseId {
    LeaseId(Uuid::from_u64_pair(entropy.bits(), entropy.bits()))
}

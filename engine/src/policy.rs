//! What the rules need to know of a provider.

use std::time::Duration;

/// Who sends refresh tokens to a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Refresher {
    /// The hub itself.
    #[default]
    Hub,
    /// One of the user's devices, by election; the hub last, if [`Policy::hub_may_redeem`].
    Device,
}

/// A provider's settings, as far as decisions depend on them. All spans are real time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Who redeems.
    pub refresher: Refresher,
    /// With [`Refresher::Device`]: whether the hub redeems when no device is left.
    pub hub_may_redeem: bool,
    /// How long ahead of expiry the scheduler redeems; capped at half the token's life.
    pub lead: Duration,
    /// How long the provider accepts the previous refresh token, counted from the claim.
    pub grace: Duration,
    /// The hard deadline of one redeem.
    pub timeout: Duration,
    /// How long a claim stands without renewal (30 to 60 s).
    pub lease: Duration,
    /// The least time between a commit and the next redeem that devices cause; doubles while successive versions are
    /// rejected; zero turns the limit off.
    pub reject_interval: Duration,
    /// How long to wait for a late result of a device or another node once nothing is left to lose.
    pub late_wait: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            refresher: Refresher::Hub,
            hub_may_redeem: true,
            lead: Duration::from_secs(300),
            grace: Duration::ZERO,
            timeout: Duration::from_secs(20),
            lease: Duration::from_secs(45),
            reject_interval: Duration::from_secs(30),
            late_wait: Duration::from_secs(60),
        }
    }
}

//! The seam between the drop-in endpoint and the grants.

use std::time::Duration;

use async_trait::async_trait;
use lockstep_protocol::{GrantName, UnixSeconds, UserId, frame};

/// What the drop-in endpoint needs of the hub's core.
#[async_trait]
pub trait Grants: Send + Sync + 'static {
    /// The newest token set of a grant, with at least `min_validity` left (capped at half the token's life). If it has
    /// less, or the newest is known to be dead, a redeem is joined or started first, and its outcome waited for
    /// (bounded). Whoever asks while a redeem is under way joins it.
    ///
    /// # Errors
    /// [`GrantTrouble`] when there is no good token to be had now.
    async fn token(
        &self,
        user: &UserId,
        grant: &GrantName,
        min_validity: Duration,
    ) -> Result<frame::Token, GrantTrouble>;
}

/// Why there is no good token to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantTrouble {
    /// No such grant, or deleted.
    #[error("no such grant")]
    Unknown,
    /// Somebody must log in again.
    #[error("log in again: {0}")]
    Dead(String),
    /// It may be better later.
    #[error("not now: {reason}")]
    Passing {
        /// In words for people; never a secret.
        reason: String,
        /// When to ask again, if known.
        retry_at: Option<UnixSeconds>,
    },
}

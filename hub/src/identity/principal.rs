//! What an access token says of its holder.

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, UserId};

use crate::store::DeviceKind;

/// A device that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose device.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
    /// What it is.
    pub kind: DeviceKind,
    /// Its weight in elections; `hello` may lower it.
    pub priority: u8,
    /// Whether it may redeem.
    pub redeemer: bool,
    /// Whether it may offer a fresh login.
    pub may_offer: bool,
    /// When the token that proved it expires.
    pub expires_at: Unix,
    /// Whether an identity provider vouches for it, and not a token of the hub's own.
    pub is_external: bool,
}

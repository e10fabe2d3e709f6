//! What is worth a record. Names, ids and hashes; never a secret.

use lockstep_protocol::{DeviceId, GrantName, LeaseId, UserId, Version, frame::Cause};
use serde::{Deserialize, Serialize};

use crate::store::{DeviceKind, Hash};

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The hub by itself.
    Hub,
    /// The administrator.
    Admin,
    /// A device.
    Device(DeviceId),
}

/// Why a device was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedWhy {
    /// The administrator said so.
    Admin,
    /// Whoever holds its refresh token said so (RFC 7009).
    Holder,
    /// An old refresh token was used again.
    Replayed,
    /// Its user was deleted.
    UserDeleted,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The hub started.
    Started {
        /// Its version.
        version: String,
        /// The key that signs from here on.
        key: String,
    },
    /// A device was enrolled.
    Enrolled {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// What it is.
        kind: DeviceKind,
        /// Whether it may redeem.
        redeemer: bool,
        /// Whether it may offer a fresh login.
        may_offer: bool,
        /// By whom; a device: the one that approved a code.
        by: By,
    },
    /// A device was revoked.
    Revoked {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// Why.
        why: RevokedWhy,
    },
    /// A device was given a slave refresh token.
    SlaveMade {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// For which grant.
        grant: GrantName,
    },
    /// A slave refresh token was ended by its holder.
    SlaveDropped {
        /// Whose.
        user: UserId,
        /// Which device's.
        device: DeviceId,
        /// For which grant.
        grant: GrantName,
    },
    /// A refresh token was, or may have been, sent to a provider.
    Redeem {
        /// Whose grant.
        user: UserId,
        /// Which.
        grant: GrantName,
        /// The version that was redeemed.
        version: Version,
        /// The lease.
        lease: LeaseId,
        /// Who sent it.
        by: By,
        /// What came of it, in the words of the outcomes.
        outcome: String,
    },
    /// A token set was committed.
    Commit {
        /// Whose grant.
        user: UserId,
        /// Which.
        grant: GrantName,
        /// The new version.
        version: Version,
        /// A redeem or a login.
        cause: Cause,
        /// Who brought it.
        by: By,
        /// SHA-256 of the access token, as hex: with it a device can tell that what it was pushed is what was committed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access_token: Option<HexHash>,
    },
    /// A grant was deleted.
    GrantDeleted {
        /// Whose.
        user: UserId,
        /// Which.
        grant: GrantName,
    },
    /// A user was deleted, with all grants and devices.
    UserDeleted {
        /// Who.
        user: UserId,
    },
    /// The admin API was called.
    AdminCall {
        /// The HTTP method.
        method: String,
        /// The path, without the query.
        path: String,
        /// The answer's HTTP status.
        status: u16,
    },
    /// Records that the log could not take down.
    Lost {
        /// How many.
        count: u64,
    },
    /// Half a line, cut off at the end when the hub died.
    Repaired {
        /// Its length in bytes.
        bytes: u64,
    },
}

/// A hash, written in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HexHash(#[serde(with = "super::chain::hex")] pub [u8; 32]);

impl From<Hash> for HexHash {
    fn from(hash: Hash) -> Self {
        Self(hash.0)
    }
}

//! What is worth a record. Names, ids and hashes; never a secret.

use aws_lc_rs::digest::{SHA256, digest};
use lockstep_protocol::{DeviceId, Epoch, GrantName, LeaseId, Secret, UserId, Version, frame::Cause};
use serde::{Deserialize, Serialize};

use super::Link;
use crate::store::DeviceKind;

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
    /// The identity provider that the settings name: it vouched for the user.
    IdentityProvider,
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
    /// A slave refresh token was ended, by its holder or by the administrator.
    SlaveDropped {
        /// Whose.
        user: UserId,
        /// Which device's.
        device: DeviceId,
        /// For which grant.
        grant: GrantName,
    },
    /// Somebody brought a login.
    Login {
        /// Whose grant.
        user: UserId,
        /// Which.
        grant: GrantName,
        /// The version that it became, or that it was already.
        version: Version,
        /// Who brought it.
        by: By,
    },
    /// A refresh token was handed to a device, to be redeemed there.
    HandedOut {
        /// Whose grant.
        user: UserId,
        /// Which.
        grant: GrantName,
        /// The lease.
        lease: LeaseId,
        /// To whom.
        device: DeviceId,
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
        /// Who redeemed; none for a login, which has a record of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
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
    /// The admin API was called with its token.
    AdminCall {
        /// The HTTP method.
        method: String,
        /// The path, without the query.
        path: String,
        /// The answer's HTTP status.
        status: u16,
    },
    /// A fresh sealing key seals from here on.
    KeyAdded {
        /// Its id.
        key: String,
    },
    /// A sealing key is forgotten.
    KeyRemoved {
        /// Its id.
        key: String,
    },
    /// The store went back in time, or was told that it did: a new epoch, every grant suspect.
    StoreRestored {
        /// The new epoch.
        epoch: Epoch,
    },
    /// Records that the log could not take down.
    Lost {
        /// How many.
        count: u64,
    },
    /// Old records are dropped, because the settings say how long they are kept: all up to this one.
    Expired {
        /// Its number.
        through: u64,
        /// Its link.
        last: Link,
    },
    /// The store knew a record of this chain that was not in it when the hub started.
    Missing {
        /// Its number.
        known: u64,
        /// Its link.
        was: Link,
    },
    /// Records right before this one that nobody had signed for when the hub started.
    Unsigned {
        /// How many, at least.
        records: u64,
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

impl HexHash {
    /// Plain SHA-256: what a device can compute of the token that it holds.
    pub fn plain(token: &Secret) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
        Self(hash)
    }
}

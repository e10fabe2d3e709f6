//! What is known of a grant, as the store keeps it.
//!
//! The store holds the same record with sealed token sets: `GrantRecord<Sealed>`. The engine only ever sees it opened.

use lockstep_protocol::{DeviceId, LeaseId, Secret, Seq, Version, frame::Cause};
use serde::{Deserialize, Serialize};

use crate::time::Unix;

/// Access token, refresh token, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSet {
    /// Absent after a login that brought only a refresh token.
    pub access_token: Option<Secret>,
    /// Absent for grants that cannot be refreshed.
    pub refresh_token: Option<Secret>,
    /// `Bearer` almost always.
    pub token_type: String,
    /// The scope granted, if known.
    pub scope: Option<String>,
    /// When the access token expires, if known.
    pub expires_at: Option<Unix>,
    /// When the refresh token expires, if known.
    pub refresh_expires_at: Option<Unix>,
}

/// The durable part of a grant's health; `refreshing` is a passing word and is not stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Good.
    #[default]
    Ok,
    /// The outcome of a redeem is unknown.
    Suspect,
    /// Somebody must log in again.
    ReauthRequired,
    /// A tombstone: it keeps the version, so that a grant made anew goes on above it.
    Deleted,
}

/// A node and one run of it. A restarted node judges the claims of its former incarnations at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The node's lasting name.
    pub node: String,
    /// Rises with every start of the node.
    pub incarnation: u64,
}

/// What a claim is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The first redeem of a version, or the next after an outcome that says "not processed".
    Redeem,
    /// The same refresh token again, inside the provider's grace window.
    Grace,
    /// The last try, when nothing is left to lose. Recorded so that there is only one.
    LastTry,
    /// The alternate's refresh token, before the grant is given up.
    Alternate,
}

/// The durable record of a lease, written before anything is sent.
///
/// Without an outcome it means *unknown*, never *did not happen*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The lease.
    pub lease: LeaseId,
    /// Fencing number: rises by one with every claim of the grant.
    pub fence: u64,
    /// Who holds it.
    pub holder: Holder,
    /// What for.
    pub purpose: Purpose,
    /// When it was taken, by the store's clock.
    pub taken_at: Unix,
    /// When it lapses, by the store's clock.
    pub expires_at: Unix,
    /// Whether it was taken for an election: then nothing is sent before `handed_to` is written, and a claim without it
    /// did certainly not happen.
    pub for_device: bool,
    /// The device that was given the refresh token, once it was.
    pub handed_to: Option<DeviceId>,
}

/// That some redeem of the current version may have been processed by the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// When the first claim in doubt was taken, by the store's clock. The provider's grace is counted from here.
    pub since: Unix,
    /// A late result may come until then, because the refresh token was with a device or another node. None: the hub
    /// itself held it and heard nothing, so nothing can come.
    pub late_until: Option<Unix>,
    /// Whether the last try was made.
    pub last_try: bool,
    /// Whether the provider said that somebody else redeemed it: then trying again is pointless.
    pub conflict: bool,
    /// Whether devices found the access token dead (two witnesses): it is not sent to anybody any more.
    pub dead: bool,
    /// Why, in words for people.
    pub reason: String,
}

/// Everything that is stored of one grant. `T` is the token set: open in the engine, sealed in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord<T = TokenSet> {
    /// Rises with every write of this record, claims and renewals included: tells an old reading from a new one.
    pub revision: u64,
    /// The newest committed version.
    pub version: Version,
    /// The user's seq at the newest change of this grant.
    pub seq: Seq,
    /// How it fares.
    pub health: Health,
    /// Why it does not fare well, in words for people; never a secret.
    pub reason: Option<String>,
    /// When to expect better.
    pub retry_at: Option<Unix>,
    /// The newest token set; none in a tombstone.
    pub tokens: Option<T>,
    /// When the access token expires: unsealed, because queries and operators need it.
    pub expires_at: Option<Unix>,
    /// When the newest token set was issued, by the hub's clock.
    pub refreshed_at: Unix,
    /// Where the newest token set came from.
    pub cause: Cause,
    /// When the scheduler is to redeem next; none: on demand only.
    pub due_at: Option<Unix>,
    /// The claim that stands, if one does.
    pub claim: Option<Claim>,
    /// Rises by one with every claim and every verdict: what a decision was judged on has changed if this has. The fencing
    /// number of a claim is its value then.
    pub fence: u64,
    /// Every lease ever taken for the current version: each may still publish. Those that were handed to a device come
    /// first. At most [`GrantRecord::MAX_LEASES`] are kept: the first [`GrantRecord::MAX_HANDED`], and the newest.
    pub leases: Vec<LeaseId>,
    /// `leases` as it was when the former version was current: a second result under one of them is the alternate.
    pub former_leases: Vec<LeaseId>,
    /// The lease whose redeem made the current version: tells a duplicate from a late result.
    pub committed_by: Option<LeaseId>,
    /// Doubt about the current version.
    pub doubt: Option<Doubt>,
    /// The result of a second successful redeem of the previous version, tried before the grant is given up.
    pub alternate: Option<T>,
    /// How many successive versions were rejected by devices.
    pub rejected_in_a_row: u32,
}

impl<T> GrantRecord<T> {
    /// How many leases of one version are remembered.
    pub const MAX_LEASES: usize = 32;
    /// How many of them are remembered whatever comes after: each is a refresh token in a device's hands.
    pub const MAX_HANDED: usize = 16;

    /// Remembers a lease that is taken.
    pub fn remember_lease(&mut self, lease: LeaseId) {
        if self.leases.len() >= Self::MAX_LEASES {
            self.leases.remove(Self::MAX_HANDED);
        }
        self.leases.push(lease);
    }

    /// Remembers that a lease is handed to a device.
    pub fn remember_handed(&mut self, lease: LeaseId) {
        self.leases.retain(|other| *other != lease);
        self.leases.insert(0, lease);
    }
}

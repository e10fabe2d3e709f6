//! Rows about grants.

use std::fmt;

use lockstep_engine::{
    grant::Verdict,
    record::{Doubt, GrantRecord, Holder, Purpose},
    time::Unix,
};
use lockstep_protocol::{GrantName, LeaseId, Seq, UserId, Version, frame::Cause};
use serde::{Deserialize, Serialize};

/// SHA-256 of a token: enough to recognise it, useless to present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// Bytes sealed with an authenticated cipher.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key sealed it.
    pub key: u32,
    /// Nonce and ciphertext.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(key {}, {} bytes)", self.key, self.bytes.len())
    }
}

/// A grant as a store keeps it.
pub type StoredGrant = GrantRecord<Sealed>;

/// All of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserState {
    /// The seq of the newest change of any grant.
    pub seq: Seq,
    /// Whether the user was deleted, and has neither logged in nor enrolled a device since.
    pub deleted: bool,
    /// All grants, tombstones included, in order of name.
    pub grants: Vec<(GrantName, StoredGrant)>,
}

/// A claim to be taken.
#[derive(Debug, Clone)]
pub struct ClaimRow {
    /// Whose grant.
    pub user: UserId,
    /// Which.
    pub grant: GrantName,
    /// The lease.
    pub lease: LeaseId,
    /// Who takes it.
    pub holder: Holder,
    /// Only if this is the newest version.
    pub from_version: Version,
    /// Only if no claim stands, or this one does and may be taken over.
    pub over: Option<LeaseId>,
    /// Only if the record's fence is this: no claim and no verdict was written since the claim was decided on. None: whatever
    /// was.
    pub fence: Option<u64>,
    /// How long it stands, in milliseconds.
    pub ttl_ms: u64,
    /// What for.
    pub purpose: Purpose,
    /// Whether it is for an election (see [`lockstep_engine::record::Claim::for_device`]).
    pub for_device: bool,
    /// The record's doubt from now on.
    pub doubt: Option<Doubt>,
}

/// What came of a claim.
#[derive(Debug, Clone)]
pub enum Claimed {
    /// It stands; the record, claim included.
    Won(Box<StoredGrant>),
    /// A condition failed; the record as it is.
    Lost(Box<StoredGrant>),
    /// No such grant.
    Gone,
}

/// What to claim ahead of expiry.
#[derive(Debug, Clone)]
pub struct DueQuery {
    /// At which provider.
    pub provider: String,
    /// Who takes the claims.
    pub holder: Holder,
    /// How long each stands, in milliseconds.
    pub ttl_ms: u64,
    /// Only grants used at or after this time.
    pub used_since: Unix,
    /// Of those, what was not used at or after this time sleeps until its `wake_at`.
    pub in_use_since: Unix,
    /// One fresh lease for each permit in hand: the most that may be claimed.
    pub leases: Vec<LeaseId>,
    /// Leases of former queries whose answer was lost. What they claimed all the same comes first.
    pub lost: Vec<LeaseId>,
}

/// A grant that is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// Whose grant.
    pub user: UserId,
    /// Which.
    pub grant: GrantName,
    /// Whether it was claimed. If not, a claim without outcome stands that was abandoned: what became of that is for the
    /// grant's machine to judge.
    pub claimed: bool,
    /// The record as it is now, claim included.
    pub record: StoredGrant,
}

/// A token set to be committed.
#[derive(Debug, Clone)]
pub struct CommitRow {
    /// Whose grant.
    pub user: UserId,
    /// Which.
    pub grant: GrantName,
    /// The lease of the redeem; none for a login.
    pub lease: Option<LeaseId>,
    /// The version that this one follows; 0 makes the grant.
    pub from_version: Version,
    /// The new token set, sealed for `from_version + 1`.
    pub tokens: Sealed,
    /// When the access token expires.
    pub expires_at: Option<Unix>,
    /// Where it came from.
    pub cause: Cause,
    /// When the provider issued it.
    pub refreshed_at: Unix,
    /// When the scheduler is to redeem next.
    pub due_at: Option<Unix>,
    /// When it is to redeem instead, if nobody uses the grant by `due_at`.
    pub wake_at: Option<Unix>,
    /// Hash of the refresh token that is used up now.
    pub retire: Option<Hash>,
    /// Refuse if this one was retired before.
    pub unless_retired: Option<Hash>,
    /// The new count of successive rejections.
    pub rejected_in_a_row: u32,
}

/// What came of a commit.
#[derive(Debug, Clone)]
pub enum Committed {
    /// Durable; the record as it is now.
    Done(Box<StoredGrant>),
    /// The version moved or the grant is deleted; the record as it is now.
    Superseded(Option<Box<StoredGrant>>),
    /// The refresh token was retired before.
    Retired,
}

/// The end of a claim without a commit.
#[derive(Debug, Clone)]
pub struct SettleRow {
    /// Whose grant.
    pub user: UserId,
    /// Which.
    pub grant: GrantName,
    /// The claim that ends.
    pub lease: LeaseId,
    /// Who says so. The claim of another node may only be ended once it has lapsed.
    pub holder: Holder,
    /// The version it is about.
    pub version: Version,
    /// Only if the record's fence is this: no claim and no verdict was written since this one was decided on. None: whatever
    /// was.
    pub fence: Option<u64>,
    /// What is now known.
    pub verdict: Verdict,
}

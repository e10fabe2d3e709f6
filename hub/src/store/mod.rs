//! Where everything durable lives: the truth about users, grants and devices.
//!
//! One trait, three kinds of implementation chosen by URL, one conformance suite for all. *Committed* means: durable
//! here. Token sets arrive sealed; a store never sees a secret.

mod device;
mod embedded;
mod error;
mod grant;
mod local;
mod memory;
mod postgres;
#[cfg(test)]
mod suite;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use lockstep_engine::{preload::Hours, time::Unix};
use lockstep_protocol::{DeviceId, Epoch, GrantName, LeaseId, Seq, UserId, Version};

pub use device::{Device, DeviceKind, Seen, Slave};
pub use error::StoreError;
pub use grant::{
    ClaimRow, Claimed, CommitRow, Committed, Due, DueQuery, Hash, Sealed, SettleRow, StoredGrant, UserState,
};
pub use memory::{memory, memory_with_clock};
pub use postgres::Pooling;
pub(crate) use postgres::options as postgres_options;

/// What a store answers.
pub type Answer<T> = Result<T, StoreError>;

/// A store's lifetime and how far it has come. What a witness outside the store remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Random id of the store's lifetime.
    pub epoch: Epoch,
    /// Rises with every durable change of any grant.
    pub commits: u64,
}

impl Mark {
    /// Whether a store at this mark has lost something that was there at `seen`: it is of an earlier epoch, or behind in the
    /// same one.
    pub const fn is_behind(self, seen: Self) -> bool {
        self.epoch.0 < seen.epoch.0 || self.epoch.0 == seen.epoch.0 && self.commits < seen.commits
    }
}

/// The truth about users, grants and devices.
///
/// Every write is one transaction, durable when it returns `Ok`. After [`StoreError::Unknown`] it may or may not have
/// happened: read again before anything else. Every condition is judged inside the transaction, and every time that a
/// condition compares with is read from the store's own clock.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Epoch and commit number.
    async fn mark(&self) -> Answer<Mark>;

    /// The store's clock: what claims are timed by.
    async fn clock(&self) -> Answer<Unix>;

    /// Proves that the store takes writes now, by making a durable one.
    async fn probe(&self) -> Answer<()>;

    /// Registers a new run of `node` and returns its incarnation, higher than all before.
    async fn start_node(&self, node: &str) -> Answer<u64>;

    /// The store went back in time: in one transaction a new epoch, and every grant that is not deleted becomes
    /// `suspect` with `reason`, its claim gone, its user's seq risen. Of a store with several nodes claims that are lost may
    /// have been under way: a late result is waited for as long as any of them can last.
    async fn restored(&self, epoch: Epoch, reason: &str) -> Answer<Mark>;

    /// The hub has followed the store to `mark`. A shared store that comes back behind what was seen of it, or in another
    /// lifetime, refuses everything but [`Self::mark`] and [`Self::restored`] until then.
    fn follow(&self, _mark: Mark) {}

    /// A sealed value shared by all nodes under `name` (signing keys), if there is one.
    async fn shared(&self, name: &str) -> Answer<Option<Sealed>>;

    /// Writes the shared value `name` if its present value is `over` (none: absent), and returns the value that stands.
    async fn share(&self, name: &str, value: Sealed, over: Option<Sealed>) -> Answer<Sealed>;

    /// The names of all shared values. For re-sealing.
    async fn shared_names(&self) -> Answer<Vec<String>>;

    // Grants.

    /// All of a user: seq and grants, tombstones included. None: never heard of.
    async fn user(&self, user: &UserId) -> Answer<Option<UserState>>;

    /// One grant, tombstones included.
    async fn load(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>>;

    /// Takes a claim if version and fence are those named, the grant is not deleted, and either no claim stands or the one
    /// that stands is `over` and has lapsed, or belongs to an incarnation of the same node not after this one. The fence
    /// rises by one.
    async fn claim(&self, row: ClaimRow) -> Answer<Claimed>;

    /// Claims, oldest first, what is due at one provider: `due_at` reached, no claim, used since `used_since`, and either
    /// used since `in_use_since` or not to sleep any longer (`wake_at` is none or reached). At most as many as leases are
    /// given, those counted that were claimed under one of the `lost` leases. Returns with them, unclaimed and at most as
    /// many, grants whose claim was abandoned: it
    /// is of another node and has lapsed, or is of a former incarnation of the same node. Any other claim of this very
    /// incarnation is in its machine's hand and never returned.
    async fn claim_due(&self, query: DueQuery) -> Answer<Vec<Due>>;

    /// Makes a claim stand for `ttl_ms` from now, if it still stands. A claim that has lapsed but was not replaced may
    /// be renewed.
    async fn renew(&self, user: &UserId, grant: &GrantName, lease: LeaseId, ttl_ms: u64) -> Answer<bool>;

    /// Writes into the claim that the refresh token is handed to `device`, if the claim still stands and has not lapsed.
    async fn hand_out(&self, user: &UserId, grant: &GrantName, lease: LeaseId, device: DeviceId) -> Answer<bool>;

    /// Commits a token set if `from_version` is current: version and seq rise by one, health is `ok`, claim, doubt and
    /// alternate are gone, `leases` become `former_leases`. A tombstone takes only a login. Makes the grant (and the user) when
    /// `from_version` is 0 and there is none.
    async fn commit(&self, row: CommitRow) -> Answer<Committed>;

    /// Keeps a sealed token set as the alternate of `version`, if that is current and it has none.
    async fn keep_alternate(&self, user: &UserId, grant: &GrantName, version: Version, tokens: Sealed) -> Answer<()>;

    /// Ends the claim `lease` (or none) with a verdict, if version and fence are still those named and no other claim
    /// stands; another node's only once it has lapsed. The fence rises by one, and seq if the verdict is to be told. Returns the record as it is now
    /// either way.
    async fn settle(&self, row: SettleRow) -> Answer<Option<StoredGrant>>;

    /// Makes a grant a tombstone (token sets gone, version kept, seq risen) and drops its slaves. None: no such grant.
    async fn delete_grant(&self, user: &UserId, grant: &GrantName) -> Answer<Option<StoredGrant>>;

    /// Makes all of a user's grants tombstones and revokes all devices, in one transaction. Returns the devices
    /// revoked; none: never heard of.
    async fn delete_user(&self, user: &UserId, at: Unix) -> Answer<Option<Vec<DeviceId>>>;

    /// The present seq of each of these users that exists. What the sweep compares with.
    async fn seqs(&self, users: &[UserId]) -> Answer<Vec<(UserId, Seq)>>;

    /// Remembers when grants were last used, by maximum, and learns from it the hours of their users. Need not be durable
    /// at once.
    async fn used(&self, uses: Vec<(UserId, GrantName, Unix)>) -> Answer<()>;

    /// When a user is usually active; none: nothing is known.
    async fn hours(&self, user: &UserId) -> Answer<Option<Hours>>;

    /// Grants in order of (user, grant), after the one given. For re-sealing and for operators.
    async fn scan(
        &self,
        after: Option<(UserId, GrantName)>,
        limit: usize,
    ) -> Answer<Vec<(UserId, GrantName, StoredGrant)>>;

    /// Replaces the sealed token sets of a grant by the same ones sealed with another key, if `version` is current and
    /// the sealed ones are still those given as `over`. Changes neither version nor seq.
    async fn reseal(&self, user: &UserId, grant: &GrantName, over: &StoredGrant, with: StoredGrant) -> Answer<bool>;

    // Devices.

    /// Enrols a device; makes the user if new.
    async fn enrol(&self, device: Device) -> Answer<()>;

    /// One device, revoked ones included.
    async fn device(&self, device: DeviceId) -> Answer<Option<Device>>;

    /// A user's devices that are not revoked.
    async fn devices(&self, user: &UserId) -> Answer<Vec<Device>>;

    /// Moves a device's refresh token one generation on, if it still is of generation `from` and not revoked.
    async fn advance(&self, device: DeviceId, from: u64, newest: Hash) -> Answer<bool>;

    /// Revokes a device and drops its slaves. False: no such device, or revoked before.
    async fn revoke(&self, device: DeviceId, at: Unix) -> Answer<bool>;

    /// Who was revoked at or after `since`.
    async fn revoked_since(&self, since: Unix) -> Answer<Vec<(DeviceId, Unix)>>;

    /// What was seen of devices, by maximum. Need not be durable at once.
    async fn seen(&self, seen: Vec<Seen>) -> Answer<()>;

    /// Keeps a slave refresh token by its hash.
    async fn put_slave(&self, hash: Hash, slave: Slave) -> Answer<()>;

    /// The slave with this hash, unless it, its device or its grant is gone.
    async fn slave(&self, hash: Hash) -> Answer<Option<Slave>>;

    /// All slaves of a device.
    async fn slaves(&self, device: DeviceId) -> Answer<Vec<(Hash, Slave)>>;

    /// Forgets a slave. False: there was none.
    async fn drop_slave(&self, hash: Hash) -> Answer<bool>;
}

/// Opens the store that `url` names: `memory:`, `file:PATH` (relative to `base`) or `postgres://…`.
///
/// # Errors
/// [`StoreError::Refused`] when it is no such URL, or the store cannot be reached, made, locked or written;
/// [`StoreError::Corrupt`] when what is there is no store.
pub async fn open(url: &str, base: &Path) -> Answer<Arc<dyn Store>> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(memory()),
        Some(("file", path)) if !path.is_empty() => {
            let path = base.join(path);
            // Repair after a crash reads the whole file.
            let opened = tokio::task::spawn_blocking(move || embedded::open(&path)).await;
            opened.unwrap_or_else(|error| Err(StoreError::Refused(error.to_string())))
        }
        Some(("postgres" | "postgresql", _)) => postgres(url, &Pooling::default()).await,
        _ => Err(StoreError::Refused(
            "store url: must be memory:, file:PATH or postgres://…".into(),
        )),
    }
}

/// Opens the store of several nodes at `url` (`postgres://…`), making or upgrading its tables. A server that cannot be
/// reached is tried again for as long as `pooling` says.
///
/// # Errors
/// [`StoreError::Refused`] when it cannot be reached in that time, or says no.
pub async fn postgres(url: &str, pooling: &Pooling) -> Answer<Arc<dyn Store>> {
    Ok(Arc::new(postgres::open(url, pooling).await?))
}

/// Settings allow no longer lease, in milliseconds. Whoever held one when a store went back in time is done after this.
const LONGEST_LEASE_MS: u64 = 60_000;

fn fresh_epoch() -> Epoch {
    // The upper half is for the epochs that follow.
    Epoch(rand::random::<u64>() >> 1)
}

/// The epoch of a store that may have gone back in time: random, and above all that it is to follow. So a store that is
/// restored from a backup of an earlier epoch is told from one that has moved on to a later one.
pub fn epoch_after(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_add(rand::random_range(1..1 << 40)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_an_earlier_epoch_is_behind_as_well_as_one_with_fewer_commits() {
        let mark = |epoch: Epoch, commits| Mark { epoch, commits };
        let first = Epoch(7);
        let second = epoch_after(first);
        assert!(mark(first, 9).is_behind(mark(first, 10)));
        assert!(
            mark(first, 50).is_behind(mark(second, 10)),
            "the same backup, restored once more"
        );
        assert!(!mark(first, 10).is_behind(mark(first, 10)));
        assert!(!mark(first, 11).is_behind(mark(first, 10)));
        assert!(
            !mark(second, 0).is_behind(mark(first, 10)),
            "another node noticed it already"
        );
    }
}
